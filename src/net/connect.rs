//! Sockets that go out to a server, for whoever measures one.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! The server's own rooms never connect; the load generator does nothing else. What may live in this file: making such
//! a socket without ever waiting, and registering it together with what its user keeps beside it. What may not: what is
//! said over it.
//!
//! **Late ports.** Binding to an address of ours takes a port for it at once, and one that is free towards everybody:
//! 28,000 connections from one address, to however many servers. `IP_BIND_ADDRESS_NO_PORT` (ip(7)) puts that off until
//! connect, when the whole tuple is known and a port need only be free towards that one server.

use super::{Endpoint, StreamSocket, UnixName};
use mio::event::Source;
use mio::net::{TcpStream, UdpSocket, UnixDatagram, UnixStream};
use mio::{Interest, Registry, Token};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

/// A socket that was, or is being, connected.
#[derive(Debug)]
pub enum ClientSocket {
    /// A stream of bytes.
    Stream(StreamSocket),
    /// Datagrams.
    Datagrams(Connected),
}

/// A datagram socket with one peer: it hears nobody else, so that strays do not count as answers.
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
    /// Those of send(2). `ConnectionRefused` is the answer to an earlier datagram: nobody was there to take it.
    pub fn send(&self, datagram: &[u8]) -> io::Result<usize> {
        match self {
            Self::Udp(socket) => socket.send(datagram),
            Self::Unix(socket) => socket.send(datagram),
        }
    }

    /// Receives one datagram, cut to the buffer's length.
    ///
    /// # Errors
    /// Those of recv(2), as above.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Udp(socket) => socket.recv(buffer),
            Self::Unix(socket) => socket.recv(buffer),
        }
    }
}

/// What a connecting socket should have beside its peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectOptions {
    /// The address of ours to come from; `None` leaves it to the system.
    pub source: Option<IpAddr>,
    /// Bytes of the kernel's receive buffer; `None` leaves it to the system.
    pub receive_buffer: Option<usize>,
}

impl ClientSocket {
    /// Begins to connect, and does not wait for the end of that: a stream is connected once it is writable and
    /// [`ClientSocket::confirm`] finds nothing wrong. Unix streams and datagram sockets are so at once.
    ///
    /// # Errors
    /// Those of socket(2), bind(2) and connect(2). `WouldBlock` is a Unix server whose queue is full: try later.
    pub fn connect(endpoint: &Endpoint, options: &ConnectOptions) -> io::Result<Self> {
        match endpoint {
            Endpoint::Tcp(address) => {
                let socket = open_ip(*address, Type::STREAM, Protocol::TCP, options)?;
                socket.set_tcp_nodelay(true)?;
                match socket.connect(&SockAddr::from(*address)) {
                    // EINPROGRESS has no kind of its own.
                    Err(error) if error.raw_os_error() != Some(IN_PROGRESS) => return Err(error),
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

    /// How connecting ended, for a stream that has become writable.
    ///
    /// # Errors
    /// Why it failed. `ConnectionRefused` too if it met itself: a port that is free on this machine can be connected
    /// with itself, and would echo to perfection.
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

const IN_PROGRESS: i32 = nix::errno::Errno::EINPROGRESS as i32;

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
            // A kernel that does not know it binds early, as everybody did before 4.2.
            let _ = setsockopt(&socket, IpBindAddressNoPort, &true);
        }
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(socket)
}

/// A Unix socket, connected. Whoever wants datagrams back needs a name; binding to the empty one makes the kernel
/// choose an abstract name that nobody else has (unix(7), autobind).
fn open_unix(name: &UnixName, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, kind, None)?;
    socket.set_nonblocking(true)?;
    if kind == Type::DGRAM {
        socket.bind(&SockAddr::unix("")?)?;
    }
    socket.connect(&name.to_sock_addr()?)?;
    Ok(socket)
}

/// A client's socket and what its user keeps beside it, registered as one.
#[derive(Debug)]
pub struct ClientSource<T> {
    /// The socket.
    pub socket: ClientSocket,
    /// What belongs to it.
    pub state: T,
    /// When the kernel is to say that it is ready.
    pub trigger: Trigger,
}

/// When the kernel says that a socket is ready (epoll(7)). It decides who is served first.
///
/// With edges that is the order of arrival. A level-triggered queue keeps another one without meaning to: the kernel puts
/// everybody whom it has just reported back on its list, since there may be more; and who is answered at once then stands
/// before those whose answers have waited for longer. On average nothing changes, but the lucky are served again and
/// again while the others wait: the p99 rises by a quarter or more at fifty connections, for the same server at the same
/// rate.
///
/// The level is what a client has if nobody chooses, although the server itself has edges. Nearly every load generator is
/// level-triggered, and a figure that cannot be held against theirs is believed by nobody; and of two p99 of which neither
/// is wrong, it is the higher one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trigger {
    /// Once, when it becomes so. Whoever is told reads until nothing is left.
    Edge,
    /// As long as it is so.
    #[default]
    Level,
}

impl Trigger {
    /// Watches a socket that mio has just registered, which it does for edges alone, as this says. The event queue is the
    /// same, and so are the token and the list in which it is reported.
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
        // A copy of the descriptor for the time of the call, since nix would own it.
        let queue = Epoll(registry.as_fd().try_clone_to_owned()?);
        let mut event = EpollEvent::new(flags, usize::from(token) as u64);
        Ok(queue.modify(socket, &mut event)?)
    }
}

/// Who waits for room to write goes on hearing of what there is to read: a client that stopped taking answers while it
/// cannot send would wait for a server that, owing it those answers, has stopped reading. (The server itself asks for
/// one thing at a time, since it may let a client wait.)
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
    fn a_connection_comes_from_the_source_that_was_asked_for() {
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
    fn an_edge_is_told_once_and_a_level_as_long_as_it_lasts() {
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
            // As a client begins, and then goes on.
            let registry = poll.registry();
            outgoing
                .register(registry, Token(7), Interest::WRITABLE)
                .unwrap();
            outgoing
                .reregister(registry, Token(7), Interest::READABLE)
                .unwrap();
            peer.write_all(b"an answer").unwrap();
            let mut told = |patience: Duration| {
                let mut events = Events::with_capacity(8);
                poll.poll(&mut events, Some(patience)).unwrap();
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
    fn a_socket_that_meets_itself_is_refused() {
        // A socket bound to a port and connected to it is the only way to arrange it for certain.
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
    fn a_unix_datagram_socket_has_a_name_to_be_answered_at() {
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
