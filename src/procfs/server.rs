//! Processor time, memory and context switches of a server's processes, and the processor time of this thread.

use super::text::number;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::Path;

/// Processor time of a process or a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Nanoseconds on a processor.
    pub cpu: u64,
    /// Nanoseconds in which it was runnable, and waited for a processor.
    pub waited: u64,
}

impl Usage {
    /// The time used since an earlier moment.
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
            cpu: self.cpu.saturating_add(other.cpu),
            waited: self.waited.saturating_add(other.waited),
        }
    }
}

/// Processor time of the calling thread; zero where the kernel does not say.
#[must_use]
pub(crate) fn own_usage() -> Usage {
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

/// Whether there is a process of this number.
///
/// # Errors
/// There is none (`NotFound`), or it is not visible.
#[cfg(feature = "cli")]
pub(crate) fn check_process(pid: u32) -> io::Result<()> {
    fs::read(format!("/proc/{pid}/stat")).map(drop)
}

/// Up to this many threads, each one is read while the load is on. Reading ten thousand takes half a second, in which the
/// load generator would serve no connection, and would measure that.
const THREADS_SEEN: u64 = 64;

/// A server process at one moment: sums over its threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSample {
    /// Processor time.
    pub usage: Usage,
    /// Resident memory, in bytes.
    pub rss: u64,
    /// Voluntary context switches: the process waited for something.
    pub switches_voluntary: u64,
    /// Involuntary context switches: the scheduler took the processor away.
    pub switches_forced: u64,
    /// Number of threads.
    pub threads: u64,
}

impl ServerSample {
    /// Reads the state of a process, and of each of its threads if there are few.
    ///
    /// # Errors
    /// There is no process of this number, or its state may not be read.
    pub fn take(pid: u32) -> io::Result<Self> {
        Self::read(pid, THREADS_SEEN)
    }

    fn read(pid: u32, threads_seen: u64) -> io::Result<Self> {
        let process = Path::new("/proc").join(pid.to_string());
        let status = fs::read_to_string(process.join("status"))?;
        let field = |name| number(&status, name).unwrap_or(0);
        let mut sample = Self {
            rss: 1024 * field("VmRSS"),
            threads: field("Threads"),
            ..Self::default()
        };
        if sample.threads <= threads_seen {
            sample.add_threads(&process)?;
        }
        // The clock of the process includes threads that have ended.
        sample.usage.cpu = cpu_clock(pid).unwrap_or(sample.usage.cpu);
        Ok(sample)
    }

    fn add_threads(&mut self, process: &Path) -> io::Result<()> {
        for task in fs::read_dir(process.join("task"))? {
            let task = task?.path();
            // A thread may end meanwhile.
            let Ok(usage) = usage(&task.join("schedstat")) else {
                continue;
            };
            self.usage = self.usage.plus(usage);
            let status = fs::read_to_string(task.join("status")).unwrap_or_default();
            let field = |name| number(&status, name).unwrap_or(0);
            self.switches_voluntary += field("voluntary_ctxt_switches");
            self.switches_forced += field("nonvoluntary_ctxt_switches");
        }
        Ok(())
    }

    /// Sums over several processes, which are one server.
    ///
    /// # Errors
    /// Those of [`take`](Self::take), for the first process that cannot be read.
    pub fn take_all(pids: &[u32]) -> io::Result<Self> {
        Self::read_all(pids, THREADS_SEEN)
    }

    /// Sums over several processes and all of their threads, however many. Too slow while the load is on.
    ///
    /// # Errors
    /// Those of [`take`](Self::take).
    pub fn take_all_threads(pids: &[u32]) -> io::Result<Self> {
        Self::read_all(pids, u64::MAX)
    }

    fn read_all(pids: &[u32], threads_seen: u64) -> io::Result<Self> {
        let mut sum = Self::default();
        for &pid in pids {
            let one = Self::read(pid, threads_seen)?;
            sum.usage = sum.usage.plus(one.usage);
            sum.rss += one.rss;
            sum.switches_voluntary += one.switches_voluntary;
            sum.switches_forced += one.switches_forced;
            sum.threads += one.threads;
        }
        Ok(sum)
    }
}

/// How many descriptors a process has open.
#[cfg(feature = "check")]
pub(crate) fn open_descriptors_of(pid: u32) -> Option<u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    Some(entries.count() as u64)
}

/// Nanoseconds used by a process, in all threads that it has or had (clock_getcpuclockid(3)).
fn cpu_clock(pid: u32) -> Option<u64> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid).ok()?)).ok()?;
    let time = clock_gettime(clock).ok()?;
    Some(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_read() {
        let sample = ServerSample::take(std::process::id()).unwrap();
        assert!(sample.rss > 100_000 && sample.threads >= 1, "{sample:?}");
        assert!(ServerSample::take(u32::MAX).is_err());
        let pids = [std::process::id()];
        assert!(ServerSample::take_all_threads(&pids).unwrap().usage.cpu >= sample.usage.cpu);
        let outside = ServerSample::read(pids[0], 0).unwrap();
        assert!(outside.usage.cpu > 0 && outside.threads >= 1 && outside.switches_voluntary == 0);
    }
}
