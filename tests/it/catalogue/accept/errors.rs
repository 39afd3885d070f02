//! Errors of accept(2) and of what follows it, forced by strace(1).

use super::TCP;
use crate::support::fault::{can, traced};
use crate::support::{Dir, Serve, Talk, wait_until};
use nix::sys::signal::Signal;
use socket2::Socket;

/// The count of an accept error by its Linux number, as the counters name errors without a name of their own.
fn counted(server: &Serve, errno: i32) -> u64 {
    let counters = server.counters();
    let name = format!("accept_errors{{{errno}}}");
    counters.get(&name).copied().unwrap_or(0)
}

/// A server in which these calls fail, for example `accept4:error=EPROTO:when=1..5`.
#[track_caller]
fn with_fault(directory: &Dir, inject: &str, addresses: &[&str], flags: &[&str]) -> Serve {
    let call = inject.split(':').next().unwrap();
    let inject = format!("inject={inject}");
    let options = ["--seccomp-bpf", "-e", &inject];
    traced(&directory.path("calls"), call, &options, addresses, flags).serve
}

#[test]
fn a4_each_shortage_pauses_and_is_logged_by_its_own_text() {
    if !can(&["strace"]) {
        return;
    }
    for (name, errno, remedy) in [
        ("ENFILE", 23, "fs.file-max"),
        ("ENOBUFS", 105, "net.ipv4.tcp_mem"),
        ("ENOMEM", 12, "no memory left"),
    ] {
        let directory = Dir::new();
        let fault = format!("accept4:error={name}:when=1..3");
        let server = with_fault(&directory, &fault, &[TCP], &[]);
        let queued: Vec<Socket> = (0..3).map(|_| server.connect()).collect();
        queued.iter().for_each(|client| client.say(b"let me in"));
        for client in &queued {
            assert_eq!(client.hear(9), b"let me in", "{name}");
        }
        server.says(remedy);
        assert_eq!(counted(&server, errno), 3, "{name}");
        let counters = server.counters();
        assert!(counters["accept_pauses"] >= 1, "{name}: {counters:?}");
        assert!(counters["accept_paused_ms"] >= 200, "{name}: {counters:?}");
        assert_eq!(server.err().matches("WARN").count(), 1, "{name}");
        drop(queued);
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    }
}

/// An error of the one new connection: the next connection is accepted at once, and nothing is logged.
#[test]
fn a5_errors_of_one_new_connection_do_not_hold_up_the_next() {
    if !can(&["strace"]) {
        return;
    }
    for (name, errno) in [
        ("ECONNABORTED", 103),
        ("EPROTO", 71),
        ("ENETDOWN", 100),
        ("EHOSTUNREACH", 113),
        ("EPERM", 1),
        ("ETIMEDOUT", 110),
        ("EOPNOTSUPP", 95),
        ("ENONET", 64),
        ("ENOPROTOOPT", 92),
        ("EHOSTDOWN", 112),
        ("ENETUNREACH", 101),
    ] {
        let directory = Dir::new();
        let fault = format!("accept4:error={name}:when=1..50");
        let server = with_fault(&directory, &fault, &[TCP], &[]);
        server.connect().is_echoed(b"after fifty others");
        assert_eq!(counted(&server, errno), 50, "{name}");
        let counters = server.counters();
        assert_eq!(counters["accept_pauses"], 0, "{name}");
        let said = server.err();
        assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    }
}

#[test]
fn a6_an_interrupted_accept_is_retried() {
    if !can(&["strace"]) {
        return;
    }
    let directory = Dir::new();
    let server = with_fault(&directory, "accept4:error=EINTR:when=1..20", &[TCP], &[]);
    server.connect().is_echoed(b"all the same");
    assert_eq!(server.counter("accept_pauses"), 0);
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

/// One broken listener is closed, and the other one goes on; when the last one breaks, the server ends at once and says
/// why.
#[test]
fn a7_a_broken_listener_is_closed_and_the_last_one_ends_the_server() {
    if !can(&["strace"]) {
        return;
    }
    for name in ["EBADF", "EINVAL", "ENOTSOCK"] {
        let directory = Dir::new();
        let fault = format!("accept4:error={name}:when=1");
        let server = with_fault(&directory, &fault, &[TCP, TCP], &[]);
        let first = server.connect();
        server.says("ERROR");
        crate::support::connect(&server.endpoints[1]).is_echoed(b"the other one serves on");
        drop(first);
        assert_eq!(server.stop(Signal::SIGTERM).code, 0, "{name}");

        let directory = Dir::new();
        let server = with_fault(&directory, &format!("accept4:error={name}"), &[TCP], &[]);
        let _client = server.connect();
        let ended = server.wait();
        assert_eq!(ended.code, 71, "{name}: {ended:?}");
        assert!(
            ended.err.contains("echo-reactor: error: system"),
            "{ended:?}"
        );
    }
}

/// A connection that epoll cannot take is closed and counted.
#[test]
fn a12_a_connection_that_epoll_refuses_is_closed_and_counted() {
    if !can(&["strace"]) {
        return;
    }
    // The sources registered before the first client: listeners, signals, the waker.
    let directory = Dir::new();
    let plain = traced(&directory.path("calls"), "epoll_ctl", &[], &[TCP], &[]);
    plain.serve.counters(); // it is in its loop
    let calls = plain.calls(); // and signals, which strace notes as well
    let made = calls
        .iter()
        .filter(|call| call.text.starts_with("epoll_ctl("));
    let first = made.count() + 1;
    assert!(first > 1, "strace has recorded nothing");
    assert_eq!(plain.serve.stop(Signal::SIGTERM).code, 0);
    for name in ["ENOSPC", "ENOMEM", "EEXIST"] {
        let directory = Dir::new();
        let fault = format!("epoll_ctl:error={name}:when={first}..{}", first + 1);
        let server = with_fault(&directory, &fault, &[TCP], &[]);
        let unlucky = [server.connect(), server.connect()];
        for client in &unlucky {
            assert_eq!(client.hear_all(), b"", "{name}");
        }
        server.connect().is_echoed(b"the next one is fine");
        wait_until("all are closed", || server.counter("connections_open") == 0);
        let counters = server.counters();
        assert_eq!(
            counters["closed{register_failed}"], 2,
            "{name}: {counters:?}"
        );
        assert_eq!(counters["accepted"], 3, "{name}");
        let ours = server.descriptors().len();
        let again = server.connect();
        again.is_echoed(b"one more");
        assert_eq!(server.descriptors().len(), ours + 1, "{name}");
        drop(again);
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    }
}

/// Nagle's delay or a timeout that cannot be set is no reason to refuse service.
#[test]
fn a13_a_refused_socket_option_is_counted_and_the_connection_served() {
    if !can(&["strace"]) {
        return;
    }
    let flags = ["--user-timeout", "10s", "--keepalive", "60s"];
    for name in ["EINVAL", "ENOPROTOOPT"] {
        let directory = Dir::new();
        // The first call sets SO_REUSEADDR, without which a port in TIME_WAIT cannot be bound; every later option is optional.
        let fault = format!("setsockopt:error={name}:when=2+");
        let server = with_fault(&directory, &fault, &[TCP], &flags);
        server.connect().is_echoed(b"none the worse");
        wait_until("it is closed", || server.counter("connections_open") == 0);
        let refused = server.counter("option_errors");
        assert!(refused >= 2, "{name}: {refused}");
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    }
}
