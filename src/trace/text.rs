//! A trace in words: one line for each event, or one for each turn.

use super::file::Trace;
use super::record::{Kind, Record};
use super::state::State;
use super::words::{function, grouped, phrase};
use std::fmt::Write as _;

/// Most events that the line of a turn tells of; the rest is counted.
const EVENTS_PER_LINE: usize = 24;

/// The lines of a trace.
#[derive(Clone, Debug)]
pub struct Text<'a> {
    trace: &'a Trace,
}

impl<'a> Text<'a> {
    /// The text of this trace.
    #[must_use]
    pub fn of(trace: &'a Trace) -> Self {
        Self { trace }
    }

    /// Returns one line for each record, after a head.
    pub fn lines(&self) -> impl Iterator<Item = String> + use<'a> {
        let lost = (self.trace.overwritten > 0).then(|| {
            let count = grouped(self.trace.overwritten);
            format!(
                "{count} earlier events were overwritten; --trace FILE,SIZE makes room for more"
            )
        });
        let mut lines = Lines::default();
        let records = self.trace.records.iter();
        let lines = records.map(move |record| lines.next(record));
        lost.into_iter().chain([Lines::head()]).chain(lines)
    }
}

/// Tells the last `most` of some records in a few words each: seconds since the start, source, what happened. Turns, and
/// the waker that ended one, are left out.
#[must_use]
pub fn recent(records: &[Record], most: usize) -> Vec<String> {
    let state = State::default();
    let is_told = |record: &&Record| !matches!(record.kind, Kind::Turn | Kind::Woken);
    let last = records.iter().rev().filter(is_told).take(most);
    let mut lines: Vec<String> = last
        .map(|record| {
            let source = record.source().map(|id| state.name(id));
            let (seconds, source) = (record.time_ns as f64 / 1e9, source.unwrap_or_default());
            format!("{seconds:>11.6} s  {source:<6} {}", phrase(record, &state))
        })
        .collect();
    lines.reverse();
    lines
}

/// Tells records one by one: seconds since the start, turn, source, what happened, and the function that did it.
#[derive(Debug, Default)]
pub struct Lines {
    state: State,
}

impl Lines {
    /// Returns the names of the columns.
    #[must_use]
    pub fn head() -> String {
        let (seconds, turn, source, event) = ("seconds", "turn", "source", "event");
        format!("{seconds:>13} {turn:>7}  {source:<8} {event:<50}  function")
    }

    /// Returns the line of the next record.
    pub fn next(&mut self, record: &Record) -> String {
        let before = &self.state;
        let turn = match record.kind {
            Kind::Turn => record.subject,
            _ => before.turn,
        };
        let seconds = record.time_ns as f64 / 1e9;
        let source = before.name_in(record).unwrap_or_default();
        let (what, function) = (phrase(record, before), function(record, before));
        self.state.apply(record);
        format!("{seconds:>13.6} {turn:>7}  {source:<8} {what:<50}  {function}")
    }
}

/// Tells a server's turns as they happen: one line for each.
#[derive(Debug, Default)]
pub struct Live {
    state: State,
    /// The turn whose line is not complete, as the next record may belong to it.
    line: String,
    events: usize,
    /// The source that the line spoke of last.
    source: String,
}

impl Live {
    /// Follows a record. Returns the line of the turn before, if a new turn begins.
    pub fn follow(&mut self, record: &Record) -> Option<String> {
        let finished = (record.kind == Kind::Turn).then(|| self.finish()).flatten();
        if record.kind == Kind::Turn {
            let _ = write!(
                self.line,
                "turn {}: {}",
                grouped(record.subject),
                phrase(record, &self.state)
            );
        } else if self.events < EVENTS_PER_LINE {
            self.add(record);
        }
        self.events += usize::from(record.kind != Kind::Turn);
        self.state.apply(record);
        finished
    }

    fn add(&mut self, record: &Record) {
        let source = self.state.name_in(record).unwrap_or_default();
        let separator = if self.line.is_empty() { "" } else { " | " };
        let name = match source != self.source && !source.is_empty() {
            true => format!("{source} "),
            false => String::new(),
        };
        let _ = write!(
            self.line,
            "{separator}{name}{}",
            phrase(record, &self.state)
        );
        self.source = source;
    }

    /// Returns the line of the present turn, unless it has none, and begins another one.
    pub fn finish(&mut self) -> Option<String> {
        let mut line = std::mem::take(&mut self.line);
        let more = self.events.saturating_sub(EVENTS_PER_LINE);
        if more > 0 {
            let _ = write!(line, " | and {} more events", grouped(more as u64));
        }
        self.events = 0;
        self.source.clear();
        (!line.is_empty()).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: Kind, subject: u64) -> Record {
        Record {
            subject,
            ..Record::new(kind)
        }
    }

    /// A slow reader: the send buffer takes a part of what was read.
    fn slow_reader() -> Vec<Record> {
        vec![
            Record {
                amount: 1_200_000_000,
                asked: 1,
                ..record(Kind::Turn, 7)
            },
            record(Kind::Ready, 3),
            Record {
                asked: 65_536,
                amount: 65_536,
                ..record(Kind::Read, 3)
            },
            Record {
                asked: 65_536,
                amount: 28_160,
                ..record(Kind::Write, 3)
            },
            Record {
                detail: 1,
                ..record(Kind::Reregistered, 3)
            },
            record(Kind::Turn, 8),
            record(Kind::Ready, 3),
            Record {
                asked: 37_376,
                amount: 37_376,
                ..record(Kind::Write, 3)
            },
        ]
    }

    #[test]
    fn the_line_of_a_turn_is_complete_when_the_next_begins() {
        let mut live = Live::default();
        let lines: Vec<String> = slow_reader()
            .iter()
            .filter_map(|record| live.follow(record))
            .collect();
        let first = "turn 7: slept 1.2 s | #3 ready | read 65,536 | wrote 28,160 of 65,536, 37,376 unsent | wants WRITABLE";
        assert_eq!(lines, [first]);
        let second = "turn 8: did not sleep | #3 writable | wrote 37,376";
        assert_eq!(live.finish().as_deref(), Some(second));
        assert_eq!(live.finish(), None);
    }

    #[test]
    fn a_turn_tells_how_it_has_waited() {
        for (amount, detail, told) in [
            (9_000, 0, "turn 1: did not sleep"),
            (10_000, 0, "turn 1: slept 10 µs"),
            (9_000, 1, "turn 1: polled for 9.0 µs"),
        ] {
            let mut live = Live::default();
            live.follow(&Record {
                amount,
                detail,
                ..record(Kind::Turn, 1)
            });
            assert_eq!(live.finish().as_deref(), Some(told));
        }
    }

    #[test]
    fn a_long_turn_is_one_line_that_counts_what_it_leaves_out() {
        let mut live = Live::default();
        live.follow(&record(Kind::Turn, 1));
        for _ in 0..EVENTS_PER_LINE + 1_000 {
            live.follow(&record(Kind::Alarm, 0));
        }
        let line = live.finish().unwrap();
        assert!(line.ends_with(" | alarm | and 1,000 more events"), "{line}");
    }

    #[test]
    fn each_event_is_a_line_with_its_turn_and_its_function() {
        let trace = Trace {
            overwritten: 5,
            records: slow_reader(),
            ..Trace::default()
        };
        let lines: Vec<String> = Text::of(&trace).lines().collect();
        assert_eq!(lines.len(), 2 + trace.records.len());
        assert!(lines[0].starts_with("5 earlier events were overwritten"));
        for (line, parts) in [
            (
                5,
                [
                    "7",
                    "#3",
                    "wrote 28,160 of 65,536, 37,376 unsent",
                    "Connection::write_back",
                ],
            ),
            (
                6,
                ["7", "#3", "wants WRITABLE", "Reactor::set_registration"],
            ),
            (9, ["8", "#3", "wrote 37,376", "Connection::flush"]),
        ] {
            let cells: Vec<&str> = lines[line]
                .split("  ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .collect();
            assert_eq!(cells[1..], parts);
        }
    }
}
