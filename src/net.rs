//! Sockets: addresses, binding, accepting, and the traits by which the server knows a socket.
//!
//! Promised are addresses, bound sockets, their options and their errors, as the crate page lists them. Traits and sockets
//! whose page says so are unpromised.
//!
//! The server uses a stream, a listener and a datagram socket through three traits ([`Stream`], [`Listener`],
//! [`Datagrams`]); only this module knows which family a socket belongs to (TCP or Unix, IPv4 or IPv6). The sockets of the
//! operating system are closed enums rather than boxed trait objects: a `match` over two variants costs nothing beside a
//! system call, and a connection needs no allocation of its own. The simulated network of the tests implements the same
//! traits.
//!
//! What may live in this module: sockets, their addresses and options, and what their errors mean. What may not: events,
//! and what is done with the bytes.
//!
//! In reading order: `traits`, [`address`], `convert`, `peer`, [`bind`], `reuse_port`, `inherited`, [`listener`], [`stream`], `send_room`, [`datagram`],
//! [`accept`], [`trace`], [`proxy`]; and `connect`, which only the load generator needs. Files import each other by their own paths;
//! this one only re-exports.

pub mod accept;
pub mod address;
pub mod bind;
mod bind_error;
#[cfg(feature = "bench")]
pub mod connect;
mod convert;
pub mod datagram;
pub(crate) mod escape;
mod inherited;
mod ip_net;
pub mod listener;
pub(crate) mod pages;
mod peer;
pub mod proxy;
#[cfg(any(feature = "cli", all(test, feature = "pktinfo")))]
mod reuse_port;
mod send_room;
mod socket_file;
mod source;
mod staging;
pub mod stream;
#[cfg(feature = "bench")]
pub mod tcp_info;
pub mod trace;
mod traits;

pub use address::{Address, AddressError, Endpoint, HostPort, Resolved, UnixName};
#[cfg(any(feature = "check", all(feature = "bench", feature = "cli")))]
pub(crate) use bind::free_port;
pub use bind::{BindOptions, BoundSocket, bind_all, bind_resolved};
pub use bind_error::BindError;
pub use datagram::DatagramSocket;
pub use inherited::FromFdError;
pub use ip_net::{IpNet, IpNetError};
pub use listener::ListenerSocket;
pub use peer::{Peer, Sender};
#[cfg(feature = "cli")]
pub(crate) use reuse_port::steer_by_source;
pub use socket_file::{FileIdentity, SocketFile};
pub use stream::StreamSocket;
pub use traits::{
    Accepted, BATCH_MAX, DATAGRAM_BYTES_MAX, Datagrams, Listener, Stream, Unanswerable,
};
