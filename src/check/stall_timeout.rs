//! How long a server may do nothing: the time in which it could have done something.
//!
//! A server that stays silent for two seconds is broken on a quiet machine, and may be perfectly well on a busy one. Two
//! counts tell these apart. Of a server whose processes are known, /proc tells how long their threads were *runnable and
//! did not run* (schedstat, in the kernel's documentation of schedstats); that time is not counted, however busy the
//! machine. Of any other server it is not known; there the checker's own lateness is a measure, and the timeout is threefold.

use crate::procfs::ServerSample;
use crate::procfs::subtree::descendants;
use std::time::{Duration, Instant};

/// How often the server's processes are sampled while nothing moves.
const SAMPLE_EVERY: Duration = Duration::from_millis(20);
/// A sample that comes later than this was late: the checker had no processor itself.
const LATE_SAMPLE: Duration = Duration::from_millis(40);
/// With more threads the kernel is not asked for each of them, and their time counts like that of an unknown server.
const THREADS_MAX: u64 = 64;
/// How often the server's child processes are listed.
const RELIST_EVERY: Duration = Duration::from_millis(500);
/// How much longer an unknown server may take.
const UNKNOWN_FACTOR: u32 = 3;
/// When the machine is so busy that the server's time does not add up, the check ends after this much more.
const EXTENSION_MAX: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) struct StallTimeout {
    limit: Duration,
    server: Option<u32>,
    processes: Vec<u32>,
    /// When the processes were listed: that reads all of /proc, so it is done now and then.
    listed: Option<Instant>,
    /// Since when nothing has moved.
    since: Instant,
    sampled: Instant,
    /// Runnable time of the server's threads, in nanoseconds, at the last sample.
    waited: Option<u64>,
    used: Duration,
}

impl StallTimeout {
    /// For the server with this process, or with none that is known.
    pub(super) fn new(limit: Duration, server: Option<u32>) -> Self {
        let now = Instant::now();
        Self {
            limit,
            server,
            processes: Vec::new(),
            listed: None,
            since: now,
            sampled: now,
            waited: None,
            used: Duration::ZERO,
        }
    }

    /// Something has moved: the count starts anew.
    pub(super) fn restart(&mut self) {
        let now = Instant::now();
        (self.since, self.sampled, self.used, self.waited) = (now, now, Duration::ZERO, None);
    }

    pub(super) fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// How long nothing has moved.
    pub(super) fn silence(&self) -> Duration {
        self.since.elapsed()
    }

    /// Counts the time since the last sample.
    pub(super) fn sample(&mut self) {
        let passed = self.sampled.elapsed();
        if passed < SAMPLE_EVERY {
            return;
        }
        self.sampled += passed;
        let before = self.waited;
        self.waited = self.time_runnable();
        // After a pause of the checker there may be bytes that it has not read yet.
        let counted = passed.min(LATE_SAMPLE);
        self.used += match (before, self.waited) {
            (Some(before), Some(after)) => {
                counted.saturating_sub(Duration::from_nanos(after.saturating_sub(before)))
            }
            (None, Some(_)) => Duration::ZERO, // the first sample has nothing to compare with
            (_, None) => counted / UNKNOWN_FACTOR,
        };
    }

    /// The time that the server's threads have waited for a processor so far; `None` if it is not known.
    fn time_runnable(&mut self) -> Option<u64> {
        let server = self.server?;
        if self.waited.is_none() && self.listed.is_none_or(|then| then.elapsed() > RELIST_EVERY) {
            self.listed = Some(Instant::now());
            self.processes = descendants(server).unwrap_or_default();
            self.processes.push(server);
        }
        let sample = ServerSample::take_all(&self.processes).ok()?;
        (sample.threads <= THREADS_MAX).then_some(sample.usage.waited)
    }

    /// The server had its time and did nothing.
    pub(super) fn has_expired(&self) -> bool {
        self.used >= self.limit
    }

    /// Nothing moves, and the server did not have its time either.
    pub(super) fn must_give_up(&self) -> bool {
        self.silence() > EXTENSION_MAX + self.limit * UNKNOWN_FACTOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn time_of_an_unknown_server_counts_a_third_and_no_pause_of_our_own() {
        let mut stall_timeout = StallTimeout::new(Duration::from_millis(100), None);
        thread::sleep(SAMPLE_EVERY);
        stall_timeout.sample();
        assert!(
            stall_timeout.used > Duration::ZERO
                && stall_timeout.used <= LATE_SAMPLE / UNKNOWN_FACTOR,
            "{stall_timeout:?}"
        );
        thread::sleep(Duration::from_millis(300)); // as a stopped checker would
        stall_timeout.sample();
        assert!(!stall_timeout.has_expired(), "{stall_timeout:?}");
        stall_timeout.restart();
        assert_eq!(stall_timeout.used, Duration::ZERO);
    }

    #[test]
    fn the_time_of_a_sleeping_server_counts_in_full() {
        let mut server = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let mut stall_timeout = StallTimeout::new(Duration::from_millis(60), Some(server.id()));
        let deadline = Instant::now() + Duration::from_secs(30);
        while !stall_timeout.has_expired() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
            stall_timeout.sample();
        }
        assert!(
            stall_timeout.has_expired() && stall_timeout.silence() >= Duration::from_millis(60),
            "{stall_timeout:?}"
        );
        server.kill().unwrap();
        server.wait().unwrap();
    }
}
