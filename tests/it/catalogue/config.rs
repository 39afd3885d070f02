//! G: what the machine or the command line cannot grant, and how that is said.

use crate::support::{Serve, Talk, ended, has_ipv6, ip, program};
use nix::sys::signal::Signal;
use std::io::ErrorKind;
use std::net::UdpSocket;

/// UDP is served only where it is named, and beyond this machine only by a flag of its own: a datagram's source is a mere
/// claim, so an open echo server can be turned against others. TCP proves its sources, so there naming the address will
/// do, and one line tells of it.
#[test]
fn g4_exposure_has_to_be_asked_for() {
    if !has_ipv6() {
        return;
    }
    for address in [
        "udp://0.0.0.0:0",
        "udp://:0",
        "udp://[::]:0",
        "udp://192.0.2.1:7",
    ] {
        let ended = ended(program().args(["serve", "127.0.0.1:0", address]));
        ended.failed(64, &["UDP", "--expose", "udp://127.0.0.1:"]);
    }
    let loopback = [
        "udp://127.0.0.1:0",
        "udp://[::1]:0",
        "unixgram://@g4-is-no-network",
    ];
    let server = Serve::start(&loopback, &[]);
    assert!(!server.err().contains("WARN"), "{}", server.err());
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);

    let server = Serve::start(&[":0", "udp://:0"], &["--expose"]);
    assert!(!server.err().contains("other machines"), "it is meant");
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);

    let server = Serve::start(&[":0"], &[]);
    server.says("can be reached from other machines");
    server.connect().is_echoed(b"TCP is served");
    let port = ip(&server.endpoints[0]).port();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    datagrams.connect(("127.0.0.1", port)).unwrap();
    datagrams.send(b"UDP is not").unwrap();
    datagrams
        .set_read_timeout(Some(crate::support::DEADLINE))
        .unwrap();
    let error = datagrams.recv(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}
