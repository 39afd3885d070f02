//! Random numbers: those that follow from a seed, and one that cannot be predicted.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// A number that other processes cannot predict: std asks the system for the key of its hash maps.
pub(crate) fn unpredictable() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Random numbers that are the same for the same seed: SplitMix64 ("Fast splittable pseudorandom
/// number generators", OOPSLA 2014). Five lines do not need a crate.
#[cfg(any(test, feature = "bench", feature = "cli", feature = "simulation"))]
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

#[cfg(any(test, feature = "bench", feature = "cli", feature = "simulation"))]
impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    #[allow(clippy::should_implement_trait)] // it has no end, so it is no iterator
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to `end`, without `end`.
    #[cfg(any(test, all(feature = "bench", feature = "cli"), feature = "simulation"))]
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// A number above 0, and 1 at most.
    #[cfg(any(feature = "bench", feature = "cli"))]
    pub(crate) fn fraction(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// True this often in a thousand times.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn happens(&mut self, in_a_thousand: u64) -> bool {
        self.next() % 1000 < in_a_thousand
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of the published C program for the seed 1234567.
    #[test]
    fn the_numbers_are_those_of_split_mix() {
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn the_unpredictable_number_differs() {
        assert_ne!(unpredictable(), unpredictable());
    }
}
