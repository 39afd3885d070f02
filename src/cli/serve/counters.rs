//! Counters as JSON: in the report, and on their way from a worker to its master.

use crate::cli::logging;
use crate::cli::memory::Row;
use crate::stats::{CloseReason, DropReason, RejectReason, Stats};
use nix::errno::Errno;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What a server reports of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    pub(super) stats: Stats,
    /// Bytes that had been discarded when stopping began; they are not counted as lost by the stop.
    pub(super) discarded_before: u64,
    /// Lines of the log that were dropped.
    pub(super) log_lines_lost: u64,
    /// Memory per connection at every power of ten.
    pub(super) memory: Vec<Value>,
}

impl Counters {
    /// Those of a server in this process.
    pub(super) fn of(stats: &Stats, discarded_before: u64, memory: &[Row]) -> Self {
        Self {
            stats: stats.clone(),
            discarded_before,
            log_lines_lost: logging::lost_lines(),
            memory: memory.iter().map(Row::to_json).collect(),
        }
    }

    /// Adds those of another process, except its table of memory.
    pub(super) fn add(&mut self, other: &Self) {
        self.stats.merge(&other.stats);
        self.discarded_before += other.discarded_before;
        self.log_lines_lost += other.log_lines_lost;
    }

    /// The members that these counters have in a report.
    pub(super) fn to_json(&self) -> Map<String, Value> {
        let mut members = stats_to_json(&self.stats);
        members.insert("log_lines_lost".into(), json!(self.log_lines_lost));
        members.insert("memory".into(), json!(self.memory));
        members
    }

    /// Between two processes, `discarded_before` goes along.
    pub(super) fn to_message(&self) -> Value {
        let mut members = self.to_json();
        members.insert("discarded_before".into(), json!(self.discarded_before));
        Value::Object(members)
    }

    /// What another process has sent. A counter that it does not have is zero: it may be of another version.
    pub(super) fn from_message(message: &Value) -> Self {
        let count = |name: &str| message[name].as_u64().unwrap_or(0);
        let memory = message["memory"].as_array();
        Self {
            stats: stats_from_json(message),
            discarded_before: count("discarded_before"),
            log_lines_lost: count("log_lines_lost"),
            memory: memory.cloned().unwrap_or_default(),
        }
    }
}

pub(super) fn stats_to_json(stats: &Stats) -> Map<String, Value> {
    let mut members = Map::new();
    for (name, count) in stats.counters() {
        members.insert(name.into(), json!(count));
    }
    let closed = CloseReason::ALL.iter();
    let closed = closed.map(|&reason| (reason.name().to_owned(), json!(stats.closed(reason))));
    members.insert("closed".into(), Value::Object(closed.collect()));
    let rejected = RejectReason::ALL.iter();
    let rejected = rejected.map(|&why| (why.name().to_owned(), json!(stats.rejected(why))));
    members.insert("rejected".into(), Value::Object(rejected.collect()));
    let dropped = DropReason::ALL.iter();
    let dropped = dropped.map(|&why| (why.name().to_owned(), json!(stats.dropped(why))));
    members.insert("dropped".into(), Value::Object(dropped.collect()));
    for (family, errors) in [
        ("accept_errors", &stats.accept_errors),
        ("receive_errors", &stats.receive_errors),
    ] {
        let named = |(&errno, count): (&i32, &u64)| (errno_name(errno), json!(count));
        let errors = errors.iter().map(named).collect();
        members.insert(family.into(), Value::Object(errors));
    }
    members
}

pub(super) fn stats_from_json(members: &Value) -> Stats {
    let mut stats = Stats::default();
    for (name, value) in members.as_object().into_iter().flatten() {
        if let Some(count) = value.as_u64() {
            stats.set(name, count);
        }
        for (reason, count) in value.as_object().into_iter().flatten() {
            stats.set_reason(name, reason, count.as_u64().unwrap_or(0));
        }
    }
    let errors = |family: &str| -> BTreeMap<i32, u64> {
        let named = members[family].as_object().into_iter().flatten();
        named
            .filter_map(|(name, count)| Some((errno_of(name)?, count.as_u64()?)))
            .collect()
    };
    stats.accept_errors = errors("accept_errors");
    stats.receive_errors = errors("receive_errors");
    stats
}

/// `EMFILE(24)`, or the number alone if it has no name.
pub(super) fn errno_name(errno: i32) -> String {
    match Errno::from_raw(errno) {
        Errno::UnknownErrno => errno.to_string(),
        known => format!("{known:?}({errno})"),
    }
}

fn errno_of(name: &str) -> Option<i32> {
    let number = name.split_once('(').map_or(name, |(_, number)| number);
    number.trim_end_matches(')').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn counters_are_read_as_they_were_written() {
        let mut stats = Stats::default();
        stats.open();
        stats.bytes_in += 7;
        stats.store_unsent(7);
        stats.close(CloseReason::Aborted, 7);
        stats.reject(RejectReason::Denied);
        stats.datagrams_in += 1;
        stats.drop_datagram(DropReason::Loop);
        stats.accept_error(&io::Error::from_raw_os_error(libc::EMFILE));
        stats.receive_error(&io::Error::other("no errno at all"));
        let counters = Counters {
            stats,
            discarded_before: 3,
            log_lines_lost: 4,
            memory: vec![json!({"connections": 10})],
        };
        let read = Counters::from_message(&counters.to_message());
        assert_eq!(read.stats, counters.stats);
        assert_eq!((read.discarded_before, read.log_lines_lost), (3, 4));
        assert_eq!(read.memory, counters.memory);
        let mut sum = read.clone();
        sum.add(&read);
        assert_eq!((sum.stats.accepted, sum.discarded_before), (2, 6));
    }
}
