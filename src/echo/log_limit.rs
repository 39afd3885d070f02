//! At most one line in a while: what happens a hundred thousand times a second must not be said as often.

use std::time::{Duration, Instant};

/// Lets one line through, then none for a while, and counts those.
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

    /// Whether this line may be said; those that may not are added to `suppressed`.
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
    fn one_line_a_while_and_the_rest_counted() {
        let start = Instant::now();
        let mut throttle = LogLimit::new(Duration::from_secs(1));
        let mut suppressed = 0;
        let said = (0..2_500)
            .filter(|&ms| throttle.allows(start + Duration::from_millis(ms), &mut suppressed))
            .count();
        assert_eq!((said, suppressed), (3, 2_497));
    }
}
