//! The listeners of the event loop: accept, without blocking.

use super::bind::{BindOptions, StreamOptions};
use super::stream::StreamSocket;
use super::{Accepted, Endpoint, Listener};
use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use socket2::{SockRef, Socket};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The listeners of the operating system.
#[derive(Debug)]
pub enum ListenerSocket {
    /// IPv4 or IPv6.
    Tcp {
        /// The socket.
        socket: TcpListener,
        /// What each connection is to have.
        options: StreamOptions,
        /// Whether connections inherit them from the listener, and need not be told one by one: on Linux, if the
        /// listener has them. One that somebody else has made may not.
        hands_down: bool,
    },
    /// Unix.
    Unix {
        /// The socket.
        socket: UnixListener,
        /// Its connections inherit nothing anywhere.
        options: StreamOptions,
    },
}

impl ListenerSocket {
    /// Makes a bound socket non-blocking, for the event loop.
    ///
    /// # Errors
    /// What the system said of `O_NONBLOCK`.
    pub fn new(bound: Socket, endpoint: &Endpoint, options: &BindOptions) -> io::Result<Self> {
        bound.set_nonblocking(true)?;
        let options = StreamOptions::from(options);
        Ok(match endpoint {
            Endpoint::Tcp(_) => Self::Tcp {
                hands_down: cfg!(target_os = "linux") && options.are_set(&SockRef::from(&bound)),
                socket: TcpListener::from_std(bound.into()),
                options,
            },
            _ => Self::Unix {
                socket: UnixListener::from_std(bound.into()),
                options,
            },
        })
    }
}

impl Listener for ListenerSocket {
    type Stream = StreamSocket;

    fn accept(&mut self) -> io::Result<Accepted<StreamSocket>> {
        match self {
            Self::Tcp {
                socket,
                options,
                hands_down,
            } => {
                let (stream, address) = socket.accept()?;
                let option_errors = if *hands_down {
                    0
                } else {
                    options.set_tcp(&SockRef::from(&stream))
                };
                Ok(Accepted {
                    stream: StreamSocket::Tcp(stream),
                    peer: address.into(),
                    option_errors,
                })
            }
            Self::Unix { socket, options } => {
                let (stream, address) = socket.accept()?;
                Ok(Accepted {
                    option_errors: options.set_buffers(&SockRef::from(&stream)),
                    stream: StreamSocket::Unix(stream),
                    peer: (&address).into(),
                })
            }
        }
    }
}

impl ListenerSocket {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp { socket, .. } => socket,
            Self::Unix { socket, .. } => socket,
        }
    }

    /// A copy of its descriptor, closed on exec as all of ours.
    ///
    /// # Errors
    /// Those of fcntl(2), `F_DUPFD_CLOEXEC`: usually that there are no descriptors left.
    pub fn share(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp { socket, .. } => socket.as_fd().try_clone_to_owned(),
            Self::Unix { socket, .. } => socket.as_fd().try_clone_to_owned(),
        }
    }
}

register_by_source!(ListenerSocket);
