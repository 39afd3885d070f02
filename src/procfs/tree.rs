//! Files of /proc and /sys by their paths, below a root.

use super::own::mask;
use super::text::{number, value};
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The kernel objects of one end of a TCP connection in an epoll interest list, as slabinfo(5) calls them.
const OBJECTS: [&str; 5] = ["TCP", "sock_inode_cache", "filp", "dentry", "eventpoll_epi"];

/// /proc and /sys below a root: `/`, or a directory of made-up files in a test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tree<'a>(pub(crate) &'a Path);

impl Tree<'_> {
    /// The text of a file.
    pub(crate) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        fs::read_to_string(self.0.join(path)).ok()
    }

    /// The first line of a file, if it is not empty.
    pub(crate) fn line(&self, path: &str) -> Option<String> {
        let text = self.text(path)?;
        let line = text.lines().next()?.trim();
        (!line.is_empty()).then(|| line.to_owned())
    }

    /// The numbers at the beginning of a file.
    pub(crate) fn numbers(&self, path: &str) -> Vec<u64> {
        let text = self.text(path).unwrap_or_default();
        text.split_whitespace()
            .map_while(|word| word.parse().ok())
            .collect()
    }

    /// The first number of a file.
    pub(crate) fn number(&self, path: &str) -> Option<u64> {
        self.numbers(path).first().copied()
    }

    /// Whether this process has a capability, by its number in capabilities(7).
    pub(crate) fn has_capability(&self, number: u32) -> Option<bool> {
        let status = self.text("proc/self/status")?;
        Some(mask(&status, "CapEff")? >> number & 1 == 1)
    }

    /// Memory of the machine, in bytes.
    #[cfg(feature = "bench")]
    pub(crate) fn memory_total(&self) -> Option<u64> {
        let kilobytes = number(&self.text("proc/meminfo")?, "MemTotal")?;
        Some(kilobytes * 1024)
    }

    /// Memory that new processes can have without swapping, in bytes.
    pub(crate) fn memory_available(&self) -> Option<u64> {
        let kilobytes = number(&self.text("proc/meminfo")?, "MemAvailable")?;
        Some(kilobytes * 1024)
    }

    /// Pages in all TCP buffers: the last number of `TCP: inuse 5 orphan 0 tw 0 alloc 9 mem 2`.
    pub(crate) fn tcp_buffer_pages(&self) -> Option<u64> {
        let sockstat = self.text("proc/net/sockstat")?;
        let mut words = value(&sockstat, "TCP")?.split_whitespace();
        words.find(|&word| word == "mem")?;
        words.next()?.parse().ok()
    }

    /// Number of ports that the kernel assigns from, without the reserved ones.
    pub(crate) fn ports(&self) -> Option<u64> {
        let range = self.numbers("proc/sys/net/ipv4/ip_local_port_range");
        let &[first, last] = range.as_slice() else {
            return None;
        };
        let reserved = self
            .line("proc/sys/net/ipv4/ip_local_reserved_ports")
            .unwrap_or_default();
        let reserved: u64 = reserved
            .split(',')
            .filter_map(|range| {
                let (from, to) = range.split_once('-').unwrap_or((range, range));
                let (from, to) = (u64::from_str(from).ok()?, u64::from_str(to).ok()?);
                Some((to.min(last) + 1).saturating_sub(from.max(first)))
            })
            .sum();
        Some((last + 1).saturating_sub(first + reserved))
    }

    /// Bytes of kernel memory for one end of an idle TCP connection: one object of each kind. Objects are allocated in slabs
    /// of some pages each. Only root may read slabinfo(5).
    pub(crate) fn kernel_bytes(&self) -> Option<u64> {
        const PAGE: f64 = 4096.0;
        let text = self.text("proc/slabinfo")?;
        let bytes = OBJECTS.map(|object| {
            let line = text
                .lines()
                .find(|line| line.split_whitespace().next() == Some(object))?;
            let number = |place: usize| line.split_whitespace().nth(place)?.parse::<f64>().ok();
            let (per_slab, pages) = (number(4)?, number(5)?);
            (per_slab > 0.0).then(|| pages * PAGE / per_slab)
        });
        // A kernel may merge caches of about one size under another name; where one is missing, the estimate is used.
        let sum = bytes.into_iter().sum::<Option<f64>>()?;
        Some(sum.ceil() as u64)
    }

    /// The least memory left of a limit, in bytes, among all control groups of this process.
    pub(crate) fn group_memory_left(&self) -> Option<u64> {
        let old = self.left_in_groups("memory", "memory.limit_in_bytes", "memory.usage_in_bytes");
        let new = self.left_in_groups("", "memory.max", "memory.current");
        [old, new].into_iter().flatten().min()
    }

    /// The least that is left of a limit in this process's control group and all groups above it. The controller is
    /// empty for the single hierarchy of version 2. `None`: no such limit, or it cannot be read.
    pub(crate) fn left_in_groups(&self, controller: &str, limit: &str, used: &str) -> Option<u64> {
        /// Version 1 writes "no limit" as the largest number of whole pages.
        const NO_LIMIT: u64 = 1 << 60;
        let left = self.groups(controller).into_iter().filter_map(|group| {
            let read =
                |name: &str| -> Option<u64> { self.text(group.join(name))?.trim().parse().ok() };
            let limit = read(limit).filter(|&limit| limit < NO_LIMIT)?;
            Some(limit.saturating_sub(read(used).unwrap_or(0)))
        });
        left.min()
    }

    /// Whether a control group of this process has a quota of CPU time.
    pub(crate) fn has_cpu_quota(&self) -> bool {
        // Without a quota the first word is `max`, and in version 1 it is -1.
        let is_quota = |file: PathBuf| -> Option<u64> {
            let text = self.text(file)?;
            text.split_whitespace().next()?.parse().ok()
        };
        [("", "cpu.max"), ("cpu", "cpu.cfs_quota_us")]
            .into_iter()
            .flat_map(|(controller, file)| {
                let groups = self.groups(controller);
                groups.into_iter().map(move |group| group.join(file))
            })
            .any(|file| is_quota(file).is_some())
    }

    /// The directories of this process's control group and of all groups above it.
    fn groups(&self, controller: &str) -> Vec<PathBuf> {
        let groups = self.text("proc/self/cgroup").unwrap_or_default();
        let group = groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let controllers = parts.nth(1)?;
            let mine = controllers.split(',').any(|name| name == controller);
            parts.next().filter(|_| mine)
        });
        let Some(group) = group else {
            return Vec::new();
        };
        let mounts = match controller {
            "" => vec![
                "sys/fs/cgroup".to_owned(),
                "sys/fs/cgroup/unified".to_owned(),
            ],
            name => vec![format!("sys/fs/cgroup/{name}")],
        };
        let path = Path::new(group.trim_start_matches('/'));
        let folders = mounts.iter().flat_map(|mount| {
            path.ancestors()
                .map(move |around| Path::new(mount).join(around))
        });
        folders.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_of_cpu_time_is_found_in_either_version_and_in_a_group_above() {
        for (case, (groups, file, text, is_quota)) in [
            ("0::/a/b\n", "a/cpu.max", "50000 100000\n", true),
            ("0::/a/b\n", "a/b/cpu.max", "max 100000\n", false),
            ("0::/a/b\n", "c/cpu.max", "50000 100000\n", false),
            (
                "3:cpu,cpuacct:/a\n0::/\n",
                "cpu/a/cpu.cfs_quota_us",
                "50000\n",
                true,
            ),
            (
                "3:cpu,cpuacct:/a\n0::/\n",
                "cpu/a/cpu.cfs_quota_us",
                "-1\n",
                false,
            ),
        ]
        .into_iter()
        .enumerate()
        {
            let name = format!("echo-reactor-quota-{}-{case}", std::process::id());
            let root = std::env::temp_dir().join(name);
            let write = |path: PathBuf, text: &str| {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            };
            write("proc/self/cgroup".into(), groups);
            write(Path::new("sys/fs/cgroup").join(file), text);
            assert_eq!(
                Tree(&root).has_cpu_quota(),
                is_quota,
                "{groups:?} {file} {text:?}"
            );
            fs::remove_dir_all(root).unwrap();
        }
    }
}
