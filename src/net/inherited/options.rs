//! Options of an inherited socket that are set, or switched off, when it is taken over. The table in the page above says
//! which, and why.

use crate::net::Endpoint;
use crate::net::bind::failed;
use socket2::Socket;

/// Sets what has to be so. How many options could not be set.
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

/// Switches off what fills the error queue, or changes what one datagram is.
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
        // It empties the error queue too, and comes last for that.
        errors += match address.is_ipv6() {
            true => set(socket, "IPV6_RECVERR off", sockopt::Ipv6RecvErr, &false),
            false => 0,
        };
        // An IPv6 socket has the errors of its IPv4 clients by this one. One that refuses such clients may refuse it.
        let ipv4 = setsockopt(socket, sockopt::Ipv4RecvErr, &false).map_err(Into::into);
        errors += if address.is_ipv6() {
            0
        } else {
            failed("IP_RECVERR off", ipv4)
        };
    }
    if matches!(endpoint, Endpoint::Udp(_)) {
        // Kernels before 4.18 and 5.0 know neither, and then neither is on.
        let _ = setsockopt(socket, sockopt::UdpGroSegment, &false);
        let _ = setsockopt(socket, sockopt::UdpGsoSegment, &0);
    }
    errors
}
