//! The limits that very many connections meet: the value of each, and what is asked of it.
//!
//! What may live in this file: those numbers. What may not: texts (they are in `limits.txt`), reading ([`Machine`] does
//! that), the arithmetic (that of [`Demand`]), and printing.

use super::args::{DoctorArgs, Role};
use super::row::{Demand, Limit, Row, Share, Verdict};
use super::system::Machine;
use crate::cli::templates;
use minijinja::context;

/// CAP_SYS_RESOURCE of capabilities(7): may raise a hard limit.
const CAP_SYS_RESOURCE: u32 = 24;
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
///
/// # Errors
/// A text is no template, for the reason that is returned.
pub(super) fn assess(machine: Machine<'_>, asked: &DoctorArgs) -> Result<Vec<Row>, String> {
    let templates = templates::environment()?;
    let mut limits = files(machine, asked);
    if asked.role.connects() {
        limits.push(tuples(machine, asked));
    }
    limits.extend(memory(machine, asked));
    if asked.role.serves() {
        limits.extend(queues(machine, asked));
    }
    if asked.churn > 0 {
        limits.extend(time_wait(machine, asked));
    }
    let row = |limit: Limit| limit.row(asked.connections, &templates);
    let rows: Result<Vec<Row>, _> = limits.into_iter().map(row).collect();
    let mut rows = rows.map_err(|error| error.to_string())?;
    // The sort is stable: of limits that are reached together, the one that comes first above is the one to raise first.
    let holds = |row: &Row| row.holds_connections.unwrap_or(u64::MAX);
    rows.sort_by_key(|row| (row.verdict != Verdict::Short, holds(row)));
    Ok(rows)
}

/// Descriptors: of the process with the most connections (a server is one, and the clients of `bench` may be several), and
/// of the whole machine.
fn files(machine: Machine<'_>, asked: &DoctorArgs) -> Vec<Limit> {
    let of_process = Demand::Share(Share {
        used: DESCRIPTORS_RESERVED,
        count: 1,
        connections: match asked.role {
            Role::Server => asked.server_workers,
            Role::Client => asked.workers,
            Role::Both => asked.server_workers.min(asked.workers),
        },
        is_hashed: asked.role.serves() && asked.server_workers > 1,
    });
    let ends = asked.role.ends();
    let open = machine.tree.number("proc/sys/fs/file-nr").unwrap_or(0);
    let used = open + DESCRIPTORS_RESERVED * ends;
    let of_machine = |used| Demand::per_hundred(used, 100 * ends);
    let (soft, hard) = machine.descriptors.unzip();
    let is_bound = machine.tree.has_capability(CAP_SYS_RESOURCE) == Some(false);
    vec![
        Limit::new("descriptors_hard", hard, of_process).with(context! { is_bound }),
        Limit::new("descriptors_soft", soft, of_process).or(Verdict::Raised),
        Limit::of_sysctl(machine, "nr_open", of_process),
        Limit::of_sysctl(machine, "file_max", of_machine(used)).with(context! { open }),
        Limit::of_sysctl(machine, "epoll_watches", of_machine(0)),
    ]
}

/// Two addresses and two ports identify a connection, and the client may vary its own two.
fn pairs(machine: Machine<'_>, asked: &DoctorArgs) -> Option<u64> {
    let ports = machine.tree.ports()?.saturating_mul(asked.sources);
    Some(ports.saturating_mul(asked.targets))
}

fn tuples(machine: Machine<'_>, asked: &DoctorArgs) -> Limit {
    let ports = machine.tree.ports().unwrap_or(28_232).max(1);
    let (sources, targets) = (asked.sources, asked.targets);
    let enough = asked.connections.div_ceil(ports * targets);
    Limit::new("tuples", pairs(machine, asked), Demand::per_hundred(0, 100))
        .with(context! { sources, ports, targets, enough })
}

/// Memory of the machine, of its TCP buffers and of its table of tracked connections, and of the control groups of this
/// process.
fn memory(machine: Machine<'_>, asked: &DoctorArgs) -> Vec<Limit> {
    let tree = machine.tree;
    let counted = tree.kernel_bytes();
    let kernel = counted.unwrap_or(KERNEL_BYTES);
    let each = u64::from(asked.role.serves()) * (kernel + SERVER_BYTES)
        + u64::from(asked.role.connects()) * (kernel + CLIENT_BYTES);
    let pages = asked.active_percent * asked.role.ends();
    let bytes = Demand::per_hundred(0, 100 * each + pages * PAGE);
    let buffers = Demand::per_hundred(tree.tcp_buffer_pages().unwrap_or(0), pages);
    let low = buffers.of(asked.connections).next_power_of_two();
    // The most that one socket's buffers may grow to.
    let most = ["net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"].map(|name| machine.sysctls(name));
    let pinned = match [most[0].get(2), most[1].get(2)] {
        [Some(receive), Some(send)] => Some((receive + send) >> 20),
        _ => None,
    };
    // No pressure below the first number of pages, pressure from the second on, and a hard limit at the third.
    let pressure = machine.sysctls("net.ipv4.tcp_mem").get(1).copied();
    let mut limits = vec![
        Limit::new("memory", tree.memory_available(), bytes)
            .with(context! { each, pinned, is_counted => counted.is_some() }),
        Limit::new("tcp_mem", pressure, buffers).with(context! {
            percent => asked.active_percent,
            value => format!("{low} {} {}", 2 * low, 4 * low),
        }),
        conntrack(machine, asked),
    ];
    if let Some(left) = tree.group_memory_left() {
        let mebibytes = (bytes.of(asked.connections) >> 20) + 64;
        let limit = Limit::new("cgroup_memory", Some(left), bytes);
        limits.push(limit.with(context! { mebibytes }));
    }
    // The buffers of TCP alone: control groups of version 1.
    let [most, used] = ["limit", "usage"].map(|end| format!("memory.kmem.tcp.{end}_in_bytes"));
    if let Some(left) = tree.left_in_groups("memory", &most, &used) {
        let bytes = Demand::per_hundred(0, pages * PAGE);
        limits.push(Limit::new("cgroup_tcp", Some(left), bytes));
    }
    limits
}

/// Connection tracking has a table of all connections of the machine, and drops packets when it is full. Where it is
/// loaded and yet tracks nothing, no rule of the firewall asks for it.
fn conntrack(machine: Machine<'_>, asked: &DoctorArgs) -> Limit {
    let count = |name| machine.sysctl(&format!("net.netfilter.nf_conntrack_{name}"));
    let (tracked, is_loaded) = (count("count").unwrap_or(0), count("max").is_some());
    let demand = Demand::per_hundred(tracked + asked.churn * TIME_WAIT, 100);
    let demand = match is_loaded && tracked > 0 {
        true => demand,
        false => Demand::Told(demand.of(asked.connections)),
    };
    Limit::of_sysctl(machine, "conntrack", demand).with(context! { is_loaded, tracked })
}

/// The queues of a listener, which a burst of new connections fills.
fn queues(machine: Machine<'_>, asked: &DoctorArgs) -> [Limit; 2] {
    let burst = Demand::Fixed(asked.burst);
    let limit = |id, demand| Limit::of_sysctl(machine, id, demand).or(Verdict::Slows);
    let aborts = machine.sysctl("net.ipv4.tcp_abort_on_overflow") == Some(1);
    let has_cookies = machine.sysctl("net.ipv4.tcp_syncookies") > Some(0);
    let handshakes = match has_cookies {
        true => limit("syn_backlog", Demand::Told(asked.burst)),
        // The kernel keeps the last quarter for peers that it knows.
        false => limit("syn_backlog", burst).map(|places| places - places / 4),
    };
    let value = (2 * asked.burst).next_power_of_two();
    [
        limit("somaxconn", burst).with(context! { aborts }),
        handshakes.with(context! { has_cookies, value }),
    ]
}

/// The pair of address and port of the side that closed first stays in use for a minute; where the kernel may reuse it,
/// for a second.
fn time_wait(machine: Machine<'_>, asked: &DoctorArgs) -> Vec<Limit> {
    let churn = Demand::Fixed(asked.churn);
    // 0: never, 1: wherever the protocol allows, 2: on loopback.
    let reuse = machine.sysctl("net.ipv4.tcp_tw_reuse");
    let is_reused = reuse == Some(1) || reuse == Some(2) && asked.role.serves();
    let seconds = if is_reused { 1 } else { TIME_WAIT };
    let value = (asked.churn * TIME_WAIT).next_power_of_two();
    let buckets = Limit::of_sysctl(machine, "time_wait_buckets", churn)
        .map(|most| most / TIME_WAIT)
        .or(Verdict::Slows)
        .with(context! { value });
    let ports =
        pairs(machine, asked).map(|pairs| pairs.saturating_sub(asked.connections) / seconds);
    let ports = Limit::new("time_wait_ports", ports, churn).with(context! { is_reused, reuse });
    let ports = asked.role.connects().then_some(ports);
    ports.into_iter().chain([buckets]).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::system::tests::Made;
    use super::*;

    /// A typical machine some years old, with the defaults of its distribution.
    pub(in crate::cli::doctor) fn usual() -> Made {
        Made::of(&[
            ("proc/self/status", "CapEff: 0000000000000000\n"),
            ("proc/sys/fs/nr_open", "1048576\n"),
            ("proc/sys/fs/file-nr", "600\t0\t2466177\n"),
            ("proc/sys/fs/file-max", "2466177\n"),
            ("proc/sys/fs/epoll/max_user_watches", "5491511\n"),
            ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
            ("proc/sys/net/core/somaxconn", "4096\n"),
            ("proc/sys/net/ipv4/tcp_max_syn_backlog", "2048\n"),
            ("proc/sys/net/ipv4/tcp_syncookies", "1\n"),
            ("proc/sys/net/ipv4/tcp_max_tw_buckets", "131072\n"),
            ("proc/sys/net/ipv4/tcp_tw_reuse", "2\n"),
            ("proc/sys/net/ipv4/tcp_mem", "287901\t383868\t575802\n"),
            (
                "proc/net/sockstat",
                "TCP: inuse 1 orphan 0 tw 0 alloc 1 mem 148\n",
            ),
            ("proc/meminfo", "MemAvailable: 24117248 kB\n"),
        ])
    }

    /// The answer for a machine with 20,000 descriptors.
    pub(in crate::cli::doctor) fn answer(made: &Made, asked: &DoctorArgs) -> Vec<Row> {
        assess(made.machine(1_024, 20_000), asked).unwrap()
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

    /// Slabs of which one object of each kind has 3,902 bytes.
    const SLABS: (&str, &str) = (
        "proc/slabinfo",
        "TCP 26 26 2368 13 8 :\nsock_inode_cache 76 76 832 19 4 :\nfilp 819 819 192 21 1 :\n\
         dentry 52470 52521 192 21 1 :\neventpoll_epi 192 192 128 32 1 :\n",
    );

    fn row(rows: &[Row], id: &str) -> Row {
        rows.iter().find(|row| row.id == id).unwrap().clone()
    }

    #[test]
    fn the_bottleneck_comes_first() {
        let rows = answer(&usual(), &asked(1_000_000, Role::Server));
        assert_eq!(
            (rows[0].id, rows[0].holds_connections),
            ("descriptors_hard", Some(19_968))
        );
        assert_eq!(rows[0].verdict, Verdict::Short);
        assert!(
            rows[0].fix_now.as_ref().unwrap().contains("1000032"),
            "{:?}",
            rows[0]
        );
        assert!(rows[0].note.contains("CAP_SYS_RESOURCE"));
        let short = rows.iter().filter(|row| row.verdict == Verdict::Short);
        assert_eq!(short.count(), 1, "a million fit but for that: {rows:#?}");
    }

    #[test]
    fn a_limit_that_is_high_enough_needs_no_command() {
        let rows = answer(&usual(), &asked(10_000, Role::Server));
        for row in rows {
            let wanted = match row.id {
                "descriptors_soft" => Verdict::Raised,
                _ => Verdict::Fits,
            };
            assert_eq!(row.verdict, wanted, "{row:?}");
            assert_eq!(row.fix_now, None, "{row:?}");
        }
    }

    #[test]
    fn a_client_is_bounded_by_its_tuples_and_shared_among_workers() {
        let mut question = asked(50_000, Role::Client);
        question.workers = 3;
        let rows = answer(&usual(), &question);
        assert_eq!(
            row(&rows, "descriptors_hard").holds_connections,
            Some(59_904)
        );
        let tuples = row(&rows, "tuples");
        assert_eq!(
            (tuples.verdict, tuples.holds_connections),
            (Verdict::Short, Some(28_232))
        );
        assert!(
            tuples
                .fix_now
                .as_ref()
                .unwrap()
                .contains("2 addresses are enough"),
            "{tuples:?}"
        );
        question.sources = 2;
        let rows = answer(&usual(), &question);
        assert_eq!(row(&rows, "tuples").verdict, Verdict::Fits);
    }

    /// 20,000 descriptors of each: four workers that a hash divides hold less than four times as many connections as one.
    #[test]
    fn the_busiest_worker_of_a_server_decides() {
        let mut question = asked(70_000, Role::Server);
        assert_eq!(
            row(&answer(&usual(), &question), "descriptors_hard").holds_connections,
            Some(19_968)
        );
        question.server_workers = 4;
        let rows = answer(&usual(), &question);
        let hard = row(&rows, "descriptors_hard");
        assert_eq!(hard.needed, 32 + 17_500 + 265); // 265 = 2 sqrt(17,500)
        assert_eq!(
            (hard.verdict, hard.holds_connections),
            (Verdict::Fits, Some(78_748))
        );
        question.role = Role::Both;
        let rows = answer(&usual(), &question);
        let short = row(&rows, "descriptors_hard");
        assert_eq!(short.verdict, Verdict::Short, "one client has them all");
    }

    #[test]
    fn both_ends_count_twice_where_the_machine_is_shared() {
        let made = usual().with(&[("proc/sys/fs/nr_open", "2000000\n")]);
        let rows = assess(
            made.machine(1_024, 2_000_000),
            &asked(1_300_000, Role::Both),
        )
        .unwrap();
        let files = row(&rows, "file_max");
        assert_eq!(
            (files.verdict, files.holds_connections),
            (Verdict::Short, Some(1_232_756))
        );
        assert!(files.fix_now.as_ref().unwrap().contains("fs.file-max"));
        assert_eq!(row(&rows, "descriptors_hard").verdict, Verdict::Fits);
    }

    #[test]
    fn memory_is_that_of_the_tightest_group() {
        let made = usual().with(&[
            SLABS,
            ("proc/self/cgroup", "0::/a\n"),
            ("sys/fs/cgroup/a/memory.max", "67108864\n"),
        ]);
        let rows = answer(&made, &asked(18_000, Role::Server));
        let group = row(&rows, "cgroup_memory");
        assert_eq!(group.verdict, Verdict::Short);
        let holds = group.holds_connections.unwrap();
        let bytes = holds * (3_902 + 64) + holds / 10 * 4_096;
        assert!(bytes <= 64 << 20 && bytes + 8_192 > 64 << 20, "{bytes}");
        assert!(row(&rows, "memory").note.contains("counted"));
    }

    #[test]
    fn a_full_conntrack_table_is_a_limit_and_an_unused_one_is_none() {
        let made = |used| {
            usual().with(&[
                ("proc/sys/net/netfilter/nf_conntrack_max", "15000\n"),
                ("proc/sys/net/netfilter/nf_conntrack_count", used),
            ])
        };
        let rows = answer(&made("0"), &asked(18_000, Role::Server));
        assert_eq!(row(&rows, "conntrack").verdict, Verdict::Fits);
        let rows = answer(&made("100"), &asked(18_000, Role::Server));
        let full = row(&rows, "conntrack");
        assert_eq!(
            (full.verdict, full.holds_connections),
            (Verdict::Short, Some(14_900))
        );
    }

    #[test]
    fn a_burst_or_a_churn_beyond_the_queues_is_reported() {
        let made = usual().with(&[("proc/sys/net/ipv4/tcp_syncookies", "0\n")]);
        let mut question = asked(1_000, Role::Both);
        (question.burst, question.churn) = (10_000, 40_000);
        let rows = answer(&made, &question);
        assert_eq!(row(&rows, "somaxconn").verdict, Verdict::Slows);
        assert_eq!(row(&rows, "syn_backlog").verdict, Verdict::Slows);
        assert_eq!(row(&rows, "time_wait_ports").current, Some(27_232));
        assert_eq!(row(&rows, "time_wait_ports").verdict, Verdict::Short);
        assert_eq!(row(&rows, "time_wait_buckets").verdict, Verdict::Slows);
        question.role = Role::Client;
        let rows = answer(&made, &question);
        assert_eq!(
            row(&rows, "time_wait_ports").current,
            Some(453),
            "the server is elsewhere"
        );
    }

    #[test]
    fn a_limit_that_cannot_be_read_is_unknown_and_never_a_no() {
        let made = Made::of(&[]);
        let machine = Machine {
            descriptors: None,
            ..made.machine(0, 0)
        };
        for row in assess(machine, &asked(1_000_000, Role::Both)).unwrap() {
            assert_ne!(row.verdict, Verdict::Short, "{row:?}");
        }
    }

    #[test]
    fn every_text_is_filled_in() {
        let low = usual().with(&[
            ("proc/sys/net/netfilter/nf_conntrack_max", "2"),
            ("proc/sys/net/netfilter/nf_conntrack_count", "1"),
            ("proc/self/cgroup", "4:memory:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1"),
            ("sys/fs/cgroup/memory/memory.kmem.tcp.limit_in_bytes", "1"),
            ("proc/sys/net/core/somaxconn", "1"),
            ("proc/sys/net/ipv4/tcp_max_tw_buckets", "1"),
            ("proc/sys/net/ipv4/ip_local_port_range", "1 1"),
        ]);
        let mut question = asked(3_000_000_000, Role::Both);
        (question.churn, question.burst) = (40_000, 10_000);
        let rows = answer(&low, &question);
        assert!(rows.iter().any(|row| row.id == "cgroup_tcp"));
        for row in rows {
            let fixes = [&row.fix_now, &row.fix_persistent].map(Option::as_deref);
            let [now, permanently] = fixes.map(Option::unwrap_or_default);
            let texts = [row.limit, row.unit, &row.note, now, permanently].join(" ");
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
