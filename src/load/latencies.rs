//! Latencies: a histogram, and beside it what a histogram cannot hold, the exact maximum and the count beyond its range.
//!
//! A histogram to three significant digits rounds its largest value up, by a thousandth; and a value beyond its range is
//! counted at the end of the range, where it looks much shorter than it was. The maximum is the one value of which a
//! reader will ask "how long exactly", so it is kept beside the histogram, and no percentile is told that is larger.

use hdrhistogram::Histogram;

/// End of the range, in nanoseconds: an hour. Longer latencies are counted at its end, and in `beyond_range`.
pub const LATENCY_RANGE_NS: u64 = 3_600_000_000_000;

/// Latencies in nanoseconds, kept to three significant digits: a value is off by a thousandth of itself at most.
#[derive(Clone, Debug, PartialEq)]
pub struct Latencies {
    histogram: Histogram<u64>,
    max_ns: u64,
    beyond_range: u64,
}

/// An empty set of latencies. All have the same bounds, so that adding two is adding their counts.
#[must_use]
pub fn latencies() -> Latencies {
    Latencies {
        histogram: Histogram::new_with_bounds(1, LATENCY_RANGE_NS, 3)
            .expect("the bounds are those of a histogram"),
        max_ns: 0,
        beyond_range: 0,
    }
}

impl Latencies {
    /// Records a latency.
    #[inline]
    pub fn saturating_record(&mut self, nanoseconds: u64) {
        if nanoseconds > self.max_ns {
            self.max_ns = nanoseconds;
        }
        if self.histogram.record(nanoseconds).is_err() {
            self.record_beyond_range();
        }
    }

    #[cold]
    #[inline(never)]
    fn record_beyond_range(&mut self) {
        self.histogram.saturating_record(LATENCY_RANGE_NS);
        self.beyond_range += 1;
    }

    /// Adds all of another set.
    pub fn add(&mut self, more: &Self) {
        // It can only fail for values beyond the bounds, and those of both are the same.
        let _ = self.histogram.add(&more.histogram);
        self.max_ns = self.max_ns.max(more.max_ns);
        self.beyond_range += more.beyond_range;
    }

    /// Empties the set.
    pub fn reset(&mut self) {
        self.histogram.reset();
        (self.max_ns, self.beyond_range) = (0, 0);
    }

    /// Puts together what [`histogram`](Self::histogram), [`max`](Self::max) and [`beyond_range`](Self::beyond_range) told.
    /// `None` if the histogram has another range.
    #[must_use]
    pub fn from_parts(histogram: &Histogram<u64>, max_ns: u64, beyond_range: u64) -> Option<Self> {
        let mut sum = latencies();
        sum.histogram.add(histogram).ok()?;
        (sum.max_ns, sum.beyond_range) = (max_ns, beyond_range);
        Some(sum)
    }

    /// The histogram alone, as the tools of its family read it.
    #[must_use]
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }

    /// How many latencies there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.histogram.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.histogram.is_empty()
    }

    /// The shortest, in nanoseconds, to three significant digits.
    #[must_use]
    pub fn min(&self) -> u64 {
        self.histogram.min()
    }

    /// The longest, in nanoseconds, exactly.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max_ns
    }

    /// How many were longer than the range of the histogram.
    #[must_use]
    pub fn beyond_range(&self) -> u64 {
        self.beyond_range
    }

    /// The arithmetic mean, in nanoseconds.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.histogram.mean()
    }

    /// The standard deviation, in nanoseconds.
    #[must_use]
    pub fn stdev(&self) -> f64 {
        self.histogram.stdev()
    }

    /// The latency that a share `quantile` of all does not exceed, in nanoseconds. A rank that lies among the latencies
    /// beyond the range has no other value than the longest.
    #[must_use]
    pub fn value_at_quantile(&self, quantile: f64) -> u64 {
        let value = self.histogram.value_at_quantile(quantile);
        match self.beyond_range > 0 && value >= LATENCY_RANGE_NS {
            true => self.max_ns,
            false => value.min(self.max_ns),
        }
    }

    /// How many lie between two values, in nanoseconds, both included.
    #[must_use]
    pub fn count_between(&self, low: u64, high: u64) -> u64 {
        self.histogram.count_between(low, high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn the_maximum_is_exact_and_no_percentile_exceeds_it() {
        let mut some = latencies();
        for nanoseconds in [1_234_567, 120_000_000_007, 180 * S + 1] {
            some.saturating_record(nanoseconds);
            assert_eq!(some.max(), nanoseconds);
            assert_eq!(some.value_at_quantile(1.0), nanoseconds);
        }
        assert_eq!((some.len(), some.beyond_range()), (3, 0));
    }

    #[test]
    fn what_is_beyond_the_range_is_counted_and_its_maximum_kept() {
        let mut some = latencies();
        (0..99).for_each(|_| some.saturating_record(1_000));
        some.saturating_record(5 * LATENCY_RANGE_NS);
        some.saturating_record(u64::MAX);
        assert_eq!((some.len(), some.beyond_range()), (101, 2));
        assert_eq!(some.max(), u64::MAX);
        assert_eq!(some.value_at_quantile(0.5), 1_000);
        assert_eq!(
            some.value_at_quantile(0.99),
            u64::MAX,
            "no longer than it was is no answer"
        );
        let mut sum = latencies();
        sum.add(&some);
        let back = Latencies::from_parts(sum.histogram(), sum.max(), sum.beyond_range());
        assert_eq!(back.as_ref(), Some(&sum));
        assert_eq!((sum.max(), sum.beyond_range()), (u64::MAX, 2));
        sum.reset();
        assert_eq!(sum, latencies());
    }
}
