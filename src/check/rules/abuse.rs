//! Stage 6: clients that leave in the middle, come in crowds, push, or pause. The server lives on, and is fair.

use crate::check::client::Client;
use crate::check::clients::Clients;
use crate::check::finding::{Broken, Finding, Limit, bytes};
use crate::check::process::Server;
use crate::check::rule::{Level, Needs, Rule, Trial};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "tcp/reset/server-lives",
        level: Level::Must,
        stage: 6,
        asks: "clients that reset their connections in the middle harm no other client",
        source: "RFC 9293, 3.10.7.4: a reset ends one connection; write(2): EPIPE, SIGPIPE",
        by_hand: r#"python3 -c 'import socket as s,struct; c=s.create_connection(("127.0.0.1",50007)); c.setsockopt(1,13,struct.pack("ii",1,0)); c.send(b"x"*99999); c.close()'; echo still there? | nc -N 127.0.0.1 50007"#,
        guide: "mistakes, Closing with unread input",
        mistakes: &["aborted-client-closes-listener"],
        needs: Needs::Tcp,
        run: reset,
    },
    Rule {
        id: "tcp/churn/connect-and-leave",
        level: Level::Must,
        stage: 6,
        asks: "clients that connect and leave at once, by FIN or by RST, harm no other client",
        source: "accept(2): ECONNABORTED and other errors of one connection",
        by_hand: "for i in $(seq 1000); do nc -z 127.0.0.1 50007; done; echo still there? | nc -N 127.0.0.1 50007",
        guide: "mistakes, Accepting once",
        mistakes: &["aborted-client-closes-listener", "accept-once"],
        needs: Needs::Stream,
        run: connect_and_leave,
    },
    Rule {
        id: "tcp/burst/connects",
        level: Level::Should,
        stage: 6,
        asks: "a burst of connects fits the accept queue: none waits for a second SYN",
        source: "listen(2), backlog; RFC 6298: the first retransmission comes after one second",
        by_hand: "ss -ltn    # Send-Q of a listener is its backlog",
        guide: "mistakes, The backlog",
        mistakes: &["backlog-128"],
        needs: Needs::Tcp,
        run: burst,
    },
    Rule {
        id: "tcp/fairness/ping-beside-pushers",
        level: Level::Should,
        stage: 6,
        asks: "a client with small messages is answered soon beside four that push",
        source: "epoll(7): starvation, and a list of ready descriptors against it",
        by_hand: "(for i in 1 2 3 4; do cat /dev/zero | nc 127.0.0.1 50007 >/dev/null & done); time (echo hi | nc -N 127.0.0.1 50007)",
        guide: "mistakes, Starvation by one busy connection",
        mistakes: &["no-budget"],
        needs: Needs::Stream,
        run: ping_beside_pushers,
    },
    Rule {
        id: "tcp/urgent/in-band-data",
        level: Level::Info,
        stage: 6,
        asks: "urgent data does not disturb the bytes around it",
        source: "tcp(7), SO_OOBINLINE; RFC 6093",
        by_hand: r#"python3 -c 'import socket as s; c=s.create_connection(("127.0.0.1",50007)); c.send(b"ab"); c.send(b"!",1); c.send(b"cd"); c.shutdown(1); print(c.recv(9))'"#,
        guide: "mistakes, Short reads",
        mistakes: &[],
        needs: Needs::Tcp,
        run: urgent,
    },
    Rule {
        id: "tcp/reader/pause-and-resume",
        level: Level::Must,
        stage: 6,
        asks: "a client that stops reading for a while and then goes on loses nothing",
        source: "RFC 9293, 3.8.6.1: a closed window is probed for as long as it takes",
        by_hand: "head -c 4000000 /dev/zero | nc -N 127.0.0.1 50007 | (sleep 5; wc -c)",
        guide: "mistakes, Half-open connections",
        mistakes: &["interest-not-changed"],
        needs: Needs::Stream,
        run: pause_and_resume,
    },
    Rule {
        id: "tcp/latency/no-40ms-steps",
        level: Level::Should,
        stage: 6,
        asks: "the end of an echo does not wait for a delayed acknowledgement (Nagle's algorithm)",
        source: "RFC 9293, 3.7.4; tcp(7), TCP_NODELAY",
        by_hand: "echo-reactor bench 127.0.0.1:50007 -c 1 --size 5000    # a p50 of 44 ms",
        guide: "cost, One busy connection",
        mistakes: &["nagle"],
        needs: Needs::Tcp,
        run: no_40_ms_steps,
    },
];

/// After all that a new client is served.
fn is_alive(clients: &mut Clients<'_>, sent: &str) -> Result<Finding, Limit> {
    let client = clients.connected()?;
    Ok(match clients.echo(client, 100)? {
        Some(broken) => Finding::Broken(Broken {
            sent: format!("{sent}, then 100 bytes by a new client"),
            expected: "the new client's bytes".to_owned(),
            ..broken
        }),
        None => Finding::holds(),
    })
}

fn reset(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let mut clients = Clients::new(server, trial)?;
    let witness = clients.connected()?;
    for round in 0..20 {
        let client = clients.connected()?;
        let state = clients.get(client);
        (state.may_send, state.is_background) = (256 << 10, true);
        state.may_read = u64::MAX * (round % 2); // with unread echoes, and without
        clients.run_for(Duration::from_millis(round))?;
        clients.close(client, true);
    }
    if let Some(broken) = clients.echo(witness, 100)? {
        let sent = "20 resets in the middle of a transfer, then 100 bytes by a client that was there before".to_owned();
        return Ok(Finding::Broken(Broken { sent, ..broken }));
    }
    is_alive(&mut clients, "20 resets in the middle of a transfer")
}

fn connect_and_leave(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let count = trial.effort.pick(200, 500, 1_000);
    let mut clients = Clients::new(server, trial)?;
    for by_reset in [false, true] {
        for _ in 0..count {
            let client = clients.connect()?;
            clients.run_for(Duration::ZERO)?;
            clients.close(client, by_reset);
        }
    }
    is_alive(
        &mut clients,
        &format!("{count} connects that ended by FIN, and {count} by RST"),
    )
}

/// A SYN that finds the accept queue full is sent again after a second.
const SECOND_SYN: Duration = Duration::from_millis(950);

fn burst(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let count = trial.effort.pick(1_000, 2_000, 3_000);
    let mut clients = Clients::new(server, trial)?;
    let began = Instant::now();
    for _ in 0..count {
        clients.connect()?;
    }
    let opening = began.elapsed();
    clients.run(|all| {
        all.iter()
            .all(|client| client.is_connected || client.is_over())
    })?;
    let is_late = |client: &&Client| client.connected_after.is_none_or(|time| time > SECOND_SYN);
    let late = clients.all.iter().filter(is_late).count();
    drop(clients);
    recover(server, trial)?;
    if late == 0 {
        return Ok(Finding::holds());
    }
    if opening > SECOND_SYN / 2 {
        let seconds = opening.as_secs_f64();
        return Err(Limit(format!(
            "the checker took {seconds:.1} s to begin {count} connects"
        )));
    }
    Ok(Finding::Broken(Broken {
        sent: format!("{count} connects at once"),
        expected: "all connected at once, since the accept queue holds them".to_owned(),
        got: format!("{late} waited for a second SYN, or longer"),
        is_silence: true,
    }))
}

/// Waits until the server is ready for the next rule: some servers pause for a second when they had no descriptor left.
fn recover(server: &Server, trial: &Trial<'_>) -> Result<(), Limit> {
    let mut clients = Clients::new(server, trial)?;
    clients.stall_timeout.set_limit(trial.stall_timeout() * 4);
    let client = clients.connected()?;
    clients.echo(client, 1).map(|_| ())
}

fn ping_beside_pushers(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let mut clients = Clients::new(server, trial)?;
    for _ in 0..4 {
        let pusher = clients.connected()?;
        let state = clients.get(pusher);
        (state.may_send, state.is_background) = (u64::MAX, true);
    }
    let pinger = clients.connected()?;
    clients.stall_timeout.set_limit(Duration::from_millis(500));
    let mut worst = Duration::ZERO;
    for _ in 0..trial.effort.pick(10, 50, 100) {
        let began = Instant::now();
        if let Some(broken) = clients.echo(pinger, 64)? {
            let sent =
                "64 bytes, beside four clients that push as fast as they can and read".to_owned();
            let expected = "an answer within half a second".to_owned();
            return Ok(Finding::Broken(Broken {
                sent,
                expected,
                ..broken
            }));
        }
        worst = worst.max(began.elapsed());
    }
    Ok(Finding::Holds(format!(
        "the slowest answer took {:.1} ms",
        worst.as_secs_f64() * 1e3
    )))
}

fn urgent(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let mut clients = Clients::new(server, trial)?;
    let client = clients.connected()?;
    if clients.echo(client, 100)?.is_none() {
        let _ = clients.with_socket(client, |socket| socket.send_out_of_band(b"!"));
    }
    Ok(match clients.echo(client, 100)? {
        Some(broken) => Finding::Broken(Broken {
            sent: "100 bytes, an urgent byte, 100 bytes".to_owned(),
            ..broken
        }),
        None => Finding::Told(
            "it is left out, as by default, and the bytes around it come back".to_owned(),
        ),
    })
}

fn pause_and_resume(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let mut clients = Clients::new(server, trial)?;
    let client = clients.connected()?;
    let total = 4 << 20;
    let state = clients.get(client);
    (state.may_send, state.may_read) = (total, 100_000);
    let pause = Duration::from_millis(trial.effort.pick(500, 2_000, 10_000));
    clients.run_for(pause)?;
    clients.get(client).may_read = u64::MAX;
    // Where both directions are full, the kernels go on at their next timer, and each timer takes twice as long as the last.
    clients
        .stall_timeout
        .set_limit(trial.stall_timeout() * 3 + pause * 2);
    let broken = clients.echo(client, 0)?;
    Ok(Finding::from(broken.map(|broken| Broken {
        sent: format!(
            "{total} bytes by a client that reads 100000, pauses {:.1} s, and reads on",
            pause.as_secs_f64()
        ),
        ..broken
    })))
}

/// Messages that a server with a small buffer echoes in several writes. The last one is short, and waits for the
/// acknowledgement of the first ones if Nagle's algorithm is on.
const SIZES: [u64; 5] = [1_500, 3_000, 5_000, 20_000, 66_000];
/// A delayed acknowledgement comes after 40 ms at the earliest (tcp_delack_min of Linux), and a few more until its timer runs.
const DELAYED_MS: RangeInclusive<u128> = 38..=52;

fn no_40_ms_steps(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let rounds = trial.effort.pick(12, 20, 30);
    for size in SIZES {
        let mut clients = Clients::new(server, trial)?;
        let client = clients.connected()?;
        let mut delayed = 0;
        for _ in 0..rounds {
            let began = Instant::now();
            if clients.echo(client, size)?.is_some() {
                break; // other rules tell of it
            }
            delayed += u32::from(DELAYED_MS.contains(&began.elapsed().as_millis()));
        }
        if delayed * 3 > rounds {
            return Ok(Finding::Broken(Broken {
                sent: format!("{}, {rounds} times", bytes(size)),
                expected: "an answer at once".to_owned(),
                got: format!("{delayed} times the end of the answer came after some 40 ms"),
                is_silence: true,
            }));
        }
    }
    Ok(Finding::holds())
}
