//! The tail: bytes read and not yet sent.
//!
//! Almost every connection has none almost all of the time, so none is what it costs: one empty pointer. A tail appears
//! when a write takes less than was read, and goes when its last byte is sent. It never grows, since nothing is read
//! while it is there; so it is at most one read_buffer long.
//!
//! After a burst of slow readers the memory has to go back to the system, and an allocator does not see to that: glibc
//! keeps 64 MB of freed tails for ever if one small thing above them is still in use. So, with the feature `return-memory`, a
//! long tail is a mapping of its own, which the system takes back at once. That costs two system calls for each write that a
//! slow reader did not take, and nothing for all others. (A pool of our own would save those, and have to guess when to
//! give back.)

use std::io;
use std::ops::Deref;

/// Below this a tail is not worth a mapping (bytes): a page is the least that the system gives.
#[cfg(feature = "return-memory")]
const MAPPED_FROM: usize = 4096;

/// See the page above. Empty, it is one null pointer and owns nothing.
#[derive(Debug, Default)]
pub struct WriteBuffer(Option<Box<Unsent>>);

#[derive(Debug)]
struct Unsent {
    bytes: Bytes,
    /// How many of the bytes are sent already. Moving a mark is cheaper than moving the bytes.
    sent: usize,
}

#[derive(Debug)]
enum Bytes {
    Allocated(Vec<u8>),
    #[cfg(feature = "return-memory")]
    Mapped(memmap2::MmapMut),
}

impl Bytes {
    fn copy(bytes: &[u8]) -> io::Result<Self> {
        #[cfg(feature = "return-memory")]
        if bytes.len() >= MAPPED_FROM {
            // It fails where there are too many mappings already (`vm.max_map_count`); the allocator may still do.
            if let Ok(mut map) = memmap2::MmapMut::map_anon(bytes.len()) {
                map.copy_from_slice(bytes);
                return Ok(Self::Mapped(map));
            }
        }
        let mut copy = Vec::new();
        copy.try_reserve_exact(bytes.len())?;
        copy.extend_from_slice(bytes);
        Ok(Self::Allocated(copy))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Allocated(bytes) => bytes,
            #[cfg(feature = "return-memory")]
            Self::Mapped(bytes) => bytes,
        }
    }
}

impl WriteBuffer {
    /// Whether nothing is unsent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// How many bytes are unsent.
    #[must_use]
    pub fn len(&self) -> usize {
        self.remaining().len()
    }

    /// The bytes that are unsent.
    #[must_use]
    pub fn remaining(&self) -> &[u8] {
        match &self.0 {
            Some(unsent) => &unsent.bytes[unsent.sent..],
            None => &[],
        }
    }

    /// Remembers bytes. There must be none yet.
    ///
    /// # Errors
    /// That there is no memory for them, upon which nothing has changed.
    pub fn store(&mut self, bytes: &[u8]) -> io::Result<()> {
        debug_assert!(
            self.is_empty(),
            "nothing may be read while something is unsent"
        );
        if bytes.is_empty() {
            return Ok(());
        }
        let bytes = Bytes::copy(bytes)?;
        self.0 = Some(Box::new(Unsent { bytes, sent: 0 }));
        Ok(())
    }

    /// Notes that the first `count` of the unsent bytes are sent; with the last one the memory goes too.
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
    fn a_tail_pays_in_order_and_then_owns_nothing() {
        let mut buffer = WriteBuffer::default();
        assert!(buffer.is_empty());
        buffer.store(b"hello").unwrap();
        buffer.consume(2);
        assert_eq!((buffer.remaining(), buffer.len()), (&b"llo"[..], 3));
        buffer.consume(3);
        assert!(buffer.is_empty());
        assert_eq!(size_of::<WriteBuffer>(), size_of::<usize>());
    }

    #[test]
    fn a_long_tail_is_kept_like_a_short_one() {
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
    fn keeping_nothing_owes_nothing() {
        let mut buffer = WriteBuffer::default();
        buffer.store(b"").unwrap();
        assert!(buffer.is_empty());
    }
}
