//! The log: which lines are written, and that writing them can hurt nobody.
//!
//! A terminal that is paused, or a pipe that nobody reads, blocks whoever writes to it: the event loop would stand still.
//! So every line asks first whether there is room for it, by `poll(2)`, and is dropped and counted where there is none.
//! POSIX promises that a pipe which polls as writable takes `PIPE_BUF` bytes at once, so no line is longer than that.
//!
//! The road not taken is a thread that writes, behind a queue. It is the usual one, and it costs more than it looks: as
//! soon as a process has a second thread, the C library guards every `recv` and `send` of the first one with the
//! bookkeeping of thread cancellation, some ninety instructions an echo, whether or not a line is ever logged.
//!
//! What may live in this file: filters, the form of a line, and the way out. What may not: deciding what is worth a line.

use super::exit::write_plain;
use super::units::plural;
use env_logger::Target;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The longest line, in bytes: what a pipe with room takes without blocking (`PIPE_BUF` of pipe(7)).
const LINE_BYTES: usize = 4096;

/// How much is logged, as asked for by flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verbosity {
    Quiet,
    Usual,
    Verbose,
    Everything,
}

impl Verbosity {
    /// `-q` wins, since it is the safer mistake of the two.
    pub(crate) fn from_flags(quiet: bool, verbose: u8) -> Self {
        match (quiet, verbose) {
            (true, _) => Self::Quiet,
            (false, 0) => Self::Usual,
            (false, 1) => Self::Verbose,
            (false, _) => Self::Everything,
        }
    }

    /// The same as env_logger writes it. What is on the wire is logged at `trace`, and wanted from `-v` on.
    fn filters(self) -> &'static str {
        match self {
            Self::Quiet => "error",
            Self::Usual => "info",
            Self::Verbose => "debug,echo_reactor::wire=trace",
            Self::Everything => "trace",
        }
    }
}

/// The filters to use, and what is wrong with `RUST_LOG` if something is. A flag on the command line is nearer to the
/// user than the environment, so it wins.
fn choose(verbosity: Verbosity, environment: Option<&str>) -> (String, Option<String>) {
    let usual = verbosity.filters().to_owned();
    let Some(wanted) = environment.filter(|text| !text.is_empty()) else {
        return (usual, None);
    };
    if verbosity != Verbosity::Usual {
        return (usual, None);
    }
    // env_logger itself would complain by `eprintln!`, which panics where standard error is gone.
    match env_filter::Builder::new().try_parse(wanted) {
        Ok(_) => (wanted.to_owned(), None),
        Err(error) => {
            let warning = format!(
                "RUST_LOG='{wanted}' is ignored: {error}; write for example RUST_LOG=debug"
            );
            (usual, Some(warning))
        }
    }
}

static SINK: OnceLock<Mutex<Sink<File>>> = OnceLock::new();

/// Starts the log. Before this, and in programs that never do, [`say`] writes to standard error itself.
pub(crate) fn start(verbosity: Verbosity) {
    let environment = std::env::var_os("RUST_LOG").map(|text| text.to_string_lossy().into_owned());
    let (filters, warning) = choose(verbosity, environment.as_deref());
    let Ok(descriptor) = io::stderr().as_fd().try_clone_to_owned() else {
        return; // there is no standard error, and so nobody to tell
    };
    if SINK
        .set(Mutex::new(Sink::new(File::from(descriptor))))
        .is_err()
    {
        return;
    }
    let started = env_logger::Builder::new()
        .parse_filters(&filters)
        .target(Target::Pipe(Box::new(Line)))
        .format(|out, record| {
            let mut text = String::new();
            let _ = write_plain(&mut text, &record.args().to_string());
            let time = out.timestamp_millis();
            // One write for the whole line, since every write is taken for a line.
            writeln!(out, "{time} {:<5} {text}", record.level())
        })
        .try_init();
    if let (Ok(()), Some(warning)) = (started, warning) {
        log::warn!("{warning}");
    }
}

/// Writes a line to standard error whatever the level of the log: for failures, and for what the user asked for.
pub(crate) fn say(line: &str) {
    let mut text = String::with_capacity(line.len() + 1);
    let _ = write_plain(&mut text, line);
    let _ = text.write_char('\n');
    put(text.as_bytes());
}

/// Tells how much was not told, if there is somebody to tell now.
pub(crate) fn finish() {
    put(b"");
}

fn put(line: &[u8]) {
    match SINK.get() {
        Some(sink) => sink
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .put(line),
        // A standard error that is closed or full is no reason to fail: there is nobody to tell.
        None => drop(io::stderr().write_all(line)),
    }
}

/// What env_logger writes into: it hands over every record by one `write_all`, so each write is a line.
#[derive(Debug)]
struct Line;

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A way out that never blocks and never fails.
#[derive(Debug)]
struct Sink<W> {
    out: W,
    dropped: u64,
}

impl<W: Write + AsFd> Sink<W> {
    fn new(out: W) -> Self {
        Self { out, dropped: 0 }
    }

    fn put(&mut self, line: &[u8]) {
        if self.dropped > 0 && self.has_room() {
            let lines = plural(std::mem::take(&mut self.dropped), "line");
            let report = format!("echo-reactor: {lines} of the log dropped: nobody was reading\n");
            let _ = self.out.write_all(report.as_bytes());
        }
        if line.is_empty() {
            return;
        }
        if !self.has_room() {
            self.dropped += 1;
            return;
        }
        // Errors of standard error (closed, disk full) have nowhere to be told. Later lines may fare better.
        let _ = match line.len() {
            0..=LINE_BYTES => self.out.write_all(line),
            _ => (self.out.write_all(&line[..LINE_BYTES - 4]))
                .and_then(|()| self.out.write_all(b"...\n")),
        };
    }

    /// Whether a line would be taken at once. A reader who is gone counts as room: the write fails, and does not block.
    fn has_room(&self) -> bool {
        let mut asked = [PollFd::new(self.out.as_fd(), PollFlags::POLLOUT)];
        poll(&mut asked, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_reader_who_does_not_read_blocks_nobody_and_what_is_dropped_is_counted() {
        let (ours, mut reader) = UnixStream::pair().unwrap();
        let mut sink = Sink::new(ours);
        let mut lines = 0;
        // Until the reader's queue is full; a sink that blocks would never come out of here.
        while sink.dropped < 100 {
            sink.put(format!("{lines:0100}\n").as_bytes());
            lines += 1;
        }
        reader.set_nonblocking(true).unwrap();
        let mut text = Vec::new();
        let _ = reader.read_to_end(&mut text); // all that is there, and then WouldBlock
        sink.put(b"and on\n");
        drop(sink);
        reader.set_nonblocking(false).unwrap();
        reader.read_to_end(&mut text).unwrap();

        let text = String::from_utf8(text).unwrap();
        let kept = text.lines().filter(|line| line.len() == 100).count();
        assert_eq!(kept + 100, lines, "every line is kept or counted");
        assert!(
            text.ends_with("100 lines of the log dropped: nobody was reading\nand on\n"),
            "{text}"
        );
    }

    #[test]
    fn a_reader_who_is_gone_hurts_nobody() {
        let (ours, reader) = UnixStream::pair().unwrap();
        drop(reader);
        let mut sink = Sink::new(ours);
        for _ in 0..1_000 {
            sink.put(b"lost\n");
        }
    }

    #[test]
    fn a_line_is_never_longer_than_what_a_pipe_takes_at_once() {
        let (ours, mut reader) = UnixStream::pair().unwrap();
        Sink::new(ours).put(&[b'x'; 2 * LINE_BYTES]);
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        assert_eq!(text.len(), LINE_BYTES);
        assert!(text.ends_with(b"x...\n"));
    }

    #[test]
    fn flags_win_over_the_environment_and_nonsense_is_told_once() {
        let (usual, verbose) = (Verbosity::Usual, Verbosity::Verbose);
        assert_eq!(choose(usual, None), ("info".to_owned(), None));
        assert_eq!(choose(usual, Some("")), ("info".to_owned(), None));
        assert_eq!(choose(usual, Some("warn")), ("warn".to_owned(), None));
        let flags = "debug,echo_reactor::wire=trace".to_owned();
        assert_eq!(choose(verbose, Some("warn")), (flags, None));
        let (filters, warning) = choose(usual, Some("echo_reactor=loud"));
        assert_eq!(filters, "info");
        let warning = warning.unwrap();
        assert!(
            warning.contains("loud") && warning.contains("RUST_LOG=debug"),
            "{warning}"
        );
    }

    #[test]
    fn flags_add_up() {
        assert_eq!(Verbosity::from_flags(false, 0), Verbosity::Usual);
        assert_eq!(Verbosity::from_flags(false, 1), Verbosity::Verbose);
        assert_eq!(Verbosity::from_flags(false, 7), Verbosity::Everything);
        assert_eq!(Verbosity::from_flags(true, 2), Verbosity::Quiet);
    }
}
