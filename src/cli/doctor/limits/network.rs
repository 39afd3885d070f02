//! Limits of the network: ports, connection tracking, the queues of a listener, and TIME_WAIT.

use super::super::args::Question;
use super::super::row::{Row, Unit, Verdict};
use super::super::system::Machine;
use crate::cli::units::grouped;

/// How long the address and port of the side that closed first stay in use, in seconds (tcp(7), TIME_WAIT).
const TIME_WAIT: u64 = 60;
/// Two addresses and two ports identify a connection, and the client may vary its own two.
pub(super) fn tuples(machine: &Machine, asked: &Question) -> Row {
    let pairs = machine.ports.map(|ports| {
        ports
            .saturating_mul(asked.sources)
            .saturating_mul(asked.targets)
    });
    let ports = machine.ports.unwrap_or(28_232).max(1);
    let sources = asked.connections.div_ceil(ports * asked.targets);
    Row::new(
        "tuples",
        "source addresses x ports x targets",
        Unit::Pairs,
        pairs,
        asked.connections,
    )
    .holds(pairs, asked.connections)
    .note(format!(
        "{} x {} x {}",
        grouped(asked.sources),
        grouped(ports),
        grouped(asked.targets)
    ))
    .fix(
        format!(
            "bench --source 127.0.0.0/16 (to a server on this machine; {sources} addresses are enough), or more targets"
        ),
        "elsewhere: 'ip addr add' for more addresses; and \
         echo 'net.ipv4.ip_local_port_range = 1024 65535' | sudo tee -a /etc/sysctl.d/90-echo-reactor.conf",
    )
}

/// Connection tracking has a table of all connections of the machine, and drops packets when it is full.
pub(super) fn conntrack(machine: &Machine, asked: &Question) -> Row {
    let used = machine.conntrack_used.unwrap_or(0);
    let needed = used + asked.connections + asked.churn * TIME_WAIT;
    let row = Row::new(
        "conntrack",
        "connections that the firewall tracks",
        Unit::Entries,
        machine.conntrack_max,
        needed,
    );
    match machine.conntrack_max {
        None => Row {
            verdict: Verdict::Fits,
            ..row
        }
        .note("no connection tracking here"),
        // Loaded, and yet tracking nothing: no rule of the firewall asks for it.
        Some(_) if used == 0 => row.note("loaded, but tracks nothing now: no rule asks for it"),
        Some(most) => row
            .holds(
                Some(most.saturating_sub(used + asked.churn * TIME_WAIT)),
                asked.connections,
            )
            .note(format!(
                "{} are tracked now; a full table drops packets",
                grouped(used)
            ))
            .sysctl("net.netfilter.nf_conntrack_max", needed.next_power_of_two()),
    }
}

pub(super) fn accept_queue(machine: &Machine, asked: &Question) -> Row {
    let enough = machine
        .somaxconn
        .is_some_and(|places| places >= asked.burst);
    let note = match machine.abort_on_overflow {
        Some(1) => "a client that finds it full is reset (tcp_abort_on_overflow)",
        _ => "a client that finds it full tries again after 1 s",
    };
    Row::new(
        "somaxconn",
        "the accept queue, for a burst of new connections",
        Unit::Places,
        machine.somaxconn,
        asked.burst,
    )
    .unless(enough, Verdict::Slows)
    .note(note)
    .sysctl("net.core.somaxconn", asked.burst.next_power_of_two())
}

pub(super) fn handshakes(machine: &Machine, asked: &Question) -> Row {
    let cookies = machine.syn_cookies.unwrap_or(0) > 0;
    // Without SYN cookies the kernel keeps the last quarter for peers that it knows.
    let places = machine.syn_backlog.map(|places| places - places / 4);
    let enough = cookies || places.is_some_and(|places| places >= asked.burst);
    let note = match cookies {
        true => "SYN cookies take over when it is full",
        false => "no SYN cookies: a client that finds it full tries again after 1 s",
    };
    Row::new(
        "syn_backlog",
        "handshakes under way",
        Unit::Places,
        machine.syn_backlog,
        asked.burst,
    )
    .unless(enough, Verdict::Slows)
    .note(note)
    .sysctl(
        "net.ipv4.tcp_max_syn_backlog",
        (2 * asked.burst).next_power_of_two(),
    )
}

/// The pair of address and port of the side that closed first stays in use for a minute; where the kernel may reuse it,
/// for a second.
pub(super) fn time_wait_ports(machine: &Machine, asked: &Question) -> Option<Row> {
    if !asked.role.connects() {
        return None;
    }
    let here = asked.role.serves();
    let (seconds, note) = match machine.time_wait_reuse {
        Some(1) => (1, "reused after 1 s (tcp_tw_reuse = 1)"),
        Some(2) if here => (1, "reused after 1 s on loopback (tcp_tw_reuse = 2)"),
        _ => (TIME_WAIT, "a pair that has closed first is taken for 60 s"),
    };
    let pairs = machine.ports.map(|ports| {
        ports
            .saturating_mul(asked.sources)
            .saturating_mul(asked.targets)
    });
    let current = pairs.map(|pairs| pairs.saturating_sub(asked.connections) / seconds);
    Some(
        Row::new(
            "time_wait_ports",
            "new connections before ports run out",
            Unit::PerSecond,
            current,
            asked.churn,
        )
        .unless(
            current.is_some_and(|current| current >= asked.churn),
            Verdict::Short,
        )
        .note(note)
        .fix(
            "bench --churn rst (a reset leaves no TIME_WAIT), or more --source addresses",
            "echo 'net.ipv4.tcp_tw_reuse = 1' | sudo tee -a /etc/sysctl.d/90-echo-reactor.conf",
        ),
    )
}

pub(super) fn time_wait_buckets(machine: &Machine, asked: &Question) -> Row {
    let current = machine.time_wait_buckets.map(|most| most / TIME_WAIT);
    Row::new(
        "time_wait_buckets",
        "closed connections that are remembered",
        Unit::PerSecond,
        current,
        asked.churn,
    )
    .unless(
        current.is_some_and(|current| current >= asked.churn),
        Verdict::Slows,
    )
    .note("beyond it the kernel forgets them early, and says so in its log")
    .sysctl(
        "net.ipv4.tcp_max_tw_buckets",
        (asked.churn * TIME_WAIT).next_power_of_two(),
    )
}
