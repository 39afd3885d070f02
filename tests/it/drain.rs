//! What is queued in the kernel when a server begins to stop: clients in accept queues and datagrams in receive buffers.
//!
//! What may live in this file: queues that are longer than the budget of a turn, at every kind of socket; what a drain
//! serves of them, and what is counted as lost when its time is over. The rest of stopping is in `stop`.

use crate::support::{Dir, Talk, bind, connect, ip, turn_until};
use echo_reactor::Limits;
use echo_reactor::echo::{Server, Turn};
use echo_reactor::stats::{CloseReason, DropReason, RejectReason, Stats};
use socket2::Socket;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

const TCP: &str = "tcp://127.0.0.1:0";
/// Several times what a listener accepts and a socket answers in a turn.
const QUEUED: usize = 300;

/// Nothing of the draining ends by itself within the time of a test, but for clients that are quiet.
fn limits() -> Limits {
    Limits::default().with(|limits| {
        limits.drain_idle_timeout = Duration::from_millis(20);
        limits.fin_timeout = Duration::from_secs(1);
        limits.drain_timeout = Duration::from_secs(600);
    })
}

/// Clients that the kernel has connected and the server has not accepted, each with a message under way.
fn queued(server: &Server, listener: usize, count: usize) -> Vec<Socket> {
    let client = |number: usize| {
        let client = connect(&server.addresses()[listener]);
        client.say(&message(number));
        client.finish();
        client
    };
    (0..count).map(client).collect()
}

fn message(number: usize) -> Vec<u8> {
    format!("message {number:05}").into_bytes()
}

fn are_served(clients: &[Socket]) {
    for (number, client) in clients.iter().enumerate() {
        assert_eq!(client.hear_all(), message(number), "client {number}");
    }
}

/// Drains the server, and takes one turn after the other until it is finished.
fn drained(server: &mut Server) -> Stats {
    server.drain();
    finished(server)
}

fn finished(server: &mut Server) -> Stats {
    while server.turn(None).unwrap() != Turn::Finished {}
    let stats = server.stats().clone();
    assert_eq!(stats.check_invariants(), Ok(()));
    stats
}

#[test]
fn every_client_in_the_accept_queues_is_served() {
    let directory = Dir::new();
    let mut server = bind(&[TCP, TCP, &directory.address("unix", "s")], limits());
    let clients: Vec<_> = (0..3).map(|l| queued(&server, l, QUEUED)).collect();
    let stats = drained(&mut server);
    clients.iter().for_each(|clients| are_served(clients));
    assert_eq!(
        stats.closed(CloseReason::PeerClosed),
        3 * QUEUED as u64,
        "{stats}"
    );
    assert_eq!(stats.rejected_total(), 0, "{stats}");
}

#[test]
fn clients_queued_behind_the_connection_limit_are_served_as_others_leave() {
    let limits = limits().with(|limits| limits.connections_max = 7);
    let mut server = bind(&[TCP, TCP], limits);
    let quiet = [
        connect(&server.addresses()[0]),
        connect(&server.addresses()[1]),
    ];
    turn_until(&mut server, "both are in", |stats| {
        stats.connections_open == 2
    });
    let clients = [queued(&server, 0, 100), queued(&server, 1, 100)];
    let stats = drained(&mut server);
    clients.iter().for_each(|clients| are_served(clients));
    quiet
        .iter()
        .for_each(|quiet| assert_eq!(quiet.hear_all(), b""));
    assert_eq!(stats.closed(CloseReason::PeerClosed), 200, "{stats}");
    assert_eq!(
        (stats.rejected_total(), stats.connections_open_peak),
        (0, 7),
        "{stats}"
    );
}

#[test]
fn every_queued_datagram_is_answered() {
    const EACH: usize = 80;
    let directory = Dir::new();
    let paths = ["unixgram", "unixgram"].map(|scheme| directory.address(scheme, scheme));
    let mut server = bind(
        &["udp://127.0.0.1:0", "udp://127.0.0.1:0", &paths[0]],
        limits(),
    );
    let clients: Vec<UdpSocket> = (0..2)
        .map(|socket| {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.connect(ip(&server.addresses()[socket])).unwrap();
            client
                .set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            (0..EACH).for_each(|number| assert!(client.send(&message(number)).is_ok()));
            client
        })
        .collect();
    // As many as a Unix datagram socket queues where that is unchanged (net.unix.max_dgram_qlen).
    let local = UnixDatagram::bind(directory.path("client")).unwrap();
    local.connect(directory.path("unixgram")).unwrap();
    local.set_nonblocking(true).unwrap();
    let sent = (0..EACH)
        .take_while(|&number| local.send(&message(number)).is_ok())
        .count();
    assert!(sent > 0);
    let stats = drained(&mut server);
    for client in &clients {
        for number in 0..EACH {
            let mut answer = [0; 64];
            let length = client.recv(&mut answer).unwrap();
            assert_eq!(answer[..length], message(number));
        }
    }
    assert_eq!(stats.datagrams_out, (2 * EACH + sent) as u64, "{stats}");
    assert_eq!(stats.dropped_total(), 0, "{stats}");
}

/// The budget of a turn is one datagram, and for each that is read another one is sent: the queue never becomes empty.
#[test]
fn a_flood_of_datagrams_does_not_keep_a_drain_from_its_end() {
    let limits = limits().with(|limits| {
        limits.datagram_budget = 1_000;
        limits.datagrams_per_source = None;
        limits.datagrams_total = None;
    });
    let mut server = bind(&["udp://127.0.0.1:0"], limits);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(ip(&server.addresses()[0])).unwrap();
    let refill = || (0..1_100).for_each(|_| drop(client.send(b"x")));
    refill();
    server.drain();
    let mut turns = 0;
    loop {
        refill();
        if server.turn(Some(Duration::ZERO)).unwrap() == Turn::Finished {
            break;
        }
        turns += 1;
        assert!(turns < 10_000, "it does not end: {}", server.stats());
    }
    let stats = server.stats();
    assert_eq!(stats.dropped(DropReason::Stopping), 0, "{stats}");
}

#[test]
fn what_is_still_queued_when_the_time_is_over_is_reset_and_counted() {
    let directory = Dir::new();
    let limits = limits().with(|limits| {
        limits.connections_max = 1;
        limits.drain_idle_timeout = Duration::from_secs(600);
        limits.fin_timeout = Duration::from_millis(50);
        limits.drain_timeout = Duration::from_millis(200);
        limits.accept_budget = 2;
    });
    let address = directory.address("unix", "s");
    let mut server = bind(&[&address, TCP], limits);
    let quiet = connect(&server.addresses()[0]);
    turn_until(&mut server, "it is in", |stats| stats.connections_open == 1);
    let clients = [queued(&server, 0, 5), queued(&server, 1, 5)];
    let stats = drained(&mut server);
    assert_eq!(stats.rejected(RejectReason::Stopping), 10, "{stats}");
    assert_eq!(stats.accepted, 1, "{stats}");
    drop((quiet, clients));
}

#[test]
fn a_stop_counts_what_is_queued() {
    let mut server = bind(&[TCP, "udp://127.0.0.1:0"], limits());
    let clients = queued(&server, 0, QUEUED);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = ip(&server.addresses()[1]);
    (0..80).for_each(|_| assert!(client.send_to(b"x", address).is_ok()));
    server.stop();
    let stats = finished(&mut server);
    assert_eq!(
        stats.rejected(RejectReason::Stopping),
        QUEUED as u64,
        "{stats}"
    );
    assert_eq!(stats.dropped(DropReason::Stopping), 80, "{stats}");
    assert_eq!((stats.accepted, stats.datagrams_in), (0, 80), "{stats}");
    drop(clients);
}

/// SIGSTOP holds the program while the queues fill, so that SIGTERM finds them full.
#[cfg(feature = "cli")]
mod signals {
    use super::{QUEUED, TCP, message};
    use crate::support::{Serve, Talk, ip};
    use nix::sys::signal::Signal;
    use std::net::UdpSocket;

    #[test]
    fn sigterm_finds_full_queues_and_every_client_is_served() {
        let server = Serve::start(&[TCP, "udp://127.0.0.1:0"], &[]);
        server.signal(Signal::SIGSTOP);
        let clients: Vec<_> = (0..QUEUED).map(|_| server.connect()).collect();
        for (number, client) in clients.iter().enumerate() {
            client.say(&message(number));
            client.finish();
        }
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = ip(&server.endpoints[1]);
        (0..80).for_each(|_| assert!(datagrams.send_to(b"x", address).is_ok()));
        server.signal(Signal::SIGTERM);
        server.signal(Signal::SIGCONT);
        super::are_served(&clients);
        let ended = server.wait();
        assert_eq!(ended.code, 0, "{}", ended.err);
        assert!(ended.err.contains("datagrams_out=80"), "{}", ended.err);
    }

    #[test]
    fn two_signals_lose_what_is_queued_and_say_so() {
        let server = Serve::start(&[TCP], &[]);
        server.signal(Signal::SIGSTOP);
        let clients: Vec<_> = (0..QUEUED).map(|_| server.connect()).collect();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCONT] {
            server.signal(signal);
        }
        let ended = server.wait();
        drop(clients);
        assert_eq!(ended.code, 3, "{}", ended.err);
        let says = ended.err.contains("queued connections reset");
        assert!(says, "{}", ended.err);
    }
}
