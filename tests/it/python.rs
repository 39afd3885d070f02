//! An independent client: Python's `socket`, with the client of the echo tutorial in Python's documentation.
//!
//! What may live in this file: Python programs that talk to `serve`, and what they print.

use crate::support::{DEADLINE, Dir, Serve, ended, has_ipv6, has_tool, unique_name};
use echo_reactor::net::Endpoint;
use std::process::{Command, Stdio};

/// The documentation's client, with a placeholder for the address.
const STREAM: &str = "\
import socket, sys
family, address, timeout = FAMILY, ADDRESS, TIMEOUT
with socket.socket(family, socket.SOCK_STREAM) as s:
    s.settimeout(timeout)
    s.connect(address)
    s.sendall(b'Hello, world!')
    data = s.recv(1024)
print('Received', repr(data))
";

const DATAGRAM: &str = "\
import socket, sys
family, address, timeout = FAMILY, ADDRESS, TIMEOUT
with socket.socket(family, socket.SOCK_DGRAM) as s:
    s.settimeout(timeout)
    if len(sys.argv) > 1:
        s.bind(sys.argv[1])
    s.sendto(b'Hello, world!', address)
    data, source = s.recvfrom(1024)
    assert source[:2] == address[:2] or source == address, source
    s.sendto(b'', address)
    assert s.recv(1024) == b''
print('Received', repr(data))
";

/// What that tutorial's server promises: after a half-close the client still gets every byte.
const HALF_CLOSE: &str = "\
import socket, threading
with socket.create_connection(ADDRESS, timeout=TIMEOUT) as s:
    sent = bytes(range(256)) * 8192
    def say():
        s.sendall(sent)
        s.shutdown(socket.SHUT_WR)
    threading.Thread(target=say).start()
    received = b''.join(iter(lambda: s.recv(65536), b''))
assert received == sent, (len(received), len(sent))
print('Received', len(received))
";

#[track_caller]
fn check(program: &str, family: &str, address: &str, arguments: &[&str], printed: &str) {
    let program = program
        .replace("FAMILY", family)
        .replace("ADDRESS", address)
        .replace("TIMEOUT", &DEADLINE.as_secs().to_string());
    let mut python = Command::new("python3");
    python
        .args(["-c", &program])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let said = ended(&mut python);
    assert_eq!((said.out.as_str(), said.err.as_str()), (printed, ""));
    assert_eq!(said.code, 0);
}

const RECEIVED: &str = "Received b'Hello, world!'\n";

/// The address as a Python tuple.
fn tuple(server: &Serve) -> String {
    let address = crate::support::ip(&server.endpoints[0]);
    format!("('{}', {})", address.ip(), address.port())
}

#[test]
fn pythons_example_client_is_echoed_over_ipv4_by_every_model() {
    if !has_tool("python3") {
        return;
    }
    for model in ["reactor", "threads", "iterative"] {
        let server = Serve::start(&["127.0.0.1:0"], &["--model", model]);
        check(STREAM, "socket.AF_INET", &tuple(&server), &[], RECEIVED);
        check(HALF_CLOSE, "", &tuple(&server), &[], "Received 2097152\n");
    }
}

#[test]
fn pythons_example_client_is_echoed_over_ipv6() {
    if has_tool("python3") && has_ipv6() {
        let server = Serve::start(&["[::1]:0"], &[]);
        check(STREAM, "socket.AF_INET6", &tuple(&server), &[], RECEIVED);
    }
}

#[test]
fn pythons_example_client_is_echoed_over_unix() {
    if has_tool("python3") {
        let directory = Dir::new();
        let name = unique_name();
        let abstract_address = Endpoint::Unix(name.clone()).to_string();
        let server = Serve::start(&[&directory.address("unix", "s"), &abstract_address], &[]);
        let path = format!("'{}'", directory.path("s").display());
        check(STREAM, "socket.AF_UNIX", &path, &[], RECEIVED);
        let name = name.to_string().replace('@', r"\0");
        check(
            STREAM,
            "socket.AF_UNIX",
            &format!("b'{name}'"),
            &[],
            RECEIVED,
        );
        drop(server);
    }
}

#[test]
fn datagrams_are_echoed_over_udp_and_unix() {
    if !has_tool("python3") {
        return;
    }
    let server = Serve::start(&["udp://127.0.0.1:0"], &[]);
    check(DATAGRAM, "socket.AF_INET", &tuple(&server), &[], RECEIVED);
    if has_ipv6() {
        let server = Serve::start(&["udp://[::1]:0"], &[]);
        check(DATAGRAM, "socket.AF_INET6", &tuple(&server), &[], RECEIVED);
    }
    let directory = Dir::new();
    let _server = Serve::start(&[&directory.address("unixgram", "s")], &[]);
    let path = format!("'{}'", directory.path("s").display());
    let own = directory.path("client");
    check(
        DATAGRAM,
        "socket.AF_UNIX",
        &path,
        &[own.to_str().unwrap()],
        RECEIVED,
    );
}
