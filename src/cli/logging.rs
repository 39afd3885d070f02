//! The log: which lines are written, and that writing them can hurt nobody.
//!
//! A terminal that is paused, or a pipe that nobody reads, blocks whoever writes to it. So nobody but one small thread
//! writes to standard error: everybody else puts whole lines into a queue of fixed length, and a line that finds it
//! full is dropped and counted. What may live in this file: filters, the form of a line, the queue and its thread.
//! What may not: deciding what is worth a line.

use super::exit::write_plain;
use super::units::plural;
use env_logger::Target;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// Lines that may wait for a slow reader: a few hundred kilobytes at most, and more than any burst that is of use.
const QUEUE_LINES: usize = 1024;
/// How long the end of the program waits for the last lines to be written.
const FLUSH_TIME: Duration = Duration::from_millis(200);

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

static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Starts the log. Before this, and in programs that never do, [`say`] writes to standard error itself.
pub(crate) fn start(verbosity: Verbosity) {
    let environment = std::env::var_os("RUST_LOG").map(|text| text.to_string_lossy().into_owned());
    let (filters, warning) = choose(verbosity, environment.as_deref());
    let Ok(queue) = Queue::start(standard_error()) else {
        return; // without a thread there is no log, which is better than no server
    };
    let sink = Target::Pipe(Box::new(queue.clone()));
    let started = env_logger::Builder::new()
        .parse_filters(&filters)
        .target(sink)
        .format(|out, record| {
            let mut text = String::new();
            let _ = write_plain(&mut text, &record.args().to_string());
            let time = out.timestamp_millis();
            // One write for the whole line, since the queue takes every write for a line.
            writeln!(out, "{time} {:<5} {text}", record.level())
        })
        .try_init();
    if started.is_ok() && QUEUE.set(queue).is_ok() {
        if let Some(warning) = warning {
            log::warn!("{warning}");
        }
    }
}

/// Writes a line to standard error whatever the level of the log: for failures, and for what the user asked for.
pub(crate) fn say(line: &str) {
    let mut text = String::with_capacity(line.len() + 1);
    let _ = write_plain(&mut text, line);
    let _ = text.write_char('\n');
    match QUEUE.get() {
        Some(queue) => queue.put(text.into_bytes()),
        // A standard error that is closed or full is no reason to fail: there is nobody to tell.
        None => drop(io::stderr().write_all(text.as_bytes())),
    }
}

/// Waits until all lines are written, but not for long.
pub(crate) fn finish() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_TIME);
    }
}

/// Standard error by a descriptor of its own: the thread that may block in writing must not hold std's lock on it.
fn standard_error() -> Box<dyn Write + Send> {
    match io::stderr().as_fd().try_clone_to_owned() {
        Ok(descriptor) => Box::new(File::from(descriptor)),
        Err(_) => Box::new(io::stderr()),
    }
}

/// The queue of lines. Its clones lead to the same thread.
#[derive(Clone, Debug)]
struct Queue {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

impl Queue {
    fn start(out: Box<dyn Write + Send>) -> io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(QUEUE_LINES);
        let dropped = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&dropped);
        thread::Builder::new()
            .name("log".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || write_lines(&receiver, &seen, out))?;
        Ok(Self { sender, dropped })
    }

    fn put(&self, line: Vec<u8>) {
        if self.sender.try_send(Message::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self, wait: Duration) {
        let deadline = Instant::now() + wait;
        let (done, finished) = mpsc::sync_channel(1);
        let mut message = Message::Flush(done);
        // A full queue is asked again and again, since std has no `send_timeout`. The program is ending anyway.
        while let Err(TrySendError::Full(back)) = self.sender.try_send(message) {
            if Instant::now() >= deadline {
                return;
            }
            message = back;
            thread::sleep(Duration::from_millis(1));
        }
        let _ = finished.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

/// The whole life of the thread `log`.
fn write_lines(lines: &Receiver<Message>, dropped: &AtomicU64, mut out: Box<dyn Write + Send>) {
    for message in lines {
        // Errors of standard error (closed, disk full) have nowhere to be told. Later lines may fare better.
        if let Message::Line(line) = &message {
            let _ = out.write_all(line);
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let lines = plural(lost, "line");
            let report = format!("echo-reactor: {lines} of the log dropped: nobody was reading\n");
            let _ = out.write_all(report.as_bytes());
        }
        if let Message::Flush(done) = message {
            let _ = out.flush();
            let _ = done.try_send(());
        }
    }
}

/// env_logger writes every record by one `write_all`, so each write is a line. It never blocks and never fails.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// A reader that does not read until it is told to.
    struct Gate {
        opened: Receiver<()>,
        open: bool,
        text: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !self.open {
                self.open = true;
                let _ = self.opened.recv();
            }
            self.text.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_who_does_not_read_blocks_nobody_and_what_is_dropped_is_counted() {
        let (open, opened) = mpsc::channel();
        let text = Arc::new(Mutex::new(Vec::new()));
        let gate = Gate {
            opened,
            open: false,
            text: Arc::clone(&text),
        };
        let queue = Queue::start(Box::new(gate)).unwrap();
        let lines = QUEUE_LINES * 3;
        for number in 0..lines {
            queue.put(format!("{number}\n").into_bytes());
        }
        queue.flush(Duration::from_millis(1)); // gives up, as it must
        open.send(()).unwrap();
        queue.flush(Duration::from_secs(20));

        let text = String::from_utf8(text.lock().unwrap().clone()).unwrap();
        let (reports, kept): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.contains("dropped"));
        let count = |line: &str| line.split(' ').nth(1).unwrap().replace(',', "");
        let dropped: usize = reports
            .iter()
            .map(|line| count(line).parse::<usize>().unwrap())
            .sum();
        assert_eq!(kept.len() + dropped, lines, "every line is kept or counted");
        assert!(kept.len() >= QUEUE_LINES && dropped > 0);
        assert_eq!(kept[..3], ["0", "1", "2"]);
    }

    /// A standard error that is gone.
    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from(io::ErrorKind::BrokenPipe))
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::Error::from(io::ErrorKind::BrokenPipe))
        }
    }

    #[test]
    fn a_standard_error_that_is_gone_hurts_nobody() {
        let mut queue = Queue::start(Box::new(Gone)).unwrap();
        for _ in 0..QUEUE_LINES * 2 {
            queue.write_all(b"lost\n").unwrap();
        }
        queue.flush(Duration::from_secs(20));
        assert_eq!(queue.dropped.load(Ordering::Relaxed), 0, "the thread lives");
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
