//! Datagram echo: each datagram is answered at once, or dropped and counted with a reason.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! A datagram socket has no connections, so there is no state machine, and a datagram of no bytes is a datagram, not an end.
//! Nothing is ever stored: if the send buffer has no room for a reply, a reply sent later would reach a sender that has
//! given up on it.
//!
//! A system call costs more than all of the code that runs for a datagram. So where the queue is long several datagrams are
//! read by one call (recvmmsg(2)). Each is still answered by a call of its own: its reply has its own source address
//! (`net::datagram`) and its own result, and a send buffer that is full at one of them drops that one.

use super::answers::{Responder, answer_datagram};
use super::backend::{Backend, Socket};
use super::core::Core;
use super::decision::Decision;
use super::listeners::{Listeners, NoListenerLeft};
use super::phase::Phase;
use super::udp_filter::UdpFilter;
use crate::net::accept::{self, AcceptError};
use crate::net::{BATCH_MAX, DATAGRAM_BYTES_MAX, Datagrams, Peer, Sender, Unanswerable, trace};
use crate::reactor::{Key, Readiness};
use crate::stats::{DropReason, Stats};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Instant;

/// How many datagrams are read one by one before several are read by one call.
const SINGLES: usize = 2;

/// The part of the server that answers datagrams.
#[derive(Debug)]
pub(super) struct DatagramEcho<B: Backend> {
    pub(super) filter: UdpFilter,
    /// Makes answers in place of echoes.
    pub(super) responder: Option<Arc<dyn Responder>>,
    /// The buffer that every datagram is read into; empty until there is a datagram socket.
    buffer: Box<[u8]>,
    /// The datagrams in it: their lengths, and the paths of their answers. Kept, so that its memory is allocated once.
    received: Vec<(usize, <B::Datagrams as Datagrams>::ReplyPath)>,
    /// While the server drains: how many datagrams each socket may still answer.
    drain_left: HashMap<Key, u64>,
}

impl<B: Backend> DatagramEcho<B> {
    pub(super) fn new(filter: UdpFilter) -> Self {
        Self {
            filter,
            responder: None,
            buffer: Box::default(),
            received: Vec::new(),
            drain_left: HashMap::new(),
        }
    }

    /// Makes the buffer, if there is none yet: a server without a datagram socket needs none.
    pub(super) fn allocate_buffer(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = vec![0; BATCH_MAX * DATAGRAM_BYTES_MAX].into_boxed_slice();
        }
    }

    /// Answers the datagrams that are queued at a socket, as many as one turn allows; drops them once the time for
    /// answering is over.
    ///
    /// # Errors
    /// The socket is broken for good, it was the last one, and the server is not stopping.
    #[inline(never)]
    pub(super) fn answer(
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
        let (buffer, received, stats) = (&mut self.buffer, &mut self.received, &mut core.stats);
        let (socket, filter, note) = (&mut **socket, &mut self.filter, B::note_dropped);
        let before = stats.datagrams_in;
        let (responder, mut text) = (self.responder.as_deref(), Vec::new());
        let answer = |socket: &mut _, datagram: &_, path: &_| {
            if phase.is_refusing() {
                return Err(DropReason::Stopping);
            }
            let text = &mut text;
            answer_one(
                socket,
                datagram,
                path,
                filter,
                now,
                move |sender| match responder {
                    None => Ok(datagram),
                    Some(responder) => answer_datagram(responder, datagram, &sender.into(), text),
                },
            )
        };
        let is_empty = serve_datagrams(socket, buffer, received, budget, stats, note, answer);
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

/// Takes queued datagrams, `budget` of them at most, answers each by `answer`, and tells `on_drop` why one has no answer.
/// Returns whether the queue is empty.
///
/// The first datagrams are read one by one, which is the plainest call; once [`SINGLES`] in a row were there, each call asks
/// for [`BATCH_MAX`], until one reads fewer.
///
/// # Errors
/// Those of recvmsg(2) that concern more than one datagram; also the last error of a whole budget of calls that all failed.
#[inline]
fn serve_datagrams<D: Datagrams>(
    socket: &mut D,
    buffer: &mut [u8],
    received: &mut Vec<(usize, D::ReplyPath)>,
    budget: usize,
    stats: &mut Stats,
    on_drop: impl Fn(&D, DropReason),
    mut answer: impl FnMut(&mut D, &[u8], &D::ReplyPath) -> Result<(), DropReason>,
) -> io::Result<bool> {
    let (mut left, mut in_a_row, mut last_error) = (budget, 0, None);
    while left > 0 {
        let asked = match in_a_row {
            ..SINGLES => 1,
            _ => BATCH_MAX.min(left),
        };
        received.clear();
        if let Err(error) = socket.receive_several(buffer, asked, received) {
            let class = accept::judge_receive(&error);
            if class == AcceptError::WouldBlock {
                return Ok(true);
            }
            stats.receive_error(&error);
            if class != AcceptError::Connection {
                return Err(error);
            }
            left -= 1;
            last_error = Some(error);
            continue;
        }
        for (part, (length, path)) in received.iter().enumerate() {
            stats.datagrams_in += 1;
            let datagram = &buffer[part * DATAGRAM_BYTES_MAX..][..*length];
            match answer(socket, datagram, path) {
                Ok(()) => stats.datagrams_out += 1,
                Err(reason) => {
                    stats.drop_datagram(reason);
                    on_drop(socket, reason);
                }
            }
        }
        let count = received.len();
        left -= count;
        in_a_row = if count < asked { 0 } else { in_a_row + count };
        last_error = None;
    }
    last_error.map_or(Ok(false), Err)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;

    /// A socket with a queue, which records how many datagrams each call asks for.
    #[derive(Default)]
    struct Queue {
        queued: usize,
        asked: Vec<usize>,
    }

    impl Datagrams for Queue {
        type ReplyPath = ();

        fn receive(&mut self, _: &mut [u8]) -> io::Result<(usize, ())> {
            unreachable!("the server calls `receive_several`")
        }

        fn receive_several(
            &mut self,
            _: &mut [u8],
            count: usize,
            received: &mut Vec<(usize, ())>,
        ) -> io::Result<()> {
            self.asked.push(count);
            let count = count.min(self.queued);
            self.queued -= count;
            received.extend(std::iter::repeat_n((0, ()), count));
            match count {
                0 => Err(ErrorKind::WouldBlock.into()),
                _ => Ok(()),
            }
        }

        fn reply(&mut self, _: &[u8], _: &()) -> io::Result<()> {
            Ok(())
        }

        fn sender(_: &()) -> Sender<'_> {
            Sender::Abstract(b"client")
        }
    }

    /// Which calls read `queued` datagrams, and how many are left.
    #[track_caller]
    fn check_calls(queued: usize, budget: usize, expected: &[usize], left: usize) {
        let (mut socket, now) = (Queue::default(), Instant::now());
        socket.queued = queued;
        let mut filter = UdpFilter::new(&Limits::default(), Vec::new(), now);
        let mut buffer = vec![0; BATCH_MAX * DATAGRAM_BYTES_MAX];
        let mut stats = Stats::default();
        let is_empty = serve_datagrams(
            &mut socket,
            &mut buffer,
            &mut Vec::new(),
            budget,
            &mut stats,
            |_, _| {},
            |socket, datagram, path| {
                answer_one(socket, datagram, path, &mut filter, now, |_| Ok(datagram))
            },
        );
        assert_eq!(socket.asked, expected);
        assert_eq!((is_empty.unwrap(), socket.queued), (left == 0, left));
        assert_eq!(stats.datagrams_out as usize, queued - left);
    }

    #[test]
    fn several_datagrams_are_read_by_one_call_while_the_queue_is_long() {
        check_calls(0, 64, &[1], 0);
        check_calls(1, 64, &[1, 1], 0);
        check_calls(2, 64, &[1, 1, 8], 0);
        check_calls(3, 64, &[1, 1, 8, 1], 0);
        check_calls(18, 64, &[1, 1, 8, 8, 8], 0);
        check_calls(19, 64, &[1, 1, 8, 8, 8, 1], 0);
    }

    #[test]
    fn a_call_asks_for_no_more_than_the_budget_allows() {
        check_calls(100, 1, &[1], 99);
        check_calls(100, 3, &[1, 1, 1], 97);
        check_calls(100, 13, &[1, 1, 8, 3], 87);
    }
}
