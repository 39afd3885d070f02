//! `echo-reactor send icmp://host`: hosts that answer, that do not, and that answer something else.
//!
//! Each test has a network of its own, in which it sets the right to ping sockets and the answers of the kernel.

use super::support::fault::{can, in_own_network};
use super::support::{DEADLINE, Ended, Serve, by_shell, ended, program, wrapped};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::fs;
use std::net::{SocketAddr, UdpSocket};

/// The groups that may open ping sockets: none, which is the default of Linux, and all.
const NO_GROUP: &str = "1 0";
const ALL_GROUPS: &str = "0 2147483647";

/// Writes a setting of this network.
fn set(name: &str, value: &str) {
    fs::write(format!("/proc/sys/net/{name}"), value).unwrap();
}

fn send(arguments: &[&str]) -> Ended {
    ended(program().arg("send").args(arguments))
}

/// The printed line, without the time, which has to be one of milliseconds.
#[track_caller]
fn received(line: &str) -> &str {
    let (message, time) = line
        .rsplit_once(" in ")
        .unwrap_or_else(|| panic!("{line:?}"));
    let time: f64 = time.strip_suffix(" ms").unwrap().parse().unwrap();
    assert!(time > 0.0 && time < DEADLINE.as_secs_f64() * 1e3, "{line}");
    message
}

#[test]
fn a_host_is_pinged_by_both_kinds_of_sockets() {
    if !can(&["ip"]) {
        return;
    }
    in_own_network(&[], || {
        for groups in [NO_GROUP, ALL_GROUPS] {
            set("ipv4/ping_group_range", groups);
            for address in ["icmp://127.0.0.1", "icmp://[::1]", "ICMP://::1"] {
                let said = send(&[address]);
                assert_eq!(
                    (said.code, said.err.as_str()),
                    (0, ""),
                    "{groups} {address}"
                );
                assert_eq!(received(said.out.trim_end()), "Received 'Hello, world!'");
            }
            let said = send(&["icmp://127.0.0.1", "--repeat", "3", "one", "", "two"]);
            let lines: Vec<&str> = said.out.lines().map(received).collect();
            let expected = ["Received 'one'", "Received ''", "Received 'two'"];
            assert_eq!(lines, expected.repeat(3), "{}", said.err);
            let said = send(&["icmp://[::1]", "--hex", "00 ff", "--source", "::1"]);
            assert_eq!(
                received(said.out.trim_end()),
                "Received '00ff'",
                "{}",
                said.err
            );
            let said = send(&["icmp://127.0.0.1", "--quiet"]);
            assert_eq!((said.code, said.out.as_str()), (0, ""), "{}", said.err);
            // The longest message, in fragments.
            let line = "head -c 65507 /dev/zero | \"$0\" send icmp://127.0.0.1 - | wc -c";
            assert_eq!(ended(&mut by_shell(line)).out.trim(), "65507");
            let line = "head -c 65508 /dev/zero | \"$0\" send icmp://127.0.0.1 -";
            ended(&mut by_shell(line)).failed(64, &["standard input is too long", "65,507"]);
        }
    });
}

#[test]
fn a_process_without_the_right_is_told_what_gives_it() {
    if !can(&["ip", "setpriv"]) {
        return;
    }
    let unprivileged = |address: &str| {
        let mut command = wrapped("setpriv", &["--bounding-set", "-net_raw"]);
        ended(command.args(["send", address]))
    };
    in_own_network(&[], || {
        for address in ["icmp://127.0.0.1", "icmp://[::1]"] {
            set("ipv4/ping_group_range", NO_GROUP);
            let words = [
                "permission: ",
                address,
                "net.ipv4.ping_group_range",
                "CAP_NET_RAW",
            ];
            unprivileged(address).failed(77, &words);
            set("ipv4/ping_group_range", ALL_GROUPS);
            let said = unprivileged(address);
            assert_eq!(said.code, 0, "a ping socket takes no right: {}", said.err);
        }
    });
}

#[test]
fn a_host_that_is_silent_or_not_there_has_the_exit_codes_of_udp() {
    if !can(&["ip"]) {
        return;
    }
    in_own_network(&[], || {
        for groups in [NO_GROUP, ALL_GROUPS] {
            set("ipv4/ping_group_range", groups);
            set("ipv4/icmp_echo_ignore_all", "1");
            let silent = send(&["icmp://127.0.0.1", "--timeout", "20ms"]);
            silent.failed(75, &["timeout: ", "no answer within 20ms to message 1"]);
            set("ipv4/icmp_echo_ignore_all", "0");
            send(&["icmp://192.0.2.1"]).failed(69, &["unreachable: icmp://192.0.2.1: "]);
            send(&["icmp://[2001:db8::1]"]).failed(69, &["unreachable: icmp://[2001:db8::1]: "]);
            let other = send(&["icmp://127.0.0.1", "--source", "192.0.2.1"]);
            other.failed(64, &["cannot send from 192.0.2.1"]);
            let family = send(&["icmp://127.0.0.1", "--source", "::1"]);
            family.failed(64, &["icmp://127.0.0.1", "an IPv4 address"]);
        }
        // What Unix sockets and ports have, a host has not.
        let port = send(&["icmp://127.0.0.1:7"]);
        assert_eq!(port.code, 64, "{}", port.err);
        assert!(port.err.contains("ICMP has no ports"), "{}", port.err);
    });
}

/// A host that answers the first request with these messages in their order, each from an address.
fn answering(
    answers: impl FnOnce(&[u8]) -> Vec<(SocketAddr, Vec<u8>)> + Send,
    arguments: &[&str],
) -> Ended {
    let raw = |own: SocketAddr| {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
        socket.bind(&SockAddr::from(own)).unwrap();
        UdpSocket::from(socket)
    };
    set("ipv4/ping_group_range", NO_GROUP);
    set("ipv4/icmp_echo_ignore_all", "1");
    let host = raw(HOST.parse().unwrap());
    host.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut command = program();
    let child = Serve::spawn(command.args(["send", "icmp://127.0.0.1"]).args(arguments));
    let mut packet = [0; 2048];
    let (length, client) = host.recv_from(&mut packet).unwrap();
    let request = &packet[20..length];
    assert_eq!(
        (request[0], client.ip().to_string().as_str()),
        (8, "127.0.0.1")
    );
    for (own, message) in answers(request) {
        raw(own).send_to(&message, client).unwrap();
    }
    child.wait()
}

const HOST: &str = "127.0.0.1:0";

/// The message with its checksum (RFC 1071).
fn sealed(mut message: Vec<u8>) -> Vec<u8> {
    message[2..4].fill(0);
    let pairs = message.chunks(2);
    let sum: u32 =
        (pairs.map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !(((folded & 0xffff) + (folded >> 16)) as u16);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

/// The reply to a request, with one byte of it changed.
fn reply(request: &[u8], at: usize, change: u8) -> Vec<u8> {
    let mut message = request.to_vec();
    message[0] = 0;
    message[at] ^= change;
    sealed(message)
}

#[test]
fn answers_to_other_requests_are_ignored_and_a_changed_one_is_told() {
    if !can(&["ip"]) {
        return;
    }
    let host: SocketAddr = HOST.parse().unwrap();
    let other: SocketAddr = "127.0.0.2:0".parse().unwrap();
    let foreign = |request: &[u8]| {
        let mut damaged = reply(request, 8, 0);
        damaged[8] ^= 1;
        vec![
            (host, reply(request, 4, 1)), // another identifier
            (host, reply(request, 7, 1)), // another sequence
            (other, reply(request, 8, 1)),
            (host, damaged),
            (host, vec![0, 0]),
        ]
    };
    in_own_network(&[], || {
        let right =
            |request: &[u8]| [foreign(request), vec![(host, reply(request, 8, 0))]].concat();
        let said = answering(right, &["hello"]);
        assert_eq!(
            received(said.out.trim_end()),
            "Received 'hello'",
            "{}",
            said.err
        );
        let changed =
            |request: &[u8]| [foreign(request), vec![(host, reply(request, 10, 1))]].concat();
        let words = ["mismatch: ", "message 1 came back changed: at byte 2"];
        answering(changed, &["hello"]).failed(65, &words);
        let longer =
            |request: &[u8]| vec![(host, sealed([&reply(request, 8, 0), &b"!"[..]].concat()))];
        answering(longer, &["hello"]).failed(65, &["longer than its 5 bytes"]);
        answering(foreign, &["hello", "--timeout", "100ms"]).failed(75, &["no answer"]);
    });
}

#[test]
fn an_error_of_a_router_is_told() {
    if !can(&["ip"]) {
        return;
    }
    let router: SocketAddr = "127.0.0.9:0".parse().unwrap();
    // The packet that is returned: an IPv4 header (protocol 1, to 127.0.0.1), and the request.
    let error = |kind: u8, to: [u8; 4], request: &[u8]| {
        let mut header = [0x45; 20];
        header[9] = 1;
        header[16..].copy_from_slice(&to);
        sealed([&[kind, 0, 0, 0, 0, 0, 0, 0], &header[..], &request[..8]].concat())
    };
    in_own_network(&[], || {
        let exceeded = |request: &[u8]| {
            vec![
                (router, error(11, [192, 0, 2, 1], request)), // about a packet to another host
                (router, error(11, [127, 0, 0, 1], request)),
            ]
        };
        let words = [
            "unreachable: ",
            "127.0.0.9 answers message 1: time to live exceeded",
        ];
        answering(exceeded, &["hello"]).failed(69, &words);
        let unreachable = |request: &[u8]| vec![(router, error(3, [127, 0, 0, 1], request))];
        answering(unreachable, &["hello"]).failed(69, &["network unreachable"]);
    });
}
