//! The forms of a state: a few lines on a terminal, a line elsewhere, and names with values for scripts.

use super::changes::{Rates, changes};
use crate::cli::error::{CliError, CliErrorKind};
use crate::cli::serve::WatchState;
use crate::cli::stdio::BlockingStdio;
use crate::cli::units::{Time, grouped};
use crate::net::escape::Escaped;
use crate::stats::{CloseReason, DropReason, RejectReason};
use std::collections::VecDeque;
use std::env;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::time::Duration;

/// Columns of a line; a terminal has 80.
const COLUMNS: usize = 79;
/// Lines of changes that are shown.
const CHANGES: usize = 6;

/// A line on a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    text: String,
    style: Style,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    /// A heading.
    Bold,
    /// Something that a reader should see.
    Warning,
}

impl Line {
    fn new(style: Style, text: &str) -> Self {
        let text = Escaped::new(text).to_string();
        let text = text.chars().take(COLUMNS).collect();
        Self { text, style }
    }

    fn coded(&self, has_colours: bool) -> String {
        match self.style {
            Style::Bold if has_colours => format!("\x1b[1m{}\x1b[0m", self.text),
            Style::Warning if has_colours => format!("\x1b[33m{}\x1b[0m", self.text),
            _ => self.text.clone(),
        }
    }
}

/// The states that are shown one after the other.
#[derive(Debug)]
pub(super) struct Display {
    out: BlockingStdio,
    is_terminal: bool,
    has_colours: bool,
    last: Option<WatchState>,
    rates: Option<Rates>,
    changes: VecDeque<String>,
    /// Lines that the next state is written over.
    drawn: usize,
}

impl Display {
    /// On standard output.
    pub(super) fn new() -> Result<Self, CliError> {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        Ok(Self {
            out: BlockingStdio::output().map_err(|error| failure(&error))?,
            is_terminal: io::stdout().is_terminal() && !is_dumb,
            has_colours: !is_set("NO_COLOR"),
            last: None,
            rates: None,
            changes: VecDeque::new(),
            drawn: 0,
        })
    }

    /// Whether no state has been shown.
    pub(super) fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// Shows a state. Returns whether the output is still read.
    pub(super) fn show(&mut self, state: WatchState) -> Result<bool, CliError> {
        let mut changed = String::new();
        if let Some(before) = &self.last {
            self.rates = Rates::between(before, &state);
            changed = changes(before, &state).join(", ");
        }
        if !changed.is_empty() {
            self.changes.truncate(CHANGES - 1);
            let seconds = state.uptime_ms / 1_000;
            self.changes
                .push_front(format!("{seconds:>6} s  {changed}"));
        }
        let text = match self.is_terminal {
            true => {
                let lines = screen(&state, self.rates, &self.changes);
                self.over(&lines)
            }
            false => line(&state, self.rates, &changed),
        };
        self.last = Some(state);
        self.write(&text)
    }

    /// Shows that the server does not answer. Returns whether the output is still read.
    pub(super) fn show_silence(&mut self, silence: Duration) -> Result<bool, CliError> {
        let text = match (self.is_terminal, &self.last) {
            (true, Some(state)) => {
                let mut lines = screen(state, self.rates, &self.changes);
                let told = format!(
                    "no answer for {} s: the server is busy or stopped",
                    silence.as_secs()
                );
                lines.insert(1, Line::new(Style::Warning, &told));
                self.over(&lines)
            }
            _ => format!("no_answer_ms={}\n", silence.as_millis()),
        };
        self.write(&text)
    }

    /// The bytes that put these lines where the lines before are. With automatic wrapping off (DECAWM), the terminal cuts a line
    /// that is longer than it is wide.
    fn over(&mut self, lines: &[Line]) -> String {
        let mut text = "\x1b[?7l".to_owned();
        if self.drawn > 0 {
            let _ = write!(text, "\r\x1b[{}A", self.drawn);
        }
        for line in lines {
            let _ = writeln!(text, "{}\x1b[K", line.coded(self.has_colours));
        }
        self.drawn = lines.len();
        text + "\x1b[J\x1b[?7h"
    }

    fn write(&mut self, text: &str) -> Result<bool, CliError> {
        match self.out.write_all(text.as_bytes()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(failure(&error)),
        }
    }
}

fn failure(error: &io::Error) -> CliError {
    let text =
        format!("writing to standard output failed: {error}; redirect it to where there is room");
    CliError::new(CliErrorKind::Io, text)
}

/// The lines on a terminal.
fn screen(state: &WatchState, rates: Option<Rates>, changes: &VecDeque<String>) -> Vec<Line> {
    let uptime = Time(Duration::from_secs(state.uptime_ms / 1_000));
    let (process, phase) = (state.process, &state.phase);
    let head = format!("echo-reactor {process}  {phase} for {uptime}");
    let mut lines = vec![Line::new(Style::Bold, &head)];
    let figures = figures(state, rates);
    lines.extend(figures.iter().map(|text| Line::new(Style::Plain, text)));
    lines.push(accepting(state));
    if state.answers_lost > 0 {
        let text = format!(
            "watching     {} answers were not read in time",
            grouped(state.answers_lost)
        );
        lines.push(Line::new(Style::Warning, &text));
    }
    let mut list = |heading: &str, entries: &mut dyn Iterator<Item = &String>| {
        let mut entries = entries.peekable();
        if entries.peek().is_some() {
            lines.push(Line::new(Style::Bold, heading));
            lines.extend(entries.map(|entry| Line::new(Style::Plain, entry)));
        }
    };
    list("last changes", &mut changes.iter());
    list("last events", &mut state.events.iter());
    lines
}

/// The lines of figures. Before a second state there are no rates.
fn figures(state: &WatchState, rates: Option<Rates>) -> [String; 4] {
    let stats = &state.stats;
    let count = |rate: fn(Rates) -> u64| rates.map_or("-".to_owned(), |all| grouped(rate(all)));
    let bytes = |rate: fn(Rates) -> u64| rates.map_or("-".to_owned(), |all| size(rate(all)));
    [
        format!(
            "connections  {} open: {} reading, {} writing, {} lingering; at most {}",
            grouped(stats.connections_open),
            grouped(state.reading),
            grouped(state.writing),
            grouped(state.lingering),
            grouped(stats.connections_open_peak)
        ),
        format!(
            "turns        {} a second; the longest {} µs",
            count(|rates| rates.turns),
            grouped(stats.turn_us_max)
        ),
        format!(
            "bytes        {} a second in, {} out; {} unsent, at most {}",
            bytes(|rates| rates.bytes_in),
            bytes(|rates| rates.bytes_out),
            size(stats.unsent_bytes),
            size(stats.unsent_bytes_peak)
        ),
        format!(
            "datagrams    {} a second in, {} out; {} dropped",
            count(|rates| rates.datagrams_in),
            count(|rates| rates.datagrams_out),
            grouped(stats.dropped_total())
        ),
    ]
}

fn accepting(state: &WatchState) -> Line {
    let (style, now) = match state.is_accepting_paused {
        true => (Style::Warning, "paused"),
        false => (Style::Plain, "not paused"),
    };
    let pauses = grouped(state.stats.accept_pauses);
    let paused_ms = grouped(state.stats.accept_paused_ms);
    let text = format!("accepting    {now}; pauses so far: {pauses}, {paused_ms} ms in all");
    Line::new(style, &text)
}

/// Bytes in a unit of two to five digits.
fn size(bytes: u64) -> String {
    let unit = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
        .into_iter()
        .find(|&(scale, _)| bytes >= 10 * scale);
    match unit {
        Some((scale, name)) => format!("{} {name}", grouped(bytes / scale)),
        None => grouped(bytes),
    }
}

/// The line of a state where there is no terminal.
fn line(state: &WatchState, rates: Option<Rates>, changed: &str) -> String {
    let stats = &state.stats;
    let rate = |rate: fn(Rates) -> u64| rates.map_or("-".to_owned(), |all| rate(all).to_string());
    let changed = match changed {
        "" => String::new(),
        changed => format!("  {changed}"),
    };
    let text = format!(
        "uptime_ms={} phase={} open={} reading={} writing={} lingering={} turns_per_second={} turn_us_max={} \
         bytes_in_per_second={} bytes_out_per_second={} unsent_bytes={} accepting_paused={} accept_pauses={}{changed}",
        state.uptime_ms,
        state.phase.replace(' ', "_"),
        stats.connections_open,
        state.reading,
        state.writing,
        state.lingering,
        rate(|rates| rates.turns),
        stats.turn_us_max,
        rate(|rates| rates.bytes_in),
        rate(|rates| rates.bytes_out),
        stats.unsent_bytes,
        state.is_accepting_paused,
        stats.accept_pauses,
    );
    format!("{}\n", Escaped::new(&text))
}

/// All of a state, a name and a value a line. Reasons stand behind a point.
pub(super) fn once(state: &WatchState) -> String {
    let stats = &state.stats;
    let mut text = String::new();
    let mut tell = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "{name} {}", Escaped::new(&value.to_string()));
    };
    tell("process", &state.process);
    tell("uptime_ms", &state.uptime_ms);
    tell("phase", &state.phase.replace(' ', "_"));
    tell("accepting_paused", &state.is_accepting_paused);
    tell("reading", &state.reading);
    tell("writing", &state.writing);
    tell("lingering", &state.lingering);
    for (name, count) in stats.counters() {
        tell(name, &count);
    }
    for &reason in CloseReason::ALL {
        tell(&format!("closed.{}", reason.name()), &stats.closed(reason));
    }
    for &reason in RejectReason::ALL {
        tell(
            &format!("rejected.{}", reason.name()),
            &stats.rejected(reason),
        );
    }
    for &reason in DropReason::ALL {
        tell(
            &format!("dropped.{}", reason.name()),
            &stats.dropped(reason),
        );
    }
    tell("answers_lost", &state.answers_lost);
    for event in &state.events {
        tell("event", event);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state with large numbers everywhere.
    fn state() -> WatchState {
        let mut state = WatchState {
            process: u32::MAX,
            uptime_ms: 3_723_004,
            phase: "serving".to_owned(),
            is_accepting_paused: true,
            reading: 1_000_000,
            writing: 2,
            lingering: 3,
            answers_lost: 4,
            events: vec!["  1.5 s  #3 read \x1b[31m5".to_owned()],
            ..WatchState::default()
        };
        state.stats.connections_open = 1_000_005;
        state.stats.unsent_bytes = 37_376;
        state.stats.turn_us_max = 1_234;
        state.stats.accept_pauses = 7;
        state
    }

    fn texts(state: &WatchState) -> Vec<String> {
        let rates = Rates {
            turns: 12_345,
            bytes_in: 9_999,
            bytes_out: 3 << 30,
            ..Rates::default()
        };
        let changes = VecDeque::from(["x".repeat(200)]);
        let lines = screen(state, Some(rates), &changes);
        lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn a_screen_fits_a_terminal_and_tells_the_state() {
        let lines = texts(&state());
        for line in &lines {
            let is_plain = !line.contains(|c: char| c.is_control());
            assert!(line.chars().count() < 80 && is_plain, "{line:?}");
        }
        let expected = [
            "echo-reactor 4294967295  serving for 1h2m3s",
            "connections  1,000,005 open: 1,000,000 reading, 2 writing, 3 lingering; at most",
            "turns        12,345 a second; the longest 1,234 µs",
            "bytes        9,999 a second in, 3,072 MiB out; 36 KiB unsent, at most 0",
            "datagrams    0 a second in, 0 out; 0 dropped",
            "accepting    paused; pauses so far: 7, 0 ms in all",
            "watching     4 answers were not read in time",
            "last changes",
        ];
        assert_eq!(lines[..expected.len()], expected);
        assert_eq!(
            lines[expected.len() + 1..],
            ["last events", r"  1.5 s  #3 read \u{1b}[31m5"]
        );
        let first = screen(&state(), None, &VecDeque::new());
        assert_eq!(
            first[2].text,
            "turns        - a second; the longest 1,234 µs"
        );
    }

    #[test]
    fn colours_are_left_out_where_they_are_not_wanted() {
        let line = Line::new(Style::Warning, "a");
        assert_eq!(line.coded(true), "\x1b[33ma\x1b[0m");
        assert_eq!(line.coded(false), "a");
    }

    #[test]
    fn scripts_find_each_value_by_its_name() {
        let text = once(&state());
        for line in [
            "process 4294967295",
            "phase serving",
            "accepting_paused true",
            "unsent_bytes 37376",
            "closed.reset 0",
            "dropped.loop 0",
            "answers_lost 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}");
        }
        assert!(text.lines().all(|line| line.contains(' ')));
        let line = line(&state(), None, "1 closed: reset");
        assert!(
            line.contains(" turns_per_second=- turn_us_max=1234 "),
            "{line}"
        );
        assert!(
            line.ends_with("accept_pauses=7  1 closed: reset\n"),
            "{line}"
        );
    }
}
