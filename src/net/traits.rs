//! The sockets as the server knows them: a stream, a listener and a datagram socket.

use super::peer::{Peer, Sender};
use std::fmt;
use std::io::{self, Read, Write};

/// A connected, non-blocking stream of bytes: `read` and `write` do what they can at once or say `WouldBlock`.
///
/// Unpromised: it may change in any release.
pub trait Stream: Read + Write {
    /// Whether a short read means that the socket is empty, so that later bytes raise a new edge.
    ///
    /// epoll(7) says so of streams, and it holds for TCP (except for urgent data, which the event reports). It does not
    /// hold for Unix streams: a read ends early at a message that carries descriptors, although more bytes follow.
    fn short_read_means_empty(&self) -> bool;

    /// Returns how many bytes the next write takes at once, as far as the kernel knows beforehand; 0 if it does not say.
    fn send_room(&self) -> usize;

    /// Sends FIN after everything that has been written: `shutdown(2)` with `SHUT_WR`.
    ///
    /// # Errors
    /// Those of shutdown(2); `NotConnected` if the peer is gone already.
    fn shutdown_write(&self) -> io::Result<()>;

    /// Makes the coming close send RST, and discard the unsent bytes in the kernel.
    fn reset_on_close(&self);

    /// Returns the address of the other end, for the log. A peer that is gone has no address any more.
    fn peer(&self) -> Peer;
}

/// A listening socket, from whose accept queue streams are taken.
///
/// Unpromised: it may change in any release.
pub trait Listener {
    /// The type of an accepted stream.
    type Stream: Stream;

    /// Takes the next connection from the accept queue.
    ///
    /// # Errors
    /// Those of accept(2), unchanged; `WouldBlock` if the queue is empty.
    fn accept(&mut self) -> io::Result<Accepted<Self::Stream>>;
}

/// A stream that has just been accepted.
///
/// Unpromised: it may change in any release.
#[derive(Debug)]
pub struct Accepted<S> {
    /// The connection.
    pub stream: S,
    /// The address of the client.
    pub peer: Peer,
    /// How many of its socket options could not be set. The connection can be served without them.
    pub option_errors: u32,
}

/// The size of the part of a receive buffer that one datagram has, in bytes: no datagram is larger. UDP has 16 bits for the
/// length; a Unix datagram may be as long as the sender's send buffer (`net.core.wmem_max`, 208 KiB by default).
///
/// Unpromised: it may change in any release.
pub const DATAGRAM_BYTES_MAX: usize = 256 * 1024;

/// The number of those parts: how many datagrams one system call reads at most.
///
/// Unpromised: it may change in any release.
pub const BATCH_MAX: usize = 8;

/// A bound datagram socket.
///
/// Unpromised: it may change in any release.
pub trait Datagrams {
    /// What an answer needs: the sender of a datagram, and the local address that it was sent to.
    type ReplyPath: Clone + fmt::Debug + Send + Sync;

    /// Reads one datagram, and returns its length and the path of an answer.
    ///
    /// # Errors
    /// Those of recvmsg(2); `WouldBlock` if there is none.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Self::ReplyPath)>;

    /// Reads up to `count` datagrams, in the order of the queue, each into a part of `buffer` that is [`DATAGRAM_BYTES_MAX`]
    /// long, and appends their lengths and reply paths to `received`. Reads one where no call reads several.
    ///
    /// # Errors
    /// Those of [`receive`](Self::receive), of the first datagram. An error of a later one is reported by the next call.
    fn receive_several(
        &mut self,
        buffer: &mut [u8],
        count: usize,
        received: &mut Vec<(usize, Self::ReplyPath)>,
    ) -> io::Result<()> {
        let _ = count;
        received.push(self.receive(&mut buffer[..DATAGRAM_BYTES_MAX])?);
        Ok(())
    }

    /// Sends an answer along the path.
    ///
    /// # Errors
    /// Those of sendmsg(2); `WouldBlock` if the send buffer is full.
    fn reply(&mut self, datagram: &[u8], path: &Self::ReplyPath) -> io::Result<()>;

    /// Returns the sender of the datagram that the path answers.
    fn sender(path: &Self::ReplyPath) -> Sender<'_>;

    /// Checks that an answer along this path reaches the sender, and no other socket.
    ///
    /// # Errors
    /// Why it would not, or might not.
    fn check(_: &Self::ReplyPath) -> Result<(), Unanswerable> {
        Ok(())
    }
}

/// Why a datagram cannot be answered, as far as the socket itself can tell.
///
/// Unpromised: it may change in any release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswerable {
    /// It was sent to a broadcast or multicast address.
    Group,
    /// The local address that it was sent to is not known, so the answer might leave from a different one.
    NoDestination,
    /// Its sender is a process of another user, and the sender's name may lead to a socket of a third process.
    ForeignSender,
    /// It could be answered, and is dropped on purpose.
    Injected,
}
