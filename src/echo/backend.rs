//! The backend of a server: which sockets there are, and what reports their readiness.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! The server is generic over [`Backend`], and two have sockets of their own: [`Os`], the operating system through mio, and the simulated
//! network of the tests, where readiness, short reads, errors and the clock come from a seed. The same server runs on both,
//! line by line. A reader of the server may take `B` for [`Os`] throughout. A third wraps either of them, and records what
//! goes through it: `trace::Traced`, with the feature `trace`.

use super::connection::Connection;
use super::decision::Decision;
use crate::net::{self, Datagrams, Listener, Stream};
use crate::reactor::{Epoll, Interest, Selector, Source, Token};
use crate::stats::DropReason;
use std::fmt::Debug;
use std::io;

/// The types of sockets and of the selector that a server runs on.
///
/// Unpromised: it may change in any release.
pub trait Backend: 'static {
    /// Reports which sources are ready.
    type Selector: Selector + Debug;
    /// Connections.
    type Stream: Stream + Source<Registry<Self>> + Debug;
    /// Listeners.
    type Listener: Listener<Stream = Self::Stream> + Source<Registry<Self>> + Debug;
    /// Datagram sockets.
    type Datagrams: Datagrams + Source<Registry<Self>> + Debug;

    /// Hears what the server decides. It does nothing here, and costs nothing; a backend that records overrides it.
    #[inline(always)]
    fn note(_selector: &Self::Selector, _decision: Decision) {}

    /// Hears why a datagram that this socket has received is not answered. As [`Backend::note`]: it costs nothing here.
    #[inline(always)]
    fn note_dropped(_socket: &Self::Datagrams, _reason: DropReason) {}
}

/// A backend whose sockets are those of the operating system, perhaps inside other types.
///
/// Unpromised: it may change in any release.
pub trait Native: Backend {
    /// Returns the epoll instance of a selector.
    fn epoll(selector: &Self::Selector) -> &Epoll;

    /// Makes a listener.
    fn listener(selector: &Self::Selector, socket: net::ListenerSocket) -> Self::Listener;

    /// Makes a datagram socket.
    fn datagrams(selector: &Self::Selector, socket: net::DatagramSocket) -> Self::Datagrams;
}

/// What the sockets of a backend are registered with.
pub type Registry<B> = <<B as Backend>::Selector as Selector>::Registry;

/// The operating system.
///
/// Unpromised: it may change in any release.
#[derive(Debug)]
pub enum Os {}

impl Backend for Os {
    type Selector = Epoll;
    type Stream = net::StreamSocket;
    type Listener = net::ListenerSocket;
    type Datagrams = net::DatagramSocket;
}

impl Native for Os {
    fn epoll(selector: &Epoll) -> &Epoll {
        selector
    }

    fn listener(_: &Epoll, socket: net::ListenerSocket) -> net::ListenerSocket {
        socket
    }

    fn datagrams(_: &Epoll, socket: net::DatagramSocket) -> net::DatagramSocket {
        socket
    }
}

/// A source that the server registers with its reactor. Connections are many, and stored in the slot itself; listeners and
/// datagram sockets are few, and boxed, so that the slot needs no room for them.
#[derive(Debug)]
pub enum Socket<B: Backend> {
    /// A connection.
    Connection(Connection<B::Stream>),
    /// A listener.
    Listener(Box<B::Listener>),
    /// A datagram socket.
    Datagrams(Box<B::Datagrams>),
}

impl<B: Backend> Socket<B> {
    fn source(&mut self) -> &mut dyn Source<Registry<B>> {
        match self {
            Self::Connection(connection) => &mut connection.stream,
            Self::Listener(listener) => &mut **listener,
            Self::Datagrams(socket) => &mut **socket,
        }
    }
}

impl<B: Backend> Source<Registry<B>> for Socket<B> {
    fn register(
        &mut self,
        registry: &Registry<B>,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.source().register(registry, token, interest)
    }

    fn reregister(
        &mut self,
        registry: &Registry<B>,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.source().reregister(registry, token, interest)
    }

    fn deregister(&mut self, registry: &Registry<B>) -> io::Result<()> {
        self.source().deregister(registry)
    }
}
