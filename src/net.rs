//! What a socket is here: three small traits, and the sockets of the operating system behind them.
//!
//! The server knows a stream, a listener and a datagram socket by the traits of this page; which family they are of
//! (TCP or Unix, IPv4 or IPv6) is known in this room alone. The real ones are closed enums, not boxed trait objects: two
//! kinds will not become twenty, a `match` over them costs nothing beside a system call, and no connection needs an
//! allocation of its own. The simulated network of the tests has its own types behind the same traits.
//!
//! In reading order: [`address`], [`bind`], `adopt`, [`listener`], [`stream`], [`datagram`], [`accept`], [`wire`]; and `connect`,
//! which the load generator alone needs.

/// Lets mio register what holds a source of its own: all three calls go to what `source` returns.
macro_rules! register_by_source {
    ($socket:ty) => {
        impl mio::event::Source for $socket {
            fn register(
                &mut self,
                registry: &mio::Registry,
                token: mio::Token,
                interest: mio::Interest,
            ) -> std::io::Result<()> {
                self.source().register(registry, token, interest)
            }

            fn reregister(
                &mut self,
                registry: &mio::Registry,
                token: mio::Token,
                interest: mio::Interest,
            ) -> std::io::Result<()> {
                self.source().reregister(registry, token, interest)
            }

            fn deregister(&mut self, registry: &mio::Registry) -> std::io::Result<()> {
                self.source().deregister(registry)
            }
        }
    };
}

pub mod accept;
pub mod address;
pub mod bind;
#[cfg(feature = "bench")]
pub mod connect;
mod convert;
pub mod datagram;
mod escape;
mod inherited;
mod ip_net;
pub mod listener;
mod socket_file;
mod staging;
pub mod stream;
#[cfg(feature = "bench")]
pub mod tcp_info;
pub mod trace;

pub use address::{Address, AddressError, Endpoint, HostPort, Resolved, UnixName};
pub use bind::{BindError, BindOptions, BoundSocket, bind_all, bind_resolved};
pub use datagram::DatagramSocket;
pub(crate) use escape::Escaped;
pub use inherited::FromFdError;
pub use ip_net::{IpNet, IpNetError};
pub use listener::ListenerSocket;
pub use socket_file::{FileIdentity, SocketFile};
pub use stream::StreamSocket;

use socket2::SockAddr;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::SocketAddr as UnixAddr;

/// A connected, non-blocking stream of bytes: `read` and `write` do what they can at once or say `WouldBlock`.
///
/// Unpromised: it may change in any release.
pub trait Stream: Read + Write {
    /// Whether a read that fills only part of the buffer has emptied the socket, so that whatever comes later raises a
    /// new edge. epoll(7) says so of streams, and TCP keeps it (but for urgent data, of which the event tells). Unix
    /// streams do not: a read ends early at a message that carries descriptors, with more bytes waiting behind it.
    fn short_read_means_empty(&self) -> bool;

    /// Says FIN, once everything written is on its way: `shutdown(2)` for writing.
    ///
    /// # Errors
    /// What the system said; `NotConnected` if the peer is gone already.
    fn shutdown_write(&self) -> io::Result<()>;

    /// Makes the coming close a reset, which takes the unsent bytes in the kernel with it.
    fn reset_on_close(&self);

    /// Who is at the other end. For the log; a peer that is gone has no address any more.
    fn peer(&self) -> Peer;
}

/// A socket at which streams arrive.
///
/// Unpromised: it may change in any release.
pub trait Listener {
    /// What arrives.
    type Stream: Stream;

    /// The next connection from the queue, or `WouldBlock`.
    ///
    /// # Errors
    /// Those of accept(2), as they come.
    fn accept(&mut self) -> io::Result<Accepted<Self::Stream>>;
}

/// A stream just accepted.
///
/// Unpromised: it may change in any release.
#[derive(Debug)]
pub struct Accepted<S> {
    /// The connection.
    pub stream: S,
    /// Who connected.
    pub peer: Peer,
    /// How many of its socket options could not be set. It can be served all the same.
    pub option_errors: u32,
}

/// A socket at which datagrams arrive.
///
/// Unpromised: it may change in any release.
pub trait Datagrams {
    /// Where a datagram came from, and which address of ours it was sent to: all that an answer needs.
    type ReplyPath: Clone + fmt::Debug;

    /// Reads one datagram: its length, and the way back.
    ///
    /// # Errors
    /// Those of recvmsg(2); `WouldBlock` if there is none.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Self::ReplyPath)>;

    /// Answers along the way back.
    ///
    /// # Errors
    /// Those of sendmsg(2); `WouldBlock` if the send buffer is full.
    fn reply(&mut self, datagram: &[u8], path: &Self::ReplyPath) -> io::Result<()>;

    /// Who is at the other end of a path.
    fn source(path: &Self::ReplyPath) -> Peer;

    /// Whether an answer along this path reaches its sender, and nothing else.
    ///
    /// # Errors
    /// Why it would not, or might not.
    fn check(_: &Self::ReplyPath) -> Result<(), Unanswerable> {
        Ok(())
    }
}

/// Why the socket itself knows that a datagram cannot be answered.
///
/// Unpromised: it may change in any release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswerable {
    /// It was sent to a broadcast or multicast address.
    Group,
    /// The address that it was sent to is not known, so the answer would leave from a wrong one.
    NoDestination,
    /// Its sender is another user's process, and its name may lead to a socket that is not its own.
    ForeignSender,
}

/// Who is at the other end, as far as anybody can tell.
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
        // `as_unix` of socket2 knows paths alone, and panics over the longest one (108 bytes without a NUL byte).
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

impl From<&UnixAddr> for Peer {
    fn from(address: &UnixAddr) -> Self {
        if let Some(path) = address.as_pathname() {
            return Self::Unix(UnixName::Path(path.to_owned()));
        }
        #[cfg(target_os = "linux")]
        if let Some(name) = std::os::linux::net::SocketAddrExt::as_abstract_name(address) {
            return Self::Unix(UnixName::Abstract(
                String::from_utf8_lossy(name).into_owned(),
            ));
        }
        Self::Unnamed
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

    /// A peer chooses the name of its Unix socket, and an embedder's log prints it.
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
