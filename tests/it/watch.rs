//! `serve --watch` and `watch`: the state of a running server, and that a watcher harms nothing.

use crate::support::fault::{can, in_own_network};
use crate::support::{
    DEADLINE, Dir, Ended, Serve, Talk, ended, exists, noise, program, stick, terminal, wait_until,
};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

const TCP: &str = "tcp://127.0.0.1:0";
const REQUEST: &[u8] = b"echo-reactor watch 1";

/// A server that is watched at a path.
struct Watched {
    serve: Serve,
    socket: String,
    directory: Dir,
}

impl Watched {
    #[track_caller]
    fn start(flags: &[&str]) -> Self {
        let directory = Dir::new();
        let socket = directory.path("watch").to_str().unwrap().to_owned();
        let watch = format!("--watch={socket}");
        let serve = Serve::start(&[TCP], &[&[&*watch], flags].concat());
        Self {
            serve,
            socket,
            directory,
        }
    }

    /// The state, value by name.
    #[track_caller]
    fn state(&self) -> BTreeMap<String, String> {
        state(&self.socket)
    }

    #[track_caller]
    fn count(&self, name: &str) -> u64 {
        self.state()[name].parse().unwrap()
    }
}

#[track_caller]
fn watch(arguments: &[&str]) -> Ended {
    ended(program().arg("watch").args(arguments))
}

#[track_caller]
fn state(target: &str) -> BTreeMap<String, String> {
    let shown = watch(&[target, "--once"]);
    assert_eq!((shown.code, shown.err.as_str()), (0, ""));
    let pairs = shown.out.lines().map(|line| line.split_once(' ').unwrap());
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

// --- The state ---------------------------------------------------------------------------------------------------------

#[test]
fn connections_are_counted_by_what_they_wait_for() {
    let patient = ["--drain-timeout", "1h", "--drain-idle-timeout", "1ms"];
    let watched = Watched::start(&[&patient[..], &["--fin-timeout", "10m"]].concat());
    let (reader, slow) = (watched.serve.connect(), watched.serve.connect());
    reader.is_echoed(b"hello");
    stick(&slow);
    wait_until("one is reading, one writing", || {
        let state = watched.state();
        (&*state["reading"], &*state["writing"]) == ("1", "1")
    });
    let state = watched.state();
    assert_eq!(state["process"], watched.serve.pid().to_string());
    assert_eq!((&*state["phase"], &*state["accepted"]), ("serving", "2"));
    assert_eq!(
        (&*state["lingering"], &*state["accepting_paused"]),
        ("0", "false")
    );
    assert!(watched.count("unsent_bytes") > 0);
    drop(slow);
    wait_until("it is closed", || watched.count("connections_open") == 1);
    watched.serve.signal(Signal::SIGTERM);
    wait_until("the server has sent its FIN", || {
        watched.count("lingering") == 1
    });
    assert_eq!(watched.state()["phase"], "draining");
    drop(reader);
    let socket = watched.directory.path("watch");
    assert_eq!(watched.serve.wait().code, 0);
    assert!(!exists(&socket), "its file is removed");
}

#[test]
fn a_pause_of_accepting_is_shown() {
    let watched = Watched::start(&["--max-connections", "1"]);
    let client = watched.serve.connect();
    client.is_echoed(b"hello");
    let _waits = watched.serve.connect();
    wait_until("it is paused", || {
        watched.state()["accepting_paused"] == "true"
    });
    assert_eq!(watched.count("accept_pauses"), 1);
}

/// In the sandbox, too: it has a list of system calls, and no abstract names but those that are needed.
#[test]
fn a_server_is_found_by_its_process_number_with_its_last_events() {
    let directory = Dir::new();
    let file = directory.path("loop.trace");
    for flags in [&["--watch"][..], &["--watch", "--sandbox"]] {
        let traced = ["--trace", file.to_str().unwrap()];
        let serve = Serve::start(&[TCP], &[flags, &traced].concat());
        serve.connect().is_echoed(b"hello");
        wait_until("it is closed", || serve.counter("connections_open") == 0);
        let pid = serve.pid().to_string();
        assert_eq!(state(&pid)["accepted"], "1");
        let shown = watch(&[&pid, "--once"]).out;
        for event in ["#1     read 5", "#1     closed: peer_closed"] {
            let is_there = |line: &str| line.starts_with("event ") && line.ends_with(event);
            assert!(shown.lines().any(is_there), "{event}: {shown}");
        }
        assert!(!shown.contains("woken"), "{shown}");
        assert_eq!(serve.stop(Signal::SIGTERM).code, 0);
    }
}

/// Abstract names belong to a network namespace, so in one of its own a test sees its own servers alone.
#[test]
fn the_only_server_needs_no_name() {
    if !can(&["ip"]) {
        return;
    }
    in_own_network(&[], || {
        watch(&["--once"]).failed(69, &["no server to watch", "serve --watch"]);
        let first = Serve::start(&[TCP], &["--watch"]);
        let shown = watch(&["--once"]);
        let line = format!("process {}\n", first.pid());
        assert!(shown.out.starts_with(&line), "{}{}", shown.out, shown.err);
        let second = Serve::start(&[TCP], &["--watch"]);
        let both = [&first, &second].map(|serve| serve.pid().to_string());
        watch(&["--once"]).failed(64, &["several", &both[0], &both[1]]);
    });
}

/// A path in the sandbox, whatever the mode of other sockets.
#[test]
fn a_socket_file_is_its_owners_alone() {
    let watched = Watched::start(&["--sandbox", "--unix-mode", "0666"]);
    let mode = fs::metadata(&watched.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(watched.state()["phase"], "serving");
    assert_eq!(watched.serve.stop(Signal::SIGTERM).code, 0);
    assert!(!exists(&watched.directory.path("watch")));
}

// --- Live --------------------------------------------------------------------------------------------------------------

/// The text that a reader has read so far.
fn collect(mut from: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let collected = Arc::clone(&text);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let read = String::from_utf8_lossy(&buffer[..length]).into_owned();
            collected.lock().unwrap().push_str(&read);
        }
    });
    text
}

/// A change is told in the line of its second, and the end of the server by the exit code.
#[test]
fn elsewhere_than_on_a_terminal_each_second_is_a_line_until_the_server_ends() {
    let watched = Watched::start(&[]);
    let mut child = program().args(["watch", &watched.socket]).spawn().unwrap();
    let text = collect(child.stdout.take().unwrap());
    let errors = collect(child.stderr.take().unwrap());
    let says = |word: &str| {
        wait_until(word, || {
            let text = text.lock().unwrap();
            text.lines().any(|line| line.contains(word))
        });
    };
    says("phase=serving open=0 reading=0 writing=0 lingering=0 turns_per_second=- ");
    let client = watched.serve.connect();
    client.is_echoed(b"hello");
    says("  1 connection accepted");
    drop(client);
    says("  1 closed: peer_closed");
    assert!(!text.lock().unwrap().contains('\x1b'));
    assert_eq!(watched.serve.stop(Signal::SIGTERM).code, 0);
    assert_eq!(child.wait().unwrap().code(), Some(69));
    wait_until("the reason is told", || {
        errors.lock().unwrap().contains("refused: unixgram:///")
            && errors.lock().unwrap().contains(": the server has ended\n")
    });
}

#[test]
fn on_a_terminal_lines_are_written_over_and_it_is_left_as_it_was() {
    let watched = Watched::start(&[]);
    for colours in [true, false] {
        let (window, end) = terminal();
        let mut command = program();
        command
            .args(["watch", &watched.socket])
            .stdout(end)
            .env("TERM", "xterm");
        if !colours {
            command.env("NO_COLOR", "1");
        }
        let child = Serve::spawn(&mut command);
        drop(command);
        let text = collect(window);
        wait_until("it has been drawn twice", || {
            text.lock().unwrap().matches("connections  0 open").count() >= 2
        });
        child.signal(Signal::SIGINT);
        assert_eq!(child.wait().code, 0);
        wait_until("all of it is read", || Arc::strong_count(&text) == 1);
        let text = text.lock().unwrap();
        assert_eq!(text.contains("\x1b[1mecho-reactor "), colours, "{text:?}");
        let count = |code: &str| text.matches(code).count();
        assert_eq!(count("\x1b[?7l"), count("\x1b[?7h"), "wrapping is on again");
        assert_eq!(
            count("\x1b[?"),
            2 * count("\x1b[?7l"),
            "no other mode: {text:?}"
        );
        assert_eq!(count("\x1b[6A"), count("\x1b[?7l") - 1, "{text:?}");
        assert!(text.ends_with("\r\n\x1b[J\x1b[?7h"), "{text:?}");
    }
}

#[test]
fn a_reader_that_has_enough_ends_the_command() {
    let watched = Watched::start(&[]);
    let line = format!(
        "{} watch {} | head -n 1",
        program().get_program().to_str().unwrap(),
        watched.socket
    );
    let shown = ended(
        Command::new("sh")
            .args(["-c", &line])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped()),
    );
    assert_eq!((shown.code, shown.err.as_str()), (0, ""));
    assert_eq!(shown.out.lines().count(), 1);
}

// --- The echo is not harmed --------------------------------------------------------------------------------------------

/// Answers are not waited for: the send buffer takes some ninety of them, and the rest is dropped and counted.
#[test]
fn a_watcher_that_asks_and_does_not_read_harms_nothing() {
    let watched = Watched::start(&[]);
    let watcher = UnixDatagram::bind(watched.directory.path("deaf")).unwrap();
    watcher.connect(&watched.socket).unwrap();
    watcher.set_nonblocking(true).unwrap();
    let client = watched.serve.connect();
    let (mut requests, mut round) = (0, 0);
    wait_until("it has asked many times", || {
        while watcher.send(REQUEST).is_ok() {
            requests += 1;
        }
        round += 1;
        client.is_echoed(&noise(round, 4_096));
        requests > 300
    });
    drop(watcher);
    assert!(watched.count("answers_lost") > 100);
    assert_eq!(watched.count("bytes_in"), round * 4_096);
    assert_eq!(watched.serve.stop(Signal::SIGTERM).code, 0);
}

/// What is no request is not answered, and neither is a sender without a name.
#[test]
fn other_datagrams_are_ignored() {
    let watched = Watched::start(&[]);
    let sender = UnixDatagram::bind(watched.directory.path("sender")).unwrap();
    sender.connect(&watched.socket).unwrap();
    sender.set_read_timeout(Some(DEADLINE)).unwrap();
    for other in [
        &b""[..],
        b"hello",
        &noise(1, 60_000),
        b"echo-reactor watch 2",
    ] {
        sender.send(other).unwrap();
    }
    UnixDatagram::unbound()
        .unwrap()
        .send_to(REQUEST, &watched.socket)
        .unwrap();
    sender.send(REQUEST).unwrap();
    let mut answer = [0; 65_536];
    let length = sender.recv(&mut answer).unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer[..length]).unwrap();
    assert_eq!(
        (&answer["watch"], &answer["answers_lost"]),
        (&1.into(), &1.into())
    );
    watched.serve.connect().is_echoed(b"and it echoes");
}

// --- What cannot be ----------------------------------------------------------------------------------------------------

#[test]
fn what_cannot_be_watched_is_refused_with_what_to_do() {
    let serve = |flags: &[&str]| ended(program().args(["serve", TCP]).args(flags));
    serve(&["--watch", "--workers", "2"]).failed(64, &["--watch", "--workers", "SIGUSR1"]);
    serve(&["--watch", "--model", "threads"]).failed(64, &["--watch", "--model reactor"]);
    serve(&["--watch=relative"]).failed(64, &["--watch", "/run/echo.watch"]);
    serve(&["--watch=/nowhere/at/all"]).failed(73, &["/nowhere/at/all"]);

    let once = |target: &str| watch(&[target, "--once"]);
    once("0").failed(64, &["'0'", "no process id"]);
    once("relative").failed(64, &["'relative'", "/run/echo.watch"]);
    once(&i32::MAX.to_string()).failed(69, &["there is no process 2147483647"]);
    let own = std::process::id().to_string();
    once(&own).failed(69, &[&own, "serve --watch"]);
    let directory = Dir::new();
    let path = directory.path("s");
    let path_text = path.to_str().unwrap();
    once(path_text).failed(69, &[path_text, "serve --watch="]);
    let _stream = UnixListener::bind(&path).unwrap();
    once(path_text).failed(69, &["none of serve --watch"]);
    // A socket that takes requests, and does not answer them.
    let silent = directory.path("silent");
    let _silent = UnixDatagram::bind(&silent).unwrap();
    once(silent.to_str().unwrap()).failed(75, &["no answer within 5s"]);
}

#[test]
fn a_server_of_another_user_is_refused() {
    if !can(&["setpriv"]) {
        return;
    }
    let watched = Watched::start(&[]);
    let process = Serve::start(&[TCP], &["--watch"]);
    let open = fs::Permissions::from_mode(0o777);
    fs::set_permissions(watched.directory.path(""), open).unwrap();
    for target in [watched.socket.clone(), process.pid().to_string()] {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(program().get_program())
            .args(["watch", &target, "--once"])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        ended(&mut command).failed(77, &["belongs to another user", "root"]);
    }
}
