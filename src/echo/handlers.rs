//! What the loop does for events that are no echo: each is one call on the server.
//!
//! They stand apart from the loop for its reader, and for the optimiser: `#[inline(never)]` keeps the addresses of the parts
//! out of the path of an echo, which would compute them in each turn.

use super::backend::Backend;
use super::connection::Outcome;
use super::connections;
use super::handle::Command;
use super::parts::Server;
use crate::reactor::{Key, Readiness};

impl<B: Backend> Server<B> {
    #[inline(never)]
    pub(super) fn on_outcome(&mut self, key: Key, readiness: Readiness, outcome: Outcome) {
        let phase = self.shutdown.phase();
        let (core, acceptor) = (&mut self.core, &mut self.acceptor);
        connections::apply(core, acceptor, phase, key, readiness, outcome);
    }

    #[inline(never)]
    pub(super) fn on_queue(&mut self, key: Key, readiness: Readiness) {
        let (core, acceptor, datagrams) = (&mut self.core, &mut self.acceptor, &mut self.datagrams);
        self.shutdown
            .serve_queue(core, acceptor, datagrams, key, readiness);
    }

    #[inline(never)]
    pub(super) fn on_expired(&mut self, key: Key) {
        let phase = self.shutdown.phase();
        connections::on_expired(&mut self.core, &mut self.acceptor, phase, key);
    }

    #[inline(never)]
    pub(super) fn on_alarm(&mut self) {
        let (core, acceptor) = (&mut self.core, &mut self.acceptor);
        core.time_this_turn();
        acceptor.on_alarm(core);
        self.shutdown.on_alarm(core, acceptor, &mut self.datagrams);
        core.rearm();
    }

    /// Handles a command. Returns whether the turn ends here: a question for the counters does not end it, since a thread
    /// that asks without a pause would starve the sources.
    #[inline(never)]
    pub(super) fn on_woken(&mut self, is_external: bool) -> bool {
        let (core, acceptor, datagrams) = (&mut self.core, &mut self.acceptor, &mut self.datagrams);
        let command = self.control.take(&core.stats);
        match command {
            Command::None => {}
            Command::Drain => self.shutdown.drain(core, acceptor, datagrams),
            Command::Stop => self.shutdown.stop(core, acceptor, datagrams),
        }
        is_external || command != Command::None
    }
}
