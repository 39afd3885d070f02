//! The last lines that a child process has written to standard error.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::process::ChildStderr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Bytes of a line, and how many of the last lines are kept.
const LINE_MAX_BYTES: usize = 500;
const LINES_MAX: usize = 5;
/// Time between two looks whether all has been read.
const LOOK: Duration = Duration::from_millis(5);

/// The last lines, and the thread that reads them as long as there are any, so that the process never waits for us.
#[derive(Debug, Default)]
pub(in crate::cli) struct Said {
    lines: Arc<Mutex<VecDeque<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Said {
    /// Keeps the last lines; none if standard error is not a pipe.
    pub(in crate::cli) fn read(stderr: Option<ChildStderr>) -> Self {
        let lines = Arc::default();
        let reader = stderr.map(|stderr| {
            let lines = Arc::clone(&lines);
            thread::spawn(move || keep_last(BufReader::new(stderr), &lines))
        });
        Self { lines, reader }
    }

    /// The last lines until now.
    pub(in crate::cli) fn last(&self) -> Vec<String> {
        let lines = self.lines.lock();
        let lines = lines.unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect()
    }

    /// Waits until all has been read, but no longer than this: what was said may come a moment after the end.
    pub(in crate::cli) fn wait(&self, until: Instant) {
        let reader = self.reader.as_ref();
        while reader.is_some_and(|reader| !reader.is_finished()) && Instant::now() < until {
            thread::sleep(LOOK);
        }
    }
}

/// Keeps the last lines until the end. A longer line counts as several.
fn keep_last(mut err: impl BufRead, lines: &Mutex<VecDeque<String>>) {
    let mut line = Vec::new();
    while let Ok(1..) = (err.by_ref().take(LINE_MAX_BYTES as u64)).read_until(b'\n', &mut line) {
        let text = String::from_utf8_lossy(&line).trim().to_owned();
        line.clear();
        if !text.is_empty() {
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push_back(text);
            if lines.len() > LINES_MAX {
                lines.pop_front();
            }
        }
    }
}
