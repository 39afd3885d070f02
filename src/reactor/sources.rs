//! Sources of the reactor: from an empty interest list to adding, changing, queueing and closing them.

use super::Reactor;
use super::event::{Readiness, Registration, Step, TimeoutClass};
use super::horizon::ExpiryHorizon;
use super::key::{FIRST_GENERATION, Key, SLOTS_MAX};
use super::paged_slab::PagedSlab;
use super::selector::{SOURCES_PER_TURN, Selector, Source};
use super::slot::{Links, Slot, lookup};
use super::spin::Spin;
use super::timeouts::Timeouts;
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

impl<S, P> Reactor<S, P> {
    /// Largest number of sources that can be registered at once.
    pub const SOURCES_MAX: usize = SLOTS_MAX;
    /// Memory of one registered source (bytes).
    pub const SLOT_BYTES: usize = size_of::<Slot<S>>();
}

impl<S: Source<P::Registry>, P: Selector> Reactor<S, P> {
    /// Creates a reactor with an empty interest list.
    pub fn new(selector: P) -> Self {
        let now = selector.now();
        Self {
            selector,
            slots: PagedSlab::new(),
            generation: FIRST_GENERATION,
            queue: VecDeque::new(),
            turn: Vec::new(),
            served: 0,
            expired: 0,
            timeouts: Timeouts::new(now),
            now,
            now_ms: 0,
            turn_began: now,
            horizon: ExpiryHorizon::default(),
            spin: Spin::new(Duration::ZERO, now),
            alarm: None,
            stale_events: 0,
            is_unreported: false,
        }
    }

    /// Adds a source to the interest list, and returns its key.
    ///
    /// # Errors
    /// Those of epoll_ctl(2) (`ENOSPC`, `ENOMEM`), or `StorageFull` beyond [`Reactor::SOURCES_MAX`]; the source is given
    /// back with them.
    pub fn add(
        &mut self,
        mut source: S,
        registration: Registration,
    ) -> Result<Key, (S, io::Error)> {
        let number = self.slots.next_number();
        if number >= SLOTS_MAX {
            return Err((source, io::ErrorKind::StorageFull.into()));
        }
        let key = Key::new(number, self.generation);
        if let Err(error) =
            source.register(self.selector.registry(), key.token(), registration.interest)
        {
            return Err((source, error));
        }
        self.generation = self.generation.wrapping_add(1);
        self.slots.insert(Slot {
            source,
            links: Links::UNLINKED,
            generation: key.generation,
            readiness: Readiness::Normal,
            registration,
            queued: false,
        });
        self.timeouts
            .push_back(&mut self.slots, key, registration.class, self.now_ms);
        Ok(key)
    }

    /// Returns the source of a key, unless it is closed.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut S> {
        lookup(&mut self.slots, key).map(|slot| &mut slot.source)
    }

    /// Changes what a source waits for. If the interest differs from the present one, the kernel reports the source again
    /// should it be ready for the new one; if the registration is the same, nothing happens.
    ///
    /// # Errors
    /// Those of epoll_ctl(2); the registration is unchanged then.
    pub fn set_registration(&mut self, key: Key, registration: Registration) -> io::Result<()> {
        let Some(slot) = lookup(&mut self.slots, key) else {
            return Ok(());
        };
        if slot.registration == registration {
            return Ok(());
        }
        // The call that can fail comes first.
        if slot.registration.interest != registration.interest {
            slot.source
                .reregister(self.selector.registry(), key.token(), registration.interest)?;
        }
        let before = std::mem::replace(&mut slot.registration, registration);
        if before.class != registration.class {
            self.timeouts.unlink(&mut self.slots, key, before.class);
            self.timeouts
                .push_back(&mut self.slots, key, registration.class, self.now_ms);
        }
        Ok(())
    }

    /// Queues a source for the next turn with this readiness. The caller does so when it leaves a source that is still
    /// ready, since an edge is reported once.
    pub fn requeue(&mut self, key: Key, readiness: Readiness) {
        if let Some(slot) = lookup(&mut self.slots, key) {
            slot.readiness = slot.readiness.max(readiness);
            if !slot.queued {
                slot.queued = true;
                self.queue.push_back(key);
                self.selector.note(Step::Requeued(key));
            }
        }
    }

    /// Moves requeued sources to the run queue, behind what the kernel has reported: those have waited for no turn yet, and
    /// most are done sooner.
    pub(super) fn take_queued(&mut self) {
        if self.queue.is_empty() {
            return; // nearly always
        }
        let count = self.queue.len().min(SOURCES_PER_TURN);
        for key in self.queue.drain(..count) {
            if let Some(slot) = lookup(&mut self.slots, key) {
                slot.queued = false;
                let readiness = std::mem::replace(&mut slot.readiness, Readiness::Normal);
                self.turn.push((key, readiness));
            }
        }
    }

    /// Returns the selector, for a caller that has something to ask of it or to tell it.
    #[inline]
    pub fn selector(&self) -> &P {
        &self.selector
    }

    /// Returns the next ready source of this turn, for a caller without timeouts and alarm.
    #[cfg(feature = "bench")]
    #[inline]
    pub fn next_ready(&mut self) -> Option<(Key, Readiness)> {
        let ready = *self.turn.get(self.served)?;
        self.served += 1;
        Some(ready)
    }

    /// Removes a source for the caller to drop. Closing the last descriptor of a socket removes it from the interest list
    /// (epoll(7)), so this makes no system call; events of it that are under way are stale.
    pub fn close(&mut self, key: Key) -> Option<S> {
        let class = lookup(&mut self.slots, key)?.registration.class;
        self.timeouts.unlink(&mut self.slots, key, class);
        Some(self.slots.remove(key.slot as usize).source)
    }

    /// Removes a source that may stay open, here or by a duplicate of its descriptor in another process: it is also removed
    /// from the interest list. That it is not there any more is no error.
    pub fn release(&mut self, key: Key) -> Option<S> {
        let mut source = self.close(key)?;
        let _ = source.deregister(self.selector.registry());
        Some(source)
    }

    /// Returns the keys of all sources, as a vector, so that the caller may close them one by one.
    pub fn keys(&self) -> Vec<Key> {
        self.slots
            .iter()
            .map(|(slot, value)| Key::new(slot, value.generation))
            .collect()
    }

    /// Allocates the slots of this many sources in all.
    pub fn preallocate(&mut self, count: usize) {
        self.slots.preallocate(count);
    }

    /// Returns the memory of the slots: of those in use, and of all that are allocated (bytes).
    pub fn slot_bytes(&self) -> (usize, usize) {
        let bytes = |slots: usize| slots * Self::SLOT_BYTES;
        (bytes(self.slots.len()), bytes(self.slots.capacity()))
    }

    /// Returns how many sources have this timeout class.
    pub fn sources_of(&self, class: TimeoutClass) -> usize {
        self.timeouts.slots(class)
    }

    /// Returns the number of stale events so far: those of a source that was closed by then.
    pub fn stale_events(&self) -> u64 {
        self.stale_events
    }
}
