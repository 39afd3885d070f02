//! Datagram echo: each datagram is answered at once, or dropped and counted with a reason.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! A datagram socket has no connections, so there is no state machine, and a datagram of no bytes is a datagram, not an end.
//! Nothing is ever stored: if the send buffer has no room for a reply, a reply sent later would reach a sender that has
//! given up on it.

use super::answers::{Responder, answer_datagram};
use super::backend::{Backend, Socket};
use super::core::Core;
use super::decision::Decision;
use super::listeners::{Listeners, NoListenerLeft};
use super::phase::Phase;
use super::udp_filter::UdpFilter;
use crate::net::accept::{self, AcceptError};
use crate::net::{Datagrams, Peer, Sender, Unanswerable, trace};
use crate::reactor::{Key, Readiness};
use crate::stats::{DropReason, Stats};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Instant;

/// The size of the receive buffer, in bytes: no datagram is larger. UDP has 16 bits for the length; a Unix datagram may be
/// as long as the sender's send buffer (`net.core.wmem_max`, 208 KiB by default).
pub const DATAGRAM_BYTES_MAX: usize = 256 * 1024;

/// The part of the server that answers datagrams.
#[derive(Debug)]
pub(super) struct DatagramEcho {
    pub(super) filter: UdpFilter,
    /// Makes answers in place of echoes.
    pub(super) responder: Option<Arc<dyn Responder>>,
    /// The buffer that every datagram is read into; empty until there is a datagram socket.
    buffer: Box<[u8]>,
    /// While the server drains: how many datagrams each socket may still answer.
    drain_left: HashMap<Key, u64>,
}

impl DatagramEcho {
    pub(super) fn new(filter: UdpFilter) -> Self {
        Self {
            filter,
            responder: None,
            buffer: Box::default(),
            drain_left: HashMap::new(),
        }
    }

    /// Makes the buffer, if there is none yet: a server without a datagram socket needs none.
    pub(super) fn allocate_buffer(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = vec![0; DATAGRAM_BYTES_MAX].into_boxed_slice();
        }
    }

    /// Answers the datagrams that are queued at a socket, as many as one turn allows; drops them once the time for
    /// answering is over.
    ///
    /// # Errors
    /// The socket is broken for good, it was the last one, and the server is not stopping.
    #[inline(never)]
    pub(super) fn answer<B: Backend>(
        &mut self,
        core: &mut Core<B>,
        listeners: &mut Listeners,
        phase: Phase,
        key: Key,
        readiness: Readiness,
    ) -> Result<(), NoListenerLeft> {
        let (now, budget) = (core.reactor.now(), core.limits.datagram_budget);
        if listeners.is_resting(key) {
            return Ok(());
        }
        let Some(Socket::Datagrams(socket)) = core.reactor.get_mut(key) else {
            return Ok(());
        };
        let (buffer, stats) = (&mut self.buffer, &mut core.stats);
        let (socket, filter, note) = (&mut **socket, &mut self.filter, B::note_dropped);
        let before = stats.datagrams_in;
        let is_empty = match &self.responder {
            _ if phase.is_refusing() => {
                let stopping = |_: &mut _, _: &_, _: &_| Err(DropReason::Stopping);
                serve_datagrams(socket, buffer, budget, stats, note, stopping)
            }
            None => {
                let echo = |socket: &mut _, datagram: &_, path: &_| {
                    answer_one(socket, datagram, path, filter, now, |_| Ok(datagram))
                };
                serve_datagrams(socket, buffer, budget, stats, note, echo)
            }
            Some(responder) => {
                let mut answer = Vec::new();
                let respond = |socket: &mut _, datagram: &_, path: &_| {
                    let answer = &mut answer;
                    answer_one(socket, datagram, path, filter, now, move |sender| {
                        answer_datagram(&**responder, datagram, &sender.into(), answer)
                    })
                };
                serve_datagrams(socket, buffer, budget, stats, note, respond)
            }
        };
        let count = stats.datagrams_in - before;
        match is_empty {
            Ok(true) => listeners.on_queue_empty(core, phase, key),
            Ok(false) if self.has_drained(key, count) => listeners.close(core, key),
            Ok(false) => {
                listeners.on_success(key);
                core.stats.budget_yields += 1;
                core.note(Decision::BudgetSpent(key));
                core.reactor.requeue(key, readiness);
            }
            Err(error) => return receive_failed(core, listeners, phase, key, error),
        }
        Ok(())
    }

    /// Lets this socket answer at most `count` more datagrams before it is closed: under a flood, its queue never becomes
    /// empty.
    pub(super) fn begin_drain(&mut self, key: Key, count: u64) {
        self.drain_left.insert(key, count);
    }

    /// Counts datagrams of a socket that drains. Returns whether these were the last ones that it may answer.
    fn has_drained(&mut self, key: Key, count: u64) -> bool {
        let Some(left) = self.drain_left.get_mut(&key) else {
            return false;
        };
        *left = left.saturating_sub(count);
        *left == 0
    }
}

/// Receiving failed for a reason that is not one datagram's alone.
#[cold]
fn receive_failed<B: Backend>(
    core: &mut Core<B>,
    listeners: &mut Listeners,
    phase: Phase,
    key: Key,
    error: io::Error,
) -> Result<(), NoListenerLeft> {
    let calls = core.limits.datagram_budget;
    match accept::judge_receive(&error) {
        AcceptError::Listener => return listeners.close_failed(core, phase, key, error),
        class => {
            if !listeners.on_failure(core, phase, key, calls, &error, class) {
                core.reactor.requeue(key, Readiness::Normal);
            }
        }
    }
    Ok(())
}

/// Has the queued datagrams answered, `budget` of them at most, and tells `on_drop` why one is not. Returns whether the queue
/// is empty.
///
/// # Errors
/// Those of recvmsg(2) that concern more than one datagram; also the last error of a whole budget of calls that all failed.
#[inline]
fn serve_datagrams<D: Datagrams>(
    socket: &mut D,
    read_buffer: &mut [u8],
    budget: usize,
    stats: &mut Stats,
    on_drop: impl Fn(&D, DropReason),
    mut answer: impl FnMut(&mut D, &[u8], &D::ReplyPath) -> Result<(), DropReason>,
) -> io::Result<bool> {
    let mut last_error = None;
    for _ in 0..budget {
        match receive_one(socket, read_buffer, stats)? {
            Received::Nothing => return Ok(true),
            Received::Error(error) => last_error = Some(error),
            Received::Datagram(length, path) => {
                last_error = None;
                match answer(socket, &read_buffer[..length], &path) {
                    Ok(()) => stats.datagrams_out += 1,
                    Err(reason) => {
                        stats.drop_datagram(reason);
                        on_drop(socket, reason);
                    }
                }
            }
        }
    }
    last_error.map_or(Ok(false), Err)
}

/// What one receive call returned.
enum Received<R> {
    Datagram(usize, R),
    Nothing,
    /// An error that does not concern the next datagram.
    Error(io::Error),
}

/// Receives one datagram, and counts it or the error.
fn receive_one<D: Datagrams>(
    socket: &mut D,
    read_buffer: &mut [u8],
    stats: &mut Stats,
) -> io::Result<Received<D::ReplyPath>> {
    match socket.receive(read_buffer) {
        Ok((length, path)) => {
            stats.datagrams_in += 1;
            Ok(Received::Datagram(length, path))
        }
        Err(error) => match accept::judge_receive(&error) {
            AcceptError::WouldBlock => Ok(Received::Nothing),
            class => {
                stats.receive_error(&error);
                match class {
                    AcceptError::Connection => Ok(Received::Error(error)),
                    _ => Err(error),
                }
            }
        },
    }
}

/// Sends the answer to one datagram, which `answer` makes for its sender.
///
/// # Errors
/// Why it is dropped instead.
fn answer_one<'a, D: Datagrams>(
    socket: &mut D,
    datagram: &[u8],
    path: &D::ReplyPath,
    udp_filter: &mut UdpFilter,
    now: Instant,
    answer: impl FnOnce(Sender<'_>) -> Result<&'a [u8], DropReason>,
) -> Result<(), DropReason> {
    let sender = D::sender(path);
    if log::log_enabled!(target: trace::TARGET, log::Level::Trace) {
        trace::log_received_from(&sender.into(), datagram);
    }
    // One that fills the buffer may have been cut.
    if datagram.len() == DATAGRAM_BYTES_MAX {
        return Err(DropReason::TooLong);
    }
    D::check(path).map_err(|reason| match reason {
        Unanswerable::Group => DropReason::Group,
        Unanswerable::NoDestination => DropReason::NoDestination,
        Unanswerable::ForeignSender => DropReason::ForeignSender,
        Unanswerable::Injected => DropReason::Injected,
    })?;
    udp_filter.admit(sender, now)?;
    let answer = answer(sender)?;
    loop {
        match socket.reply(answer, path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if accept::is_send_queue_full(&error) => {
                return Err(DropReason::WouldBlock);
            }
            Err(error) => {
                log::debug!("no answer to {}: {error}", Peer::from(sender));
                return Err(DropReason::Error);
            }
        }
    }
}
