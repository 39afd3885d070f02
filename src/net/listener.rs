//! The listeners of the event loop: non-blocking accept(2).
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.

use super::address::Endpoint;
use super::bind::{BindOptions, StreamOptions};
use super::peer::Peer;
use super::source::register_by_source;
use super::stream::StreamSocket;
use super::traits::{Accepted, Listener};
use mio::event::Source;
use mio::net::{TcpListener, UnixListener, UnixStream};
#[cfg(target_os = "linux")]
use socket2::Type;
use socket2::{SockRef, Socket};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// A listener of the operating system.
///
/// Unpromised: it may change in any release.
#[derive(Debug)]
pub enum ListenerSocket {
    /// IPv4 or IPv6.
    Tcp {
        /// The socket.
        socket: TcpListener,
        /// The socket options of each connection.
        options: StreamOptions,
        /// Whether connections inherit the options from the listener, so that they need not be set one by one: on Linux,
        /// if the listener has them. A listener that another program made may not.
        inherits_options: bool,
    },
    /// A Unix listener.
    Unix {
        /// The socket.
        socket: UnixListener,
        /// The socket options of each connection. Connections of a Unix listener inherit none.
        options: StreamOptions,
    },
}

impl ListenerSocket {
    /// Makes a bound socket non-blocking, for the event loop.
    ///
    /// # Errors
    /// Those of fcntl(2), `F_SETFL`.
    pub fn new(bound: Socket, endpoint: &Endpoint, options: &BindOptions) -> io::Result<Self> {
        bound.set_nonblocking(true)?;
        let options = StreamOptions::new(options);
        Ok(match endpoint {
            Endpoint::Tcp(_) => Self::Tcp {
                inherits_options: cfg!(target_os = "linux")
                    && options.are_set(&SockRef::from(&bound)),
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
                inherits_options,
            } => {
                let (stream, address) = socket.accept()?;
                let option_errors = if *inherits_options {
                    0
                } else {
                    options.set_inherited(&SockRef::from(&stream))
                };
                Ok(Accepted {
                    stream: StreamSocket::Tcp(stream),
                    peer: address.into(),
                    option_errors,
                })
            }
            Self::Unix { socket, options } => {
                let (stream, peer) = accept_unix(socket)?;
                Ok(Accepted {
                    option_errors: options.set_buffers(&SockRef::from(&stream)),
                    stream: StreamSocket::Unix(stream),
                    peer,
                })
            }
        }
    }
}

/// Accepts by accept4(2) of socket2. The one of mio panics if the client is bound to a path that fills `sun_path` to its
/// last byte: Linux returns an address length of 111 for it, one more than the structure has.
#[cfg(target_os = "linux")]
fn accept_unix(listener: &UnixListener) -> io::Result<(UnixStream, Peer)> {
    // socket2 has no names for the flags; in the type of a socket they are the same bits.
    let flags = i32::from(Type::STREAM.nonblocking().cloexec()) ^ i32::from(Type::STREAM);
    let (stream, address) = SockRef::from(listener).accept4(flags)?;
    Ok((UnixStream::from_std(stream.into()), (&address).into()))
}

#[cfg(not(target_os = "linux"))]
fn accept_unix(listener: &UnixListener) -> io::Result<(UnixStream, Peer)> {
    let (stream, address) = listener.accept()?;
    Ok((stream, (&address).into()))
}

impl ListenerSocket {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp { socket, .. } => socket,
            Self::Unix { socket, .. } => socket,
        }
    }

    /// Duplicates the descriptor. The copy is closed on exec.
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Options that a connection has inherited from a listener of another program, or lacks, are corrected.
    #[test]
    fn connections_of_an_inherited_listener_have_our_options() {
        let inherited = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = inherited.local_addr().unwrap();
        let inherited = Socket::from(inherited);
        inherited.set_linger(Some(Duration::from_secs(3))).unwrap();
        inherited.set_tcp_cork(true).unwrap();
        let owners_copy = inherited.try_clone().unwrap();
        let options = BindOptions {
            send_buffer_bytes: Some(16 * 1024),
            receive_buffer_bytes: Some(8 * 1024),
            keepalive: Some(Duration::from_secs(10)),
            user_timeout: Some(Duration::from_secs(15)),
            ..BindOptions::default()
        };
        let mut listener =
            ListenerSocket::new(inherited, &Endpoint::Tcp(address), &options).unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        let accepted = listener.accept().unwrap();
        assert_eq!(accepted.option_errors, 0);
        let StreamSocket::Tcp(stream) = accepted.stream else {
            panic!("TCP was connected");
        };
        let socket = SockRef::from(&stream);
        assert_eq!(socket.linger().unwrap(), None);
        assert!(!socket.tcp_cork().unwrap() && socket.tcp_nodelay().unwrap());
        assert_eq!(socket.send_buffer_size().unwrap(), 2 * 16 * 1024);
        assert_eq!(socket.recv_buffer_size().unwrap(), 2 * 8 * 1024);
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            Duration::from_secs(10)
        );
        assert_eq!(owners_copy.linger().unwrap(), Some(Duration::from_secs(3)));
    }

    /// Each connection takes one accept(2), and no setsockopt(2).
    #[test]
    fn connections_inherit_the_options_of_our_listener() {
        for options in [
            BindOptions::default(),
            BindOptions {
                send_buffer_bytes: Some(16 * 1024),
                receive_buffer_bytes: Some(8 * 1024),
                keepalive: Some(Duration::from_secs(10)),
                user_timeout: Some(Duration::from_secs(15)),
                ..BindOptions::default()
            },
        ] {
            let any = Endpoint::Tcp("127.0.0.1:0".parse().unwrap());
            let bound = crate::net::BoundSocket::new(&any, &options).unwrap();
            let listener = ListenerSocket::new(bound.socket, &any, &options).unwrap();
            assert!(matches!(
                listener,
                ListenerSocket::Tcp {
                    inherits_options: true,
                    ..
                }
            ));
        }
    }
}
