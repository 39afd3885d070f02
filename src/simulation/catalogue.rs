//! Rows of the fault catalogue that are tested in the simulated network: each test is named after its row.
//!
//! They need what no real kernel does on demand: spurious events, stale events, two events for one source in a batch,
//! more events than a batch holds; or turns that can be counted. Rows that need the real kernel are in
//! `tests/it/catalogue`.

use super::network::{Kind, Knobs};
use super::time::Stage;
use crate::limits::Limits;
use crate::reactor::Interest;
use crate::stats::CloseReason;
use std::time::Duration;

fn pattern(client: usize, place: usize) -> u8 {
    (place * 31 + (place >> 8) * 7 + client * 101) as u8
}

// --- E: edges ----------------------------------------------------------------------------------------------------------

#[test]
fn e1_spurious_events_change_nothing() {
    let knobs = Knobs {
        spurious_event: 1_000, // one in every wait
        ..Knobs::roomy()
    };
    let mut stage = Stage::with_knobs(Limits::default(), knobs);
    let sockets = stage.connect(3);
    let before = stage.server.stats().clone();
    for _ in 0..100 {
        stage.turn();
    }
    let after = stage.server.stats();
    // One of four sockets is the listener; its accept would block.
    assert!(after.spurious_events > before.spurious_events + 20);
    assert_eq!((after.connections_open, after.bytes_in), (3, 0));
    assert_eq!(after.check_invariants(), Ok(()));
    for socket in sockets {
        stage.is_echoed(socket, 10);
    }
}

#[test]
fn e2_stale_events_of_a_closed_connection_wake_none() {
    let knobs = Knobs {
        stale_event: 1_000, // one in every wait, as soon as a connection has closed
        ..Knobs::roomy()
    };
    let mut stage = Stage::with_knobs(Limits::default(), knobs);
    let sockets = stage.connect(2);
    stage.finish(sockets[0]);
    stage.settle();
    assert_eq!(stage.closed(CloseReason::PeerClosed), 1);
    let new_connection = stage.connect(1)[1]; // it lives in the slot that has become free
    let before = stage.server.stats().clone();
    for _ in 0..100 {
        stage.turn();
    }
    let after = stage.server.stats();
    assert_eq!(after.stale_events, before.stale_events + 100);
    assert_eq!(
        after.spurious_events, before.spurious_events,
        "no connection was woken by a stale event"
    );
    assert_eq!(after.connections_open, 2);
    stage.is_echoed(new_connection, 10);
    stage.is_echoed(sockets[1], 10);
}

/// One source may be reported twice in a batch. If the first event ends it, and a new connection in the same batch gets
/// its slot (the slab reuses the slot that was freed last), the second event names the new connection's slot.
#[test]
fn e3_slot_reuse_in_one_batch() {
    const ROUNDS: usize = 20_000;
    let knobs = Knobs {
        spurious_event: 1_000, // a second event of one source, at the end of the batch
        ..Knobs::roomy()
    };
    let mut stage = Stage::with_knobs(Limits::default(), knobs);
    let mut value = stage.connect(1)[0];
    for round in 0..ROUNDS {
        // In one batch: the connection ends, a new one is accepted, and there may be a second event for the closed one.
        stage.finish(value);
        stage.arrive(1);
        stage.turn();
        stage.settle();
        let sockets = stage.sockets();
        assert_eq!(sockets.len(), 1, "round {round}");
        value = sockets[0];
        stage.is_echoed(value, 1 + round % 7);
    }
    let stats = stage.server.stats();
    println!("{} stale events in {ROUNDS} rounds", stats.stale_events);
    assert!(stats.stale_events > ROUNDS as u64 / 100, "{stats}");
    assert_eq!(stats.closed(CloseReason::PeerClosed), ROUNDS as u64);
    assert_eq!(stats.bytes_in, stats.bytes_out);
}

#[test]
fn e6_data_left_by_the_budget_is_read_without_another_edge() {
    const BURST: usize = 10 << 20;
    let mut stage = Stage::with_knobs(Limits::default(), Knobs::roomy());
    let socket = stage.connect(1)[0];
    let turns = stage.server.stats().turns;
    stage.send_pattern(socket, 0, BURST);
    stage.settle(); // nothing more is sent
    let stats = stage.server.stats();
    assert_eq!(stats.bytes_out, BURST as u64);
    let budgets = (BURST / Limits::default().read_budget_bytes) as u64;
    assert!(stats.budget_yields >= budgets - 1, "{stats}");
    assert!(stats.turns - turns >= budgets, "one budget a turn");
    stage.has_echo(socket, 0, BURST);
}

/// The loop must not block while a source is queued: no further event may come.
#[test]
fn e6_the_loop_does_not_block_while_a_source_is_queued() {
    let mut stage = Stage::with_knobs(Limits::default(), Knobs::roomy());
    let socket = stage.connect(1)[0];
    let before = stage.network.kernel().now;
    stage.send_pattern(socket, 0, 2 << 20);
    while stage.server.stats().bytes_out < 2 << 20 {
        assert!(
            stage.server.stats().turns < 1_000,
            "the queued source is not served"
        );
        let wait = Some(Duration::from_secs(3_600));
        let _ = stage.server.turn(wait).expect("the loop goes on");
    }
    assert_eq!(stage.network.kernel().now, before, "no time has passed");
}

#[test]
fn e9_more_events_than_a_batch_holds() {
    const CLIENTS: usize = 5_000;
    let knobs = Knobs {
        events_max: 64,
        ..Knobs::roomy()
    };
    let mut stage = Stage::with_knobs(Limits::default(), knobs);
    let sockets = stage.connect(CLIENTS);
    let turns = stage.server.stats().turns;
    for &socket in &sockets {
        stage.send_pattern(socket, 0, 10);
    }
    stage.settle();
    for &socket in &sockets {
        stage.has_echo(socket, 0, 10);
    }
    let stats = stage.server.stats();
    assert_eq!(stats.bytes_out, 10 * CLIENTS as u64);
    assert!(stats.turns - turns >= (CLIENTS / 64) as u64);
}

/// However many sources have more than their budget, a turn serves only so many of them; and all are served in the end.
#[test]
fn e9_a_turn_is_bounded_however_many_sources_are_queued() {
    const CLIENTS: usize = 1_000;
    const EACH: usize = 20;
    const PER_TURN: u64 = 2 * 128; // requeued sources, and events of the kernel
    let knobs = Knobs {
        events_max: 128,
        ..Knobs::roomy()
    };
    let limits = Limits {
        read_buffer_bytes: 8, // so that three reads, and three turns, are needed
        read_budget_bytes: 8,
        ..Limits::default()
    };
    let mut stage = Stage::with_knobs(limits, knobs);
    let sockets = stage.connect(CLIENTS);
    for &socket in &sockets {
        stage.send_pattern(socket, 0, EACH);
    }
    let mut turns = 0;
    while stage.server.stats().bytes_out < (CLIENTS * EACH) as u64 {
        let before = stage.server.stats().bytes_in;
        stage.turn();
        let read = stage.server.stats().bytes_in - before;
        assert!(read <= PER_TURN * 8, "{read} bytes in a turn");
        turns += 1;
        assert!(turns < 100, "a connection waits for ever");
    }
    for &socket in &sockets {
        stage.has_echo(socket, 0, EACH);
    }
}

#[test]
fn e11_a_partial_write_goes_on_at_the_right_place() {
    const MESSAGE: usize = 20_000;
    let knobs = Knobs {
        window_bytes: 100,
        short_write: 500,
        ..Knobs::roomy()
    };
    let mut stage = Stage::with_knobs(Limits::default(), knobs);
    let socket = stage.connect(1)[0];
    stage.send_pattern(socket, 0, MESSAGE);
    stage.settle();
    assert!(stage.server.stats().unsent_bytes > 0, "it has unsent bytes");
    let mut place = 0;
    while place < MESSAGE {
        // Only writability is reported from here on: nothing arrives.
        let step = stage.read(socket, 37);
        assert!(!step.is_empty(), "nothing after {place} bytes");
        for byte in step {
            assert_eq!(byte, pattern(0, place), "byte {place}");
            place += 1;
        }
        stage.settle();
    }
    let stats = stage.server.stats();
    assert_eq!((stats.bytes_out, stats.unsent_bytes), (MESSAGE as u64, 0));
}

#[test]
fn e12_would_block_where_an_event_promised_bytes() {
    let knobs = Knobs {
        would_block_for_nothing: 500,
        ..Knobs::roomy()
    };
    let mut stage = Stage::with_knobs(Limits::default(), knobs);
    let socket = stage.connect(1)[0];
    let turns = stage.server.stats().turns;
    for round in 0..200 {
        stage.send_pattern(socket, round * 100, 100);
        stage.settle();
    }
    stage.has_echo(socket, 0, 200 * 100);
    let stats = stage.server.stats();
    assert!(stats.spurious_events > 50, "{stats}");
    // Some five turns in each round are `settle`'s own, and reads that find nothing add more.
    assert!(stats.turns - turns < 200 * 20, "no busy loop: {stats}");
}

// --- A: accepting, counted in turns ----------------------------------------------------------------------------------------

#[test]
fn a1_without_descriptors_accept_pauses_until_its_timer_or_a_close() {
    let knobs = Knobs {
        descriptors: 2,
        ..Knobs::roomy()
    };
    let mut stage = Stage::with_knobs(Limits::default(), knobs);
    stage.arrive(5);
    for _ in 0..1_000 {
        stage.turn(); // no time passes
    }
    let failed = |stage: &Stage| stage.server.stats().accept_errors[&24];
    assert_eq!(failed(&stage), 1, "one attempt, and then a pause");
    let retry = Limits::default().accept_retry;
    for round in 1..=20 {
        stage.pass(retry);
        stage.settle();
        assert_eq!(failed(&stage), 1 + round, "one attempt each time");
    }
    // A close lets one connection be accepted at once, with no new arrival to help.
    let first = stage.sockets()[0];
    stage.finish(first);
    stage.settle();
    assert_eq!(stage.server.stats().accepted, 3);
}

// --- F: fairness, counted in turns ---------------------------------------------------------------------------------------

#[test]
fn f1_a_small_stream_is_served_in_every_turn_beside_eight_large_ones() {
    let mut stage = Stage::with_knobs(Limits::default(), Knobs::roomy());
    let sockets = stage.connect(9);
    let (small, large) = (sockets[0], &sockets[1..]);
    let budget = Limits::default().read_budget_bytes as u64;
    for _ in 0..50 {
        for &large_one in large {
            stage.read(large_one, usize::MAX);
            stage.send(large_one, 2 << 20); // more than a budget, always
        }
        stage.send(small, 1);
        let before = stage.server.stats().bytes_in;
        stage.turn();
        let read = stage.server.stats().bytes_in - before;
        assert_eq!(stage.read(small, 9).len(), 1, "in the same turn");
        assert!(read <= 8 * budget + 1, "{read} bytes in a turn");
        assert!(
            read > 7 * budget,
            "and the large streams are served as well"
        );
        stage.drop_input(large);
    }
}

#[test]
fn f1_a_queued_source_is_served_once_a_turn_and_not_twice() {
    let mut stage = Stage::with_knobs(Limits::default(), Knobs::roomy());
    let large_one = stage.connect(1)[0];
    let budget = Limits::default().read_budget_bytes;
    stage.send(large_one, 8 * budget);
    stage.turn();
    for _ in 0..5 {
        stage.send(large_one, 1); // a new edge, while it is queued already
        let before = stage.server.stats().bytes_in;
        stage.turn();
        assert_eq!(stage.server.stats().bytes_in - before, budget as u64);
    }
}

#[test]
fn f2_a_flood_of_datagrams_leaves_a_turn_to_the_streams() {
    let mut stage = Stage::with_knobs(
        Limits {
            datagrams_per_source: None,
            datagrams_total: None,
            ..Limits::default()
        },
        Knobs::roomy(),
    );
    let socket = stage.connect(1)[0];
    let flood = stage.flood(10_000);
    for _ in 0..100 {
        stage.send(socket, 1);
        let before = stage.server.stats().datagrams_in;
        stage.turn();
        assert_eq!(stage.read(socket, 9).len(), 1, "in the same turn");
        let answered = stage.server.stats().datagrams_in - before;
        assert_eq!(answered, Limits::default().datagram_budget as u64);
    }
    stage.settle();
    let kernel = stage.network.kernel();
    let Kind::Datagrams { inbox, answers, .. } = &kernel.sockets[&flood].kind else {
        panic!("no datagram socket")
    };
    assert_eq!((inbox.len(), answers.len()), (0, 10_000));
}

#[test]
fn f3_a_busy_listener_does_not_starve_a_quiet_one() {
    let mut stage = Stage::with_knobs(Limits::default(), Knobs::roomy());
    let cold = stage.another_listener();
    let budget = Limits::default().accept_budget as u64;
    stage.arrive(2_000);
    for round in 1..=10 {
        stage.arrive_at(cold, 1);
        stage.turn();
        let stats = stage.server.stats();
        assert_eq!(stats.accepted, round * (budget + 1), "both, in each turn");
    }
}

#[test]
fn f4_no_connection_is_closed_as_idle_before_its_input_is_read() {
    // More connections are readable than one wait can report, and the timeout of all has expired.
    let knobs = Knobs {
        events_max: 2,
        ..Knobs::roomy()
    };
    let limits = Limits {
        idle_timeout: Some(Duration::from_secs(30)),
        ..Limits::default()
    };
    let mut stage = Stage::with_knobs(limits, knobs);
    let sockets = stage.connect(9);
    stage.pass(Duration::from_secs(60)); // as if the process had been stopped
    for &socket in &sockets[1..] {
        stage.send(socket, 5);
    }
    stage.settle();
    assert_eq!(stage.server.stats().bytes_out, 8 * 5);
    assert_eq!(
        stage.closed(CloseReason::Idle),
        1,
        "only the connection without input"
    );
}

#[test]
fn f4_an_idle_connection_is_found_beside_more_ready_ones_than_a_wait_reports() {
    const BUSY: usize = 100;
    let knobs = Knobs {
        events_max: 8,
        ..Knobs::roomy()
    };
    let limits = Limits {
        idle_timeout: Some(Duration::from_secs(30)),
        ..Limits::default()
    };
    let mut stage = Stage::with_knobs(limits, knobs);
    let sockets = stage.connect(BUSY + 1);
    let (idle, busy) = sockets.split_first().unwrap();
    let step = Duration::from_millis(100);
    for turn in 0..400 {
        // Every batch is full, so at no moment is it known that every ready source has been reported.
        for &socket in busy {
            stage.send(socket, 1);
        }
        stage.turn();
        stage.pass(step);
        let is_open = stage.sockets().contains(idle);
        let silent = step * turn;
        assert!(
            is_open || silent >= Duration::from_secs(30),
            "early: {silent:?}"
        );
        // A timeout is up to a sixteenth late; two sweeps of the ready list, 100 sources at 8 a turn, come on top.
        assert!(
            !is_open || silent < Duration::from_secs(37),
            "never: {silent:?}"
        );
    }
    assert_eq!(
        stage.closed(CloseReason::Idle),
        1,
        "busy connections are not idle"
    );
}

// --- Helpers of the stage -------------------------------------------------------------------------------------------------

impl Stage {
    /// One turn, without waiting.
    pub(super) fn turn(&mut self) {
        let wait = Some(Duration::ZERO);
        let _ = self.server.turn(wait).expect("the loop goes on");
    }

    /// Clients connect; their connections wait in the accept queue.
    pub(super) fn arrive(&self, clients: usize) {
        self.arrive_at(self.listener, clients);
    }

    fn arrive_at(&self, listener: usize, clients: usize) {
        for _ in 0..clients {
            self.network.kernel().connect(listener, Default::default());
        }
    }

    pub(super) fn finish(&self, socket: usize) {
        let mut kernel = self.network.kernel();
        kernel.wire(socket).client_sent_fin = true;
        kernel.touch(socket, Interest::Read);
    }

    /// A client sends bytes of which each depends on its position.
    fn send_pattern(&self, socket: usize, start: usize, count: usize) {
        let mut kernel = self.network.kernel();
        let bytes = (start..start + count).map(|place| pattern(0, place));
        kernel.wire(socket).to_server.extend(bytes);
        kernel.touch(socket, Interest::Read);
    }

    /// A client reads what is there, at most `most` bytes.
    pub(super) fn read(&self, socket: usize, most: usize) -> Vec<u8> {
        let mut kernel = self.network.kernel();
        let queue = &mut kernel.wire(socket).to_client;
        let count = most.min(queue.len());
        let bytes = queue.drain(..count).collect();
        kernel.consumed(socket);
        bytes
    }

    #[track_caller]
    fn has_echo(&self, socket: usize, start: usize, count: usize) {
        let echoed = self.read(socket, usize::MAX);
        assert_eq!(echoed.len(), count);
        let mut places = echoed.iter().zip(start..);
        assert!(places.all(|(&byte, place)| byte == pattern(0, place)));
    }

    #[track_caller]
    fn is_echoed(&mut self, socket: usize, count: usize) {
        self.send_pattern(socket, 0, count);
        self.settle();
        self.has_echo(socket, 0, count);
    }

    /// Drops input that the server has not read, so that the memory of long tests stays small.
    fn drop_input(&self, sockets: &[usize]) {
        let mut kernel = self.network.kernel();
        for &socket in sockets {
            kernel.wire(socket).to_server.truncate(2 << 20);
        }
    }
}
