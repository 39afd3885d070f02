//! Requests that are under way, and what the clients share while they send and take them.

use super::metrics::{Counters, Faults, Interval, Resent, Stage, Unanswered, note};
use super::payload::Pattern;
use super::schedule::Clock;
use std::collections::VecDeque;

/// When a request was to be sent, and when it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) planned: u64,
    pub(super) sent: u64,
}

/// The requests of one connection that are under way, oldest first. Nearly always there is one: it has its place in the
/// connection itself, and only more than one need memory of their own.
#[derive(Debug, Default)]
pub(super) struct Requests {
    first: Option<Request>,
    more: VecDeque<Request>,
}

impl Requests {
    #[inline]
    pub(super) fn push(&mut self, request: Request) {
        match self.first {
            None => self.first = Some(request),
            Some(_) => self.more.push_back(request),
        }
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Request> {
        let first = self.first.take()?;
        if !self.more.is_empty() {
            self.first = self.more.pop_front();
        }
        Some(first)
    }

    /// Whether no request is under way. It is one comparison, where the length is a sum.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn oldest(&self) -> Option<&Request> {
        self.first.as_ref()
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Request> {
        self.first.iter().chain(&self.more)
    }
}

/// What all clients of a worker share: they use it one at a time.
#[derive(Debug)]
pub(super) struct WorkerContext {
    pub(super) clock: Clock,
    pub(super) pattern: Pattern,
    /// The one buffer that everything is read into.
    pub(super) read_buffer: Box<[u8]>,
    pub(super) interval: Box<Interval>,
    pub(super) counters: Counters,
    pub(super) faults: Faults,
    pub(super) unanswered: Unanswered,
    pub(super) resent: Resent,
    /// Bytes of a request.
    pub(super) size: usize,
    /// Whether an answer is the sign for the next request: a closed loop that is running.
    pub(super) again: bool,
    /// Whether requests are planned: then only requests count that were planned within `window`. What was left
    /// over from the warm-up is no throughput of the window.
    pub(super) planned: bool,
    pub(super) window: (u64, u64),
    /// Requests that may still be sent, if they are numbered.
    pub(super) remaining: Option<u64>,
    /// The clock as it was read last.
    pub(super) now: u64,
}

impl WorkerContext {
    /// Reads the clock.
    #[inline]
    pub(super) fn read_clock(&mut self) -> u64 {
        self.now = self.clock.now();
        self.now
    }

    /// Whether one more request may be planned; then it is one less that may.
    #[inline]
    pub(super) fn may_plan(&mut self) -> bool {
        match &mut self.remaining {
            Some(0) => return false,
            Some(remaining) => *remaining -= 1,
            None => {}
        }
        true
    }

    /// Whether one more request may be sent; then it is counted as sent.
    #[inline]
    pub(super) fn may_send(&mut self) -> bool {
        let may = self.may_plan();
        self.counters.sent += u64::from(may);
        may
    }

    /// Records a request whose answer has come back, verified.
    #[inline]
    pub(super) fn answered(&mut self, request: Request) {
        self.counters.echoed += 1;
        if self.planned {
            return self.answered_as_planned(request);
        }
        self.interval.echoes += 1;
        let service_time = self.now.saturating_sub(request.sent);
        note(&mut self.interval.service_time, service_time);
    }

    /// The same for an open loop, where only requests that were planned within the window are measured.
    fn answered_as_planned(&mut self, request: Request) {
        let now = self.now;
        if self.is_in_window(request.planned) {
            self.interval.echoes += 1;
            note(
                &mut self.interval.service_time,
                now.saturating_sub(request.sent),
            );
            note(
                &mut self.interval.response_time,
                now.saturating_sub(request.planned),
            );
        } else if self.interval.stage == Stage::WarmUp {
            self.interval.echoes += 1;
        }
    }

    #[inline]
    fn is_in_window(&self, planned: u64) -> bool {
        planned >= self.window.0 && planned < self.window.1
    }

    /// A request has had no answer: its latency is at least the time that it has waited so far. To leave it out would
    /// make a server the quicker the more requests it leaves without an answer.
    pub(super) fn not_answered(&mut self, request: Request, now: u64) {
        if !self.planned {
            note(
                &mut self.interval.service_time,
                now.saturating_sub(request.sent),
            );
        } else if self.is_in_window(request.planned) {
            note(
                &mut self.interval.service_time,
                now.saturating_sub(request.sent),
            );
            note(
                &mut self.interval.response_time,
                now.saturating_sub(request.planned),
            );
        }
    }
}

/// What one connection has done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    /// Which connection it is.
    pub(super) number: u32,
    pub(super) echoes: u64,
    /// The last echo, and the longest time between two.
    last: u64,
    gap: u64,
}

impl Tally {
    pub(super) fn new(number: u32, since: u64) -> Self {
        Self {
            number,
            echoes: 0,
            last: since,
            gap: 0,
        }
    }

    #[inline]
    pub(super) fn count(&mut self, now: u64) {
        self.echoes += 1;
        self.gap = self.gap.max(now - self.last);
        self.last = now;
    }

    /// Begins anew: the window has begun.
    pub(super) fn reset(&mut self, now: u64) {
        self.echoes = 0;
        self.gap = 0;
        self.last = now;
    }

    /// The time since the last echo.
    pub(super) fn silence(&self, now: u64) -> u64 {
        now.saturating_sub(self.last)
    }

    /// The longest gap by now, the one that has not ended included.
    pub(super) fn longest_gap(&self, now: u64) -> u64 {
        self.gap.max(self.silence(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flights_come_in_the_order_in_which_they_left() {
        let request = |sent| Request { planned: 0, sent };
        let mut requests = Requests::default();
        for round in 0..3 {
            (0..4).for_each(|n| requests.push(request(round * 10 + n)));
            assert_eq!(requests.len(), 4);
            assert_eq!(requests.oldest(), Some(&request(round * 10)));
            (0..4).for_each(|n| assert_eq!(requests.pop(), Some(request(round * 10 + n))));
            assert_eq!((requests.pop(), requests.len()), (None, 0));
        }
    }
}
