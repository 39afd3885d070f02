//! Busy polling before a wait that would sleep.
//!
//! To sleep and to be woken costs more than an echo: the kernel switches to another thread or halts the core, and the next
//! event has to wake this thread, from another core by an interrupt. Where the next event comes sooner than that takes, it
//! is cheaper to call epoll_wait(2) with a timeout of zero until it comes; where it does not, the time of the core is wasted.
//! So the time for which a wait polls before it sleeps, the *window*, adapts as that of KVM does for a guest that halts
//! (halt polling):
//!
//! | the wait | the next window |
//! |---|---|
//! | ended with a poll | as long as this one |
//! | slept, and took no longer than the longest window | twice as long, 1 µs at least |
//! | took longer | zero: the next wait sleeps at once |
//!
//! So a loop with nothing to do sleeps, requests that are far apart are not polled for, and going idle costs one window.
//!
//! Between two polls the core is offered to other threads (sched_yield(2)): a client on the same core can only send while it
//! runs. If a poll takes so long that another thread has run, or the kernel itself, the core is shared, and polling would
//! postpone what that thread does, or this one by the time slice of that one. Then the window stays zero for many times as
//! long, which bounds the loss.

use super::event::Readiness;
use super::selector::{Selector, Token};
use std::io;
use std::time::{Duration, Instant};

/// First window that is not zero: less than any sleep costs.
const WINDOW_MIN: Duration = Duration::from_micros(1);
/// Longest time of a poll on a core of one's own. Alone it takes about 1 µs.
const POLL_MAX: Duration = Duration::from_micros(20);
/// The pause after a poll that took longer, as a multiple of its time.
const PAUSE: u32 = 100;

/// The window, and what the last waits tell of the next.
#[derive(Debug)]
pub(super) struct Spin {
    /// Longest window; zero switches polling off.
    max: Duration,
    /// Present window.
    window: Duration,
    /// The window is zero until then.
    paused_until: Instant,
}

impl Spin {
    pub(super) fn new(max: Duration, now: Instant) -> Self {
        Self {
            max,
            window: Duration::ZERO,
            paused_until: now,
        }
    }

    /// Waits as [`Selector::wait`], but polls for the present window first, if the wait would sleep.
    #[inline]
    pub(super) fn wait<P: Selector>(
        &mut self,
        selector: &mut P,
        timeout: Option<Duration>,
        report: impl FnMut(Token, Readiness),
    ) -> io::Result<bool> {
        if self.max.is_zero() || timeout == Some(Duration::ZERO) {
            return selector.wait(timeout, report);
        }
        self.poll_then_sleep(selector, timeout, report)
    }

    #[inline(never)]
    fn poll_then_sleep<P: Selector>(
        &mut self,
        selector: &mut P,
        timeout: Option<Duration>,
        mut report: impl FnMut(Token, Readiness),
    ) -> io::Result<bool> {
        let began = selector.now();
        let window = timeout.map_or(self.window, |timeout| timeout.min(self.window));
        let (mut now, mut is_ready) = (began, false);
        while now - began < window && self.paused_until <= now {
            let complete = selector.wait(Some(Duration::ZERO), |token, readiness| {
                is_ready = true;
                report(token, readiness);
            })?;
            if is_ready {
                return Ok(complete);
            }
            selector.yield_core();
            let before = std::mem::replace(&mut now, selector.now());
            if now - before > POLL_MAX {
                self.paused_until = now + PAUSE * (now - before);
            }
        }
        let rest = timeout.map(|timeout| timeout.saturating_sub(now - began));
        let complete = selector.wait(rest, report)?;
        let now = selector.now();
        self.window = if now - began > self.max || now < self.paused_until {
            Duration::ZERO
        } else {
            (2 * self.window).clamp(WINDOW_MIN.min(self.max), self.max)
        };
        Ok(complete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_micros(50);
    const US: Duration = Duration::from_micros(1);
    const MS: Duration = Duration::from_millis(1);

    /// A selector whose next event comes at a given time. A poll takes a microsecond, and to wake up takes 20.
    struct Script {
        now: Instant,
        event_at: Instant,
        /// Time for which other threads keep the core when they are offered it.
        lost: Duration,
        yields: u32,
        sleeps: u32,
    }

    impl Selector for Script {
        type Registry = ();

        fn registry(&self) -> &() {
            &()
        }

        fn wait(
            &mut self,
            timeout: Option<Duration>,
            mut report: impl FnMut(Token, Readiness),
        ) -> io::Result<bool> {
            if timeout != Some(Duration::ZERO) && self.now < self.event_at {
                let end = timeout.map_or(self.event_at, |timeout| {
                    self.event_at.min(self.now + timeout)
                });
                self.now = end + 20 * US;
                self.sleeps += 1;
            }
            if self.event_at <= self.now {
                report(Token(1), Readiness::Normal);
            }
            Ok(true)
        }

        fn now(&self) -> Instant {
            self.now
        }

        fn yield_core(&mut self) {
            self.yields += 1;
            self.now += US + self.lost;
        }
    }

    fn script() -> (Spin, Script) {
        let now = Instant::now();
        let script = Script {
            now,
            event_at: now,
            lost: Duration::ZERO,
            yields: 0,
            sleeps: 0,
        };
        (Spin::new(MAX, now), script)
    }

    /// Runs turns of 5 us, each of which is followed by an event after `gap`; returns the number of yields and sleeps.
    fn run(spin: &mut Spin, script: &mut Script, gap: Duration, turns: u32) -> (u32, u32) {
        (script.yields, script.sleeps) = (0, 0);
        for _ in 0..turns {
            script.now += 5 * US;
            script.event_at = script.now + gap;
            spin.wait(script, None, |_, _| {}).unwrap();
        }
        (script.yields, script.sleeps)
    }

    #[test]
    fn events_that_come_soon_are_polled_for_and_no_wait_sleeps() {
        let (mut spin, mut script) = script();
        for gap in [5 * US, 10 * US, 25 * US] {
            run(&mut spin, &mut script, gap, 10);
            let (yields, sleeps) = run(&mut spin, &mut script, gap, 1_000);
            assert!(yields >= 1_000, "{yields} yields");
            assert_eq!(sleeps, 0, "events {gap:?} after a turn");
        }
        let mut off = Spin::new(Duration::ZERO, script.now);
        assert_eq!(run(&mut off, &mut script, 5 * US, 1_000), (0, 1_000));
    }

    #[test]
    fn events_that_are_far_apart_are_not_polled_for() {
        let (mut spin, mut script) = script();
        assert_eq!(run(&mut spin, &mut script, MAX, 1_000), (0, 1_000));
        assert_eq!(run(&mut spin, &mut script, MS, 1_000), (0, 1_000));
    }

    #[test]
    fn going_idle_costs_one_window() {
        let (mut spin, mut script) = script();
        run(&mut spin, &mut script, 20 * US, 1_000);
        let (yields, sleeps) = run(&mut spin, &mut script, MS, 1_000);
        assert!(yields <= 50, "{yields} polls of a microsecond");
        assert_eq!(sleeps, 1_000);
    }

    #[test]
    fn a_core_that_other_threads_use_is_left_to_them() {
        for lost in [25 * US, 3 * MS] {
            let (mut spin, mut script) = script();
            script.lost = lost;
            let began = script.now;
            let (yields, _) = run(&mut spin, &mut script, 5 * US, 100_000);
            let share = (lost * yields).as_secs_f64() / (script.now - began).as_secs_f64();
            assert!(yields > 0 && share < 0.011, "{share} of the time is lost");
        }
    }

    #[test]
    fn a_wait_is_no_longer_than_its_timeout_and_a_poll_is_one_call() {
        let (mut spin, mut script) = script();
        run(&mut spin, &mut script, 20 * US, 1_000);
        script.event_at = script.now + MS;
        script.yields = 0;
        let began = script.now;
        let zero = Some(Duration::ZERO);
        spin.wait(&mut script, zero, |_, _| {}).unwrap();
        assert_eq!((script.yields, script.now), (0, began));
        spin.wait(&mut script, Some(8 * US), |_, _| {}).unwrap();
        assert_eq!((script.yields, script.now), (8, began + 8 * US));
        spin.wait(&mut script, Some(80 * US), |_, _| {}).unwrap();
        let end = began + (8 + 80 + 20) * US;
        assert_eq!(script.now, end, "and the time that it takes to wake up");
    }
}
