//! How far a measurement is, on standard error, so that the report alone is on standard output: one line on a terminal that is
//! written over again and again, and elsewhere a line now and then.
//!
//! With automatic wrapping off (DECAWM), the terminal itself cuts a line that is longer than it is wide, so its width need
//! not be known.

use super::logging::{print_line, print_raw};
use std::io::{self, IsTerminal};
use std::time::Instant;

/// Cells of the bar.
const CELLS: usize = 10;

/// The line, and where it is shown.
#[derive(Debug)]
pub(super) struct StatusLine {
    began: Instant,
    shown: Shown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    OnTerminal,
    AsLines,
    Nowhere,
}

impl StatusLine {
    pub(super) fn new(quiet: bool) -> Self {
        let shown = match (quiet, io::stderr().is_terminal()) {
            (true, _) => Shown::Nowhere,
            (false, true) => Shown::OnTerminal,
            (false, false) => Shown::AsLines,
        };
        Self {
            began: Instant::now(),
            shown,
        }
    }

    /// Whether it is written over; elsewhere, what goes on is told in lines.
    pub(super) fn is_on_terminal(&self) -> bool {
        self.shown == Shown::OnTerminal
    }

    /// Counts the seconds from now on.
    pub(super) fn restart(&mut self) {
        self.began = Instant::now();
    }

    /// Replaces the line on a terminal: the seconds so far, a bar of which this share is full, and the text.
    pub(super) fn show(&self, share: f64, text: &str) {
        if self.is_on_terminal() {
            print_raw("\r\x1b[?7l", &self.line(share, text), "\x1b[K\x1b[?7h");
        }
    }

    fn line(&self, share: f64, text: &str) -> String {
        let full = (share.clamp(0.0, 1.0) * CELLS as f64) as usize;
        let bar = "=".repeat(full);
        let seconds = self.began.elapsed().as_secs();
        format!("{seconds:>3}s {bar:<CELLS$} {text}")
    }

    /// Prints a line that stays; on a terminal, above.
    pub(super) fn tell(&self, text: &str) {
        self.clear();
        if self.shown != Shown::Nowhere {
            print_line(text);
        }
    }

    /// Removes it from the terminal.
    pub(super) fn clear(&self) {
        if self.is_on_terminal() {
            print_raw("\r\x1b[K", "", "");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_has_its_share_and_leaves_room_for_the_text() {
        let status = StatusLine {
            began: Instant::now(),
            shown: Shown::OnTerminal,
        };
        assert_eq!(status.line(0.0, "a"), "  0s            a");
        assert_eq!(status.line(0.55, "a"), "  0s =====      a");
        assert_eq!(status.line(7.0, "a"), "  0s ========== a");
    }
}
