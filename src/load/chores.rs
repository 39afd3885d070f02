//! What a worker does beside sending and taking: orders, slices, those that wait too long, and a last look.
//!
//! None of it is urgent, and all of it is done in small parts: whoever looks after ten thousand connections at once
//! holds up the next answer, and measures himself.

use super::record::{Fault, FaultKind};
use super::worker::{Client, TICK, Worker, nanoseconds};
use crate::net::connect::{ClientSocket, Outgoing};
use crate::reactor::Key;

impl Worker<'_> {
    pub(super) fn tick(&mut self) {
        let now = self.desk.read_clock();
        self.next_tick = now + TICK;
        if now >= self.next_slice {
            self.rotate(self.desk.slice.part, now);
            self.next_slice += nanoseconds(self.plan.interval);
        }
        self.orders = self.line.orders();
        self.opening.retry();
        self.tell_opening();
        self.look_for_the_late(now);
        self.keep_company(now);
    }

    /// Looks through a part of the connections for those that have waited too long: all of them in a quarter of the
    /// timeout, or a second. All at once would hold up everybody else, by a tenth of a microsecond each.
    pub(super) fn look_for_the_late(&mut self, now: u64) {
        let timeout = nanoseconds(self.plan.timeout);
        let round = (timeout / 4).clamp(TICK, 1_000_000_000);
        let members = self.opening.len();
        let share = (members as u64 * TICK).div_ceil(round) as usize;
        let limit = now.saturating_sub(timeout);
        for _ in 0..share.min(members) {
            self.cursor = (self.cursor + 1) % members;
            let Some(key) = self.opening.member(self.cursor) else {
                continue;
            };
            match self.reactor.get_mut(key).map(|out| &mut out.state) {
                Some(Client::Stream(client)) => {
                    let late = client.waiting_since().is_some_and(|since| since < limit);
                    if late {
                        let text = format!("no answer in {:?}", self.plan.timeout);
                        self.end(key, &Fault::new(FaultKind::Timeout, text));
                    }
                }
                Some(Client::Datagram(client)) => {
                    let given_up = client.give_up(limit, &mut self.desk);
                    if given_up > 0 {
                        self.on_lost(key, given_up);
                    }
                }
                _ => {}
            }
        }
    }

    /// Datagrams are lost; others may take their place.
    pub(super) fn on_lost(&mut self, key: Key, given_up: usize) {
        if !self.is_proved(key) {
            return self.prove_again(key);
        }
        if self.desk.again {
            let now = self.desk.read_clock();
            for _ in 0..given_up {
                if self.desk.may_send() {
                    self.issue(key, now);
                }
            }
        } else {
            self.on_answered(key);
        }
    }

    /// A last look for bytes that nobody asked for.
    pub(super) fn listen_once(&mut self) {
        for (_, key) in self.opening.members() {
            let Some(Outgoing { socket, state, .. }) = self.reactor.get_mut(key) else {
                continue;
            };
            if let (ClientSocket::Stream(stream), Client::Stream(client)) = (socket, state) {
                if client.in_flight() > 0 {
                    continue;
                }
                if let Err(fault) = client.listen_once(stream, &mut self.desk) {
                    self.end(key, &fault);
                }
            }
        }
    }
}
