//! The real selector: mio, and epoll below it.
//!
//! All that the reactor asks of an operating system is on this page, and this is the only file that says it in mio's
//! words. (On other Unixes mio puts kqueue in epoll's place; nothing changes here.)

use super::key::{EXTERNAL, WAKE};
use super::outer_loop::OuterLoop;
use super::{Interest, Readiness, SOURCES_PER_TURN, Selector, Source};
use mio::{Events, Poll, Registry, Token};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The event queue of the operating system.
#[derive(Debug)]
pub struct Epoll {
    poll: Poll,
    events: Events,
    waker: Waker,
    outer_loop: OuterLoop,
}

impl Epoll {
    /// A new event queue, with a waker in it.
    ///
    /// # Errors
    /// What `epoll_create1` or `eventfd` said; usually that there are no descriptors left.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker(Arc::new(mio::Waker::new(poll.registry(), WAKE)?));
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

    pub(super) fn watch(&self, source: &mut dyn mio::event::Source) -> io::Result<()> {
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

impl Interest {
    fn to_mio(self) -> mio::Interest {
        match self {
            // Urgent data ends a read early, like a message that carries descriptors. Asking to be told of it is free.
            #[cfg(target_os = "linux")]
            Self::Read => mio::Interest::READABLE | mio::Interest::PRIORITY,
            #[cfg(not(target_os = "linux"))]
            Self::Read => mio::Interest::READABLE,
            Self::Write => mio::Interest::WRITABLE,
        }
    }
}

impl<T: mio::event::Source> Source for T {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        registry.register(self, token, interest.to_mio())
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        registry.reregister(self, token, interest.to_mio())
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        registry.deregister(self)
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.outer_loop.begin(self.poll.registry());
        self.poll.registry().as_fd()
    }
}

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// Ends the wait of a reactor from another thread. What for is between its owner and the caller of the reactor.
#[derive(Clone, Debug)]
pub struct Waker(Arc<mio::Waker>);

impl Waker {
    /// Wakes the reactor, now or at its next wait.
    ///
    /// # Errors
    /// What `write(2)` on an eventfd said: nothing that a sound process would see.
    pub fn wake(&self) -> io::Result<()> {
        self.0.wake()
    }
}

#[cfg(test)]
mod tests {
    use crate::reactor::{Epoll, Event, Interest, Reactor, Registration, TimeoutClass};
    use mio::net::{UnixListener, UnixStream};
    use std::io::Write;
    use std::os::unix::net;
    use std::time::Duration;

    const READ: Registration = Registration {
        interest: Interest::Read,
        class: TimeoutClass::NEVER,
    };

    /// The event queue keeps what it watches as long as any copy of the descriptor is open, here or in another process
    /// (a child, an successor). So who gives a listener away tells the kernel to forget it.
    #[test]
    fn e4_a_listener_that_lives_on_elsewhere_is_forgotten() {
        let name = format!("echo-reactor-e4-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        let listener = net::UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let successors = listener.try_clone().unwrap();
        let mut reactor: Reactor<UnixListener> = Reactor::new(Epoll::new().unwrap());
        let key = reactor.add(UnixListener::from_std(listener), READ).unwrap();
        drop(reactor.release(key));
        let _client = net::UnixStream::connect(&path).unwrap();
        reactor.wait(Some(Duration::ZERO)).unwrap();
        assert_eq!(
            reactor.next_event(),
            None,
            "it is the successor's business now"
        );
        successors.accept().expect("and the successor has it");
        std::fs::remove_file(&path).unwrap();
    }

    /// A connection's descriptor has no copies, so closing it is enough, and saves a call. If it had one, its events would
    /// find the key outdated.
    #[test]
    fn e4_a_connection_that_lives_on_elsewhere_is_nobodys() {
        let (ours, mut peer) = net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let _copy = ours.try_clone().unwrap();
        let mut reactor: Reactor<UnixStream> = Reactor::new(Epoll::new().unwrap());
        let key = reactor.add(UnixStream::from_std(ours), READ).unwrap();
        drop(reactor.close(key));
        let (other, _peer) = UnixStream::pair().unwrap();
        let new_connection = reactor.add(other, READ).unwrap();
        peer.write_all(b"for the one who has left").unwrap();
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
}
