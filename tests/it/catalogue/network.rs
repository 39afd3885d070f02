//! N: peers that vanish, stop reading, lose packets or push urgent ones.

use crate::support::fault::{can, cut_off, figure, kept, vanish};
use crate::support::{Serve, Talk, wait_until};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

const TCP: &str = "tcp://127.0.0.1:0";

/// A peer whose power failed answers nothing; one that has started again answers with a reset, since it knows of no
/// connection. Keepalive finds out about both, with the values of the hardened profile.
#[test]
fn n1_peer_vanishes_while_idle() {
    if !can(&["ss"]) {
        return;
    }
    let server = Serve::start(&[TCP], &["--hardened", "--idle-timeout", "off"]);
    let (silent, restarted) = (server.connect(), server.connect());
    silent.is_echoed(b"here");
    restarted.is_echoed(b"here");
    let began = Instant::now();
    cut_off(&silent);
    vanish(restarted);
    // The first probe goes out after ten seconds. Who does not answer is given up at 16.
    wait_until("both are gone", || kept(&server.endpoints[0]).is_empty());
    let passed = began.elapsed();
    wait_until("both are counted", || server.counter("live") == 0);
    let ledger = server.ledger();
    assert_eq!(ledger.get("closed{peer_timeout}"), Some(&1), "{ledger:?}");
    assert_eq!(ledger.get("closed{reset}"), Some(&1), "{ledger:?}");
    figure(&format!("n1: gone after {:.1} s", passed.as_secs_f64()));
    assert!(passed < Duration::from_secs(20 + 10), "{passed:?}");
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

/// The peer can be heard and hears nothing, so what it is owed stays unacknowledged, and keepalive does not run.
#[test]
fn n2_black_hole_while_writing() {
    if !can(&["ss"]) {
        return;
    }
    let server = Serve::start(&[TCP], &["--user-timeout", "1500ms"]);
    let (other, lost) = (server.connect(), server.connect());
    lost.is_echoed(b"here");
    cut_off(&lost);
    let began = Instant::now();
    lost.say(b"an echo that never arrives");
    wait_until("it is given up", || server.counter("live") == 1);
    let passed = began.elapsed();
    figure(&format!("n2: given up after {:.2} s", passed.as_secs_f64()));
    assert!(passed >= Duration::from_millis(1_400), "{passed:?}");
    assert!(passed < Duration::from_millis(2_500 + 10_000), "{passed:?}");
    assert_eq!(server.counter("closed{peer_timeout}"), 1);
    assert_eq!(kept(&server.endpoints[0]).len(), 1, "the other one alone");
    other.is_echoed(b"served on");
    drop(other);
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

/// The peer lives, and acknowledges every probe of its window, which stays shut. No timer of TCP's ends that.
#[test]
fn n3_zero_window_for_ever() {
    if !can(&["ss"]) {
        return;
    }
    let server = Serve::start(&[TCP], &["--write-stall-timeout", "500ms"]);
    let (other, stuck) = (server.connect(), server.connect());
    stuck.set_nonblocking(true).unwrap();
    let mut pinned = 0;
    wait_until("it is cut", || {
        while stuck.send(&[b'x'; 16 << 10]).is_ok() {}
        let most = kept(&server.endpoints[0])
            .iter()
            .map(|kept| kept.memory)
            .max();
        pinned = pinned.max(most.unwrap_or(0));
        server.counter("closed{write_stall}") == 1
    });
    // An orderly close would leave the unsent megabytes in the kernel, for as long as the peer likes.
    let left = kept(&server.endpoints[0]);
    figure(&format!(
        "n3: {} KB pinned before, nothing after",
        pinned / 1_000
    ));
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(pinned > 100_000, "it was really stuck: {pinned}");
    other.is_echoed(b"served on");
    drop(other);
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}
