//! Errors of accept and of receive that do not pass, or that no man page names: the socket rests, is tried again, and
//! serves as soon as the trouble is over.
//!
//! What may live in this file: servers under strace, one call of which fails. How each errno is judged is tested beside the
//! verdicts (`net/accept.rs`).

use crate::datagrams::udp;
use crate::support::fault::{can, failing};
use crate::support::{DEADLINE, Serve, Talk, ip, wait_until};
use nix::sys::signal::Signal;
use socket2::Socket;
use std::net::UdpSocket;

const TCP: &str = "tcp://127.0.0.1:0";

fn count(server: &Serve, name: &str) -> u64 {
    server.counters().get(name).copied().unwrap_or(0)
}

/// A security module, or a seccomp profile, that forbids the call: every attempt fails, whether or not it finds a client.
#[test]
fn an_accept_that_always_fails_neither_spins_nor_is_silent() {
    if !can(&["strace"]) {
        return;
    }
    for (name, errno) in [("EPERM", 1), ("EPROTO", 71), ("ENOSYS", 38)] {
        for model in ["reactor", "threads"] {
            let server = failing(
                &format!("accept4:error={name}"),
                &[TCP],
                &["--model", model],
            );
            let _waiting: Socket = server.connect();
            wait_until("it has rested three times", || {
                count(&server, "accept_pauses") >= 3
            });
            // Of errors that may concern one client each, 64 are met before a pause.
            let counters = server.counters();
            let errors = counters[&format!("accept_errors{{{errno}}}")];
            assert!(
                errors <= 64 * (counters["accept_pauses"] + 1),
                "{name} {model}: {counters:?}"
            );
            server.says(&format!("(os error {errno})"));
            server.says("rests for 100ms");
            assert_eq!(server.err().matches("WARN").count(), 1, "{}", server.err());
        }
    }
}

#[test]
fn a_listener_that_rested_serves_when_the_error_is_over() {
    if !can(&["strace"]) {
        return;
    }
    for fault in [
        "accept4:error=ENETDOWN:when=1..100",
        "accept4:error=EACCES:when=1..3",
    ] {
        let server = failing(fault, &[TCP], &[]);
        server.connect().is_echoed(b"at last");
        assert!(count(&server, "accept_pauses") >= 1);
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    }
}

#[track_caller]
fn ask(server: &Serve) -> UdpSocket {
    let client = udp("127.0.0.1:0", ip(&server.endpoints[0]));
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.send(b"hello").unwrap();
    client
}

#[test]
fn a_datagram_socket_survives_errors_that_no_page_names() {
    if !can(&["strace"]) {
        return;
    }
    let faults = [
        ("recvfrom:error=EIO:when=1..2", "udp://127.0.0.1:0", 5, 2),
        ("recvmsg:error=EINVAL:when=1..2", "udp://0.0.0.0:0", 22, 2),
        (
            "recvfrom:error=ENETDOWN:when=1..70",
            "udp://127.0.0.1:0",
            100,
            70,
        ),
    ];
    for (fault, address, errno, errors) in faults {
        let server = failing(fault, &[address], &["--allow-public-udp"]);
        let port = ip(&server.endpoints[0]).port();
        let client = udp("127.0.0.1:0", ([127, 0, 0, 1], port).into());
        client.send(b"hello").unwrap();
        assert_eq!(client.recv(&mut [0; 16]).unwrap(), 5, "{fault}");
        let name = format!("receive_errors{{{errno}}}");
        assert_eq!(count(&server, &name), errors, "{fault}");
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    }
}

#[test]
fn a_receive_that_always_fails_does_not_spin() {
    if !can(&["strace"]) {
        return;
    }
    let server = failing("recvfrom:error=ENETDOWN", &["udp://127.0.0.1:0"], &[]);
    let _client = ask(&server);
    server.says("rests for 100ms");
    wait_until("it has been tried again", || {
        count(&server, "receive_errors{100}") >= 3 * 64
    });
    // Pauses of 100, 200 and 400 ms lie between these.
    assert!(count(&server, "turns") < 1_000);
    assert!(count(&server, "receive_errors{100}") <= 10 * 64);
}
