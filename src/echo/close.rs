//! How connections go, and how the server stops.
//!
//! ```text
//!              leave: somebody else has the listeners
//!            ┌──────────────────────────▶ Leaving ──┐
//!   Serving ─┤                                      │ drain
//!            └─ drain: the queues are ──▶ Draining ◀┘
//!               served, then closed          │ all are told close_at, and what is still queued is refused
//!                                            ▼
//!                                         Parting ── the time is over, or stop ──▶ Stopped
//! ```
//!
//! What may live in this file: ends, of one connection or of all. What is done meanwhile for those who stay is the loop's
//! business, as ever.

use super::backend::{Backend, Socket};
use super::connection::Outcome;
use super::{Phase, Server};
use crate::net::Stream;
use crate::reactor::{Key, Readiness};
use crate::stats::{CloseReason, DropReason, RejectReason};
use std::io;
use std::time::Instant;

/// More than a queue can have held when the server began to stop: an accept queue is cut to `net.core.somaxconn` (4,096
/// by default, 65,535 where it was raised); a datagram takes at least 256 bytes of a receive buffer, so that this many
/// need one of 16 MiB.
const QUEUED_MAX: u64 = 65_536;

/// How often a queue is tried again though nothing came of it.
const CALLS_IN_VAIN_MAX: u32 = 16;

impl<W: Backend> Server<W> {
    /// The one way out: whatever ends a connection ends it here.
    pub(super) fn close_connection(&mut self, key: Key, reason: CloseReason) {
        let Some(Socket::Connection(connection)) = self.reactor.close(key) else {
            return;
        };
        self.stats.close(reason, connection.unsent_bytes());
        self.admission.leave(key.slot());
        if matches!(reason, CloseReason::WriteStall | CloseReason::Aborted) {
            // In good order, the kernel would go on offering the unsent bytes for as long as the peer likes.
            connection.stream().reset_on_close();
        }
        drop(connection); // before the listeners open: the new connection may need its descriptor
        self.resume_accepting();
    }

    /// Tells a connection close_at, in good order.
    pub(super) fn begin_close(&mut self, key: Key) {
        if let Some(Socket::Connection(connection)) = self.reactor.get_mut(key) {
            connection.begin_close();
            self.reactor.requeue(key, Readiness::Exceptional);
        }
    }

    /// A listener or a datagram socket is broken beyond use.
    pub(super) fn close_failed_listener(&mut self, key: Key, error: io::Error) {
        if self
            .listener_log
            .allows(self.reactor.now(), &mut self.stats.log_suppressed)
        {
            log::error!("a listening socket is broken, and closed: {error}");
        }
        self.backoff.forget(key);
        if matches!(self.reactor.release(key), Some(Socket::Listener(_))) {
            self.stats.accept_error(&error);
        }
        if let Some(place) = self.listeners.iter().position(|&listener| listener == key) {
            self.listeners.remove(place);
            // A server that stops goes on telling where it was; its listeners close in any order.
            if self.phase == Phase::Serving && place < self.endpoints.len() {
                self.endpoints.remove(place);
            }
        }
        if self.listeners.is_empty() && self.phase == Phase::Serving {
            log::error!("no listening socket is left; those who are connected may finish");
            self.failure = Some(error);
            self.drain();
        }
    }

    /// Begins to stop. Connections and datagrams that are queued by now are served, and each listener is closed when its
    /// queue is empty; whoever is in the middle of something may finish it; everybody is told close_at, and what is left
    /// when `drain_timeout` is over is cut. Of a queue, what is left `fin_timeout` before that is refused and counted
    /// ([`RejectReason::Stopping`], [`DropReason::Stopping`]). Saying it twice changes nothing.
    pub fn drain(&mut self) {
        if !matches!(self.phase, Phase::Serving | Phase::HandedOver) {
            return;
        }
        let now = self.reactor.read_clock();
        let abort_at = now + self.limits.drain_timeout;
        let close_at = now
            + self
                .limits
                .drain_timeout
                .saturating_sub(self.limits.fin_timeout);
        self.phase = Phase::Draining { close_at, abort_at };
        for key in self.connections() {
            if let Some(Socket::Connection(connection)) = self.reactor.get_mut(key) {
                let wait = connection.waits_for();
                self.apply(key, Readiness::Normal, Outcome::Wait(wait));
            }
        }
        self.serve_queues();
        self.set_alarm();
        self.announce();
    }

    /// Leaves the listeners to somebody else who has copies of them ([`Server::try_clone_listeners`]), and serves on whoever is inside, for
    /// as long as they like; it is finished when the last one has gone. [`Server::drain`] still asks them to.
    ///
    /// Nobody notices: the accept queue belongs to the socket, not to us, and what waits there, connections and datagrams
    /// alike, is left to the other. That is also why nobody more is let in here, as a drain would do. Files of Unix
    /// sockets stay where they are.
    pub fn detach_listeners(&mut self) {
        if self.phase != Phase::Serving {
            return;
        }
        self.phase = Phase::HandedOver;
        for file in self.files.drain(..) {
            file.keep();
        }
        for key in std::mem::take(&mut self.listeners) {
            self.reactor.release(key);
        }
        self.backoff.clear();
        let now = self.reactor.now();
        self.accept_gate.resume(now);
        self.record_pause_time();
        self.set_alarm();
        self.announce();
    }

    /// Stops at once. Open connections are cut; queued connections are reset and queued datagrams dropped. All of them are
    /// counted.
    pub fn stop(&mut self) {
        self.phase = Phase::Stopped;
        self.reactor.read_clock();
        for key in self.connections() {
            self.close_connection(key, CloseReason::Aborted);
        }
        // After the connections: accept(2) takes a descriptor, even if only to refuse.
        self.refuse_queues();
        self.set_alarm();
        self.announce();
    }

    // ---- listeners and datagram sockets while the server stops ----

    /// Serves what is queued at each listener and datagram socket, and closes those that have nothing more. The kernel has
    /// told the clients in an accept queue that they are connected, and closing the listener would reset them. A queue
    /// longer than the budget of a turn is served on in the turns that follow; the accept queue is FIFO, so connections
    /// that were there at the beginning come first.
    ///
    /// Files of Unix sockets go before that, so that no new client finds the way in.
    fn serve_queues(&mut self) {
        self.files.clear();
        self.accept_gate.resume(self.reactor.now());
        self.backoff.clear();
        self.record_pause_time();
        for key in self.listeners.clone() {
            if let Some(Socket::Datagrams(_)) = self.reactor.get_mut(key) {
                self.drain_datagrams_left.insert(key, QUEUED_MAX);
            }
            self.serve_queue(key);
        }
    }

    fn serve_queue(&mut self, key: Key) {
        match self.reactor.get_mut(key) {
            Some(Socket::Listener(_)) => self.accept(key, Readiness::Normal),
            Some(Socket::Datagrams(_)) => self.answer(key, Readiness::Normal),
            _ => {}
        }
    }

    /// The time for finishing is over: each connection is told so, and what is still queued is refused.
    pub(super) fn say_goodbye(&mut self, abort_at: Instant) {
        self.phase = Phase::Closing { abort_at };
        for key in self.connections() {
            self.begin_close(key);
        }
        self.accept_gate.resume(self.reactor.now()); // refusing needs no room among the connections
        self.backoff.clear();
        for key in self.listeners.clone() {
            self.serve_queue(key);
        }
    }

    /// Refuses and counts what is queued, all in this turn, and closes every listener and datagram socket.
    fn refuse_queues(&mut self) {
        self.files.clear();
        self.accept_gate.resume(self.reactor.now());
        self.backoff.clear();
        for key in std::mem::take(&mut self.listeners) {
            let before = self.lost_in_queue();
            let mut in_vain = 0;
            // Until nothing more is there. A client may fill the queue as fast as it is emptied; and errors that pass may
            // use up the budget of a call, or go on.
            while in_vain < CALLS_IN_VAIN_MAX
                && self.lost_in_queue() - before < QUEUED_MAX
                && self.reactor.get_mut(key).is_some()
            {
                let count = self.lost_in_queue();
                self.serve_queue(key);
                in_vain = if self.lost_in_queue() == count {
                    in_vain + 1
                } else {
                    0
                };
            }
            self.close_listener(key);
        }
        self.accept_gate.resume(self.reactor.now());
        self.record_pause_time();
        let lost = self.lost_in_queue();
        if lost > 0 {
            log::warn!("{lost} queued connections and datagrams are lost: the server has stopped");
        }
    }

    /// How many queued connections and datagrams were lost because the server stopped.
    fn lost_in_queue(&self) -> u64 {
        self.stats.rejected(RejectReason::Stopping) + self.stats.dropped(DropReason::Stopping)
    }

    /// A queue is empty. While the server drains, that is what its listener or datagram socket was still open for.
    pub(super) fn on_queue_empty(&mut self, key: Key) {
        self.backoff.forget(key);
        if self.phase != Phase::Serving {
            self.close_listener(key);
        }
    }

    /// Whether a datagram socket has now, after `count` more, answered as many as its queue can have held when the drain
    /// began. Under a flood the queue never becomes empty.
    pub(super) fn has_drained(&mut self, key: Key, count: u64) -> bool {
        let Some(left) = self.drain_datagrams_left.get_mut(&key) else {
            return false;
        };
        *left = left.saturating_sub(count);
        *left == 0
    }

    pub(super) fn close_listener(&mut self, key: Key) {
        self.backoff.forget(key);
        self.listeners.retain(|&listener| listener != key);
        self.reactor.release(key);
    }

    /// Whether new connections are reset and datagrams dropped, because the time for serving them is over.
    pub(super) fn is_refusing(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. } | Phase::Stopped)
    }

    pub(super) fn is_finished(&self) -> bool {
        self.phase != Phase::Serving
            && self.stats.connections_open == 0
            && self.listeners.is_empty()
    }

    pub(super) fn connections(&self) -> Vec<Key> {
        let mut keys = self.reactor.keys();
        keys.retain(|key| !self.listeners.contains(key));
        keys
    }
}
