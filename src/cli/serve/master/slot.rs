//! The place of one worker: what its processes have counted, and when it is started again.

use crate::cli::serve::counters::Counters;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A process that has lived for this long was no failure.
const LIVED: Duration = Duration::from_secs(1);

/// The second failure in a row waits this long, and each further one twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// Longest pause of a worker that had served: its queue waits for no longer.
const PAUSE_MAX_SERVED: Duration = Duration::from_millis(100);

/// Longest pause of a worker that never served.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// After so many failures in a row the log says so, once.
const FAILURES_TOLD: u32 = 5;

#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Processes that were started for it.
    pub(super) processes: u64,
    /// Those that were killed, and of which not even the counters in memory could be read.
    pub(super) unreported: u64,
    /// Ends in a row within a second.
    pub(super) failures: u32,
    pub(super) restart_at: Option<Instant>,
    /// The sum of those that have reported.
    pub(super) ended: Counters,
}

impl Slot {
    /// Adds the last report of a process.
    pub(super) fn add(&mut self, counters: &Counters) {
        self.ended.add(counters);
        self.ended.memory.clone_from(&counters.memory);
    }

    /// How long to wait before the next start, after a process that has lived for so long.
    pub(super) fn pause_after(&mut self, had_served: bool, lived: Duration) -> Duration {
        if had_served && lived >= LIVED {
            self.failures = 0;
            return Duration::ZERO;
        }
        self.failures = self.failures.saturating_add(1);
        let longest = match had_served {
            true => PAUSE_MAX_SERVED,
            false => PAUSE_MAX,
        };
        match self.failures {
            1 => Duration::ZERO,
            more => (PAUSE_MIN * 2_u32.saturating_pow((more - 2).min(16))).min(longest),
        }
    }

    pub(super) fn has_failed_repeatedly(&self) -> bool {
        self.failures == FAILURES_TOLD
    }

    /// The row of this worker in the report.
    pub(super) fn row(&self, worker: usize) -> Value {
        let mut row = self.ended.to_json();
        row.insert("worker".into(), json!(worker));
        row.insert("processes".into(), json!(self.processes));
        row.insert("unreported".into(), json!(self.unreported));
        Value::Object(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_grow_and_a_second_of_life_ends_them() {
        let mut slot = Slot::default();
        let ms = |pause: Duration| pause.as_millis();
        let pauses: Vec<u128> = (0..8)
            .map(|_| ms(slot.pause_after(true, Duration::ZERO)))
            .collect();
        assert_eq!(pauses, [0, 10, 20, 40, 80, 100, 100, 100]);
        assert_eq!(ms(slot.pause_after(false, LIVED)), 1_280, "it never served");
        for _ in 0..100 {
            slot.pause_after(false, Duration::ZERO);
        }
        assert_eq!(ms(slot.pause_after(false, Duration::ZERO)), 5_000);
        assert_eq!(ms(slot.pause_after(true, LIVED)), 0);
        assert_eq!(slot.failures, 0);
    }
}
