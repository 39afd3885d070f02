//! Servers that start at the same Unix path at the same time, and paths as long as unix(7) allows.
//!
//! What may live in this file: what binding does to the directory of a socket file. Threads stand for processes here: all
//! that they share is the file system.

use crate::support::{Dir, Model, Running, Talk, connect, exists};
use echo_reactor::Limits;
use echo_reactor::net::{BindOptions, BoundSocket, Endpoint, UnixName};
use socket2::SockRef;
use std::fs;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::thread;

fn endpoint(path: PathBuf) -> Endpoint {
    Endpoint::Unix(UnixName::Path(path))
}

/// So many servers start at once. The ones that came to serve.
fn start_at_once(count: usize, endpoint: &Endpoint) -> Vec<BoundSocket> {
    let barrier = Barrier::new(count);
    thread::scope(|scope| {
        let start = || {
            barrier.wait();
            BoundSocket::new(endpoint, &BindOptions::default())
        };
        let starting: Vec<_> = (0..count).map(|_| scope.spawn(start)).collect();
        let started = starting.into_iter().map(|server| server.join().unwrap());
        started.filter_map(Result::ok).collect()
    })
}

#[test]
fn of_servers_that_start_at_once_exactly_one_serves() {
    let directory = Dir::new();
    let path = directory.path("s");
    for round in 0..40 {
        if round % 2 == 1 {
            drop(UnixListener::bind(&path).unwrap()); // a dead server's file
        }
        let servers = start_at_once(6, &endpoint(path.clone()));
        assert_eq!(servers.len(), 1, "round {round}");
        let client = UnixStream::connect(&path).expect("its file leads to it");
        SockRef::from(&servers[0])
            .accept()
            .expect("and to no other");
        drop((client, servers));
        let left = fs::read_dir(directory.path("")).unwrap().count();
        assert_eq!(left, 0, "nothing is left behind in round {round}");
    }
}

#[test]
fn a_server_that_is_refused_leaves_nothing_behind() {
    let directory = Dir::new();
    let endpoint = endpoint(directory.path("s"));
    let _serving = BoundSocket::new(&endpoint, &BindOptions::default()).unwrap();
    for _ in 0..3 {
        BoundSocket::new(&endpoint, &BindOptions::default()).unwrap_err();
    }
    assert_eq!(fs::read_dir(directory.path("")).unwrap().count(), 1);
}

/// A server that is bound and does not listen as yet refuses clients, and is alive all the same.
#[test]
fn a_server_between_bind_and_listen_is_left_alone() {
    let directory = Dir::new();
    let path = directory.path("s");
    let starting =
        socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    starting
        .bind(&socket2::SockAddr::unix(&path).unwrap())
        .unwrap();
    let error = BoundSocket::new(&endpoint(path.clone()), &BindOptions::default()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    starting.listen(1).unwrap();
    UnixStream::connect(&path).expect("it is where it was");
}

/// The socket is bound under another path first, which may be longer.
#[test]
fn a_path_of_107_bytes_can_be_served_by_a_name_of_any_length() {
    const LONGEST: usize = 107;
    for name_bytes in [1, 2, 6, 7, 40] {
        let directory = Dir::new();
        let room = LONGEST - name_bytes - 1 - directory.path("").as_os_str().len();
        let deep = directory.path(&"d".repeat(room));
        fs::create_dir(&deep).unwrap();
        let path = deep.join("s".repeat(name_bytes));
        assert_eq!(path.as_os_str().len(), LONGEST);
        let served = endpoint(path.clone());
        let server = BoundSocket::new(&served, &BindOptions::default()).unwrap();
        drop(connect(&served));
        drop(server);
        assert!(!exists(&path));
        let datagrams = Endpoint::UnixDatagram(UnixName::Path(path.clone()));
        let server = BoundSocket::new(&datagrams, &BindOptions::default()).unwrap();
        UnixDatagram::unbound().unwrap().connect(&path).unwrap();
        drop(server);
        assert_eq!(fs::read_dir(deep).unwrap().count(), 0);
    }
}

/// Binds a socket of this kind (1: stream, 2: datagrams) to a path of 108 bytes, which no safe call of Rust allows, and
/// sends five bytes to a server. Linux tells a length of 111 for its address, one more than `sockaddr_un` has.
const BIND_108: &str = "
import ctypes, socket, struct, sys
kind, own, server = int(sys.argv[1]), sys.argv[2].encode(), sys.argv[3]
client = socket.socket(socket.AF_UNIX, kind)
address = struct.pack('=H108s', socket.AF_UNIX, own)
assert len(own) == 108 and ctypes.CDLL(None).bind(client.fileno(), address, len(address)) == 0
client.connect(server)
client.send(b'hello')
if kind == 1:
    client.settimeout(30)
    assert client.recv(16) == b'hello'
";

#[track_caller]
fn ask_from_longest_name(kind: &str, directory: &Dir, server: &Path) {
    let room = 108 - directory.path("").as_os_str().len();
    let own = directory.path(&"l".repeat(room));
    let asked = Command::new("python3")
        .args(["-c", BIND_108, kind])
        .args([&own, server])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&asked.stderr);
    assert!(asked.status.success(), "{said}");
    fs::remove_file(own).unwrap();
}

#[test]
fn a_client_with_the_longest_name_of_all_harms_no_server() {
    if Command::new("python3").arg("-V").output().is_err() {
        return crate::support::skip("there is no python3");
    }
    for model in [Model::Reactor, Model::Threads] {
        let directory = Dir::new();
        let address = directory.address("unix", "s");
        let server = Running::start(model, &[&address], Limits::default());
        ask_from_longest_name("1", &directory, &directory.path("s"));
        server.connect().is_echoed(b"and the next one");
        server.drain();
    }
    let directory = Dir::new();
    let address = directory.address("unixgram", "s");
    let server = Running::reactor(&[&address], Limits::default());
    ask_from_longest_name("2", &directory, &directory.path("s"));
    let client = UnixDatagram::bind(directory.path("client")).unwrap();
    client
        .set_read_timeout(Some(crate::support::DEADLINE))
        .unwrap();
    client.send_to(b"next", directory.path("s")).unwrap();
    assert_eq!(client.recv(&mut [0; 16]).unwrap(), 4);
    let stats = server.drain();
    assert_eq!((stats.datagrams_in, stats.datagrams_out), (2, 1));
}
