//! Time of the reactor: the clock of a turn, timeouts, and the one alarm.

use super::Reactor;
use super::event::{Step, TimeoutClass};
use super::key::Key;
use super::selector::{SOURCES_PER_TURN, Selector, Source};
use super::spin::Spin;
use super::timeouts::min_timeout;
use std::time::{Duration, Instant};

impl<S: Source<P::Registry>, P: Selector> Reactor<S, P> {
    /// Creates a timeout that sources can share; `None` never expires. There can be five beside [`TimeoutClass::NEVER`],
    /// those of [`Reactor::deadline_class`] among them.
    pub fn timeout_class(&mut self, timeout: Option<Duration>) -> TimeoutClass {
        self.timeouts.timeout_class(timeout)
    }

    /// Creates a timeout that counts from the registration of a source: its events do not restart it.
    pub fn deadline_class(&mut self, timeout: Duration) -> TimeoutClass {
        self.timeouts.deadline_class(timeout)
    }

    /// Returns the next expired source, up to the bound of a turn. The rest is overdue, so that the next turn follows
    /// without a wait, and serves first what is ready by then.
    #[inline]
    pub(super) fn next_expired(&mut self) -> Option<Key> {
        while self.expired < SOURCES_PER_TURN {
            let key = self.timeouts.expired(&self.slots, self.horizon.ms())?;
            self.expired += 1;
            self.timeouts.touch(&mut self.slots, key, self.now_ms);
            // A queued source is ready and not idle, however long the queue is.
            if !self.slots.at(key.slot).queued {
                self.selector.note(Step::Expired(key));
                return Some(key);
            }
        }
        None
    }

    /// Returns the source of an event, as [`Reactor::begin_event`], where its timeout has to be restarted.
    #[cold]
    pub(super) fn begin_event_after_pause(&mut self, key: Key) -> Option<&mut S> {
        self.timeouts.touch(&mut self.slots, key, self.now_ms);
        self.selector.note(Step::TimeoutRestarted(key));
        self.get_mut(key)
    }

    /// Returns the time until the next turn is due if no event arrives; `None` means never. It reads the clock, since any
    /// time may pass between two turns of an outer event loop.
    pub fn timeout(&self) -> Option<Duration> {
        let left = self.timeout_of_turn()?;
        if left.is_zero() {
            return Some(left);
        }
        let since = self.selector.now().saturating_duration_since(self.now);
        Some(left.saturating_sub(since))
    }

    /// Returns the same, counted from the last reading of the clock: in a loop of turns alone that was just now, and
    /// another reading would cost as much as the rest of this.
    pub(super) fn timeout_of_turn(&self) -> Option<Duration> {
        let has_work = !self.queue.is_empty() || self.served < self.turn.len();
        if has_work {
            return Some(Duration::ZERO);
        }
        let alarm = self
            .alarm
            .map(|alarm| alarm.saturating_duration_since(self.now));
        min_timeout(alarm, self.timeouts.until_next())
    }

    /// Reads the clock. Each turn does; between two turns a caller does it where an outer loop may have waited for long.
    #[inline]
    pub fn read_clock(&mut self) -> Instant {
        self.now = self.selector.now();
        self.now_ms = self.timeouts.milliseconds(self.now);
        self.now
    }

    /// Returns the time of this turn.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Returns the time since the moment up to which every ready source has been reported. It reads the clock. A caller
    /// with timeouts of its own judges by that moment: after a stop of this process, input that came in time may not have
    /// been reported yet.
    #[cfg(feature = "bench")]
    pub fn unreported_for(&self) -> Duration {
        let since = self.selector.now().saturating_duration_since(self.now);
        since + Duration::from_millis(self.now_ms.saturating_sub(self.horizon.ms()))
    }

    /// Sets the longest time for which [`Reactor::wait`] polls before it sleeps; zero switches that off.
    pub fn set_spin(&mut self, max: Duration) {
        self.spin = Spin::new(max, self.now);
    }

    /// Returns the number of ready sources that this turn has served so far.
    pub fn events_served(&self) -> usize {
        self.served
    }

    /// Returns the time since the wait of this turn ended. It reads the clock a second time in the turn.
    pub fn turn_elapsed(&self) -> Duration {
        self.selector
            .now()
            .saturating_duration_since(self.turn_began)
    }

    /// Sets the one alarm ([`Event::Alarm`](super::Event::Alarm)), or cancels it.
    pub fn set_alarm(&mut self, at: Option<Instant>) {
        self.alarm = at;
    }
}
