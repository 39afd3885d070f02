//! One blocking connection: read, write until it is all written, again.
//!
//! What may live in this file: the socket of a connection, the loop that echoes it, and what its errors mean. What may
//! not: who else is connected, and when to stop (`shared` knows both).

use crate::limits::Limits;
use crate::net::{BoundSocket, Endpoint, Peer, trace};
use crate::stats::{CloseReason, Stats};
use socket2::SockRef;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A connected socket that blocks. It is read and written through `&Stream`, so that one descriptor serves both the
/// thread that echoes and whoever wants to wake it; `try_clone` would cost a second descriptor for each connection.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Waits for the next connection of a listener.
    pub(super) fn accept(listener: &BoundSocket) -> io::Result<(Self, Peer)> {
        let (socket, address) = listener.socket.accept()?;
        let stream = match listener.endpoint {
            Endpoint::Tcp(_) => Self::Tcp(socket.into()),
            _ => Self::Unix(socket.into()),
        };
        Ok((stream, Peer::from(&address)))
    }

    /// Sets what a connection does not inherit from its listener, and returns how many of these options were refused.
    ///
    /// The timeouts are the kernel's own (`SO_RCVTIMEO`, `SO_SNDTIMEO`): a thread that blocks needs no timer beside it.
    /// They cannot be left to the listener, whose `accept` would then time out as well.
    pub(super) fn set_options(&self, limits: &Limits) -> u64 {
        let idle = limits.idle_timeout;
        // Half of it, since `pay` tries more than once.
        let stall = limits.write_stall_timeout.map(|time| time / 2);
        let results = match self {
            Self::Tcp(stream) => [
                idle.map(|time| stream.set_read_timeout(Some(time))),
                stall.map(|time| stream.set_write_timeout(Some(time))),
                // Linux hands TCP_NODELAY down from the listener, which saves this call for every connection.
                (!cfg!(target_os = "linux")).then(|| stream.set_nodelay(true)),
                None,
            ],
            Self::Unix(stream) => [
                idle.map(|time| stream.set_read_timeout(Some(time))),
                stall.map(|time| stream.set_write_timeout(Some(time))),
                // Unix sockets inherit no buffers.
                (limits.send_buffer_bytes)
                    .map(|bytes| SockRef::from(stream).set_send_buffer_size(bytes)),
                (limits.receive_buffer_bytes)
                    .map(|bytes| SockRef::from(stream).set_recv_buffer_size(bytes)),
            ],
        };
        results
            .iter()
            .flatten()
            .map(|result| u64::from(result.is_err()))
            .sum()
    }

    /// Wakes whoever blocks in a read (`Shutdown::Read`) or in anything (`Shutdown::Both`).
    pub(super) fn shutdown(&self, how: Shutdown) {
        // It fails where the peer is gone already, and then the thread is awake without us.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        };
    }

    /// Makes the coming close a reset, which takes the unsent bytes in the kernel with it.
    pub(super) fn reset_on_close(&self) {
        if let Self::Tcp(stream) = self {
            // It can only fail on a socket that is broken already. A Unix socket needs nothing: its unsent bytes sit in
            // the peer's queue, and cost the peer.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).read(buffer),
            Stream::Unix(stream) => (&mut &*stream).read(buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).write(bytes),
            Stream::Unix(stream) => (&mut &*stream).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // a socket has no buffer on our side
    }
}

/// Echoes until the peer has said FIN or something ends it. What is still unsent then stands in `own`.
///
/// There is no state to keep between two calls, which is the charm of blocking: where the event loop needs a tail and a
/// phase, this thread simply stands still. The price is the thread.
pub(super) fn echo(
    mut stream: impl Read + Write,
    peer: &Peer,
    read_buffer: &mut [u8],
    own: &mut Stats,
) -> CloseReason {
    loop {
        let received = match stream.read(read_buffer) {
            Ok(0) => return CloseReason::PeerClosed, // and nothing is unsent: we came here by writing everything
            Ok(length) => &read_buffer[..length],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // A blocking socket says so only when its read timeout is over.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return CloseReason::Idle,
            Err(error) => return CloseReason::from(&error),
        };
        own.bytes_in += received.len() as u64;
        own.store_unsent(received.len());
        trace::log_received_from(peer, received);
        if let Err(reason) = write_rest(&mut stream, received, own) {
            return reason;
        }
    }
}

/// See [`pay`].
const CALLS_IN_VAIN: u32 = 3;

/// Writes all of `rest`, or says why not.
///
/// `write_all` would do the same in one line, but when it fails it does not tell how much had gone: the counters could not
/// balance, and a slow peer could not be told from one that takes nothing.
///
/// A call that waits is woken when a third of the send buffer is free, on a Unix socket three quarters, and when its time
/// is over it does not look whether there is room: a peer that takes little at a time has then taken something all the
/// same. The next call knows at once. So a peer is stalled when [`CALLS_IN_VAIN`] calls, each half the timeout long, moved
/// no byte; and since a call that moved some before it got stuck returns those first, that takes up to twice the timeout.
fn write_rest(
    stream: &mut impl Write,
    mut rest: &[u8],
    own: &mut Stats,
) -> Result<(), CloseReason> {
    let mut in_vain = 0;
    while !rest.is_empty() {
        match stream.write(rest) {
            Ok(0) => return Err(CloseReason::Error), // no socket does that; but to try for ever would be worse than to give up
            Ok(length) => {
                own.flush_unsent(length);
                rest = &rest[length..];
                in_vain = 0;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                in_vain += 1;
                if in_vain == CALLS_IN_VAIN {
                    return Err(CloseReason::WriteStall);
                }
            }
            Err(error) => return Err(CloseReason::from(&error)),
        }
    }
    Ok(())
}
