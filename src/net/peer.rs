//! The other end of a connection, or the sender of a datagram.

use super::address::UnixName;
use socket2::SockAddr;
use std::ffi::OsStr;
use std::fmt;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr as UnixAddr;

/// The address of the other end of a connection, or of the sender of a datagram.
///
/// Unpromised: it may change in any release.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Peer {
    /// An address of IPv4 or IPv6; an IPv4 client of a dual-stack socket is shown as IPv4.
    Ip(SocketAddr),
    /// A Unix socket that is bound to a file or to an abstract name.
    Unix(UnixName),
    /// A Unix socket without a name, as clients usually are.
    Unnamed,
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }
}

impl From<&SockAddr> for Peer {
    fn from(address: &SockAddr) -> Self {
        if let Some(ip) = address.as_socket() {
            return Self::from(ip);
        }
        // `as_unix` of socket2 knows only paths, and panics over the longest one (108 bytes without a NUL byte).
        #[cfg(target_os = "linux")]
        if let Some(name) = address.as_abstract_namespace() {
            let name = String::from_utf8_lossy(name).into_owned();
            return Self::Unix(UnixName::Abstract(name));
        }
        address.as_pathname().map_or(Self::Unnamed, |path| {
            Self::Unix(UnixName::Path(path.to_owned()))
        })
    }
}

/// The sender of a datagram: a [`Peer`] that borrows, since it is made for each datagram.
///
/// Unpromised: it may change in any release.
#[derive(Clone, Copy, Debug)]
pub enum Sender<'a> {
    /// An address of IPv4 or IPv6; that of an IPv4 sender to a dual-stack socket is mapped.
    Ip(&'a SocketAddr),
    /// The path of a Unix socket.
    Path(&'a [u8]),
    /// The abstract name of a Unix socket.
    Abstract(&'a [u8]),
    /// A Unix socket without a name.
    Unnamed,
}

impl Sender<'_> {
    /// Whether this is the name of the sender's socket.
    #[must_use]
    pub fn is_named(&self, name: &UnixName) -> bool {
        match (self, name) {
            (Self::Path(sender), UnixName::Path(path)) => path.as_os_str().as_bytes() == *sender,
            (Self::Abstract(sender), UnixName::Abstract(name)) => name.as_bytes() == *sender,
            _ => false,
        }
    }
}

impl<'a> From<&'a UnixAddr> for Sender<'a> {
    fn from(address: &'a UnixAddr) -> Self {
        if let Some(path) = address.as_pathname() {
            return Self::Path(path.as_os_str().as_bytes());
        }
        #[cfg(target_os = "linux")]
        if let Some(name) = std::os::linux::net::SocketAddrExt::as_abstract_name(address) {
            return Self::Abstract(name);
        }
        Self::Unnamed
    }
}

impl From<Sender<'_>> for Peer {
    fn from(sender: Sender<'_>) -> Self {
        match sender {
            Sender::Ip(address) => Self::from(*address),
            Sender::Path(path) => Self::Unix(UnixName::Path(OsStr::from_bytes(path).into())),
            Sender::Abstract(name) => Self::Unix(UnixName::Abstract(
                String::from_utf8_lossy(name).into_owned(),
            )),
            Sender::Unnamed => Self::Unnamed,
        }
    }
}

impl From<&UnixAddr> for Peer {
    fn from(address: &UnixAddr) -> Self {
        Self::from(Sender::from(address))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::Unix(name) => write!(f, "unix:{name}"),
            Self::Unnamed => write!(f, "a Unix socket without a name"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::address::{Address, Endpoint};

    /// A client chooses the name of its Unix socket, and the log of an embedding program prints it.
    #[test]
    fn the_name_of_a_peer_stays_in_its_line() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let evil = "x\n2026-01-01 ERROR \x1b[2J\u{9b}\u{202e}";
        let escaped = r"x\n2026-01-01 ERROR \u{1b}[2J\u{9b}\u{202e}";
        let name = UnixName::Abstract(evil.to_owned());
        assert_eq!(Peer::Unix(name).to_string(), format!("unix:@{escaped}"));
        let path = OsStr::from_bytes(b"/tmp/\xff\n");
        let name = UnixName::Path(path.into());
        assert_eq!(Endpoint::Unix(name).to_string(), r"unix:///tmp/\xff\n");
        let host: Address = "a\nb:7".parse().unwrap();
        assert_eq!(host.to_string(), r"tcp://a\nb:7");
    }
}
