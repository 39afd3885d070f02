//! A trace as one page for a browser: self-contained, with the events in it as JSON.
//!
//! The page steps through the last events, and shows the state of the server after each. Words and states are made here, so
//! that the page tells the same as [`Text`](super::Text); `page.html` holds its layout and its script, and loads nothing.

use super::file::Trace;
use super::meaning::meaning;
use super::record::{Kind, Record, SourceId};
use super::state::{Source, State};
use super::words::{function, phase_name, phrase};
use crate::reactor::{Interest, SOURCES_PER_TURN};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// Largest size of a page (bytes).
pub const PAGE_BYTES_MAX: usize = 300_000;
/// Most events that a page begins with; fewer if it becomes too large.
const EVENTS_MAX: usize = 10_000;

const TEMPLATE: &str = include_str!("page.html");
/// The colours of all pages of this program.
const PALETTE: &str = include_str!("../palette.css");
const STATES: [&str; 7] = [
    "closed",
    "reading",
    "writing",
    "lingering",
    "accepting",
    "receiving",
    "unknown",
];
const INTERESTS: [&str; 3] = ["", "READABLE", "WRITABLE"];

/// What happens outside of the server, such as a step of the simulated network. The page shows it as an event that changes
/// nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The place of the record that follows it; the number of records, if none does.
    pub before: usize,
    /// What happens.
    pub text: String,
}

/// Makes the page. Of a long trace it shows the last events, and tells how many it leaves out.
#[must_use]
pub fn page(trace: &Trace, title: &str) -> String {
    page_with_notes(trace, &[], title)
}

/// Makes the page of a trace with notes, which are in order, between its events.
#[must_use]
pub fn page_with_notes(trace: &Trace, notes: &[Note], title: &str) -> String {
    let mut events = trace.records.len().min(EVENTS_MAX);
    loop {
        let data = Data::of(trace, notes, title, trace.records.len() - events);
        // In a script element `<` would begin a tag of a text that has one.
        let json = serde_json::to_string(&data).unwrap_or_default();
        let page = TEMPLATE.replacen("{{PALETTE}}", PALETTE, 1).replacen(
            "{{DATA}}",
            &json.replace('<', "\\u003c"),
            1,
        );
        if page.len() <= PAGE_BYTES_MAX || events == 0 {
            return page;
        }
        events = events * 9 / 10;
    }
}

/// What the script of the page reads.
#[derive(Debug, Serialize)]
struct Data<'a> {
    title: &'a str,
    left_out: u64,
    first_ns: u64,
    sources_per_turn: usize,
    kinds: Vec<KindData>,
    states: [&'static str; 7],
    interests: [&'static str; 3],
    /// Names of the sources.
    sources: Vec<String>,
    /// Each phrase with its function, once.
    texts: Vec<(String, &'static str)>,
    before: Before,
    /// Of each event: nanoseconds since the one before, kind, source + 1, text, state and interest of the source after
    /// it, and its unsent bytes; of a turn, its number.
    records: Vec<[u64; 7]>,
}

#[derive(Debug, Serialize)]
struct KindData {
    name: &'static str,
    page: &'static str,
    meaning: &'static str,
}

/// The kind of notes.
const NOTES: KindData = KindData {
    name: "network",
    page: "tracing",
    meaning: "A client or the network acts, between two calls of the server, as the seed decides.",
};

/// The state before the first event.
#[derive(Debug, Serialize)]
struct Before {
    turn: u64,
    sources: Vec<[u64; 4]>,
    queued: Vec<usize>,
    pause: &'static str,
    phase: &'static str,
}

/// Sources and texts by the numbers that stand for them.
#[derive(Default)]
struct Tables {
    numbers: BTreeMap<SourceId, usize>,
    sources: Vec<String>,
    text_numbers: HashMap<(String, &'static str), usize>,
    texts: Vec<(String, &'static str)>,
}

impl Tables {
    fn source(&mut self, id: SourceId, state: &State) -> usize {
        let Self {
            numbers, sources, ..
        } = self;
        *numbers.entry(id).or_insert_with(|| {
            sources.push(state.name(id));
            sources.len() - 1
        })
    }

    fn text(&mut self, text: (String, &'static str)) -> u64 {
        let Self {
            text_numbers,
            texts,
            ..
        } = self;
        let number = *text_numbers.entry(text).or_insert_with_key(|text| {
            texts.push(text.clone());
            texts.len() - 1
        });
        number as u64
    }
}

impl<'a> Data<'a> {
    fn of(trace: &Trace, notes: &[Note], title: &'a str, skipped: usize) -> Self {
        let (before, shown) = trace.records.split_at(skipped.min(trace.records.len()));
        let (left_out, notes) = notes.split_at(notes.partition_point(|note| note.before < skipped));
        let left_out = trace
            .overwritten
            .saturating_add((skipped + left_out.len()) as u64);
        let mut notes = notes.iter().peekable();
        let (mut state, mut tables) = (State::default(), Tables::default());
        before.iter().for_each(|record| state.apply(record));
        let begin = Before::of(&state, &mut tables);
        let mut last_ns = shown.first().map_or(0, |record| record.time_ns);
        let first_ns = last_ns;
        let mut records = Vec::with_capacity(shown.len());
        for (place, record) in (skipped..).zip(shown) {
            while let Some(note) = notes.next_if(|note| note.before <= place) {
                records.push(note_row(note, &mut tables));
            }
            let words = tables.text((phrase(record, &state), function(record, &state)));
            state.apply(record);
            let passed_ns = record.time_ns.saturating_sub(last_ns);
            last_ns = record.time_ns;
            records.push(row(record, passed_ns, words, &state, &mut tables));
        }
        records.extend(notes.map(|note| note_row(note, &mut tables)));
        Self {
            title,
            left_out,
            first_ns,
            sources_per_turn: SOURCES_PER_TURN,
            kinds: (Kind::ALL.iter().map(|&kind| KindData::of(kind)))
                .chain([NOTES])
                .collect(),
            states: STATES,
            interests: INTERESTS,
            sources: tables.sources,
            texts: tables.texts,
            before: begin,
            records,
        }
    }
}

/// The row of a note. Its kind is behind those of the records.
fn note_row(note: &Note, tables: &mut Tables) -> [u64; 7] {
    let words = tables.text((note.text.clone(), ""));
    [0, Kind::ALL.len() as u64, 0, words, 0, 0, 0]
}

fn row(
    record: &Record,
    passed_ns: u64,
    words: u64,
    state: &State,
    tables: &mut Tables,
) -> [u64; 7] {
    let kind = record.kind as u64 - 1;
    let Some(id) = record.source() else {
        let number = if record.kind == Kind::Turn {
            record.subject
        } else {
            0
        };
        return [passed_ns, kind, 0, words, 0, 0, number];
    };
    let number = tables.source(id, state) as u64 + 1;
    let [waits, interest, unsent] = state.sources.get(&id).map_or([0; 3], columns);
    [passed_ns, kind, number, words, waits, interest, unsent]
}

fn columns(source: &Source) -> [u64; 3] {
    let waits = STATES.iter().position(|&name| name == source.waits_for());
    let interest = match source.interest {
        None => 0,
        Some(Interest::Read) => 1,
        Some(Interest::Write) => 2,
    };
    [waits.unwrap_or(0) as u64, interest, source.unsent_bytes]
}

impl Before {
    fn of(state: &State, tables: &mut Tables) -> Self {
        let sources = state.sources.iter().map(|(&id, source)| {
            let [waits, interest, unsent] = columns(source);
            [tables.source(id, state) as u64, waits, interest, unsent]
        });
        let sources = sources.collect();
        let queued = state.queued.iter().map(|&id| tables.source(id, state));
        Self {
            turn: state.turn,
            sources,
            queued: queued.collect(),
            pause: if state.pause.is_some() {
                "accepting paused"
            } else {
                ""
            },
            phase: phase_name(Some(state.phase)),
        }
    }
}

impl KindData {
    fn of(kind: Kind) -> Self {
        let (page, meaning) = meaning(kind);
        Self {
            name: kind.name(),
            page,
            meaning,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every call on another source, with amounts that differ: as large as a record becomes.
    fn long() -> Trace {
        let records = (0..40_000_u64).map(|number| Record {
            time_ns: number * 1_234_567,
            subject: number % 977,
            amount: number * 31,
            asked: 65_536,
            ..Record::new(Kind::ALL[number as usize % Kind::ALL.len()])
        });
        Trace {
            overwritten: 5,
            records: records.collect(),
            ..Trace::default()
        }
    }

    fn data(page: &str) -> serde_json::Value {
        let (_, rest) = page.split_once("id=\"data\">").unwrap();
        let (json, _) = rest.split_once("</script>").unwrap();
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_page_is_small_and_tells_what_it_leaves_out() {
        let page = page(&long(), "a </script> in a name");
        assert!(page.len() <= PAGE_BYTES_MAX, "{}", page.len());
        let data = data(&page);
        let shown = data["records"].as_array().unwrap().len() as u64;
        assert!(shown > 2_000, "{shown}");
        assert_eq!(data["left_out"], 40_005 - shown);
        assert_eq!(data["title"], "a </script> in a name");
    }

    #[test]
    fn notes_stand_where_they_happen() {
        let note = |before, text: &str| Note {
            before,
            text: text.to_owned(),
        };
        let notes = [
            note(0, "first"),
            note(2, "second"),
            note(2, "third"),
            note(3, "last"),
        ];
        let mut trace = long();
        trace.records.truncate(3);
        let shown = |skipped| {
            let data = Data::of(&trace, &notes, "x", skipped);
            let texts = data
                .records
                .iter()
                .map(|row| data.texts[row[3] as usize].clone());
            let names = texts.map(|(text, function)| match function {
                "" => text,
                function => function.to_owned(),
            });
            (data.left_out, names.collect::<Vec<_>>())
        };
        let all = [
            "first",
            "Reactor::wait",
            "Epoll::wait",
            "second",
            "third",
            "Epoll::wait",
            "last",
        ];
        assert_eq!(shown(0), (5, all.map(String::from).to_vec()));
        assert_eq!(
            shown(2),
            (5 + 3, all[3..].iter().map(ToString::to_string).collect())
        );
        assert_eq!(shown(3).1, ["last"]);
    }

    #[test]
    fn a_page_loads_nothing() {
        let page = page(&long(), "x");
        for word in ["src=", "@import", "url(", "fetch(", "<link"] {
            assert!(!page.contains(word), "{word}");
        }
        assert_eq!(
            page.matches("http").count(),
            2,
            "the policy, and the link to the guide"
        );
    }

    #[test]
    fn an_empty_trace_is_a_page_too() {
        let page = page(&Trace::default(), "x");
        assert_eq!(data(&page)["records"], serde_json::json!([]));
    }
}
