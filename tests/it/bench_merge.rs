//! `diff --merge`: records of `bench` that were made apart, as one.
//!
//! What the histograms of such a sum are is tested beside the code; here are the files, the report and the exit codes.

use crate::bench::tcp;
use crate::support::schema::fits_schema;
use crate::support::{Dir, Ended, ended, program};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// The record of a run of 600 requests, and of further flags.
fn record(dir: &Dir, name: &str, server: &str, line: &str) -> PathBuf {
    let path = dir.path(name);
    let words = format!("bench {server} -q -c 6 -n 600 --format json {line}");
    let ended = ended(program().args(words.split_whitespace()));
    assert!([0, 4].contains(&ended.code), "{ended:?}");
    fs::write(&path, &ended.out).unwrap();
    path
}

fn merge(words: &[&str], paths: &[&Path]) -> Ended {
    ended(program().args(["diff", "--merge"]).args(words).args(paths))
}

#[test]
fn records_of_three_runs_are_one_with_a_row_for_each() {
    let (dir, server) = (Dir::new(), tcp(|_, _| {}));
    let names = ["a.json", "b.json", "c.json"];
    let paths = names.map(|name| record(&dir, name, &server, ""));
    let paths = paths.each_ref().map(PathBuf::as_path);
    let json = merge(&["--format", "json"], &paths);
    let parts =
        paths.map(|path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() });
    let all: Value = serde_json::from_str(&json.out).unwrap();
    fits_schema(&all, include_str!("../../src/cli/bench/schema.json"));
    let valid = parts.iter().all(|part| part["valid"] == true);
    assert_eq!(
        (json.code, &all["valid"]),
        (if valid { 0 } else { 4 }, &valid.into())
    );
    assert_eq!(all["echoes"], 1_800);
    let sent = |record: &Value| record["requests"]["sent"].as_u64().unwrap();
    assert_eq!(sent(&all), parts.iter().map(sent).sum::<u64>());
    assert_eq!(all["service_time_ns"]["count"], 1_800);
    assert_eq!(all["connections"]["opened"], 18);
    for (place, name) in names.into_iter().enumerate() {
        let machine = &all["machines"][place];
        assert_eq!(
            (&machine["echoes"], &machine["connections"]),
            (&600.into(), &6.into())
        );
        assert!(machine["at"].as_str().unwrap().contains(name), "{machine}");
    }
    let text = merge(&[], &paths);
    assert!(text.out.contains("1,800 echoes"), "{text:?}");
    assert!(names.iter().all(|name| text.out.contains(name)), "{text:?}");
    // The sum is a record, which is merged and compared as any other.
    let sum = dir.path("sum.json");
    fs::write(&sum, &json.out).unwrap();
    let more = record(&dir, "d.json", &server, "--workers 3");
    let more = merge(&["--format", "json"], &[&sum, &more]);
    let more: Value = serde_json::from_str(&more.out).unwrap();
    assert_eq!(more["echoes"], 2_400);
}

#[test]
fn records_that_do_not_fit_are_refused() {
    let (dir, server) = (Dir::new(), tcp(|_, _| {}));
    let first = record(&dir, "a.json", &server, "");
    let refused = |path: &Path, words: &[&str]| merge(&[], &[&first, path]).failed(64, words);
    let size = record(&dir, "b.json", &server, "-s 65");
    refused(&size, &["size is 65 in", "b.json", "and 64 in", "a.json"]);
    let other = record(&dir, "c.json", &tcp(|_, _| {}), "");
    refused(&other, &["targets", &server, "same servers"]);
    let steps = record(&dir, "d.json", &server, "-r 1k,2k");
    refused(&steps, &["d.json' has no sum", "several steps"]);
    refused(&first, &["is the same record as"]);
    let compared = dir.path("e.json");
    fs::write(&compared, include_str!("../fixtures/compare.json")).unwrap();
    refused(&compared, &["e.json' is no record of bench"]);
    let single = program()
        .args(["diff", "--merge"])
        .arg(&first)
        .output()
        .unwrap();
    assert_eq!(single.status.code(), Some(64));
    let more = ended(program().arg("diff").args([&first, &first, &first]));
    more.failed(64, &["--merge"]);
}
