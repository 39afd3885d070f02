//! What the server does for a connection after [`Connection::advance`]: registers what it waits for, queues it, or closes it.
//!
//! Every connection ends in [`close_connection`], with a reason that is counted; after it the counters are consistent
//! ([`Stats::check_invariants`](crate::Stats::check_invariants)).

use super::accept::Acceptor;
use super::backend::{Backend, Socket};
use super::connection::{Connection, Outcome, Wait};
use super::core::Core;
use super::decision::Decision;
use super::outcome;
use super::phase::Phase;
use super::read_buffer::ReadBuffer;
use crate::net::Stream;
use crate::reactor::{Key, Readiness};
use crate::stats::{CloseReason, Stats};
use std::io::{self, ErrorKind::OutOfMemory};

impl<S> Connection<S> {
    /// Ends the connection in good order: sends what is unsent, then a FIN, and waits for the peer's. Takes effect at the
    /// next [`Connection::advance`].
    pub fn begin_close(&mut self) {
        self.phase = match self.phase {
            outcome::Phase::Header | outcome::Phase::Open | outcome::Phase::Streaming => {
                outcome::Phase::Closing
            }
            outcome::Phase::Answering => outcome::Phase::LastAnswers,
            begun => begun,
        };
    }

    /// What this connection waits for.
    pub fn waits_for(&self) -> Wait {
        match self.phase {
            _ if !self.write_buffer.is_empty() => Wait::Writing,
            outcome::Phase::Header => Wait::Header,
            outcome::Phase::Lingering => Wait::Lingering,
            _ => Wait::Reading,
        }
    }

    /// Keeps the rest of a short write.
    #[cold]
    pub(super) fn store_unsent(&mut self, rest: &[u8], stats: &mut Stats) -> io::Result<()> {
        if self.write_buffer.store(rest).is_err() {
            stats.discarded += rest.len() as u64;
            return Err(OutOfMemory.into());
        }
        stats.store_unsent(rest.len());
        Ok(())
    }

    /// How many bytes are read and not sent yet.
    pub fn unsent_bytes(&self) -> usize {
        self.write_buffer.remaining().len()
    }
}

impl<S: Stream> Connection<S> {
    /// Echoes as long as much comes at once. So the first read is a long one, too, if the send buffer has room for it.
    #[cold]
    pub(super) fn stream_on(
        &mut self,
        readiness: Readiness,
        read_buffer: &mut ReadBuffer,
        budget: usize,
        stats: &mut Stats,
    ) -> io::Result<Outcome> {
        self.phase = outcome::Phase::Open;
        let before = stats.bytes_in;
        let outcome = self.echo_all(true, true, readiness, read_buffer, budget, stats)?;
        // A part of a long message may have come alone.
        if stats.bytes_in - before >= read_buffer.first.len() as u64 / 8 {
            self.phase = outcome::Phase::Streaming;
        }
        Ok(outcome)
    }
}

/// Does what the outcome of a connection asks for.
#[inline(never)]
pub(super) fn apply<B: Backend>(
    core: &mut Core<B>,
    acceptor: &mut Acceptor,
    phase: Phase,
    key: Key,
    readiness: Readiness,
    outcome: Outcome,
) {
    let outcome = match outcome {
        Outcome::ReadHeader => acceptor.read_header(core, phase, key, readiness),
        Outcome::Answer => acceptor.answers.serve(core, key, readiness),
        outcome => outcome,
    };
    match outcome {
        Outcome::KeepReading | Outcome::ReadHeader | Outcome::Answer => {}
        Outcome::Wait(wait) => {
            let registration = core.registration(wait, phase);
            if let Err(error) = core.reactor.set_registration(key, registration) {
                log::debug!("a connection cannot be watched any more: {error}");
                close_connection(core, acceptor, key, CloseReason::RegisterFailed);
            }
        }
        Outcome::Yield => {
            core.stats.budget_yields += 1;
            core.note(Decision::BudgetSpent(key));
            core.reactor.requeue(key, readiness);
        }
        Outcome::Done(reason) => close_connection(core, acceptor, key, reason),
    }
}

/// The timeout of a connection has passed. What follows depends on what it waits for.
#[inline(never)]
pub(super) fn on_expired<B: Backend>(
    core: &mut Core<B>,
    acceptor: &mut Acceptor,
    phase: Phase,
    key: Key,
) {
    core.time_this_turn();
    let Some(Socket::Connection(connection)) = core.reactor.get_mut(key) else {
        return;
    };
    match connection.waits_for() {
        Wait::Header | Wait::Reading if phase.is_stopping() => begin_close(core, key),
        Wait::Header => {
            acceptor.proxies.log_timeout(core, key);
            close_connection(core, acceptor, key, CloseReason::ProxyTimeout);
        }
        Wait::Reading => close_connection(core, acceptor, key, CloseReason::Idle),
        Wait::Writing => {
            let budget = core.limits.read_budget_bytes;
            let outcome =
                advance_stalled(connection, &mut core.read_buffer, budget, &mut core.stats);
            apply(core, acceptor, phase, key, Readiness::Exceptional, outcome);
        }
        Wait::Lingering => close_connection(core, acceptor, key, CloseReason::ShutDown),
    }
}

/// Advances a connection whose write-stall timeout has passed. The connection ends if no byte is taken now.
///
/// That EPOLLOUT was not reported does not mean that the peer has read nothing. EPOLLOUT is reported when a third of the
/// send buffer is free (`sk_stream_is_writeable`), on a Unix socket three quarters (`unix_writable`): a megabyte and more
/// where the kernel has tuned the buffer, which a slow reader does not read in a minute. But send(2) takes bytes as soon as
/// the buffer is not full. After it the buffer is full again, or nothing is unsent; so the next write that takes bytes is
/// progress, too.
#[cold]
fn advance_stalled(
    connection: &mut Connection<impl Stream>,
    read_buffer: &mut ReadBuffer,
    budget: usize,
    stats: &mut Stats,
) -> Outcome {
    let unsent = connection.unsent_bytes();
    match connection.advance(Readiness::Exceptional, read_buffer, budget, stats) {
        Outcome::Wait(Wait::Writing) if connection.unsent_bytes() == unsent => {
            Outcome::Done(CloseReason::WriteStall)
        }
        outcome => outcome,
    }
}

/// Closes a connection: the only place where one ends.
pub(super) fn close_connection<B: Backend>(
    core: &mut Core<B>,
    acceptor: &mut Acceptor,
    key: Key,
    reason: CloseReason,
) {
    let Some(Socket::Connection(connection)) = core.reactor.close(key) else {
        return;
    };
    core.stats.close(reason, connection.unsent_bytes());
    core.note(Decision::Closed(key, reason));
    if is_reset(reason) {
        connection.stream.reset_on_close();
    }
    drop(connection); // before accepting is resumed: a new connection may need its descriptor
    acceptor.on_closed(core, key);
}

/// Whether a connection ends by RST.
fn is_reset(reason: CloseReason) -> bool {
    match reason {
        // After an orderly close the kernel would offer the unsent bytes for as long as the peer keeps its window shut.
        CloseReason::WriteStall | CloseReason::Aborted => true,
        // As a connection that is rejected: the peer learns at once that nothing is served here.
        CloseReason::ProxyHeader
        | CloseReason::ProxyTimeout
        | CloseReason::ProxyDenied
        | CloseReason::ProxyPrefix => true,
        _ => false,
    }
}

/// Ends a connection in good order, by a FIN once nothing is unsent.
pub(super) fn begin_close<B: Backend>(core: &mut Core<B>, key: Key) {
    if let Some(Socket::Connection(connection)) = core.reactor.get_mut(key) {
        connection.begin_close();
        core.reactor.requeue(key, Readiness::Exceptional);
    }
}
