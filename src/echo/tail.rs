//! The tail: bytes read and not yet sent.
//!
//! Almost every connection has none almost all of the time, so none is what it costs: one empty pointer. A tail appears
//! when a write takes less than was read, and goes when its last byte is sent. It never grows, since nothing is read
//! while it is there; so it is at most one scratch long.

use std::collections::TryReserveError;

/// See the page above. Empty, it is one null pointer and owns nothing.
#[derive(Debug, Default)]
pub struct Tail(Option<Box<Owed>>);

#[derive(Debug)]
struct Owed {
    bytes: Vec<u8>,
    /// How many of the bytes are sent already. Moving a mark is cheaper than moving the bytes.
    sent: usize,
}

impl Tail {
    /// Whether nothing is owed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// How many bytes are owed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.unsent().len()
    }

    /// The bytes that are owed.
    #[must_use]
    pub fn unsent(&self) -> &[u8] {
        match &self.0 {
            Some(owed) if planted!("write-offset") => &owed.bytes[..owed.bytes.len() - owed.sent],
            Some(owed) => &owed.bytes[owed.sent..],
            None => &[],
        }
    }

    /// Remembers bytes. There must be none yet.
    ///
    /// # Errors
    /// That there is no memory for them, upon which nothing has changed.
    pub fn keep(&mut self, bytes: &[u8]) -> Result<(), TryReserveError> {
        if planted!("unbounded-tail")
            && let Some(owed) = &mut self.0
        {
            owed.bytes.extend_from_slice(bytes);
            return Ok(());
        }
        debug_assert!(
            self.is_empty(),
            "nothing may be read while something is owed"
        );
        let mut copy = Vec::new();
        copy.try_reserve_exact(bytes.len())?;
        copy.extend_from_slice(bytes);
        self.0 = (!copy.is_empty()).then(|| {
            Box::new(Owed {
                bytes: copy,
                sent: 0,
            })
        });
        Ok(())
    }

    /// Notes that the first `count` of the unsent bytes are sent; with the last one the memory goes too.
    pub fn sent(&mut self, count: usize) {
        if let Some(owed) = &mut self.0 {
            owed.sent += count;
            if owed.sent >= owed.bytes.len() {
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
        let mut tail = Tail::default();
        assert!(tail.is_empty());
        tail.keep(b"hello").unwrap();
        tail.sent(2);
        assert_eq!((tail.unsent(), tail.len()), (&b"llo"[..], 3));
        tail.sent(3);
        assert!(tail.is_empty());
        assert_eq!(size_of::<Tail>(), size_of::<usize>());
    }

    #[test]
    fn keeping_nothing_owes_nothing() {
        let mut tail = Tail::default();
        tail.keep(b"").unwrap();
        assert!(tail.is_empty());
    }
}
