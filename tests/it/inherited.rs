//! What a parent process leaves to the program: signal mask, ignored signals, umask, descriptors, limits, directory,
//! environment. None of it makes the service deaf or keeps it from starting.
//!
//! What may live in this file: such state. Sockets that are inherited on purpose are asked about in `catalogue`.

use crate::support::{
    Dir, Serve, Talk, by_shell, ended, exists, has_tool, noise, program, skip, terminal,
    wait_until, wrapped,
};
use command_fds::{CommandFdExt, FdMapping};
use nix::sys::signal::{SigSet, Signal};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};
use std::thread;

const TCP: &str = "tcp://127.0.0.1:0";

// --- Signals -----------------------------------------------------------------------------------------------------------

/// A server whose parent blocks every signal: a child has the mask of the thread that starts it.
fn with_signals_blocked(flags: &[&str]) -> Serve {
    let start = || {
        SigSet::all().thread_block().unwrap();
        Serve::start(&[TCP], flags)
    };
    thread::scope(|scope| scope.spawn(start).join().unwrap())
}

#[test]
fn signals_that_the_parent_blocks_are_heard() {
    for model in ["reactor", "threads", "iterative"] {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let server = with_signals_blocked(&["--model", model]);
            server.signal(Signal::SIGHUP);
            server.says("SIGHUP is ignored");
            assert_eq!(server.counter("accepted"), 0, "SIGUSR1 is heard");
            assert_eq!(server.stop(signal).code, 0, "{model}");
        }
    }
}

/// SIGTERM, since the jobs that a script starts in the background have SIGINT ignored, and a client leaves that so.
#[test]
fn signals_that_the_parent_blocks_end_a_client() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut send = program();
    send.args([
        "send",
        "--timeout",
        "10m",
        &silent.local_addr().unwrap().to_string(),
    ]);
    let start = || {
        SigSet::all().thread_block().unwrap();
        Serve::spawn(&mut send)
    };
    let client = thread::scope(|scope| scope.spawn(start).join().unwrap());
    let _connection = silent.accept().unwrap();
    client.signal(Signal::SIGTERM);
    assert_eq!(client.killed_by(), Some(Signal::SIGTERM as i32));
}

/// Ignored ones are handled all the same: a shell ignores SIGINT for the background jobs of a script.
#[test]
fn signals_that_the_parent_ignores_are_heard() {
    let line = format!("trap '' TERM INT HUP USR1 CHLD; exec \"$0\" serve {TCP}");
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let server = Serve::start_command(&mut by_shell(&line), 1);
        server.signal(Signal::SIGHUP);
        server.says("SIGHUP is ignored");
        assert_eq!(server.counter("accepted"), 0, "SIGUSR1 is heard");
        assert_eq!(server.stop(signal).code, 0);
    }
}

/// With SIGCHLD ignored the kernel reaps children itself, and waitpid(2) fails: `bench` would not learn how its ended.
#[cfg(feature = "bench")]
#[test]
fn a_parent_that_ignores_its_children_does_not_spoil_ours() {
    let line = "trap '' CHLD; exec \"$0\" bench -q --duration 200ms --warm-up 100ms --format json";
    let end = ended(&mut by_shell(line));
    assert!([0, 4].contains(&end.code), "{}", end.err);
}

/// `stty tostop`: a write of a background job raises SIGTTOU, which stops it.
#[cfg(target_os = "linux")]
#[test]
fn a_background_job_is_not_stopped_by_its_terminal() {
    if !has_tool("setsid") {
        return;
    }
    let (_window, terminal) = terminal();
    let line =
        format!("stty tostop; \"$0\" serve -v {TCP} --max-connections 4M --end-with $$ & wait");
    let mut command = Command::new("setsid");
    command
        .args(["--ctty", "sh", "-mc", &line])
        .arg(program().get_program())
        .env_remove("RUST_LOG")
        .stdin(terminal.try_clone().unwrap())
        .stdout(Stdio::piped())
        .stderr(terminal.try_clone().unwrap());
    let server = Serve::start_command(&mut command, 1);
    for number in 0..10 {
        server.connect().is_echoed(&noise(number, 64));
    }
}

// --- umask -------------------------------------------------------------------------------------------------------------

#[test]
fn whatever_the_umask_a_socket_is_made_and_a_report_can_be_read() {
    if !has_tool("setpriv") {
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        return skip("this takes root, to become another user");
    }
    for umask in ["022", "077", "0177", "0777"] {
        let directory = Dir::new();
        fs::set_permissions(directory.path(""), Permissions::from_mode(0o777)).unwrap();
        let (socket, report) = (directory.path("s"), directory.path("report"));
        let line = format!(
            "umask {umask}; exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$0\" serve -q {} --stats-json {}",
            directory.address("unix", "s"),
            report.display()
        );
        let server = Serve::start_command(&mut by_shell(&line), 1);
        server.connect().is_echoed(b"served");
        let mode = fs::metadata(&socket).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o600, "umask {umask}");
        assert_eq!(server.stop(Signal::SIGTERM).code, 0, "umask {umask}");
        assert!(!exists(&socket));
        let mode = fs::metadata(&report).unwrap().mode() & 0o777;
        let expected = if umask == "022" { 0o644 } else { 0o600 };
        assert_eq!(mode, expected, "umask {umask}: {mode:o}");
        assert_eq!(fs::read_dir(directory.path("")).unwrap().count(), 1);
    }
}

// --- Descriptors and limits --------------------------------------------------------------------------------------------

#[cfg(target_os = "linux")]
#[test]
fn descriptors_in_use_are_counted() {
    if !has_tool("prlimit") {
        return;
    }
    let serve = |connections: &str| {
        let mut command = wrapped("prlimit", &["--nofile=100:100"]);
        command.args(["serve", TCP, "--strict", "--max-connections", connections]);
        let null = || fs::File::open("/dev/null").unwrap().into();
        let mappings = (10..50).map(|child_fd| FdMapping {
            parent_fd: null(),
            child_fd,
        });
        command.fd_mappings(mappings.collect()).unwrap();
        command
    };
    // 100 less 32 in reserve would be 68; and 16 of the reserve may be inherited descriptors and listeners.
    ended(&mut serve("44")).failed(71, &["the limits allow", "100 descriptors", "more in use"]);
    let server = Serve::start_command(&mut serve("30"), 1);
    let clients: Vec<_> = (0..30).map(|_| server.connect()).collect();
    clients
        .iter()
        .for_each(|client| client.is_echoed(b"it fits"));
}

#[cfg(target_os = "linux")]
#[test]
fn no_socket_is_at_the_numbers_of_the_standard_streams() {
    let directory = Dir::new();
    let address = directory.address("unix", "s");
    let mut command = by_shell(&format!("exec \"$0\" serve -vv {address} <&- >&- 2>&-"));
    let server = Serve::spawn(&mut command);
    wait_until("it listens", || exists(&directory.path("s")));
    for number in 0..3 {
        let target = fs::read_link(format!("/proc/{}/fd/{number}", server.pid())).unwrap();
        assert_eq!(target.to_str(), Some("/dev/null"), "descriptor {number}");
    }
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

#[test]
fn limits_of_size_are_no_end_of_the_service() {
    for limit in ["-f 0", "-c 0", "-c unlimited", "-s 256"] {
        let line = format!("ulimit {limit} && exec \"$0\" serve {TCP}");
        let server = Serve::start_command(&mut by_shell(&line), 1);
        server.connect().is_echoed(b"served");
        assert_eq!(server.stop(Signal::SIGTERM).code, 0, "ulimit {limit}");
    }
}

// --- Directory and environment -----------------------------------------------------------------------------------------

#[test]
fn a_directory_that_is_gone_and_an_empty_environment_are_enough() {
    let directory = Dir::new();
    let gone = directory.path("gone");
    fs::create_dir(&gone).unwrap();
    let line = format!(
        "cd {} && rmdir ../gone && exec \"$0\" serve {TCP}",
        gone.display()
    );
    let mut command = wrapped("env", &["-i", "/bin/sh", "-c", &line]);
    let server = Serve::start_command(&mut command, 1);
    server.connect().is_echoed(b"served");
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);

    fs::create_dir(&gone).unwrap();
    let line = format!("{line} --stats-json report");
    let refused = ended(&mut wrapped("env", &["-i", "/bin/sh", "-c", &line]));
    refused.failed(73, &["--stats-json", "'report'"]);
}
