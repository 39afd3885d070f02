//! The commands of README and of the guide: each is run, or its arguments are read, or a row says why not. A command in a
//! block of `sh` or `console` that has no row in [`COMMANDS`] fails the test, and so does a row whose command stands in no
//! block.

use super::{page, pages, prose_and_code, root};
use crate::support::{Dir, Serve, by_shell, ended, program, skip};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;

enum How {
    /// Run by a shell with these words in the place of the page's; `TCP` and `UDP` are the addresses of a server.
    Run(&'static str),
    /// Its arguments are read, and it is not run: it takes too long for a test.
    Read,
    /// It cannot run in a test, for this reason.
    Not(&'static str),
}
use How::{Not, Read, Run};

/// Every command of the pages, without its comment.
const COMMANDS: [(&str, How); 81] = [
    // README
    (
        "cargo run --release -- serve",
        Not("an optimised build of its own"),
    ),
    ("cargo test", Not("it is this run")),
    (
        "echo-reactor serve tcp://127.0.0.1:50007 udp://127.0.0.1:50007 &",
        Not("the server of this test is started so, on other ports"),
    ),
    (
        "echo-reactor send",
        Run("test \"$(echo-reactor send TCP)\" = \"Received 'Hello, world!'\""),
    ),
    (
        "echo-reactor send udp://127.0.0.1:50007 'Hello, datagram!'",
        Run(
            "test \"$(echo-reactor send UDP 'Hello, datagram!')\" = \"Received 'Hello, datagram!'\"",
        ),
    ),
    (
        "echo-reactor serve --delay 5ms &",
        Not("tests/it/faults.rs measures it"),
    ),
    (
        "echo-reactor send icmp://localhost",
        Run("echo-reactor send icmp://localhost || test $? = 77"),
    ),
    (
        "echo-reactor send icmp://192.0.2.7 --repeat 10 --interval 1s --timeout 2s",
        Read,
    ),
    (
        "head -c 20M /dev/urandom | echo-reactor send 127.0.0.1:50007 - | wc -c",
        Run("test $(head -c 20M /dev/urandom | echo-reactor send TCP - | wc -c) = 20971520"),
    ),
    (
        "echo-reactor bench",
        Run("echo-reactor bench -q -c 2 -d 100ms --warm-up 0 || test $? = 4"),
    ),
    (
        "echo-reactor bench tcp://host:7 -c 10k -r 50k",
        Run("echo-reactor bench TCP -c 10 -r 500 -q -d 100ms --warm-up 0 || test $? = 4"),
    ),
    (
        "echo-reactor bench tcp://server:7 --at 'ssh load1 echo-reactor' --at 'ssh load2 echo-reactor'",
        Run(
            "echo-reactor bench TCP -c 10 -r 500 -q -d 100ms --warm-up 0 --at 'env A=1 echo-reactor' --at echo-reactor || test $? = 4",
        ),
    ),
    (
        "kubectl get pods -l app=load -o name | sed \"s/.*/--at 'kubectl exec -i & -- echo-reactor'/\" | xargs echo-reactor bench tcp://server:7",
        Run(
            "printf 'pod/a\\npod/b\\n' | sed \"s/.*/--at 'env POD=& echo-reactor'/\" | xargs echo-reactor bench TCP -c 4 -n 100 -q || test $? = 123",
        ),
    ),
    ("echo-reactor bench tcp://host:7 --find-max-rate 5ms", Read),
    (
        "echo-reactor compare --quick --against-command './yours --port {port}'",
        Read,
    ),
    ("scripts/measure.py all", Read),
    (
        "RUSTFLAGS=\"-C target-feature=+crt-static\" cargo build --release --target x86_64-unknown-linux-gnu",
        Not("an optimised build of its own"),
    ),
    (
        "echo-reactor doctor --connections 100k",
        Run("echo-reactor doctor --connections 100k || test $? = 6"),
    ),
    (
        "echo-reactor serve --hardened --sandbox tcp://[::]:7",
        Run(
            "timeout -s TERM 2 echo-reactor serve -q --hardened --sandbox tcp://127.0.0.1:0 || test $? = 124",
        ),
    ),
    (
        "echo-reactor serve --admin http://127.0.0.1:9090",
        Run(
            "timeout -s TERM 2 echo-reactor serve -q tcp://127.0.0.1:0 --admin http://127.0.0.1:0 || test $? = 124",
        ),
    ),
    (
        "echo-reactor serve :7777 --proxy-protocol require --proxy-from 10.0.0.0/24",
        Run(
            "timeout -s TERM 2 echo-reactor serve -q tcp://127.0.0.1:0 --proxy-protocol require --proxy-from 10.0.0.0/24 || test $? = 124",
        ),
    ),
    (
        "ECHO_REACTOR_SERVE_IDLE_TIMEOUT=1m echo-reactor serve --print-config",
        Run(
            "ECHO_REACTOR_SERVE_IDLE_TIMEOUT=1m echo-reactor serve --print-config | grep -q 'idle-timeout = 1m (env'",
        ),
    ),
    (
        "echo-reactor man /usr/local/share/man/man1",
        Run("echo-reactor man pages && test -s pages/echo-reactor-serve.1"),
    ),
    (
        "echo-reactor completions bash",
        Run("echo-reactor completions bash >completions && bash -n completions"),
    ),
    (
        "echo-reactor serve --workers auto :7",
        Run(
            "timeout -s TERM 2 echo-reactor serve -q --workers auto tcp://127.0.0.1:0 || test $? = 124",
        ),
    ),
    (
        "kill -USR2 PID",
        Run(
            "mkfifo usr2; echo-reactor serve --workers 1 tcp://127.0.0.1:0 >usr2 & read line <usr2; kill -USR2 $! && kill $! && wait $!",
        ),
    ),
    (
        "kill -TERM PID",
        Run(
            "mkfifo term; echo-reactor serve tcp://127.0.0.1:0 >term & read line <term; kill -TERM $! && wait $!",
        ),
    ),
    (
        "kill -USR1 PID",
        Run(
            "mkfifo usr1; echo-reactor serve tcp://127.0.0.1:0 >usr1 & read line <usr1; kill -USR1 $! && kill $! && wait $!",
        ),
    ),
    // The guide
    (
        "ECHO_REACTOR_SERVE_IDLE_TIMEOUT=1m echo-reactor serve --hardened --print-config",
        Run(
            "ECHO_REACTOR_SERVE_IDLE_TIMEOUT=1m echo-reactor serve --hardened --print-config | grep -q '10k (default of --h'",
        ),
    ),
    (
        "POD_NAME=echo-0 echo-reactor serve --reply identity tcp://127.0.0.1:50007 udp://127.0.0.1:50007 &",
        Run(
            "timeout -s TERM 2 echo-reactor serve -q --reply identity tcp://127.0.0.1:0 udp://127.0.0.1:0 || test $? = 124",
        ),
    ),
    (
        "echo 'who?' | nc -N 127.0.0.1 50007",
        Not("there may be no nc; tests/it/identity.rs asks the same"),
    ),
    (
        "printf '%-100s' 'who?' | nc -u -w 1 127.0.0.1 50007",
        Not("there may be no nc; tests/it/identity.rs asks the same"),
    ),
    (
        "systemctl start echo-reactor.socket",
        Not("it needs systemd as process 1"),
    ),
    (
        "systemctl reload echo-reactor.service",
        Not("it needs systemd as process 1"),
    ),
    (
        "scripts/deb",
        Not("it takes cargo-deb; scripts/check --full makes the package"),
    ),
    (
        "dpkg -i target/deb/echo-reactor_0.1.0-1_amd64.deb",
        Not("it would change this machine"),
    ),
    (
        "systemctl enable --now echo-reactor.socket",
        Not("it needs systemd as process 1"),
    ),
    (
        "kubectl apply -k scripts/deploy/kubernetes/base",
        Not("it needs a cluster"),
    ),
    (
        "strace -e trace=network,epoll_wait,epoll_ctl target/release/echo-reactor serve",
        Not("the_echo_in_strace_is_that_of_the_primer runs it"),
    ),
    (
        "target/release/echo-reactor send",
        Not("as `echo-reactor send`"),
    ),
    ("echo-reactor compare --html report.html", Read),
    (
        "echo-reactor compare --against-command './yours --port {port}'",
        Read,
    ),
    ("echo-reactor compare --quick", Read),
    (
        "echo-reactor diff before.json after.json",
        Run("echo-reactor diff FIXTURE FIXTURE >diff.txt"),
    ),
    (
        "echo-reactor diff --merge load1.json load2.json",
        Not("tests/it/bench_merge.rs makes the records, and merges them"),
    ),
    (
        "echo-reactor diff --merge --format json load1.json load2.json > all.json",
        Not("tests/it/bench_merge.rs makes the records, and merges them"),
    ),
    ("scripts/million", Read),
    ("scripts/million --connections 15000", Read),
    ("scripts/workers kill stop", Read),
    ("scripts/workers replace", Read),
    (
        "echo-reactor bench -r 100k --arrivals poisson -d 10s",
        Run(
            "echo-reactor bench TCP -r 200 --arrivals poisson -c 2 -q -d 100ms --warm-up 0 || test $? = 4",
        ),
    ),
    (
        "echo-reactor doctor --connections 1M",
        Run("echo-reactor doctor --connections 1M || test $? = 6"),
    ),
    ("scripts/check", Not("it runs these tests")),
    // Tracing
    (
        "echo-reactor serve --trace loop.trace",
        Run(
            "timeout -s TERM 2 echo-reactor serve -q --trace loop.trace tcp://127.0.0.1:0 || test $? = 124",
        ),
    ),
    (
        "echo-reactor serve --trace -",
        Run(
            "timeout -s TERM 2 echo-reactor serve -q --trace - tcp://127.0.0.1:0 | grep 'phase: draining'",
        ),
    ),
    (
        "echo-reactor serve --watch",
        Run("timeout -s TERM 2 echo-reactor serve -q --watch tcp://127.0.0.1:0 || test $? = 124"),
    ),
    (
        "echo-reactor watch",
        Run(
            "mkfifo watch; echo-reactor serve --watch tcp://127.0.0.1:0 >watch & read line <watch; echo-reactor watch $! --once | grep '^reading 0' && kill $! && wait $!",
        ),
    ),
    (
        "cargo run --features simulation --example replay -- 42 --mistake read-once",
        Not("scripts/check runs it: it builds a copy"),
    ),
    (
        "echo-reactor trace loop.trace",
        Run("echo-reactor trace loop.trace | grep 'phase: draining'"),
    ),
    (
        "echo-reactor trace loop.trace --html loop.html",
        Run("echo-reactor trace loop.trace --html loop.html && test -s loop.html"),
    ),
    (
        "echo-reactor trace loop.trace --perfetto loop.json",
        Run("echo-reactor trace loop.trace --perfetto loop.json && test -s loop.json"),
    ),
    (
        "cargo run --features simulation --example replay -- 42",
        Not("the tests of `trace` run it"),
    ),
    (
        "cargo run --features simulation --example replay -- 42 --until budget-spent",
        Not("the tests of `trace` run it"),
    ),
    (
        "cargo run --features simulation --example replay -- 42 --html seed.html",
        Not("the tests of `trace` run it"),
    ),
    // The staircase, and check
    (
        "cargo run --example step1",
        Not("the tests of `staircase` run it"),
    ),
    (
        "cargo run --example client",
        Not("the tests of `staircase` run it"),
    ),
    (
        "sleep 60 | echo-reactor send 127.0.0.1:50007 - &",
        Not("`tcp/clients/one-silent` of `check` has the same client"),
    ),
    (
        "echo-reactor send 127.0.0.1:50007",
        Run("echo-reactor send TCP"),
    ),
    (
        "grep Threads /proc/$(pgrep step2)/status",
        Not("it needs step 2 to run"),
    ),
    (
        "ps -C step3 -o pcpu,comm",
        Not("`process/idle/processor-time` of `check` measures it"),
    ),
    (
        "cargo run --example client -- 127.0.0.1:50007 1000000",
        Not("the tests of `staircase` run it"),
    ),
    ("scripts/mutants --show no-generation-check", Read),
    ("scripts/mutants --list", Read),
    (
        "cargo run --manifest-path tests/exercises/Cargo.toml --bin stage1",
        Not("the tests of `exercises` compile it and run it"),
    ),
    ("cargo build --examples", Not("`cargo test` builds them")),
    (
        "echo-reactor check --quick --command 'target/debug/examples/step4 127.0.0.1:{port}'",
        Read,
    ),
    (
        "echo-reactor check --only emfile --command 'target/debug/examples/step7 127.0.0.1:{port}'",
        Read,
    ),
    (
        "echo-reactor check --only emfile --command 'target/debug/examples/step8 127.0.0.1:{port}'",
        Read,
    ),
    (
        "echo-reactor check --quick --command './mine --port {port}'",
        Read,
    ),
    ("echo-reactor check 192.0.2.1:7", Read),
    (
        "echo-reactor check --list",
        Run("echo-reactor check --list"),
    ),
];

/// The commands of all pages, each once.
fn commands() -> BTreeSet<String> {
    let mut commands = BTreeSet::new();
    for (_, text) in pages() {
        for (language, line) in prose_and_code(&text).1 {
            let command = match language.as_str() {
                "sh" => line.as_str(),
                "console" | "text" => match line.strip_prefix("$ ") {
                    Some(command) => command,
                    None => continue,
                },
                _ => continue,
            };
            let command = command.split("  #").next().unwrap().trim();
            if !command.is_empty() {
                commands.insert(command.to_owned());
            }
        }
    }
    commands
}

#[test]
fn commands_of_the_pages_run() {
    let stated = commands();
    let listed: BTreeSet<String> = COMMANDS
        .iter()
        .map(|(command, _)| (*command).to_owned())
        .collect();
    let missing: Vec<&String> = stated.difference(&listed).collect();
    assert!(
        missing.is_empty(),
        "commands that no test runs: {missing:?}"
    );
    let gone: Vec<&String> = listed
        .difference(&stated)
        .filter(|one| *one != "scripts/check")
        .collect();
    assert!(gone.is_empty(), "commands that stand on no page: {gone:?}");

    let server = Serve::start(&["tcp://127.0.0.1:0", "udp://127.0.0.1:0"], &[]);
    let (tcp, udp) = (
        server.endpoints[0].to_string(),
        server.endpoints[1].to_string(),
    );
    let fixture = root().join("tests/fixtures/compare.json");
    let directory = Dir::new();
    let place = directory.path("");
    let folder = Path::new(env!("CARGO_BIN_EXE_echo-reactor"))
        .parent()
        .unwrap();
    let path = format!(
        "{}:{}",
        folder.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    for (command, how) in COMMANDS {
        let line = match how {
            Run(line) => line
                .replace("TCP", &tcp)
                .replace("UDP", &udp)
                .replace("FIXTURE", fixture.to_str().unwrap()),
            Read => {
                let words = command.replace("scripts/", &format!("{}/scripts/", root().display()));
                if command.starts_with("scripts/") && !crate::support::has_tool("python3") {
                    skip("there is no python3");
                    continue;
                }
                format!("{words} --help")
            }
            Not(reason) => {
                assert!(!reason.is_empty());
                continue;
            }
        };
        let mut shell = by_shell(&line);
        shell
            .env("PATH", &path)
            .current_dir(&place)
            .stdin(Stdio::null());
        let told = ended(&mut shell);
        assert_eq!(
            told.code, 0,
            "`{command}`, run as `{line}`:\n{}{}",
            told.out, told.err
        );
    }
}

/// The three lines of an echo, as the primer prints them.
#[test]
fn the_echo_in_strace_is_that_of_the_primer() {
    if !crate::support::has_tool("strace") {
        return;
    }
    let directory = Dir::new();
    let trace = directory.path("trace");
    let mut command = crate::support::wrapped(
        "strace",
        &[
            "-D",
            "-q",
            "-o",
            trace.to_str().unwrap(),
            "-e",
            "trace=network,epoll_wait,epoll_ctl",
        ],
    );
    let server = Serve::start_command(command.args(["serve", "tcp://127.0.0.1:0"]), 1);
    let said = ended(program().args(["send", &server.endpoints[0].to_string()]));
    assert_eq!(said.out, "Received 'Hello, world!'\n");
    let _ = server.stop(nix::sys::signal::Signal::SIGTERM);
    crate::support::wait_until("the trace is written", || {
        fs::read_to_string(&trace).is_ok_and(|text| text.contains("exited with 0"))
    });
    let text = fs::read_to_string(&trace).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let read = lines
        .iter()
        .position(|line| line.contains("recvfrom(") && line.contains("Hello, world!"));
    let read = read.expect("the echo is in the trace");
    let rest = |line: &str| line.split_once('"').map(|(_, rest)| rest.to_owned());
    let primer = page("primer.md");
    let printed = |call: &str| {
        let line = primer.lines().find(|line| line.starts_with(call)).unwrap();
        rest(line)
    };
    assert!(lines[read - 1].starts_with("epoll_wait("), "{text}");
    assert_eq!(rest(lines[read]), printed("recvfrom("));
    assert_eq!(rest(lines[read + 1]), printed("sendto("));
    assert!(lines[read + 2].starts_with("epoll_wait("), "{text}");
}
