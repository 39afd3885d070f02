//! Requests that are under way on one connection, and what the connection has done so far.

use std::collections::VecDeque;

/// When a request was to be sent, and when it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    planned: u64,
    sent: u64,
}

impl Request {
    /// A request that is sent now, without a plan.
    #[inline]
    pub(super) fn unplanned(now: u64) -> Self {
        Self {
            planned: now,
            sent: now,
        }
    }

    /// A request that was planned, and is sent now.
    pub(super) fn planned_for(planned: u64, now: u64) -> Self {
        Self { planned, sent: now }
    }

    #[inline]
    pub(super) fn planned(&self) -> u64 {
        self.planned
    }

    #[inline]
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// The time since it was sent.
    #[inline]
    pub(super) fn waited(&self, now: u64) -> u64 {
        now.saturating_sub(self.sent)
    }
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

/// What one connection has done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    /// Which connection it is.
    number: u32,
    echoes: u64,
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
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    #[inline]
    pub(super) fn echoes(&self) -> u64 {
        self.echoes
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

/// What the worker has to do after a connection has done all that it could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Nothing,
    /// It has been proved.
    Proved,
    /// Answers have come, and no further requests were sent.
    Answered,
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
