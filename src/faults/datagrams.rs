//! Datagram sockets that answer late, and not every datagram.

use super::injector::{Injector, Reports};
use crate::net::{Datagrams, Sender, Unanswerable};
use crate::reactor::{Interest, Source, Token};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::time::Instant;

/// Most datagrams, and most of their bytes, that wait at one socket; more stay in the kernel, which drops what finds no room.
const WAITING_MAX: usize = 4096;
const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The datagram socket `D`, with ordered faults.
#[derive(Debug)]
pub(crate) struct FaultyDatagrams<D: Datagrams> {
    inner: D,
    reports: Reports,
    waiting: VecDeque<Late<D::ReplyPath>>,
    waiting_bytes: usize,
}

/// A datagram that waits.
#[derive(Debug)]
struct Late<R> {
    due_at: Instant,
    bytes: Vec<u8>,
    path: R,
}

/// The path of an answer, and whether there is to be one.
#[derive(Clone, Debug)]
pub(crate) struct FaultyPath<R> {
    inner: R,
    is_dropped: bool,
}

impl<D: Datagrams> FaultyDatagrams<D> {
    pub(super) fn new(inner: D, injector: Injector) -> Self {
        Self {
            inner,
            reports: Reports::new(injector),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    /// Receives as the server does, with this clock.
    fn receive_by(
        &mut self,
        buffer: &mut [u8],
        clock: impl Fn() -> Instant,
    ) -> io::Result<(usize, FaultyPath<D::ReplyPath>)> {
        let (length, inner) = match self.reports.injector().faults().delay.is_zero() {
            true => self.inner.receive(buffer)?,
            false => self.receive_late(buffer, clock)?,
        };
        let is_dropped = self.reports.injector().drops();
        Ok((length, FaultyPath { inner, is_dropped }))
    }

    fn receive_late(
        &mut self,
        buffer: &mut [u8],
        clock: impl Fn() -> Instant,
    ) -> io::Result<(usize, D::ReplyPath)> {
        let filled = self.fill(buffer, &clock);
        let due_at = self.waiting.front().map(|late| late.due_at);
        if let Err(error) = filled {
            self.reports.ask_again(due_at);
            return Err(error);
        }
        let is_due = due_at.is_some_and(|at| at <= clock());
        let Some(late) = is_due.then(|| self.waiting.pop_front()).flatten() else {
            self.reports.ask(due_at);
            return Err(ErrorKind::WouldBlock.into());
        };
        let length = late.bytes.len();
        self.waiting_bytes -= length;
        buffer[..length].copy_from_slice(&late.bytes);
        Ok((length, late.path))
    }

    /// Takes what is queued in the kernel, by way of `buffer`.
    fn fill(&mut self, buffer: &mut [u8], clock: impl Fn() -> Instant) -> io::Result<()> {
        let delay = self.reports.injector().faults().delay;
        while self.waiting.len() < WAITING_MAX && self.waiting_bytes < WAITING_BYTES_MAX {
            match self.inner.receive(buffer) {
                Ok((length, path)) => {
                    self.waiting_bytes += length;
                    self.waiting.push_back(Late {
                        due_at: clock() + delay,
                        bytes: buffer[..length].to_vec(),
                        path,
                    });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl<D: Datagrams> Datagrams for FaultyDatagrams<D> {
    type ReplyPath = FaultyPath<D::ReplyPath>;

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Self::ReplyPath)> {
        self.receive_by(buffer, Instant::now)
    }

    fn reply(&mut self, datagram: &[u8], path: &Self::ReplyPath) -> io::Result<()> {
        self.inner.reply(datagram, &path.inner)
    }

    fn sender(path: &Self::ReplyPath) -> Sender<'_> {
        D::sender(&path.inner)
    }

    fn check(path: &Self::ReplyPath) -> Result<(), Unanswerable> {
        match path.is_dropped {
            true => Err(Unanswerable::Injected),
            false => D::check(&path.inner),
        }
    }
}

impl<R: ?Sized, D: Datagrams + Source<R>> Source<R> for FaultyDatagrams<D> {
    fn register(&mut self, registry: &R, token: Token, interest: Interest) -> io::Result<()> {
        self.reports.set_token(token);
        self.inner.register(registry, token, interest)
    }

    fn reregister(&mut self, registry: &R, token: Token, interest: Interest) -> io::Result<()> {
        self.inner.reregister(registry, token, interest)
    }

    fn deregister(&mut self, registry: &R) -> io::Result<()> {
        self.inner.deregister(registry)
    }
}
