//! How connections go, and how the server stops.
//!
//! ```text
//!              leave: somebody else has the doors
//!            ┌──────────────────────────▶ Leaving ──┐
//!   Serving ─┤                                      │ drain
//!            └─ drain: no newcomers ──▶ Draining ◀──┘
//!                                          │ all are told goodbye
//!                                          ▼
//!                                       Parting ── the time is over, or stop ──▶ Stopped
//! ```
//!
//! What may live in this file: ends, of one connection or of all. What is done meanwhile for those who stay is the loop's
//! business, as ever.

use super::connection::Outcome;
use super::world::{Socket, World};
use super::{Phase, Server};
use crate::net::Stream;
use crate::reactor::{Key, Readiness};
use crate::stats::Reason;
use std::io;
use std::time::Duration;

impl<W: World> Server<W> {
    /// The one way out: whatever ends a connection ends it here.
    pub(super) fn end(&mut self, key: Key, reason: Reason) {
        let Some(Socket::Connection(connection)) = self.reactor.close(key) else {
            return;
        };
        self.stats.close(reason, connection.owed());
        self.admission.leave(key.slot());
        if matches!(reason, Reason::WriteStall | Reason::Cut) && !planted!("stalled-ends-in-order")
        {
            // In good order, the kernel would go on offering the unsent bytes for as long as the peer likes.
            connection.stream().abort_on_close();
        }
        drop(connection); // before the doors open: the newcomer may need its descriptor
        if !planted!("close-wakes-nobody") {
            self.open_doors();
        }
    }

    /// Tells a connection goodbye, in good order.
    pub(super) fn part_with(&mut self, key: Key) {
        if let Some(Socket::Connection(connection)) = self.reactor.get_mut(key) {
            connection.finish();
            self.reactor.again(key, Readiness::Special);
        }
    }

    /// A listener or a datagram socket is broken beyond use.
    pub(super) fn lose_door(&mut self, key: Key, error: io::Error) {
        if self
            .door_line
            .allows(self.reactor.now(), &mut self.stats.log_suppressed)
        {
            log::error!("a listening socket is broken, and closed: {error}");
        }
        if matches!(self.reactor.release(key), Some(Socket::Listener(_))) {
            self.stats.accept_error(&error);
        }
        if let Some(place) = self.doors.iter().position(|&door| door == key) {
            self.doors.remove(place);
            if place < self.endpoints.len() {
                self.endpoints.remove(place);
            }
        }
        if self.doors.is_empty() && self.phase == Phase::Serving {
            log::error!("no listening socket is left; those who are connected may finish");
            self.failure = Some(error);
            self.drain();
        }
    }

    /// Begins to stop: no newcomers; whoever is in the middle of something may finish it; everybody is told goodbye,
    /// and what is left when `drain_timeout` is over is cut. Saying it twice changes nothing.
    pub fn drain(&mut self) {
        if !matches!(self.phase, Phase::Serving | Phase::Leaving) {
            return;
        }
        let now = self.reactor.read_clock();
        let cut = now
            + if planted!("drain-without-end") {
                Duration::from_secs(86_400)
            } else {
                self.limits.drain_timeout
            };
        let goodbye = now
            + self
                .limits
                .drain_timeout
                .saturating_sub(self.limits.linger_timeout);
        self.phase = Phase::Draining { goodbye, cut };
        self.close_doors();
        if planted!("drain-cuts") {
            return self.stop();
        }
        for key in self.connections() {
            if let Some(Socket::Connection(connection)) = self.reactor.get_mut(key) {
                let wait = connection.wants();
                self.after(key, Readiness::Plain, Outcome::Wait(wait));
            }
        }
        self.set_alarm();
    }

    /// Leaves the doors to somebody else who has copies of them ([`Server::share`]), and serves on whoever is inside, for
    /// as long as they like; it is finished when the last one has gone. [`Server::drain`] still asks them to.
    ///
    /// Nobody notices: the accept queue belongs to the socket, not to us, and what waits there, connections and datagrams
    /// alike, is left to the other. That is also why nobody more is let in here, as a drain would do. Files of Unix
    /// sockets stay where they are.
    pub fn leave(&mut self) {
        if self.phase != Phase::Serving {
            return;
        }
        self.phase = Phase::Leaving;
        for file in self.files.drain(..) {
            file.leave();
        }
        for key in std::mem::take(&mut self.doors) {
            self.reactor.release(key);
        }
        let now = self.reactor.now();
        self.governor.release(now);
        self.count_waiting();
        self.set_alarm();
    }

    /// Stops at once. Whoever is still connected is cut, and counted so.
    pub fn stop(&mut self) {
        if self.phase == Phase::Serving {
            self.drain();
        }
        self.phase = Phase::Stopped;
        for key in self.connections() {
            self.end(key, Reason::Cut);
        }
    }

    /// Nobody finds us any more. Who is in the accept queue already is let in first, as far as one turn allows: they
    /// were told that they are connected.
    fn close_doors(&mut self) {
        self.files.clear();
        let now = self.reactor.now();
        self.governor.release(now);
        for key in std::mem::take(&mut self.doors) {
            if !planted!("drain-forgets-the-queue") {
                self.accept(key, Readiness::Plain);
            }
            self.reactor.release(key);
        }
        self.governor.release(now);
        self.count_waiting();
    }

    pub(super) fn is_finished(&self) -> bool {
        self.phase != Phase::Serving && self.stats.live == 0
    }

    pub(super) fn connections(&self) -> Vec<Key> {
        // Once the doors are closed, whatever is registered is a connection.
        debug_assert!(self.doors.is_empty());
        self.reactor.keys()
    }
}
