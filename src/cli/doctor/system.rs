//! The machine, as far as connections depend on it.
//!
//! All of it is text in /proc and /sys (proc(5), tcp(7), cgroups(7)), and this process's own limit of descriptors. Every
//! file may be missing: in a container, on another kernel, for another user. The root of the tree to read is an argument,
//! so that a test can make up a machine.

use crate::cli::descriptors;
use crate::procfs::tree::Tree;
use std::path::Path;

/// Where the values of a machine are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine<'a> {
    pub(super) tree: Tree<'a>,
    /// The soft and the hard limit of descriptors of this process (getrlimit(2)).
    pub(super) descriptors: Option<(u64, u64)>,
}

impl<'a> Machine<'a> {
    /// The tree below a root, and the limits of this process.
    pub(super) fn new(root: &'a Path) -> Self {
        Self {
            tree: Tree(root),
            descriptors: descriptors::limits().ok(),
        }
    }

    /// A setting, by its name in sysctl(8).
    pub(super) fn sysctl(&self, name: &str) -> Option<u64> {
        self.sysctls(name).first().copied()
    }

    /// All numbers of a setting.
    pub(super) fn sysctls(&self, name: &str) -> Vec<u64> {
        let path = format!("proc/sys/{}", name.replace('.', "/"));
        self.tree.numbers(&path)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A machine made of files, removed at the end of the test.
    pub(in crate::cli::doctor) struct Made(PathBuf);

    impl Made {
        pub(in crate::cli::doctor) fn of(files: &[(&str, &str)]) -> Self {
            static NEXT: AtomicU64 = AtomicU64::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let root = std::env::temp_dir().join(format!("doctor-{}-{number}", std::process::id()));
            fs::create_dir_all(&root).unwrap();
            Self(root).with(files)
        }

        /// The same with other files.
        pub(in crate::cli::doctor) fn with(self, files: &[(&str, &str)]) -> Self {
            for (path, text) in files {
                let path = self.0.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            self
        }

        /// The machine, with these limits of descriptors.
        pub(in crate::cli::doctor) fn machine(&self, soft: u64, hard: u64) -> Machine<'_> {
            Machine {
                tree: Tree(&self.0),
                descriptors: Some((soft, hard)),
            }
        }
    }

    impl Drop for Made {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn every_file_may_be_missing() {
        let made = Made::of(&[]);
        let machine = Machine::new(&made.0);
        assert_eq!(machine.sysctl("fs.nr_open"), None);
        assert_eq!(machine.tree.ports(), None);
        assert_eq!(machine.tree.group_memory_left(), None);
        assert!(machine.descriptors.is_some(), "that one is no file");
    }

    #[test]
    fn files_are_read_as_the_kernel_writes_them() {
        let made = Made::of(&[
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
        ]);
        let machine = made.machine(1, 1);
        assert_eq!(machine.tree.ports(), Some(28_232 - 10 - 2));
        assert_eq!(
            machine.sysctls("net.ipv4.tcp_mem"),
            [287_901, 383_868, 575_802]
        );
        assert_eq!(machine.tree.tcp_buffer_pages(), Some(148));
        assert_eq!(machine.tree.memory_available(), Some(1 << 20));
        assert_eq!(machine.tree.has_capability(24), Some(false));
        assert_eq!(machine.tree.kernel_bytes(), Some(3902));
    }

    #[test]
    fn the_tightest_group_counts_whichever_level_it_is_at() {
        let made = Made::of(&[
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
        ]);
        assert_eq!(made.machine(1, 1).tree.group_memory_left(), Some(3000));
    }
}
