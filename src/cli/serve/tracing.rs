//! `serve --trace`: where the trace of a recorded server goes.
//!
//! To a file the last records are written, when the server ends and on SIGUSR1. With `-` each turn is a line on standard
//! output as it happens, bounded in rate; a line that is not written is counted, and the next one says how many.

use crate::cli::error::CliError;
use crate::cli::output::{LineWriter, NonBlockingWriter};
use crate::cli::output_file::{OutputFile, Purpose};
use crate::cli::units::{Bytes, plural};
use crate::net::escape::Escaped;
use crate::trace::Recorder;
use crate::trace::record::RECORD_BYTES;
use crate::trace::text::{Live, recent};
use signal_hook::consts::SIGUSR1;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Memory of the records where none is given: 262,144 of them.
const BYTES_DEFAULT: usize = 8 << 20;
/// Less would not hold a turn.
const BYTES_MIN: usize = 64 << 10;
/// More would be a slip of the pen.
const BYTES_MAX: usize = 1 << 30;
/// Records that a server with `--trace -` holds: those of a turn.
const LIVE_RECORDS: usize = 1 << 16;
/// Lines that `--trace -` prints in a second: as many as a terminal shows without a delay.
const LINES_PER_SECOND: u32 = 200;

/// The value of `--trace`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum TraceTarget {
    /// Lines on standard output.
    Live,
    /// A file, and the memory of its records.
    File(PathBuf, Bytes),
}

impl FromStr for TraceTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self::Live);
        }
        let is_size = |rest: &str| rest.starts_with(|first: char| first.is_ascii_digit());
        let (path, bytes) = match text.rsplit_once(',') {
            Some(("-", _)) => return Err("lines take no size; write --trace -".to_owned()),
            Some((path, size)) if is_size(size) => {
                let wrong = |error| format!("{error}; write for example FILE,64MiB");
                (path, size.parse().map_err(wrong)?)
            }
            _ => (text, Bytes(BYTES_DEFAULT)),
        };
        if path.is_empty() {
            return Err("there is no file; write for example --trace loop.trace".to_owned());
        }
        if !(BYTES_MIN..=BYTES_MAX).contains(&bytes.0) {
            let (least, most) = (Bytes(BYTES_MIN), Bytes(BYTES_MAX));
            return Err(format!("{bytes} is not between {least} and {most}"));
        }
        Ok(Self::File(path.into(), bytes))
    }
}

impl fmt::Display for TraceTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Live => write!(f, "-"),
            Self::File(path, bytes) => write!(f, "{},{bytes}", path.display()),
        }
    }
}

/// What is done with the records of a server; without a trace, nothing.
pub(super) trait Tracing {
    /// A turn is over.
    fn after_turn(&mut self) {}

    /// The last events in words, at most this many.
    fn last_events(&self, _most: usize) -> Vec<String> {
        Vec::new()
    }

    /// A signal has come, and is followed.
    fn on_signal(&mut self, _signal: i32) {}

    /// The server has ended.
    ///
    /// # Errors
    /// The trace could not be written.
    fn finish(self) -> Result<(), CliError>;
}

/// The server is not recorded.
pub(super) struct Untraced;

impl Tracing for Untraced {
    fn finish(self) -> Result<(), CliError> {
        Ok(())
    }
}

/// The trace of a recorded server.
pub(super) struct TraceOutput {
    recorder: Recorder,
    to: To,
}

enum To {
    File(OutputFile),
    Lines(Box<Lines>),
}

impl TraceOutput {
    /// Opens what the trace is written to.
    ///
    /// # Errors
    /// The file cannot be made or written there.
    pub(super) fn open(target: &TraceTarget, is_sandboxed: bool) -> Result<Self, CliError> {
        Ok(match target {
            TraceTarget::Live => Self {
                recorder: Recorder::new(LIVE_RECORDS),
                to: To::Lines(Box::new(Lines::to(io::stdout().as_fd()))),
            },
            TraceTarget::File(path, bytes) => Self {
                recorder: Recorder::new(bytes.0 / RECORD_BYTES),
                to: To::File(OutputFile::open(
                    "--trace",
                    path,
                    Purpose::Serving { is_sandboxed },
                )?),
            },
        })
    }

    /// A copy of the recorder, for the server.
    pub(super) fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }
}

impl Tracing for TraceOutput {
    fn after_turn(&mut self) {
        if let To::Lines(lines) = &mut self.to {
            lines.follow(&self.recorder, Instant::now());
        }
    }

    fn last_events(&self, most: usize) -> Vec<String> {
        // As many records again, for those that are left out.
        let from = self.recorder.total().saturating_sub(4 * most as u64);
        recent(&self.recorder.since(from), most)
    }

    fn on_signal(&mut self, signal: i32) {
        let To::File(file) = &mut self.to else { return };
        if signal == SIGUSR1 {
            if let Err(failure) = file.rewrite(&self.recorder.trace().to_bytes()) {
                log::error!("{}", failure.text); // no reason to end a service
            }
        }
    }

    fn finish(mut self) -> Result<(), CliError> {
        self.after_turn();
        match self.to {
            To::File(mut file) => file.rewrite(&self.recorder.trace().to_bytes()),
            To::Lines(mut lines) => {
                if let Some(out) = &mut lines.out {
                    out.catch_up();
                }
                Ok(())
            }
        }
    }
}

/// Lines of turns, as they happen.
struct Lines {
    /// `None` if standard output cannot be written to.
    out: Option<LineWriter>,
    live: Live,
    /// Records that were told already.
    told: u64,
    /// The second that is counted, and the lines in it.
    since: Instant,
    in_this_second: u32,
}

impl Lines {
    fn to(descriptor: impl AsFd) -> Self {
        let out = NonBlockingWriter::new(descriptor.as_fd()).ok();
        let notice = |count| format!("({} left out)\n", plural(count, "turn"));
        Self {
            out: out.map(|out| LineWriter::with_notice(out, notice)),
            live: Live::default(),
            told: 0,
            since: Instant::now(),
            in_this_second: 0,
        }
    }

    /// Prints what was recorded since the last time: a turn, and what was done between it and the one before.
    fn follow(&mut self, recorder: &Recorder, now: Instant) {
        let Some(out) = &mut self.out else { return };
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            (self.since, self.in_this_second) = (now, 0);
        }
        let records = recorder.since(self.told);
        self.told = recorder.total();
        let mut lines: Vec<String> = Vec::new();
        for record in &records {
            lines.extend(self.live.follow(record));
        }
        lines.extend(self.live.finish());
        for line in lines {
            if self.in_this_second < LINES_PER_SECOND {
                self.in_this_second += 1;
                out.put(format!("{}\n", Escaped::new(&line)).as_bytes());
            } else {
                out.leave_out();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Kind, Record};
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_target_is_a_file_with_a_size_or_lines() {
        let parsed = |text: &str| text.parse::<TraceTarget>();
        let file = |path: &str, bytes| Ok(TraceTarget::File(path.into(), Bytes(bytes)));
        assert_eq!(parsed("-"), Ok(TraceTarget::Live));
        assert_eq!(parsed("a.trace"), file("a.trace", BYTES_DEFAULT));
        assert_eq!(parsed("a.trace,64KiB"), file("a.trace", 64 << 10));
        assert_eq!(parsed("a,b"), file("a,b", BYTES_DEFAULT));
        assert_eq!(parsed("a,b,1MiB"), file("a,b", 1 << 20));
        for (wrong, word) in [
            ("", "no file"),
            (",1MiB", "no file"),
            ("-,1MiB", "no size"),
            ("a,1KiB", "1KiB is not between 64KiB and 1GiB"),
            ("a,2GiB", "2GiB"),
            ("a,1x", "FILE,64MiB"),
        ] {
            let error = parsed(wrong).unwrap_err();
            assert!(error.contains(word), "{wrong}: {error}");
        }
        let text = TraceTarget::File("a".into(), Bytes(1 << 20)).to_string();
        assert_eq!(
            (text.as_str(), parsed(&text)),
            ("a,1MiB", file("a", 1 << 20))
        );
    }

    #[test]
    fn lines_beyond_the_rate_are_counted_and_the_next_second_says_how_many() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut lines = Lines::to(&ours);
        let recorder = Recorder::new(1 << 10);
        let began = lines.since;
        let turn = |lines: &mut Lines, at| {
            recorder.push(Record::new(Kind::Turn));
            lines.follow(&recorder, at);
        };
        for _ in 0..LINES_PER_SECOND + 17 {
            turn(&mut lines, began);
        }
        turn(&mut lines, began + Duration::from_secs(1));
        drop((lines, ours));
        let mut text = String::new();
        theirs.read_to_string(&mut text).unwrap();
        let last: Vec<&str> = text.lines().rev().take(2).collect();
        assert_eq!(last, ["turn 0: did not sleep", "(17 turns left out)"]);
        assert_eq!(text.lines().count(), LINES_PER_SECOND as usize + 2);
    }
}
