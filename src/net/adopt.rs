//! Sockets that somebody else has bound: a service manager (sd_listen_fds(3)), a parent process, or the server that was
//! here before us.
//!
//! What may live in this file: finding out what such a socket is, and refusing what cannot be served. What may not: where
//! it came from.
//!
//! Whoever bound it has also chosen its options, and they stay: the backlog, the buffers, the permission bits of its
//! file. Two things are changed, since nothing would work without them, and the owner's copy of the socket sees both: the
//! socket becomes non-blocking (`O_NONBLOCK` belongs to the open file and not to the descriptor), and a UDP socket on a
//! wildcard address is asked for packet info. TCP_NODELAY and keepalive are set on each connection where the listener
//! would not hand them down, and never on the listener. The file of a Unix socket is never removed.

use super::{Bound, Endpoint, Peer, UnixName};
use socket2::{SockAddr, Socket, Type};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

impl Bound {
    /// Takes over a socket that is bound already, and listening if it is a stream socket. Give it to
    /// [`Server::with_sockets`](crate::echo::Server::with_sockets).
    ///
    /// A Unix socket tells under which name it was bound. If its file has been renamed since, nobody can tell.
    ///
    /// ```
    /// use echo_reactor::net::{Bound, Endpoint};
    ///
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let address = listener.local_addr()?;
    /// let bound = Bound::adopt(listener)?;
    /// assert_eq!(bound.endpoint, Endpoint::Tcp(address));
    ///
    /// let stranger = std::fs::File::open("/dev/null")?;
    /// assert!(Bound::adopt(stranger).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// What it is instead; it is closed then.
    pub fn adopt(descriptor: impl Into<OwnedFd>) -> Result<Self, AdoptError> {
        let socket = Socket::from(descriptor.into());
        let kind = socket.r#type().map_err(not_a_socket)?;
        let address = socket.local_addr().map_err(not_a_socket)?;
        let endpoint = endpoint(kind, &address)?;
        // Not every system can be asked; there a socket that does not listen fails at the first accept.
        #[cfg(any(target_os = "linux", target_os = "freebsd"))]
        if kind == Type::STREAM && !socket.is_listener().map_err(AdoptError::System)? {
            return Err(AdoptError::NotListening(endpoint));
        }
        Ok(Self {
            socket,
            endpoint,
            file: None,
            option_errors: 0,
        })
    }
}

fn not_a_socket(error: io::Error) -> AdoptError {
    // ENOTSOCK has no kind of its own.
    match error.raw_os_error() {
        Some(NOT_A_SOCKET) => AdoptError::NotASocket,
        _ => AdoptError::System(error),
    }
}

#[cfg(target_os = "linux")]
const NOT_A_SOCKET: i32 = 88;
#[cfg(not(target_os = "linux"))]
const NOT_A_SOCKET: i32 = 38; // the BSDs and macOS

fn endpoint(kind: Type, address: &SockAddr) -> Result<Endpoint, AdoptError> {
    if let Some(ip) = address.as_socket() {
        return match kind {
            Type::STREAM => Ok(Endpoint::Tcp(ip)),
            Type::DGRAM if ip.port() == 0 => Err(AdoptError::NotBound),
            Type::DGRAM => Ok(Endpoint::Udp(ip)),
            _ => Err(AdoptError::Kind),
        };
    }
    if !address.is_unix() || (kind != Type::STREAM && kind != Type::DGRAM) {
        return Err(AdoptError::Kind);
    }
    let name: UnixName = match Peer::from(address) {
        Peer::Unix(name) => name,
        _ if kind == Type::STREAM => return Err(AdoptError::NotAListener),
        _ => return Err(AdoptError::NotBound),
    };
    Ok(match kind {
        Type::STREAM => Endpoint::Unix(name),
        _ => Endpoint::UnixDatagram(name),
    })
}

/// Why a socket of somebody else's cannot be served.
#[derive(Debug)]
pub enum AdoptError {
    /// It is a file, a pipe or the like.
    NotASocket,
    /// It is a socket of a kind that is not served here: neither TCP nor UDP nor Unix, or of packets in sequence.
    Kind,
    /// It is a stream socket that has an address and does not listen there: a connection, most likely.
    NotListening(Endpoint),
    /// The same without an address.
    NotAListener,
    /// It is a datagram socket that nobody can send to.
    NotBound,
    /// What the system said when it was asked.
    System(io::Error),
}

impl fmt::Display for AdoptError {
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

impl std::error::Error for AdoptError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System(error) => error.source(), // its own text is ours
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
        let said = Bound::adopt(descriptor).unwrap_err().to_string();
        assert!(said.contains(words), "{said:?} does not say {words:?}");
    }

    #[test]
    fn what_cannot_be_served_is_refused_by_what_it_is() {
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
    fn what_can_be_served_is_known_by_its_address() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        assert_eq!(Bound::adopt(udp).unwrap().endpoint, Endpoint::Udp(address));
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        assert_eq!(Bound::adopt(tcp).unwrap().endpoint, Endpoint::Tcp(address));
    }
}
