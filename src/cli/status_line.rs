//! One line on a terminal that is written over again and again: how far a measurement is.
//!
//! With automatic wrapping off (DECAWM), the terminal itself cuts a line that is longer than it is wide, so its width need
//! not be known. Standard error that is no terminal gets no such line.

use super::logging::{print_line, print_raw};
use std::io::{self, IsTerminal};
use std::time::Instant;

/// Cells of the bar.
const CELLS: usize = 10;

/// The line, if there is a terminal to show it on.
#[derive(Debug)]
pub(super) struct StatusLine {
    began: Instant,
}

impl StatusLine {
    /// `None` if standard error is no terminal.
    pub(super) fn on_terminal() -> Option<Self> {
        io::stderr().is_terminal().then(|| Self {
            began: Instant::now(),
        })
    }

    /// Counts the seconds from now on.
    pub(super) fn restart(&mut self) {
        self.began = Instant::now();
    }

    /// Replaces the line: the seconds so far, a bar of which this share is full, and the text.
    pub(super) fn show(&self, share: f64, text: &str) {
        print_raw("\r\x1b[?7l", &self.line(share, text), "\x1b[K\x1b[?7h");
    }

    fn line(&self, share: f64, text: &str) -> String {
        let full = (share.clamp(0.0, 1.0) * CELLS as f64) as usize;
        let bar = "=".repeat(full);
        let seconds = self.began.elapsed().as_secs();
        format!("{seconds:>3}s {bar:<CELLS$} {text}")
    }

    /// Prints a line of its own, above.
    pub(super) fn print_above(&self, text: &str) {
        self.clear();
        print_line(text);
    }

    /// Removes it from the terminal.
    pub(super) fn clear(&self) {
        print_raw("\r\x1b[K", "", "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_has_its_share_and_leaves_room_for_the_text() {
        let status = StatusLine {
            began: Instant::now(),
        };
        assert_eq!(status.line(0.0, "a"), "  0s            a");
        assert_eq!(status.line(0.55, "a"), "  0s =====      a");
        assert_eq!(status.line(7.0, "a"), "  0s ========== a");
    }
}
