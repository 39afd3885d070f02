//! Announcement of the next turn to an outer event loop.
//!
//! An epoll instance is a descriptor itself, readable while its ready list is not empty (epoll(7)), so that another epoll
//! instance or poll(2) can watch it. For a reactor that is not enough: requeued sources, events that are not served yet, and
//! timeouts are in no ready list; and an outer loop that waits for edges is not told of events that the last epoll_wait(2)
//! left in the list. So at the end of a turn the reactor announces when the next one is due: at once, by a write to the
//! waker's eventfd, or later, by a timerfd in the interest list (feature `timerfd`; without it the outer loop must not wait
//! longer than [`super::Reactor::timeout`]).
//!
//! Announcements begin when the descriptor is taken, and cost a reactor without an outer loop nothing.

#[cfg(feature = "timerfd")]
use super::timer::Timer;
use super::waker::Waker;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
#[cfg(feature = "timerfd")]
use std::{io, sync::OnceLock, time::Instant};

/// Means of announcing turns to an outer event loop.
#[derive(Debug, Default)]
pub(super) struct OuterLoop {
    is_watching: AtomicBool,
    #[cfg(feature = "timerfd")]
    timer: OnceLock<Timer>,
    /// Expiry of the timer. If the deadline has moved since, the timer causes a turn without work; setting it at every
    /// activity of a connection would cost more.
    #[cfg(feature = "timerfd")]
    set_for: Option<Instant>,
}

impl OuterLoop {
    /// Begins to announce turns, as the descriptor is taken.
    pub(super) fn begin(&self, registry: &mio::Registry) {
        if !self.is_watching.swap(true, Ordering::Relaxed) {
            self.make_timer(registry);
        }
    }

    /// Returns whether the descriptor was taken.
    pub(super) fn is_watching(&self) -> bool {
        self.is_watching.load(Ordering::Relaxed)
    }

    /// Makes the descriptor readable after this time, when the next turn is due.
    pub(super) fn announce(&mut self, due: Duration, waker: &Waker, registry: &mio::Registry) {
        if !due.is_zero() {
            return self.set_timer(due, registry);
        }
        if let Err(error) = waker.wake() {
            log::error!("cannot wake the outer event loop: {error}");
        }
    }

    #[cfg(feature = "timerfd")]
    fn make_timer(&self, registry: &mio::Registry) {
        let make = || -> io::Result<Timer> {
            let mut timer = Timer::new()?;
            registry.register(&mut timer, super::key::WAKE, mio::Interest::READABLE)?;
            Ok(timer)
        };
        match make() {
            // A second timer, made by another thread at the same time, is closed again.
            Ok(timer) => drop(self.timer.set(timer)),
            Err(error) => log::error!(
                "no timer for the outer event loop: {error}; it must not wait longer than timeout() returns"
            ),
        }
    }

    #[cfg(feature = "timerfd")]
    fn set_timer(&mut self, due: Duration, registry: &mio::Registry) {
        let now = Instant::now();
        let at = now + due;
        if self.set_for.is_some_and(|set| now < set && set <= at) {
            return;
        }
        if self.timer.get().is_none() {
            self.make_timer(registry); // it failed at first, perhaps for lack of descriptors
        }
        match self.timer.get().map(|timer| timer.arm(due)) {
            Some(Ok(())) => self.set_for = Some(at),
            Some(Err(error)) => {
                log::error!("cannot set the timer for the outer event loop: {error}");
            }
            None => {}
        }
    }

    #[cfg(not(feature = "timerfd"))]
    fn make_timer(&self, _: &mio::Registry) {}

    #[cfg(not(feature = "timerfd"))]
    fn set_timer(&mut self, _: Duration, _: &mio::Registry) {}
}
