//! Stage 5: clients that do not read. The server keeps their bytes, and not without end, and serves the rest.

use crate::check::clients::Clients;
use crate::check::finding::{Broken, Finding, Limit, bytes};
use crate::check::process::Server;
use crate::check::rule::{Level, Needs, Rule, Trial};
use std::time::Duration;

const MIB: u64 = 1 << 20;

const PUSH_THEN_READ: &str = r#"python3 -c 'import socket as s; c=s.create_connection(("127.0.0.1",50007)); c.settimeout(1); n=0
try:
  while n<8<<20: n+=c.send(b"x"*65536)
except TimeoutError: pass
c.shutdown(1); print(n, sum(iter(lambda: len(c.recv(65536)),0)))'"#;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "tcp/pressure/push-then-read",
        level: Level::Must,
        stage: 5,
        asks: "a client that pushes until nothing is taken any more, and then reads, gets every byte",
        source: "send(2): a short count is no error; RFC 9293, 3.8.6: a closed window opens again",
        by_hand: PUSH_THEN_READ,
        guide: "mistakes, Partial writes",
        mistakes: &[
            "short-write-ignored",
            "write-offset",
            "interest-not-changed",
            "interest-not-changed-back",
        ],
        needs: Needs::Stream,
        run: push_then_read,
    },
    Rule {
        id: "tcp/pressure/others-served",
        level: Level::Should,
        stage: 5,
        asks: "a client that never reads does not keep the server from other clients",
        source: "epoll(7): non-blocking descriptors, so that no single one blocks the rest",
        by_hand: "cat /dev/zero | nc 127.0.0.1 50007 | sleep 60 & echo hello | nc -N 127.0.0.1 50007",
        guide: "mistakes, Unbounded buffers",
        mistakes: &["short-write-ignored"],
        needs: Needs::Stream,
        run: others_served,
    },
    Rule {
        id: "tcp/pressure/bounded",
        level: Level::Should,
        stage: 5,
        asks: "what a client sends and does not read is not kept without bound: at some time it is not taken any more",
        source: "RFC 9293, 3.8.6: the window is how a receiver tells that it has no room",
        by_hand: "cat /dev/zero | nc 127.0.0.1 50007 | sleep 60 & top    # the server's memory",
        guide: "mistakes, Unbounded buffers",
        mistakes: &["unbounded-write-buffer"],
        needs: Needs::Stream,
        run: bounded,
    },
    Rule {
        id: "tcp/pressure/write-all-first",
        level: Level::Info,
        stage: 5,
        asks: "how much a client can write before it reads anything",
        source: "RFC 9293, 3.8.6",
        by_hand: PUSH_THEN_READ,
        guide: "mistakes, Unbounded buffers",
        mistakes: &[],
        needs: Needs::Stream,
        run: write_all_first,
    },
    Rule {
        id: "tcp/pressure/pipelining",
        level: Level::Must,
        stage: 5,
        asks: "64 requests under way at once come back in order",
        source: "RFC 9293, 3.8: a stream keeps its order",
        by_hand: "seq 100000 | nc -N 127.0.0.1 50007 | sort -nc && echo in order",
        guide: "edges, Two ways to keep the contract",
        mistakes: &["write-offset", "read-once"],
        needs: Needs::Stream,
        run: pipelining,
    },
];

fn push_then_read(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let mut clients = Clients::new(server, trial)?;
    let client = clients.connected()?;
    let state = clients.get(client);
    (state.may_send, state.may_read) = (64 * MIB, 0);
    clients.run_until_quiet()?;
    let state = clients.get(client);
    let pushed = state.sent;
    (state.may_send, state.may_read) = (pushed, u64::MAX);
    clients.stall_timeout.set_limit(trial.stall_timeout() * 3);
    let ran = clients.run(|all| all[0].is_complete() || all[0].is_over())?;
    let state = clients.get(client);
    if state.is_over() || !state.is_complete() {
        let sent = format!(
            "{}, until nothing was taken any more; then it read",
            bytes(pushed)
        );
        return Ok(Finding::Broken(state.broken(
            sent,
            format!("the same {}", bytes(pushed)),
            ran.silent(),
        )));
    }
    // The server has to read again, too.
    Ok(match clients.echo(client, 1_000)? {
        Some(broken) => {
            let sent = format!(
                "{} before anything was read, and when that was back 1000 bytes more",
                bytes(pushed)
            );
            Finding::Broken(Broken { sent, ..broken })
        }
        None => Finding::Holds(format!("{} pushed and read back", bytes(pushed))),
    })
}

fn others_served(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let mut clients = Clients::new(server, trial)?;
    for _ in 0..3 {
        let deaf = clients.connected()?;
        let state = clients.get(deaf);
        (state.may_send, state.may_read) = (16 * MIB, 0);
    }
    clients.run_until_quiet()?;
    let other = clients.connected()?;
    // While both directions of a connection are full, the kernels go on at their timers, from 200 ms on: so it takes a while.
    for _ in 0..trial.effort.pick(5, 10, 10) {
        clients.run_for(Duration::from_millis(80))?;
        if let Some(broken) = clients.echo(other, 1_000)? {
            let sent = "1000 bytes, beside three clients that push and never read".to_owned();
            return Ok(Finding::Broken(Broken { sent, ..broken }));
        }
    }
    Ok(Finding::holds())
}

/// More than both kernels hold: 6 MiB received and 4 MiB sent on each side are the maxima of Linux.
const OFFERED: u64 = 64 * MIB;

fn bounded(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let before = server.sample().map_or(0, |sample| sample.rss);
    let mut clients = Clients::new(server, trial)?;
    let client = clients.connected()?;
    let state = clients.get(client);
    (state.may_send, state.may_read) = (OFFERED, 0);
    clients.run_until_quiet()?;
    let taken = clients.get(client).sent;
    let grown = server
        .sample()
        .map_or(0, |sample| sample.rss.saturating_sub(before));
    let memory = match grown {
        0 => String::new(),
        _ => format!("; the server has {} KiB more", grown / 1024),
    };
    Ok(match taken {
        OFFERED => Finding::Broken(Broken {
            sent: format!("{}, and nothing was read", bytes(OFFERED)),
            expected: "some of it is not taken, until the client reads".to_owned(),
            got: format!("all of it was taken{memory}"),
            is_silence: false,
        }),
        _ => Finding::Holds(format!("{} of {OFFERED} were taken{memory}", bytes(taken))),
    })
}

fn write_all_first(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let mut clients = Clients::new(server, trial)?;
    let client = clients.connected()?;
    let state = clients.get(client);
    (state.may_send, state.may_read) = (16 * MIB, 0);
    clients.run_until_quiet()?;
    let taken = clients.get(client).sent;
    Ok(Finding::Told(match taken {
        taken if taken == 16 * MIB => format!("{} and more", bytes(taken)),
        taken => format!("{}; then it has to read", bytes(taken)),
    }))
}

fn pipelining(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let mut clients = Clients::new(server, trial)?;
    let client = clients.connected()?;
    clients.get(client).segment = 1_000;
    for _ in 0..trial.effort.pick(5, 20, 50) {
        if let Some(broken) = clients.echo(client, 64_000)? {
            let sent = "64 requests of 1000 bytes at once, several times".to_owned();
            return Ok(Finding::Broken(Broken { sent, ..broken }));
        }
    }
    Ok(Finding::holds())
}
