//! The reactor: it knows who is ready, in what order they take their turns, and whose time is over.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! ```text
//!            add, registration, again, close                      wait                     next_event
//!   caller ───────────────────────────▶ slots  ◀── epoll ───────▶ run queue ──────────────────────▶ caller
//!                                     (pages)        tokens        (keys)     Ready(key), Expired(key), ...
//! ```
//!
//! It is pulled, not called back: [`Reactor::wait`] asks the kernel once, and [`Reactor::next_event`] hands out what there
//! is to do, one thing at a time, until the turn is over. In between the caller is free to look at its sources, close
//! them, and add new ones; nothing is borrowed across.
//!
//! **The contract of an edge.** The kernel says once that a source has become ready, and then no more. So whoever gets
//! [`Event::Ready`] does one of three things: goes on until the source would block; or says [`Reactor::requeue`], to be
//! handed the same readiness in the next turn; or changes what it wants, with [`Reactor::set_registration`], upon which the kernel
//! looks anew and reports what is ready then. Whoever does none of these will wait for ever.
//!
//! What may live in this room: keys, readiness, turns, timeouts. What may not: bytes, connections, addresses, or any
//! opinion on who deserves to be served. It imports nothing of ours.
//!
//! In reading order: this page, `event`, `key`, `paged_slab`, `timeouts`, `epoll`, `outer_loop`; and `timer`, which the load
//! generator needs and outer loops.

mod epoll;
mod event;
mod key;
mod outer_loop;
mod paged_slab;
mod timeouts;
#[cfg(feature = "timerfd")]
mod timer;

pub use epoll::{Epoll, Waker};
pub use event::{Event, Interest, Readiness, Registration, Selector, Source};
pub use key::Key;
/// What a source is registered under, in the kernel's books: a [`Key`] as mio carries it.
pub use mio::Token;
/// What can be watched beside the reactor's own sources: anything that mio can register.
pub use mio::event::Source as ExternalSource;
/// A foreign source that is a descriptor and nothing else.
pub use mio::unix::SourceFd as ExternalFd;
pub use timeouts::TimeoutClass;
#[cfg(feature = "timerfd")]
pub use timer::Timer;

use key::{EXTERNAL, FIRST_SERIAL, SLOTS_MAX};
use paged_slab::PagedSlab;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};
use timeouts::{Links, Timeouts};

/// How many take part in a turn at most: so many of those who queued up, and so many of those of whom the kernel speaks.
/// This bounds the time for which an order, a deadline or a new connection has to wait. Whoever finds no room has it in the next
/// turn, since both lists go sweep. A turn's own cost (a call of `epoll_wait`, a clock) is divided by as many, and is lost in
/// theirs. No more than so many expire in a turn, either.
const SOURCES_PER_TURN: usize = 128;

/// See the page above. `S` is what is registered; `P` is who tells what is ready.
#[derive(Debug)]
pub struct Reactor<S, P = Epoll> {
    selector: P,
    slots: PagedSlab<Slot<S>>,
    /// The generation of the next value.
    generation: u32,
    /// Who queued up for the next turn, by [`Reactor::requeue`].
    queue: VecDeque<Key>,
    /// The run queue of this turn, and how many in it had theirs: first those who queued up, then those of whom the
    /// kernel spoke. One queue for both, so that there is one rule of fairness: first come, first served, and only once
    /// a turn.
    turn: Vec<(Key, Readiness)>,
    served: usize,
    /// Sources whose deadline was judged in this turn.
    judged: usize,
    timeouts: Timeouts,
    /// The clock, read once a turn.
    now: Instant,
    now_ms: u64,
    /// When the wait of this turn was over.
    turn_began: Instant,
    /// The latest moment of which everything is known: what was ready then has been handed out. Timeouts are judged by
    /// it rather than by the clock: if this process was stopped for a minute, all those who spoke meanwhile are heard
    /// before anybody is called idle.
    expiry_horizon_ms: u64,
    /// The round that the kernel is on, while more are ready than one wait has room for. One that began before
    /// `expiry_horizon_ms` was given up when a wait had room for all.
    sweep: Option<ReadyListSweep>,
    alarm: Option<Instant>,
    stale_events: u64,
    /// Whether the last wait had no room for all that was ready, or was interrupted.
    is_unreported: bool,
}

/// A time in which no wait had room for all who were ready. The kernel goes round its list of them, and who becomes ready
/// joins at its end; so it has spoken of all who were in it at the beginning when it has spoken of as many as there are.
#[derive(Debug)]
struct ReadyListSweep {
    began_ms: u64,
    /// How many events are still to come.
    left: usize,
}

/// One registered source. Its size is what an idle connection costs; `echo` asserts it.
#[derive(Debug)]
struct Slot<S> {
    source: S,
    links: Links,
    generation: u32,
    registration: Registration,
    /// Whether it queued up for the next turn, and what it will be told then.
    queued: bool,
    readiness: Readiness,
}

impl<S, P> Reactor<S, P> {
    /// How many sources can be registered at once.
    pub const SOURCES_MAX: usize = SLOTS_MAX;
    /// What one source costs while it is registered, in bytes.
    pub const SLOT_BYTES: usize = size_of::<Slot<S>>();
}

impl<S: Source<P::Registry>, P: Selector> Reactor<S, P> {
    /// A reactor that watches nothing as yet.
    pub fn new(selector: P) -> Self {
        let now = selector.now();
        Self {
            selector,
            slots: PagedSlab::new(),
            generation: FIRST_SERIAL,
            queue: VecDeque::new(),
            turn: Vec::new(),
            served: 0,
            judged: 0,
            timeouts: Timeouts::new(now),
            now,
            now_ms: 0,
            turn_began: now,
            expiry_horizon_ms: 0,
            sweep: None,
            alarm: None,
            stale_events: 0,
            is_unreported: false,
        }
    }

    /// A kind of waiting, with a timeout of its own; `None` never ends. There is room for four beside
    /// [`TimeoutClass::NEVER`].
    pub fn timeout_class(&mut self, timeout: Option<Duration>) -> TimeoutClass {
        self.timeouts.timeout_class(timeout)
    }

    // ---- the turn ----

    /// Begins a turn: asks the kernel who is ready, and waits for that until something is, `max_wait` is over, or a
    /// deadline comes. It does not wait at all while there is work left from the last turn; one that was left in the middle
    /// simply goes on.
    ///
    /// Says whether an external source has something ([`Reactor::watch`]). That is said once, and before the sources that
    /// are ready have their turn. A [`Waker`] ends the wait and nothing else.
    ///
    /// # Errors
    /// Those of epoll_wait(2), but for an interruption by a signal, which is merely an early end. None of them can be
    /// mended by trying again.
    pub fn wait(&mut self, max_wait: Option<Duration>) -> io::Result<bool> {
        if self.served < self.turn.len() {
            return Ok(false); // it was left in the middle, and goes on
        }
        let timeout = min_timeout(max_wait, self.timeout_of_turn());
        self.begin_turn();
        let (mut external, queued) = (false, self.turn.len());
        let Self { selector, turn, .. } = self;
        let complete = selector.wait(timeout, |token, readiness| {
            let key = Key::from_token(token);
            if key.slot() < SLOTS_MAX {
                turn.push((key, readiness));
            } else {
                external |= token == EXTERNAL; // or else it is WAKE, which has done its work
            }
        });
        self.is_unreported = !matches!(complete, Ok(true));
        match complete {
            // What was ready when we asked is in the queue now; so up to the last reading of the clock, which was
            // before we asked, everything is known.
            Ok(true) => self.expiry_horizon_ms = self.now_ms,
            Ok(false) => self.continue_sweep(self.turn.len() - queued),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        self.turn_began = self.read_clock();
        Ok(external)
    }

    /// Not everybody who is ready was reported, but `reported` were. Where that is so in every turn, deadlines are judged
    /// all the same, once a sweep.
    #[cold]
    fn continue_sweep(&mut self, reported: usize) {
        let mut sweep = match self.sweep.take() {
            Some(sweep) if sweep.began_ms > self.expiry_horizon_ms => sweep,
            // Twice as many as there are: events for nobody take room, too.
            _ => ReadyListSweep {
                began_ms: self.now_ms,
                left: 2 * self.slots.len(),
            },
        };
        sweep.left = sweep.left.saturating_sub(reported);
        if sweep.left == 0 {
            self.expiry_horizon_ms = sweep.began_ms;
        } else {
            self.sweep = Some(sweep);
        }
    }

    /// Those who queued up come first.
    fn begin_turn(&mut self) {
        debug_assert_eq!(self.served, self.turn.len(), "the last turn is over");
        self.turn.clear();
        (self.served, self.judged) = (0, 0);
        if self.queue.is_empty() {
            return; // nearly always
        }
        let count = self.queue.len().min(SOURCES_PER_TURN);
        for key in self.queue.drain(..count) {
            if let Some(slot) = lookup(&mut self.slots, key) {
                slot.queued = false;
                self.turn.push((
                    key,
                    std::mem::replace(&mut slot.readiness, Readiness::Normal),
                ));
            }
        }
    }

    /// The next thing to do in this turn; `None` ends it. First those who are ready, then those whose time is over.
    pub fn next_event(&mut self) -> Option<Event> {
        if let Some(&(key, readiness)) = self.turn.get(self.served) {
            self.served += 1;
            return Some(Event::Ready(key, readiness));
        }
        if let Some(key) = self.next_expired() {
            return Some(Event::Expired(key));
        }
        if self.alarm.is_some_and(|alarm| alarm <= self.now) {
            self.alarm = None;
            return Some(Event::Alarm);
        }
        None
    }

    /// The next source whose time is over, unless this turn has judged as many as it may. Those that are left are due at
    /// once, so the next turn follows without a wait: first what is ready by then, and then so many of them again.
    #[inline]
    fn next_expired(&mut self) -> Option<Key> {
        while self.judged < SOURCES_PER_TURN {
            let key = self.timeouts.expired(&self.slots, self.expiry_horizon_ms)?;
            self.judged += 1;
            self.timeouts.touch(&mut self.slots, key, self.now_ms);
            // A source in the queue is ready, and has not had its turn yet: it is not idle, however long the queue.
            if !self.slots.at(key.slot).queued {
                return Some(key);
            }
        }
        None
    }

    /// The source whose turn it is, noted as active. `None` if it is gone: then the event was stale, and is counted.
    /// `None` too if it had its turn already and queued up for another, in which it will hear of this as well.
    pub fn begin_event(&mut self, key: Key, readiness: Readiness) -> Option<&mut S> {
        let Some(slot) = lookup(&mut self.slots, key) else {
            self.stale_events += 1;
            return None;
        };
        if slot.queued {
            slot.readiness = slot.readiness.max(readiness);
            return None;
        }
        if self
            .timeouts
            .must_touch(&slot.links, slot.registration.class, self.now_ms)
        {
            return self.begin_event_after_pause(key);
        }
        // Said twice, so that here, where nothing has happened since, the compiler need not look for the slot again.
        self.get_mut(key)
    }

    /// Admits a source that has not been active for a while: its deadline moves.
    #[cold]
    fn begin_event_after_pause(&mut self, key: Key) -> Option<&mut S> {
        self.timeouts.touch(&mut self.slots, key, self.now_ms);
        self.get_mut(key)
    }

    /// How long there is nothing to do from now on if nothing happens; `None` is without end. This reads the clock, since
    /// anything may pass between two turns of an outer loop.
    pub fn timeout(&self) -> Option<Duration> {
        let left = self.timeout_of_turn()?;
        if left.is_zero() {
            return Some(left);
        }
        let since = self.selector.now().saturating_duration_since(self.now);
        Some(left.saturating_sub(since))
    }

    /// The same, counted from the last reading of the clock: in a loop that does nothing but turns that is just now, and a
    /// second reading would cost as much as the rest of this.
    fn timeout_of_turn(&self) -> Option<Duration> {
        let has_work = !self.queue.is_empty() || self.served < self.turn.len();
        if has_work {
            return Some(Duration::ZERO);
        }
        let alarm = self
            .alarm
            .map(|alarm| alarm.saturating_duration_since(self.now));
        min_timeout(alarm, self.timeouts.until_next())
    }

    /// Whether an outer event loop may watch this reactor's descriptor, and so is to be told of the next turn.
    #[inline]
    pub fn is_watched(&self) -> bool {
        self.selector.is_watched()
    }

    /// Makes the descriptor readable when the next turn is due: after this time, or at once if the last wait did not report
    /// everything. An outer loop that waits for edges would not hear of the rest.
    pub fn announce(&mut self, due: Option<Duration>) {
        let due = if self.is_unreported {
            Some(Duration::ZERO)
        } else {
            due
        };
        if let Some(due) = due {
            self.selector.announce(due);
        }
    }

    /// Reads the clock anew. A turn does so by itself; this is for what is done between two turns, which may lie far
    /// apart where somebody else's loop drives this one.
    #[inline]
    pub fn read_clock(&mut self) -> Instant {
        self.now = self.selector.now();
        self.now_ms = self.timeouts.milliseconds(self.now);
        self.now
    }

    /// How many had their turn in this one so far.
    pub fn events_served(&self) -> usize {
        self.served
    }

    /// How long this turn has taken so far, its wait left out. This reads the clock: a second time in a turn, which is
    /// what it costs to know.
    pub fn turn_elapsed(&self) -> Duration {
        self.selector
            .now()
            .saturating_duration_since(self.turn_began)
    }

    /// The time of this turn.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Sets the one alarm, or stops it.
    pub fn set_alarm(&mut self, at: Option<Instant>) {
        self.alarm = at;
    }

    // ---- the sources ----

    /// Registers a source.
    ///
    /// # Errors
    /// What the kernel said (`ENOSPC`, `ENOMEM`), together with the source, whose end is then the caller's business. Or
    /// that there are more sources than a key can name: 4,294,967,295, on a 32-bit machine 1,048,575.
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

    /// The source behind a key, unless it is gone.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut S> {
        lookup(&mut self.slots, key).map(|slot| &mut slot.source)
    }

    /// Says what a source waits for from now on. If that is what it waits for already, this costs a comparison.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn set_registration(&mut self, key: Key, registration: Registration) -> io::Result<()> {
        let Some(slot) = lookup(&mut self.slots, key) else {
            return Ok(());
        };
        if slot.registration == registration {
            return Ok(());
        }
        // First what may fail: until it has worked, nothing has changed.
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

    /// Queues a source for the next turn, with what is still true of it. With edges nobody else will.
    pub fn requeue(&mut self, key: Key, readiness: Readiness) {
        if let Some(slot) = lookup(&mut self.slots, key) {
            slot.readiness = slot.readiness.max(readiness);
            if !slot.queued {
                slot.queued = true;
                self.queue.push_back(key);
            }
        }
    }

    /// Gives a source back, to be dropped. The kernel forgets it as its descriptor is closed, so this costs no system
    /// call; events that were already under way find the key outdated.
    pub fn close(&mut self, key: Key) -> Option<S> {
        let class = lookup(&mut self.slots, key)?.registration.class;
        self.timeouts.unlink(&mut self.slots, key, class);
        Some(self.slots.remove(key.slot as usize).source)
    }

    /// Gives a source back that may live on, here or in another process that has a copy of its descriptor: so the
    /// kernel is told to forget it.
    ///
    /// # Errors
    /// None: that the kernel has forgotten it already is what was wanted.
    pub fn release(&mut self, key: Key) -> Option<S> {
        let mut source = self.close(key)?;
        let _ = source.deregister(self.selector.registry());
        Some(source)
    }

    /// The keys of all sources. Collected, so that the caller may close them one by one.
    pub fn keys(&self) -> Vec<Key> {
        self.slots
            .iter()
            .map(|(slot, value)| Key::new(slot, value.generation))
            .collect()
    }

    /// Makes room for so many sources in all, ahead of their coming.
    pub fn reserve(&mut self, count: usize) {
        self.slots.reserve(count);
    }

    /// Memory of the slots, in bytes: of those that are taken, and of all that there is room for.
    pub fn slot_bytes(&self) -> (usize, usize) {
        let bytes = |slots: usize| slots * Self::SLOT_BYTES;
        (bytes(self.slots.len()), bytes(self.slots.capacity()))
    }

    /// How many events, so far, were for a source that was gone.
    pub fn stale_events(&self) -> u64 {
        self.stale_events
    }
}

/// The shorter of two times, where `None` is for ever.
fn min_timeout(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Whoever lives in the slot, if it is still the one whom the key means. A function and not a method, so that the other
/// fields of the reactor stay free to use.
fn lookup<S>(slots: &mut PagedSlab<Slot<S>>, key: Key) -> Option<&mut Slot<S>> {
    slots
        .get_mut(key.slot as usize)
        .filter(|slot| slot.generation == key.generation)
}

impl<S: Source> Reactor<S> {
    /// A handle that wakes this reactor from another thread.
    pub fn waker(&self) -> Waker {
        self.selector.waker()
    }

    /// Watches a foreign source, signals for example: when it becomes readable, [`Reactor::wait`] says so. Whose it was
    /// is not said; look after all of them.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn watch(&self, source: &mut dyn ExternalSource) -> io::Result<()> {
        self.selector.watch(source)
    }
}

/// The event queue is a descriptor itself, and readable when something in it is ready.
impl<S> AsFd for Reactor<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.selector.as_fd()
    }
}

impl<S> AsRawFd for Reactor<S> {
    fn as_raw_fd(&self) -> RawFd {
        self.selector.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// A clock that goes on by a millisecond whenever somebody looks at it, and a wait that takes a second.
    struct Ticking(Cell<Instant>);

    impl Selector for Ticking {
        type Registry = ();

        fn registry(&self) -> &() {
            &()
        }

        fn wait(
            &mut self,
            _: Option<Duration>,
            _: impl FnMut(Token, Readiness),
        ) -> io::Result<bool> {
            self.0.set(self.0.get() + Duration::from_secs(1));
            Ok(true)
        }

        fn now(&self) -> Instant {
            self.0.set(self.0.get() + Duration::from_millis(1));
            self.0.get()
        }
    }

    struct Nothing;

    impl Source<()> for Nothing {
        fn register(&mut self, (): &(), _: Token, _: Interest) -> io::Result<()> {
            Ok(())
        }

        fn reregister(&mut self, (): &(), _: Token, _: Interest) -> io::Result<()> {
            Ok(())
        }

        fn deregister(&mut self, (): &()) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_turn_counts_from_the_end_of_its_wait() {
        let mut reactor: Reactor<Nothing, _> = Reactor::new(Ticking(Cell::new(Instant::now())));
        for _ in 0..3 {
            reactor.wait(None).unwrap();
            assert_eq!(reactor.turn_elapsed(), Duration::from_millis(1));
            reactor.read_clock(); // as a drain does in the middle of a turn
            assert_eq!(
                reactor.turn_elapsed(),
                Duration::from_millis(3),
                "it is still this turn"
            );
        }
    }

    #[test]
    fn the_timeout_counts_from_now() {
        let mut reactor: Reactor<Nothing, _> = Reactor::new(Ticking(Cell::new(Instant::now())));
        let second = Duration::from_secs(1);
        reactor.set_alarm(Some(reactor.now() + second));
        let first = reactor.timeout().unwrap();
        assert!(first < second && reactor.timeout().unwrap() < first);
        reactor.selector.0.set(reactor.now() + 2 * second);
        assert_eq!(reactor.timeout(), Some(Duration::ZERO), "it is overdue");
    }

    #[test]
    fn no_two_sources_of_a_slot_share_a_key_even_where_serials_wrap() {
        let mut reactor: Reactor<Nothing, _> = Reactor::new(Ticking(Cell::new(Instant::now())));
        let registration = Registration {
            interest: Interest::Read,
            class: TimeoutClass::NEVER,
        };
        let mut keys = Vec::new();
        for _ in 0..100 {
            let Ok(key) = reactor.add(Nothing, registration) else {
                panic!("there is room");
            };
            assert!(!keys.contains(&key), "{key:?} twice");
            for &old in &keys {
                assert!(reactor.get_mut(old).is_none());
            }
            assert!(reactor.close(key).is_some());
            keys.push(key);
        }
        let serials = keys.iter().map(|key| key.generation);
        assert!(
            serials.clone().any(|generation| generation == 0),
            "one wrap"
        );
        assert!(keys.iter().all(|key| key.slot == 0));
    }

    #[test]
    fn slots_are_counted_and_reserved() {
        let mut reactor: Reactor<Nothing, _> = Reactor::new(Ticking(Cell::new(Instant::now())));
        assert_eq!(reactor.slot_bytes(), (0, 0));
        reactor.reserve(1);
        let slot = Reactor::<Nothing, Ticking>::SLOT_BYTES;
        assert_eq!(reactor.slot_bytes(), (0, paged_slab::PAGE * slot));
        let registration = Registration {
            interest: Interest::Read,
            class: TimeoutClass::NEVER,
        };
        let key = reactor
            .add(Nothing, registration)
            .map_err(|(_, error)| error)
            .unwrap();
        assert_eq!(reactor.slot_bytes(), (slot, paged_slab::PAGE * slot));
        assert!(reactor.close(key).is_some() && reactor.get_mut(key).is_none());
    }
}
