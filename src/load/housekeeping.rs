//! What a worker does beside sending and taking: control, slices, those that wait too long, and a last look.
//!
//! None of it is urgent, and all of it is done in small parts: whoever looks after ten thousand connections at once
//! holds up the next answer, and measures himself.

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
        self.look_for_a_pause(now);
        self.next_tick = now + TICK;
        if now >= self.next_slice {
            self.rotate(self.context.slice.part, now);
            self.next_slice += nanoseconds(self.plan.interval);
        }
        self.control = self.line.control();
        self.opening.retry();
        self.tell_opening();
        self.look_for_the_late(now);
        self.keep_company(now);
    }

    /// Looks through a part of the connections for those that have waited too long: all of them in a quarter of the
    /// timeout, or a second. All at once would hold up everybody else, by a tenth of a microsecond each.
    fn look_for_the_late(&mut self, now: u64) {
        let timeout = nanoseconds(self.plan.timeout);
        let round = (timeout / 4).clamp(TICK, 1_000_000_000);
        let members = self.opening.len();
        let share = (members as u64 * TICK).div_ceil(round) as usize;
        for _ in 0..share.min(members) {
            self.cursor = (self.cursor + 1) % members;
            if let Some(key) = self.opening.member(self.cursor) {
                self.give_up_if_late(key, now);
            }
        }
    }

    /// Ends a connection that has waited for as long as the timeout, and gives up its datagrams.
    fn give_up_if_late(&mut self, key: Key, now: u64) {
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

    /// Looks through all connections at once, when no answer can be held up any more.
    pub(super) fn give_up_the_late(&mut self) {
        let now = self.context.read_clock();
        for place in 0..self.opening.len() {
            if let Some(key) = self.opening.member(place) {
                self.give_up_if_late(key, now);
            }
        }
    }

    /// A tick that comes much later than it was to come shows that the loop itself stood still.
    fn look_for_a_pause(&mut self, now: u64) {
        let late = now.saturating_sub(self.next_tick);
        if late >= PAUSE_MIN && matches!(self.context.slice.part, Stage::Window | Stage::Drain) {
            let at = self.next_tick.saturating_sub(self.context.window.0);
            self.pauses.note(at, late);
        }
    }

    /// Datagrams are lost; others may take their place.
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

    /// Whether nothing has come back over a datagram socket for several timeouts. A run of so many requests would go on for
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

    /// A last look for bytes that nobody asked for.
    pub(super) fn listen_once(&mut self) {
        for (_, key) in self.opening.members() {
            let Some(ClientSource { socket, state, .. }) = self.reactor.get_mut(key) else {
                continue;
            };
            if let (ClientSocket::Stream(stream), Client::Stream(client)) = (socket, state) {
                if client.in_flight() > 0 {
                    continue;
                }
                if let Err(fault) = client.listen_once(stream, &mut self.context) {
                    self.end(key, &fault);
                }
            }
        }
    }
}
