//! Stages 1 and 2: the same bytes, all of them, in any portions.

use crate::check::client::Text;
use crate::check::clients::Clients;
use crate::check::finding::{Broken, Finding, Limit};
use crate::check::process::Server;
use crate::check::rule::{Level, Needs, Rule, Trial};
use crate::random::Random;
use std::time::Duration;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "tcp/bytes/one-message",
        level: Level::Must,
        stage: 1,
        asks: "one short message comes back unchanged",
        source: "RFC 862, TCP Based Echo Service",
        by_hand: "printf 'Hello, world!' | nc -N 127.0.0.1 50007",
        guide: "path, Six steps",
        mistakes: &["would-block-is-an-error", "accept-once"],
        needs: Needs::Stream,
        run: one_message,
    },
    Rule {
        id: "tcp/bytes/all-values",
        level: Level::Must,
        stage: 1,
        asks: "bytes of every value come back: NUL, 0xFF, CR LF, and no line end at the end",
        source: "RFC 862: any data received is sent back",
        by_hand: r"python3 -c 'import sys; sys.stdout.buffer.write(bytes(range(256)))' | nc -N 127.0.0.1 50007 | xxd",
        guide: "path, Six steps",
        mistakes: &[],
        needs: Needs::Stream,
        run: all_values,
    },
    Rule {
        id: "tcp/bytes/nothing-added",
        level: Level::Must,
        stage: 1,
        asks: "the server sends nothing before the client does, and nothing after the echo",
        source: "RFC 862: data received is sent back, and no other",
        by_hand: "nc 127.0.0.1 50007    # type nothing: no greeting, no prompt",
        guide: "path, Six steps",
        mistakes: &[],
        needs: Needs::Stream,
        run: nothing_added,
    },
    Rule {
        id: "tcp/sizes/powers",
        level: Level::Must,
        stage: 2,
        asks: "messages of every size up to some MiB come back whole, each before the next is sent",
        source: "RFC 9293, 3.8: TCP is a stream; segments and reads have any size",
        by_hand: "head -c 1000000 /dev/urandom | tee sent | nc -N 127.0.0.1 50007 | cmp - sent",
        guide: "mistakes, Reading once",
        mistakes: &["read-once", "spent-budget-forgotten", "short-write-ignored"],
        needs: Needs::Stream,
        run: powers,
    },
    Rule {
        id: "tcp/sizes/one-byte-segments",
        level: Level::Must,
        stage: 2,
        asks: "a text that arrives byte by byte comes back whole",
        source: "RFC 9293, 3.8: the receiver may not rely on the sender's portions",
        by_hand: r#"python3 -c 'import socket as s; c=s.create_connection(("127.0.0.1",50007)); [c.send(b"x") for _ in range(2000)]; c.shutdown(1); print(sum(iter(lambda: len(c.recv(9999)),0)))'"#,
        guide: "edges, Level-triggered and edge-triggered",
        mistakes: &["would-block-is-an-error"],
        needs: Needs::Stream,
        run: one_byte_segments,
    },
    Rule {
        id: "tcp/sizes/random-cuts",
        level: Level::Must,
        stage: 2,
        asks: "a message that arrives in pieces with pauses between them comes back whole",
        source: "RFC 9293, 3.8: the receiver may not rely on the sender's portions",
        by_hand: "(printf Hello; sleep 1; printf ', world!') | nc -N 127.0.0.1 50007",
        guide: "edges, Level-triggered and edge-triggered",
        mistakes: &["would-block-is-an-error"],
        needs: Needs::Stream,
        run: random_cuts,
    },
];

fn one_message(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let mut clients = Clients::new(server, trial)?;
    let client = clients.connected()?;
    clients.get(client).text = Text::Own(b"Hello, world!".to_vec());
    clients.echo(client, 13).map(Finding::from)
}

fn all_values(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let mut text: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    text.extend_from_slice(b"\0\0\r\n\r\n\x04\x1b[31m\xff\xff\xf4\xff\xfd\x06 no line end");
    let mut clients = Clients::new(server, trial)?;
    let client = clients.connected()?;
    let length = text.len() as u64;
    clients.get(client).text = Text::Own(text);
    clients.echo(client, length).map(Finding::from)
}

fn nothing_added(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let silence = Duration::from_millis(trial.effort.pick(100, 300, 1_000));
    let mut clients = Clients::new(server, trial)?;
    let client = clients.connected()?;
    clients.run_for(silence)?;
    let mut broken = clients.echo(client, 5)?;
    if broken.is_none() {
        clients.run_for(silence)?;
        let client = clients.get(client);
        broken = client.is_over().then(|| {
            client.broken(
                "5 bytes, then nothing",
                "the same 5 bytes, then nothing",
                silence,
            )
        });
    }
    Ok(Finding::from(broken))
}

fn powers(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let mut clients = Clients::new(server, trial)?;
    let client = clients.connected()?;
    for power in 0..=trial.effort.pick(20, 22, 22) {
        for size in [(1 << power) - 1, 1 << power, (1 << power) + 1] {
            if let Some(broken) = clients.echo(client, size)? {
                let sent = format!(
                    "a message of {size} bytes, after smaller ones: {}",
                    broken.sent
                );
                return Ok(Finding::Broken(Broken { sent, ..broken }));
            }
        }
    }
    Ok(Finding::holds())
}

fn one_byte_segments(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let mut clients = Clients::new(server, trial)?;
    let client = clients.connected()?;
    clients.get(client).segment = 1;
    clients
        .echo(client, trial.effort.pick(1_000, 5_000, 10_000))
        .map(Finding::from)
}

fn random_cuts(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let mut random = Random::new(11);
    let mut clients = Clients::new(server, trial)?;
    let client = clients.connected()?;
    for _ in 0..trial.effort.pick(40, 100, 200) {
        clients.get(client).may_send += 1 + random.next() % 9_000;
        clients.run_for(Duration::from_millis(random.next() % 4))?;
    }
    clients.echo(client, 1).map(Finding::from)
}
