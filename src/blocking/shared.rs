//! What the threads share: who is connected, whether we are stopping, and the sum of their counters.
//!
//! All of it lies behind one mutex that is taken when a connection opens and when it closes, never between: an echo
//! touches nothing that another thread writes to. What may live in this file: that mutex, what is waited for with it,
//! and how a stop reaches threads that are blocked. What may not: reading, writing or accepting.

use super::connection::Stream;
use crate::limits::Limits;
use crate::net::BoundSocket;
use crate::stats::{CloseReason, Stats};
use log::warn;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) limits: Limits,
    state: Mutex<State>,
    /// Something that an acceptor may wait for has happened: a connection closed, or we are stopping.
    room: Condvar,
    /// Something that [`Shared::conclude`] waits for has happened. It has a bell of its own, since a thread that sleeps
    /// until the server's last day should not be woken by every connection that closes.
    ending: Condvar,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// The sum of all counters of connections that have ended, and the opening of those that have not.
    stats: Stats,
    /// The most that a single connection unsent at once.
    unsent_bytes_max: u64,
    /// Those who are connected, so that a stop can reach them.
    streams: HashMap<u64, Arc<Stream>>,
    /// Those who accept, for the same reason.
    listeners: Vec<Arc<BoundSocket>>,
    /// How many of them wait for `room`.
    waiting: usize,
    /// When the last warning was written.
    warned: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Finish what is unsent, until then.
    Draining(Instant),
    Aborting,
}

impl Phase {
    /// What a connection's end means in this phase. A thread that was woken by our `shutdown` sees what its peer might
    /// have done: an EOF, or a write that fails. A peer who really did so at that very moment is counted as ours.
    fn judge(self, reason: CloseReason) -> CloseReason {
        match (self, reason) {
            (Self::Draining(_), CloseReason::PeerClosed) => CloseReason::ShutDown,
            (Self::Aborting, CloseReason::PeerClosed | CloseReason::Reset) => CloseReason::Aborted,
            _ => reason,
        }
    }
}

impl Shared {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: Mutex::new(State {
                phase: Phase::Serving,
                stats: Stats::default(),
                unsent_bytes_max: 0,
                streams: HashMap::new(),
                listeners: Vec::new(),
                waiting: 0,
                warned: None,
            }),
            room: Condvar::new(),
            ending: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked with the state open left counters, not broken pointers: the others can go on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stats: all bytes of the connections that have ended, and the number of those that have not.
    pub(super) fn stats(&self) -> Stats {
        let state = self.state();
        let mut stats = state.stats.clone();
        // What all unsent at the same moment nobody can know without sharing it, byte by byte. The most that one unsent,
        // times the most that were there, cannot be less; for one at a time it is exact.
        stats.unsent_bytes_peak = state.unsent_bytes_max * stats.connections_open_peak;
        stats
    }

    // --- The life of a listener -------------------------------------------------------------------------------------

    /// Takes the listeners under the stop's reach. Only while they are used: a [`Handle`](super::Handle) that outlives
    /// the server must not keep its port and its socket file.
    pub(super) fn guard(&self, listeners: &[Arc<BoundSocket>]) {
        let mut state = self.state();
        let errors = listeners.iter().map(|bound| u64::from(bound.option_errors));
        state.stats.option_errors += errors.sum::<u64>();
        if state.phase == Phase::Serving {
            state.listeners = listeners.to_vec();
        }
    }

    /// Waits until there is room for one more connection. `false` means that we are stopping.
    pub(super) fn wait_below_limit(&self) -> bool {
        self.state_below_limit().is_some()
    }

    fn state_below_limit(&self) -> Option<MutexGuard<'_, State>> {
        let mut state = self.state();
        let full = |state: &State| {
            state.phase == Phase::Serving
                && state.stats.connections_open >= self.limits.connections_max as u64
        };
        if full(&state) {
            state.stats.accept_pauses += 1;
            state.waiting += 1;
            state = (self.room.wait_while(state, |state| full(state)))
                .unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        (state.phase == Phase::Serving).then_some(state)
    }

    /// Counts a failed `accept`. `false` means that we are stopping, and that nothing has failed at all.
    pub(super) fn count_accept_error(&self, error: &io::Error) -> bool {
        let mut state = self.state();
        if state.phase != Phase::Serving {
            return false;
        }
        state.stats.accept_error(error);
        true
    }

    /// A pause for want of something: until a connection closes, which may give it back, or `accept_retry` is over.
    pub(super) fn pause(&self) {
        self.pause_for(self.limits.accept_retry);
    }

    /// A pause of this length, or until a connection closes.
    pub(super) fn pause_for(&self, pause: Duration) {
        let mut state = self.state();
        let before = state.stats.closed_total();
        state.stats.accept_pauses += 1;
        state.waiting += 1;
        let (mut state, _) = self
            .room
            .wait_timeout_while(state, pause, |state| {
                state.phase == Phase::Serving && state.stats.closed_total() == before
            })
            .unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
    }

    /// Writes a warning, at most once a second: trouble that repeats itself must not fill the disk as well.
    pub(super) fn warn(&self, text: fmt::Arguments<'_>) {
        let mut state = self.state();
        let recently = |then: Instant| then.elapsed() < Duration::from_secs(1);
        if state.warned.is_some_and(recently) {
            state.stats.log_suppressed += 1;
            return;
        }
        state.warned = Some(Instant::now());
        drop(state); // standard error may be slow, and the others need not wait for it
        warn!("{text}");
    }

    /// A listener broke. The others go on; without any, nobody can come any more, and what is left is drained.
    pub(super) fn lose(&self, listener: &Arc<BoundSocket>) {
        let mut state = self.state();
        state
            .listeners
            .retain(|other| !Arc::ptr_eq(other, listener));
        if state.listeners.is_empty() {
            drop(state);
            self.drain();
        }
    }

    // --- The life of a connection -----------------------------------------------------------------------------------

    /// Enters a new connection, and gives it its number. `None` means that we are stopping: it is then as if it had never left
    /// the kernel's queue.
    ///
    /// Several acceptors may have seen the same last free place. All but one of them wait here, each with a client in
    /// hand who is not served yet; the limit holds, and costs at most one descriptor more for each listener.
    pub(super) fn enter(&self, stream: &Arc<Stream>) -> Option<u64> {
        let mut state = self.state_below_limit()?;
        state.stats.open();
        let number = state.stats.accepted;
        state.streams.insert(number, Arc::clone(stream));
        Some(number)
    }

    /// The one way out: closes the connection, and adds what its thread counted. The thread has dropped its own `Arc`
    /// by now, so that the one in the register is the last.
    pub(super) fn leave(&self, number: u64, reason: CloseReason, mut own: Stats) {
        let mut state = self.state();
        let reason = state.phase.judge(reason);
        let stream = state.streams.remove(&number);
        drop(state);

        if let (Some(stream), CloseReason::Aborted | CloseReason::WriteStall) = (&stream, reason) {
            stream.reset_on_close();
        }
        // Closed before it is counted: whoever waits for room finds a descriptor free.
        drop(stream);

        let mut state = self.state();
        state.unsent_bytes_max = state
            .unsent_bytes_max
            .max(std::mem::take(&mut own.unsent_bytes_peak));
        state.stats.merge(&own);
        state.stats.close(reason, own.unsent_bytes as usize);
        // A bell that nobody listens to still is a system call.
        if state.waiting > 0 {
            self.room.notify_all();
        }
        if state.phase != Phase::Serving && state.stats.connections_open == 0 {
            self.ending.notify_all();
        }
    }

    // --- The end ----------------------------------------------------------------------------------------------------

    /// See [`Handle::drain`](super::Handle::drain).
    pub(super) fn drain(&self) {
        let mut state = self.state();
        if state.phase == Phase::Serving {
            let deadline = Instant::now() + self.limits.drain_timeout;
            self.end(&mut state, Phase::Draining(deadline), Shutdown::Read);
        }
    }

    /// See [`Handle::stop`](super::Handle::stop).
    pub(super) fn stop(&self) {
        let mut state = self.state();
        if state.phase != Phase::Aborting {
            self.end(&mut state, Phase::Aborting, Shutdown::Both);
        }
    }

    fn end(&self, state: &mut State, phase: Phase, how: Shutdown) {
        state.phase = phase;
        for listener in state.listeners.drain(..) {
            // On Linux `accept` then returns EINVAL, in every thread that is in it and in every one that comes.
            let _ = listener.socket.shutdown(Shutdown::Both);
        }
        for stream in state.streams.values() {
            stream.shutdown(how);
        }
        self.room.notify_all();
        self.ending.notify_all();
    }

    /// Waits until somebody ends the server, and then until everybody has left; cuts those who have not by the deadline.
    pub(super) fn conclude(&self) {
        let mut state = self
            .ending
            .wait_while(self.state(), |state| state.phase == Phase::Serving)
            .unwrap_or_else(PoisonError::into_inner);
        if let Phase::Draining(deadline) = state.phase {
            let left = deadline.saturating_duration_since(Instant::now());
            (state, _) = self
                .ending
                .wait_timeout_while(state, left, |state| {
                    state.phase != Phase::Aborting && state.stats.connections_open > 0
                })
                .unwrap_or_else(PoisonError::into_inner);
            if state.phase != Phase::Aborting {
                self.end(&mut state, Phase::Aborting, Shutdown::Both);
            }
        }
    }
}
