//! One connection: a small state machine that reads, writes, and says what it waits for next.
//!
//! ```text
//!                      ┌────── nothing left to read ──────┐
//!                      ▼                                   │
//!   accepted ──▶ Wait(Reading) ── bytes ──▶ read, write ───┤
//!                      ▲                        │ the peer takes less than it sent
//!                      │ all is sent            ▼
//!                      └───────────────── Wait(Writing)      FIN, and nothing unsent ──▶ Done(Finished)
//! ```
//!
//! Two rules hold it together. **Never read while a tail remains**: then memory is bounded by one read_buffer, FIN can only
//! be seen when nothing is unsent, and "what do I wait for?" has one answer at any time. **An edge is drained**: reading
//! goes on until the socket is empty, or the turn's budget is (and then it says so).
//!
//! What may live in this file: bytes from a [`Stream`] and back to it. What may not: registering, deadlines, other
//! connections; it does not know that there is a reactor. That is why the tests can drive it with a scripted socket
//! through every order of events.

use super::write_buffer::WriteBuffer;
use crate::net::{Stream, trace};
use crate::reactor::Readiness;
use crate::stats::{CloseReason, Stats};
use std::io::{self, ErrorKind};

/// See the page above.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    write_buffer: WriteBuffer,
    phase: Phase,
}

/// How far a connection has come with saying goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It has not begun.
    Open,
    /// We mean to end it as soon as nothing is unsent.
    Closing,
    /// We have said FIN. What still arrives is thrown away until the peer says FIN too: closing with unread input
    /// would send a reset, and that can overtake the last echoes.
    Lingering,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The peer's next bytes. Nothing is unsent.
    Reading,
    /// Room for bytes that are unsent.
    Writing,
    /// The peer's FIN, after ours.
    Lingering,
}

/// What [`Connection::advance`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All that was there is echoed, and there is nothing to arrange: it was waiting for bytes, and goes on to.
    KeepReading,
    /// Wait for this from now on.
    Wait(Wait),
    /// The budget is spent and the socket is not drained: come back in the next turn.
    Yield,
    /// It is over.
    Done(CloseReason),
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

    /// Does what can be done at once: pays what is unsent, then reads and echoes until the socket is empty, the peer takes
    /// no more, or `budget` bytes are read. `read_buffer` is lent for the time of the call.
    pub fn advance(
        &mut self,
        readiness: Readiness,
        read_buffer: &mut [u8],
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

    fn try_advance(
        &mut self,
        readiness: Readiness,
        read_buffer: &mut [u8],
        budget: usize,
        stats: &mut Stats,
    ) -> io::Result<Outcome> {
        if !self.write_buffer.is_empty() {
            if !self.flush(stats)? {
                return Ok(Outcome::Wait(Wait::Writing));
            }
            if self.phase == Phase::Open {
                // Only now do we ask for bytes again, and the kernel reports those that are there already, FIN included.
                return Ok(Outcome::Wait(Wait::Reading));
            }
        }
        match self.phase {
            Phase::Open => self.echo_all(readiness, read_buffer, budget, stats),
            Phase::Closing | Phase::Lingering => self.discard_until_fin(read_buffer, budget, stats),
        }
    }

    /// Reads and echoes until the socket is empty, the peer takes no more, or the budget is spent. Nothing is unsent yet.
    fn echo_all(
        &mut self,
        readiness: Readiness,
        read_buffer: &mut [u8],
        mut budget: usize,
        stats: &mut Stats,
    ) -> io::Result<Outcome> {
        let mut nothing_yet = true;
        loop {
            let count = match self.stream.read(read_buffer) {
                Ok(0) => return Ok(Outcome::Done(CloseReason::PeerClosed)),
                Ok(count) => count,
                Err(error) if would_block(&error) => {
                    stats.spurious_events += u64::from(nothing_yet);
                    return Ok(Outcome::KeepReading);
                }
                Err(error) if interrupted(&error) => continue,
                Err(error) => return Err(error),
            };
            nothing_yet = false;
            if !self.write_back(&read_buffer[..count], stats)? {
                return Ok(Outcome::Wait(Wait::Writing));
            }
            // A short read has emptied the socket, unless there is more than plain bytes: data and FIN often come as
            // one edge, and whoever stops at the data never hears of the end.
            if count < read_buffer.len()
                && readiness == Readiness::Normal
                && self.stream.short_read_means_empty()
            {
                return Ok(Outcome::KeepReading);
            }
            budget = budget.saturating_sub(count);
            if budget == 0 {
                return Ok(Outcome::Yield);
            }
        }
    }

    /// Says FIN, and then reads to throw away until the peer has said it too.
    #[cold] // keeps it out of the way of the echo
    fn discard_until_fin(
        &mut self,
        read_buffer: &mut [u8],
        mut budget: usize,
        stats: &mut Stats,
    ) -> io::Result<Outcome> {
        if self.phase == Phase::Closing {
            self.stream.shutdown_write()?;
            self.phase = Phase::Lingering;
        }
        while budget > 0 {
            match self.stream.read(read_buffer) {
                Ok(0) => return Ok(Outcome::Done(CloseReason::ShutDown)),
                Ok(count) => {
                    stats.bytes_in += count as u64;
                    stats.discarded += count as u64;
                    budget = budget.saturating_sub(count);
                }
                Err(error) if would_block(&error) => return Ok(Outcome::Wait(Wait::Lingering)),
                Err(error) if interrupted(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Outcome::Yield)
    }

    /// Sends back what was just read. Whether the peer took all of it; the rest becomes the tail.
    fn write_back(&mut self, bytes: &[u8], stats: &mut Stats) -> io::Result<bool> {
        stats.bytes_in += bytes.len() as u64;
        trace::log_received(&self.stream, bytes);
        // One attempt: a write that takes less has filled the socket, and trying once more would only be told so.
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
        if self.write_buffer.store(rest).is_err() {
            stats.discarded += rest.len() as u64;
            return Err(ErrorKind::OutOfMemory.into());
        }
        stats.store_unsent(rest.len());
        Ok(false)
    }

    /// Sends what is unsent. Whether that was everything.
    #[cold] // likewise: peers are seldom slow
    fn flush(&mut self, stats: &mut Stats) -> io::Result<bool> {
        let sent = write_some(&mut self.stream, self.write_buffer.remaining())?;
        self.write_buffer.consume(sent);
        stats.flush_unsent(sent);
        Ok(self.write_buffer.is_empty())
    }

    /// As [`Connection::advance`], when the write-stall timeout is over: ends the connection if no byte is taken now.
    ///
    /// That the kernel has told of no room does not mean that the peer has taken nothing. EPOLLOUT is reported when a
    /// third of the send buffer is free (`sk_stream_is_writeable`), on a Unix socket three quarters (`unix_writable`): a
    /// megabyte and more where the kernel has tuned the buffer, which a slow reader does not take in a minute. But
    /// send(2) takes bytes as soon as the buffer is not full. After it the buffer is full again, or nothing is unsent; so
    /// the next one that takes bytes is progress, too.
    #[cold]
    pub fn advance_stalled(
        &mut self,
        read_buffer: &mut [u8],
        budget: usize,
        stats: &mut Stats,
    ) -> Outcome {
        let unsent = self.unsent_bytes();
        match self.advance(Readiness::Exceptional, read_buffer, budget, stats) {
            Outcome::Wait(Wait::Writing) if self.unsent_bytes() == unsent => {
                Outcome::Done(CloseReason::WriteStall)
            }
            outcome => outcome,
        }
    }

    /// Asks for an end in good order: pay what is unsent, say FIN, wait for the peer's. Takes effect at the next
    /// [`Connection::advance`].
    pub fn begin_close(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Closing;
        }
    }

    /// What this connection waits for.
    pub fn waits_for(&self) -> Wait {
        match self.phase {
            _ if !self.write_buffer.is_empty() => Wait::Writing,
            Phase::Lingering => Wait::Lingering,
            Phase::Open | Phase::Closing => Wait::Reading,
        }
    }

    /// How many bytes it owes its peer.
    pub fn unsent_bytes(&self) -> usize {
        self.write_buffer.len()
    }

    /// Its socket.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Its socket, to register it.
    pub(super) fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }
}

/// One write, repeated only if a signal came between; how many bytes it took, 0 if there was no room.
#[inline]
fn write_some(stream: &mut impl Stream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match stream.write(bytes) {
            Ok(count) => return Ok(count),
            Err(error) if would_block(&error) => return Ok(0),
            Err(error) if interrupted(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

fn would_block(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
}

fn interrupted(error: &io::Error) -> bool {
    error.kind() == ErrorKind::Interrupted
}
