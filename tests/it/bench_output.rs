//! What a measurement leaves behind: its report, its files, and no process.
//!
//! What may live in this file: `bench` and `compare` with a full disk, with their own program replaced, and ended from
//! outside. What may not: what they measure.

use crate::bench::{SHORT, bench, tcp};
use crate::support::{Dir, ended, has_tool, program, unique, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

/// Another name of the program under test, which can be removed. It is a link, as a copy could not be executed while a
/// child process that another test starts still has it open for writing (ETXTBSY of execve(2)).
struct Link(PathBuf);

impl Link {
    fn new() -> Self {
        let binary = Path::new(env!("CARGO_BIN_EXE_echo-reactor"));
        let link = binary.with_file_name(unique());
        fs::hard_link(binary, &link).unwrap();
        Self(link)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_program_that_is_replaced_meanwhile_finishes_its_steps() {
    let link = Link::new();
    let mut bench = Command::new(&link.0)
        .args(["bench", "-c", "2", "-r", "200,300,400", "-d", "300ms"])
        .args(["--warm-up", "0", "--interval", "100ms", "--format", "csv"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(bench.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok);
    assert!(said.any(|line| line.trim_start().starts_with("window")));
    fs::remove_file(&link.0).unwrap();
    let rest = thread::spawn(move || said.collect::<Vec<_>>());
    let output = bench.wait_with_output().unwrap();
    let (out, rest) = (
        String::from_utf8(output.stdout).unwrap(),
        rest.join().unwrap(),
    );
    assert_eq!(out.lines().count(), 4, "{out} {rest:?}");
}

// --- Files -------------------------------------------------------------------------------------------------------------

/// `/dev/full` is a disk that is full (full(4)).
#[test]
fn a_full_disk_costs_neither_the_report_nor_the_other_files() {
    let dir = Dir::new();
    let (log, server) = (dir.path("run.hlog"), tcp(|_, _| {}));
    fs::write(&log, "what was there before").unwrap();
    let words = format!("{server} {SHORT} --svg /dev/full --hdr {}", log.display());
    let ended = bench(&words);
    assert_eq!(ended.code, 74, "{}", ended.err);
    assert!(ended.number("/echoes") > 0);
    let told = "error: io: --svg: writing '/dev/full' failed: No space left on device";
    assert!(ended.err.contains(told), "{}", ended.err);
    assert!(
        fs::read_to_string(&log)
            .unwrap()
            .contains("Tag=service-time,")
    );
    let ended = bench(&format!("{server} {SHORT} --hdr /dev/full"));
    assert!(
        ended.code == 74 && ended.number("/echoes") > 0,
        "{}",
        ended.err
    );
    // The report itself goes nowhere, and the drawing is made all the same.
    let drawing = dir.path("run.svg");
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_echo-reactor"))
        .args([
            "bench",
            "-q",
            &server,
            "-d",
            "100ms",
            "--warm-up",
            "0",
            "--svg",
        ])
        .arg(&drawing)
        .stdout(full)
        .stderr(Stdio::null())
        .status();
    assert_eq!(status.unwrap().code(), Some(74));
    assert!(fs::read_to_string(&drawing).unwrap().contains("</svg>"));
    assert_eq!(
        fs::read_dir(dir.path("")).unwrap().count(),
        2,
        "and nothing temporary"
    );
}

#[test]
fn a_full_disk_costs_a_comparison_neither() {
    let dir = Dir::new();
    let page = dir.path("page.html");
    let words = "compare -q --models reactor --rounds 1 --window 300ms --warm-up 5ms -c 1 --json /dev/full --html";
    let ended = ended(program().args(words.split(' ')).arg(&page));
    assert_eq!(ended.code, 74, "{}", ended.err);
    assert!(ended.out.contains("reactor") && ended.err.contains("--json: writing '/dev/full'"));
    assert!(fs::read_to_string(&page).unwrap().contains("</html>"));
}

/// The reader that many use, which is not of this family's own.
const READER: &str = "\
import sys
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
log = HistogramLogReader(sys.argv[1], HdrHistogram(1, 3600000000000, 3))
last = {}
while True:
    one = log.get_next_interval_histogram()
    if one is None: break
    assert one.get_start_time_stamp() >= last.get(one.get_tag(), 0), 'backwards'
    last[one.get_tag()] = one.get_end_time_stamp()
    print(one.get_tag(), one.get_total_count(), one.get_value_at_percentile(99))
";

#[test]
fn python_reads_the_log_of_several_steps() {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has = Command::new(&python)
        .args(["-c", "import hdrh"])
        .stderr(Stdio::null())
        .status();
    if !has.is_ok_and(|status| status.success()) {
        return crate::support::skip("Python has no package hdrhistogram");
    }
    let dir = Dir::new();
    let log = dir.path("run.hlog");
    let ended = bench(&format!(
        "-r 200,300 -d 300ms --warm-up 50ms --hdr {}",
        log.display()
    ));
    assert!([0, 4].contains(&ended.code), "{}", ended.err);
    let output = Command::new(python)
        .args(["-c", READER])
        .arg(&log)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let counts = text
        .lines()
        .filter_map(|line| line.strip_prefix("service-time ")?.split(' ').next());
    let answers: u64 = counts.map(|count| count.parse::<u64>().unwrap()).sum();
    assert!(answers >= 100, "60 and 90 requests: {text}");
}

// --- A search ----------------------------------------------------------------------------------------------------------

#[test]
fn a_search_that_finds_nothing_says_so_and_shows_no_failure_as_its_result() {
    let server = tcp(|_, _| thread::sleep(Duration::from_millis(20)));
    let words = format!("{server} -c 1 --find-max-rate 5ms -d 150ms --warm-up 0");
    let found = bench(&words);
    assert_eq!(found.code, 6, "{}", found.err);
    assert!(
        found
            .err
            .contains("no rate with a p99 within 5ms was found"),
        "{}",
        found.err
    );
    let report = &found.report;
    assert_eq!(report["search"]["found_rate"], Value::Null);
    assert_eq!(
        (found.number("/echoes"), &report["response_time_ns"]),
        (0, &Value::Null)
    );
    assert_eq!(report["valid"], false);
    let steps = report["steps"].as_array().unwrap();
    assert!(steps.len() > 1 && steps[1..].iter().all(|step| step["within_bound"] == false));
    let mut text = program();
    let text = ended(text.args(["bench", "-q"]).args(words.split(' ')));
    assert_eq!(text.code, 6);
    assert!(
        text.out
            .starts_with("no rate with a p99 within 5ms was found"),
        "{}",
        text.out
    );
    assert!(!text.out.contains("echoes in"), "{}", text.out);
}

/// A search goes up to where the server fails; that is no failure of what it has found.
#[test]
fn a_search_ends_with_the_exit_code_of_its_answer() {
    let found = bench(&format!(
        "{} --find-max-rate 2s -c 1 -d 150ms --warm-up 0",
        tcp(|_, _| {})
    ));
    let rate = found.report["search"]["found_rate"].as_f64();
    let rate = rate.unwrap_or_else(|| panic!("{}", found.report["search"]));
    assert_eq!(
        found.report["plan"]["rate"].as_f64(),
        Some(rate),
        "the best is at the top"
    );
    let valid = found.report["valid"] == true;
    assert_eq!(found.code, if valid { 0 } else { 4 }, "{}", found.err);
}

// --- Processes ---------------------------------------------------------------------------------------------------------

/// The processes that have a mark in their environment.
fn marked(mark: &str) -> Vec<u32> {
    let has = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|variable| variable == mark.as_bytes())
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(has).collect()
}

/// The command of a server that puts itself into the background, in a session of its own, and its mark.
fn in_the_background() -> Option<(String, String)> {
    let binary = Path::new(env!("CARGO_BIN_EXE_echo-reactor"));
    let server = binary.with_file_name("examples").join("slowed");
    if !has_tool("setsid") || !server.exists() {
        crate::support::skip(
            "there is no setsid, or no example 'slowed', which 'cargo test' builds",
        );
        return None;
    }
    let mark = format!("ECHO_MARK={}", unique());
    let command = format!(
        "sh -c 'env {mark} setsid {} {{port}} 0 & exit 0'",
        server.display()
    );
    Some((command, mark))
}

#[test]
fn a_server_in_the_background_is_measured_and_ended() {
    let Some((command, mark)) = in_the_background() else {
        return;
    };
    let dir = Dir::new();
    let record = dir.path("record.json");
    let words = "compare -q --models reactor --rounds 2 --window 500ms --warm-up 10ms -c 1 --json";
    let mut compare = program();
    compare
        .args(words.split(' '))
        .arg(&record)
        .args(["--against-command", &command]);
    let ended = ended(&mut compare);
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    assert_eq!(marked(&mark), [0; 0]);
    let record: Value = serde_json::from_str(&fs::read_to_string(&record).unwrap()).unwrap();
    let cpu = &record["cells"][0]["models"][1]["figures"]["cpu_ns_per_echo"]["median"];
    assert!(cpu.as_f64() > Some(0.0), "{record}");
}

#[test]
fn a_comparison_that_is_killed_leaves_no_server_behind() {
    let Some((command, mark)) = in_the_background() else {
        return;
    };
    for signal in [Signal::SIGKILL, Signal::SIGHUP] {
        let words = "compare -q --models reactor --rounds 100 --window 2s -c 1 --against-command";
        let mut compare = program()
            .args(words.split(' '))
            .arg(&command)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("the server runs", || !marked(&mark).is_empty());
        kill(Pid::from_raw(compare.id() as i32), signal).unwrap();
        compare.wait().unwrap();
        wait_until("the server has ended", || marked(&mark).is_empty());
    }
}

/// A terminal that goes (SIGHUP) ends a run with its report, and under nohup(1) it goes on.
#[test]
fn a_terminal_that_goes_ends_a_run_with_its_report_unless_that_is_ignored() {
    let server = tcp(|_, _| {});
    for (trap, ends) in [("", true), ("trap '' HUP; ", false)] {
        let length = if ends { "60s" } else { "1s" };
        let binary = env!("CARGO_BIN_EXE_echo-reactor");
        let line = format!(
            "{trap}exec {binary} bench {server} -c 1 -d {length} --warm-up 0 --interval 100ms --format json"
        );
        let mut bench = Command::new("sh")
            .args(["-c", &line])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(bench.stderr.take().unwrap())
            .lines()
            .map_while(Result::ok);
        assert!(said.any(|line| line.trim_start().starts_with("window")));
        kill(Pid::from_raw(bench.id() as i32), Signal::SIGHUP).unwrap();
        let rest = thread::spawn(move || said.count());
        let output = bench.wait_with_output().unwrap();
        rest.join().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["interrupted"], ends, "{trap}");
        assert!(report["echoes"].as_u64() > Some(0));
    }
}
