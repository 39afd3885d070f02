//! The limits that very many connections meet, and what each means for a number of them.
//!
//! One function a limit: its value, what is needed, how many connections it lets through, and the command that raises
//! it. What may live in this file: that arithmetic and those texts. What may not: reading (the values are in
//! [`Machine`] already) and printing.

use super::args::Question;
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

/// How a limit compares with what is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is high enough.
    Fits,
    /// It is too low, and the program raises it by itself.
    Raised,
    /// It is too low, and fails the run.
    Short,
    /// It is too low, and delays some connections; all are served in the end.
    Slows,
    /// It could not be read.
    Unknown,
}

impl Verdict {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Fits => "fits",
            Self::Raised => "raised",
            Self::Short => "short",
            Self::Slows => "slows",
            Self::Unknown => "unknown",
        }
    }
}

/// The unit of a row's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Descriptors,
    Files,
    Watches,
    Pairs,
    Places,
    Pages,
    Bytes,
    Entries,
    PerSecond,
}

impl Unit {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::Files => "files",
            Self::Watches => "watches",
            Self::Pairs => "address-port pairs",
            Self::Places => "places",
            Self::Pages => "pages",
            Self::Bytes => "bytes",
            Self::Entries => "entries",
            Self::PerSecond => "connections/s",
        }
    }
}

/// One limit and its verdict.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The name of the limit in JSON.
    pub(super) id: &'static str,
    /// The name of the limit in the table.
    pub(super) limit: &'static str,
    pub(super) unit: Unit,
    pub(super) found: Option<u64>,
    pub(super) needed: u64,
    /// Connections that the limit lets through; `None` if it does not bound their number.
    pub(super) holds: Option<u64>,
    pub(super) verdict: Verdict,
    /// Further facts about the limit.
    pub(super) note: String,
    /// The command that raises the limit now, and the way to make that permanent. Empty where nothing need be done.
    pub(super) mend: String,
    pub(super) lasting: String,
}

impl Row {
    /// A row without a verdict yet.
    fn new(
        id: &'static str,
        limit: &'static str,
        unit: Unit,
        found: Option<u64>,
        needed: u64,
    ) -> Self {
        let verdict = match found {
            Some(_) => Verdict::Fits,
            None => Verdict::Unknown,
        };
        Self {
            id,
            limit,
            unit,
            found,
            needed,
            holds: None,
            verdict,
            note: String::new(),
            mend: String::new(),
            lasting: String::new(),
        }
    }

    fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Sets how many connections the limit lets through; fewer than are asked for fail the run.
    fn holds(mut self, holds: Option<u64>, asked: u64) -> Self {
        self.holds = holds;
        if holds.is_some_and(|holds| holds < asked) {
            self.verdict = Verdict::Short;
        }
        self
    }

    /// Sets the verdict if the limit is too low.
    fn unless(mut self, enough: bool, verdict: Verdict) -> Self {
        if self.found.is_some() && !enough {
            self.verdict = verdict;
        }
        self
    }

    /// Sets what to do about it; dropped where nothing need be done.
    fn mend(mut self, now: impl Into<String>, lasting: impl Into<String>) -> Self {
        if matches!(self.verdict, Verdict::Short | Verdict::Slows) {
            (self.mend, self.lasting) = (now.into(), lasting.into());
        }
        self
    }

    /// Sets the commands for a limit that is one sysctl.
    fn sysctl(self, name: &str, value: impl std::fmt::Display) -> Self {
        let lasting =
            format!("echo '{name} = {value}' | sudo tee -a /etc/sysctl.d/90-echo-reactor.conf");
        self.mend(format!("sudo sysctl -w {name}='{value}'"), lasting)
    }
}

/// All limits, the one that is reached first at the top; those that do not bound the number come last.
pub(super) fn judge(machine: &Machine, asked: &Question) -> Vec<Row> {
    let mut rows = vec![
        descriptors_hard(machine, asked),
        descriptors_soft(machine, asked),
        nr_open(machine, asked),
        file_max(machine, asked),
        epoll_watches(machine, asked),
    ];
    if asked.role.connects() {
        rows.push(tuples(machine, asked));
    }
    rows.extend([
        memory(machine, asked),
        socket_memory(machine, asked),
        conntrack(machine, asked),
    ]);
    rows.extend(group_memory(machine, asked));
    rows.extend(group_sockets(machine, asked));
    if asked.role.serves() {
        rows.extend([accept_queue(machine, asked), handshakes(machine, asked)]);
    }
    if asked.churn > 0 {
        rows.extend(time_wait_ports(machine, asked));
        rows.push(time_wait_buckets(machine, asked));
    }
    // The sort is stable: of limits that are reached together, the one that is pushed first above is the one to raise
    // first.
    rows.sort_by_key(|row| (row.verdict != Verdict::Short, row.holds.unwrap_or(u64::MAX)));
    rows
}

/// The row that bounds how many connections the machine holds as it is.
pub(super) fn first_met(rows: &[Row]) -> Option<&Row> {
    rows.iter()
        .filter(|row| row.holds.is_some())
        .min_by_key(|row| row.holds)
}

/// Processes that share the connections of the tighter end: a server is one process.
fn processes(asked: &Question) -> u64 {
    match asked.role.serves() {
        true => 1,
        false => asked.workers,
    }
}

fn descriptors_needed(asked: &Question) -> u64 {
    asked.connections.div_ceil(processes(asked)) + DESCRIPTORS_RESERVED
}

fn descriptors_hold(asked: &Question, limit: u64) -> u64 {
    limit
        .saturating_sub(DESCRIPTORS_RESERVED)
        .saturating_mul(processes(asked))
}

fn descriptors_hard(machine: &Machine, asked: &Question) -> Row {
    let (found, needed) = (machine.descriptors_hard, descriptors_needed(asked));
    let note = match machine.may_raise {
        Some(false) => {
            "this process may not raise it (no CAP_SYS_RESOURCE); it is raised where the container, the service or the \
             session is started"
        }
        _ => "only root may raise it (CAP_SYS_RESOURCE)",
    };
    let lasting = format!(
        "systemd: LimitNOFILE={needed} in the unit; a session: '* hard nofile {needed}' in \
         /etc/security/limits.d/90-echo-reactor.conf; a container: --ulimit nofile={needed}:{needed}"
    );
    Row::new(
        "descriptors_hard",
        "open files of a process, hard limit",
        Unit::Descriptors,
        found,
        needed,
    )
    .holds(
        found.map(|limit| descriptors_hold(asked, limit)),
        asked.connections,
    )
    .note(note)
    .mend(
        format!(
            "sudo prlimit --pid $$ --nofile={needed}:{needed}   # this shell, and what it starts"
        ),
        lasting,
    )
}

/// Never too low: the program raises the soft limit by itself, up to the hard limit.
fn descriptors_soft(machine: &Machine, asked: &Question) -> Row {
    let needed = descriptors_needed(asked);
    let enough = machine
        .descriptors_soft
        .is_some_and(|limit| limit >= needed);
    Row::new(
        "descriptors_soft",
        "open files of a process, soft limit",
        Unit::Descriptors,
        machine.descriptors_soft,
        needed,
    )
    .unless(enough, Verdict::Raised)
    .note("serve and bench raise it by themselves, up to the hard limit")
}

fn nr_open(machine: &Machine, asked: &Question) -> Row {
    let (found, needed) = (machine.nr_open, descriptors_needed(asked));
    Row::new(
        "nr_open",
        "what a hard limit can be raised to",
        Unit::Descriptors,
        found,
        needed,
    )
    .holds(
        found.map(|limit| descriptors_hold(asked, limit)),
        asked.connections,
    )
    .note("fs.nr_open; no hard limit can be raised beyond it")
    .sysctl("fs.nr_open", needed.next_power_of_two())
}

fn file_max(machine: &Machine, asked: &Question) -> Row {
    let ends = asked.role.ends();
    let open = machine.files_open.unwrap_or(0);
    let needed = open + asked.connections * ends + DESCRIPTORS_RESERVED * ends;
    let holds = machine
        .files_max
        .map(|most| most.saturating_sub(open + DESCRIPTORS_RESERVED * ends) / ends);
    Row::new(
        "file_max",
        "open files of the whole machine",
        Unit::Files,
        machine.files_max,
        needed,
    )
    .holds(holds, asked.connections)
    .note(format!("{} are open now", grouped(open)))
    .sysctl("fs.file-max", needed.next_power_of_two())
}

fn epoll_watches(machine: &Machine, asked: &Question) -> Row {
    let ends = asked.role.ends();
    let needed = asked.connections * ends;
    Row::new(
        "epoll_watches",
        "sockets that one user's epolls wait for",
        Unit::Watches,
        machine.epoll_watches,
        needed,
    )
    .holds(
        machine.epoll_watches.map(|most| most / ends),
        asked.connections,
    )
    .sysctl("fs.epoll.max_user_watches", needed.next_power_of_two())
}

/// Two addresses and two ports identify a connection, and the client may vary its own two.
fn tuples(machine: &Machine, asked: &Question) -> Row {
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
    .mend(
        format!(
            "bench --source 127.0.0.0/16 (to a server on this machine; {sources} addresses are enough), or more targets"
        ),
        "elsewhere: 'ip addr add' for more addresses; and \
         echo 'net.ipv4.ip_local_port_range = 1024 65535' | sudo tee -a /etc/sysctl.d/90-echo-reactor.conf",
    )
}

/// Memory of an idle connection, the kernel's and this program's, at all ends on this machine.
fn bytes_each(machine: &Machine, asked: &Question) -> u64 {
    let kernel = machine.kernel_bytes.unwrap_or(KERNEL_BYTES);
    u64::from(asked.role.serves()) * (kernel + SERVER_BYTES)
        + u64::from(asked.role.connects()) * (kernel + CLIENT_BYTES)
}

/// Pages of buffers for the connections with data on the way.
fn pages(asked: &Question, connections: u64) -> u64 {
    (connections * asked.active_percent).div_ceil(100) * asked.role.ends()
}

/// How many connections, idle and busy ones, fit into a number of bytes.
fn bytes_hold(machine: &Machine, asked: &Question, bytes: u64) -> u64 {
    let hundred =
        100 * bytes_each(machine, asked) + asked.active_percent * asked.role.ends() * PAGE;
    (u128::from(bytes) * 100 / u128::from(hundred)) as u64
}

fn bytes_needed(machine: &Machine, asked: &Question) -> u64 {
    asked.connections * bytes_each(machine, asked) + pages(asked, asked.connections) * PAGE
}

fn memory(machine: &Machine, asked: &Question) -> Row {
    let found = machine.memory_available;
    let how = match machine.kernel_bytes {
        Some(_) => "counted",
        None => "estimated: only root may count the kernel's share",
    };
    let mut note = format!(
        "{} bytes a connection, {how}, and a page for each busy one",
        grouped(bytes_each(machine, asked)),
    );
    if let (Some(receive), Some(send)) = (machine.receive_max, machine.send_max) {
        note += &format!(
            "; a peer that sends and never reads may pin {} MiB more",
            (receive + send) >> 20
        );
    }
    Row::new(
        "memory",
        "memory",
        Unit::Bytes,
        found,
        bytes_needed(machine, asked),
    )
    .holds(
        found.map(|bytes| bytes_hold(machine, asked, bytes)),
        asked.connections,
    )
    .note(note)
    .mend(
        "a machine with more memory, or fewer connections",
        "swap does not help: the kernel's part cannot be swapped out",
    )
}

fn socket_memory(machine: &Machine, asked: &Question) -> Row {
    let needed = machine.tcp_mem_used.unwrap_or(0) + pages(asked, asked.connections);
    let most = machine.tcp_mem.map(|[_, pressure, _]| pressure);
    let left = most.map(|most| most.saturating_sub(machine.tcp_mem_used.unwrap_or(0)));
    let hundred = asked.active_percent * asked.role.ends();
    let holds = left
        .filter(|_| hundred > 0)
        .map(|left| left * 100 / hundred);
    let [low, high] = [needed.next_power_of_two(), 2 * needed.next_power_of_two()];
    Row::new(
        "tcp_mem",
        "pages of all TCP buffers, before pressure",
        Unit::Pages,
        most,
        needed,
    )
    .holds(holds, asked.connections)
    .note(format!(
        "{} % of the connections busy at once (--active-percent)",
        asked.active_percent
    ))
    .sysctl("net.ipv4.tcp_mem", format!("{low} {high} {}", 2 * high))
}

/// Connection tracking has a table of all connections of the machine, and drops packets when it is full.
fn conntrack(machine: &Machine, asked: &Question) -> Row {
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

fn group_memory(machine: &Machine, asked: &Question) -> Option<Row> {
    let left = machine.group_memory_left?;
    let needed = bytes_needed(machine, asked);
    let row = Row::new(
        "cgroup_memory",
        "memory left in the control group",
        Unit::Bytes,
        Some(left),
        needed,
    );
    Some(
        row.holds(Some(bytes_hold(machine, asked, left)), asked.connections)
            .note("it counts the kernel's share too")
            .mend(
                format!(
                    "sudo systemctl set-property UNIT MemoryMax={}M",
                    (needed >> 20) + 64
                ),
                format!(
                    "the same command lasts; a container: --memory={}m",
                    (needed >> 20) + 64
                ),
            ),
    )
}

fn group_sockets(machine: &Machine, asked: &Question) -> Option<Row> {
    let left = machine.group_tcp_left?;
    let needed = pages(asked, asked.connections) * PAGE;
    let hundred = asked.active_percent * asked.role.ends() * PAGE;
    let holds = (hundred > 0).then(|| (u128::from(left) * 100 / u128::from(hundred)) as u64);
    let row = Row::new(
        "cgroup_tcp",
        "TCP buffers left in the control group",
        Unit::Bytes,
        Some(left),
        needed,
    );
    Some(row.holds(holds, asked.connections).mend(
        format!(
            "echo {needed} | sudo tee /sys/fs/cgroup/memory/GROUP/memory.kmem.tcp.limit_in_bytes"
        ),
        "the same in whatever makes the group",
    ))
}

fn accept_queue(machine: &Machine, asked: &Question) -> Row {
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

fn handshakes(machine: &Machine, asked: &Question) -> Row {
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
fn time_wait_ports(machine: &Machine, asked: &Question) -> Option<Row> {
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
    let found = pairs.map(|pairs| pairs.saturating_sub(asked.connections) / seconds);
    Some(
        Row::new(
            "time_wait_ports",
            "new connections before ports run out",
            Unit::PerSecond,
            found,
            asked.churn,
        )
        .unless(
            found.is_some_and(|found| found >= asked.churn),
            Verdict::Short,
        )
        .note(note)
        .mend(
            "bench --churn rst (a reset leaves no TIME_WAIT), or more --source addresses",
            "echo 'net.ipv4.tcp_tw_reuse = 1' | sudo tee -a /etc/sysctl.d/90-echo-reactor.conf",
        ),
    )
}

fn time_wait_buckets(machine: &Machine, asked: &Question) -> Row {
    let found = machine.time_wait_buckets.map(|most| most / TIME_WAIT);
    Row::new(
        "time_wait_buckets",
        "closed connections that are remembered",
        Unit::PerSecond,
        found,
        asked.churn,
    )
    .unless(
        found.is_some_and(|found| found >= asked.churn),
        Verdict::Slows,
    )
    .note("beyond it the kernel forgets them early, and says so in its log")
    .sysctl(
        "net.ipv4.tcp_max_tw_buckets",
        (asked.churn * TIME_WAIT).next_power_of_two(),
    )
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
        let rows = judge(&usual(), &asked(1_000_000, Role::Server));
        assert_eq!(
            (rows[0].id, rows[0].holds),
            ("descriptors_hard", Some(19_968))
        );
        assert_eq!(rows[0].verdict, Verdict::Short);
        assert!(rows[0].mend.contains("1000032"), "{}", rows[0].mend);
        assert!(rows[0].note.contains("CAP_SYS_RESOURCE"));
        assert_eq!(first_met(&rows).map(|row| row.id), Some("descriptors_hard"));
        let short = rows.iter().filter(|row| row.verdict == Verdict::Short);
        assert_eq!(short.count(), 1, "a million fit but for that: {rows:#?}");
    }

    #[test]
    fn a_limit_that_is_high_enough_needs_no_command() {
        let rows = judge(&usual(), &asked(10_000, Role::Server));
        for row in rows {
            let wanted = match row.id {
                "descriptors_soft" => Verdict::Raised,
                _ => Verdict::Fits,
            };
            assert_eq!(row.verdict, wanted, "{row:?}");
            assert!(row.mend.is_empty() && row.lasting.is_empty(), "{row:?}");
        }
    }

    #[test]
    fn a_client_is_bounded_by_its_tuples_and_shared_among_workers() {
        let mut question = asked(50_000, Role::Client);
        question.workers = 3;
        let rows = judge(&usual(), &question);
        assert_eq!(row(&rows, "descriptors_hard").holds, Some(59_904));
        let tuples = row(&rows, "tuples");
        assert_eq!(
            (tuples.verdict, tuples.holds),
            (Verdict::Short, Some(28_232))
        );
        assert!(tuples.mend.contains("2 addresses are enough"), "{tuples:?}");
        question.sources = 2;
        let rows = judge(&usual(), &question);
        assert_eq!(row(&rows, "tuples").verdict, Verdict::Fits);
    }

    #[test]
    fn both_ends_count_twice_where_the_machine_is_shared() {
        let machine = Machine {
            descriptors_hard: Some(2_000_000),
            nr_open: Some(2_000_000),
            ..usual()
        };
        let rows = judge(&machine, &asked(1_300_000, Role::Both));
        let files = row(&rows, "file_max");
        assert_eq!(
            (files.verdict, files.holds),
            (Verdict::Short, Some(1_232_756))
        );
        assert!(files.mend.contains("fs.file-max"));
        assert_eq!(row(&rows, "descriptors_hard").verdict, Verdict::Fits);
    }

    #[test]
    fn memory_is_that_of_the_tightest_group() {
        let machine = Machine {
            group_memory_left: Some(64 << 20),
            kernel_bytes: Some(3_902),
            ..usual()
        };
        let rows = judge(&machine, &asked(18_000, Role::Server));
        let group = row(&rows, "cgroup_memory");
        assert_eq!(group.verdict, Verdict::Short);
        let holds = group.holds.unwrap();
        let bytes = holds * (3_902 + 64) + holds / 10 * PAGE;
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
        let rows = judge(&machine(0), &asked(18_000, Role::Server));
        assert_eq!(row(&rows, "conntrack").verdict, Verdict::Fits);
        let rows = judge(&machine(100), &asked(18_000, Role::Server));
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
        let rows = judge(&machine, &question);
        assert_eq!(row(&rows, "somaxconn").verdict, Verdict::Slows);
        assert_eq!(row(&rows, "syn_backlog").verdict, Verdict::Slows);
        assert_eq!(row(&rows, "time_wait_ports").found, Some(27_232));
        assert_eq!(row(&rows, "time_wait_ports").verdict, Verdict::Short);
        assert_eq!(row(&rows, "time_wait_buckets").verdict, Verdict::Slows);
        question.role = Role::Client;
        let rows = judge(&machine, &question);
        assert_eq!(
            row(&rows, "time_wait_ports").found,
            Some(453),
            "the server is elsewhere"
        );
    }

    #[test]
    fn a_limit_that_cannot_be_read_is_unknown_and_never_a_no() {
        for row in judge(&Machine::default(), &asked(1_000_000, Role::Both)) {
            assert_ne!(row.verdict, Verdict::Short, "{row:?}");
        }
    }
}
