//! The accept gate: whether connections are accepted now, or wait in the kernel's accept queue.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! Waiting in the accept queue costs the server nothing. There are two reasons for it: the server has as many connections
//! as its limit allows, or the system is short of descriptors or memory. Both end when a connection closes. A shortage may
//! also end elsewhere, so accepting is tried again by a timer. What must not be waited for is a new edge: the listener is
//! still in the ready state that epoll has reported, and a failed `accept` does not make epoll report it again.

use std::time::{Duration, Instant};

/// Whether accepting is paused, since when, and until when at most.
#[derive(Debug, Default)]
pub struct AcceptGate {
    paused_since: Option<Instant>,
    retry_at: Option<Instant>,
    /// The sum of all pauses that are over.
    paused: Duration,
}

impl AcceptGate {
    /// Pauses accepting until a connection closes.
    pub fn pause_until_close(&mut self, now: Instant) {
        self.paused_since.get_or_insert(now);
    }

    /// Pauses accepting until a connection closes, or for the time `retry`.
    pub fn pause_for(&mut self, now: Instant, retry: Duration) {
        self.pause_until_close(now);
        self.retry_at = Some(now + retry);
    }

    /// Whether accepting is paused.
    pub fn is_paused(&self) -> bool {
        self.paused_since.is_some()
    }

    /// When accepting is tried again even if no connection closes.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Ends the pause. Returns whether there was one.
    pub fn resume(&mut self, now: Instant) -> bool {
        self.retry_at = None;
        self.paused = self.paused_total(now);
        self.paused_since.take().is_some()
    }

    /// For how long accepting has been paused in all.
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
    fn the_paused_time_adds_up_over_all_pauses() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut gate = AcceptGate::default();
        assert!(!gate.resume(at(5)));
        gate.pause_for(at(10), Duration::from_millis(100));
        gate.pause_until_close(at(60)); // in the middle of a pause
        assert_eq!(gate.paused_total(at(70)), Duration::from_millis(60));
        assert!(gate.resume(at(110)));
        assert_eq!((gate.retry_at(), gate.is_paused()), (None, false));
        gate.pause_until_close(at(200));
        assert_eq!(gate.paused_total(at(205)), Duration::from_millis(105));
    }
}
