//! Cost of the parts of an echo, each by itself, over sockets in memory and without a kernel.
//!
//! `cargo bench --bench parts` measures; `cargo test --benches` and CI run each once. The whole server is compared with its
//! blocking models in `echo`.

use divan::{Bencher, black_box, counter::BytesCount};
use echo_reactor::echo::connection::{Connection, Outcome};
use echo_reactor::echo::read_buffer::ReadBuffer;
use echo_reactor::echo::write_buffer::WriteBuffer;
use echo_reactor::net::{Peer, Stream};
use echo_reactor::reactor::{
    Event, Interest, Reactor, Readiness, Registration, Selector, Source, TimeoutClass,
};
use echo_reactor::{Limits, Stats};
use mio::Token;
use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

fn main() {
    divan::main();
}

/// A socket in memory: it has one message to read, and takes at most `takes_bytes` of each write.
struct Memory {
    unread_bytes: usize,
    takes_bytes: usize,
}

impl Read for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.unread_bytes {
            0 => Err(ErrorKind::WouldBlock.into()),
            unread => {
                let count = unread.min(buffer.len());
                buffer[..count].fill(b'x');
                self.unread_bytes -= count;
                Ok(count)
            }
        }
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len().min(self.takes_bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Memory {
    fn short_read_means_empty(&self) -> bool {
        true
    }

    fn send_room(&self) -> usize {
        0
    }

    fn shutdown_write(&self) -> io::Result<()> {
        Ok(())
    }

    fn reset_on_close(&self) {}

    fn peer(&self) -> Peer {
        Peer::Unnamed
    }
}

/// One message through a connection whose peer takes it at once: the path of nearly every echo.
#[divan::bench(args = [64, 4096, 65_536])]
fn connection_echoes(bencher: Bencher<'_, '_>, message_bytes: usize) {
    connection(bencher, message_bytes, usize::MAX);
}

/// The same with a peer that takes half at a time: the rest goes into the write buffer, and is flushed in the next
/// turn.
#[divan::bench(args = [64, 4096, 65_536])]
fn connection_keeps_unsent_bytes(bencher: Bencher<'_, '_>, message_bytes: usize) {
    connection(bencher, message_bytes, message_bytes / 2);
}

fn connection(bencher: Bencher<'_, '_>, message_bytes: usize, takes_bytes: usize) {
    let mut read_buffer = ReadBuffer::new(&Limits::default());
    let mut stats = Stats::default();
    let message = |_: ()| Memory {
        unread_bytes: message_bytes,
        takes_bytes,
    };
    bencher
        .counter(BytesCount::new(message_bytes))
        .with_inputs(|| Connection::new(message(())))
        .bench_local_refs(|connection| {
            loop {
                match connection.advance(
                    Readiness::Normal,
                    &mut read_buffer,
                    usize::MAX,
                    &mut stats,
                ) {
                    Outcome::Wait(_) => {}
                    outcome => break black_box(outcome),
                }
            }
        });
}

/// A write buffer is filled and consumed in four parts.
#[divan::bench(args = [64, 4096, 65_536])]
fn write_buffer_is_stored_and_consumed(bencher: Bencher<'_, '_>, bytes: usize) {
    let unsent = vec![b'x'; bytes];
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        let mut buffer = WriteBuffer::default();
        buffer.store(black_box(&unsent)).expect("memory");
        while !buffer.is_empty() {
            let part = buffer.remaining().len().min(bytes / 4);
            buffer.consume(black_box(part));
        }
    });
}

/// A selector that reports every source as ready; or, if it is silent, none.
#[derive(Debug)]
struct AllReady {
    tokens: RefCell<Vec<Token>>,
    now: Instant,
    silent: bool,
}

struct NullSource;

impl Source<RefCell<Vec<Token>>> for NullSource {
    fn register(
        &mut self,
        tokens: &RefCell<Vec<Token>>,
        token: Token,
        _: Interest,
    ) -> io::Result<()> {
        tokens.borrow_mut().push(token);
        Ok(())
    }

    fn reregister(&mut self, _: &RefCell<Vec<Token>>, _: Token, _: Interest) -> io::Result<()> {
        Ok(())
    }

    fn deregister(&mut self, _: &RefCell<Vec<Token>>) -> io::Result<()> {
        Ok(())
    }
}

impl Selector for AllReady {
    type Registry = RefCell<Vec<Token>>;

    fn registry(&self) -> &RefCell<Vec<Token>> {
        &self.tokens
    }

    fn wait(
        &mut self,
        _: Option<Duration>,
        mut report: impl FnMut(Token, Readiness),
    ) -> io::Result<bool> {
        if !self.silent {
            self.tokens
                .borrow()
                .iter()
                .for_each(|&token| report(token, Readiness::Normal));
        }
        Ok(true)
    }

    fn now(&self) -> Instant {
        self.now
    }
}

fn reactor(sources: usize, silent: bool) -> Reactor<NullSource, AllReady> {
    let mut reactor = Reactor::new(AllReady {
        tokens: RefCell::default(),
        now: Instant::now(),
        silent,
    });
    let class = reactor.timeout_class(Some(Duration::from_secs(60)));
    for _ in 0..sources {
        let registration = Registration {
            interest: Interest::Read,
            class,
        };
        assert!(reactor.add(NullSource, registration).is_ok());
    }
    reactor
}

/// A turn with every source ready: keys, the run queue and the deadlines, without bytes.
#[divan::bench(args = [1, 50, 1_000])]
fn turn_of_the_reactor(bencher: Bencher<'_, '_>, sources: usize) {
    let mut reactor = reactor(sources, false);
    bencher
        .counter(divan::counter::ItemsCount::new(sources))
        .bench_local(|| {
            reactor.wait(None).expect("a wait in memory");
            while let Some(event) = reactor.next_event() {
                if let Event::Ready(key, readiness) = event {
                    black_box(reactor.begin_event(key, readiness).is_some());
                }
            }
        });
}

/// Every source has spent its budget and is requeued: keys and the run queue, with a selector that reports nothing.
#[divan::bench(args = [1, 50, 1_000])]
fn run_queue_is_swept(bencher: Bencher<'_, '_>, sources: usize) {
    let mut reactor = reactor(sources, true);
    for key in reactor.keys() {
        reactor.requeue(key, Readiness::Normal);
    }
    bencher
        .counter(divan::counter::ItemsCount::new(sources))
        .bench_local(|| {
            reactor.wait(None).expect("a wait in memory");
            while let Some(event) = reactor.next_event() {
                if let Event::Ready(key, readiness) = event {
                    reactor.requeue(black_box(key), readiness);
                }
            }
        });
}

/// A key is looked up among a thousand: its slot, and whether its generation is that of the value.
#[divan::bench]
fn key_is_looked_up(bencher: Bencher<'_, '_>) {
    let mut reactor = reactor(1_000, true);
    let keys = reactor.keys();
    bencher
        .counter(divan::counter::ItemsCount::new(keys.len()))
        .bench_local(|| {
            for &key in &keys {
                black_box(reactor.get_mut(black_box(key)).is_some());
            }
        });
}

/// A source is added and closed: slot, generation, deadline.
#[divan::bench]
fn slot_is_taken_and_freed(bencher: Bencher<'_, '_>) {
    let mut reactor = reactor(1_000, true);
    bencher.bench_local(|| {
        let registration = Registration {
            interest: Interest::Read,
            class: TimeoutClass::NEVER,
        };
        if let Ok(key) = reactor.add(NullSource, registration) {
            black_box(reactor.close(key));
        }
    });
}

/// Latencies are recorded, as the load generator does for every answer.
#[cfg(feature = "bench")]
#[divan::bench]
fn latency_is_recorded(bencher: Bencher<'_, '_>) {
    let mut latencies = echo_reactor::load::latencies();
    // Scattered: a prime step around the range.
    let values: Vec<u64> = (0..1_000)
        .map(|place| place * 7_368_787 % 10_000_000)
        .collect();
    bencher
        .counter(divan::counter::ItemsCount::new(values.len()))
        .bench_local(|| {
            for &value in &values {
                latencies.saturating_record(black_box(value));
            }
        });
}

/// A percentile is read, as a report does for each that it prints.
#[cfg(feature = "bench")]
#[divan::bench]
fn percentile_is_read(bencher: Bencher<'_, '_>) {
    let mut latencies = echo_reactor::load::latencies();
    (1..=100_000).for_each(|value| latencies.saturating_record(value * 100));
    bencher.bench_local(|| black_box(latencies.value_at_quantile(black_box(0.99))));
}
