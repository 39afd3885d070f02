//! The server as a composition of its parts.

use super::accept::Acceptor;
use super::backend::{Backend, Os};
use super::core::Core;
use super::datagram::DatagramEcho;
use super::handle::Control;
use super::shutdown::Shutdown;

/// An echo server on one thread. [`Server::bind`] makes one; [`run`](Server::run) serves until it has stopped, and
/// [`turn`](Server::turn) serves for one turn of the loop.
///
/// The server can be sent to another thread before it runs. [`Server::handle`] gives out what other threads may call. Its
/// parameter is for the tests' simulated network (unpromised); programs leave it at its default, the operating system.
///
/// # Dropping
///
/// Dropping a server closes every socket, and removes the files of its Unix sockets unless another file has taken their
/// place. It sends nothing that is unsent: close(2) then sends RST to a connection with unread input, which may destroy its
/// last echoes. [`Server::drain`], and turns until [`Turn::Finished`](super::Turn::Finished), end every connection in order. A [`Handle`](super::Handle)
/// may outlive the server; its commands do nothing then.
///
/// # Logging
///
/// What is logged under which target stands on [the page of the crate](crate#what-is-logged).
#[derive(Debug)]
pub struct Server<B: Backend = Os> {
    /// Dropped first, with the socket files in it: a file whose socket is closed looks like that of a process that has
    /// crashed, and a new server might replace it just before it is removed here.
    pub(super) acceptor: Acceptor,
    pub(super) datagrams: DatagramEcho<B>,
    pub(super) shutdown: Shutdown,
    pub(super) control: Control,
    pub(super) core: Core<B>,
}
