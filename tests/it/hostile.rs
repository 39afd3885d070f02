//! Clients that misbehave: what they do harms their own connection and no other.
//!
//! What may live in this file: one behaviour of a peer in each test, named for it, against the event loop (and against
//! the threads, where the kernel does not make the difference). Bounds are asserted by the counters and by what the
//! system reports of a child process, never by how long something took.

use crate::support::{Dir, Running, Talk, bind, connect, noise, stuff, turn_until, wait_until};
use echo_reactor::Limits;
use echo_reactor::stats::CloseReason;
use socket2::Socket;

const TCP: &str = "tcp://127.0.0.1:0";

/// The server echoes for a new connection, as if nothing had happened.
#[track_caller]
fn serves_a_new_client(server: &Running) {
    let other = server.connect();
    other.is_echoed(b"and me?");
    other.finish();
    assert_eq!(other.hear_all(), b"");
}

// --- Peers that do not read --------------------------------------------------------------------------------------------

#[track_caller]
fn check_never_reading(address: &str) {
    const STUFFED: usize = 20;
    let server = Running::reactor(&[address], Limits::default());
    let clients: Vec<Socket> = (0..STUFFED).map(|_| server.connect()).collect();
    stuff(&clients);
    serves_a_new_client(&server);
    let unsent_each = Limits::default().read_buffer_bytes as u64;
    wait_until(
        "the clients have sent more than the kernel's buffers hold",
        || server.stats().unsent_bytes > 0,
    );
    let stats = server.stats();
    assert!(
        stats.unsent_bytes_peak <= STUFFED as u64 * unsent_each,
        "{stats}"
    );
    assert_eq!(stats.check_invariants(), Ok(()));

    drop(clients);
    wait_until("all connections are closed", || {
        server.stats().connections_open == 0
    });
    let stats = server.drain();
    assert_eq!(stats.accepted, STUFFED as u64 + 1);
    assert_eq!(stats.closed(CloseReason::Reset), STUFFED as u64, "{stats}");
    assert!(stats.discarded > 0);
}

#[test]
fn tcp_clients_that_never_read_leave_one_read_buffer_unsent_each_at_most() {
    check_never_reading(TCP);
}

#[test]
fn unix_clients_that_never_read_leave_one_read_buffer_unsent_each_at_most() {
    let directory = Dir::new();
    check_never_reading(&directory.address("unix", "echo"));
}

// --- Peers that leave --------------------------------------------------------------------------------------------------

#[test]
fn a_client_that_resets_before_it_is_accepted_is_read_counted_and_forgotten() {
    let mut server = bind(&[TCP], Limits::default());
    let endpoint = server.addresses()[0].clone();
    for _ in 0..10 {
        connect(&endpoint).reset();
    }
    let client = connect(&endpoint);
    client.say(b"the eleventh");
    turn_until(&mut server, "all have been accepted", |stats| {
        stats.accepted == 11
    });
    turn_until(&mut server, "ten are closed", |stats| {
        stats.connections_open == 1
    });
    assert_eq!(client.hear(12), b"the eleventh");
    assert_eq!(server.stats().closed(CloseReason::Reset), 10);
    assert_eq!(server.stats().check_invariants(), Ok(()));
}

#[test]
fn a_client_that_closes_without_reading_its_echo_causes_a_reset_and_no_more() {
    let server = Running::reactor(&[TCP], Limits::default());
    for number in 0..50 {
        let client = server.connect();
        client.say(&noise(number, 1_000));
        wait_until("it was read", || {
            server.stats().bytes_in == (number + 1) * 1_000
        });
        drop(client);
    }
    wait_until("they are closed", || server.stats().connections_open == 0);
    serves_a_new_client(&server);
    let stats = server.drain();
    assert_eq!(stats.accepted, 51);
    // The reason depends on whether the echo had arrived before the client's close.
    assert_eq!(
        stats.closed(CloseReason::Reset) + stats.closed(CloseReason::PeerClosed),
        51
    );
}

// --- Unusual input -----------------------------------------------------------------------------------------------------

#[test]
fn writes_of_no_bytes_do_not_end_a_connection() {
    let directory = Dir::new();
    for address in [TCP, &directory.address("unix", "echo")] {
        let server = Running::reactor(&[address], Limits::default());
        let client = server.connect();
        for _ in 0..10 {
            assert_eq!(client.send(b"").unwrap(), 0);
        }
        client.is_echoed(b"after nothing");
        let stats = server.stop();
        assert_eq!(stats.bytes_in, 13);
    }
}

/// A peer that half-closes and keeps its side open for ever: the server sends its FIN and closes all the same.
#[test]
fn a_peer_that_half_closes_and_never_closes_is_closed_by_the_server() {
    let server = Running::reactor(&[TCP], Limits::default());
    let stayers: Vec<Socket> = (0..20).map(|_| server.connect()).collect();
    for stayer in &stayers {
        stayer.say(b"last words");
        stayer.finish();
        assert_eq!(stayer.hear_all(), b"last words");
    }
    wait_until("they are closed", || server.stats().connections_open == 0);
    assert_eq!(server.drain().closed(CloseReason::PeerClosed), 20);
}

/// The server process, measured from outside.
#[cfg(feature = "cli")]
mod child {
    use super::TCP;
    use crate::support::{Serve, Talk, noise, skip, stuff, wait_until};
    use echo_reactor::Limits;
    use nix::sys::signal::Signal;
    use socket2::Socket;

    #[test]
    fn thirty_clients_that_never_read_pin_less_than_64_kib_each() {
        let server = Serve::start(&[TCP], &[]);
        let warm = server.connect();
        warm.is_echoed(&noise(1, 100_000));
        let before = server.status("VmRSS");
        let clients: Vec<Socket> = (0..30).map(|_| server.connect()).collect();
        stuff(&clients);
        warm.is_echoed(b"still there?");
        let grown = server.status("VmRSS").saturating_sub(before);
        assert!(grown < 30 * 64, "{grown} KiB for 30 clients");
        assert!(server.counter("unsent_bytes") <= 30 * Limits::default().read_buffer_bytes as u64);
    }

    /// A process stopped by SIGSTOP looks to its clients like a paused machine.
    #[test]
    fn connections_made_while_the_server_was_stopped_are_served_when_it_continues() {
        let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        if somaxconn.trim().parse::<u32>().unwrap() < 400 {
            return skip("net.core.somaxconn is too small for 300 clients in the queue");
        }
        let server = Serve::start(&[TCP], &[]);
        server.signal(Signal::SIGSTOP);
        wait_until("it is stopped", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
            stat.rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with('T'))
        });
        let clients: Vec<Socket> = (0..300).map(|_| server.connect()).collect();
        for (number, client) in clients.iter().enumerate() {
            client.say(&noise(number as u64, 100));
        }
        server.signal(Signal::SIGCONT);
        for (number, client) in clients.iter().enumerate() {
            assert_eq!(client.hear(100), noise(number as u64, 100));
        }
    }
}
