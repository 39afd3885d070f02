//! Memory that streams are read into.
//!
//! With the feature `return-memory` it is a mapping of its own (mmap(2)), and so begins at a page. An allocator returns an
//! address 16 bytes behind one, and to and from there the kernel copies 64 KiB by up to a tenth more slowly.

/// Bytes that begin at a page, if the feature is there.
#[cfg(feature = "return-memory")]
pub(crate) type Pages = memmap2::MmapMut;
/// Bytes that begin at a page, if the feature is there.
#[cfg(not(feature = "return-memory"))]
pub(crate) type Pages = Box<[u8]>;

/// So many bytes, at least one, all of them zero. Without memory for them the process ends, as with any allocation.
#[cfg(feature = "return-memory")]
pub(crate) fn zeroed(length: usize) -> Pages {
    use std::alloc::{Layout, handle_alloc_error};
    memmap2::MmapMut::map_anon(length).unwrap_or_else(|_| handle_alloc_error(Layout::new::<u8>()))
}

/// So many bytes, all of them zero. Without memory for them the process ends, as with any allocation.
#[cfg(not(feature = "return-memory"))]
pub(crate) fn zeroed(length: usize) -> Pages {
    vec![0; length].into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_zero_and_begins_at_a_page_with_the_feature() {
        for length in [1, 1_000, 64 << 10, 260 << 10] {
            let bytes = zeroed(length);
            assert!(bytes.len() == length && bytes.iter().all(|&byte| byte == 0));
            let is_aligned = bytes.as_ptr().align_offset(4096) == 0;
            assert!(is_aligned || cfg!(not(feature = "return-memory")));
        }
    }
}
