//! `echo-reactor serve` as people meet it: what it prints, what it refuses, and that nothing done to its streams hurts.
//!
//! What may live in this file: flags, messages, files and standard streams of the program. Whether it echoes well is
//! asked elsewhere; how it ends by signals, in `stop`.

use crate::support::{
    DEADLINE, Dir, Serve, Talk, ended, exists, has_ipv6, ip, noise, program, skip, wait_until,
};
use echo_reactor::net::Endpoint;
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

const TCP: &str = "tcp://127.0.0.1:0";

// --- Addresses ---------------------------------------------------------------------------------------------------------

#[test]
fn without_an_address_it_is_the_tutorials() {
    if TcpListener::bind("127.0.0.1:50007").is_err() {
        return skip("somebody has port 50007");
    }
    let mut serve = program();
    let server = Serve::spawn(serve.arg("serve"));
    wait_until("it listens or fails", || {
        server.err().contains("stop with Ctrl-C") || server.err().contains("error:")
    });
    if server.err().contains("in use") {
        return skip("somebody took port 50007 meanwhile");
    }
    let ended = server.stop(Signal::SIGTERM);
    assert_eq!(ended.out, "listening tcp://127.0.0.1:50007\n");
}

#[test]
fn every_kind_of_address_is_served_at_once_and_told_in_order() {
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
        }
    }
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

#[test]
fn send_and_serve_understand_each_other() {
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

#[test]
fn a_port_in_use_is_refused_with_the_address_and_a_remedy() {
    let living = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", living.local_addr().unwrap());
    for model in ["reactor", "threads", "one-at-a-time"] {
        let refused = ended(program().args(["serve", &address, "--model", model]));
        refused.failed(
            69,
            &[
                "unavailable: ",
                &address,
                "is in use",
                "'ss -tlnp sport = :",
            ],
        );
    }
    let living = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = format!("udp://{}", living.local_addr().unwrap());
    let refused = ended(program().args(["serve", &address]));
    refused.failed(69, &[&address, "is in use", "'ss -ulnp sport = :"]);
}

#[test]
fn an_address_of_another_machine_and_a_name_of_none_are_refused() {
    let elsewhere = ended(program().args(["serve", "192.0.2.1:0"]));
    elsewhere.failed(69, &["tcp://192.0.2.1:0", "not an address of this machine"]);
    let nowhere = ended(program().args(["serve", "no.such.host.invalid:7"]));
    nowhere.failed(
        68,
        &["tcp://no.such.host.invalid:7", "check the host's name"],
    );
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
fn mistakes_are_named_on_one_line_with_the_value() {
    let refused = |arguments: &[&str], words: &[&str]| {
        ended(program().arg("serve").args(arguments)).failed(64, words);
    };
    refused(
        &["localhost"],
        &["'localhost'", "no port", "127.0.0.1:50007"],
    );
    refused(&["127.0.0.1:99999"], &["'99999'", "0 to 65535"]);
    refused(&["http://127.0.0.1:80"], &["'http://'", "tcp://"]);
    refused(
        &["--connections", "many"],
        &["'many'", "--connections", "10k"],
    );
    refused(&["--connections", "0"], &["connections of 0"]);
    refused(
        &["--idle-timeout", "5"],
        &["'5'", "--idle-timeout", "250ms"],
    );
    refused(&["--scratch", "1GB"], &["scratch"]);
    refused(&["--unix-mode", "999"], &["'999'", "octal"]);
    refused(&["--model", "fibers"], &["'fibers'", "one-at-a-time"]);
    refused(&["--no-such-flag"], &["'--no-such-flag'", "serve --help"]);
    refused(
        &["udp://127.0.0.1:0", "--model", "threads"],
        &["udp://127.0.0.1:0", "reactor"],
    );
    refused(&[TCP, TCP, "--model", "one-at-a-time"], &["one"]);
}

#[test]
fn more_connections_than_fit_are_a_warning_or_with_strict_a_refusal() {
    let asked = ["--connections", "4M"]; // more descriptors than Linux gives to anybody by default
    let server = Serve::start(&[TCP], &asked);
    server.says("--connections 4,000,000 is more than fits");
    server.says("holds up to");
    server.connect().is_echoed(b"served all the same");
    let refused = ended(program().args(["serve", TCP, "--strict"]).args(asked));
    refused.failed(
        71,
        &[
            "--connections 4,000,000",
            "there is room for",
            "LimitNOFILE=",
        ],
    );
    let server = Serve::start(&[TCP], &["--strict", "--connections", "100"]);
    server.says("holds up to 100 connections (as --connections says)");
}

#[test]
fn a_report_that_cannot_be_written_is_told_before_anybody_is_served() {
    let refused = ended(program().args(["serve", TCP, "--stats-json", "/nowhere/at/all.json"]));
    refused.failed(73, &["--stats-json", "'/nowhere/at/all.json'"]);
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

// --- What it says ------------------------------------------------------------------------------------------------------

#[test]
fn verbose_it_tells_who_connected_and_what_was_received() {
    for model in ["reactor", "threads", "one-at-a-time"] {
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
fn what_was_received_cannot_break_out_of_its_line() {
    for model in ["reactor", "threads"] {
        let server = Serve::start(&[TCP], &["-vv", "--model", model]);
        let evil = b"\x1b[2J\x1b]0;owned\x07\r\n2026-01-01 ERROR forged\0\xff\xfe'\\";
        server.connect().is_echoed(evil);
        server.connect().is_echoed(&[b'\n'; 500]);
        server.says(r"'\x1b[2J\x1b]0;owned\x07\r\n2026-01-01 ERROR forged\x00\xff\xfe\'\\'");
        server.says("Received 500 bytes");
        let err = server.stop(Signal::SIGTERM).err;
        let wild = err
            .bytes()
            .find(|&byte| byte != b'\n' && !(0x20..0x7f).contains(&byte));
        assert_eq!(wild, None, "{err}");
        for line in err.lines() {
            assert!(
                line.starts_with("20") && !line.starts_with("2026-01-01 ERROR"),
                "{line:?}"
            );
            assert!(line.len() < 600, "a preview is cut: {line:?}");
        }
    }
}

#[test]
fn quiet_it_says_nothing_and_by_default_nothing_of_what_is_sent() {
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
    assert_eq!(err.lines().count(), 3, "start, draining, end: {err}");
}

#[test]
fn rust_log_is_followed_and_nonsense_in_it_is_told_once() {
    let with = |value: &str| {
        let mut command = program();
        command.args(["serve", TCP]).env("RUST_LOG", value);
        let server = Serve::start_command(&mut command, 1);
        server.connect().is_echoed(b"logged?");
        server.stop(Signal::SIGTERM)
    };
    assert_eq!(with("error").err, "");
    assert!(with("echo_reactor::wire=trace").err.contains("'logged?'"));
    let nonsense = with("echo_reactor=loud,,=");
    assert_eq!(nonsense.code, 0);
    let told = nonsense
        .err
        .lines()
        .filter(|line| line.contains("RUST_LOG="))
        .count();
    assert_eq!(told, 1, "{}", nonsense.err);
}

// --- Standard streams that are gone ------------------------------------------------------------------------------------

/// A program started by the shell with a stream closed: `Command` itself always gives one.
fn with_closed(redirection: &str, arguments: &str) -> Command {
    let mut command = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_echo-reactor");
    command
        .arg("-c")
        .arg(format!("exec '{program}' serve {arguments} {redirection}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

#[test]
fn without_standard_error_it_serves_and_ends_in_order() {
    for redirection in ["2>&-", "2>/dev/full"] {
        for model in ["reactor", "threads"] {
            let arguments = format!("{TCP} -vv --model {model}");
            let server = Serve::start_command(&mut with_closed(redirection, &arguments), 1);
            for number in 0..20 {
                server.connect().is_echoed(&noise(number, 1_000));
            }
            server.signal(Signal::SIGUSR1);
            server.signal(Signal::SIGHUP);
            server.connect().is_echoed(b"alive");
            assert_eq!(
                server.stop(Signal::SIGTERM).code,
                0,
                "{redirection} {model}"
            );
        }
    }
}

#[test]
fn without_standard_output_it_serves_and_ends_in_order() {
    for redirection in [">&-", ">/dev/full"] {
        let directory = Dir::new();
        let address = directory.address("unix", "s");
        let server = Serve::spawn(&mut with_closed(redirection, &address));
        wait_until("it listens", || exists(&directory.path("s")));
        let endpoint = Endpoint::Unix(echo_reactor::net::UnixName::Path(directory.path("s")));
        crate::support::connect(&endpoint).is_echoed(b"served");
        server.says("stop with Ctrl-C");
        assert_eq!(server.stop(Signal::SIGTERM).code, 0, "{redirection}");
    }
}

#[test]
fn a_standard_error_that_nobody_reads_does_not_hold_up_an_echo() {
    for model in ["reactor", "threads"] {
        let mut command = program();
        command.args(["serve", TCP, "-vv", "--model", model]);
        command.stderr(unread());
        let server = Serve::start_command(&mut command, 1);
        let client = server.connect();
        // Each makes a line at least, and a pipe holds some hundred of them: it is full long before the end.
        for number in 0..5_000_u64 {
            client.is_echoed(&noise(number, 64));
        }
        drop(client);
        assert_eq!(server.stop(Signal::SIGTERM).code, 0, "{model}");
    }
}

/// The writing end of a pipe that nobody reads, though somebody could.
fn unread() -> Stdio {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    // It lives as long as this process, which is what a reader who never reads is.
    std::mem::forget(reader);
    writer.into()
}

#[test]
fn a_port_of_zero_is_another_one_each_time() {
    let server = Serve::start(&[TCP, TCP, "udp://127.0.0.1:0"], &[]);
    let ports: Vec<u16> = server
        .endpoints
        .iter()
        .map(|endpoint| ip(endpoint).port())
        .collect();
    assert!(ports.iter().all(|&port| port != 0));
    assert_ne!(ports[0], ports[1]);
}
