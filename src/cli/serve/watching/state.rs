//! The state of a server at one time, and its form in a datagram: one line of JSON.

use crate::cli::serve::counters::{stats_from_json, stats_to_json};
use crate::echo::connection::Wait;
use crate::echo::{Backend, Server};
use crate::stats::Stats;
use serde_json::{Value, json};

/// The request. Its number is that of the form of the answer.
pub(in crate::cli) const REQUEST: &[u8] = b"echo-reactor watch 1";

/// A member of the answer that tells its form.
const FORM: &str = "watch";

/// The state of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct WatchState {
    /// Its process number.
    pub(in crate::cli) process: u32,
    /// Time since its start (milliseconds).
    pub(in crate::cli) uptime_ms: u64,
    /// The phase of its loop.
    pub(in crate::cli) phase: String,
    pub(in crate::cli) is_accepting_paused: bool,
    /// Open connections that wait for the peer's next bytes.
    pub(in crate::cli) reading: u64,
    /// Open connections with unsent bytes.
    pub(in crate::cli) writing: u64,
    /// Open connections that wait for the peer's FIN after that of the server.
    pub(in crate::cli) lingering: u64,
    /// Answers that a watcher did not take at once.
    pub(in crate::cli) answers_lost: u64,
    /// The last events of a server that is recorded, in words.
    pub(in crate::cli) events: Vec<String>,
    pub(in crate::cli) stats: Stats,
}

impl WatchState {
    /// What the server itself knows.
    pub(super) fn of(server: &Server<impl Backend>) -> Self {
        Self {
            phase: server.phase().name().to_owned(),
            is_accepting_paused: server.is_accepting_paused(),
            reading: server.connections_waiting(Wait::Header)
                + server.connections_waiting(Wait::Reading),
            writing: server.connections_waiting(Wait::Writing),
            lingering: server.connections_waiting(Wait::Lingering),
            stats: server.stats().clone(),
            ..Self::default()
        }
    }

    /// The form in a datagram.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut members = stats_to_json(&self.stats);
        for (name, value) in [
            (FORM, json!(1)),
            ("process", json!(self.process)),
            ("uptime_ms", json!(self.uptime_ms)),
            ("phase", json!(self.phase)),
            ("accepting_paused", json!(self.is_accepting_paused)),
            ("reading", json!(self.reading)),
            ("writing", json!(self.writing)),
            ("lingering", json!(self.lingering)),
            ("answers_lost", json!(self.answers_lost)),
            ("events", json!(self.events)),
        ] {
            members.insert(name.to_owned(), value);
        }
        Value::Object(members).to_string().into_bytes()
    }

    /// Reads what [`WatchState::to_bytes`] has made; `None` if it is something else.
    pub(in crate::cli) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let members: Value = serde_json::from_slice(bytes).ok()?;
        if members[FORM] != 1 {
            return None;
        }
        let count = |name: &str| members[name].as_u64().unwrap_or(0);
        let events = members["events"].as_array().into_iter().flatten();
        let events = events.filter_map(|event| event.as_str().map(str::to_owned));
        Some(Self {
            process: u32::try_from(count("process")).ok()?,
            uptime_ms: count("uptime_ms"),
            phase: members["phase"].as_str()?.to_owned(),
            is_accepting_paused: members["accepting_paused"].as_bool()?,
            reading: count("reading"),
            writing: count("writing"),
            lingering: count("lingering"),
            answers_lost: count("answers_lost"),
            events: events.collect(),
            stats: stats_from_json(&members),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::stats::{CloseReason, DropReason, RejectReason};

    fn example() -> WatchState {
        let mut stats = Stats::default();
        stats.open();
        stats.open();
        stats.close(CloseReason::Reset, 0);
        stats.reject(RejectReason::Limit);
        stats.datagrams_in += 1;
        stats.drop_datagram(DropReason::Denied);
        stats.accept_error(&std::io::Error::from_raw_os_error(libc::EMFILE));
        stats.turns = 12;
        WatchState {
            process: 42,
            uptime_ms: 7,
            phase: "draining".to_owned(),
            is_accepting_paused: true,
            reading: 1,
            writing: 2,
            lingering: 3,
            answers_lost: 4,
            events: vec!["#3 read 5".to_owned()],
            stats,
        }
    }

    #[test]
    fn a_state_is_read_as_it_was_written() {
        assert_eq!(
            WatchState::from_bytes(&example().to_bytes()),
            Some(example())
        );
        for other in [&b"{}"[..], b"", b"[1]", b"{\"watch\":2}", REQUEST] {
            assert_eq!(WatchState::from_bytes(other), None);
        }
    }

    #[test]
    fn any_bytes_are_a_state_or_none() {
        let mut random = Random::new(1);
        let bytes = example().to_bytes();
        for _ in 0..10_000 {
            let mut changed = bytes.clone();
            for _ in 0..1 + random.below(4) {
                let place = random.below(changed.len());
                changed[place] = random.next() as u8;
            }
            let _ = WatchState::from_bytes(&changed);
        }
    }
}
