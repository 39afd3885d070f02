//! The operating system's side of the reactor: what can be registered, and what reports which source is ready.
//!
//! The two traits let the reactor run on epoll and, unchanged, on a simulated network whose clock a test moves.

use super::event::{Interest, Readiness, Step};
use mio::Registry;
use std::io;
use std::time::{Duration, Instant};

/// Token under which a source is registered: a [`Key`](super::Key) in the form that epoll(7) returns with each event.
pub use mio::Token;
/// Trait of sources that can be watched beside the reactor's own.
pub use mio::event::Source as ExternalSource;
/// External source that is just a file descriptor.
pub use mio::unix::SourceFd as ExternalFd;

/// Upper bound of a turn: at most this many requeued sources plus this many epoll events, and this many timeouts. It
/// bounds how long a command or a new connection waits; what finds no room is served in the next turn. The cost of
/// epoll_wait(2) and of reading the clock is spread over as many sources.
pub(crate) const SOURCES_PER_TURN: usize = 128;

/// Reports which sources are ready, and the time: [`Epoll`](super::Epoll), or a simulated event queue.
pub trait Selector {
    /// Interest list, with which sources are registered.
    type Registry: ?Sized;

    /// Returns the interest list.
    fn registry(&self) -> &Self::Registry;

    /// Waits at most `timeout` for readiness, and reports each ready source by its token. Returns whether the ready list
    /// is empty then; `false` means that the event buffer was full.
    ///
    /// # Errors
    /// Those of epoll_wait(2). `Interrupted` is no failure: the next wait reports what this one did not.
    fn wait(
        &mut self,
        timeout: Option<Duration>,
        report: impl FnMut(Token, Readiness),
    ) -> io::Result<bool>;

    /// Returns the time.
    fn now(&self) -> Instant;

    /// Offers the core to other threads that are ready to run, between two polls that found nothing (sched_yield(2)).
    fn yield_core(&mut self) {}

    /// Returns whether an outer event loop may watch the descriptor of this event queue.
    fn is_watched(&self) -> bool {
        false
    }

    /// Makes that descriptor readable after this time, when the next turn is due.
    fn announce(&mut self, _due: Duration) {}

    /// Hears what the reactor does between its system calls. It does nothing here, and costs nothing; a selector that
    /// records overrides it.
    #[inline(always)]
    fn note(&self, _step: Step) {}
}

/// A source that can be registered. Every source of mio is one.
pub trait Source<R: ?Sized = Registry> {
    /// Adds the source to the interest list (EPOLL_CTL_ADD).
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    fn register(&mut self, registry: &R, token: Token, interest: Interest) -> io::Result<()>;

    /// Changes the interest (EPOLL_CTL_MOD); readiness that is present is reported again.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    fn reregister(&mut self, registry: &R, token: Token, interest: Interest) -> io::Result<()>;

    /// Removes the source from the interest list (EPOLL_CTL_DEL).
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    fn deregister(&mut self, registry: &R) -> io::Result<()>;
}

impl<T: mio::event::Source> Source for T {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        registry.register(self, token, interest.to_mio())
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        registry.reregister(self, token, interest.to_mio())
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        registry.deregister(self)
    }
}

impl Interest {
    fn to_mio(self) -> mio::Interest {
        match self {
            // Urgent data cuts a read short, so the reader has to know of it; EPOLLPRI costs no event of its own.
            #[cfg(target_os = "linux")]
            Self::Read => mio::Interest::READABLE | mio::Interest::PRIORITY,
            #[cfg(not(target_os = "linux"))]
            Self::Read => mio::Interest::READABLE,
            Self::Write => mio::Interest::WRITABLE,
        }
    }
}
