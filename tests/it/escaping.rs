//! Text from outside is one line of visible characters wherever the program prints it: names of peers and of files,
//! arguments, the environment.
//!
//! What may live in this file: such text. What is received is asked about in `catalogue` (L1).

use crate::support::{Dir, Serve, Talk, ended, program};
use nix::sys::signal::Signal;
use socket2::{Domain, SockAddr, Socket, Type};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

/// A newline, a C0 and a C1 control, a bidirectional override, a line separator, and a byte that is not UTF-8.
const EVIL: &[u8] = b"\n2026-01-01 ERROR \x1b[2J\xc2\x9b\xe2\x80\xae\xe2\x80\xa8\xff";

/// Every line is a line of the program, and of visible ASCII.
#[track_caller]
fn is_tame(text: &str) {
    for line in text.lines() {
        let is_ours = line.starts_with("20") || line.starts_with("echo-reactor: ");
        assert!(is_ours && !line.starts_with("2026-01-01 ERROR"), "{line:?}");
        assert!(
            line.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
            "{line:?}"
        );
    }
}

#[test]
fn the_name_of_a_peer_stays_in_its_line() {
    for model in ["reactor", "threads"] {
        let directory = Dir::new();
        let flags = ["-vv", "--model", model];
        let server = Serve::start(&[&directory.address("unix", "s")], &flags);
        let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let path = directory.path("").join(OsStr::from_bytes(EVIL));
        client.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        client
            .connect(&SockAddr::unix(directory.path("s")).unwrap())
            .unwrap();
        client.is_echoed(b"who am I?");
        server.says(r"\n2026-01-01 ERROR \u{1b}[2J\u{9b}\u{202e}\u{2028}\xff");
        drop(client);
        is_tame(&server.stop(Signal::SIGTERM).err);
    }
}

#[test]
fn arguments_stay_in_their_line() {
    let text = &EVIL[..EVIL.len() - 1]; // clap itself refuses what is no UTF-8
    let evil = OsStr::from_bytes(text);
    for arguments in [
        &["serve"][..],
        &["serve", "--connections"],
        &["serve", "--allow"],
        &["serve", "--unix-mode"],
        &["serve", "--model"],
        &["send"],
        &["send", "127.0.0.1:7", "--hex"],
        &["send", "127.0.0.1:7", "--source"],
        &["doctor", "--connections"],
        &[],
    ] {
        let end = ended(program().args(arguments).arg(evil));
        assert!(
            [64, 68, 69].contains(&end.code),
            "{arguments:?}: {}",
            end.err
        );
        assert_eq!(end.err.lines().count(), 1, "{arguments:?}: {}", end.err);
        is_tame(&end.err);
    }
}

#[test]
fn hosts_files_and_variables_stay_in_their_line() {
    let evil = String::from_utf8_lossy(EVIL).into_owned();
    let evil = evil.trim_end_matches('\u{fffd}');
    // A colon or a bracket would make it no host; what is there is one that no resolver knows.
    let host = format!("udp://{}:7", evil.replace('[', ""));
    ended(program().args(["serve", &host])).failed(68, &[r"\u{202e}"]);
    let file = format!("/nowhere/{evil}");
    ended(program().args(["serve", ":0", "--stats-json", &file])).failed(73, &[r"\u{202e}"]);
    let path = format!("unix:///nowhere/{evil}");
    ended(program().args(["serve", &path])).failed(73, &[r"\u{202e}"]);
    for (name, code) in [
        ("LISTEN_FDS", 64),
        ("LISTEN_PID", 64),
        ("LISTEN_FDS_FIRST_FD", 64),
    ] {
        let mut command = program();
        command.arg("serve").env("LISTEN_FDS", "1");
        command.env(name, OsStr::from_bytes(EVIL));
        ended(&mut command).failed(code, &[name, r"\u{202e}"]);
    }
    let mut command = program();
    command
        .args(["serve", "127.0.0.1:0"])
        .env("RUST_LOG", format!("echo_reactor={evil}"));
    let server = Serve::start_command(&mut command, 1);
    server.says("RUST_LOG=");
    is_tame(&server.stop(Signal::SIGTERM).err);
}

#[test]
fn a_name_in_a_report_is_proper_json() {
    let directory = Dir::new();
    let report = directory.path("report");
    let address = format!("{}\"\\\u{9b}\u{202e}", directory.address("unix", "s"));
    let mut command = program();
    command
        .args(["serve", &address, "--stats-json"])
        .arg(&report);
    let server = Serve::spawn(&mut command);
    server.says("stop with Ctrl-C");
    let end = server.stop(Signal::SIGTERM);
    assert!(end.out.trim_end().is_ascii(), "{:?}", end.out);
    let report: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(report).unwrap()).unwrap();
    let told = report["addresses"][0].as_str().unwrap();
    assert!(told.ends_with("s\"\\\\u{9b}\\u{202e}"), "{told}");
}
