//! The queue of an open loop: requests that are planned on a clock, and the connections that may take one.
//!
//! A request that is due and finds no free connection waits in a queue whose length has a bound: a rate beyond every
//! server would take all memory otherwise. What is due while the queue is full is left out, counted, and makes the run
//! invalid.

use super::connections::Connections;
use super::context::WorkerContext;
use super::in_flight::Request;
use super::plan::Plan;
use super::schedule::ArrivalSchedule;
use crate::reactor::Key;
use std::collections::VecDeque;

/// Planned requests that may wait for a connection, in each worker: eight megabytes of them.
pub const QUEUE_MAX: usize = 1 << 20;
/// Arrivals that are taken in one go. At an absurd rate another one is always due, and the loop would never come round
/// to answers, to the clock and to Ctrl-C.
const ARRIVALS_BUDGET: usize = 256;

/// Planned requests, and the connections that may take them.
#[derive(Debug)]
pub(super) struct ArrivalQueue {
    /// `None` in a closed loop, and when no more requests are planned.
    schedule: Option<ArrivalSchedule>,
    /// The planned times of requests that found no free connection, at most [`QUEUE_MAX`] of them.
    backlog: VecDeque<u64>,
    /// Connections that may take another request, the longest waiting first.
    free: VecDeque<(Key, u32)>,
    /// Which connections are in `free`, by place.
    listed: Vec<bool>,
}

impl ArrivalQueue {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            schedule: None,
            backlog: VecDeque::new(),
            free: VecDeque::new(),
            listed: vec![false; plan.connections],
        }
    }

    /// Begins to plan requests. Without a schedule, this worker has none to send.
    pub(super) fn begin(
        &mut self,
        schedule: Option<ArrivalSchedule>,
        connections: &mut Connections<'_>,
    ) {
        self.schedule = schedule;
        for key in connections.connector().active() {
            self.list(key, connections);
        }
    }

    /// Whether requests are planned that are not due yet.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.schedule.is_some()
    }

    /// When the next request is due.
    #[inline]
    pub(super) fn next_due(&self) -> Option<u64> {
        self.schedule.as_ref().map(ArrivalSchedule::next_due)
    }

    /// Whether no planned request waits for a connection.
    pub(super) fn is_empty(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Forgets the waiting requests that were planned before a time, and returns how many they were.
    pub(super) fn forget_before(&mut self, time: u64) -> u64 {
        let count = self.backlog.partition_point(|planned| *planned < time);
        self.backlog.drain(..count);
        count as u64
    }

    /// Takes the arrivals that are due, as many as fit into one go.
    pub(super) fn take_due(
        &mut self,
        connections: &mut Connections<'_>,
        context: &mut WorkerContext,
    ) {
        for _ in 0..ARRIVALS_BUDGET {
            let now = context.read_clock();
            let Some(planned) = self.schedule.as_mut().and_then(|some| some.take(now)) else {
                return;
            };
            if planned >= context.record().window().1 || !context.may_plan() {
                self.schedule = None;
                return;
            }
            context.recorder().note_lag(planned, now);
            if self.backlog.len() >= QUEUE_MAX {
                return self.skip(now, context);
            }
            self.backlog.push_back(planned);
            self.serve(connections, context);
        }
    }

    /// Takes what was due before the end and has not been taken, since the generator stood still just then. It is as much
    /// a part of the plan as the rest.
    pub(super) fn take_until_end(&mut self, ended_at: u64, context: &mut WorkerContext) {
        let (begin, end) = context.record().window();
        let until = ended_at.min(end.saturating_sub(1));
        while self.schedule.is_some() && until >= begin {
            let Some(planned) = self.schedule.as_mut().and_then(|some| some.take(until)) else {
                break;
            };
            if !context.may_plan() {
                break;
            }
            if self.backlog.len() >= QUEUE_MAX {
                self.skip(until, context);
            } else {
                context.recorder().note_lag(planned, ended_at);
                self.backlog.push_back(planned);
            }
        }
        self.schedule = None;
    }

    /// Records the requests that were never sent, at the end of the run.
    pub(super) fn give_up(&mut self, ended_at: u64, context: &mut WorkerContext) {
        for planned in std::mem::take(&mut self.backlog) {
            context.recorder().not_sent(planned, ended_at);
        }
    }

    /// The queue is full: what is due by now, and one that was taken already, is left out.
    #[cold]
    fn skip(&mut self, now: u64, context: &mut WorkerContext) {
        let end = context.record().window().1;
        let schedule = self.schedule.as_mut();
        let skipped = schedule.map_or(0, |schedule| schedule.skip(now.min(end)));
        context.recorder().counters_mut().left_out += 1 + skipped;
        context.forgo(skipped);
    }

    /// Sends the requests that are due, as far as connections are free.
    fn serve(&mut self, connections: &mut Connections<'_>, context: &mut WorkerContext) {
        while !self.backlog.is_empty() {
            let Some((key, place)) = self.free.pop_front() else {
                return;
            };
            self.listed[place as usize] = false;
            if !connections.is_alive(key) {
                continue;
            }
            if let Some(planned) = self.backlog.pop_front() {
                context.recorder().counters_mut().sent += 1;
                let request = Request::planned_for(planned, context.now());
                connections.send(key, request, context);
                self.list(key, connections);
            }
        }
    }

    /// Puts a connection that may take another request at the end of their list.
    fn list(&mut self, key: Key, connections: &mut Connections<'_>) {
        if let Some(place) = connections.free_place(key) {
            if !std::mem::replace(&mut self.listed[place as usize], true) {
                self.free.push_back((key, place));
            }
        }
    }

    /// A connection has had answers: it may take another request, and does if one waits. The last ones wait when nothing more
    /// is planned.
    pub(super) fn on_answered(
        &mut self,
        key: Key,
        connections: &mut Connections<'_>,
        context: &mut WorkerContext,
    ) {
        if self.schedule.is_some() || !self.backlog.is_empty() {
            self.list(key, connections);
            self.serve(connections, context);
        }
    }
}
