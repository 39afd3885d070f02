//! Repeated delivery of announcements: the addresses on standard output, and the messages to a service manager.
//!
//! A script reads the first and a manager the second, and neither may be ready to take them at once. The event loop does not
//! wait for them; it tries again, at growing intervals, until everything has been taken.

use super::notify;
use crate::cli::output::Backlog;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long the end of the process waits for a slow reader or manager.
pub(super) const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// What is still to be delivered.
#[derive(Debug)]
pub(super) struct Delivery {
    lines: Backlog,
    pause: Duration,
    /// When it is tried again, if something is left.
    next: Option<Instant>,
}

impl Delivery {
    /// Opens standard output and the socket to the manager now: inside the sandbox nothing can be opened.
    pub(super) fn prepare() -> Self {
        notify::prepare();
        Self {
            lines: Backlog::new(io::stdout().as_fd()),
            pause: PAUSE_MIN,
            next: None,
        }
    }

    /// Announces the addresses on standard output, and READY to the manager.
    pub(super) fn announce(&mut self, lines: &str) {
        self.lines.push(lines);
        notify::ready();
        self.retry();
    }

    /// Delivers what is taken now, if an attempt is due. Returns the time until the next attempt; `None` if nothing is left.
    pub(super) fn retry(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if let Some(left) = self.next.and_then(|next| next.checked_duration_since(now)) {
            return Some(left);
        }
        if !self.attempt() {
            self.next = None;
            self.pause = PAUSE_MIN;
            return None;
        }
        let pause = self.pause;
        self.next = Some(now + pause);
        self.pause = (pause * 2).min(PAUSE_MAX);
        Some(pause)
    }

    /// Whether something is left.
    fn attempt(&mut self) -> bool {
        match self.lines.flush() {
            // A closed standard output means that the addresses are not wanted.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                log::warn!("standard output does not take the addresses: {error}");
            }
            _ => {}
        }
        notify::flush() || !self.lines.is_empty()
    }

    /// The last attempt, which waits up to [`FINISH_TIMEOUT`].
    pub(super) fn finish(mut self) {
        self.attempt();
        notify::finish(FINISH_TIMEOUT);
    }
}
