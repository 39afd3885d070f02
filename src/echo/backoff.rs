//! Listeners and datagram sockets whose calls fail: which of them rest, and until when.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! A shortage of descriptors concerns all listeners, and pauses the [`accept_gate`](super::accept_gate). This file is about
//! an error of one socket alone, such as a security module that forbids `accept` on it: the other sockets are served
//! meanwhile. While a socket rests its events are ignored. The end of the pause queues it again, so no edge is lost.

use crate::net::accept::{AcceptError, RetryDelay};
use crate::reactor::Key;
use std::time::{Duration, Instant};

/// The sockets whose last call failed. Usually there are none.
#[derive(Debug, Default)]
pub struct Backoff {
    failing: Vec<Failing>,
}

#[derive(Debug)]
struct Failing {
    key: Key,
    delay: RetryDelay,
    resume_at: Option<Instant>,
}

impl Backoff {
    /// Counts `calls` failed calls on this socket. Returns how long it rests, if it has to.
    pub fn failed(
        &mut self,
        key: Key,
        calls: usize,
        class: AcceptError,
        first: Duration,
        now: Instant,
    ) -> Option<Duration> {
        let place = self.failing.iter().position(|failing| failing.key == key);
        let place = place.unwrap_or_else(|| {
            self.failing.push(Failing {
                key,
                delay: RetryDelay::default(),
                resume_at: None,
            });
            self.failing.len() - 1
        });
        let failing = &mut self.failing[place];
        let pause = failing.delay.failed(calls, class, first);
        failing.resume_at = pause.map(|pause| now + pause);
        pause
    }

    /// Forgets the failures of a socket: a call on it succeeded, or it is closed.
    pub fn forget(&mut self, key: Key) {
        if !self.failing.is_empty() {
            self.failing.retain(|failing| failing.key != key);
        }
    }

    /// Forgets all failures: no socket rests any more.
    pub fn clear(&mut self) {
        self.failing.clear();
    }

    /// Whether the events of this socket are ignored for now.
    pub fn is_resting(&self, key: Key) -> bool {
        let rests = |failing: &Failing| failing.key == key && failing.resume_at.is_some();
        self.failing.iter().any(rests)
    }

    /// When the next socket is to be tried again.
    pub fn resume_at(&self) -> Option<Instant> {
        let moments = self.failing.iter();
        moments.filter_map(|failing| failing.resume_at).min()
    }

    /// Returns the sockets whose pause is over, and ends it.
    pub fn take_due(&mut self, now: Instant) -> Vec<Key> {
        let due = |failing: &&mut Failing| failing.resume_at.is_some_and(|at| at <= now);
        let due = self.failing.iter_mut().filter(due);
        due.map(|failing| {
            failing.resume_at = None;
            failing.key
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_rests_alone_and_longer_each_time() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let first = Duration::from_millis(100);
        let key = |slot| Key::from_token(crate::reactor::Token(slot));
        let (broken, fine) = (key(0), key(1));
        let mut backoff = Backoff::default();
        let pause = backoff.failed(broken, 1, AcceptError::Unknown, first, at(0));
        assert_eq!(pause, Some(first));
        assert!(backoff.is_resting(broken) && !backoff.is_resting(fine));
        assert_eq!(backoff.take_due(at(99)), []);
        assert_eq!(backoff.take_due(at(100)), [broken]);
        assert!(!backoff.is_resting(broken));
        backoff.failed(broken, 1, AcceptError::Unknown, first, at(100));
        assert_eq!(backoff.resume_at(), Some(at(300)));
        backoff.forget(broken);
        assert_eq!(backoff.resume_at(), None);
    }
}
