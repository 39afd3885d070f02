//! What the threads share: the open connections, the phase of the server, and the sum of the counters.
//!
//! All of it lies behind one mutex that is taken when a connection opens and when it closes, never between: an echo
//! touches nothing that another thread writes to.

use super::acceptor::Acceptor;
use super::connection::Stream;
use crate::limits::Limits;
use crate::stats::{CloseReason, RejectReason, Stats};
use log::warn;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The state of a server that all its threads and handles refer to.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) limits: Limits,
    state: Mutex<State>,
    /// Signalled when an acceptor may go on: a connection closed, or the phase changed.
    room: Condvar,
    /// Signalled when [`Shared::conclude`] may go on. It is a condition variable of its own, so that the thread that waits
    /// for the end of the server is not woken by every connection that closes.
    ending: Condvar,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// The counters of all closed connections, and `accepted` and `connections_open` of those that are open.
    stats: Stats,
    /// The most unsent bytes that a single connection has had.
    unsent_bytes_max: u64,
    /// The open connections by number, so that a stop can shut them down.
    streams: HashMap<u64, Arc<Stream>>,
    /// The listeners whose accept queues are still read, so that a stop can wake their threads.
    acceptors: Vec<Arc<Acceptor>>,
    /// How many acceptors wait for `room`.
    waiting: usize,
    /// When the last warning was written.
    warned: Option<Instant>,
}

impl State {
    fn is_done(&self) -> bool {
        self.stats.connections_open == 0 && self.acceptors.is_empty()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Serve what is connected and queued, until this time.
    Draining(Instant),
    Aborting,
}

impl Phase {
    /// Which reason a connection's end is counted under in this phase. A thread that our own `shutdown` woke sees what its
    /// peer might have caused: EOF, or a write that fails. If the peer did cause it at that moment, it is still counted as
    /// ours.
    fn judge(self, reason: CloseReason) -> CloseReason {
        match (self, reason) {
            (Self::Draining(_), CloseReason::PeerClosed) => CloseReason::ShutDown,
            (Self::Aborting, CloseReason::PeerClosed | CloseReason::Reset) => CloseReason::Aborted,
            _ => reason,
        }
    }
}

/// What an acceptor does next after accept(2) failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AcceptPhase {
    /// The error is one of the listener, the connection or the system.
    Serving,
    /// The same, except that an empty queue and a listener that was shut down mean the end of the queue.
    Draining,
    /// The error does not matter.
    Aborting,
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
                acceptors: Vec::new(),
                waiting: 0,
                warned: None,
            }),
            room: Condvar::new(),
            ending: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked with the lock held left wrong counters at worst, so the other threads can go on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counters: the bytes of all closed connections, and the number of open ones.
    pub(super) fn stats(&self) -> Stats {
        let state = self.state();
        let mut stats = state.stats.clone();
        // The sum of unsent bytes at one moment cannot be known without sharing it at every echo. The largest value of a
        // single connection, times the largest number of connections, is an upper bound; it is exact for `Iterative`.
        stats.unsent_bytes_peak = state.unsent_bytes_max * stats.connections_open_peak;
        stats
    }

    // --- The life of a listener -------------------------------------------------------------------------------------

    /// Registers the listeners, so that a stop can wake their threads.
    pub(super) fn add_acceptors(&self, acceptors: &[Arc<Acceptor>]) {
        let mut state = self.state();
        let errors = (acceptors.iter()).map(|one| u64::from(one.bound.option_errors));
        state.stats.option_errors += errors.sum::<u64>();
        state.acceptors = acceptors.to_vec();
        if state.phase != Phase::Serving {
            acceptors.iter().for_each(|one| one.wake());
        }
    }

    /// Forgets every listener. A [`Handle`](super::Handle) that outlives the server must keep neither its port nor its
    /// socket file.
    pub(super) fn clear_acceptors(&self) {
        self.state().acceptors.clear();
    }

    /// Forgets a listener whose queue is not read any more. If it was the last one, no client can connect, and the server
    /// drains.
    pub(super) fn remove_acceptor(&self, acceptor: &Arc<Acceptor>) {
        let mut state = self.state();
        (state.acceptors).retain(|other| !Arc::ptr_eq(other, acceptor));
        if state.phase != Phase::Serving {
            self.ending.notify_all();
        } else if state.acceptors.is_empty() {
            drop(state);
            self.drain();
        }
    }

    /// Waits until there is room for one more connection. `false` means that no more are to be served.
    pub(super) fn may_accept(&self, acceptor: &Acceptor) -> bool {
        let Some(state) = self.state_below_limit() else {
            return false;
        };
        if state.phase == Phase::Serving {
            acceptor.will_block(); // with the lock held, so that a stop that comes next knows
        }
        true
    }

    fn state_below_limit(&self) -> Option<MutexGuard<'_, State>> {
        let mut state = self.state();
        let full = |state: &State| {
            state.phase != Phase::Aborting
                && state.stats.connections_open >= self.limits.connections_max as u64
        };
        if full(&state) {
            state.stats.accept_pauses += 1;
            state.waiting += 1;
            state = (self.room.wait_while(state, |state| full(state)))
                .unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        (state.phase != Phase::Aborting).then_some(state)
    }

    /// Counts an accept(2) that failed, unless the failure is how a stop ends the queue.
    pub(super) fn count_accept_error(&self, error: &io::Error, is_end: bool) -> AcceptPhase {
        let mut state = self.state();
        let phase = match state.phase {
            Phase::Serving => AcceptPhase::Serving,
            Phase::Draining(_) => AcceptPhase::Draining,
            Phase::Aborting => AcceptPhase::Aborting,
        };
        if phase == AcceptPhase::Serving || (phase == AcceptPhase::Draining && !is_end) {
            state.stats.accept_error(error);
        }
        phase
    }

    /// Pauses an acceptor for want of a resource: until a connection closes, which may free it, or `accept_retry` is over.
    pub(super) fn pause(&self) {
        self.pause_for(self.limits.accept_retry);
    }

    /// Pauses an acceptor for this time, or until a connection closes or the phase changes.
    pub(super) fn pause_for(&self, pause: Duration) {
        let mut state = self.state();
        let before = (state.phase, state.stats.closed_total());
        state.stats.accept_pauses += 1;
        state.waiting += 1;
        let (mut state, _) = self
            .room
            .wait_timeout_while(state, pause, |state| {
                (state.phase, state.stats.closed_total()) == before
            })
            .unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
    }

    /// Writes a warning, at most once a second: an error that repeats itself must not fill the disk as well.
    pub(super) fn warn(&self, text: fmt::Arguments<'_>) {
        let mut state = self.state();
        let recently = |then: Instant| then.elapsed() < Duration::from_secs(1);
        if state.warned.is_some_and(recently) {
            state.stats.log_suppressed += 1;
            return;
        }
        state.warned = Some(Instant::now());
        drop(state); // standard error may be slow, and no other thread has to wait for it
        warn!("{text}");
    }

    // --- The life of a connection -----------------------------------------------------------------------------------

    /// Registers a new connection, and returns its number. `None` means that no more connections are to be served.
    ///
    /// Several acceptors may have found the same last place below the limit. All but one of them wait here, each with an
    /// accepted connection that is not served yet; the limit holds, and costs at most one descriptor more a listener.
    pub(super) fn open(&self, stream: &Arc<Stream>) -> Option<u64> {
        let mut state = self.state_below_limit()?;
        state.stats.open();
        let number = state.stats.accepted;
        state.streams.insert(number, Arc::clone(stream));
        if state.phase != Phase::Serving {
            stream.shutdown(Shutdown::Read); // as `drain` did with those that were open
        }
        Some(number)
    }

    /// Resets a connection that was still in the accept queue when the time for stopping was over, and counts it.
    pub(super) fn reject(&self, stream: &Stream) {
        stream.reset_on_close();
        self.state().stats.reject(RejectReason::Stopping);
    }

    /// Closes a connection, and adds what its thread counted: every connection ends here. The thread has dropped its own
    /// `Arc` by now, so that the registered one is the last.
    pub(super) fn close(&self, number: u64, reason: CloseReason, mut own: Stats) {
        let mut state = self.state();
        let reason = state.phase.judge(reason);
        let stream = state.streams.remove(&number);
        drop(state);

        if let (Some(stream), CloseReason::Aborted | CloseReason::WriteStall) = (&stream, reason) {
            stream.reset_on_close();
        }
        // Closed before it is counted: an acceptor that waits for room then finds a free descriptor.
        drop(stream);

        let mut state = self.state();
        state.unsent_bytes_max = state
            .unsent_bytes_max
            .max(std::mem::take(&mut own.unsent_bytes_peak));
        state.stats.merge(&own);
        state.stats.close(reason, own.unsent_bytes as usize);
        // Signalling is a system call, even if no thread waits.
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
        // With the lock held: an acceptor that sees the new phase finds its listener non-blocking.
        state.acceptors.iter().for_each(|one| one.wake());
        for stream in state.streams.values() {
            stream.shutdown(how);
        }
        self.room.notify_all();
        self.ending.notify_all();
    }

    /// Waits until the server is told to end, and then until every queue is read and every connection closed; aborts what
    /// is left at the deadline.
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
                    state.phase != Phase::Aborting && !state.is_done()
                })
                .unwrap_or_else(PoisonError::into_inner);
            if state.phase != Phase::Aborting {
                self.end(&mut state, Phase::Aborting, Shutdown::Both);
            }
        }
    }

    /// Whether queued connections are to be reset. If so, it waits until the open ones are closed, since accept(2) takes a
    /// descriptor, even if only to reset the connection.
    pub(super) fn must_reject_queued(&self) -> bool {
        const CLOSED_AFTER: Duration = Duration::from_secs(1);
        let mut state = self.state();
        if state.phase != Phase::Aborting {
            return false;
        }
        state.waiting += 1;
        let (mut state, _) = self
            .room
            .wait_timeout_while(state, CLOSED_AFTER, |state| {
                state.stats.connections_open > 0
            })
            .unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        true
    }
}
