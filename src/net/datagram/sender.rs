//! Which senders of Unix datagrams may be answered: those of this process's own user, and root. Why not all is said in
//! the page above.
//!
//! The kernel tells the sender's user (SO_PASSCRED, unix(7)) with each datagram, and lets root alone claim another. It
//! tells nothing of datagrams that were queued before the option was set (an activated socket), and its control message
//! is marked as cut off when descriptors come with the datagram, for which no room is given so that they are discarded.
//! In both cases the permission bits of the socket's file decide: if they let only its owner write, and the owner is this
//! process's user, then the sender was that user or root.
//!
//! Without the feature `pktinfo` there are no control messages, and the permission bits decide alone: a socket that others
//! may write to, or that has an abstract name, which has no permission bits, is refused.

use crate::net::{Endpoint, UnixName};
use socket2::Socket;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Tells whether a sender could write by itself to whatever socket its name leads to.
#[derive(Debug)]
pub struct SenderCheck {
    /// Whether the file's permission bits admit this process's user alone (and root, whom they never keep out).
    only_own_user: bool,
    /// The user of this process, asked for once: a sandbox takes the call away, and it would be one more for each datagram.
    #[cfg(feature = "pktinfo")]
    own_user: u32,
}

impl SenderCheck {
    #[cfg(feature = "pktinfo")]
    pub(super) fn new(socket: &Socket, endpoint: &Endpoint) -> io::Result<Self> {
        use nix::sys::socket::{setsockopt, sockopt};
        setsockopt(socket, sockopt::PassCred, &true)?;
        let own_user = nix::unistd::geteuid().as_raw();
        Ok(Self {
            only_own_user: admits_only(endpoint, Some(own_user)),
            own_user,
        })
    }

    #[cfg(not(feature = "pktinfo"))]
    pub(super) fn new(_: &Socket, endpoint: &Endpoint) -> io::Result<Self> {
        let own_user = fs::metadata("/proc/self").ok().map(|process| process.uid());
        match admits_only(endpoint, own_user) {
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
    #[cfg(feature = "pktinfo")]
    pub(super) fn receive(
        &self,
        socket: &UnixDatagram,
        buffer: &mut [u8],
    ) -> io::Result<(usize, Option<SocketAddr>, bool)> {
        use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, UnixCredentials, recvmsg};
        use std::os::fd::AsRawFd;
        // Exactly what credentials take, so that no descriptor fits in behind them.
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
            Some(told) if !tells_nothing(told.pid(), told.uid()) => {
                told.uid() == 0 || told.uid() == self.own_user
            }
            _ => self.only_own_user,
        };
        let source = message.address.as_ref().and_then(to_std);
        Ok((message.bytes, source, is_trusted))
    }

    /// Reads one datagram: its length, the sender's name, and whether the sender may be answered there.
    #[cfg(not(feature = "pktinfo"))]
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
#[cfg(feature = "pktinfo")]
const CREDENTIALS_SPACE: usize = {
    let word = size_of::<usize>();
    let header = size_of::<nix::libc::cmsghdr>().div_ceil(word);
    let credentials = size_of::<nix::libc::ucred>().div_ceil(word);
    (header + credentials) * word
};

/// Whether these credentials are what the kernel fills in where it noted none: no process, and the overflow user, which
/// is `nobody` on most systems.
#[cfg(feature = "pktinfo")]
fn tells_nothing(process: i32, user: u32) -> bool {
    const OVERFLOW_USER: u32 = 65_534;
    process == 0 && user == OVERFLOW_USER
}

/// Whether only `user`, and root, may send to this endpoint.
fn admits_only(endpoint: &Endpoint, user: Option<u32>) -> bool {
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    let Endpoint::UnixDatagram(UnixName::Path(path)) = endpoint else {
        return false;
    };
    fs::symlink_metadata(path).is_ok_and(|file| {
        file.file_type().is_socket()
            && file.mode() & WRITABLE_BY_OTHERS == 0
            && Some(file.uid()) == user
    })
}

/// `None` for an unnamed sender, and for the one path that has no terminating NUL byte, of 108 bytes: Linux tells a length
/// of 111 then, which is more than `sockaddr_un` has. nix panics over a length of zero, which is an unnamed sender's.
#[cfg(feature = "pktinfo")]
fn to_std(address: &nix::sys::socket::UnixAddr) -> Option<SocketAddr> {
    use nix::sys::socket::SockaddrLike;
    let (family, most) = (
        size_of::<nix::libc::sa_family_t>(),
        size_of::<nix::libc::sockaddr_un>(),
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

#[cfg(all(test, feature = "pktinfo"))]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_fills_in_proves_nothing() {
        assert!(tells_nothing(0, 65_534));
        assert!(
            !tells_nothing(4_242, 65_534),
            "a process of the user nobody"
        );
        assert!(
            !tells_nothing(0, 1_000),
            "a process of another PID namespace"
        );
    }
}
