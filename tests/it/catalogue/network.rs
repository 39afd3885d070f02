//! N: peers that vanish, stop reading, lose packets or send urgent ones.

use crate::support::fault::{
    LittleMemory, can, cut_off, figure, in_own_network, kept, lose, sh, vanish,
};
use crate::support::{
    Model, Running, Serve, Talk, assert_same, bind, connect, noise, sock_addr, try_connect,
    turn_until, unless_reset, wait_until,
};
use echo_reactor::Limits;
use echo_reactor::stats::CloseReason;
use nix::sys::signal::Signal;
use socket2::Socket;
use std::thread;
use std::time::{Duration, Instant};

const TCP: &str = "tcp://127.0.0.1:0";

/// A peer without power answers nothing; one that has restarted answers with a reset, since it knows of no connection.
/// Keepalive detects both, with the values of the hardened profile.
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
    // The first probe is sent after ten seconds. A peer that does not answer is given up after 16.
    wait_until("both are closed", || kept(&server.endpoints[0]).is_empty());
    let passed = began.elapsed();
    wait_until("both are counted", || {
        server.counter("connections_open") == 0
    });
    let counters = server.counters();
    assert_eq!(
        counters.get("closed{peer_timeout}"),
        Some(&1),
        "{counters:?}"
    );
    assert_eq!(counters.get("closed{reset}"), Some(&1), "{counters:?}");
    figure(&format!("n1: closed after {:.1} s", passed.as_secs_f64()));
    assert!(passed < Duration::from_secs(20 + 10), "{passed:?}");
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

/// The peer can send but receives nothing, so the echo stays unacknowledged, and keepalive does not run.
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
    wait_until("it is given up", || server.counter("connections_open") == 1);
    let passed = began.elapsed();
    figure(&format!("n2: given up after {:.2} s", passed.as_secs_f64()));
    assert!(passed >= Duration::from_millis(1_400), "{passed:?}");
    assert!(passed < Duration::from_millis(2_500 + 10_000), "{passed:?}");
    assert_eq!(server.counter("closed{peer_timeout}"), 1);
    assert_eq!(
        kept(&server.endpoints[0]).len(),
        1,
        "the other connection alone"
    );
    other.is_echoed(b"served on");
    drop(other);
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

/// The peer lives, and acknowledges every window probe, but its window stays zero. No timer of TCP ends that.
#[test]
fn n3_zero_window_for_ever() {
    if !can(&["ss"]) {
        return;
    }
    let server = Serve::start(&[TCP], &["--write-stall-timeout", "500ms"]);
    let (other, stuck) = (server.connect(), server.connect());
    stuck.set_nonblocking(true).unwrap();
    let mut pinned = 0;
    wait_until("it is reset", || {
        while stuck.send(&[b'x'; 16 << 10]).is_ok() {}
        let most = kept(&server.endpoints[0])
            .iter()
            .map(|kept| kept.memory)
            .max();
        pinned = pinned.max(most.unwrap_or(0));
        server.counter("closed{write_stall}") == 1
    });
    // After an orderly close the kernel would keep the unsent megabytes for as long as the peer's window stays zero.
    let left = kept(&server.endpoints[0]);
    figure(&format!(
        "n3: {} KB pinned before, nothing after",
        pinned / 1_000
    ));
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(pinned > 100_000, "it was really stalled: {pinned}");
    other.is_echoed(b"served on");
    drop(other);
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

/// Writes and reads at the same time, as a client with much to send must; then sends FIN.
#[track_caller]
fn converse(client: &Socket, sent: &[u8]) {
    thread::scope(|scope| {
        scope.spawn(|| {
            client.say(sent);
            client.finish();
        });
        assert_same(&client.hear_all(), sent);
    });
}

/// TCP retransmits what is lost on its way to the client, echoes and acknowledgements alike. That costs time, and
/// nothing else.
#[test]
fn n4_lost_packets() {
    if !can(&["ip"]) {
        return;
    }
    in_own_network(&[], || {
        // Otherwise the loopback interface carries 64 KiB in one packet, and of few packets hardly one is lost.
        sh("ip link set lo mtu 1500 gso_max_segs 1");
        let server = Serve::start(&[TCP], &[]);
        thread::scope(|scope| {
            for (percent, length) in [(1, 1_000_000), (5, 300_000), (20, 50_000)] {
                let client = server.connect();
                scope.spawn(move || {
                    let began = Instant::now();
                    lose(&client, percent);
                    converse(&client, &noise(u64::from(percent), length));
                    let took = began.elapsed().as_secs_f64();
                    figure(&format!(
                        "n4: {length} bytes back in {took:.2} s with {percent} % lost"
                    ));
                });
            }
        });
        let again = sent_again();
        figure(&format!("n4: {again} packets were sent again"));
        assert!(again > 10, "{again}");
        wait_until("all are closed", || server.counter("connections_open") == 0);
        assert_eq!(server.counter("closed{peer_closed}"), 3);
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    });
}

/// Segments that TCP has retransmitted in the network namespace of this thread (`RetransSegs` of RFC 4022).
fn sent_again() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, count) = pairs.find(|(name, _)| *name == "RetransSegs").unwrap();
    count.parse().unwrap()
}

/// A megabit a second for both directions together, and a queue of 50 ms: what does not fit is dropped.
#[test]
fn n5_a_slow_link_with_a_short_queue() {
    const LENGTH: usize = 40_000;
    if !can(&["ip", "tc"]) {
        return;
    }
    in_own_network(&[], || {
        sh("ip link set lo mtu 1500");
        sh("tc qdisc add dev lo root tbf rate 1mbit burst 3000 latency 50ms");
        let server = Serve::start(&[TCP], &[]);
        let began = Instant::now();
        thread::scope(|scope| {
            for number in 0..3 {
                let client = server.connect();
                scope.spawn(move || converse(&client, &noise(number, LENGTH)));
            }
        });
        let counters = server.counters();
        figure(&format!(
            "n5: three times {LENGTH} bytes back over 1 Mbit/s in {:.1} s, at most {} bytes unsent in the server",
            began.elapsed().as_secs_f64(),
            counters["unsent_bytes_peak"]
        ));
        assert_eq!(counters["bytes_out"], 3 * LENGTH as u64);
        assert!(counters["unsent_bytes_peak"] <= 3 * Limits::default().read_buffer_bytes as u64);
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    });
}

/// The row's thirty seconds are three here: the kernel's retransmission timeouts double each time, and show nothing
/// new.
#[test]
fn n6_the_link_goes_down_and_comes_back() {
    if !can(&["ip"]) {
        return;
    }
    in_own_network(&[], || {
        let without_limit = Serve::start(&[TCP], &[]);
        let strict = Serve::start(&[TCP], &["--keepalive", "1s", "--user-timeout", "2s"]);
        let (kept, given_up) = (without_limit.connect(), strict.connect());
        kept.is_echoed(b"here");
        given_up.is_echoed(b"here");
        sh("ip link set lo down");
        let began = Instant::now();
        kept.say(b"said while it is down");
        wait_until("the one with a timeout gives up", || {
            strict.counter("connections_open") == 0
        });
        let down = began.elapsed().as_secs_f64();
        sh("ip link set lo up");
        assert_eq!(kept.hear(21), b"said while it is down");
        figure(&format!(
            "n6: down for {down:.1} s, back {:.1} s after it began",
            began.elapsed().as_secs_f64()
        ));
        assert_eq!(without_limit.counter("connections_open"), 1);
        let counters = strict.counters();
        assert_eq!(counters["closed{peer_timeout}"], 1, "{counters:?}");
        drop(kept);
        for server in [without_limit, strict] {
            assert_eq!(server.stop(Signal::SIGTERM).code, 0);
        }
    });
}

/// A thousand connections that send a byte each in 29 seconds; ten thousand with `ECHO_FULL=1`. The plain server serves
/// them: they cost next to nothing. The hardened one limits the connections per prefix and the time that they may be
/// silent.
#[test]
fn n7_thousands_of_nearly_silent_connections() {
    let count = match std::env::var_os("ECHO_FULL") {
        Some(_) => 10_000,
        None => 1_000,
    };
    let server = Serve::start(&[TCP], &[]);
    let clients: Vec<Socket> = (0..count).map(|_| server.connect()).collect();
    wait_until("all are accepted", || server.counter("accepted") == count);
    let (began, before) = (Instant::now(), server.cpu_ticks());
    for client in clients.iter().step_by(29).cycle() {
        client.say(b".");
        thread::sleep(Duration::from_secs(29) / u32::try_from(count).unwrap());
        if began.elapsed() > Duration::from_secs(2) {
            break;
        }
    }
    let (ticks, passed) = (server.cpu_ticks() - before, began.elapsed().as_secs_f64());
    let percent = ticks as f64 / passed;
    figure(&format!(
        "n7: {count} slow ones take {percent:.1} % of a processor"
    ));
    assert!(percent < 5.0, "{ticks} ticks in {passed} s");
    assert_eq!(server.counter("connections_open"), count);
    drop(clients);
    wait_until("all are closed", || server.counter("connections_open") == 0);
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);

    let flags = [
        "--hardened",
        "--max-per-prefix",
        "50",
        "--idle-timeout",
        "2s",
    ];
    let server = Serve::start(&[TCP], &flags);
    let address = sock_addr(&server.endpoints[0]);
    let clients = (0..80).map(|_| unless_reset(try_connect(&address)));
    let clients: Vec<Option<Socket>> = clients.collect();
    wait_until("thirty are rejected", || {
        server.counter("rejected{prefix}") == 30
    });
    wait_until("the silent ones are closed", || {
        server.counter("closed{idle}") == 50
    });
    drop(clients);
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

/// All of the server's sockets together may take 512 KB of kernel memory, which sixteen of its clients alone would
/// fill. That is no error; a connection that needs little still gets it, and afterwards everything is as before.
#[test]
fn n8_no_memory_for_tcp() {
    if !can(&[]) {
        return;
    }
    const LIMIT: u64 = 512 << 10;
    let Some(group) = LittleMemory::new(LIMIT) else {
        return;
    };
    // When these clients close, the kernel may have no memory for their last segments either, or the reset may lie
    // outside the window: it is dropped and not repeated, and the connection looks open. A keepalive probe is answered
    // by another reset.
    let server = group.serve(&[TCP], &["--keepalive", "1s"]);
    let pinger = server.connect();
    pinger.is_echoed(b"plenty");
    let greedy: Vec<Socket> = (0..16).map(|_| server.connect()).collect();
    for client in &greedy {
        client.set_nonblocking(true).unwrap();
    }
    wait_until("the limit of memory is reached", || {
        for client in &greedy {
            while client.send(&[b'x'; 16 << 10]).is_ok() {}
        }
        group.most_used() >= LIMIT
    });
    pinger.is_echoed(b"a little");
    drop(greedy);
    wait_until("they are closed", || {
        server.counter("connections_open") == 1
    });
    figure(&format!(
        "n8: at most {} bytes in use under a limit of {LIMIT}, and a connection that needs little is served",
        group.most_used()
    ));
    converse(&pinger, &noise(8, 200_000));
    let counters = server.counters();
    assert_eq!(counters.get("closed{out_of_memory}"), None, "{counters:?}");
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

// --- Urgent bytes ------------------------------------------------------------------------------------------------------

/// All bytes in band come back, though nothing is sent after them that could raise another edge.
#[track_caller]
fn check_urgent(model: Model, before: usize, after: usize) {
    let server = Running::start(model, &[TCP], Limits::default());
    let client = server.connect();
    client.is_echoed(b"calm");
    let (first, second) = (noise(4, before), noise(5, after));
    if before > 0 {
        client.say(&first);
    }
    assert_eq!(client.send_out_of_band(b"!").unwrap(), 1);
    if after > 0 {
        client.say(&second);
    }
    assert_same(&client.hear(before + after), &[first, second].concat());
    client.is_echoed(b"calm again");
    client.finish();
    assert_eq!(client.hear_all(), b"");
    let stats = server.drain();
    assert_eq!(stats.closed(CloseReason::PeerClosed), 1);
    assert_eq!(stats.bytes_out, (before + after) as u64 + 14);
}

#[test]
fn n9_bytes_around_an_urgent_one_come_back() {
    for (before, after) in [(6, 5), (0, 5), (6, 0), (0, 0), (50_000, 10_000)] {
        check_urgent(Model::Reactor, before, after);
        check_urgent(Model::Threads, before, after);
    }
}

/// The first read of a connection takes another path than the later ones: it is made right after the accept.
#[test]
fn n9_an_urgent_byte_before_the_accept() {
    let mut server = bind(&[TCP], Limits::default());
    let client = connect(&server.addresses()[0]);
    client.say(b"before");
    client.send_out_of_band(b"!").unwrap();
    client.say(b"after");
    turn_until(&mut server, "all is echoed", |stats| stats.bytes_out == 11);
    assert_eq!(client.hear(11), b"beforeafter");
}
