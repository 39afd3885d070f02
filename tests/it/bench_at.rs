//! `bench --at`: workers that a command starts, on this machine or behind another network.
//!
//! What may live in this file: how the load is divided, begun, merged, judged and ended over pipes. What may not: what a
//! worker measures.

use crate::bench::{Ended, children, kill, runs, tcp, tcp_at};
use crate::support::fault::{in_own_network, sh};
use crate::support::schema::fits_schema;
use crate::support::{Dir, skip, wait_until};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const PROGRAM: &str = env!("CARGO_BIN_EXE_echo-reactor");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A bench whose workers are started by these commands.
fn command(server: &str, line: &str, commands: &[String]) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args(["bench", server])
        .args(line.split_whitespace())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for at in commands {
        command.args(["--at", at]);
    }
    command
}

fn ended(output: &Output) -> Ended {
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    if !report.is_null() {
        fits_schema(&report, include_str!("../../src/cli/bench/schema.json"));
    }
    Ended {
        code: output.status.code().expect("no signal ended it"),
        report,
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn bench_at(server: &str, line: &str, commands: &[String]) -> Ended {
    let line = format!("{line} --format json");
    ended(&command(server, &line, commands).output().unwrap())
}

/// Commands that differ in a variable of the environment, by which their workers can be told apart.
fn by_env(count: usize) -> Vec<String> {
    let commands = (0..count).map(|number| format!("env MACHINE={number} {PROGRAM}"));
    commands.collect()
}

/// A bench that is in the middle of its window, and its workers: a command is executed in place of the shell.
fn in_the_window(server: &str, commands: &[String]) -> (Child, Vec<u32>) {
    let line = "-c 8 -d 60s --warm-up 0 --interval 100ms --format json";
    let mut child = command(server, line, commands).spawn().unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let mut lines = stderr.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.trim_start().starts_with("window")));
    thread::spawn(move || lines.count());
    let workers = children(child.id());
    assert_eq!(workers.len(), commands.len());
    (child, workers)
}

// --- Division and merging --------------------------------------------------------------------------------------------

#[test]
fn the_load_is_divided_among_machines_and_each_has_its_row() {
    let server = tcp(|_, _| {});
    let commands = [PROGRAM.to_owned(), format!("env A=1 {PROGRAM}")];
    let line = "-q -c 12 -n 1200 --workers 2";
    let ended = bench_at(&server, line, &commands);
    ended.was_right();
    assert_eq!(ended.number("/echoes"), 1200);
    assert_eq!(ended.number("/plan/workers"), 4);
    assert!(ended.number("/begin_spread_ns") > 0);
    for (place, at) in commands.iter().enumerate() {
        let row = |name: &str| ended.number(&format!("/machines/{place}/{name}"));
        assert_eq!((row("workers"), row("connections")), (2, 6));
        assert_eq!(row("echoes"), 600);
        assert_eq!(ended.report["machines"][place]["at"], at.as_str());
    }
    let out = command(&server, line, &commands).output().unwrap().stdout;
    let out = String::from_utf8(out).unwrap();
    assert!(out.contains("machine (all began within"), "{out}");
    assert!(
        commands.iter().all(|at| out.contains(&format!("  {at}\n"))),
        "{out}"
    );
}

/// A command that keeps what its worker reports in a file.
fn kept(file: &Path) -> String {
    let script = format!("\"$0\" \"$@\" | tee {}", file.display());
    format!("sh -c '{script}' {PROGRAM}")
}

/// All latencies of the window that workers have reported, recorded one by one.
fn samples(reports: &[String], name: &str) -> Histogram<u64> {
    let mut all = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).unwrap();
    let messages = reports.iter().flat_map(|report| report.lines());
    for message in messages.map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let interval = &message["interval"];
        if interval["stage"] != "window" && interval["stage"] != "drain" {
            continue;
        }
        let digits = interval[name][0].as_str().unwrap();
        let places = (0..digits.len()).step_by(2);
        let bytes: Vec<u8> = places
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
            .collect();
        let part: Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .unwrap();
        for bucket in part.iter_recorded() {
            for _ in 0..bucket.count_at_value() {
                all.record(bucket.value_iterated_to()).unwrap();
            }
        }
    }
    all
}

/// The percentiles of all are no mean of the percentiles of each.
#[track_caller]
fn has_the_percentiles_of_all(ended: &Ended, reports: &[String]) {
    for name in ["response_time", "service_time"] {
        let all = samples(reports, name);
        let told = &ended.report[format!("{name}_ns")];
        let max = told["max"].as_u64().unwrap();
        assert!(all.len() > 100 && all.equivalent(all.max(), max), "{told}");
        assert_eq!(told["count"], all.len());
        assert_eq!(told["min"], all.min());
        for (key, quantile) in [
            ("p50", 0.5),
            ("p90", 0.9),
            ("p99", 0.99),
            ("p99_9", 0.999),
            ("p99_99", 0.9999),
        ] {
            let expected = all.value_at_quantile(quantile).min(max);
            assert_eq!(told[key], expected, "{name} {key}");
        }
    }
}

const MERGED: &str = "-q -c 8 -r 2k -d 400ms --warm-up 50ms --interval 100ms";

/// Runs with one to eight machines, of which `command` starts the n-th, and compares with all samples.
fn is_merged(server: &str, command: impl Fn(usize, &str) -> String) {
    for machines in 1..=8 {
        let dir = Dir::new();
        let files: Vec<_> = (0..machines).map(|n| dir.path(&n.to_string())).collect();
        let commands: Vec<String> = (files.iter().enumerate())
            .map(|(n, file)| command(n, &kept(file)))
            .collect();
        let ended = bench_at(server, MERGED, &commands);
        ended.was_right();
        let reports: Vec<String> = (files.iter())
            .map(|file| fs::read_to_string(file).unwrap())
            .collect();
        has_the_percentiles_of_all(&ended, &reports);
    }
}

#[test]
fn merged_percentiles_are_those_of_all_samples() {
    is_merged(&tcp(|_, _| {}), |_, command| command.to_owned());
}

/// The address of the server in the network of a test.
const SERVER: &str = "10.7.0.254";

/// Network namespaces, each with a link to this one and a route to the server.
struct Namespaces(Vec<String>);

impl Namespaces {
    fn new(count: usize) -> Self {
        let id = std::process::id();
        let mut made = Self(Vec::new());
        for n in 0..count {
            let name = format!("echo-at-{id}-{n}");
            made.0.push(name.clone());
            for words in [
                format!("netns add {name}"),
                format!("link add at{n} type veth peer name at netns {name}"),
                format!("addr add 10.7.{n}.1/24 dev at{n}"),
                format!("link set at{n} up"),
                format!("-n {name} addr add 10.7.{n}.2/24 dev at"),
                format!("-n {name} link set at up"),
                format!("-n {name} route replace {SERVER} via 10.7.{n}.1"),
            ] {
                sh(&format!("ip {words}"));
            }
        }
        made
    }

    fn commands(&self, program: &str) -> Vec<String> {
        let commands = self.0.iter();
        commands
            .map(|name| format!("ip netns exec {name} {program}"))
            .collect()
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

/// Whether this test may make network namespaces.
fn has_namespaces() -> bool {
    let name = format!("echo-at-{}-probe", std::process::id());
    let ip = |word: &str| Command::new("ip").args(["netns", word, &name]).output();
    let has = ip("add").is_ok_and(|output| output.status.success());
    let _ = ip("del");
    if !has {
        skip("no network namespace can be made with ip(8) here");
    }
    has
}

#[test]
fn machines_behind_networks_of_their_own_are_merged_exactly() {
    if !has_namespaces() {
        return;
    }
    in_own_network(&[&format!("{SERVER}/32")], || {
        let server = tcp_at(&format!("{SERVER}:0"), |_, _| {});
        let namespaces = Namespaces::new(8);
        is_merged(&server, |n, command| {
            format!("ip netns exec {} {command}", namespaces.0[n])
        });
        killed_controller(&server, &namespaces.commands(PROGRAM));
    });
}

// --- Verdict -----------------------------------------------------------------------------------------------------------

#[test]
fn a_machine_that_stood_still_makes_the_run_invalid_and_is_named() {
    let commands = by_env(2);
    let (child, workers) = in_the_window(&tcp(|_, _| {}), &commands);
    let is_second = |pid: &&u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        String::from_utf8_lossy(&environment).contains("MACHINE=1\0")
    };
    let second = workers.iter().find(is_second).unwrap().to_string();
    kill("-STOP", &second);
    thread::sleep(Duration::from_millis(100)); // what is measured: a pause
    kill("-CONT", &second);
    thread::sleep(Duration::from_millis(100)); // in which it can notice that
    kill("-INT", &child.id().to_string());
    let ended = ended(&child.wait_with_output().unwrap());
    assert_eq!(ended.code, 4, "{}", ended.report);
    let told = format!("'{}': the generator itself stood still", commands[1]);
    let reasons = ended.report["not_valid_because"].to_string();
    assert!(reasons.contains(&told), "{reasons}");
    let row = &ended.report["machines"][1];
    assert_eq!(row["valid"], false);
    let longest = row["generator"]["pauses"]["longest_ns"].as_u64().unwrap();
    assert!(longest >= 60_000_000, "{row}"); // a tick of 20 ms may have been under way
}

#[test]
fn what_a_command_says_beside_is_a_note() {
    let script = "echo one >&2; echo Welcome; exec \"$0\" \"$@\"";
    let at = format!("sh -c '{script}' {PROGRAM}");
    let ended = bench_at(&tcp(|_, _| {}), "-q -n 100 -c 2", std::slice::from_ref(&at));
    ended.was_right();
    let notes = ended.report["notes"].as_array().unwrap();
    let told = format!("'{at}' said: one");
    assert!(notes.iter().any(|note| *note == *told), "{notes:?}");
}

// --- Ends --------------------------------------------------------------------------------------------------------------

/// The end of its commands is all that tells a worker of another machine that its controller is gone.
fn killed_controller(server: &str, commands: &[String]) {
    let (mut child, workers) = in_the_window(server, commands);
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    wait_until("they have ended", || !workers.iter().any(|&pid| runs(pid)));
}

#[test]
fn a_killed_controller_ends_the_load_of_every_machine_within_a_second() {
    let echoes = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&echoes);
    let server = tcp(move |_, _| {
        seen.fetch_add(1, Ordering::Relaxed);
    });
    let (mut child, workers) = in_the_window(&server, &by_env(3));
    child.kill().unwrap(); // SIGKILL
    thread::sleep(Duration::from_secs(1)); // the time that is promised
    let after_a_second = echoes.load(Ordering::Relaxed);
    assert!(after_a_second > 0);
    child.wait().unwrap();
    wait_until("they have ended", || !workers.iter().any(|&pid| runs(pid)));
    assert_eq!(echoes.load(Ordering::Relaxed), after_a_second);
}

#[test]
fn a_command_that_leads_to_no_worker_of_this_version_is_told_with_what_it_said() {
    let server = tcp(|_, _| {});
    let hello = |version: &str| format!(r#"echo "{{\"hello\":\"{version}\"}}""#);
    let script = |script: &str| format!("sh -c '{script}' {PROGRAM}");
    for (at, told) in [
        (
            "/no/such/program".into(),
            "has ended without a report (exit status: 127); it said: ",
        ),
        ("true".into(), "has ended without a report"),
        (
            script("echo Permission denied >&2; exit 255"),
            "has ended without a report (exit status: 255); it said: Permission denied",
        ),
        (
            script(&format!("{}; cat", hello("0.0.9"))),
            "is echo-reactor 0.0.9, and this is 0.1.0: install the same version on both",
        ),
        (
            script("exec cat /dev/zero"),
            "sends a line of 4194304 bytes or more",
        ),
        (script("exec yes"), "sends what is no message: y"),
        (
            script(&format!(
                "{}; read plan; echo nonsense; cat",
                hello(VERSION)
            )),
            "sends what is no message: nonsense",
        ),
        (
            script(r#"echo "{\"opening\":1}"; cat"#),
            "cannot go on: it has not said its version",
        ),
        (
            script(r#"ulimit -n 40; exec "$0" "$@""#),
            "cannot go on: 25 connections take 57 descriptors in each of 1 processes, and a process may have 40",
        ),
    ] {
        let ended = bench_at(&server, "-q -d 1s", &[PROGRAM.to_owned(), at.clone()]);
        assert_eq!(ended.code, 71, "{at}: {}", ended.err);
        let said = format!("error: system: no load: '{at}' {told}");
        assert!(ended.err.contains(&said), "{said}\n{}", ended.err);
    }
}

#[test]
fn a_command_that_does_not_answer_is_given_up() {
    let at = ["sleep 1000 #".to_owned()];
    let child = command(&tcp(|_, _| {}), "", &at).spawn().unwrap();
    wait_until("it runs", || children(child.id()).len() == 1);
    kill("-INT", &child.id().to_string());
    let ended = ended(&child.wait_with_output().unwrap());
    assert_eq!(ended.code, 75, "{}", ended.err);
    let told = "error: timeout: no load: 'sleep 1000 #' has not answered for ";
    assert!(ended.err.contains(told), "{}", ended.err);
}

#[test]
fn other_machines_need_the_address_of_a_server() {
    let output = Command::new(PROGRAM)
        .args(["bench", "--at", PROGRAM])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
}
