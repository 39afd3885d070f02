//! The exercises: each solution passes its stage, and each exercise breaks the rule that `info.toml` names, until it is solved.

use crate::support::{Dir, Ended, ended, has_tool, program};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exercises")
}

/// Compiles an exercise or a solution, and lets it judge itself.
fn judged(directory: &Dir, kind: &str, stage: usize) -> Ended {
    let binary = directory.path(&format!("{kind}-{stage}"));
    let source = folder().join(format!("{kind}/stage{stage}.rs"));
    let mut compiler = Command::new("rustc");
    compiler
        .args([
            "--edition",
            "2024",
            "-C",
            "debuginfo=0",
            "-D",
            "warnings",
            "-o",
        ])
        .arg(&binary)
        .arg(&source);
    let compiled = compiler.stderr(Stdio::piped()).output().unwrap();
    assert!(
        compiled.status.success(),
        "{}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    let mut exercise = Command::new(&binary);
    exercise
        .env("ECHO_REACTOR", program().get_program())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    ended(&mut exercise)
}

fn stage(stage: usize) {
    if !has_tool("rustc") {
        return;
    }
    let directory = Dir::new();
    let solved = judged(&directory, "solutions", stage);
    assert!(
        [0, 4].contains(&solved.code),
        "{}{}",
        solved.out,
        solved.err
    ); // 4: this machine is too busy to tell
    let info = fs::read_to_string(folder().join("info.toml")).unwrap();
    let own = info
        .split(&format!("name = \"stage{stage}\""))
        .next()
        .unwrap();
    let rule = own
        .rsplit("# Breaks ")
        .next()
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    let unsolved = judged(&directory, "exercises", stage);
    let is_broken = |line: &str| {
        ["fail", "loose"]
            .iter()
            .any(|verdict| line.trim().starts_with(verdict))
            && line.contains(rule)
    };
    assert!(
        unsolved.out.lines().any(is_broken),
        "{rule}: {}{}",
        unsolved.out,
        unsolved.err
    );
    assert_eq!(unsolved.code, 7, "{}{}", unsolved.out, unsolved.err);
}

#[test]
fn stage_1_bytes_and_not_text() {
    stage(1);
}

#[test]
fn stage_2_a_stream_has_no_messages() {
    stage(2);
}

#[test]
fn stage_3_half_close() {
    stage(3);
}

#[test]
fn stage_4_more_than_one_client() {
    stage(4);
}

#[test]
fn stage_5_short_writes() {
    stage(5);
}

#[test]
fn stage_6_an_error_ends_one_connection() {
    stage(6);
}

#[test]
fn stage_7_datagrams() {
    stage(7);
}

#[test]
fn stage_8_unix_sockets() {
    stage(8);
}

#[test]
fn stage_9_no_free_descriptor() {
    stage(9);
}
