//! The end of a run: answers in flight are awaited, and requests without an answer are counted.
//!
//! A request without an answer is worse than a slow one. It is waited for until its timeout, and then it is a fault of its
//! connection; what is still awaited when a run is ended early is reported as such. Either way its latency is recorded as
//! the time that it has waited so far.

use super::in_flight::WorkerContext;
use super::metrics::{Fairness, Stage, note};
use super::worker::{Client, Worker, nanoseconds};
use crate::net::StreamSocket;
use crate::net::connect::{ClientSocket, ClientSource};
use crate::net::tcp_info::segments_resent;
use std::io;
use std::time::Duration;

/// The longest wait for answers that are under way when a run is ended by Ctrl-C.
const GRACE: Duration = Duration::from_secs(1);

impl Worker<'_> {
    /// Sends no more, and awaits the answers in flight until their timeout. `stage` is what the run was in: answers
    /// after a window belong to its figures, and answers after a warm-up to none.
    pub(super) fn drain(&mut self, ended_at: u64, stage: Stage) -> io::Result<()> {
        self.rotate(stage, ended_at);
        self.next_interval = u64::MAX;
        self.context.again = false;
        self.take_arrivals_until_end(ended_at);
        self.to_start = Vec::new();
        self.context.remaining = Some(0);
        self.connector.stop();
        self.close_bad_clients();
        // Those that were planned and never sent have waited for at least so long. Leaving them out would say that the
        // server was quick because it could not be asked.
        self.context.counters.unsent = self.backlog.len() as u64;
        for planned in std::mem::take(&mut self.backlog) {
            if planned >= self.context.window.0 {
                note(
                    &mut self.context.interval.response_time,
                    ended_at.saturating_sub(planned),
                );
            }
        }
        let mut until = ended_at + nanoseconds(self.plan.timeout);
        while self.reported_until() < until && !self.is_quiet() {
            if self.control.stop {
                let soon = self.context.now.max(ended_at) + nanoseconds(GRACE);
                until = until.min(*self.stopped_until.get_or_insert(soon));
            }
            self.turn(until)?;
        }
        self.check_all_timeouts();
        // A double of the last answer is right behind it, if there is one.
        let until = self.context.read_clock() + 2_000_000;
        while self.context.now < until {
            self.turn(until)?;
        }
        self.check_for_extra_bytes();
        self.rotate(stage, self.context.now);
        Ok(())
    }

    /// Whether nothing is under way any more. A connection of a churn that is not open yet is under way, too.
    fn is_quiet(&self) -> bool {
        let counters = &self.context.counters;
        counters.sent == counters.echoed + counters.lost && self.connector.pending() == 0
    }

    /// Counts what is still under way, and how evenly the connections fared in the window: those that broke, or never
    /// came about, have had a share, too.
    pub(super) fn account_connections(&mut self, ended_at: u64, stage: Stage) -> Fairness {
        let now = self.context.now;
        let churn = self.connector.is_churn();
        let mut fairness = self.connector.take_fairness(ended_at);
        for place in 0..self.connector.len() {
            let key = self.connector.key(place);
            let outgoing = key.and_then(|key| self.reactor.get_mut(key));
            let tally = match outgoing {
                Some(ClientSource { socket, state, .. }) => {
                    self.context.resent.note(resent(socket));
                    self.context.count_awaited(state, churn, now);
                    state.tally().copied()
                }
                None => self.connector.ended(place),
            };
            if !churn && place < self.plan.active {
                match tally {
                    Some(tally) => fairness.note(tally.echoes, tally.longest_gap(ended_at)),
                    None => fairness.note(0, ended_at.saturating_sub(self.context.window.0)),
                }
            }
        }
        self.rotate(stage, now);
        if stage != Stage::Drain {
            return Fairness::default(); // there was no window
        }
        if fairness.connections > 0 {
            // What was awaited at the end of the window is a gap that went on behind it.
            fairness.longest_gap = fairness.longest_gap.max(self.context.unanswered.longest);
        }
        fairness
    }
}

impl WorkerContext {
    /// Counts what a connection still waits for at the end of the run.
    fn count_awaited(&mut self, state: &Client, churn: bool, now: u64) {
        let in_flight = state.in_flight() as u64;
        self.counters.in_flight += in_flight;
        match state {
            _ if in_flight > 0 => {
                self.unanswered.awaited += in_flight;
                self.no_answer(state, now);
            }
            // In a churn the connect is measured, too.
            Client::Stream(client) if churn && client.is_connecting() => {
                let waited = now.saturating_sub(client.waiting_since().unwrap_or(now));
                self.unanswered.note(client.tally.number, 0, false, waited);
            }
            _ => {}
        }
    }

    /// Records that the requests of a connection have had no answer. Datagrams may be lost, and have counters of
    /// their own.
    pub(super) fn no_answer(&mut self, state: &Client, now: u64) {
        match state {
            Client::Stream(client) => {
                let mut longest = 0;
                for request in client.requests().iter() {
                    longest = longest.max(now.saturating_sub(request.sent));
                    self.not_answered(*request, now);
                }
                let half = client.half_answered(self.size) > 0;
                let requests = client.in_flight() as u64;
                self.unanswered
                    .note(client.tally.number, requests, half, longest);
            }
            Client::Datagram(client) => {
                for request in client.requests() {
                    self.not_answered(*request, now);
                }
            }
            Client::Bad(_) => {}
        }
    }
}

/// Segments that TCP has sent again on this socket.
pub(super) fn resent(socket: &ClientSocket) -> u64 {
    match socket {
        ClientSocket::Stream(StreamSocket::Tcp(stream)) => {
            segments_resent(stream).map_or(0, u64::from)
        }
        _ => 0,
    }
}
