//! Stage 4: many clients at once, each with bytes of its own.

use crate::check::client::Client;
use crate::check::clients::{Clients, Ran};
use crate::check::finding::{Broken, Finding, Limit};
use crate::check::process::Server;
use crate::check::rule::{Level, Needs, Rule, Trial};
use std::time::Duration;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "tcp/clients/many",
        level: Level::Must,
        stage: 4,
        asks: "many clients at once: each gets its own bytes, and none gets those of another",
        source: "RFC 9293, 3.3.1: a connection is known by both of its addresses",
        by_hand: "for i in $(seq 100); do (echo $i; sleep 1) | nc -N 127.0.0.1 50007 & done; wait",
        guide: "mistakes, Accepting once",
        mistakes: &["accept-once", "no-generation-check"],
        needs: Needs::Stream,
        run: many,
    },
    Rule {
        id: "tcp/clients/one-silent",
        level: Level::Must,
        stage: 4,
        asks: "a client that says nothing does not keep the server from other clients",
        source: "listen(2): a server accepts further connections while others are open",
        by_hand: "nc 127.0.0.1 50007 & echo hello | nc -N 127.0.0.1 50007",
        guide: "path, Why a loop",
        mistakes: &[],
        needs: Needs::Stream,
        run: one_silent,
    },
    Rule {
        id: "tcp/clients/now-and-then",
        level: Level::Must,
        stage: 4,
        asks: "a client that sends a byte now and then is not cut: it is not idle",
        source: "RFC 862: data is sent back until the calling user terminates the connection",
        by_hand: "for i in $(seq 9); do printf x; sleep 1; done | nc -N 127.0.0.1 50007",
        guide: "mistakes, Idleness after a pause",
        mistakes: &["deadline-not-moved"],
        needs: Needs::Stream,
        run: now_and_then,
    },
];

/// At most 500: many a server may have 1,024 descriptors and no more.
fn many(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    for count in [5, 100, trial.effort.pick(200, 300, 500)] {
        let mut clients = Clients::new(server, trial)?;
        let mut ran = clients.crowd(count)?;
        if ran == Ran::Done {
            clients
                .all
                .iter_mut()
                .for_each(|client| client.may_send = 4_096);
            ran = clients.run(|all| all.iter().all(Client::is_settled))?;
        }
        let is_wrong = |client: &&Client| client.is_over() || !client.is_complete();
        let wrong = clients.all.iter().filter(is_wrong).count();
        if let Some(first) = clients.all.iter().find(is_wrong) {
            let sent = format!("4096 bytes by each of {count} clients at once");
            let broken = first.broken(sent, "each client's own bytes", ran.silent());
            let got = format!(
                "{wrong} of {count} clients do not have theirs; one has {}",
                broken.got
            );
            return Ok(Finding::Broken(Broken { got, ..broken }));
        }
    }
    Ok(Finding::holds())
}

fn one_silent(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let mut clients = Clients::new(server, trial)?;
    let silent = clients.connected()?;
    let half_open = clients.connected()?;
    clients.get(half_open).fin_at = Some(0);
    let third = clients.connected()?;
    let broken = clients.echo(third, 100)?;
    Ok(match broken {
        Some(broken) => {
            let sent = "100 bytes by a client, while a silent one is connected".to_owned();
            Finding::Broken(Broken { sent, ..broken })
        }
        None => Finding::from(clients.echo(silent, 100)?),
    })
}

fn now_and_then(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let pause = Duration::from_millis(trial.effort.pick(200, 500, 1_000));
    let mut clients = Clients::new(server, trial)?;
    let client = clients.connected()?;
    for round in 1..=5 {
        if let Some(broken) = clients.echo(client, 1)? {
            let sent = format!("{round} bytes, one each {:.1} s", pause.as_secs_f64());
            return Ok(Finding::Broken(Broken { sent, ..broken }));
        }
        if round < 5 {
            clients.run_for(pause)?;
        }
    }
    Ok(Finding::holds())
}
