//! The state of a server after each record: its sources, the ready list, the run queue.

use super::record::{Kind, Record, SourceId, SourceType};
use crate::echo::decision::{PauseReason, PhaseName};
use crate::reactor::{Interest, SOURCES_PER_TURN};
use std::collections::{BTreeMap, VecDeque};

/// A server as its trace shows it. A trace whose beginning was overwritten shows a source from its first record on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Number of the turn.
    pub turn: u64,
    /// Sources that are open.
    pub sources: BTreeMap<SourceId, Source>,
    /// What the kernel has reported in this turn, in its order.
    pub ready_list: Vec<SourceId>,
    /// What this turn serves, in its order: first the ready list, then the sources that were queued.
    pub run_queue: Vec<SourceId>,
    /// Sources that are queued for the next turn.
    pub queued: VecDeque<SourceId>,
    /// Why accepting is paused, if it is.
    pub pause: Option<PauseReason>,
    /// The phase of the server.
    pub phase: PhaseName,
    /// Sources that each slot has held so far in this trace.
    uses: BTreeMap<u32, u32>,
}

/// An open source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name: the number of its slot, with `.2` for the second source of that slot in this trace, and so on.
    pub name: String,
    /// What it is; unknown if its registration was overwritten.
    pub source_type: Option<SourceType>,
    /// What the kernel watches it for, if that is known.
    pub interest: Option<Interest>,
    /// Bytes in its write buffer.
    pub unsent_bytes: u64,
    /// Whether the server has sent its FIN.
    pub has_fin: bool,
    /// Bytes read so far.
    pub bytes_in: u64,
    /// Bytes written so far.
    pub bytes_out: u64,
}

impl Source {
    /// What a connection waits for, in one word.
    #[must_use]
    pub fn waits_for(&self) -> &'static str {
        match (self.source_type, self.interest) {
            (Some(SourceType::Listener), _) => "accepting",
            (Some(SourceType::Datagrams), _) => "receiving",
            _ if self.has_fin => "lingering",
            (_, Some(Interest::Write)) => "writing",
            (_, Some(Interest::Read)) => "reading",
            (_, None) => "unknown",
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            turn: 0,
            sources: BTreeMap::new(),
            ready_list: Vec::new(),
            run_queue: Vec::new(),
            queued: VecDeque::new(),
            pause: None,
            phase: PhaseName::Serving,
            uses: BTreeMap::new(),
        }
    }
}

impl State {
    /// Follows a record.
    pub fn apply(&mut self, record: &Record) {
        match record.kind {
            Kind::Turn => self.begin_turn(record.subject),
            Kind::AcceptPaused => self.pause = record.pause_reason(),
            Kind::AcceptResumed => self.pause = None,
            Kind::Phase => self.phase = record.phase().unwrap_or(self.phase),
            _ => {}
        }
        let Some(id) = record.source() else { return };
        match record.kind {
            Kind::Ready => {
                // Ahead of the queued ones, which the turn has begun with.
                self.run_queue.insert(self.ready_list.len(), id);
                self.ready_list.push(id);
            }
            Kind::Requeued => self.queued.push_back(id),
            Kind::Closed | Kind::Deregistered => drop(self.sources.remove(&id)),
            Kind::Stale | Kind::Merged => {}
            Kind::Registered if record.errno != 0 => {}
            _ => follow(self.source(id), record),
        }
    }

    fn begin_turn(&mut self, number: u64) {
        self.turn = number;
        self.ready_list.clear();
        let count = self.queued.len().min(SOURCES_PER_TURN);
        self.run_queue = self.queued.drain(..count).collect();
    }

    /// The source of this number, a new one if there is none.
    fn source(&mut self, id: SourceId) -> &mut Source {
        let uses = &mut self.uses;
        self.sources.entry(id).or_insert_with(|| {
            let uses = uses.entry(id.slot).or_default();
            *uses = uses.saturating_add(1);
            Source {
                name: name_of(id.slot, *uses),
                source_type: None,
                interest: None,
                unsent_bytes: 0,
                has_fin: false,
                bytes_in: 0,
                bytes_out: 0,
            }
        })
    }

    /// The name of a source; that of its slot if it is closed.
    #[must_use]
    pub fn name(&self, id: SourceId) -> String {
        self.sources
            .get(&id)
            .map_or_else(|| format!("#{}", id.slot), |source| source.name.clone())
    }

    /// The name of the source of a record that is not applied yet: a registration may be that of a new source.
    #[must_use]
    pub fn name_in(&self, record: &Record) -> Option<String> {
        let id = record.source()?;
        let is_new = record.kind == Kind::Registered && !self.sources.contains_key(&id);
        let uses = self.uses.get(&id.slot).copied().unwrap_or(0);
        Some(match is_new && record.errno == 0 {
            true => name_of(id.slot, uses.saturating_add(1)),
            false => self.name(id),
        })
    }

    /// Connections that are open.
    #[must_use]
    pub fn connections_open(&self) -> usize {
        let types = self.sources.values().map(|source| source.source_type);
        types
            .filter(|kind| !matches!(kind, Some(SourceType::Listener | SourceType::Datagrams)))
            .count()
    }

    /// Bytes in all write buffers.
    #[must_use]
    pub fn unsent_bytes(&self) -> u64 {
        let unsent = self.sources.values().map(|source| source.unsent_bytes);
        unsent.fold(0, u64::saturating_add)
    }
}

/// The name of the source that is this one in its slot.
fn name_of(slot: u32, uses: u32) -> String {
    match uses {
        1 => format!("#{slot}"),
        uses => format!("#{slot}.{uses}"),
    }
}

/// What a record of an open source changes.
fn follow(source: &mut Source, record: &Record) {
    match record.kind {
        Kind::Registered => {
            source.source_type = record.source_type();
            source.interest = record.interest();
        }
        Kind::Reregistered if record.errno == 0 => source.interest = record.interest(),
        Kind::Read | Kind::Received => {
            source.bytes_in = source.bytes_in.saturating_add(record.amount);
        }
        Kind::Write => {
            source.bytes_out = source.bytes_out.saturating_add(record.amount);
            source.unsent_bytes = record.unsent_bytes().unwrap_or(source.unsent_bytes);
        }
        Kind::Replied if record.errno == 0 => {
            source.bytes_out = source.bytes_out.saturating_add(u64::from(record.asked));
        }
        Kind::Fin if record.errno == 0 => source.has_fin = true,
        _ => {}
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

    #[test]
    fn a_slot_that_is_used_again_has_another_name() {
        let mut state = State::default();
        let (first, second) = (5, 1 << 32 | 5);
        state.apply(&record(Kind::Registered, first));
        state.apply(&record(Kind::Closed, first));
        let again = record(Kind::Registered, second);
        assert_eq!(state.name_in(&again).as_deref(), Some("#5.2"));
        assert_eq!(
            state.name_in(&record(Kind::Stale, first)).as_deref(),
            Some("#5")
        );
        state.apply(&again);
        let names: Vec<&str> = state.sources.values().map(|source| &*source.name).collect();
        assert_eq!((names, state.connections_open()), (vec!["#5.2"], 1));
    }

    #[test]
    fn a_queued_source_is_served_in_the_next_turn_behind_the_ready_list() {
        let mut state = State::default();
        let id = |slot| SourceId {
            slot,
            generation: 0,
        };
        for (kind, subject) in [
            (Kind::Turn, 1),
            (Kind::Ready, 3),
            (Kind::Requeued, 3),
            (Kind::Turn, 2),
            (Kind::Ready, 4),
            (Kind::Ready, 5),
        ] {
            state.apply(&record(kind, subject));
        }
        assert_eq!(state.ready_list, [id(4), id(5)]);
        assert_eq!(state.run_queue, [id(4), id(5), id(3)]);
        assert!(state.queued.is_empty() && state.turn == 2);
    }

    #[test]
    fn unsent_bytes_are_what_the_last_write_did_not_take() {
        let mut state = State::default();
        let written = |asked, amount, errno: i32| Record {
            asked,
            amount,
            errno: errno as u16,
            ..record(Kind::Write, 3)
        };
        for (write, unsent) in [
            (written(9, 4, 0), 5),
            (written(5, 0, libc::EAGAIN), 5),
            (written(5, 3, 0), 2),
            (written(2, 0, libc::EPIPE), 2),
            (written(2, 2, 0), 0),
        ] {
            state.apply(&write);
            assert_eq!(state.unsent_bytes(), unsent);
        }
    }
}
