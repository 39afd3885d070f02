//! The selector of a faulty server: it reports sources again when their input is due, and stalls.

use super::injector::Injector;
use super::order::Faults;
use crate::reactor::{Epoll, Readiness, SOURCES_PER_TURN, Selector, Step, Timer, Token};
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// The selector `P`, with ordered faults.
#[derive(Debug)]
pub(crate) struct FaultySelector<P> {
    inner: P,
    injector: Injector,
    /// Ends a wait when a source is due; the timeout of the wait itself counts milliseconds.
    timer: Timer,
    /// What the timer is set to.
    armed_for: Option<Instant>,
    began: Instant,
    /// What the last wait reported; kept, so that its memory is allocated once.
    reported: Vec<(Token, Readiness)>,
}

impl FaultySelector<Epoll> {
    /// Wraps an epoll instance.
    ///
    /// # Errors
    /// Those of timerfd_create(2) and epoll_ctl(2); usually a lack of descriptors.
    pub(crate) fn new(inner: Epoll, faults: Faults) -> io::Result<Self> {
        let mut timer = Timer::new()?;
        timer.end_waits(inner.registry())?;
        Ok(Self {
            began: inner.now(),
            injector: Injector::new(faults),
            timer,
            armed_for: None,
            inner,
            reported: Vec::new(),
        })
    }
}

impl<P> FaultySelector<P> {
    pub(super) fn inner(&self) -> &P {
        &self.inner
    }

    pub(super) fn injector(&self) -> Injector {
        self.injector.clone()
    }
}

impl<P: Selector> FaultySelector<P> {
    /// Sleeps to the end of a stall, if one is under way.
    fn stall(&self) {
        let Some(stall) = self.injector.faults().stall else {
            return;
        };
        let since_start = self.inner.now().saturating_duration_since(self.began);
        let rest = stall.rest(since_start);
        if !rest.is_zero() {
            thread::sleep(rest);
        }
    }

    /// Sets the timer for the next source that is due. Returns the time until then.
    fn arm(&mut self) -> io::Result<Option<Duration>> {
        let Some(at) = self.injector.next_due() else {
            return Ok(None);
        };
        let left = at.saturating_duration_since(self.inner.now());
        if !left.is_zero() && self.armed_for != Some(at) {
            self.timer.arm(left)?;
            self.armed_for = Some(at);
        }
        Ok(Some(left))
    }
}

impl<P: Selector> Selector for FaultySelector<P> {
    type Registry = P::Registry;

    fn registry(&self) -> &P::Registry {
        self.inner.registry()
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        mut report: impl FnMut(Token, Readiness),
    ) -> io::Result<bool> {
        self.stall();
        let due = self.arm()?;
        let timeout = [timeout, due].into_iter().flatten().min();
        let reported = &mut self.reported;
        reported.clear();
        let inner = &mut self.inner;
        let complete = inner.wait(timeout, |token, readiness| {
            reported.push((token, readiness));
        })?;
        // What has arrived within a stall is told after it.
        self.stall();
        for &(token, readiness) in &self.reported {
            report(token, readiness);
        }
        let now = self.inner.now();
        for _ in 0..SOURCES_PER_TURN {
            let Some(token) = self.injector.pop_due(now) else {
                break;
            };
            report(token, Readiness::Exceptional);
        }
        Ok(complete)
    }

    fn now(&self) -> Instant {
        self.inner.now()
    }

    fn yield_core(&mut self) {
        self.inner.yield_core();
    }

    fn is_watched(&self) -> bool {
        self.inner.is_watched()
    }

    fn announce(&mut self, due: Duration) {
        self.inner.announce(due);
    }

    fn note(&self, step: Step) {
        self.inner.note(step);
    }
}

#[cfg(test)]
mod tests {
    use super::super::injector::Reports;
    use super::super::order::Stall;
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn selector(stall: Option<Stall>) -> FaultySelector<Epoll> {
        let faults = Faults {
            delay: Duration::ZERO,
            stall,
            drop_share: 0.0,
            close_after: None,
            fin_timeout: Duration::ZERO,
            seed: 1,
        };
        FaultySelector::new(Epoll::new().unwrap(), faults).unwrap()
    }

    /// Waits until something is reported.
    fn reported(selector: &mut FaultySelector<Epoll>) -> Vec<Token> {
        let mut tokens = Vec::new();
        while tokens.is_empty() {
            let deadline = Some(Duration::from_secs(20));
            // The token of the timer is no source's; the reactor ignores it.
            let report = |token: Token, _| tokens.extend((token.0 != usize::MAX).then_some(token));
            selector.wait(deadline, report).unwrap();
        }
        tokens
    }

    #[test]
    fn a_source_is_reported_when_it_is_due_and_not_earlier() {
        let mut selector = selector(None);
        let mut reports = Reports::new(selector.injector());
        reports.set_token(Token(5));
        for wait in [MS / 5, 2 * MS, Duration::ZERO] {
            let at = Instant::now() + wait;
            reports.ask(Some(at));
            assert_eq!(reported(&mut selector), [Token(5)]);
            assert!(Instant::now() >= at, "{wait:?}");
        }
        // A later report does not move an earlier one.
        let at = Instant::now() + MS;
        reports.ask(Some(at + 1_000 * MS));
        reports.ask(Some(at));
        assert_eq!(reported(&mut selector), [Token(5)]);
        assert!(Instant::now() >= at && Instant::now() < at + 1_000 * MS);
    }

    #[test]
    fn what_is_due_beyond_the_bound_of_a_turn_is_reported_in_the_next() {
        let mut selector = selector(None);
        let mut reports = Reports::new(selector.injector());
        for number in 0..SOURCES_PER_TURN + 3 {
            reports.set_token(Token(number));
            reports.ask_again(Some(selector.began));
        }
        assert_eq!(reported(&mut selector).len(), SOURCES_PER_TURN);
        assert_eq!(reported(&mut selector).len(), 3);
    }

    /// Between two stalls is a fiftieth of the time: the waits below begin or end in one, and return from none.
    #[test]
    fn no_wait_returns_within_a_stall() {
        let stall = Stall {
            length: 49 * MS / 10,
            period: 5 * MS,
        };
        let mut selector = selector(Some(stall));
        for _ in 0..20 {
            let before = Instant::now() - selector.began;
            selector.wait(Some(MS), |_, _| {}).unwrap();
            let after = Instant::now() - selector.began;
            // The stall that was under way is over.
            assert!(after >= before + stall.rest(before));
            let periods = |since: Duration| since.as_nanos() / stall.period.as_nanos();
            assert!(periods(after) > periods(before), "{before:?} {after:?}");
        }
    }
}
