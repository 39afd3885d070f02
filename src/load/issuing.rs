//! Which connection sends the next request: the start of a closed loop, and the queue of an open one.
//!
//! An open loop plans its requests on a clock. A request that is due and finds no free connection waits in a queue
//! whose length has a bound: a rate beyond every server would take all memory otherwise. What is due while the queue
//! is
//! full is left out, counted, and makes the run invalid.

use super::in_flight::Request;
use super::metrics::note;
use super::worker::{Client, Worker};
use crate::net::connect::{ClientSocket, ClientSource};
use crate::reactor::Key;

/// Planned requests that may wait for a connection, in each worker: eight megabytes of them.
pub const QUEUE_MAX: usize = 1 << 20;
/// Arrivals that are taken in one go. At an absurd rate another one is always due, and the loop would never come round
/// to answers, to the clock and to Ctrl-C.
const ARRIVALS_BUDGET: usize = 256;
/// Requests with which a closed loop is started in one turn. To start a million without reading answers in between
/// would count the start's own time as the server's.
const START_BUDGET: usize = 1_024;

impl Worker<'_> {
    /// Starts a part of the connections of a closed loop: each gets as many requests as it may have under way, in one
    /// write.
    pub(super) fn start_some(&mut self) {
        let mut started = 0;
        while started < START_BUDGET {
            let Some(key) = self.to_start.pop() else {
                return;
            };
            started += self.plan.depth;
            self.start_one(key);
        }
    }

    fn start_one(&mut self, key: Key) {
        let Some(ClientSource { socket, state, .. }) = self.reactor.get_mut(key) else {
            return;
        };
        let now = self.context.read_clock();
        let before = state.is_blocked();
        let request = Request {
            planned: now,
            sent: now,
        };
        let issued = (0..self.plan.depth).take_while(|_| self.context.may_send());
        let sent = match (socket, &mut *state) {
            (ClientSocket::Stream(stream), Client::Stream(client)) => {
                let issued = issued.count();
                (0..issued).for_each(|_| client.issue(request, &self.context));
                client.flush(stream, &mut self.context)
            }
            (ClientSocket::Datagrams(socket), Client::Datagram(client)) => {
                issued.for_each(|_| client.issue(request));
                client.flush(socket, &mut self.context)
            }
            _ => Ok(()),
        };
        let blocked = state.is_blocked();
        match sent {
            Ok(()) if blocked != before => self.want(key, blocked),
            Ok(()) => {}
            Err(fault) => self.end(key, &fault),
        }
    }

    /// Sends a request over a connection, as planned.
    pub(super) fn issue(&mut self, key: Key, planned: u64) {
        let Some(ClientSource { socket, state, .. }) = self.reactor.get_mut(key) else {
            return;
        };
        let request = Request {
            planned,
            sent: self.context.now,
        };
        let before = state.is_blocked();
        let sent = match (socket, &mut *state) {
            (ClientSocket::Stream(stream), Client::Stream(client)) => {
                client.issue(request, &self.context);
                client.flush(stream, &mut self.context)
            }
            (ClientSocket::Datagrams(socket), Client::Datagram(client)) => {
                client.issue(request);
                client.flush(socket, &mut self.context)
            }
            _ => Ok(()),
        };
        let blocked = state.is_blocked();
        match sent {
            Ok(()) if blocked != before => self.want(key, blocked),
            Ok(()) => {}
            Err(fault) => self.end(key, &fault),
        }
    }

    /// Takes the arrivals that are due, as many as fit into one go.
    pub(super) fn take_arrivals(&mut self) {
        for _ in 0..ARRIVALS_BUDGET {
            let now = self.context.read_clock();
            let Some(planned) = self
                .schedule
                .as_mut()
                .and_then(|schedule| schedule.take(now))
            else {
                return;
            };
            if planned >= self.context.window.1 || !self.context.may_plan() {
                self.schedule = None;
                return;
            }
            if planned >= self.context.window.0 {
                note(&mut self.context.interval.lag, now - planned);
            }
            if self.backlog.len() >= QUEUE_MAX {
                return self.skip_arrivals(now);
            }
            self.backlog.push_back(planned);
            self.serve_backlog();
        }
    }

    /// Takes what was due before the end and has not been taken, since the generator stood still just then. It is as much
    /// a part of the plan as the rest.
    pub(super) fn take_arrivals_until_end(&mut self, ended_at: u64) {
        let (begin, end) = self.context.window;
        let until = ended_at.min(end.saturating_sub(1));
        while self.schedule.is_some() && until >= begin {
            let Some(planned) = self
                .schedule
                .as_mut()
                .and_then(|schedule| schedule.take(until))
            else {
                break;
            };
            if !self.context.may_plan() {
                break;
            }
            if self.backlog.len() >= QUEUE_MAX {
                self.skip_arrivals(until);
            } else {
                if planned >= begin {
                    note(&mut self.context.interval.lag, ended_at - planned);
                }
                self.backlog.push_back(planned);
            }
        }
        self.schedule = None;
    }

    /// The queue is full: what is due by now, and one that was taken already, is left out.
    #[cold]
    fn skip_arrivals(&mut self, now: u64) {
        let end = self.context.window.1;
        let skipped = self
            .schedule
            .as_mut()
            .map_or(0, |schedule| schedule.skip(now.min(end)));
        self.context.counters.left_out += 1 + skipped;
        if let Some(remaining) = &mut self.context.remaining {
            *remaining = remaining.saturating_sub(skipped);
        }
    }

    /// Sends the requests that are due, as far as connections are free.
    pub(super) fn serve_backlog(&mut self) {
        while !self.backlog.is_empty() {
            let Some((key, number)) = self.free.pop_front() else {
                return;
            };
            self.listed[number as usize] = false;
            if self.reactor.get_mut(key).is_none() {
                continue;
            }
            if let Some(planned) = self.backlog.pop_front() {
                self.context.counters.sent += 1;
                self.issue(key, planned);
                self.list(key);
            }
        }
    }

    /// Puts a connection that may take another request at the end of their list.
    pub(super) fn list(&mut self, key: Key) {
        let depth = self.plan.depth;
        let Some(ClientSource { state, .. }) = self.reactor.get_mut(key) else {
            return;
        };
        let in_flight = state.in_flight();
        let Some(number) = state.tally().map(|tally| tally.number) else {
            return;
        };
        let place = (number - self.plan.first_number) as usize;
        if in_flight < depth && place < self.plan.active && !self.listed[place] {
            self.listed[place] = true;
            self.free.push_back((key, place as u32));
        }
    }
}
