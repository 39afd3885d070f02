//! Connections of proxies on the simulated network: headers in any pieces, late ones, malformed ones, and what counts after
//! them.

use super::counters;
use super::network::{Call, Knobs, Wire};
use super::time::Stage;
use crate::echo::{AccessList, DirectPolicy, ProxyProtocol};
use crate::limits::{Limits, OverloadPolicy};
use crate::reactor::Interest;
use crate::stats::{CloseReason, RejectReason, Stats};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const PROXY: &str = "10.0.0.5:40000";
const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n";
const BINARY: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\xc0\0\x02\x01\xc6\x33\x64\x01\xdc\x04\x01\xbb\x04\0\x01\r";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn proxies(direct: DirectPolicy) -> ProxyProtocol {
    ProxyProtocol {
        from: vec!["10.0.0.0/24".parse().expect("a network")],
        from_unix: false,
        direct,
    }
}

fn stage(limits: Limits) -> Stage {
    with_knobs(limits, Knobs::roomy())
}

fn with_knobs(limits: Limits, knobs: Knobs) -> Stage {
    let mut stage = Stage::with_knobs(limits, knobs);
    let protocol = proxies(DirectPolicy::Reject);
    stage.server.set_proxy_protocol(Some(protocol));
    stage
}

impl Stage {
    /// Connects a peer, which sends these bytes at once. Returns its socket, if it has one after that.
    pub(super) fn enter(&mut self, peer: &str, bytes: &[u8]) -> Option<usize> {
        let wire = Wire {
            address: Some(peer.parse().expect("an address")),
            to_server: bytes.iter().copied().collect(),
            short_read_means_empty: true,
            ..Wire::default()
        };
        let before = self.sockets();
        self.network.kernel().connect(self.listener, wire);
        self.settle();
        let new = self.sockets();
        new.into_iter().find(|socket| !before.contains(socket))
    }

    pub(super) fn say(&mut self, socket: usize, bytes: &[u8]) {
        let mut kernel = self.network.kernel();
        kernel.wire(socket).to_server.extend(bytes);
        kernel.touch(socket, Interest::Read);
        drop(kernel);
        self.settle();
    }

    /// What the peer has received so far.
    pub(super) fn heard(&self, socket: usize) -> Vec<u8> {
        let mut kernel = self.network.kernel();
        kernel.wire(socket).to_client.iter().copied().collect()
    }

    #[track_caller]
    pub(super) fn is_consistent(&self) -> &Stats {
        let stats = self.server.stats();
        assert_eq!(stats.check_invariants(), Ok(()));
        stats
    }
}

// --- headers in pieces -----------------------------------------------------------------------------------------------------

#[test]
fn a_header_that_is_cut_at_any_byte_is_whole_with_its_last() {
    for header in [LINE, BINARY, LOCAL] {
        let all = [header, b"hello"].concat();
        for place in 0..all.len() {
            let mut stage = stage(Limits::default());
            let socket = stage.enter(PROXY, &all[..place]).expect("it is open");
            let so_far = place.saturating_sub(header.len());
            assert_eq!(stage.heard(socket), b"hello"[..so_far], "after {place}");
            let whole = u64::from(place >= header.len());
            assert_eq!(stage.server.stats().proxy_headers, whole);
            stage.say(socket, &all[place..]);
            assert_eq!(stage.heard(socket), b"hello", "cut at {place}");
            stage.say(socket, b" again");
            assert_eq!(stage.heard(socket), b"hello again");
            let stats = stage.is_consistent();
            assert_eq!((stats.proxy_headers, stats.bytes_in), (1, 11));
            assert_eq!((stats.spurious_events, stats.budget_yields), (0, 0));
        }
    }
}

#[test]
fn a_header_byte_by_byte_is_read_by_one_call_a_byte() {
    let mut stage = stage(Limits::default());
    let socket = stage.enter(PROXY, b"").expect("it is open");
    let before = stage.network.kernel().reads;
    for byte in [BINARY, b"x"].concat() {
        stage.say(socket, &[byte]);
    }
    assert_eq!(stage.heard(socket), b"x");
    assert_eq!(stage.network.kernel().reads - before, BINARY.len() + 1);
    assert_eq!(stage.is_consistent().spurious_events, 0);
}

/// Short reads, calls that are interrupted or would block for nothing, and events of every wrong kind.
#[test]
fn a_header_comes_through_a_faulty_network() {
    let knobs = Knobs {
        interrupted: 100,
        short_read: 900,
        short_write: 300,
        would_block_for_nothing: 100,
        spurious_event: 300,
        late_event: 300,
        double_event: 300,
        events_max: 4,
        window_bytes: 64,
        descriptors: 100,
        ..Knobs::default()
    };
    for round in 0..300 {
        let mut stage = with_knobs(Limits::default(), knobs.clone());
        for _ in 0..round {
            stage.network.kernel().random.next(); // another course of faults
        }
        let socket = stage.enter(PROXY, b"").expect("it is open");
        stage.network.kernel().wire(socket).short_read_means_empty = round % 2 == 0;
        let mut heard = Vec::new();
        for piece in [LINE, b"0123456789"].concat().chunks(1 + round % 50) {
            stage.say(socket, piece);
        }
        for _ in 0..1_000 {
            let mut kernel = stage.network.kernel();
            heard.extend(kernel.wire(socket).to_client.drain(..));
            kernel.consumed(socket);
            drop(kernel);
            stage.turn();
        }
        assert_eq!(heard, b"0123456789", "round {round}");
        let stats = stage.is_consistent();
        assert_eq!((stats.proxy_headers, stats.connections_open), (1, 1));
    }
}

/// More behind the header than a turn may read, and than the peer takes.
#[test]
fn what_is_behind_a_header_keeps_budget_and_backpressure() {
    let limits = Limits::default().with(|limits| {
        limits.read_buffer_bytes = 64;
        limits.read_budget_bytes = 100;
    });
    let mut stage = stage(limits);
    let payload: Vec<u8> = (0..1_000_u32).map(|place| (place % 251) as u8).collect();
    let socket = stage.enter(PROXY, &[LINE, &payload].concat()).unwrap();
    assert_eq!(stage.heard(socket), payload);
    assert!(stage.is_consistent().budget_yields >= 7);

    stage.network.kernel().knobs.window_bytes = 10;
    let slow = stage.enter(PROXY, &[BINARY, &payload].concat()).unwrap();
    assert_eq!(stage.heard(slow), payload[..10]);
    assert!(stage.is_consistent().unsent_bytes > 0);
    let mut heard = Vec::new();
    while heard.len() < payload.len() {
        let mut kernel = stage.network.kernel();
        heard.extend(kernel.wire(slow).to_client.drain(..));
        kernel.consumed(slow);
        drop(kernel);
        stage.settle();
    }
    assert_eq!(heard, payload);
    stage.is_consistent();
}

// --- the deadline ----------------------------------------------------------------------------------------------------------

/// A byte now and then does not extend it.
#[test]
fn a_slow_header_is_cut_at_its_deadline() {
    let mut stage = stage(Limits::default());
    let timeout = stage.server.limits().proxy_header_timeout;
    let other = stage.enter(PROXY, LINE).expect("it is open");
    let slow = stage.enter(PROXY, b"").expect("it is open");
    let began = stage.network.kernel().now;
    for &byte in LINE.iter().cycle() {
        stage.pass(Duration::from_millis(130));
        if stage.closed(CloseReason::ProxyTimeout) == 1 || !stage.sockets().contains(&slow) {
            break;
        }
        stage.say(slow, &[byte]);
    }
    let lasted = stage.network.kernel().now - began;
    assert!(
        lasted >= timeout && lasted < timeout + SECOND / 4,
        "{lasted:?}"
    );
    assert_eq!(stage.closed(CloseReason::ProxyTimeout), 1);
    assert!(stage.network.take_closed()[0].aborted, "by a reset");
    stage.pass(100 * SECOND);
    stage.say(other, b"still here");
    assert_eq!(
        stage.heard(other),
        b"still here",
        "it has no deadline any more"
    );
    stage.is_consistent();
}

#[test]
fn a_silent_proxy_is_cut_at_its_deadline_and_idleness_counts_after_the_header() {
    let limits = Limits::default().with(|limits| {
        limits.proxy_header_timeout = 3 * SECOND;
        limits.idle_timeout = Some(16 * SECOND);
    });
    let mut stage = stage(limits);
    stage.enter(PROXY, b"");
    let lasted = stage.next_end();
    assert!(lasted >= 3 * SECOND && lasted < 3 * SECOND + Duration::from_millis(3));
    assert_eq!(stage.closed(CloseReason::ProxyTimeout), 1);
    stage.enter(PROXY, LOCAL);
    let lasted = stage.next_end() - lasted;
    assert!(lasted >= 16 * SECOND && lasted < 18 * SECOND, "{lasted:?}");
    assert_eq!(stage.closed(CloseReason::Idle), 1);
}

// --- ends ------------------------------------------------------------------------------------------------------------------

#[test]
fn a_connection_that_ends_in_its_header_has_a_reason() {
    let mut stage = stage(Limits::default());
    let check = stage.enter(PROXY, b"").expect("it is open");
    stage.finish(check);
    stage.settle();
    assert_eq!(stage.closed(CloseReason::PeerClosed), 1, "no mistake");
    let half = stage.enter(PROXY, &LINE[..20]).expect("it is open");
    stage.finish(half);
    stage.settle();
    assert_eq!(stage.closed(CloseReason::ProxyHeader), 1);
    assert_eq!(stage.enter(PROXY, b"GET / HTTP/1.1\r\n"), None);
    assert_eq!(stage.closed(CloseReason::ProxyHeader), 2);
    for (errno, reason) in [
        (libc::ECONNRESET, CloseReason::Reset),
        (libc::EIO, CloseReason::Error),
    ] {
        counters::fail(&stage, Call::Read, errno, 1);
        assert_eq!(stage.enter(PROXY, LINE), None);
        assert_eq!(stage.closed(reason), 1);
    }
    let stats = stage.is_consistent();
    assert_eq!((stats.bytes_in, stats.proxy_headers), (0, 0));
    let aborted = |wire: &Wire| wire.aborted;
    let resets: Vec<bool> = stage.network.take_closed().iter().map(aborted).collect();
    assert_eq!(resets, [false, true, true, false, false]);
}

#[test]
fn a_fin_right_behind_the_header_is_no_mistake() {
    for payload in [&b""[..], b"bye"] {
        let mut stage = stage(Limits::default());
        let socket = stage.enter(PROXY, &LINE[..7]).expect("it is open");
        let mut kernel = stage.network.kernel();
        let wire = kernel.wire(socket);
        wire.to_server.extend(&LINE[7..]);
        wire.to_server.extend(payload);
        wire.client_sent_fin = true;
        kernel.touch(socket, Interest::Read);
        drop(kernel);
        stage.settle();
        assert_eq!(stage.closed(CloseReason::PeerClosed), 1);
        let closed = stage.network.take_closed();
        assert!(closed[0].to_client.iter().eq(payload));
    }
}

#[test]
fn a_drain_does_not_wait_for_a_header() {
    let mut stage = stage(Limits::default());
    let half = stage.enter(PROXY, &LINE[..20]).expect("it is open");
    let whole = stage.enter(PROXY, LINE).expect("it is open");
    stage.server.drain();
    stage.say(whole, b"the end of a message");
    stage.pass(stage.server.limits().drain_idle_timeout * 2);
    stage.settle();
    let mut kernel = stage.network.kernel();
    assert!(kernel.wire(half).server_sent_fin && kernel.wire(whole).server_sent_fin);
    drop(kernel);
    assert_eq!(stage.heard(whole), b"the end of a message");
    stage.ends();
    assert_eq!(stage.closed(CloseReason::ShutDown), 2);
    stage.is_consistent();
}

#[test]
fn a_header_that_comes_while_the_server_drains_is_served() {
    let mut stage = stage(Limits::default());
    let half = stage.enter(PROXY, &LINE[..20]).expect("it is open");
    stage.server.drain();
    stage.say(half, &[&LINE[20..], b"x"].concat());
    assert_eq!(stage.heard(half), b"x");
    stage.ends();
    assert_eq!(stage.closed(CloseReason::ShutDown), 1);
    stage.is_consistent();
}

#[test]
fn a_stop_aborts_a_header_too() {
    let mut stage = stage(Limits::default());
    stage.enter(PROXY, &LINE[..20]);
    stage.server.stop();
    stage.ends();
    assert_eq!(stage.closed(CloseReason::Aborted), 1);
    stage.is_consistent();
}

// --- the client ------------------------------------------------------------------------------------------------------------

#[test]
fn peers_that_are_no_proxies_are_rejected_or_served_by_their_address_alone() {
    let mut stage = stage(Limits::default());
    assert_eq!(stage.enter("10.0.1.5:1", LINE), None);
    assert_eq!(stage.enter("10.0.1.5:1", b"hello"), None);
    assert_eq!(stage.server.stats().rejected(RejectReason::NotProxy), 2);
    let protocol = proxies(DirectPolicy::Serve);
    stage.server.set_proxy_protocol(Some(protocol));
    let direct = stage.enter("10.0.1.5:1", LINE).expect("it is served");
    assert_eq!(stage.heard(direct), LINE, "its header is nothing but bytes");
    assert_eq!(stage.enter(PROXY, b"hello"), None, "no header, no service");
    assert_eq!(stage.closed(CloseReason::ProxyHeader), 1);
    stage.is_consistent();
}

/// Its connections are counted from the header on, until they close; the proxy's own address has no part in it.
#[test]
fn the_declared_client_counts_for_its_prefix() {
    let limits = Limits::default().with(|limits| limits.connections_per_prefix = Some(2));
    let mut stage = stage(limits);
    let line = |ip: &str| format!("PROXY TCP4 {ip} 198.51.100.1 1 2\r\n").into_bytes();
    let first = stage.enter(PROXY, &line("192.0.2.1")).expect("it is open");
    stage.enter(PROXY, &line("192.0.2.1")).expect("it is open");
    assert_eq!(stage.enter(PROXY, &line("192.0.2.1")), None);
    assert_eq!(stage.closed(CloseReason::ProxyPrefix), 1);
    for other in 2..10 {
        let line = line(&format!("192.0.2.{other}"));
        stage.enter(PROXY, &line).expect("another client is served");
    }
    stage.finish(first);
    stage.settle();
    stage
        .enter(PROXY, &line("192.0.2.1"))
        .expect("there is room again");
    // The proxy itself has a prefix as well, once it speaks for itself.
    stage.enter(PROXY, LOCAL).expect("it is open");
    stage
        .enter(PROXY, b"PROXY UNKNOWN\r\n")
        .expect("it is open");
    assert_eq!(stage.enter(PROXY, LOCAL), None);
    assert_eq!(stage.closed(CloseReason::ProxyPrefix), 2);
    stage.is_consistent();
}

#[test]
fn the_declared_client_counts_for_the_lists() {
    let mut stage = stage(Limits::default());
    stage.server.set_access(AccessList {
        allow: vec!["192.0.2.0/24".parse().expect("a network")],
        deny: Vec::new(),
    });
    stage.enter(PROXY, LINE).expect("the client is allowed");
    assert_eq!(
        stage.enter(PROXY, b"PROXY TCP4 192.0.3.1 192.0.2.1 1 2\r\n"),
        None
    );
    assert_eq!(stage.enter(PROXY, LOCAL), None, "it is not on the list");
    assert_eq!(stage.closed(CloseReason::ProxyDenied), 2);
    stage.is_consistent();
}

/// Headers that never come whole hold connections up to the limit, and for as long as their timeout.
#[test]
fn a_flood_of_half_headers_is_bounded_by_the_limit_and_the_deadline() {
    for overload in [OverloadPolicy::Wait, OverloadPolicy::Reject] {
        let limits = Limits::default().with(|limits| {
            (limits.connections_max, limits.overload) = (5, overload);
        });
        let mut stage = stage(limits);
        let good = stage.enter(PROXY, LINE).expect("it is open");
        for _ in 0..20 {
            stage.enter(PROXY, &BINARY[..20]);
        }
        stage.say(good, b"still served");
        assert_eq!(stage.heard(good), b"still served");
        assert_eq!(stage.is_consistent().connections_open, 5);
        let rejected = stage.server.stats().rejected(RejectReason::Limit);
        let waiting = match overload {
            OverloadPolicy::Wait => 16,
            OverloadPolicy::Reject => 0,
        };
        assert_eq!(rejected, 16 - waiting);
        for _ in 0..6 {
            stage.pass(SECOND * 6);
            stage.settle();
        }
        assert_eq!(stage.closed(CloseReason::ProxyTimeout), 4 + waiting);
        assert_eq!(stage.is_consistent().connections_open, 1);
    }
}
