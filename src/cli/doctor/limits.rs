//! The limits that very many connections meet: the value of each, and what is asked of it.
//!
//! What may live in this file: those numbers. What may not: texts (they are in `limits.txt`), reading (the values are in
//! [`Machine`] already), the arithmetic (that of [`Demand`]), and printing.

use super::args::{DoctorArgs, Role};
use super::row::{Demand, Row, Verdict};
use super::system::Machine;
use crate::cli::units::grouped;

/// Descriptors that a process needs besides its connections; the server keeps as many in reserve.
const DESCRIPTORS_RESERVED: u64 = 32;
/// Kernel memory of one end of an idle TCP connection, in bytes, where it cannot be counted: five objects of Linux 6 on
/// 64 bits (socket, inode, file, directory entry, epoll's item), with the padding between them.
const KERNEL_BYTES: u64 = 4_000;
/// Memory of this program for an idle connection, in bytes: for `serve` a slot of 48 and a share of the tables, for
/// `bench` the state of a client. Both were measured as RSS over 15,000 connections.
const SERVER_BYTES: u64 = 64;
const CLIENT_BYTES: u64 = 220;
/// The unit of socket buffers, in bytes: data on its way takes at least one page at either end.
const PAGE: u64 = 4096;
/// How long the address and port of the side that closed first stay in use, in seconds (tcp(7), TIME_WAIT).
const TIME_WAIT: u64 = 60;

/// Compares every limit with what is asked. Limits that are too low come first, the lowest at the top; limits that do not
/// bound the number of connections come last.
pub(super) fn assess(machine: &Machine, asked: &DoctorArgs) -> Vec<Row> {
    let mut rows = files(machine, asked);
    if asked.role.connects() {
        rows.push(tuples(machine, asked));
    }
    rows.extend(memory(machine, asked));
    if asked.role.serves() {
        rows.extend(queues(machine, asked));
    }
    if asked.churn > 0 {
        rows.extend(time_wait(machine, asked));
    }
    // The sort is stable: of limits that are reached together, the one that comes first above is the one to raise first.
    rows.sort_by_key(|row| (row.verdict != Verdict::Short, row.holds.unwrap_or(u64::MAX)));
    rows
}

/// The limit that bounds how many connections the machine holds as it is.
pub(super) fn bottleneck(rows: &[Row]) -> Option<&Row> {
    rows.iter()
        .filter(|row| row.holds.is_some())
        .min_by_key(|row| row.holds)
}

/// Descriptors: of the process with the most connections (a server is one, and the clients of `bench` may be several), and
/// of the whole machine.
fn files(machine: &Machine, asked: &DoctorArgs) -> Vec<Row> {
    let row = |id, current, demand| Row::new(id, current, demand, asked.connections);
    let (ends, open) = (asked.role.ends(), machine.files_open.unwrap_or(0));
    let of_process = Demand::PerProcess {
        used: DESCRIPTORS_RESERVED,
        processes: match asked.role {
            Role::Server => asked.server_workers,
            Role::Client => asked.workers,
            Role::Both => asked.server_workers.min(asked.workers),
        },
        is_hashed: asked.role.serves() && asked.server_workers > 1,
    };
    let of_machine = |used| Demand::PerHundred {
        used,
        count: 100 * ends,
    };
    let open_then = of_machine(open + DESCRIPTORS_RESERVED * ends);
    vec![
        row("descriptors_hard", machine.descriptors_hard, of_process)
            .variant(machine.may_raise == Some(false), "bound"),
        row("descriptors_soft", machine.descriptors_soft, of_process).or(Verdict::Raised),
        row("nr_open", machine.nr_open, of_process),
        row("file_max", machine.files_max, open_then).word("open", grouped(open)),
        row("epoll_watches", machine.epoll_watches, of_machine(0)),
    ]
}

/// Two addresses and two ports identify a connection, and the client may vary its own two.
fn pairs(machine: &Machine, asked: &DoctorArgs) -> Option<u64> {
    let ports = machine.ports?.saturating_mul(asked.sources);
    Some(ports.saturating_mul(asked.targets))
}

fn tuples(machine: &Machine, asked: &DoctorArgs) -> Row {
    let ports = machine.ports.unwrap_or(28_232).max(1);
    let enough = asked.connections.div_ceil(ports * asked.targets);
    let [sources, many, targets] = [asked.sources, ports, asked.targets].map(grouped);
    let one_each = Demand::PerHundred {
        used: 0,
        count: 100,
    };
    Row::new("tuples", pairs(machine, asked), one_each, asked.connections)
        .word("pairs", format!("{sources} x {many} x {targets}"))
        .word("sources", enough.to_string())
}

/// Memory of the machine, of its TCP buffers and of its table of tracked connections, and of the control groups of this
/// process.
fn memory(machine: &Machine, asked: &DoctorArgs) -> Vec<Row> {
    let row = |id, current, demand| Row::new(id, current, demand, asked.connections);
    let kernel = machine.kernel_bytes.unwrap_or(KERNEL_BYTES);
    let each = u64::from(asked.role.serves()) * (kernel + SERVER_BYTES)
        + u64::from(asked.role.connects()) * (kernel + CLIENT_BYTES);
    let pages = asked.active_percent * asked.role.ends();
    let per_hundred = |used, count| Demand::PerHundred { used, count };
    let bytes = per_hundred(0, 100 * each + pages * PAGE);
    let buffers = per_hundred(machine.tcp_mem_used.unwrap_or(0), pages);
    let low = buffers.of(asked.connections).next_power_of_two();
    let pinned = match (machine.receive_max, machine.send_max) {
        (Some(receive), Some(send)) => {
            let mebibytes = (receive + send) >> 20;
            format!("; a peer that sends and never reads may pin {mebibytes} MiB more")
        }
        _ => String::new(),
    };
    let mut rows = vec![
        row("memory", machine.memory_available, bytes)
            .variant(machine.kernel_bytes.is_none(), "estimated")
            .word("each", grouped(each))
            .word("pinned", pinned),
        row(
            "tcp_mem",
            machine.tcp_mem.map(|[_, pressure, _]| pressure),
            buffers,
        )
        .word("percent", asked.active_percent.to_string())
        .word("value", format!("{low} {} {}", 2 * low, 4 * low)),
        conntrack(machine, asked),
    ];
    if let Some(left) = machine.group_memory_left {
        let mebibytes = (bytes.of(asked.connections) >> 20) + 64;
        rows.push(row("cgroup_memory", Some(left), bytes).word("mebibytes", mebibytes.to_string()));
    }
    if let Some(left) = machine.group_tcp_left {
        rows.push(row("cgroup_tcp", Some(left), per_hundred(0, pages * PAGE)));
    }
    rows
}

/// Connection tracking has a table of all connections of the machine, and drops packets when it is full. Where it is
/// loaded and yet tracks nothing, no rule of the firewall asks for it.
fn conntrack(machine: &Machine, asked: &DoctorArgs) -> Row {
    let tracked = machine.conntrack_used.unwrap_or(0);
    let demand = Demand::PerHundred {
        used: tracked + asked.churn * TIME_WAIT,
        count: 100,
    };
    let is_in_use = machine.conntrack_max.is_some() && tracked > 0;
    let demand = match is_in_use {
        true => demand,
        false => Demand::Told(demand.of(asked.connections)),
    };
    Row::new(
        "conntrack",
        machine.conntrack_max,
        demand,
        asked.connections,
    )
    .variant(!is_in_use, "unused")
    .variant(machine.conntrack_max.is_none(), "absent")
    .word("tracked", grouped(tracked))
}

/// The queues of a listener, which a burst of new connections fills.
fn queues(machine: &Machine, asked: &DoctorArgs) -> [Row; 2] {
    let burst = Demand::Fixed(asked.burst);
    let row = |id, current, demand| Row::new(id, current, demand, 0).or(Verdict::Slows);
    let has_cookies = machine.syn_cookies.unwrap_or(0) > 0;
    // Without SYN cookies the kernel keeps the last quarter for peers that it knows.
    let (places, handshakes) = match has_cookies {
        true => (machine.syn_backlog, Demand::Told(asked.burst)),
        false => (machine.syn_backlog.map(|places| places - places / 4), burst),
    };
    [
        row("somaxconn", machine.somaxconn, burst)
            .variant(machine.abort_on_overflow == Some(1), "abort"),
        row("syn_backlog", places, handshakes)
            .variant(has_cookies, "cookies")
            .word("value", (2 * asked.burst).next_power_of_two().to_string()),
    ]
}

/// The pair of address and port of the side that closed first stays in use for a minute; where the kernel may reuse it,
/// for a second.
fn time_wait(machine: &Machine, asked: &DoctorArgs) -> Vec<Row> {
    let churn = Demand::Fixed(asked.churn);
    let reused = machine.time_wait_reuse == Some(1);
    let loopback = machine.time_wait_reuse == Some(2) && asked.role.serves();
    let seconds = if reused || loopback { 1 } else { TIME_WAIT };
    let ports =
        pairs(machine, asked).map(|pairs| pairs.saturating_sub(asked.connections) / seconds);
    let buckets = machine.time_wait_buckets.map(|most| most / TIME_WAIT);
    let ports = Row::new("time_wait_ports", ports, churn, 0)
        .variant(reused, "reused")
        .variant(loopback, "loopback");
    let buckets = Row::new("time_wait_buckets", buckets, churn, 0)
        .or(Verdict::Slows)
        .word(
            "value",
            (asked.churn * TIME_WAIT).next_power_of_two().to_string(),
        );
    let ports = asked.role.connects().then_some(ports);
    ports.into_iter().chain([buckets]).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A typical machine some years old, with the defaults of its distribution.
    pub(in crate::cli::doctor) fn usual() -> Machine {
        Machine {
            descriptors_soft: Some(1024),
            descriptors_hard: Some(20_000),
            may_raise: Some(false),
            nr_open: Some(1_048_576),
            files_open: Some(600),
            files_max: Some(2_466_177),
            epoll_watches: Some(5_491_511),
            ports: Some(28_232),
            somaxconn: Some(4096),
            syn_backlog: Some(2048),
            syn_cookies: Some(1),
            time_wait_buckets: Some(131_072),
            time_wait_reuse: Some(2),
            tcp_mem: Some([287_901, 383_868, 575_802]),
            tcp_mem_used: Some(148),
            memory_available: Some(23 << 30),
            ..Machine::default()
        }
    }

    pub(in crate::cli::doctor) fn asked(connections: u64, role: Role) -> DoctorArgs {
        DoctorArgs {
            connections,
            role,
            server_workers: 1,
            workers: 1,
            sources: 1,
            targets: 1,
            burst: 1_000,
            churn: 0,
            active_percent: 10,
            json: false,
        }
    }

    fn row(rows: &[Row], id: &str) -> Row {
        rows.iter().find(|row| row.id == id).unwrap().clone()
    }

    #[test]
    fn the_bottleneck_comes_first() {
        let rows = assess(&usual(), &asked(1_000_000, Role::Server));
        assert_eq!(
            (rows[0].id, rows[0].holds),
            ("descriptors_hard", Some(19_968))
        );
        assert_eq!(rows[0].verdict, Verdict::Short);
        assert!(
            rows[0].fix().unwrap().0.contains("1000032"),
            "{:?}",
            rows[0]
        );
        assert!(rows[0].note().contains("CAP_SYS_RESOURCE"));
        assert_eq!(
            bottleneck(&rows).map(|row| row.id),
            Some("descriptors_hard")
        );
        let short = rows.iter().filter(|row| row.verdict == Verdict::Short);
        assert_eq!(short.count(), 1, "a million fit but for that: {rows:#?}");
    }

    #[test]
    fn a_limit_that_is_high_enough_needs_no_command() {
        let rows = assess(&usual(), &asked(10_000, Role::Server));
        for row in rows {
            let wanted = match row.id {
                "descriptors_soft" => Verdict::Raised,
                _ => Verdict::Fits,
            };
            assert_eq!(row.verdict, wanted, "{row:?}");
            assert_eq!(row.fix(), None, "{row:?}");
        }
    }

    #[test]
    fn a_client_is_bounded_by_its_tuples_and_shared_among_workers() {
        let mut question = asked(50_000, Role::Client);
        question.workers = 3;
        let rows = assess(&usual(), &question);
        assert_eq!(row(&rows, "descriptors_hard").holds, Some(59_904));
        let tuples = row(&rows, "tuples");
        assert_eq!(
            (tuples.verdict, tuples.holds),
            (Verdict::Short, Some(28_232))
        );
        assert!(
            tuples.fix().unwrap().0.contains("2 addresses are enough"),
            "{tuples:?}"
        );
        question.sources = 2;
        let rows = assess(&usual(), &question);
        assert_eq!(row(&rows, "tuples").verdict, Verdict::Fits);
    }

    /// 20,000 descriptors of each: four workers that a hash divides hold less than four times as many connections as one.
    #[test]
    fn the_busiest_worker_of_a_server_decides() {
        let mut question = asked(70_000, Role::Server);
        assert_eq!(
            row(&assess(&usual(), &question), "descriptors_hard").holds,
            Some(19_968)
        );
        question.server_workers = 4;
        let rows = assess(&usual(), &question);
        let hard = row(&rows, "descriptors_hard");
        assert_eq!(hard.needed, 32 + 17_500 + 265); // 265 = 2 sqrt(17,500)
        assert_eq!((hard.verdict, hard.holds), (Verdict::Fits, Some(78_748)));
        question.role = Role::Both;
        let rows = assess(&usual(), &question);
        let short = row(&rows, "descriptors_hard");
        assert_eq!(short.verdict, Verdict::Short, "one client has them all");
    }

    #[test]
    fn both_ends_count_twice_where_the_machine_is_shared() {
        let machine = Machine {
            descriptors_hard: Some(2_000_000),
            nr_open: Some(2_000_000),
            ..usual()
        };
        let rows = assess(&machine, &asked(1_300_000, Role::Both));
        let files = row(&rows, "file_max");
        assert_eq!(
            (files.verdict, files.holds),
            (Verdict::Short, Some(1_232_756))
        );
        assert!(files.fix().unwrap().0.contains("fs.file-max"));
        assert_eq!(row(&rows, "descriptors_hard").verdict, Verdict::Fits);
    }

    #[test]
    fn memory_is_that_of_the_tightest_group() {
        let machine = Machine {
            group_memory_left: Some(64 << 20),
            kernel_bytes: Some(3_902),
            ..usual()
        };
        let rows = assess(&machine, &asked(18_000, Role::Server));
        let group = row(&rows, "cgroup_memory");
        assert_eq!(group.verdict, Verdict::Short);
        let holds = group.holds.unwrap();
        let bytes = holds * (3_902 + 64) + holds / 10 * 4_096;
        assert!(bytes <= 64 << 20 && bytes + 8_192 > 64 << 20, "{bytes}");
        assert!(row(&rows, "memory").note().contains("counted"));
    }

    #[test]
    fn a_full_conntrack_table_is_a_limit_and_an_unused_one_is_none() {
        let machine = |used| Machine {
            conntrack_max: Some(15_000),
            conntrack_used: Some(used),
            ..usual()
        };
        let rows = assess(&machine(0), &asked(18_000, Role::Server));
        assert_eq!(row(&rows, "conntrack").verdict, Verdict::Fits);
        let rows = assess(&machine(100), &asked(18_000, Role::Server));
        let full = row(&rows, "conntrack");
        assert_eq!((full.verdict, full.holds), (Verdict::Short, Some(14_900)));
    }

    #[test]
    fn a_burst_or_a_churn_beyond_the_queues_is_reported() {
        let machine = Machine {
            syn_cookies: Some(0),
            ..usual()
        };
        let mut question = asked(1_000, Role::Both);
        (question.burst, question.churn) = (10_000, 40_000);
        let rows = assess(&machine, &question);
        assert_eq!(row(&rows, "somaxconn").verdict, Verdict::Slows);
        assert_eq!(row(&rows, "syn_backlog").verdict, Verdict::Slows);
        assert_eq!(row(&rows, "time_wait_ports").current, Some(27_232));
        assert_eq!(row(&rows, "time_wait_ports").verdict, Verdict::Short);
        assert_eq!(row(&rows, "time_wait_buckets").verdict, Verdict::Slows);
        question.role = Role::Client;
        let rows = assess(&machine, &question);
        assert_eq!(
            row(&rows, "time_wait_ports").current,
            Some(453),
            "the server is elsewhere"
        );
    }

    #[test]
    fn a_limit_that_cannot_be_read_is_unknown_and_never_a_no() {
        for row in assess(&Machine::default(), &asked(1_000_000, Role::Both)) {
            assert_ne!(row.verdict, Verdict::Short, "{row:?}");
        }
    }

    #[test]
    fn every_text_is_filled_in() {
        let low = Machine {
            conntrack_max: Some(2),
            conntrack_used: Some(1),
            group_memory_left: Some(1),
            group_tcp_left: Some(1),
            somaxconn: Some(1),
            time_wait_buckets: Some(1),
            ports: Some(1),
            ..usual()
        };
        let mut question = asked(3_000_000_000, Role::Both);
        (question.churn, question.burst) = (40_000, 10_000);
        for row in assess(&low, &question) {
            let (now, permanently) = row.fix().unwrap_or_default();
            let texts = [row.limit(), row.unit(), &row.note(), &now, &permanently].join(" ");
            assert!(!texts.contains(['{', '}']), "{texts}");
            let is_fixed = matches!(row.verdict, Verdict::Short | Verdict::Slows);
            assert_eq!(
                is_fixed,
                !now.is_empty() && !permanently.is_empty(),
                "{row:?}"
            );
        }
    }
}
