//! `echo-reactor compare` and `echo-reactor diff`: what is measured and kept, which server is left out and why, and
//! the exit codes.
//!
//! Which model is faster depends on what else this machine does, so no test of this file asserts that; that the
//! judgement of given figures is right, and how often it errs, is tested beside it, in `src/cli/compare/statistics.rs`.

use crate::support::schema::fits_schema;
use crate::support::{Dir, Serve, ended, program};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;

const SCHEMA: &str = include_str!("../../src/cli/compare/schema.json");
const FIXTURE: &str = include_str!("../fixtures/compare.json");
/// The shortest comparison that has confidence intervals.
const SHORT: &str = "--rounds 3 --window 300ms --warm-up 10ms";

struct Compared {
    code: i32,
    out: String,
    err: String,
    record: Value,
}

/// Runs `compare` with these arguments, and reads its record.
#[track_caller]
fn compare(words: &str, further: &[&str]) -> Compared {
    let dir = Dir::new();
    let path = dir.path("record.json");
    let mut command = program();
    command.args(["compare", "--json"]).arg(&path);
    let ended = ended(command.args(words.split_whitespace()).args(further));
    let record = read(&path);
    fits_schema(&record, SCHEMA);
    Compared {
        code: ended.code,
        out: ended.out,
        err: ended.err,
        record,
    }
}

#[track_caller]
fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

impl Compared {
    /// The record of a model in a cell, by their indices.
    fn entry(&self, cell: usize, model: usize) -> &Value {
        &self.record["cells"][cell]["models"][model]
    }

    #[track_caller]
    fn left_out(&self, cell: usize, model: usize, words: &str) {
        let entry = self.entry(cell, model);
        let why = entry["left_out"].as_str().unwrap_or_default();
        assert!(why.contains(words), "{entry}");
        assert_eq!(entry["samples"], json!([]));
    }
}

/// The example of this name, which cargo builds along with the tests.
fn example(name: &str) -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_echo-reactor"));
    binary.with_file_name("examples").join(name)
}

#[test]
fn the_example_record_fits_the_schema() {
    fits_schema(&serde_json::from_str(FIXTURE).unwrap(), SCHEMA);
}

#[test]
fn three_models_are_measured_in_rounds() {
    let dir = Dir::new();
    let (html, svg) = (dir.path("page.html"), dir.path("drawing.svg"));
    let words = format!(
        "-c 1,3 {SHORT} --html {} --svg {}",
        html.display(),
        svg.display()
    );
    let compared = compare(&words, &[]);
    assert_eq!(compared.code, 0, "{}", compared.err);
    assert!(
        compared
            .err
            .contains("2 loads, 3 models, 3 rounds of 300ms each: about")
    );
    for cell in 0..2 {
        for model in 0..2 {
            let entry = compared.entry(cell, model);
            assert_eq!(entry["samples"].as_array().unwrap().len(), 3, "{entry}");
            assert!(entry["figures"]["echoes_per_second"]["median"].as_f64() > Some(0.0));
            assert!(entry["figures"]["cpu_ns_per_echo"]["median"].as_f64() > Some(0.0));
            assert!(entry["latency_by_percentile"].as_array().unwrap().len() > 5);
            // A ratio of the p99 exists only if a hundred answers came in each round.
            let ratios = entry["ratios"].as_array().unwrap();
            let figures: Vec<_> = ratios.iter().map(|ratio| &ratio["figure"]).collect();
            let has = |name: &str| figures.contains(&&json!(name));
            assert_eq!(has("echoes_per_second"), model == 1, "{entry}");
            assert_eq!(has("cpu_ns_per_echo"), model == 1, "{entry}");
        }
    }
    // A thread for each connection, and three of the server's own: accept, signals, main.
    let threads = &compared.entry(1, 1)["figures"]["threads"]["median"];
    assert_eq!(
        threads.as_f64(),
        Some(6.0),
        "3 clients, accept, signals, main"
    );
    assert_eq!(compared.entry(0, 2)["left_out"], Value::Null);
    compared.left_out(1, 2, "one connection after another");
    assert!(
        compared
            .out
            .contains("threads against reactor, all cells together")
    );
    assert!(fs::read_to_string(html).unwrap().contains("reactor"));
    assert!(fs::read_to_string(svg).unwrap().contains("</svg>"));
}

#[test]
fn fewer_rounds_than_three_have_no_intervals() {
    let compared = compare(
        "-c 1 --models reactor,threads --rounds 1 --window 300ms --warm-up 5ms",
        &[],
    );
    let few = "with fewer than 3 rounds there are no intervals";
    assert!(compared.out.contains(few), "{}", compared.out);
    assert_eq!(compared.entry(0, 1)["ratios"], json!([]));
}

#[test]
fn every_scenario_runs_on_both_models() {
    let scenarios = "request-response,pipelined,churn,mostly-idle,slow-reader";
    let words = format!(
        "--scenarios {scenarios} -c 10 --models reactor,threads --rounds 1 --window 300ms --warm-up 10ms -q"
    );
    let compared = compare(&words, &[]);
    assert_eq!((compared.code, compared.err.as_str()), (0, ""));
    for cell in 0..5 {
        for model in 0..2 {
            let entry = compared.entry(cell, model);
            assert_eq!(entry["samples"].as_array().unwrap().len(), 1, "{entry}");
        }
    }
    assert!(compared.entry(2, 1)["figures"]["switches_per_echo"].is_null());
}

#[test]
fn an_external_command_is_measured_and_ended() {
    if !example("slowed").exists() {
        return crate::support::skip("the example 'slowed' is not built; 'cargo test' builds it");
    }
    let command = format!("{} {{port}} 200", example("slowed").display());
    let words = format!("-c 4 --models reactor {SHORT}");
    let compared = compare(&words, &["--against-command", &command]);
    assert_eq!(compared.code, 0, "{}", compared.err);
    assert_eq!(compared.record["models"][1]["name"], "slowed 200");
    assert_eq!(compared.record["models"][1]["command"], command);
    let entry = compared.entry(0, 1);
    assert_eq!(entry["samples"].as_array().unwrap().len(), 3, "{entry}");
    // It uses three times as much CPU. The exact factor varies with the load of the machine; that it is more does not.
    let cpu = entry["ratios"].as_array().unwrap().iter();
    let cpu = cpu.filter(|ratio| ratio["figure"] == "cpu_ns_per_echo");
    assert!(
        cpu.map(|ratio| ratio["ratio"].as_f64().unwrap())
            .all(|ratio| ratio > 1.3)
    );
}

#[test]
fn a_server_that_cannot_be_started_is_left_out_with_the_reason() {
    let commands = [
        "--against-command",
        "sh -c 'echo no luck today >&2; exit 3' {port}",
        "--against-command",
        "/nonexistent/server {port}",
    ];
    let compared = compare(&format!("-c 1,2 --models reactor {SHORT}"), &commands);
    assert_eq!(compared.code, 69, "{}", compared.err);
    for cell in 0..2 {
        compared.left_out(cell, 1, "exit status: 3");
        compared.left_out(cell, 1, "no luck today");
        compared.left_out(cell, 2, "not found");
        assert_eq!(
            compared.entry(cell, 0)["samples"].as_array().unwrap().len(),
            3
        );
    }
    // Before any figure.
    let missing = "MISSING: sh 'echo failed at 2 of 2 loads, and no ratio has them in it; the first: request-response, ";
    let said = compared
        .out
        .find(missing)
        .unwrap_or_else(|| panic!("{}", compared.out));
    assert!(said < compared.out.find("connections  model").unwrap());
    assert!(compared.out.contains("no luck today"));
}

/// A server that dies in the third round has two good ones, and no ratio.
#[test]
fn who_fails_in_a_later_round_has_no_ratio() {
    if !example("slowed").exists() {
        return crate::support::skip("the example 'slowed' is not built; 'cargo test' builds it");
    }
    let dir = Dir::new();
    let rounds = dir.path("rounds");
    fs::write(&rounds, "").unwrap();
    let command = format!(
        "sh -c 'echo >> {0}; test $(wc -l < {0}) -lt 5 || exit 9; exec {1} {{port}} 0'",
        rounds.display(),
        example("slowed").display()
    );
    let words = "-c 1 --models reactor --rounds 6 --window 200ms --warm-up 5ms -q";
    let compared = compare(words, &["--against-command", &command]);
    assert_eq!(compared.code, 6, "{} {}", compared.out, compared.err);
    let entry = compared.entry(0, 1);
    assert_eq!(entry["samples"].as_array().unwrap().len(), 4, "{entry}");
    assert_eq!(
        (&entry["failed"], &entry["ratios"]),
        (&json!(true), &json!([]))
    );
    assert_eq!(compared.record["models"][1]["overall"], json!([]));
}

#[test]
fn a_server_that_echoes_something_else_is_left_out_and_the_exit_code_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut buffer = [0; 64];
                for turn in 0.. {
                    if stream.read_exact(&mut buffer).is_err() {
                        break;
                    }
                    buffer[9] ^= u8::from(turn == 5);
                    let _ = stream.write_all(&buffer);
                }
            });
        }
    });
    let words = format!("-c 2 --models reactor {SHORT} --against {address}");
    let compared = compare(&words, &[]);
    assert_eq!(compared.code, 65, "{}", compared.err);
    compared.left_out(0, 1, "mismatch");
}

#[test]
fn an_interruption_ends_the_comparison_with_a_report() {
    let dir = Dir::new();
    let path = dir.path("record.json");
    let mut command = program();
    command
        .args([
            "compare", "-c", "1", "--rounds", "1M", "--window", "20ms", "--json",
        ])
        .arg(&path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let child = Serve::spawn(&mut command);
    child.says("round 2 of");
    let ended = child.stop(Signal::SIGINT);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let record = read(&path);
    fits_schema(&record, SCHEMA);
    assert_eq!(record["interrupted"], true);
    assert!(record["rounds"].as_u64() >= Some(1));
    assert!(
        record["notes"].to_string().contains("ended early"),
        "{}",
        record["notes"]
    );
}

#[test]
fn invalid_arguments_are_refused() {
    let refused = |words: &[&str], said: &str| {
        let ended = ended(program().arg("compare").args(words));
        ended.failed(64, &[said]);
    };
    refused(&["--against-command", "server"], "{port}");
    refused(&["--against", "udp://127.0.0.1:7"], "tcp://");
    refused(&["-c", "3M"], "descriptors");
    let ended = ended(program().args(["compare", "--json", "/nonexistent/x.json"]));
    ended.failed(73, &["/nonexistent/x.json"]);
}

// --- diff --------------------------------------------------------------------------------------------------------------

/// The example record, with the figures of one model multiplied.
fn record_with(dir: &Dir, name: &str, model: usize, figure: &str, factor: f64) -> PathBuf {
    let mut record: Value = serde_json::from_str(FIXTURE).unwrap();
    for cell in record["cells"].as_array_mut().unwrap() {
        for sample in cell["models"][model]["samples"].as_array_mut().unwrap() {
            if let Some(value) = sample[figure].as_f64() {
                sample[figure] = json!(value * factor);
            }
        }
    }
    let path = dir.path(name);
    fs::write(&path, record.to_string()).unwrap();
    path
}

#[test]
fn two_records_are_the_same_better_or_worse() {
    let dir = Dir::new();
    let before = record_with(&dir, "before", 0, "cpu_ns_per_echo", 1.0);
    let diff = |after: &Path| ended(program().arg("diff").args([&before, &after.to_owned()]));
    let same = diff(&before);
    assert_eq!(same.code, 0, "{}", same.out);
    assert!(
        same.out.contains("\n0 better, ") && same.out.contains(" 0 worse"),
        "{}",
        same.out
    );
    let better = diff(&record_with(&dir, "better", 0, "cpu_ns_per_echo", 0.5));
    assert_eq!(better.code, 0, "{}", better.out);
    assert!(better.out.contains("reactor: all loads together") && better.out.contains("): better"));
    let worse = diff(&record_with(&dir, "worse", 1, "echoes_per_second", 0.5));
    assert_eq!(worse.code, 5, "{}", worse.out);
    let line = |line: &&str| {
        line.starts_with("threads: all loads together") && line.contains("throughput")
    };
    let line = worse.out.lines().find(line).unwrap();
    assert!(line.contains("0.50 (") && line.ends_with("worse"), "{line}");
}

#[test]
fn a_run_of_bench_is_the_same_as_itself() {
    let dir = Dir::new();
    let path = dir.path("run.json");
    let words = "bench -q -c 2 -d 600ms --warm-up 0 --interval 100ms --format json";
    let run = ended(program().args(words.split(' ')));
    fs::write(&path, &run.out).unwrap();
    let diff = ended(program().arg("diff").args([&path, &path]));
    assert_eq!(diff.code, 0, "{diff:?}");
    for figure in ["throughput", "p99"] {
        let is_told = |line: &str| line.starts_with("the run") && line.contains(figure);
        assert!(diff.out.lines().any(is_told), "{diff:?}");
    }
}

#[test]
fn a_file_that_is_no_record_is_refused() {
    let dir = Dir::new();
    let record = record_with(&dir, "record", 0, "p99_ns", 1.0);
    let file = |name: &str, text: &str| {
        let path = dir.path(name);
        fs::write(&path, text).unwrap();
        path
    };
    let diff = |other: &Path| ended(program().arg("diff").arg(&record).arg(other));
    diff(&file("text", "hello")).failed(64, &["it is no JSON"]);
    diff(&file("other", "{}")).failed(64, &["it is no record"]);
    let part = r#"{"program": "echo-reactor compare"}"#;
    diff(&file("part", part)).failed(64, &["missing field"]);
    let run = r#"{"program": "echo-reactor bench", "intervals": []}"#;
    diff(&file("run", run)).failed(64, &["two of a kind"]);
    diff(&dir.path("nothing")).failed(74, &["nothing"]);
}
