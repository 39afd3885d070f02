//! Which senders of Unix datagrams may be answered: processes of the user of this process, and of root. The page of
//! `datagram` gives the reason.
//!
//! The kernel reports the sender's user with each datagram (SO_PASSCRED, unix(7)), and lets only root claim another one.
//! It reports none for datagrams that were queued before the option was set (an activated socket). Its control message is
//! also marked as cut off when descriptors come with the datagram; the buffer has no room for them, so that they are
//! closed. In both cases the permission bits of the socket's file decide: if only the owner may write to it, and the owner
//! is the user of this process, then the sender was that user or root.
//!
//! Without the feature `pktinfo` there are no control messages, and only the permission bits decide: a socket that other
//! users may write to, or that has an abstract name, which has no permission bits, is refused.

use crate::net::address::{Endpoint, UnixName};
use socket2::Socket;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Decides whether a sender could write by itself to the socket that its name leads to.
#[derive(Debug)]
pub struct SenderCheck {
    /// Whether the permission bits of the file admit only the user of this process (and root, which they never exclude).
    only_own_user: bool,
    /// The user of this process, asked for once: a sandbox takes the call away, and it would be one more for each datagram.
    #[cfg(all(feature = "pktinfo", target_os = "linux"))]
    own_user: u32,
}

impl SenderCheck {
    #[cfg(all(feature = "pktinfo", target_os = "linux"))]
    pub(super) fn new(socket: &Socket, endpoint: &Endpoint) -> io::Result<Self> {
        use nix::sys::socket::{setsockopt, sockopt};
        setsockopt(socket, sockopt::PassCred, &true)?;
        let own_user = nix::unistd::geteuid().as_raw();
        Ok(Self {
            only_own_user: admits_only(endpoint, Some(own_user)),
            own_user,
        })
    }

    #[cfg(not(all(feature = "pktinfo", target_os = "linux")))]
    pub(super) fn new(_: &Socket, endpoint: &Endpoint) -> io::Result<Self> {
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
    #[cfg(all(feature = "pktinfo", target_os = "linux"))]
    pub(super) fn receive(
        &self,
        socket: &UnixDatagram,
        buffer: &mut [u8],
    ) -> io::Result<(usize, Option<SocketAddr>, bool)> {
        use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, UnixCredentials, recvmsg};
        use std::os::fd::AsRawFd;
        // Exactly the size of credentials, so that no descriptor fits in after them.
        let mut control = [0; CREDENTIALS_SPACE];
        let mut parts = [io::IoSliceMut::new(buffer)];
        let message = recvmsg::<UnixAddr>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::empty(),
        )?;
        let credentials: Option<UnixCredentials> =
            message
                .cmsgs()
                .into_iter()
                .flatten()
                .find_map(|info| match info {
                    ControlMessageOwned::ScmCredentials(credentials) => Some(credentials),
                    _ => None,
                });
        let is_trusted = match credentials {
            Some(told) if !are_missing(told.pid(), told.uid()) => {
                told.uid() == 0 || told.uid() == self.own_user
            }
            _ => self.only_own_user,
        };
        let source = message.address.as_ref().and_then(to_std);
        Ok((message.bytes, source, is_trusted))
    }

    /// Reads one datagram: its length, the sender's name, and whether the sender may be answered there.
    #[cfg(not(all(feature = "pktinfo", target_os = "linux")))]
    pub(super) fn receive(
        &self,
        socket: &UnixDatagram,
        buffer: &mut [u8],
    ) -> io::Result<(usize, Option<SocketAddr>, bool)> {
        let (length, source) = socket.recv_from(buffer)?;
        let source = (!source.is_unnamed()).then_some(source);
        Ok((length, source, self.only_own_user))
    }
}

/// `CMSG_SPACE(sizeof(struct ucred))`: the header, and three numbers of 32 bits, each rounded up to a whole word.
#[cfg(all(feature = "pktinfo", target_os = "linux"))]
const CREDENTIALS_SPACE: usize = {
    let word = size_of::<usize>();
    let header = size_of::<libc::cmsghdr>().div_ceil(word);
    let credentials = size_of::<libc::ucred>().div_ceil(word);
    (header + credentials) * word
};

/// Whether these credentials are those that the kernel fills in where it stored none: process 0, and the overflow user
/// (uid 65534 on most systems).
#[cfg(all(feature = "pktinfo", target_os = "linux"))]
fn are_missing(process: i32, user: u32) -> bool {
    const OVERFLOW_USER: u32 = 65_534;
    process == 0 && user == OVERFLOW_USER
}

/// Whether only `user`, and root, may send to this endpoint.
fn admits_only(endpoint: &Endpoint, user: Option<u32>) -> bool {
    /// Write permission for the group and for all other users.
    const GROUP_OR_OTHER_WRITE: u32 = 0o022;
    let Endpoint::UnixDatagram(UnixName::Path(path)) = endpoint else {
        return false;
    };
    fs::symlink_metadata(path).is_ok_and(|file| {
        file.file_type().is_socket()
            && file.mode() & GROUP_OR_OTHER_WRITE == 0
            && Some(file.uid()) == user
    })
}

/// Converts the address of a sender. `None` for an unnamed sender, and for a path of 108 bytes, which has no terminating
/// NUL byte: Linux returns an address length of 111 for it, which is more than `sockaddr_un` has. nix panics over a length
/// of zero, which means an unnamed sender.
#[cfg(all(feature = "pktinfo", target_os = "linux"))]
fn to_std(address: &nix::sys::socket::UnixAddr) -> Option<SocketAddr> {
    use nix::sys::socket::SockaddrLike;
    let (family, most) = (
        size_of::<libc::sa_family_t>(),
        size_of::<libc::sockaddr_un>(),
    );
    if !(family + 1..=most).contains(&(address.len() as usize)) {
        return None;
    }
    if let Some(path) = address.path() {
        return SocketAddr::from_pathname(path).ok();
    }
    #[cfg(target_os = "linux")]
    if let Some(name) = address.as_abstract() {
        return <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name).ok();
    }
    None
}

#[cfg(all(test, feature = "pktinfo", target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn credentials_that_the_kernel_fills_in_prove_nothing() {
        assert!(are_missing(0, 65_534));
        assert!(
            !are_missing(4_242, 65_534),
            "a process of the overflow user"
        );
        assert!(!are_missing(0, 1_000), "a process of another PID namespace");
    }
}
