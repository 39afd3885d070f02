//! Latencies: a histogram, and beside it what a histogram cannot hold, the exact maximum and the count beyond its range.
//!
//! A histogram to three significant digits rounds its largest value up, by a thousandth; and a value beyond its range is
//! counted at the end of the range, where it looks much shorter than it was. The maximum is the one value of which a
//! reader will ask "how long exactly", so it is kept beside the histogram, and no percentile is told that is larger.

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer as Reader, Serializer as Writer, V2Serializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

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
        self.beyond_range = self.beyond_range.saturating_add(more.beyond_range);
    }

    /// Empties the set.
    pub fn reset(&mut self) {
        self.histogram.reset();
        (self.max_ns, self.beyond_range) = (0, 0);
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

/// As three values: the histogram in its own compressed form (HdrHistogram V2), in hexadecimal digits; the maximum; the count
/// beyond the range.
impl Serialize for Latencies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        // Writing to memory cannot fail.
        let _ = V2Serializer::new().serialize(&self.histogram, &mut bytes);
        let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
        let digits = bytes
            .iter()
            .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
        let digits: String = digits.collect();
        (digits, self.max_ns, self.beyond_range).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Latencies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (digits, max_ns, beyond_range) = <(String, u64, u64)>::deserialize(deserializer)?;
        let histogram = histogram_of(&digits).ok_or_else(|| D::Error::custom("no histogram"))?;
        // Every histogram here has the same bounds.
        let mut read = latencies();
        read.histogram
            .add(histogram)
            .map_err(|_| D::Error::custom("the histogram has another range"))?;
        (read.max_ns, read.beyond_range) = (max_ns, beyond_range);
        Ok(read)
    }
}

/// Bytes before the counts in the form V2: cookie, length of the counts, offset, digits, bounds, ratio.
const V2_HEADER_BYTES: usize = 40;
/// From so many bytes with their highest bit set a number follows that is no count of anything, or has no negation.
const VARINT_MAX: usize = 8;

/// The header says how much memory the reader takes, and may come from another machine: it must be that of our own
/// histograms, and its length that of the bytes.
fn histogram_of(digits: &str) -> Option<Histogram<u64>> {
    let places = (0..digits.len()).step_by(2);
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    let bytes: Vec<u8> = places.map(byte).collect::<Option<_>>()?;
    let mut own = Vec::new();
    V2Serializer::new()
        .serialize(latencies().histogram(), &mut own)
        .ok()?;
    let (header, counts) = bytes.split_at_checked(V2_HEADER_BYTES)?;
    let length = u32::try_from(counts.len()).ok()?.to_be_bytes();
    let expected = [&own[..4], &length, &own[8..V2_HEADER_BYTES]].concat();
    let is_long = |bytes: &[u8]| bytes.iter().all(|byte| byte & 0x80 != 0);
    if header != expected || counts.windows(VARINT_MAX).any(is_long) {
        return None;
    }
    Reader::new().deserialize(&mut bytes.as_slice()).ok()
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
        let json = serde_json::to_string(&sum).unwrap();
        assert_eq!(serde_json::from_str::<Latencies>(&json).unwrap(), sum);
        for wrong in [r#"["", 0, 0]"#, r#"["1c8", 0, 0]"#, r#"["xx", 0, 0]"#] {
            assert!(serde_json::from_str::<Latencies>(wrong).is_err(), "{wrong}");
        }
        assert_eq!((sum.max(), sum.beyond_range()), (u64::MAX, 2));
        sum.reset();
        assert_eq!(sum, latencies());
    }
}
