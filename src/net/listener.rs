//! The listeners of the event loop: accept, without blocking.

use super::bind::set_stream_options;
use super::stream::StreamSocket;
use super::{Accepted, Endpoint, Listener};
use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use socket2::{SockRef, Socket};
use std::io;
use std::time::Duration;

/// The listeners of the operating system.
#[derive(Debug)]
pub enum ListenerSocket {
    /// IPv4 or IPv6.
    Tcp {
        /// The socket.
        socket: TcpListener,
        /// For systems where connections do not inherit it.
        keepalive: Option<Duration>,
    },
    /// Unix.
    Unix(UnixListener),
}

impl ListenerSocket {
    /// Makes a bound socket non-blocking, for the event loop.
    ///
    /// # Errors
    /// What the system said of `O_NONBLOCK`.
    pub fn new(
        bound: Socket,
        endpoint: &Endpoint,
        keepalive: Option<Duration>,
    ) -> io::Result<Self> {
        bound.set_nonblocking(true)?;
        Ok(match endpoint {
            Endpoint::Tcp(_) => Self::Tcp {
                socket: TcpListener::from_std(bound.into()),
                keepalive,
            },
            _ => Self::Unix(UnixListener::from_std(bound.into())),
        })
    }
}

impl Listener for ListenerSocket {
    type Stream = StreamSocket;

    fn accept(&mut self) -> io::Result<Accepted<StreamSocket>> {
        match self {
            Self::Tcp { socket, keepalive } => {
                let (stream, address) = socket.accept()?;
                // Linux hands the listener's options down to its connections; elsewhere each one is asked again.
                let refused = !cfg!(target_os = "linux")
                    && set_stream_options(&SockRef::from(&stream), *keepalive).is_err();
                Ok(Accepted {
                    stream: StreamSocket::Tcp(stream),
                    peer: address.into(),
                    option_errors: u32::from(refused),
                })
            }
            Self::Unix(socket) => {
                let (stream, address) = socket.accept()?;
                Ok(Accepted {
                    stream: StreamSocket::Unix(stream),
                    peer: (&address).into(),
                    option_errors: 0,
                })
            }
        }
    }
}

impl ListenerSocket {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp { socket, .. } => socket,
            Self::Unix(socket) => socket,
        }
    }
}

register_by_source!(ListenerSocket);
