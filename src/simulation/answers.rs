//! Requests that are answered in place of echoes, on the simulated network: in pieces, too long, pipelined, for slow readers,
//! and at the end of their connection or of the server.

use super::counters;
use super::network::{Call, Knobs, Wire};
use super::time::Stage;
use crate::echo::{DirectPolicy, ProxyProtocol, REQUEST_BYTES_MAX, Responder};
use crate::limits::Limits;
use crate::net::Peer;
use crate::random::Random;
use crate::reactor::Interest;
use crate::stats::CloseReason;
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const CLIENT: &str = "10.0.0.5:40000";

/// Answers with the peer and the request.
#[derive(Debug)]
struct Witness;

impl Responder for Witness {
    fn respond(&self, request: Option<&[u8]>, peer: &Peer, answer: &mut Vec<u8>) {
        answer.extend(format!("from {peer}: ").bytes());
        answer.extend(request.unwrap_or(b"too long"));
    }
}

/// What a client with this address has to receive for these bytes, which its FIN ends.
fn answers(peer: &str, sent: &[u8]) -> Vec<u8> {
    let peer = Peer::from(peer.parse::<std::net::SocketAddr>().expect("an address"));
    let mut answers = Vec::new();
    for line in sent.split_inclusive(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let request = line.strip_suffix(b"\r").unwrap_or(line);
        let request = (line.len() <= REQUEST_BYTES_MAX).then_some(request);
        Witness.respond(request, &peer, &mut answers);
        answers.push(b'\n');
    }
    answers
}

fn stage(limits: Limits, knobs: Knobs) -> Stage {
    let mut stage = Stage::with_knobs(limits, knobs);
    stage.server.set_responder(Some(Arc::new(Witness)));
    stage
}

impl Stage {
    /// Takes what the client has received, and lets the server go on.
    fn take(&mut self, socket: usize) -> Vec<u8> {
        let mut kernel = self.network.kernel();
        let heard = kernel.wire(socket).to_client.drain(..).collect();
        kernel.consumed(socket);
        drop(kernel);
        self.settle();
        heard
    }

    /// What the clients of the connections that have closed received, in the order of their ends.
    fn last_heard(&mut self) -> Vec<Vec<u8>> {
        let closed = self.network.take_closed().into_iter();
        let heard = |wire: Wire| wire.to_client.into_iter().collect();
        closed.map(heard).collect()
    }

    /// Sends these bytes and a FIN at once.
    fn say_and_finish(&mut self, socket: usize, bytes: &[u8]) {
        let mut kernel = self.network.kernel();
        let wire = kernel.wire(socket);
        wire.to_server.extend(bytes);
        wire.client_sent_fin = true;
        kernel.touch(socket, Interest::Read);
        drop(kernel);
        self.settle();
    }
}

const LINES: &[u8] = b"who?\nand again\r\n\n\xff\r\r\nthe last has no newline";

// --- requests in pieces ----------------------------------------------------------------------------------------------------

#[test]
fn requests_may_be_cut_at_any_byte_and_the_last_one_ends_with_the_fin() {
    for place in 0..=LINES.len() {
        for is_late in [true, false] {
            let mut stage = stage(Limits::default(), Knobs::roomy());
            let socket = stage.enter(CLIENT, &LINES[..place]).expect("it is open");
            let whole = LINES[..place].iter().rposition(|&byte| byte == b'\n');
            let whole = &LINES[..whole.map_or(0, |newline| newline + 1)];
            assert_eq!(stage.heard(socket), answers(CLIENT, whole), "{place}");
            let held = (place - whole.len()) as u64;
            assert_eq!(stage.is_consistent().unsent_bytes, held);
            if is_late {
                stage.say(socket, &LINES[place..]);
                stage.finish(socket);
                stage.settle();
            } else {
                stage.say_and_finish(socket, &LINES[place..]);
            }
            assert_eq!(stage.last_heard(), [answers(CLIENT, LINES)], "{place}");
            assert_eq!(stage.closed(CloseReason::PeerClosed), 1);
            let stats = stage.is_consistent();
            assert_eq!(stats.bytes_in, LINES.len() as u64);
            assert_eq!(stats.bytes_out, answers(CLIENT, LINES).len() as u64);
            assert_eq!((stats.discarded, stats.unsent_bytes), (0, 0));
            assert_eq!((stats.spurious_events, stats.budget_yields), (0, 0));
        }
    }
}

#[test]
fn a_request_byte_by_byte_is_read_by_one_call_a_byte() {
    let mut stage = stage(Limits::default(), Knobs::roomy());
    let socket = stage.enter(CLIENT, b"").expect("it is open");
    let before = stage.network.kernel().reads;
    for &byte in b"one\ntwo\n" {
        stage.say(socket, &[byte]);
    }
    assert_eq!(stage.heard(socket), answers(CLIENT, b"one\ntwo\n"));
    assert_eq!(stage.network.kernel().reads - before, 8);
    assert_eq!(stage.is_consistent().spurious_events, 0);
}

/// The longest request, one byte more, and far more: each in one piece, in several, and with and without a newline.
#[test]
fn a_request_that_is_too_long_is_answered_once_and_skipped() {
    for length in [
        REQUEST_BYTES_MAX - 1,
        REQUEST_BYTES_MAX,
        REQUEST_BYTES_MAX + 1,
        REQUEST_BYTES_MAX + 2,
        3 * REQUEST_BYTES_MAX,
        200_000,
    ] {
        let long = [&vec![b'x'; length][..], b"\nnext\n"].concat();
        for piece in [1_000, 4_096, 4_097, 65_536, 1_000_000] {
            let mut stage = stage(Limits::default(), Knobs::roomy());
            let socket = stage.enter(CLIENT, b"first\n").expect("it is open");
            for bytes in long.chunks(piece) {
                stage.say(socket, bytes);
            }
            let sent = [b"first\n", &long[..]].concat();
            assert_eq!(stage.heard(socket), answers(CLIENT, &sent), "{length}");
            let stats = stage.is_consistent();
            let is_long = length > REQUEST_BYTES_MAX;
            let discarded = if is_long { length as u64 + 1 } else { 0 };
            assert_eq!((stats.discarded, stats.unsent_bytes), (discarded, 0));
            // One that the FIN ends, without a newline.
            stage.say_and_finish(socket, &long[..length]);
            let sent = [&sent[..], &long[..length]].concat();
            assert_eq!(stage.last_heard(), [answers(CLIENT, &sent)], "{length}");
            stage.is_consistent();
        }
    }
}

/// Short reads and writes, calls that are interrupted or would block for nothing, and events of every wrong kind, for clients
/// of any speed.
#[test]
fn answers_come_in_order_through_a_faulty_network() {
    let faulty = Knobs {
        interrupted: 100,
        short_read: 500,
        short_write: 300,
        would_block_for_nothing: 100,
        spurious_event: 300,
        late_event: 300,
        double_event: 300,
        events_max: 4,
        descriptors: 100,
        ..Knobs::default()
    };
    for round in 0..400 {
        let mut random = Random::new(round);
        let limits = Limits::default().with(|limits| {
            limits.read_buffer_bytes = [64, 4_096, 65_536][random.below(3)];
            limits.read_budget_bytes = [100, 10_000, 1 << 20][random.below(3)];
        });
        let window_bytes = [30, 1_000, 100_000][random.below(3)];
        let mut stage = stage(
            limits,
            Knobs {
                window_bytes,
                ..faulty.clone()
            },
        );
        for _ in 0..round {
            stage.network.kernel().random.next(); // another course of faults
        }
        let sent: Vec<u8> = (0..1 + random.below(40))
            .flat_map(|line| {
                let length = [3, 30, 6_000][random.below(if line % 9 == 0 { 3 } else { 2 })];
                let mut bytes = vec![b'a' + line as u8; random.below(length)];
                bytes.extend([&b"\n"[..], b"\r\n"][random.below(2)]);
                bytes
            })
            .collect();
        let socket = stage.enter(CLIENT, b"").expect("it is open");
        stage.network.kernel().wire(socket).short_read_means_empty = round % 2 == 0;
        let mut heard = Vec::new();
        for piece in sent.chunks(1 + random.below(3_000)) {
            stage.say(socket, piece);
            stage.is_consistent();
            if random.below(2) == 0 {
                heard.extend(stage.take(socket));
            }
        }
        for _ in 0..20_000 {
            if heard.len() == answers(CLIENT, &sent).len() {
                break;
            }
            heard.extend(stage.take(socket));
        }
        assert!(heard == answers(CLIENT, &sent), "round {round}");
        let stats = stage.is_consistent();
        assert_eq!((stats.connections_open, stats.unsent_bytes), (1, 0));
    }
}

// --- backpressure and fairness ---------------------------------------------------------------------------------------------

/// A megabyte of answers is asked for, and the client reads ten bytes of them at a time.
#[test]
fn nothing_is_read_while_an_answer_is_unsent_and_what_is_held_is_bounded() {
    let window_bytes = 1_000;
    let mut stage = stage(
        Limits::default(),
        Knobs {
            window_bytes,
            ..Knobs::roomy()
        },
    );
    let sent = b"\n".repeat(40_000);
    let slow = stage.enter(CLIENT, &sent).expect("it is open");
    let before = stage.network.kernel().reads;
    stage.settle();
    assert_eq!(stage.network.kernel().reads, before, "it is not read on");
    let other = stage.enter("10.0.0.6:1", b"other\n").expect("it is open");
    assert_eq!(stage.heard(other), answers("10.0.0.6:1", b"other\n"));
    let mut heard = Vec::new();
    let all = answers(CLIENT, &sent);
    while heard.len() < all.len() {
        heard.extend(stage.take(slow));
        // One read, and one batch of answers with the last of them.
        assert!(stage.is_consistent().unsent_bytes <= 4_097 + 4_096 + 40);
    }
    assert!(heard == all);
    assert!(stage.is_consistent().unsent_bytes_peak > 4_096);
}

#[test]
fn a_peer_that_takes_no_answer_is_cut_and_its_requests_are_discarded() {
    let limits = Limits::default().with(|limits| limits.write_stall_timeout = Some(8 * SECOND));
    let mut stage = stage(
        limits,
        Knobs {
            window_bytes: 100,
            ..Knobs::roomy()
        },
    );
    stage.enter(CLIENT, &LINES.repeat(50)).expect("it is open");
    let lasted = stage.next_end();
    assert!((8 * SECOND..9 * SECOND).contains(&lasted), "{lasted:?}");
    assert_eq!(stage.closed(CloseReason::WriteStall), 1);
    let stats = stage.is_consistent();
    assert!(stats.discarded > 0 && stats.unsent_bytes == 0);
}

/// The budget of a turn counts answers too: one read may ask for a hundred times as much.
#[test]
fn a_pipeline_of_requests_gives_way_to_other_connections() {
    let limits = Limits::default().with(|limits| limits.read_budget_bytes = 5_000);
    let mut stage = stage(limits, Knobs::roomy());
    let sent = b"\n".repeat(20_000);
    let greedy = stage.enter(CLIENT, &sent).expect("it is open");
    assert_eq!(stage.heard(greedy), answers(CLIENT, &sent));
    let answered = answers(CLIENT, &sent).len() as u64;
    let yields = stage.is_consistent().budget_yields;
    assert!(
        (answered / 10_000..=answered / 5_000 + 1).contains(&yields),
        "{yields}"
    );
    assert_eq!(stage.server.stats().spurious_events, 0);
}

/// A line without an end has one answer, and is read on for ever: by the budget of each turn.
#[test]
fn a_line_without_an_end_gives_way_to_other_connections() {
    let limits = Limits::default().with(|limits| limits.read_budget_bytes = 5_000);
    let mut stage = stage(limits, Knobs::roomy());
    let endless = stage.enter(CLIENT, &[b'x'; 100_000]).expect("it is open");
    assert_eq!(stage.heard(endless), answers(CLIENT, &[b'x'; 100_000]));
    let stats = stage.is_consistent();
    // A turn ends with the read that spends its budget, and a read has 4,097 bytes at most.
    assert!((10..=20).contains(&stats.budget_yields), "{stats}");
    assert_eq!((stats.discarded, stats.unsent_bytes), (100_000, 0));
}

// --- ends ------------------------------------------------------------------------------------------------------------------

#[test]
fn an_idle_connection_ends_with_what_it_has_sent_of_a_request() {
    let limits = Limits::default().with(|limits| limits.idle_timeout = Some(16 * SECOND));
    let mut stage = stage(limits, Knobs::roomy());
    stage.enter(CLIENT, b"whole\nhalf").expect("it is open");
    let lasted = stage.next_end();
    assert!((16 * SECOND..18 * SECOND).contains(&lasted), "{lasted:?}");
    assert_eq!(stage.closed(CloseReason::Idle), 1);
    let stats = stage.is_consistent();
    assert_eq!((stats.discarded, stats.unsent_bytes), (4, 0));
}

#[test]
fn a_failed_call_ends_one_connection_with_its_reason() {
    for (call, errno, reason) in [
        (Call::Read, libc::ECONNRESET, CloseReason::Reset),
        (Call::Read, libc::EIO, CloseReason::Error),
        (Call::Write, libc::EPIPE, CloseReason::Reset),
        (Call::Write, libc::EIO, CloseReason::Error),
    ] {
        let mut stage = stage(Limits::default(), Knobs::roomy());
        let good = stage.enter(CLIENT, b"half").expect("it is open");
        counters::fail(&stage, call, errno, 1);
        assert_eq!(stage.enter(CLIENT, LINES), None);
        assert_eq!(stage.closed(reason), 1);
        let lost = if call == Call::Read {
            0
        } else {
            LINES.len() as u64
        };
        assert_eq!(stage.is_consistent().discarded, lost);
        stage.say(good, b" and half\n");
        assert_eq!(stage.heard(good), answers(CLIENT, b"half and half\n"));
        assert_eq!(stage.is_consistent().unsent_bytes, 0);
    }
}

/// What was read is answered, however slowly the client takes it; what is no request yet is discarded.
#[test]
fn a_drain_answers_what_was_read_before_its_fin() {
    let mut stage = stage(
        Limits::default(),
        Knobs {
            window_bytes: 200,
            ..Knobs::roomy()
        },
    );
    let sent = [&b"x\n".repeat(1_000)[..], b"half"].concat();
    let slow = stage.enter(CLIENT, &sent).expect("it is open");
    let idle = stage.enter("10.0.0.6:1", b"half").expect("it is open");
    let late = stage.enter("10.0.0.7:1", b"").expect("it is open");
    stage.server.drain();
    stage.say(late, b"while it drains\n");
    assert_eq!(
        stage.heard(late),
        answers("10.0.0.7:1", b"while it drains\n")
    );
    let limits = stage.server.limits().clone();
    stage.pass(limits.drain_timeout - limits.fin_timeout.min(limits.drain_timeout / 4));
    stage.settle();
    assert!(stage.network.kernel().wire(idle).server_sent_fin);
    let mut heard = Vec::new();
    while !stage.network.kernel().wire(slow).server_sent_fin {
        heard.extend(stage.take(slow));
    }
    heard.extend(stage.take(slow));
    assert!(
        heard == answers(CLIENT, &b"x\n".repeat(1_000)),
        "{}",
        heard.len()
    );
    stage.say(slow, b"after its FIN\n");
    assert_eq!(stage.take(slow), b"");
    for socket in [slow, idle, late] {
        stage.finish(socket);
    }
    stage.ends();
    assert_eq!(stage.closed(CloseReason::ShutDown), 3);
    assert_eq!(stage.is_consistent().discarded, 4 + 4 + 14);
}

#[test]
fn a_stop_discards_requests_and_answers() {
    let mut stage = stage(
        Limits::default(),
        Knobs {
            window_bytes: 50,
            ..Knobs::roomy()
        },
    );
    stage.enter(CLIENT, b"half").expect("it is open");
    stage.enter(CLIENT, &LINES.repeat(9)).expect("it is open");
    stage.server.stop();
    stage.ends();
    assert_eq!(stage.closed(CloseReason::Aborted), 2);
    let stats = stage.is_consistent();
    assert!(stats.discarded > 0 && stats.unsent_bytes == 0);
}

// --- behind a proxy --------------------------------------------------------------------------------------------------------

/// Each cut of a header with requests behind it; the peer is the declared client.
#[test]
fn requests_behind_a_header_are_those_of_the_declared_client() {
    const HEADER: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n";
    let all = [HEADER, LINES].concat();
    for place in 0..all.len() {
        let mut stage = stage(Limits::default(), Knobs::roomy());
        stage.server.set_proxy_protocol(Some(ProxyProtocol {
            from: vec!["10.0.0.0/24".parse().expect("a network")],
            from_unix: false,
            direct: DirectPolicy::Serve,
        }));
        let socket = stage.enter(CLIENT, &all[..place]).expect("it is open");
        stage.say(socket, &all[place..]);
        stage.finish(socket);
        stage.settle();
        let expected = answers("192.0.2.1:56324", LINES);
        assert_eq!(stage.last_heard(), [expected], "cut at {place}");
        let stats = stage.is_consistent();
        assert_eq!(
            (stats.proxy_headers, stats.bytes_in),
            (1, LINES.len() as u64)
        );
        assert_eq!((stats.spurious_events, stats.unsent_bytes), (0, 0));
        // A client that speaks for itself.
        let direct = stage.enter("192.0.2.7:1", b"direct\n").expect("it is open");
        assert_eq!(stage.heard(direct), answers("192.0.2.7:1", b"direct\n"));
    }
}

/// More lines behind the header in one read than are answered in a turn, or held by any other connection.
#[test]
fn a_read_full_of_requests_behind_a_header_is_answered() {
    let mut stage = stage(
        Limits::default(),
        Knobs {
            window_bytes: 5_000,
            ..Knobs::roomy()
        },
    );
    stage.server.set_proxy_protocol(Some(ProxyProtocol {
        from: vec!["10.0.0.0/24".parse().expect("a network")],
        ..ProxyProtocol::default()
    }));
    let long = [&b"\n".repeat(9_000)[..], &[b'y'; 9_000], b"\nz\n"].concat();
    let bytes = [b"PROXY UNKNOWN\r\n", &long[..]].concat();
    let socket = stage.enter(CLIENT, &bytes).expect("it is open");
    let all = answers(CLIENT, &long);
    let mut heard = Vec::new();
    while heard.len() < all.len() {
        heard.extend(stage.take(socket));
        stage.is_consistent();
    }
    assert!(heard == all);
    assert_eq!(stage.is_consistent().discarded, 9_001);
}
