//! Packet info: the local address that a datagram was sent to, at a socket that is bound to a wildcard address.
//!
//! Facts of Linux behind it (ip(7), ipv6(7), net/ipv4/ip_sockglue.c):
//!
//! - `ipi_addr` is the destination in the datagram's header, and is always set. `ipi_spec_dst` is stored when the datagram
//!   arrives, and only if the option is set by then: for a datagram that was queued before (an activated socket) it is
//!   zero, and an answer with it would leave from an address that the routing table chooses. So answers use `ipi_addr`.
//! - The two differ for a datagram to a broadcast or multicast address. Where `ipi_spec_dst` is zero, a broadcast address
//!   of a subnet looks like any other, and sendmsg(2) refuses it as a source address, since it is not a local one.
//! - An IPv6 socket returns IPV6_PKTINFO for its IPv4 datagrams too, with the destination as an IPv4-mapped address and
//!   without `spec_dst`; IP_PKTINFO may be asked for beside it.
//! - An interface index in the packet info of an answer overrides the routing table. The datagram may have arrived by
//!   another interface than the one that leads back, so the index is left out; only a link-local address needs it.

use crate::net::traits::Unanswerable;
use libc::{in_addr, in_pktinfo, in6_pktinfo};
use mio::net::UdpSocket;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;

/// Size of the buffer for control messages. Packet info takes 72 bytes; the rest is for messages that the owner of an
/// inherited socket may have asked for (timestamps, TTL, header options), some of which come before it. If even this does
/// not suffice, the datagram is not answered.
const CONTROL_BYTES: usize = 4096;

/// A UDP socket on a wildcard address, with packet info switched on.
#[derive(Debug)]
pub struct WildcardSocket {
    pub(super) socket: UdpSocket,
    control: Box<[u8]>,
}

/// The destination address of a datagram, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub enum Asked {
    /// The address that the socket is bound to.
    BoundSocket,
    /// An IPv4 address, in the form of the control message of an answer.
    V4(in_pktinfo),
    /// An IPv6 address, in the same form.
    V6(in6_pktinfo),
    /// A broadcast or multicast address.
    Group,
    /// It is not known, since the control messages did not fit.
    Unknown,
}

impl Asked {
    pub(super) fn check(&self) -> Result<(), Unanswerable> {
        match self {
            Self::BoundSocket | Self::V4(_) | Self::V6(_) => Ok(()),
            Self::Group => Err(Unanswerable::Group),
            Self::Unknown => Err(Unanswerable::NoDestination),
        }
    }

    fn from_v4(info: in_pktinfo) -> Self {
        let destination = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
        let is_broadcast =
            info.ipi_spec_dst.s_addr != 0 && info.ipi_spec_dst.s_addr != info.ipi_addr.s_addr;
        if is_broadcast || destination.is_multicast() || destination.is_broadcast() {
            return Self::Group;
        }
        Self::V4(in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: info.ipi_addr,
            ipi_addr: in_addr { s_addr: 0 },
        })
    }

    fn from_v6(info: in6_pktinfo) -> Self {
        let destination = Ipv6Addr::from(info.ipi6_addr.s6_addr);
        let is_link_local = destination.is_unicast_link_local();
        match destination.to_ipv4_mapped() {
            Some(ipv4) if ipv4.is_multicast() || ipv4.is_broadcast() => Self::Group,
            None if destination.is_multicast() => Self::Group,
            _ => Self::V6(in6_pktinfo {
                ipi6_ifindex: if is_link_local { info.ipi6_ifindex } else { 0 },
                ..info
            }),
        }
    }
}

impl WildcardSocket {
    pub(super) fn new(socket: UdpSocket, address: SocketAddr) -> io::Result<Self> {
        match address {
            SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => {
                setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
                // For IPv4 clients. A system without it reports less about their broadcasts.
                let _ = setsockopt(&socket, sockopt::Ipv4PacketInfo, &true);
            }
        }
        Ok(Self {
            socket,
            control: vec![0; CONTROL_BYTES].into_boxed_slice(),
        })
    }

    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, Asked)> {
        let mut parts = [IoSliceMut::new(buffer)];
        let message = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut self.control),
            MsgFlags::empty(),
        )?;
        let mut asked = Asked::Unknown;
        // An error means that control messages were cut off (MSG_CTRUNC); the datagram itself is complete.
        if let Ok(infos) = message.cmsgs() {
            for info in infos {
                match info {
                    // It contains more about an IPv4 datagram than IPV6_PKTINFO does.
                    ControlMessageOwned::Ipv4PacketInfo(info) => {
                        asked = Asked::from_v4(info);
                        break;
                    }
                    ControlMessageOwned::Ipv6PacketInfo(info) => asked = Asked::from_v6(info),
                    _ => {}
                }
            }
        }
        let source = message
            .address
            .and_then(to_std)
            .ok_or(io::ErrorKind::InvalidData)?;
        Ok((message.bytes, source, asked))
    }

    pub(super) fn reply(
        &mut self,
        datagram: &[u8],
        to: SocketAddr,
        asked: &Asked,
    ) -> io::Result<()> {
        let control = match asked {
            Asked::V4(info) => [ControlMessage::Ipv4PacketInfo(info)],
            Asked::V6(info) => [ControlMessage::Ipv6PacketInfo(info)],
            Asked::BoundSocket | Asked::Group | Asked::Unknown => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        };
        let parts = [IoSlice::new(datagram)];
        let to = SockaddrStorage::from(to);
        sendmsg(
            self.socket.as_raw_fd(),
            &parts,
            &control,
            MsgFlags::empty(),
            Some(&to),
        )?;
        Ok(())
    }
}

pub(super) fn to_std(address: SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::V4(SocketAddrV4::from(*v4)));
    }
    address
        .as_sockaddr_in6()
        .map(|v6| SocketAddr::V6(SocketAddrV6::from(*v6)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(addr: [u8; 4], spec_dst: [u8; 4]) -> Asked {
        let network = |ip: [u8; 4]| in_addr {
            s_addr: u32::from_ne_bytes(ip),
        };
        Asked::from_v4(in_pktinfo {
            ipi_ifindex: 7,
            ipi_spec_dst: network(spec_dst),
            ipi_addr: network(addr),
        })
    }

    #[test]
    fn an_answer_leaves_from_the_asked_address_by_whatever_interface() {
        let here = [10, 1, 0, 1];
        for spec_dst in [here, [0; 4]] {
            let Asked::V4(info) = v4(here, spec_dst) else {
                panic!("an address of a host");
            };
            assert_eq!(info.ipi_ifindex, 0);
            assert_eq!(info.ipi_spec_dst.s_addr.to_ne_bytes(), here);
        }
    }

    #[test]
    fn groups_are_known_with_and_without_what_arrival_noted() {
        assert!(matches!(v4([10, 1, 0, 255], [10, 1, 0, 1]), Asked::Group));
        assert!(matches!(v4([224, 0, 0, 1], [0; 4]), Asked::Group));
        assert!(matches!(v4([255; 4], [0; 4]), Asked::Group));
    }

    #[test]
    fn only_a_link_local_address_keeps_its_interface() {
        let index = |address: &str| {
            let info = in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: address.parse::<Ipv6Addr>().unwrap().octets(),
                },
                ipi6_ifindex: 7,
            };
            match Asked::from_v6(info) {
                Asked::V6(info) => Some(info.ipi6_ifindex),
                _ => None,
            }
        };
        assert_eq!(index("fe80::1"), Some(7));
        assert_eq!(index("2001:db8::1"), Some(0));
        assert_eq!(index("::ffff:10.1.0.1"), Some(0));
        assert_eq!(index("ff02::1"), None);
        assert_eq!(index("::ffff:224.0.0.1"), None);
    }

    #[test]
    fn groups_and_unknown_destinations_are_not_answered() {
        let here = [10, 1, 0, 1];
        for (asked, expected) in [
            (Asked::BoundSocket, Ok(())),
            (v4(here, here), Ok(())),
            (Asked::Group, Err(Unanswerable::Group)),
            (Asked::Unknown, Err(Unanswerable::NoDestination)),
        ] {
            assert_eq!(asked.check(), expected, "{asked:?}");
        }
    }

    /// All of 127.0.0.0/8 are addresses of this machine.
    #[test]
    fn an_answer_leaves_from_the_address_that_was_asked() {
        for (wildcard, asked_at) in [
            ("0.0.0.0:0", "127.0.0.7"),
            ("[::]:0", "127.0.0.7"),
            ("[::]:0", "::1"),
        ] {
            let Ok(bound) = std::net::UdpSocket::bind(wildcard) else {
                continue; // without IPv6
            };
            let deadline = Some(std::time::Duration::from_secs(20));
            bound.set_read_timeout(deadline).unwrap();
            let address = bound.local_addr().unwrap();
            let asked_at = SocketAddr::new(asked_at.parse().unwrap(), address.port());
            let mut socket = WildcardSocket::new(UdpSocket::from_std(bound), address).unwrap();
            let any = if asked_at.is_ipv4() {
                "127.0.0.1:0"
            } else {
                "[::1]:0"
            };
            let client = std::net::UdpSocket::bind(any).unwrap();
            client.set_read_timeout(deadline).unwrap();
            client.send_to(b"asked", asked_at).unwrap();
            let (length, source, asked) = socket.receive(&mut [0; 8]).unwrap();
            let source = SocketAddr::new(source.ip().to_canonical(), source.port());
            assert_eq!((length, source), (5, client.local_addr().unwrap()));
            socket
                .reply(b"answered", source_of(&address, source), &asked)
                .unwrap();
            let mut buffer = [0; 16];
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from), (&b"answered"[..], asked_at));
        }
    }

    /// The address of a client in the form of the family of the server's socket.
    fn source_of(server: &SocketAddr, client: SocketAddr) -> SocketAddr {
        match (server, client) {
            (SocketAddr::V6(_), SocketAddr::V4(v4)) => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
            _ => client,
        }
    }
}
