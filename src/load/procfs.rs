//! What the machine says of itself: the server's processor time and memory, our own, the kernel's counters of what it
//! threw away, and the limits that a run must fit in.
//!
//! All of it is read from /proc (proc(5)), as text. What may live in this file: reading. What may not: judging.

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::path::Path;

/// What a process, or a thread, has used of the processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nanoseconds on a processor.
    pub cpu: u64,
    /// Nanoseconds in which it could have run, and had to wait for a processor.
    pub waited: u64,
}

impl Usage {
    /// What was used since an earlier moment.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            waited: self.waited.saturating_sub(earlier.waited),
        }
    }

    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu + other.cpu,
            waited: self.waited + other.waited,
        }
    }
}

/// The calling thread's. Zero where the kernel does not tell.
#[must_use]
pub fn own_usage() -> Usage {
    usage(Path::new("/proc/thread-self/schedstat")).unwrap_or_default()
}

fn usage(schedstat: &Path) -> io::Result<Usage> {
    let text = fs::read_to_string(schedstat)?;
    let mut numbers = text
        .split_whitespace()
        .map(|number| number.parse().unwrap_or(0));
    Ok(Usage {
        cpu: numbers.next().unwrap_or(0),
        waited: numbers.next().unwrap_or(0),
    })
}

/// With more threads than this a server is seen only from outside while the load is on. To look at each of ten thousand
/// takes half a second, in which the generator would answer nobody, and measure that.
const THREADS_SEEN: u64 = 64;

/// A server process at one moment: sums over its threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerSample {
    /// What it has used of the processor.
    pub usage: Usage,
    /// Memory that it occupies, in bytes.
    pub rss: u64,
    /// Times that it gave the processor back since it had to wait for something.
    pub switches_voluntary: u64,
    /// Times that it was taken from the processor.
    pub switches_forced: u64,
    /// Its threads.
    pub threads: u64,
}

impl ServerSample {
    /// Looks at a process, at each of its threads if there are few.
    ///
    /// # Errors
    /// That there is none of this number, or that its state is not ours to read.
    pub fn take(pid: u32) -> io::Result<Self> {
        Self::look(pid, THREADS_SEEN)
    }

    fn look(pid: u32, threads_seen: u64) -> io::Result<Self> {
        let process = Path::new("/proc").join(pid.to_string());
        let status = fs::read_to_string(process.join("status"))?;
        let mut sample = Self {
            rss: 1024 * field(&status, "VmRSS"),
            threads: field(&status, "Threads"),
            ..Self::default()
        };
        if sample.threads <= threads_seen {
            sample.add_threads(&process)?;
        }
        // The clock of the process knows what its threads used that have ended, and they do not.
        sample.usage.cpu = cpu_clock(pid).unwrap_or(sample.usage.cpu);
        Ok(sample)
    }

    fn add_threads(&mut self, process: &Path) -> io::Result<()> {
        for task in fs::read_dir(process.join("task"))? {
            let task = task?.path();
            // A thread may end while we look.
            let Ok(usage) = usage(&task.join("schedstat")) else {
                continue;
            };
            self.usage = self.usage.plus(usage);
            let status = fs::read_to_string(task.join("status")).unwrap_or_default();
            self.switches_voluntary += field(&status, "voluntary_ctxt_switches");
            self.switches_forced += field(&status, "nonvoluntary_ctxt_switches");
        }
        Ok(())
    }

    /// Those of several processes; they are seen as one server.
    ///
    /// # Errors
    /// As above, of the first that cannot be seen.
    pub fn take_all(pids: &[u32]) -> io::Result<Self> {
        Self::look_at_all(pids, THREADS_SEEN)
    }

    /// The same with every thread, however many there are. Not to be used while the load is on.
    ///
    /// # Errors
    /// As above.
    pub fn take_all_threads(pids: &[u32]) -> io::Result<Self> {
        Self::look_at_all(pids, u64::MAX)
    }

    fn look_at_all(pids: &[u32], threads_seen: u64) -> io::Result<Self> {
        let mut sum = Self::default();
        for &pid in pids {
            let one = Self::look(pid, threads_seen)?;
            sum.usage = sum.usage.plus(one.usage);
            sum.rss += one.rss;
            sum.switches_voluntary += one.switches_voluntary;
            sum.switches_forced += one.switches_forced;
            sum.threads += one.threads;
        }
        Ok(sum)
    }
}

/// Nanoseconds that a process has used, in all threads that it has or had (clock_getcpuclockid(3)).
fn cpu_clock(pid: u32) -> Option<u64> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid).ok()?)).ok()?;
    let time = clock_gettime(clock).ok()?;
    Some(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// The number behind a name in a table such as /proc/PID/status.
fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Counters of the whole machine that tell of work thrown away.
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
    /// Reads them: of this network namespace, whoever caused them.
    #[must_use]
    pub fn read() -> Self {
        let text = ["/proc/net/snmp", "/proc/net/netstat"]
            .map(|path| fs::read_to_string(path).unwrap_or_default())
            .concat();
        Self(KERNEL_COUNTERS.map(|(table, name)| counter(&text, table, name)))
    }

    /// What was counted since an earlier moment.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        let mut difference = self.0;
        for (count, before) in difference.iter_mut().zip(earlier.0) {
            *count = count.saturating_sub(before);
        }
        Self(difference)
    }

    /// One of them, by its name.
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

/// The first and the last port that the kernel chooses from.
#[must_use]
pub fn port_range() -> (u16, u16) {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ports = text.split_whitespace().filter_map(|port| port.parse().ok());
    match (ports.next(), ports.next()) {
        (Some(first), Some(last)) => (first, last),
        _ => (32_768, 60_999),
    }
}

/// One line of a file of /proc or /sys, if it is there.
#[must_use]
pub fn line_of(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().next().map(|line| line.trim().to_owned())
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
        assert_eq!(field("Name:\tx\nVmRSS:\t  12 kB\n", "VmRSS"), 12);
    }

    #[test]
    fn this_very_process_can_be_seen() {
        let sample = ServerSample::take(std::process::id()).unwrap();
        assert!(sample.rss > 100_000 && sample.threads >= 1, "{sample:?}");
        assert!(ServerSample::take(u32::MAX).is_err());
        let pids = [std::process::id()];
        assert!(ServerSample::take_all_threads(&pids).unwrap().usage.cpu >= sample.usage.cpu);
        let outside = ServerSample::look(pids[0], 0).unwrap();
        assert!(outside.usage.cpu > 0 && outside.threads >= 1 && outside.switches_voluntary == 0);
        let (first, last) = port_range();
        assert!(first < last);
    }
}
