//! The governor of `accept`: when newcomers are let in, and when they wait.
//!
//! Waiting happens in the kernel's accept queue, and costs nobody anything. There are two reasons for it: we hold as many
//! connections as we may, or the system is short of descriptors or memory. Both end when a connection closes; a shortage
//! may also end without our doing, so it is looked into by a timer. What must not be waited for is a new edge: the kernel
//! reported the newcomers once, and that it could not give us a descriptor for them changes nothing in its books.

use std::time::{Duration, Instant};

/// Whether newcomers wait, and until when at most.
#[derive(Debug, Default)]
pub struct Governor {
    held: bool,
    retry_at: Option<Instant>,
}

impl Governor {
    /// Lets newcomers wait until a connection closes.
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// Lets newcomers wait until a connection closes, or for this long.
    pub fn pause(&mut self, now: Instant, retry: Duration) {
        self.held = true;
        self.retry_at = Some(now + retry);
    }

    /// Whether newcomers wait.
    pub fn holds(&self) -> bool {
        self.held
    }

    /// When to try again even if no connection closes.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Lets newcomers in again. Whether they were waiting.
    pub fn release(&mut self) -> bool {
        self.retry_at = None;
        std::mem::take(&mut self.held)
    }
}
