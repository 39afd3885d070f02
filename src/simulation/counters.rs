//! The counters of a server, each with the event that it counts: once for every event, and never for another.

use super::network::{Call, Fault, Kind, Knobs};
use super::time::Stage;
use crate::limits::{Limits, OverloadPolicy};
use crate::stats::{CloseReason, DropReason, RejectReason, Stats};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

pub(super) fn stage(limits: Limits) -> Stage {
    Stage::with_knobs(limits, knobs())
}

fn knobs() -> Knobs {
    Knobs {
        window_bytes: 100,
        ..Knobs::roomy()
    }
}

/// Lets the next calls of this kind fail, `times` of them.
pub(super) fn fail(stage: &Stage, call: Call, errno: i32, times: usize) {
    stage.network.kernel().fault = Some(Fault {
        call,
        after: 0,
        times,
        errno,
        was_injected: false,
    });
}

/// The counters that say that something went wrong, but for `closed`, `rejected` and `dropped`.
fn troubles(stats: &Stats) -> [u64; 7] {
    [
        stats.accept_errors.values().sum(),
        stats.receive_errors.values().sum(),
        stats.accept_pauses,
        stats.accept_paused_ms,
        stats.budget_yields,
        stats.option_errors,
        stats.log_suppressed,
    ]
}

// --- accepting -----------------------------------------------------------------------------------------------------------

#[test]
fn a_pause_for_want_of_descriptors_is_counted_and_timed() {
    let mut stage = stage(Limits::default());
    let retry = stage.server.limits().accept_retry;
    fail(&stage, Call::Accept, libc::EMFILE, 1);
    stage.arrive(1);
    stage.turn();
    assert_eq!(stage.server.stats().accept_errors[&libc::EMFILE], 1);
    assert_eq!(troubles(stage.server.stats()), [1, 0, 1, 0, 0, 0, 0]);

    stage.pass(retry / 2);
    stage.arrive(1); // an edge in the pause
    stage.turn();
    let half = u64::try_from((retry / 2).as_millis()).unwrap();
    assert_eq!(stage.server.stats().accepted, 0, "accepting is paused");
    assert_eq!(troubles(stage.server.stats()), [1, 0, 1, half, 0, 0, 0]);

    stage.pass(retry - retry / 2);
    stage.settle();
    let whole = u64::try_from(retry.as_millis()).unwrap();
    assert_eq!(stage.server.stats().accepted, 2);
    stage.pass(retry);
    stage.turn();
    assert_eq!(troubles(stage.server.stats()), [1, 0, 1, whole, 0, 0, 0]);
}

#[test]
fn a_pause_that_comes_soon_after_another_is_counted_and_not_logged() {
    let mut stage = stage(Limits::default());
    let retry = stage.server.limits().accept_retry;
    for _ in 0..3 {
        fail(&stage, Call::Accept, libc::EMFILE, 1);
        stage.arrive(1);
        stage.turn();
        stage.pass(retry);
        stage.settle();
    }
    let stats = stage.server.stats();
    assert_eq!((stats.accepted, stats.accept_pauses), (3, 3));
    assert_eq!(stats.log_suppressed, 2);
}

#[test]
fn a_pause_at_the_connection_limit_is_one_pause() {
    let mut stage = stage(Limits {
        connections_max: 1,
        ..Limits::default()
    });
    for _ in 0..3 {
        stage.arrive(1);
        stage.settle();
    }
    let stats = stage.server.stats();
    assert_eq!((stats.accepted, stats.connections_open), (1, 1));
    assert_eq!(stats.accept_pauses, 1);
    assert!(stats.accept_errors.is_empty());

    stage.pass(7 * MS);
    let first = stage.sockets()[0];
    stage.finish(first);
    stage.settle();
    let stats = stage.server.stats();
    assert_eq!((stats.accepted, stats.connections_open), (2, 1));
    assert_eq!((stats.accept_pauses, stats.accept_paused_ms), (2, 7));
}

#[test]
fn with_the_policy_reject_the_connection_above_the_limit_is_reset() {
    let mut stage = stage(Limits {
        connections_max: 1,
        overload: OverloadPolicy::Reject,
        ..Limits::default()
    });
    stage.arrive(3);
    stage.settle();
    let stats = stage.server.stats();
    assert_eq!((stats.accepted, stats.connections_open), (1, 1));
    assert_eq!(stats.rejected(RejectReason::Limit), 2);
    assert_eq!(troubles(stats), [0, 0, 0, 0, 0, 0, 1]);
    let rejected = stage.network.take_closed();
    assert_eq!(rejected.len(), 2);
    assert!(rejected.iter().all(|wire| wire.aborted));
}

#[test]
fn an_error_of_one_connection_in_the_queue_is_counted_and_pauses_nothing() {
    let mut stage = stage(Limits::default());
    fail(&stage, Call::Accept, libc::ECONNABORTED, 1);
    stage.arrive(1);
    stage.turn();
    let stats = stage.server.stats();
    assert_eq!((stats.accepted, stats.connections_open), (1, 1));
    assert_eq!(stats.accept_errors[&libc::ECONNABORTED], 1);
    assert_eq!(troubles(stats), [1, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_listener_that_always_fails_rests_and_is_tried_again() {
    let mut stage = stage(Limits::default());
    fail(&stage, Call::Accept, libc::EPERM, usize::MAX);
    stage.arrive(1);
    stage.settle();
    let stats = stage.server.stats().clone();
    assert_eq!(stats.accept_pauses, 1);
    let calls = stats.accept_errors[&libc::EPERM];
    assert!((1..=64).contains(&calls), "{calls} calls");

    stage.arrive(1); // an edge while it rests
    stage.settle();
    assert_eq!(stage.server.stats().accept_errors[&libc::EPERM], calls);

    stage.network.kernel().fault = None;
    while stage.server.stats().accepted < 2 {
        assert!(stage.server.timeout().is_some(), "nothing wakes the loop");
        let _ = stage.server.turn(None).expect("the loop goes on");
    }
    let rested = stage.server.limits().accept_retry;
    assert!(stage.network.kernel().now - stage.began() >= rested);
}

#[test]
fn errors_in_a_row_are_forgotten_after_a_success() {
    let mut stage = stage(Limits::default());
    for round in 1..=3 {
        fail(&stage, Call::Accept, libc::ECONNABORTED, 63);
        stage.arrive(1);
        stage.settle();
        let stats = stage.server.stats();
        assert_eq!(stats.accepted, round);
        assert_eq!(stats.accept_errors[&libc::ECONNABORTED], 63 * round);
        assert_eq!(stats.accept_pauses, 0);
    }
}

#[test]
fn a_full_accept_budget_is_a_yield() {
    let budget = Limits::default().accept_budget;
    let mut stage = stage(Limits::default());
    stage.arrive(2 * budget + 1);
    stage.settle();
    let stats = stage.server.stats();
    assert_eq!(stats.accepted, 2 * budget as u64 + 1);
    assert_eq!(troubles(stats), [0, 0, 0, 0, 2, 0, 0]);
}

#[test]
fn options_that_could_not_be_set_are_counted() {
    let mut stage = Stage::with_knobs(
        Limits::default(),
        Knobs {
            option_errors: 3,
            ..knobs()
        },
    );
    stage.connect(2);
    assert_eq!(troubles(stage.server.stats()), [0, 0, 0, 0, 0, 6, 0]);
}

// --- connections -----------------------------------------------------------------------------------------------------------

#[test]
fn what_a_failed_write_did_not_take_is_discarded() {
    for (errno, reason) in [
        (libc::EPIPE, CloseReason::Reset),
        (libc::ECONNRESET, CloseReason::Reset),
        (libc::EIO, CloseReason::Error),
    ] {
        let mut stage = stage(Limits::default());
        let socket = stage.connect(1)[0];
        fail(&stage, Call::Write, errno, 1);
        stage.send(socket, 70);
        stage.settle();
        let stats = stage.server.stats();
        assert_eq!((stats.bytes_in, stats.bytes_out), (70, 0));
        assert_eq!(stats.discarded, 70);
        assert_eq!(stats.closed(reason), 1, "{stats}");
    }
}

#[test]
fn unsent_bytes_of_a_broken_connection_are_discarded() {
    let mut stage = stage(Limits::default());
    let socket = stage.connect(1)[0];
    stage.send(socket, 170); // the send buffer takes 100
    stage.settle();
    assert_eq!(stage.server.stats().unsent_bytes, 70);
    stage.server.stop();
    let stats = stage.server.stats();
    assert_eq!((stats.bytes_out, stats.unsent_bytes), (100, 0));
    assert_eq!((stats.discarded, stats.unsent_bytes_peak), (70, 70));
}

#[test]
fn a_short_read_saves_the_read_that_would_block() {
    let mut stage = stage(Limits::default());
    let socket = stage.connect(1)[0];
    for (is_tcp, reads) in [(true, 1), (false, 2)] {
        stage.network.kernel().wire(socket).short_read_means_empty = is_tcp;
        let before = stage.network.kernel().reads;
        stage.send(socket, 10);
        stage.settle();
        assert_eq!(stage.network.kernel().reads - before, reads);
        stage.network.kernel().wire(socket).to_client.clear();
    }
}

fn with_long_reads() -> Limits {
    Limits {
        read_buffer_bytes: 10,
        read_budget_bytes: 260,
        ..Limits::default()
    }
}

#[test]
fn after_a_full_read_a_message_takes_one_read_and_one_write() {
    let limits = Limits {
        read_buffer_bytes: 80,
        read_budget_bytes: 2_080,
        ..Limits::default()
    };
    let mut stage = Stage::with_knobs(limits, Knobs::roomy());
    let socket = stage.connect(1)[0];
    stage.network.kernel().wire(socket).short_read_means_empty = true;
    // After a full read turns begin with a long one, until one has read less than an eighth of a first read.
    for (bytes, reads) in [
        (1_600, 2),
        (1_600, 1),
        (10, 1),
        (1_600, 1),
        (9, 1),
        (1_600, 2),
        (4_800, 3),
        (9, 1),
    ] {
        let before = stage.network.kernel().reads;
        stage.send(socket, bytes);
        stage.settle();
        let made = stage.network.kernel().reads - before;
        assert_eq!((bytes, made), (bytes, reads));
        assert_eq!(stage.read(socket, bytes + 1).len(), bytes);
    }
}

#[test]
fn no_turn_reads_more_than_its_budget() {
    let mut stage = Stage::with_knobs(with_long_reads(), Knobs::roomy());
    let socket = stage.connect(1)[0];
    stage.send(socket, 5_000);
    let mut turns = 0;
    while stage.server.stats().bytes_in < 5_000 {
        let before = stage.server.stats().bytes_in;
        stage.turn();
        let read = stage.server.stats().bytes_in - before;
        assert!(read <= 260, "{read} bytes in a turn");
        turns += 1;
    }
    assert_eq!(turns, 5_000_u32.div_ceil(260));
}

/// The send buffer takes 100 bytes. However much of it is free when a read is long, the read after it finds less.
#[test]
fn a_slow_reader_has_no_more_unsent_than_a_first_read() {
    for budget in [10, 25, 50, 60, 70, 90, 100, 110, 260, 5_000] {
        let limits = Limits {
            read_budget_bytes: budget,
            ..with_long_reads()
        };
        let mut stage = stage(limits);
        let sockets = stage.connect(6);
        for &socket in &sockets {
            stage.send(socket, 500);
        }
        stage.settle();
        assert_eq!(stage.server.stats().unsent_bytes, 6 * 10, "{budget}");
        for &socket in &sockets {
            let mut received = 0;
            while received < 500 {
                received += stage.read(socket, 37).len();
                stage.settle();
            }
        }
        let stats = stage.server.stats();
        assert!(stats.unsent_bytes_peak <= 6 * 10, "{budget}: {stats}");
        assert_eq!(stats.bytes_out, 6 * 500);
    }
}

/// Closing a connection, the server discards what still comes until the peer's FIN.
#[test]
fn what_a_lingering_connection_still_sends_is_discarded_and_counted() {
    let mut stage = stage(Limits::default());
    let socket = stage.connect(1)[0];
    stage.server.drain();
    let close_at = stage.server.limits().drain_idle_timeout;
    stage.pass(2 * close_at);
    stage.settle();
    assert!(stage.network.kernel().wire(socket).server_sent_fin);
    fail(&stage, Call::Read, libc::EINTR, 1);
    stage.send(socket, 30);
    stage.settle();
    let stats = stage.server.stats();
    assert_eq!((stats.connections_open, stats.discarded), (1, 30));
    assert_eq!((stats.bytes_in, stats.bytes_out), (30, 0));

    let budget = stage.server.limits().read_budget_bytes;
    stage.send(socket, 3 * budget);
    stage.settle();
    let stats = stage.server.stats();
    assert_eq!(stats.discarded, 30 + 3 * budget as u64);
    assert!(stats.budget_yields >= 2, "a flood must not hold the turn");

    fail(&stage, Call::Read, libc::EIO, 1);
    stage.send(socket, 1);
    stage.settle();
    assert_eq!(stage.closed(CloseReason::Error), 1);
}

// --- datagrams -----------------------------------------------------------------------------------------------------------

#[test]
fn a_full_datagram_budget_is_a_yield() {
    let budget = Limits::default().datagram_budget;
    let mut stage = stage(Limits::default());
    stage.flood(2 * budget + 1);
    stage.settle();
    let stats = stage.server.stats();
    assert_eq!(stats.datagrams_in, 2 * budget as u64 + 1);
    assert_eq!(troubles(stats), [0, 0, 0, 0, 2, 0, 0]);
}

#[test]
fn an_error_of_an_earlier_answer_delays_no_datagram() {
    for errno in [
        libc::ECONNREFUSED,
        libc::EMSGSIZE,
        libc::ENONET,
        libc::EINTR,
    ] {
        let mut stage = stage(Limits::default());
        fail(&stage, Call::Receive, errno, 1);
        stage.flood(3);
        stage.turn();
        let stats = stage.server.stats();
        assert_eq!(stats.datagrams_out, 3, "{errno}");
        assert_eq!(stats.receive_errors[&errno], 1);
        assert_eq!(troubles(stats), [0, 1, 0, 0, 0, 0, 0]);
    }
}

/// Two datagrams are read one by one, and the third call reads several: an error behind any of them ends it early.
#[test]
fn an_error_between_datagrams_of_one_call_delays_none() {
    for after in 0..12 {
        let mut stage = stage(Limits::default());
        fail(&stage, Call::Receive, libc::ECONNREFUSED, 1);
        stage.network.kernel().fault.as_mut().unwrap().after = after;
        let socket = stage.flood(11);
        stage.turn();
        let stats = stage.server.stats();
        assert_eq!((stats.datagrams_in, stats.datagrams_out), (11, 11));
        assert_eq!(stats.receive_errors[&libc::ECONNREFUSED], 1, "{after}");
        let kernel = stage.network.kernel();
        let Kind::Datagrams { answers, .. } = &kernel.sockets[&socket].kind else {
            panic!("no datagram socket")
        };
        let order = answers.iter().map(|(bytes, _)| bytes[0]);
        assert!(order.eq(0..11), "{answers:?}");
    }
}

#[test]
fn a_budget_of_errors_leaves_no_datagram_behind() {
    let mut stage = stage(Limits {
        datagram_budget: 2,
        ..Limits::default()
    });
    fail(&stage, Call::Receive, libc::ECONNREFUSED, 5);
    stage.flood(1); // one edge
    for _ in 0..3 {
        stage.turn();
    }
    let stats = stage.server.stats();
    assert_eq!(stats.datagrams_out, 1);
    assert_eq!(stats.receive_errors[&libc::ECONNREFUSED], 5);
}

#[test]
fn an_answer_that_cannot_be_sent_is_dropped_with_its_reason() {
    for (errno, reason) in [
        (libc::EAGAIN, Some(DropReason::WouldBlock)),
        (libc::ENOBUFS, Some(DropReason::WouldBlock)),
        (libc::EPERM, Some(DropReason::Error)),
        (libc::EINTR, None),
    ] {
        let mut stage = stage(Limits::default());
        fail(&stage, Call::Answer, errno, 1);
        stage.flood(2);
        stage.settle();
        let stats = stage.server.stats();
        let lost = u64::from(reason.is_some());
        assert_eq!((stats.datagrams_in, stats.datagrams_out), (2, 2 - lost));
        assert_eq!(stats.dropped_total(), lost);
        assert_eq!(reason.map_or(0, |reason| stats.dropped(reason)), lost);
    }
}

#[test]
fn a_datagram_socket_that_always_fails_rests_and_is_tried_again() {
    let mut stage = stage(Limits::default());
    fail(&stage, Call::Receive, libc::ENOSYS, usize::MAX);
    let socket = stage.flood(1);
    stage.settle();
    let calls = stage.server.stats().receive_errors[&libc::ENOSYS];
    assert!((1..=64).contains(&calls), "{calls} calls");
    stage.touch_datagrams(socket); // an edge while it rests
    stage.settle();
    assert_eq!(stage.server.stats().receive_errors[&libc::ENOSYS], calls);
    stage.network.kernel().fault = None;
    while stage.server.stats().datagrams_out == 0 {
        assert!(stage.server.timeout().is_some(), "nothing wakes the loop");
        let _ = stage.server.turn(None).expect("the loop goes on");
    }
    let kernel = stage.network.kernel();
    let Kind::Datagrams { inbox, .. } = &kernel.sockets[&socket].kind else {
        panic!("no datagram socket")
    };
    assert!(inbox.is_empty());
}

// --- memory ---------------------------------------------------------------------------------------------------------------

#[test]
fn slots_are_counted_in_use_and_allocated() {
    let mut stage = stage(Limits::default());
    let (listener, page) = stage.server.slot_bytes();
    assert!(listener > 0 && page >= 64 * listener);
    stage.connect(3);
    assert_eq!(stage.server.slot_bytes(), (4 * listener, page));
}

// --- turns -----------------------------------------------------------------------------------------------------------

#[test]
fn turns_that_do_more_than_a_few_echoes_are_timed() {
    let ticking = Knobs {
        tick: MS,
        ..knobs()
    };
    let mut stage = Stage::with_knobs(Limits::default(), ticking);
    stage.turn();
    assert_eq!(stage.server.stats().turn_us_max, 0, "nothing was served");
    let sockets = stage.connect(9);
    let accepting = stage.server.stats().turn_us_max;
    assert!(accepting >= 1_000, "accepting is timed");

    let mut stage = Stage::with_knobs(Limits::default(), knobs());
    let sockets_again = stage.connect(9);
    assert_eq!(sockets.len(), sockets_again.len());
    stage.network.kernel().knobs.tick = MS;
    for (count, is_timed) in [(8, false), (9, true)] {
        for &socket in &sockets_again[..count] {
            stage.send(socket, 1);
        }
        stage.turn();
        let longest = stage.server.stats().turn_us_max;
        assert_eq!(longest > 0, is_timed, "{count} echoes: {longest} us");
    }
    let longest = stage.server.stats().turn_us_max;
    stage.network.kernel().knobs.tick = MS / 2; // shorter turns change nothing
    for &socket in &sockets_again {
        stage.send(socket, 1);
    }
    stage.turn();
    assert_eq!(stage.server.stats().turn_us_max, longest);
}
