//! What every part of the server works on: the reactor, the limits, the counters and the read buffer.
//!
//! A part (acceptor, datagram echo, shutdown, connections) owns the fields that it alone changes, and borrows the
//! [`Core`] for the time of a call.

use super::backend::{Backend, Os, Socket};
use super::connection::Wait;
use super::decision::Decision;
use super::log_limit::LogLimit;
use super::phase::Phase;
use super::read_buffer::ReadBuffer;
use crate::limits::{CONNECTIONS_CEILING, Limits};
use crate::reactor::{Interest, Key, Reactor, Registration, TimeoutClass};
use crate::stats::Stats;
use std::time::{Duration, Instant};

/// A turn that served at most this many events, all of them echoes, is not timed: it is as short as a turn can be, and a
/// second reading of the clock would cost as much as one of its events.
const UNTIMED_EVENTS_MAX: usize = 8;

/// The state that all parts of the server share.
#[derive(Debug)]
pub(super) struct Core<B: Backend> {
    pub(super) reactor: Reactor<Socket<B>, B::Selector>,
    pub(super) limits: Limits,
    pub(super) stats: Stats,
    pub(super) read_buffer: ReadBuffer,
    registrations: Registrations,
    /// The times for which the reactor's one alarm is needed, by [`Alarm`].
    alarms: [Option<Instant>; 3],
    /// The longest turn so far: [`Stats::turn_us_max`] before it is rounded.
    longest_turn: Duration,
    /// Whether something happened in this turn that takes longer than an echo.
    must_time_turn: bool,
}

/// A reason to wake up at a given time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Alarm {
    /// Accepting is tried again after a shortage.
    RetryAccept,
    /// A listener or datagram socket whose calls failed is tried again.
    ResumeListener,
    /// The next phase of the shutdown begins.
    NextPhase,
}

impl<B: Backend> Core<B> {
    pub(super) fn new(selector: B::Selector, limits: Limits) -> Self {
        let mut reactor = Reactor::new(selector);
        reactor.set_spin(limits.spin_max);
        reactor.preallocate(limits.preallocate_connections.min(limits.connections_max));
        Self {
            read_buffer: ReadBuffer::new(&limits),
            registrations: Registrations::new(&mut reactor, &limits),
            alarms: [None; 3],
            longest_turn: Duration::ZERO,
            must_time_turn: false,
            stats: Stats::default(),
            limits,
            reactor,
        }
    }

    /// What a connection in this state waits for, and how long.
    pub(super) fn registration(&self, wait: Wait, phase: Phase) -> Registration {
        match wait {
            Wait::Header | Wait::Reading if phase.is_stopping() => {
                self.registrations.reading_while_draining
            }
            Wait::Header => self.registrations.header,
            Wait::Reading => self.registrations.reading,
            Wait::Writing => self.registrations.writing,
            Wait::Lingering => self.registrations.lingering,
        }
    }

    /// How many connections wait for this.
    #[cfg(any(feature = "cli", feature = "simulation", test))]
    pub(super) fn connections_waiting(&self, wait: Wait) -> usize {
        let all = &self.registrations;
        let registrations = match wait {
            Wait::Header => &[all.header][..],
            Wait::Reading => &[all.reading, all.reading_while_draining],
            Wait::Writing => &[all.writing],
            Wait::Lingering => &[all.lingering],
        };
        let counts = registrations.iter();
        counts.map(|one| self.reactor.sources_of(one.class)).sum()
    }

    /// Tells the backend of a decision.
    #[inline(always)]
    pub(super) fn note(&self, decision: Decision) {
        B::note(self.reactor.selector(), decision);
    }

    /// The keys of all connections. Collected, so that they may be closed one by one.
    pub(super) fn connections(&mut self) -> Vec<Key> {
        let mut keys = self.reactor.keys();
        keys.retain(|&key| matches!(self.reactor.get_mut(key), Some(Socket::Connection(_))));
        keys
    }

    /// Sets or clears one alarm. The reactor has one for all of them, which is set for the earliest.
    pub(super) fn set_alarm(&mut self, alarm: Alarm, at: Option<Instant>) {
        self.alarms[alarm as usize] = at;
        self.rearm();
    }

    /// Sets the reactor's alarm, which is cleared when it is reported.
    pub(super) fn rearm(&mut self) {
        let earliest = self.alarms.into_iter().flatten().min();
        self.reactor.set_alarm(earliest);
    }

    /// Whether this line may be logged now; if not, it is counted.
    pub(super) fn may_log(&mut self, limit: &mut LogLimit) -> bool {
        limit.allows(self.reactor.now(), &mut self.stats.log_suppressed)
    }

    /// Has this turn timed, however few events it serves.
    pub(super) fn time_this_turn(&mut self) {
        self.must_time_turn = true;
    }

    /// Whether this turn may have been a long one.
    #[inline]
    pub(super) fn must_time_turn(&self) -> bool {
        self.reactor.events_served() > UNTIMED_EVENTS_MAX || self.must_time_turn
    }

    /// Records how long this turn took, if none took longer.
    pub(super) fn record_turn_time(&mut self) {
        self.must_time_turn = false;
        let elapsed = self.reactor.turn_elapsed();
        if elapsed > self.longest_turn {
            self.longest_turn = elapsed;
            self.stats.turn_us_max = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        }
    }
}

/// What a connection waits for in each state, and how long.
#[derive(Debug)]
struct Registrations {
    header: Registration,
    reading: Registration,
    reading_while_draining: Registration,
    writing: Registration,
    lingering: Registration,
}

impl Registrations {
    fn new<B: Backend>(reactor: &mut Reactor<Socket<B>, B::Selector>, limits: &Limits) -> Self {
        let header = Registration {
            interest: Interest::Read,
            class: reactor.deadline_class(limits.proxy_header_timeout),
        };
        let mut registration = |interest, timeout| Registration {
            interest,
            class: reactor.timeout_class(timeout),
        };
        Self {
            header,
            reading: registration(Interest::Read, limits.idle_timeout),
            reading_while_draining: registration(Interest::Read, Some(limits.drain_idle_timeout)),
            lingering: registration(Interest::Read, Some(limits.fin_timeout)),
            writing: registration(Interest::Write, limits.write_stall_timeout),
        }
    }
}

/// What a listener or a datagram socket waits for, without end.
pub(super) const LISTENING: Registration = Registration {
    interest: Interest::Read,
    class: TimeoutClass::NEVER,
};

/// There is a key for every connection that may be asked for, and some are left for listeners.
const _: () = assert!(CONNECTIONS_CEILING + 1_024 <= Reactor::<Socket<Os>>::SOURCES_MAX);

/// What an idle connection costs, in bytes: its slot, and nothing else. (mio's sockets are larger in debug builds, in which
/// they remember their event queue.)
#[cfg(all(target_pointer_width = "64", not(debug_assertions)))]
const _: () = assert!(Reactor::<Socket<Os>>::SLOT_BYTES <= 48);
