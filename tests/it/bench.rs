//! `echo-reactor bench` against servers that keep the protocol, and against mutants that break it in one way each.
//!
//! The servers are plain std sockets, so that these tests do not depend on our own server. Whether a measurement is
//! valid depends on what else this machine does, so no test of this file relies on it; whether an echo was right does
//! not.

use crate::support::schema::fits_schema;
use crate::support::wait_until;
use serde_json::Value;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

// --- The program under test ------------------------------------------------------------------------------------------

pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) report: Value,
    pub(crate) err: String,
}

impl Ended {
    pub(crate) fn number(&self, pointer: &str) -> u64 {
        let value = self.report.pointer(pointer);
        value
            .and_then(Value::as_u64)
            .unwrap_or_else(|| panic!("no {pointer}: {}", self.report))
    }

    /// Every request is accounted for, whatever its result.
    #[track_caller]
    pub(crate) fn is_accounted_for(&self) {
        let [sent, echoed, lost, in_flight] = ["sent", "echoed", "lost", "in_flight"]
            .map(|name| self.number(&format!("/requests/{name}")));
        assert_eq!(
            sent,
            echoed + lost + in_flight,
            "{}",
            self.report["requests"]
        );
    }

    /// Every echo was right; the machine may have been too busy for the figures to be valid.
    #[track_caller]
    pub(crate) fn was_right(&self) {
        assert!([0, 4].contains(&self.code), "{} {}", self.code, self.err);
        assert_eq!(self.report["faults"].as_object().unwrap().len(), 0);
        self.is_accounted_for();
        assert!(self.number("/echoes") > 0, "{}", self.report);
    }

    /// The fault was detected.
    #[track_caller]
    pub(crate) fn was_caught(&self, code: i32, fault: &str) {
        assert_eq!(self.code, code, "{} {}", self.err, self.report);
        assert!(self.number(&format!("/faults/{fault}/count")) > 0);
        assert!(self.err.contains(fault), "{}", self.err);
        self.is_accounted_for();
    }
}

/// Runs `bench` for a short while, and reads its report.
pub(crate) fn bench(line: &str) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_echo-reactor"))
        .args(["bench", "--format", "json", "-q"])
        .args(line.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    let report = serde_json::from_str(&out).unwrap_or(Value::Null);
    if !report.is_null() {
        fits_schema(&report, include_str!("../../src/cli/bench/schema.json"));
    }
    Ended {
        code: output.status.code().expect("no signal ended it"),
        report,
        err,
    }
}

// --- Servers ---------------------------------------------------------------------------------------------------------

/// A TCP server that applies `treat` to each read of up to a kilobyte before it echoes it; `treat` gets the read's
/// number.
pub(crate) fn tcp(treat: impl Fn(u64, &mut Vec<u8>) + Send + Sync + Clone + 'static) -> String {
    tcp_at("127.0.0.1:0", treat)
}

pub(crate) fn tcp_at(
    address: &str,
    treat: impl Fn(u64, &mut Vec<u8>) + Send + Sync + Clone + 'static,
) -> String {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let treat = treat.clone();
            thread::spawn(move || echo(stream, treat));
        }
    });
    format!("tcp://{address}")
}

fn echo(mut stream: impl Read + Write, treat: impl Fn(u64, &mut Vec<u8>)) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    for turn in 0.. {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        let mut bytes = buffer[..count].to_vec();
        treat(turn, &mut bytes);
        stream.write_all(&bytes)?;
    }
    Ok(())
}

/// A UDP server that answers the n-th datagram with what `answer` makes of it.
pub(crate) fn udp(mut answer: impl FnMut(u64, &[u8]) -> Vec<Vec<u8>> + Send + 'static) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        for turn in 0.. {
            let (count, from) = socket.recv_from(&mut buffer).unwrap();
            for datagram in answer(turn, &buffer[..count]) {
                let _ = socket.send_to(&datagram, from);
            }
        }
    });
    format!("udp://{address}")
}

/// An abstract name that no other test uses.
fn name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("echo-reactor-bench-{}-{number}", std::process::id())
}

pub(crate) const SHORT: &str = "-c 5 -d 300ms --warm-up 100ms";

// --- Servers that keep the protocol ----------------------------------------------------------------------------------

#[test]
fn every_mode_finds_no_fault_in_a_correct_tcp_server() {
    let server = tcp(|_, _| {});
    for mode in [
        "",
        "--pipeline 8",
        "-s 1MiB",
        "-s 1 --pipeline 3",
        "-r 500",
        "-r 500 --arrivals poisson --pipeline 4",
        "--hold 100ms",
        "--churn fin",
        "--churn reset",
        "--active 40%",
        "--bad-clients slow-reader=2",
        "--bad-clients reset=3,slowloris=3,half-close=2",
        "--workers 2",
        "--workers 2 -r 500",
        "--source 127.0.9.1-127.0.9.3",
        "--trigger edge",
        "--trigger edge -s 1MiB --pipeline 2",
        "--trigger edge -r 500",
        "--trigger edge --churn fin --workers 2",
        "--trigger edge --bad-clients slow-reader=1,half-close=2",
    ] {
        let ended = bench(&format!("{server} {SHORT} {mode}"));
        ended.was_right();
    }
}

#[test]
fn every_family_is_measured() {
    let stream = name();
    let address = UnixAddr::from_abstract_name(&stream).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || echo(stream, |_, _| {}));
        }
    });
    bench(&format!("unix://@{stream} {SHORT} --pipeline 4")).was_right();
    bench(&format!("unix://@{stream} {SHORT} --trigger edge")).was_right();

    let datagrams = name();
    let address = UnixAddr::from_abstract_name(&datagrams).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let (count, from) = socket.recv_from(&mut buffer).unwrap();
            let _ = socket.send_to_addr(&buffer[..count], &from);
        }
    });
    bench(&format!("unixgram://@{datagrams} {SHORT}")).was_right();
    bench(&format!(
        "{} {SHORT} --pipeline 4",
        udp(|_, bytes| vec![bytes.to_vec()])
    ))
    .was_right();
}

#[test]
fn a_number_of_requests_is_kept_exactly() {
    let ended = bench(&format!("{} -c 3 -n 1000", tcp(|_, _| {})));
    ended.was_right();
    // One more on each connection: the probe that proves that a server is there.
    assert_eq!(ended.number("/requests/sent"), 1003);
    assert_eq!(ended.number("/echoes"), 1000);
}

#[test]
fn without_an_address_a_server_is_started_and_measured() {
    let ended = bench(SHORT);
    ended.was_right();
    assert!(ended.number("/server/threads") >= 1);
    assert!(ended.report["server"]["cpu_ns_per_echo"].as_f64().unwrap() > 0.0);
    bench(&format!("--serve udp://127.0.0.1:0 {SHORT} --allow-loss")).was_right();
}

#[test]
fn a_hold_reports_what_its_connections_cost() {
    let ended = bench("-c 120 --hold 500ms -d 300ms --warm-up 1ms");
    ended.was_right();
    let rows = ended.report["memory"].as_array().unwrap();
    let number = |row: &Value, name: &str| row[name].as_u64().unwrap();
    let connections: Vec<u64> = rows.iter().map(|row| number(row, "connections")).collect();
    assert!(connections.len() >= 3, "{connections:?}");
    assert!(connections.is_sorted(), "{connections:?}");
    assert_eq!((connections[0], connections.last()), (10, Some(&120)));
    for row in rows {
        for name in ["rss_bytes", "kernel_bytes", "tcp_buffer_bytes"] {
            number(row, name);
        }
    }
    // Other loads have no row of the table, as they hold too few connections.
    assert_eq!(bench(SHORT).report["memory"], serde_json::json!([]));
}

#[test]
fn steps_and_search_report_each_of_their_runs() {
    let server = tcp(|_, _| {});
    let ended = bench(&format!("{server} -r 200,400 -d 300ms --warm-up 0"));
    assert_eq!(ended.report["steps"].as_array().unwrap().len(), 2);
    let ended = bench(&format!(
        "{server} --find-max-rate 500ms -c 2 -d 150ms --warm-up 0"
    ));
    assert!(ended.report["steps"].as_array().unwrap().len() > 1);
}

#[test]
fn a_histogram_log_and_a_drawing_are_written() {
    let path = |end: &str| std::env::temp_dir().join(format!("{}{end}", name()));
    let (hdr, svg) = (path(".hlog"), path(".svg"));
    let server = tcp(|_, _| {});
    bench(&format!(
        "{server} {SHORT} -r 1k --hdr {} --svg {}",
        hdr.display(),
        svg.display()
    ))
    .was_right();
    let log = fs::read_to_string(&hdr).unwrap();
    assert!(
        log.contains("Tag=response-time,") && log.contains("Tag=service-time,"),
        "{log}"
    );
    assert!(fs::read_to_string(&svg).unwrap().contains("</svg>"));
    fs::remove_file(hdr).unwrap();
    fs::remove_file(svg).unwrap();
}

// --- Mutants ---------------------------------------------------------------------------------------------------------

#[test]
fn an_answer_that_comes_too_late_is_late_and_not_lost() {
    let mut waiting = Vec::new();
    let server = udp(move |turn, bytes| {
        if turn == 3 {
            waiting.push((Instant::now(), bytes.to_vec()));
            return Vec::new();
        }
        let mut answers = vec![bytes.to_vec()];
        waiting.retain(|(since, bytes)| {
            let due = since.elapsed() > Duration::from_millis(300);
            if due {
                answers.push(bytes.clone());
            }
            !due
        });
        answers
    });
    // So few requests follow that the late one is still remembered.
    let ended = bench(&format!(
        "{server} -c 1 --pipeline 2 -r 100 -d 800ms --warm-up 0 --timeout 100ms"
    ));
    assert_eq!(
        ended.number("/requests/late"),
        1,
        "{}",
        ended.report["requests"]
    );
    assert_eq!(ended.code, 75);
    ended.is_accounted_for();
}

#[test]
fn a_slow_server_is_slow_in_the_figures() {
    let server = tcp(|_, _| thread::sleep(Duration::from_millis(5)));
    let ended = bench(&format!("{server} {SHORT}"));
    ended.was_right();
    assert!(ended.number("/service_time_ns/min") >= 5_000_000);
}

/// The test for coordinated omission. The server stops once, for 200 ms. Measured from the actual send (service time),
/// one request on each connection is slow, a few among thousands; measured from the planned send (response time), every
/// request planned for that time has waited.
#[test]
fn a_server_that_stops_is_seen_in_the_response_times_and_not_in_the_service_times() {
    let start = Instant::now();
    let server = tcp(move |_, _| {
        let at = start.elapsed();
        let (from, to) = (Duration::from_millis(600), Duration::from_millis(800));
        if at > from && at < to {
            thread::sleep(to - at);
        }
    });
    let ended = bench(&format!("{server} -c 4 -r 1k -d 2s --warm-up 200ms"));
    assert!([0, 4].contains(&ended.code), "{}", ended.err);
    let planned = ended.number("/response_time_ns/p90");
    let actual = ended.number("/service_time_ns/p90");
    // A tenth of all requests was planned for the time of the stop, and waited 100 ms on average.
    assert!(
        ended.number("/response_time_ns/p99") > 100_000_000,
        "{}",
        ended.report["service_time_ns"]
    );
    assert!(
        actual < 20_000_000 && planned >= actual,
        "{planned} {actual}"
    );
    assert!(
        ended.number("/service_time_ns/p99") < 100_000_000,
        "{}",
        ended.report["service_time_ns"]
    );
    assert!(
        ended.number("/service_time_ns/max") > 100_000_000,
        "the few slow ones are the maximum"
    );
    ended.is_accounted_for();
}

/// A bench that is in the middle of its window, the lines that it goes on to say, and its worker.
pub(crate) fn in_the_window(
    server: &str,
    more: &str,
) -> (Child, thread::JoinHandle<Vec<String>>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_echo-reactor"))
        .args(["bench", "--format", "json", "-d", "60s", "--warm-up", "0"])
        .args(["--interval", "100ms", server])
        .args(more.split_whitespace())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let mut lines = stderr.lines().map_while(Result::ok);
    // Waits for the window, however long the start takes.
    assert!(lines.any(|line| line.trim_start().starts_with("window")));
    let said = thread::spawn(move || lines.collect());
    let workers = children(child.id());
    assert_eq!(workers.len(), 1);
    (child, said, workers[0].to_string())
}

pub(crate) fn kill(signal: &str, pid: &str) {
    let status = Command::new("kill").args([signal, pid]).status();
    assert!(status.unwrap().success());
}

/// Ctrl-C ends the run with its report, not without one.
#[test]
fn an_interrupted_run_reports() {
    let (child, said, _) = in_the_window(&tcp(|_, _| {}), "");
    kill("-INT", &child.id().to_string());
    let output = child.wait_with_output().unwrap();
    said.join().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    fits_schema(&report, include_str!("../../src/cli/bench/schema.json"));
    assert_eq!(report["interrupted"], true);
    assert!(report["echoes"].as_u64().unwrap() > 0);
}

/// A second thread would make every system call of the load more expensive. And the bench does not wait for a worker
/// that was killed, for example for lack of memory.
#[test]
fn a_worker_has_one_thread_and_its_death_is_told() {
    let (child, said, worker) = in_the_window(&tcp(|_, _| {}), "");
    let threads = fs::read_dir(format!("/proc/{worker}/task")).unwrap();
    assert_eq!(threads.count(), 1, "of the worker {worker}");
    kill("-KILL", &worker);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(71));
    let said = said.join().unwrap().join("\n");
    let told = "no load: worker 0 has ended without a report (signal: 9 (SIGKILL))";
    assert!(said.contains(told), "{said}");
}

#[test]
fn bad_clients_are_counted_and_do_not_disturb() {
    let server = tcp(|_, _| {});
    let bad = "--bad-clients slow-reader=1,reset=2,slowloris=3,half-close=2";
    let ended = bench(&format!(
        "{server} -c 5 -d 1s --warm-up 0 {bad} --workers 2"
    ));
    ended.was_right();
    assert_eq!(ended.number("/plan/bad_clients/slow_reader"), 1);
    assert_eq!(ended.number("/plan/bad_clients/slowloris"), 3);
    assert!(ended.number("/requests/bad_resets") >= 2);
    assert!(ended.number("/requests/bad_bytes") >= 3);
    assert!(ended.number("/requests/bad_half_closed") >= 2);
    assert_eq!(ended.number("/requests/bad_cut"), 0);
}

#[test]
fn a_server_that_drops_its_unsent_bytes_at_a_half_close_is_detected_by_bad_clients() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("tcp://{}", listener.local_addr().unwrap());
    // A client with its FIN right after the first request gets nothing.
    let serve = |mut stream: TcpStream| -> io::Result<()> {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer)?;
        stream.set_read_timeout(Some(Duration::from_millis(50)))?;
        if let Ok(0) = stream.peek(&mut [0]) {
            return Ok(());
        }
        stream.set_read_timeout(None)?;
        stream.write_all(&buffer[..count])?;
        echo(stream, |_, _| {})
    };
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || serve(stream));
        }
    });
    let ended = bench(&format!("{server} {SHORT} --bad-clients half-close=1"));
    ended.was_right();
    assert!(ended.number("/requests/bad_cut") > 0, "{}", ended.report);
}

/// The child processes of `parent` that are alive.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let alive = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let is_zombie = fields.next() == Some("Z");
        (!is_zombie && fields.next() == Some(&parent.to_string())).then_some(pid)
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(alive).collect()
}

/// Whether the process still runs: a zombie has ended, and only waits for its parent to read its exit status.
pub(crate) fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_killed_bench_leaves_no_process_behind() {
    let foreign = tcp(|_, _| {});
    for line in [
        "--serve tcp://127.0.0.1:0 -c 2".to_owned(),
        format!("{foreign} -c 4 --workers 2"),
    ] {
        let mut bench = Command::new(env!("CARGO_BIN_EXE_echo-reactor"))
            .args(["bench", "-q", "-d", "2m"]) // longer than the test takes, and yet an end
            .args(line.split(' '))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // A server and a worker; in the second round, two workers.
        wait_until("its children run", || children(bench.id()).len() == 2);
        let left = children(bench.id());
        bench.kill().unwrap(); // SIGKILL
        bench.wait().unwrap();
        wait_until("they have ended", || !left.iter().any(|&pid| runs(pid)));
    }
}

// --- The command line ------------------------------------------------------------------------------------------------

#[test]
fn what_does_not_fit_is_refused_before_it_starts() {
    let ended = bench("127.0.0.1:9 -c 3M");
    assert_eq!(ended.code, 64);
    assert!(ended.err.contains("--workers"), "{}", ended.err);
    let ended = bench("udp://127.0.0.1:9 -s 4");
    assert!(ended.err.contains("--size 4"), "{}", ended.err);
}
