//! Limits of open files: of a process, of the machine, and of the interest lists of one user.

use super::super::args::Question;
use super::super::row::{Row, Unit, Verdict};
use super::super::system::Machine;
use crate::cli::units::grouped;

/// Descriptors that a process needs besides its connections; the server keeps as many in reserve.
const DESCRIPTORS_RESERVED: u64 = 32;
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

pub(super) fn descriptors_hard(machine: &Machine, asked: &Question) -> Row {
    let (current, needed) = (machine.descriptors_hard, descriptors_needed(asked));
    let note = match machine.may_raise {
        Some(false) => {
            "this process may not raise it (no CAP_SYS_RESOURCE); it is raised where the container, the service or the \
             session is started"
        }
        _ => "only root may raise it (CAP_SYS_RESOURCE)",
    };
    let persistent = format!(
        "systemd: LimitNOFILE={needed} in the unit; a session: '* hard nofile {needed}' in \
         /etc/security/limits.d/90-echo-reactor.conf; a container: --ulimit nofile={needed}:{needed}"
    );
    Row::new(
        "descriptors_hard",
        "open files of a process, hard limit",
        Unit::Descriptors,
        current,
        needed,
    )
    .holds(
        current.map(|limit| descriptors_hold(asked, limit)),
        asked.connections,
    )
    .note(note)
    .fix(
        format!(
            "sudo prlimit --pid $$ --nofile={needed}:{needed}   # this shell, and what it starts"
        ),
        persistent,
    )
}

/// Never too low: the program raises the soft limit by itself, up to the hard limit.
pub(super) fn descriptors_soft(machine: &Machine, asked: &Question) -> Row {
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

pub(super) fn nr_open(machine: &Machine, asked: &Question) -> Row {
    let (current, needed) = (machine.nr_open, descriptors_needed(asked));
    Row::new(
        "nr_open",
        "what a hard limit can be raised to",
        Unit::Descriptors,
        current,
        needed,
    )
    .holds(
        current.map(|limit| descriptors_hold(asked, limit)),
        asked.connections,
    )
    .note("fs.nr_open; no hard limit can be raised beyond it")
    .sysctl("fs.nr_open", needed.next_power_of_two())
}

pub(super) fn file_max(machine: &Machine, asked: &Question) -> Row {
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

pub(super) fn epoll_watches(machine: &Machine, asked: &Question) -> Row {
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
