//! The end of a connection that the server closes: wait for the peer's FIN.
//!
//! The server has sent its FIN, and the peer may not have read all echoes yet. Closing a socket with unread bytes sends a
//! RST, which can overtake them. So bytes that still arrive are read and discarded until the peer's FIN, or until
//! [`Limits::fin_timeout`](crate::Limits::fin_timeout) has passed.

use super::outcome::{Outcome, Wait};
use crate::net::Stream;
use crate::stats::{CloseReason, Stats};
use std::io;
use std::io::ErrorKind::{Interrupted, WouldBlock};

/// Reads and discards until the peer's FIN, until the socket would block, or until `budget` bytes are read.
#[cold]
pub(super) fn discard_until_fin(
    stream: &mut impl Stream,
    read_buffer: &mut [u8],
    mut budget: usize,
    stats: &mut Stats,
) -> io::Result<Outcome> {
    while budget > 0 {
        match stream.read(read_buffer) {
            Ok(0) => return Ok(Outcome::Done(CloseReason::ShutDown)),
            Ok(count) => {
                stats.bytes_in += count as u64;
                stats.discarded += count as u64;
                budget = budget.saturating_sub(count);
            }
            Err(error) if error.kind() == WouldBlock => return Ok(Outcome::Wait(Wait::Lingering)),
            Err(error) if error.kind() == Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Outcome::Yield)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::StreamSocket;
    use mio::net::UnixStream;
    use std::io::Write;

    #[test]
    fn the_budget_bounds_what_is_discarded_at_once() {
        let (stream, mut peer) = UnixStream::pair().unwrap();
        peer.write_all(b"1234567890").unwrap();
        let (mut stream, mut stats) = (StreamSocket::Unix(stream), Stats::default());
        let mut discard = |stats: &mut Stats| {
            let outcome = discard_until_fin(&mut stream, &mut [0; 4], 8, stats);
            (outcome.unwrap(), stats.discarded)
        };
        assert_eq!(discard(&mut stats), (Outcome::Yield, 8));
        assert_eq!(discard(&mut stats), (Outcome::Wait(Wait::Lingering), 10));
        drop(peer);
        assert_eq!(
            discard(&mut stats),
            (Outcome::Done(CloseReason::ShutDown), 10)
        );
        assert_eq!((stats.bytes_in, stats.bytes_out), (10, 0));
    }
}
