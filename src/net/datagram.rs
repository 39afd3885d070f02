//! One datagram socket of the operating system, UDP or Unix.
//!
//! A UDP socket on a wildcard address has a trap: its answers leave with whatever source address the routing table
//! likes, and a client that asked another of our addresses throws them away. So such a socket asks for packet info
//! (ip(7), IP_PKTINFO; ipv6(7), IPV6_RECVPKTINFO), which tells the address that was asked, and answers with it. That
//! takes `recvmsg` and control messages, which nix wraps safely, behind the feature `pktinfo`; without it a wildcard is
//! refused rather than served wrongly.

use super::{Datagrams, Endpoint, Peer};
use mio::event::Source;
use mio::net::UdpSocket;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::Socket;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};

/// The datagram sockets of the operating system.
#[derive(Debug)]
pub enum DatagramSocket {
    /// UDP on one address of ours.
    Udp(UdpSocket),
    /// UDP on all of them.
    #[cfg(feature = "pktinfo")]
    Wildcard(UdpSocket),
    /// Unix. std's socket, since mio's cannot answer to an abstract name.
    Unix(UnixDatagram),
}

/// The way back to where a datagram came from.
#[derive(Clone, Debug)]
pub enum Route {
    /// Over UDP.
    Udp {
        /// Who sent it.
        source: SocketAddr,
        /// Which address of ours it was sent to, where that is not plain.
        #[cfg(feature = "pktinfo")]
        asked: Option<packet_info::Asked>,
    },
    /// To a Unix socket.
    Unix(UnixAddr),
}

impl DatagramSocket {
    /// Makes a bound socket non-blocking, for the event loop.
    ///
    /// # Errors
    /// What the system said; `Unsupported` for a wildcard address without the feature `pktinfo`.
    pub fn new(bound: Socket, endpoint: &Endpoint) -> io::Result<Self> {
        bound.set_nonblocking(true)?;
        match endpoint {
            Endpoint::Udp(address) if address.ip().is_unspecified() => {
                Self::wildcard(UdpSocket::from_std(bound.into()), *address)
            }
            Endpoint::Udp(_) => Ok(Self::Udp(UdpSocket::from_std(bound.into()))),
            _ => Ok(Self::Unix(bound.into())),
        }
    }

    #[cfg(feature = "pktinfo")]
    fn wildcard(socket: UdpSocket, address: SocketAddr) -> io::Result<Self> {
        packet_info::ask(&socket, address)?;
        Ok(Self::Wildcard(socket))
    }

    #[cfg(not(feature = "pktinfo"))]
    fn wildcard(_: UdpSocket, _: SocketAddr) -> io::Result<Self> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "answers from a wildcard address may leave from the wrong one; name each address, \
             or build with the feature 'pktinfo'",
        ))
    }
}

impl DatagramSocket {
    /// A copy of its descriptor, closed on exec as all of ours.
    ///
    /// # Errors
    /// Those of fcntl(2), `F_DUPFD_CLOEXEC`: usually that there are no descriptors left.
    pub fn share(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Udp(socket) => socket.as_fd().try_clone_to_owned(),
            #[cfg(feature = "pktinfo")]
            Self::Wildcard(socket) => socket.as_fd().try_clone_to_owned(),
            Self::Unix(socket) => socket.as_fd().try_clone_to_owned(),
        }
    }
}

impl Datagrams for DatagramSocket {
    type Route = Route;

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Route)> {
        match self {
            Self::Udp(socket) => {
                let (length, source) = socket.recv_from(buffer)?;
                let route = Route::Udp {
                    source,
                    #[cfg(feature = "pktinfo")]
                    asked: None,
                };
                Ok((length, route))
            }
            #[cfg(feature = "pktinfo")]
            Self::Wildcard(socket) => packet_info::receive(socket, buffer),
            Self::Unix(socket) => {
                let (length, source) = socket.recv_from(buffer)?;
                Ok((length, Route::Unix(source)))
            }
        }
    }

    fn answer(&mut self, datagram: &[u8], route: &Route) -> io::Result<()> {
        match (self, route) {
            #[cfg(feature = "pktinfo")]
            (
                Self::Wildcard(socket),
                Route::Udp {
                    source,
                    asked: Some(asked),
                },
            ) => packet_info::answer(socket, datagram, *source, asked),
            #[cfg(feature = "pktinfo")]
            (Self::Wildcard(socket), Route::Udp { source, .. }) => {
                socket.send_to(datagram, *source).map(drop)
            }
            (Self::Udp(socket), Route::Udp { source, .. }) => {
                socket.send_to(datagram, *source).map(drop)
            }
            (Self::Unix(socket), Route::Unix(source)) => {
                socket.send_to_addr(datagram, source).map(drop)
            }
            _ => Err(io::Error::from(io::ErrorKind::InvalidInput)), // a route of another socket
        }
    }

    fn source(route: &Route) -> Peer {
        match route {
            Route::Udp { source, .. } => Peer::from(*source),
            Route::Unix(source) => Peer::from(source),
        }
    }
}

impl DatagramSocket {
    fn with_source<T>(&mut self, act: impl FnOnce(&mut dyn Source) -> T) -> T {
        match self {
            Self::Udp(socket) => act(socket),
            #[cfg(feature = "pktinfo")]
            Self::Wildcard(socket) => act(socket),
            Self::Unix(socket) => act(&mut SourceFd(&socket.as_raw_fd())),
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

/// Packet info: which of our addresses was asked.
#[cfg(feature = "pktinfo")]
mod packet_info {
    use super::Route;
    use mio::net::UdpSocket;
    use nix::cmsg_space;
    use nix::libc::{in_addr, in_pktinfo, in6_pktinfo};
    use nix::sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
        setsockopt, sockopt,
    };
    use std::io::{self, IoSlice, IoSliceMut};
    use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
    use std::os::fd::AsRawFd;

    /// The address that was asked, in the form in which the answer's control message wants it.
    #[derive(Clone, Copy, Debug)]
    pub enum Asked {
        /// An IPv4 address, at an IPv4 socket.
        V4(in_pktinfo),
        /// An IPv6 address, or an IPv4 one in IPv6's clothes at a dual-stack socket.
        V6(in6_pktinfo),
    }

    pub(super) fn ask(socket: &UdpSocket, address: SocketAddr) -> io::Result<()> {
        match address {
            SocketAddr::V4(_) => setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?,
        }
        Ok(())
    }

    pub(super) fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Route)> {
        let mut control = cmsg_space!(in6_pktinfo);
        let mut parts = [IoSliceMut::new(buffer)];
        let message = recvmsg::<SockaddrStorage>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::empty(),
        )?;
        let asked = message.cmsgs()?.find_map(|info| match info {
            // The answer leaves by whatever interface leads to the peer (index 0), but with this source address: the
            // one that the datagram was for (`spec_dst` is ours even if it was sent to a broadcast address).
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(Asked::V4(in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: info.ipi_spec_dst,
                ipi_addr: in_addr { s_addr: 0 },
            })),
            // A link-local address means nothing without its interface, so here the index stays.
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(Asked::V6(info)),
            _ => None,
        });
        let source = message
            .address
            .and_then(to_std)
            .ok_or(io::ErrorKind::InvalidData)?;
        Ok((message.bytes, Route::Udp { source, asked }))
    }

    pub(super) fn answer(
        socket: &UdpSocket,
        datagram: &[u8],
        to: SocketAddr,
        asked: &Asked,
    ) -> io::Result<()> {
        let control = match asked {
            Asked::V4(info) => [ControlMessage::Ipv4PacketInfo(info)],
            Asked::V6(info) => [ControlMessage::Ipv6PacketInfo(info)],
        };
        let parts = [IoSlice::new(datagram)];
        let to = SockaddrStorage::from(to);
        sendmsg(
            socket.as_raw_fd(),
            &parts,
            &control,
            MsgFlags::empty(),
            Some(&to),
        )?;
        Ok(())
    }

    fn to_std(address: SockaddrStorage) -> Option<SocketAddr> {
        if let Some(v4) = address.as_sockaddr_in() {
            return Some(SocketAddr::V4(SocketAddrV4::from(*v4)));
        }
        address
            .as_sockaddr_in6()
            .map(|v6| SocketAddr::V6(SocketAddrV6::from(*v6)))
    }
}
