//! T: the whole program, under tools that see what no single test checks. T1's matrix over the simulated network is
//! `src/simulation/torture.rs`, T2 is `src/simulation/seeds.rs`; here are the tests of the program on the real kernel.

use crate::support::fault::{can, figure};
use crate::support::{DEADLINE, Dir, Serve, Talk, connect, has_tool, ip, noise, program, wrapped};
use nix::sys::signal::Signal;
use serde_json::Value;
use socket2::Socket;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Every system call that the server makes on its sockets, epoll instances and files, from its start to its end, with
/// the errnos that its man page names and that can occur. (EFAULT would be a bug of the kernel or of std; writes to
/// standard output and error are in the L rows.)
const CALLS: [(&str, &str); 21] = [
    ("socket", "EMFILE ENFILE ENOBUFS ENOMEM EACCES EAFNOSUPPORT"),
    ("setsockopt", "EINVAL ENOPROTOOPT ENOMEM EPERM"),
    ("bind", "EADDRINUSE EACCES EADDRNOTAVAIL ENOENT EROFS"),
    ("listen", "EADDRINUSE EOPNOTSUPP"),
    ("getsockname", "ENOBUFS EINVAL"),
    ("getsockopt", "EINVAL ENOPROTOOPT"),
    ("fcntl", "EINVAL EACCES"),
    ("ioctl", "EINVAL ENOTTY"),
    ("epoll_create1", "EMFILE ENFILE ENOMEM"),
    ("eventfd2", "EMFILE ENFILE ENOMEM"),
    ("epoll_ctl", "ENOSPC ENOMEM EPERM EEXIST EINVAL"),
    ("epoll_wait", "EINTR EBADF EINVAL"),
    (
        "accept4",
        "EINTR EMFILE ENFILE ENOBUFS ENOMEM ECONNABORTED EPROTO EPERM ENETDOWN EHOSTUNREACH EINVAL",
    ),
    (
        "recvfrom",
        "EINTR ENOMEM ECONNRESET ECONNABORTED ETIMEDOUT EHOSTUNREACH EIO ECONNREFUSED",
    ),
    (
        "sendto",
        "EINTR EAGAIN EPIPE ECONNRESET ENOBUFS ENOMEM ETIMEDOUT EHOSTUNREACH EACCES EPERM EMSGSIZE",
    ),
    ("getpeername", "ENOTCONN ENOBUFS"),
    ("shutdown", "ENOTCONN EINVAL"),
    ("close", "EINTR EIO EDQUOT"),
    ("openat", "EMFILE EACCES ENOSPC EROFS EIO"),
    ("unlink", "ENOENT EPERM EROFS"),
    ("rename", "EACCES ENOSPC EROFS"),
];
/// Which call fails, counted from the first. Low numbers are calls of the start; high ones are made for clients.
const PLACES: [u32; 3] = [1, 3, 8];
/// The dynamic loader runs first, and opens and closes files of its own.
const LOADER: u32 = 7;

/// Each call fails once, in each way, at each place, in a process of its own: the server never panics, never hangs, and
/// never loses count; where it cannot go on without the call, it names the call and ends.
#[test]
fn t1_every_system_call_fails_on_the_real_kernel() {
    if !can(&["strace"]) {
        return;
    }
    let cases: Vec<(&str, &str, u32)> = CALLS
        .iter()
        .flat_map(|(call, errnos)| errnos.split(' ').map(move |errno| (*call, errno)))
        .flat_map(|(call, errno)| PLACES.map(|place| (call, errno, place)))
        .collect();
    let (next, struck, served) = (
        AtomicUsize::new(0),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(&(call, errno, place)) =
                    cases.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let fate = torture(call, errno, place);
                    struck.fetch_add(usize::from(fate.has_struck), Ordering::Relaxed);
                    served.fetch_add(
                        usize::from(fate.has_struck && fate.has_served),
                        Ordering::Relaxed,
                    );
                }
            });
        }
    });
    let (struck, served) = (struck.into_inner(), served.into_inner());
    figure(&format!(
        "t1: {struck} faults in {} system calls of the program; it served and exited normally {served} times",
        CALLS.len()
    ));
    assert!(struck > 150, "only {struck} faults");
    assert!(served > struck / 3, "only {served} of {struck}");
}

struct Fate {
    has_struck: bool,
    has_served: bool,
}

fn torture(call: &str, errno: &str, place: u32) -> Fate {
    let what = format!("{call} fails with {errno}, number {place}");
    let directory = Dir::new();
    let (log, json) = (directory.path("calls"), directory.path("stats.json"));
    let unix = directory.address("unix", "echo");
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-o", log.to_str().unwrap()]);
    command.args(["-e", &format!("trace={call}")]);
    let when = if call == "close" {
        LOADER + place
    } else {
        place
    };
    command.args(["-e", &format!("inject={call}:error={errno}:when={when}")]);
    if call == "openat" {
        command.args(["-P", json.to_str().unwrap()]);
    }
    command.arg(program().get_program());
    command.args(["serve", "tcp://127.0.0.1:0", "udp://127.0.0.1:0", &unix]);
    command.args([
        "--drain-timeout",
        "2s",
        "--stats-json",
        json.to_str().unwrap(),
    ]);
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut serve = Serve::spawn(&mut command);
    if serve.comes_to_listen(3) {
        use_it(&serve, &directory);
        serve.signal(Signal::SIGTERM);
        if call == "sendto" {
            // The signal handler calls sendto on its own socket too, so the injected fault may have hit this signal's
            // byte.
            thread::sleep(Duration::from_millis(500));
            serve.signal(Signal::SIGTERM);
        }
    }
    let ended = serve.wait();
    let documented = [0, 3, 64, 69, 70, 71, 73, 74, 77];
    // std itself asserts that closing a directory works, as it does for those of /proc.
    if ended.err.contains("unexpected error during closedir") {
        return Fate {
            has_struck: true,
            has_served: false,
        };
    }
    assert!(
        documented.contains(&ended.code),
        "{what}: exit code {}: {}",
        ended.code,
        ended.err
    );
    assert!(!ended.err.contains("panicked"), "{what}: {}", ended.err);
    if ended.code != 0 && ended.code != 3 {
        assert!(
            ended.err.contains("echo-reactor: error: "),
            "{what}: {}",
            ended.err
        );
    }
    let report = fs::read_to_string(&json).unwrap_or_default();
    if let Ok(report) = serde_json::from_str::<Value>(&report) {
        assert_consistent(&report, &what);
    }
    let log = fs::read_to_string(&log).unwrap_or_default();
    Fate {
        has_struck: log.contains("(INJECTED)"),
        has_served: ended.code == 0,
    }
}

/// What clients do. Whether they are served depends on what fails; that they are served before the deadline or not at
/// all does not.
fn use_it(serve: &Serve, directory: &Dir) {
    let timeout = Some(Duration::from_secs(1));
    let talk = |stream: &mut dyn ReadWrite| {
        let mut echoed = [0; 1_000];
        let _ = stream
            .write_all(&[7; 1_000])
            .and_then(|()| stream.read_exact(&mut echoed));
    };
    let (tcp, udp) = (ip(&serve.endpoints[0]), ip(&serve.endpoints[1]));
    for _ in 0..3 {
        if let Ok(mut stream) = TcpStream::connect(tcp) {
            stream.set_read_timeout(timeout).unwrap();
            talk(&mut stream);
        }
        if let Ok(mut stream) = UnixStream::connect(directory.path("echo")) {
            stream.set_read_timeout(timeout).unwrap();
            talk(&mut stream);
        }
    }
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(timeout).unwrap();
    let _ = client
        .send_to(b"a datagram", udp)
        .and_then(|_| client.recv(&mut [0; 16]));
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// Checks the three equations of the counters.
#[track_caller]
fn assert_consistent(report: &Value, what: &str) {
    let number = |name: &str| report[name].as_u64().unwrap();
    let sum = |family: &str| {
        let counts = report[family].as_object().unwrap().values();
        counts.map(|count| count.as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!(
        number("accepted"),
        number("connections_open") + sum("closed"),
        "{what}: {report}"
    );
    let accounted = number("bytes_out") + number("unsent_bytes") + number("discarded");
    assert_eq!(number("bytes_in"), accounted, "{what}: {report}");
    let answered = number("datagrams_out") + sum("dropped");
    assert_eq!(number("datagrams_in"), answered, "{what}: {report}");
    assert_eq!(
        (number("connections_open"), number("unsent_bytes")),
        (0, 0),
        "{what}: {report}"
    );
}

const TCP: &str = "tcp://127.0.0.1:0";

/// valgrind tracks every allocation of the server and the pointers to it at the end: nothing may be lost, and no byte
/// that was never written may be read.
#[test]
fn t3_valgrind_finds_no_leak_and_no_error() {
    if !has_tool("valgrind") {
        return;
    }
    let directory = Dir::new();
    let report = directory.path("valgrind");
    let log = format!("--log-file={}", report.display());
    let mut command = wrapped("valgrind", &["--leak-check=full", &log]);
    let addresses = [
        TCP.to_owned(),
        "udp://127.0.0.1:0".to_owned(),
        directory.address("unix", "s"),
    ];
    command.args(["serve", "-v"]).args(&addresses);
    let server = Serve::start_command(&mut command, addresses.len());
    for place in [0, 2] {
        let clients: Vec<Socket> = (0..100)
            .map(|_| connect(&server.endpoints[place]))
            .collect();
        for (number, client) in (0..).zip(&clients) {
            client.is_echoed(&noise(number, 1_000));
        }
        // One client has unsent bytes, one resets, and the rest close with a FIN.
        clients[0].push();
        clients.into_iter().skip(1).step_by(2).for_each(Talk::reset);
    }
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    datagrams.set_read_timeout(Some(DEADLINE)).unwrap();
    datagrams.connect(ip(&server.endpoints[1])).unwrap();
    datagrams.send(b"by datagram").unwrap();
    assert_eq!(datagrams.recv(&mut [0; 16]).unwrap(), 11);
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    let report = fs::read_to_string(report).unwrap();
    for lost in ["definitely lost:", "indirectly lost:", "possibly lost:"] {
        let clean = report.contains("All heap blocks were freed")
            || report.contains(&format!("{lost} 0 bytes"));
        assert!(clean, "{lost}\n{report}");
    }
    assert!(report.contains("ERROR SUMMARY: 0 errors"), "{report}");
    let told = report
        .lines()
        .filter(|line| line.contains("total heap usage") || line.contains("still reachable"));
    told.for_each(|line| println!("{line}"));
}

/// The full soak takes half an hour or more; this one shows that the script works, and that six seconds pass.
#[test]
fn t4_a_short_soak() {
    if !has_tool("python3") {
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/soak");
    let binary = program();
    let output = Command::new("python3")
        .args([script, "--minutes", "0.1", "--binary"])
        .arg(binary.get_program())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("soak: good"), "{out}");
    figure(&format!("t4: {}", out.lines().last().unwrap_or_default()));
}
