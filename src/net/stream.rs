//! One connected stream of the operating system, TCP or Unix.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.

use super::peer::Peer;
use super::send_room::send_room;
use super::source::register_by_source;
use super::traits::Stream;
use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use socket2::SockRef;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

/// A stream of the operating system. It takes eight bytes: the descriptor, and the family.
///
/// Unpromised: it may change in any release.
#[derive(Debug)]
pub enum StreamSocket {
    /// IPv4 or IPv6.
    Tcp(TcpStream),
    /// A Unix stream.
    Unix(UnixStream),
}

impl Read for StreamSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for StreamSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // a socket has no buffer on our side
    }
}

impl Stream for StreamSocket {
    fn short_read_means_empty(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    fn send_room(&self) -> usize {
        match self {
            Self::Tcp(stream) => send_room(stream),
            Self::Unix(_) => 0,
        }
    }

    fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    fn reset_on_close(&self) {
        if let Self::Tcp(stream) = self {
            // It can only fail on a socket that is broken already, and the socket is about to be closed. A Unix socket
            // needs nothing: its unsent bytes are in the receive queue of the peer, and use the memory of the peer.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    fn peer(&self) -> Peer {
        match self {
            Self::Tcp(stream) => stream.peer_addr().map_or(Peer::Unnamed, Peer::from),
            Self::Unix(stream) => stream
                .peer_addr()
                .map_or(Peer::Unnamed, |address| Peer::from(&address)),
        }
    }
}

impl StreamSocket {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        }
    }
}

register_by_source!(StreamSocket);
