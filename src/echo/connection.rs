//! One connection: a state machine that reads, writes, and tells what it waits for next.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! ```text
//!                      ┌─────── nothing left to read ──────┐
//!                      ▼                                   │
//!   accepted ──▶ Wait(Reading) ── bytes ──▶ read, write ───┤
//!                      ▲                        │ short write: the send buffer is full
//!                      │ all is sent            ▼
//!                      └───────────────── Wait(Writing)      FIN, and nothing unsent ──▶ Done(PeerClosed)
//! ```
//!
//! - **Nothing is read while bytes are unsent.** So memory is bounded by one read for each connection, a FIN can only
//!   be read when nothing is unsent, and a connection waits either to read or to write, never for both.
//! - **A socket is read until it would block**, since an edge is reported once; or until the budget of the turn is spent,
//!   and then the connection yields.
//! - **A connection does not know the reactor.** So tests drive it with a scripted socket through every order of events.
//!
//! For the optimiser: `#[cold]` keeps slow peers out of the code of an echo.

use super::linger::discard_until_fin;
use super::outcome::Phase;
pub use super::outcome::{Outcome, Wait};
use super::read_buffer::ReadBuffer;
use super::write_buffer::WriteBuffer;
use crate::net::{Stream, trace};
use crate::reactor::Readiness;
use crate::stats::{CloseReason, Stats};
use std::io;
use std::io::ErrorKind::{Interrupted, WouldBlock};

/// A connection, with its stream and the bytes that are not sent yet.
#[derive(Debug)]
pub struct Connection<S> {
    pub(super) stream: S,
    pub(super) write_buffer: WriteBuffer,
    pub(super) phase: Phase,
}

impl<S: Stream> Connection<S> {
    /// A connection that has just been accepted.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            write_buffer: WriteBuffer::default(),
            phase: Phase::Open,
        }
    }

    /// Sends what is unsent, then reads and echoes until the socket would block, a write is short, or `budget` bytes are
    /// read. `read_buffer` is not used after the call.
    #[inline(always)]
    pub fn advance(
        &mut self,
        readiness: Readiness,
        read_buffer: &mut ReadBuffer,
        budget: usize,
        stats: &mut Stats,
    ) -> Outcome {
        match self.try_advance(readiness, read_buffer, budget, stats) {
            Ok(outcome) => outcome,
            Err(error) => {
                log::debug!("{} ends: {error}", self.stream.peer());
                Outcome::Done(CloseReason::from(&error))
            }
        }
    }

    #[inline(always)]
    fn try_advance(
        &mut self,
        readiness: Readiness,
        read_buffer: &mut ReadBuffer,
        budget: usize,
        stats: &mut Stats,
    ) -> io::Result<Outcome> {
        if !self.write_buffer.is_empty() {
            if !self.flush(stats)? {
                return Ok(Outcome::Wait(Wait::Writing));
            }
            if matches!(self.phase, Phase::Open | Phase::Streaming) {
                // No read yet: with the change to Reading the kernel reports what is there already, a FIN included.
                return Ok(Outcome::Wait(Wait::Reading));
            }
        }
        match self.phase {
            Phase::Open => self.echo_all(true, false, readiness, read_buffer, budget, stats),
            Phase::Streaming => self.stream_on(readiness, read_buffer, budget, stats),
            Phase::Header => Ok(Outcome::ReadHeader),
            Phase::Answering | Phase::LastAnswers => Ok(Outcome::Answer),
            Phase::Closing | Phase::Lingering => {
                if self.phase == Phase::Closing {
                    self.stream.shutdown_write()?;
                    self.phase = Phase::Lingering;
                }
                discard_until_fin(&mut self.stream, read_buffer, budget, stats)
            }
        }
    }

    /// Reads and writes back until the socket would block, a write is short, or the budget is spent. Nothing is unsent yet;
    /// `nothing_yet` says that nothing was read since the event either, and `was_full` that the last turn ended with a full
    /// read.
    #[inline(always)]
    pub(super) fn echo_all(
        &mut self,
        mut nothing_yet: bool,
        was_full: bool,
        readiness: Readiness,
        read_buffer: &mut ReadBuffer,
        mut budget: usize,
        stats: &mut Stats,
    ) -> io::Result<Outcome> {
        let mut buffer = match was_full {
            false => &mut read_buffer.first[..],
            true => read_buffer.next(true, &self.stream, budget, stats),
        };
        loop {
            let count = match self.stream.read(buffer) {
                Ok(0) => return Ok(Outcome::Done(CloseReason::PeerClosed)),
                Ok(count) => count,
                Err(error) if error.kind() == WouldBlock => {
                    stats.spurious_events += u64::from(nothing_yet);
                    return Ok(Outcome::KeepReading);
                }
                Err(error) if error.kind() == Interrupted => continue,
                Err(error) => return Err(error),
            };
            nothing_yet = false;
            if !self.write_back(&buffer[..count], stats)? {
                read_buffer.note_unsent(self.unsent_bytes());
                return Ok(Outcome::Wait(Wait::Writing));
            }
            // A short read has emptied the socket, and saves the read that would block; but only if the event told of bytes
            // alone. Data and FIN often come as one edge, and after it the FIN is not reported again.
            if count < buffer.len()
                && readiness == Readiness::Normal
                && self.stream.short_read_means_empty()
            {
                return Ok(Outcome::KeepReading);
            }
            let is_full = count == buffer.len();
            if is_full {
                self.phase = Phase::Streaming;
            }
            budget = budget.saturating_sub(count);
            if budget == 0 {
                return Ok(Outcome::Yield);
            }
            buffer = read_buffer.next(is_full, &self.stream, budget, stats);
        }
    }

    /// Writes back what was just read. Returns whether the send buffer took all of it; the rest goes to the write buffer.
    #[inline(always)]
    pub(super) fn write_back(&mut self, bytes: &[u8], stats: &mut Stats) -> io::Result<bool> {
        stats.bytes_in += bytes.len() as u64;
        trace::log_received(&self.stream, bytes);
        // One write: a short one has filled the send buffer, and a second one would block.
        let sent = match write_some(&mut self.stream, bytes) {
            Ok(sent) => sent,
            Err(error) => {
                stats.discarded += bytes.len() as u64;
                return Err(error);
            }
        };
        stats.bytes_out += sent as u64;
        let rest = &bytes[sent..];
        if rest.is_empty() {
            return Ok(true);
        }
        self.store_unsent(rest, stats)?;
        Ok(false)
    }

    /// Sends unsent bytes. Returns whether none is left.
    #[cold]
    fn flush(&mut self, stats: &mut Stats) -> io::Result<bool> {
        let sent = write_some(&mut self.stream, self.write_buffer.remaining())?;
        self.write_buffer.consume(sent);
        stats.flush_unsent(sent);
        Ok(self.write_buffer.is_empty())
    }
}

/// Writes once, again only after a signal. Returns how many bytes were taken, 0 if the write would block.
#[inline]
pub(super) fn write_some(stream: &mut impl Stream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match stream.write(bytes) {
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == WouldBlock => return Ok(0),
            Err(error) if error.kind() == Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
