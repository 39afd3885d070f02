//! One listener of a blocking server: how its thread takes connections from the accept queue, and how a stop reaches it.

use super::connection::Stream;
use crate::net::{BoundSocket, Peer};
use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A listener, with one thread that accepts from it.
#[derive(Debug)]
pub(super) struct Acceptor {
    pub(super) bound: BoundSocket,
    /// Whether the thread may be blocked in accept(2). Set before the call and cleared after it; never set again once
    /// [`Acceptor::wake`] has been called.
    may_block: AtomicBool,
    /// Connections that `wake` took from the queue.
    taken: Mutex<VecDeque<(Stream, Peer)>>,
}

impl Acceptor {
    pub(super) fn new(bound: BoundSocket) -> Self {
        Self {
            bound,
            may_block: AtomicBool::new(false),
            taken: Mutex::default(),
        }
    }

    /// Announces a call of [`Acceptor::accept`] that may block.
    pub(super) fn will_block(&self) {
        self.may_block.store(true, Ordering::SeqCst);
    }

    /// Takes the next connection from the accept queue. It waits for one until [`Acceptor::wake`] has been called; from
    /// then on an empty queue is an error: `EAGAIN`, or `EINVAL` if the listener had to be shut down.
    ///
    /// # Errors
    /// Those of accept(2).
    pub(super) fn accept(&self) -> io::Result<(Stream, Peer)> {
        if let Some(connection) = self.taken().pop_front() {
            return Ok(connection);
        }
        let accepted = Stream::accept(&self.bound);
        self.may_block.store(false, Ordering::SeqCst);
        // `wake` may have emptied the queue first. It takes nothing more now that the flag is cleared.
        accepted.or_else(|error| self.taken().pop_front().ok_or(error))
    }

    /// Makes the listener non-blocking, and ends an accept(2) that is blocked in it, without losing a queued connection.
    ///
    /// shutdown(2) wakes the thread, but at a TCP listener it also resets every queued connection. It is therefore called
    /// only while the thread may be in the call and the queue is empty. If the queue is not empty, the kernel has woken the
    /// thread already; connections that are taken here before the thread runs are kept for it.
    pub(super) fn wake(&self) {
        let is_set = self.bound.socket.set_nonblocking(true).is_ok();
        let mut taken = self.taken();
        while self.may_block.load(Ordering::SeqCst) {
            let accepted = match is_set {
                true => Stream::accept(&self.bound),
                false => Err(io::ErrorKind::Unsupported.into()), // the call here would block as well
            };
            match accepted {
                Ok(connection) => taken.push_back(connection),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    let _ = self.bound.socket.shutdown(Shutdown::Both);
                    return;
                }
            }
        }
    }

    fn taken(&self) -> MutexGuard<'_, VecDeque<(Stream, Peer)>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
