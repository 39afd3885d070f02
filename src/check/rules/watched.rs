//! Stage 9: what can be seen of a server that the checker has started: its descriptors, processor time, memory, and end.

use crate::check::client::{Client, End};
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
        mistakes: &["wait-for-an-edge", "close-resumes-nothing"],
        needs: Needs::Process,
        run: resumes,
    },
    Rule {
        id: "process/emfile/retries",
        level: Level::Should,
        stage: 9,
        asks: "when descriptors are free again and no client has left, clients that wait are served, too",
        source: "accept(2), EMFILE and ENFILE: nothing tells that there is a descriptor again, so a timer has to",
        by_hand: "nc -d 127.0.0.1 50007 & prlimit --pid $(pgrep mine) --nofile=3: ; (sleep 2; prlimit --pid $(pgrep mine) --nofile=99:) & echo hello | nc -N 127.0.0.1 50007",
        guide: "mistakes, EMFILE",
        mistakes: &["no-retry-after-emfile"],
        needs: Needs::Process,
        run: retries,
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
        asks: "a server that was stopped and continued (SIGSTOP, SIGCONT) answers what came meanwhile",
        source: "signal(7): epoll_wait(2) and poll(2) fail with EINTR after SIGCONT",
        by_hand: "kill -STOP $(pgrep mine); sleep 1; kill -CONT $(pgrep mine); echo hello | nc -N 127.0.0.1 50007",
        guide: "mistakes, Idleness after a pause",
        mistakes: &["eintr-ends-the-loop", "idle-before-heard"],
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
        mistakes: &["drain-aborts"],
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
        asks: "clients that are in the accept queue when SIGTERM comes are served, and not reset",
        source: "listen(2): its connect has returned, and its bytes may be here",
        by_hand: "kill -STOP $(pgrep mine); echo hello | nc -N 127.0.0.1 50007 & kill -TERM $(pgrep mine); kill -CONT $(pgrep mine)",
        guide: "operations, Stopping",
        mistakes: &["drain-forgets-accept-queue"],
        needs: Needs::Process,
        run: sigterm_accept_queue,
    },
    Rule {
        id: "process/sigterm/deaf-client",
        level: Level::Info,
        stage: 9,
        asks: "SIGTERM ends the server within ten seconds, also if a client reads nothing",
        source: "write(2): what a peer does not read is not taken, however long the server waits",
        by_hand: "cat /dev/zero | nc 127.0.0.1 50007 | sleep 60 & sleep 1; kill -TERM $(pgrep mine)",
        guide: "operations, Stopping",
        mistakes: &["drain-without-end"],
        needs: Needs::Process,
        run: sigterm_deaf_client,
    },
];

/// Descriptors of the limited server, and clients that want one.
const DESCRIPTORS: u64 = 40;
const CROWD: usize = 64;
/// Descriptors that it may still open when it has served the first client. A server may have adapted itself to the limit at
/// its start.
const SPARE: u64 = 4;

/// A server with few descriptors, and more clients than it can accept. The first is served, which proves that it started;
/// then the limit can fall to so many more than are open.
fn crowded<'a>(
    server: &Server,
    trial: &'a Trial<'a>,
    spare: Option<u64>,
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
    if let (Some(spare), Some(open)) = (spare, limited.descriptors()) {
        limited.limit_descriptors(open + spare);
    }
    let mut all = vec![first];
    for _ in 1..CROWD {
        all.push(clients.connect()?);
    }
    clients.run_for(pause(trial, 100, 200, 200))?;
    Ok((limited, clients, all))
}

fn with_few_descriptors(broken: Broken) -> Finding {
    Finding::Broken(Broken {
        sent: format!(
            "{CROWD} clients to a server with at most {DESCRIPTORS} descriptors: {}",
            broken.sent
        ),
        ..broken
    })
}

fn served_and_calm(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let (limited, mut clients, all) = crowded(server, trial, Some(SPARE))?;
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
    let (share, window) = busy(&limited, &mut clients, pause(trial, 200, 500, 500))?;
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
    let (_limited, mut clients, all) = crowded(server, trial, None)?;
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

/// The standard streams: with this limit no number is left for another descriptor.
const STANDARD: u64 = 3;

fn retries(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let limited = server.another(None)?;
    let mut clients = Clients::new(&limited, trial)?;
    let first = clients.connected()?;
    if let Some(broken) = clients.echo(first, 10)? {
        return Err(Limit(format!("the server does not serve: {}", broken.got)));
    }
    let enough = limited.descriptors().map(|open| open + DESCRIPTORS);
    let (Some(enough), true) = (enough, limited.limit_descriptors(STANDARD)) else {
        return Ok(Finding::NotRun("it takes prlimit(1) and /proc".to_owned()));
    };
    let waiting = clients.connected()?;
    clients.get(waiting).may_send = 100;
    clients.run_for(pause(trial, 100, 200, 200))?;
    let was_served = clients.get(waiting).received > 0;
    if !limited.limit_descriptors(enough) {
        return Err(Limit(format!(
            "the limit of descriptors cannot be raised to {enough}"
        )));
    }
    clients.stall_timeout.set_limit(trial.stall_timeout() * 4);
    Ok(match clients.echo(waiting, 0)? {
        Some(broken) => Finding::Broken(Broken {
            sent: "100 bytes by a client that waited for a descriptor, when the limit was raised again"
                .to_owned(),
            ..broken
        }),
        None if was_served => Finding::NotRun("the server had a descriptor left".to_owned()),
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
        clients.run_for(pause(trial, 2, 5, 5))?;
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

/// The share of a processor that the server takes while its clients are silent, and the time that was looked at. Time in
/// which it waited for a processor does not count, up to nine tenths: a server that spins beside other programs does not
/// get more than they leave to it.
fn busy(
    server: &Server,
    clients: &mut Clients<'_>,
    time: Duration,
) -> Result<(f64, Duration), Limit> {
    let (before, began) = (server.sample()?, Instant::now());
    clients.run_for(time)?;
    let used = server.sample()?.usage.since(before.usage);
    let window = began.elapsed();
    let elapsed = window.as_nanos() as f64;
    let to_be_had = (elapsed - used.waited as f64).max(elapsed / 10.0);
    Ok((used.cpu as f64 / to_be_had, window))
}

/// Clients that have had a byte back each, and are silent now; and by how much they made the server's memory grow.
fn idle<'a>(server: &Server, trial: &'a Trial<'a>) -> Result<(Clients<'a>, u64), Limit> {
    let before = server.sample()?.rss;
    let mut clients = Clients::new(server, trial)?;
    clients.crowd(trial.effort.pick(100, 300, 500))?;
    let grown = server.sample()?.rss.saturating_sub(before);
    Ok((clients, grown))
}

fn idle_time(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let (mut clients, _) = idle(server, trial)?;
    let (share, _) = busy(server, &mut clients, pause(trial, 200, 1_000, 3_000))?;
    let told = format!("{:.1} % of a processor", share * 100.0);
    Ok(match share < 0.05 {
        true => Finding::Holds(told),
        false => Finding::Broken(Broken {
            sent: format!("nothing, on {} open connections", clients.all.len()),
            expected: "less than 5 % of a processor".to_owned(),
            got: told,
            is_silence: false,
        }),
    })
}

fn idle_memory(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let fresh = server.another(None)?;
    let (clients, grown) = idle(&fresh, trial)?;
    let count = clients.all.len();
    Ok(Finding::Told(format!(
        "{} a connection ({count} of them)",
        bytes(grown / count as u64)
    )))
}

/// Milliseconds of a pause, with little time, usually, and with much.
fn pause(trial: &Trial<'_>, quick: u64, normal: u64, full: u64) -> Duration {
    Duration::from_millis(trial.effort.pick(quick, normal, full))
}

/// More clients than a server learns of in one call of epoll_wait(2), as a rule.
const STOPPED_CLIENTS: usize = 200;

fn stop_and_continue(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let mut clients = Clients::new(server, trial)?;
    clients.crowd(STOPPED_CLIENTS)?;
    clients.run_for(Duration::from_millis(20))?; // the server sleeps in its loop
    server.signal(Signal::SIGSTOP);
    for (place, client) in clients.all.iter_mut().enumerate() {
        match place % 10 {
            // More than a server reads at a time, and FIN: all is there before it looks.
            0 => (client.may_send, client.fin_at) = (100_000, Some(100_000)),
            _ => client.may_send = 100,
        }
    }
    let pause = pause(trial, 100, 1_200, 2_000);
    clients.run_for(pause)?;
    server.signal(Signal::SIGCONT);
    let is_right = |client: &Client| {
        let end = client.fin_at.map(|_| End::Fin);
        client.is_complete() && client.wrong.is_none() && client.end == end
    };
    let ran = clients.run(|all| {
        all.iter()
            .all(|client| is_right(client) || client.is_over())
    })?;
    Ok(match clients.all.iter().find(|client| !is_right(client)) {
        Some(first) => Finding::Broken(first.broken(
            format!(
                "SIGSTOP, bytes by each of {STOPPED_CLIENTS} clients, some with FIN, and SIGCONT {:.1} s later",
                pause.as_secs_f64()
            ),
            "each client's own bytes, and FIN for FIN",
            ran.silent(),
        )),
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

/// Rules that wait for a server's own timeouts.
fn not_in_a_hurry(trial: &Trial<'_>) -> Option<Finding> {
    let reason = "it takes some seconds; leave out --quick";
    (trial.effort == Effort::Quick).then(|| Finding::NotRun(reason.to_owned()))
}

/// Clients that send while the server ends: whether bytes are unread when it closes is chance with each of them.
const PUSHERS: usize = 16;

fn sigterm_no_reset(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    if let Some(not_run) = not_in_a_hurry(trial) {
        return Ok(not_run);
    }
    let mut other = server.another(None)?;
    let mut clients = Clients::new(&other, trial)?;
    for _ in 0..PUSHERS {
        let client = clients.connected()?;
        clients.get(client).may_send = u64::MAX;
    }
    clients.run_for(Duration::from_millis(50))?;
    other.signal(Signal::SIGTERM);
    ended(&mut other, &mut clients)?;
    let count = |is_it: fn(&Client) -> bool| clients.all.iter().filter(|one| is_it(one)).count();
    let by_fin = count(|client| client.end == Some(End::Fin));
    let open = count(|client| client.end.is_none());
    Ok(match by_fin {
        PUSHERS => Finding::Told("FIN".to_owned()),
        _ => Finding::Broken(Broken {
            sent: format!("bytes without end by {PUSHERS} clients, and SIGTERM to the server"),
            expected: "FIN".to_owned(),
            got: format!(
                "{by_fin} times FIN, {} times a reset (RST), {open} times neither",
                PUSHERS - by_fin - open
            ),
            is_silence: false,
        }),
    })
}

/// More than a server accepts at a time, and less than the shortest usual accept queue (128) holds.
const QUEUED: usize = 100;

fn sigterm_accept_queue(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let mut other = server.another(None)?;
    let mut clients = Clients::new(&other, trial)?;
    other.signal(Signal::SIGSTOP);
    for _ in 0..QUEUED {
        let client = clients.connected()?;
        let state = clients.get(client);
        (state.may_send, state.fin_at) = (100, Some(100));
    }
    clients.run_for(Duration::from_millis(20))?;
    other.signal(Signal::SIGTERM);
    other.signal(Signal::SIGCONT);
    ended(&mut other, &mut clients)?;
    let is_wrong = |client: &&Client| !client.is_complete() || client.end != Some(End::Fin);
    let wrong = clients.all.iter().filter(is_wrong).count();
    Ok(match clients.all.iter().find(is_wrong) {
        None => Finding::Told("they are served".to_owned()),
        Some(first) => {
            let broken = first.broken(
                format!("100 bytes and FIN by each of {QUEUED} clients, before the server accepted; then SIGTERM"),
                "the same 100 bytes, then FIN",
                END,
            );
            let got = format!(
                "{wrong} of {QUEUED} clients do not have theirs; one has {}",
                broken.got
            );
            Finding::Broken(Broken {
                is_silence: false,
                got,
                ..broken
            })
        }
    })
}

fn sigterm_deaf_client(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    if let Some(not_run) = not_in_a_hurry(trial) {
        return Ok(not_run);
    }
    let mut other = server.another(None)?;
    let mut clients = Clients::new(&other, trial)?;
    let client = clients.connected()?;
    let state = clients.get(client);
    (state.may_send, state.may_read) = (u64::MAX, 0);
    clients.run_until_quiet()?;
    other.signal(Signal::SIGTERM);
    Ok(match ended(&mut other, &mut clients)? {
        Some((ending, after)) => Finding::Told(format!(
            "ended after {:.1} s ({ending})",
            after.as_secs_f64()
        )),
        None => Finding::Broken(Broken {
            sent: "SIGTERM, while a client reads nothing of what it is sent".to_owned(),
            expected: format!("an end within {} s", END.as_secs()),
            got: "the server runs on".to_owned(),
            is_silence: false,
        }),
    })
}
