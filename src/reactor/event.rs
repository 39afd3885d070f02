//! What is said: by the reactor to its caller, by the caller to the reactor, and between the reactor and the operating
//! system.
//!
//! What may live in this file: the types and traits of these three conversations. What may not: anything that does.

#[cfg(doc)]
use super::{Epoll, Reactor};
use super::{Key, TimeoutClass, Token};
use std::io;
use std::time::{Duration, Instant};

/// Something to do, said by [`Reactor::next_event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A source is ready, or queued up for this turn. [`Reactor::begin_event`] tells whether it is still there.
    Ready(Key, Readiness),
    /// A source did nothing for as long as its class allows. If nothing comes of it, it is said again when that time has
    /// passed once more.
    Expired(Key),
    /// The time set by [`Reactor::set_alarm`] has come.
    Alarm,
}

/// What the kernel said of a source that is ready. A hint: only trying tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readiness {
    /// That it is, for what it waits for, and nothing else.
    Normal,
    /// That there is more than meets the eye: the peer has said FIN, or the connection is broken, or there is urgent
    /// data, at which a read stops early. A read that finds fewer bytes than it has room for has then not found all.
    Exceptional,
}

/// What the kernel is asked to watch for: one thing at a time.
///
/// Asking for both would save the change when a peer turns slow, and on TCP it would cost nothing; on Unix and UDP
/// sockets it doubles the wake-ups, since every message that leaves makes the socket "writable" again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Bytes, connections, datagrams, or an end.
    Read,
    /// Room for more bytes.
    Write,
}

/// What a source waits for, and how long at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    /// What for.
    pub interest: Interest,
    /// How long.
    pub class: TimeoutClass,
}

/// The side of the operating system: who is ready, and what time it is. [`Epoll`] is the real one; the tests bring one
/// of their own, with a clock that they turn by hand.
pub trait Selector {
    /// What a source is registered with.
    type Registry: ?Sized;

    /// Where sources are registered.
    fn registry(&self) -> &Self::Registry;

    /// Waits for something to become ready, at most for `timeout`, and reports what did, by its token. Returns whether
    /// that was everything, or there may be more for which there was no room.
    ///
    /// # Errors
    /// Those of epoll_wait(2). `Interrupted` only means that it is time to ask again.
    fn wait(
        &mut self,
        timeout: Option<Duration>,
        report: impl FnMut(Token, Readiness),
    ) -> io::Result<bool>;

    /// The time.
    fn now(&self) -> Instant;

    /// Whether an outer event loop may watch the descriptor of this queue.
    fn is_watched(&self) -> bool {
        false
    }

    /// Makes that descriptor readable when the next turn is due, after this time.
    fn announce(&mut self, _due: Duration) {}
}

/// What can be registered. Everything that mio can register is one.
pub trait Source<R: ?Sized = mio::Registry> {
    /// Begins to watch.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    fn register(&mut self, registry: &R, token: Token, interest: Interest) -> io::Result<()>;

    /// Watches for something else from now on; what is ready already is reported once more.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    fn reregister(&mut self, registry: &R, token: Token, interest: Interest) -> io::Result<()>;

    /// Stops watching.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    fn deregister(&mut self, registry: &R) -> io::Result<()>;
}
