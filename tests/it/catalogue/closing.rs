//! C: every way in which a connection ends, on the server's side and on the peer's.

use crate::support::fault::{can, figure, is_over, sh, traced};
use crate::support::{Dir, Model, Running, Serve, Talk, assert_same, ip, noise, skip, wait_until};
use echo_reactor::Limits;
use echo_reactor::stats::CloseReason;
use nix::sys::signal::Signal;
use serde_json::Value;
use socket2::Socket;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const TCP: &str = "tcp://127.0.0.1:0";

/// The server echoes for a new connection, as if nothing had happened.
#[track_caller]
fn serves_a_new_client(server: &Running) {
    let other = server.connect();
    other.is_echoed(b"and me?");
    other.finish();
    assert_eq!(other.hear_all(), b"");
}

/// The report of a server that has ended, checked for consistency.
#[track_caller]
fn report(path: &std::path::Path) -> Value {
    let report: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let sum = |family: &str| {
        let counts = report[family].as_object().unwrap().values();
        counts.map(|count| count.as_u64().unwrap()).sum::<u64>()
    };
    let number = |name: &str| report[name].as_u64().unwrap();
    assert_eq!(
        number("accepted"),
        number("connections_open") + sum("closed"),
        "{report}"
    );
    let accounted = number("bytes_out") + number("unsent_bytes") + number("discarded");
    assert_eq!(number("bytes_in"), accounted, "{report}");
    assert_eq!(
        (number("connections_open"), number("unsent_bytes")),
        (0, 0),
        "{report}"
    );
    report
}

#[test]
fn c1_half_close() {
    for model in [Model::Reactor, Model::Threads] {
        let server = Running::start(model, &[TCP], Limits::default());
        let client = server.connect();
        let sent = noise(1, 1 << 20);
        thread::scope(|scope| {
            scope.spawn(|| {
                client.say(&sent);
                client.finish();
            });
            assert_same(&client.hear_all(), &sent);
        });
        let stats = server.drain();
        assert_eq!((stats.bytes_out, stats.discarded), (1 << 20, 0));
        assert_eq!(
            stats.closed(CloseReason::PeerClosed),
            1,
            "no reset: {stats}"
        );
    }
}

#[track_caller]
fn check_slow_reader(model: Model, address: &str) {
    let limits = Limits::default().with(|limits| {
        limits.send_buffer_bytes = Some(256 << 10); // far less than is sent
    });
    let server = Running::start(model, &[address], limits);
    let sent = noise(2, 8 << 20);
    let client = server.connect();
    thread::scope(|scope| {
        scope.spawn(|| {
            client.say(&sent);
            client.finish();
        });
        // The client reads once the server has unsent bytes for it, or at once with threads, which count nothing before
        // the end.
        if model == Model::Reactor {
            wait_until("the server has unsent bytes", || {
                server.stats().unsent_bytes > 0
            });
            serves_a_new_client(&server);
        }
        assert_same(&client.hear_all(), &sent);
    });
    let stats = server.drain();
    assert_eq!(stats.closed(CloseReason::PeerClosed), stats.accepted);
    assert_eq!((stats.bytes_in, stats.discarded), (stats.bytes_out, 0));
}

#[test]
fn c2_half_close_with_a_slow_reader_over_tcp() {
    check_slow_reader(Model::Reactor, TCP);
    check_slow_reader(Model::Threads, TCP);
}

#[test]
fn c2_half_close_with_a_slow_reader_over_unix() {
    let directory = Dir::new();
    check_slow_reader(Model::Reactor, &directory.address("unix", "reactor"));
    check_slow_reader(Model::Threads, &directory.address("unix", "threads"));
}

#[track_caller]
fn check_reset_mid_stream(model: Model) {
    let server = Running::start(model, &[TCP], Limits::default());
    let client = server.connect();
    client.is_echoed(b"so far so good");
    client.push();
    client.reset();
    wait_until("the reset is seen", || server.stats().connections_open == 0);
    assert_eq!(
        server.stats().unsent_bytes,
        0,
        "its write buffer is dropped"
    );
    serves_a_new_client(&server);
    let stats = server.drain();
    assert_eq!(stats.closed(CloseReason::Reset), 1, "{stats}");
    assert_eq!(stats.closed(CloseReason::PeerClosed), 1);
}

#[test]
fn c3_reset_mid_stream() {
    check_reset_mid_stream(Model::Reactor);
    check_reset_mid_stream(Model::Threads);
    check_reset_mid_stream(Model::Iterative);
}

/// The client is in the middle of an upload when the drain timeout expires. A close now would send a reset, since there
/// is always unread input, and could destroy what the client has not read yet. So the server sends its FIN first, and
/// discards what still arrives: the client gets every byte that was echoed, and then an end.
#[test]
fn c4_close_with_unread_input() {
    let limits = Limits::default().with(|limits| {
        limits.drain_timeout = Duration::from_secs(20);
        limits.fin_timeout = Duration::from_millis(19_900); // so that the FIN is sent after 100 ms
        limits.drain_idle_timeout = Duration::from_secs(20);
    });
    let server = Running::reactor(&[TCP], limits);
    let client = server.connect();
    let sent = noise(4, 1 << 20);
    let is_over = AtomicBool::new(false);
    let heard = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                client.say(&sent);
            }
            client.finish();
        });
        assert_same(&client.hear(sent.len()), &sent);
        server.request_drain();
        let (mut heard, mut buffer) = (sent.len(), vec![0; 64 << 10]);
        loop {
            let count = (&client).read(&mut buffer).expect("a FIN, and no reset");
            if count == 0 {
                break;
            }
            let mut expected = sent.iter().cycle().skip(heard % sent.len());
            assert!(
                buffer[..count]
                    .iter()
                    .all(|byte| expected.next() == Some(byte))
            );
            heard += count;
        }
        is_over.store(true, Ordering::Relaxed);
        heard as u64
    });
    let stats = server.end();
    assert_eq!(stats.closed(CloseReason::ShutDown), 1, "{stats}");
    assert_eq!(heard, stats.bytes_out, "every byte that was echoed");
    figure(&format!(
        "c4: {heard} bytes echoed, all of them received; {} more discarded after our FIN",
        stats.discarded
    ));
}

#[test]
fn c5_the_peer_has_closed_before_the_write() {
    if !can(&["strace"]) {
        return;
    }
    for (errno, reason) in [
        ("EPIPE", "reset"),
        ("ECONNRESET", "reset"),
        ("ETIMEDOUT", "peer_timeout"),
    ] {
        let directory = Dir::new();
        let (log, json) = (directory.path("calls"), directory.path("stats.json"));
        let inject = format!("inject=sendto:error={errno}:when=2");
        let flags = ["--stats-json", json.to_str().unwrap()];
        let traced = traced(&log, "sendto", &["-e", &inject], &[TCP], &flags);
        let server = &traced.serve;
        let (first, second) = (server.connect(), server.connect());
        first.is_echoed(b"well");
        second.say(b"this write fails");
        // Not by its counters: a server asked for them gets a signal, and its signal handler calls sendto as well,
        // which would be the call that fails.
        wait_until("it is closed", || is_over(&second));
        first.is_echoed(b"still served");
        drop(first);
        wait_until("the other one is closed, too", || {
            server.counter("connections_open") == 0
        });
        assert_eq!(traced.serve.stop(Signal::SIGTERM).code, 0);
        let report = report(&json);
        assert_eq!(report["closed"][reason], 1, "{errno}: {report}");
        assert_eq!(report["discarded"], 16);
    }
}

#[test]
fn c6_connect_and_leave() {
    const EACH: usize = 2_000;
    for model in ["reactor", "threads", "iterative"] {
        let directory = Dir::new();
        let json = directory.path("stats.json");
        let flags = ["--model", model, "--stats-json", json.to_str().unwrap()];
        let server = Serve::start(&[TCP], &flags);
        let descriptors = server.descriptors();
        let scan = |count: usize| {
            for number in 0..count {
                let client = server.connect();
                match number % 4 {
                    0 => client.reset(),
                    1 => client.say(b"bye"),
                    _ => drop(client),
                }
            }
        };
        let seen = |count: u64| {
            wait_until("all were accepted and are closed", || {
                let counters = server.counters();
                counters["accepted"] == count && counters["connections_open"] == 0
            });
        };
        scan(EACH);
        seen(EACH as u64);
        let resident = server.status("VmRSS");
        scan(EACH);
        seen(2 * EACH as u64);
        // Not at once: with its counters the server reports its memory, for which it opens files of /proc for a moment.
        wait_until(&format!("{model} has the descriptors that it had"), || {
            server.descriptors() == descriptors
        });
        let grown = server.status("VmRSS").saturating_sub(resident);
        figure(&format!(
            "c6: {EACH} came and went: {grown} KiB more with {model}"
        ));
        // A leak of 256 bytes each would show. (Not with threads: their stacks are given back whenever the allocator
        // likes.)
        assert!(model == "threads" || grown < EACH as u64 / 4, "{grown} KiB");
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
        report(&json);
    }
}

/// A tool on this machine destroys one connection (`ss -K`).
#[test]
fn c7_ss_kills_a_connection() {
    if !can(&["ss"]) {
        return;
    }
    let server = Serve::start(&[TCP], &[]);
    let port = ip(&server.endpoints[0]).port();
    let (victim, other) = (server.connect(), server.connect());
    victim.is_echoed(b"alive");
    other.is_echoed(b"alive");
    let from = victim.local_addr().unwrap().as_socket().unwrap().port();
    sh(&format!("ss -K -tn sport = :{port} and dport = :{from}"));
    if server.counter("connections_open") == 2 && !is_over(&victim) {
        return skip("this kernel does not let ss kill sockets (CONFIG_INET_DIAG_DESTROY)");
    }
    wait_until("it is closed", || server.counter("connections_open") == 1);
    assert_eq!(
        server.counter("closed{connection_aborted}"),
        1,
        "{:?}",
        server.counters()
    );
    other.is_echoed(b"unharmed");
}

#[test]
fn c8_errors_of_reading() {
    if !can(&["strace"]) {
        return;
    }
    for (errno, reason) in [
        ("ETIMEDOUT", "peer_timeout"),
        ("EHOSTUNREACH", "error"),
        ("ENOMEM", "out_of_memory"),
        ("EIO", "error"),
        ("ECONNRESET", "reset"),
    ] {
        let directory = Dir::new();
        let (log, json) = (directory.path("calls"), directory.path("stats.json"));
        let inject = format!("inject=recvfrom:error={errno}:when=2");
        let flags = ["--stats-json", json.to_str().unwrap()];
        let traced = traced(&log, "recvfrom", &["-e", &inject], &[TCP], &flags);
        let server = &traced.serve;
        let (first, second) = (server.connect(), server.connect());
        first.is_echoed(b"well");
        second.say(b"this is not read");
        wait_until("it is closed", || is_over(&second));
        first.is_echoed(b"still served");
        drop(first);
        wait_until("the other one is closed, too", || {
            server.counter("connections_open") == 0
        });
        let ended = traced.serve.stop(Signal::SIGTERM);
        assert_eq!(ended.code, 0);
        assert!(
            !ended.err.contains("WARN"),
            "one client's error is no alarm: {}",
            ended.err
        );
        assert_eq!(report(&json)["closed"][reason], 1, "{errno}");
    }
}

/// Linux has closed the descriptor whatever close(2) returned (its page: "do not retry"), and another thread may have
/// the number by then. An injected error keeps the call from being made at all, so the descriptor stays open here; what
/// the test asserts is that each is closed once, and never again.
#[test]
fn c9_errors_of_close_and_shutdown() {
    if !can(&["strace"]) {
        return;
    }
    for errno in ["EINTR", "EIO"] {
        let directory = Dir::new();
        let log = directory.path("calls");
        let inject = format!("inject=close:error={errno}:when=40+");
        let traced = traced(&log, "close,accept4", &["-e", &inject], &[TCP], &[]);
        for _ in 0..60 {
            traced.serve.connect().is_echoed(b"come and go");
        }
        wait_until("all are closed", || {
            traced.serve.counter("connections_open") == 0
        });
        let failed: Vec<String> = traced
            .calls()
            .into_iter()
            .filter(|call| call.text.starts_with("close(") && call.text.contains("INJECTED"))
            .map(|call| call.text)
            .collect();
        assert!(failed.len() > 10, "{} closes failed", failed.len());
        let once: std::collections::HashSet<&String> = failed.iter().collect();
        assert_eq!(once.len(), failed.len(), "never retried: {failed:?}");
    }
    for errno in ["ENOTCONN", "EIO"] {
        let directory = Dir::new();
        let (log, json) = (directory.path("calls"), directory.path("stats.json"));
        let inject = format!("inject=shutdown:error={errno}");
        let flags = ["--stats-json", json.to_str().unwrap()];
        let traced = traced(&log, "shutdown", &["-e", &inject], &[TCP], &flags);
        let clients: Vec<Socket> = (0..5).map(|_| traced.serve.connect()).collect();
        clients.iter().for_each(|client| client.is_echoed(b"in"));
        let ended = traced.serve.stop(Signal::SIGTERM);
        assert_eq!(ended.code, 0, "{}", ended.err);
        assert_eq!(report(&json)["accepted"], 5);
    }
}
