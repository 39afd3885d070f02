//! The datagram sockets of the operating system, UDP and Unix.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! # The source address of an answer
//!
//! The answers of a UDP socket on a wildcard address leave with the source address that the routing table chooses, and a
//! client that sent to another address of this machine discards them. So such a socket asks for packet info (ip(7),
//! IP_PKTINFO; ipv6(7), IPV6_RECVPKTINFO), which contains the destination address of a datagram, and answers from that
//! address (`packet_info`). That takes recvmsg(2) and control messages, which nix wraps safely, behind the feature
//! `pktinfo`; without it a wildcard is refused rather than served wrongly.
//!
//! # Broadcast and multicast
//!
//! RFC 1122 (3.2.1.3) forbids such a source address, and one datagram to a group would draw an answer from each of its
//! members. A wildcard socket learns from packet info that a datagram was sent to a group; a socket that is bound to the
//! address of a group receives nothing else, and is refused.
//!
//! # Senders over a Unix socket
//!
//! The name of a Unix sender is a path, and the path is looked up again when the datagram is answered, with the
//! permissions of this process. It may lead elsewhere by then: the sender may have replaced its file by a symbolic link,
//! or bound the name in a mount namespace of its own. A server that answered every sender would write chosen bytes into
//! any socket that it may write to. No check of the path helps, since it may change between the check and sendmsg(2), and
//! for datagram sockets connect(2) tells nothing of the process at the other end. So a sender is answered only if it could
//! write there by itself: if it belongs to the user of this process, or to root (`sender`). Datagrams of other senders are
//! counted and not answered.

use super::address::Endpoint;
use super::peer::Sender;
use super::traits::{DATAGRAM_BYTES_MAX, Datagrams, Unanswerable};
use mio::event::Source;
use mio::net::UdpSocket;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::Socket;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};

#[cfg(all(feature = "pktinfo", target_os = "linux"))]
mod batch;
#[cfg(all(feature = "pktinfo", target_os = "linux"))]
mod packet_info;
mod sender;

/// A datagram socket of the operating system.
///
/// Unpromised: it may change in any release.
#[derive(Debug)]
pub enum DatagramSocket {
    /// UDP on one address.
    Udp(UdpSocket),
    /// UDP on a wildcard address.
    #[cfg(all(feature = "pktinfo", target_os = "linux"))]
    Wildcard(packet_info::WildcardSocket),
    /// A Unix datagram socket. It is std's, since mio's cannot send to an abstract name.
    Unix(UnixDatagram, sender::SenderCheck),
}

/// What an answer needs: the sender of a datagram, and the local address that it was sent to.
#[derive(Clone, Debug)]
pub enum ReplyPath {
    /// Over UDP.
    Udp {
        /// The sender.
        source: SocketAddr,
        /// The local address that it was sent to, if the socket has several.
        #[cfg(all(feature = "pktinfo", target_os = "linux"))]
        asked: packet_info::Asked,
    },
    /// To a Unix socket.
    Unix {
        /// The name of the sender's socket, if it has one.
        source: Option<UnixAddr>,
        /// Whether the sender has the permissions of this process, so that it may be answered.
        is_trusted: bool,
    },
}

impl DatagramSocket {
    /// Makes a bound socket non-blocking, for the event loop.
    ///
    /// # Errors
    /// Those of fcntl(2) and setsockopt(2); `Unsupported` for the address of a group, and, without the feature `pktinfo`,
    /// for a wildcard address and for a Unix socket that other users may send to.
    pub fn new(bound: Socket, endpoint: &Endpoint) -> io::Result<Self> {
        bound.set_nonblocking(true)?;
        match endpoint {
            Endpoint::Udp(address) if is_group(address.ip()) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "it is a broadcast or multicast address, and nothing sent to one is answered; \
                 use an address of this machine",
            )),
            Endpoint::Udp(address) if address.ip().is_unspecified() => {
                Self::wildcard(UdpSocket::from_std(bound.into()), *address)
            }
            Endpoint::Udp(_) => Ok(Self::Udp(UdpSocket::from_std(bound.into()))),
            _ => {
                let check = sender::SenderCheck::new(&bound, endpoint)?;
                Ok(Self::Unix(bound.into(), check))
            }
        }
    }

    #[cfg(all(feature = "pktinfo", target_os = "linux"))]
    fn wildcard(socket: UdpSocket, address: SocketAddr) -> io::Result<Self> {
        packet_info::WildcardSocket::new(socket, address).map(Self::Wildcard)
    }

    #[cfg(not(all(feature = "pktinfo", target_os = "linux")))]
    fn wildcard(_: UdpSocket, _: SocketAddr) -> io::Result<Self> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "answers from a wildcard address may leave from the wrong one; name each address, \
             or build with the feature 'pktinfo'",
        ))
    }
}

/// Whether an address means several hosts. Which addresses are the broadcast address of a subnet only the routing table
/// knows: for such an address connect(2) of a socket without SO_BROADCAST fails with `EACCES`.
fn is_group(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V6(ip) => ip.is_multicast(),
        IpAddr::V4(ip) if ip.is_multicast() || ip.is_broadcast() => true,
        IpAddr::V4(ip) => std::net::UdpSocket::bind("0.0.0.0:0")
            .and_then(|probe| probe.connect((ip, 9)))
            .is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied),
    }
}

impl DatagramSocket {
    /// Duplicates the descriptor. The copy is closed on exec.
    ///
    /// # Errors
    /// Those of fcntl(2), `F_DUPFD_CLOEXEC`: usually that there are no descriptors left.
    pub fn share(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Udp(socket) => socket.as_fd().try_clone_to_owned(),
            #[cfg(all(feature = "pktinfo", target_os = "linux"))]
            Self::Wildcard(wildcard) => wildcard.socket.as_fd().try_clone_to_owned(),
            Self::Unix(socket, _) => socket.as_fd().try_clone_to_owned(),
        }
    }
}

impl Datagrams for DatagramSocket {
    type ReplyPath = ReplyPath;

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, ReplyPath)> {
        match self {
            Self::Udp(socket) => {
                let (length, source) = socket.recv_from(buffer)?;
                let path = ReplyPath::Udp {
                    source,
                    #[cfg(all(feature = "pktinfo", target_os = "linux"))]
                    asked: packet_info::Asked::BoundSocket,
                };
                Ok((length, path))
            }
            #[cfg(all(feature = "pktinfo", target_os = "linux"))]
            Self::Wildcard(wildcard) => {
                let (length, source, asked) = wildcard.receive(buffer)?;
                Ok((length, ReplyPath::Udp { source, asked }))
            }
            Self::Unix(socket, check) => {
                let (length, source, is_trusted) = check.receive(socket, buffer)?;
                Ok((length, ReplyPath::Unix { source, is_trusted }))
            }
        }
    }

    fn receive_several(
        &mut self,
        buffer: &mut [u8],
        count: usize,
        received: &mut Vec<(usize, ReplyPath)>,
    ) -> io::Result<()> {
        match (self, count) {
            #[cfg(all(feature = "pktinfo", target_os = "linux"))]
            (Self::Udp(socket), 2..) => {
                batch::receive(socket, buffer, count, None, |message| {
                    // Every UDP datagram has a source; without one it would have this, which draws no answer.
                    let nowhere = SocketAddr::from(([0; 4], 0));
                    let source = message.address.and_then(packet_info::to_std);
                    let path = ReplyPath::Udp {
                        source: source.unwrap_or(nowhere),
                        asked: packet_info::Asked::BoundSocket,
                    };
                    received.push((message.bytes, path));
                })
            }
            #[cfg(all(feature = "pktinfo", target_os = "linux"))]
            (Self::Unix(socket, check), 2..) => {
                check.receive_several(socket, buffer, count, |length, source, is_trusted| {
                    received.push((length, ReplyPath::Unix { source, is_trusted }));
                })
            }
            // The control messages of a wildcard socket take 4 KiB a datagram: more to clear than a call costs.
            (socket, _) => {
                received.push(socket.receive(&mut buffer[..DATAGRAM_BYTES_MAX])?);
                Ok(())
            }
        }
    }

    fn reply(&mut self, datagram: &[u8], path: &ReplyPath) -> io::Result<()> {
        match (self, path) {
            #[cfg(all(feature = "pktinfo", target_os = "linux"))]
            (Self::Wildcard(wildcard), ReplyPath::Udp { source, asked }) => {
                wildcard.reply(datagram, *source, asked)
            }
            (Self::Udp(socket), ReplyPath::Udp { source, .. }) => {
                socket.send_to(datagram, *source).map(drop)
            }
            (
                Self::Unix(socket, _),
                ReplyPath::Unix {
                    source: Some(source),
                    is_trusted: true,
                },
            ) => socket.send_to_addr(datagram, source).map(drop),
            _ => Err(io::Error::from(io::ErrorKind::InvalidInput)), // a path of another socket
        }
    }

    fn sender(path: &ReplyPath) -> Sender<'_> {
        match path {
            ReplyPath::Udp { source, .. } => Sender::Ip(source),
            ReplyPath::Unix { source, .. } => source.as_ref().map_or(Sender::Unnamed, Sender::from),
        }
    }

    fn check(path: &ReplyPath) -> Result<(), Unanswerable> {
        match path {
            #[cfg(all(feature = "pktinfo", target_os = "linux"))]
            ReplyPath::Udp { asked, .. } => asked.check(),
            #[cfg(not(all(feature = "pktinfo", target_os = "linux")))]
            ReplyPath::Udp { .. } => Ok(()),
            ReplyPath::Unix {
                source: Some(_),
                is_trusted: false,
            } => Err(Unanswerable::ForeignSender),
            ReplyPath::Unix { .. } => Ok(()),
        }
    }
}

impl DatagramSocket {
    fn with_source<T>(&mut self, act: impl FnOnce(&mut dyn Source) -> T) -> T {
        match self {
            Self::Udp(socket) => act(socket),
            #[cfg(all(feature = "pktinfo", target_os = "linux"))]
            Self::Wildcard(wildcard) => act(&mut wildcard.socket),
            Self::Unix(socket, _) => act(&mut SourceFd(&socket.as_raw_fd())),
        }
    }
}

impl Source for DatagramSocket {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.with_source(|source| source.register(registry, token, interest))
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.with_source(|source| source.reregister(registry, token, interest))
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.with_source(|source| source.deregister(registry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn broadcast_and_multicast_addresses_are_recognized() {
        for group in ["224.0.0.1", "255.255.255.255", "127.255.255.255", "ff02::1"] {
            assert!(is_group(group.parse().unwrap()), "{group}");
        }
        for host in ["127.0.0.1", "127.0.0.5", "0.0.0.0", "::", "::1"] {
            assert!(!is_group(host.parse().unwrap()), "{host}");
        }
    }

    /// A source whose interest changes is registered again (EPOLL_CTL_MOD).
    #[test]
    fn a_datagram_socket_is_registered_changed_and_removed() {
        let udp = Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        udp.bind(&any.into()).unwrap();
        let address = udp.local_addr().unwrap().as_socket().unwrap();
        let mut socket = DatagramSocket::new(udp, &Endpoint::Udp(address)).unwrap();
        let mut poll = mio::Poll::new().unwrap();
        let mut events = mio::Events::with_capacity(4);
        let mut reported = |poll: &mut mio::Poll, max_wait| {
            poll.poll(&mut events, Some(max_wait)).unwrap();
            events
                .iter()
                .map(mio::event::Event::token)
                .collect::<Vec<_>>()
        };
        let (no_time, deadline) = (Duration::ZERO, Duration::from_secs(20));
        let sender = std::net::UdpSocket::bind(any).unwrap();
        sender.send_to(b"one", address).unwrap();
        socket
            .register(poll.registry(), Token(1), Interest::READABLE)
            .unwrap();
        assert_eq!(reported(&mut poll, deadline), [Token(1)]);
        assert_eq!(reported(&mut poll, no_time), [], "an edge is reported once");
        socket
            .reregister(poll.registry(), Token(2), Interest::READABLE)
            .unwrap();
        assert_eq!(reported(&mut poll, deadline), [Token(2)], "and once more");
        socket.deregister(poll.registry()).unwrap();
        sender.send_to(b"two", address).unwrap();
        assert_eq!(reported(&mut poll, no_time), []);
    }
}
