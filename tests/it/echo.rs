//! What every echo server has to do, over every kind of stream: one set of cases for three servers and all their
//! transports.
//!
//! What may live in this file: what is true of all of them. The blocking models are the oracle of the event loop: where
//! the results differ, one of the servers is wrong.

use crate::support::{
    Dir, Model, Noise, Running, Talk, assert_same, has_ipv6, ip, noise, sock_addr, try_connect,
    unique_name,
};
use echo_reactor::Limits;
use echo_reactor::echo::Config;
use echo_reactor::net::Endpoint;
use echo_reactor::stats::CloseReason;
use socket2::{SockAddr, Socket};
use std::thread;

/// One conversation.
struct Case {
    name: &'static str,
    /// What is said, write by write.
    slices: Vec<Vec<u8>>,
    behavior: Behavior,
}

enum Behavior {
    /// Each slice is echoed before the next is sent.
    InTurn,
    /// One thread sends all slices and FIN, while another one reads.
    AtOnce,
    /// All slices and FIN are sent before anything is read: no more than fits into the kernel's buffers.
    Before,
    /// The same, with the bytes and the FIN in one segment, if the transport has segments.
    WithFin,
}

fn cases() -> Vec<Case> {
    let case = |name, slices, behavior| Case {
        name,
        slices,
        behavior,
    };
    vec![
        case(
            "a greeting",
            vec![b"Hello, world!".to_vec()],
            Behavior::InTurn,
        ),
        case("nothing but FIN", vec![], Behavior::Before),
        case(
            "byte by byte, awaited",
            bytes_of(&noise(1, 300)),
            Behavior::InTurn,
        ),
        case("byte by byte", bytes_of(&noise(2, 3_000)), Behavior::AtOnce),
        case(
            "every byte value",
            vec![(0..=255).collect()],
            Behavior::InTurn,
        ),
        case("64 KiB", vec![noise(3, 64 << 10)], Behavior::AtOnce),
        case(
            "a read buffer and one more",
            vec![noise(4, Limits::default().read_buffer_bytes + 1)],
            Behavior::AtOnce,
        ),
        case("1 MiB", vec![noise(5, 1 << 20)], Behavior::AtOnce),
        case(
            "slices of any length",
            slices_of(&noise(6, 512 << 10)),
            Behavior::AtOnce,
        ),
        case("pipelined messages", messages(100), Behavior::Before),
        case("a dialogue", messages(100), Behavior::InTurn),
        case(
            "data and FIN in one go",
            vec![noise(7, 5)],
            Behavior::WithFin,
        ),
        case(
            "much data and FIN in one go",
            vec![noise(8, 30_000)],
            Behavior::WithFin,
        ),
    ]
}

fn bytes_of(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.chunks(1).map(<[u8]>::to_vec).collect()
}

fn slices_of(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut lengths = Noise::new(7);
    let mut slices = Vec::new();
    while !bytes.is_empty() {
        // Short ones as often as long ones.
        let most = 1 << (lengths.next() % 16);
        let length = 1 + lengths.next() as usize % most;
        let (slice, rest) = bytes.split_at(length.min(bytes.len()));
        slices.push(slice.to_vec());
        bytes = rest;
    }
    slices
}

fn messages(count: u32) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| format!("message {number};").into_bytes())
        .collect()
}

/// Holds one conversation: everything comes back, in order, and then FIN.
#[track_caller]
fn converse(client: &Socket, case: &Case) {
    let said = case.slices.concat();
    let say_all = || {
        case.slices.iter().for_each(|slice| client.say(slice));
        client.finish();
    };
    match case.behavior {
        Behavior::InTurn => {
            case.slices.iter().for_each(|slice| client.is_echoed(slice));
            client.finish();
            assert_same(&client.hear_all(), &[]);
        }
        Behavior::AtOnce => thread::scope(|scope| {
            scope.spawn(say_all);
            assert_same(&client.hear_all(), &said);
        }),
        Behavior::Before => {
            say_all();
            assert_same(&client.hear_all(), &said);
        }
        Behavior::WithFin => {
            let _ = client.set_tcp_cork(true); // no Unix socket has it
            say_all();
            assert_same(&client.hear_all(), &said);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Tcp4,
    Tcp6,
    /// IPv4 clients of an IPv6 socket.
    DualStack,
    Ipv6Only,
    UnixFile,
    UnixAbstract,
}

impl Transport {
    fn is_here(self) -> bool {
        !matches!(self, Self::Tcp6 | Self::DualStack | Self::Ipv6Only) || has_ipv6()
    }

    fn address(self, directory: &Dir) -> String {
        match self {
            Self::Tcp4 => "tcp://127.0.0.1:0".to_owned(),
            Self::Tcp6 => "tcp://[::1]:0".to_owned(),
            Self::DualStack => ":0".to_owned(),
            Self::Ipv6Only => "tcp://[::]:0".to_owned(),
            Self::UnixFile => directory.address("unix", "echo"),
            Self::UnixAbstract => Endpoint::Unix(unique_name()).to_string(),
        }
    }

    /// The address at which a client reaches the server.
    fn way(self, endpoint: &Endpoint) -> SockAddr {
        match self {
            Self::DualStack => {
                let port = ip(endpoint).port();
                sock_addr(&Endpoint::Tcp(([127, 0, 0, 1], port).into()))
            }
            _ => sock_addr(endpoint),
        }
    }
}

#[track_caller]
fn check(model: Model, transport: Transport) {
    if !transport.is_here() {
        return;
    }
    let directory = Dir::new();
    let config =
        Config::default().with(|config| config.ipv6_only = transport == Transport::Ipv6Only);
    let server = Running::start(model, &[&transport.address(&directory)], config);
    let way = transport.way(&server.endpoints[0]);
    let cases = cases();
    for case in &cases {
        // The name of the case is what a failure prints last.
        println!("{}", case.name);
        converse(&try_connect(&way).unwrap(), case);
    }

    let stats = server.drain();
    let conversations = cases.len() as u64;
    let said: usize = cases
        .iter()
        .flat_map(|case| &case.slices)
        .map(Vec::len)
        .sum();
    assert_eq!(stats.accepted, conversations);
    assert_eq!(stats.closed(CloseReason::PeerClosed), conversations);
    assert_eq!(
        (stats.bytes_in, stats.bytes_out),
        (said as u64, said as u64)
    );
    assert_eq!(stats.discarded, 0);
}

/// One test for each server and transport.
macro_rules! every_combination {
    ($($server:ident is $model:ident),*) => {$(
        mod $server {
            use super::{Model, Transport, check};

            #[test]
            fn echoes_over_tcp4() {
                check(Model::$model, Transport::Tcp4);
            }

            #[test]
            fn echoes_over_tcp6() {
                check(Model::$model, Transport::Tcp6);
            }

            #[test]
            fn echoes_over_dual_stack() {
                check(Model::$model, Transport::DualStack);
            }

            #[test]
            fn echoes_over_ipv6_only() {
                check(Model::$model, Transport::Ipv6Only);
            }

            #[test]
            fn echoes_over_a_unix_file() {
                check(Model::$model, Transport::UnixFile);
            }

            #[test]
            fn echoes_over_an_abstract_name() {
                check(Model::$model, Transport::UnixAbstract);
            }

            #[test]
            fn ipv6_only_leaves_ipv4_alone() {
                super::check_ipv6_only(Model::$model);
            }
        }
    )*};
}

every_combination!(reactor is Reactor, threads is Threads, iterative is Iterative);

/// The same port is free over IPv4, and no socket listens there.
#[track_caller]
fn check_ipv6_only(model: Model) {
    if !has_ipv6() {
        return;
    }
    // Another test may have the port over IPv4, by chance. Not every time.
    let refused = (0..10).any(|_| {
        let config = Config::default().with(|config| config.ipv6_only = true);
        let server = Running::start(model, &["[::]:0"], config);
        let port = ip(&server.endpoints[0]).port();
        let ipv4 = sock_addr(&Endpoint::Tcp(([127, 0, 0, 1], port).into()));
        let place = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let is_ours = place.bind(&ipv4).is_ok(); // bound but not listening: a connection is refused
        is_ours
            && try_connect(&ipv4)
                .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    });
    assert!(refused);
}
