//! Waking a reactor from another thread.

use super::key::WAKE;
use std::io;
use std::sync::Arc;

/// Handle that ends the wait of a reactor from another thread. What the caller should then look at is not its business.
#[derive(Clone, Debug)]
pub struct Waker(Arc<mio::Waker>);

impl Waker {
    pub(super) fn new(registry: &mio::Registry) -> io::Result<Self> {
        Ok(Self(Arc::new(mio::Waker::new(registry, WAKE)?)))
    }

    /// Ends the present wait of the reactor, or its next one.
    ///
    /// # Errors
    /// Those of write(2) on an eventfd, which has no reason to fail.
    pub fn wake(&self) -> io::Result<()> {
        self.0.wake()
    }
}
