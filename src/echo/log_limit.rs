//! A rate limit for one log line: an event that occurs a hundred thousand times a second must not be logged as often.

use std::time::{Duration, Instant};

/// Lets one line through, then none for a while, and counts the suppressed ones.
#[derive(Debug)]
pub(super) struct LogLimit {
    every: Duration,
    last: Option<Instant>,
}

impl LogLimit {
    /// One line in each `every`.
    pub(super) const fn new(every: Duration) -> Self {
        Self { every, last: None }
    }

    /// Whether this line may be logged; if not, it is added to `suppressed`.
    pub(super) fn allows(&mut self, now: Instant, suppressed: &mut u64) -> bool {
        if self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) < self.every)
        {
            *suppressed += 1;
            return false;
        }
        self.last = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_interval_passes_and_the_rest_is_counted() {
        let start = Instant::now();
        let mut limit = LogLimit::new(Duration::from_secs(1));
        let mut suppressed = 0;
        let logged: Vec<u64> = (0..2_500)
            .filter(|&ms| limit.allows(start + Duration::from_millis(ms), &mut suppressed))
            .collect();
        assert_eq!((logged, suppressed), (vec![0, 1_000, 2_000], 2_497));
    }
}
