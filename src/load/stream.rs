//! One connection of the load, over TCP or a Unix stream: it sends requests and holds the server to every byte.
//!
//! A stream knows no messages; request number n is where it stands, from byte n × size on. So all that a connection
//! keeps is three positions in its stream: how much was issued, sent, and verified. A short write or a short read is
//! nothing special, and nothing of what was sent needs to be kept.

use super::context::WorkerContext;
use super::faults::{Fault, FaultKind};
use super::in_flight::{Request, Requests, Step, Tally};
use crate::net::connect::send_proxy_header;
use crate::net::trace::preview;
use crate::net::{Stream, StreamSocket};
use crate::reactor::Readiness;
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its connecting began then.
    Connecting(u64),
    /// It is connected, and its first request is under way: only an echo proves that a server is there. (A handshake
    /// does not: the kernel completes it before the server calls `accept`.)
    Proving,
    /// It is proved.
    Ready,
}

/// One connection of the load, over TCP or a Unix stream.
#[derive(Debug)]
pub(super) struct StreamClient {
    /// Where its text begins; see `pattern`.
    origin: u64,
    issued: u64,
    sent: u64,
    verified: u64,
    /// Where the oldest request under way ends.
    boundary: u64,
    requests: Requests,
    phase: Phase,
    /// Whether it waits for room to write.
    blocked: bool,
    tally: Tally,
}

impl StreamClient {
    pub(super) fn new(number: u32, origin: u64, since: u64, connecting: bool) -> Self {
        Self {
            origin,
            issued: 0,
            sent: 0,
            verified: 0,
            boundary: 0,
            requests: Requests::default(),
            phase: match connecting {
                true => Phase::Connecting(since),
                false => Phase::Proving,
            },
            blocked: connecting,
            tally: Tally::new(number, since),
        }
    }

    #[inline]
    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(super) fn tally_mut(&mut self) -> &mut Tally {
        &mut self.tally
    }

    pub(super) fn in_flight(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn is_connecting(&self) -> bool {
        matches!(self.phase, Phase::Connecting(_))
    }

    pub(super) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Whether it has more to send than the kernel takes: it must be told when there is room.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Since when it has waited for something.
    pub(super) fn waiting_since(&self) -> Option<u64> {
        match self.phase {
            Phase::Connecting(since) => Some(since),
            _ => self.requests.oldest().map(Request::sent),
        }
    }

    /// How many bytes have come of an answer that is not whole.
    pub(super) fn half_answered(&self, size: usize) -> u64 {
        match self.requests.len() {
            0 => 0,
            _ => (self.verified + size as u64).saturating_sub(self.boundary),
        }
    }

    /// The fault of a connection that has waited for as long as `timeout`.
    #[cold]
    pub(super) fn timed_out(&self, size: usize, timeout: Duration) -> Fault {
        let text = match (self.phase, self.half_answered(size)) {
            (Phase::Connecting(_), _) => format!("not connected in {timeout:?}"),
            (_, 1..) => format!(
                "half an answer in {timeout:?}: {} of {size} bytes came",
                self.half_answered(size)
            ),
            (Phase::Proving, 0) => {
                format!("connected, and no answer in {timeout:?} to the first request")
            }
            (Phase::Ready, 0) => format!("no answer in {timeout:?}"),
        };
        Fault::new(FaultKind::Timeout, text)
    }

    /// Puts a request on its way, as far as `flush` then can.
    #[inline]
    pub(super) fn issue(&mut self, request: Request, context: &WorkerContext) {
        if self.requests.is_empty() {
            self.boundary = self.issued + context.size() as u64;
        }
        self.issued += context.size() as u64;
        self.requests.push(request);
    }

    /// Writes the bytes of issued requests until the socket would block.
    #[inline]
    pub(super) fn flush(
        &mut self,
        stream: &mut StreamSocket,
        context: &mut WorkerContext,
    ) -> Result<(), Fault> {
        while self.sent < self.issued {
            let length = (self.issued - self.sent).min(context.read_buffer().len() as u64) as usize;
            match stream.write(context.text(self.origin, self.sent, length)) {
                Ok(count) => self.sent += count as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.blocked = false;
        Ok(())
    }

    /// Reads and verifies until the socket would block, and sends.
    #[inline]
    pub(super) fn advance(
        &mut self,
        stream: &mut StreamSocket,
        readiness: Readiness,
        context: &mut WorkerContext,
    ) -> Result<Step, Fault> {
        if self.blocked {
            self.flush(stream, context)?;
        }
        let before = self.tally.echoes();
        self.read(stream, readiness, context)?;
        if self.sent < self.issued && !self.blocked {
            self.flush(stream, context)?;
        }
        if self.tally.echoes() == before {
            return Ok(Step::Nothing);
        }
        match self.phase {
            Phase::Proving => {
                self.phase = Phase::Ready;
                Ok(Step::Proved)
            }
            _ if context.sends_again() => Ok(Step::Nothing),
            _ => Ok(Step::Answered),
        }
    }

    /// It is connected, which the caller has confirmed: notes how long that took, and sends the first request.
    pub(super) fn connected(
        &mut self,
        stream: &mut StreamSocket,
        context: &mut WorkerContext,
    ) -> Result<(), Fault> {
        if let Phase::Connecting(since) = self.phase {
            let now = context.read_clock();
            context.recorder().note_connect(now.saturating_sub(since));
        }
        self.prove(stream, context)
    }

    /// Sends the first request, behind the PROXY header if there is one.
    pub(super) fn prove(
        &mut self,
        stream: &mut StreamSocket,
        context: &mut WorkerContext,
    ) -> Result<(), Fault> {
        self.phase = Phase::Proving;
        self.blocked = false;
        if let Some(version) = context.proxy() {
            send_proxy_header(stream, version)?;
        }
        let now = context.read_clock();
        context.recorder().counters_mut().sent += 1;
        self.issue(Request::unplanned(now), context);
        self.flush(stream, context)
    }

    /// Reads until everything that was asked for has come, or the socket is empty.
    #[inline]
    fn read(
        &mut self,
        stream: &mut StreamSocket,
        readiness: Readiness,
        context: &mut WorkerContext,
    ) -> Result<(), Fault> {
        loop {
            let count = match stream.read(context.read_buffer_mut()) {
                Ok(0) => return Err(self.closed()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            self.verify(count, context)?;
            let all = self.verified == self.sent;
            if self.verified >= self.boundary {
                context.read_clock();
                while self.verified >= self.boundary && !self.requests.is_empty() {
                    self.complete(context);
                }
            }
            // A short read may hide a FIN that came along with the data, of which the event has told. And where all has
            // come that was asked for, asking the kernel for more would be a call in vain; should there be more all the
            // same, it will be found before the next answer, or at the end.
            let emptied = count < context.read_buffer().len() && stream.short_read_means_empty();
            if readiness == Readiness::Normal && (all || emptied) {
                return Ok(());
            }
        }
    }

    /// Compares what has come with what was sent.
    #[inline]
    fn verify(&mut self, count: usize, context: &WorkerContext) -> Result<(), Fault> {
        let came = &context.read_buffer()[..count];
        if self.verified + count as u64 > self.sent {
            return Err(self.extra(came));
        }
        let expected = context.text(self.origin, self.verified, count);
        if came != expected {
            return Err(self.mismatch(came, expected));
        }
        self.verified += count as u64;
        Ok(())
    }

    /// Counts the oldest request, whose answer is complete; a closed loop issues another one.
    // Kept out of line: inlined into two loops, it makes the compiler carry half of the context about on the stack.
    #[inline(never)]
    fn complete(&mut self, context: &mut WorkerContext) {
        let Some(request) = self.requests.pop() else {
            return;
        };
        let now = context.now();
        self.boundary += context.size() as u64;
        self.tally.count(now);
        context.recorder().answered(request, now);
        if context.sends_again() && self.phase == Phase::Ready && context.may_send() {
            self.issue(Request::unplanned(now), context);
        }
    }

    /// Reads once, at the end of a run, to find bytes that were not asked for.
    pub(super) fn check_for_extra_bytes(
        &mut self,
        stream: &mut StreamSocket,
        context: &mut WorkerContext,
    ) -> Result<(), Fault> {
        match stream.read(context.read_buffer_mut()) {
            Ok(count) if count > 0 => self.verify(count, context),
            _ => Ok(()),
        }
    }

    pub(super) fn requests(&self) -> &Requests {
        &self.requests
    }

    #[cold]
    fn closed(&self) -> Fault {
        let missing = self.issued - self.verified;
        let text = match missing {
            0 => "closed by the server, though nothing was under way".to_owned(),
            _ => format!(
                "closed by the server after byte {}, with {missing} bytes still to come",
                self.verified
            ),
        };
        Fault::new(FaultKind::Closed, text)
    }

    #[cold]
    fn extra(&self, came: &[u8]) -> Fault {
        let text = format!(
            "{} bytes were sent, and {} have come back, the last of them {}",
            self.sent,
            self.verified + came.len() as u64,
            preview(&came[came.len() - came.len().min(16)..])
        );
        Fault::new(FaultKind::Extra, text)
    }

    #[cold]
    fn mismatch(&self, came: &[u8], expected: &[u8]) -> Fault {
        let at = came
            .iter()
            .zip(expected)
            .position(|(ours, theirs)| ours != theirs)
            .unwrap_or(0);
        let shown = at..came.len().min(at + 16);
        let text = format!(
            "byte {} came back as {}, and {} was sent",
            self.verified + at as u64,
            preview(&came[shown.clone()]),
            preview(&expected[shown])
        );
        Fault::new(FaultKind::Mismatch, text)
    }
}
