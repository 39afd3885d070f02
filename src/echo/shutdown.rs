//! Shutdown: graceful ([`drain`](Shutdown::drain)), at once ([`stop`](Shutdown::stop)), or by handing the listeners over
//! ([`detach_listeners`](Shutdown::detach_listeners)). [`Phase`] shows how they follow each other.
//!
//! What is queued at a listener is part of what the server has to answer for: the kernel has told the clients in an accept
//! queue that they are connected, and closing the listener would reset them. So a drain serves the queues first, and what is
//! not served by the end is refused and counted.

use super::accept::Acceptor;
use super::backend::{Backend, Socket};
use super::connection::Outcome;
use super::connections::{apply, begin_close, close_connection};
use super::core::{Alarm, Core};
use super::datagram::DatagramEcho;
use super::decision::Decision;
use super::listeners::NoListenerLeft;
use super::phase::Phase;
use crate::Limits;
use crate::reactor::{Key, Readiness};
use crate::stats::{CloseReason, DropReason, RejectReason, Stats};
use std::io;
use std::time::{Duration, Instant};

/// More than a queue can hold when the shutdown begins: an accept queue is limited to `net.core.somaxconn` (4,096 by
/// default, 65,535 where it was raised); a datagram takes at least 256 bytes of a receive buffer, so that this many need
/// one of 16 MiB.
const QUEUED_MAX: u64 = 65_536;

/// How often in a row a queue is read without result before it is given up.
const FRUITLESS_CALLS_MAX: u32 = 16;

/// The part of the server that ends it.
#[derive(Debug)]
pub(super) struct Shutdown {
    phase: Phase,
    /// Why the last listener ended, if its error began the shutdown.
    failure: Option<io::Error>,
}

impl Shutdown {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Serving,
            failure: None,
        }
    }

    #[inline]
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether nothing is left: no connection and no listener.
    #[inline]
    pub(super) fn is_finished(&self, stats: &Stats, acceptor: &Acceptor) -> bool {
        self.phase != Phase::Serving
            && stats.connections_open == 0
            && acceptor.listeners.keys().is_empty()
    }

    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    fn enter<B: Backend>(&mut self, core: &mut Core<B>, phase: Phase) {
        self.phase = phase;
        core.note(Decision::PhaseBegan(phase.name()));
        core.set_alarm(Alarm::NextPhase, phase.ends_at());
    }

    // ---- the phases ----

    /// The last listener is broken: open connections may finish, and the server ends with this error.
    #[cold]
    fn fail<B: Backend>(
        &mut self,
        core: &mut Core<B>,
        acceptor: &mut Acceptor,
        datagrams: &mut DatagramEcho<B>,
        NoListenerLeft(error): NoListenerLeft,
    ) {
        log::error!("no listening socket is left; open connections may finish");
        self.failure = Some(error);
        self.drain(core, acceptor, datagrams);
    }

    /// Begins a graceful shutdown.
    pub(super) fn drain<B: Backend>(
        &mut self,
        core: &mut Core<B>,
        acceptor: &mut Acceptor,
        datagrams: &mut DatagramEcho<B>,
    ) {
        if self.phase.is_stopping() {
            return;
        }
        let now = core.reactor.read_clock();
        let timeout = core.limits.drain_timeout;
        let phase = Phase::Draining {
            close_at: now + timeout.saturating_sub(time_for_closing(&core.limits)),
            abort_at: now + timeout,
        };
        self.enter(core, phase);
        // From now on, idle connections have the shorter timeout.
        for key in core.connections() {
            if let Some(Socket::Connection(connection)) = core.reactor.get_mut(key) {
                let outcome = Outcome::Wait(connection.waits_for());
                apply(core, acceptor, phase, key, Readiness::Normal, outcome);
            }
        }
        self.serve_queues(core, acceptor, datagrams);
    }

    /// Hands the listeners over to another server that has copies of them.
    pub(super) fn detach_listeners<B: Backend>(
        &mut self,
        core: &mut Core<B>,
        acceptor: &mut Acceptor,
    ) {
        if self.phase == Phase::Serving {
            self.enter(core, Phase::HandedOver);
            acceptor.detach(core);
        }
    }

    /// Begins the next phase if it is due.
    pub(super) fn on_alarm<B: Backend>(
        &mut self,
        core: &mut Core<B>,
        acceptor: &mut Acceptor,
        datagrams: &mut DatagramEcho<B>,
    ) {
        let now = core.reactor.now();
        match self.phase {
            Phase::Draining { close_at, abort_at } if close_at <= now => {
                self.close_all(core, acceptor, datagrams, abort_at);
            }
            Phase::Closing { abort_at } if abort_at <= now => self.stop(core, acceptor, datagrams),
            _ => {}
        }
    }

    /// The time for finishing is over: every connection gets a FIN, and what is still queued is refused.
    fn close_all<B: Backend>(
        &mut self,
        core: &mut Core<B>,
        acceptor: &mut Acceptor,
        datagrams: &mut DatagramEcho<B>,
        abort_at: Instant,
    ) {
        self.enter(core, Phase::Closing { abort_at });
        for key in core.connections() {
            begin_close(core, key);
        }
        acceptor.end_pauses(core); // a connection that is refused needs no room
        for key in acceptor.listeners.keys().to_vec() {
            self.serve_queue(core, acceptor, datagrams, key, Readiness::Normal);
        }
    }

    /// Aborts every connection, refuses what is queued, and closes every listener.
    pub(super) fn stop<B: Backend>(
        &mut self,
        core: &mut Core<B>,
        acceptor: &mut Acceptor,
        datagrams: &mut DatagramEcho<B>,
    ) {
        self.enter(core, Phase::Stopped);
        core.reactor.read_clock();
        for key in core.connections() {
            close_connection(core, acceptor, key, CloseReason::Aborted);
        }
        // After the connections: accept(2) needs a descriptor, even for a connection that is to be refused.
        self.refuse_queues(core, acceptor, datagrams);
    }

    // ---- the queues of listeners and datagram sockets ----

    /// Serves what is queued at each listener and datagram socket, and closes those whose queue is empty. A queue longer
    /// than the budget of a turn is served on in the turns that follow; the accept queue is FIFO, so connections that
    /// were there at the beginning come first.
    ///
    /// Files of Unix sockets are removed before that, so that no new client can connect.
    fn serve_queues<B: Backend>(
        &mut self,
        core: &mut Core<B>,
        acceptor: &mut Acceptor,
        datagrams: &mut DatagramEcho<B>,
    ) {
        acceptor.listeners.files.clear();
        acceptor.end_pauses(core);
        for key in acceptor.listeners.keys().to_vec() {
            if let Some(Socket::Datagrams(_)) = core.reactor.get_mut(key) {
                datagrams.begin_drain(key, QUEUED_MAX);
            }
            self.serve_queue(core, acceptor, datagrams, key, Readiness::Normal);
        }
    }

    /// Serves the queue of a listener or datagram socket: accepts and answers, or refuses, as the phase demands. If the
    /// last listener turns out to be broken, the server drains.
    #[inline(never)]
    pub(super) fn serve_queue<B: Backend>(
        &mut self,
        core: &mut Core<B>,
        acceptor: &mut Acceptor,
        datagrams: &mut DatagramEcho<B>,
        key: Key,
        readiness: Readiness,
    ) {
        let phase = self.phase;
        let result = match core.reactor.get_mut(key) {
            Some(Socket::Listener(_)) => acceptor.accept(core, phase, key, readiness),
            Some(Socket::Datagrams(_)) => {
                datagrams.answer(core, &mut acceptor.listeners, phase, key, readiness)
            }
            _ => Ok(()),
        };
        if let Err(error) = result {
            self.fail(core, acceptor, datagrams, error);
        }
    }

    /// Refuses and counts what is queued, all in this turn, and closes every listener and datagram socket.
    fn refuse_queues<B: Backend>(
        &mut self,
        core: &mut Core<B>,
        acceptor: &mut Acceptor,
        datagrams: &mut DatagramEcho<B>,
    ) {
        acceptor.listeners.files.clear();
        acceptor.end_pauses(core);
        for key in acceptor.listeners.keys().to_vec() {
            let before = lost_in_queue(&core.stats);
            let mut fruitless = 0;
            // Until the queue is empty; but a client may fill it as fast as it is emptied, and errors may use up the
            // budget of every call.
            while fruitless < FRUITLESS_CALLS_MAX
                && lost_in_queue(&core.stats) - before < QUEUED_MAX
                && core.reactor.get_mut(key).is_some()
            {
                let count = lost_in_queue(&core.stats);
                self.serve_queue(core, acceptor, datagrams, key, Readiness::Normal);
                let is_fruitless = lost_in_queue(&core.stats) == count;
                fruitless = if is_fruitless { fruitless + 1 } else { 0 };
            }
            acceptor.listeners.close(core, key);
        }
        acceptor.end_pauses(core);
        let lost = lost_in_queue(&core.stats);
        if lost > 0 {
            log::warn!("{lost} queued connections and datagrams are lost: the server has stopped");
        }
    }
}

/// The last part of a drain, in which every connection gets a FIN and may answer it. A short drain is mostly serving, too.
fn time_for_closing(limits: &Limits) -> Duration {
    limits.fin_timeout.min(limits.drain_timeout / 4)
}

/// How many queued connections and datagrams were lost because the server stopped.
fn lost_in_queue(stats: &Stats) -> u64 {
    stats.rejected(RejectReason::Stopping) + stats.dropped(DropReason::Stopping)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::echo::Server;

    /// An alarm for another purpose rings in the meantime.
    #[test]
    fn a_phase_ends_at_its_time_and_not_at_every_alarm() {
        let mut server = Server::bind(["127.0.0.1:0"], Limits::default()).unwrap();
        let now = server.core.reactor.now();
        let later = now + Duration::from_secs(1);
        let closing = |abort_at| Phase::Closing { abort_at };
        let draining = |close_at| Phase::Draining {
            close_at,
            abort_at: later,
        };
        for (phase, next) in [
            (draining(later), draining(later)),
            (draining(now), closing(later)),
            (closing(later), closing(later)),
            (closing(now), Phase::Stopped),
        ] {
            let (core, acceptor) = (&mut server.core, &mut server.acceptor);
            server.shutdown.phase = phase;
            server
                .shutdown
                .on_alarm(core, acceptor, &mut server.datagrams);
            assert_eq!(server.shutdown.phase, next, "after {phase:?}");
        }
    }

    #[test]
    fn the_closing_takes_a_quarter_of_a_drain_at_most() {
        let seconds = Duration::from_secs;
        for (fin_timeout, drain_timeout, expected) in [(1, 8, 1), (2, 8, 2), (10, 8, 2)] {
            let limits = Limits {
                fin_timeout: seconds(fin_timeout),
                drain_timeout: seconds(drain_timeout),
                ..Limits::default()
            };
            assert_eq!(time_for_closing(&limits), seconds(expected));
        }
    }
}
