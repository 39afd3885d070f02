//! How connections come: accepted, refused, or left to wait.
//!
//! What may live in this file: what is done with a new connection and with an `accept` that failed. When accepting rests is the
//! [`accept_gate`](super::accept_gate)'s to say, who may come the [`admission`](super::admission)'s.

use super::backend::{Backend, Socket};
use super::connection::{Connection, Wait};
use super::{Phase, Server};
use crate::limits::OverloadPolicy;
use crate::net::accept::{self, AcceptError};
use crate::net::{Accepted, Listener, Stream, trace};
use crate::reactor::{Key, Readiness};
use crate::stats::{CloseReason, RejectReason};
use std::io;

impl<W: Backend> Server<W> {
    /// Lets new connections in, as many as one turn allows.
    #[inline(never)]
    pub(super) fn accept(&mut self, key: Key, readiness: Readiness) {
        self.must_time_turn = true;
        for _ in 0..self.limits.accept_budget {
            let is_full = self.stats.connections_open >= self.limits.connections_max as u64;
            if is_full && self.limits.overload == OverloadPolicy::Wait && !self.is_refusing() {
                return self.pause_at_limit();
            }
            if self.accept_gate.is_paused() || self.backoff.is_resting(key) {
                return;
            }
            let Some(Socket::Listener(listener)) = self.reactor.get_mut(key) else {
                return;
            };
            match listener.accept() {
                Ok(accepted) => {
                    self.backoff.forget(key);
                    self.register_connection(accepted);
                }
                Err(error) => match accept::classify(&error) {
                    AcceptError::WouldBlock => return self.on_queue_empty(key),
                    verdict @ (AcceptError::Connection | AcceptError::Unknown) => {
                        self.accept_failed(key, &error, verdict);
                    }
                    AcceptError::Resources(remedy) => return self.pause_on_error(&error, remedy),
                    AcceptError::Listener => return self.close_failed_listener(key, error),
                },
            }
        }
        self.stats.budget_yields += 1;
        self.reactor.requeue(key, readiness);
    }

    fn register_connection(&mut self, accepted: Accepted<W::Stream>) {
        let verdict = match self.is_refusing() {
            true => Err(RejectReason::Stopping),
            false => self
                .admission
                .judge(&accepted.peer, self.stats.connections_open),
        };
        if let Err(why) = verdict {
            return self.reject(&accepted, why);
        }
        self.stats.open();
        self.stats.option_errors += u64::from(accepted.option_errors);
        trace::log_connected(&accepted.peer);
        let connection = Socket::Connection(Connection::new(accepted.stream));
        let registration = self.registrations.of(Wait::Reading, self.phase);
        match self.reactor.add(connection, registration) {
            Ok(key) => self.admission.enter(&accepted.peer, key.slot()),
            Err((socket, error)) => {
                log::debug!("{} cannot be watched: {error}", accepted.peer);
                self.stats.close(CloseReason::RegisterFailed, 0);
                drop(socket);
            }
        }
    }

    /// Sends a new connection away, by a reset: who is told at once can try elsewhere, and nothing of them stays in the kernel.
    fn reject(&mut self, accepted: &Accepted<W::Stream>, why: RejectReason) {
        self.stats.reject(why);
        accepted.stream.reset_on_close();
        if self
            .reject_log
            .allows(self.reactor.now(), &mut self.stats.log_suppressed)
        {
            log::warn!("{} is rejected: {}", accepted.peer, why.text());
        }
    }

    /// An `accept` failed for a reason that is no shortage. It may have concerned one client; if nothing else comes, this
    /// listener rests.
    #[cold]
    fn accept_failed(&mut self, key: Key, error: &io::Error, verdict: AcceptError) {
        self.stats.accept_error(error);
        if self.rest(key, 1, error, verdict) {
            self.stats.accept_pauses += 1;
            self.give_up_while_stopping(key);
        }
    }

    /// Reading a datagram failed for a reason that is not one datagram's alone.
    #[cold]
    pub(super) fn receive_failed(&mut self, key: Key, error: io::Error) {
        let calls = self.limits.datagram_budget;
        match accept::judge_receive(&error) {
            AcceptError::Listener => self.close_failed_listener(key, error),
            verdict => {
                if self.rest(key, calls, &error, verdict) {
                    self.give_up_while_stopping(key);
                } else {
                    self.reactor.requeue(key, Readiness::Normal);
                }
            }
        }
    }

    /// A server that stops does not wait for a queue that it cannot read.
    fn give_up_while_stopping(&mut self, key: Key) {
        if self.phase != Phase::Serving {
            self.close_listener(key);
        }
    }

    /// Lets one socket rest after so many calls that failed, if it has to. Whether it does.
    fn rest(&mut self, key: Key, calls: usize, error: &io::Error, verdict: AcceptError) -> bool {
        let (first, now) = (self.limits.accept_retry, self.reactor.now());
        let Some(pause) = self.backoff.failed(key, calls, verdict, first, now) else {
            return false;
        };
        self.set_alarm();
        if self.pause_log.allows(now, &mut self.stats.log_suppressed) {
            let place = self.listeners.iter().position(|&listener| listener == key);
            match place.and_then(|place| self.endpoints.get(place)) {
                Some(endpoint) => log::warn!("{endpoint} rests for {pause:?}: {error}"),
                None => log::warn!("a listening socket rests for {pause:?}: {error}"),
            }
        }
        true
    }

    fn pause_at_limit(&mut self) {
        if !self.accept_gate.is_paused() {
            self.stats.accept_pauses += 1;
        }
        self.accept_gate.pause_until_close(self.reactor.now());
        if self
            .pause_log
            .allows(self.reactor.now(), &mut self.stats.log_suppressed)
        {
            log::warn!(
                "{} connections are open, which is the limit; new connections wait until one closes (see --max-connections)",
                self.limits.connections_max
            );
        }
    }

    fn pause_on_error(&mut self, error: &io::Error, remedy: &str) {
        self.stats.accept_error(error);
        self.stats.accept_pauses += 1;
        self.accept_gate
            .pause_for(self.reactor.now(), self.limits.accept_retry);
        self.set_alarm();
        if self
            .pause_log
            .allows(self.reactor.now(), &mut self.stats.log_suppressed)
        {
            log::warn!(
                "cannot accept beside {} open connections: {error}: {remedy}",
                self.stats.connections_open
            );
        }
    }

    /// Lets new connections in again. Their edge is long past, so the listeners are queued by hand.
    pub(super) fn resume_accepting(&mut self) {
        if self.accept_gate.resume(self.reactor.now()) {
            self.record_pause_time();
            for &key in &self.listeners {
                self.reactor.requeue(key, Readiness::Normal);
            }
            self.set_alarm();
        }
    }

    #[cold]
    pub(super) fn record_pause_time(&mut self) {
        let waited = self
            .accept_gate
            .paused_total(self.reactor.now())
            .as_millis();
        self.stats.accept_paused_ms = u64::try_from(waited).unwrap_or(u64::MAX);
    }
}
