//! E: readiness as the kernel reports it, and what the calls find. What no kernel does on demand (spurious events,
//! stale events, two for one source in a batch) is in `src/simulation/catalogue.rs`.

use crate::support::fault::{can, figure, is_over, traced};
use crate::support::{
    Dir, Running, Serve, Talk, assert_same, bind, connect, noise, turn_until, wait_until,
};
use echo_reactor::Limits;
use echo_reactor::echo::Server;
use echo_reactor::stats::CloseReason;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::Socket;
use std::thread;
use std::time::{Duration, Instant};

const TCP: &str = "tcp://127.0.0.1:0";

/// Two bytes to the server and back, with turns run by the test.
#[track_caller]
fn is_echoed_by(server: &mut Server, client: &Socket) {
    client.say(b"in");
    turn_until(server, "it is echoed", |stats| stats.bytes_out >= 2);
    assert_eq!(client.hear(2), b"in");
}

/// Data and FIN in one edge: the read is short, and the end of the stream is still to be read.
#[test]
fn e5_data_and_fin_in_one_edge() {
    let directory = Dir::new();
    for address in [TCP, &directory.address("unix", "echo")] {
        let mut server = bind(&[address], Limits::default());
        let endpoint = server.addresses()[0].clone();
        let inside = connect(&endpoint);
        is_echoed_by(&mut server, &inside);
        let new_connection = connect(&endpoint);
        // Both before the server's next turn: an open connection, and one that is not yet accepted.
        for client in [&inside, &new_connection] {
            client.say(&noise(5, 100));
            client.finish();
        }
        let began = Instant::now();
        turn_until(&mut server, "both have ended", |stats| {
            stats.closed(CloseReason::PeerClosed) == 2
        });
        for client in [&inside, &new_connection] {
            assert_same(&client.hear_all(), &noise(5, 100));
        }
        figure(&format!("e5: {:.2?} over {address}", began.elapsed()));
        let stats = server.stats();
        assert_eq!((stats.bytes_in, stats.bytes_out), (202, 202));
    }
}

/// epoll registers an open file description, not a descriptor: while another process has a duplicate, closing ours
/// removes nothing from the interest list, and events go on arriving under a key that is free. So a listener that is
/// handed over is deregistered first.
#[test]
fn e4_a_socket_still_open_in_another_process_raises_no_event_here() {
    let mut server = bind(
        &["tcp://127.0.0.1:0", "udp://127.0.0.1:0"],
        Limits::default(),
    );
    let endpoints = server.addresses().to_vec();
    let inside = connect(&endpoints[0]);
    inside.say(b"in");
    turn_until(&mut server, "it is accepted", |stats| stats.bytes_out == 2);
    let copies = server.try_clone_listeners().unwrap();
    assert_eq!(copies.len(), 2);
    server.detach_listeners();

    let outside: Vec<_> = (0..10).map(|_| connect(&endpoints[0])).collect();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.send_to(b"to the other", crate::support::ip(&endpoints[1]))
        .unwrap();
    inside.say(b"and still here");
    turn_until(&mut server, "it is still served", |stats| {
        stats.bytes_out == 16
    });
    let _ = server.turn(Some(Duration::ZERO)).unwrap();
    let stats = server.stats();
    assert_eq!((stats.stale_events, stats.accepted), (0, 1), "{stats}");
    assert_eq!(stats.datagrams_in, 0);
    drop((outside, copies));
}

/// Signals that come faster than each is answered (a report takes a fifth of a millisecond): they interrupt every wait, and
/// neither echoes nor timeouts suffer.
#[test]
fn e7_a_storm_of_signals() {
    let server = Serve::start(&[TCP], &["--idle-timeout", "1s"]);
    let idle = server.connect();
    idle.is_echoed(b"the last word");
    let spoke = Instant::now();
    let process = Pid::from_raw(i32::try_from(server.pid()).unwrap());
    thread::scope(|scope| {
        let storm = scope.spawn(|| {
            let mut signals = 0;
            while !is_over(&idle) && spoke.elapsed() < Duration::from_secs(20) {
                kill(process, Signal::SIGUSR1).unwrap();
                signals += 1;
                thread::sleep(Duration::from_micros(50));
            }
            (signals, spoke.elapsed())
        });
        let active = server.connect();
        while !storm.is_finished() {
            active.is_echoed(b"not disturbed");
            thread::sleep(Duration::from_millis(5));
        }
        let (signals, lasted) = storm.join().unwrap();
        figure(&format!(
            "e7: {signals} signals; a connection silent for 1 s was closed after {lasted:.2?} (at most a sixteenth late)"
        ));
        assert!(
            signals > 20 && lasted >= Duration::from_millis(990),
            "{lasted:?}"
        );
    });
    wait_until("both are closed", || {
        server.counter("connections_open") == 0
    });
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

/// Every second wait returns EINTR, and no event.
#[test]
fn e7_epoll_wait_is_interrupted() {
    if !can(&["strace"]) {
        return;
    }
    let directory = Dir::new();
    let inject = ["-e", "inject=epoll_wait:error=EINTR:when=1+2"];
    let log = directory.path("calls");
    let traced = traced(&log, "epoll_wait", &inject, &[TCP], &[]);
    let client = traced.serve.connect();
    for number in 0..50 {
        client.is_echoed(&noise(number, 1_000));
    }
    drop(client);
    let interrupted = |text: &str| text.contains("EINTR") && text.contains("INJECTED");
    let calls = traced.calls();
    let count = calls.iter().filter(|call| interrupted(&call.text)).count();
    figure(&format!("e7: {count} of {} waits interrupted", calls.len()));
    assert!(count >= 20);
    assert_eq!(traced.serve.stop(Signal::SIGTERM).code, 0);
}

/// Nothing can be served without epoll: the server says which call failed, and ends; it never spins.
#[test]
fn e8_the_event_queue_breaks() {
    if !can(&["strace"]) {
        return;
    }
    for errno in ["EBADF", "EFAULT", "EINVAL"] {
        let directory = Dir::new();
        let inject = format!("inject=epoll_wait:error={errno}:when=3+");
        let log = directory.path("calls");
        let traced = traced(&log, "epoll_wait", &["-e", &inject], &[TCP], &[]);
        // One client: the server may have ended before a second one connects.
        let client = traced.serve.connect();
        let _ = client.send(b"hello?");
        let ended = traced.serve.wait();
        assert_eq!(ended.code, 71, "{}", ended.err);
        assert!(ended.err.contains("echo-reactor: error: "), "{}", ended.err);
        figure(&format!(
            "e8: {errno}: exit code {}: {}",
            ended.code,
            ended.err.lines().last().unwrap_or("")
        ));
    }
}

/// More connections are ready than one wait can report (128), in every turn. Each turn serves different ones, in the
/// order of the ready list, so that none falls behind.
#[test]
fn e9_more_are_ready_than_a_wait_can_report() {
    const CLIENTS: usize = 3_000;
    const BATCH: usize = 128; // as many as one wait reports
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if hard < 3 * CLIENTS as u64 {
        return crate::support::skip("the hard limit of descriptors is below 9,000");
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let directory = Dir::new();
    let mut server = bind(&[&directory.address("unix", "echo")], Limits::default());
    let endpoint = server.addresses()[0].clone();
    let mut clients = Vec::new();
    while clients.len() < CLIENTS {
        clients.extend((0..100).map(|_| connect(&endpoint)));
        let inside = clients.len() as u64;
        turn_until(&mut server, "they are accepted", |stats| {
            stats.accepted == inside
        });
    }
    let mut served = vec![0_u32; CLIENTS];
    clients.iter().for_each(|client| client.say(b"x"));
    for _ in 0..5 * CLIENTS / BATCH + 1 {
        let before = server.stats().bytes_out;
        let _ = server.turn(Some(Duration::ZERO)).unwrap();
        assert!(
            server.stats().bytes_out - before <= BATCH as u64,
            "one batch"
        );
        for (client, served) in clients.iter().zip(&mut served) {
            if !client.hears_nothing() {
                client.hear(1);
                *served += 1;
                client.say(b"x"); // ready again at once
            }
        }
    }
    let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
    figure(&format!(
        "e9: {CLIENTS} clients, served {least} to {most} times each"
    ));
    assert!(*least > 0 && *most <= 2 * least, "{least} to {most}");
}

/// Bytes that came before the reset are read, and counted; their echo counts as discarded, not as unsent.
#[test]
fn e10_bytes_and_then_a_reset() {
    let mut server = bind(&[TCP], Limits::default());
    let endpoint = server.addresses()[0].clone();
    let client = connect(&endpoint);
    is_echoed_by(&mut server, &client);
    client.say(&noise(1, 500));
    client.reset();
    turn_until(&mut server, "it is closed", |stats| {
        stats.connections_open == 0
    });
    let stats = server.stats();
    assert_eq!(stats.closed(CloseReason::Reset), 1, "{stats}");
    assert_eq!(
        (stats.bytes_in, stats.bytes_out, stats.discarded),
        (502, 2, 500)
    );
    assert_eq!(stats.check_invariants(), Ok(()));
}

/// The smallest send buffer there is, and a reader that starts late: every write is a short one.
#[test]
fn e11_partial_writes_into_a_small_buffer() {
    let limits = Limits::default().with(|limits| limits.send_buffer_bytes = Some(4_096));
    let server = Running::reactor(&[TCP], limits);
    let client = server.connect();
    client.set_recv_buffer_size(4_096).unwrap();
    let sent = noise(11, 1 << 18);
    thread::scope(|scope| {
        scope.spawn(|| client.say(&sent));
        wait_until("the server has unsent bytes", || {
            server.stats().unsent_bytes > 0
        });
        assert_same(&client.hear(sent.len()), &sent);
    });
    client.finish();
    assert_same(&client.hear_all(), &[]);
    let stats = server.drain();
    assert_eq!((stats.bytes_out, stats.discarded), (1 << 18, 0));
    assert!(stats.unsent_bytes_peak <= Limits::default().read_buffer_bytes as u64);
}
