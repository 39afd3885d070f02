//! The write buffer: bytes that were read and are not sent yet.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! Almost every connection has nothing unsent almost all of the time, so an empty write buffer is one null pointer. It is
//! filled when a write takes less than was read, and freed when its last byte is sent. It never grows, since nothing is read
//! while it is not empty; so it is at most one read long.

mod bytes;

use bytes::Bytes;
use std::io;

/// The unsent bytes of one connection.
#[derive(Debug, Default)]
pub struct WriteBuffer(Option<Box<Unsent>>);

#[derive(Debug)]
struct Unsent {
    bytes: Bytes,
    /// How many of the bytes are sent already. Moving this mark is cheaper than moving the bytes.
    sent: usize,
}

impl WriteBuffer {
    /// Whether nothing is unsent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The bytes that are unsent.
    #[must_use]
    pub fn remaining(&self) -> &[u8] {
        match &self.0 {
            Some(unsent) => &unsent.bytes[unsent.sent..],
            None => &[],
        }
    }

    /// Stores a copy of these bytes. The buffer must be empty.
    ///
    /// # Errors
    /// There is no memory for them; the buffer is still empty then.
    pub fn store(&mut self, bytes: &[u8]) -> io::Result<()> {
        debug_assert!(self.is_empty(), "no read while bytes are unsent");
        if bytes.is_empty() {
            return Ok(());
        }
        let bytes = Bytes::copy(bytes)?;
        self.0 = Some(Box::new(Unsent { bytes, sent: 0 }));
        Ok(())
    }

    /// Removes the first `count` of the unsent bytes, which are sent. With the last one the memory is freed.
    pub fn consume(&mut self, count: usize) {
        if let Some(unsent) = &mut self.0 {
            unsent.sent += count;
            if unsent.sent >= unsent.bytes.len() {
                self.0 = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_sent_in_order_and_then_the_buffer_owns_nothing() {
        let mut buffer = WriteBuffer::default();
        assert!(buffer.is_empty());
        buffer.store(b"hello").unwrap();
        buffer.consume(2);
        assert_eq!(buffer.remaining(), b"llo");
        buffer.consume(3);
        assert!(buffer.is_empty());
        assert_eq!(size_of::<WriteBuffer>(), size_of::<usize>());
    }

    #[test]
    fn a_long_rest_is_kept_like_a_short_one() {
        let bytes: Vec<u8> = (0..70_000_u32).map(|place| (place / 251) as u8).collect();
        for length in [1, 4_095, 4_096, 65_536, 70_000] {
            let mut buffer = WriteBuffer::default();
            buffer.store(&bytes[..length]).unwrap();
            assert_eq!(buffer.remaining(), &bytes[..length]);
            buffer.consume(length / 2);
            assert_eq!(buffer.remaining(), &bytes[length / 2..length]);
            buffer.consume(length - length / 2);
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn storing_nothing_leaves_the_buffer_empty() {
        let mut buffer = WriteBuffer::default();
        buffer.store(b"").unwrap();
        assert!(buffer.is_empty());
    }
}
