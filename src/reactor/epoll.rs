//! The selector of a real system: one epoll instance (epoll(7)), used through [`mio::Poll`].
//!
//! | here | epoll(7) |
//! |---|---|
//! | `Poll::new` | epoll_create1(2) |
//! | `Source::register`, `reregister`, `deregister` (file `selector`) | epoll_ctl(2) with EPOLLET, on the interest list |
//! | `Poll::poll` | epoll_wait(2), from the ready list into the event buffer |
//!
//! This is the only file that uses `Poll`. Where a system has kqueue instead of epoll, mio uses that, and nothing changes
//! here.

use super::event::Readiness;
use super::key::EXTERNAL;
use super::outer_loop::OuterLoop;
use super::selector::{SOURCES_PER_TURN, Selector, Token};
use super::waker::Waker;
use mio::{Events, Poll, Registry};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Selector over an epoll instance.
#[derive(Debug)]
pub struct Epoll {
    poll: Poll,
    /// The event buffer.
    events: Events,
    waker: Waker,
    outer_loop: OuterLoop,
}

impl Epoll {
    /// Creates an epoll instance, with an eventfd for its [`Waker`].
    ///
    /// # Errors
    /// Those of epoll_create1(2) and eventfd(2): usually a lack of descriptors.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry())?;
        Ok(Self {
            poll,
            events: Events::with_capacity(SOURCES_PER_TURN),
            waker,
            outer_loop: OuterLoop::default(),
        })
    }

    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Watches an external source, as [`Reactor::watch`](super::Reactor::watch).
    pub(crate) fn watch(&self, source: &mut dyn mio::event::Source) -> io::Result<()> {
        self.poll
            .registry()
            .register(source, EXTERNAL, mio::Interest::READABLE)
    }
}

impl Selector for Epoll {
    type Registry = Registry;

    fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        mut report: impl FnMut(Token, Readiness),
    ) -> io::Result<bool> {
        self.poll.poll(&mut self.events, timeout)?;
        let mut reported = 0;
        for event in &self.events {
            report(event.token(), readiness(event));
            reported += 1;
        }
        Ok(reported < SOURCES_PER_TURN)
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn yield_core(&mut self) {
        std::thread::yield_now();
    }

    fn is_watched(&self) -> bool {
        self.outer_loop.is_watching()
    }

    fn announce(&mut self, due: Duration) {
        self.outer_loop
            .announce(due, &self.waker, self.poll.registry());
    }
}

fn readiness(event: &mio::event::Event) -> Readiness {
    if event.is_read_closed() || event.is_error() || event.is_priority() {
        Readiness::Exceptional
    } else {
        Readiness::Normal
    }
}

/// Descriptor of the epoll instance. Taking it starts the announcements to an outer event loop.
impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.outer_loop.begin();
        self.poll.registry().as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::{Event, Interest, Reactor, Registration, TimeoutClass};
    use mio::event::Source;
    use mio::net::{UnixListener, UnixStream};
    use std::io::Write;
    use std::os::unix::net;

    const READ: Registration = Registration {
        interest: Interest::Read,
        class: TimeoutClass::NEVER,
    };

    /// An interest list keeps a socket as long as any duplicate of its descriptor is open, here or in another process
    /// (epoll(7)). So a listener that is handed over has to be removed from it.
    #[test]
    fn e4_a_listener_that_stays_open_elsewhere_is_removed() {
        let name = format!("echo-reactor-e4-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        let listener = net::UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let duplicate = listener.try_clone().unwrap();
        let mut reactor: Reactor<UnixListener> = Reactor::new(Epoll::new().unwrap());
        let key = reactor.add(UnixListener::from_std(listener), READ).unwrap();
        drop(reactor.release(key));
        let _client = net::UnixStream::connect(&path).unwrap();
        reactor.wait(Some(Duration::ZERO)).unwrap();
        assert_eq!(
            reactor.next_event(),
            None,
            "its events belong to the other process"
        );
        duplicate.accept().expect("the duplicate accepts it");
        std::fs::remove_file(&path).unwrap();
    }

    /// A connection's descriptor has no duplicate, so closing it is enough, and saves a call. If it had one, its events
    /// would be stale.
    #[test]
    fn e4_events_of_a_connection_that_stays_open_elsewhere_are_stale() {
        let (ours, mut peer) = net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let _copy = ours.try_clone().unwrap();
        let mut reactor: Reactor<UnixStream> = Reactor::new(Epoll::new().unwrap());
        let key = reactor.add(UnixStream::from_std(ours), READ).unwrap();
        drop(reactor.close(key));
        let (other, _peer) = UnixStream::pair().unwrap();
        let new_connection = reactor.add(other, READ).unwrap();
        peer.write_all(b"for a closed connection").unwrap();
        reactor.wait(Some(Duration::ZERO)).unwrap();
        while let Some(event) = reactor.next_event() {
            let Event::Ready(key, readiness) = event else {
                panic!("{event:?}")
            };
            assert_ne!(key, new_connection);
            assert!(reactor.begin_event(key, readiness).is_none());
        }
        assert_eq!(reactor.stale_events(), 1);
    }

    /// A full event buffer says nothing about the rest of the ready list.
    #[test]
    fn the_ready_list_is_empty_when_the_event_buffer_is_not_full() {
        let mut epoll = Epoll::new().unwrap();
        let mut pairs: Vec<_> = (0..=SOURCES_PER_TURN)
            .map(|_| UnixStream::pair().unwrap())
            .collect();
        for (number, (ours, peer)) in pairs.iter_mut().enumerate() {
            ours.register(epoll.registry(), Token(number), mio::Interest::READABLE)
                .unwrap();
            peer.write_all(b"1").unwrap();
        }
        let mut wait = || {
            let mut reported = 0;
            let is_empty = epoll
                .wait(Some(Duration::ZERO), |_, _| reported += 1)
                .unwrap();
            (is_empty, reported)
        };
        assert_eq!(wait(), (false, SOURCES_PER_TURN));
        assert_eq!(wait(), (true, 1));
    }

    #[test]
    fn a_source_is_reported_for_what_it_waits_for_now() {
        let (ours, _peer) = UnixStream::pair().unwrap();
        let mut reactor: Reactor<UnixStream> = Reactor::new(Epoll::new().unwrap());
        let key = reactor.add(ours, READ).unwrap();
        reactor.wait(Some(Duration::ZERO)).unwrap();
        assert_eq!(reactor.next_event(), None, "there is nothing to read");
        let write = Registration {
            interest: Interest::Write,
            ..READ
        };
        reactor.set_registration(key, write).unwrap();
        reactor.wait(Some(Duration::ZERO)).unwrap();
        assert_eq!(
            reactor.next_event(),
            Some(Event::Ready(key, Readiness::Normal))
        );
    }
}
