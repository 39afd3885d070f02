//! Stage 9: what can be seen of a server that the checker has started: its descriptors, processor time, memory, and end.

use crate::check::client::End;
use crate::check::clients::{Clients, Id};
use crate::check::finding::{Broken, Finding, Limit, bytes};
use crate::check::process::Server;
use crate::check::rule::{Effort, Level, Needs, Rule, Trial};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "process/emfile/served-and-calm",
        level: Level::Should,
        stage: 9,
        asks: "without a free descriptor the server lives, serves the open connections, and does not spin",
        source: "accept(2), EMFILE: the connection stays in the accept queue",
        by_hand: "(ulimit -n 30; ./mine 50007) & for i in $(seq 50); do nc 127.0.0.1 50007 & done; top",
        guide: "mistakes, EMFILE",
        mistakes: &["emfile-spins"],
        needs: Needs::Process,
        run: served_and_calm,
    },
    Rule {
        id: "process/emfile/resumes",
        level: Level::Should,
        stage: 9,
        asks: "when descriptors are free again, clients that wait in the accept queue are served",
        source: "epoll(7): the edge of the accept queue is spent, and closing raises no new one",
        by_hand: "(ulimit -n 30; ./mine 50007) & for i in $(seq 50); do (echo $i; sleep 3) | nc -N 127.0.0.1 50007 & done; wait",
        guide: "mistakes, EMFILE",
        mistakes: &[
            "no-retry-after-emfile",
            "wait-for-an-edge",
            "close-resumes-nothing",
        ],
        needs: Needs::Process,
        run: resumes,
    },
    Rule {
        id: "process/descriptors/come-back",
        level: Level::Should,
        stage: 9,
        asks: "connections that have ended, by FIN or by RST, leave no descriptor open",
        source: "close(2)",
        by_hand: "ls /proc/$(pgrep mine)/fd | wc -l    # before and after",
        guide: "mistakes, Half-open connections",
        mistakes: &["short-read-hides-fin", "reset-is-eof"],
        needs: Needs::Process,
        run: come_back,
    },
    Rule {
        id: "process/idle/processor-time",
        level: Level::Should,
        stage: 9,
        asks: "a server with silent clients sleeps",
        source: "epoll_wait(2), poll(2): they sleep until something happens",
        by_hand: "nc 127.0.0.1 50007 & top",
        guide: "path, Why a loop",
        mistakes: &[],
        needs: Needs::Process,
        run: idle_time,
    },
    Rule {
        id: "process/idle/memory",
        level: Level::Info,
        stage: 9,
        asks: "how much memory of the server a silent connection takes",
        source: "proc_pid_status(5), VmRSS",
        by_hand: "grep VmRSS /proc/$(pgrep mine)/status    # before and after",
        guide: "cost, One idle connection",
        mistakes: &[],
        needs: Needs::Process,
        run: idle_memory,
    },
    Rule {
        id: "process/signals/stop-and-continue",
        level: Level::Should,
        stage: 9,
        asks: "a server that was stopped and continued (SIGSTOP, SIGCONT) goes on",
        source: "signal(7): epoll_wait(2) and poll(2) fail with EINTR after SIGCONT",
        by_hand: "kill -STOP $(pgrep mine); sleep 1; kill -CONT $(pgrep mine); echo hello | nc -N 127.0.0.1 50007",
        guide: "mistakes, Idleness after a pause",
        mistakes: &["eintr-ends-the-loop"],
        needs: Needs::Process,
        run: stop_and_continue,
    },
    Rule {
        id: "process/sigterm/ends",
        level: Level::Info,
        stage: 9,
        asks: "SIGTERM in the middle of a transfer ends the server within ten seconds, and no byte is lost",
        source: "signal(7): the default of SIGTERM is to end at once",
        by_hand: "cat /dev/zero | nc 127.0.0.1 50007 >/dev/null & sleep 1; kill -TERM $(pgrep mine)",
        guide: "operations, Stopping",
        mistakes: &["drain-aborts", "drain-without-end"],
        needs: Needs::Process,
        run: sigterm_ends,
    },
    Rule {
        id: "process/sigterm/no-reset",
        level: Level::Info,
        stage: 9,
        asks: "a client that goes on sending while the server ends gets FIN, and no reset",
        source: "RFC 9293, 3.6.1; close(2) with unread input sends RST",
        by_hand: "cat /dev/zero | nc 127.0.0.1 50007 >/dev/null & sleep 1; kill -TERM $(pgrep mine)",
        guide: "mistakes, Closing with unread input",
        mistakes: &["close-without-lingering"],
        needs: Needs::Process,
        run: sigterm_no_reset,
    },
    Rule {
        id: "process/sigterm/accept-queue",
        level: Level::Info,
        stage: 9,
        asks: "a client that is in the accept queue when SIGTERM comes is served, and not reset",
        source: "listen(2): its connect has returned, and its bytes may be here",
        by_hand: "kill -STOP $(pgrep mine); echo hello | nc -N 127.0.0.1 50007 & kill -TERM $(pgrep mine); kill -CONT $(pgrep mine)",
        guide: "operations, Stopping",
        mistakes: &["drain-forgets-accept-queue"],
        needs: Needs::Process,
        run: sigterm_accept_queue,
    },
];

/// Descriptors of the limited server, and clients that want one.
const DESCRIPTORS: u64 = 40;
const CROWD: usize = 64;

/// A server with few descriptors, and more clients than it can accept. The first is served, which proves that it started.
fn crowded<'a>(
    server: &Server,
    trial: &'a Trial<'a>,
) -> Result<(Server, Clients<'a>, Vec<Id>), Limit> {
    let limited = server.another(Some(DESCRIPTORS))?;
    let mut clients = Clients::new(&limited, trial)?;
    let first = clients.connected()?;
    if let Some(broken) = clients.echo(first, 10)? {
        return Err(Limit(format!(
            "with {DESCRIPTORS} descriptors the server does not serve at all: {}",
            broken.got
        )));
    }
    let mut all = vec![first];
    for _ in 1..CROWD {
        all.push(clients.connect()?);
    }
    clients.run_for(Duration::from_millis(200))?;
    Ok((limited, clients, all))
}

fn with_few_descriptors(broken: Broken) -> Finding {
    Finding::Broken(Broken {
        sent: format!(
            "{CROWD} clients to a server with {DESCRIPTORS} descriptors: {}",
            broken.sent
        ),
        ..broken
    })
}

fn served_and_calm(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let (mut limited, mut clients, all) = crowded(server, trial)?;
    let broken = clients.echo(all[0], 100)?;
    if let Some(ending) = limited.unexpected_end() {
        return Ok(with_few_descriptors(Broken {
            sent: "all connected".to_owned(),
            expected: "a server that goes on".to_owned(),
            got: format!("the server has ended: {ending}"),
            is_silence: false,
        }));
    }
    if let Some(broken) = broken {
        return Ok(with_few_descriptors(broken));
    }
    let (share, window) = busy(&limited, &mut clients, Duration::from_millis(500))?;
    Ok(match share < 0.2 {
        true => Finding::Holds(format!("{:.1} % of a processor", share * 100.0)),
        false => with_few_descriptors(Broken {
            sent: format!("all silent for {:.1} s", window.as_secs_f64()),
            expected: "less than 20 % of a processor".to_owned(),
            got: format!("{:.0} %", share * 100.0),
            is_silence: false,
        }),
    })
}

fn resumes(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let (_limited, mut clients, all) = crowded(server, trial)?;
    // The last in the queue has asked already; every other client leaves.
    let last = all[CROWD - 1];
    clients.get(last).may_send = 100;
    clients.run_for(Duration::from_millis(50))?;
    for &client in &all[..CROWD - 1] {
        clients.close(client, false);
    }
    // If the accept queue was too short for it, its next SYN may come seconds later.
    clients.stall_timeout.set_limit(trial.stall_timeout() * 4);
    Ok(match clients.echo(last, 0)? {
        Some(broken) => with_few_descriptors(Broken {
            sent: "100 bytes by the last one, when all others had left".to_owned(),
            ..broken
        }),
        None => Finding::holds(),
    })
}

fn come_back(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    const COUNT: usize = 60;
    let mut clients = Clients::new(server, trial)?;
    let Some(before) = settled(server, &mut clients, 0)? else {
        return Ok(Finding::NotRun(
            "the server's descriptors cannot be read".to_owned(),
        ));
    };
    for place in 0..COUNT {
        let client = clients.connected()?;
        let state = clients.get(client);
        state.is_background = true;
        state.may_send = 2_000;
        match place % 3 {
            0 => {
                let _ = clients.with_socket(client, |socket| socket.set_tcp_cork(true));
                clients.get(client).fin_at = Some(2_000);
            }
            1 => clients.get(client).may_read = 0,
            _ => {}
        }
        clients.run_for(Duration::from_millis(5))?;
        clients.close(client, place % 3 == 1);
    }
    let after = settled(server, &mut clients, before)?.unwrap_or(before);
    let left = after.saturating_sub(before);
    Ok(match left < 3 {
        true => Finding::Holds(format!(
            "{before} before, {after} after {COUNT} connections"
        )),
        false => Finding::Broken(Broken {
            sent: format!("{COUNT} connections that ended: by FIN with data, by RST, by close"),
            expected: format!("{before} descriptors, as before"),
            got: format!("{after}: {left} connections are still open"),
            is_silence: true,
        }),
    })
}

/// The server's descriptors, when they have come down to `goal`, or when the server had the time to close them.
fn settled(server: &Server, clients: &mut Clients<'_>, goal: u64) -> Result<Option<u64>, Limit> {
    if goal == 0 {
        clients.run_for(Duration::from_millis(100))?;
        return Ok(server.descriptors());
    }
    clients.run(|_| server.descriptors().is_none_or(|count| count <= goal))?;
    Ok(server.descriptors())
}

/// The share of a processor that the server takes while its clients are silent, and the time that was looked at.
fn busy(
    server: &Server,
    clients: &mut Clients<'_>,
    time: Duration,
) -> Result<(f64, Duration), Limit> {
    let (before, began) = (server.sample()?, Instant::now());
    clients.run_for(time)?;
    let used = server.sample()?.usage.cpu.saturating_sub(before.usage.cpu);
    let window = began.elapsed();
    Ok((used as f64 / window.as_nanos() as f64, window))
}

fn idle(server: &Server, trial: &Trial<'_>) -> Result<(usize, f64, u64), Limit> {
    let count = trial.effort.pick(100, 300, 500);
    let before = server.sample()?.rss;
    let mut clients = Clients::new(server, trial)?;
    for _ in 0..count {
        let client = clients.connect()?;
        clients.get(client).may_send = 1;
    }
    clients.run(|all| {
        all.iter()
            .all(|client| client.is_complete() || client.is_over())
    })?;
    let (share, _) = busy(
        server,
        &mut clients,
        Duration::from_millis(trial.effort.pick(500, 1_000, 3_000)),
    )?;
    let grown = server.sample()?.rss.saturating_sub(before);
    Ok((count, share, grown))
}

fn idle_time(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let (count, share, _) = idle(server, trial)?;
    let told = format!("{:.1} % of a processor", share * 100.0);
    Ok(match share < 0.05 {
        true => Finding::Holds(told),
        false => Finding::Broken(Broken {
            sent: format!("nothing, on {count} open connections"),
            expected: "less than 5 % of a processor".to_owned(),
            got: told,
            is_silence: false,
        }),
    })
}

fn idle_memory(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let fresh = server.another(None)?;
    let (count, _, grown) = idle(&fresh, trial)?;
    Ok(Finding::Told(format!(
        "{} a connection ({count} of them)",
        bytes(grown / count as u64)
    )))
}

fn stop_and_continue(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let mut clients = Clients::new(server, trial)?;
    let before = clients.connected()?;
    clients.run_for(Duration::from_millis(20))?; // the server sleeps in its loop
    server.signal(Signal::SIGSTOP);
    clients.run_for(Duration::from_millis(100))?;
    server.signal(Signal::SIGCONT);
    clients.run_for(Duration::from_millis(50))?;
    Ok(match clients.echo(before, 100)? {
        Some(broken) => Finding::Broken(Broken {
            sent: "SIGSTOP and SIGCONT, then 100 bytes".to_owned(),
            ..broken
        }),
        None => Finding::holds(),
    })
}

/// How long a server may take to end after SIGTERM.
const END: Duration = Duration::from_secs(10);

/// Runs the clients until the server has ended and what it sent has been read. Returns how it ended, and after how long.
fn ended(
    server: &mut Server,
    clients: &mut Clients<'_>,
) -> Result<Option<(String, Duration)>, Limit> {
    let began = Instant::now();
    loop {
        if let Some(ending) = server.unexpected_end() {
            clients.run_for(Duration::from_millis(50))?;
            return Ok(Some((ending, began.elapsed())));
        }
        if began.elapsed() > END {
            return Ok(None);
        }
        clients.run_for(Duration::from_millis(5))?;
    }
}

fn sigterm_ends(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let mut other = server.another(None)?;
    let mut clients = Clients::new(&other, trial)?;
    let client = clients.connected()?;
    let state = clients.get(client);
    (state.may_send, state.may_read) = (8 << 20, 100_000);
    clients.run_until_quiet()?;
    let state = clients.get(client);
    (state.may_send, state.may_read) = (state.sent, u64::MAX);
    other.signal(Signal::SIGTERM);
    let ending = ended(&mut other, &mut clients)?;
    let state = clients.get(client);
    let saved = format!("{} of {} came back", state.received, bytes(state.sent));
    let broken = |got: String| Broken {
        sent: "SIGTERM while bytes were under way".to_owned(),
        expected: "an end within 10 s, after the last byte".to_owned(),
        got,
        is_silence: false,
    };
    Ok(match ending {
        None => Finding::Broken(broken(format!("the server runs on; {saved}"))),
        Some((ending, _)) if !state.is_complete() => {
            Finding::Broken(broken(format!("{ending}; {saved}")))
        }
        Some((ending, after)) => Finding::Told(format!(
            "ended after {:.1} s ({ending}); {saved}",
            after.as_secs_f64()
        )),
    })
}

fn sigterm_no_reset(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    if trial.effort == Effort::Quick {
        return Ok(Finding::NotRun(
            "it takes some seconds; leave out --quick".to_owned(),
        ));
    }
    let mut other = server.another(None)?;
    let mut clients = Clients::new(&other, trial)?;
    let client = clients.connected()?;
    clients.get(client).may_send = u64::MAX;
    clients.run_for(Duration::from_millis(50))?;
    other.signal(Signal::SIGTERM);
    ended(&mut other, &mut clients)?;
    let state = clients.get(client);
    Ok(match &state.end {
        Some(End::Fin) => Finding::Told("FIN".to_owned()),
        _ => Finding::Broken(Broken {
            sent: "bytes without end, and SIGTERM to the server".to_owned(),
            expected: "FIN".to_owned(),
            got: match &state.end {
                Some(_) => "a reset (RST)".to_owned(),
                None => "neither FIN nor a reset".to_owned(),
            },
            is_silence: false,
        }),
    })
}

fn sigterm_accept_queue(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let mut other = server.another(None)?;
    let mut clients = Clients::new(&other, trial)?;
    other.signal(Signal::SIGSTOP);
    let client = clients.connected()?;
    let state = clients.get(client);
    (state.may_send, state.fin_at) = (100, Some(100));
    clients.run_for(Duration::from_millis(20))?;
    other.signal(Signal::SIGTERM);
    other.signal(Signal::SIGCONT);
    ended(&mut other, &mut clients)?;
    let state = clients.get(client);
    Ok(match state.is_complete() && state.end == Some(End::Fin) {
        true => Finding::Told("it is served".to_owned()),
        false => Finding::Broken(Broken {
            is_silence: false,
            ..state.broken(
                "100 bytes and FIN, before the server accepted; then SIGTERM",
                "the same 100 bytes, then FIN",
                END,
            )
        }),
    })
}
