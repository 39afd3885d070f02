//! Client sockets for the load generator: non-blocking connect(2), and registration together with the state of a request.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! The server itself never connects.
//!
//! # Ephemeral ports
//!
//! bind(2) to a source address takes a port at once, and one that is free towards every destination: 28,000 connections
//! from one address, to all servers together. `IP_BIND_ADDRESS_NO_PORT` (ip(7)) postpones the choice until connect(2),
//! when the destination is known and the port needs to be free only towards that one.

use super::address::{Endpoint, UnixName};
use super::proxy::{Version, of_socket};
use super::stream::StreamSocket;
use mio::event::Source;
use mio::net::{TcpStream, UdpSocket, UnixDatagram, UnixStream};
use mio::{Interest, Registry, Token};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

/// A client socket that is connected, or is being connected.
#[derive(Debug)]
pub enum ClientSocket {
    /// A stream of bytes.
    Stream(StreamSocket),
    /// A connected datagram socket.
    Datagrams(Connected),
}

/// A connected datagram socket: it receives from its peer only, so that datagrams of other senders do not count as answers.
#[derive(Debug)]
pub enum Connected {
    /// IPv4 or IPv6.
    Udp(UdpSocket),
    /// Unix.
    Unix(UnixDatagram),
}

impl Connected {
    /// Sends one datagram.
    ///
    /// # Errors
    /// Those of send(2). `ConnectionRefused` concerns an earlier datagram: no socket was bound at its destination.
    pub fn send(&self, datagram: &[u8]) -> io::Result<usize> {
        match self {
            Self::Udp(socket) => socket.send(datagram),
            Self::Unix(socket) => socket.send(datagram),
        }
    }

    /// Receives one datagram, cut to the buffer's length.
    ///
    /// # Errors
    /// Those of recv(2); `ConnectionRefused` as for [`Connected::send`].
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Udp(socket) => socket.recv(buffer),
            Self::Unix(socket) => socket.recv(buffer),
        }
    }
}

/// The options of a client socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectOptions {
    /// The source address; `None` leaves it to the system.
    pub source: Option<IpAddr>,
    /// The size of the kernel's receive buffer in bytes; `None` leaves it to the system.
    pub receive_buffer: Option<usize>,
    /// The longest segment of TCP in either direction in bytes (TCP_MAXSEG of tcp(7)); `None` leaves it to the system. The
    /// kernel chooses the size of its buffers by it: on the loopback a segment has up to 65,483 bytes.
    pub segment_size: Option<u32>,
}

impl ClientSocket {
    /// Begins to connect without blocking: a stream is connected when it is writable and [`ClientSocket::confirm`] returns
    /// no error. Unix streams and datagram sockets are connected at once.
    ///
    /// # Errors
    /// Those of socket(2), bind(2) and connect(2). `WouldBlock` means that the accept queue of a Unix server is full: try
    /// again later.
    pub fn connect(endpoint: &Endpoint, options: &ConnectOptions) -> io::Result<Self> {
        match endpoint {
            Endpoint::Tcp(address) => {
                let socket = open_ip(*address, Type::STREAM, Protocol::TCP, options)?;
                socket.set_tcp_nodelay(true)?;
                if let Some(bytes) = options.segment_size {
                    socket.set_tcp_mss(bytes)?;
                }
                match socket.connect(&SockAddr::from(*address)) {
                    // EINPROGRESS has no kind of its own.
                    Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
                        return Err(error);
                    }
                    _ => {}
                }
                let stream = TcpStream::from_std(socket.into());
                Ok(Self::Stream(StreamSocket::Tcp(stream)))
            }
            Endpoint::Udp(address) => {
                let socket = open_ip(*address, Type::DGRAM, Protocol::UDP, options)?;
                socket.connect(&SockAddr::from(*address))?;
                Ok(Self::Datagrams(Connected::Udp(UdpSocket::from_std(
                    socket.into(),
                ))))
            }
            Endpoint::Unix(name) => {
                let socket = open_unix(name, Type::STREAM)?;
                let stream = UnixStream::from_std(socket.into());
                Ok(Self::Stream(StreamSocket::Unix(stream)))
            }
            Endpoint::UnixDatagram(name) => {
                let socket = open_unix(name, Type::DGRAM)?;
                Ok(Self::Datagrams(Connected::Unix(UnixDatagram::from_std(
                    socket.into(),
                ))))
            }
        }
    }

    /// Returns how connecting ended, for a stream that has become writable.
    ///
    /// # Errors
    /// Those of connect(2). `ConnectionRefused` too if the socket is connected to itself: a simultaneous open of a free
    /// local port succeeds, and such a connection would echo every byte.
    pub fn confirm(&self, endpoint: &Endpoint) -> io::Result<()> {
        let Self::Stream(StreamSocket::Tcp(stream)) = self else {
            return Ok(());
        };
        if let Some(error) = SockRef::from(stream).take_error()? {
            return Err(error);
        }
        match (stream.local_addr(), endpoint) {
            (Ok(ours), Endpoint::Tcp(theirs)) if ours == *theirs => {
                Err(io::Error::from(io::ErrorKind::ConnectionRefused))
            }
            _ => Ok(()),
        }
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Stream(stream) => stream,
            Self::Datagrams(Connected::Udp(socket)) => socket,
            Self::Datagrams(Connected::Unix(socket)) => socket,
        }
    }
}

impl AsFd for ClientSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stream(StreamSocket::Tcp(stream)) => stream.as_fd(),
            Self::Stream(StreamSocket::Unix(stream)) => stream.as_fd(),
            Self::Datagrams(Connected::Udp(socket)) => socket.as_fd(),
            Self::Datagrams(Connected::Unix(socket)) => socket.as_fd(),
        }
    }
}

/// Sends the PROXY header of a stream that has just been connected, of its own addresses.
///
/// # Errors
/// Those of getsockname(2), getpeername(2) and write(2); `WriteZero` if the send buffer had no room for all of it, though
/// nothing was in it.
pub fn send_proxy_header(stream: &mut StreamSocket, version: Version) -> io::Result<()> {
    let header = match &*stream {
        StreamSocket::Tcp(stream) => of_socket(&SockRef::from(stream)),
        StreamSocket::Unix(stream) => of_socket(&SockRef::from(stream)),
    };
    let header = header?.to_bytes(version);
    loop {
        match stream.write(&header) {
            Ok(count) if count == header.len() => return Ok(()),
            Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn open_ip(
    address: SocketAddr,
    kind: Type,
    protocol: Protocol,
    options: &ConnectOptions,
) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if let Some(bytes) = options.receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(source) = options.source {
        if address.is_ipv4() {
            // Kernels before 4.2 do not have the option, and choose the port here.
            let _ = setsockopt(&socket, IpBindAddressNoPort, &true);
        }
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(socket)
}

/// Makes and connects a Unix socket. A datagram socket needs a name to receive answers; bind(2) to the empty name makes the
/// kernel choose a unique abstract name (unix(7), autobind).
fn open_unix(name: &UnixName, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, kind, None)?;
    socket.set_nonblocking(true)?;
    if kind == Type::DGRAM {
        socket.bind(&SockAddr::unix("")?)?;
    }
    socket.connect(&name.to_sock_addr()?)?;
    Ok(socket)
}

/// A client socket and the state that belongs to it, registered as one source.
#[derive(Debug)]
pub struct ClientSource<T> {
    /// The socket.
    pub socket: ClientSocket,
    /// The state that belongs to the socket.
    pub state: T,
    /// How the kernel reports readiness.
    pub trigger: Trigger,
}

/// The epoll trigger mode of a client socket (epoll(7)). It decides in which order ready sockets are served.
///
/// Edge-triggered, that is the order of arrival. Level-triggered, the kernel puts every reported socket back on the ready
/// list, since it may still be ready. If its next answer arrives at once, the socket stands before sockets whose answers
/// have waited for longer. The mean does not change, but some connections are served again and again while the rest wait:
/// the p99 rises by a quarter or more at fifty connections, for the same server at the same rate.
///
/// Level is the default, although the server itself is edge-triggered: nearly every load generator is level-triggered, so
/// that figures can be compared, and of the two p99, neither of which is wrong, it is the higher one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// Readiness is reported once, when it begins; the socket is read until it would block.
    Edge,
    /// Readiness is reported as long as it lasts.
    #[default]
    Level,
}

impl Trigger {
    /// Changes the trigger mode of a socket that mio has just registered, which it always does edge-triggered. The epoll
    /// instance and the token stay the same.
    fn apply(
        self,
        socket: &ClientSocket,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        if self == Self::Edge {
            return Ok(());
        }
        let mut flags = EpollFlags::EPOLLRDHUP;
        flags.set(EpollFlags::EPOLLIN, interests.is_readable());
        flags.set(EpollFlags::EPOLLPRI, interests.is_priority());
        flags.set(EpollFlags::EPOLLOUT, interests.is_writable());
        // A duplicate of the descriptor for this call, since nix's `Epoll` owns and closes its descriptor.
        let queue = Epoll(registry.as_fd().try_clone_to_owned()?);
        let mut event = EpollEvent::new(flags, usize::from(token) as u64);
        Ok(queue.modify(socket, &mut event)?)
    }
}

/// Adds read readiness to the interest in write readiness: a client that did not read answers while its send buffer is full
/// would deadlock with a server that does not read while it has unsent bytes. (The server itself is registered for one of
/// the two at a time, since it may let a client wait.)
fn both(interests: Interest) -> Interest {
    match interests.is_writable() {
        true => interests | Interest::READABLE,
        false => interests,
    }
}

impl<T> Source for ClientSource<T> {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        let interests = both(interests);
        let source = self.socket.source();
        source.register(registry, token, interests)?;
        self.trigger.apply(&self.socket, registry, token, interests)
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        let interests = both(interests);
        let source = self.socket.source();
        source.reregister(registry, token, interests)?;
        self.trigger.apply(&self.socket, registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.socket.source().deregister(registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::event::Event;
    use mio::{Events, Poll};
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram as StdDatagram};
    use std::time::Duration;

    #[test]
    fn a_connection_has_the_source_address_that_was_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::Tcp(listener.local_addr().unwrap());
        let options = ConnectOptions {
            source: Some("127.0.7.7".parse().unwrap()),
            ..ConnectOptions::default()
        };
        let _client = ClientSocket::connect(&endpoint, &options).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip().to_string(), "127.0.7.7");
        assert!(stream.local_addr().is_ok());
    }

    #[test]
    fn an_edge_is_reported_once_and_a_level_as_long_as_it_lasts() {
        for (trigger, second) in [(Trigger::Edge, 0), (Trigger::Level, 1)] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let endpoint = Endpoint::Tcp(listener.local_addr().unwrap());
            let mut outgoing = ClientSource {
                socket: ClientSocket::connect(&endpoint, &ConnectOptions::default()).unwrap(),
                state: (),
                trigger,
            };
            let (mut peer, _) = listener.accept().unwrap();
            let mut poll = Poll::new().unwrap();
            // As a client does: first connecting, then waiting for an answer.
            let registry = poll.registry();
            outgoing
                .register(registry, Token(7), Interest::WRITABLE)
                .unwrap();
            outgoing
                .reregister(registry, Token(7), Interest::READABLE)
                .unwrap();
            peer.write_all(b"an answer").unwrap();
            let mut told = |timeout: Duration| {
                let mut events = Events::with_capacity(8);
                poll.poll(&mut events, Some(timeout)).unwrap();
                let ours = |event: &&Event| event.token() == Token(7) && event.is_readable();
                events.iter().filter(ours).count()
            };
            assert_eq!(told(Duration::from_secs(60)), 1, "{trigger:?}");
            assert_eq!(told(Duration::ZERO), second, "{trigger:?}, unread");
            let ClientSocket::Stream(stream) = &mut outgoing.socket else {
                panic!("TCP was asked for");
            };
            assert_eq!(stream.read(&mut [0; 64]).unwrap(), 9);
            assert_eq!(told(Duration::ZERO), 0, "{trigger:?}, read");
        }
    }

    #[test]
    fn a_socket_that_is_connected_to_itself_is_refused() {
        // A socket that is bound to a port and connected to it is the only sure way to arrange this.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        let own = socket.local_addr().unwrap().as_socket().unwrap();
        socket.connect(&own.into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let client = ClientSocket::Stream(StreamSocket::Tcp(TcpStream::from_std(socket.into())));
        let error = client.confirm(&Endpoint::Tcp(own)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_unix_datagram_socket_has_a_name_and_receives_answers() {
        let name = format!("echo-reactor-test-{}", std::process::id());
        let server = StdDatagram::bind_addr(&UnixAddr::from_abstract_name(&name).unwrap()).unwrap();
        let endpoint = Endpoint::UnixDatagram(UnixName::Abstract(name));
        let client = ClientSocket::connect(&endpoint, &ConnectOptions::default()).unwrap();
        let ClientSocket::Datagrams(client) = client else {
            panic!("datagrams were asked for");
        };
        client.send(b"to").unwrap();
        let mut buffer = [0; 8];
        let (length, source) = server.recv_from(&mut buffer).unwrap();
        server.send_to_addr(&buffer[..length], &source).unwrap();
        assert_eq!(client.receive(&mut buffer).unwrap(), 2);
    }
}
