//! Timeouts: which connection is closed when, on a fault-free network whose clock the test moves.

use super::network::{Kind, Knobs, Network, Simulated, Wire};
use crate::echo::backend::Socket;
use crate::echo::{Server, Turn};
use crate::limits::Limits;
use crate::random::Random;
use crate::reactor::Interest;
use crate::stats::CloseReason;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// A server on a simulated network, with the actions of a test. `catalogue` and `uptime` use it, too.
pub(super) struct Stage {
    pub(super) network: Network,
    pub(super) server: Server<Simulated>,
    pub(super) listener: usize,
    began: Instant,
}

impl Stage {
    fn new(limits: Limits) -> Self {
        let knobs = Knobs {
            events_max: 2,
            window_bytes: 100,
            descriptors: 100,
            ..Knobs::default()
        };
        Self::with_knobs(limits, knobs)
    }

    pub(super) fn with_knobs(limits: Limits, knobs: Knobs) -> Self {
        let network = Network::new(Random::new(1), knobs);
        let server = Server::new(network.selector(), limits, Default::default(), Vec::new());
        let began = network.kernel().now;
        let mut stage = Self {
            network,
            server,
            listener: 0,
            began,
        };
        stage.listener = stage.another_listener();
        stage
    }

    pub(super) fn another_listener(&mut self) -> usize {
        let listener = self.network.listener();
        let number = listener.number;
        self.server
            .add_listener(Socket::Listener(Box::new(listener)))
            .expect("no faults");
        number
    }

    /// Adds a datagram socket with this many datagrams in its receive buffer.
    pub(super) fn flood(&mut self, datagrams: usize) -> usize {
        let socket = self.network.datagrams();
        let number = socket.number;
        self.server
            .add_listener(Socket::Datagrams(Box::new(socket)))
            .expect("no faults");
        let source = "10.0.0.1:40000".parse().expect("an address");
        let mut kernel = self.network.kernel();
        let Kind::Datagrams { inbox, .. } =
            &mut kernel.sockets.get_mut(&number).expect("open").kind
        else {
            panic!("no datagram socket")
        };
        inbox.extend((0..datagrams).map(|place| (vec![place as u8], source)));
        number
    }

    /// Connects clients and lets the server accept them. Returns the sockets of all connections.
    pub(super) fn connect(&mut self, clients: usize) -> Vec<usize> {
        for client in 0..clients {
            let wire = Wire {
                client,
                ..Wire::default()
            };
            self.network.kernel().connect(self.listener, wire);
        }
        self.settle();
        self.sockets()
    }

    /// Returns the sockets of all open connections.
    pub(super) fn sockets(&self) -> Vec<usize> {
        let kernel = self.network.kernel();
        let streams = kernel
            .sockets
            .iter()
            .filter(|(_, socket)| matches!(socket.kind, Kind::Stream(_)));
        streams.map(|(&number, _)| number).collect()
    }

    /// Runs turns until nothing changes any more at this time.
    pub(super) fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 3 {
            let before = self.progress();
            let had_edges = self.network.kernel().has_edges();
            let _ = self
                .server
                .turn(Some(Duration::ZERO))
                .expect("the loop goes on");
            let idle = !had_edges && self.progress() == before;
            quiet = if idle { quiet + 1 } else { 0 };
        }
    }

    /// Counters of which at least one changes with any progress.
    fn progress(&self) -> [u64; 5] {
        let stats = self.server.stats();
        [
            stats.accepted,
            stats.closed_total(),
            stats.bytes_in,
            stats.bytes_out,
            stats.datagrams_in,
        ]
    }

    pub(super) fn send(&self, socket: usize, bytes: usize) {
        let mut kernel = self.network.kernel();
        kernel
            .wire(socket)
            .to_server
            .extend(std::iter::repeat_n(b'x', bytes));
        kernel.touch(socket, Interest::Read);
    }

    /// Reports a datagram socket as ready once more.
    pub(super) fn touch_datagrams(&self, socket: usize) {
        self.network.kernel().touch(socket, Interest::Read);
    }

    /// The time at the start.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    pub(super) fn pass(&self, time: Duration) {
        self.network.kernel().now += time;
    }

    /// Lets time pass until the next connection is closed, and returns the time since the start.
    pub(super) fn next_end(&mut self) -> Duration {
        let closed = self.server.stats().closed_total();
        while self.server.stats().closed_total() == closed {
            let _ = self.server.turn(None).expect("the loop goes on");
        }
        self.network.kernel().now - self.began
    }

    /// Runs turns until the server has finished, and fails if it does not.
    pub(super) fn ends(&mut self) {
        for _ in 0..10_000 {
            if self.server.turn(None).expect("the loop goes on") == Turn::Finished {
                return;
            }
        }
        panic!("it does not end: {}", self.server.stats());
    }

    pub(super) fn closed(&self, reason: CloseReason) -> u64 {
        self.server.stats().closed(reason)
    }
}

#[test]
fn an_idle_connection_is_closed_never_early_and_at_most_a_sixteenth_late() {
    for seconds in [1, 16, 3_600] {
        let timeout = seconds * SECOND;
        let mut stage = Stage::new(Limits {
            idle_timeout: Some(timeout),
            ..Limits::default()
        });
        stage.connect(1);
        let lasted = stage.next_end();
        assert!(lasted >= timeout, "{lasted:?} is early");
        assert!(
            lasted <= timeout + timeout / 16 + Duration::from_millis(2),
            "{lasted:?} is late"
        );
        assert_eq!(stage.closed(CloseReason::Idle), 1);
    }
}

#[test]
fn activity_too_soon_to_move_a_slot_still_counts() {
    let mut stage = Stage::new(Limits {
        idle_timeout: Some(16 * SECOND),
        ..Limits::default()
    });
    let sockets = stage.connect(1);
    let activity = Duration::from_millis(900); // within the sixteenth, so the slot stays at its place
    stage.pass(activity);
    stage.send(sockets[0], 1);
    stage.settle();
    let lasted = stage.next_end();
    assert!(lasted >= activity + 16 * SECOND, "{lasted:?} is early");
}

#[test]
fn active_connections_stay_open_while_idle_ones_are_closed() {
    let mut stage = Stage::new(Limits {
        idle_timeout: Some(10 * SECOND),
        ..Limits::default()
    });
    let sockets = stage.connect(3);
    for _ in 0..20 {
        stage.pass(SECOND);
        stage.send(sockets[1], 1);
        stage.settle();
        let mut kernel = stage.network.kernel();
        kernel.wire(sockets[1]).to_client.clear();
    }
    assert_eq!(
        (
            stage.closed(CloseReason::Idle),
            stage.server.stats().connections_open
        ),
        (2, 1)
    );
}

#[test]
fn a_stalled_reader_is_reset_and_a_slow_one_is_not() {
    let mut stage = Stage::new(Limits {
        write_stall_timeout: Some(10 * SECOND),
        ..Limits::default()
    });
    let sockets = stage.connect(2);
    for &socket in &sockets {
        stage.send(socket, 200);
    }
    stage.settle();
    assert_eq!(
        stage.server.stats().unsent_bytes,
        200,
        "a window of 100 took half of each"
    );
    for _ in 0..30 {
        stage.pass(SECOND);
        let mut kernel = stage.network.kernel();
        kernel.wire(sockets[1]).to_client.pop_front();
        kernel.consumed(sockets[1]);
        drop(kernel);
        stage.settle();
    }
    assert_eq!(
        (
            stage.closed(CloseReason::WriteStall),
            stage.server.stats().connections_open
        ),
        (1, 1)
    );
    assert_eq!(stage.server.stats().discarded, 100);
    assert!(
        stage.network.take_closed()[0].aborted,
        "an orderly close would leave its bytes in the kernel"
    );
}

#[test]
fn a_drain_closes_silent_connections_and_lets_busy_ones_finish() {
    let mut stage = Stage::new(Limits::default());
    let sockets = stage.connect(2);
    stage.server.drain();
    for _ in 0..10 {
        stage.send(sockets[0], 10);
        stage.settle();
        stage.network.kernel().wire(sockets[0]).to_client.clear();
        stage.pass(Duration::from_millis(20));
    }
    let mut kernel = stage.network.kernel();
    assert!(
        !kernel.wire(sockets[0]).server_sent_fin,
        "it is in the middle of a message"
    );
    assert!(kernel.wire(sockets[1]).server_sent_fin, "it is silent");
    for &socket in &sockets {
        kernel.wire(socket).client_sent_fin = true;
        kernel.touch(socket, Interest::Read);
    }
    drop(kernel);
    stage.ends();
    assert_eq!(
        (
            stage.closed(CloseReason::PeerClosed),
            stage.closed(CloseReason::ShutDown)
        ),
        (1, 1)
    );
    assert_eq!(stage.server.stats().bytes_out, 100);
}

#[test]
fn a_drain_ends_in_time_whatever_the_peers_do() {
    let limits = Limits {
        write_stall_timeout: None,
        ..Limits::default()
    };
    let mut stage = Stage::new(limits.clone());
    let sockets = stage.connect(3);
    stage.send(sockets[0], 500); // it will never read the half of it
    stage.settle();
    stage.server.drain();
    while stage.server.turn(None).expect("the loop goes on") != Turn::Finished {
        assert!(stage.server.stats().turns < 10_000, "it does not end");
        stage.send(sockets[1], 1); // it never stops, and is never quiet
        stage.network.kernel().wire(sockets[1]).to_client.clear();
        stage.pass(Duration::from_millis(10));
        if stage.server.stats().closed(CloseReason::Aborted) == 2 {
            break;
        }
    }
    let lasted = stage.network.kernel().now - stage.began;
    assert!(
        lasted >= limits.drain_timeout && lasted < limits.drain_timeout + SECOND,
        "{lasted:?}"
    );
    assert_eq!(
        (
            stage.closed(CloseReason::Aborted),
            stage.closed(CloseReason::ShutDown)
        ),
        (2, 1)
    );
    assert_eq!(stage.server.stats().check_invariants(), Ok(()));
}

#[test]
fn a_drain_begun_long_after_the_last_turn_has_its_full_time() {
    let mut stage = Stage::new(Limits::default());
    stage.connect(1);
    stage.pass(60 * SECOND); // an outer loop made no turn in all this time
    let begun = stage.network.kernel().now;
    stage.server.drain();
    stage.ends();
    assert_eq!(
        (
            stage.closed(CloseReason::Aborted),
            stage.closed(CloseReason::ShutDown)
        ),
        (0, 1),
        "FIN was sent, and the peer's FIN awaited"
    );
    let limits = stage.server.limits();
    assert!(stage.network.kernel().now - begun >= limits.drain_idle_timeout + limits.fin_timeout);
}

#[test]
fn many_expired_timeouts_are_spread_over_turns_without_a_wait_between() {
    let mut stage = Stage::with_knobs(
        Limits {
            idle_timeout: Some(SECOND),
            ..Limits::default()
        },
        Knobs {
            events_max: 128,
            window_bytes: 100,
            descriptors: 10_000,
            ..Knobs::default()
        },
    );
    let sockets = stage.connect(5_000);
    stage.pass(10 * SECOND); // the process was stopped, or its machine moved
    let (speaker, later) = (sockets[4_999], stage.network.kernel().now);
    stage.send(speaker, 1);
    for turn in 1.. {
        let before = stage.server.stats().connections_open;
        let _ = stage.server.turn(None).expect("the loop goes on");
        let stats = stage.server.stats();
        assert!(
            before - stats.connections_open <= 128,
            "too many in turn {turn}"
        );
        assert_eq!(
            stats.bytes_out, 1,
            "input is served before the timeouts, or between"
        );
        assert_eq!(stage.network.kernel().now, later, "no time has passed");
        if stats.connections_open == 1 {
            break;
        }
        assert_eq!(stage.server.timeout(), Some(Duration::ZERO));
    }
    assert_eq!(stage.closed(CloseReason::Idle), 4_999);
}

#[test]
fn the_longest_timeout_that_is_accepted_is_kept() {
    const DAY: Duration = Duration::from_secs(86_400);
    for days in [13, 20, 25, 50, 100, 730, 36_500] {
        let timeout = days * DAY;
        let limits = Limits {
            idle_timeout: Some(timeout),
            ..Limits::default()
        };
        assert_eq!(limits.check(), Ok(()));
        let mut stage = Stage::new(limits);
        stage.connect(1);
        let lasted = stage.next_end();
        assert!(lasted >= timeout, "{days} days ended after {lasted:?}");
        assert!(lasted <= timeout + timeout / 16 + SECOND, "{lasted:?}");
    }
}

#[test]
fn a_timeout_of_milliseconds_is_not_early_either() {
    for micros in [1_000, 1_500, 2_000, 3_000, 15_999] {
        let timeout = Duration::from_micros(micros);
        let mut stage = Stage::new(Limits {
            idle_timeout: Some(timeout),
            ..Limits::default()
        });
        stage.pass(Duration::from_micros(999)); // 0 on the clock of the timeouts, which counts milliseconds
        stage.connect(1);
        let connected = stage.network.kernel().now - stage.began;
        let lasted = stage.next_end() - connected;
        assert!(lasted >= timeout, "{timeout:?} ended after {lasted:?}");
    }
}

/// Another event may wake the loop in the millisecond in which a timeout would end if both ends were rounded down.
#[test]
fn no_event_makes_a_timeout_early() {
    const MICROS: Duration = Duration::from_micros(1);
    let timeout = Duration::from_millis(1);
    let mut stage = Stage::new(Limits {
        idle_timeout: Some(timeout),
        ..Limits::default()
    });
    stage.pass(999 * MICROS);
    stage.connect(1);
    for _ in 0..999 {
        stage.pass(MICROS);
        stage.settle();
        assert_eq!(stage.closed(CloseReason::Idle), 0);
    }
    assert!(stage.next_end() >= 999 * MICROS + timeout);
}

/// Among hundreds of requeued sources one may wait for longer than its timeout: it is ready, not idle.
#[test]
fn a_source_in_the_queue_is_not_idle() {
    let mut stage = Stage::with_knobs(
        Limits {
            idle_timeout: Some(SECOND),
            read_buffer_bytes: 1,
            read_budget_bytes: 1,
            ..Limits::default()
        },
        Knobs {
            events_max: 128,
            window_bytes: 100,
            descriptors: 10_000,
            ..Knobs::default()
        },
    );
    let sockets = stage.connect(1_000);
    for &socket in &sockets {
        stage.send(socket, 5);
    }
    for _ in 0..100 {
        let now = Some(Duration::ZERO);
        let _ = stage.server.turn(now).expect("the loop goes on");
        if stage.server.stats().bytes_out == 5_000 {
            return;
        }
        stage.pass(SECOND / 2);
    }
    panic!("some were not served: {}", stage.server.stats());
}

#[test]
fn a_reader_however_slow_is_not_reset_before_it_stops() {
    for is_tcp in [true, false] {
        let timeout = 10 * SECOND;
        let mut stage = Stage::with_knobs(
            Limits {
                write_stall_timeout: Some(timeout),
                ..Limits::default()
            },
            Knobs {
                events_max: 2,
                window_bytes: 3_000,
                descriptors: 100,
                ..Knobs::default()
            },
        );
        let socket = stage.connect(1)[0];
        stage.network.kernel().wire(socket).short_read_means_empty = is_tcp;
        stage.send(socket, 8_000);
        for _ in 0..300 {
            stage.pass(2 * SECOND); // EPOLLOUT would come after more than half an hour
            let mut kernel = stage.network.kernel();
            kernel.wire(socket).to_client.pop_front();
            kernel.consumed(socket);
            drop(kernel);
            stage.settle();
        }
        let stats = stage.server.stats();
        assert_eq!((stats.connections_open, stats.bytes_in), (1, 8_000));
        // At each end of the timeout as much was sent as the peer had taken by then.
        assert!((3_290..=3_300).contains(&stats.bytes_out), "{stats}");
        stage.began = stage.network.kernel().now;
        let lasted = stage.next_end();
        assert_eq!(stage.closed(CloseReason::WriteStall), 1);
        assert!(lasted <= 2 * timeout + timeout / 16 + SECOND, "{lasted:?}");
    }
}

#[test]
fn a_flush_when_the_write_stall_timeout_expires_keeps_the_connection() {
    for draining in [false, true] {
        let mut stage = Stage::new(Limits {
            write_stall_timeout: Some(SECOND),
            drain_timeout: 60 * SECOND,
            ..Limits::default()
        });
        let socket = stage.connect(1)[0];
        stage.send(socket, 101); // a window of 100 leaves one of them
        stage.settle();
        if draining {
            stage.server.drain();
        }
        let mut kernel = stage.network.kernel();
        kernel.wire(socket).to_client.pop_front();
        kernel.consumed(socket);
        drop(kernel);
        while stage.server.stats().bytes_out < 101 {
            let _ = stage.server.turn(None).expect("the loop goes on");
        }
        assert_eq!(
            (
                stage.server.stats().unsent_bytes,
                stage.server.stats().connections_open
            ),
            (0, 1)
        );
        stage.network.kernel().wire(socket).to_client.clear();
        if draining {
            stage.ends();
            assert_eq!(stage.closed(CloseReason::ShutDown), 1);
        } else {
            stage.send(socket, 10);
            stage.settle();
            assert_eq!(stage.server.stats().bytes_out, 111);
        }
    }
}
