//! Streams with a delay, and with an end after so many bytes; and the listener that makes them.

use super::delay_line::DelayLine;
use super::injector::{Injector, Reports};
use crate::net::{Accepted, Listener, Peer, Stream};
use crate::reactor::{Interest, Source, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::time::Instant;

/// Reads that discard input after the last byte was echoed, before other sources have their turn.
const DISCARDS_PER_TURN: u32 = 16;

/// The stream `S`, with ordered faults.
#[derive(Debug)]
pub(crate) struct FaultyStream<S> {
    inner: S,
    reports: Reports,
    /// `None` without a delay. In a box: a connection without one needs no room for it.
    line: Option<Box<DelayLine>>,
    /// Bytes that are still to be echoed; `None` is without end.
    left: Option<u64>,
    /// The last byte is echoed and FIN is sent: the peer has until then for its own.
    gives_up_at: Option<Instant>,
}

impl<S: Stream> FaultyStream<S> {
    fn new(inner: S, injector: Injector) -> Self {
        let faults = injector.faults();
        let has_delay = !faults.delay.is_zero();
        Self {
            line: has_delay.then(|| Box::new(DelayLine::new(faults.delay))),
            left: faults.close_after,
            gives_up_at: None,
            inner,
            reports: Reports::new(injector),
        }
    }

    /// Reads as the server does, with this clock.
    fn read_by(&mut self, buffer: &mut [u8], clock: impl Fn() -> Instant) -> io::Result<usize> {
        let Some(left) = self.left else {
            return self.read_late(buffer, clock);
        };
        if left == 0 {
            return self.read_after_the_end(buffer, clock);
        }
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = self.read_late(&mut buffer[..most], clock)?;
        self.left = Some(left - count as u64);
        Ok(count)
    }

    /// Reads what is due.
    fn read_late(&mut self, buffer: &mut [u8], clock: impl Fn() -> Instant) -> io::Result<usize> {
        let Some(line) = &mut self.line else {
            return self.inner.read(buffer);
        };
        line.fill(&mut self.inner, &clock)?;
        let taken = line.take(buffer, clock());
        if taken.is_err() {
            self.reports.ask(line.due_at());
        }
        taken
    }

    /// The server reads on, so it has echoed the last byte: sends FIN, and discards what arrives until the FIN of the peer.
    /// A close with unread input would send RST, which may destroy the last echoes.
    fn read_after_the_end(
        &mut self,
        buffer: &mut [u8],
        clock: impl Fn() -> Instant,
    ) -> io::Result<usize> {
        let gives_up_at = match self.gives_up_at {
            Some(at) => at,
            None => {
                let _ = self.inner.shutdown_write(); // a peer that is gone is told by the read
                clock() + self.reports.injector().faults().fin_timeout
            }
        };
        self.gives_up_at = Some(gives_up_at);
        if clock() >= gives_up_at {
            return Ok(0);
        }
        for _ in 0..DISCARDS_PER_TURN {
            match self.inner.read(buffer) {
                Ok(0) => return Ok(0),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.reports.ask(Some(gives_up_at));
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
        self.reports.ask_again(Some(clock()));
        Err(ErrorKind::WouldBlock.into())
    }

    /// When there is something to read that the kernel does not know of.
    fn due_at(&self, now: Instant) -> Option<Instant> {
        match self.left {
            Some(0) => Some(now),
            _ => self.line.as_ref().and_then(|line| line.due_at()),
        }
    }
}

impl<S: Stream> Read for FaultyStream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_by(buffer, Instant::now)
    }
}

impl<S: Write> Write for FaultyStream<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<S: Stream> Stream for FaultyStream<S> {
    /// What is short here is what was due: only a read that would block asks for the next report.
    fn short_read_means_empty(&self) -> bool {
        false
    }

    fn send_room(&self) -> usize {
        self.inner.send_room()
    }

    fn shutdown_write(&self) -> io::Result<()> {
        self.inner.shutdown_write()
    }

    fn reset_on_close(&self) {
        self.inner.reset_on_close();
    }

    fn peer(&self) -> Peer {
        self.inner.peer()
    }
}

impl<R: ?Sized, S: Source<R> + Stream> Source<R> for FaultyStream<S> {
    fn register(&mut self, registry: &R, token: Token, interest: Interest) -> io::Result<()> {
        self.reports.set_token(token);
        self.inner.register(registry, token, interest)
    }

    fn reregister(&mut self, registry: &R, token: Token, interest: Interest) -> io::Result<()> {
        self.inner.reregister(registry, token, interest)?;
        if interest == Interest::Read {
            // As the kernel does, which reports readiness that is present.
            let due_at = self.due_at(Instant::now());
            self.reports.ask_again(due_at);
        }
        Ok(())
    }

    fn deregister(&mut self, registry: &R) -> io::Result<()> {
        self.inner.deregister(registry)
    }
}

/// The listener `L`, whose streams have ordered faults.
#[derive(Debug)]
pub(crate) struct FaultyListener<L> {
    inner: L,
    injector: Injector,
}

impl<L> FaultyListener<L> {
    pub(super) fn new(inner: L, injector: Injector) -> Self {
        Self { inner, injector }
    }
}

impl<L: Listener> Listener for FaultyListener<L> {
    type Stream = FaultyStream<L::Stream>;

    fn accept(&mut self) -> io::Result<Accepted<Self::Stream>> {
        let accepted = self.inner.accept()?;
        Ok(Accepted {
            stream: FaultyStream::new(accepted.stream, self.injector.clone()),
            peer: accepted.peer,
            option_errors: accepted.option_errors,
        })
    }
}

impl<R: ?Sized, L: Source<R>> Source<R> for FaultyListener<L> {
    fn register(&mut self, registry: &R, token: Token, interest: Interest) -> io::Result<()> {
        self.inner.register(registry, token, interest)
    }

    fn reregister(&mut self, registry: &R, token: Token, interest: Interest) -> io::Result<()> {
        self.inner.reregister(registry, token, interest)
    }

    fn deregister(&mut self, registry: &R) -> io::Result<()> {
        self.inner.deregister(registry)
    }
}
