//! Timeouts for very many sources at O(1) each, without a heap or a wheel.
//!
//! All sources that wait for the same kind of thing wait equally long: a connection that may speak has the idle timeout,
//! one that must read has the write-stall timeout. Each kind is a [`TimeoutClass`]: a queue in the order of last activity, whose
//! head is the next to expire. The queue is a doubly linked list through the slots themselves, two numbers in each, so
//! that it costs no memory of its own and a source that closes leaves no entry behind.
//!
//! Moving a slot to the back at every echo would touch its two neighbours each time: three cache lines where one would
//! do. So a slot is moved only when it has been active for a sixteenth of the timeout since its last move (nginx saves
//! itself timer updates in the same way), and that sixteenth is added when it is judged. A source therefore never expires early, and at most a
//! sixteenth late.

use super::paged_slab::PagedSlab;
use super::{Key, Slot};
use std::time::{Duration, Instant};

/// One kind of waiting, with its own timeout. Made by [`super::Reactor::timeout_class`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutClass(u8);

impl TimeoutClass {
    /// Waiting without end.
    pub const NEVER: Self = Self(0);
}

/// The place of one slot in its class.
#[derive(Debug)]
pub(super) struct Links {
    previous: u32,
    next: u32,
    /// When it last moved to the back, in milliseconds since the reactor began. In 64 bits, since they fit: in 32 they
    /// would wrap around after 49 days, and every comparison in the reactor had to know.
    moved_ms: u64,
}

impl Links {
    pub(super) const UNLINKED: Self = Self {
        previous: NIL,
        next: NIL,
        moved_ms: 0,
    };
}

/// The end of a list. There are never that many slots.
const NIL: u32 = u32::MAX;

const CLASSES: usize = 5;

/// All classes, and the clock by which they count.
#[derive(Debug)]
pub(super) struct Timeouts {
    start: Instant,
    now_ms: u64,
    next_ms_at: Instant,
    queues: [Queue; CLASSES],
    classes: u8,
    /// Nobody is due before this. It may be early, when the one who was due then has been active or has left since; it
    /// is only looked into when the time has come, and so the common turn costs a comparison.
    earliest_due_ms: Option<u64>,
    /// The time until then. Every turn asks for it, and it is worked out anew only when the millisecond or the one who is
    /// due next has changed.
    until_next: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Queue {
    head: u32,
    tail: u32,
    /// `None` never expires, and is never linked either.
    timeout_ms: Option<u64>,
    /// How long a slot may be active without being moved: a sixteenth of the timeout, or for ever.
    grain_ms: u64,
}

impl Queue {
    fn new(timeout_ms: Option<u64>) -> Self {
        Self {
            head: NIL,
            tail: NIL,
            timeout_ms,
            grain_ms: timeout_ms.map_or(u64::MAX, |timeout_ms| timeout_ms / 16),
        }
    }
}

/// The longest timeout of a class (milliseconds): 146 million years, after which nothing that is added to it overflows.
const LONGEST_MS: u64 = u64::MAX / 4;

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

    /// A new class.
    pub(super) fn timeout_class(&mut self, timeout: Option<Duration>) -> TimeoutClass {
        let class = self.classes;
        self.classes += 1;
        // Rounded up, and one more: both ends of the waiting are cut down to a whole millisecond, and nothing may expire
        // early.
        let timeout_ms = timeout.map(|timeout| {
            let whole_ms = timeout.as_nanos().div_ceil(1_000_000);
            u64::try_from(whole_ms).map_or(LONGEST_MS, |ms| ms.min(LONGEST_MS) + 1)
        });
        self.queues[class as usize] = Queue::new(timeout_ms);
        TimeoutClass(class)
    }

    /// The time as the classes count it. A busy loop has many turns in a millisecond, so it is worked out anew only when
    /// the next one has begun.
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

    /// Puts a slot at the back of a class.
    pub(super) fn push_back<S>(
        &mut self,
        slots: &mut PagedSlab<Slot<S>>,
        key: Key,
        class: TimeoutClass,
        now_ms: u64,
    ) {
        let queue = &mut self.queues[class.0 as usize];
        let Some(timeout_ms) = queue.timeout_ms else {
            return;
        };
        let due_ms = now_ms + timeout_ms + queue.grain_ms;
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

    /// Takes a slot out of its class.
    pub(super) fn unlink<S>(
        &mut self,
        slots: &mut PagedSlab<Slot<S>>,
        key: Key,
        class: TimeoutClass,
    ) {
        let queue = &mut self.queues[class.0 as usize];
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

    /// Gives a slot its full time again.
    pub(super) fn touch<S>(&mut self, slots: &mut PagedSlab<Slot<S>>, key: Key, now_ms: u64) {
        let class = slots.at(key.slot).registration.class;
        self.unlink(slots, key, class);
        self.push_back(slots, key, class, now_ms);
    }

    /// Whether a slot that is active now has to be moved to the back: the question on the path of every echo.
    pub(super) fn must_touch(&self, links: &Links, class: TimeoutClass, now_ms: u64) -> bool {
        now_ms - links.moved_ms > self.queues[class.0 as usize].grain_ms
    }

    /// A slot whose time was over at `expiry_horizon_ms`, if there is one.
    pub(super) fn expired<S>(
        &mut self,
        slots: &PagedSlab<Slot<S>>,
        expiry_horizon_ms: u64,
    ) -> Option<Key> {
        if self.earliest_due_ms? > expiry_horizon_ms {
            return None;
        }
        let (slot, due_ms) = self.heads(slots).min_by_key(|&(_, due_ms)| due_ms).unzip();
        self.set_earliest_due(due_ms);
        (due_ms? <= expiry_horizon_ms)
            .then_some(slot?)
            .map(|slot| Key::new(slot as usize, slots.at(slot).generation))
    }

    /// The time until somebody may expire.
    pub(super) fn until_next(&self) -> Option<Duration> {
        self.until_next
    }

    /// Nobody is due before this, as things are now.
    fn set_earliest_due(&mut self, earliest_due_ms: Option<u64>) {
        self.earliest_due_ms = earliest_due_ms;
        self.until_next = earliest_due_ms
            .map(|before_ms| Duration::from_millis(before_ms.saturating_sub(self.now_ms)));
    }

    /// The head of each class that has one, and when it is due.
    fn heads<S>(&self, slots: &PagedSlab<Slot<S>>) -> impl Iterator<Item = (u32, u64)> {
        self.queues[..usize::from(self.classes)]
            .iter()
            .filter(|queue| queue.head != NIL)
            .filter_map(move |queue| {
                let timeout_ms = queue.timeout_ms?;
                let moved_ms = slots.at(queue.head).links.moved_ms;
                let due_ms = moved_ms + timeout_ms + queue.grain_ms;
                Some((queue.head, due_ms))
            })
    }
}
