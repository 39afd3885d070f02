//! `serve --trace` and `trace`: what happened on the real kernel is found in the file, by the public reader.
//!
//! What may live in this file: traces of real servers. The format, the ring and the words have unit tests.

use crate::support::fault::{can, exhaust};
use crate::support::{
    DEADLINE, Dir, Serve, Talk, connect, ended, exists, has_tool, ip, noise, program, skip, stick,
    terminal, wait_until,
};
use echo_reactor::net::{Endpoint, UnixName};
use echo_reactor::reactor::{Interest, Readiness};
use echo_reactor::stats::{CloseReason, DropReason};
use echo_reactor::trace::record::SourceType;
use echo_reactor::trace::state::State;
use echo_reactor::trace::{Kind, Record, Trace};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

const TCP: &str = "tcp://127.0.0.1:0";

/// A server that is recorded to a file.
struct Traced {
    serve: Serve,
    file: PathBuf,
    _directory: Dir,
}

impl Traced {
    fn start(scheme: &str, flags: &[&str]) -> Self {
        let directory = Dir::new();
        let file = directory.path("loop.trace");
        let address = match scheme {
            "unix" => directory.address("unix", "s"),
            _ => TCP.to_owned(),
        };
        let flags = [&["--trace", file.to_str().unwrap()], flags].concat();
        Self {
            serve: Serve::start(&[&address], &flags),
            file,
            _directory: directory,
        }
    }

    /// Ends the server, and reads what was recorded.
    #[track_caller]
    fn stop(self) -> Trace {
        assert_eq!(self.serve.stop(Signal::SIGTERM).code, 0);
        read(&self.file)
    }
}

#[track_caller]
fn read(file: &Path) -> Trace {
    let trace = Trace::from_bytes(&fs::read(file).unwrap()).unwrap();
    assert_eq!(trace.overwritten, 0);
    let times = trace.records.windows(2);
    for pair in times {
        assert!(pair[0].time_ns <= pair[1].time_ns, "{pair:?}");
    }
    trace
}

/// The records of each connection, by its order.
fn connections(trace: &Trace) -> Vec<Vec<Record>> {
    let is_connection = |record: &&Record| record.source_type() == Some(SourceType::Connection);
    let registered = trace.records.iter().filter(is_connection);
    let of = |source| {
        let records = trace.records.iter().copied();
        records.filter(|record| record.source() == source).collect()
    };
    registered.map(|record| of(record.source())).collect()
}

/// The kinds and amounts of records.
fn steps(records: &[Record]) -> Vec<(Kind, u64)> {
    let steps = records.iter().map(|record| (record.kind, record.amount));
    steps.collect()
}

#[test]
fn a_hello_and_a_half_close_are_found_call_by_call() {
    let traced = Traced::start("tcp", &[]);
    let client = traced.serve.connect();
    client.is_echoed(b"hello");
    client.finish();
    assert_eq!(client.hear_all(), b"");
    let trace = traced.stop();
    let connections = connections(&trace);
    assert_eq!(
        steps(&connections[0]),
        [
            (Kind::Registered, 0),
            (Kind::Ready, 0),
            (Kind::Read, 5),
            (Kind::Write, 5),
            (Kind::Ready, 0),
            (Kind::Read, 0), // FIN
            (Kind::Closed, 0),
        ]
    );
    let [.., fin, _, closed] = &connections[0][..] else {
        panic!("{connections:?}")
    };
    assert_eq!(fin.readiness(), Some(Readiness::Exceptional));
    assert_eq!(closed.close_reason(), Some(CloseReason::PeerClosed));
    let accepted = trace
        .records
        .iter()
        .filter(|record| record.kind == Kind::Accepted);
    let errors: Vec<bool> = accepted.map(Record::would_block).collect();
    assert_eq!(errors[..2], [false, true], "until the queue is empty");
}

#[test]
fn a_slow_reader_is_found_with_its_unsent_bytes() {
    let traced = Traced::start("unix", &[]);
    let client = traced.serve.connect();
    let sent = stick(&client);
    wait_until("the send buffer is full", || {
        traced.serve.counter("unsent_bytes") > 0
    });
    client.hear(sent);
    drop(client);
    wait_until("it is closed", || {
        traced.serve.counter("connections_open") == 0
    });
    let trace = traced.stop();
    let (mut state, mut most) = (State::default(), 0);
    for record in &trace.records {
        state.apply(record);
        most = most.max(state.unsent_bytes());
        let source = record.source().and_then(|id| state.sources.get(&id));
        if record.kind == Kind::Reregistered {
            let source = source.expect("it is open");
            let waits = source.unsent_bytes > 0;
            assert_eq!(
                source.waits_for(),
                if waits { "writing" } else { "reading" }
            );
        }
    }
    assert!(most > 0 && state.unsent_bytes() == 0, "{most}");
    let connection = &connections(&trace)[0];
    let interests: Vec<Interest> = connection.iter().filter_map(Record::interest).collect();
    assert_eq!(
        interests[..3],
        [Interest::Read, Interest::Write, Interest::Read]
    );
    let bytes = |kind| -> u64 {
        let of_kind = connection.iter().filter(|record| record.kind == kind);
        of_kind.map(|record| record.amount).sum()
    };
    assert_eq!(
        (bytes(Kind::Read), bytes(Kind::Write)),
        (sent as u64, sent as u64)
    );
}

#[test]
fn a_budget_that_is_spent_is_found_with_the_turn_that_goes_on() {
    let traced = Traced::start("unix", &["--read-budget", "1k", "--read-buffer", "4KiB"]);
    let client = traced.serve.connect();
    client.is_echoed(&noise(1, 64 << 10));
    let trace = traced.stop();
    let mut state = State::default();
    let mut served_again = 0;
    for record in &trace.records {
        if record.kind == Kind::Turn {
            let queued = state.queued.len();
            state.apply(record);
            assert_eq!(state.run_queue.len(), queued);
            served_again += queued;
        } else {
            state.apply(record);
        }
    }
    assert!(served_again > 0, "the connection was queued");
}

/// The kernel says that there is room for a long read, since the client takes what comes back. It is not asked about a Unix
/// stream, whose send buffer is small.
#[test]
fn long_messages_take_long_reads_over_tcp_alone() {
    const FIRST: u64 = 64 << 10;
    const BUDGET: u64 = 260 << 10;
    for (scheme, is_long) in [("tcp", true), ("unix", false)] {
        let traced = Traced::start(scheme, &["--receive-buffer", "1MiB"]);
        let client = traced.serve.connect();
        let message = noise(1, 20 << 20);
        let echo = thread::scope(|scope| {
            scope.spawn(|| client.say(&message)); // more than the buffers hold
            client.hear(message.len())
        });
        assert!(echo == message);
        let trace = traced.stop();
        let reads = trace.records.iter().filter(|one| one.kind == Kind::Read);
        let longest = reads.map(|one| one.amount).max().unwrap();
        assert!(longest <= BUDGET, "{scheme}: {longest} bytes");
        assert_eq!(longest > FIRST, is_long, "{scheme}: {longest} bytes");
    }
}

#[test]
fn a_shortage_of_descriptors_is_found_with_the_pause_and_its_end() {
    if !can(&["prlimit"]) {
        return;
    }
    let traced = Traced::start("tcp", &[]);
    let first = traced.serve.connect();
    first.is_echoed(b"in");
    exhaust(&traced.serve);
    let second = traced.serve.connect();
    second.say(b"let me in");
    traced.serve.says("ulimit -n");
    drop(first); // its descriptor is the second one's
    assert_eq!(second.hear(9), b"let me in");
    let trace = traced.stop();
    let place = |is_so: &dyn Fn(&Record) -> bool| trace.records.iter().position(is_so).unwrap();
    let failed =
        place(&|record| record.kind == Kind::Accepted && i32::from(record.errno) == libc::EMFILE);
    let paused = place(&|record| record.kind == Kind::AcceptPaused);
    let closed = place(&|record| record.kind == Kind::Closed);
    let resumed = trace.records[closed..]
        .iter()
        .position(|record| record.kind == Kind::AcceptResumed);
    assert_eq!(paused, failed + 1);
    assert_eq!(resumed, Some(1), "a close resumes accepting at once");
}

#[test]
fn a_drain_is_found_with_its_phases_and_the_fin_of_the_server() {
    let traced = Traced::start("tcp", &["--drain-idle-timeout", "10ms"]);
    let client = traced.serve.connect();
    client.is_echoed(b"hello");
    traced.serve.signal(Signal::SIGTERM);
    assert_eq!(client.hear_all(), b"", "the server's FIN");
    drop(client);
    let file = traced.file.clone();
    assert_eq!(traced.serve.wait().code, 0);
    let trace = read(&file);
    let phases = trace.records.iter().filter_map(Record::phase);
    assert_eq!(format!("{:?}", phases.collect::<Vec<_>>()), "[Draining]");
    let connection = &connections(&trace)[0];
    let place = |kind| {
        connection
            .iter()
            .position(|record| record.kind == kind)
            .unwrap()
    };
    assert!(place(Kind::Expired) < place(Kind::Fin) && place(Kind::Fin) < place(Kind::Closed));
    let closed = connection[place(Kind::Closed)];
    assert_eq!(closed.close_reason(), Some(CloseReason::ShutDown));
}

#[test]
fn datagrams_are_found_with_their_lengths() {
    let directory = Dir::new();
    let file = directory.path("loop.trace");
    let flags = ["--trace", file.to_str().unwrap()];
    let serve = Serve::start(&["udp://127.0.0.1:0"], &flags);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.send_to(b"hello", ip(&serve.endpoints[0])).unwrap();
    assert_eq!(client.recv(&mut [0; 9]).unwrap(), 5);
    assert_eq!(serve.stop(Signal::SIGTERM).code, 0);
    let records = read(&file).records;
    let received = records
        .iter()
        .find(|record| record.kind == Kind::Received)
        .unwrap();
    let replied = records
        .iter()
        .find(|record| record.kind == Kind::Replied)
        .unwrap();
    assert_eq!((received.amount, replied.asked, replied.errno), (5, 5, 0));
}

/// In the text, in the page and for the viewer, too.
#[test]
fn a_dropped_datagram_is_found_with_its_reason() {
    let directory = Dir::new();
    let file = directory.path("loop.trace");
    let flags = ["--trace", file.to_str().unwrap(), "--deny", "127.0.0.0/8"];
    let serve = Serve::start(&["udp://127.0.0.1:0"], &flags);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"hello", ip(&serve.endpoints[0])).unwrap();
    wait_until("it is dropped", || serve.counter("datagrams_in") == 1);
    assert_eq!(serve.stop(Signal::SIGTERM).code, 0);
    let records = read(&file).records;
    let is_received = |record: &Record| record.kind == Kind::Received && record.amount == 5;
    let received = records.iter().position(is_received).unwrap();
    let (received, dropped) = (records[received], records[received + 1]);
    assert_eq!(dropped.drop_reason(), Some(DropReason::Denied));
    assert_eq!(dropped.source(), received.source());
    let (page, json) = (directory.path("page.html"), directory.path("loop.json"));
    for (flag, path) in [("--html", &page), ("--perfetto", &json)] {
        let made = ended(program().arg("trace").arg(&file).arg(flag).arg(path));
        assert_eq!(made.code, 0, "{}", made.err);
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains("dropped: denied"), "{flag}");
    }
    let text = ended(program().arg("trace").arg(&file)).out;
    let line = text.lines().find(|line| line.contains("dropped: denied"));
    assert!(line.unwrap().ends_with("  answer_one"), "{line:?}");
}

// --- The file ----------------------------------------------------------------------------------------------------------

/// In the sandbox, too, where no file can be opened.
#[test]
fn sigusr1_writes_the_trace_of_now_and_the_end_writes_it_again() {
    for sandbox in [&[][..], &["--sandbox"]] {
        let traced = Traced::start("tcp", sandbox);
        let client = traced.serve.connect();
        client.is_echoed(b"hello");
        traced.serve.signal(Signal::SIGUSR1);
        let written = || Trace::from_bytes(&fs::read(&traced.file).unwrap_or_default());
        wait_until("the trace is written", || written().is_ok());
        let first = written().unwrap();
        assert_eq!(connections(&first).len(), 1);
        client.is_echoed(b"again");
        traced.serve.signal(Signal::SIGUSR1);
        wait_until("it is written again", || {
            written().is_ok_and(|trace| trace.records.len() > first.records.len())
        });
        drop(client);
        let last = traced.stop();
        assert_eq!(last.records[..first.records.len()], first.records);
        assert!(last.records.iter().any(|record| record.phase().is_some()));
    }
}

#[test]
fn a_ring_that_is_full_keeps_the_last_records_and_counts_the_rest() {
    let directory = Dir::new();
    let file = directory.path("loop.trace");
    let target = format!("{},64KiB", file.display());
    let serve = Serve::start(&[TCP], &["--trace", &target]);
    let client = serve.connect();
    for _ in 0..1_000 {
        client.is_echoed(b"hello");
    }
    assert_eq!(serve.stop(Signal::SIGTERM).code, 0);
    let trace = Trace::from_bytes(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(trace.records.len(), (64 << 10) / 32);
    assert!(trace.overwritten >= 1_000, "{}", trace.overwritten);
    let text = ended(program().arg("trace").arg(&file)).out;
    assert!(
        text.starts_with(&format!("{},", trace.overwritten / 1_000)),
        "{text:.80}"
    );
}

#[test]
fn what_cannot_be_recorded_is_refused() {
    let refused = |flags: &[&str]| ended(program().args(["serve", TCP, "--trace"]).args(flags));
    refused(&["/nowhere/at/all"]).failed(73, &["--trace", "'/nowhere/at/all'"]);
    refused(&["-", "--workers", "2"]).failed(64, &["--trace", "one event loop", "--workers"]);
    refused(&["-", "--model", "threads"]).failed(64, &["--trace", "--model reactor"]);
    refused(&["a,1KiB"]).failed(64, &["1KiB", "64KiB"]);
}

// --- The text ----------------------------------------------------------------------------------------------------------

#[test]
fn the_text_tells_each_event_with_its_function() {
    let traced = Traced::start("tcp", &[]);
    traced.serve.connect().is_echoed(b"hello");
    wait_until("it is closed", || {
        traced.serve.counter("connections_open") == 0
    });
    let file = traced.file.clone();
    assert_eq!(traced.serve.stop(Signal::SIGTERM).code, 0);
    let count = read(&file).records.len();
    let shown = ended(program().arg("trace").arg(&file));
    assert_eq!((shown.code, shown.err.as_str()), (0, ""));
    assert_eq!(shown.out.lines().count(), count + 1);
    let mut lines = shown.out.lines();
    for (event, function) in [
        ("wants READABLE", "Reactor::add"),
        ("accepted a connection", "Acceptor::accept"),
        ("read 5", "Connection::echo_all"),
        ("wrote 5", "Connection::write_back"),
        ("read FIN", "Connection::echo_all"),
        ("closed: peer_closed", "close_connection"),
        ("phase: draining", "Shutdown::enter"),
    ] {
        let is_there =
            |line: &str| line.contains(&format!(" {event} ")) && line.ends_with(function);
        assert!(lines.any(is_there), "{event} in {}", shown.out);
    }
}

/// A hello and its end, recorded, and the file of it.
fn recorded(directory: &Dir) -> PathBuf {
    let file = directory.path("loop.trace");
    let serve = Serve::start(&[TCP], &["--trace", file.to_str().unwrap()]);
    serve.connect().is_echoed(b"hello");
    wait_until("it is closed", || serve.counter("connections_open") == 0);
    assert_eq!(serve.stop(Signal::SIGTERM).code, 0);
    file
}

/// `scripts/trace-page` opens such a page in a browser.
#[test]
fn a_page_and_the_json_of_a_viewer_are_written_in_place_of_the_text() {
    let directory = Dir::new();
    let file = recorded(&directory);
    let (html, json) = (directory.path("page.html"), directory.path("loop.json"));
    let shown = ended(
        program()
            .arg("trace")
            .arg(&file)
            .args(["--html", html.to_str().unwrap()])
            .args(["--perfetto", json.to_str().unwrap()]),
    );
    assert_eq!((shown.code, shown.out.as_str()), (0, ""), "{}", shown.err);
    let page = fs::read_to_string(html).unwrap();
    assert!(page.len() < 300_000 && page.contains("\"loop.trace\""));
    let document: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    let events = document["traceEvents"].as_array().unwrap();
    let of_phase = |phase: &str| events.iter().filter(|event| event["ph"] == phase).count();
    assert_eq!((of_phase("b"), of_phase("e")), (1, 1), "one connection");
    assert!(of_phase("X") > 5 && of_phase("C") > 3);
}

#[test]
fn a_page_does_not_replace_the_trace() {
    let directory = Dir::new();
    let file = recorded(&directory);
    let before = fs::read(&file).unwrap();
    let both = ended(program().arg("trace").arg(&file).arg("--html").arg(&file));
    both.failed(64, &["FILE and --html", "name two files"]);
    assert_eq!(fs::read(&file).unwrap(), before);
    let nowhere = ended(
        program()
            .arg("trace")
            .arg(&file)
            .args(["--html", "/nowhere/a"]),
    );
    nowhere.failed(73, &["--html", "'/nowhere/a'"]);
}

#[test]
fn a_file_that_is_no_trace_is_refused_with_what_to_do() {
    let directory = Dir::new();
    let file = directory.path("a");
    let shown = |content: &[u8]| {
        fs::write(&file, content).unwrap();
        ended(program().arg("trace").arg(&file))
    };
    shown(b"").failed(64, &["'", "no trace", "serve --trace"]);
    shown(b"hello").failed(64, &["no trace"]);
    let bytes = Trace::default().to_bytes();
    shown(&bytes[..40]).failed(64, &["40 bytes", "record it again"]);
    ended(program().args(["trace", "/nowhere"])).failed(74, &["'/nowhere'"]);
}

#[test]
fn lines_tell_each_turn_as_it_happens_and_no_payload() {
    let serve = Serve::start(&[TCP], &["--trace", "-"]);
    let client = serve.connect();
    client.is_echoed(b"a secret of the client");
    drop(client);
    wait_until("it is closed", || serve.counter("connections_open") == 0);
    let ended = serve.stop(Signal::SIGTERM);
    assert_eq!(ended.code, 0);
    let lines: Vec<&str> = ended.out.lines().collect();
    for parts in [
        &[
            "turn 1: ",
            " readable | accepted a connection | #1 wants READABLE | #0 accept would block: queue empty",
        ][..],
        &["turn ", "#1 readable | read 22 | wrote 22"],
        &["#1 readable (FIN, error or urgent data) | read FIN | closed: peer_closed"],
        &["phase: draining"],
    ] {
        let is_there = |line: &&&str| parts.iter().all(|part| line.contains(part));
        assert!(
            lines.iter().any(|line| is_there(&line)),
            "{parts:?} in {lines:#?}"
        );
    }
    assert!(!ended.out.contains("secret"));
}

#[test]
fn lines_that_are_not_read_do_not_hold_up_an_echo() {
    let (_unread, terminal) = terminal();
    let directory = Dir::new();
    let address = directory.address("unix", "s");
    let mut command = program();
    command
        .args(["serve", &address, "--trace", "-"])
        .stdout(terminal);
    let serve = Serve::spawn(&mut command);
    drop(command);
    wait_until("it listens", || exists(&directory.path("s")));
    let client = connect(&Endpoint::Unix(UnixName::Path(directory.path("s"))));
    for number in 0..2_000 {
        client.is_echoed(&noise(number, 64));
    }
    assert_eq!(serve.stop(Signal::SIGTERM).code, 0);
}

// --- Replay ------------------------------------------------------------------------------------------------------------

/// The example `replay`, which `cargo test` builds with the feature `simulation`.
#[test]
fn a_replay_is_the_same_in_every_process_and_ends_where_it_is_told() {
    let program = Path::new(env!("CARGO_BIN_EXE_echo-reactor")).with_file_name("examples/replay");
    if !program.exists() {
        return skip("the example 'replay' is not built; 'cargo test --all-features' builds it");
    }
    let replay = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        ended(&mut command)
    };
    let (first, second) = (replay(&["42"]), replay(&["42"]));
    assert_eq!((first.code, first.err.as_str()), (0, ""));
    assert_eq!(first.out, second.out);
    assert!(first.out.contains("------> client 0 connects"));
    let until = replay(&["42", "--until", "closed"]).out;
    let last = until.lines().last().unwrap();
    assert!(
        last.contains("closed: ") && first.out.starts_with(&until),
        "{last}"
    );
    let directory = Dir::new();
    let page = directory.path("seed.html");
    assert_eq!(replay(&["42", "--html", page.to_str().unwrap()]).out, "");
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("\"seed 42\"") && page.contains("client 0 connects"));
    if has_tool("python3") {
        let refused = replay(&["42", "--mistake", "never-made"]);
        assert_eq!(refused.code, 2, "{}", refused.err);
        assert!(refused.err.contains("there is no mistake 'never-made'"));
    }
    for wrong in [
        &[][..],
        &["x"],
        &["42", "--until"],
        &["42", "--until", "never"],
    ] {
        let refused = replay(wrong);
        assert!(
            refused.code == 1 && refused.err.contains("Error: "),
            "{}",
            refused.err
        );
    }
}
