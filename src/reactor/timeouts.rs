//! Timeouts of very many sources at O(1) each, without a heap or a timer wheel.
//!
//! All sources that wait for the same thing wait equally long: a connection that reads has the idle timeout, one with
//! unsent bytes has the write-stall timeout. Each is a [`TimeoutClass`]: a list in the order of last activity, whose head
//! is the next to expire. The list is doubly linked through the slots themselves, so that it needs no memory of its own,
//! and a source that is closed leaves no entry behind.
//!
//! Moving a slot to the back at every event would touch its two neighbours each time: three cache lines instead of one. So
//! a slot is moved only if a sixteenth of the timeout has passed since its last move (nginx limits its timer updates in the
//! same way), and that sixteenth is added to the timeout. So a source never expires early, and at most a sixteenth late.
//!
//! Optimiser notes: a busy loop has many turns in a millisecond; `begin_millisecond` is `#[cold]`, and `until_next` is
//! stored, so that a common turn costs two comparisons.

use super::event::TimeoutClass;
use super::key::Key;
use super::paged_slab::PagedSlab;
use super::slot::{Links, NIL, Slot};
use std::time::{Duration, Instant};

const CLASSES: usize = 6;

/// All classes, and the clock that they share.
#[derive(Debug)]
pub(super) struct Timeouts {
    start: Instant,
    now_ms: u64,
    next_ms_at: Instant,
    queues: [Queue; CLASSES],
    classes: u8,
    /// Lower bound of the earliest deadline. May be stale after a touch or an unlink; recomputed when it is reached.
    earliest_due_ms: Option<u64>,
    /// Time until then. Recomputed when the millisecond or the bound changes.
    until_next: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Queue {
    head: u32,
    tail: u32,
    /// `None` never expires; its slots are not linked.
    timeout_ms: Option<u64>,
    /// Time for which an active slot is not moved: a sixteenth of the timeout, or without end.
    grain_ms: u64,
    /// Slots of this class, those that never expire among them.
    slots: usize,
}

impl Queue {
    /// A queue that events move a slot to the end of.
    fn new(timeout_ms: Option<u64>) -> Self {
        let grain_ms = timeout_ms.map_or(u64::MAX, |timeout_ms| timeout_ms / 16);
        Self {
            head: NIL,
            tail: NIL,
            timeout_ms: timeout_ms.map(|timeout_ms| timeout_ms + grain_ms),
            grain_ms,
            slots: 0,
        }
    }

    /// A queue in which a slot keeps its place, whatever its events.
    fn of_deadlines(timeout_ms: u64) -> Self {
        Self {
            timeout_ms: Some(timeout_ms),
            ..Self::new(None)
        }
    }
}

/// Longest timeout of a class (milliseconds): 146 million years, so that no sum with it overflows.
const LONGEST_MS: u64 = u64::MAX / 4;

/// Rounded up, plus one: both ends of a wait are rounded down to whole milliseconds, and none may expire early.
fn whole_ms(timeout: Duration) -> u64 {
    let whole_ms = timeout.as_nanos().div_ceil(1_000_000);
    u64::try_from(whole_ms).map_or(LONGEST_MS, |ms| ms.min(LONGEST_MS) + 1)
}

impl Timeouts {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            now_ms: 0,
            next_ms_at: start,
            queues: [Queue::new(None); CLASSES],
            classes: 1, // the first is TimeoutClass::NEVER
            earliest_due_ms: None,
            until_next: None,
        }
    }

    /// Creates a class whose timeout each event restarts.
    pub(super) fn timeout_class(&mut self, timeout: Option<Duration>) -> TimeoutClass {
        self.add_class(Queue::new(timeout.map(whole_ms)))
    }

    /// Creates a class whose timeout no event restarts.
    pub(super) fn deadline_class(&mut self, timeout: Duration) -> TimeoutClass {
        self.add_class(Queue::of_deadlines(whole_ms(timeout)))
    }

    fn add_class(&mut self, queue: Queue) -> TimeoutClass {
        let class = self.classes;
        self.classes += 1;
        self.queues[class as usize] = queue;
        TimeoutClass(class)
    }

    /// Returns how many slots a class has.
    pub(super) fn slots(&self, class: TimeoutClass) -> usize {
        self.queues[class.0 as usize].slots
    }

    /// Converts the time to milliseconds since the reactor was created.
    #[inline]
    pub(super) fn milliseconds(&mut self, now: Instant) -> u64 {
        if now >= self.next_ms_at {
            self.begin_millisecond(now);
        }
        self.now_ms
    }

    #[cold]
    fn begin_millisecond(&mut self, now: Instant) {
        let passed_ms = now.saturating_duration_since(self.start).as_millis() as u64;
        self.now_ms = passed_ms;
        self.next_ms_at = self.start + Duration::from_millis(passed_ms + 1);
        self.set_earliest_due(self.earliest_due_ms);
    }

    /// Appends a slot to the list of a class.
    pub(super) fn push_back<S>(
        &mut self,
        slots: &mut PagedSlab<Slot<S>>,
        key: Key,
        class: TimeoutClass,
        now_ms: u64,
    ) {
        let queue = &mut self.queues[class.0 as usize];
        queue.slots += 1;
        let Some(timeout_ms) = queue.timeout_ms else {
            return;
        };
        let due_ms = now_ms + timeout_ms;
        let behind = std::mem::replace(&mut queue.tail, key.slot);
        match behind {
            NIL => queue.head = key.slot,
            behind => slots.at_mut(behind).links.next = key.slot,
        }
        slots.at_mut(key.slot).links = Links {
            previous: behind,
            next: NIL,
            moved_ms: now_ms,
        };
        if self
            .earliest_due_ms
            .is_none_or(|before_ms| due_ms <= before_ms)
        {
            self.set_earliest_due(Some(due_ms));
        }
    }

    /// Removes a slot from the list of its class.
    pub(super) fn unlink<S>(
        &mut self,
        slots: &mut PagedSlab<Slot<S>>,
        key: Key,
        class: TimeoutClass,
    ) {
        let queue = &mut self.queues[class.0 as usize];
        queue.slots -= 1;
        if queue.timeout_ms.is_none() {
            return;
        }
        let Links { previous, next, .. } = slots.at(key.slot).links;
        match previous {
            NIL => queue.head = next,
            previous => slots.at_mut(previous).links.next = next,
        }
        match next {
            NIL => queue.tail = previous,
            next => slots.at_mut(next).links.previous = previous,
        }
    }

    /// Restarts the timeout of a slot.
    pub(super) fn touch<S>(&mut self, slots: &mut PagedSlab<Slot<S>>, key: Key, now_ms: u64) {
        let class = slots.at(key.slot).registration.class;
        self.unlink(slots, key, class);
        self.push_back(slots, key, class, now_ms);
    }

    /// Returns whether a slot that is active now has to be moved to the back. Every event asks this.
    pub(super) fn must_touch(&self, links: &Links, class: TimeoutClass, now_ms: u64) -> bool {
        now_ms - links.moved_ms > self.queues[class.0 as usize].grain_ms
    }

    /// Returns a slot whose timeout was over at `expiry_horizon_ms`.
    #[inline]
    pub(super) fn expired<S>(
        &mut self,
        slots: &PagedSlab<Slot<S>>,
        expiry_horizon_ms: u64,
    ) -> Option<Key> {
        if self.earliest_due_ms? > expiry_horizon_ms {
            return None;
        }
        self.find_expired(slots, expiry_horizon_ms)
    }

    #[cold]
    fn find_expired<S>(
        &mut self,
        slots: &PagedSlab<Slot<S>>,
        expiry_horizon_ms: u64,
    ) -> Option<Key> {
        let (slot, due_ms) = self.heads(slots).min_by_key(|&(_, due_ms)| due_ms).unzip();
        self.set_earliest_due(due_ms);
        (due_ms? <= expiry_horizon_ms)
            .then_some(slot?)
            .map(|slot| Key::new(slot as usize, slots.at(slot).generation))
    }

    /// Returns a lower bound of the time until a slot expires.
    pub(super) fn until_next(&self) -> Option<Duration> {
        self.until_next
    }

    fn set_earliest_due(&mut self, earliest_due_ms: Option<u64>) {
        self.earliest_due_ms = earliest_due_ms;
        self.until_next = earliest_due_ms
            .map(|before_ms| Duration::from_millis(before_ms.saturating_sub(self.now_ms)));
    }

    /// Iterates over the heads of the lists with their deadlines.
    fn heads<S>(&self, slots: &PagedSlab<Slot<S>>) -> impl Iterator<Item = (u32, u64)> {
        self.queues[..usize::from(self.classes)]
            .iter()
            .filter(|queue| queue.head != NIL)
            .filter_map(move |queue| {
                let timeout_ms = queue.timeout_ms?;
                let moved_ms = slots.at(queue.head).links.moved_ms;
                let due_ms = moved_ms + timeout_ms;
                Some((queue.head, due_ms))
            })
    }
}

/// Returns the shorter of two timeouts, where `None` is endless.
pub(super) fn min_timeout(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn slot() -> Slot<()> {
        Slot {
            source: (),
            links: Links::UNLINKED,
            generation: 0,
            readiness: crate::reactor::Readiness::Normal,
            registration: crate::reactor::Registration {
                interest: crate::reactor::Interest::Read,
                class: TimeoutClass::NEVER,
            },
            queued: false,
        }
    }

    /// A timeout is one millisecond longer than asked for, and a sixteenth.
    #[test]
    fn a_source_expires_after_its_timeout_and_a_sixteenth() {
        let start = Instant::now();
        let mut timeouts = Timeouts::new(start);
        let class = timeouts.timeout_class(Some(1_599 * MS));
        let mut slots = PagedSlab::new();
        let key = Key::new(slots.insert(slot()), 0);
        slots.at_mut(key.slot).registration.class = class;
        timeouts.push_back(&mut slots, key, class, 0);
        assert_eq!(timeouts.until_next(), Some(1_700 * MS));
        assert_eq!(timeouts.expired(&slots, 1_699), None);
        assert_eq!(timeouts.expired(&slots, 1_700), Some(key));
        timeouts.touch(&mut slots, key, 100);
        assert_eq!(timeouts.expired(&slots, 1_700), None);
    }

    /// A deadline has no sixteenth, since no event moves it.
    #[test]
    fn a_deadline_is_kept_by_an_active_source_too() {
        let mut timeouts = Timeouts::new(Instant::now());
        let class = timeouts.deadline_class(1_599 * MS);
        let mut slots = PagedSlab::new();
        let key = Key::new(slots.insert(slot()), 0);
        slots.at_mut(key.slot).registration.class = class;
        timeouts.push_back(&mut slots, key, class, 0);
        assert_eq!(timeouts.until_next(), Some(1_600 * MS));
        for now_ms in [1, 100, 1_599] {
            assert!(!timeouts.must_touch(&slots.at(key.slot).links, class, now_ms));
            assert_eq!(timeouts.expired(&slots, now_ms), None);
        }
        assert_eq!(timeouts.expired(&slots, 1_600), Some(key));
    }

    #[test]
    fn an_active_source_is_moved_once_a_sixteenth() {
        let mut timeouts = Timeouts::new(Instant::now());
        let class = timeouts.timeout_class(Some(1_599 * MS));
        let links = Links {
            moved_ms: 50,
            ..Links::UNLINKED
        };
        let moved_at = |now_ms| timeouts.must_touch(&links, class, now_ms);
        assert_eq!(
            [50, 149, 150, 151].map(moved_at),
            [false, false, false, true]
        );
        assert!(!timeouts.must_touch(&links, TimeoutClass::NEVER, 1 << 40));
    }

    /// Within a millisecond the clock is not converted again.
    #[test]
    fn a_millisecond_lasts_until_the_next_one_begins() {
        let start = Instant::now();
        let mut timeouts = Timeouts::new(start);
        for (passed, ms) in [(7 * MS, 7), (8 * MS - MS / 4, 7), (9 * MS, 9)] {
            assert_eq!(timeouts.milliseconds(start + passed), ms);
            assert_eq!(timeouts.next_ms_at, start + (ms as u32 + 1) * MS);
        }
    }
}
