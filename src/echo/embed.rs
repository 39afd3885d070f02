//! What a program calls on its server between two turns: to stop it, to read its state, to hand its listeners over, and to
//! drive it from another event loop.

#[cfg(feature = "cli")]
use super::backend::Native;
use super::backend::{Backend, Socket};
#[cfg(feature = "cli")]
use super::decision::PhaseName;
use super::handle::Handle;
#[cfg(any(test, feature = "cli", feature = "simulation"))]
use super::outcome::Wait;
use super::parts::Server;
use crate::limits::Limits;
use crate::net::{Endpoint, FileIdentity, SocketFile};
use crate::reactor::ExternalFd;
#[cfg(feature = "cli")]
use crate::reactor::ExternalSource;
use crate::stats::Stats;
#[cfg(doc)]
use crate::stats::{DropReason, RejectReason};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

impl<B: Backend> Server<B> {
    // ---- reading its state ----

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.core.stats
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.core.limits
    }

    /// The addresses that the server is bound to, in the order in which they were given, with the real port in place of a
    /// port 0. A listener that broke is no longer among them.
    pub fn addresses(&self) -> &[Endpoint] {
        self.acceptor.listeners.endpoints()
    }

    /// The memory of the connections' slots, in bytes: of those in use, and of all that are allocated.
    pub fn slot_bytes(&self) -> (usize, usize) {
        self.core.reactor.slot_bytes()
    }
}

impl<B: Backend> Server<B> {
    // ---- another event loop ----

    /// How long [`Server::turn`] would wait from now on if no event came; `None` is without end. It is zero while work is
    /// left from the last turn, while a command of a [`Handle`] is pending, and once the server has finished.
    ///
    /// For an outer event loop: see [the page of the crate](crate#in-another-event-loop).
    pub fn timeout(&self) -> Option<Duration> {
        if self.is_finished() || self.control.is_pending() {
            return Some(Duration::ZERO);
        }
        self.core.reactor.timeout()
    }

    /// Tells an outer event loop, if there is one, when the next turn is due. Called at the end of a turn, and after each
    /// change between two turns.
    #[inline(always)]
    pub(super) fn announce(&mut self) {
        if self.core.reactor.is_watched() {
            self.announce_next_turn();
        }
    }

    #[cold]
    fn announce_next_turn(&mut self) {
        let due = self.timeout();
        self.core.reactor.announce(due);
    }

    // ---- stopping ----

    /// Begins a graceful shutdown. Connections and datagrams that are queued now are served, and each listener is closed when
    /// its queue is empty. A connection gets a FIN after [`Limits::drain_idle_timeout`] without a byte, and the last ones
    /// [`Limits::fin_timeout`] before the end of [`Limits::drain_timeout`], or a quarter of it if that is less; what is still queued then is refused and counted
    /// ([`RejectReason::Stopping`], [`DropReason::Stopping`]). What is left when `drain_timeout` is over is aborted. A second
    /// call changes nothing.
    pub fn drain(&mut self) {
        let (core, acceptor) = (&mut self.core, &mut self.acceptor);
        self.shutdown.drain(core, acceptor, &mut self.datagrams);
        self.announce();
    }

    /// Stops at once: open connections are aborted, queued connections are reset and queued datagrams dropped. All of them
    /// are counted.
    pub fn stop(&mut self) {
        let (core, acceptor) = (&mut self.core, &mut self.acceptor);
        self.shutdown.stop(core, acceptor, &mut self.datagrams);
        self.announce();
    }

    /// Gives the listeners up to another server that has copies of them ([`Server::try_clone_listeners`]), and serves open
    /// connections on until they end; with the last one the server has finished. [`Server::drain`] still ends them earlier.
    ///
    /// No client notices: the accept queue belongs to the socket, not to a process, and the connections and datagrams in it
    /// are served by the other server. So nothing more is accepted here, unlike in a drain. Files of Unix sockets stay where
    /// they are.
    pub fn detach_listeners(&mut self) {
        self.shutdown
            .detach_listeners(&mut self.core, &mut self.acceptor);
        self.announce();
    }
}

impl Server {
    /// A handle, with which other threads stop this server and read its counters.
    pub fn handle(&self) -> Handle {
        Handle::new(&self.control, self.core.reactor.waker())
    }

    /// Watches a descriptor of the program, a pipe of signals for example: when it becomes readable, the wait ends, and
    /// [`Server::turn`] returns [`Turn::Woken`](super::Turn::Woken). It is registered edge-triggered: read it until it would
    /// block. Closing its last duplicate ends the watch (epoll(7)).
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn watch(&self, descriptor: impl AsFd) -> io::Result<()> {
        let descriptor = descriptor.as_fd().as_raw_fd();
        self.core.reactor.watch(&mut ExternalFd(&descriptor))
    }

    // ---- handing over ----

    /// Copies every listening and datagram socket, with its address, for a server that takes over. A copy has the same
    /// queue: a connection belongs to the side that accepts it first, and no datagram is read twice.
    ///
    /// # Errors
    /// Those of fcntl(2), `F_DUPFD_CLOEXEC`: usually that there are no descriptors left.
    pub fn try_clone_listeners(&mut self) -> io::Result<Vec<(OwnedFd, Endpoint)>> {
        let mut copies = Vec::new();
        let listeners = &self.acceptor.listeners;
        for (&key, endpoint) in listeners.keys().iter().zip(listeners.endpoints()) {
            let copy = match self.core.reactor.get_mut(key) {
                Some(Socket::Listener(listener)) => listener.share()?,
                Some(Socket::Datagrams(socket)) => socket.share()?,
                _ => continue,
            };
            copies.push((copy, endpoint.clone()));
        }
        Ok(copies)
    }

    /// The socket files that this server removes at its end.
    pub fn files(&self) -> impl Iterator<Item = FileIdentity> {
        self.acceptor
            .listeners
            .files
            .iter()
            .map(SocketFile::identity)
    }

    /// Has this server remove one more socket file at its end: one that the previous server has left to it.
    pub fn adopt_socket_file(&mut self, file: SocketFile) {
        self.acceptor.listeners.files.push(file);
    }
}

/// For a display of the server.
#[cfg(any(test, feature = "cli", feature = "simulation"))]
impl<B: Backend> Server<B> {
    /// How many open connections wait for this.
    pub(crate) fn connections_waiting(&self, wait: Wait) -> u64 {
        self.core.connections_waiting(wait) as u64
    }

    /// Whether accepting is paused: by the limit of connections, or by a lack of descriptors or memory.
    #[cfg(feature = "cli")]
    pub(crate) fn is_accepting_paused(&self) -> bool {
        self.acceptor.is_paused()
    }

    /// The phase that the server is in.
    #[cfg(feature = "cli")]
    pub(crate) fn phase(&self) -> PhaseName {
        self.shutdown.phase().name()
    }
}

#[cfg(feature = "cli")]
impl<B: Native> Server<B> {
    /// As [`Server::watch`], for a source of mio that does not show its descriptor, as the signals of signal-hook-mio.
    pub(crate) fn watch_source(&self, source: &mut dyn ExternalSource) -> io::Result<()> {
        B::epoll(self.core.reactor.selector()).watch(source)
    }
}

/// The server's epoll instance, for an outer event loop. After it has been taken for the first time it is readable whenever
/// a turn is due: see [the page of the crate](crate#in-another-event-loop).
impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.core.reactor.as_fd()
    }
}

impl AsRawFd for Server {
    fn as_raw_fd(&self) -> RawFd {
        self.core.reactor.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::echo::Turn;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    fn server() -> Server {
        Server::bind(["127.0.0.1:0"], Limits::default()).unwrap()
    }

    #[test]
    fn a_listener_has_a_slot_like_a_connection() {
        let (used, allocated) = server().slot_bytes();
        assert!(used > 0 && allocated > used, "{used} of {allocated}");
    }

    #[test]
    fn a_watched_descriptor_ends_the_wait() {
        const DEADLINE: Duration = Duration::from_secs(20);
        let mut server = server();
        let (watched, mut signals) = UnixStream::pair().unwrap();
        server.watch(&watched).unwrap();
        assert_eq!(server.turn(Some(Duration::ZERO)).unwrap(), Turn::Serving);
        signals.write_all(b"1").unwrap();
        assert_eq!(server.turn(Some(DEADLINE)).unwrap(), Turn::Woken);
        assert_eq!(
            server.turn(Some(Duration::ZERO)).unwrap(),
            Turn::Serving,
            "an edge"
        );
    }
}
