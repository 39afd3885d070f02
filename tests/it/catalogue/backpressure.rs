//! B: clients that send and do not read, memory that runs short, sizes of every kind.

use crate::support::fault::{can, figure, kept};
use crate::support::{Serve, Talk, stuff};
use nix::sys::signal::Signal;

const TCP: &str = "tcp://127.0.0.1:0";

/// What one client that pushes and never reads makes the server's side pin: bytes of the kernel's, and of ours.
#[track_caller]
fn pinned_by_a_client_that_never_reads(flags: &[&str]) -> (u64, u64) {
    let server = Serve::start(&[TCP], flags);
    let other = server.connect();
    let never_reads = [server.connect()];
    // It would push a gigabyte, if it were let. Nothing moves any more long before that.
    stuff(&never_reads);
    let sockets = kept(&server.endpoints[0]);
    let kernel = sockets.iter().map(|kept| kept.memory).max().unwrap();
    let ours = server.counter("owed_peak");
    other.is_echoed(b"served on");
    drop((never_reads, other));
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    (kernel, ours)
}

#[test]
fn b1_client_that_never_reads() {
    if !can(&["ss"]) {
        return;
    }
    let (kernel, ours) = pinned_by_a_client_that_never_reads(&[]);
    figure(&format!(
        "b1: plain: {kernel} bytes of the kernel's and {ours} of ours"
    ));
    assert!(ours <= 64 << 10, "{ours}");
    let (kernel, ours) = pinned_by_a_client_that_never_reads(&["--hardened"]);
    figure(&format!(
        "b1: hardened: {kernel} bytes of the kernel's and {ours} of ours"
    ));
    assert!(ours <= 16 << 10, "{ours}");
    assert!(kernel <= 80_000, "{kernel}");
}
