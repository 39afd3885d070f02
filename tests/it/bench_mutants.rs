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
    exit: Exit,
    /// What has to be said, or the figure that has to be as large as this at least.
    says: Says,
}

enum Says {
    Words(&'static str),
    Figure(&'static str, u64),
}

enum Exit {
    /// One of these, the documented one first.
    Code(&'static [i32]),
    /// The server has answered everything, so the exit code is 0. A machine that is too busy may starve the generator
    /// meanwhile: then the code is 4, every reason given is the generator's own, and the figures stand all the same.
    Measured,
}

impl Row {
    fn check_exit(&self, said: &[String]) {
        let (name, report, code) = (self.name, &self.ended.report, self.ended.code);
        match self.exit {
            Exit::Code(codes) => assert!(codes.contains(&code), "{name}: exit {code}: {said:#?}"),
            Exit::Measured => {
                let reasons = report["not_valid_because"].as_array().unwrap();
                let own = |reason: &Value| reason.as_str().unwrap().starts_with("the generator ");
                assert!(reasons.iter().all(own), "{name}: {reasons:#?}");
                let expected = if reasons.is_empty() { 0 } else { 4 };
                assert_eq!(code, expected, "{name}: {said:#?}");
                assert_eq!(report["valid"], reasons.is_empty(), "{name}");
                assert_eq!(report["faults"], serde_json::json!({}), "{name}");
                for unanswered in [
                    "/requests/lost",
                    "/requests/in_flight",
                    "/unanswered/requests",
                ] {
                    assert_eq!(self.ended.number(unanswered), 0, "{name}: {unanswered}");
                }
            }
        }
    }
}

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
        row.check_exit(&said);
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
            exit: Exit::Code(&[75]),
            says: Says::Words("5 requests on 5 connections"),
        },
        Row {
            name: "all connections freeze, open loop",
            ended: against(Mutation::FreezeAll { after }, &format!("{QUICK} -r 500")),
            exit: Exit::Code(&[75]),
            says: Says::Words("5 requests on 5 connections"),
        },
        Row {
            name: "one connection freezes",
            ended: against(Mutation::FreezeOne { number: 2, after }, QUICK),
            exit: Exit::Code(&[75]),
            says: Says::Words("1 request on 1 connection (number "),
        },
        Row {
            name: "no connection is served from the first byte on",
            ended: against(
                Mutation::Silent,
                "-c 100 --connect-concurrency 8 -d 300ms --timeout 500ms",
            ),
            exit: Exit::Code(&[75]),
            says: Says::Words("92 were not tried any more"),
        },
        Row {
            name: "half an answer comes, and no more",
            ended: against(Mutation::HalfAnswer { after }, QUICK),
            exit: Exit::Code(&[75]),
            says: Says::Words("half an answer in 1s: 32 of 64 bytes came"),
        },
        Row {
            name: "half an answer comes, and the end",
            ended: against(Mutation::HalfAnswerAndEnd { after }, QUICK),
            exit: Exit::Code(&[74]),
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
            exit: Exit::Measured,
            says: Says::Figure("/service_time_ns/max", 300_000_000),
        },
        Row {
            name: "each answer is 30 ms late",
            ended: against(Mutation::Late(Duration::from_millis(30)), QUICK),
            exit: Exit::Measured,
            says: Says::Figure("/service_time_ns/min", 29_900_000),
        },
        Row {
            name: "it dies at the fourth connection",
            ended: against(Mutation::DieAt(3), QUICK),
            exit: Exit::Code(&[74, 69]),
            says: Says::Words("of 5 connections came about"),
        },
        Row {
            name: "one connection of 1,000 is dropped",
            ended: against(
                Mutation::DropOneIn(1_000),
                "-c 4 -n 2500 --churn reset --timeout 5s",
            ),
            exit: Exit::Code(&[74]),
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
        exit: Exit::Code(&[75]),
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
        exit: Exit::Code(&[4]),
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
    let rows = [
        Some(stopped()),
        Some(stopped_beyond_the_timeout()),
        starved(),
        Some(foreign_overflow()),
    ];
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
        exit: Exit::Code(&[4]),
        says: Says::Words("the generator itself stood still"),
    }
}

/// The same for longer than the timeout, with more answers waiting than are read in one turn: none of them is late.
fn stopped_beyond_the_timeout() -> Row {
    let (server, _) = mutant(Mutation::Right);
    let (child, said, worker) = in_the_window(&server, "-c 500 --timeout 500ms");
    kill("-STOP", &worker);
    thread::sleep(Duration::from_secs(1)); // the circumstance itself
    kill("-CONT", &worker);
    kill("-INT", &child.id().to_string());
    let ended = end(child, said);
    assert_eq!(ended.report["faults"], serde_json::json!({}));
    Row {
        name: "the generator is stopped for longer than the timeout",
        ended,
        exit: Exit::Code(&[4]),
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
        exit: Exit::Code(&[4]),
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
        exit: Exit::Measured,
        says: Says::Words("they may be those of another program"),
    }
}
