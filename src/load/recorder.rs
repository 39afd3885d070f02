//! What a worker has recorded so far: the current interval, the counters, the faults, and the requests without an answer.
//!
//! Which requests are measured is decided here: in an open loop those that were planned within the window.

use super::faults::{Fault, Faults};
use super::in_flight::Request;
use super::message::{ControlChannel, Final, Message};
use super::metrics::{Counters, Interval, Pauses, Resent, Stage, Unanswered, note};

/// The record of one worker.
#[derive(Debug)]
pub(super) struct Recorder {
    interval: Box<Interval>,
    /// The interval that is filled next; `None` before the first was sent.
    spare: Option<Box<Interval>>,
    counters: Counters,
    faults: Faults,
    unanswered: Unanswered,
    pauses: Pauses,
    /// Pauses while the connections were opened.
    opening_pauses: Pauses,
    resent: Resent,
    /// Whether requests are planned: then only requests count that were planned within `window`. What was left over
    /// from the warm-up is no throughput of the window.
    planned: bool,
    window: (u64, u64),
}

impl Recorder {
    pub(super) fn new(planned: bool) -> Self {
        Self {
            interval: Box::new(Interval::new(Stage::Opening, 0)),
            spare: None,
            counters: Counters::default(),
            faults: Faults::default(),
            unanswered: Unanswered::default(),
            pauses: Pauses::default(),
            opening_pauses: Pauses::default(),
            resent: Resent::default(),
            planned,
            window: (0, 0),
        }
    }

    // ---- requests ----

    /// Records a request whose answer has come back, verified.
    #[inline]
    pub(super) fn answered(&mut self, request: Request, now: u64) {
        self.counters.echoed += 1;
        if self.planned {
            return self.answered_as_planned(request, now);
        }
        self.interval.echoes += 1;
        note(&mut self.interval.service_time, request.waited(now));
    }

    /// The same for an open loop, where only requests that were planned within the window are measured.
    fn answered_as_planned(&mut self, request: Request, now: u64) {
        if self.is_in_window(request.planned()) {
            self.interval.echoes += 1;
            note(&mut self.interval.service_time, request.waited(now));
            self.note_response_time(request.planned(), now);
        } else if self.interval.stage == Stage::WarmUp {
            self.interval.echoes += 1;
        }
    }

    #[inline]
    fn is_in_window(&self, planned: u64) -> bool {
        planned >= self.window.0 && planned < self.window.1
    }

    fn note_response_time(&mut self, planned: u64, now: u64) {
        let waited = now.saturating_sub(planned);
        note(&mut self.interval.response_time, waited);
    }

    /// Records a request that has had no answer: its latency is at least the time that it has waited so far. To leave it
    /// out would make a server the quicker the more requests it leaves without an answer.
    pub(super) fn not_answered(&mut self, request: Request, now: u64) {
        if !self.planned {
            note(&mut self.interval.service_time, request.waited(now));
        } else if self.is_in_window(request.planned()) {
            note(&mut self.interval.service_time, request.waited(now));
            self.note_response_time(request.planned(), now);
        }
    }

    /// Records a request that was planned and never sent: it has waited for at least so long. To leave it out would say
    /// that the server was quick because it could not be asked.
    pub(super) fn not_sent(&mut self, planned: u64, now: u64) {
        self.counters.unsent += 1;
        if planned >= self.window.0 {
            self.note_response_time(planned, now);
        }
    }

    /// Names a connection whose requests have had no answer.
    pub(super) fn unanswered_on(
        &mut self,
        connection: u32,
        requests: u64,
        half: bool,
        waited: u64,
    ) {
        self.unanswered.note(connection, requests, half, waited);
    }

    /// Counts requests that the end of the run came too early for.
    pub(super) fn awaited_at_end(&mut self, requests: u64) {
        self.counters.in_flight += requests;
        self.unanswered.awaited += requests;
    }

    /// The longest wait for an answer that has not come.
    pub(super) fn longest_unanswered(&self) -> u64 {
        self.unanswered.longest
    }

    /// Whether every request has come back or is lost.
    #[inline]
    pub(super) fn has_all_back(&self) -> bool {
        self.counters.sent == self.counters.echoed + self.counters.lost
    }

    // ---- the rest of what happens ----

    #[inline]
    pub(super) fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    pub(super) fn note_connect(&mut self, took: u64) {
        note(&mut self.interval.connect, took);
    }

    /// Records how late the generator took a planned request up, if it was planned within the window or behind it.
    pub(super) fn note_lag(&mut self, planned: u64, now: u64) {
        if planned >= self.window.0 {
            note(&mut self.interval.lag, now - planned);
        }
    }

    pub(super) fn note_resent(&mut self, segments: u64) {
        self.resent.note(segments);
    }

    pub(super) fn note_fault(&mut self, fault: &Fault, context: impl FnOnce() -> String) {
        self.faults.note(fault, context);
    }

    /// Records that the loop itself stood still. Nothing of a warm-up is in the figures.
    pub(super) fn note_pause(&mut self, began: u64, lasted: u64) {
        match self.interval.stage {
            Stage::Opening => self.opening_pauses.note(began, lasted),
            Stage::WarmUp => {}
            Stage::Window | Stage::Drain => {
                let at = began.saturating_sub(self.window.0);
                self.pauses.note(at, lasted);
            }
        }
    }

    // ---- stages and intervals ----

    pub(super) fn stage(&self) -> Stage {
        self.interval.stage
    }

    /// The begin and the end of the window.
    pub(super) fn window(&self) -> (u64, u64) {
        self.window
    }

    pub(super) fn set_window(&mut self, begin: u64, end: u64) {
        self.window = (begin, end);
    }

    /// Sends the interval, and begins another. Two of them take turns: to allocate one, a megabyte of zeros, took half a
    /// millisecond out of every second.
    pub(super) fn rotate(
        &mut self,
        stage: Stage,
        now: u64,
        open: u64,
        channel: &mut dyn ControlChannel,
    ) {
        let spare = self.spare.take();
        let mut next = spare.unwrap_or_else(|| Box::new(Interval::new(stage, now)));
        next.begin(stage, now);
        let mut interval = std::mem::replace(&mut self.interval, next);
        interval.end = now;
        interval.open = open;
        interval.faults = self.faults.total();
        let message = Message::Interval(interval);
        channel.tell(&message);
        if let Message::Interval(interval) = message {
            self.spare = Some(interval);
        }
    }

    /// What is known at the end of the run, as far as it is recorded here.
    pub(super) fn into_final(self) -> Final {
        Final {
            counters: self.counters,
            faults: self.faults,
            unanswered: self.unanswered,
            pauses: self.pauses,
            opening_pauses: self.opening_pauses,
            resent: self.resent,
            ..Final::default()
        }
    }
}
