//! The bytes that are sent, and that every answer is compared with.
//!
//! Each connection sends a stream of its own, in which every byte depends on its position: a byte that is changed,
//! lost, doubled, moved, or meant for another connection shows at once. The streams are one and the same random text,
//! repeated without end; each connection begins at another place of it. So nothing is ever generated or copied: what is
//! to be sent, and what must come back, are slices of one table, and the check is a `memcmp`.

use crate::random::Random;

/// The length of the text. A prime, so that moving bytes by a block of any usual size does not fall on like bytes; and
/// small enough to stay in the cache next to everything else.
const PERIOD: u64 = 16_381;

/// The text, long enough that a slice may begin anywhere in it.
#[derive(Debug)]
pub(crate) struct Pattern {
    bytes: Vec<u8>,
    seed: u64,
}

impl Pattern {
    /// A text from a seed, of which slices of up to `reach` bytes will be asked.
    pub(crate) fn new(seed: u64, reach: usize) -> Self {
        let mut random = Random::new(seed);
        let text: Vec<u8> = (0..PERIOD).map(|_| random.next() as u8).collect();
        let bytes = text
            .iter()
            .copied()
            .cycle()
            .take(PERIOD as usize + reach)
            .collect();
        Self { bytes, seed }
    }

    /// Where in the text a connection begins.
    pub(crate) fn origin(&self, connection: u64) -> u64 {
        Random::new(self.seed ^ connection.wrapping_mul(0x9e37_79b9)).next() % PERIOD
    }

    /// What stands at a position of the stream that begins at `origin`.
    #[inline]
    pub(crate) fn slice(&self, origin: u64, position: u64, length: usize) -> &[u8] {
        let place = ((origin + position) % PERIOD) as usize;
        &self.bytes[place..place + length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_shift_by_a_usual_size_goes_unseen() {
        let pattern = Pattern::new(1, 256);
        for shift in [1, 2, 16, 64, 1024, 4096, 65_536, 1 << 20] {
            assert_ne!(
                pattern.slice(5, 0, 64),
                pattern.slice(5, shift, 64),
                "{shift}"
            );
        }
        assert_eq!(pattern.slice(5, 0, 64), pattern.slice(5, PERIOD, 64));
    }

    #[test]
    fn another_connection_says_something_else() {
        let pattern = Pattern::new(1, 256);
        let (one, other) = (pattern.origin(1), pattern.origin(2));
        assert_ne!(pattern.slice(one, 0, 16), pattern.slice(other, 0, 16));
        assert_eq!(one, Pattern::new(1, 0).origin(1), "the seed decides");
        assert_ne!(one, Pattern::new(2, 0).origin(1));
    }
}
