//! The units for systemd: systemd-analyze(1) takes them, and they leave the program what it needs.

use super::{read, shipped};
use crate::support::{Dir, Serve, Talk, ended, has_tool, program, skip, wait_until, wrapped};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

const UNITS: [&str; 2] = ["echo-reactor.service", "echo-reactor.socket"];

fn unit(name: &str) -> String {
    read(&shipped("systemd").join(name))
}

/// The values of a key, each of its lines.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let start = format!("{key}=");
    unit.lines()
        .filter_map(|line| line.strip_prefix(&start))
        .collect()
}

/// The one value of a key.
#[track_caller]
fn value<'a>(unit: &'a str, key: &str) -> &'a str {
    let values = values(unit, key);
    assert_eq!(values.len(), 1, "{key}: {values:?}");
    values[0]
}

/// The arguments of the program.
fn arguments(service: &str) -> Vec<&str> {
    let mut words = value(service, "ExecStart").split(' ');
    assert_eq!(
        words.next(),
        Some("echo-reactor"),
        "systemd finds it in /usr/local/bin and /usr/bin"
    );
    words.collect()
}

// --- systemd-analyze ---------------------------------------------------------------------------------------------------

/// What systemd has to say of the units, the service changed so; the program is the one of this build.
fn verified(change: impl Fn(&str) -> String) -> String {
    let directory = Dir::new();
    let paths = UNITS.map(|name| directory.path(name));
    for (name, path) in UNITS.iter().zip(&paths) {
        let program = format!("ExecStart={}", env!("CARGO_BIN_EXE_echo-reactor"));
        let text = unit(name).replace("ExecStart=echo-reactor", &program);
        let is_service = name.ends_with(".service");
        fs::write(path, if is_service { change(&text) } else { text }).unwrap();
    }
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(&paths)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() || !said.is_empty(),
        "{}",
        output.status
    );
    // Units of the machine are loaded, too, and may have faults of their own.
    said.lines()
        .filter(|line| line.contains("echo-reactor"))
        .collect()
}

fn version() -> Option<u32> {
    if !has_tool("systemd-analyze") {
        return None;
    }
    let output = Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace()
        .nth(1)?
        .split('.')
        .next()?
        .parse()
        .ok()
}

#[test]
fn systemd_takes_the_units() {
    let Some(version) = version() else {
        return;
    };
    assert_eq!(verified(str::to_owned), "");
    let misspelt = verified(|text| text.replace("ProtectHome=", "ProtectHouse="));
    assert!(
        misspelt.contains("ProtectHouse"),
        "it notices mistakes: {misspelt}"
    );
    if version < 253 {
        return skip(&format!("systemd {version} has no Type=notify-reload"));
    }
    let reload = |text: &str| {
        let text = text.replace("\nType=notify\n", "\nType=notify-reload\n");
        text.replace(
            "\nExecReload=kill -USR2 $MAINPID\n",
            "\nReloadSignal=SIGUSR2\n",
        )
    };
    assert!(reload(&unit(UNITS[0])).contains("ReloadSignal"));
    assert_eq!(verified(reload), "");
}

/// The calls that a group of systemd stands for.
fn group(name: &str) -> BTreeSet<String> {
    let output = Command::new("systemd-analyze")
        .args(["syscall-filter", name])
        .output()
        .unwrap();
    assert!(output.status.success(), "{name}");
    let text = String::from_utf8(output.stdout).unwrap();
    let words = text
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .map(str::trim);
    expanded(words.filter(|word| !word.starts_with('#')))
}

fn expanded<'a>(words: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let calls = words.flat_map(|word| {
        if word.starts_with('@') {
            group(word)
        } else {
            BTreeSet::from([word.to_owned()])
        }
    });
    calls.collect()
}

/// A server with workers and a sandbox starts, echoes, is replaced and drains under strace(1), which shows every call that it
/// makes; the lists of the unit leave it all of them.
#[test]
fn the_hardening_leaves_what_the_sandbox_and_a_replacement_need() {
    if version().is_none() || !has_tool("strace") {
        return;
    }
    let service = unit(UNITS[0]);
    let lists = values(&service, "SystemCallFilter");
    let [allowed, denied] = lists[..] else {
        panic!("one list allows, one denies: {lists:?}");
    };
    let denied = expanded(denied.strip_prefix('~').unwrap().split(' '));
    let allowed = &expanded(allowed.split(' ')) - &denied;

    let directory = Dir::new();
    let trace = directory.path("trace");
    let mut command = wrapped(
        "strace",
        &["-D", "-f", "-qq", "-o", trace.to_str().unwrap()],
    );
    let server = Serve::start_command(
        command.args(arguments(&service)).arg("tcp://127.0.0.1:0"),
        1,
    );
    server.connect().is_echoed(b"before");
    server.signal(Signal::SIGUSR2);
    server.says("replaced by version");
    server.connect().is_echoed(b"after");
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    let mut lines = String::new();
    wait_until("the trace is written", || {
        lines = fs::read_to_string(&trace).unwrap();
        lines.matches(" exit_group(").count() >= 3
    });
    let calls: BTreeSet<String> = (lines.lines())
        .filter_map(|line| line.split_once(' ')?.1.trim_start().split_once('('))
        .map(|(name, _)| name.to_owned())
        .filter(|name| {
            name.chars()
                .all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        })
        .collect();
    for needed in [
        "landlock_restrict_self",
        "seccomp",
        "execve",
        "accept4",
        "epoll_ctl",
    ] {
        assert!(
            calls.contains(needed),
            "{needed} is in the trace: {calls:?}"
        );
    }
    let missing: Vec<&String> = calls.difference(&allowed).collect();
    assert!(missing.is_empty(), "the unit forbids {missing:?}");

    let families = value(&service, "RestrictAddressFamilies").split(' ');
    let families: BTreeSet<&str> = families.collect();
    let opened = lines
        .split("socket(")
        .skip(1)
        .filter_map(|rest| rest.split(',').next());
    let opened: BTreeSet<&str> = opened.filter(|family| family.starts_with("AF_")).collect();
    assert!(opened.is_subset(&families), "{opened:?}");
    // MemoryDenyWriteExecute refuses these.
    let writable = lines
        .lines()
        .find(|line| line.contains("PROT_WRITE|PROT_EXEC"));
    assert_eq!(writable, None);
}

// --- The program -------------------------------------------------------------------------------------------------------

#[test]
fn limits_of_the_unit_are_those_of_the_program() {
    let service = unit(UNITS[0]);
    let config = ended(program().args(arguments(&service)).arg("--print-config"));
    assert_eq!(config.code, 0, "{}", config.err);
    let set = |flag: &str| {
        let start = format!("{flag} = ");
        let value = config
            .out
            .lines()
            .find_map(|line| line.strip_prefix(&start))
            .unwrap();
        value.split(' ').next().unwrap().to_owned()
    };
    assert_eq!(
        (set("max-connections").as_str(), set("sandbox").as_str()),
        ("10k", "try")
    );
    let descriptors: u32 = value(&service, "LimitNOFILE").parse().unwrap();
    assert!(descriptors > 10_000 + set("reserve-descriptors").parse::<u32>().unwrap());
    let drain: u32 = set("drain-timeout")
        .strip_suffix('s')
        .unwrap()
        .parse()
        .unwrap();
    let stop: u32 = value(&service, "TimeoutStopSec").parse().unwrap();
    assert!(stop > drain, "SIGKILL comes after the drain");
    // READY=1 comes from the master.
    assert_eq!(
        (value(&service, "Type"), value(&service, "KillMode")),
        ("notify", "mixed")
    );
    assert!(values(&service, "NotifyAccess").is_empty());
}
