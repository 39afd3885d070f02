//! A worker as the process that started it sees it: how it is started, on this machine or by a command that leads to another
//! one; what comes from it; and how it ends. What a worker does is in [`super::worker`].
//!
//! What comes from another machine is input like any other: a line has a bound, a line that is no message ends the run, and
//! of standard error the last lines are kept.

use super::ipc;
use super::said::Said;
use crate::cli::error::{CliError, CliErrorKind};
use crate::cli::own_program;
use crate::load::Message;
use crate::settings;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of a message at most. Four full histograms have three million digits.
const MESSAGE_MAX_BYTES: usize = 4 << 20;
/// Lines that may come before the first message: what a login shell greets with.
const GREETING_MAX_LINES: usize = 100;
/// How long a worker that has failed may take to end, so that the error can say how it did.
const END_KNOWN: Duration = Duration::from_secs(1);
/// Time between two looks whether a process has ended.
const LOOK: Duration = Duration::from_millis(5);

/// What comes from a worker, with its number: a message, or why none can follow.
pub(super) type Heard = (usize, Result<Message, String>);

/// A worker process, and the pipe that leads to it.
#[derive(Debug)]
pub(super) struct WorkerProcess {
    name: String,
    is_remote: bool,
    child: Child,
    /// `None` once it has been closed.
    pipe: Option<ChildStdin>,
    said: Said,
}

/// A command of `--at` starts a worker by a shell, which splits it. The plan goes by the pipe: arguments are shown by ps(1).
fn command(at: Option<&str>) -> io::Result<Command> {
    let Some(at) = at else {
        let mut command = own_program::command()?;
        command.args(["bench", "--worker"]);
        return Ok(command);
    };
    let mut command = Command::new("sh");
    settings::remove_from(&mut command);
    command
        .args(["-c", &format!("exec {at} bench --worker")])
        .stderr(Stdio::piped());
    Ok(command)
}

impl WorkerProcess {
    /// Starts a worker, by the command `at` if there is one. What comes from it is sent with its number.
    pub(super) fn start(
        at: Option<&str>,
        worker: usize,
        sender: SyncSender<Heard>,
    ) -> Result<Self, CliError> {
        let name = at.map_or_else(|| format!("worker {worker}"), |at| format!("'{at}'"));
        let failure = |error: io::Error| {
            let text = format!("{name} cannot be started: {error}");
            CliError::new(CliErrorKind::System, text)
        };
        let mut child = command(at)
            .map_err(failure)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0) // Ctrl-C is for us; the workers get an order
            .spawn()
            .map_err(failure)?;
        let pipe = child.stdin.take();
        if let Some(out) = child.stdout.take() {
            thread::spawn(move || {
                let why = read_messages(BufReader::new(out), |message| {
                    sender.send((worker, Ok(message))).is_ok()
                });
                if let Err(why) = why {
                    // Without this the run would wait for the worker without end.
                    let _ = sender.send((worker, Err(why)));
                }
            });
        }
        let said = Said::read(child.stderr.take());
        Ok(Self {
            name,
            is_remote: at.is_some(),
            child,
            pipe,
            said,
        })
    }

    /// Sends a line. A worker that has ended needs none.
    pub(super) fn say(&mut self, line: &[u8]) {
        if let Some(pipe) = &mut self.pipe {
            let _ = pipe.write_all(line);
        }
    }

    /// Sends a signal to a worker of this machine; of another one, SIGKILL to what leads to it, the end of which ends it.
    pub(super) fn signal(&self, signal: Signal) {
        let Ok(pid) = i32::try_from(self.child.id()).map(Pid::from_raw) else {
            return;
        };
        let _ = match (self.is_remote, signal) {
            (false, _) => kill(pid, signal),
            (true, Signal::SIGKILL) => killpg(pid, signal),
            (true, _) => Ok(()),
        };
    }

    /// The last lines of standard error, if it is not that of this process.
    pub(super) fn last_said(&self) -> Vec<String> {
        self.said.last()
    }

    /// Why there is no load: the reason, how the worker ended, and what it said.
    pub(super) fn failure(&mut self, kind: CliErrorKind, why: &str) -> CliError {
        self.close();
        let until = Instant::now() + END_KNOWN;
        let ended = self.ended(until);
        self.said.wait(until);
        let mut text = format!("no load: {} {why}", self.name);
        if let Some(status) = ended.filter(|status| !status.success()) {
            text += &format!(" ({status})");
        }
        let said = self.last_said();
        if !said.is_empty() {
            text += &format!("; it said: {}", said.join(" | "));
        }
        CliError::new(kind, text)
    }

    /// How it ended, if it does until then.
    fn ended(&mut self, until: Instant) -> Option<ExitStatus> {
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < until => thread::sleep(LOOK),
                Ok(status) => return status,
                Err(_) => return None,
            }
        }
    }

    /// The end of its commands ends a worker.
    pub(super) fn close(&mut self) {
        self.pipe = None;
    }

    /// Waits for its end, and enforces it after that time.
    pub(super) fn wait(&mut self, until: Instant) {
        self.close();
        if self.ended(until).is_none() {
            self.signal(Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// Reads messages to the last one, or until `take` has no use for more.
///
/// # Errors
/// Why no message follows.
fn read_messages(
    mut out: impl BufRead,
    mut take: impl FnMut(Message) -> bool,
) -> Result<(), String> {
    let (mut line, mut greeting, mut has_begun) = (Vec::new(), 0, false);
    loop {
        line.clear();
        let bound = MESSAGE_MAX_BYTES as u64;
        match out.by_ref().take(bound).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return Err("has ended without a report".into()),
            Ok(_) if line.len() >= MESSAGE_MAX_BYTES => {
                return Err(format!("sends a line of {MESSAGE_MAX_BYTES} bytes or more"));
            }
            Ok(_) => {}
        }
        let message = std::str::from_utf8(&line).ok().and_then(ipc::read);
        let Some(message) = message else {
            greeting += 1;
            if !has_begun && greeting <= GREETING_MAX_LINES {
                continue;
            }
            let start = &line[..line.len().min(60)];
            let start = String::from_utf8_lossy(start);
            return Err(format!("sends what is no message: {}", start.trim_end()));
        };
        has_begun = true;
        let is_last = matches!(message, Message::Done(_) | Message::Failed(_));
        if !take(message) || is_last {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::Answer;
    use super::super::args::tests::args;
    use super::super::environment::Host;
    use super::super::record::Record;
    use super::super::run::Run;
    use super::super::workers::Share;
    use super::super::{csv, svg, text};
    use super::*;
    use crate::cli::output::printable;
    use crate::load::validity::{assess, assess_machines};
    use crate::load::{Final, Interval, KernelCounters, Stage, Total, latencies};
    use crate::random::Random;
    use serde_json::json;

    fn line(message: &Message) -> Vec<u8> {
        let mut line = Vec::new();
        ipc::write(message, &mut line);
        line
    }

    /// Messages in their order, as a worker sends them.
    fn report() -> Vec<u8> {
        let mut interval = Interval::new(Stage::Window, 5);
        (1..500).for_each(|n| interval.service_time.saturating_record(n * n * 1000));
        let mut end = Final::default();
        end.unanswered.numbers = vec![3];
        let messages = [
            Message::Hello("0.1.0".into()),
            Message::Opening(3),
            Message::Opened(5, 7),
            Message::Begun,
            Message::Interval(Box::new(interval)),
            Message::Done(Box::new(end)),
        ];
        messages.iter().flat_map(line).collect()
    }

    fn read(bytes: &[u8]) -> (Vec<Message>, Result<(), String>) {
        let mut messages = Vec::new();
        let why = read_messages(bytes, |message| {
            messages.push(message);
            true
        });
        (messages, why)
    }

    #[test]
    fn what_comes_before_the_first_message_is_a_greeting_and_later_a_failure() {
        let (messages, why) = read(&[b"Welcome!\n\xff\n", report().as_slice()].concat());
        assert_eq!((messages.len(), why), (6, Ok(())));
        let hello = line(&Message::Hello("0.1.0".into()));
        let (messages, why) = read(&[hello.as_slice(), b"Nonsense\xff\n"].concat());
        assert_eq!(messages.len(), 1);
        assert_eq!(
            why.unwrap_err(),
            "sends what is no message: Nonsense\u{fffd}"
        );
        assert_eq!(read(&hello).1.unwrap_err(), "has ended without a report");
        let much = vec![b'\n'; 2 * GREETING_MAX_LINES];
        assert!(read(&much).1.unwrap_err().contains("no message"));
        let long = io::repeat(b' ').take(10 * MESSAGE_MAX_BYTES as u64);
        let why = read_messages(BufReader::new(long), |_| true).unwrap_err();
        assert!(why.contains("a line of 4194304 bytes"), "{why}");
    }

    /// A histogram that says itself how much memory it takes is refused by its header.
    #[test]
    fn the_largest_message_fits_and_a_foreign_histogram_is_refused() {
        let mut interval = Interval::new(Stage::Window, 0);
        let mut value = 1;
        while value < 3_600_000_000_000 {
            interval.service_time.saturating_record(value);
            value += (value / 1_000).max(1);
        }
        interval.response_time = interval.service_time.clone();
        interval.lag = interval.service_time.clone();
        let text = line(&Message::Interval(Box::new(interval)));
        assert!(text.len() < MESSAGE_MAX_BYTES / 4, "{}", text.len());
        let text = String::from_utf8(text).unwrap();
        let empty = serde_json::to_string(&latencies()).unwrap();
        assert!(ipc::read::<Message>(&text).is_some());
        // Cookie, length of the counts, offset, digits.
        let header = &empty[2..34];
        for (from, to) in [(8, "ffffffff"), (16, "00000001"), (24, "00000005")] {
            let mut wrong = header.to_owned();
            wrong.replace_range(from..from + 8, to);
            let changed = empty.replace(header, &wrong);
            assert!(
                serde_json::from_str::<crate::load::Latencies>(&changed).is_err(),
                "{changed}"
            );
        }
    }

    /// Numbers and bytes of a report are replaced at random: every line is refused, or counted without a panic.
    #[test]
    fn garbage_is_refused_or_counted_and_never_a_panic() {
        let (plan, right) = (args(&["-r", "5"]).plan(Vec::new(), &[]).unwrap(), report());
        let mut random = Random::new(7);
        let (mut counted, mut refused) = (0, 0);
        for _ in 0..300 {
            let mut wrong = Vec::new();
            for &byte in &right {
                match random.below(400) {
                    0 => wrong.push(random.below(256) as u8),
                    1..=4 if byte.is_ascii_digit() => wrong.extend(u64::MAX.to_string().bytes()),
                    _ => wrong.push(byte),
                }
            }
            let (mut total, mut share) = (Total::new(2), Total::new(1));
            let (messages, why) = read(&wrong);
            refused += usize::from(why.is_err());
            for message in messages {
                counted += 1;
                let _ = share.take(0, message.clone());
                let _ = total.take(0, message.clone());
                let _ = total.take(1, message);
            }
            judge(plan.clone(), total, share);
        }
        assert!(counted > 100 && refused > 100, "{counted} {refused}");
    }

    fn judge(plan: crate::load::Plan, total: Total, share: Total) {
        let share = Share {
            at: "ssh load1".into(),
            total: share,
            said: Vec::new(),
            invalid: Vec::new(),
        };
        let _ = assess(&plan, 2, &total, &KernelCounters::default());
        let validity = assess_machines(&plan, &total, &[share.part(1)], u64::MAX);
        let run = Run {
            plan,
            workers: 2,
            total,
            kernel: KernelCounters::default(),
            validity,
            memory: Vec::new(),
            shares: vec![share],
            spread: Duration::MAX,
        };
        let answer = Answer {
            runs: vec![run],
            search: None,
        };
        let host = Host::look(1_024);
        assert!(!printable(&text::report(&host, &answer)).is_empty());
        assert!(json!(Record::new(&host, &answer)).is_object());
        assert!(!csv::report(&answer.runs).is_empty());
        let _ = svg::draw(&answer.runs[0]);
    }
}
