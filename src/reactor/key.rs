//! Keys of registered sources: a slot number with a generation.
//!
//! slab reuses the slot that was freed last, so a connection that is closed and one that is accepted in the same turn
//! usually share a slot number, while the batch of events of that turn may still hold an event of the former. So a key also
//! carries a generation number, which the reactor counts up with each registration: no two sources of a slot share one
//! until it wraps around, 4,294,967,296 registrations later. An event with an old generation is stale: it is counted and
//! ignored. One so late that its generation is in use again would act as a spurious event, which every source tolerates.

use mio::Token;
use std::fmt;

/// Name of a source that is, or was, registered with a reactor. A key of a closed source is harmless.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// Token of what only ends a wait: the waker's eventfd, and the timer for an outer event loop. Its slot is [`SLOTS_MAX`],
/// which no key has.
pub(super) const WAKE: Token = Token(usize::MAX);
/// Token of external sources, with the same slot.
pub(super) const EXTERNAL: Token = Token(SLOTS_MAX);

/// Bits of a token that hold the slot number; the rest hold the generation. On a 64-bit machine each has 32. On a 32-bit
/// machine 20 are enough for the descriptors of a process (`fs.nr_open`), and 12 make 4,096 generations, more than one turn
/// can register.
const SLOT_BITS: u32 = if usize::BITS == 64 { 32 } else { 20 };
/// Largest number of slots. The number itself is used by [`WAKE`] and [`EXTERNAL`], and as the end of a list.
pub(super) const SLOTS_MAX: usize = usize::MAX >> (usize::BITS - SLOT_BITS);
const GENERATION_MASK: u32 = (usize::MAX >> SLOT_BITS) as u32;

/// Generation of the first registration. It is close to the wrap, so that every test passes it and a fault shows at once,
/// not after months (the kernel starts its own clock in this way: `INITIAL_JIFFIES`).
pub(super) const FIRST_GENERATION: u32 = u32::MAX - 15;

impl Key {
    /// Returns the slot number, for tables beside the slots: it belongs to the source alone while it is registered.
    #[must_use]
    pub fn slot(self) -> usize {
        self.slot as usize
    }

    /// Returns the generation, which tells this source from an earlier or later one in the same slot.
    #[must_use]
    pub fn generation(self) -> u32 {
        self.generation
    }

    pub(super) fn new(slot: usize, generation: u32) -> Self {
        debug_assert!(slot < SLOTS_MAX);
        Self {
            slot: slot as u32,
            generation: generation & GENERATION_MASK,
        }
    }

    pub(crate) fn token(self) -> Token {
        Token((self.generation as usize) << SLOT_BITS | self.slot as usize)
    }

    /// The key of a source; `None` for the token of a waker, of a timer, or of an external source.
    #[cfg(feature = "trace")]
    pub(crate) fn of_source(token: Token) -> Option<Self> {
        Some(Self::from_token(token)).filter(|key| key.slot() < SLOTS_MAX)
    }

    pub(crate) fn from_token(token: Token) -> Self {
        Self {
            slot: (token.0 & SLOTS_MAX) as u32,
            generation: (token.0 >> SLOT_BITS) as u32,
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}#{})", self.slot, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_converts_to_a_token_and_back() {
        for slot in [0, 1, 65_535, 65_536, SLOTS_MAX - 1] {
            for generation in [0, 1, 65_535, u32::MAX] {
                let key = Key::new(slot, generation);
                assert_eq!(Key::from_token(key.token()), key);
                assert!(key.token() != WAKE && key.token() != EXTERNAL);
            }
        }
    }
}
