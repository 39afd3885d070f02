//! One connection of the load, over TCP or a Unix stream: it sends requests and holds the server to every byte.
//!
//! A stream knows no messages; request number n is where it stands, from byte n × size on. So all that a connection
//! keeps is three positions in its stream: how much was issued, sent, and verified. A short write or a short read is
//! nothing special, and nothing of what was sent needs to be kept.

use super::flight::{Desk, Flight, Flights, Tally};
use super::record::{Fault, FaultKind, note};
use crate::net::trace::preview;
use crate::net::{Stream, StreamSocket};
use crate::reactor::Readiness;
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its connecting began then.
    Connecting(u64),
    /// It is connected, and its first request is under way: only an echo proves that a server is there. (A handshake
    /// does not: the kernel answers it before anybody has called `accept`.)
    Proving,
    /// It is proved.
    Ready,
}

/// See the page above.
#[derive(Debug)]
pub(super) struct StreamClient {
    /// Where its text begins; see `pattern`.
    origin: u64,
    issued: u64,
    sent: u64,
    verified: u64,
    /// Where the oldest request under way ends.
    boundary: u64,
    flights: Flights,
    phase: Phase,
    /// Whether it waits for room to write.
    blocked: bool,
    pub(super) tally: Tally,
}

/// What there is to arrange after a connection has done what it could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Nothing,
    /// It has been proved.
    Proved,
    /// Requests have come back, and nobody has sent others in their place.
    Answered,
}

impl StreamClient {
    pub(super) fn new(number: u32, origin: u64, since: u64, connecting: bool) -> Self {
        Self {
            origin,
            issued: 0,
            sent: 0,
            verified: 0,
            boundary: 0,
            flights: Flights::default(),
            phase: match connecting {
                true => Phase::Connecting(since),
                false => Phase::Proving,
            },
            blocked: connecting,
            tally: Tally::new(number, since),
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.flights.len()
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
            _ => self.flights.oldest().map(|flight| flight.sent),
        }
    }

    /// How many bytes have come of an answer that is not whole.
    pub(super) fn half_answered(&self, size: usize) -> u64 {
        match self.flights.len() {
            0 => 0,
            _ => (self.verified + size as u64).saturating_sub(self.boundary),
        }
    }

    /// What it has waited for in vain, for as long as `timeout`.
    #[cold]
    pub(super) fn timed_out(&self, size: usize, timeout: Duration) -> Fault {
        let text = match (self.phase, self.half_answered(size)) {
            (Phase::Connecting(_), _) => format!("not connected in {timeout:?}"),
            (_, 1..) => format!(
                "half an answer in {timeout:?}: {} of {size} bytes came, and no more",
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
    pub(super) fn issue(&mut self, flight: Flight, desk: &Desk) {
        if self.flights.len() == 0 {
            self.boundary = self.issued + desk.size as u64;
        }
        self.issued += desk.size as u64;
        self.flights.push(flight);
    }

    /// Sends what was issued and is not sent yet.
    #[inline]
    pub(super) fn flush(
        &mut self,
        stream: &mut StreamSocket,
        desk: &mut Desk,
    ) -> Result<(), Fault> {
        while self.sent < self.issued {
            let length = (self.issued - self.sent).min(desk.scratch.len() as u64) as usize;
            match stream.write(desk.pattern.slice(self.origin, self.sent, length)) {
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

    /// Does what can be done at once: reads and verifies, and sends.
    #[inline]
    pub(super) fn advance(
        &mut self,
        stream: &mut StreamSocket,
        readiness: Readiness,
        desk: &mut Desk,
    ) -> Result<Step, Fault> {
        if self.blocked {
            self.flush(stream, desk)?;
        }
        let before = self.tally.echoes;
        self.read(stream, readiness, desk)?;
        if self.sent < self.issued && !self.blocked {
            self.flush(stream, desk)?;
        }
        if self.tally.echoes == before {
            return Ok(Step::Nothing);
        }
        match self.phase {
            Phase::Proving => {
                self.phase = Phase::Ready;
                Ok(Step::Proved)
            }
            _ if desk.again => Ok(Step::Nothing),
            _ => Ok(Step::Answered),
        }
    }

    /// It is connected, which the caller has confirmed: notes how long that took, and sends the first request.
    pub(super) fn connected(
        &mut self,
        stream: &mut StreamSocket,
        desk: &mut Desk,
    ) -> Result<(), Fault> {
        if let Phase::Connecting(since) = self.phase {
            let now = desk.read_clock();
            note(&mut desk.slice.connect, now.saturating_sub(since));
        }
        self.prove(stream, desk)
    }

    /// Sends the first request.
    pub(super) fn prove(
        &mut self,
        stream: &mut StreamSocket,
        desk: &mut Desk,
    ) -> Result<(), Fault> {
        self.phase = Phase::Proving;
        self.blocked = false;
        let now = desk.read_clock();
        desk.ledger.sent += 1;
        self.issue(
            Flight {
                planned: now,
                sent: now,
            },
            desk,
        );
        self.flush(stream, desk)
    }

    /// Reads until everything that was asked for has come, or the socket is empty.
    #[inline]
    fn read(
        &mut self,
        stream: &mut StreamSocket,
        readiness: Readiness,
        desk: &mut Desk,
    ) -> Result<(), Fault> {
        loop {
            let count = match stream.read(&mut desk.scratch) {
                Ok(0) => return Err(self.closed()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            self.verify(count, desk)?;
            let all = self.verified == self.sent;
            if self.verified >= self.boundary {
                desk.read_clock();
                while self.verified >= self.boundary && self.flights.len() > 0 {
                    self.complete(desk);
                }
            }
            // A short read may hide a FIN that came along with the data, of which the event has told. And where all has
            // come that was asked for, asking the kernel for more would be a call in vain; should there be more all the
            // same, it will be found before the next answer, or at the end.
            let emptied = count < desk.scratch.len() && stream.short_read_means_empty();
            if readiness == Readiness::Normal && (all || emptied) {
                return Ok(());
            }
        }
    }

    /// Compares what has come with what was sent.
    #[inline]
    fn verify(&mut self, count: usize, desk: &Desk) -> Result<(), Fault> {
        let came = &desk.scratch[..count];
        if self.verified + count as u64 > self.sent {
            return Err(self.extra(came));
        }
        let expected = desk.pattern.slice(self.origin, self.verified, count);
        if came != expected {
            return Err(self.mismatch(came, expected));
        }
        self.verified += count as u64;
        Ok(())
    }

    /// Counts the oldest request, which has come back whole, and in a closed loop puts another on its way.
    // Kept out of line: inlined into two loops, it makes the compiler carry half of the desk about on the stack.
    #[inline(never)]
    fn complete(&mut self, desk: &mut Desk) {
        let Some(flight) = self.flights.pop() else {
            return;
        };
        let now = desk.now;
        self.boundary += desk.size as u64;
        self.tally.count(now);
        desk.answered(flight);
        if desk.again && self.phase == Phase::Ready && desk.may_send() {
            let next = Flight {
                planned: now,
                sent: now,
            };
            self.issue(next, desk);
        }
    }

    /// Looks, at the end, whether there is something that nobody has asked for.
    pub(super) fn listen_once(
        &mut self,
        stream: &mut StreamSocket,
        desk: &mut Desk,
    ) -> Result<(), Fault> {
        match stream.read(&mut desk.scratch) {
            Ok(count) if count > 0 => self.verify(count, desk),
            _ => Ok(()),
        }
    }

    pub(super) fn flights(&self) -> &Flights {
        &self.flights
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
