//! What the kernel knows of one TCP connection: `TCP_INFO` (tcp(7)).
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! The counters of /proc/net/snmp belong to the whole machine; these belong to one connection.

use nix::sys::socket::{GetSockOpt, sockopt::GetStruct};
use std::os::fd::AsFd;

/// The first part of the kernel's `struct tcp_info` (include/uapi/linux/tcp.h). Later kernels have added members behind
/// it, and return as many bytes as are asked for. Every bit pattern is a valid value.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct TcpInfo {
    /// `tcpi_state` up to the flags.
    bytes: [u8; 8],
    /// `tcpi_rto` up to `tcpi_total_retrans`.
    words: [u32; 24],
}

#[derive(Clone, Copy, Debug)]
struct TcpInfoOption;

nix::getsockopt_impl!(
    TcpInfoOption,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    TcpInfo,
    GetStruct<TcpInfo>
);

/// Returns how many segments this end of a TCP connection has retransmitted, its SYN included (`tcpi_total_retrans`);
/// `None` for other sockets.
#[must_use]
pub fn segments_resent(socket: &impl AsFd) -> Option<u32> {
    TcpInfoOption.get(socket).ok().map(|info| info.words[23])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_loopback_connection_retransmits_nothing_and_unix_sockets_have_no_count() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(segments_resent(&stream), Some(0));
        let (unix, _other) = UnixStream::pair().unwrap();
        assert_eq!(segments_resent(&unix), None);
    }

    /// The member is read from the right place: a SYN without an answer is retransmitted after a second.
    #[test]
    fn an_unanswered_syn_is_retransmitted() {
        use socket2::{Domain, Socket, Type};
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        // The kernel completes one handshake; SYNs that find the queue full get no answer.
        let connect = |_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address);
            socket
        };
        let sockets: Vec<Socket> = (0..4).map(connect).collect();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let resent = || sockets.iter().filter_map(segments_resent).max();
        while resent() == Some(0) {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert!(
            resent().unwrap() < 20,
            "a few retransmissions, and no other member"
        );
    }
}
