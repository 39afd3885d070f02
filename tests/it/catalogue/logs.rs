//! L: the log, with hostile input, floods of lines, and readers that do not read.

use crate::support::{
    Dir, Serve, Talk, ended, exists, noise, pipe, program, strace, try_connect, wait_until,
};
use echo_reactor::net::Endpoint;
use nix::sys::signal::Signal;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Instant;

const TCP: &str = "tcp://127.0.0.1:0";

// --- L1: received bytes stay on their line -----------------------------------------------------------------------------

#[test]
fn l1_what_was_received_cannot_break_out_of_its_line() {
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
            assert!(line.len() < 600, "a preview is cut short: {line:?}");
        }
    }
}

// --- L2: a flood is a line now and then, and a count -------------------------------------------------------------------

/// Two thousand rejected connections make one line every five seconds, with the right count.
#[test]
fn l2_a_flood_of_the_rejected_is_a_line_in_five_seconds_and_the_rest_counted() {
    let server = Serve::start(&[TCP], &["--deny", "127.0.0.0/8"]);
    let began = Instant::now();
    let address = crate::support::sock_addr(&server.endpoints[0]);
    for _ in 0..2_000 {
        // A reset may come before the connect returns, or after.
        if let Ok(mut client) = try_connect(&address) {
            let _ = client.read(&mut [0]);
        }
    }
    wait_until("all are rejected", || {
        server.counter("rejected{denied}") == 2_000
    });
    let suppressed = server.counter("log_suppressed");
    let windows = 1 + began.elapsed().as_secs() / 5;
    let lines = server.err().matches(" is rejected: ").count() as u64;
    println!("2,000 rejected: {lines} lines, {suppressed} suppressed");
    assert!(
        (1..=windows).contains(&lines),
        "{lines} lines in {windows} windows"
    );
    assert_eq!(lines + suppressed, 2_000);
}

/// Errors of accept that concern the one new connection alone are counted. Where there is nothing else for long, the
/// listener pauses, so that the loop does not spin, and a line tells so once in a while.
#[test]
fn l2_a_flood_of_errors_of_accept_makes_one_line_in_a_while() {
    let Some(mut command) = strace("accept4", "error=ECONNABORTED:when=1..2000") else {
        return;
    };
    let began = Instant::now();
    let server = Serve::start_command(command.args(["serve", TCP]), 1);
    server.connect().is_echoed(b"after two thousand errors");
    assert_eq!(server.counter("accept_errors{103}"), 2_000);
    let err = server.stop(Signal::SIGTERM).err;
    let said = err
        .lines()
        .filter(|line| line.contains("WARN") || line.contains("ERROR"));
    let windows = 1 + began.elapsed().as_secs() / 5;
    assert!((1..=windows).contains(&(said.count() as u64)), "{err}");
}

// --- L3: a standard error without a reader -----------------------------------------------------------------------------

#[test]
fn l3_an_unread_standard_error_does_not_delay_an_echo() {
    for model in ["reactor", "threads"] {
        let mut command = program();
        command.args(["serve", TCP, "-vv", "--model", model]);
        command.stderr(unread());
        let server = Serve::start_command(&mut command, 1);
        let client = server.connect();
        // Each connection makes at least one line, and a pipe holds some hundred of them: it is full long before the
        // end.
        for number in 0..5_000_u64 {
            client.is_echoed(&noise(number, 64));
        }
        drop(client);
        assert_eq!(server.stop(Signal::SIGTERM).code, 0, "{model}");
    }
}

/// The writing end of a pipe with an open reading end from which nothing is read.
fn unread() -> Stdio {
    let (reader, writer) = pipe();
    // It lives as long as this process, which is what a reader who never reads is.
    std::mem::forget(reader);
    writer.into()
}

// --- L4: closed standard streams ---------------------------------------------------------------------------------------

/// A program started by the shell with a stream closed: `Command` itself always opens one.
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
fn l4_without_standard_error_the_server_serves_and_exits_normally() {
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
fn l4_without_standard_output_the_server_serves_and_exits_normally() {
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

/// A log whose reader has closed the pipe (EPIPE) is no reason to stop.
#[test]
fn l4_a_log_without_a_reader_does_not_stop_the_server() {
    for model in ["reactor", "threads"] {
        let (reader, writer) = pipe();
        let mut command = program();
        command.args(["serve", TCP, "-vv", "--model", model]);
        command.stderr(Stdio::from(writer));
        let server = Serve::start_command(&mut command, 1);
        drop(command); // which holds the writing end, too
        drop(reader);
        for number in 0..20 {
            server.connect().is_echoed(&noise(number, 1_000));
        }
        server.signal(Signal::SIGUSR1);
        server.connect().is_echoed(b"alive");
        assert_eq!(server.stop(Signal::SIGTERM).code, 0, "{model}");
    }
}

// --- L5: wrong flags and variables -------------------------------------------------------------------------------------

#[test]
fn l5_mistakes_are_reported_on_one_line_with_the_value() {
    let refused = |arguments: &[&str], words: &[&str]| {
        ended(program().arg("serve").args(arguments)).failed(64, words);
    };
    refused(
        &["localhost"],
        &["'localhost'", "no port", "localhost:50007"],
    );
    refused(&["127.0.0.1:99999"], &["'99999'", "0 to 65535"]);
    refused(&["http://127.0.0.1:80"], &["'http://'", "tcp://"]);
    refused(
        &["--max-connections", "many"],
        &["'many'", "--max-connections", "10k"],
    );
    refused(
        &["--max-connections", "0"],
        &["--max-connections 0", "1 to 4000000"],
    );
    refused(
        &["--idle-timeout", "5"],
        &["'5'", "--idle-timeout", "250ms"],
    );
    refused(
        &["--read-buffer", "1GB"],
        &["--read-buffer 1000000000", "1 to 16777216"],
    );
    refused(&["--unix-mode", "999"], &["'999'", "octal"]);
    refused(&["--model", "fibers"], &["'fibers'", "iterative"]);
    refused(&["--no-such-flag"], &["'--no-such-flag'", "serve --help"]);
    refused(
        &["udp://127.0.0.1:0", "--model", "threads"],
        &["udp://127.0.0.1:0", "reactor"],
    );
    refused(&[TCP, TCP, "--model", "iterative"], &["one"]);
    refused(
        &["--allow", "10.0.0.1/8"],
        &["'10.0.0.1/8'", "--allow", "10.0.0.0/8"],
    );
    refused(&["--deny", "host"], &["'host'", "--deny", "an IP address"]);
    refused(&["--max-per-prefix", "0"], &["--max-per-prefix 0"]);
    refused(&["--overload", "drop"], &["'drop'", "wait, reject"]);
}

#[test]
fn l5_rust_log_is_followed_and_nonsense_in_it_is_reported_once() {
    let with = |value: &str| {
        let mut command = program();
        command.args(["serve", TCP]).env("RUST_LOG", value);
        let server = Serve::start_command(&mut command, 1);
        server.connect().is_echoed(b"logged?");
        server.stop(Signal::SIGTERM)
    };
    assert_eq!(with("error").err, "");
    assert!(with("echo_reactor::trace=trace").err.contains("'logged?'"));
    let nonsense = with("echo_reactor=loud,,=");
    assert_eq!(nonsense.code, 0);
    let told = nonsense
        .err
        .lines()
        .filter(|line| line.contains("RUST_LOG="))
        .count();
    assert_eq!(told, 1, "{}", nonsense.err);
}
