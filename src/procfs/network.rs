//! Counters of the network stack, and the range of ports.

use std::fs;

/// Names of the kernel's counters of lost or repeated work: the table, and the counter in it (proc_pid_net(5)).
pub const KERNEL_COUNTERS: [(&str, &str); 7] = [
    ("TcpExt", "ListenOverflows"),
    ("TcpExt", "ListenDrops"),
    ("TcpExt", "TCPTimeouts"),
    ("Tcp", "RetransSegs"),
    ("Tcp", "AttemptFails"),
    ("Udp", "RcvbufErrors"),
    ("Udp", "SndbufErrors"),
];

/// The values of [`KERNEL_COUNTERS`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelCounters(pub [u64; KERNEL_COUNTERS.len()]);

impl KernelCounters {
    /// Reads the counters of this network namespace, which all of its processes share.
    #[must_use]
    pub fn read() -> Self {
        let text = ["/proc/net/snmp", "/proc/net/netstat"]
            .map(|path| fs::read_to_string(path).unwrap_or_default())
            .concat();
        Self(KERNEL_COUNTERS.map(|(table, name)| counter(&text, table, name)))
    }

    /// The growth since an earlier moment.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        let mut difference = self.0;
        for (count, before) in difference.iter_mut().zip(earlier.0) {
            *count = count.saturating_sub(before);
        }
        Self(difference)
    }

    /// Returns a counter by its name; zero if there is none of this name.
    #[must_use]
    pub fn get(&self, wanted: &str) -> u64 {
        KERNEL_COUNTERS
            .iter()
            .zip(self.0)
            .find(|((_, name), _)| *name == wanted)
            .map_or(0, |(_, count)| count)
    }
}

/// A counter from pairs of lines: `Table: name name`, `Table: value value`.
fn counter(text: &str, table: &str, name: &str) -> u64 {
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(table)?.strip_prefix(':'));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return 0;
    };
    names
        .split_whitespace()
        .zip(values.split_whitespace())
        .find(|(found, _)| *found == name)
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0)
}

/// The first and the last port of the range that the kernel assigns from (ip_local_port_range of ip(7)).
pub(crate) fn port_range() -> (u16, u16) {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ports = text.split_whitespace().filter_map(|port| port.parse().ok());
    match (ports.next(), ports.next()) {
        (Some(first), Some(last)) => (first, last),
        _ => (32_768, 60_999),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_their_names() {
        let text =
            "Tcp: A RetransSegs B\nTcp: 1 22 3\nUdp: X\nUdp: 9\nTcpExt: ListenDrops\nTcpExt: 5\n";
        assert_eq!(counter(text, "Tcp", "RetransSegs"), 22);
        assert_eq!(counter(text, "TcpExt", "ListenDrops"), 5);
        assert_eq!(counter(text, "Udp", "RcvbufErrors"), 0);
    }

    #[test]
    fn the_port_range_is_not_empty() {
        let (first, last) = port_range();
        assert!(first < last);
    }
}
