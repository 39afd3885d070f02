//! The loop of the server: one `match` on the reactor's events.
//!
//! ```text
//! Ready(key)    a listener: accept     a connection: advance     a datagram socket: answer
//! Expired(key)  the timeout of a connection has passed
//! Alarm         a pause of accepting is over, or the next phase of the shutdown begins
//! ```
//!
//! What the other events lead to stands in `handlers`.
//!
//! For the optimiser: `#[inline(never)]` keeps the path of an echo apart from the caller. What is on that path has one
//! caller, or is `#[inline(always)]`, so that it becomes one function.

use super::backend::{Backend, Socket};
use super::connection::Outcome;
use super::outcome::Turn;
use super::parts::Server;
use crate::reactor::{Event, Key, Readiness};
use std::io;
use std::time::Duration;

impl<B: Backend> Server<B> {
    /// Serves until the server has stopped.
    ///
    /// # Errors
    /// epoll_wait(2) failed, or every listener did: either way nothing can be served any more.
    pub fn run(&mut self) -> io::Result<()> {
        while self.turn(None)? != Turn::Finished {}
        Ok(())
    }

    /// Runs one turn of the loop: waits for events, `max_wait` at most, and serves those that are ready. Timeouts count
    /// from the last turn here; a loop that does other work between two turns passes [`timeout`](Server::timeout), which
    /// counts from now.
    ///
    /// # Errors
    /// As [`Server::run`].
    #[inline(never)]
    pub fn turn(&mut self, max_wait: Option<Duration>) -> io::Result<Turn> {
        if self.is_finished() {
            self.control.finish(&self.core.stats);
            return Ok(Turn::Finished); // stopped between two turns: no event would end the wait
        }
        let is_woken = self.core.reactor.wait(max_wait)?;
        self.core.stats.turns += 1;
        // Commands go before I/O events, and the caller looks after its external sources before them, too: behind 1,000
        // ready sockets a SIGTERM would wait for a whole turn. Events of this wait are served by the next call.
        if (is_woken || self.control.is_pending()) && self.on_woken(is_woken) {
            return self.end_turn(Turn::Woken);
        }
        self.serve_events();
        self.end_turn(Turn::Serving)
    }

    fn serve_events(&mut self) {
        while let Some(event) = self.core.reactor.next_event() {
            match event {
                Event::Ready(key, readiness) => self.on_ready(key, readiness),
                Event::Expired(key) => self.on_expired(key),
                Event::Alarm => self.on_alarm(),
            }
        }
        if self.core.must_time_turn() {
            self.core.record_turn_time();
        }
    }

    fn end_turn(&mut self, end: Turn) -> io::Result<Turn> {
        self.core.stats.stale_events = self.core.reactor.stale_events();
        if self.acceptor.is_paused() {
            self.acceptor.record_pause_time(&mut self.core);
        }
        self.announce();
        if !self.is_finished() {
            return Ok(end);
        }
        self.control.finish(&self.core.stats);
        let failure = self.shutdown.take_failure();
        failure.map_or(Ok(Turn::Finished), Err)
    }

    fn on_ready(&mut self, key: Key, readiness: Readiness) {
        let core = &mut self.core;
        match core.reactor.begin_event(key, readiness) {
            Some(Socket::Connection(connection)) => {
                let budget = core.limits.read_budget_bytes;
                let outcome =
                    connection.advance(readiness, &mut core.read_buffer, budget, &mut core.stats);
                // Usually everything is echoed, and nothing is to be changed.
                if outcome != Outcome::KeepReading {
                    self.on_outcome(key, readiness, outcome);
                }
            }
            Some(Socket::Listener(_) | Socket::Datagrams(_)) => self.on_queue(key, readiness),
            None => {}
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.shutdown.is_finished(&self.core.stats, &self.acceptor)
    }
}
