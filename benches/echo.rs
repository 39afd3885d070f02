//! The event loop against its blocking models, in a minute: `echo-reactor compare`, for `cargo bench`.
//!
//! `cargo bench --bench echo` runs `compare --quick`, with the words after `--` as further arguments; run as a test
//! (`cargo test --benches`, CI) it measures each load once, for a moment, to show that it can. The measurement is
//! described in `echo-reactor compare --help`.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let typed: Vec<String> = std::env::args().skip(1).collect();
    let mut compare = Command::new(env!("CARGO_BIN_EXE_echo-reactor"));
    compare.arg("compare");
    // cargo adds `--bench` where the benchmark is to measure.
    if typed.iter().any(|word| word == "--bench") {
        compare.arg("--quick");
    } else {
        compare.args([
            "-c",
            "1,10",
            "--rounds",
            "1",
            "--window",
            "20ms",
            "--warm-up",
            "5ms",
        ]);
    }
    // Flags for libtest's harness are not passed on.
    let ours = |word: &&String| !["--bench", "--test"].contains(&word.as_str());
    match compare.args(typed.iter().filter(ours)).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("echo-reactor cannot be started: {error}");
            ExitCode::FAILURE
        }
    }
}
