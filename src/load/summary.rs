//! The sum of what workers have told.

use super::{Final, Interval, Latencies, Message, Stage, latencies};
use std::time::Duration;

/// A second of the window, as it is drawn and listed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Second {
    /// When it began, in seconds since the window did.
    pub at: f64,
    /// How long it was, in seconds.
    pub lasted: f64,
    /// Echoes in it.
    pub echoes: u64,
    /// Half of the answers took no longer, in nanoseconds.
    pub p50: u64,
    /// Of a hundred answers, ninety-nine took no longer.
    pub p99: u64,
    /// The longest.
    pub max: u64,
}

/// See the page above.
#[derive(Debug)]
pub struct Total {
    workers: usize,
    /// Seconds of which some workers have told and others not.
    pending: Vec<Pending>,
    /// How many slices of which part each worker has told.
    told: Vec<(Option<Stage>, usize)>,
    /// From the actual send to the answer.
    pub actual: Latencies,
    /// From the planned send to the answer; in a closed loop there is none.
    pub planned: Latencies,
    /// The generator's own lateness.
    pub lag: Latencies,
    /// From connecting to being connected.
    pub connect: Latencies,
    /// Echoes in the window.
    pub echoes: u64,
    /// The window, second by second.
    pub seconds: Vec<Second>,
    /// When the first window began, in nanoseconds since the run did.
    pub window_at: Option<u64>,
    /// What the workers said at their end.
    pub end: Final,
    /// Connections that were open when the load began, and the longest time that opening them took.
    pub opened: (u64, Duration),
    opened_by: usize,
    /// Connections that each worker has open while it opens more.
    opening: Vec<u64>,
    ended_by: usize,
}

#[derive(Debug)]
struct Pending {
    place: usize,
    told_by: usize,
    slice: Interval,
}

impl Total {
    /// Of so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            pending: Vec::new(),
            told: vec![(None, 0); workers],
            actual: latencies(),
            planned: latencies(),
            lag: latencies(),
            connect: latencies(),
            echoes: 0,
            seconds: Vec::new(),
            window_at: None,
            end: Final::default(),
            opened: (0, Duration::ZERO),
            opened_by: 0,
            opening: vec![0; workers],
            ended_by: 0,
        }
    }

    /// How many connections are open, as far as is known, while they are being opened.
    #[must_use]
    pub fn opening(&self) -> u64 {
        self.opening.iter().sum()
    }

    /// Whether all workers have opened their connections.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.opened_by == self.workers
    }

    /// Whether all workers have come to their end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ended_by == self.workers
    }

    /// What kind of latency is the one to look at: from the plan, if there is one.
    #[must_use]
    pub fn latency(&self) -> &Latencies {
        match self.planned.is_empty() {
            true => &self.actual,
            false => &self.planned,
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

    /// Adds what a worker said. Returns the slice that is complete with it, if one is.
    ///
    /// # Errors
    /// What the worker said of why it could not run.
    pub fn take(&mut self, worker: usize, message: Message) -> Result<Option<Interval>, String> {
        match message {
            Message::Opening(open) => self.opening[worker] = open,
            Message::Opened(open, took) => {
                self.opening[worker] = open;
                self.opened.0 += open;
                self.opened.1 = self.opened.1.max(Duration::from_nanos(took));
                self.opened_by += 1;
            }
            Message::Interval(slice) => return Ok(self.join(worker, *slice)),
            Message::Done(end) => {
                self.finish(&end);
                self.ended_by += 1;
            }
            Message::Failed(why) => return Err(why),
        }
        Ok(None)
    }

    fn finish(&mut self, end: &Final) {
        let sum = &mut self.end;
        sum.counters.add(&end.counters);
        for (kind, count, first) in end.faults.iter() {
            sum.faults.add(kind, count, first);
        }
        sum.shares.add(&end.shares);
        sum.unanswered.add(&end.unanswered);
        sum.pauses.add(&end.pauses);
        sum.resent.add(&end.resent);
        sum.usage = sum.usage.plus(end.usage);
        sum.window = sum.window.max(end.window);
        sum.server = sum.server.or(end.server);
        sum.interrupted |= end.interrupted;
    }

    /// Adds a slice, and joins it with those of the same second.
    fn join(&mut self, worker: usize, slice: Interval) -> Option<Interval> {
        self.add(&slice);
        let told = &mut self.told[worker];
        *told = match told.0 == Some(slice.part) {
            true => (told.0, told.1 + 1),
            false => (Some(slice.part), 0),
        };
        let (part, place) = (slice.part, told.1);
        let same = |pending: &Pending| pending.place == place && pending.slice.part == part;
        let at = match self.pending.iter().position(same) {
            Some(at) => {
                let pending = &mut self.pending[at];
                merge(&mut pending.slice, &slice);
                pending.told_by += 1;
                at
            }
            None => {
                self.pending.push(Pending {
                    place,
                    told_by: 1,
                    slice,
                });
                self.pending.len() - 1
            }
        };
        if self.pending[at].told_by < self.workers {
            return None;
        }
        let slice = self.pending.remove(at).slice;
        if slice.part == Stage::Window {
            self.list(&slice);
        }
        Some(slice)
    }

    fn add(&mut self, slice: &Interval) {
        if slice.part != Stage::WarmUp {
            self.connect.add(&slice.connect);
        }
        if matches!(slice.part, Stage::Window | Stage::Drain) {
            self.planned.add(&slice.planned);
            self.lag.add(&slice.lag);
            self.actual.add(&slice.actual);
        }
        if slice.part == Stage::Window {
            self.echoes += slice.echoes;
        }
    }

    fn list(&mut self, slice: &Interval) {
        let start = *self.window_at.get_or_insert(slice.start);
        let latency = slice.latency();
        self.seconds.push(Second {
            at: slice.start.saturating_sub(start) as f64 / 1e9,
            lasted: (slice.end - slice.start) as f64 / 1e9,
            echoes: slice.echoes,
            p50: latency.value_at_quantile(0.5),
            p99: latency.value_at_quantile(0.99),
            max: latency.max(),
        });
    }
}

impl Interval {
    /// What kind of latency is the one to look at.
    #[must_use]
    pub fn latency(&self) -> &Latencies {
        match self.planned.is_empty() {
            true => &self.actual,
            false => &self.planned,
        }
    }
}

fn merge(sum: &mut Interval, more: &Interval) {
    sum.start = sum.start.min(more.start);
    sum.end = sum.end.max(more.end);
    sum.echoes += more.echoes;
    sum.open += more.open;
    sum.faults += more.faults;
    sum.actual.add(&more.actual);
    sum.planned.add(&more.planned);
    sum.lag.add(&more.lag);
    sum.connect.add(&more.connect);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(part: Stage, echoes: u64) -> Message {
        let mut slice = Interval::new(part, 0);
        slice.end = 1_000_000_000;
        slice.echoes = echoes;
        for _ in 0..echoes {
            slice.actual.saturating_record(1_000 * echoes);
        }
        Message::Interval(Box::new(slice))
    }

    #[test]
    fn seconds_are_joined_across_workers_and_the_warm_up_does_not_count() {
        let mut total = Total::new(2);
        assert!(total.take(0, slice(Stage::WarmUp, 5)).unwrap().is_none());
        assert!(total.take(0, slice(Stage::Window, 10)).unwrap().is_none());
        assert!(total.take(1, slice(Stage::WarmUp, 5)).unwrap().is_some());
        assert!(total.take(0, slice(Stage::Window, 1)).unwrap().is_none());
        let joined = total.take(1, slice(Stage::Window, 20)).unwrap().unwrap();
        assert_eq!((joined.echoes, joined.actual.len()), (30, 30));
        assert_eq!((total.echoes, total.actual.len()), (31, 31));
        assert_eq!(total.seconds.len(), 1);
    }
}
