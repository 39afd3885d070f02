//! When sources are to be reported again. The time is an argument.

use crate::reactor::Token;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Sources that are to be reported at a time, the earliest first.
#[derive(Debug, Default)]
pub(super) struct DueQueue(BinaryHeap<Reverse<(Instant, Token)>>);

impl DueQueue {
    pub(super) fn push(&mut self, at: Instant, token: Token) {
        self.0.push(Reverse((at, token)));
    }

    /// The next time at which a source is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes the next source that is due by `now`.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Token> {
        let is_due = self.next().is_some_and(|at| at <= now);
        let entry = is_due.then(|| self.0.pop()).flatten();
        entry.map(|Reverse((_, token))| token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn sources_are_due_in_the_order_of_their_times() {
        let now = Instant::now();
        let mut queue = DueQueue::default();
        for (after, token) in [(3, 1), (1, 2), (2, 1), (3, 3)] {
            queue.push(now + after * MS, Token(token));
        }
        assert_eq!(queue.next(), Some(now + MS));
        assert_eq!(queue.pop(now), None);
        assert_eq!(queue.pop(now + 2 * MS), Some(Token(2)));
        assert_eq!(queue.pop(now + 2 * MS), Some(Token(1)));
        assert_eq!(queue.pop(now + 2 * MS), None);
        let rest = [queue.pop(now + 9 * MS), queue.pop(now + 9 * MS)];
        assert_eq!(rest, [Some(Token(1)), Some(Token(3))]);
        assert_eq!((queue.next(), queue.pop(now + 9 * MS)), (None, None));
    }
}
