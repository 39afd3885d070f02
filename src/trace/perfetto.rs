//! A trace in the Trace Event format (JSON), which ui.perfetto.dev and chrome://tracing open.
//!
//! Turns and calls are slices of one thread: a turn lasts from the end of its wait to the last event of it, and a call from
//! the event before it to its return, since one reading of the clock is recorded for each. Connections are asynchronous
//! tracks. Counters: open connections, unsent bytes, and the events of each turn.

use super::file::Trace;
use super::record::{Kind, Record, SourceType};
use super::state::{Source, State};
use super::words::{function, phrase};
use serde::Serialize;

/// Makes the JSON.
#[must_use]
pub fn perfetto(trace: &Trace) -> String {
    let mut events = vec![
        Event::metadata("process_name", "echo-reactor"),
        Event::metadata("thread_name", "event loop"),
    ];
    let (mut state, mut totals, mut last_ns) = (State::default(), Totals::default(), 0);
    for (place, record) in trace.records.iter().enumerate() {
        if record.kind == Kind::Turn {
            turn(&mut events, record, &trace.records[place + 1..]);
        } else {
            events.push(event(record, &state, last_ns));
        }
        totals.follow(&mut events, record, &mut state);
        last_ns = record.time_ns;
    }
    let document = Document {
        display_time_unit: "ns",
        trace_events: events,
    };
    serde_json::to_string(&document).unwrap_or_default()
}

/// The wait, the turn behind it, and the number of its events.
fn turn(events: &mut Vec<Event>, record: &Record, rest: &[Record]) {
    let began_ns = record.time_ns.saturating_sub(record.amount);
    events.push(Event::slice(
        "epoll_wait".to_owned(),
        began_ns,
        record.amount,
    ));
    let of_turn = rest.iter().take_while(|record| record.kind != Kind::Turn);
    let end_ns = of_turn.last().map_or(record.time_ns, |last| last.time_ns);
    let lasted_ns = end_ns.saturating_sub(record.time_ns);
    let name = format!("turn {}", record.subject);
    events.push(Event::slice(name, record.time_ns, lasted_ns));
    events.push(Event::counter(
        "ready events",
        record.time_ns,
        record.asked.into(),
    ));
}

/// A call as a slice, and anything else as a moment.
fn event(record: &Record, before: &State, last_ns: u64) -> Event {
    let source = before.name_in(record);
    let name = [source.clone().unwrap_or_default(), phrase(record, before)].join(" ");
    let name = name.trim_start().to_owned();
    let args = Args::Call {
        function: function(record, before),
        source,
    };
    let event = match record.kind.is_call() {
        true => Event::slice(name, last_ns, record.time_ns.saturating_sub(last_ns)),
        false => Event {
            scope: Some("t"),
            ..Event::new("i", name, record.time_ns)
        },
    };
    Event {
        args: Some(args),
        ..event
    }
}

/// Sums over all connections.
#[derive(Default)]
struct Totals {
    connections: u64,
    unsent_bytes: u64,
}

impl Totals {
    /// Follows a record: begins and ends the track of its connection, and counts what has changed.
    fn follow(&mut self, events: &mut Vec<Event>, record: &Record, state: &mut State) {
        let Some(id) = record.source() else {
            return state.apply(record);
        };
        let before = state.sources.get(&id).cloned();
        state.apply(record);
        let after = state.sources.get(&id);
        let unsent = |source: Option<&Source>| source.map_or(0, |source| source.unsent_bytes);
        let (was, is) = (unsent(before.as_ref()), unsent(after));
        if was != is {
            let others = self.unsent_bytes.saturating_sub(was);
            self.unsent_bytes = others.saturating_add(is);
            events.push(Event::counter(
                "unsent bytes",
                record.time_ns,
                self.unsent_bytes,
            ));
        }
        let (phase, source) = match (&before, after) {
            (None, Some(source)) => ("b", source),
            (Some(source), None) => ("e", source),
            _ => return,
        };
        if matches!(
            source.source_type,
            Some(SourceType::Listener | SourceType::Datagrams)
        ) {
            return;
        }
        self.connections = match phase {
            "b" => self.connections + 1,
            _ => self.connections.saturating_sub(1),
        };
        events.push(Event::counter(
            "open connections",
            record.time_ns,
            self.connections,
        ));
        events.push(Event {
            category: Some("connection"),
            id: Some(format!("{:#x}", id.number())),
            ..Event::new(phase, format!("connection {}", source.name), record.time_ns)
        });
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    display_time_unit: &'static str,
    trace_events: Vec<Event>,
}

/// One event of the format. Times are microseconds.
#[derive(Debug, Serialize)]
struct Event {
    name: String,
    #[serde(rename = "ph")]
    phase: &'static str,
    #[serde(rename = "ts")]
    time_us: f64,
    pid: u32,
    tid: u32,
    #[serde(rename = "dur", skip_serializing_if = "Option::is_none")]
    duration_us: Option<f64>,
    #[serde(rename = "cat", skip_serializing_if = "Option::is_none")]
    category: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "s", skip_serializing_if = "Option::is_none")]
    scope: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Args>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Args {
    Name {
        name: &'static str,
    },
    Value {
        value: u64,
    },
    Call {
        function: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        source: Option<String>,
    },
}

impl Event {
    fn new(phase: &'static str, name: String, time_ns: u64) -> Self {
        Self {
            name,
            phase,
            time_us: time_ns as f64 / 1e3,
            pid: 1,
            tid: 1,
            duration_us: None,
            category: None,
            id: None,
            scope: None,
            args: None,
        }
    }

    fn metadata(name: &str, value: &'static str) -> Self {
        Self {
            args: Some(Args::Name { name: value }),
            ..Self::new("M", name.to_owned(), 0)
        }
    }

    fn slice(name: String, began_ns: u64, lasted_ns: u64) -> Self {
        Self {
            duration_us: Some(lasted_ns as f64 / 1e3),
            ..Self::new("X", name, began_ns)
        }
    }

    fn counter(name: &str, time_ns: u64, value: u64) -> Self {
        Self {
            args: Some(Args::Value { value }),
            ..Self::new("C", name.to_owned(), time_ns)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn record(kind: Kind, time_ns: u64, subject: u64) -> Record {
        Record {
            time_ns,
            subject,
            ..Record::new(kind)
        }
    }

    #[test]
    fn turns_and_calls_are_slices_and_a_connection_is_a_track() {
        let records = vec![
            Record {
                amount: 9_000,
                asked: 1,
                ..record(Kind::Turn, 10_000, 7)
            },
            record(Kind::Registered, 12_000, 3),
            Record {
                asked: 9,
                amount: 4,
                ..record(Kind::Write, 15_500, 3)
            },
            record(Kind::Closed, 16_000, 3),
        ];
        let trace = Trace {
            records,
            ..Trace::default()
        };
        let document: Value = serde_json::from_str(&perfetto(&trace)).unwrap();
        let events = document["traceEvents"].as_array().unwrap();
        let all = |name: &str| -> Vec<&Value> {
            events
                .iter()
                .filter(|event| event["name"] == name)
                .collect()
        };
        assert_eq!(all("epoll_wait")[0]["dur"], json!(9.0));
        let turn = all("turn 7")[0];
        assert_eq!((&turn["ts"], &turn["dur"]), (&json!(10.0), &json!(6.0)));
        let write = all("#3 wrote 4 of 9, 5 unsent")[0];
        assert_eq!((&write["ph"], &write["dur"]), (&json!("X"), &json!(3.5)));
        assert_eq!(write["args"]["function"], "Connection::write_back");
        let phases: Vec<&Value> = all("connection #3")
            .iter()
            .map(|event| &event["ph"])
            .collect();
        assert_eq!(phases, [&json!("b"), &json!("e")]);
        let values = |name: &str| -> Vec<Value> {
            all(name)
                .iter()
                .map(|event| event["args"]["value"].clone())
                .collect()
        };
        assert_eq!(values("open connections"), [json!(1), json!(0)]);
        assert_eq!(values("unsent bytes"), [json!(5), json!(0)]);
        assert_eq!(values("ready events"), [json!(1)]);
    }
}
