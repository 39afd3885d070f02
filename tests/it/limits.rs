//! What happens at each limit: open connections are still served; new ones wait, and are accepted later.
//!
//! What may live in this file: limits of the server and of the system, reached on purpose. Times are short here to keep
//! the tests short; what is asserted is which connection was closed, why, and in which order.

use crate::support::{
    Dir, Model, Running, Talk, bind, connect, noise, stuff, turn_until, wait_until,
};
use echo_reactor::Limits;
use echo_reactor::stats::CloseReason;
use socket2::{SockAddr, Socket};
use std::io::{ErrorKind, Read};
use std::mem::MaybeUninit;
use std::time::Duration;

const TCP: &str = "tcp://127.0.0.1:0";

#[track_caller]
fn check_connections_max(model: Model) {
    let limits = Limits::default().with(|limits| limits.connections_max = 2);
    let server = Running::start(model, &[TCP], limits);
    let (first, second) = (server.connect(), server.connect());
    first.is_echoed(b"first");
    second.is_echoed(b"second");
    let third = server.connect(); // by the kernel, which completes the handshake before accept
    third.say(b"third");
    wait_until("new connections wait", || server.stats().accept_pauses > 0);
    second.is_echoed(b"open ones are still served");
    assert!(third.hears_nothing());
    assert_eq!(server.stats().connections_open, 2);

    drop(first);
    assert_eq!(third.hear(5), b"third");
    third.is_echoed(b"and served on");
    drop((second, third));
    let stats = server.drain();
    assert_eq!(
        (stats.accepted, stats.connections_open_peak),
        (3, 2),
        "{stats}"
    );
}

#[test]
fn at_the_connection_limit_the_third_waits_until_one_of_two_closes() {
    check_connections_max(Model::Reactor);
    check_connections_max(Model::Threads);
}

#[test]
fn a_queue_at_the_connection_limit_is_served_to_its_end() {
    let limits = Limits::default().with(|limits| limits.connections_max = 3);
    let server = Running::reactor(&[TCP, TCP], limits);
    let clients: Vec<Socket> = (0..200)
        .map(|number| connect(&server.endpoints[number % 2]))
        .collect();
    clients
        .iter()
        .for_each(|client| client.say(b"served at last"));
    // Each client sends FIN at once: otherwise no connection would end, and none of the queued ones could be accepted.
    clients.iter().for_each(Talk::finish);
    for client in clients {
        assert_eq!(client.hear_all(), b"served at last");
    }
    let stats = server.drain();
    assert_eq!(
        (stats.accepted, stats.connections_open_peak),
        (200, 3),
        "{stats}"
    );
    assert_eq!(stats.closed(CloseReason::PeerClosed), 200);
}

#[test]
fn a_thousand_connections_before_the_first_turn_are_all_served() {
    let directory = Dir::new();
    let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    if somaxconn.trim().parse::<u32>().unwrap() < 1_001 {
        return crate::support::skip("net.core.somaxconn is too small for 1,000 in the queue");
    }
    for address in [TCP, &directory.address("unix", "echo")] {
        let mut server = bind(&[address], Limits::default());
        let endpoint = server.addresses()[0].clone();
        let clients: Vec<Socket> = (0..1_000).map(|_| connect(&endpoint)).collect();
        clients.iter().for_each(|client| client.say(b"me too"));
        turn_until(&mut server, "all are echoed", |stats| {
            stats.bytes_out == 6_000
        });
        for client in &clients {
            assert_eq!(client.hear(6), b"me too");
        }
        let stats = server.stats();
        assert_eq!((stats.accepted, stats.connections_open), (1_000, 1_000));
        let turns = 1_000 / Limits::default().accept_budget as u64;
        assert!(
            stats.budget_yields >= turns,
            "no connection takes the whole turn"
        );
    }
}

#[test]
fn idle_connections_are_closed_and_active_ones_are_not() {
    // The test runs the turns itself, over Unix sockets, where a sent byte is readable at once: so the active client
    // has always sent before a turn, however long this thread waits for a processor.
    let directory = Dir::new();
    let limits =
        Limits::default().with(|limits| limits.idle_timeout = Some(Duration::from_millis(100)));
    let mut server = bind(&[&directory.address("unix", "echo")], limits);
    let endpoint = server.addresses()[0].clone();
    let (idle, active) = (connect(&endpoint), connect(&endpoint));
    let mut said = 0;
    turn_until(&mut server, "the idle connection is closed", |stats| {
        active.say(b"still here");
        said += 10;
        if stats.bytes_out > 0 {
            active.hear(10);
            said -= 10;
        }
        stats.closed_total() > 0
    });
    assert_eq!(server.stats().closed(CloseReason::Idle), 1);
    assert_eq!(server.stats().connections_open, 1);
    assert_eq!(idle.hear_all(), b"");
    turn_until(&mut server, "all is echoed", |stats| {
        stats.bytes_in == stats.bytes_out && stats.unsent_bytes == 0
    });
    active.hear(said - 10);
}

#[test]
fn with_threads_idle_connections_are_closed_as_idle() {
    for model in [Model::Threads, Model::Iterative] {
        let limits =
            Limits::default().with(|limits| limits.idle_timeout = Some(Duration::from_millis(50)));
        let server = Running::start(model, &[TCP], limits);
        let idle = server.connect();
        assert_eq!(idle.hear_all(), b"");
        wait_until("it is counted", || server.stats().connections_open == 0);
        assert_eq!(server.drain().closed(CloseReason::Idle), 1);
    }
}

#[test]
fn a_connection_with_unsent_bytes_is_not_idle() {
    // The test runs the turns itself: the client has always sent before a turn, until its peer's buffers are full.
    let directory = Dir::new();
    let limits =
        Limits::default().with(|limits| limits.idle_timeout = Some(Duration::from_millis(20)));
    let mut server = bind(&[&directory.address("unix", "echo")], limits);
    let endpoint = server.addresses()[0].clone();
    let stuck = connect(&endpoint);
    turn_until(&mut server, "it has unsent bytes", |stats| {
        stuck.push();
        stats.unsent_bytes > 0
    });
    let idle = connect(&endpoint);
    turn_until(&mut server, "the idle connection is closed", |stats| {
        stats.closed_total() > 0
    });
    assert_eq!(idle.hear_all(), b"");
    let stats = server.stats();
    assert_eq!(
        (stats.closed(CloseReason::Idle), stats.connections_open),
        (1, 1),
        "{stats}"
    );
}

#[track_caller]
fn check_write_stall(model: Model) {
    let limits = Limits::default()
        .with(|limits| limits.write_stall_timeout = Some(Duration::from_millis(100)));
    let server = Running::start(model, &[TCP], limits);
    let quiet = server.connect();
    quiet.is_echoed(b"nothing unsent");
    let stuck = server.connect();
    // The first call after the reset, a write or a read, returns the error; later ones find nothing but the end.
    let mut told = None;
    stuck.set_nonblocking(true).unwrap();
    wait_until("the stalled connection is closed", || {
        let error = stuck.send(&[b'x'; 16 << 10]).err();
        told = told.or(error
            .map(|error| error.kind())
            .filter(|&kind| kind != ErrorKind::WouldBlock));
        server.stats().closed_total() == 1
    });
    stuck.set_nonblocking(false).unwrap();
    let told = told.or_else(|| {
        let end = (&mut &stuck).read_to_end(&mut Vec::new());
        end.err().map(|error| error.kind())
    });
    assert_eq!(told, Some(ErrorKind::ConnectionReset), "a reset, not a FIN");
    quiet.is_echoed(b"and am served on");
    let stats = server.stop();
    assert_eq!(stats.closed(CloseReason::WriteStall), 1, "{stats}");
    assert!(stats.discarded > 0);
}

#[test]
fn a_peer_that_reads_nothing_is_reset_as_stalled_and_other_connections_stay() {
    check_write_stall(Model::Reactor);
    check_write_stall(Model::Threads);
}

/// Bytes that the kernel keeps for the TCP peer of this socket: sent by the peer, and not acknowledged yet (proc(5),
/// /proc/net/tcp). None for a Unix socket, whose bytes are taken at once.
fn send_queue_of_peer(client: &Socket) -> u64 {
    let hex = |address: SockAddr| {
        let address = address.as_socket_ipv4()?;
        let ip = u32::from_ne_bytes(address.ip().octets());
        Some(format!("{ip:08X}:{:04X}", address.port()))
    };
    let peer = hex(client.peer_addr().unwrap());
    let (Some(peer), Some(own)) = (peer, hex(client.local_addr().unwrap())) else {
        return 0;
    };
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let (_, row) = table.split_once(&format!("{peer} {own} ")).unwrap();
    let (_, queues) = row.split_once(' ').unwrap(); // after the state
    let (sent, _) = queues.split_once(':').unwrap();
    u64::from_str_radix(sent, 16).unwrap()
}

/// By hand: before each turn, in which the timeout may be over once, the peer takes something, and its kernel has said so.
/// So this machine may be as slow as it likes.
#[test]
fn a_peer_that_takes_little_at_a_time_is_not_stalled() {
    let directory = Dir::new();
    let unix = directory.address("unix", "echo");
    // Less than the kernel wants to be free before it tells of room, and so much that a write finds some.
    for (address, portion, times) in [(&*unix, 8 << 10, 16), (TCP, 384 << 10, 6)] {
        let limits = Limits::default().with(|limits| {
            limits.write_stall_timeout = Some(Duration::from_millis(50));
            limits.read_buffer_bytes = 4 << 10;
        });
        let mut server = bind(&[address], limits);
        let slow = connect(&server.addresses()[0]);
        // A TCP window may stay shut until much of the receive buffer is free: a portion is more than the buffer holds.
        slow.set_recv_buffer_size(256 << 10).unwrap();
        turn_until(&mut server, "it is unsent bytes", |stats| {
            slow.push();
            stats.unsent_bytes > 0
        });
        for _ in 0..times {
            let before = send_queue_of_peer(&slow);
            slow.hear(portion);
            wait_until("the server's kernel knows", || {
                before == 0 || send_queue_of_peer(&slow) < before
            });
            let _ = server.turn(None).unwrap();
            let stats = server.stats();
            assert_eq!(stats.connections_open, 1, "{address}: {stats}");
        }
        turn_until(&mut server, "it takes no more, and is closed", |stats| {
            stats.closed(CloseReason::WriteStall) == 1
        });
    }
}

#[test]
fn a_stalled_peer_is_reset_even_if_it_has_sent_nothing_more() {
    // The client sends little at a time, and only until the server has unsent bytes for it: so the server leaves no
    // input unread, for which close(2) would send a reset anyway. After an orderly close the kernel would go on
    // offering the unsent bytes.
    let limits = Limits::default().with(|limits| {
        limits.write_stall_timeout = Some(Duration::from_millis(50));
        limits.send_buffer_bytes = Some(4 << 10);
    });
    let mut server = bind(&[TCP], limits);
    let stuck = connect(&server.addresses()[0]);
    turn_until(&mut server, "it has unsent bytes", |stats| {
        if stats.bytes_in == stats.bytes_out {
            stuck.say(&[b'x'; 8 << 10]);
        }
        stats.unsent_bytes > 0
    });
    turn_until(&mut server, "it is closed", |stats| {
        stats.connections_open == 0
    });
    assert_eq!(server.stats().closed(CloseReason::WriteStall), 1);
    let error = (&stuck).read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// A Unix socket's unread bytes count against the send buffer of the sender; and an accepted Unix connection inherits
/// no buffer size from its listener, as a TCP connection does.
#[test]
fn a_unix_connection_has_the_buffers_that_were_asked_for() {
    let directory = Dir::new();
    for model in [Model::Reactor, Model::Threads] {
        let waiting = |send_buffer_bytes| {
            let limits =
                Limits::default().with(|limits| limits.send_buffer_bytes = send_buffer_bytes);
            let server = Running::start(model, &[&directory.address("unix", "echo")], limits);
            let client = [server.connect()];
            stuff(&client);
            // Only the first read counts: it takes what the queue held, and frees space for which the server sends
            // more.
            let mut queue = vec![MaybeUninit::uninit(); 1 << 20];
            let waiting = client[0].peek(&mut queue).unwrap();
            server.stop();
            waiting
        };
        let (small, plain) = (waiting(Some(4 << 10)), waiting(None));
        assert!(small <= 16 << 10, "{model:?}: {small}");
        assert!(plain > 2 * small, "{model:?}: {plain} and {small}");
    }
}

#[test]
fn unsent_bytes_reach_one_read_buffer_whatever_its_size() {
    for read_buffer_bytes in [1, 100, 200_000] {
        let limits = Limits::default().with(|limits| limits.read_buffer_bytes = read_buffer_bytes);
        let server = Running::reactor(&[TCP], limits);
        let client = [server.connect()];
        if read_buffer_bytes == 1 {
            client[0].is_echoed(&noise(1, 5_000));
        } else {
            stuff(&client);
        }
        drop(client);
        wait_until("it is closed", || server.stats().connections_open == 0);
        let stats = server.drain();
        assert!(
            stats.unsent_bytes_peak <= read_buffer_bytes as u64,
            "{stats}"
        );
    }
}

#[test]
fn a_budget_of_one_byte_still_echoes_everything() {
    let limits = Limits::default().with(|limits| {
        limits.read_budget_bytes = 1;
        limits.accept_budget = 1;
        limits.read_buffer_bytes = 1_000;
    });
    let server = Running::reactor(&[TCP], limits);
    let clients: Vec<Socket> = (0..20).map(|_| server.connect()).collect();
    let sent = noise(1, 50_000);
    clients.iter().for_each(|client| client.say(&sent));
    clients.iter().for_each(Talk::finish);
    for client in &clients {
        crate::support::assert_same(&client.hear_all(), &sent);
    }
    let stats = server.drain();
    assert!(stats.budget_yields > 20, "{stats}");
}

#[test]
fn a_limit_out_of_range_is_refused_by_name_and_nothing_is_bound() {
    let addresses = crate::support::parse(&[TCP]);
    let limits = Limits::default().with(|limits| limits.connections_max = 0);
    let error = echo_reactor::echo::Server::bind(&addresses, limits).unwrap_err();
    assert!(
        error.to_string().contains("connections_max of 0"),
        "{error}"
    );
}

/// The descriptor limit of a running server, lowered from outside. What the reactor does at it is in the catalogue (A1
/// to A3).
#[cfg(all(feature = "cli", target_os = "linux"))]
mod descriptors {
    use super::TCP;
    use crate::support::fault::{allow, exhaust};
    use crate::support::{Serve, Talk, has_tool, wait_until};
    use nix::sys::signal::Signal;
    use socket2::Socket;

    #[test]
    fn without_descriptors_threads_serve_the_queue_as_well() {
        if !has_tool("prlimit") {
            return;
        }
        // The default pause; a longer one would make the test weaker, since a close has to end the pause early.
        let server = Serve::start(&[TCP], &["--model", "threads"]);
        let (first, second) = (server.connect(), server.connect());
        first.is_echoed(b"one");
        second.is_echoed(b"two");
        exhaust(&server);
        let queued: Vec<Socket> = (0..20).map(|_| server.connect()).collect();
        queued.iter().for_each(|client| client.say(b"let me in"));
        wait_until("accept fails", || {
            server
                .counters()
                .keys()
                .any(|name| name == "accept_errors{24}")
        });
        server.says("ulimit -n");
        second.is_echoed(b"open ones are still served");
        // A thread that is blocked in accept(2) has its descriptor already, as the kernel takes it before it waits.
        let inside = queued
            .iter()
            .filter(|client| !client.hears_nothing())
            .count();
        assert!(inside <= 1, "{inside} got in");

        // One client closes, one connection is accepted, and so on, with no new connection that would raise an edge.
        drop(first);
        for client in queued {
            assert_eq!(client.hear(9), b"let me in");
            client.is_echoed(b"and served");
        }
        second.is_echoed(b"to the end");
        drop(second);
        wait_until("all are gone", || server.counter("connections_open") == 0);
        let counters = server.counters();
        assert_eq!(counters["accepted"], 22);
        assert!(counters["accept_pauses"] > 0);
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    }

    /// No connection closes and none arrives: only the timer of the pause can find the free descriptors.
    #[test]
    fn descriptors_that_come_free_elsewhere_are_found_by_a_timer() {
        if !has_tool("prlimit") {
            return;
        }
        for model in ["reactor", "threads"] {
            let server = Serve::start(&[TCP], &["--model", model]);
            server.connect().is_echoed(b"warm");
            exhaust(&server);
            let queued: Vec<Socket> = (0..5).map(|_| server.connect()).collect();
            queued.iter().for_each(|client| client.say(b"let me in"));
            server.says("ulimit -n");
            allow(&server, 1_000);
            for client in &queued {
                assert_eq!(client.hear(9), b"let me in", "{model}");
            }
        }
    }
}
