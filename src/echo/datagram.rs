//! Datagram echo: one in, one out, nothing kept.
//!
//! There is no connection, so there is no state machine: each datagram is answered whole at once, or dropped and counted
//! with a reason. A datagram of no bytes is a datagram, not an end. Nothing is ever queued: if the socket has no room for
//! an answer, waiting would only mean to answer later what the sender has given up on.

use super::udp_filter::UdpFilter;
use crate::net::accept::{self, AcceptError};
use crate::net::{Datagrams, Unanswerable, trace};
use crate::stats::{DropReason, Stats};
use std::io::{self, ErrorKind};
use std::time::Instant;

/// The largest datagram, in bytes: UDP counts it in 16 bits; a Unix datagram may be as long as the sender's buffer
/// (`net.core.wmem_max`, 208 KiB where nobody changed it).
pub const DATAGRAM_BYTES_MAX: usize = 256 * 1024;

/// Answers what is there, at most `budget` datagrams. Whether the socket is drained.
///
/// # Errors
/// What receiving said, if that does not concern one datagram alone: a budget of errors and no datagram is such a case too.
pub fn echo_datagrams<D: Datagrams>(
    socket: &mut D,
    read_buffer: &mut [u8],
    budget: usize,
    udp_filter: &mut UdpFilter,
    now: Instant,
    stats: &mut Stats,
) -> io::Result<bool> {
    let mut last_error = None;
    for _ in 0..budget {
        match receive_one(socket, read_buffer, stats)? {
            Received::Nothing => return Ok(true),
            Received::Error(error) => last_error = Some(error),
            Received::Datagram(length, path) => {
                last_error = None;
                match echo_one(
                    socket,
                    &read_buffer[..length],
                    length == read_buffer.len(),
                    &path,
                    udp_filter,
                    now,
                ) {
                    Ok(()) => stats.datagrams_out += 1,
                    Err(why) => stats.drop_datagram(why),
                }
            }
        }
    }
    last_error.map_or(Ok(false), Err)
}

/// Drops what is there, at most `budget` datagrams: the server has stopped. Whether nothing is left.
///
/// # Errors
/// As [`echo_datagrams`].
pub fn discard_all<D: Datagrams>(
    socket: &mut D,
    read_buffer: &mut [u8],
    budget: usize,
    stats: &mut Stats,
) -> io::Result<bool> {
    let mut last_error = None;
    for _ in 0..budget {
        match receive_one(socket, read_buffer, stats)? {
            Received::Nothing => return Ok(true),
            Received::Error(error) => last_error = Some(error),
            Received::Datagram(..) => {
                last_error = None;
                stats.drop_datagram(DropReason::Stopping);
            }
        }
    }
    last_error.map_or(Ok(false), Err)
}

/// What one call of receive found.
enum Received<R> {
    Datagram(usize, R),
    Nothing,
    /// An error that says nothing of the next datagram.
    Error(io::Error),
}

/// One call of receive, counted.
fn receive_one<D: Datagrams>(
    socket: &mut D,
    read_buffer: &mut [u8],
    stats: &mut Stats,
) -> io::Result<Received<D::ReplyPath>> {
    match socket.receive(read_buffer) {
        Ok((length, path)) => {
            stats.datagrams_in += 1;
            Ok(Received::Datagram(length, path))
        }
        Err(error) => match accept::judge_receive(&error) {
            AcceptError::WouldBlock => Ok(Received::Nothing),
            verdict => {
                stats.receive_error(&error);
                match verdict {
                    AcceptError::Connection => Ok(Received::Error(error)),
                    _ => Err(error),
                }
            }
        },
    }
}

fn echo_one<D: Datagrams>(
    socket: &mut D,
    datagram: &[u8],
    may_be_cut: bool,
    path: &D::ReplyPath,
    udp_filter: &mut UdpFilter,
    now: Instant,
) -> Result<(), DropReason> {
    let source = D::source(path);
    if log::log_enabled!(target: trace::TARGET, log::Level::Trace) {
        trace::log_received_from(&source, datagram);
    }
    if may_be_cut {
        return Err(DropReason::TooLong);
    }
    D::check(path).map_err(|why| match why {
        Unanswerable::Group => DropReason::Group,
        Unanswerable::NoDestination => DropReason::NoDestination,
        Unanswerable::ForeignSender => DropReason::ForeignSender,
    })?;
    udp_filter.admit(&source, now)?;
    loop {
        match socket.reply(datagram, path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // On Linux ENOBUFS (105) means a full queue of the network card, which is the same to us.
            Err(error)
                if error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(105) =>
            {
                return Err(DropReason::WouldBlock);
            }
            Err(error) => {
                log::debug!("no answer to {source}: {error}");
                return Err(DropReason::Error);
            }
        }
    }
}
