//! Listeners and datagram sockets: their keys, addresses and socket files, and what happens when their calls fail.
//!
//! An error that concerns one client or one datagram is counted, and the socket is served on. A socket whose calls fail
//! again and again rests for a while ([`Backoff`]), and its queue is kept. Only an error which says that the descriptor
//! can never work again closes the socket.

use super::backend::{Backend, Socket};
use super::backoff::Backoff;
use super::core::{Alarm, Core, LISTENING};
use super::decision::Decision;
use super::log_limit::LogLimit;
use super::phase::Phase;
use crate::net::accept::AcceptError;
use crate::net::{Endpoint, SocketFile};
use crate::reactor::{Key, Readiness};
use std::io;
use std::time::Duration;

/// Every socket that a server is bound to.
#[derive(Debug)]
pub(super) struct Listeners {
    /// The files of Unix sockets.
    pub(super) files: Vec<SocketFile>,
    keys: Vec<Key>,
    /// The addresses, in the same order.
    endpoints: Vec<Endpoint>,
    backoff: Backoff,
    /// For all lines about a pause, of one socket or of all listeners.
    pause_log: LogLimit,
    failure_log: LogLimit,
}

/// The last listener is closed, for this error, although the server was not stopping.
#[derive(Debug)]
#[must_use = "without a listener the server has to stop"]
pub(super) struct NoListenerLeft(pub(super) io::Error);

impl Listeners {
    pub(super) fn new() -> Self {
        Self {
            files: Vec::new(),
            keys: Vec::new(),
            endpoints: Vec::new(),
            backoff: Backoff::default(),
            pause_log: LogLimit::new(Duration::from_secs(5)),
            failure_log: LogLimit::new(Duration::from_secs(1)),
        }
    }

    pub(super) fn add<B: Backend>(
        &mut self,
        core: &mut Core<B>,
        socket: Socket<B>,
    ) -> io::Result<()> {
        let key = core.reactor.add(socket, LISTENING);
        self.keys.push(key.map_err(|(_, error)| error)?);
        Ok(())
    }

    /// Adds the address of the socket that was added last.
    pub(super) fn add_endpoint(&mut self, endpoint: Endpoint) {
        self.endpoints.push(endpoint);
    }

    pub(super) fn keys(&self) -> &[Key] {
        &self.keys
    }

    pub(super) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    // ---- queues ----

    /// Queues all listeners and datagram sockets for the next turn.
    pub(super) fn requeue_all<B: Backend>(&self, core: &mut Core<B>) {
        for &key in &self.keys {
            core.reactor.requeue(key, Readiness::Normal);
        }
    }

    /// The queue of this socket is empty. While the server stops, that is what the socket was still open for.
    pub(super) fn on_queue_empty<B: Backend>(
        &mut self,
        core: &mut Core<B>,
        phase: Phase,
        key: Key,
    ) {
        self.on_success(key);
        if phase.is_stopping() {
            self.close(core, key);
        }
    }

    // ---- sockets whose calls fail ----

    /// A call on this socket succeeded.
    pub(super) fn on_success(&mut self, key: Key) {
        self.backoff.forget(key);
    }

    pub(super) fn is_resting(&self, key: Key) -> bool {
        self.backoff.is_resting(key)
    }

    /// Lets this socket rest after `calls` calls that failed, if it has to. Returns whether it does. While the server
    /// stops, a socket that would have to rest is closed: a queue that cannot be read is not waited for.
    pub(super) fn on_failure<B: Backend>(
        &mut self,
        core: &mut Core<B>,
        phase: Phase,
        key: Key,
        calls: usize,
        error: &io::Error,
        class: AcceptError,
    ) -> bool {
        let (first, now) = (core.limits.accept_retry, core.reactor.now());
        let Some(pause) = self.backoff.failed(key, calls, class, first, now) else {
            return false;
        };
        core.note(Decision::Rests(key));
        core.set_alarm(Alarm::ResumeListener, self.backoff.resume_at());
        if self.may_log_pause(core) {
            let place = self.keys.iter().position(|&listener| listener == key);
            match place.and_then(|place| self.endpoints.get(place)) {
                Some(endpoint) => log::warn!("{endpoint} rests for {pause:?}: {error}"),
                None => log::warn!("a listening socket rests for {pause:?}: {error}"),
            }
        }
        if phase.is_stopping() {
            self.close(core, key);
        }
        true
    }

    /// Queues the sockets whose pause is over.
    pub(super) fn resume_rested<B: Backend>(&mut self, core: &mut Core<B>) {
        for key in self.backoff.take_due(core.reactor.now()) {
            core.reactor.requeue(key, Readiness::Normal);
        }
        core.set_alarm(Alarm::ResumeListener, self.backoff.resume_at());
    }

    /// Ends every pause of a single socket, before the queues are served for the last time.
    pub(super) fn forget_failures<B: Backend>(&mut self, core: &mut Core<B>) {
        self.backoff.clear();
        core.set_alarm(Alarm::ResumeListener, None);
    }

    pub(super) fn may_log_pause<B: Backend>(&mut self, core: &mut Core<B>) -> bool {
        core.may_log(&mut self.pause_log)
    }

    // ---- ends ----

    /// Closes a listener or a datagram socket.
    pub(super) fn close<B: Backend>(&mut self, core: &mut Core<B>, key: Key) {
        self.backoff.forget(key);
        core.set_alarm(Alarm::ResumeListener, self.backoff.resume_at());
        self.keys.retain(|&listener| listener != key);
        core.reactor.release(key);
    }

    /// Closes a listener or a datagram socket that is broken for good.
    ///
    /// # Errors
    /// It was the last one, and the server is not stopping.
    pub(super) fn close_failed<B: Backend>(
        &mut self,
        core: &mut Core<B>,
        phase: Phase,
        key: Key,
        error: io::Error,
    ) -> Result<(), NoListenerLeft> {
        if core.may_log(&mut self.failure_log) {
            log::error!("a listening socket is broken, and closed: {error}");
        }
        self.backoff.forget(key);
        if matches!(core.reactor.release(key), Some(Socket::Listener(_))) {
            core.stats.accept_error(&error);
        }
        if let Some(place) = self.keys.iter().position(|&listener| listener == key) {
            self.keys.remove(place);
            // A server that stops still has to tell its addresses, and its listeners close in any order.
            if !phase.is_stopping() && place < self.endpoints.len() {
                self.endpoints.remove(place);
            }
        }
        if self.keys.is_empty() && !phase.is_stopping() {
            return Err(NoListenerLeft(error));
        }
        Ok(())
    }

    /// Gives all listeners and datagram sockets up without closing them for another server that has copies of them. Their
    /// files stay.
    pub(super) fn detach<B: Backend>(&mut self, core: &mut Core<B>) {
        for file in self.files.drain(..) {
            file.keep();
        }
        for key in std::mem::take(&mut self.keys) {
            core.reactor.release(key);
        }
        self.forget_failures(core);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;
    use crate::echo::Server;
    use std::time::Instant;

    /// A server that serves on no longer tells the address of a broken listener; one that stops still tells all.
    #[test]
    fn the_address_of_a_broken_listener_is_forgotten_unless_the_server_stops() {
        let abort_at = Instant::now();
        for (phase, left) in [
            (Phase::Serving, &[0, 2][..]),
            (Phase::HandedOver, &[0, 2]),
            (Phase::Closing { abort_at }, &[0, 1, 2]),
        ] {
            let mut server = Server::bind(["127.0.0.1:0"; 3], Limits::default()).unwrap();
            let addresses = server.addresses().to_vec();
            let (core, listeners) = (&mut server.core, &mut server.acceptor.listeners);
            let broken = listeners.keys()[1];
            let error = io::Error::from_raw_os_error(libc::EINVAL);
            listeners.close_failed(core, phase, broken, error).unwrap();
            assert_eq!(listeners.keys().len(), 2);
            let expected: Vec<_> = left
                .iter()
                .map(|&place: &usize| addresses[place].clone())
                .collect();
            assert_eq!(server.addresses(), expected, "{phase:?}");
        }
    }
}
