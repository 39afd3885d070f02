//! What is ordered, and when a stall is. The time is an argument.

use std::time::Duration;

/// What is ordered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Faults {
    /// Time for which each input waits before the server sees it.
    pub(crate) delay: Duration,
    /// Times in which the server serves nothing.
    pub(crate) stall: Option<Stall>,
    /// Share of datagrams that get no answer, from 0 to 1.
    pub(crate) drop_share: f64,
    /// Number of bytes after which each stream is closed.
    pub(crate) close_after: Option<u64>,
    /// Time that the peer has for its FIN after that.
    pub(crate) fin_timeout: Duration,
    /// The seed of the choice of datagrams.
    pub(crate) seed: u64,
}

/// A stall of `length` at the end of each `period`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stall {
    /// The time for which nothing is served; shorter than the period.
    pub(crate) length: Duration,
    /// The time from one stall to the next.
    pub(crate) period: Duration,
}

impl Stall {
    /// The rest of the stall that is under way this long after the start; zero between two stalls.
    pub(super) fn rest(self, since_start: Duration) -> Duration {
        let phase_ns = since_start.as_nanos() % self.period.as_nanos().max(1);
        // Less than the period, which fits.
        let phase = Duration::from_nanos(u64::try_from(phase_ns).unwrap_or(u64::MAX));
        let rest = self.period.saturating_sub(phase);
        match rest <= self.length {
            true => rest,
            false => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_stall_is_the_end_of_each_period() {
        let stall = Stall {
            length: 100 * MS,
            period: 1_000 * MS,
        };
        for (at, rest) in [
            (0, 0),
            (500, 0),
            (899, 0),
            (900, 100),
            (950, 50),
            (999, 1),
            (1_000, 0),
            (7_910, 90),
        ] {
            assert_eq!(stall.rest(at * MS), rest * MS, "{at}");
        }
        let stalled = (0..3_000).filter(|at| !stall.rest(*at * MS).is_zero());
        assert_eq!(stalled.count(), 300, "a tenth of the time");
    }
}
