//! When requests are due: the clock, and the plan of an open loop.
//!
//! A closed loop sends when the answer has come, and so asks less of a server the slower it is: its latencies leave out
//! whoever would have come meanwhile (which is known as coordinated omission). An open loop plans its arrivals on a
//! clock that no answer can slow. What may live in this file: that clock. What may not: sending.

use super::pattern::Random;
use nix::time::{ClockId, clock_gettime};

/// Nanoseconds since the run began; sixty-four bits of them last 584 years.
///
/// It is the clock of `std::time::Instant`, read as a number. The clock is read at every answer, and the difference of two
/// `Instant`s takes as many instructions as all else that is done to record it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(u64);

impl Clock {
    pub(super) fn start() -> Self {
        Self(monotonic())
    }

    #[inline]
    pub(super) fn now(self) -> u64 {
        monotonic() - self.0
    }
}

/// Nanoseconds of the monotonic clock, which every Linux has: the call has nothing to fail for (clock_gettime(2)).
#[inline]
fn monotonic() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
    })
}

/// How arrivals follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// Equally far apart.
    Constant,
    /// Independent of one another, as those of many people are: intervals of a Poisson process.
    Poisson,
}

/// The plan of an open loop.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    arrivals: Arrivals,
    /// Nanoseconds between two of them, on average.
    interval: f64,
    random: Random,
    start: u64,
    /// Of a constant rate, how many have been; of Poisson, when the next one is, since `start`. Times are computed from
    /// the start and not from one to the next, so that no error adds up.
    count: u64,
    elapsed: f64,
}

impl Pace {
    /// Arrivals from `start` on, `rate` of them a second.
    pub(super) fn new(arrivals: Arrivals, rate: f64, start: u64, seed: u64) -> Self {
        let mut pace = Self {
            arrivals,
            interval: 1e9 / rate,
            random: Random::new(seed ^ 0x7061_6365),
            start,
            count: 0,
            elapsed: 0.0,
        };
        if arrivals == Arrivals::Poisson {
            pace.draw();
        }
        pace
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
        self.count += 1;
        if self.arrivals == Arrivals::Poisson {
            self.draw();
        }
        Some(due)
    }

    fn draw(&mut self) {
        self.elapsed -= self.random.fraction().ln() * self.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(pace: &mut Pace, until: u64) -> Vec<u64> {
        std::iter::from_fn(|| pace.take(until)).collect()
    }

    #[test]
    fn constant_arrivals_are_equally_far_apart_and_no_error_adds_up() {
        let mut pace = Pace::new(Arrivals::Constant, 3.0, 100, 0);
        let due = taken(&mut pace, 100 + 1_000_000_000_000);
        assert_eq!(due.len(), 3_001);
        assert_eq!(due[..2], [100, 333_333_433]);
        assert_eq!(due[3_000], 1_000_000_000_100);
    }

    #[test]
    fn a_pause_of_the_one_who_asks_does_not_move_the_plan() {
        let mut smooth = Pace::new(Arrivals::Poisson, 1e4, 0, 7);
        let mut paused = smooth.clone();
        let asked_often: Vec<u64> = (1..=1000)
            .flat_map(|ms| taken(&mut smooth, ms * 1_000_000))
            .collect();
        assert_eq!(taken(&mut paused, 1_000_000_000), asked_often);
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread_of_such() {
        let mut pace = Pace::new(Arrivals::Poisson, 1e4, 0, 42);
        let due = taken(&mut pace, 10_000_000_000);
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
