//! A reactor beside other event sources: wakers, external sources, and an outer event loop.

use super::Reactor;
use super::selector::{ExternalSource, Selector, Source};
use super::waker::Waker;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

impl<S: Source> Reactor<S> {
    /// Returns a handle that wakes this reactor from another thread.
    pub fn waker(&self) -> Waker {
        self.selector.waker()
    }

    /// Watches an external source, such as a pipe that a signal handler writes to: [`Reactor::wait`] returns `true` when
    /// one becomes readable. It does not say which one: the caller looks at all of them.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn watch(&self, source: &mut dyn ExternalSource) -> io::Result<()> {
        self.selector.watch(source)
    }
}

impl<S: Source<P::Registry>, P: Selector> Reactor<S, P> {
    /// Returns whether an outer event loop may watch this reactor's descriptor, and needs [`Reactor::announce`].
    #[inline]
    pub fn is_watched(&self) -> bool {
        self.selector.is_watched()
    }

    /// Makes the descriptor readable when the next turn is due: after this time, or at once if the last wait did not empty
    /// the ready list, since an outer loop that waits for edges is not told of the rest.
    pub fn announce(&mut self, due: Option<Duration>) {
        let due = if self.is_unreported {
            Some(Duration::ZERO)
        } else {
            due
        };
        if let Some(due) = due {
            self.selector.announce(due);
        }
    }
}

/// Descriptor of the epoll instance, which is readable while its ready list is not empty (epoll(7)).
impl<S> AsFd for Reactor<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.selector.as_fd()
    }
}

/// The same descriptor, as a number.
impl<S> AsRawFd for Reactor<S> {
    fn as_raw_fd(&self) -> RawFd {
        self.selector.as_fd().as_raw_fd()
    }
}
