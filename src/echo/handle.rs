//! Control from other threads: commands, questions for the counters, and a waker that ends the server's wait.
//!
//! The counters are plain integers of the loop's thread. So a handle cannot read them; it asks, and the loop copies them
//! between its wait and the events of that turn. Without a question it pays nothing beyond the look at one byte, which
//! it takes for commands anyway.

use crate::reactor::Waker;
use crate::stats::Stats;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Stops a server from another thread, and reads its counters. A handle may outlive its server, and stops nothing then.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
    waker: Waker,
}

impl Handle {
    pub(super) fn new(control: &Control, waker: Waker) -> Self {
        Self {
            shared: Arc::clone(&control.0),
            waker,
        }
    }

    /// Begins a graceful shutdown, as [`Server::drain`](super::Server::drain).
    pub fn drain(&self) {
        self.request(DRAIN);
    }

    /// Stops the server at once, as [`Server::stop`](super::Server::stop).
    pub fn stop(&self) {
        self.request(STOP);
    }

    /// Copies the counters, as they are at some time during this call.
    ///
    /// The loop answers at the beginning of its next turn, for which this wakes it, so that the wait is usually as long as
    /// one turn. Once the server has finished, the answer is its last counters, without a wait.
    ///
    /// `None` means that no answer came within `max_wait`: the thread of the loop was busy with other work, or is the one
    /// that called (which has [`Server::stats`](super::Server::stats)); or the server was dropped before it had finished.
    #[must_use]
    pub fn stats(&self, max_wait: Duration) -> Option<Stats> {
        let asked_after = {
            let snapshot = self.shared.snapshot();
            if snapshot.is_last {
                return snapshot.take_if_newer(0);
            }
            snapshot.number
        };
        self.request(STATS);
        let waits = |snapshot: &mut Snapshot| snapshot.is_awaited(asked_after);
        let waited =
            (self.shared.published).wait_timeout_while(self.shared.snapshot(), max_wait, waits);
        let (snapshot, _) = waited.unwrap_or_else(PoisonError::into_inner);
        snapshot.take_if_newer(asked_after)
    }

    fn request(&self, request: u8) {
        self.shared.requests.fetch_or(request, Ordering::Release);
        if let Err(error) = self.waker.wake() {
            log::error!("cannot wake the server: {error}");
        }
    }
}

/// The bits of a request.
const DRAIN: u8 = 1;
const STOP: u8 = 2;
const STATS: u8 = 4;

/// What a server has in common with its handles.
#[derive(Debug, Default)]
struct Shared {
    requests: AtomicU8,
    snapshot: Mutex<Snapshot>,
    published: Condvar,
}

/// The counters at one time.
#[derive(Debug, Default)]
struct Snapshot {
    /// `None` before the first question, and after a server that was dropped before it had finished.
    stats: Option<Stats>,
    /// How many have been published, this one included.
    number: u64,
    /// Whether there will be no newer one: the server has finished, or was dropped.
    is_last: bool,
}

impl Snapshot {
    /// Whether a newer one than this number is still to come.
    fn is_awaited(&self, number: u64) -> bool {
        self.number == number && !self.is_last
    }

    fn take_if_newer(&self, number: u64) -> Option<Stats> {
        self.stats.clone().filter(|_| self.number > number)
    }
}

impl Shared {
    fn snapshot(&self) -> MutexGuard<'_, Snapshot> {
        // A panic cannot leave it half written: it is replaced as a whole.
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.snapshot());
        self.published.notify_all();
    }
}

/// The server's end: it takes the requests of all handles, and answers them.
#[derive(Debug, Default)]
pub(crate) struct Control(Arc<Shared>);

/// What other threads ask of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    None,
    Drain,
    Stop,
}

impl Control {
    /// Whether there is a request. The loop asks this in every turn: the waker's event may be reported after those of
    /// thousands of ready sockets.
    #[inline]
    pub(super) fn is_pending(&self) -> bool {
        self.0.requests.load(Ordering::Relaxed) != 0
    }

    /// Takes all requests: answers a question for the counters, and returns the command. A stop goes before a drain.
    pub(super) fn take(&self, stats: &Stats) -> Command {
        let requests = self.0.requests.swap(0, Ordering::Acquire);
        if requests & STATS != 0 {
            self.0.publish(|snapshot| {
                snapshot.stats = Some(stats.clone());
                snapshot.number += 1;
            });
        }
        match requests {
            _ if requests & STOP != 0 => Command::Stop,
            _ if requests & DRAIN != 0 => Command::Drain,
            _ => Command::None,
        }
    }

    /// Publishes the counters of a server that has finished.
    pub(super) fn finish(&self, stats: &Stats) {
        if !self.0.snapshot().is_last {
            self.0.publish(|snapshot| {
                *snapshot = Snapshot {
                    stats: Some(stats.clone()),
                    number: snapshot.number + 1,
                    is_last: true,
                };
            });
        }
    }
}

/// No handle waits for a server that is gone.
impl Drop for Control {
    fn drop(&mut self) {
        self.0.publish(|snapshot| {
            if !snapshot.is_last {
                (snapshot.stats, snapshot.is_last) = (None, true);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::echo::{Server, Turn};
    use crate::limits::Limits;
    use crate::net::Endpoint;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    /// More sockets are ready than one epoll_wait reports, and the event of the waker comes after them.
    #[test]
    fn s2_a_command_goes_before_ready_sockets() {
        const CLIENTS: u64 = 300;
        let mut server = Server::bind(["127.0.0.1:0"], Limits::default()).unwrap();
        let Endpoint::Tcp(address) = server.addresses()[0] else {
            panic!("TCP was asked for");
        };
        let connect = |_| TcpStream::connect(address).unwrap();
        let mut clients: Vec<TcpStream> = (0..CLIENTS).map(connect).collect();
        while server.stats().connections_open < CLIENTS {
            let _ = server.turn(None).unwrap();
        }
        for client in &mut clients {
            client.write_all(b"ready").unwrap();
        }
        server.handle().drain();
        assert_eq!(server.turn(None).unwrap(), Turn::Woken);
        assert_eq!(server.stats().bytes_out, 0, "they are served after that");
        assert_eq!(server.timeout(), Some(Duration::ZERO), "and at once");
        assert!(
            TcpStream::connect(address).is_err(),
            "nothing more is accepted"
        );
        while server.stats().bytes_out < 5 * CLIENTS {
            let _ = server.turn(None).unwrap();
        }
    }

    /// The counters of a thread that runs the loop, of a loop that is at rest, of one that has finished, and of none.
    #[test]
    fn a_handle_reads_the_counters_from_another_thread() {
        const DEADLINE: Duration = Duration::from_secs(60);
        let mut server = Server::bind(["127.0.0.1:0"], Limits::default()).unwrap();
        let handle = server.handle();
        assert_eq!(handle.stats(Duration::ZERO), None, "no turn is running");
        let Endpoint::Tcp(address) = server.addresses()[0] else {
            panic!("TCP was asked for");
        };
        let running = std::thread::spawn(move || {
            server.run().unwrap();
            server.stats().clone()
        });
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"hello").unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
        let stats = handle.stats(DEADLINE).unwrap();
        assert_eq!((stats.accepted, stats.bytes_out), (1, 5));
        assert_eq!(stats.check_invariants(), Ok(()));
        client.write_all(b"again").unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
        let later = handle.stats(DEADLINE).unwrap();
        assert_eq!(later.bytes_out, 10, "not the counters of the last question");
        handle.stop();
        let last = running.join().unwrap();
        assert_eq!(handle.stats(Duration::ZERO), Some(last));

        let dropped = Server::bind(["127.0.0.1:0"], Limits::default()).unwrap();
        let handle = dropped.handle();
        drop(dropped);
        assert_eq!(handle.stats(DEADLINE), None, "and without a wait");
    }

    /// A thread that asks again and again must not keep the sources from being served.
    #[test]
    fn a_question_for_the_counters_does_not_use_up_the_turn() {
        let mut server = Server::bind(["127.0.0.1:0"], Limits::default()).unwrap();
        let Endpoint::Tcp(address) = server.addresses()[0] else {
            panic!("TCP was asked for");
        };
        let _client = TcpStream::connect(address).unwrap();
        assert_eq!(server.handle().stats(Duration::ZERO), None);
        assert_eq!(server.turn(None).unwrap(), Turn::Serving);
        assert_eq!(server.stats().accepted, 1);
    }

    #[test]
    fn a_question_is_answered_once_and_a_command_answers_none() {
        let (control, stats) = (Control::default(), Stats::default());
        let shared = Arc::clone(&control.0);
        let ask = |request| {
            shared.requests.store(request, Ordering::Relaxed);
            (control.take(&stats), shared.snapshot().number)
        };
        assert_eq!(ask(DRAIN), (Command::Drain, 0));
        assert_eq!(ask(STOP | DRAIN), (Command::Stop, 0));
        assert!(shared.snapshot().is_awaited(0));
        assert_eq!(ask(STATS), (Command::None, 1));
        let snapshot = shared.snapshot();
        assert!(!snapshot.is_awaited(0) && snapshot.is_awaited(1));
        assert_eq!(snapshot.take_if_newer(0).as_ref(), Some(&stats));
        assert_eq!(
            snapshot.take_if_newer(1),
            None,
            "it answered an earlier question"
        );
    }

    #[test]
    fn the_last_counters_stay_and_a_dropped_server_leaves_none() {
        for finishes in [true, false] {
            let (control, stats) = (Control::default(), Stats::default());
            let shared = Arc::clone(&control.0);
            if finishes {
                control.finish(&stats);
            }
            drop(control);
            let snapshot = shared.snapshot();
            assert!(snapshot.is_last && !snapshot.is_awaited(snapshot.number));
            assert_eq!(snapshot.take_if_newer(0), finishes.then_some(stats));
        }
    }
}
