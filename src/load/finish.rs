//! The end of a run: answers under way are awaited, and what never came is counted.
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
    /// Nothing more is sent; what is under way may still come, until its timeout. `part` is what the run was in: what
    /// comes behind a window belongs to its figures, and what comes behind a warm-up to none.
    pub(super) fn drain(&mut self, ended_at: u64, part: Stage) -> io::Result<()> {
        self.rotate(part, ended_at);
        self.next_slice = u64::MAX;
        self.context.again = false;
        self.arrive_late(ended_at);
        self.to_start = Vec::new();
        self.context.remaining = Some(0);
        self.opening.stop();
        self.dismiss_company();
        // Those that were planned and never sent have waited for at least so long. Leaving them out would say that the
        // server was quick because it could not be asked.
        self.context.counters.unsent = self.backlog.len() as u64;
        for planned in std::mem::take(&mut self.backlog) {
            if planned >= self.context.window.0 {
                note(
                    &mut self.context.slice.planned,
                    ended_at.saturating_sub(planned),
                );
            }
        }
        let mut until = ended_at + nanoseconds(self.plan.timeout);
        while self.context.now < until && !self.is_quiet() {
            if self.control.stop {
                let soon = self.context.now.max(ended_at) + nanoseconds(GRACE);
                until = until.min(*self.stopped_until.get_or_insert(soon));
            }
            self.turn(until)?;
        }
        self.give_up_the_late();
        // A double of the last answer is right behind it, if there is one.
        let until = self.context.read_clock() + 2_000_000;
        while self.context.now < until {
            self.turn(until)?;
        }
        self.listen_once();
        self.rotate(part, self.context.now);
        Ok(())
    }

    /// Whether nothing is under way any more. A connection of a churn that is not open yet is under way, too.
    fn is_quiet(&self) -> bool {
        let counters = &self.context.counters;
        counters.sent == counters.echoed + counters.lost && self.opening.pending() == 0
    }

    /// Counts what is still under way, and how evenly the connections fared: those that broke, or never came about, have
    /// had a share, too.
    pub(super) fn settle(&mut self, ended_at: u64, part: Stage) -> Fairness {
        let now = self.context.now;
        let churn = self.opening.is_churn();
        let mut shares = self.opening.take_shares(ended_at);
        for place in 0..self.opening.len() {
            let key = self.opening.member(place);
            let outgoing = key.and_then(|key| self.reactor.get_mut(key));
            let tally = match outgoing {
                Some(ClientSource { socket, state, .. }) => {
                    self.context.resent.note(resent(socket));
                    self.context.still_awaited(state, churn, now);
                    state.tally().copied()
                }
                None => self.opening.ended(place),
            };
            if !churn && place < self.plan.active {
                match tally {
                    Some(tally) => shares.note(tally.echoes, tally.longest_gap(ended_at)),
                    None => shares.note(0, ended_at.saturating_sub(self.context.window.0)),
                }
            }
        }
        self.rotate(part, now);
        shares
    }
}

impl WorkerContext {
    /// Counts what a connection waits for when the run has ended.
    fn still_awaited(&mut self, state: &Client, churn: bool, now: u64) {
        let in_flight = state.in_flight() as u64;
        self.counters.in_flight += in_flight;
        match state {
            _ if in_flight > 0 => {
                self.unanswered.awaited += in_flight;
                self.no_answer(state, now);
            }
            // In a churn connecting is a part of what is measured.
            Client::Stream(client) if churn && client.is_connecting() => {
                let waited = now.saturating_sub(client.waiting_since().unwrap_or(now));
                self.unanswered.note(client.tally.number, 0, false, waited);
            }
            _ => {}
        }
    }

    /// Records that the requests of a connection have had no answer. Of datagrams, which may be lost, others are counted.
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
