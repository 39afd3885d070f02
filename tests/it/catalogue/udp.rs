//! U: datagrams, their limits, and the loops that they can start.

use crate::datagrams::{check_udp, udp, waiting};
use crate::support::fault::{Forger, can, failing, figure, in_own_network};
use crate::support::{
    DEADLINE, Noise, Serve, has_ipv6, ip, kernel_drops, noise, turn_until, wait_until,
};
use echo_reactor::Limits;
use nix::sys::signal::Signal;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// On the loopback interface, all of 10/8 is local: every forged source can be answered.
const NETWORK: [&str; 1] = ["10.0.0.1/8"];

/// The address of the server's datagram socket.
#[track_caller]
fn v4(server: &Serve) -> SocketAddrV4 {
    match ip(&server.endpoints[0]) {
        SocketAddr::V4(address) => address,
        other @ SocketAddr::V6(_) => panic!("{other}"),
    }
}

#[track_caller]
fn serve(flags: &[&str]) -> Serve {
    Serve::start(
        &["udp://10.0.0.1:0"],
        &[&["--allow-public-udp"], flags].concat(),
    )
}

fn source(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}

/// A client with an unforged source is answered; so every datagram sent before has been read.
#[track_caller]
fn is_answered(server: SocketAddrV4) {
    let client = UdpSocket::bind("10.0.0.200:0").unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.send_to(b"honest", server).unwrap();
    assert_eq!(client.recv(&mut [0; 16]).unwrap(), 6);
}

/// A datagram with the server's own address as source would be answered to the server itself, and that answer again,
/// for ever.
#[test]
fn u5_loop_with_itself() {
    if !can(&["ip"]) {
        return;
    }
    in_own_network(&NETWORK, || {
        let (server, forger) = (serve(&[]), Forger::new());
        let own = v4(&server);
        assert!(forger.send(own, own, b"to myself"));
        // A source with the server's own port may be a second server, which would answer each answer.
        assert!(forger.send(
            SocketAddrV4::new(Ipv4Addr::new(10, 7, 7, 7), own.port()),
            own,
            b"x"
        ));
        is_answered(own);
        let counters = server.counters();
        assert_eq!(
            (counters["datagrams_in"], counters["datagrams_out"]),
            (3, 1)
        );
        assert_eq!(counters["dropped{own_port}"], 2);
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    });
}

/// Two servers that answer each other without end: the loop ends when one of them reaches its rate limit.
#[test]
fn u6_loop_between_two_servers() {
    if !can(&["ip"]) {
        return;
    }
    in_own_network(&NETWORK, || {
        let flags = ["--udp-rate-per-source", "200"];
        let (one, other, forger) = (serve(&flags), serve(&flags), Forger::new());
        let began = Instant::now();
        for _ in 0..20 {
            assert!(forger.send(v4(&other), v4(&one), b"ping"));
        }
        thread::sleep(Duration::from_secs(1));
        let (out, ticks) = (one.counter("datagrams_out"), one.cpu_ticks());
        let passed = began.elapsed().as_secs_f64();
        figure(&format!(
            "u6: {out} answers in {passed:.1} s under a cap of 200 a second, {ticks} ticks of 10 ms"
        ));
        assert!(out as f64 <= 200.0 * (passed + 1.0), "{out} in {passed} s");
        for server in [one, other] {
            let counters = server.counters();
            assert!(counters["datagrams_out"] <= counters["datagrams_in"]);
            assert_eq!(server.stop(Signal::SIGTERM).code, 0);
        }
    });
}

/// A foreign echo server on a high port cannot be told from a client. The rate of answers to it is limited all the
/// same.
#[test]
fn u7_loop_with_a_reflector() {
    if !can(&["ip"]) {
        return;
    }
    in_own_network(&NETWORK, || {
        let server = serve(&["--udp-rate-per-source", "500"]);
        let reflector = UdpSocket::bind("10.0.0.9:40000").unwrap();
        reflector
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let (forger, over) = (Forger::new(), AtomicBool::new(false));
        let began = Instant::now();
        let reflected = thread::scope(|scope| {
            let reflect = scope.spawn(|| {
                let (mut bytes, mut count) = ([0; 64], 0_u64);
                while !over.load(Ordering::Relaxed) {
                    if let Ok((length, from)) = reflector.recv_from(&mut bytes) {
                        count += 1;
                        reflector.send_to(&bytes[..length], from).unwrap();
                    }
                }
                count
            });
            // The rate limit has ended a loop; it is started anew, again and again.
            while began.elapsed() < Duration::from_secs(3) {
                assert!(forger.send(source("10.0.0.9:40000"), v4(&server), b"ping"));
                thread::sleep(Duration::from_millis(1));
            }
            over.store(true, Ordering::Relaxed);
            reflect.join().unwrap()
        });
        let passed = began.elapsed().as_secs_f64();
        let counters = server.counters();
        let (received, sent) = (counters["datagrams_in"], counters["datagrams_out"]);
        figure(&format!(
            "u7: {:.0} answers a second to a reflector under a cap of 500, {reflected} reflected; {received} in, {sent} out",
            sent as f64 / passed
        ));
        assert!(
            sent as f64 <= 500.0 * (passed + 1.0),
            "{sent} in {passed} s"
        );
        assert!(sent > 500 && sent <= received, "{sent} of {received}");
        assert!(counters["dropped{source_rate}"] > 0);
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    });
}

/// Services that answer by themselves, and source addresses of no host: none of them gets an answer.
#[test]
fn u8_sources_that_are_refused() {
    if !can(&["ip"]) {
        return;
    }
    in_own_network(&NETWORK, || {
        let (server, forger) = (serve(&[]), Forger::new());
        let own = v4(&server);
        let capture = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)).unwrap();
        capture.set_read_timeout(Some(DEADLINE)).unwrap();
        let services = [0, 7, 13, 17, 19, 53, 123, 1023, 2049];
        for port in services {
            let service = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 77), port);
            assert!(forger.send(service, own, b"answer me"));
        }
        // 0.0.0.0 cannot be forged here: raw(7) says that the kernel puts its own address in its place.
        for no_host in [
            "224.0.0.1:40000",
            "255.255.255.255:40000",
            "240.0.0.1:40000",
        ] {
            forger.send(source(no_host), own, b"answer me");
        }
        is_answered(own);
        // The capture has the datagrams sent to the server and its answers: to the unforged source alone.
        let mut answers = 0;
        let mut packet = [0; 256];
        while answers == 0 || !capture.nothing_more() {
            let length = (&mut &capture).read(&mut packet).unwrap();
            assert!(length >= 28);
            let (from, to) = (
                u16::from_be_bytes([packet[20], packet[21]]),
                u16::from_be_bytes([packet[22], packet[23]]),
            );
            if from == own.port() && to != own.port() {
                assert_eq!(&packet[28..length], b"honest", "to port {to}");
                answers += 1;
            }
        }
        let counters = server.counters();
        let no_host = counters.get("dropped{no_host}").copied().unwrap_or(0);
        figure(&format!(
            "u8: of 3 sources that are no host the kernel let {no_host} through"
        ));
        assert_eq!(counters["dropped{service_port}"], services.len() as u64);
        assert_eq!((answers, counters["datagrams_out"]), (1, 1));
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    });
}

trait Capture {
    /// Whether nothing can be read now.
    fn nothing_more(&self) -> bool;
}

impl Capture for Socket {
    fn nothing_more(&self) -> bool {
        use crate::support::Talk;
        self.hears_nothing()
    }
}

/// Each datagram carries another forged source: the limit per source never applies, the total one does.
#[test]
fn u9_flood_from_forged_sources() {
    if !can(&["ip"]) {
        return;
    }
    in_own_network(&NETWORK, || {
        let server = serve(&["--udp-rate", "500"]);
        let (forger, own, mut noise) = (Forger::new(), v4(&server), Noise::new(9));
        let began = Instant::now();
        for _ in 0..20_000 {
            let bits = noise.next();
            let victim = Ipv4Addr::from_bits(0x0a00_0000 | (bits as u32 >> 8));
            let port = 3_000 + (bits >> 40) as u16 % 20_000;
            forger.send(SocketAddrV4::new(victim, port), own, b"a forged request");
        }
        wait_until("all are read", || {
            let before = server.counter("datagrams_in");
            thread::sleep(Duration::from_millis(20));
            server.counter("datagrams_in") == before
        });
        let passed = began.elapsed().as_secs_f64();
        let counters = server.counters();
        let (received, sent) = (counters["datagrams_in"], counters["datagrams_out"]);
        figure(&format!(
            "u9: {received} datagrams from as many sources in {passed:.2} s drew {sent} answers under a cap of 500 a second"
        ));
        assert!(
            sent as f64 <= 500.0 * (passed + 1.0),
            "{sent} in {passed} s"
        );
        assert!(sent >= 1 && sent <= received);
        assert!(counters["dropped{total_rate}"] > 0);
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    });
}

// --- Answers that cannot be sent ---------------------------------------------------------------------------------------

/// The first three answers fail with this error. They are dropped and counted with this reason, and the fourth is sent.
#[track_caller]
fn check_failing(call: &str, errno: &str, reason: &str, address: &str) {
    let fault = format!("{call}:error={errno}:when=1..3");
    let server = failing(&fault, &[address], &["--allow-public-udp"]);
    let port = ip(&server.endpoints[0]).port();
    let client = udp("127.0.0.1:0", SocketAddr::from(([127, 0, 0, 1], port)));
    for number in 1..=4 {
        client.send(&[number]).unwrap();
    }
    let mut answer = [0; 8];
    assert_eq!(client.recv(&mut answer).unwrap(), 1, "{errno}");
    assert_eq!(answer[0], 4, "{errno}: three are dropped, none is queued");
    let counters = server.counters();
    assert_eq!(counters[reason], 3, "{errno}: {counters:?}");
    let (received, sent) = (counters["datagrams_in"], counters["datagrams_out"]);
    assert_eq!((received, sent), (4, 1), "{errno}");
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

#[test]
fn u3_an_answer_without_buffer_space_is_dropped() {
    if can(&["strace"]) {
        for errno in ["EAGAIN", "ENOBUFS"] {
            check_failing("sendto", errno, "dropped{would_block}", "udp://127.0.0.1:0");
        }
        #[cfg(feature = "pktinfo")]
        check_failing(
            "sendmsg",
            "EAGAIN",
            "dropped{would_block}",
            "udp://0.0.0.0:0",
        );
    }
}

#[test]
fn u4_an_answer_that_cannot_be_sent() {
    if !can(&["strace"]) {
        return;
    }
    for errno in [
        "EPERM",
        "ENETUNREACH",
        "EHOSTUNREACH",
        "EMSGSIZE",
        "EACCES",
        "EINVAL",
        "ECONNREFUSED",
    ] {
        check_failing("sendto", errno, "dropped{error}", "udp://127.0.0.1:0");
    }
    // A later receive reports the failure of an earlier answer (an ICMP error), and that does not end the socket
    // either.
    let fault = "recvfrom:error=ECONNREFUSED:when=1..3";
    let server = failing(fault, &["udp://127.0.0.1:0"], &[]);
    let client = udp("127.0.0.1:0", ip(&server.endpoints[0]));
    client.send(b"all the same").unwrap();
    assert_eq!(client.recv(&mut [0; 64]).unwrap(), 12);
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

// --- Lengths, addresses, bursts ----------------------------------------------------------------------------------------

#[test]
fn u1_a_datagram_of_no_bytes() {
    check_udp(
        "udp://127.0.0.1:0",
        "127.0.0.1:0",
        "127.0.0.1",
        &[b"", b"and it is no end", b""],
    );
}

#[test]
fn u2_the_longest_of_ipv4() {
    let (longest, one_less) = (noise(1, 65_507), noise(2, 65_506));
    check_udp(
        "udp://127.0.0.1:0",
        "127.0.0.1:0",
        "127.0.0.1",
        &[&longest, &one_less],
    );
}

#[test]
fn u2_the_longest_of_ipv6() {
    if has_ipv6() {
        check_udp("udp://[::1]:0", "[::1]:0", "::1", &[&noise(1, 65_527)]);
    }
}

#[cfg(feature = "pktinfo")]
#[test]
fn u10_a_wildcard_answers_from_the_address_that_was_asked() {
    for asked in ["127.0.0.1", "127.0.0.2", "127.9.9.9"] {
        check_udp(
            "udp://0.0.0.0:0",
            "127.0.0.1:0",
            asked,
            &[b"which is it?", b""],
        );
    }
}

#[cfg(feature = "pktinfo")]
#[test]
fn u10_a_dual_stack_wildcard_answers_both_families() {
    if has_ipv6() {
        check_udp("udp://:0", "[::1]:0", "::1", &[b"six"]);
        check_udp(
            "udp://:0",
            "127.0.0.1:0",
            "127.0.0.2",
            &[b"four", &noise(1, 65_507)],
        );
    }
}

/// Without IP_PKTINFO (the address that was asked), the kernel would answer from the address that leads to the client:
/// here the client's own.
#[cfg(feature = "pktinfo")]
#[test]
fn u10_a_machine_with_two_addresses() {
    if !can(&["ip"]) {
        return;
    }
    in_own_network(&["10.1.0.1/32", "10.2.0.1/32"], || {
        let server = Serve::start(&["udp://0.0.0.0:0"], &["--allow-public-udp"]);
        let port = ip(&server.endpoints[0]).port();
        let client = UdpSocket::bind("10.1.0.1:0").unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        for asked in ["10.2.0.1", "10.1.0.1", "127.0.0.1"] {
            let asked = SocketAddr::new(asked.parse().unwrap(), port);
            client.send_to(b"which is it?", asked).unwrap();
            let (length, answered) = client.recv_from(&mut [0; 64]).unwrap();
            assert_eq!((length, answered), (12, asked));
        }
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    });
}

#[test]
fn u11_a_burst_and_then_no_more_edge() {
    let (mut server, address) = waiting(Limits::default().with(|limits| {
        limits.datagrams_per_source = None;
        limits.datagrams_total = None;
    }));
    let client = udp("127.0.0.1:0", address);
    for number in 0..10_000_u32 {
        client.send(&number.to_be_bytes()).unwrap();
    }
    // The datagrams that fit into the receive buffer are one edge, and nothing arrives that would raise another.
    let read_all = |in_: u64| in_ + kernel_drops(address) == 10_000;
    turn_until(&mut server, "all are read", |stats| {
        read_all(stats.datagrams_in)
    });
    let stats = server.stats();
    assert_eq!(stats.check_invariants(), Ok(()));
    assert_eq!(stats.datagrams_in, stats.datagrams_out);
    let per_turn = Limits::default().datagram_budget as u64;
    assert!(stats.datagrams_in > per_turn, "more than one turn's worth");
    assert!(stats.budget_yields >= stats.datagrams_in / per_turn);
    figure(&format!(
        "u11: of 10,000 in one edge {} are answered, and the kernel dropped the rest",
        stats.datagrams_out
    ));
}
