//! E: what the kernel says is ready, and what it turns out to be.

use crate::support::{Talk, bind, connect, turn_until};
use echo_reactor::Limits;
use std::time::Duration;

/// epoll knows an open socket and not a descriptor: while anybody has a copy, closing ours takes nothing out of our event
/// queue, and events go on coming under a key that is nobody's. So a door that is handed over is taken out by hand.
#[test]
fn e4_a_socket_that_lives_on_elsewhere_raises_no_event_here() {
    let mut server = bind(
        &["tcp://127.0.0.1:0", "udp://127.0.0.1:0"],
        Limits::default(),
    );
    let endpoints = server.addresses().to_vec();
    let inside = connect(&endpoints[0]);
    inside.say(b"in");
    turn_until(&mut server, "it is inside", |stats| stats.bytes_out == 2);
    let copies = server.share().unwrap();
    assert_eq!(copies.len(), 2);
    server.leave();

    let outside: Vec<_> = (0..10).map(|_| connect(&endpoints[0])).collect();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.send_to(b"to the other", crate::support::ip(&endpoints[1]))
        .unwrap();
    inside.say(b"and still here");
    turn_until(&mut server, "it is served on", |stats| {
        stats.bytes_out == 16
    });
    server.turn(Some(Duration::ZERO)).unwrap();
    let stats = server.stats();
    assert_eq!((stats.stale_events, stats.accepted), (0, 1), "{stats}");
    assert_eq!(stats.datagrams_in, 0);
    drop((outside, copies));
}
