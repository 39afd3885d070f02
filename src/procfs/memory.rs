//! Memory of processes, of the kernel's objects, and of TCP's buffers.

use super::text::number;
use super::tree::Tree;
use nix::unistd::{SysconfVar, sysconf};
use std::path::Path;

/// Memory at one moment, or its growth between two, in bytes. A figure that cannot be read is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Resident memory of the processes.
    pub(crate) rss: u64,
    /// Objects of the kernel: sockets, files, inodes, entries of epoll's interest lists; stacks of threads, page tables.
    pub(crate) objects: u64,
    /// Memory in TCP's buffers.
    pub(crate) tcp_buffers: u64,
    /// TCP sockets among the objects; only root may read their number.
    pub(crate) tcp_sockets: Option<u64>,
}

impl Memory {
    /// Reads the figures now. `with_slab` also reads /proc/slabinfo, which takes the kernel milliseconds: not for a running
    /// event loop.
    pub(crate) fn take(pids: &[u32], with_slab: bool) -> Self {
        let tree = Tree(Path::new("/"));
        let kilobytes = |table: &str, name| 1024 * number(table, name).unwrap_or(0);
        let rss = pids.iter().map(|pid| {
            let status = tree.text(format!("proc/{pid}/status")).unwrap_or_default();
            kilobytes(&status, "VmRSS")
        });
        let meminfo = tree.text("proc/meminfo").unwrap_or_default();
        let page_bytes = sysconf(SysconfVar::PAGE_SIZE)
            .ok()
            .flatten()
            .unwrap_or(4096) as u64;
        Self {
            rss: rss.sum(),
            objects: ["Slab", "KernelStack", "PageTables"]
                .map(|name| kilobytes(&meminfo, name))
                .iter()
                .sum(),
            tcp_buffers: tree.tcp_buffer_pages().unwrap_or(0) * page_bytes,
            tcp_sockets: match with_slab {
                true => tree.text("proc/slabinfo").map(|text| tcp_sockets(&text)),
                false => None,
            },
        }
    }

    /// The growth since an earlier moment.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            rss: self.rss.saturating_sub(before.rss),
            objects: self.objects.saturating_sub(before.objects),
            tcp_buffers: self.tcp_buffers.saturating_sub(before.tcp_buffers),
            tcp_sockets: self
                .tcp_sockets
                .map(|now| now.saturating_sub(before.tcp_sockets.unwrap_or(0))),
        }
    }
}

/// Bytes of all TCP sockets: their number times their size, in slabinfo(5): `name active_objs num_objs objsize ...`.
fn tcp_sockets(slabinfo: &str) -> u64 {
    let bytes = |line: &str| {
        let mut words = line.split_whitespace();
        let is_tcp = matches!(words.next(), Some("TCP" | "TCPv6"));
        let mut number = || words.next()?.parse::<u64>().ok();
        let (_, objects, size) = (number()?, number()?, number()?);
        is_tcp.then_some(objects * size)
    };
    slabinfo.lines().filter_map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_sockets_are_counted_in_slabinfo() {
        let slabinfo = "slabinfo - version: 2.1\n# name <active_objs> ...\n\
            TCPv6 0 13 2560 12 8 : tunables\ntw_sock_TCP 5 5 248 : x\nTCP 53 104 2368 13 8 : tunables\n";
        assert_eq!(tcp_sockets(slabinfo), 104 * 2368 + 13 * 2560);
    }
}
