//! A backend that records what goes through another one.

use super::record::{Kind, NO_SOURCE, Record, SourceId, SourceType};
use super::recorder::{Recorder, Wait};
use crate::echo::decision::Decision;
use crate::echo::{Backend, Native};
use crate::net::{
    Accepted, DatagramSocket, Datagrams, Listener, ListenerSocket, Peer, Sender, Stream,
    Unanswerable,
};
use crate::reactor::{Epoll, Interest, Key, Readiness, Selector, Source, Step, Token};
use crate::stats::DropReason;
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::time::{Duration, Instant};

/// The backend `B`, with a [`Recorder`] between it and the server. It is the name of types alone, and has no values.
#[derive(Debug)]
pub struct Traced<B>(PhantomData<B>);

impl<B: Backend> Backend for Traced<B> {
    type Selector = TracedSelector<B::Selector>;
    type Stream = TracedSocket<B::Stream>;
    type Listener = TracedSocket<B::Listener>;
    type Datagrams = TracedSocket<B::Datagrams>;

    fn note(selector: &Self::Selector, decision: Decision) {
        selector.recorder.decision(decision);
        B::note(&selector.inner, decision);
    }

    fn note_dropped(socket: &Self::Datagrams, reason: DropReason) {
        let record = Record {
            detail: reason as u8,
            ..socket.record(Kind::Dropped)
        };
        socket.recorder.call(record, &Ok(()));
        B::note_dropped(&socket.inner, reason);
    }
}

impl<B> Native for Traced<B>
where
    B: Native,
{
    fn epoll(selector: &Self::Selector) -> &Epoll {
        B::epoll(&selector.inner)
    }

    fn listener(selector: &Self::Selector, socket: ListenerSocket) -> Self::Listener {
        selector.listener(B::listener(&selector.inner, socket))
    }

    fn datagrams(selector: &Self::Selector, socket: DatagramSocket) -> Self::Datagrams {
        selector.datagrams(B::datagrams(&selector.inner, socket))
    }
}

/// A selector that records each wait, and what it reports.
#[derive(Debug)]
pub struct TracedSelector<P> {
    inner: P,
    recorder: Recorder,
    /// What the last wait reported; kept, so that its memory is allocated once.
    reported: Vec<(Token, Readiness)>,
    /// The last wait. While the loop polls before it sleeps, all of that is one.
    wait: Wait,
    /// The core was offered to other threads: the last wait was a poll that found nothing.
    is_polling: bool,
}

impl<P> TracedSelector<P> {
    /// Wraps a selector.
    pub fn new(inner: P, recorder: Recorder) -> Self {
        Self {
            inner,
            recorder,
            reported: Vec::new(),
            wait: Wait::default(),
            is_polling: false,
        }
    }

    /// Wraps a listener.
    pub fn listener<L>(&self, inner: L) -> TracedSocket<L> {
        TracedSocket::new(inner, SourceType::Listener, self.recorder.clone())
    }

    /// Wraps a datagram socket.
    pub fn datagrams<D>(&self, inner: D) -> TracedSocket<D> {
        TracedSocket::new(inner, SourceType::Datagrams, self.recorder.clone())
    }
}

impl<P: Selector> Selector for TracedSelector<P> {
    type Registry = P::Registry;

    fn registry(&self) -> &P::Registry {
        self.inner.registry()
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        mut report: impl FnMut(Token, Readiness),
    ) -> io::Result<bool> {
        let goes_on = std::mem::take(&mut self.is_polling);
        self.wait = Wait {
            began_ns: match goes_on {
                true => self.wait.began_ns,
                false => self.recorder.now_ns(),
            },
            goes_on,
            is_polled: goes_on && timeout == Some(Duration::ZERO),
        };
        let reported = &mut self.reported;
        reported.clear();
        let result = self.inner.wait(timeout, |token, readiness| {
            reported.push((token, readiness));
            report(token, readiness);
        });
        self.recorder.set_time(self.inner.now());
        let events = self.reported.iter();
        let events = events.map(|&(token, readiness)| (Key::of_source(token), readiness));
        self.recorder.turn(&self.wait, &result, events);
        result
    }

    fn now(&self) -> Instant {
        let now = self.inner.now();
        self.recorder.set_time(now);
        now
    }

    fn yield_core(&mut self) {
        self.is_polling = true;
        self.inner.yield_core();
    }

    fn is_watched(&self) -> bool {
        self.inner.is_watched()
    }

    fn announce(&mut self, due: Duration) {
        self.inner.announce(due);
    }

    fn note(&self, step: Step) {
        self.recorder.step(step);
        self.inner.note(step);
    }
}

/// A socket that records each call with its result.
#[derive(Debug)]
pub struct TracedSocket<S> {
    inner: S,
    source_type: SourceType,
    /// The number of its [`SourceId`]; [`NO_SOURCE`] until it is registered.
    subject: u64,
    recorder: Recorder,
}

impl<S> TracedSocket<S> {
    fn new(inner: S, source_type: SourceType, recorder: Recorder) -> Self {
        Self {
            inner,
            source_type,
            subject: NO_SOURCE,
            recorder,
        }
    }

    #[inline]
    fn record(&self, kind: Kind) -> Record {
        Record {
            subject: self.subject,
            ..Record::new(kind)
        }
    }
}

impl<R: ?Sized, S: Source<R>> Source<R> for TracedSocket<S> {
    fn register(&mut self, registry: &R, token: Token, interest: Interest) -> io::Result<()> {
        self.subject = Key::of_source(token).map_or(NO_SOURCE, |key| SourceId::from(key).number());
        let result = self.inner.register(registry, token, interest);
        let record = Record {
            detail: interest as u8,
            asked: self.source_type as u32,
            ..self.record(Kind::Registered)
        };
        self.recorder.call(record, &result);
        result
    }

    fn reregister(&mut self, registry: &R, token: Token, interest: Interest) -> io::Result<()> {
        let result = self.inner.reregister(registry, token, interest);
        let record = Record {
            detail: interest as u8,
            ..self.record(Kind::Reregistered)
        };
        self.recorder.call(record, &result);
        result
    }

    fn deregister(&mut self, registry: &R) -> io::Result<()> {
        let result = self.inner.deregister(registry);
        self.recorder.call(self.record(Kind::Deregistered), &result);
        result
    }
}

impl<S: Read> Read for TracedSocket<S> {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(buffer);
        let record = Record {
            asked: u32::try_from(buffer.len()).unwrap_or(u32::MAX),
            amount: *result.as_ref().unwrap_or(&0) as u64,
            ..self.record(Kind::Read)
        };
        self.recorder.call(record, &result);
        result
    }
}

impl<S: Write> Write for TracedSocket<S> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.inner.write(bytes);
        let record = Record {
            asked: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            amount: *result.as_ref().unwrap_or(&0) as u64,
            ..self.record(Kind::Write)
        };
        self.recorder.call(record, &result);
        result
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<S: Stream> Stream for TracedSocket<S> {
    fn short_read_means_empty(&self) -> bool {
        self.inner.short_read_means_empty()
    }

    fn send_room(&self) -> usize {
        self.inner.send_room()
    }

    fn shutdown_write(&self) -> io::Result<()> {
        let result = self.inner.shutdown_write();
        self.recorder.call(self.record(Kind::Fin), &result);
        result
    }

    fn reset_on_close(&self) {
        self.inner.reset_on_close();
        self.recorder.call(self.record(Kind::ResetOnClose), &Ok(()));
    }

    fn peer(&self) -> Peer {
        self.inner.peer()
    }
}

impl<L: Listener> Listener for TracedSocket<L> {
    type Stream = TracedSocket<L::Stream>;

    fn accept(&mut self) -> io::Result<Accepted<Self::Stream>> {
        let result = self.inner.accept();
        self.recorder.call(self.record(Kind::Accepted), &result);
        let accepted = result?;
        let recorder = self.recorder.clone();
        Ok(Accepted {
            stream: TracedSocket::new(accepted.stream, SourceType::Connection, recorder),
            peer: accepted.peer,
            option_errors: accepted.option_errors,
        })
    }
}

impl<D: Datagrams> TracedSocket<D> {
    fn record_received<T>(&self, length: usize, result: &io::Result<T>) {
        let record = Record {
            amount: length as u64,
            ..self.record(Kind::Received)
        };
        self.recorder.call(record, result);
    }
}

impl<D: Datagrams> Datagrams for TracedSocket<D> {
    type ReplyPath = D::ReplyPath;

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, D::ReplyPath)> {
        let result = self.inner.receive(buffer);
        self.record_received(result.as_ref().map_or(0, |&(length, _)| length), &result);
        result
    }

    fn receive_several(
        &mut self,
        buffer: &mut [u8],
        count: usize,
        received: &mut Vec<(usize, D::ReplyPath)>,
    ) -> io::Result<()> {
        let before = received.len();
        let result = self.inner.receive_several(buffer, count, received);
        if result.is_err() {
            self.record_received(0, &result);
        }
        for (length, _) in &received[before..] {
            self.record_received(*length, &result);
        }
        result
    }

    fn reply(&mut self, datagram: &[u8], path: &D::ReplyPath) -> io::Result<()> {
        let result = self.inner.reply(datagram, path);
        let record = Record {
            asked: u32::try_from(datagram.len()).unwrap_or(u32::MAX),
            ..self.record(Kind::Replied)
        };
        self.recorder.call(record, &result);
        result
    }

    fn sender(path: &D::ReplyPath) -> Sender<'_> {
        D::sender(path)
    }

    fn check(path: &D::ReplyPath) -> Result<(), Unanswerable> {
        D::check(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// A selector that reports an event at each third wait, and whose clock advances by a microsecond at each reading.
    struct Third {
        waits: u32,
        now: Cell<Instant>,
    }

    impl Selector for Third {
        type Registry = ();

        fn registry(&self) -> &() {
            &()
        }

        fn wait(
            &mut self,
            _: Option<Duration>,
            mut report: impl FnMut(Token, Readiness),
        ) -> io::Result<bool> {
            self.waits += 1;
            if self.waits % 3 == 0 {
                report(Token(1), Readiness::Normal);
            }
            Ok(true)
        }

        fn now(&self) -> Instant {
            self.now.set(self.now.get() + Duration::from_micros(1));
            self.now.get()
        }
    }

    #[test]
    fn polls_before_a_sleep_are_one_turn_with_it() {
        let recorder = Recorder::simulated(100);
        let now = Cell::new(Instant::now());
        let mut selector = TracedSelector::new(Third { waits: 0, now }, recorder.clone());
        let mut turn = |last| {
            for timeout in [Some(Duration::ZERO), Some(Duration::ZERO), last] {
                selector.wait(timeout, |_, _| {}).unwrap();
                if selector.inner.waits % 3 != 0 {
                    selector.yield_core();
                }
            }
        };
        turn(Some(Duration::ZERO)); // ended by a poll
        turn(None); // ended by a sleep
        let records = recorder.trace().records;
        let told = records
            .iter()
            .map(|record| (record.kind, record.subject, record.detail));
        let expected = [
            (Kind::Turn, 1, 1),
            (Kind::Ready, 1, 0),
            (Kind::Turn, 2, 0),
            (Kind::Ready, 1, 0),
        ];
        assert!(told.eq(expected), "{records:?}");
        assert!(records[2].amount >= 2_000, "all three waits: {records:?}");
    }
}
