//! `serve --drain-delay`: after the signal to stop the server is not ready any more, and serves on for a time.
//!
//! A delay is so long that a test would fail if it waited for its end, or so short that its end is what is tested.

use crate::support::{Dir, Ended, Serve, Talk, ended, program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

const TCP: &str = "tcp://127.0.0.1:0";

/// One process, and two workers under a master.
const SERVERS: [&[&str]; 2] = [&[], &["--workers", "2"]];

#[track_caller]
fn start(delay: &str, flags: &[&str]) -> Serve {
    let delay = format!("--drain-delay={delay}");
    let server = Serve::start(&[TCP], &[&[delay.as_str()], flags].concat());
    server.connect().is_echoed(b"before the signal");
    server
}

#[track_caller]
fn ends_in_order(ended: &Ended) {
    assert_eq!(ended.code, 0, "{}", ended.err);
    let (before, after) = ended.err.split_once("serving on for ").expect("it says so");
    assert!(!before.contains("draining "), "{before}");
    assert!(after.contains(" INFO  draining "), "{after}");
}

#[test]
fn new_clients_are_served_until_a_second_signal_drains() {
    for flags in SERVERS {
        let directory = Dir::new();
        let manager = UnixDatagram::bind(directory.path("notify")).unwrap();
        manager
            .set_read_timeout(Some(crate::support::DEADLINE))
            .unwrap();
        let told = || {
            let mut text = [0; 64];
            let length = manager.recv(&mut text).unwrap();
            String::from_utf8_lossy(&text[..length]).into_owned()
        };
        let mut command = program();
        command
            .args(["serve", TCP, "--drain-delay", "1h"])
            .args(flags);
        let server =
            Serve::start_command(command.env("NOTIFY_SOCKET", directory.path("notify")), 1);
        assert_eq!(told(), "READY=1");
        let open = server.connect();
        open.is_echoed(b"before the signal");
        server.signal(Signal::SIGTERM);
        assert_eq!(told(), "STOPPING=1", "{flags:?}");
        server.says("serving on for 1h");
        for _ in 0..8 {
            server.connect().is_echoed(b"a new client");
        }
        open.is_echoed(b"an old client");
        ends_in_order(&server.stop(Signal::SIGTERM));
        assert_eq!(open.hear_all(), b"", "it gets a FIN");
    }
}

#[test]
fn a_delay_ends_by_itself() {
    for flags in SERVERS {
        let server = start("300ms", flags);
        let begun = Instant::now();
        let ended = server.stop(Signal::SIGTERM);
        assert!(begun.elapsed() >= Duration::from_millis(300), "{flags:?}");
        ends_in_order(&ended);
        assert!(!ended.err.contains("started again"), "{}", ended.err);
    }
}

/// The third signal stops at once, as the second one does without a delay.
#[test]
fn a_third_signal_stops_at_once() {
    let patient = ["--drain-timeout", "1h", "--drain-idle-timeout", "1h"];
    for flags in SERVERS {
        let server = start("1h", &[&patient, flags].concat());
        let open = server.connect();
        open.is_echoed(b"it stays");
        server.signal(Signal::SIGTERM);
        server.says("serving on for 1h");
        server.signal(Signal::SIGTERM);
        server.says("once more to stop at once");
        let ended = server.stop(Signal::SIGTERM);
        assert_eq!(ended.code, 3, "{flags:?}: {}", ended.err);
    }
}

/// A terminal and a service manager send the signal to each process of a group.
#[test]
fn workers_that_get_the_signal_too_serve_on() {
    let server = start("1h", &["--workers", "2"]);
    let pid = server.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    server.signal(Signal::SIGTERM);
    for worker in children.split_whitespace() {
        kill(Pid::from_raw(worker.parse().unwrap()), Signal::SIGTERM).unwrap();
    }
    server.says("serving on for 1h");
    for _ in 0..8 {
        server.connect().is_echoed(b"a new client");
    }
    server.signal(Signal::SIGUSR2);
    server.says("SIGUSR2 is ignored: this process was told to stop");
    ends_in_order(&server.stop(Signal::SIGTERM));
}

#[test]
fn a_blocking_model_has_no_delay() {
    for model in ["threads", "iterative"] {
        let words = ["serve", TCP, "--drain-delay", "1s", "--model", model];
        ended(program().args(words)).failed(64, &["--drain-delay needs --model reactor", model]);
    }
}
