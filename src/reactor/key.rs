//! A key: which slot, and which of its values.
//!
//! slab hands out the slot that was freed last, so a connection that is closed and one that is accepted in the same turn
//! usually share a slot number; and the batch of events that epoll has already handed over may still hold one for the
//! former. So a key carries a generation number as well, counted by the reactor and never the same for two values of a slot
//! (until it wraps around, 4,294,967,296 registrations later). An event whose generation is not that of the value is stale:
//! it is counted and ignored. One that comes so late that the generation is used again would be taken for a spurious event,
//! which every source has to bear with.

use mio::Token;
use std::fmt;

/// Names something that is, or was, registered with the reactor. `Copy`, small, and harmless when outdated.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// The token of what only ends a wait: the waker, and the timer for an outer event loop. No key has it, since its slot is
/// [`SLOTS_MAX`].
pub(super) const WAKE: Token = Token(usize::MAX);
/// The token of external sources. Its slot is [`SLOTS_MAX`] too.
pub(super) const EXTERNAL: Token = Token(SLOTS_MAX);

/// How many bits of a token are the slot's; the others are the generation's. A token has 64 bits, half for each, or on a 32-bit
/// machine 32: there 20 are for the slots, which is what a process may have descriptors for (`fs.nr_open`), and 12 for
/// 4,096 serials, more than one turn can register.
const SLOT_BITS: u32 = if usize::BITS == 64 { 32 } else { 20 };
/// How many sources a reactor can name at once. The last number is that of [`WAKE`] and
/// [`EXTERNAL`], and the one that ends a list of deadlines.
pub(super) const SLOTS_MAX: usize = usize::MAX >> (usize::BITS - SLOT_BITS);
const SERIAL_MASK: u32 = (usize::MAX >> SLOT_BITS) as u32;

/// The generation of the first registration. It wraps around soon after the start, so that whatever is wrong about that shows
/// at once, in every test, and not after months (as the kernel does with its own clock: `INITIAL_JIFFIES`).
pub(super) const FIRST_SERIAL: u32 = u32::MAX - 15;

impl Key {
    /// The number of its slot. A value has it alone, but not for longer than it is registered: for tables beside the
    /// slots.
    #[must_use]
    pub fn slot(self) -> usize {
        self.slot as usize
    }

    pub(super) fn new(slot: usize, generation: u32) -> Self {
        debug_assert!(slot < SLOTS_MAX);
        Self {
            slot: slot as u32,
            generation: generation & SERIAL_MASK,
        }
    }

    pub(crate) fn token(self) -> Token {
        Token((self.generation as usize) << SLOT_BITS | self.slot as usize)
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
    fn a_key_survives_the_journey_through_the_kernel() {
        for slot in [0, 1, 65_535, 65_536, SLOTS_MAX - 1] {
            for generation in [0, 1, 65_535, u32::MAX] {
                let key = Key::new(slot, generation);
                assert_eq!(Key::from_token(key.token()), key);
                assert!(key.token() != WAKE && key.token() != EXTERNAL);
            }
        }
    }
}
