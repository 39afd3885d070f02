//! Accepting: how a new connection is accepted, rejected, or left in the accept queue.
//!
//! [`AcceptGate`] knows when accepting is paused, [`Admission`] which peers are admitted, [`Proxies`] which of them speak
//! for a client, and [`Answers`] whether requests are answered in place of echoes.

use super::accept_gate::AcceptGate;
use super::admission::Admission;
use super::answers::Answers;
use super::backend::{Backend, Socket};
use super::connection::Connection;
use super::core::{Alarm, Core};
use super::decision::{Decision, PauseReason};
use super::listeners::{Listeners, NoListenerLeft};
use super::log_limit::LogLimit;
use super::outcome::Outcome;
use super::phase::Phase;
use super::proxied::{Origin, Proxies};
use crate::limits::{Limits, OverloadPolicy};
use crate::net::accept::{self, AcceptError};
use crate::net::{Accepted, Listener, Stream, trace};
use crate::reactor::{Key, Readiness};
use crate::stats::{CloseReason, RejectReason};
use std::io;
use std::time::Duration;

/// The part of the server that accepts connections.
#[derive(Debug)]
pub(super) struct Acceptor {
    pub(super) listeners: Listeners,
    pub(super) admission: Admission,
    pub(super) proxies: Proxies,
    pub(super) answers: Answers,
    gate: AcceptGate,
    reject_log: LogLimit,
}

impl Acceptor {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            listeners: Listeners::new(),
            admission: Admission::new(limits),
            proxies: Proxies::default(),
            answers: Answers::default(),
            gate: AcceptGate::default(),
            reject_log: LogLimit::new(Duration::from_secs(5)),
        }
    }

    // ---- accepting ----

    /// Accepts the connections that are queued at a listener, as many as one turn allows.
    ///
    /// # Errors
    /// The listener is broken for good, it was the last one, and the server is not stopping.
    #[inline(never)]
    pub(super) fn accept<B: Backend>(
        &mut self,
        core: &mut Core<B>,
        phase: Phase,
        key: Key,
        readiness: Readiness,
    ) -> Result<(), NoListenerLeft> {
        core.time_this_turn();
        for _ in 0..core.limits.accept_budget {
            let is_full = core.stats.connections_open >= core.limits.connections_max as u64;
            if is_full && core.limits.overload == OverloadPolicy::Wait && !phase.is_refusing() {
                self.pause_at_limit(core);
                return Ok(());
            }
            if self.gate.is_paused() || self.listeners.is_resting(key) {
                return Ok(());
            }
            let Some(Socket::Listener(listener)) = core.reactor.get_mut(key) else {
                return Ok(());
            };
            match listener.accept() {
                Ok(accepted) => {
                    self.listeners.on_success(key);
                    self.register_connection(core, phase, accepted);
                }
                Err(error) => match accept::classify(&error) {
                    AcceptError::WouldBlock => {
                        self.listeners.on_queue_empty(core, phase, key);
                        return Ok(());
                    }
                    class @ (AcceptError::Connection | AcceptError::Unknown) => {
                        self.accept_failed(core, phase, key, &error, class);
                    }
                    AcceptError::Resources(remedy) => {
                        self.pause_on_error(core, &error, remedy);
                        return Ok(());
                    }
                    AcceptError::Listener => {
                        return self.listeners.close_failed(core, phase, key, error);
                    }
                },
            }
        }
        core.stats.budget_yields += 1;
        core.note(Decision::BudgetSpent(key));
        core.reactor.requeue(key, readiness);
        Ok(())
    }

    fn register_connection<B: Backend>(
        &mut self,
        core: &mut Core<B>,
        phase: Phase,
        accepted: Accepted<B::Stream>,
    ) {
        let origin = self.proxies.origin(&accepted.peer);
        let open = core.stats.connections_open;
        let verdict = match origin {
            _ if phase.is_refusing() => Err(RejectReason::Stopping),
            Origin::Client => self.admission.judge(&accepted.peer, open),
            Origin::Proxy => self.admission.judge_room(open),
            Origin::Refused => Err(RejectReason::NotProxy),
        };
        if let Err(reason) = verdict {
            return self.reject(core, &accepted, reason);
        }
        core.stats.open();
        core.stats.option_errors += u64::from(accepted.option_errors);
        let mut connection = Connection::new(accepted.stream);
        match origin {
            Origin::Proxy => connection.await_header(),
            _ => {
                trace::log_connected(&accepted.peer);
                self.answers.begin(&mut connection);
            }
        }
        let registration = core.registration(connection.waits_for(), phase);
        let connection = Socket::Connection(connection);
        match core.reactor.add(connection, registration) {
            Ok(key) if origin == Origin::Proxy => self.proxies.add(key, accepted.peer),
            Ok(key) => {
                self.admission.enter(&accepted.peer, key.slot());
                self.answers.add(key, accepted.peer);
            }
            Err((socket, error)) => {
                log::debug!("{} cannot be watched: {error}", accepted.peer);
                core.stats.close(CloseReason::RegisterFailed, 0);
                drop(socket);
            }
        }
    }

    /// Reads the PROXY header of a connection, and goes on with what is behind it.
    pub(super) fn read_header<B: Backend>(
        &mut self,
        core: &mut Core<B>,
        phase: Phase,
        key: Key,
        readiness: Readiness,
    ) -> Outcome {
        let (admission, answers) = (&mut self.admission, &mut self.answers);
        self.proxies
            .read_header(core, admission, answers, phase, key, readiness)
    }

    /// Closes a new connection by a reset: the client learns at once that it has to try elsewhere, and the kernel keeps no
    /// state of the connection.
    fn reject<B: Backend>(
        &mut self,
        core: &mut Core<B>,
        accepted: &Accepted<B::Stream>,
        reason: RejectReason,
    ) {
        core.stats.reject(reason);
        core.note(Decision::Rejected(reason));
        accepted.stream.reset_on_close();
        if core.may_log(&mut self.reject_log) {
            log::warn!("{} is rejected: {}", accepted.peer, reason.text());
        }
    }

    /// Counts an `accept` that failed for another reason than a shortage. The error may concern one client only; if every
    /// call fails, this listener rests.
    #[cold]
    fn accept_failed<B: Backend>(
        &mut self,
        core: &mut Core<B>,
        phase: Phase,
        key: Key,
        error: &io::Error,
        class: AcceptError,
    ) {
        core.stats.accept_error(error);
        if self.listeners.on_failure(core, phase, key, 1, error, class) {
            core.stats.accept_pauses += 1;
        }
    }

    // ---- pausing ----

    fn pause_at_limit<B: Backend>(&mut self, core: &mut Core<B>) {
        if !self.gate.is_paused() {
            core.stats.accept_pauses += 1;
            core.note(Decision::AcceptPaused(PauseReason::Limit));
        }
        self.gate.pause_until_close(core.reactor.now());
        if self.listeners.may_log_pause(core) {
            log::warn!(
                "{} connections are open, which is the limit connections_max; new connections wait until one closes",
                core.limits.connections_max
            );
        }
    }

    fn pause_on_error<B: Backend>(&mut self, core: &mut Core<B>, error: &io::Error, remedy: &str) {
        core.stats.accept_error(error);
        core.stats.accept_pauses += 1;
        self.gate
            .pause_for(core.reactor.now(), core.limits.accept_retry);
        core.set_alarm(Alarm::RetryAccept, self.gate.retry_at());
        core.note(Decision::AcceptPaused(PauseReason::Shortage));
        if self.listeners.may_log_pause(core) {
            log::warn!(
                "cannot accept beside {} open connections: {error}: {remedy}",
                core.stats.connections_open
            );
        }
    }

    /// Ends a pause, if there is one. The listeners' edges have been reported before it, so the listeners are queued.
    pub(super) fn resume_accepting<B: Backend>(&mut self, core: &mut Core<B>) {
        if self.gate.resume(core.reactor.now()) {
            core.note(Decision::AcceptResumed);
            core.set_alarm(Alarm::RetryAccept, None);
            self.record_pause_time(core);
            self.listeners.requeue_all(core);
        }
    }

    /// Ends every pause, of all listeners and of single ones, before the queues are served for the last time.
    pub(super) fn end_pauses<B: Backend>(&mut self, core: &mut Core<B>) {
        if self.gate.resume(core.reactor.now()) {
            core.note(Decision::AcceptResumed);
        }
        core.set_alarm(Alarm::RetryAccept, None);
        self.record_pause_time(core);
        self.listeners.forget_failures(core);
    }

    /// Tries again what a pause has put off until now.
    pub(super) fn on_alarm<B: Backend>(&mut self, core: &mut Core<B>) {
        let now = core.reactor.now();
        if self.gate.retry_at().is_some_and(|at| at <= now) {
            self.resume_accepting(core);
        }
        self.listeners.resume_rested(core);
    }

    /// A connection has closed, and its descriptor is free.
    pub(super) fn on_closed<B: Backend>(&mut self, core: &mut Core<B>, key: Key) {
        self.proxies.remove(key);
        self.answers.remove(key, &mut core.stats);
        self.admission.leave(key.slot());
        self.resume_accepting(core);
    }

    #[inline]
    pub(super) fn is_paused(&self) -> bool {
        self.gate.is_paused()
    }

    #[cold]
    pub(super) fn record_pause_time<B: Backend>(&self, core: &mut Core<B>) {
        let paused = self.gate.paused_total(core.reactor.now()).as_millis();
        core.stats.accept_paused_ms = u64::try_from(paused).unwrap_or(u64::MAX);
    }

    // ---- handing over ----

    /// Gives the listeners up to another server that has copies of them. What is queued there is the other server's, so
    /// nothing more is accepted here.
    pub(super) fn detach<B: Backend>(&mut self, core: &mut Core<B>) {
        self.listeners.detach(core);
        self.end_pauses(core);
    }
}
