//! `echo-reactor doctor`, on the machine that runs the tests: its answer depends on the machine, so the tests lower
//! limits for it to find; its arithmetic is tested on made-up machines beside the code.

use crate::support::{Ended, Serve, ended, program, skip};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

fn doctor(arguments: &[&str]) -> Ended {
    ended(program().arg("doctor").args(arguments))
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

/// The same with a hard limit of descriptors, which every user may lower.
fn doctor_with(descriptors: u32, arguments: &str) -> Ended {
    let program = env!("CARGO_BIN_EXE_echo-reactor");
    let line = format!("ulimit -n {descriptors} && exec '{program}' doctor {arguments}");
    ended(
        Command::new("sh")
            .args(["-c", &line])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    )
}

#[test]
fn a_few_connections_fit_everywhere() {
    for role in ["server", "client", "both"] {
        let ended = doctor(&["--connections", "10", "--role", role]);
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(
            ended
                .out
                .starts_with("Yes: this machine holds 10 connections"),
            "{ended:?}"
        );
    }
}

#[test]
fn the_bottleneck_is_named_with_its_commands() {
    let ended = doctor_with(300, "-c 1k");
    assert_eq!(ended.code, 6, "{ended:?}");
    let first = ended.out.lines().next().unwrap_or_default();
    assert!(
        first.contains("holds 268") && first.contains("hard limit (300)"),
        "{first}"
    );
    for remedy in [
        "prlimit --pid $$ --nofile=1032:1032",
        "LimitNOFILE=1032",
        "limits.d",
    ] {
        assert!(ended.out.contains(remedy), "{remedy}: {}", ended.out);
    }
    let report = json(&doctor_with(300, "-c 1k --json"));
    assert_eq!(report["bottleneck"], "descriptors_hard");
    assert_eq!(
        (&report["fits"], &report["holds_connections"]),
        (&false.into(), &268.into())
    );
}

/// `serve --strict` starts with exactly as many connections as the doctor says fit, and refuses one more.
#[test]
fn serve_and_doctor_agree_on_how_many_fit() {
    let report = json(&doctor_with(300, "-c 1 --json"));
    let holds = report["holds_connections"].as_u64().expect("a number");
    assert_eq!(doctor_with(300, &format!("-c {holds}")).code, 0);
    let serve = |connections: u64| {
        let program = env!("CARGO_BIN_EXE_echo-reactor");
        let serve = format!("serve tcp://127.0.0.1:0 --strict --max-connections {connections}");
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("ulimit -n 300 && exec '{program}' {serve}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    };
    let served = Serve::start_command(&mut serve(holds), 1);
    assert_eq!(served.stop(Signal::SIGTERM).code, 0);
    ended(&mut serve(holds + 1)).failed(71, &["300"]);
}

#[test]
fn the_doctor_needs_no_privileges() {
    let mut command = program();
    command.args([
        "doctor", "-c", "10", "--role", "both", "--churn", "1", "--json",
    ]);
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if root {
        // User 65534 owns no file. The program itself may lie in a directory that this user cannot read.
        command.uid(65_534).gid(65_534);
        if let Err(error) = command.spawn().map(|mut child| child.wait()) {
            return skip(&format!(
                "the program cannot be run by another user: {error}"
            ));
        }
    }
    let ended = ended(&mut command);
    assert_eq!(ended.code, 0, "{ended:?}");
    let report = json(&ended);
    let limits = report["limits"].as_array().expect("limits");
    assert!(limits.len() >= 12, "{limits:?}");
}

#[test]
fn invalid_numbers_are_refused() {
    doctor(&["--connections", "0"]).failed(64, &["--connections", "'0'", "from 1"]);
    doctor(&["--connections", "many"]).failed(64, &["'many'", "500, 10k or 1M"]);
    doctor(&["--role", "judge"]).failed(64, &["'judge'", "client"]);
    doctor(&["--active-percent", "101"]).failed(64, &["101"]);
    for flag in ["--burst", "--churn", "--targets"] {
        doctor(&[flag, "18446744073709551615"]).failed(64, &[flag, "4,294,967,295"]);
    }
}
