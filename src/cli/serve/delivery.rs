//! The announcements of a server: the lines of its addresses on standard output, and what a service manager is told.
//!
//! A script waits for the first, a manager for the other, and both may be too busy to take them at once. The event loop does
//! not wait for them; it tries again, at growing intervals, until everything has been taken.
//!
//! What may live in this file: when it is tried. What may not: what is sent; that is in [`notify`] and in `serve`.

use super::notify;
use crate::cli::output::Backlog;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long the end of the process is held up by a reader or a manager that is busy.
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
    /// Opens the ways now: inside the sandbox nothing can be opened.
    pub(super) fn prepare() -> Self {
        notify::prepare();
        Self {
            lines: Backlog::new(io::stdout().as_fd()),
            pause: PAUSE_MIN,
            next: None,
        }
    }

    /// Tells a script the addresses, and the manager that the server is ready.
    pub(super) fn announce(&mut self, lines: &str) {
        self.lines.push(lines);
        notify::ready();
        self.retry();
    }

    /// Delivers what is taken now, if it is time to try. How long until the next attempt; `None` if nothing is left.
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
            // A reader that has closed standard output does not want to know.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                log::warn!("standard output does not take the addresses: {error}");
            }
            _ => {}
        }
        notify::flush() || !self.lines.is_empty()
    }

    /// The last attempt, for which the end of the process waits a little.
    pub(super) fn finish(mut self) {
        self.attempt();
        notify::finish(FINISH_TIMEOUT);
    }
}
