//! A timer with a finer resolution than the timeout of epoll_wait(2).
//!
//! That timeout counts milliseconds, and a load of 10,000 requests a second is scheduled in tenths of them. A timerfd
//! (timerfd_create(2)) becomes readable to the microsecond. The alternatives are worse: polling without a pause takes a
//! whole processor, perhaps the one that the server needs, and mio does not use epoll_pwait2(2).

use super::key::WAKE;
use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// One-shot timer; after [`super::Reactor::watch`] it ends the wait of [`super::Reactor::wait`] when it expires.
#[derive(Debug)]
pub struct Timer(TimerFd);

impl Timer {
    /// Creates a timer that is not armed.
    ///
    /// # Errors
    /// Those of timerfd_create(2); usually that there are no descriptors left.
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Self(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?))
    }

    /// Lets the timer end the waits of the epoll instance with this interest list, and do nothing else.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(crate) fn end_waits(&mut self, registry: &Registry) -> io::Result<()> {
        registry.register(self, WAKE, Interest::READABLE)
    }

    /// Arms the timer, in place of an earlier setting. It is never read, since arming it again raises a new edge.
    ///
    /// # Errors
    /// Those of timerfd_settime(2).
    pub fn arm(&self, wait: Duration) -> io::Result<()> {
        // Zero would disarm it (timerfd_settime(2)).
        let wait = TimeSpec::from_duration(wait.max(Duration::from_nanos(1)));
        Ok(self
            .0
            .set(Expiration::OneShot(wait), TimerSetTimeFlags::empty())?)
    }
}

impl Source for Timer {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        SourceFd(&self.0.as_fd().as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        SourceFd(&self.0.as_fd().as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.0.as_fd().as_raw_fd()).deregister(registry)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Epoll, Reactor};
    use super::*;
    use std::time::Instant;

    #[test]
    fn an_unread_timer_expires_each_time_and_never_early() {
        let mut reactor: Reactor<mio::net::TcpStream> = Reactor::new(Epoll::new().unwrap());
        let mut timer = Timer::new().unwrap();
        reactor.watch(&mut timer).unwrap();
        for _ in 0..20 {
            let set = Instant::now();
            timer.arm(Duration::from_micros(200)).unwrap();
            assert!(reactor.wait(Some(Duration::from_secs(20))).unwrap());
            assert_eq!(reactor.next_event(), None);
            assert!(set.elapsed() >= Duration::from_micros(200));
        }
    }

    #[test]
    fn a_timer_that_is_removed_ends_no_wait() {
        let mut poll = mio::Poll::new().unwrap();
        let mut events = mio::Events::with_capacity(1);
        let (mut timer, token) = (Timer::new().unwrap(), Token(1));
        timer.arm(Duration::ZERO).unwrap();
        timer
            .register(poll.registry(), token, Interest::READABLE)
            .unwrap();
        poll.poll(&mut events, Some(Duration::from_secs(20)))
            .unwrap();
        timer
            .reregister(poll.registry(), token, Interest::READABLE)
            .unwrap();
        poll.poll(&mut events, Some(Duration::from_secs(20)))
            .unwrap();
        assert!(!events.is_empty(), "it is reported once more");
        timer.deregister(poll.registry()).unwrap();
        timer.arm(Duration::ZERO).unwrap();
        poll.poll(&mut events, Some(Duration::from_millis(1)))
            .unwrap();
        assert!(events.is_empty());
    }
}
