//! The governor of `accept`: when newcomers are let in, and when they wait.
//!
//! Waiting happens in the kernel's accept queue, and costs nobody anything. There are two reasons for it: we hold as many
//! connections as we may, or the system is short of descriptors or memory. Both end when a connection closes; a shortage
//! may also end without our doing, so it is looked into by a timer. What must not be waited for is a new edge: the kernel
//! reported the newcomers once, and that it could not give us a descriptor for them changes nothing in its books.

use std::time::{Duration, Instant};

/// Whether newcomers wait, and until when at most.
#[derive(Debug, Default)]
pub struct AcceptGate {
    held_since: Option<Instant>,
    retry_at: Option<Instant>,
    /// How long they have waited in all, in those times that are over.
    waited: Duration,
}

impl AcceptGate {
    /// Lets newcomers wait until a connection closes.
    pub fn hold(&mut self, now: Instant) {
        self.held_since.get_or_insert(now);
    }

    /// Lets newcomers wait until a connection closes, or for this long.
    pub fn pause(&mut self, now: Instant, retry: Duration) {
        self.hold(now);
        self.retry_at = (!planted!("no-retry-after-emfile")).then(|| now + retry);
    }

    /// Whether newcomers wait.
    pub fn holds(&self) -> bool {
        self.held_since.is_some()
    }

    /// When to try again even if no connection closes.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Lets newcomers in again. Whether they were waiting.
    pub fn release(&mut self, now: Instant) -> bool {
        self.retry_at = None;
        self.waited = self.waited(now);
        self.held_since.take().is_some()
    }

    /// How long accepting has been held back in all.
    pub fn waited(&self, now: Instant) -> Duration {
        let current = self
            .held_since
            .map(|since| now.saturating_duration_since(since));
        self.waited + current.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_waiting_adds_up_over_every_hold() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut governor = AcceptGate::default();
        assert!(!governor.release(at(5)));
        governor.pause(at(10), Duration::from_millis(100));
        governor.hold(at(60)); // while it is held already
        assert_eq!(governor.waited(at(70)), Duration::from_millis(60));
        assert!(governor.release(at(110)));
        assert_eq!((governor.retry_at(), governor.holds()), (None, false));
        governor.hold(at(200));
        assert_eq!(governor.waited(at(205)), Duration::from_millis(105));
    }
}
