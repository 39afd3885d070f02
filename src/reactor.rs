//! The reactor: which source is ready, in which order ready sources are served, and when their timeouts expire.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! ```text
//!            add, set_registration, requeue, close            wait (epoll_wait)               next_event
//!   caller ─────────────────────────────────▶ slots  ◀── epoll ───────▶ run queue ──────────────────────▶ caller
//!                                            (pages)       tokens         (keys)    Ready, Expired, Alarm
//! ```
//!
//! [`Reactor::add`] puts a source into the **interest list** of an epoll instance (epoll(7)); the kernel moves it to the
//! **ready list** when it becomes ready. [`Reactor::wait`] takes events from the ready list once a turn, and
//! [`Reactor::next_event`] returns them one by one. The loop is pulled: nothing is borrowed between two calls, so that the
//! caller may read, close and add sources in between.
//!
//! **Edge-triggered events.** The kernel reports a source when it *becomes* ready, not while it *is* ready. Bytes left behind
//! are reported only when a later byte raises a new edge, and a peer that waits for its echo sends none. So the caller
//! answers [`Event::Ready`] in one of two ways: it goes on until the source would block (`EAGAIN`), or it calls
//! [`Reactor::requeue`], and receives the same readiness in the next turn. [`Reactor::set_registration`] is no third way:
//! it makes the kernel report present readiness (EPOLL_CTL_MOD) only if the interest changes.
//!
//! Events are hints. A **spurious event** finds nothing to read; a **stale event** names a source that was closed earlier
//! in the same batch, and [`Reactor::begin_event`] discards it. The run queue prevents **starvation**: each source is
//! served once a turn: those that have just become ready, and then the requeued ones.
//!
//! In reading order: this page and `epoll`, which together are the path of an event; `event`, `selector`, `key`, `sources`;
//! `slot`, `paged_slab`, `timeouts`, `horizon`, `time`, `spin`; `embedding`, `outer_loop`, `waker`, `timer`.
//!
//! This module holds keys, readiness, turns and timeouts; no bytes, connections or addresses. It imports nothing of this
//! crate, and only it and `net` name mio.
//!
//! Optimiser notes: `begin_event_after_pause` is `#[cold]`, and `begin_event` finds the slot twice, so that the common case
//! stays short; where nothing has happened in between, the compiler keeps the first result.

mod embedding;
mod epoll;
mod event;
mod horizon;
mod key;
mod outer_loop;
mod paged_slab;
mod selector;
mod slot;
mod sources;
mod spin;
mod time;
mod timeouts;
#[cfg(feature = "timerfd")]
mod timer;
mod waker;

pub use epoll::Epoll;
pub use event::{Event, Interest, Readiness, Registration, Step, TimeoutClass};
pub use key::Key;
pub use selector::{ExternalFd, ExternalSource, Selector, Source, Token};
#[cfg(feature = "timerfd")]
pub use timer::Timer;
pub use waker::Waker;

use horizon::ExpiryHorizon;
use key::{EXTERNAL, SLOTS_MAX};
use paged_slab::PagedSlab;
#[cfg(feature = "trace")]
pub(crate) use selector::SOURCES_PER_TURN;
use slot::{Slot, lookup};
use spin::Spin;
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};
use timeouts::{Timeouts, min_timeout};

/// Event loop over sources of type `S`, with a [`Selector`] that reports which are ready: [`Epoll`], or a simulated one.
#[derive(Debug)]
pub struct Reactor<S, P = Epoll> {
    selector: P,
    slots: PagedSlab<Slot<S>>,
    /// Generation of the next source.
    generation: u32,
    /// Sources that wait for the next turn, by [`Reactor::requeue`].
    queue: VecDeque<Key>,
    /// Run queue of this turn: first the sources that the kernel reported, then the requeued ones.
    turn: Vec<(Key, Readiness)>,
    /// Entries of the run queue that were handed out.
    served: usize,
    /// Expired sources of this turn.
    expired: usize,
    timeouts: Timeouts,
    /// The clock, read once a turn.
    now: Instant,
    now_ms: u64,
    /// End of the wait of this turn.
    turn_began: Instant,
    horizon: ExpiryHorizon,
    spin: Spin,
    alarm: Option<Instant>,
    stale_events: u64,
    /// The last wait filled the event buffer or was interrupted: the ready list may not be empty.
    is_unreported: bool,
}

impl<S: Source<P::Registry>, P: Selector> Reactor<S, P> {
    /// Begins a turn: waits until a source is ready, `max_wait` is over, or a timeout expires, and fills the run queue. It
    /// does not block while requeued sources wait; and it does nothing if the last turn was interrupted midway.
    ///
    /// Returns whether an external source ([`Reactor::watch`]) is ready; that is reported once, ahead of the sources. A
    /// [`Waker`] ends the wait and does nothing else.
    ///
    /// # Errors
    /// Those of epoll_wait(2) but `EINTR`, which merely ends the wait early. Every other error is permanent.
    pub fn wait(&mut self, max_wait: Option<Duration>) -> io::Result<bool> {
        if self.served < self.turn.len() {
            return Ok(false);
        }
        let timeout = min_timeout(max_wait, self.timeout_of_turn());
        self.begin_turn();
        let mut external = false;
        let Self {
            selector,
            turn,
            spin,
            ..
        } = self;
        let complete = spin.wait(selector, timeout, |token, readiness| {
            let key = Key::from_token(token);
            if key.slot() < SLOTS_MAX {
                turn.push((key, readiness));
            } else {
                external |= token == EXTERNAL; // WAKE has ended the wait, and is done
            }
        });
        self.is_unreported = !matches!(complete, Ok(true));
        match complete {
            // The clock was read before the kernel was asked, so what was ready at `now_ms` is in the run queue.
            Ok(true) => self.horizon.move_to(self.now_ms),
            Ok(false) => {
                let (reported, sources) = (self.turn.len(), self.slots.len());
                self.horizon.continue_sweep(reported, sources, self.now_ms);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        self.take_queued();
        self.turn_began = self.read_clock();
        Ok(external)
    }

    fn begin_turn(&mut self) {
        debug_assert_eq!(self.served, self.turn.len(), "the last turn is over");
        self.turn.clear();
        (self.served, self.expired) = (0, 0);
    }

    /// Returns the next event of this turn, or `None` at its end: first the ready sources, then the expired ones.
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
            self.selector.note(Step::Alarm);
            return Some(Event::Alarm);
        }
        None
    }

    /// Returns the source of an event, and restarts its timeout. `None` means that there is nothing to do: the event is
    /// stale, which is counted, or the source was served in this turn and requeued, and the next turn includes this event.
    pub fn begin_event(&mut self, key: Key, readiness: Readiness) -> Option<&mut S> {
        let Some(slot) = lookup(&mut self.slots, key) else {
            self.stale_events += 1;
            self.selector.note(Step::Stale(key));
            return None;
        };
        if slot.queued {
            slot.readiness = slot.readiness.max(readiness);
            self.selector.note(Step::Merged(key));
            return None;
        }
        let class = slot.registration.class;
        if self.timeouts.must_touch(&slot.links, class, self.now_ms) {
            return self.begin_event_after_pause(key);
        }
        self.get_mut(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// A selector whose clock advances by a millisecond at each reading, and whose wait takes a second.
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

    const NEVER: Registration = Registration {
        interest: Interest::Read,
        class: TimeoutClass::NEVER,
    };

    /// A selector that reports one source in each wait, and has these results.
    struct Scripted {
        source: Token,
        results: VecDeque<io::Result<bool>>,
        announced: Option<Duration>,
        clock: Ticking,
    }

    impl Selector for Scripted {
        type Registry = ();

        fn registry(&self) -> &() {
            &()
        }

        fn wait(
            &mut self,
            timeout: Option<Duration>,
            mut report: impl FnMut(Token, Readiness),
        ) -> io::Result<bool> {
            report(self.source, Readiness::Normal);
            self.clock.wait(timeout, report)?;
            self.results.pop_front().expect("a result is left")
        }

        fn now(&self) -> Instant {
            self.clock.now()
        }

        fn announce(&mut self, due: Duration) {
            self.announced = Some(due);
        }
    }

    fn scripted(
        results: impl IntoIterator<Item = io::Result<bool>>,
    ) -> (Reactor<Nothing, Scripted>, Key) {
        let mut reactor = Reactor::new(Scripted {
            source: EXTERNAL,
            results: results.into_iter().collect(),
            announced: None,
            clock: Ticking(Cell::new(Instant::now())),
        });
        let key = reactor
            .add(Nothing, NEVER)
            .map_err(|(_, error)| error)
            .unwrap();
        reactor.selector.source = key.token();
        (reactor, key)
    }

    #[test]
    fn a_turn_counts_from_the_end_of_its_wait() {
        let mut reactor: Reactor<Nothing, _> = Reactor::new(Ticking(Cell::new(Instant::now())));
        for _ in 0..3 {
            reactor.wait(None).unwrap();
            assert_eq!(reactor.turn_elapsed(), Duration::from_millis(1));
            reactor.read_clock(); // as a drain does within a turn
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
    fn no_two_sources_of_a_slot_share_a_key_when_generations_wrap() {
        let mut reactor: Reactor<Nothing, _> = Reactor::new(Ticking(Cell::new(Instant::now())));
        let mut keys = Vec::new();
        for _ in 0..100 {
            let Ok(key) = reactor.add(Nothing, NEVER) else {
                panic!("there is room");
            };
            assert!(!keys.contains(&key), "{key:?} twice");
            for &old in &keys {
                assert!(reactor.get_mut(old).is_none());
            }
            assert!(reactor.close(key).is_some());
            keys.push(key);
        }
        let generations = keys.iter().map(|key| key.generation);
        assert!(
            generations.clone().any(|generation| generation == 0),
            "the generation has wrapped"
        );
        assert!(keys.iter().all(|key| key.slot == 0));
    }

    #[test]
    fn slots_are_counted_and_preallocated() {
        let mut reactor: Reactor<Nothing, _> = Reactor::new(Ticking(Cell::new(Instant::now())));
        assert_eq!(reactor.slot_bytes(), (0, 0));
        reactor.preallocate(1);
        let slot = Reactor::<Nothing, Ticking>::SLOT_BYTES;
        assert_eq!(reactor.slot_bytes(), (0, paged_slab::PAGE * slot));
        let key = reactor
            .add(Nothing, NEVER)
            .map_err(|(_, error)| error)
            .unwrap();
        assert_eq!(reactor.slot_bytes(), (slot, paged_slab::PAGE * slot));
        assert!(reactor.close(key).is_some() && reactor.get_mut(key).is_none());
    }

    /// What the ready list may still hold is due at once, since an outer loop that waits for edges is not told of it.
    #[test]
    fn a_turn_is_announced_at_once_unless_the_ready_list_is_empty() {
        let hour = Duration::from_secs(3_600);
        for (result, expected) in [
            (Ok(true), hour),
            (Ok(false), Duration::ZERO),
            (Err(io::ErrorKind::Interrupted.into()), Duration::ZERO),
        ] {
            let (mut reactor, _) = scripted([result]);
            reactor.wait(None).unwrap();
            reactor.announce(Some(hour));
            assert_eq!(reactor.selector.announced, Some(expected));
        }
    }

    /// Of two events one was queued by the caller: the sweep of one source, which takes two reports, is not over.
    #[test]
    fn a_sweep_counts_the_events_of_the_kernel_alone() {
        let (mut reactor, key) = scripted([Ok(false), Ok(false)]);
        reactor.read_clock();
        reactor.requeue(key, Readiness::Normal);
        reactor.wait(None).unwrap();
        assert_eq!((reactor.turn.len(), reactor.horizon.ms()), (2, 0));
        while reactor.next_event().is_some() {}
        reactor.wait(None).unwrap();
        assert!(reactor.horizon.ms() > 0, "the second report has ended it");
    }

    /// The reported source is served before the one that was queued, although that has waited since the last turn.
    #[test]
    fn sources_that_become_ready_go_ahead_of_queued_ones() {
        let (mut reactor, reported) = scripted([Ok(true)]);
        let queued = reactor.add(Nothing, NEVER).map_err(|(_, error)| error);
        let queued = queued.unwrap();
        reactor.requeue(queued, Readiness::Exceptional);
        reactor.wait(None).unwrap();
        let expected = [
            Event::Ready(reported, Readiness::Normal),
            Event::Ready(queued, Readiness::Exceptional),
        ];
        for event in expected {
            assert_eq!(reactor.next_event(), Some(event));
        }
        assert_eq!(reactor.next_event(), None);
    }

    /// A turn that was interrupted midway goes on without a wait.
    #[test]
    fn nothing_is_waited_for_while_events_are_left() {
        let (mut reactor, key) = scripted([Ok(true)]);
        assert_eq!(reactor.timeout(), None);
        reactor.wait(None).unwrap();
        assert_eq!(reactor.timeout(), Some(Duration::ZERO));
        assert!(
            !reactor.wait(None).unwrap(),
            "the selector has no further result"
        );
        assert_eq!(
            reactor.next_event(),
            Some(Event::Ready(key, Readiness::Normal))
        );
        assert_eq!(reactor.timeout(), None);
    }
}
