//! The sum of what all workers have reported.
//!
//! A worker may run on another machine, so its messages are input like any other: sums saturate, messages out of order are
//! refused, and what waits for other workers has a bound.

use super::{Final, Interval, Latencies, Message, Stage, latencies};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Intervals that may wait for the same interval of other workers: no worker is that far behind without being lost.
const PENDING_MAX: usize = 1_000;

/// A second of the window, as it is drawn and listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Second {
    /// When it began, in seconds since the window did.
    pub at: f64,
    /// How long it was, in seconds.
    #[serde(rename = "seconds")]
    pub lasted: f64,
    /// Echoes in it.
    pub echoes: u64,
    /// The median latency, in nanoseconds.
    pub p50: u64,
    /// The p99, in nanoseconds.
    pub p99: u64,
    /// The longest latency, in nanoseconds.
    pub max: u64,
}

/// The sum of what all workers have reported.
#[derive(Debug)]
pub struct Total {
    workers: usize,
    /// Intervals that some workers have reported, and some not yet.
    pending: Vec<Pending>,
    /// How many intervals of which stage each worker has reported.
    told: Vec<(Option<Stage>, usize)>,
    /// Service time: from the actual send to the answer.
    pub service_time: Latencies,
    /// Response time: from the planned send to the answer; empty in a closed loop.
    pub response_time: Latencies,
    /// The generator's own lateness.
    pub lag: Latencies,
    /// From connect(2) to being connected.
    pub connect: Latencies,
    /// Echoes in the window.
    pub echoes: u64,
    /// The window, second by second.
    pub seconds: Vec<Second>,
    /// When the first window began, in nanoseconds since the run did.
    pub window_at: Option<u64>,
    /// What the workers have reported at their end.
    pub end: Final,
    /// Connections that were open when the load began, and the longest time that opening them took.
    pub opened: (u64, Duration),
    /// The workers that have opened their connections.
    opened_by: Vec<bool>,
    /// Connections that each worker has open while it opens more.
    opening: Vec<u64>,
    ended_by: usize,
}

#[derive(Debug)]
struct Pending {
    place: usize,
    told_by: usize,
    interval: Interval,
}

impl Total {
    /// An empty sum, for this number of workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            pending: Vec::new(),
            told: vec![(None, 0); workers],
            service_time: latencies(),
            response_time: latencies(),
            lag: latencies(),
            connect: latencies(),
            echoes: 0,
            seconds: Vec::new(),
            window_at: None,
            end: Final::default(),
            opened: (0, Duration::ZERO),
            opened_by: vec![false; workers],
            opening: vec![0; workers],
            ended_by: 0,
        }
    }

    /// How many connections are open, as far as is known, while they are being opened.
    #[must_use]
    pub fn opening(&self) -> u64 {
        let opening = self.opening.iter().copied();
        opening.fold(0, u64::saturating_add)
    }

    /// Whether all workers have opened their connections.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.opened_by.iter().all(|has_opened| *has_opened)
    }

    /// Whether all workers have come to their end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ended_by == self.workers
    }

    /// The latency to look at: the response time if there is one, otherwise the service time.
    #[must_use]
    pub fn latency(&self) -> &Latencies {
        match self.response_time.is_empty() {
            true => &self.service_time,
            false => &self.response_time,
        }
    }

    /// The length of the window, in seconds: the longest that a worker had.
    #[must_use]
    pub fn window(&self) -> f64 {
        self.end.window as f64 / 1e9
    }

    /// Echoes a second in the window.
    #[must_use]
    pub fn rate(&self) -> f64 {
        match self.window() > 0.0 {
            true => self.echoes as f64 / self.window(),
            false => 0.0,
        }
    }

    /// Adds a message of a worker. Returns the interval that is complete with it, if one is.
    ///
    /// # Errors
    /// The reason why the worker could not run, or why its message cannot be one of a worker.
    pub fn take(&mut self, worker: usize, message: Message) -> Result<Option<Interval>, String> {
        match message {
            Message::Opening(open) => self.opening[worker] = open,
            Message::Opened(open, took) => {
                if std::mem::replace(&mut self.opened_by[worker], true) {
                    return Err("its connections were opened twice".into());
                }
                self.opening[worker] = open;
                self.opened.0 = self.opened.0.saturating_add(open);
                self.opened.1 = self.opened.1.max(Duration::from_nanos(took));
            }
            Message::Interval(_) if self.pending.len() >= PENDING_MAX => {
                return Err(format!(
                    "it is {PENDING_MAX} intervals ahead of another worker"
                ));
            }
            Message::Interval(interval) => return Ok(self.join(worker, *interval)),
            Message::Done(_) if !self.opened_by[worker] => {
                return Err("it has ended before its connections were open".into());
            }
            Message::Done(end) => {
                self.finish(&end);
                self.ended_by += 1;
            }
            Message::Failed(why) => return Err(why),
            Message::Hello(_) | Message::Begun => {}
        }
        Ok(None)
    }

    /// The sum as one worker would report it, with the window as one interval: a sum that takes these messages is the same.
    #[cfg(feature = "cli")]
    pub(crate) fn to_messages(&self) -> [Message; 3] {
        let window = Interval {
            end: self.end.window,
            echoes: self.echoes,
            service_time: self.service_time.clone(),
            response_time: self.response_time.clone(),
            lag: self.lag.clone(),
            connect: self.connect.clone(),
            ..Interval::new(Stage::Window, 0)
        };
        [
            Message::Opened(self.opened.0, self.opened.1.as_nanos() as u64),
            Message::Interval(Box::new(window)),
            Message::Done(Box::new(self.end.clone())),
        ]
    }

    fn finish(&mut self, end: &Final) {
        let sum = &mut self.end;
        sum.counters.add(&end.counters);
        for (kind, count, first) in end.faults.iter() {
            sum.faults.add(kind, count, first);
        }
        sum.fairness.add(&end.fairness);
        sum.unanswered.add(&end.unanswered);
        sum.pauses.add(&end.pauses);
        sum.opening_pauses.add(&end.opening_pauses);
        sum.resent.add(&end.resent);
        sum.usage = sum.usage.plus(end.usage);
        sum.window = sum.window.max(end.window);
        sum.server = sum.server.or(end.server);
        sum.interrupted |= end.interrupted;
    }

    /// Adds an interval, and joins it with those of the same time.
    fn join(&mut self, worker: usize, interval: Interval) -> Option<Interval> {
        self.add(&interval);
        let told = &mut self.told[worker];
        *told = match told.0 == Some(interval.stage) {
            true => (told.0, told.1 + 1),
            false => (Some(interval.stage), 0),
        };
        let (stage, place) = (interval.stage, told.1);
        let same = |pending: &Pending| pending.place == place && pending.interval.stage == stage;
        let at = match self.pending.iter().position(same) {
            Some(at) => {
                let pending = &mut self.pending[at];
                merge(&mut pending.interval, &interval);
                pending.told_by += 1;
                at
            }
            None => {
                self.pending.push(Pending {
                    place,
                    told_by: 1,
                    interval,
                });
                self.pending.len() - 1
            }
        };
        if self.pending[at].told_by < self.workers {
            return None;
        }
        let interval = self.pending.remove(at).interval;
        if interval.stage == Stage::Window {
            self.list(&interval);
        }
        Some(interval)
    }

    fn add(&mut self, interval: &Interval) {
        if interval.stage != Stage::WarmUp {
            self.connect.add(&interval.connect);
        }
        if matches!(interval.stage, Stage::Window | Stage::Drain) {
            self.response_time.add(&interval.response_time);
            self.lag.add(&interval.lag);
            self.service_time.add(&interval.service_time);
        }
        if interval.stage == Stage::Window {
            self.echoes = self.echoes.saturating_add(interval.echoes);
        }
    }

    fn list(&mut self, interval: &Interval) {
        let start = *self.window_at.get_or_insert(interval.start);
        let latency = interval.latency();
        self.seconds.push(Second {
            at: interval.start.saturating_sub(start) as f64 / 1e9,
            lasted: interval.end.saturating_sub(interval.start) as f64 / 1e9,
            echoes: interval.echoes,
            p50: latency.value_at_quantile(0.5),
            p99: latency.value_at_quantile(0.99),
            max: latency.max(),
        });
    }
}

impl Interval {
    /// The latency to look at.
    #[must_use]
    pub fn latency(&self) -> &Latencies {
        match self.response_time.is_empty() {
            true => &self.service_time,
            false => &self.response_time,
        }
    }
}

fn merge(sum: &mut Interval, more: &Interval) {
    sum.start = sum.start.min(more.start);
    sum.end = sum.end.max(more.end);
    sum.echoes = sum.echoes.saturating_add(more.echoes);
    sum.open = sum.open.saturating_add(more.open);
    sum.faults = sum.faults.saturating_add(more.faults);
    sum.service_time.add(&more.service_time);
    sum.response_time.add(&more.response_time);
    sum.lag.add(&more.lag);
    sum.connect.add(&more.connect);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn slice(stage: Stage, echoes: u64) -> Message {
        let mut interval = Interval::new(stage, 0);
        interval.end = 1_000_000_000;
        interval.echoes = echoes;
        for _ in 0..echoes {
            interval.service_time.saturating_record(1_000 * echoes);
        }
        Message::Interval(Box::new(interval))
    }

    #[test]
    fn seconds_are_joined_across_workers_and_the_warm_up_does_not_count() {
        let mut total = Total::new(2);
        assert!(total.take(0, slice(Stage::WarmUp, 5)).unwrap().is_none());
        assert!(total.take(0, slice(Stage::Window, 10)).unwrap().is_none());
        assert!(total.take(1, slice(Stage::WarmUp, 5)).unwrap().is_some());
        assert!(total.take(0, slice(Stage::Window, 1)).unwrap().is_none());
        let joined = total.take(1, slice(Stage::Window, 20)).unwrap().unwrap();
        assert_eq!((joined.echoes, joined.service_time.len()), (30, 30));
        assert_eq!((total.echoes, total.service_time.len()), (31, 31));
        assert_eq!(total.seconds.len(), 1);
    }

    #[test]
    fn latencies_of_workers_add_up_to_those_of_all_samples_bucket_for_bucket() {
        let mut random = Random::new(1);
        for workers in 1..=8 {
            let (mut all, mut total) = (latencies(), Total::new(workers));
            for worker in 0..workers {
                let mut interval = Interval::new(Stage::Window, 0);
                for _ in 0..1_000 {
                    let sample = random.next() >> (20 + random.below(40));
                    all.saturating_record(sample);
                    interval.service_time.saturating_record(sample);
                }
                let message = Message::Interval(Box::new(interval));
                let line = serde_json::to_string(&message).unwrap();
                let message = serde_json::from_str(&line).unwrap();
                total.take(worker, message).unwrap();
            }
            assert_eq!(total.service_time, all, "{workers} workers");
        }
    }

    #[test]
    fn messages_out_of_order_are_refused() {
        let done = || Message::Done(Box::default());
        let mut total = Total::new(2);
        assert!(total.take(0, done()).is_err(), "nothing was opened");
        total.take(0, Message::Opened(1, 1)).unwrap();
        assert!(total.take(0, Message::Opened(1, 1)).is_err(), "twice");
        assert!(!total.is_open(), "the other worker has none");
        total.take(0, done()).unwrap();
        let ahead = |_: &usize| total.take(1, slice(Stage::Window, 0)).is_err();
        assert_eq!((0..=PENDING_MAX).find(ahead), Some(PENDING_MAX));
    }
}
