//! One blocking connection: read, write until everything is written, and again.

use crate::limits::Limits;
use crate::net::{BoundSocket, Endpoint, Peer, trace};
use crate::stats::{CloseReason, Stats};
use socket2::SockRef;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A connected socket that blocks. It is read and written through `&Stream`, so that one descriptor serves both the
/// thread that echoes and the thread that stops it; `try_clone` would cost a second descriptor a connection.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Takes the next connection from the accept queue of a listener, and waits for one if the listener is blocking.
    pub(super) fn accept(listener: &BoundSocket) -> io::Result<(Self, Peer)> {
        let (socket, address) = listener.socket.accept()?;
        let stream = match listener.endpoint {
            Endpoint::Tcp(_) => Self::Tcp(socket.into()),
            _ => Self::Unix(socket.into()),
        };
        Ok((stream, Peer::from(&address)))
    }

    /// Sets the socket options that a connection does not inherit from its listener, and returns how many were refused.
    ///
    /// The timeouts are the kernel's own (`SO_RCVTIMEO`, `SO_SNDTIMEO`): a blocked thread needs no timer beside it. They
    /// cannot be inherited from the listener, whose accept(2) would then time out as well.
    pub(super) fn set_options(&self, limits: &Limits) -> u64 {
        let idle = limits.idle_timeout;
        // Half of it, since `write_rest` tries more than once.
        let stall = limits.write_stall_timeout.map(|time| time / 2);
        let results = match self {
            Self::Tcp(stream) => [
                idle.map(|time| stream.set_read_timeout(Some(time))),
                stall.map(|time| stream.set_write_timeout(Some(time))),
                // On Linux TCP_NODELAY is inherited from the listener, which saves this call for every connection.
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

    /// Ends a call that is blocked in this socket: a read (`Shutdown::Read`), or a write too (`Shutdown::Both`).
    pub(super) fn shutdown(&self, how: Shutdown) {
        // It fails where the peer is gone already, and then no call is blocked.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        };
    }

    /// Makes the coming close send RST, and discard the unsent bytes in the kernel.
    pub(super) fn reset_on_close(&self) {
        if let Self::Tcp(stream) = self {
            // It can only fail on a socket that is broken already. A Unix socket needs nothing: its unsent bytes are in
            // the receive queue of the peer, and use the memory of the peer.
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

/// Echoes until the peer sends FIN or an error ends the connection. Bytes that are then unsent are counted in `own`.
///
/// No state is kept between two calls, which is the advantage of blocking: where the event loop needs a write buffer and a
/// phase, this thread is blocked in a call. The price is the thread.
pub(super) fn echo(
    mut stream: impl Read + Write,
    peer: &Peer,
    read_buffer: &mut [u8],
    own: &mut Stats,
) -> CloseReason {
    loop {
        let received = match stream.read(read_buffer) {
            Ok(0) => return CloseReason::PeerClosed, // nothing is unsent: everything read has been written
            Ok(length) => &read_buffer[..length],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // A blocking socket reports this only when its read timeout is over.
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

/// How many calls of write(2) in a row time out before the peer counts as stalled. [`write_rest`] says why not one.
const CALLS_IN_VAIN: u32 = 3;

/// Writes all of `rest`, or returns why the connection ends.
///
/// `write_all` would do the same in one line, but its error does not tell how much was written: the counters would not
/// be consistent, and a slow peer could not be told from one that takes nothing.
///
/// A blocked write(2) is woken when a third of the send buffer is free, on a Unix socket three quarters. When its timeout
/// is over it fails without looking for room, although a slow peer may have made some; the next call finds it at once. So
/// a peer is stalled when [`CALLS_IN_VAIN`] calls, each half the timeout long, wrote no byte. A call that wrote some bytes
/// before it blocked returns those first, so that all of this takes up to twice the timeout.
fn write_rest(
    stream: &mut impl Write,
    mut rest: &[u8],
    own: &mut Stats,
) -> Result<(), CloseReason> {
    let mut in_vain = 0;
    while !rest.is_empty() {
        match stream.write(rest) {
            Ok(0) => return Err(CloseReason::Error), // no socket does that; but a loop that never ends would be worse
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
