//! `echo-reactor serve` as its users see it: what it prints, what it refuses, and that closed or full streams do no
//! harm.
//!
//! What may live in this file: flags, messages, files and standard streams of the program. Whether it echoes well is
//! tested elsewhere; how it ends by signals, in `stop`.

use crate::support::{
    DEADLINE, Dir, Serve, Talk, ended, has_ipv6, ip, noise, program, skip, wait_until,
};
use echo_reactor::net::Endpoint;
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;

const TCP: &str = "tcp://127.0.0.1:0";

// --- Addresses ---------------------------------------------------------------------------------------------------------

#[test]
fn without_an_address_it_is_port_50007_on_loopback() {
    if TcpListener::bind("127.0.0.1:50007").is_err() {
        return skip("port 50007 is in use");
    }
    let mut serve = program();
    let server = Serve::spawn(serve.arg("serve"));
    wait_until("it listens or fails", || {
        server.err().contains("stop with Ctrl-C") || server.err().contains("error:")
    });
    if server.err().contains("in use") {
        return skip("port 50007 was taken meanwhile");
    }
    let ended = server.stop(Signal::SIGTERM);
    assert_eq!(ended.out, "listening tcp://127.0.0.1:50007\n");
}

#[test]
fn every_kind_of_address_is_served_at_once_and_printed_in_order() {
    if !has_ipv6() {
        return;
    }
    let directory = Dir::new();
    let (stream, datagram) = (
        directory.address("unix", "s"),
        directory.address("unixgram", "d"),
    );
    let addresses = [
        TCP,
        ":0",
        "[::1]:0",
        "udp://127.0.0.1:0",
        &stream,
        &datagram,
    ];
    let server = Serve::start(&addresses, &[]);
    let told: Vec<String> = server.endpoints.iter().map(ToString::to_string).collect();
    for (told, start) in told.iter().zip([
        "tcp://127.0.0.1:",
        "tcp://[::]:",
        "tcp://[::1]:",
        "udp://127.0.0.1:",
        &stream,
        &datagram,
    ]) {
        assert!(told.starts_with(start), "{told} is not {start}");
        assert!(!told.ends_with(":0"), "{told} is a real port");
    }
    for endpoint in &server.endpoints {
        match endpoint {
            Endpoint::Tcp(_) | Endpoint::Unix(_) => {
                crate::support::connect(endpoint).is_echoed(b"stream");
            }
            Endpoint::Udp(address) => {
                let client = UdpSocket::bind("127.0.0.1:0").unwrap();
                client.set_read_timeout(Some(DEADLINE)).unwrap();
                client.send_to(b"datagram", address).unwrap();
                assert_eq!(client.recv(&mut [0; 16]).unwrap(), 8);
            }
            Endpoint::UnixDatagram(_) => {
                let client = UnixDatagram::bind(directory.path("client")).unwrap();
                client.set_read_timeout(Some(DEADLINE)).unwrap();
                client.send_to(b"datagram", directory.path("d")).unwrap();
                assert_eq!(client.recv(&mut [0; 16]).unwrap(), 8);
            }
            other => panic!("{other} is of a family that was not asked for"),
        }
    }
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

#[test]
fn send_and_serve_work_together() {
    let directory = Dir::new();
    let server = Serve::start(
        &[TCP, "udp://127.0.0.1:0", &directory.address("unix", "s")],
        &[],
    );
    for endpoint in &server.endpoints {
        let said = ended(program().arg("send").arg(endpoint.to_string()));
        assert_eq!(
            said.out, "Received 'Hello, world!'\n",
            "{endpoint}: {}",
            said.err
        );
        assert_eq!(said.code, 0);
    }
    let input = directory.path("input");
    fs::write(&input, noise(1, 3 << 20)).unwrap();
    let output = directory.path("output");
    let mut send = program();
    send.args(["send", &server.endpoints[0].to_string(), "-"])
        .stdin(File::open(&input).unwrap())
        .stdout(File::create(&output).unwrap());
    let said = ended(&mut send);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert_eq!(fs::read(&output).unwrap(), noise(1, 3 << 20));
}

// --- Unix sockets ------------------------------------------------------------------------------------------------------

#[test]
fn an_abstract_name_in_use_is_refused() {
    let address = Endpoint::Unix(crate::support::unique_name()).to_string();
    let first = Serve::start(&[&address], &[]);
    ended(program().args(["serve", &address])).failed(69, &[&address, "in use"]);
    first.connect().is_echoed(b"still mine");
}

// --- Flags -------------------------------------------------------------------------------------------------------------

#[test]
fn a_report_that_cannot_be_written_is_refused_before_the_server_starts() {
    let refused = ended(program().args(["serve", TCP, "--stats-json", "/nowhere/at/all.json"]));
    refused.failed(73, &["--stats-json", "'/nowhere/at/all.json'"]);
}

#[test]
fn a_time_for_polling_that_cannot_be_is_refused_with_the_reason() {
    for (time, said) in [
        ("11ms", "--spin 11ms is out of range: it can be 0 to 10ms"),
        ("50", "it has no unit; write for example"),
        ("always", "or 'off'"),
        ("-1us", "or 'off'"),
    ] {
        let spin = format!("--spin={time}");
        let refused = ended(program().args(["serve", "tcp://127.0.0.1:0", &spin]));
        refused.failed(64, &["--spin", time, said]);
    }
    for time in ["auto", "off", "0", "20us", "10ms"] {
        let server = Serve::start(&["tcp://127.0.0.1:0"], &["--spin", time]);
        server.connect().is_echoed(b"polled for or not");
    }
}

#[test]
fn help_and_version_are_no_failures() {
    let version = ended(program().arg("--version"));
    assert_eq!(
        version.out,
        format!("echo-reactor {}\n", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!((version.code, version.err.as_str()), (0, ""));
    for arguments in [&["--help"][..], &["serve", "--help"], &["help", "serve"]] {
        let help = ended(program().args(arguments));
        assert_eq!((help.code, help.err.as_str()), (0, ""), "{arguments:?}");
        assert!(help.out.contains("Examples:"), "{}", help.out);
    }
    let help = ended(program().args(["serve", "--help"])).out;
    assert!(help.contains("tcp://127.0.0.1:50007"), "{help}");
    let everything = ended(program().arg("--help")).out;
    assert!(everything.contains("Exit codes:"), "{everything}");
}

// --- Log and output ----------------------------------------------------------------------------------------------------

#[test]
fn verbose_logs_each_connection_and_what_was_received() {
    for model in ["reactor", "threads", "iterative"] {
        let server = Serve::start(&[TCP], &["-v", "--model", model]);
        let client = server.connect();
        let from = client.local_addr().unwrap().as_socket().unwrap();
        client.is_echoed(b"Hello, world!");
        server.says(&format!("Connected by {from}"));
        assert!(from.to_string().starts_with("127.0.0.1:"));
        server.says(&format!("Received 13 bytes from {from}: 'Hello, world!'"));
    }
}

#[test]
fn quiet_logs_nothing_and_the_default_nothing_of_what_is_sent() {
    let server = Serve::start(&[TCP], &["-q"]);
    server.connect().is_echoed(b"secret");
    assert_eq!(server.stop(Signal::SIGTERM).err, "");
    let server = Serve::start(&[TCP], &[]);
    let client = server.connect();
    client.is_echoed(b"secret");
    drop(client);
    let err = server.stop(Signal::SIGTERM).err;
    assert!(
        !err.contains("secret") && !err.contains("Connected by"),
        "{err}"
    );
    // Without the lines about the sandbox, if there is one.
    let lines = err.lines().filter(|line| !line.contains("sandbox: "));
    assert_eq!(lines.count(), 3, "start, draining, end: {err}");
}

#[test]
fn a_port_of_zero_is_a_different_free_port_each_time() {
    let server = Serve::start(&[TCP, TCP, "udp://127.0.0.1:0"], &[]);
    let ports: Vec<u16> = server
        .endpoints
        .iter()
        .map(|endpoint| ip(endpoint).port())
        .collect();
    assert!(ports.iter().all(|&port| port != 0));
    assert_ne!(ports[0], ports[1]);
}
