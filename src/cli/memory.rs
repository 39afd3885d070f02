//! Memory per connection at every power of ten of connections, for the program and the kernel separately.
//!
//! ```text
//!   user     resident memory of the server's processes (/proc/PID/status); slots and write buffers of the event loop
//!   kernel   objects: Slab, KernelStack and PageTables of /proc/meminfo; TCP's buffers: /proc/net/sockstat;
//!            the TCP sockets among the objects: /proc/slabinfo, which only root may read
//! ```
//!
//! The kernel's figures are those of the whole machine: of both ends of a connection if both are here, and of every other
//! process. So every figure is the growth since the start, and means something if the machine is quiet and the connections
//! are many. Both kinds grow by pages, so below a thousand connections the figure for one is mostly rounding.

use crate::procfs::memory::Memory;
use serde_json::{Value, json};
use std::fmt;
use std::time::Instant;

/// Memory as the server itself counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) connections: u64,
    /// Bytes of the slots in use, and of all allocated slots.
    pub(super) slots: (u64, u64),
    /// Bytes in write buffers.
    pub(super) write_buffers: u64,
    /// The longest turn so far, in microseconds.
    pub(super) turn_us_max: u64,
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) connections: u64,
    /// Seconds since the start.
    pub(super) at: f64,
    /// The server's own figures, if the server is this process.
    held: Option<Held>,
    grown: Memory,
}

impl Row {
    fn each(&self, bytes: u64) -> f64 {
        bytes as f64 / self.connections.max(1) as f64
    }

    #[cfg(feature = "bench")]
    pub(super) fn rss_bytes(&self) -> u64 {
        self.grown.rss
    }

    /// Memory per connection, in bytes: of the process, of the kernel's objects, of TCP's buffers.
    pub(super) fn of_one(&self) -> (f64, f64, f64) {
        let Memory {
            rss,
            objects,
            tcp_buffers,
            ..
        } = self.grown;
        (self.each(rss), self.each(objects), self.each(tcp_buffers))
    }

    pub(super) fn to_json(&self) -> Value {
        let (rss, objects, _) = self.of_one();
        let mut row = json!({
            "connections": self.connections,
            "at": self.at,
            "rss_bytes": self.grown.rss,
            "rss_bytes_per_connection": rss,
            "kernel_bytes": self.grown.objects,
            "kernel_bytes_per_connection": objects,
            "tcp_buffer_bytes": self.grown.tcp_buffers,
            "tcp_socket_bytes": self.grown.tcp_sockets,
        });
        if let (Some(held), Some(row)) = (self.held, row.as_object_mut()) {
            row.insert("slot_bytes".into(), json!(held.slots.0));
            row.insert("slot_bytes_room".into(), json!(held.slots.1));
            row.insert("write_buffer_bytes".into(), json!(held.write_buffers));
            row.insert("turn_us_max".into(), json!(held.turn_us_max));
        }
        row
    }
}

/// Prints the row as the counters are printed, `name=count`; each figure is the growth since the start.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rss, objects, _) = self.of_one();
        write!(
            f,
            "memory{{{}}} rss_bytes={} rss_per_connection={rss:.1}",
            self.connections, self.grown.rss
        )?;
        if let Some(held) = self.held {
            write!(
                f,
                " slot_bytes={} slot_bytes_room={} write_buffer_bytes={}",
                held.slots.0, held.slots.1, held.write_buffers
            )?;
        }
        write!(
            f,
            " kernel_bytes={} kernel_per_connection={objects:.1} tcp_buffer_bytes={}",
            self.grown.objects, self.grown.tcp_buffers
        )?;
        if let Some(bytes) = self.grown.tcp_sockets {
            write!(f, " tcp_socket_bytes={bytes}")?;
        }
        match self.held {
            Some(held) => write!(f, " turn_us_max={}", held.turn_us_max),
            None => Ok(()),
        }
    }
}

/// Takes a row whenever the number of connections is ten times that of the last row.
#[derive(Debug)]
pub(super) struct MemoryTable {
    pids: Vec<u32>,
    /// Whether the rows tell of TCP sockets.
    with_slab: bool,
    before: Memory,
    start: Instant,
    next: u64,
    rows: Vec<Row>,
}

impl MemoryTable {
    /// Starts now, for this process, whose event loop must not wait for /proc/slabinfo.
    pub(super) fn of_this_process() -> Self {
        Self::new(&[std::process::id()], false)
    }

    /// Starts now, for other processes.
    #[cfg(feature = "bench")]
    pub(super) fn of_others(pids: &[u32]) -> Self {
        Self::new(pids, true)
    }

    fn new(pids: &[u32], with_slab: bool) -> Self {
        Self {
            pids: pids.to_vec(),
            with_slab,
            before: Memory::take(pids, with_slab),
            start: Instant::now(),
            next: 10,
            rows: Vec::new(),
        }
    }

    /// Whether there are enough connections for the next row: called in every turn of the loop.
    #[inline]
    pub(super) fn is_due(&self, connections: u64) -> bool {
        connections >= self.next
    }

    /// Takes the next row of a server in this process.
    pub(super) fn add(&mut self, held: Held) {
        let row = self.row(held.connections, Some(held));
        self.push(row);
    }

    /// Takes the next row of a server in another process.
    #[cfg(feature = "bench")]
    pub(super) fn add_other(&mut self, connections: u64) {
        let row = self.row(connections, None);
        self.push(row);
    }

    fn push(&mut self, row: Row) {
        while self.next <= row.connections {
            self.next = self.next.saturating_mul(10);
        }
        self.rows.push(row);
    }

    /// Whether the last row has this number of connections.
    #[cfg(feature = "bench")]
    pub(super) fn ends_at(&self, connections: u64) -> bool {
        self.rows
            .last()
            .is_some_and(|row| row.connections == connections)
    }

    /// The row at this moment.
    pub(super) fn row(&self, connections: u64, held: Option<Held>) -> Row {
        Row {
            connections,
            at: self.start.elapsed().as_secs_f64(),
            held,
            grown: Memory::take(&self.pids, self.with_slab).since(self.before),
        }
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_at_every_power_of_ten_and_never_two() {
        let mut table = MemoryTable::of_this_process();
        for connections in 1..=12_345 {
            if table.is_due(connections) {
                table.add(Held {
                    connections,
                    ..Held::default()
                });
            }
        }
        let rows: Vec<u64> = table.rows().iter().map(|row| row.connections).collect();
        assert_eq!(rows, [10, 100, 1_000, 10_000]);
        // Many connections may arrive in one turn.
        assert!(table.is_due(2_000_000));
        table.add(Held {
            connections: 2_000_000,
            ..Held::default()
        });
        assert!(!table.is_due(9_999_999) && table.is_due(10_000_000));
    }

    #[test]
    fn touched_memory_is_counted() {
        let table = MemoryTable::of_this_process();
        let touched = vec![1_u8; 64 << 20];
        let row = table.row(1 << 20, None);
        assert!(row.grown.rss >= 48 << 20, "{row}");
        assert!(row.of_one().0 >= 48.0 && row.to_json()["rss_bytes"].is_u64());
        drop(touched);
    }
}
