//! The PROXY protocol over real sockets: what `serve` reads of it, and what `send` and `bench` write.

mod sending;

use crate::support::fault::{can, leave};
use crate::support::{
    DEADLINE, Dir, Ended, Running, Serve, Talk, ended, has_ipv6, noise, program, sock_addr,
    wait_until,
};
use echo_reactor::echo::{Config, DirectPolicy, ProxyProtocol};
use echo_reactor::net::Endpoint;
use echo_reactor::stats::{CloseReason, RejectReason};
use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TCP: &str = "tcp://127.0.0.1:0";
const LOOPBACK: [&str; 4] = ["--proxy-protocol", "require", "--proxy-from", "127.0.0.0/8"];
const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n";
const BINARY: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\xc0\0\x02\x01\xc6\x33\x64\x01\xdc\x04\x01\xbb\x04\0\0";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// A server that requires headers from loopback, and these further flags.
#[track_caller]
fn start(flags: &[&str]) -> Serve {
    Serve::start(&[TCP], &[&LOOPBACK, flags].concat())
}

/// A connection from this address, which sends these bytes.
#[track_caller]
fn from(server: &Serve, source: &str, bytes: &[u8]) -> Socket {
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.set_tcp_nodelay(true).unwrap();
    let source: SocketAddr = format!("{source}:0").parse().unwrap();
    client.bind(&source.into()).unwrap();
    client.connect(&sock_addr(&server.endpoints[0])).unwrap();
    let _ = (&client).write_all(bytes); // it may be reset already
    client
}

/// Checks that the server has reset the connection, and sent nothing before.
#[track_caller]
fn is_reset(mut client: &Socket) {
    let mut kind = client.read(&mut [0; 64]).map_err(|error| error.kind());
    if kind == Ok(0) {
        // The write before was told of the reset, and the read is not any more. After a FIN, a write would succeed.
        kind = client.write(b"x").map_err(|error| error.kind());
    }
    let told = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    assert!(kind.is_err_and(|kind| told.contains(&kind)), "{kind:?}");
}

fn counter(server: &Serve, name: &str) -> u64 {
    server.counter(name)
}

// --- Headers ---------------------------------------------------------------------------------------------------------------

#[test]
fn a_connection_of_a_proxy_is_echoed_from_behind_its_header() {
    let server = start(&["-v"]);
    for header in [LINE, BINARY, LOCAL, b"PROXY UNKNOWN\r\n"] {
        let client = server.connect();
        client.say(&[header, b"hello"].concat());
        assert_eq!(client.hear(5), b"hello");
        client.is_echoed(&noise(1, 100_000));
        client.is_echoed(LINE); // a second one is no header any more
        client.finish();
        assert_eq!(client.hear_all(), b"");
    }
    let counters = server.counters();
    assert_eq!(counters["proxy_headers"], 4);
    assert_eq!(counters["accepted"], 4);
    let payload = 4 * (5 + 100_000 + LINE.len() as u64);
    assert_eq!(
        (counters["bytes_in"], counters["bytes_out"]),
        (payload, payload)
    );
    let err = server.err();
    let declared = "Connected by 192.0.2.1:56324, through the proxy 127.0.0.1:";
    assert_eq!(err.matches(declared).count(), 2, "{err}");
    assert_eq!(err.matches("Connected by 127.0.0.1:").count(), 2, "{err}");
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

/// Each byte is a segment of its own, and the cut moves through the header.
#[test]
fn a_header_may_come_in_any_pieces() {
    let server = start(&["--sandbox"]);
    for header in [LINE, BINARY] {
        let client = server.connect();
        client.set_tcp_nodelay(true).unwrap();
        for &byte in header {
            client.say(&[byte]);
        }
        client.is_echoed(b"byte by byte");
        for place in 1..header.len() {
            let client = server.connect();
            client.set_tcp_nodelay(true).unwrap();
            client.say(&header[..place]);
            client.say(&[&header[place..], b"x"].concat());
            assert_eq!(client.hear(1), b"x", "cut at {place}");
        }
    }
    let headers = (LINE.len() + BINARY.len()) as u64;
    assert_eq!(counter(&server, "proxy_headers"), headers);
}

#[test]
fn unix_sockets_and_ipv6_have_headers_too() {
    let directory = Dir::new();
    let address = directory.address("unix", "echo");
    let flags = ["--proxy-protocol", "require", "--proxy-from", "unix,::1"];
    let mut addresses = vec![address.as_str()];
    if has_ipv6() {
        addresses.push("tcp://[::1]:0");
    }
    let server = Serve::start(&addresses, &flags);
    for endpoint in &server.endpoints {
        let client = crate::support::connect(endpoint);
        let mut unix = b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8".to_vec();
        unix.extend([b"/run/client.sock".to_vec(), vec![0; 200]].concat());
        client.say(&unix);
        client.is_echoed(b"of a Unix client");
        let client = crate::support::connect(endpoint);
        client.say(b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n");
        client.is_echoed(b"of an IPv6 client");
    }
    let connections = 2 * server.endpoints.len() as u64;
    assert_eq!(counter(&server, "proxy_headers"), connections);
}

/// A dual-stack socket sees an IPv4 proxy as an IPv4-mapped address, and the network is an IPv4 one.
#[test]
fn a_proxy_is_known_by_its_ipv4_address_on_a_dual_stack_socket() {
    if !has_ipv6() {
        return;
    }
    let flags = [&LOOPBACK[..], &["--allow-public-udp"]].concat();
    let server = Serve::start(&["tcp://[::]:0"], &flags);
    let Endpoint::Tcp(address) = server.endpoints[0] else {
        panic!("TCP was asked for")
    };
    let mut client = TcpStream::connect(("127.0.0.1", address.port())).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(&[LINE, b"x"].concat()).unwrap();
    client.read_exact(&mut [0]).unwrap();
}

#[test]
fn workers_read_headers() {
    let server = start(&["--workers", "2"]);
    for _ in 0..8 {
        let client = server.connect();
        client.say(LINE);
        client.is_echoed(b"by a worker");
    }
    assert_eq!(counter(&server, "proxy_headers"), 8);
}

// --- Peers -----------------------------------------------------------------------------------------------------------------

#[test]
fn a_peer_that_is_no_proxy_is_refused_where_headers_are_required() {
    let flags = ["--proxy-protocol", "require", "--proxy-from", "127.0.0.2"];
    let server = Serve::start(&[TCP], &flags);
    for bytes in [LINE, b"hello"] {
        is_reset(&from(&server, "127.0.0.1", bytes));
    }
    let proxy = from(&server, "127.0.0.2", LINE);
    proxy.is_echoed(b"by the proxy");
    let counters = server.counters();
    assert_eq!(counters["rejected{not_proxy}"], 2);
    assert_eq!((counters["accepted"], counters["proxy_headers"]), (1, 1));
    server.says("no network of the proxies");
}

/// What decides is the address: a header by any other peer is nothing but bytes, and a proxy without one is not served.
#[test]
fn a_peer_that_is_no_proxy_is_a_client_where_headers_are_accepted() {
    let flags = ["--proxy-protocol", "accept", "--proxy-from", "127.0.0.2"];
    let server = Serve::start(&[TCP], &[&flags[..], &["--deny", "192.0.2.0/24"]].concat());
    let client = from(&server, "127.0.0.1", LINE);
    assert_eq!(client.hear(LINE.len()), LINE, "it has declared nothing");
    is_reset(&from(
        &server,
        "127.0.0.2",
        b"hello, world, without any header",
    ));
    is_reset(&from(&server, "127.0.0.2", LINE));
    let check = from(&server, "127.0.0.2", LOCAL);
    check.is_echoed(b"by the proxy itself");
    let counters = server.counters();
    assert_eq!(counters["closed{proxy_header}"], 1);
    assert_eq!(
        counters["closed{proxy_denied}"], 1,
        "its client is on the list"
    );
    assert_eq!(counters["connections_open"], 2);
}

#[test]
fn the_declared_client_has_the_limits_of_a_client() {
    let server = start(&["--max-per-prefix", "2"]);
    let line = |ip: &str| format!("PROXY TCP4 {ip} 198.51.100.1 1 2\r\n").into_bytes();
    let open = |ip: &str| {
        let client = server.connect();
        client.say(&line(ip));
        client.is_echoed(b"in");
        client
    };
    let clients = [open("192.0.2.1"), open("192.0.2.1")];
    let third = server.connect();
    third.say(&line("192.0.2.1"));
    is_reset(&third);
    let others = [open("192.0.2.2"), open("192.0.2.3"), open("192.0.2.4")];
    server.says("192.0.2.1:1, through the proxy 127.0.0.1:");
    drop(clients);
    wait_until("they are closed", || {
        counter(&server, "closed{peer_closed}") == 2
    });
    open("192.0.2.1");
    assert_eq!(counter(&server, "closed{proxy_prefix}"), 1);
    drop(others);
}

/// A program that embeds the server configures it without the flags.
#[test]
fn an_embedded_server_reads_headers() {
    let mut proxies = ProxyProtocol::default();
    proxies.from = vec!["127.0.0.0/8".parse().unwrap()];
    let config = Config::default().with(|config| config.proxy = Some(proxies.clone()));
    let server = Running::reactor(&[TCP], config);
    let client = server.connect();
    client.say(&[BINARY, b"x"].concat());
    assert_eq!(client.hear(1), b"x");
    let stats = server.drain();
    assert_eq!((stats.proxy_headers, stats.bytes_in), (1, 1));

    proxies.from.clear();
    let config = |direct| {
        let mut proxies = proxies.clone();
        proxies.direct = direct;
        Config::default().with(|config| config.proxy = Some(proxies))
    };
    let server = Running::reactor(&[TCP], config(DirectPolicy::Serve));
    server.connect().is_echoed(BINARY);
    assert_eq!(server.drain().closed(CloseReason::ProxyHeader), 0);
    let server = Running::reactor(&[TCP], config(DirectPolicy::Reject));
    let rejected = crate::support::try_connect(&sock_addr(&server.endpoints[0]));
    drop(crate::support::unless_reset(rejected));
    let is_rejected = || server.stats().rejected(RejectReason::NotProxy) == 1;
    wait_until("it is rejected", is_rejected);
}

// --- Malformed, slow, and many ---------------------------------------------------------------------------------------------

#[test]
fn malformed_headers_are_reset_counted_and_logged_once() {
    let server = start(&[]);
    let good = server.connect();
    good.say(LINE);
    good.is_echoed(b"before");
    let long = [b"PROXY UNKNOWN ", &[b'x'; 93][..]].concat();
    let malformed = [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"PROXY TCP4 192.0.2.256 198.51.100.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        &long,
    ];
    for bytes in malformed {
        let client = server.connect();
        client.say(bytes);
        is_reset(&client);
    }
    let cut = server.connect();
    cut.say(&LINE[..30]);
    cut.finish();
    is_reset(&cut);
    let check = server.connect();
    check.finish();
    assert_eq!(
        check.hear_all(),
        b"",
        "a check of the port alone is no mistake"
    );
    good.is_echoed(b"after");
    let counters = server.counters();
    assert_eq!(counters["closed{proxy_header}"], 7);
    assert_eq!(counters["closed{peer_closed}"], 1);
    assert_eq!(counters["bytes_in"], 11);
    assert_eq!(counters["log_suppressed"], 6);
    let lines = "is reset for its PROXY header: it begins like neither version of the protocol";
    assert_eq!(server.err().matches(lines).count(), 1, "{}", server.err());
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

/// A byte now and then does not keep a connection open, and costs the echo of another one nothing.
#[test]
fn a_slow_header_ends_at_its_deadline() {
    let server = start(&["--proxy-header-timeout", "300ms"]);
    let good = server.connect();
    good.say(LINE);
    let silent = server.connect();
    let mut slow = server.connect();
    slow.set_tcp_nodelay(true).unwrap();
    for byte in BINARY.iter().cycle() {
        if slow.write_all(&[*byte]).is_err() {
            break;
        }
        good.is_echoed(b"meanwhile");
        let wait = slow.set_read_timeout(Some(Duration::from_millis(20)));
        wait.unwrap();
        match slow.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            other => {
                assert!(other.is_err(), "{other:?}");
                break;
            }
        }
    }
    is_reset(&silent);
    good.is_echoed(b"afterwards");
    assert_eq!(counter(&server, "closed{proxy_timeout}"), 2);
    server.says("bytes came in 300ms");
}

/// Half headers hold no more connections than there may be, and not for longer than their time.
#[test]
fn a_flood_of_half_headers_leaves_the_rest_alone() {
    let flags = ["--max-connections", "20", "--proxy-header-timeout", "500ms"];
    let server = start(&flags);
    let good = server.connect();
    good.say(LINE);
    good.is_echoed(b"before");
    let flood: Vec<Socket> = (0..60).map(|_| server.connect()).collect();
    flood.iter().for_each(|client| client.say(&BINARY[..20]));
    let late = server.connect();
    late.say(&[LINE, b"late"].concat());
    good.is_echoed(b"meanwhile");
    assert_eq!(late.hear(4), b"late", "the flood makes room in time");
    wait_until("each has had its time", || {
        counter(&server, "closed{proxy_timeout}") == 60
    });
    assert_eq!(counter(&server, "connections_open_peak"), 20);
    good.is_echoed(b"afterwards");
}

/// Without descriptors nothing is accepted, and what is open is served; headers that are late make room.
#[test]
fn half_headers_and_no_descriptors() {
    if !can(&["prlimit"]) {
        return;
    }
    let server = start(&["--proxy-header-timeout", "500ms"]);
    let good = server.connect();
    good.say(LINE);
    good.is_echoed(b"before");
    leave(&server, 8);
    let flood: Vec<Socket> = (0..40).map(|_| server.connect()).collect();
    flood.iter().for_each(|client| client.say(&LINE[..10]));
    let late = server.connect();
    late.say(&[LINE, b"late"].concat());
    good.is_echoed(b"meanwhile");
    assert_eq!(late.hear(4), b"late");
    wait_until("each has had its time", || {
        counter(&server, "closed{proxy_timeout}") == 40
    });
    assert!(counter(&server, "accept_errors{24}") > 0);
    good.is_echoed(b"afterwards");
    drop(flood);
}

#[test]
fn metrics_have_headers_and_reasons() {
    let admin = ["--admin", "http://127.0.0.1:0"];
    let server = start(&admin);
    const WORDS: &str = "health and metrics at http://";
    server.says(WORDS);
    let err = server.err();
    let address = err.split_once(WORDS).unwrap().1.lines().next().unwrap();
    let client = server.connect();
    client.say(LINE);
    client.is_echoed(b"x");
    let wrong = server.connect();
    wrong.say(b"x");
    is_reset(&wrong);
    let mut asked = TcpStream::connect(address).unwrap();
    asked.set_read_timeout(Some(DEADLINE)).unwrap();
    asked.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut metrics = String::new();
    asked.read_to_string(&mut metrics).unwrap();
    for line in [
        "echo_reactor_proxy_headers_total 1",
        "echo_reactor_closed_total{reason=\"proxy_header\"} 1",
        "echo_reactor_closed_total{reason=\"proxy_timeout\"} 0",
        "echo_reactor_rejected_total{reason=\"not_proxy\"} 0",
    ] {
        assert!(metrics.lines().any(|printed| printed == line), "{line}");
    }
}

#[test]
fn what_serves_no_client_is_refused_at_the_start() {
    let serve = |line: &str| -> Ended {
        let mut command = program();
        command.arg("serve").args(line.split(' '));
        ended(&mut command)
    };
    for (line, words) in [
        ("--proxy-protocol require", "--proxy-from 10.0.0.0/24"),
        ("--proxy-from ::1", "--proxy-protocol require"),
        (
            "udp://127.0.0.1:0 --proxy-protocol accept --proxy-from ::1",
            "by another process",
        ),
        (
            "tcp://127.0.0.1:0 --model threads --proxy-protocol accept --proxy-from ::1",
            "--model reactor",
        ),
        (
            "--print-config --proxy-protocol require",
            "--proxy-from 10.0.0.0/24",
        ),
    ] {
        serve(line).failed(64, &[words]);
    }
    let mut command = program();
    command.args(["serve", "--print-config"]);
    command.env("ECHO_REACTOR_SERVE_PROXY_PROTOCOL", "require");
    command.env("ECHO_REACTOR_SERVE_PROXY_FROM", "10.0.0.0/8,unix");
    let printed = ended(&mut command);
    for line in [
        "proxy-protocol = require (environment: ECHO_REACTOR_SERVE_PROXY_PROTOCOL)",
        "proxy-from = 10.0.0.0/8,unix (environment: ECHO_REACTOR_SERVE_PROXY_FROM)",
        "proxy-header-timeout = 5s (default)",
    ] {
        assert!(printed.out.lines().any(|out| out == line), "{printed:?}");
    }
}
