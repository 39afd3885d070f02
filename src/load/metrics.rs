//! What a run records: histograms, the counters of requests, and how the connections fared.
//!
//! This file has counters and their sums. What they mean is in `validity`.
//!
//! The path of an echo records into the current interval, which is sent away whole: adding up intervals, percentiles
//! and charts are the work of another process, where it delays no request.

use super::latencies::{Latencies, latencies};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The stage of a run that an interval belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Connections are being opened.
    Opening,
    /// The load is on, and nothing is measured yet.
    WarmUp,
    /// The measured time.
    Window,
    /// No more requests are sent; answers in flight are awaited.
    Drain,
}

/// Its name, as machines read it.
impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// What was recorded in an interval, a second by default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The stage of the run.
    pub stage: Stage,
    /// Its start, in nanoseconds since the run began.
    pub start: u64,
    /// Its end.
    pub end: u64,
    /// Requests answered in it, each byte of them verified.
    pub echoes: u64,
    /// Connections that were open at its end.
    pub open: u64,
    /// Faults of the run up to its end.
    pub faults: u64,
    /// Service time: from the actual send to the answer.
    pub service_time: Latencies,
    /// Response time: from the planned send to the answer. Only an open loop plans.
    pub response_time: Latencies,
    /// From the planned send to the moment when the generator took the request up: its own lateness.
    pub lag: Latencies,
    /// From connect(2) to being connected.
    pub connect: Latencies,
}

impl Interval {
    /// An empty interval.
    #[must_use]
    pub fn new(stage: Stage, start: u64) -> Self {
        Self {
            stage,
            start,
            end: start,
            echoes: 0,
            open: 0,
            faults: 0,
            service_time: latencies(),
            response_time: latencies(),
            lag: latencies(),
            connect: latencies(),
        }
    }

    /// Empties the interval, for another one.
    pub(super) fn begin(&mut self, stage: Stage, start: u64) {
        (self.stage, self.start, self.end) = (stage, start, start);
        (self.echoes, self.open, self.faults) = (0, 0, 0);
        for latencies in [
            &mut self.service_time,
            &mut self.response_time,
            &mut self.lag,
            &mut self.connect,
        ] {
            if !latencies.is_empty() {
                latencies.reset();
            }
        }
    }
}

/// Records a latency.
#[inline]
pub(super) fn note(latencies: &mut Latencies, nanoseconds: u64) {
    latencies.saturating_record(nanoseconds);
}

/// What became of every request. It must balance: see [`Counters::balance`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Requests handed to a connection.
    pub sent: u64,
    /// Requests that came back, every byte verified.
    pub echoed: u64,
    /// Requests that will not come back: their datagram was too late, or their connection broke.
    pub lost: u64,
    /// Requests that were in flight when the run ended. Counted one by one, not computed from the rest.
    pub in_flight: u64,
    /// Datagrams that came back more than once.
    pub duplicates: u64,
    /// Datagrams that came back after one that was sent later.
    pub reordered: u64,
    /// Datagrams that came back after they were given up. They no longer count as lost, unless they came so late that
    /// their number was forgotten.
    pub late: u64,
    /// Requests of an open loop that were planned, and found no free connection until the end.
    pub unsent: u64,
    /// Requests of an open loop that still waited for a connection when the warm-up ended, and were dropped then.
    pub warm_up_dropped: u64,
    /// Requests of an open loop that were left out, since the queue of planned requests was full.
    pub left_out: u64,
    /// Connections that were made, and proved by an echo.
    pub opened: u64,
    /// Connections that broke, or could not be made.
    pub failed: u64,
    /// Connections that were not tried, since too many before them had no answer in time.
    pub untried: u64,
    /// Connections that were opened, used once, and closed.
    pub cycles: u64,
    /// Slow readers that the server has cut off.
    pub slow_cut: u64,
    /// Connections that reset clients have reset.
    pub bad_resets: u64,
    /// Bytes that slowloris clients have sent.
    pub bad_bytes: u64,
    /// Connections of half-close clients on which everything came back, and then FIN.
    pub bad_half_closed: u64,
    /// Other badly behaved clients that the server has closed, or whose echo it has cut short.
    pub bad_cut: u64,
}

impl Counters {
    /// The counters by name, in the order in which they are shown.
    #[must_use]
    pub fn counters(&self) -> [(&'static str, u64); 19] {
        [
            ("sent", self.sent),
            ("echoed", self.echoed),
            ("lost", self.lost),
            ("in_flight", self.in_flight),
            ("duplicates", self.duplicates),
            ("reordered", self.reordered),
            ("late", self.late),
            ("unsent", self.unsent),
            ("warm_up_dropped", self.warm_up_dropped),
            ("left_out", self.left_out),
            ("opened", self.opened),
            ("failed", self.failed),
            ("untried", self.untried),
            ("cycles", self.cycles),
            ("slow_cut", self.slow_cut),
            ("bad_resets", self.bad_resets),
            ("bad_bytes", self.bad_bytes),
            ("bad_half_closed", self.bad_half_closed),
            ("bad_cut", self.bad_cut),
        ]
    }

    fn counters_mut(&mut self) -> [&mut u64; 19] {
        [
            &mut self.sent,
            &mut self.echoed,
            &mut self.lost,
            &mut self.in_flight,
            &mut self.duplicates,
            &mut self.reordered,
            &mut self.late,
            &mut self.unsent,
            &mut self.warm_up_dropped,
            &mut self.left_out,
            &mut self.opened,
            &mut self.failed,
            &mut self.untried,
            &mut self.cycles,
            &mut self.slow_cut,
            &mut self.bad_resets,
            &mut self.bad_bytes,
            &mut self.bad_half_closed,
            &mut self.bad_cut,
        ]
    }

    /// Adds the counters of another worker.
    pub fn add(&mut self, other: &Self) {
        for (counter, (_, more)) in self.counters_mut().into_iter().zip(other.counters()) {
            *counter = counter.saturating_add(more);
        }
    }

    /// Whether every request is accounted for: sent = echoed + lost + in flight.
    #[must_use]
    pub fn balance(&self) -> bool {
        let back = self.echoed.saturating_add(self.lost);
        self.sent == back.saturating_add(self.in_flight)
    }
}

/// How evenly the connections were served: sums, which can be added up across workers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fairness {
    /// Connections that were meant to be active.
    pub connections: u64,
    /// Echoes of all, in the window.
    pub sum: f64,
    /// The sum of their squares.
    pub squares: f64,
    /// Of the connection that had the fewest.
    pub fewest: u64,
    /// Of the connection that had the most.
    pub most: u64,
    /// The longest time, in nanoseconds, that any of them waited from one echo to the next.
    pub longest_gap: u64,
}

impl Fairness {
    pub(super) fn note(&mut self, echoes: u64, gap: u64) {
        self.fewest = match self.connections {
            0 => echoes,
            _ => self.fewest.min(echoes),
        };
        self.connections += 1;
        self.sum += echoes as f64;
        self.squares += (echoes as f64).powi(2);
        self.most = self.most.max(echoes);
        self.longest_gap = self.longest_gap.max(gap);
    }

    /// Adds the figures of another worker.
    pub fn add(&mut self, other: &Self) {
        self.fewest = match (self.connections, other.connections) {
            (0, _) => other.fewest,
            (_, 0) => self.fewest,
            _ => self.fewest.min(other.fewest),
        };
        self.connections = self.connections.saturating_add(other.connections);
        self.sum += other.sum;
        self.squares += other.squares;
        self.most = self.most.max(other.most);
        self.longest_gap = self.longest_gap.max(other.longest_gap);
    }

    /// Jain's index of fairness: 1 if all connections had the same number, 1/n if one of n had them all. `None` if none
    /// had an echo.
    #[must_use]
    pub fn jain(&self) -> Option<f64> {
        let all = self.connections as f64 * self.squares;
        (all > 0.0).then(|| self.sum.powi(2) / all)
    }
}

/// How many unanswered connections are named.
const NAMED_MAX: usize = 10;

/// Requests on streams that had no answer when they were given up, or when the run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unanswered {
    /// The number of requests.
    pub requests: u64,
    /// Requests among them that were not given up: the end of the run came before their timeout.
    pub awaited: u64,
    /// The connections that they were sent on.
    pub connections: u64,
    /// Connections among these on which an answer had begun to come.
    pub half: u64,
    /// The longest that any of them waited, in nanoseconds.
    #[serde(rename = "longest_ns")]
    pub longest: u64,
    /// The numbers of the first of these connections.
    pub numbers: Vec<u32>,
}

impl Unanswered {
    /// Adds one connection, with its waiting requests.
    pub(super) fn note(&mut self, number: u32, requests: u64, half: bool, waited: u64) {
        self.requests += requests;
        self.connections += 1;
        self.half += u64::from(half);
        self.longest = self.longest.max(waited);
        if self.numbers.len() < NAMED_MAX {
            self.numbers.push(number);
        }
    }

    /// Adds the figures of another worker.
    pub fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.awaited = self.awaited.saturating_add(other.awaited);
        self.connections = self.connections.saturating_add(other.connections);
        self.half = self.half.saturating_add(other.half);
        self.longest = self.longest.max(other.longest);
        self.numbers.extend(&other.numbers);
        self.numbers.truncate(NAMED_MAX);
    }
}

/// Times in which the generator itself stood still: stopped, starved of a processor, or busy with one thing for so
/// long. They look like a slow server, and are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pauses {
    /// How many there were.
    pub count: u64,
    /// All of them together, in nanoseconds.
    pub total: u64,
    /// The longest, in nanoseconds.
    pub longest: u64,
    /// When the longest began, in nanoseconds since the window did.
    pub at: u64,
}

impl Pauses {
    pub(super) fn note(&mut self, at: u64, lasted: u64) {
        self.add(&Self {
            count: 1,
            total: lasted,
            longest: lasted,
            at,
        });
    }

    /// Adds the figures of another worker.
    pub fn add(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.total = self.total.saturating_add(other.total);
        if other.longest > self.longest {
            (self.longest, self.at) = (other.longest, other.at);
        }
    }
}

/// What TCP has sent again on connections of this run, as far as they were asked (TCP_INFO, tcp(7)). It covers this
/// end of the connection, and not the server's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resent {
    /// Segments.
    pub segments: u64,
    /// Connections with at least one.
    pub connections: u64,
}

impl Resent {
    pub(super) fn note(&mut self, segments: u64) {
        self.segments += segments;
        self.connections += u64::from(segments > 0);
    }

    /// Adds the figures of another worker.
    pub fn add(&mut self, other: &Self) {
        self.segments = self.segments.saturating_add(other.segments);
        self.connections = self.connections.saturating_add(other.connections);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_known_distribution() {
        let mut sum = latencies();
        // 1 us, 2 us, ... 100 ms, in two halves that are added up.
        for half in 0..2 {
            let mut stage = latencies();
            (0..50_000u64).for_each(|n| note(&mut stage, (2 * n + 1 + half) * 1_000));
            sum.add(&stage);
        }
        for (quantile, expected) in [(0.5, 50e6), (0.9, 90e6), (0.99, 99e6), (0.9999, 99.99e6)] {
            let found = sum.value_at_quantile(quantile) as f64;
            let off = (found - expected).abs() / expected;
            assert!(off < 0.0015, "{quantile}: {found} is not {expected}");
        }
        assert_eq!(sum.len(), 100_000);
    }

    #[test]
    fn jains_index() {
        let mut even = Fairness::default();
        (0..10).for_each(|_| even.note(7, 1));
        assert!((even.jain().unwrap() - 1.0).abs() < 1e-9);
        let mut one = Fairness::default();
        one.note(100, 5);
        let mut rest = Fairness::default();
        (0..9).for_each(|_| rest.note(0, 2));
        one.add(&rest);
        assert!((one.jain().unwrap() - 0.1).abs() < 1e-9);
        assert_eq!((one.fewest, one.most, one.longest_gap), (0, 100, 5));
        assert_eq!(rest.jain(), None, "nothing came back, and that is not fair");
    }

    #[test]
    fn counters_have_their_names() {
        let named = Counters::default().counters();
        let named = named.map(|(name, _)| (name.to_owned(), name.len().into()));
        let json = serde_json::Value::Object(named.into_iter().collect());
        let counters: Counters = serde_json::from_value(json).unwrap();
        assert!(
            counters
                .counters()
                .iter()
                .all(|(name, count)| name.len() as u64 == *count)
        );
    }
}
