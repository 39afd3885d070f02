//! What the clients of a worker share, and use one at a time: the clock, the text that is sent, the read buffer, the
//! number of requests that may still be sent, and the record.

use super::message::Final;
use super::payload::Pattern;
use super::plan::{Mode, Plan};
use super::recorder::Recorder;
use super::schedule::Clock;
use crate::net::pages::{self, Pages};
use crate::net::proxy::Version;

/// Size of the one buffer for all reads: what large requests need, and more than small ones ever fill.
pub(super) const READ_BUFFER_BYTES: usize = 256 * 1024;

/// What the clients of a worker share.
#[derive(Debug)]
pub(super) struct WorkerContext {
    clock: Clock,
    /// The clock as it was read last.
    now: u64,
    pattern: Pattern,
    /// The one buffer that everything is read into.
    read_buffer: Pages,
    /// Bytes of a request.
    size: usize,
    /// Whether an answer is the sign for the next request: a closed loop that is running.
    again: bool,
    /// Requests that may still be sent, if they are numbered.
    remaining: Option<u64>,
    /// The version of the PROXY header of each connection.
    proxy: Option<Version>,
    recorder: Recorder,
}

impl WorkerContext {
    pub(super) fn new(plan: &Plan) -> Self {
        let read_buffer = READ_BUFFER_BYTES.max(plan.size.min(1 << 16) + 1);
        Self {
            clock: Clock::start(),
            now: 0,
            pattern: Pattern::new(plan.seed, read_buffer),
            read_buffer: pages::zeroed(read_buffer),
            size: plan.size,
            again: false,
            remaining: None,
            proxy: plan.proxy,
            recorder: Recorder::new(matches!(plan.mode, Mode::Open { .. })),
        }
    }

    // ---- the clock ----

    /// Reads the clock.
    #[inline]
    pub(super) fn read_clock(&mut self) -> u64 {
        self.now = self.clock.now();
        self.now
    }

    /// The clock as it was read last.
    #[inline]
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// A time of the monotonic clock of this machine as one of this clock.
    pub(super) fn at(&self, monotonic_ns: u64) -> u64 {
        self.clock.at(monotonic_ns)
    }

    // ---- bytes ----

    /// Bytes of a request.
    #[inline]
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Where the text of a connection begins.
    pub(super) fn origin(&self, connection: u32) -> u64 {
        self.pattern.origin(u64::from(connection))
    }

    /// What stands at a position of the text that begins at `origin`, no longer than the read buffer.
    #[inline]
    pub(super) fn text(&self, origin: u64, position: u64, length: usize) -> &[u8] {
        self.pattern.slice(origin, position, length)
    }

    #[inline]
    pub(super) fn read_buffer(&self) -> &[u8] {
        &self.read_buffer
    }

    #[inline]
    pub(super) fn read_buffer_mut(&mut self) -> &mut [u8] {
        &mut self.read_buffer
    }

    /// Puts a header and the text behind it into the read buffer, as one request.
    pub(super) fn compose(&mut self, header: &[u8], origin: u64, position: u64) -> &[u8] {
        let (head, body) = self.read_buffer[..self.size].split_at_mut(header.len());
        head.copy_from_slice(header);
        body.copy_from_slice(self.pattern.slice(origin, position, body.len()));
        &self.read_buffer[..self.size]
    }

    /// The version of the PROXY header that each connection begins with.
    pub(super) fn proxy(&self) -> Option<Version> {
        self.proxy
    }

    // ---- requests ----

    /// Sets the number of requests that may be sent; `None` is without end.
    pub(super) fn limit_requests(&mut self, requests: Option<u64>) {
        self.remaining = requests;
    }

    /// Whether all requests were sent that may be.
    #[inline]
    pub(super) fn is_exhausted(&self) -> bool {
        self.remaining == Some(0)
    }

    /// Takes a number of requests off those that may be sent.
    pub(super) fn forgo(&mut self, requests: u64) {
        if let Some(remaining) = &mut self.remaining {
            *remaining = remaining.saturating_sub(requests);
        }
    }

    /// Whether one more request may be planned; then it is one less that may.
    #[inline]
    pub(super) fn may_plan(&mut self) -> bool {
        match &mut self.remaining {
            Some(0) => return false,
            Some(remaining) => *remaining -= 1,
            None => {}
        }
        true
    }

    /// Whether one more request may be sent; then it is counted as sent.
    #[inline]
    pub(super) fn may_send(&mut self) -> bool {
        let may = self.may_plan();
        self.recorder.counters_mut().sent += u64::from(may);
        may
    }

    /// Whether an answer is the sign for the next request.
    #[inline]
    pub(super) fn sends_again(&self) -> bool {
        self.again
    }

    pub(super) fn send_again(&mut self, again: bool) {
        self.again = again;
    }

    #[inline]
    pub(super) fn recorder(&mut self) -> &mut Recorder {
        &mut self.recorder
    }

    /// The record to look at.
    #[inline]
    pub(super) fn record(&self) -> &Recorder {
        &self.recorder
    }

    /// What is known at the end of the run, as far as it is recorded.
    pub(super) fn into_final(self) -> Final {
        self.recorder.into_final()
    }
}
