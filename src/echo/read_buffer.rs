//! The read buffer: one for all streams of a server.
//!
//! One is enough: the bytes are written back, or stored in the write buffer of their connection, before the next read.
//!
//! A long read saves system calls where much comes at once, and all that it has read may stay unsent. So a read takes up to
//! [`Limits::bulk_read_bytes`] only while the server has less than that unsent, and [`Limits::read_buffer_bytes`] otherwise.
//! What connections have beyond the latter is then less than two bulk reads in all, however many they are.

use crate::limits::Limits;
use crate::net::pages::{self, Pages};
use crate::stats::Stats;

#[derive(Debug)]
pub(super) struct ReadBuffer {
    /// As long as the longest read.
    bytes: Pages,
    /// Length of a read that is bounded by `read_buffer_bytes`.
    bounded: usize,
}

impl ReadBuffer {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            bytes: pages::zeroed(limits.longest_read()),
            bounded: limits.read_buffer_bytes,
        }
    }

    /// The part for a read that may stay unsent whatever the rest of the server has.
    pub(super) fn bounded(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.bounded]
    }

    /// The part for the next read.
    #[inline(always)]
    pub(super) fn next(&mut self, stats: &Stats) -> &mut [u8] {
        if stats.unsent_bytes < self.bytes.len() as u64 {
            return &mut self.bytes;
        }
        self.bounded()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(read: usize, bulk: usize, budget: usize, unsent: usize) -> (usize, usize) {
        let mut buffer = ReadBuffer::new(&Limits {
            read_buffer_bytes: read,
            bulk_read_bytes: bulk,
            read_budget_bytes: budget,
            ..Limits::default()
        });
        let mut stats = Stats::default();
        stats.store_unsent(unsent);
        (buffer.bounded().len(), buffer.next(&stats).len())
    }

    #[test]
    fn a_read_is_long_while_less_than_it_is_unsent() {
        assert_eq!(lengths(10, 100, 200, 0), (10, 100));
        assert_eq!(lengths(10, 100, 200, 99), (10, 100));
        assert_eq!(lengths(10, 100, 200, 100), (10, 10));
    }

    #[test]
    fn a_long_read_is_within_the_budget_of_a_turn_and_can_be_switched_off() {
        assert_eq!(lengths(10, 100, 50, 0), (10, 50));
        assert_eq!(lengths(10, 100, 5, 0), (10, 10));
        assert_eq!(lengths(10, 1, 200, 0), (10, 10));
    }
}
