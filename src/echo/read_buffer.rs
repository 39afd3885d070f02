//! The read buffer: one for all streams of a server.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! One is enough: the bytes are written back, or stored in the write buffer of their connection, before the next read.
//!
//! A long read saves system calls and wake-ups where much comes at once, but all that it has read may stay unsent. So a read
//! is usually as long as a slow reader may cost, [`Limits::read_buffer_bytes`]: a *first read*. After one that was full, and
//! that the send buffer took whole, the next takes the rest of the budget at once, and so do the turns after it while much
//! comes; but each time only if the send buffer has room for so much. The kernel says that beforehand
//! ([`Stream::send_room`]), so that what a long read has read is sent by one write.

use crate::limits::Limits;
use crate::net::Stream;
use crate::net::pages::{self, Pages};
use crate::stats::Stats;
use std::ops::{Deref, DerefMut};

/// Longest read (bytes): that of the default budget. A longer one only evicts from the cache what the write needs next.
pub const LONG_READ_BYTES_MAX: usize = 260 * 1024;

/// The buffer that every stream is read into, in two parts. As a slice it is the part for a first read.
#[derive(Debug)]
pub struct ReadBuffer {
    pub(super) first: Pages,
    /// For long reads, and as long as the longest. Memory that nothing is read into is not provided by the kernel.
    long: Pages,
    /// Whether a connection may have more unsent than a first read, since a write took less than there was room for.
    is_overdrawn: bool,
}

impl ReadBuffer {
    /// A buffer for the reads of a server with these limits.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let long = limits.read_budget_bytes.min(LONG_READ_BYTES_MAX);
        Self {
            first: pages::zeroed(limits.read_buffer_bytes),
            long: pages::zeroed(long),
            is_overdrawn: false,
        }
    }

    /// Returns the part for the next read of a connection that has nothing unsent, and so much of its budget left. It is long
    /// if the last read was full, and if as much can be sent at once.
    #[cold]
    pub(super) fn next(
        &mut self,
        was_full: bool,
        stream: &impl Stream,
        budget: usize,
        stats: &Stats,
    ) -> &mut [u8] {
        self.is_overdrawn &= stats.unsent_bytes > 0;
        let length = budget.min(self.long.len());
        let may_be_long = was_full && length > self.first.len() && !self.is_overdrawn;
        if may_be_long && stream.send_room() >= length {
            &mut self.long[..length]
        } else {
            &mut self.first
        }
    }

    /// Notes that a write was short, and left so many bytes unsent. A kernel that is out of memory takes less than there is
    /// room for. Then no long read follows until nothing is unsent, so that only one connection has more than its share.
    #[cold]
    pub(super) fn note_unsent(&mut self, unsent: usize) {
        self.is_overdrawn |= unsent > self.first.len();
    }
}

impl Deref for ReadBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.first
    }
}

impl DerefMut for ReadBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Peer;
    use std::io::{self, Read, Write};

    /// A stream of which this is known: how much the next write takes.
    struct Room(usize);

    impl Read for Room {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            unreachable!("only its room is asked for")
        }
    }

    impl Write for Room {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            unreachable!("only its room is asked for")
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Stream for Room {
        fn short_read_means_empty(&self) -> bool {
            true
        }

        fn send_room(&self) -> usize {
            self.0
        }

        fn shutdown_write(&self) -> io::Result<()> {
            Ok(())
        }

        fn reset_on_close(&self) {}

        fn peer(&self) -> Peer {
            Peer::Unnamed
        }
    }

    fn buffer(first: usize, budget: usize) -> ReadBuffer {
        ReadBuffer::new(&Limits::default().with(|limits| {
            limits.read_buffer_bytes = first;
            limits.read_budget_bytes = budget;
        }))
    }

    #[test]
    fn a_read_is_long_after_a_full_one_if_all_of_it_can_be_sent() {
        let mut buffer = buffer(10, 100);
        let stats = Stats::default();
        let mut length = |was_full, room, budget| {
            let part = buffer.next(was_full, &Room(room), budget, &stats);
            part.len()
        };
        assert_eq!(length(true, 90, 90), 90);
        assert_eq!(length(true, 89, 90), 10);
        assert_eq!(length(false, 1_000, 90), 10);
        assert_eq!(length(true, 1_000, 1_000), 100);
        assert_eq!(length(true, 1_000, 5), 10);
    }

    #[test]
    fn the_longest_read_does_not_grow_with_the_budget() {
        let mut buffer = buffer(10, usize::MAX);
        let part = buffer.next(true, &Room(usize::MAX), usize::MAX, &Stats::default());
        assert_eq!(part.len(), LONG_READ_BYTES_MAX);
    }

    /// One connection has more than its share at most.
    #[test]
    fn after_a_write_that_took_less_than_there_was_room_for_reads_are_short_until_all_is_sent() {
        let mut buffer = buffer(10, 100);
        let mut stats = Stats::default();
        let mut length = |unsent: usize, stats: &Stats| {
            if unsent > 0 {
                buffer.note_unsent(unsent);
            }
            buffer.next(true, &Room(1_000), 100, stats).len()
        };
        stats.store_unsent(10);
        assert_eq!(length(10, &stats), 100, "no more than a first read");
        stats.store_unsent(90);
        assert_eq!(length(90, &stats), 10);
        stats.flush_unsent(99);
        assert_eq!(length(0, &stats), 10);
        stats.flush_unsent(1);
        assert_eq!(length(0, &stats), 100);
    }
}
