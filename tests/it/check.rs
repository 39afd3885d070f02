//! `echo-reactor check`: what it says of correct servers, of broken ones, and of its own command line.

use crate::support::schema::fits_schema;
use crate::support::{Dir, Ended, Serve, ended, has_tool, program, unique, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::thread;

fn check(arguments: &[&str]) -> Ended {
    ended(program().arg("check").args(arguments))
}

fn own_command(model: &str) -> String {
    format!(
        "{} serve --quiet --model {model} tcp://127.0.0.1:{{port}}",
        env!("CARGO_BIN_EXE_echo-reactor")
    )
}

/// The verdicts of a report in JSON: name and verdict, in their order.
fn verdicts(said: &Ended) -> Vec<(String, String)> {
    let report: Value =
        serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{}{}", said.out, said.err));
    let servers = report["servers"].as_array().unwrap().iter();
    let rules = servers.flat_map(|server| server["rules"].as_array().unwrap());
    let text = |rule: &Value, key: &str| rule[key].as_str().unwrap().to_owned();
    rules
        .map(|rule| (text(rule, "id"), text(rule, "verdict")))
        .collect()
}

/// No rule fails, whatever else the machine does meanwhile; and most of them pass.
#[track_caller]
fn conforms(said: &Ended, rules: usize) {
    let verdicts = verdicts(said);
    let failed: Vec<_> = verdicts
        .iter()
        .filter(|(_, verdict)| verdict == "fail")
        .collect();
    assert!(failed.is_empty(), "{failed:?}\n{}", said.out);
    let passed = verdicts
        .iter()
        .filter(|(_, verdict)| verdict == "pass")
        .count();
    assert!(passed >= rules, "{passed} of {rules} passed: {}", said.out);
    assert!([0, 4].contains(&said.code), "{}", said.code);
}

/// Whether this process, with this word in its command line, runs. Its number may be another one's by now.
fn runs(process: Pid, word: &str) -> bool {
    fs::read_to_string(format!("/proc/{process}/cmdline")).is_ok_and(|line| line.contains(word))
}

/// Whatever ends the checker, the server that it has started ends, too.
#[test]
fn a_killed_checker_leaves_no_server_behind() {
    let directory = Dir::new();
    let file = directory.path("server.pid");
    let command = format!("{} --pid-file {}", own_command("reactor"), file.display());
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT] {
        let mut checker = program()
            .args(["check", "--full", "--command", &command])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let read = || fs::read_to_string(&file).ok()?.trim().parse::<i32>().ok();
        wait_until("the server runs", || read().is_some());
        let server = Pid::from_raw(read().unwrap());
        let checking = Pid::from_raw(i32::try_from(checker.id()).unwrap());
        kill(checking, signal).unwrap();
        checker.wait().unwrap();
        wait_until("the server has ended", || {
            !runs(server, file.to_str().unwrap())
        });
        let _ = fs::remove_file(&file); // after SIGKILL it is left
    }
}

/// A process that the server has left behind ends with it: a server that forks may end before its children do.
#[test]
fn what_a_server_has_started_ends_too() {
    let directory = Dir::new();
    let file = directory.path("child.pid");
    let server = own_command("reactor");
    let command = format!(
        "sh -c 'sleep 300 & echo $! >> {}; exec {server}'",
        file.display()
    );
    let said = check(&["--quick", "--only", "one-message", "--command", &command]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    let child = fs::read_to_string(&file).unwrap();
    let child = Pid::from_raw(child.trim().parse().unwrap());
    wait_until("the child has ended", || !runs(child, "sleep"));
}

// --- Servers that are right --------------------------------------------------------------------------------------------

#[test]
fn the_event_loop_keeps_the_rules() {
    conforms(
        &check(&[
            "--quick",
            "--format",
            "json",
            "--command",
            &own_command("reactor"),
        ]),
        20,
    );
}

#[test]
fn threads_keep_the_rules() {
    conforms(
        &check(&[
            "--quick",
            "--format",
            "json",
            "--command",
            &own_command("threads"),
        ]),
        20,
    );
}

/// An echo server as Python's documentation has it.
const ASYNCIO: &str = "\
import asyncio, sys
async def echo(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()
async def main():
    server = await asyncio.start_server(echo, \"127.0.0.1\", int(sys.argv[1]))
    await server.serve_forever()
asyncio.run(main())
";

#[test]
fn asyncio_keeps_the_rules() {
    if has_tool("python3") {
        let command = format!("python3 -c '{ASYNCIO}' {{port}}");
        conforms(
            &check(&["--quick", "--format", "json", "--command", &command]),
            15,
        );
    }
}

#[test]
fn udp_and_unix_sockets_are_judged_by_rules_of_their_own() {
    let directory = Dir::new();
    let (stream, datagrams) = (
        directory.address("unix", "s"),
        directory.address("unixgram", "d"),
    );
    let server = Serve::start(&["udp://127.0.0.1:0", &stream, &datagrams], &[]);
    let udp = server.endpoints[0].to_string();
    let said = check(&["--quick", "--format", "json", &udp, &stream, &datagrams]);
    conforms(&said, 20);
    for start in ["udp/sizes/", "unix/half-close/", "unixgram/bytes/"] {
        assert!(
            verdicts(&said).iter().any(|(id, _)| id.starts_with(start)),
            "{start}: {}",
            said.out
        );
    }
}

// --- Servers that are wrong --------------------------------------------------------------------------------------------

/// A server whose connections are all served by this function.
fn server(serve: fn(TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            thread::spawn(move || serve(stream));
        }
    });
    address
}

#[track_caller]
fn fails(address: SocketAddr, rule: &str, words: &[&str]) {
    let said = check(&["--quick", "--only", rule, &address.to_string()]);
    assert_eq!(said.code, 7, "{}{}", said.out, said.err);
    for word in words.iter().chain(&["3 of 3", rule, "by hand", "guide"]) {
        assert!(said.out.contains(word), "{word:?} is not in {}", said.out);
    }
}

#[test]
fn a_changed_byte_is_told_with_its_offset() {
    let address = server(|mut stream| {
        let mut buffer = [0; 64];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            let _ = stream.write_all(&buffer[..count].to_ascii_uppercase());
        }
    });
    fails(
        address,
        "tcp/bytes/one-message",
        &["at offset 1 the byte 0x45 where 0x65 was sent"],
    );
}

#[test]
fn a_greeting_is_told() {
    let address = server(|mut stream| {
        let _ = stream.write_all(b"Welcome");
        let _ = stream.read(&mut [0; 64]);
    });
    fails(
        address,
        "tcp/bytes/nothing-added",
        &["more than was sent, beginning with 0x57"],
    );
}

#[test]
fn a_reset_where_fin_was_due_is_told_as_a_reset() {
    let address = server(|stream| {
        let _ = stream.peek(&mut [0; 1]); // closing with an unread byte sends RST
    });
    fails(address, "tcp/half-close/after-1MiB", &["a reset (RST)"]);
}

#[test]
fn silence_is_told_with_what_came_before() {
    let address = server(|mut stream| {
        let mut buffer = [0; 10];
        let _ = stream
            .read_exact(&mut buffer)
            .and_then(|()| stream.write_all(&buffer));
        thread::park();
    });
    fails(
        address,
        "tcp/bytes/one-message",
        &["10 of 13 bytes, then nothing for"],
    );
}

/// Nothing listens at an address: no rule is broken, since there is no server.
#[test]
fn a_server_that_does_not_listen_is_no_server() {
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    check(&[&address]).failed(69, &["refused", &address, "--command"]);
    check(&["--command", "false {port}"]).failed(69, &["unavailable", "exit status: 1"]);
}

/// A server that ends is started again for the next rule, and told for the one that ended it.
#[test]
fn a_server_that_ends_is_told_with_its_exit_code() {
    if !has_tool("python3") {
        return;
    }
    // What a client sees comes some time before the process is gone, as with a core that is dumped.
    let source = "import socket, time; l = socket.create_server((\"127.0.0.1\", {port}))\n\
                  while True: c = l.accept()[0]; c.recv(9) and (c.close(), l.close(), time.sleep(0.02), exit(42)); c.close()";
    let command = format!("python3 -c '{source}'");
    let said = check(&["--quick", "--only", "tcp/bytes", "--command", &command]);
    assert_eq!(said.code, 7, "{}{}", said.out, said.err);
    assert!(
        said.out.contains("the server has ended: exit status: 42"),
        "{}",
        said.out
    );
}

/// Servers of each kind are started, judged by the rules of their kind, and leave no file behind.
#[test]
fn a_started_server_may_have_any_kind_of_socket() {
    let serve = |address: &str| {
        let program = env!("CARGO_BIN_EXE_echo-reactor");
        format!("{program} serve --quiet {address}")
    };
    let directory = Dir::new();
    for (over, command, rule, rules) in [
        ("udp", serve("udp://127.0.0.1:{port}"), "udp/", 4),
        ("unix", serve("unix://{path}"), "unix/", 15),
        ("unixgram", serve("unixgram://{path}"), "unixgram/", 3),
    ] {
        let mut check = program();
        let words = ["check", "--quick", "--format", "json", "--over", over];
        let check = check.args(words).args(["--command", &command]);
        let said = ended(check.env("TMPDIR", directory.path("")));
        conforms(&said, rules);
        let verdicts = verdicts(&said);
        let foreign = verdicts.iter().find(|(id, _)| !id.starts_with(rule));
        assert_eq!(foreign, None, "{over}");
        assert_eq!(fs::read_dir(directory.path("")).unwrap().count(), 0);
    }
    check(&["--over", "unix", "--command", "mine {port}"]).failed(64, &["mine {port}", "{path}"]);
    check(&["--over", "udp"]).failed(64, &["--command"]);
    let words = ["check", "--over", "unix", "--command", "false {path}"];
    ended(program().args(words).env("TMPDIR", "/tmp/two words"))
        .failed(69, &["/tmp/two words", "TMPDIR"]);
    check(&["--over", "unixgram", "--command", "false {path}"])
        .failed(69, &["exit status: 1", "unixgram:"]);
}

// --- Reports and arguments ---------------------------------------------------------------------------------------------

/// What a program prints that is fed with a report.
fn piped(reader: &mut Command, report: &str) -> String {
    let mut child = reader
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(report.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{report}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_json_form_fits_its_schema() {
    let address = server(drop).to_string();
    let said = check(&[
        "--quick",
        "--only",
        "tcp/bytes,emfile",
        "--format",
        "json",
        &address,
    ]);
    let report: Value = serde_json::from_str(&said.out).unwrap();
    fits_schema(&report, include_str!("../../src/cli/check/schema.json"));
    let verdicts = verdicts(&said);
    assert!(
        verdicts.iter().any(|(_, verdict)| verdict == "fail"),
        "{}",
        said.out
    );
    assert!(
        verdicts.iter().any(|(_, verdict)| verdict == "skipped"),
        "{}",
        said.out
    );
}

#[test]
fn each_format_names_each_rule_once() {
    let server = Serve::start(&["tcp://127.0.0.1:0"], &[]);
    let address = server.endpoints[0].to_string();
    let only = ["--quick", "--only", "tcp/bytes", "--format"];
    let report = |format: &str| check(&[&only[..], &[format, &address]].concat());
    let names: Vec<String> = verdicts(&report("json"))
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    assert_eq!(
        names,
        [
            "tcp/bytes/one-message",
            "tcp/bytes/all-values",
            "tcp/bytes/nothing-added"
        ]
    );
    let tap = report("tap").out;
    assert!(
        tap.starts_with("TAP version 13\n1..3\nok 1 - tcp/bytes/one-message"),
        "{tap}"
    );
    let text = report("text").out;
    assert!(
        names
            .iter()
            .all(|name| text.matches(name.as_str()).count() == 1),
        "{text}"
    );
}

/// A server that keeps one rule, breaks the next, and cannot be tried by a third: each verdict has its own form.
fn report_of_every_kind(format: &str) -> String {
    let address = server(|mut stream| {
        let mut buffer = [0; 65_536];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            buffer[..count].iter_mut().for_each(|byte| *byte &= 0x7f);
            let _ = stream.write_all(&buffer[..count]);
        }
    });
    let only = "tcp/bytes,urgent,idle/memory";
    let address = format!("tcp://{address}");
    let words = ["--quick", "--only", only, "--format", format, &address];
    let said = check(&words);
    assert_eq!(said.code, 7, "{}{}", said.out, said.err);
    said.out
}

#[test]
fn the_junit_form_fits_its_schema() {
    let schema = uppsala::parse(include_str!("../../src/cli/check/junit.xsd")).unwrap();
    let validator = uppsala::XsdValidator::from_schema(&schema).unwrap();
    let errors = |report: &str| validator.validate(&uppsala::parse(report).unwrap()).len();
    let report = report_of_every_kind("junit");
    assert_eq!(errors(&report), 0, "{report}");
    for (kind, other) in [
        ("<failure ", "<failed "),
        ("<skipped ", "<left-out "),
        (" time=\"", " time=\"x"),
    ] {
        assert!(report.contains(kind), "{kind}: {report}");
        let other = report.replacen(kind, other, 1);
        assert!(
            uppsala::parse(&other).is_err() || errors(&other) > 0,
            "{other}"
        );
    }
}

/// What is broken stands in the page in words; and names of servers, which come from the command line, are no elements of it.
#[test]
fn the_page_tells_what_is_broken_and_is_well_formed() {
    let directory = Dir::new();
    let (broken, good) = (
        server(|mut stream| drop(stream.write_all(b"hello"))),
        own_command("reactor"),
    );
    let page = directory
        .path("")
        .join(OsStr::from_bytes(b"not UTF-8 \xff"));
    let said = ended(
        program()
            .args(["check", "--quick", "--only"])
            .args(["nothing-added,descriptors/come-back", "--html"])
            .arg(&page)
            .arg(format!("tcp://{broken}"))
            .arg("--command")
            .arg(format!("env NAME='<b>&' {good}")),
    );
    assert_eq!(said.code, 7, "{}{}", said.out, said.err);
    let text = fs::read_to_string(page).unwrap().replace("&#x2f;", "/");
    for words in [
        "2 servers, side by side",
        "Stage 1: one message, all byte values, nothing added",
        "tcp/bytes/nothing-added, 3 of 3",
        "process/descriptors/come-back",
        "&lt;b&gt;&amp;",
        "default-src 'none'",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    uppsala::parse(text.trim_start().trim_start_matches("<!DOCTYPE html>")).unwrap();
    // A file that cannot be written is told before anything is checked.
    let said = check(&["--html", "/nowhere/report.html", &format!("tcp://{broken}")]);
    assert_eq!(said.code, 73, "{}", said.err);
    assert!(
        said.out.is_empty() && said.err.contains("--html: cannot write"),
        "{}",
        said.err
    );
}

/// Perl's own parser, with which TAP came into the world: a plan, a line for each rule, and no error of form.
#[test]
fn the_tap_form_is_read_by_the_parser_of_perl() {
    const READ: &str = "use TAP::Parser; my $p = TAP::Parser->new({ tap => join '', <STDIN> }); $p->run; \
        printf '%s/%s failed %s skipped %s errors %s', $p->tests_run, $p->tests_planned, \
        scalar($p->failed), scalar($p->skipped), scalar($p->parse_errors)";
    if !has_tool("prove") {
        return;
    }
    let report = report_of_every_kind("tap");
    let read = piped(Command::new("perl").args(["-e", READ]), &report);
    assert_eq!(read, "5/5 failed 2 skipped 1 errors 0", "{report}");
}

#[test]
fn several_servers_are_columns_of_a_table() {
    let (one, other) = (
        Serve::start(&["tcp://127.0.0.1:0"], &[]),
        Serve::start(&["tcp://127.0.0.1:0"], &[]),
    );
    let addresses = [one.endpoints[0].to_string(), other.endpoints[0].to_string()];
    let said = check(&[
        "--quick",
        "--only",
        "one-message",
        &addresses[0],
        &addresses[1],
    ]);
    let row = said
        .out
        .lines()
        .find(|line| line.starts_with("tcp/bytes/one-message"));
    assert_eq!(
        row.map(|row| row.matches("pass").count()),
        Some(2),
        "{}",
        said.out
    );
}

#[test]
fn wrong_arguments_are_told_with_what_to_write() {
    check(&["--only", &unique()]).failed(64, &["--only", "--list"]);
    check(&["--command", "./mine"]).failed(64, &["./mine", "{port}"]);
    check(&["--quick", "--full"]).failed(64, &["--quick", "--full"]);
    check(&["--only", "udp", "--exclude", "udp"]).failed(64, &["no rule is left"]);
    let said = check(&["--list", "--stage", "3"]);
    assert_eq!(
        (said.code, said.out.lines().count()),
        (0, 6),
        "{}",
        said.out
    );
}
