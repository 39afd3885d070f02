//! Answers in place of echoes: one to each request, which is a line of a stream or a datagram.
//!
//! ```text
//!   received: "who?\nagain"          answers                          write buffer
//!   ───────── one line ─────▶ [`Responder::respond`] ──▶ write ──▶ what a short write leaves
//!             the rest waits for its newline, or for the peer's FIN
//! ```
//!
//! These connections have slots, limits and timeouts like any other; what a request needs until it is whole is kept in a table
//! beside the slots. So the path of an echo has no step for any of it, and its connections cost no byte more.
//!
//! - **Nothing is read while an answer is unsent**, as with an echo. What a connection holds is then bounded: what one read has
//!   returned ([`REQUEST_BYTES_MAX`], or a read buffer behind the header of a proxy), and [`BATCH_BYTES`] of answers with the last
//!   of them, which has six bytes for one in the worst case.
//! - **Answers keep the order of their requests**, and those of one read leave in few writes.
//! - **A request is read once and answered once.** A line without a newline before the peer's FIN is a request, too. One that is
//!   too long is answered by an error, and read on to its newline, so that the next request is found.
//! - **The counters tell of bytes on the wire.** An answer is longer than its request; [`Stats::bytes_added`] has the difference, and
//!   a request that is not answered yet counts as unsent.
//! - **A datagram is answered by three times its length at most**, as RFC 9000, section 8.1, has it: its source address may be
//!   forged, and a longer answer would multiply what a sender can direct at a third host.

use super::backend::{Backend, Socket};
use super::connection::{Connection, Outcome, Wait, write_some};
use super::core::Core;
use super::outcome::Phase;
use super::read_buffer::ReadBuffer;
use crate::net::{Peer, Stream, trace};
use crate::reactor::{Key, Readiness};
use crate::stats::{CloseReason, DropReason, Stats};
use std::collections::HashMap;
use std::fmt::Debug;
use std::io;
use std::io::ErrorKind::{Interrupted, WouldBlock};
use std::sync::Arc;

/// The longest request of a stream, in bytes, without its newline.
pub(crate) const REQUEST_BYTES_MAX: usize = 4096;
/// Answers of a stream are written as soon as this many bytes of them are there.
const BATCH_BYTES: usize = 4096;
/// How many times longer than its request an answer over UDP may be.
const AMPLIFICATION_MAX: usize = 3;

/// Makes answers.
pub(crate) trait Responder: Debug + Send + Sync {
    /// Appends the answer to a request of this peer: a line without its newline, the content of a datagram, or `None` for a
    /// line that is too long. An answer is longer than its request.
    fn respond(&self, request: Option<&[u8]>, peer: &Peer, answer: &mut Vec<u8>);
}

/// Makes the answer to a datagram, unless it would be too long for a source that may be forged.
pub(super) fn answer_datagram<'a>(
    responder: &dyn Responder,
    datagram: &[u8],
    source: &Peer,
    answer: &'a mut Vec<u8>,
) -> Result<&'a [u8], DropReason> {
    answer.clear();
    responder.respond(Some(datagram), source, answer);
    match source {
        Peer::Ip(_) if answer.len() > AMPLIFICATION_MAX * datagram.len() => {
            Err(DropReason::Amplification)
        }
        _ => Ok(answer),
    }
}

/// The part of the acceptor that answers the requests of streams.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) responder: Option<Arc<dyn Responder>>,
    /// Connections that are answered, by their slots.
    dialogs: HashMap<usize, Dialog>,
}

impl Answers {
    /// Whether requests are answered, and nothing is echoed.
    fn are_on(&self) -> bool {
        self.responder.is_some()
    }

    /// Has a connection answered rather than echoed, if that is what this server does. Returns whether it is.
    pub(super) fn begin<S>(&self, connection: &mut Connection<S>) -> bool {
        if self.are_on() {
            connection.phase = Phase::Answering;
        }
        self.are_on()
    }

    /// Adds a connection that may have begun, and has this peer.
    pub(super) fn add(&mut self, key: Key, peer: Peer) {
        if !self.are_on() {
            return;
        }
        let dialog = Dialog {
            peer,
            received: Vec::new(),
            is_served: false,
            is_skipping: false,
            has_fin: false,
        };
        self.dialogs.insert(key.slot(), dialog);
    }

    /// Receives what came behind the header of a proxy in one read.
    pub(super) fn receive(&mut self, key: Key, bytes: &[u8], stats: &mut Stats) {
        if let Some(dialog) = self.dialogs.get_mut(&key.slot()) {
            dialog.received.extend_from_slice(bytes);
            dialog.is_served = true;
            stats.bytes_in += bytes.len() as u64;
            stats.store_unsent(bytes.len());
        }
    }

    /// Forgets a connection, which has closed. What it has sent of a request is discarded.
    pub(super) fn remove(&mut self, key: Key, stats: &mut Stats) {
        if !self.are_on() {
            return;
        }
        if let Some(dialog) = self.dialogs.remove(&key.slot()) {
            stats.discard_unsent(dialog.received.len());
        }
    }

    /// Answers the requests of a connection, and reads on, until the socket would block, a write is short, or the budget of
    /// the turn is spent, by what is read and by answers: a short request may have a long one.
    #[cold]
    pub(super) fn serve<B: Backend>(
        &mut self,
        core: &mut Core<B>,
        key: Key,
        readiness: Readiness,
    ) -> Outcome {
        let (Some(Socket::Connection(connection)), Some(dialog), Some(responder)) = (
            core.reactor.get_mut(key),
            self.dialogs.get_mut(&key.slot()),
            &self.responder,
        ) else {
            return Outcome::KeepReading;
        };
        let budget = core.limits.read_budget_bytes;
        let (buffer, stats) = (&mut core.read_buffer, &mut core.stats);
        stats.unsent_bytes -= dialog.received.len() as u64; // some of them may be sent now
        let result = dialog.advance(connection, &**responder, readiness, buffer, budget, stats);
        stats.store_unsent(dialog.received.len());
        result.unwrap_or_else(|error| {
            log::debug!("{} ends: {error}", dialog.peer);
            Outcome::Done(CloseReason::from(&error))
        })
    }
}

/// A connection that is answered.
#[derive(Debug)]
struct Dialog {
    peer: Peer,
    /// What was read and is not answered yet.
    received: Vec<u8>,
    /// Whether an event has been of use before a read, which may then find nothing without being spurious.
    is_served: bool,
    /// Whether the rest of a request that is too long is being read.
    is_skipping: bool,
    /// Whether the peer has sent its FIN.
    has_fin: bool,
}

impl Dialog {
    fn advance(
        &mut self,
        connection: &mut Connection<impl Stream>,
        responder: &dyn Responder,
        readiness: Readiness,
        read_buffer: &mut ReadBuffer,
        mut budget: usize,
        stats: &mut Stats,
    ) -> io::Result<Outcome> {
        let mut nothing_yet = !std::mem::take(&mut self.is_served);
        let mut is_empty = false;
        loop {
            if !self.answer(connection, responder, &mut budget, stats)? {
                self.is_served = true;
                return Ok(Outcome::Wait(Wait::Writing));
            }
            match connection.phase {
                _ if budget == 0 => {
                    self.is_served = true;
                    return Ok(Outcome::Yield);
                }
                _ if self.has_fin => return Ok(Outcome::Done(CloseReason::PeerClosed)),
                Phase::LastAnswers => {
                    connection.phase = Phase::Closing;
                    return Ok(connection.advance(readiness, read_buffer, budget, stats));
                }
                _ if is_empty => return Ok(Outcome::Wait(Wait::Reading)),
                _ => {}
            }
            let room = REQUEST_BYTES_MAX + 1 - self.received.len();
            let room = room.min(read_buffer.len());
            match connection.stream.read(&mut read_buffer[..room]) {
                Ok(0) => self.has_fin = true,
                Ok(count) => {
                    let bytes = &read_buffer[..count];
                    stats.bytes_in += count as u64;
                    trace::log_received(&connection.stream, bytes);
                    self.received.extend_from_slice(bytes);
                    budget = budget.saturating_sub(count);
                    is_empty = is_emptied(&connection.stream, readiness, count, room);
                }
                Err(error) if error.kind() == WouldBlock => {
                    stats.spurious_events += u64::from(nothing_yet);
                    return Ok(Outcome::Wait(Wait::Reading));
                }
                Err(error) if error.kind() == Interrupted => continue,
                Err(error) => return Err(error),
            }
            nothing_yet = false;
        }
    }

    /// Answers the requests that are whole, until the budget is spent. Returns whether every answer is sent.
    fn answer(
        &mut self,
        connection: &mut Connection<impl Stream>,
        responder: &dyn Responder,
        budget: &mut usize,
        stats: &mut Stats,
    ) -> io::Result<bool> {
        while *budget > 0 {
            let mut answers = Vec::new();
            let (taken, discarded) = self.take_requests(responder, &mut answers);
            if taken == 0 {
                break;
            }
            let sent = match answers.is_empty() {
                true => 0, // the rest of a request that is too long
                false => write_some(&mut connection.stream, &answers)?,
            };
            self.received.drain(..taken);
            stats.discarded += discarded as u64;
            stats.bytes_added += (answers.len() + discarded - taken) as u64;
            stats.bytes_out += sent as u64;
            *budget = budget.saturating_sub(answers.len());
            if sent < answers.len() {
                connection.store_unsent(&answers[sent..], stats)?;
                return Ok(false);
            }
        }
        if self.received.is_empty() {
            self.received = Vec::new(); // an idle connection holds no memory for requests
        }
        Ok(true)
    }

    /// Makes answers to what was received, about as many as are written at once. Returns for how many of its bytes, and how
    /// many of these belong to a request that is too long.
    fn take_requests(
        &mut self,
        responder: &dyn Responder,
        answers: &mut Vec<u8>,
    ) -> (usize, usize) {
        let (mut taken, mut discarded) = (0, 0);
        while answers.len() < BATCH_BYTES && taken < self.received.len() {
            let rest = &self.received[taken..];
            let newline = rest.iter().position(|&byte| byte == b'\n');
            let line = &rest[..newline.unwrap_or(rest.len())];
            let is_too_long = line.len() > REQUEST_BYTES_MAX;
            let is_answered = self.is_skipping; // by an error, when it became too long
            if newline.is_none() && !(is_too_long || is_answered || self.has_fin) {
                break;
            }
            let length = newline.map_or(rest.len(), |place| place + 1);
            if is_answered || is_too_long {
                discarded += length;
            }
            if !is_answered {
                let request = line.strip_suffix(b"\r").unwrap_or(line);
                responder.respond((!is_too_long).then_some(request), &self.peer, answers);
                answers.push(b'\n');
            }
            self.is_skipping = newline.is_none();
            taken += length;
        }
        (taken, discarded)
    }
}

/// Whether a read of `count` bytes, into a buffer for `room` bytes, has emptied the socket: the condition of
/// `Connection::echo_all`.
pub(super) fn is_emptied(
    stream: &impl Stream,
    readiness: Readiness,
    count: usize,
    room: usize,
) -> bool {
    count < room && readiness == Readiness::Normal && stream.short_read_means_empty()
}
