//! Datagram echo: one in, one out, nothing kept.
//!
//! There is no connection, so there is no state machine: each datagram is answered whole at once, or dropped and counted
//! with a reason. A datagram of no bytes is a datagram, not an end. Nothing is ever queued: if the socket has no room for
//! an answer, waiting would only mean to answer later what the sender has given up on.

use super::guard::Guard;
use crate::net::{Datagrams, wire};
use crate::stats::{Dropped, Stats};
use std::io::{self, ErrorKind};
use std::time::Instant;

/// The largest datagram, in bytes: UDP counts it in 16 bits; a Unix datagram may be as long as the sender's buffer
/// (`net.core.wmem_max`, 208 KiB where nobody changed it).
pub const DATAGRAM_BYTES_MAX: usize = 256 * 1024;

/// Answers what is there, at most `budget` datagrams. Whether the socket is drained.
///
/// # Errors
/// What receiving said, if that will not pass.
pub fn answer_all<D: Datagrams>(
    socket: &mut D,
    scratch: &mut [u8],
    budget: usize,
    guard: &mut Guard,
    now: Instant,
    stats: &mut Stats,
) -> io::Result<bool> {
    let budget = if planted!("udp-without-budget") {
        usize::MAX
    } else {
        budget
    };
    for _ in 0..budget {
        match socket.receive(scratch) {
            Ok((0, _)) if planted!("udp-zero-is-eof") => return Ok(true),
            Ok((length, route)) => {
                stats.datagrams_in += 1;
                match answer_one(
                    socket,
                    &scratch[..length],
                    length == scratch.len(),
                    &route,
                    guard,
                    now,
                ) {
                    Ok(()) => stats.datagrams_out += 1,
                    Err(why) => stats.drop_datagram(why),
                }
                if planted!("udp-once") {
                    return Ok(true);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) if is_passing(&error) && !planted!("udp-error-closes-door") => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Reads what is there, at most `budget` datagrams, and drops it: the server is stopping, and its time is over. Whether
/// the socket is drained.
///
/// # Errors
/// What receiving said, if that will not pass.
pub fn discard_all<D: Datagrams>(
    socket: &mut D,
    scratch: &mut [u8],
    budget: usize,
    stats: &mut Stats,
) -> io::Result<bool> {
    for _ in 0..budget {
        match socket.receive(scratch) {
            Ok(_) => {
                stats.datagrams_in += 1;
                stats.drop_datagram(Dropped::Stopping);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

fn answer_one<D: Datagrams>(
    socket: &mut D,
    datagram: &[u8],
    may_be_cut: bool,
    route: &D::Route,
    guard: &mut Guard,
    now: Instant,
) -> Result<(), Dropped> {
    let source = D::source(route);
    if log::log_enabled!(target: wire::TARGET, log::Level::Trace) {
        wire::received_from(&source, datagram);
    }
    if may_be_cut {
        return Err(Dropped::TooLong);
    }
    guard.admit(&source, now)?;
    loop {
        match socket.answer(datagram, route) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // On Linux ENOBUFS (105) means a full queue of the network card, which is the same to us.
            Err(error)
                if error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(105) =>
            {
                return Err(Dropped::WouldBlock);
            }
            Err(error) => {
                log::debug!("no answer to {source}: {error}");
                return Err(Dropped::Error);
            }
        }
    }
}

/// Errors of an answer that was sent earlier (its receiver was not there) are told by the next receive. They say nothing
/// about this datagram or about our socket.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Interrupted
            | ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::PermissionDenied
            | ErrorKind::OutOfMemory
    )
}
