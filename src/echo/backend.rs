//! The world that a server lives in: which sockets there are, and who tells that they are ready.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! The server is written against [`Backend`], and there are two: [`Os`], which is the operating system through mio, and
//! the simulated network of the tests, where readiness, partial reads, errors and the clock come from a seed. The same
//! server runs in both, line by line. Whoever reads the server may take `W` for [`Os`] throughout.

use super::connection::Connection;
use crate::net::{self, Datagrams, Listener, Stream};
use crate::reactor::{Epoll, Interest, Selector, Source, Token};
use std::fmt::Debug;
use std::io;

/// See the page above.
///
/// Unpromised: it may change in any release.
pub trait Backend: 'static {
    /// Who tells what is ready.
    type Selector: Selector + Debug;
    /// Connections.
    type Stream: Stream + Source<Registry<Self>> + Debug;
    /// Where connections arrive.
    type Listener: Listener<Stream = Self::Stream> + Source<Registry<Self>> + Debug;
    /// Where datagrams arrive.
    type Datagrams: Datagrams + Source<Registry<Self>> + Debug;
}

/// What the sockets of a world are registered with.
pub type Registry<W> = <<W as Backend>::Selector as Selector>::Registry;

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

/// Whatever the server registers with its reactor. Connections are many and live in the slot; the others are few and
/// live elsewhere, so that the slot needs no room for them.
#[derive(Debug)]
pub enum Socket<W: Backend> {
    /// A connection.
    Connection(Connection<W::Stream>),
    /// A listener.
    Listener(Box<W::Listener>),
    /// A datagram socket.
    Datagrams(Box<W::Datagrams>),
}

impl<W: Backend> Socket<W> {
    fn source(&mut self) -> &mut dyn Source<Registry<W>> {
        match self {
            Self::Connection(connection) => connection.stream_mut(),
            Self::Listener(listener) => &mut **listener,
            Self::Datagrams(socket) => &mut **socket,
        }
    }
}

impl<W: Backend> Source<Registry<W>> for Socket<W> {
    fn register(
        &mut self,
        registry: &Registry<W>,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.source().register(registry, token, interest)
    }

    fn reregister(
        &mut self,
        registry: &Registry<W>,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.source().reregister(registry, token, interest)
    }

    fn deregister(&mut self, registry: &Registry<W>) -> io::Result<()> {
        self.source().deregister(registry)
    }
}
