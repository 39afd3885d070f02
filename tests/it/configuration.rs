//! Flags by environment variables: which value holds, what `--print-config` says of it, what a wrong value is answered with,
//! and which child processes inherit the variables.

use crate::support::{Ended, Serve, Talk, ended, program};
use std::os::unix::ffi::OsStringExt;
use std::process::Command;

/// `serve --print-config` with these variables of `serve`, and these further arguments.
fn print_config(variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let mut command = program();
    command.args(["serve", "--print-config"]).args(arguments);
    for (name, value) in variables {
        command.env(format!("ECHO_REACTOR_SERVE_{name}"), value);
    }
    ended(&mut command)
}

#[track_caller]
fn says(ended: &Ended, lines: &[&str]) {
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    for line in lines {
        let is_there = ended.out.lines().any(|printed| printed == *line);
        assert!(is_there, "no line {line:?} in\n{}", ended.out);
    }
}

// --- What holds --------------------------------------------------------------------------------------------------------

#[test]
fn a_flag_goes_before_its_variable_and_a_variable_before_the_default() {
    let variables = [
        ("ADDRESS", "unix:///a b,c"),
        ("MAX_CONNECTIONS", "10k"),
        ("READ_BUFFER", "8KiB"),
        ("ALLOW", "10.0.0.0/8,::1"),
        ("VERBOSE", "2"),
        ("SANDBOX", "require"),
    ];
    let arguments = ["--read-buffer=4KiB", "--idle-timeout", "1m"];
    says(
        &print_config(&variables, &arguments),
        &[
            "ADDRESS = unix:///a b,c (environment: ECHO_REACTOR_SERVE_ADDRESS)",
            "max-connections = 10k (environment: ECHO_REACTOR_SERVE_MAX_CONNECTIONS)",
            "read-buffer = 4KiB (flag)",
            "allow = 10.0.0.0/8,::1 (environment: ECHO_REACTOR_SERVE_ALLOW)",
            "verbose = 2 (environment: ECHO_REACTOR_SERVE_VERBOSE)",
            "sandbox = require (environment: ECHO_REACTOR_SERVE_SANDBOX)",
            "idle-timeout = 1m (flag)",
            "fin-timeout = 1s (default)",
            "pid-file = none (default)",
            "quiet = false (default)",
        ],
    );
    let addresses = print_config(&variables, &["tcp://[::]:7", "udp://127.0.0.1:7"]);
    says(
        &addresses,
        &["ADDRESS = tcp://[::]:7,udp://127.0.0.1:7 (flag)"],
    );
    says(
        &print_config(&[], &[]),
        &[
            "ADDRESS = tcp://127.0.0.1:50007 (default)",
            "max-connections = 1M (default)",
            "hardened = false (default)",
        ],
    );
}

/// The defaults of a profile follow its flag wherever that is from, in each of its words.
#[test]
fn a_profile_by_a_variable_is_the_profile() {
    let by_flag = print_config(&[], &["--hardened"]);
    says(
        &by_flag,
        &[
            "max-connections = 10k (default of --hardened)",
            "idle-timeout = 30s (default of --hardened)",
            "fin-timeout = 1s (default)",
            "quiet = false (default)",
        ],
    );
    let flag = "hardened = true (flag)";
    let variable = "hardened = true (environment: ECHO_REACTOR_SERVE_HARDENED)";
    for word in ["true", "True", "TRUE", "yes", "on", "1"] {
        let by_variable = print_config(&[("HARDENED", word)], &[]);
        assert_eq!(
            by_variable.out,
            by_flag.out.replace(flag, variable),
            "{word}"
        );
    }
    let usual = print_config(&[], &[]);
    for word in ["false", "no", "0"] {
        let off = print_config(&[("HARDENED", word)], &[]);
        let line = "hardened = false (environment: ECHO_REACTOR_SERVE_HARDENED)";
        assert_eq!(
            off.out,
            usual.out.replace("hardened = false (default)", line)
        );
    }
}

#[test]
fn a_variable_of_another_command_says_nothing() {
    let server = Serve::start_command(
        program()
            .args(["serve", "tcp://127.0.0.1:0"])
            .env("ECHO_REACTOR_SEND_TIMEOUT", "nonsense")
            .env("ECHO_REACTOR_BENCH_QUIET", "maybe"),
        1,
    );
    server.connect().is_echoed(b"it serves");
}

/// A flag that is switched off contradicts nothing; one that is switched on does, and is named.
#[test]
fn a_switch_that_is_off_contradicts_no_flag() {
    let check = |word: &str| {
        let mut command = program();
        command.args(["check", "--full", "--list"]);
        ended(command.env("ECHO_REACTOR_CHECK_QUICK", word))
    };
    assert_eq!(check("false").code, 0);
    check("true").failed(
        64,
        &["--full", "--quick comes from ECHO_REACTOR_CHECK_QUICK"],
    );
}

// --- Wrong values ------------------------------------------------------------------------------------------------------

#[test]
fn a_wrong_value_is_answered_with_its_variable_and_the_remedy() {
    for (name, value, words) in [
        ("MAX_CONNECTIONS", "10x", "write for example 500, 10k or 1M"),
        ("HARDENED", "maybe", "write 'true' or 'false'"),
        ("HARDENED", "", "write 'true' or 'false'"),
        ("VERBOSE", "very", "write for example 1 or 2"),
        (
            "MODEL",
            "fast",
            "possible values: reactor, threads, iterative",
        ),
        ("MAX_PER_PREFIX", "0", "it can be 1 to 4000000"),
        ("ADDRESS", "tcp://x", "tcp://x"),
        ("UNIX_MODE", "rw", "write for example 0600"),
    ] {
        let variable = format!("comes from ECHO_REACTOR_SERVE_{name}");
        print_config(&[(name, value)], &[]).failed(64, &[words, &variable]);
    }
    let both = print_config(&[("MODEL", "threads")], &["--workers", "2"]);
    both.failed(64, &["--model comes from ECHO_REACTOR_SERVE_MODEL"]);
    assert!(!both.err.contains("SERVE_WORKERS"), "{}", both.err);
}

#[test]
fn a_wrong_flag_is_not_blamed_on_its_variable() {
    let wrong = print_config(&[("MAX_CONNECTIONS", "10k")], &["--max-connections=10x"]);
    wrong.failed(64, &["'10x'", "--max-connections"]);
    assert!(!wrong.err.contains("ECHO_REACTOR"), "{}", wrong.err);
}

#[test]
fn a_value_that_is_no_text_is_refused_by_name() {
    let mut command = program();
    command.args(["serve", "--print-config"]);
    let value = std::ffi::OsString::from_vec(vec![0xff]);
    command.env("ECHO_REACTOR_SERVE_UDP_RATE", value);
    ended(&mut command).failed(64, &["UTF-8", "ECHO_REACTOR_SERVE_UDP_RATE"]);
}

// --- Child processes ---------------------------------------------------------------------------------------------------

/// A variable that no server would start with.
fn with_nonsense(command: &mut Command) -> &mut Command {
    command.env("ECHO_REACTOR_SERVE_MODEL", "nonsense")
}

#[test]
fn workers_have_the_settings_of_their_master() {
    let server = Serve::start_command(
        program()
            .arg("serve")
            .env("ECHO_REACTOR_SERVE_ADDRESS", "tcp://127.0.0.1:0")
            .env("ECHO_REACTOR_SERVE_WORKERS", "1")
            .env("ECHO_REACTOR_SERVE_READ_BUFFER", "4KiB")
            .env("ECHO_REACTOR_SERVE_VERBOSE", "1"),
        1,
    );
    server.connect().is_echoed(b"logged");
    server.says("TRACE worker 0: ");
}

#[test]
fn a_server_that_check_starts_inherits_no_setting() {
    let server = program().get_program().to_str().unwrap().to_owned();
    let command = format!("{server} serve -q tcp://127.0.0.1:{{port}}");
    let words = ["check", "--quick", "--only", "one-message", "--command"];
    let checked = ended(with_nonsense(program().args(words).arg(&command)));
    assert_eq!(checked.code, 0, "{} {}", checked.out, checked.err);
}

#[test]
fn a_server_and_workers_that_bench_starts_inherit_no_setting() {
    let mut command = program();
    command.args("bench -q -c 1 -n 10 --warm-up 0".split(' '));
    // The flag goes before it here; a worker has no such flag.
    command.env("ECHO_REACTOR_BENCH_CONNECTIONS", "nonsense");
    let measured = ended(with_nonsense(&mut command));
    assert!(matches!(measured.code, 0 | 4), "{}", measured.err);
}

#[test]
fn a_server_that_compare_starts_inherits_no_setting() {
    let server = program().get_program().to_str().unwrap().to_owned();
    let command = format!("{server} serve -q tcp://127.0.0.1:{{port}}");
    let words = "compare -q --models reactor -c 1 --rounds 1 --window 300ms --warm-up 10ms --against-command";
    let mut program = program();
    program.args(words.split(' ')).arg(&command);
    program.env("ECHO_REACTOR_COMPARE_ROUNDS", "nonsense");
    let compared = ended(with_nonsense(&mut program));
    assert_eq!(compared.code, 0, "{} {}", compared.out, compared.err);
}
