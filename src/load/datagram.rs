//! One socket of the load, over UDP or Unix datagrams: every request has a number, and so loss, doubles, and a changed
//! order are counted for what they are.
//!
//! ```text
//!   8 bytes, little-endian           size - 8 bytes
//!   ┌────────────┬───────────────┐ ┌───────────────────────────────────────────────┐
//!   │ socket: 24 │  number: 40   │ │ this socket's text, from byte number × size on │
//!   └────────────┴───────────────┘ └───────────────────────────────────────────────┘
//! ```
//!
//! A datagram that is not back after the timeout is lost, and the next takes its place. Should it come after all, it is
//! late, and no longer lost. What has been counted is remembered for a while, to know a double when it comes.

use super::context::WorkerContext;
use super::faults::{Fault, FaultKind};
use super::in_flight::{Request, Step, Tally};
use crate::net::connect::Connected;
use crate::net::trace::preview;
use std::collections::VecDeque;
use std::io::ErrorKind;

/// Bytes of the header, and so the smallest request.
pub const HEADER_BYTES: usize = 8;
/// Bits of the number; above them is the socket.
const NUMBER_BITS: u32 = 40;
const NUMBER_MASK: u64 = (1 << NUMBER_BITS) - 1;
/// Requests that are remembered after they have been counted.
const MEMORY: usize = 256;
/// The first request proves that a server is there. It may get lost, so it is sent so many times within the timeout.
pub(super) const PROOFS: u32 = 5;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    UnderWay,
    Back,
    Lost,
}

/// One datagram socket of the load.
#[derive(Debug)]
pub(super) struct DatagramClient {
    origin: u64,
    /// The number of the first of `requests`.
    base: u64,
    requests: VecDeque<(Request, Fate)>,
    under_way: usize,
    /// The number of the next that the kernel has not taken yet.
    unsent: u64,
    /// The greatest number that has come back, and one.
    newest: u64,
    ready: bool,
    proofs: u32,
    blocked: bool,
    tally: Tally,
}

impl DatagramClient {
    pub(super) fn new(number: u32, origin: u64, since: u64) -> Self {
        Self {
            origin,
            base: 0,
            requests: VecDeque::new(),
            under_way: 0,
            unsent: 0,
            newest: 0,
            ready: false,
            proofs: 0,
            blocked: false,
            tally: Tally::new(number, since),
        }
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(super) fn tally_mut(&mut self) -> &mut Tally {
        &mut self.tally
    }

    pub(super) fn in_flight(&self) -> usize {
        self.under_way
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Those that are under way.
    pub(super) fn requests(&self) -> impl Iterator<Item = &Request> {
        let all = self.requests.iter();
        all.filter(|(_, fate)| *fate == Fate::UnderWay)
            .map(|(request, _)| request)
    }

    fn next(&self) -> u64 {
        self.base + self.requests.len() as u64
    }

    /// Puts a request on its way, as far as `flush` then can.
    pub(super) fn issue(&mut self, request: Request) {
        self.requests.push_back((request, Fate::UnderWay));
        self.under_way += 1;
        while self.requests.len() > MEMORY
            && self.base < self.unsent
            && self.requests.front().map(|(_, fate)| *fate) != Some(Fate::UnderWay)
        {
            self.requests.pop_front();
            self.base += 1;
        }
    }

    /// Sends the first request, or once more.
    pub(super) fn prove(
        &mut self,
        socket: &Connected,
        context: &mut WorkerContext,
    ) -> Result<(), Fault> {
        let now = context.read_clock();
        context.recorder().counters_mut().sent += 1;
        self.proofs += 1;
        self.issue(Request::unplanned(now));
        self.flush(socket, context)
    }

    /// Sends issued datagrams until the socket would block.
    pub(super) fn flush(
        &mut self,
        socket: &Connected,
        context: &mut WorkerContext,
    ) -> Result<(), Fault> {
        while self.unsent < self.next() {
            let header = header(self.tally.number(), self.unsent);
            let position = self.position(context.size());
            match socket.send(context.compose(&header, self.origin, position)) {
                Ok(_) => self.unsent += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The kernel had no room, or an earlier one met a closed port: like any loss on the way.
                Err(error) if is_loss(&error) => self.unsent += 1,
                Err(error) => return Err(error.into()),
            }
        }
        self.blocked = false;
        Ok(())
    }

    fn position(&self, size: usize) -> u64 {
        self.unsent.wrapping_mul(size as u64) % (1 << 40)
    }

    /// Receives and verifies until the socket would block, and sends.
    pub(super) fn advance(
        &mut self,
        socket: &Connected,
        context: &mut WorkerContext,
    ) -> Result<Step, Fault> {
        if self.blocked {
            self.flush(socket, context)?;
        }
        let before = self.tally.echoes();
        loop {
            match socket.receive(context.read_buffer_mut()) {
                // A wrong datagram says nothing of the next one. The one in whose place it came is lost.
                Ok(count) => {
                    if let Err(fault) = self.take(count, context) {
                        let number = self.tally.number();
                        context
                            .recorder()
                            .note_fault(&fault, || format!("socket {number}"));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The error belongs to an earlier datagram and is reported once. Before the first echo it means that
                // no server listens.
                Err(error) if is_loss(&error) && self.ready => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.unsent < self.next() && !self.blocked {
            self.flush(socket, context)?;
        }
        if self.tally.echoes() == before {
            return Ok(Step::Nothing);
        }
        if !std::mem::replace(&mut self.ready, true) {
            return Ok(Step::Proved);
        }
        Ok(match context.sends_again() {
            true => Step::Nothing,
            false => Step::Answered,
        })
    }

    /// One datagram has come.
    fn take(&mut self, count: usize, context: &mut WorkerContext) -> Result<(), Fault> {
        let number = self.verify(&context.read_buffer()[..count], context)?;
        let newest = number + 1 > self.newest;
        self.newest = self.newest.max(number + 1);
        let Some(place) = number.checked_sub(self.base) else {
            // The number is so old that it was forgotten: late, whether it is a duplicate or was given up. The
            // counters stay as they are.
            context.recorder().counters_mut().late += 1;
            return Ok(());
        };
        let now = context.read_clock();
        let (request, fate) = &mut self.requests[place as usize];
        let request = *request;
        match std::mem::replace(fate, Fate::Back) {
            Fate::Back => {
                context.recorder().counters_mut().duplicates += 1;
                return Ok(());
            }
            Fate::Lost => {
                context.recorder().counters_mut().lost -= 1;
                context.recorder().counters_mut().late += 1;
                context.recorder().answered(request, now);
                return Ok(()); // another has taken its place by now
            }
            Fate::UnderWay => self.under_way -= 1,
        }
        context.recorder().counters_mut().reordered += u64::from(!newest);
        self.tally.count(now);
        context.recorder().answered(request, now);
        if context.sends_again() && self.ready && context.may_send() {
            self.issue(Request::unplanned(now));
        }
        Ok(())
    }

    /// The number of a datagram that is what was sent.
    fn verify(&self, came: &[u8], context: &WorkerContext) -> Result<u64, Fault> {
        let mismatch = |why: String| Fault::new(FaultKind::Mismatch, why);
        if came.len() != context.size() {
            let text = format!(
                "a datagram of {} bytes came back, and those sent have {}: {}",
                came.len(),
                context.size(),
                preview(came)
            );
            return Err(mismatch(text));
        }
        let (head, body) = came.split_at(HEADER_BYTES);
        let head = u64::from_le_bytes(head.try_into().unwrap_or_default());
        let number = head & NUMBER_MASK;
        if header(self.tally.number(), number) != head.to_le_bytes() || number >= self.unsent {
            let text = format!(
                "the number of a datagram is none that was sent from here: {}",
                preview(came)
            );
            return Err(mismatch(text));
        }
        let position = number.wrapping_mul(context.size() as u64) % (1 << 40);
        let expected = context.text(self.origin, position, body.len());
        if body != expected {
            let at = body.iter().zip(expected).position(|(a, b)| a != b);
            let at = at.unwrap_or(0);
            let text = format!(
                "byte {} of datagram {number} came back as {}, and {} was sent",
                at + HEADER_BYTES,
                preview(&body[at..body.len().min(at + 16)]),
                preview(&expected[at..body.len().min(at + 16)])
            );
            return Err(mismatch(text));
        }
        Ok(number)
    }

    /// Gives up datagrams that were sent before `limit`, and returns their number.
    pub(super) fn give_up(&mut self, limit: u64, context: &mut WorkerContext) -> usize {
        let sent = self.unsent.saturating_sub(self.base) as usize;
        let mut given_up = 0;
        for (request, fate) in self.requests.iter_mut().take(sent) {
            if request.sent() >= limit {
                break;
            }
            if *fate == Fate::UnderWay {
                *fate = Fate::Lost;
                given_up += 1;
            }
        }
        self.under_way -= given_up;
        context.recorder().counters_mut().lost += given_up as u64;
        given_up
    }

    /// Whether proving has been tried often enough.
    pub(super) fn is_hopeless(&self) -> bool {
        !self.ready && self.proofs >= PROOFS
    }
}

fn header(socket: u32, number: u64) -> [u8; HEADER_BYTES] {
    (u64::from(socket) << NUMBER_BITS | number & NUMBER_MASK).to_le_bytes()
}

/// Whether an error means the fate of a datagram, and not that of the socket.
fn is_loss(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::ConnectionRefused || error.raw_os_error() == Some(libc::ENOBUFS)
}
