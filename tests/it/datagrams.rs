//! Datagram echo: what comes back, what does not, and that both are counted.
//!
//! What may live in this file: UDP and Unix datagrams against the event loop. Where it matters which datagrams arrive
//! in one turn, the test runs the turns itself.

use crate::support::{
    DEADLINE, Dir, Running, assert_same, bind, has_ipv6, ip, noise, skip, turn_until, unique_name,
};
use echo_reactor::Limits;
use echo_reactor::echo::Server;
use echo_reactor::net::{Endpoint, UnixName};
use echo_reactor::stats::DropReason;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::time::Instant;

/// Larger than any datagram.
const ROOM: usize = 70_000;

/// A connected UDP client: it receives datagrams from exactly this address alone.
#[track_caller]
pub(crate) fn udp(from: &str, to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(from).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.connect(to).unwrap();
    socket
}

#[track_caller]
fn is_echoed(socket: &UdpSocket, datagram: &[u8]) {
    assert_eq!(socket.send(datagram).unwrap(), datagram.len());
    let mut answer = vec![0; ROOM];
    let length = socket.recv(&mut answer).expect("an answer");
    assert_same(&answer[..length], datagram);
}

/// Whether nothing has come. Ask only when the server has finished with all that was sent.
fn hears_nothing(socket: &UdpSocket) -> bool {
    socket.set_nonblocking(true).unwrap();
    let result = socket.recv(&mut [0; 1]);
    result.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// A server bound to `address`, and asked at `asked` (with the server's port), answers `datagrams`.
#[track_caller]
pub(crate) fn check_udp(address: &str, from: &str, asked: &str, datagrams: &[&[u8]]) {
    let server = Running::reactor(&[address], Limits::default());
    let port = ip(&server.endpoints[0]).port();
    let client = udp(from, SocketAddr::new(asked.parse().unwrap(), port));
    for datagram in datagrams {
        is_echoed(&client, datagram);
    }
    let stats = server.drain();
    let count = datagrams.len() as u64;
    assert_eq!((stats.datagrams_in, stats.datagrams_out), (count, count));
}

#[test]
fn udp_over_ipv4_is_echoed() {
    check_udp(
        "udp://127.0.0.1:0",
        "127.0.0.1:0",
        "127.0.0.1",
        &[b"Hello, world!", b"again"],
    );
}

#[test]
fn udp_over_ipv6_is_echoed() {
    if has_ipv6() {
        check_udp(
            "udp://[::1]:0",
            "[::1]:0",
            "::1",
            &[b"Hello, world!", b"again"],
        );
    }
}

#[cfg(not(feature = "pktinfo"))]
#[test]
fn a_wildcard_is_refused_rather_than_served_wrongly() {
    let addresses = crate::support::parse(&["udp://0.0.0.0:0"]);
    let error = Server::bind(&addresses, Limits::default()).unwrap_err();
    assert!(error.to_string().contains("pktinfo"), "{error}");
}

/// Without credentials of its senders, other users' could not be told from our own.
#[cfg(not(feature = "pktinfo"))]
#[test]
fn a_unix_socket_that_other_users_may_send_to_is_refused() {
    use echo_reactor::echo::Config;
    let directory = Dir::new();
    let open_file = Config::default().with(|config| config.unix_mode = 0o666);
    let name = Endpoint::UnixDatagram(unique_name()).to_string();
    for (address, config) in [
        (directory.address("unixgram", "s"), open_file),
        (name, Config::default()),
    ] {
        let addresses = crate::support::parse(&[&address]);
        let error = Server::bind(&addresses, config).unwrap_err();
        assert!(error.to_string().contains("pktinfo"), "{error}");
    }
}

// --- Unix --------------------------------------------------------------------------------------------------------------

#[track_caller]
fn check_unix(server: &Running, client: &UnixDatagram) {
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    match &server.endpoints[0] {
        Endpoint::UnixDatagram(UnixName::Path(path)) => client.connect(path).unwrap(),
        Endpoint::UnixDatagram(UnixName::Abstract(name)) => {
            let address = UnixAddr::from_abstract_name(name).unwrap();
            client.connect_addr(&address).unwrap();
        }
        other => panic!("{other} is no Unix datagram socket"),
    }
    for datagram in [b"Hello, world!".to_vec(), Vec::new(), noise(1, 65_507)] {
        client.send(&datagram).unwrap();
        let mut answer = vec![0; ROOM];
        let length = client.recv(&mut answer).expect("an answer");
        assert_same(&answer[..length], &datagram);
    }
}

#[test]
fn unix_datagrams_are_echoed_to_files_and_to_abstract_names() {
    let directory = Dir::new();
    let mut addresses = vec![directory.address("unixgram", "server")];
    if cfg!(feature = "pktinfo") {
        // An abstract name has no permission bits, so this takes a look at each sender.
        addresses.push(Endpoint::UnixDatagram(unique_name()).to_string());
    }
    for (number, address) in addresses.iter().enumerate() {
        let server = Running::reactor(&[address], Limits::default());
        let client = UnixDatagram::bind(directory.path(&format!("client-{number}"))).unwrap();
        check_unix(&server, &client);
        let UnixName::Abstract(name) = unique_name() else {
            unreachable!("it is one")
        };
        let address = UnixAddr::from_abstract_name(name).unwrap();
        check_unix(&server, &UnixDatagram::bind_addr(&address).unwrap());
        assert_eq!(server.drain().datagrams_out, 6);
    }
}

#[test]
fn a_sender_without_a_name_is_counted_and_not_answered() {
    let directory = Dir::new();
    let server = Running::reactor(
        &[&directory.address("unixgram", "server")],
        Limits::default(),
    );
    let unnamed = UnixDatagram::unbound().unwrap();
    unnamed
        .send_to(b"no answer", directory.path("server"))
        .unwrap();
    check_unix(
        &server,
        &UnixDatagram::bind(directory.path("client")).unwrap(),
    );
    let stats = server.drain();
    assert_eq!((stats.datagrams_in, stats.datagrams_out), (4, 3));
    assert_eq!(stats.dropped(DropReason::Unnamed), 1);
}

#[test]
fn a_client_that_closes_before_its_answer_harms_no_other_client() {
    let directory = Dir::new();
    let mut server = bind(
        &[&directory.address("unixgram", "server")],
        Limits::default(),
    );
    let leaver = UnixDatagram::bind(directory.path("leaver")).unwrap();
    leaver.send_to(b"bye", directory.path("server")).unwrap();
    drop(leaver);
    // The name is removed too: another test that starts a child process at this moment may keep the socket itself open
    // a little longer.
    std::fs::remove_file(directory.path("leaver")).unwrap();
    let client = UnixDatagram::bind(directory.path("client")).unwrap();
    client.send_to(b"hello", directory.path("server")).unwrap();
    turn_until(&mut server, "both are read", |stats| {
        stats.datagrams_in == 2
    });
    assert_eq!(server.stats().dropped(DropReason::Error), 1);
    let mut answer = [0; 8];
    assert_eq!(client.recv(&mut answer).unwrap(), 5);
}

// --- Floods and filtered sources ---------------------------------------------------------------------------------------

/// A server that has run no turn yet, without rate limits, and its address.
#[track_caller]
pub(crate) fn waiting(limits: Limits) -> (Server, SocketAddr) {
    let server = bind(&["udp://127.0.0.1:0"], limits);
    let address = ip(&server.addresses()[0]);
    (server, address)
}

/// A datagram of this client is dropped for this reason, and another client is answered all the same.
#[track_caller]
fn check_dropped(mut server: Server, client: &UdpSocket, why: DropReason) {
    let address = ip(&server.addresses()[0]);
    client.send(b"answer me").unwrap();
    let other = udp("127.0.0.1:0", address);
    other.send(b"and me").unwrap();
    turn_until(&mut server, "both are read", |stats| {
        stats.datagrams_in == 2
    });
    assert_eq!(server.stats().dropped(why), 1, "{}", server.stats());
    assert_eq!(server.stats().datagrams_out, 1);
    assert!(hears_nothing(client));
    assert_eq!(other.recv(&mut [0; 16]).unwrap(), 6);
}

#[test]
fn a_source_with_our_own_port_gets_no_answer() {
    let (server, address) = waiting(Limits::default());
    let client = udp(&format!("127.0.0.2:{}", address.port()), address);
    check_dropped(server, &client, DropReason::OwnPort);
}

#[test]
fn another_socket_of_ours_gets_no_answer() {
    let server = bind(
        &["udp://127.0.0.1:0", "udp://127.0.0.1:0"],
        Limits::default(),
    );
    let (first, second) = (ip(&server.addresses()[0]), ip(&server.addresses()[1]));
    let client = udp(&format!("127.0.0.2:{}", second.port()), first);
    check_dropped(server, &client, DropReason::OwnPort);
}

#[test]
fn a_source_with_a_services_port_gets_no_answer() {
    let (server, address) = waiting(Limits::default());
    let service = (600..1024)
        .rev()
        .find_map(|port| UdpSocket::bind(("127.0.0.1", port)).ok());
    let Some(client) = service else {
        return skip("only root may have a port below 1024");
    };
    client.connect(address).unwrap();
    check_dropped(server, &client, DropReason::ServicePort);
}

/// A hundred datagrams at once, at ten a second: ten are answered from the bucket, and as many more as tokens come in
/// meanwhile.
#[track_caller]
fn check_rate(limits: Limits, why: DropReason) {
    let began = Instant::now();
    let (mut server, address) = waiting(limits);
    let client = udp("127.0.0.1:0", address);
    for _ in 0..100 {
        client.send(b"more").unwrap();
    }
    turn_until(&mut server, "all are read", |stats| {
        stats.datagrams_in == 100
    });
    let most = 10 + began.elapsed().as_secs() * 10 + 10;
    let answered = server.stats().datagrams_out;
    assert!(
        (10..=most).contains(&answered),
        "{answered}, at most {most}"
    );
    assert_eq!(server.stats().dropped(why), 100 - answered);
    assert_eq!(server.stats().check_invariants(), Ok(()));
}

#[test]
fn one_source_is_answered_no_faster_than_its_rate() {
    let limits = Limits::default().with(|limits| limits.datagrams_per_source = Some(10));
    check_rate(limits, DropReason::SourceRate);
}

#[test]
fn all_sources_together_are_answered_no_faster_than_the_total_rate() {
    let limits = Limits::default().with(|limits| limits.datagrams_total = Some(10));
    check_rate(limits, DropReason::TotalRate);
}
