//! The check without control messages, from the permission bits of the socket's file alone.

use super::{SenderCheck, admits_only};
use crate::net::address::Endpoint;
use socket2::Socket;
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};

impl SenderCheck {
    pub(in crate::net::datagram) fn new(_: &Socket, endpoint: &Endpoint) -> io::Result<Self> {
        match admits_only(endpoint, crate::procfs::own::user()) {
            true => Ok(Self {
                only_own_user: true,
            }),
            false => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "other users may send to it, and this build cannot tell senders apart; bind a file of mode 0600 \
                 (no write permission for group and others), or build with the feature 'pktinfo'",
            )),
        }
    }

    /// Reads one datagram: its length, the sender's name, and whether the sender may be answered there.
    pub(in crate::net::datagram) fn receive(
        &self,
        socket: &UnixDatagram,
        buffer: &mut [u8],
    ) -> io::Result<(usize, Option<SocketAddr>, bool)> {
        let (length, source) = socket.recv_from(buffer)?;
        let source = (!source.is_unnamed()).then_some(source);
        Ok((length, source, self.only_own_user))
    }
}
