//! The limits that very many connections meet, and what each means for a number of them.
//!
//! One function a limit: its value, what is needed, how many connections it lets through, and the command that raises it.
//! What may live in this folder: that arithmetic and those texts. What may not: reading (the values are in [`Machine`]
//! already) and printing.

mod files;
mod memory;
mod network;

use super::args::Question;
use super::row::{Row, Verdict};
use super::system::Machine;

/// Compares every limit with what is asked. Limits that are too low come first, the lowest at the top; limits that do not
/// bound the number of connections come last.
pub(super) fn assess(machine: &Machine, asked: &Question) -> Vec<Row> {
    let mut rows = vec![
        files::descriptors_hard(machine, asked),
        files::descriptors_soft(machine, asked),
        files::nr_open(machine, asked),
        files::file_max(machine, asked),
        files::epoll_watches(machine, asked),
    ];
    if asked.role.connects() {
        rows.push(network::tuples(machine, asked));
    }
    rows.extend([
        memory::memory(machine, asked),
        memory::socket_memory(machine, asked),
        network::conntrack(machine, asked),
    ]);
    rows.extend(memory::group_memory(machine, asked));
    rows.extend(memory::group_sockets(machine, asked));
    if asked.role.serves() {
        rows.extend([
            network::accept_queue(machine, asked),
            network::handshakes(machine, asked),
        ]);
    }
    if asked.churn > 0 {
        rows.extend(network::time_wait_ports(machine, asked));
        rows.push(network::time_wait_buckets(machine, asked));
    }
    // The sort is stable: of limits that are reached together, the one that is pushed first above is the one to raise
    // first.
    rows.sort_by_key(|row| (row.verdict != Verdict::Short, row.holds.unwrap_or(u64::MAX)));
    rows
}

/// The limit that bounds how many connections the machine holds as it is.
pub(super) fn bottleneck(rows: &[Row]) -> Option<&Row> {
    rows.iter()
        .filter(|row| row.holds.is_some())
        .min_by_key(|row| row.holds)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::args::Role;
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

    pub(in crate::cli::doctor) fn asked(connections: u64, role: Role) -> Question {
        Question {
            connections,
            role,
            workers: 1,
            sources: 1,
            targets: 1,
            burst: 1_000,
            churn: 0,
            active_percent: 10,
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
        assert!(rows[0].fix_now.contains("1000032"), "{}", rows[0].fix_now);
        assert!(rows[0].note.contains("CAP_SYS_RESOURCE"));
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
            assert!(
                row.fix_now.is_empty() && row.fix_persistent.is_empty(),
                "{row:?}"
            );
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
            tuples.fix_now.contains("2 addresses are enough"),
            "{tuples:?}"
        );
        question.sources = 2;
        let rows = assess(&usual(), &question);
        assert_eq!(row(&rows, "tuples").verdict, Verdict::Fits);
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
        assert!(files.fix_now.contains("fs.file-max"));
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
        assert!(row(&rows, "memory").note.contains("counted"));
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
}
