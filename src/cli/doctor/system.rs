//! The limits of the machine, as far as connections depend on them.
//!
//! All of it is text in /proc and /sys (proc(5), tcp(7), cgroups(7)), and this process's own limit of descriptors. Every
//! value is an `Option`, since every file may be missing: in a container, on another kernel, for another user. The root
//! of the tree to read is an argument, so that a test can make up a machine.

use crate::cli::descriptors;
use crate::procfs::tree::Tree;
use std::path::Path;

/// CAP_SYS_RESOURCE of capabilities(7): may raise a hard limit.
const CAP_SYS_RESOURCE: u32 = 24;

/// What was read of a machine; `None` for a value that could not be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    pub(super) name: Option<String>,
    pub(super) kernel: Option<String>,
    /// The soft and the hard limit of descriptors of this process (getrlimit(2)).
    pub(super) descriptors_soft: Option<u64>,
    pub(super) descriptors_hard: Option<u64>,
    /// Whether this process may raise its own hard limit.
    pub(super) may_raise: Option<bool>,
    /// The highest hard limit that can be set (fs.nr_open).
    pub(super) nr_open: Option<u64>,
    /// Files that are open on the whole machine, and how many may be.
    pub(super) files_open: Option<u64>,
    pub(super) files_max: Option<u64>,
    /// Sources that one user's epoll instances may have in their interest lists.
    pub(super) epoll_watches: Option<u64>,
    /// Ports that the kernel chooses from, without the reserved ones.
    pub(super) ports: Option<u64>,
    pub(super) somaxconn: Option<u64>,
    pub(super) syn_backlog: Option<u64>,
    pub(super) syn_cookies: Option<u64>,
    pub(super) abort_on_overflow: Option<u64>,
    pub(super) time_wait_buckets: Option<u64>,
    /// 0: never, 1: wherever the protocol allows, 2: on loopback.
    pub(super) time_wait_reuse: Option<u64>,
    /// Pages of socket buffers: no pressure below the first, pressure from the second on, and a hard limit at the
    /// third.
    pub(super) tcp_mem: Option<[u64; 3]>,
    pub(super) tcp_mem_used: Option<u64>,
    /// Bytes that one socket's buffers may grow to.
    pub(super) receive_max: Option<u64>,
    pub(super) send_max: Option<u64>,
    pub(super) memory_available: Option<u64>,
    /// The least memory left of a limit, in bytes, among all control groups of this process.
    pub(super) group_memory_left: Option<u64>,
    /// The same for the buffers of TCP alone (control groups of version 1).
    pub(super) group_tcp_left: Option<u64>,
    pub(super) conntrack_max: Option<u64>,
    pub(super) conntrack_used: Option<u64>,
    /// Bytes of kernel memory for one end of an idle connection; only root may count them.
    pub(super) kernel_bytes: Option<u64>,
}

impl Machine {
    /// Reads the tree below a root, and the limits of this process.
    pub(super) fn read(root: &Path) -> Self {
        let limit = descriptors::limits().ok();
        let tree = Tree(root);
        let files = tree.numbers("proc/sys/fs/file-nr");
        let tcp_mem = tree.numbers("proc/sys/net/ipv4/tcp_mem");
        Self {
            name: tree.line("proc/sys/kernel/hostname"),
            kernel: tree.line("proc/sys/kernel/osrelease"),
            descriptors_soft: limit.map(|(soft, _)| soft),
            descriptors_hard: limit.map(|(_, hard)| hard),
            may_raise: tree.has_capability(CAP_SYS_RESOURCE),
            nr_open: tree.number("proc/sys/fs/nr_open"),
            files_open: files.first().copied(),
            files_max: files.get(2).copied(),
            epoll_watches: tree.number("proc/sys/fs/epoll/max_user_watches"),
            ports: tree.ports(),
            somaxconn: tree.number("proc/sys/net/core/somaxconn"),
            syn_backlog: tree.number("proc/sys/net/ipv4/tcp_max_syn_backlog"),
            syn_cookies: tree.number("proc/sys/net/ipv4/tcp_syncookies"),
            abort_on_overflow: tree.number("proc/sys/net/ipv4/tcp_abort_on_overflow"),
            time_wait_buckets: tree.number("proc/sys/net/ipv4/tcp_max_tw_buckets"),
            time_wait_reuse: tree.number("proc/sys/net/ipv4/tcp_tw_reuse"),
            tcp_mem: tcp_mem.try_into().ok(),
            tcp_mem_used: tree.tcp_buffer_pages(),
            receive_max: tree.numbers("proc/sys/net/ipv4/tcp_rmem").get(2).copied(),
            send_max: tree.numbers("proc/sys/net/ipv4/tcp_wmem").get(2).copied(),
            memory_available: tree.memory_available(),
            group_memory_left: tree.group_memory_left(),
            group_tcp_left: tree.left_in_groups(
                "memory",
                "memory.kmem.tcp.limit_in_bytes",
                "memory.kmem.tcp.usage_in_bytes",
            ),
            conntrack_max: tree.number("proc/sys/net/netfilter/nf_conntrack_max"),
            conntrack_used: tree.number("proc/sys/net/netfilter/nf_conntrack_count"),
            kernel_bytes: tree.kernel_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    /// A machine made of files, removed at the end of the test.
    struct Made(PathBuf);

    impl Made {
        fn of(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("doctor-{}-{name}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            fs::create_dir_all(&root).unwrap();
            Self(root)
        }

        fn read(&self) -> Machine {
            Machine::read(&self.0)
        }
    }

    impl Drop for Made {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn every_file_may_be_missing() {
        let machine = Made::of("bare", &[]).read();
        assert_eq!(machine.nr_open, None);
        assert_eq!(machine.ports, None);
        assert_eq!(machine.group_memory_left, None);
        assert!(machine.descriptors_hard.is_some(), "that one is no file");
    }

    #[test]
    fn files_are_read_as_the_kernel_writes_them() {
        let machine = Made::of(
            "full",
            &[
                ("proc/sys/fs/file-nr", "593\t0\t2466177\n"),
                ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
                (
                    "proc/sys/net/ipv4/ip_local_reserved_ports",
                    "8080,40000-40009,60998-61005\n",
                ),
                ("proc/sys/net/ipv4/tcp_mem", "287901\t383868\t575802\n"),
                (
                    "proc/net/sockstat",
                    "sockets: used 17\nTCP: inuse 1 orphan 0 tw 0 alloc 1 mem 148\nUDP: inuse 0 mem 3\n",
                ),
                ("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:   1024 kB\n"),
                ("proc/self/status", "Name:\tx\nCapEff:\t000001fffeffffff\n"),
                (
                    "proc/slabinfo",
                    "slabinfo - version: 2.1\n\
                     TCP 26 26 2368 13 8 : tunables 0\n\
                     sock_inode_cache 76 76 832 19 4 : tunables 0\n\
                     filp 819 819 192 21 1 : tunables 0\n\
                     dentry 52470 52521 192 21 1 : tunables 0\n\
                     eventpoll_epi 192 192 128 32 1 : tunables 0\n",
                ),
            ],
        )
        .read();
        assert_eq!(
            (machine.files_open, machine.files_max),
            (Some(593), Some(2_466_177))
        );
        assert_eq!(machine.ports, Some(28_232 - 10 - 2));
        assert_eq!(machine.tcp_mem, Some([287_901, 383_868, 575_802]));
        assert_eq!(machine.tcp_mem_used, Some(148));
        assert_eq!(machine.memory_available, Some(1 << 20));
        assert_eq!(machine.may_raise, Some(false));
        assert_eq!(machine.kernel_bytes, Some(3902));
    }

    #[test]
    fn the_tightest_group_counts_whichever_level_it_is_at() {
        let machine = Made::of(
            "groups",
            &[
                ("proc/self/cgroup", "4:memory:/a/b\n0::/c/d\n"),
                (
                    "sys/fs/cgroup/memory/memory.limit_in_bytes",
                    "9223372036854771712\n",
                ),
                ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "5000\n"),
                ("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "1000\n"),
                ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9000\n"),
                ("sys/fs/cgroup/c/memory.max", "3500\n"),
                ("sys/fs/cgroup/c/memory.current", "500\n"),
                ("sys/fs/cgroup/c/d/memory.max", "max\n"),
            ],
        )
        .read();
        assert_eq!(machine.group_memory_left, Some(3000));
    }
}
