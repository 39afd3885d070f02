//! The log: its levels, the form of a line, and writing that cannot block the server.
//!
//! A terminal with its output stopped, or a pipe that is not read, blocks a write: the event loop would stand still. So lines
//! go through a [`LineWriter`], which writes what there is room for, and counts what it drops.
//!
//! The usual alternative, a queue and a thread that writes, costs more than it seems: as soon as a process has a second
//! thread, the C library adds the bookkeeping of thread cancellation to every `recv` and `send`, some ninety instructions
//! an echo, even if no line is ever logged.

use super::output::{LineWriter, NonBlockingWriter};
use crate::net::escape::Escaped;
use env_logger::Target;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// How much is logged, by `-q` and `-v`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verbosity {
    Quiet,
    Usual,
    Verbose,
    Everything,
}

impl Verbosity {
    /// `-q` wins over `-v`: too few lines do less harm than too many.
    pub(crate) fn from_flags(quiet: bool, verbose: u8) -> Self {
        match (quiet, verbose) {
            (true, _) => Self::Quiet,
            (false, 0) => Self::Usual,
            (false, 1) => Self::Verbose,
            (false, _) => Self::Everything,
        }
    }

    /// The filters in env_logger's syntax. Received bytes are logged at `trace`, and shown from `-v` on.
    fn filters(self) -> &'static str {
        match self {
            Self::Quiet => "error",
            Self::Usual => "info",
            Self::Verbose => "debug,echo_reactor::trace=trace",
            Self::Everything => "trace",
        }
    }
}

/// Returns the filters, and a warning if `RUST_LOG` is invalid. A flag overrides the environment, since it was given for
/// this one run.
fn choose(verbosity: Verbosity, environment: Option<&str>) -> (String, Option<String>) {
    let usual = verbosity.filters().to_owned();
    let Some(wanted) = environment.filter(|text| !text.is_empty()) else {
        return (usual, None);
    };
    if verbosity != Verbosity::Usual {
        return (usual, None);
    }
    // env_logger itself would complain by `eprintln!`, which panics where standard error is closed.
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

/// The name of this process in its lines, if several processes write to one log.
static NAME: OnceLock<String> = OnceLock::new();

/// Puts a name before the text of every line from now on.
pub(crate) fn name_process(name: String) {
    let _ = NAME.set(name); // the first name stays
}

/// Whether RUST_LOG is invalid, which was said.
static IGNORES_ENVIRONMENT: AtomicBool = AtomicBool::new(false);

/// Whether RUST_LOG was ignored with a warning. A process that this one starts need not repeat it.
pub(crate) fn ignores_environment() -> bool {
    IGNORES_ENVIRONMENT.load(Ordering::Relaxed)
}

static LOG: OnceLock<Mutex<LineWriter>> = OnceLock::new();

/// Starts the log. Before this, and in programs that never call it, [`print_line`] writes to standard error itself.
pub(crate) fn start(verbosity: Verbosity) {
    let environment = std::env::var_os("RUST_LOG").map(|text| text.to_string_lossy().into_owned());
    let (filters, warning) = choose(verbosity, environment.as_deref());
    let Ok(out) = NonBlockingWriter::new(io::stderr().as_fd()) else {
        return; // there is no standard error
    };
    if LOG.set(Mutex::new(LineWriter::new(out))).is_err() {
        return;
    }
    let started = env_logger::Builder::new()
        .parse_filters(&filters)
        .target(Target::Pipe(Box::new(Line)))
        .format(|out, record| {
            let text = record.args().to_string();
            let text = Escaped::new(&text);
            let time = out.timestamp_millis();
            // One write for the whole line, since every write counts as a line.
            match NAME.get() {
                None => writeln!(out, "{time} {:<5} {text}", record.level()),
                Some(name) => writeln!(out, "{time} {:<5} {name}: {text}", record.level()),
            }
        })
        .try_init();
    if let (Ok(()), Some(warning)) = (started, warning) {
        IGNORES_ENVIRONMENT.store(true, Ordering::Relaxed);
        log::warn!("{warning}");
    }
}

/// Writes a line to standard error whatever the level of the log: for errors, and for what the user asked for.
pub(crate) fn print_line(line: &str) {
    put(format!("{}\n", Escaped::new(line)).as_bytes());
}

/// Writes a text between two sequences of control characters to standard error, without the end of a line.
#[cfg(feature = "bench")]
pub(crate) fn print_raw(before: &str, text: &str, after: &str) {
    put(format!("{before}{}{after}", Escaped::new(text)).as_bytes());
}

/// Writes how many lines were lost, if there is room for it now.
pub(crate) fn finish() {
    if let Some(mut log) = log() {
        log.catch_up();
    }
}

/// Lines of the log that were dropped since the start.
pub(crate) fn lost_lines() -> u64 {
    log().map_or(0, |log| log.lost())
}

fn log() -> Option<MutexGuard<'static, LineWriter>> {
    LOG.get()
        .map(|log| log.lock().unwrap_or_else(PoisonError::into_inner))
}

fn put(line: &[u8]) {
    match log() {
        Some(mut log) => log.put(line),
        // A standard error that is closed or full is no reason to fail.
        None => drop(io::stderr().write_all(line)),
    }
}

/// The writer for env_logger: it passes every record by one `write_all`, so each write is a line.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_environment_and_an_invalid_filter_is_reported_once() {
        let (usual, verbose) = (Verbosity::Usual, Verbosity::Verbose);
        assert_eq!(choose(usual, None), ("info".to_owned(), None));
        assert_eq!(choose(usual, Some("")), ("info".to_owned(), None));
        assert_eq!(choose(usual, Some("warn")), ("warn".to_owned(), None));
        let flags = "debug,echo_reactor::trace=trace".to_owned();
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
