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

#[cfg(not(all(feature = "pktinfo", target_os = "linux")))]
mod by_file_mode;

use crate::net::address::{Endpoint, UnixName};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
#[cfg(all(feature = "pktinfo", target_os = "linux"))]
use {
    super::batch,
    nix::sys::socket::{RecvMsg, UnixAddr},
    socket2::Socket,
    std::io,
    std::os::unix::net::{SocketAddr, UnixDatagram},
};

/// Decides whether a sender could write by itself to the socket that its name leads to.
#[derive(Debug)]
pub struct SenderCheck {
    /// Whether the permission bits of the file admit only the user of this process (and root, which they never exclude).
    only_own_user: bool,
    /// The user of this process, asked for once: a sandbox takes the call away, and it would be one more for each datagram.
    #[cfg(all(feature = "pktinfo", target_os = "linux"))]
    own_user: u32,
}

#[cfg(all(feature = "pktinfo", target_os = "linux"))]
impl SenderCheck {
    pub(super) fn new(socket: &Socket, endpoint: &Endpoint) -> io::Result<Self> {
        use nix::sys::socket::{setsockopt, sockopt};
        setsockopt(socket, sockopt::PassCred, &true)?;
        let own_user = nix::unistd::geteuid().as_raw();
        Ok(Self {
            only_own_user: admits_only(endpoint, Some(own_user)),
            own_user,
        })
    }

    /// Reads one datagram: its length, the sender's name, and whether the sender may be answered there.
    pub(super) fn receive(
        &self,
        socket: &UnixDatagram,
        buffer: &mut [u8],
    ) -> io::Result<(usize, Option<SocketAddr>, bool)> {
        use nix::sys::socket::{MsgFlags, recvmsg};
        use std::os::fd::AsRawFd;
        // Exactly the size of credentials, so that no descriptor fits in after them.
        let mut control = [0; CREDENTIALS_SPACE];
        let mut parts = [io::IoSliceMut::new(buffer)];
        let message = recvmsg(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::empty(),
        )?;
        Ok(self.judge(&message))
    }

    /// Reads up to `count` datagrams, and hands to `take` what [`receive`](Self::receive) returns.
    pub(super) fn receive_several(
        &self,
        socket: &UnixDatagram,
        buffer: &mut [u8],
        count: usize,
        mut take: impl FnMut(usize, Option<SocketAddr>, bool),
    ) -> io::Result<()> {
        let control = Some(vec![0; CREDENTIALS_SPACE]);
        batch::receive(socket, buffer, count, control, |message| {
            let (length, source, is_trusted) = self.judge(&message);
            take(length, source, is_trusted);
        })
    }

    /// What a message tells: its length, the sender's name, and whether the sender may be answered there.
    fn judge(&self, message: &RecvMsg<'_, '_, UnixAddr>) -> (usize, Option<SocketAddr>, bool) {
        use nix::sys::socket::{ControlMessageOwned, UnixCredentials};
        let credentials: Option<UnixCredentials> = message.cmsgs().ok().and_then(|mut infos| {
            infos.find_map(|info| match info {
                ControlMessageOwned::ScmCredentials(credentials) => Some(credentials),
                _ => None,
            })
        });
        let is_trusted = match credentials {
            Some(told) if !are_missing(told.pid(), told.uid()) => {
                told.uid() == 0 || told.uid() == self.own_user
            }
            _ => self.only_own_user,
        };
        let source = message.address.as_ref().and_then(to_std);
        (message.bytes, source, is_trusted)
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
fn to_std(address: &UnixAddr) -> Option<SocketAddr> {
    use nix::sys::socket::SockaddrLike;
    if !(1..=size_of::<libc::sockaddr_un>()).contains(&(address.len() as usize)) {
        return None;
    }
    if let Some(path) = address.path() {
        return SocketAddr::from_pathname(path).ok();
    }
    if let Some(name) = address.as_abstract() {
        return <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name).ok();
    }
    None
}

#[cfg(test)]
#[cfg(all(feature = "pktinfo", target_os = "linux"))]
mod tests {
    use super::*;
    use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg, setsockopt, sockopt};
    use std::os::fd::AsRawFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    #[test]
    fn credentials_that_the_kernel_fills_in_prove_nothing() {
        assert!(are_missing(0, 65_534));
        assert!(
            !are_missing(4_242, 65_534),
            "a process of the overflow user"
        );
        assert!(!are_missing(0, 1_000), "a process of another PID namespace");
    }

    /// A socket file at a path of its own, which is removed in the end.
    struct Bound(PathBuf, UnixDatagram);

    impl Bound {
        fn new(name: &str) -> Self {
            let name = format!("echo-reactor-sender-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let socket = UnixDatagram::bind(&path).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            Self(path, socket)
        }

        fn endpoint(&self) -> Endpoint {
            Endpoint::UnixDatagram(UnixName::Path(self.0.clone()))
        }
    }

    impl Drop for Bound {
        fn drop(&mut self) {
            fs::remove_file(&self.0).unwrap();
        }
    }

    #[test]
    fn permission_bits_admit_only_the_owner_of_a_socket() {
        let bound = Bound::new("bits");
        let (endpoint, user) = (bound.endpoint(), nix::unistd::geteuid().as_raw());
        let admits_only_with = |mode, user| {
            fs::set_permissions(&bound.0, fs::Permissions::from_mode(mode)).unwrap();
            admits_only(&endpoint, user)
        };
        assert!(admits_only_with(0o600, Some(user)) && admits_only_with(0o755, Some(user)));
        assert!(!admits_only_with(0o620, Some(user)) && !admits_only_with(0o602, Some(user)));
        assert!(!admits_only_with(0o600, Some(user + 1)) && !admits_only_with(0o600, None));
        let no_file = Endpoint::UnixDatagram(UnixName::Abstract("name".into()));
        assert!(!admits_only(&no_file, Some(user)));
        let no_socket = Endpoint::UnixDatagram(UnixName::Path("/dev/null".into()));
        assert!(!admits_only(&no_socket, Some(0)));
    }

    /// Sends one byte with the credentials of this user. Only root may send those of another user.
    fn send_as(sender: &UnixDatagram, to: &Path, user: u32) -> nix::Result<usize> {
        let claimed = libc::ucred {
            pid: std::process::id() as i32,
            uid: user,
            gid: nix::unistd::getegid().as_raw(),
        };
        sendmsg(
            sender.as_raw_fd(),
            &[io::IoSlice::new(b"1")],
            &[ControlMessage::ScmCredentials(&claimed.into())],
            MsgFlags::empty(),
            Some(&UnixAddr::new(to).unwrap()),
        )
    }

    #[test]
    fn root_and_the_own_user_are_trusted() {
        let (bound, sender) = (Bound::new("to"), Bound::new("from"));
        let socket = Socket::from(bound.1.try_clone().unwrap());
        let mut check = SenderCheck::new(&socket, &bound.endpoint()).unwrap();
        let actual = nix::unistd::geteuid().as_raw();
        for (own_user, user, expected) in [
            (actual, actual, true),
            (1_000, 1_000, true),
            (1_000, 0, true),
            (1_000, 1_001, false),
        ] {
            // Credentials go before permission bits.
            (check.own_user, check.only_own_user) = (own_user, !expected);
            if send_as(&sender.1, &bound.0, user).is_err() && actual != 0 {
                continue; // this test does not run as root
            }
            let (length, source, is_trusted) = check.receive(&bound.1, &mut [0; 8]).unwrap();
            assert_eq!((length, is_trusted), (1, expected), "{user} at {own_user}");
            assert_eq!(source.unwrap().as_pathname(), Some(sender.0.as_path()));
        }
    }

    /// They were queued before the option was set.
    #[test]
    fn without_credentials_the_permission_bits_decide() {
        let bound = Bound::new("bare");
        let name = format!("echo-reactor-sender-{}", std::process::id());
        let named = SocketAddr::from_abstract_name(&name).unwrap();
        let senders = [
            UnixDatagram::unbound().unwrap(),
            UnixDatagram::bind_addr(&named).unwrap(),
        ];
        for only_own_user in [true, false] {
            for (sender, named) in senders.iter().zip([None, Some(name.as_bytes())]) {
                let check = SenderCheck {
                    only_own_user,
                    own_user: nix::unistd::geteuid().as_raw(),
                };
                setsockopt(&bound.1, sockopt::PassCred, &false).unwrap();
                sender.send_to(b"12", &bound.0).unwrap();
                setsockopt(&bound.1, sockopt::PassCred, &true).unwrap();
                let (length, source, is_trusted) = check.receive(&bound.1, &mut [0; 8]).unwrap();
                assert_eq!((length, is_trusted), (2, only_own_user));
                let source = source.as_ref().and_then(SocketAddr::as_abstract_name);
                assert_eq!(source, named);
            }
        }
    }
}
