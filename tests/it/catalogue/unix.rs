//! X: the file of a Unix socket, and what arrives over one.

use crate::support::{
    DEADLINE, Dir, Running, Serve, Talk, connect, ended, exists, program, skip, try_connect,
    wait_until,
};
use echo_reactor::Limits;
use echo_reactor::net::{Endpoint, UnixName};
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::fs;
use std::io::{IoSlice, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn x1_the_socket_of_a_server_that_was_killed_is_replaced() {
    let directory = Dir::new();
    let address = directory.address("unix", "s");
    let datagrams = directory.address("unixgram", "d");
    let first = Serve::start(&[&address, &datagrams], &[]);
    drop(first); // by SIGKILL
    assert!(exists(&directory.path("s")) && exists(&directory.path("d")));
    let second = Serve::start(&[&address, &datagrams], &[]);
    second.connect().is_echoed(b"as if nothing had happened");
    assert_eq!(second.stop(Signal::SIGTERM).code, 0);
    assert_eq!(fs::read_dir(directory.path("")).unwrap().count(), 0);
}

#[test]
fn x2_the_socket_of_a_running_server_is_not_replaced() {
    let directory = Dir::new();
    let address = directory.address("unix", "s");
    let first = Serve::start(&[&address], &[]);
    let inode = fs::metadata(directory.path("s")).unwrap().ino();
    let second = ended(program().args(["serve", &address]));
    second.failed(69, &[&address, "a server is listening there"]);
    assert_eq!(fs::metadata(directory.path("s")).unwrap().ino(), inode);
    first.connect().is_echoed(b"still mine");
    assert_eq!(
        fs::read_dir(directory.path("")).unwrap().count(),
        1,
        "nothing is left over"
    );
}

#[test]
fn x3_what_is_no_socket_is_refused_and_stays() {
    let directory = Dir::new();
    fs::write(directory.path("file"), "precious").unwrap();
    fs::create_dir(directory.path("directory")).unwrap();
    symlink(directory.path("file"), directory.path("link")).unwrap();
    for name in ["file", "directory", "link"] {
        let address = directory.address("unix", name);
        let refused = ended(program().args(["serve", &address]));
        refused.failed(
            73,
            &[&address, "not a socket", "remove it or choose another path"],
        );
    }
    let precious = fs::read_to_string(directory.path("file")).unwrap();
    assert_eq!(precious, "precious");
    let link = fs::symlink_metadata(directory.path("link")).unwrap();
    assert!(link.is_symlink());
    assert_eq!(fs::read_dir(directory.path("")).unwrap().count(), 3);
}

#[test]
fn x3_the_stale_socket_of_another_user_is_refused_and_stays() {
    const ANOTHER_USER: u32 = 12_345;
    let directory = Dir::new();
    let path = directory.path("s");
    drop(UnixListener::bind(&path).unwrap());
    if chown(&path, Some(ANOTHER_USER), None).is_err() {
        return skip("only root can make a file of another user");
    }
    let address = directory.address("unix", "s");
    let refused = ended(program().args(["serve", &address]));
    refused.failed(73, &[&address, "belongs to user 12345", "remove it"]);
    assert_eq!(fs::metadata(&path).unwrap().uid(), ANOTHER_USER);
    assert_eq!(fs::read_dir(directory.path("")).unwrap().count(), 1);
}

fn mode(path: &Path) -> Option<u32> {
    Some(fs::symlink_metadata(path).ok()?.permissions().mode() & 0o777)
}

#[test]
fn x4_a_socket_file_has_the_mode_that_was_asked_for() {
    let directory = Dir::new();
    let mode = |name: &str| mode(&directory.path(name));
    let _usual = Serve::start(&[&directory.address("unix", "usual")], &[]);
    assert_eq!(mode("usual"), Some(0o600));
    let flags = ["--unix-mode", "0662"];
    let addresses = [
        directory.address("unix", "s"),
        directory.address("unixgram", "d"),
    ];
    let _open = Serve::start(&[&addresses[0], &addresses[1]], &flags);
    assert_eq!((mode("s"), mode("d")), (Some(0o662), Some(0o662)));
}

/// With a umask that allows every user, checked as often as possible, while a server starts again and again.
#[test]
fn x4_the_mode_is_never_wider_not_even_while_it_starts() {
    let directory = Dir::new();
    let path = directory.path("s");
    let mut seen = 0;
    for _ in 0..10 {
        let mut command = Command::new("sh");
        command
            .args(["-c", "umask 0; exec \"$0\" serve \"$1\""])
            .args([
                env!("CARGO_BIN_EXE_echo-reactor"),
                &directory.address("unix", "s"),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let before = fs::symlink_metadata(&path).ok().map(|file| file.ino());
        let server = Serve::spawn(&mut command);
        wait_until("the new file is there", || {
            for entry in fs::read_dir(directory.path("")).unwrap().flatten() {
                // The socket's file, or the directory in which it is staged, where nothing can be reached meanwhile.
                let mode = mode(&entry.path()).unwrap_or(0);
                assert_eq!(mode & 0o077, 0, "{:?} has mode {mode:o}", entry.path());
                seen += 1;
            }
            let now = fs::symlink_metadata(&path).ok().map(|file| file.ino());
            now.is_some() && now != before
        });
        drop(server); // by SIGKILL, so that the next one finds a stale file
    }
    println!("x4: checked {seen} files while ten servers started");
}

#[test]
fn x5_an_impossible_path_is_refused() {
    let missing = ended(program().args(["serve", "unix:///nowhere/at/all"]));
    missing.failed(73, &["unix:///nowhere/at/all", "no directory /nowhere/at"]);
    let long = format!("unix:///{}", "x".repeat(120));
    ended(program().args(["serve", &long])).failed(64, &["121 bytes", "107"]);
    // No process can make files there, not even root's.
    let closed = ended(program().args(["serve", "unix:///proc/self/s"]));
    closed.failed(73, &["unix:///proc/self/s", "may make files"]);
}

#[test]
fn x6_the_socket_file_of_a_successor_stays() {
    let directory = Dir::new();
    let server = Running::reactor(&[&directory.address("unix", "s")], Limits::default());
    let successor = Running::reactor(&[&directory.address("unix", "t")], Limits::default());
    fs::rename(directory.path("t"), directory.path("s")).unwrap();
    let endpoint = server.endpoints[0].clone();
    server.drain();
    assert!(exists(&directory.path("s")));
    connect(&endpoint).is_echoed(b"the successor answers");
    assert_eq!(successor.drain().accepted, 1);
}

/// What an old worker does when its program is replaced, within one process.
#[test]
fn x6_a_server_that_hands_its_listeners_over_keeps_the_file_for_the_next_one() {
    use crate::support::{bind, sock_addr, turn_until};
    use echo_reactor::echo::{Server, Turn};
    use echo_reactor::net::{BoundSocket, SocketFile};
    let directory = Dir::new();
    let path = directory.path("s");
    let mut old = bind(&[&directory.address("unix", "s")], Limits::default());
    let address = sock_addr(&old.addresses()[0]);
    let early = try_connect(&address).unwrap();
    let files: Vec<_> = old.files().collect();
    let listeners = old.try_clone_listeners().unwrap().into_iter();
    let listeners = listeners.map(|(listener, _)| BoundSocket::from_fd(listener).unwrap());
    let mut new = Server::with_sockets(listeners.collect(), Limits::default()).unwrap();
    old.detach_listeners();
    assert_eq!(
        old.turn(None).unwrap(),
        Turn::Finished,
        "no connection was open"
    );
    drop(old);
    assert!(exists(&path), "the file was kept");

    for file in files {
        new.adopt_socket_file(SocketFile::from_identity(file));
    }
    early.say(b"I was in the queue");
    let late = try_connect(&address).unwrap();
    late.say(b"and I came later");
    turn_until(&mut new, "both are echoed", |stats| stats.bytes_out == 34);
    assert_eq!(early.hear(18), b"I was in the queue");
    assert_eq!(late.hear(16), b"and I came later");
    drop(new);
    assert!(!exists(&path), "the last one has removed it");
}

/// Sends bytes with descriptors attached (SCM_RIGHTS), and more bytes after them.
#[track_caller]
fn send_descriptors(client: &UnixStream, count: usize) {
    let descriptors = vec![client.as_raw_fd(); count];
    let control = [ControlMessage::ScmRights(&descriptors)];
    let bytes = [IoSlice::new(b"with descriptors, ")];
    let sent = sendmsg::<()>(
        client.as_raw_fd(),
        &bytes,
        &control,
        MsgFlags::empty(),
        None,
    );
    assert_eq!(sent.unwrap(), 18);
}

#[test]
fn x7_received_descriptors_are_closed_and_the_bytes_after_them_come_back() {
    for model in ["reactor", "threads"] {
        let directory = Dir::new();
        let address = directory.address("unix", "echo");
        let server = Serve::start(&[&address], &["--model", model]);
        let Endpoint::Unix(UnixName::Path(path)) = &server.endpoints[0] else {
            panic!("{address} is a file");
        };
        let mut client = UnixStream::connect(path).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client.write_all(b"before").unwrap();
        client.read_exact(&mut [0; 6]).unwrap();
        let open = server.descriptors();

        client.write_all(b"plain, ").unwrap();
        send_descriptors(&client, 253); // the most that one message may carry (SCM_MAX_FD)
        send_descriptors(&client, 1);
        client.write_all(b"and more").unwrap();
        let mut echoed = vec![0; 7 + 18 + 18 + 8];
        client
            .read_exact(&mut echoed)
            .expect("nothing is left behind");
        assert_eq!(
            echoed,
            b"plain, with descriptors, with descriptors, and more"
        );
        assert_eq!(server.descriptors(), open, "{model}");
    }
}
