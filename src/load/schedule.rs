//! When requests are due: the clock, and the plan of an open loop.
//!
//! A closed loop sends when the answer has come, and so asks less of a server the slower it is: its latencies leave
//! out the requests that would have been sent meanwhile (coordinated omission). An open loop plans its arrivals on a
//! clock that no answer can slow.

use crate::random::Random;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Time between two rounds of housekeeping of a worker, in nanoseconds.
pub(super) const TICK: u64 = 20_000_000;

/// A time in nanoseconds. What is too long for them is as good as endless.
pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4)
}

/// Nanoseconds since the run began; sixty-four bits of them last 584 years.
///
/// It is the clock of `std::time::Instant`, read as a number. The clock is read at every answer, and the difference of two
/// `Instant`s takes as many instructions as all else that is done to record it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(u64);

impl Clock {
    pub(super) fn start() -> Self {
        Self(monotonic_ns())
    }

    #[inline]
    pub(super) fn now(self) -> u64 {
        monotonic_ns() - self.0
    }

    /// A time of the monotonic clock as a time of this one.
    pub(super) fn at(self, monotonic_ns: u64) -> u64 {
        monotonic_ns.saturating_sub(self.0)
    }
}

/// Nanoseconds of the monotonic clock, which every Linux has: the call has nothing to fail for (clock_gettime(2)). All
/// processes of a machine read the same clock.
#[inline]
#[must_use]
pub fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
    })
}

/// How arrivals follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// Equally far apart.
    Constant,
    /// Independent of one another, as those of many people are: intervals of a Poisson process.
    Poisson,
}

/// The plan of an open loop: this worker's part of it.
#[derive(Clone, Debug)]
pub(super) struct ArrivalSchedule {
    arrivals: Arrivals,
    /// Nanoseconds between two arrivals, on average: of a constant rate those of all workers, of Poisson those of this one.
    interval: f64,
    random: Random,
    start: u64,
    /// Of a constant rate, the number of the next arrival among those of all workers; of Poisson, when it is, since
    /// `start`. Times are computed from the start and not from one to the next, so that no error adds up.
    count: u64,
    elapsed: f64,
    turns: Turns,
}

/// Which of the arrivals of a constant rate are this worker's.
///
/// Each worker with a clock of its own would send evenly, and all of them together in bunches. So the arrivals of all
/// workers are one series, whose members go to the workers in turn, by their shares ("smooth weighted round robin", as
/// nginx has it): every worker computes the whole series and takes what is its own.
#[derive(Clone, Debug)]
struct Turns {
    worker: usize,
    shares: Vec<i64>,
    credit: Vec<i64>,
}

impl Turns {
    fn new(active_by_worker: &[usize], worker: usize) -> Self {
        let shares: Vec<i64> = match active_by_worker {
            [] => vec![1],
            active_by_worker => active_by_worker.iter().map(|&share| share as i64).collect(),
        };
        Self {
            worker: worker.min(shares.len() - 1),
            credit: vec![0; shares.len()],
            shares,
        }
    }

    /// The share of this worker in the whole.
    fn share(&self) -> f64 {
        self.shares[self.worker] as f64 / self.all() as f64
    }

    fn all(&self) -> i64 {
        self.shares.iter().sum::<i64>().max(1)
    }

    /// How many arrivals of other workers come before the next one of this worker, which must have a share.
    fn arrivals_before_own(&mut self) -> u64 {
        if self.shares.len() == 1 {
            return 0;
        }
        let all = self.all();
        for others in 0.. {
            let mut chosen = 0;
            for worker in 0..self.shares.len() {
                self.credit[worker] += self.shares[worker];
                if self.credit[worker] > self.credit[chosen] {
                    chosen = worker;
                }
            }
            self.credit[chosen] -= all;
            if chosen == self.worker {
                return others;
            }
        }
        0
    }
}

impl ArrivalSchedule {
    /// Arrivals from `start` on, `rate` of them a second for all workers. `None` for a worker that has no connection
    /// to send them on.
    pub(super) fn new(
        (arrivals, rate): (Arrivals, f64),
        start: u64,
        seed: u64,
        active_by_worker: &[usize],
        worker: usize,
    ) -> Option<Self> {
        let turns = Turns::new(active_by_worker, worker);
        if turns.shares[turns.worker] == 0 {
            return None;
        }
        let mut schedule = Self {
            arrivals,
            interval: match arrivals {
                Arrivals::Constant => 1e9 / rate,
                Arrivals::Poisson => 1e9 / rate / turns.share(),
            },
            random: Random::new(seed ^ 0x7061_6365),
            start,
            count: 0,
            elapsed: 0.0,
            turns,
        };
        match arrivals {
            Arrivals::Constant => schedule.count = schedule.turns.arrivals_before_own(),
            Arrivals::Poisson => schedule.draw(),
        }
        Some(schedule)
    }

    /// When the next one is due.
    #[inline]
    pub(super) fn next_due(&self) -> u64 {
        self.start
            + match self.arrivals {
                Arrivals::Constant => (self.count as f64 * self.interval) as u64,
                Arrivals::Poisson => self.elapsed as u64,
            }
    }

    /// Takes the next one, if it is due by `now`.
    #[inline]
    pub(super) fn take(&mut self, now: u64) -> Option<u64> {
        let due = self.next_due();
        if due > now {
            return None;
        }
        match self.arrivals {
            Arrivals::Constant => self.count += 1 + self.turns.arrivals_before_own(),
            Arrivals::Poisson => self.draw(),
        }
        Some(due)
    }

    /// Leaves out the arrivals that are due by `now`, and returns their number, without counting them one by one: a
    /// plan that is far beyond what can be sent is also beyond what can be counted in time.
    pub(super) fn skip(&mut self, now: u64) -> u64 {
        let behind = now.saturating_sub(self.next_due()) as f64;
        match self.arrivals {
            // Whole rounds of the workers do not change whose turn it is.
            Arrivals::Constant => {
                let all = self.turns.all() as u64;
                let rounds = (behind / self.interval) as u64 / all;
                self.count += rounds * all;
                rounds * self.turns.shares[self.turns.worker] as u64
            }
            // A Poisson process has no memory: it begins anew at any moment.
            Arrivals::Poisson => {
                self.elapsed += behind;
                self.draw();
                (behind / self.interval) as u64
            }
        }
    }

    fn draw(&mut self) {
        self.elapsed -= self.random.fraction().ln() * self.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(schedule: &mut ArrivalSchedule, until: u64) -> Vec<u64> {
        std::iter::from_fn(|| schedule.take(until)).collect()
    }

    fn schedule(arrivals: Arrivals, rate: f64, start: u64, seed: u64) -> ArrivalSchedule {
        ArrivalSchedule::new((arrivals, rate), start, seed, &[], 0).unwrap()
    }

    #[test]
    fn the_arrivals_of_all_workers_are_one_series() {
        for active_by_worker in [&[4, 4][..], &[3, 2], &[0, 1], &[5, 0, 3, 1]] {
            let mut all = Vec::new();
            for (worker, &share) in active_by_worker.iter().enumerate() {
                let schedule =
                    ArrivalSchedule::new((Arrivals::Constant, 1e6), 7, 0, active_by_worker, worker);
                assert_eq!(schedule.is_none(), share == 0);
                let due = schedule
                    .map_or_else(Vec::new, |mut schedule| taken(&mut schedule, 7 + 9_999_999));
                let fair = 10_000 * share / active_by_worker.iter().sum::<usize>();
                assert!(
                    due.len().abs_diff(fair) <= 1,
                    "{active_by_worker:?} {worker} {}",
                    due.len()
                );
                all.extend(due);
            }
            all.sort_unstable();
            let expected: Vec<u64> = (0..10_000).map(|n| 7 + n * 1_000).collect();
            assert_eq!(all, expected, "{active_by_worker:?}");
        }
    }

    #[test]
    fn what_is_left_out_is_counted() {
        for arrivals in [Arrivals::Constant, Arrivals::Poisson] {
            let active_by_worker = [2, 3];
            let mut schedule =
                ArrivalSchedule::new((arrivals, 1e9), 0, 1, &active_by_worker, 1).unwrap();
            let left_out = schedule.skip(1_000_000_000) as f64;
            assert!((left_out - 6e8).abs() < 1e6, "{arrivals:?}: {left_out}");
            assert!(schedule.next_due() + 10_000 > 1_000_000_000, "{arrivals:?}");
        }
    }

    #[test]
    fn constant_arrivals_are_equally_far_apart_and_no_error_adds_up() {
        let mut schedule = schedule(Arrivals::Constant, 3.0, 100, 0);
        let due = taken(&mut schedule, 100 + 1_000_000_000_000);
        assert_eq!(due.len(), 3_001);
        assert_eq!(due[..2], [100, 333_333_433]);
        assert_eq!(due[3_000], 1_000_000_000_100);
    }

    #[test]
    fn a_pause_of_the_one_who_asks_does_not_move_the_plan() {
        let mut smooth = schedule(Arrivals::Poisson, 1e4, 0, 7);
        let mut paused = smooth.clone();
        let asked_often: Vec<u64> = (1..=1000)
            .flat_map(|ms| taken(&mut smooth, ms * 1_000_000))
            .collect();
        assert_eq!(taken(&mut paused, 1_000_000_000), asked_often);
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread_of_such() {
        let mut schedule = schedule(Arrivals::Poisson, 1e4, 0, 42);
        let due = taken(&mut schedule, 10_000_000_000);
        assert!((99_000..101_000).contains(&due.len()), "{}", due.len());
        // Of intervals of 100 us on average, e^-1 are longer than that.
        let longer = due
            .windows(2)
            .filter(|pair| pair[1] - pair[0] > 100_000)
            .count();
        let share = longer as f64 / due.len() as f64;
        assert!((0.36..0.375).contains(&share), "{share}");
    }
}
