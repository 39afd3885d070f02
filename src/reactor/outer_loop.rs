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
use std::{io, time::Instant};

/// Means of announcing turns to an outer event loop.
#[derive(Debug, Default)]
pub(super) struct OuterLoop {
    is_watching: AtomicBool,
    #[cfg(feature = "timerfd")]
    timer: Option<Timer>,
    /// Expiry of the timer. If the deadline has moved since, the timer causes a turn without work; setting it at every
    /// activity of a connection would cost more.
    #[cfg(feature = "timerfd")]
    set_for: Option<Instant>,
}

impl OuterLoop {
    /// Begins to announce turns, as the descriptor is taken.
    pub(super) fn begin(&self) {
        self.is_watching.store(true, Ordering::Relaxed);
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
    fn set_timer(&mut self, due: Duration, registry: &mio::Registry) {
        let now = Instant::now();
        if self.is_set_before(now, due) {
            return;
        }
        match self.arm(due, registry) {
            Ok(()) => self.set_for = Some(now + due),
            Err(error) => log::error!(
                "no timer for the outer event loop: {error}; it must not wait longer than timeout() returns"
            ),
        }
    }

    /// Whether the timer expires from now on, and not later than after this time.
    #[cfg(feature = "timerfd")]
    fn is_set_before(&self, now: Instant, due: Duration) -> bool {
        self.set_for
            .is_some_and(|set| now < set && set <= now + due)
    }

    /// Arms the timer. It is made for the first announcement; for lack of descriptors that may fail, and is tried again.
    #[cfg(feature = "timerfd")]
    fn arm(&mut self, due: Duration, registry: &mio::Registry) -> io::Result<()> {
        let timer = match self.timer.take() {
            Some(timer) => timer,
            None => {
                let mut timer = Timer::new()?;
                timer.end_waits(registry)?;
                timer
            }
        };
        self.timer.insert(timer).arm(due)
    }

    #[cfg(not(feature = "timerfd"))]
    fn set_timer(&mut self, _: Duration, _: &mio::Registry) {}
}

#[cfg(test)]
mod tests {
    use super::super::selector::Selector;
    use super::super::{Epoll, key::WAKE};
    use super::*;
    use std::os::fd::AsFd;

    /// Waits until the descriptor is readable, and returns what was reported.
    fn reported(epoll: &mut Epoll) -> Vec<mio::Token> {
        let mut tokens = Vec::new();
        let deadline = Some(Duration::from_secs(20));
        epoll.wait(deadline, |token, _| tokens.push(token)).unwrap();
        tokens
    }

    #[test]
    fn a_turn_that_is_due_makes_the_descriptor_readable() {
        let mut epoll = Epoll::new().unwrap();
        assert!(!epoll.is_watched());
        let _ = epoll.as_fd();
        assert!(epoll.is_watched());
        epoll.announce(Duration::ZERO);
        assert_eq!(reported(&mut epoll), [WAKE]);
        #[cfg(feature = "timerfd")]
        for _ in 0..2 {
            let announced = Instant::now();
            epoll.announce(Duration::from_millis(2));
            assert_eq!(reported(&mut epoll), [WAKE]);
            assert!(
                announced.elapsed() >= Duration::from_millis(2),
                "and not earlier"
            );
        }
    }

    #[test]
    #[cfg(feature = "timerfd")]
    fn the_timer_is_set_only_if_it_would_expire_too_late() {
        let registry = mio::Poll::new().unwrap();
        let (mut outer_loop, second) = (OuterLoop::default(), Duration::from_secs(1));
        let now = Instant::now();
        for (set_for, expected) in [
            (None, false),
            (Some(now), false), // it has expired
            (Some(now + second / 2), true),
            (Some(now + second), true),
            (Some(now + 2 * second), false),
        ] {
            outer_loop.set_for = set_for;
            assert_eq!(outer_loop.is_set_before(now, second), expected);
        }
        outer_loop.set_for = None;
        outer_loop.set_timer(3600 * second, registry.registry());
        let set_for = outer_loop.set_for;
        assert!(set_for >= Some(now + 3600 * second));
        outer_loop.set_timer(7200 * second, registry.registry());
        assert_eq!(outer_loop.set_for, set_for);
        outer_loop.set_timer(1800 * second, registry.registry());
        assert!(outer_loop.set_for < set_for);
    }
}
