//! Limits of memory: of the machine, of all TCP buffers, and of the control groups of this process.

use super::super::args::Question;
use super::super::row::{Row, Unit};
use super::super::system::Machine;
use crate::cli::units::grouped;

/// Kernel memory of one end of an idle TCP connection, in bytes, where it cannot be counted: five objects of Linux 6 on
/// 64 bits (socket, inode, file, directory entry, epoll's item), with the padding between them.
const KERNEL_BYTES: u64 = 4_000;
/// Memory of this program for an idle connection, in bytes: for `serve` a slot of 48 and a share of the tables, for
/// `bench` the state of a client. Both were measured as RSS over 15,000 connections.
const SERVER_BYTES: u64 = 64;
const CLIENT_BYTES: u64 = 220;
/// The unit of socket buffers, in bytes: data on its way takes at least one page at either end.
const PAGE: u64 = 4096;
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

/// How many connections, idle and active ones, fit into a number of bytes.
fn bytes_hold(machine: &Machine, asked: &Question, bytes: u64) -> u64 {
    let hundred =
        100 * bytes_each(machine, asked) + asked.active_percent * asked.role.ends() * PAGE;
    (u128::from(bytes) * 100 / u128::from(hundred)) as u64
}

fn bytes_needed(machine: &Machine, asked: &Question) -> u64 {
    asked.connections * bytes_each(machine, asked) + pages(asked, asked.connections) * PAGE
}

pub(super) fn memory(machine: &Machine, asked: &Question) -> Row {
    let current = machine.memory_available;
    let how = match machine.kernel_bytes {
        Some(_) => "counted",
        None => "estimated: only root may count the kernel's share",
    };
    let mut note = format!(
        "{} bytes a connection, {how}, and a page for each active one",
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
        current,
        bytes_needed(machine, asked),
    )
    .holds(
        current.map(|bytes| bytes_hold(machine, asked, bytes)),
        asked.connections,
    )
    .note(note)
    .fix(
        "a machine with more memory, or fewer connections",
        "swap does not help: the kernel's part cannot be swapped out",
    )
}

pub(super) fn socket_memory(machine: &Machine, asked: &Question) -> Row {
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
        "{} % of the connections active at once (--active-percent)",
        asked.active_percent
    ))
    .sysctl("net.ipv4.tcp_mem", format!("{low} {high} {}", 2 * high))
}

pub(super) fn group_memory(machine: &Machine, asked: &Question) -> Option<Row> {
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
            .fix(
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

pub(super) fn group_sockets(machine: &Machine, asked: &Question) -> Option<Row> {
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
    Some(row.holds(holds, asked.connections).fix(
        format!(
            "echo {needed} | sudo tee /sys/fs/cgroup/memory/GROUP/memory.kmem.tcp.limit_in_bytes"
        ),
        "the same in the configuration that makes the group",
    ))
}
