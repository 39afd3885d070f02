//! The accept_gate of `accept`: when new connections are let in, and when they wait.
//!
//! Waiting happens in the kernel's accept queue, and costs nobody anything. There are two reasons for it: we hold as many
//! connections as we may, or the system is short of descriptors or memory. Both end when a connection closes; a shortage
//! may also end without our doing, so it is looked into by a timer. What must not be waited for is a new edge: the kernel
//! reported the new connections once, and that it could not give us a descriptor for them changes nothing in its books.

use std::time::{Duration, Instant};

/// Whether new connections wait, and until when at most.
#[derive(Debug, Default)]
pub struct AcceptGate {
    paused_since: Option<Instant>,
    retry_at: Option<Instant>,
    /// How long they have waited in all, in those times that are over.
    paused: Duration,
}

impl AcceptGate {
    /// Lets new connections wait until a connection closes.
    pub fn pause_until_close(&mut self, now: Instant) {
        self.paused_since.get_or_insert(now);
    }

    /// Lets new connections wait until a connection closes, or for this long.
    pub fn pause_for(&mut self, now: Instant, retry: Duration) {
        self.pause_until_close(now);
        self.retry_at = Some(now + retry);
    }

    /// Whether new connections wait.
    pub fn is_paused(&self) -> bool {
        self.paused_since.is_some()
    }

    /// When to try again even if no connection closes.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Lets new connections in again. Whether they were waiting.
    pub fn resume(&mut self, now: Instant) -> bool {
        self.retry_at = None;
        self.paused = self.paused_total(now);
        self.paused_since.take().is_some()
    }

    /// How long accepting has been held back in all.
    pub fn paused_total(&self, now: Instant) -> Duration {
        let current = self
            .paused_since
            .map(|since| now.saturating_duration_since(since));
        self.paused + current.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_waiting_adds_up_over_every_hold() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut accept_gate = AcceptGate::default();
        assert!(!accept_gate.resume(at(5)));
        accept_gate.pause_for(at(10), Duration::from_millis(100));
        accept_gate.pause_until_close(at(60)); // while it is held already
        assert_eq!(accept_gate.paused_total(at(70)), Duration::from_millis(60));
        assert!(accept_gate.resume(at(110)));
        assert_eq!(
            (accept_gate.retry_at(), accept_gate.is_paused()),
            (None, false)
        );
        accept_gate.pause_until_close(at(200));
        assert_eq!(
            accept_gate.paused_total(at(205)),
            Duration::from_millis(105)
        );
    }
}
