//! The echo server on the reactor: it decides whose bytes go where, and what is refused.
//!
//! How a socket is read is the business of [`net`](crate::net), which socket is ready that of the
//! [`reactor`](crate::reactor). Four rules:
//!
//! - **An error ends one connection.** An error of a listener pauses that listener. Only an error of the wait itself ends
//!   [`Server::run`], since nothing can be served after it.
//! - **Every connection is closed in one place** (`connections::close_connection`), with a reason that is counted.
//! - **A limit slows, it does not refuse**, unless it is configured to. Connections above the limit wait in the accept queue.
//! - **Every source has a budget for each turn**, and is queued again when it is spent. So no source starves the rest.
//!
//! # Parts
//!
//! [`Server`] is composed of parts. Each part owns its fields, and works on the `Core` that is lent to it for a call.
//!
//! | part | owns |
//! |---|---|
//! | `Core` | the reactor, the limits, the counters, the read buffer, the alarm |
//! | `Acceptor` | listeners, addresses and socket files; the accept gate; admission; PROXY headers and requests that are not whole |
//! | `DatagramEcho` | the receive buffer, the UDP filter |
//! | `Shutdown` | the phase, and the error that began it |
//! | `Control` | the command of another thread |
//!
//! In reading order: `server` (the loop), [`connection`], [`read_buffer`], [`write_buffer`]; `handlers`; `outcome`, `connections`,
//! `linger`; `core`, [`backend`], [`decision`]; `accept`, [`accept_gate`], `listeners`, [`backoff`], [`admission`], `proxied`, `answers`;
//! [`datagram`], [`udp_filter`]; `phase`, `shutdown`; `handle`, `parts`, `embed`, `setup`; `log_limit`. Imports go one way: `server`,
//! `handlers`, `setup` and `embed` import `parts`, which imports the parts, and these import `core`.

mod accept;
pub mod accept_gate;
pub mod admission;
mod answers;
pub mod backend;
pub mod backoff;
pub mod connection;
mod connections;
mod core;
pub mod datagram;
pub mod decision;
mod embed;
mod handle;
mod handlers;
mod linger;
mod listeners;
mod log_limit;
mod outcome;
mod parts;
mod phase;
mod proxied;
pub mod read_buffer;
mod server;
mod setup;
mod shutdown;
pub mod udp_filter;
pub mod write_buffer;

pub use admission::AccessList;
#[cfg(any(test, feature = "cli"))]
pub(crate) use answers::{REQUEST_BYTES_MAX, Responder};
pub use backend::{Backend, Native, Os};
pub use handle::Handle;
pub use outcome::Turn;
pub use parts::Server;
pub use proxied::{DirectPolicy, ProxyProtocol};
pub use setup::{Config, StartError};
