//! Options of an inherited socket that are set, or switched off, when it is taken over. The table of `inherited` gives the
//! reasons.

use crate::net::address::Endpoint;
use crate::net::bind::failed;
use socket2::Socket;

/// Sets the options that the server needs, and returns how many could not be set.
pub(super) fn settle(socket: &Socket, endpoint: &Endpoint) -> u32 {
    let mut errors = 0;
    if matches!(endpoint, Endpoint::Udp(_)) {
        errors += failed("SO_BROADCAST off", socket.set_broadcast(false));
    }
    #[cfg(all(feature = "pktinfo", target_os = "linux"))]
    {
        errors += quieten(socket, endpoint);
    }
    errors
}

/// Switches off the options that fill the error queue, or that join and split datagrams. Returns how many could not be set.
#[cfg(all(feature = "pktinfo", target_os = "linux"))]
fn quieten(socket: &Socket, endpoint: &Endpoint) -> u32 {
    use nix::sys::socket::{SetSockOpt, TimestampingFlag, setsockopt, sockopt};
    fn set<O: SetSockOpt>(socket: &Socket, name: &str, option: O, value: &O::Val) -> u32 {
        failed(name, setsockopt(socket, option, value).map_err(Into::into))
    }
    let stamps = TimestampingFlag::empty();
    let mut errors = set(
        socket,
        "SO_TIMESTAMP off",
        sockopt::ReceiveTimestamp,
        &false,
    ) + set(
        socket,
        "SO_TIMESTAMPING off",
        sockopt::Timestamping,
        &stamps,
    );
    if let Endpoint::Tcp(address) | Endpoint::Udp(address) = endpoint {
        // It also empties the error queue, and comes last for that reason.
        errors += match address.is_ipv6() {
            true => set(socket, "IPV6_RECVERR off", sockopt::Ipv6RecvErr, &false),
            false => 0,
        };
        // On an IPv6 socket this option concerns its IPv4 clients. A socket that refuses such clients may refuse the option.
        let ipv4 = setsockopt(socket, sockopt::Ipv4RecvErr, &false).map_err(Into::into);
        errors += if address.is_ipv6() {
            0
        } else {
            failed("IP_RECVERR off", ipv4)
        };
    }
    if matches!(endpoint, Endpoint::Udp(_)) {
        // Kernels before 4.18 and 5.0 have neither option, and then neither is on.
        let _ = setsockopt(socket, sockopt::UdpGroSegment, &false);
        let _ = setsockopt(socket, sockopt::UdpGsoSegment, &0);
    }
    errors
}
