//! One registered source with its bookkeeping.

use super::event::{Readiness, Registration};
use super::key::{Key, SLOTS_MAX};
use super::paged_slab::PagedSlab;

/// A registered source. Its size is the cost of an idle connection; `echo` asserts it.
#[derive(Debug)]
pub(super) struct Slot<S> {
    pub(super) source: S,
    pub(super) links: Links,
    pub(super) generation: u32,
    pub(super) registration: Registration,
    /// The source is queued for the next turn, which will report `readiness`.
    pub(super) queued: bool,
    pub(super) readiness: Readiness,
}

/// Links of a slot in the list of its timeout class.
#[derive(Debug)]
pub(super) struct Links {
    pub(super) previous: u32,
    pub(super) next: u32,
    /// When the slot was last moved to the back, in milliseconds since the reactor was created. In 32 bits they would wrap
    /// around after 49 days, and every comparison would have to allow for that.
    pub(super) moved_ms: u64,
}

impl Links {
    pub(super) const UNLINKED: Self = Self {
        previous: NIL,
        next: NIL,
        moved_ms: 0,
    };
}

/// End of a list; no slot has this number.
pub(super) const NIL: u32 = u32::MAX;
const _: () = assert!(SLOTS_MAX <= NIL as usize);

/// Returns the slot of a key, unless its source is closed. This is a function of the slots alone, so that the other fields
/// of a reactor stay free to use.
pub(super) fn lookup<S>(slots: &mut PagedSlab<Slot<S>>, key: Key) -> Option<&mut Slot<S>> {
    slots
        .get_mut(key.slot as usize)
        .filter(|slot| slot.generation == key.generation)
}
