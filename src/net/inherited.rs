//! Sockets that another process has bound: a service manager (sd_listen_fds(3)), the parent process, or the previous
//! server.
//!
//! The process that bound a socket, its owner, has also chosen its options. Each option is left alone, set, or a reason to
//! refuse the socket. The owner's copy of the descriptor sees what is set, since options belong to the socket and
//! `O_NONBLOCK` to the open file description. The file of a Unix socket is never removed.
//!
//! | option | here | reason |
//! |---|---|---|
//! | `O_NONBLOCK` | set | the loop must not block |
//! | `IP_PKTINFO`, `IPV6_RECVPKTINFO` | set on a UDP wildcard (feature `pktinfo`) | the source address of answers. A datagram that was queued before is answered from the right address too, since the destination in its header is always reported |
//! | `SO_PASSCRED` | set on a Unix datagram socket (`pktinfo`) | it tells which senders may be answered; see `datagram` |
//! | `SO_BROADCAST` | switched off on UDP | a forged broadcast source would draw an answer to all of its subnet |
//! | `IP_RECVERR`, `IPV6_RECVERR` | switched off (`pktinfo`), which also empties the error queue | unread errors fill the receive buffer until no datagram fits in, and an answer fails for an error of another one |
//! | `SO_TIMESTAMP`, `SO_TIMESTAMPNS`, `SO_TIMESTAMPING` | switched off (`pktinfo`) | nothing reads them, and those of sent packets collect in the error queue |
//! | `UDP_GRO`, `UDP_SEGMENT` | switched off (`pktinfo`) | several datagrams would be echoed as one, or one as several |
//! | `IP_RECVTTL`, `IP_RECVTOS`, `IP_RECVOPTS`, `IPV6_RECVHOPLIMIT`, ..., `SO_RXQ_OVFL`, `SO_PASSSEC`, `SO_PASSPIDFD` | left | their control messages are skipped; a datagram whose packet info does not fit beside them is dropped and counted, and the socket goes on |
//! | `TCP_NODELAY`, keepalive, `TCP_USER_TIMEOUT`, `SO_SNDBUF`, `SO_RCVBUF` | set on each connection, if the limits ask for it and it is not inherited from the listener | never set on the listener, which belongs to its owner |
//! | `SO_LINGER`, `TCP_CORK` | switched off on each connection | close(2) would block the loop or reset the connection; the end of each echo would wait for 200 ms |
//! | `SO_KEEPALIVE`, `TCP_USER_TIMEOUT` beyond the limits' | left | the owner wants to find vanished peers |
//! | `SO_RCVBUF`, `SO_SNDBUF` of a datagram socket | left | a bound on memory that the owner has chosen; longer datagrams are lost |
//! | `SO_RCVTIMEO`, `SO_SNDTIMEO` | left | without effect on a non-blocking socket |
//! | `TCP_DEFER_ACCEPT`, `TCP_FASTOPEN`, `SO_REUSEADDR`, `SO_REUSEPORT`, `IPV6_V6ONLY`, `SO_BINDTODEVICE`, `IP_FREEBIND`, `IP_TRANSPARENT`, `SO_MARK`, `SO_PRIORITY`, `IP_TOS`, `IP_TTL`, `SO_ATTACH_FILTER`, `SO_ATTACH_REUSEPORT_*`, `SO_BUSY_POLL`, `SO_PASSCRED` of a listener | left | the owner's decision about which clients may connect, and by which way |
//! | `SO_RCVLOWAT`, `UDP_CORK` | left, although they do harm: with the first a socket is not readable before so many bytes have arrived, with the second nothing is sent | no crate at hand sets them without `unsafe` |
//! | not listening, not bound, not TCP, UDP or Unix; a UDP socket that is bound to a broadcast or multicast address | refused | it cannot be served |

use super::address::{Endpoint, UnixName};
use super::bind::BoundSocket;
use super::peer::Peer;
#[cfg(target_os = "linux")]
use socket2::Protocol;
use socket2::{SockAddr, Socket, Type};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

mod options;

impl BoundSocket {
    /// Takes over a socket that is bound already, and listening if it is a stream socket. It can be passed to
    /// [`Server::with_sockets`](crate::echo::Server::with_sockets).
    ///
    /// The endpoint of a Unix socket is the name under which it was bound, even if its file has been renamed since.
    ///
    /// ```
    /// use echo_reactor::net::{BoundSocket, Endpoint};
    ///
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let address = listener.local_addr()?;
    /// let bound = BoundSocket::from_fd(listener)?;
    /// assert_eq!(*bound.endpoint(), Endpoint::Tcp(address));
    ///
    /// let file = std::fs::File::open("/dev/null")?;
    /// assert!(BoundSocket::from_fd(file).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Why the descriptor cannot be served; it is closed then.
    pub fn from_fd(descriptor: impl Into<OwnedFd>) -> Result<Self, FromFdError> {
        let socket = Socket::from(descriptor.into());
        let kind = socket.r#type().map_err(not_a_socket)?;
        let address = socket.local_addr().map_err(not_a_socket)?;
        #[cfg(target_os = "linux")]
        if address.as_socket().is_some() && !is_served(&socket)? {
            return Err(FromFdError::Kind); // ping sockets are datagram sockets and have a port, too
        }
        let endpoint = endpoint(kind, &address)?;
        // Not every system has SO_ACCEPTCONN; there a socket that does not listen fails at the first accept(2).
        #[cfg(any(target_os = "linux", target_os = "freebsd"))]
        if kind == Type::STREAM && !socket.is_listener().map_err(FromFdError::System)? {
            return Err(FromFdError::NotListening(endpoint));
        }
        Ok(Self {
            option_errors: options::settle(&socket, &endpoint),
            socket,
            endpoint,
            file: None,
        })
    }
}

#[cfg(target_os = "linux")]
fn is_served(socket: &Socket) -> Result<bool, FromFdError> {
    let protocol = socket.protocol().map_err(FromFdError::System)?;
    let served = [
        Protocol::TCP,
        Protocol::MPTCP,
        Protocol::UDP,
        Protocol::UDPLITE,
    ];
    Ok(protocol.is_some_and(|protocol| served.contains(&protocol)))
}

fn not_a_socket(error: io::Error) -> FromFdError {
    // ENOTSOCK has no kind of its own.
    match error.raw_os_error() {
        Some(libc::ENOTSOCK) => FromFdError::NotASocket,
        _ => FromFdError::System(error),
    }
}

fn endpoint(kind: Type, address: &SockAddr) -> Result<Endpoint, FromFdError> {
    if let Some(ip) = address.as_socket() {
        return match kind {
            Type::STREAM => Ok(Endpoint::Tcp(ip)),
            Type::DGRAM if ip.port() == 0 => Err(FromFdError::NotBound),
            Type::DGRAM => Ok(Endpoint::Udp(ip)),
            _ => Err(FromFdError::Kind),
        };
    }
    if !address.is_unix() || (kind != Type::STREAM && kind != Type::DGRAM) {
        return Err(FromFdError::Kind);
    }
    let name: UnixName = match Peer::from(address) {
        Peer::Unix(name) => name,
        _ if kind == Type::STREAM => return Err(FromFdError::NotAListener),
        _ => return Err(FromFdError::NotBound),
    };
    Ok(match kind {
        Type::STREAM => Endpoint::Unix(name),
        _ => Endpoint::UnixDatagram(name),
    })
}

/// Why a descriptor of another process cannot be served.
#[derive(Debug)]
#[non_exhaustive]
pub enum FromFdError {
    /// The descriptor is a file, a pipe or the like.
    NotASocket,
    /// The socket is of a kind that is not served: neither TCP nor UDP nor Unix, or a seqpacket socket.
    Kind,
    /// The stream socket has this address and does not listen: most likely it is a connection.
    NotListening(Endpoint),
    /// The Unix stream socket has no address and does not listen.
    NotAListener,
    /// The datagram socket is not bound, so that no datagram can be sent to it.
    NotBound,
    /// A system call on the descriptor failed.
    System(io::Error),
}

impl FromFdError {
    /// The error of the system call that asked for the socket's type or address, if one failed.
    #[must_use]
    pub fn io_error(&self) -> Option<&io::Error> {
        match self {
            Self::System(error) => Some(error),
            _ => None,
        }
    }

    /// The kind of [`io_error`](Self::io_error), or `InvalidInput`.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.io_error()
            .map_or(io::ErrorKind::InvalidInput, io::Error::kind)
    }
}

impl fmt::Display for FromFdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotASocket => write!(
                f,
                "it is not a socket; pass listening sockets and nothing else"
            ),
            Self::Kind => write!(
                f,
                "it is a socket of a kind that is not served; pass TCP, UDP, Unix stream or Unix datagram sockets"
            ),
            Self::NotListening(endpoint) => write!(
                f,
                "{endpoint} does not listen; pass the listening socket and not a connection (Accept=no in a systemd unit)"
            ),
            Self::NotAListener => write!(
                f,
                "it is a Unix socket that does not listen; pass the listening socket and not a connection \
                 (Accept=no in a systemd unit)"
            ),
            Self::NotBound => write!(f, "it has no address; bind it before it is passed"),
            Self::System(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for FromFdError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System(error) => error.source(), // its text is this one
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::Domain;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixStream};

    #[track_caller]
    fn refused(descriptor: impl Into<OwnedFd>, words: &str) {
        let said = BoundSocket::from_fd(descriptor).unwrap_err().to_string();
        assert!(said.contains(words), "{said:?} does not say {words:?}");
    }

    #[test]
    fn descriptors_that_cannot_be_served_are_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let address = client.local_addr().unwrap();
        refused(client, &format!("tcp://{address} does not listen"));
        refused(UnixStream::pair().unwrap().0, "does not listen");
        refused(UnixDatagram::unbound().unwrap(), "has no address");
        let unbound = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        refused(unbound, "has no address");
        let unbound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        refused(unbound, "does not listen");
        let packets = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        refused(packets, "of a kind that is not served");
        refused(std::fs::File::open("/dev/null").unwrap(), "is not a socket");
    }

    #[test]
    fn sockets_that_can_be_served_have_their_endpoint() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        assert_eq!(
            BoundSocket::from_fd(udp).unwrap().endpoint,
            Endpoint::Udp(address)
        );
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        assert_eq!(
            BoundSocket::from_fd(tcp).unwrap().endpoint,
            Endpoint::Tcp(address)
        );
    }
}
