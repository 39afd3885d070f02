//! Stage 3: FIN means that the client sends no more. It may still read.

use crate::check::client::End;
use crate::check::clients::Clients;
use crate::check::finding::{Finding, Limit};
use crate::check::process::Server;
use crate::check::rule::{Level, Needs, Rule, Trial};
use crate::net::connect::ConnectOptions;
use std::time::{Duration, Instant};

const HALF_CLOSE: &str = "mistakes, Half-close";

const PUSH_FIN_READ: &str = r#"python3 -c 'import socket as s; c=s.create_connection(("127.0.0.1",50007)); c.setblocking(0); n=0
try:
  while n<32<<20: n+=c.send(b"x"*65536)
except BlockingIOError: pass
c.shutdown(1); c.settimeout(5); print(n, sum(iter(lambda: len(c.recv(1<<20)),0)))'"#;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "tcp/half-close/after-1MiB",
        level: Level::Must,
        stage: 3,
        asks: "after 1 MiB and FIN everything comes back, and then FIN",
        source: "RFC 9293, 3.6, a half-closed connection; shutdown(2), SHUT_WR",
        by_hand: "head -c 1048576 /dev/zero | nc -N 127.0.0.1 50007 | wc -c",
        guide: HALF_CLOSE,
        mistakes: &["close-with-unsent-bytes", "short-write-ignored"],
        needs: Needs::Stream,
        run: after_1_mib,
    },
    Rule {
        id: "tcp/half-close/data-with-fin",
        level: Level::Must,
        stage: 3,
        asks: "data and FIN in one segment: the data comes back, and then FIN",
        source: "RFC 9293, 3.10.7.4: a segment carries data and FIN; epoll(7): one event for both",
        by_hand: "printf 'last words' | nc -N 127.0.0.1 50007; echo ended",
        guide: "mistakes, Short reads",
        mistakes: &["short-read-hides-fin", "queued-readiness-forgotten"],
        needs: Needs::Tcp,
        run: data_with_fin,
    },
    Rule {
        id: "tcp/half-close/slow-reader",
        level: Level::Must,
        stage: 3,
        asks: "a client that has sent FIN and reads slowly gets every byte, and then FIN",
        source: "RFC 9293, 3.6: data is delivered in the other direction until that is closed too",
        by_hand: r#"python3 -c 'import socket as s,time; c=s.create_connection(("127.0.0.1",50007)); c.sendall(b"x"*99999); c.shutdown(1); time.sleep(1); print(sum(iter(lambda: len(c.recv(999)),0)))'"#,
        guide: HALF_CLOSE,
        mistakes: &["close-with-unsent-bytes"],
        needs: Needs::Stream,
        run: slow_reader,
    },
    Rule {
        id: "tcp/half-close/unsent-bytes",
        level: Level::Must,
        stage: 3,
        asks: "a client that pushes until nothing is taken, sends FIN and only then reads gets every byte, and then FIN",
        source: "RFC 9293, 3.6; send(2): what was not taken is still to be sent, also after the peer's FIN",
        by_hand: PUSH_FIN_READ,
        guide: HALF_CLOSE,
        mistakes: &["close-with-unsent-bytes"],
        needs: Needs::Stream,
        run: unsent_bytes,
    },
    Rule {
        id: "tcp/half-close/fin-alone",
        level: Level::Must,
        stage: 3,
        asks: "FIN without data is answered by FIN",
        source: "RFC 862: data is sent back until the calling user terminates the connection",
        by_hand: "nc -N 127.0.0.1 50007 </dev/null; echo ended",
        guide: "mistakes, `Ok(0)`",
        mistakes: &[],
        needs: Needs::Stream,
        run: fin_alone,
    },
    Rule {
        id: "tcp/half-close/silence-is-no-end",
        level: Level::Must,
        stage: 3,
        asks: "a silent connection stays open: the client ends it, not the server",
        source: "RFC 862: until the calling user terminates the connection",
        by_hand: "(sleep 10; echo still here) | nc -N 127.0.0.1 50007",
        guide: "mistakes, Idleness after a pause",
        mistakes: &["idle-before-heard"],
        needs: Needs::Stream,
        run: silence_is_no_end,
    },
];

fn after_1_mib(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let mut clients = Clients::new(server, trial)?;
    let client = clients.connected()?;
    let state = clients.get(client);
    (state.may_send, state.fin_at) = (1 << 20, Some(1 << 20));
    clients.echo_and_fin(client).map(Finding::from)
}

fn data_with_fin(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let mut clients = Clients::new(server, trial)?;
    for round in 0..40 {
        // The long ones are more than a server reads at a time: FIN is told of before the last byte is read.
        let total = [100, 100_000][round % 2];
        let client = clients.connected()?;
        // Corked, the data waits for more; FIN takes it along (tcp(7), TCP_CORK).
        let _ = clients.with_socket(client, |socket| socket.set_tcp_cork(true));
        let state = clients.get(client);
        (state.may_send, state.fin_at) = (total, Some(total));
        if let Some(broken) = clients.echo_and_fin(client)? {
            return Ok(Finding::Broken(broken));
        }
    }
    Ok(Finding::holds())
}

fn slow_reader(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let total: u64 = trial.effort.pick(512 << 10, 1 << 20, 2 << 20);
    let mut clients = Clients::new(server, trial)?;
    let client = clients.connected()?;
    let state = clients.get(client);
    (state.may_send, state.fin_at, state.may_read) = (total, Some(total), 0);
    while clients.get(client).may_read < total && !clients.get(client).is_over() {
        clients.get(client).may_read += 16 << 10;
        clients.run_for(Duration::from_millis(5))?;
    }
    clients.get(client).may_read = u64::MAX;
    // While the client did not read, the kernels have become slow: a closed window is probed ever more rarely (RFC 9293, 3.8.6.1).
    clients.stall_timeout.set_limit(trial.stall_timeout() * 3);
    clients.echo_and_fin(client).map(Finding::from)
}

/// Segments as on Ethernet. With the long ones of the loopback the kernel's buffers are so large that a server's writes hardly
/// ever come short, and that FIN cannot overtake what waits in them.
const ETHERNET: ConnectOptions = ConnectOptions {
    source: None,
    receive_buffer: None,
    segment_size: Some(1_448),
};

fn unsent_bytes(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let mut clients = Clients::new(server, trial)?;
    let client = clients.connect_with(&ETHERNET)?;
    clients.wait_for_connect(client)?;
    let state = clients.get(client);
    (state.may_send, state.may_read) = (32 << 20, 0);
    clients.run_until_quiet()?;
    let state = clients.get(client);
    let pushed = state.sent;
    (state.may_send, state.fin_at) = (pushed, Some(pushed));
    let step = trial.effort.pick(64 << 10, 16 << 10, 16 << 10);
    while clients.get(client).may_read < pushed && !clients.get(client).is_over() {
        clients.get(client).may_read += step;
        clients.run_for(Duration::from_millis(1))?;
    }
    clients.get(client).may_read = u64::MAX;
    clients.stall_timeout.set_limit(trial.stall_timeout() * 3);
    clients.echo_and_fin(client).map(Finding::from)
}

fn fin_alone(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let mut clients = Clients::new(server, trial)?;
    let client = clients.connected()?;
    clients.get(client).fin_at = Some(0);
    clients.echo_and_fin(client).map(Finding::from)
}

fn silence_is_no_end(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let silence = Duration::from_millis(trial.effort.pick(500, 3_000, 10_000));
    let mut clients = Clients::new(server, trial)?;
    let client = clients.connected()?;
    let began = Instant::now();
    let mut broken = clients.echo(client, 10)?;
    clients.run_for(silence)?;
    if broken.is_none() && clients.get(client).end == Some(End::Fin) {
        let sent = format!(
            "10 bytes, then nothing for {:.1} s",
            began.elapsed().as_secs_f64()
        );
        broken = Some(
            clients
                .get(client)
                .broken(sent, "an open connection", silence),
        );
    }
    if broken.is_none() {
        broken = clients.echo(client, 10)?;
    }
    Ok(Finding::from(broken))
}
