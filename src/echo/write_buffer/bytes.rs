//! The memory of a write buffer: allocated, or with the feature `return-memory` mapped.
//!
//! After a burst of slow readers the memory has to be given back to the system, which an allocator does not ensure: glibc
//! keeps 64 MB of freed write buffers for ever if one small allocation above them is still in use. So, with that feature, a
//! long rest is a mapping of its own, which the system takes back at once. That costs two system calls for each short write,
//! and nothing for all other writes. (A pool would save those calls, and would have to guess when to give memory back.)

use std::io;
use std::ops::Deref;

/// A shorter rest is allocated (bytes): a mapping is at least one page.
#[cfg(feature = "return-memory")]
const MAPPED_FROM_BYTES: usize = 4096;

/// Bytes that are allocated, or mapped.
#[derive(Debug)]
pub(super) enum Bytes {
    Allocated(Vec<u8>),
    #[cfg(feature = "return-memory")]
    Mapped(memmap2::MmapMut),
}

impl Bytes {
    /// A copy of these bytes.
    ///
    /// # Errors
    /// There is no memory for them.
    pub(super) fn copy(bytes: &[u8]) -> io::Result<Self> {
        #[cfg(feature = "return-memory")]
        if bytes.len() >= MAPPED_FROM_BYTES {
            // This fails where there are too many mappings already (`vm.max_map_count`); the allocator may still have room.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_copied_whether_mapped_or_allocated() {
        for length in [1, 4_095, 4_096, 70_000] {
            let bytes: Vec<u8> = (0..length).map(|place| (place % 251) as u8).collect();
            let copy = Bytes::copy(&bytes).unwrap();
            assert_eq!(&copy[..], bytes);
            #[cfg(feature = "return-memory")]
            assert_eq!(
                matches!(copy, Bytes::Mapped(_)),
                length >= MAPPED_FROM_BYTES
            );
        }
    }
}
