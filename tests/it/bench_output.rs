//! What a measurement leaves behind: its report, its files, and no process.
//!
//! What may live in this file: `bench` and `compare` while the disk is full, while their own program is replaced, and
//! when they are ended from outside. What may not: what they measure.

use crate::support::unique;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

/// Another name of the program under test, which can be removed. A copy would be busy for writing in a child that another
/// test starts meanwhile (ETXTBSY of execve(2)); a link cannot be.
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
