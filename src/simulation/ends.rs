//! How a server ends: what is queued is served or refused, each phase has its time, and all of it is counted.

use super::counters::{fail, stage};
use super::network::Call;
use crate::echo::Turn;
use crate::limits::Limits;
use crate::stats::{CloseReason, DropReason, RejectReason};
use std::time::Duration;

#[test]
fn a_drain_ends_the_pauses_and_serves_the_queue() {
    for errno in [libc::EMFILE, libc::EPERM] {
        let mut stage = stage(Limits::default());
        fail(&stage, Call::Accept, errno, 64);
        stage.arrive(1);
        while stage.server.stats().accept_pauses == 0 {
            stage.turn();
        }
        stage.network.kernel().fault = None;
        stage.server.drain();
        assert_eq!(stage.server.stats().accepted, 1, "at once");
        let socket = stage.sockets()[0];
        stage.finish(socket);
        stage.ends();
        assert_eq!(stage.closed(CloseReason::PeerClosed), 1);
        assert_eq!(stage.server.stats().rejected_total(), 0);
    }
}

#[test]
fn a_broken_listener_ends_the_server_with_its_error_after_the_last_connection() {
    let mut stage = stage(Limits {
        drain_idle_timeout: Duration::from_secs(60),
        drain_timeout: Duration::from_secs(60),
        ..Limits::default()
    });
    let socket = stage.connect(1)[0];
    fail(&stage, Call::Accept, libc::EBADF, 1);
    stage.arrive(1);
    stage.turn();
    let stats = stage.server.stats();
    assert_eq!(stats.accept_errors[&libc::EBADF], 1);
    assert_eq!((stats.connections_open, stats.accepted), (1, 1));
    stage.send(socket, 10);
    stage.settle();
    assert_eq!(stage.server.stats().bytes_out, 10);
    stage.finish(socket);
    let error = loop {
        match stage.server.turn(None) {
            Ok(Turn::Finished) => panic!("it has ended without an error"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
}

/// The alarm of a pause must not be taken for that of the next phase.
#[test]
fn a_pause_while_draining_cuts_no_phase_short() {
    let limits = Limits {
        drain_idle_timeout: Duration::from_secs(50),
        fin_timeout: Duration::from_secs(10),
        drain_timeout: Duration::from_secs(60),
        ..Limits::default()
    };
    let retry = limits.accept_retry;
    let mut stage = stage(limits);
    stage.connect(1);
    fail(&stage, Call::Accept, libc::EMFILE, 1);
    stage.arrive(1);
    stage.server.drain();
    stage.pass(retry);
    stage.settle();
    let stats = stage.server.stats();
    assert_eq!((stats.accepted, stats.connections_open), (2, 2));
    assert!(
        stage
            .network
            .kernel()
            .wires()
            .all(|wire| !wire.server_sent_fin)
    );
}

/// A drain that is no longer than the time for the peer's FIN serves the accept queue all the same, and not only as many
/// clients as one turn accepts.
#[test]
fn a_short_drain_serves_what_is_queued() {
    let limits = Limits {
        fin_timeout: Duration::from_secs(1),
        drain_timeout: Duration::from_secs(1),
        ..Limits::default()
    };
    let clients = 3 * limits.accept_budget;
    let mut stage = stage(limits);
    stage.arrive(clients);
    stage.server.drain();
    stage.settle();
    let stats = stage.server.stats();
    assert_eq!(
        (stats.accepted, stats.rejected_total()),
        (clients as u64, 0)
    );
}

#[test]
fn a_pause_while_closing_cuts_no_phase_short() {
    let limits = Limits::default();
    let (retry, close_after) = (
        limits.accept_retry,
        limits.drain_timeout - limits.fin_timeout,
    );
    let mut stage = stage(limits);
    stage.connect(1);
    fail(&stage, Call::Accept, libc::EMFILE, usize::MAX);
    stage.arrive(1);
    stage.server.drain();
    stage.pass(close_after);
    stage.settle();
    assert!(
        stage
            .network
            .kernel()
            .wires()
            .all(|wire| wire.server_sent_fin)
    );
    stage.pass(retry);
    stage.settle();
    assert_eq!(stage.server.stats().connections_open, 1, "FIN is awaited");
    stage.network.kernel().fault = None;
    stage.pass(retry);
    stage.settle();
    let stats = stage.server.stats();
    assert_eq!((stats.accepted, stats.connections_open), (1, 1));
    assert_eq!(stats.rejected(RejectReason::Stopping), 1);
    stage.ends();
    assert_eq!(stage.closed(CloseReason::Aborted), 1);
}

#[test]
fn a_stop_refuses_and_counts_all_that_is_queued() {
    let mut stage = stage(Limits::default());
    stage.connect(1);
    stage.arrive(300);
    stage.flood(3_000);
    stage.flood(5_000);
    stage.server.stop();
    let stats = stage.server.stats();
    assert_eq!(stats.connections_open, 0);
    assert_eq!(stats.closed(CloseReason::Aborted), 1);
    assert_eq!(stats.rejected(RejectReason::Stopping), 300);
    assert_eq!(stats.dropped(DropReason::Stopping), 8_000);
    assert_eq!(stage.server.timeout(), Some(Duration::ZERO), "it has ended");
    assert_eq!(stage.network.kernel().resets_in_queue, 0);
    stage.ends();
}

#[test]
fn a_stop_ends_under_a_flood_and_at_a_listener_that_fails() {
    const QUEUE: u64 = 65_536;
    let budget = Limits::default().datagram_budget as u64;
    let mut stage = stage(Limits::default());
    stage.flood(2 * QUEUE as usize);
    stage.flood(2 * QUEUE as usize);
    fail(&stage, Call::Accept, libc::EPERM, usize::MAX);
    stage.arrive(1);
    stage.server.stop();
    let lost = stage.server.stats().dropped(DropReason::Stopping);
    assert!((2 * QUEUE..2 * (QUEUE + budget)).contains(&lost), "{lost}");
    stage.ends();
}

#[test]
fn a_server_without_work_waits_without_end_until_it_has_ended() {
    let mut stage = stage(Limits {
        idle_timeout: None,
        ..Limits::default()
    });
    stage.connect(1);
    assert_eq!(stage.server.timeout(), None);
    stage.server.drain();
    assert!(stage.server.timeout().is_some_and(|wait| !wait.is_zero()));
    stage.ends();
    assert_eq!(stage.server.timeout(), Some(Duration::ZERO));
}

#[test]
fn a_drain_answers_what_a_queue_can_hold_and_no_more() {
    const QUEUE: u64 = 65_536;
    let budget = Limits::default().datagram_budget as u64;
    let mut stage = stage(Limits::default());
    stage.flood(2 * QUEUE as usize);
    stage.server.drain();
    stage.ends();
    let served = stage.server.stats().datagrams_in;
    assert!((QUEUE..QUEUE + budget).contains(&served), "{served}");
}

#[test]
fn a_stop_counts_the_datagrams_that_it_loses() {
    let mut stage = stage(Limits::default());
    stage.flood(1_000);
    stage.server.stop();
    stage.ends();
    let stats = stage.server.stats();
    assert_eq!((stats.datagrams_in, stats.datagrams_out), (1_000, 0));
    assert_eq!(stats.dropped(DropReason::Stopping), 1_000);
}
