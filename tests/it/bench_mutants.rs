//! A table of servers that fail in one way each, and of circumstances that are no fault of the server: what `bench` says of
//! each, and its exit code. None may pass in silence.
//!
//! `cargo test --test it every_mutant_is_named -- --nocapture` prints the table.

use crate::bench::{Ended, bench, in_the_window, kill};
use crate::support::mutant::{Mutation, mutant};
use crate::support::{has_tool, wrapped};
use serde_json::Value;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// What is expected of one mutant or circumstance.
struct Row {
    name: &'static str,
    ended: Ended,
    /// The exit codes that are right, the documented one first.
    codes: &'static [i32],
    /// What has to be said, or the figure that has to be as large as this at least.
    says: Says,
}

enum Says {
    Words(&'static str),
    Figure(&'static str, u64),
}

/// Where the figures tell, and nothing was wrong. This machine may be too busy for a valid measurement.
const RESULT: &[i32] = &[0, 4];

#[test]
fn every_mutant_is_named() {
    let mut rows = mutants();
    rows.extend(circumstances());
    println!("\n| mutant or circumstance | exit | what bench says |\n|---|---|---|");
    for row in &rows {
        let said = all_said(&row.ended);
        let found = match row.says {
            Says::Words(words) => said.iter().find(|text| text.contains(words)).cloned(),
            Says::Figure(pointer, least) => Some(row.ended.number(pointer))
                .filter(|&number| number >= least)
                .map(|number| format!("{pointer} {:?}", Duration::from_nanos(number))),
        };
        println!(
            "| {} | {} | {} |",
            row.name,
            row.ended.code,
            found.as_deref().unwrap_or("NOTHING")
        );
        assert!(found.is_some(), "{}: {said:#?}", row.name);
        assert!(
            row.codes.contains(&row.ended.code),
            "{}: exit {}: {said:#?}",
            row.name,
            row.ended.code
        );
        row.ended.is_accounted_for();
    }
}

/// Everything that a report says in words.
fn all_said(ended: &Ended) -> Vec<String> {
    let texts = |name: &str| ended.report[name].as_array().cloned().unwrap_or_default();
    let mut said: Vec<String> = [texts("not_valid_because"), texts("notes")]
        .concat()
        .iter()
        .filter_map(|text| text.as_str().map(str::to_owned))
        .collect();
    let faults = ended.report["faults"].as_object();
    said.extend(
        faults.into_iter().flatten().map(|(kind, fault)| {
            format!("{kind}: {}", fault["first"].as_str().unwrap_or_default())
        }),
    );
    said
}

const QUICK: &str = "-c 5 -d 600ms --warm-up 50ms --timeout 1s";

/// Runs `bench` against a mutant. What is expected is added by the caller.
fn against(mutation: Mutation, line: &str) -> Ended {
    bench(&format!("{} {line}", mutant(mutation).0))
}

fn mutants() -> Vec<Row> {
    let mut rows = freezing();
    rows.extend(answering_wrongly());
    rows.extend([frozen_datagrams(), frozen_and_interrupted()]);
    rows
}

fn freezing() -> Vec<Row> {
    let after = 20;
    vec![
        Row {
            name: "all connections freeze",
            ended: against(Mutation::FreezeAll { after }, QUICK),
            codes: &[75],
            says: Says::Words("5 requests on 5 connections"),
        },
        Row {
            name: "all connections freeze, open loop",
            ended: against(Mutation::FreezeAll { after }, &format!("{QUICK} -r 500")),
            codes: &[75],
            says: Says::Words("5 requests on 5 connections"),
        },
        Row {
            name: "one connection freezes",
            ended: against(Mutation::FreezeOne { number: 2, after }, QUICK),
            codes: &[75],
            says: Says::Words("1 request on 1 connection (number "),
        },
        Row {
            name: "no connection is served from the first byte on",
            ended: against(
                Mutation::Silent,
                "-c 100 --connect-concurrency 8 -d 300ms --timeout 500ms",
            ),
            codes: &[75],
            says: Says::Words("92 were not tried any more"),
        },
        Row {
            name: "half an answer comes, and no more",
            ended: against(Mutation::HalfAnswer { after }, QUICK),
            codes: &[75],
            says: Says::Words("half an answer in 1s: 32 of 64 bytes came"),
        },
        Row {
            name: "half an answer comes, and the end",
            ended: against(Mutation::HalfAnswerAndEnd { after }, QUICK),
            codes: &[74],
            says: Says::Words("with 32 bytes still to come"),
        },
    ]
}

fn answering_wrongly() -> Vec<Row> {
    let stall = Mutation::Stall {
        after: 200,
        lasts: Duration::from_millis(300),
    };
    vec![
        Row {
            name: "all connections stall for 300 ms",
            ended: against(stall, "-c 5 -d 1s --warm-up 10ms"),
            codes: RESULT,
            says: Says::Figure("/latency_ns/actual/max", 290_000_000),
        },
        Row {
            name: "each answer is 30 ms late",
            ended: against(Mutation::Late(Duration::from_millis(30)), QUICK),
            codes: RESULT,
            says: Says::Figure("/latency_ns/actual/p50", 29_000_000),
        },
        Row {
            name: "it dies at the fourth connection",
            ended: against(Mutation::DieAt(3), QUICK),
            codes: &[74, 69],
            says: Says::Words("of 5 connections came about"),
        },
        Row {
            name: "one connection of 1,000 is dropped",
            ended: against(
                Mutation::DropOneIn(1_000),
                "-c 4 -n 2500 --churn reset --timeout 5s",
            ),
            codes: &[74],
            says: Says::Words("closed by the server after byte 0, with 64 bytes still to come"),
        },
    ]
}

fn frozen_datagrams() -> Row {
    let server = crate::bench::udp(|turn, bytes| match turn {
        0..50 => vec![bytes.to_vec()],
        _ => Vec::new(),
    });
    Row {
        name: "datagrams are no longer answered",
        ended: bench(&format!(
            "{server} -c 2 -d 400ms --warm-up 0 --timeout 200ms"
        )),
        codes: &[75],
        says: Says::Words("did not come back"),
    }
}

fn frozen_and_interrupted() -> Row {
    let (server, _) = mutant(Mutation::FreezeAll { after: 20 });
    let (child, said, _) = in_the_window(&server, "-c 3 --timeout 1m");
    kill("-INT", &child.id().to_string());
    Row {
        name: "all connections freeze, and Ctrl-C",
        ended: end(child, said),
        codes: &[4],
        says: Says::Words("3 requests on 3 connections"),
    }
}

fn end(child: Child, said: thread::JoinHandle<Vec<String>>) -> Ended {
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code().unwrap(),
        report: serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
        err: said.join().unwrap().join("\n"),
    }
}

// --- Circumstances ---------------------------------------------------------------------------------------------------

fn circumstances() -> Vec<Row> {
    let rows = [Some(stopped()), starved(), Some(foreign_overflow())];
    rows.into_iter().flatten().collect()
}

/// The generator is stopped for a second, as by a debugger, a paused container, or a hypervisor.
fn stopped() -> Row {
    let (server, _) = mutant(Mutation::Right);
    let (child, said, worker) = in_the_window(&server, "-c 4");
    kill("-STOP", &worker);
    thread::sleep(Duration::from_secs(1)); // the circumstance itself
    kill("-CONT", &worker);
    kill("-INT", &child.id().to_string());
    Row {
        name: "the generator is stopped for a second",
        ended: end(child, said),
        codes: &[4],
        says: Says::Words("the generator itself stood still"),
    }
}

/// Busy neighbours take its processor.
fn starved() -> Option<Row> {
    if !has_tool("taskset") || !has_tool("nice") {
        return None;
    }
    let mut neighbours: Vec<Child> = (0..3)
        .map(|_| {
            let mut busy = Command::new("taskset");
            busy.args(["-c", "0", "sh", "-c", "while :; do :; done"]);
            busy.stdin(Stdio::null()).spawn().unwrap()
        })
        .collect();
    let (server, _) = mutant(Mutation::Right);
    let output = wrapped("nice", &["-n", "19", "taskset", "-c", "0"])
        .args(["bench", "-q", "--format", "json", "-d", "1s", &server])
        .output()
        .unwrap();
    for neighbour in &mut neighbours {
        neighbour.kill().unwrap();
        neighbour.wait().unwrap();
    }
    Some(Row {
        name: "neighbours starve the generator",
        ended: Ended {
            code: output.status.code().unwrap(),
            report: serde_json::from_slice(&output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        },
        codes: &[4],
        says: Says::Words("the generator was kept waiting for a processor"),
    })
}

/// Another program's accept queue overflows while connections come and go here without any trouble.
fn foreign_overflow() -> Row {
    use socket2::{Domain, Socket, Type};
    let (server, _) = mutant(Mutation::Right);
    let (child, said, _) = in_the_window(&server, "-c 2 --churn reset");
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let crowded = socket();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    crowded.bind(&any.into()).unwrap();
    crowded.listen(1).unwrap();
    let crowded = TcpListener::from(crowded);
    let address = crowded.local_addr().unwrap().into();
    let crowd: Vec<Socket> = (0..20)
        .map(|_| {
            let client = socket();
            client.set_nonblocking(true).unwrap();
            let _ = client.connect(&address);
            client
        })
        .collect();
    kill("-INT", &child.id().to_string());
    let ended = end(child, said);
    drop((crowd, crowded));
    let accused = ended.report["not_valid_because"].to_string();
    assert!(!accused.contains("accept queue"), "{accused}");
    Row {
        name: "another program's accept queue overflows",
        ended,
        codes: RESULT,
        says: Says::Words("they may be those of another program"),
    }
}
