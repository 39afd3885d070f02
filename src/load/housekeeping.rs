//! Housekeeping of a worker: commands, intervals, timeouts, and the check for extra bytes at the end.
//!
//! None of it is urgent, and all of it is done in small parts: checking ten thousand connections in one
//! pass would delay reads, and show up as latency.

use super::datagram::PROOFS;
use super::metrics::{Fault, FaultKind, Stage};
use super::worker::{Client, TICK, Worker, nanoseconds};
use crate::net::connect::{ClientSocket, ClientSource};
use crate::reactor::Key;

/// A pause of the generator that is shorter than this is noise of the machine.
const PAUSE_MIN: u64 = 50_000_000;

impl Worker<'_> {
    pub(super) fn tick(&mut self) {
        let now = self.context.read_clock();
        self.detect_pause(now);
        self.next_tick = now + TICK;
        if now >= self.next_interval {
            self.rotate(self.context.interval.stage, now);
            self.next_interval += nanoseconds(self.plan.interval);
        }
        self.control = self.channel.control();
        self.connector.retry();
        self.tell_opening();
        self.check_some_timeouts();
        self.drive_bad_clients(now);
    }

    /// The moment up to which all that has come was also reported to this loop. Timeouts are judged by it, and not by the
    /// clock: after a stop of this process the answers that came in time are still in the sockets, more of them than one
    /// turn reads.
    pub(super) fn reported_until(&self) -> u64 {
        self.context
            .now
            .saturating_sub(nanoseconds(self.reactor.unreported_for()))
    }

    /// Checks a part of the connections for an expired timeout: all of them in a quarter of the
    /// timeout, or a second. All in one pass would delay the next read by a tenth of a microsecond each.
    fn check_some_timeouts(&mut self) {
        let now = self.reported_until();
        let timeout = nanoseconds(self.plan.timeout);
        let round = (timeout / 4).clamp(TICK, 1_000_000_000);
        let members = self.connector.len();
        let share = (members as u64 * TICK).div_ceil(round) as usize;
        for _ in 0..share.min(members) {
            self.cursor = (self.cursor + 1) % members;
            if let Some(key) = self.connector.key(self.cursor) {
                self.check_timeout(key, now);
            }
        }
    }

    /// Ends a connection that has waited for as long as the timeout, and gives up its datagrams.
    fn check_timeout(&mut self, key: Key, now: u64) {
        let timeout = nanoseconds(self.plan.timeout);
        match self.reactor.get_mut(key).map(|out| &mut out.state) {
            Some(Client::Stream(client)) => {
                let limit = now.saturating_sub(timeout);
                if client.waiting_since().is_some_and(|since| since <= limit) {
                    let fault = client.timed_out(self.plan.size, self.plan.timeout);
                    self.end(key, &fault);
                }
            }
            Some(Client::Datagram(client)) => {
                // The first one may get lost, and all of its repetitions have one timeout together.
                let patience = match client.is_ready() {
                    true => timeout,
                    false => timeout / u64::from(PROOFS),
                };
                let given_up = client.give_up(now.saturating_sub(patience), &mut self.context);
                if given_up > 0 {
                    self.on_lost(key, given_up);
                }
            }
            _ => {}
        }
    }

    /// Checks all connections for an expired timeout, when no more answers are awaited.
    pub(super) fn check_all_timeouts(&mut self) {
        self.context.read_clock();
        let now = self.reported_until();
        for place in 0..self.connector.len() {
            if let Some(key) = self.connector.key(place) {
                self.check_timeout(key, now);
            }
        }
    }

    /// A tick that comes much later than it was to come shows that the loop itself stood still.
    fn detect_pause(&mut self, now: u64) {
        let late = now.saturating_sub(self.next_tick);
        if late < PAUSE_MIN {
            return;
        }
        match self.context.interval.stage {
            Stage::Opening => self.opening_pauses.note(self.next_tick, late),
            Stage::WarmUp => {} // nothing of it is in the figures
            Stage::Window | Stage::Drain => {
                let at = self.next_tick.saturating_sub(self.context.window.0);
                self.pauses.note(at, late);
            }
        }
    }

    /// Sends other datagrams in place of lost ones.
    pub(super) fn on_lost(&mut self, key: Key, given_up: usize) {
        if !self.is_proved(key) {
            return self.prove_again(key);
        }
        if self.plan.requests.is_some() && self.is_silent(key) {
            let text = format!(
                "no answer for {PROOFS} timeouts, {:?} each",
                self.plan.timeout
            );
            return self.end(key, &Fault::new(FaultKind::Timeout, text));
        }
        if self.context.again {
            let now = self.context.read_clock();
            for _ in 0..given_up {
                if self.context.may_send() {
                    self.issue(key, now);
                }
            }
        } else {
            self.on_answered(key);
        }
    }

    /// Whether nothing has come back over a datagram socket for several timeouts. A run that ends by its number of
    /// requests would go on for
    /// as many timeouts.
    fn is_silent(&mut self, key: Key) -> bool {
        let patience = u64::from(PROOFS) * nanoseconds(self.plan.timeout);
        let now = self.context.now;
        let state = self
            .reactor
            .get_mut(key)
            .map(|outgoing| &mut outgoing.state);
        let tally = state.and_then(Client::tally);
        tally.is_some_and(|tally| tally.silence(now) >= patience)
    }

    /// Checks every connection for bytes that were not asked for.
    pub(super) fn check_for_extra_bytes(&mut self) {
        for (_, key) in self.connector.keys() {
            let Some(ClientSource { socket, state, .. }) = self.reactor.get_mut(key) else {
                continue;
            };
            if let (ClientSocket::Stream(stream), Client::Stream(client)) = (socket, state) {
                if client.in_flight() > 0 {
                    continue;
                }
                if let Err(fault) = client.check_for_extra_bytes(stream, &mut self.context) {
                    self.end(key, &fault);
                }
            }
        }
    }
}
