//! What the program writes to, slow, full, gone or strange: the service goes on, and the loss is counted.
//!
//! What may live in this file: standard streams, the file of `--stats-json`, and the socket of a service manager.

use crate::support::{
    DEADLINE, Dir, Ended, Serve, Talk, by_shell, connect, exists, noise, pipe, program, terminal,
    wait_until,
};
use echo_reactor::net::{Endpoint, UnixName};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use nix::unistd::mkfifo;
use serde_json::Value;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Stdio;

const TCP: &str = "tcp://127.0.0.1:0";

fn is_non_blocking(descriptor: impl AsFd) -> bool {
    let flags = fcntl(descriptor, FcntlArg::F_GETFL).unwrap();
    OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK)
}

// --- The log -----------------------------------------------------------------------------------------------------------

/// Serves while its log is not read, ends in order, and reports how much of the log was lost.
#[track_caller]
fn serves_beside_an_unread_log(log: impl Into<Stdio>, model: &str) {
    let directory = Dir::new();
    let json = directory.path("json");
    let mut command = program();
    command
        .args(["serve", TCP, "-vv", "--model", model, "--stats-json"])
        .arg(&json)
        .stderr(log);
    let server = Serve::start_command(&mut command, 1);
    let client = server.connect();
    for number in 0..3_000 {
        client.is_echoed(&noise(number, 64));
    }
    drop(client);
    server.signal(Signal::SIGUSR1);
    server.connect().is_echoed(b"after the counters");
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    let report: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    assert!(report["log_lines_lost"].as_u64().unwrap() > 0, "{report}");
}

/// poll(2) tells of room for a byte, and a blocking write of a line sleeps in n_tty_write.
#[test]
fn a_terminal_that_is_not_read_does_not_hold_up_an_echo() {
    for model in ["reactor", "threads"] {
        let (_unread, terminal) = terminal();
        serves_beside_an_unread_log(terminal.try_clone().unwrap(), model);
        assert!(!is_non_blocking(&terminal), "the shell's flag is its own");
    }
}

#[test]
fn a_socket_that_is_not_read_does_not_hold_up_an_echo() {
    let (ours, _reader) = UnixStream::pair().unwrap();
    serves_beside_an_unread_log(OwnedFd::from(ours), "reactor");
    let (ours, _reader) = UnixDatagram::pair().unwrap();
    serves_beside_an_unread_log(OwnedFd::from(ours), "reactor");
}

#[test]
fn a_log_at_its_size_limit_costs_lines_and_not_the_service() {
    let directory = Dir::new();
    let (log, json) = (directory.path("log"), directory.path("json"));
    // 512-byte blocks; the report has to fit.
    let line = format!(
        "ulimit -f 16; exec \"$0\" serve {TCP} -vv --stats-json {} 2>{}",
        json.display(),
        log.display()
    );
    let server = Serve::start_command(&mut by_shell(&line), 1);
    for number in 0..100 {
        server.connect().is_echoed(&noise(number, 64));
    }
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    assert_eq!(fs::metadata(log).unwrap().len(), 16 * 512);
    let report: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    assert!(report["log_lines_lost"].as_u64().unwrap() > 0, "{report}");
}

// --- Standard output ---------------------------------------------------------------------------------------------------

/// The writing end of a pipe that is full to the last byte.
fn full_pipe() -> (File, OwnedFd) {
    let (reader, writer) = pipe();
    let size = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let filling = vec![b'.'; usize::try_from(size).unwrap()];
    File::from(writer.try_clone().unwrap())
        .write_all(&filling)
        .unwrap();
    (File::from(reader), writer)
}

#[test]
fn a_standard_output_that_is_full_delays_the_addresses_and_not_the_start() {
    for model in ["reactor", "threads"] {
        let directory = Dir::new();
        let address = directory.address("unix", "s");
        let (mut reader, writer) = full_pipe();
        let mut command = program();
        command
            .args(["serve", &address, "--model", model])
            .stdout(writer);
        let server = Serve::spawn(&mut command);
        drop(command); // which holds the writing end, too
        wait_until("it listens", || exists(&directory.path("s")));
        let endpoint = Endpoint::Unix(UnixName::Path(directory.path("s")));
        connect(&endpoint).is_echoed(b"served before it could say so");
        let told = std::thread::spawn(move || {
            let mut text = vec![0; 4096];
            reader.read_exact(&mut text).unwrap();
            let mut line = [0; 128];
            let length = reader.read(&mut line).unwrap();
            String::from_utf8_lossy(&line[..length]).into_owned()
        });
        wait_until("it says where it listens", || told.is_finished());
        assert_eq!(told.join().unwrap(), format!("listening {address}\n"));
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    }
}

#[test]
fn a_standard_output_that_stays_full_does_not_hold_up_the_end() {
    let directory = Dir::new();
    let (_reader, writer) = full_pipe();
    let mut command = program();
    command
        .args([
            "serve",
            &directory.address("unix", "s"),
            "--stats-json",
            "-",
        ])
        .stdout(writer);
    let server = Serve::spawn(&mut command);
    wait_until("it listens", || exists(&directory.path("s")));
    server.says("stop with Ctrl-C");
    let end = server.stop(Signal::SIGTERM);
    assert_eq!(end.code, 74, "{}", end.err);
    assert!(end.err.contains("standard output"), "{}", end.err);
}

// --- The report --------------------------------------------------------------------------------------------------------

/// Also where ECHO_SANDBOX asks for it, a sandbox is not wanted: nothing can be opened at the end in one.
const OPEN: [&str; 1] = ["--sandbox=off"];

fn serve_and_report(report: &Path, flags: &[&str], meanwhile: impl FnOnce()) -> Ended {
    let report = report.display().to_string();
    let flags = [&["--stats-json", report.as_str()], flags].concat();
    let server = Serve::start(&[TCP], &flags);
    server.connect().is_echoed(b"x");
    meanwhile();
    server.stop(Signal::SIGTERM)
}

#[test]
fn a_report_to_where_standard_output_leads_is_written_behind_the_addresses() {
    for name in ["-", "/dev/stdout", "/proc/self/fd/1", "/dev/fd/1"] {
        let piped = serve_and_report(Path::new(name), &[], || {});
        assert_eq!(piped.code, 0, "{name}: {}", piped.err);
        assert!(
            piped.out.contains("\"accepted\": 1"),
            "{name}: {}",
            piped.out
        );

        let directory = Dir::new();
        let out = directory.path("out");
        let address = directory.address("unix", "s");
        let mut command = program();
        command
            .args(["serve", &address, "--stats-json", name])
            .stdout(File::create(&out).unwrap());
        let server = Serve::spawn(&mut command);
        server.says("stop with Ctrl-C");
        assert_eq!(server.stop(Signal::SIGTERM).code, 0, "{name}");
        let text = fs::read_to_string(&out).unwrap();
        let report = text.strip_prefix(&format!("listening {address}\n"));
        let report: Value = serde_json::from_str(report.expect("the address stays")).unwrap();
        assert_eq!(report["addresses"][0], address.as_str(), "{name}");
    }
}

#[test]
fn a_fifo_as_report_waits_for_no_reader() {
    let directory = Dir::new();
    let fifo = directory.path("fifo");
    mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let unread = serve_and_report(&fifo, &OPEN, || {});
    assert_eq!(unread.code, 74, "{}", unread.err);
    assert!(unread.err.contains("no process reads"), "{}", unread.err);

    let mut reader = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&fifo)
        .unwrap();
    assert_eq!(serve_and_report(&fifo, &OPEN, || {}).code, 0);
    let mut text = vec![0; 1 << 16];
    let length = reader.read(&mut text).unwrap();
    let report: Value = serde_json::from_slice(&text[..length]).unwrap();
    assert_eq!(report["accepted"], 1);
}

#[test]
fn a_report_that_finds_no_room_leaves_the_last_one_and_is_a_failure() {
    let directory = Dir::new();
    let report = directory.path("report");
    fs::write(&report, "the last good one").unwrap();
    // Replaced, and written in place where the path is a link.
    let link = directory.path("link");
    std::os::unix::fs::symlink(&report, &link).unwrap();
    for path in [&report, &link] {
        let line = format!(
            "ulimit -f 1; exec \"$0\" serve -q {TCP} --stats-json {}",
            path.display()
        );
        let server = Serve::start_command(&mut by_shell(&line), 1);
        server.connect().is_echoed(b"x");
        let end = server.stop(Signal::SIGTERM);
        assert_eq!(end.code, 74, "{}", end.err);
        assert!(end.err.contains("--stats-json"), "{}", end.err);
        assert_eq!(fs::read_to_string(&report).unwrap(), "the last good one");
    }
    let full = serve_and_report(Path::new("/dev/full"), &[], || {});
    assert_eq!(full.code, 74, "{}", full.err);
    assert_eq!(fs::read_dir(directory.path("")).unwrap().count(), 2);
}

#[test]
fn a_report_whose_directory_is_gone_is_a_failure_and_one_whose_file_is_gone_is_none() {
    let directory = Dir::new();
    let folder = directory.path("folder");
    fs::create_dir(&folder).unwrap();
    let report = folder.join("report");
    fs::write(&report, "an older one").unwrap();
    assert_eq!(
        serve_and_report(&report, &OPEN, || fs::remove_file(&report).unwrap()).code,
        0
    );
    assert!(exists(&report));
    let lost = serve_and_report(&report, &OPEN, || fs::remove_dir_all(&folder).unwrap());
    assert_eq!(lost.code, 74, "{}", lost.err);
}

/// A longer report was there before: nothing of it stays, in the sandbox neither, where no file can be made beside it.
#[test]
fn a_report_has_its_own_length_in_the_sandbox_too() {
    let directory = Dir::new();
    let report = directory.path("report");
    for flags in [&[][..], &["--sandbox"]] {
        fs::write(&report, "x".repeat(1 << 16)).unwrap();
        fs::set_permissions(&report, Permissions::from_mode(0o640)).unwrap();
        assert_eq!(serve_and_report(&report, flags, || {}).code, 0);
        let text = fs::read_to_string(&report).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["accepted"], 1);
        let mode = fs::metadata(&report).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }
}

// --- The service manager -----------------------------------------------------------------------------------------------

/// sd_notify(3) waits where the queue of the manager is full (net.unix.max_dgram_qlen); a READY=1 that is dropped instead
/// means a service that is killed when its start has timed out.
#[test]
fn a_manager_that_is_busy_is_told_when_it_reads() {
    for model in ["reactor", "threads"] {
        let directory = Dir::new();
        let manager = UnixDatagram::bind(directory.path("notify")).unwrap();
        let other = UnixDatagram::unbound().unwrap();
        other.set_nonblocking(true).unwrap();
        let mut queued = 0;
        while other.send_to(b"X", directory.path("notify")).is_ok() {
            queued += 1;
        }
        let mut command = program();
        command
            .args(["serve", TCP, "--model", model])
            .env("NOTIFY_SOCKET", directory.path("notify"));
        let server = Serve::start_command(&mut command, 1);
        server
            .connect()
            .is_echoed(b"served before the manager knows");
        manager.set_read_timeout(Some(DEADLINE)).unwrap();
        let hear = || {
            let mut told = [0; 64];
            let length = manager.recv(&mut told).unwrap();
            String::from_utf8_lossy(&told[..length]).into_owned()
        };
        assert!((0..queued).all(|_| hear() == "X"));
        assert_eq!(hear(), "READY=1", "{model}");
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
        assert_eq!(hear(), "STOPPING=1", "{model}");
    }
}

#[test]
fn a_manager_that_is_not_there_costs_a_line_and_not_the_end() {
    let directory = Dir::new();
    let missing = directory.path("missing").display().to_string();
    for name in [
        missing.as_str(),
        "@no-such-manager",
        "vsock:2:1234",
        "\u{9b}2J",
    ] {
        let mut command = program();
        command.args(["serve", TCP]).env("NOTIFY_SOCKET", name);
        let server = Serve::start_command(&mut command, 1);
        server.connect().is_echoed(b"x");
        let end = server.stop(Signal::SIGTERM);
        assert_eq!(end.code, 0, "{}", end.err);
        assert_eq!(end.err.matches("NOTIFY_SOCKET").count(), 1, "{}", end.err);
        assert!(end.err.is_ascii(), "{}", end.err);
    }
}
