//! The next turn, announced to an outer event loop.
//!
//! An epoll instance is a descriptor itself, readable while its ready list has something (epoll(7)), so that it can be
//! watched by another one, or by poll(2). That is not enough for a reactor: requeued sources, events that were reported and
//! not served yet, and deadlines are in no ready list; and an outer loop that waits for edges hears of nothing that was
//! left in the list by the last epoll_wait. So at the end of a turn the reactor says when the next one is due: at once,
//! which is a write to the waker's eventfd, or at a deadline, for which there is a timerfd in the ready list
//! (feature `timerfd`; without it the outer loop must not wait longer than [`super::Reactor::timeout`]).
//!
//! Nothing of this costs a reactor anything that waits for itself: it begins when the descriptor is taken.

use super::Waker;
#[cfg(feature = "timerfd")]
use super::timer::Timer;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
#[cfg(feature = "timerfd")]
use std::{io, sync::OnceLock, time::Instant};

/// What is announced, and how.
#[derive(Debug, Default)]
pub(super) struct OuterLoop {
    is_watching: AtomicBool,
    #[cfg(feature = "timerfd")]
    timer: OnceLock<Timer>,
    /// When the timer goes off. If the deadline has moved away since it was set, it goes off for nothing: that costs a
    /// turn, and much less than setting it whenever a connection is active.
    #[cfg(feature = "timerfd")]
    set_for: Option<Instant>,
}

impl OuterLoop {
    /// The descriptor was taken: from now on turns are announced.
    pub(super) fn begin(&self, registry: &mio::Registry) {
        if !self.is_watching.swap(true, Ordering::Relaxed) {
            self.make_timer(registry);
        }
    }

    /// Whether anything watches the descriptor.
    pub(super) fn is_watching(&self) -> bool {
        self.is_watching.load(Ordering::Relaxed)
    }

    /// Announces the next turn, which is due after this time.
    pub(super) fn announce(&mut self, due: Duration, waker: &Waker, registry: &mio::Registry) {
        if !due.is_zero() {
            return self.set_timer(due, registry);
        }
        if let Err(error) = waker.wake() {
            log::error!("an outer event loop cannot be told that there is work: {error}");
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
            // A second one, made by another thread at the same time, is closed again.
            Ok(timer) => drop(self.timer.set(timer)),
            Err(error) => log::error!(
                "an outer event loop is not told of deadlines: {error}; it has to wait no longer than timeout() says"
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
            self.make_timer(registry); // there was no descriptor for it; perhaps there is one now
        }
        match self.timer.get().map(|timer| timer.arm(due)) {
            Some(Ok(())) => self.set_for = Some(at),
            Some(Err(error)) => log::error!("a deadline cannot be announced: {error}"),
            None => {}
        }
    }

    #[cfg(not(feature = "timerfd"))]
    fn make_timer(&self, _: &mio::Registry) {}

    #[cfg(not(feature = "timerfd"))]
    fn set_timer(&mut self, _: Duration, _: &mio::Registry) {}
}
