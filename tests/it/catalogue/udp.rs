//! U: datagrams, their limits, and the loops that they can start.

use crate::support::fault::{Forger, can, figure, in_own_network};
use crate::support::{DEADLINE, Noise, Serve, ip, wait_until};
use nix::sys::signal::Signal;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// On the loopback interface, all of 10/8 is ours: whoever is named as a source can be answered.
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
    Serve::start(&["udp://10.0.0.1:0"], &[&["--expose"], flags].concat())
}

fn source(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}

/// An honest client is answered; so everything that was sent before has been seen.
#[track_caller]
fn is_answered(server: SocketAddrV4) {
    let client = UdpSocket::bind("10.0.0.200:0").unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.send_to(b"honest", server).unwrap();
    assert_eq!(client.recv(&mut [0; 16]).unwrap(), 6);
}

/// A datagram in the server's own name would be answered to itself, and that answer again, for ever.
#[test]
fn u5_loop_with_oneself() {
    if !can(&["ip"]) {
        return;
    }
    in_own_network(&NETWORK, || {
        let (server, forger) = (serve(&[]), Forger::new());
        let own = v4(&server);
        assert!(forger.send(own, own, b"to myself"));
        // Any address of ours has our port, and so may somebody else's who is set on us.
        assert!(forger.send(
            SocketAddrV4::new(Ipv4Addr::new(10, 7, 7, 7), own.port()),
            own,
            b"x"
        ));
        is_answered(own);
        let ledger = server.ledger();
        assert_eq!((ledger["datagrams_in"], ledger["datagrams_out"]), (3, 1));
        assert_eq!(ledger["dropped{own_port}"], 2);
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    });
}

/// What two servers did in a loop that nobody stops: it ends when one of them has had its share.
#[test]
fn u6_loop_between_two_of_us() {
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
            let ledger = server.ledger();
            assert!(ledger["datagrams_out"] <= ledger["datagrams_in"]);
            assert_eq!(server.stop(Signal::SIGTERM).code, 0);
        }
    });
}

/// A stranger's echo server on a high port cannot be told from a client. What it draws is capped all the same.
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
            // A loop that the cap has ended is started anew, again and again.
            while began.elapsed() < Duration::from_secs(3) {
                assert!(forger.send(source("10.0.0.9:40000"), v4(&server), b"ping"));
                thread::sleep(Duration::from_millis(1));
            }
            over.store(true, Ordering::Relaxed);
            reflect.join().unwrap()
        });
        let passed = began.elapsed().as_secs_f64();
        let ledger = server.ledger();
        let (received, sent) = (ledger["datagrams_in"], ledger["datagrams_out"]);
        figure(&format!(
            "u7: {:.0} answers a second to a reflector under a cap of 500, {reflected} reflected; {received} in, {sent} out",
            sent as f64 / passed
        ));
        assert!(
            sent as f64 <= 500.0 * (passed + 1.0),
            "{sent} in {passed} s"
        );
        assert!(sent > 500 && sent <= received, "{sent} of {received}");
        assert!(ledger["dropped{source_rate}"] > 0);
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    });
}

/// Services that answer by themselves, and sources that are no host: not one of them gets an answer.
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
        // In the capture there is what was sent to the server, and what it answered: to the honest one alone.
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
        let ledger = server.ledger();
        let no_host = ledger.get("dropped{no_host}").copied().unwrap_or(0);
        figure(&format!(
            "u8: of 3 sources that are no host the kernel let {no_host} through"
        ));
        assert_eq!(ledger["dropped{service_port}"], services.len() as u64);
        assert_eq!((answers, ledger["datagrams_out"]), (1, 1));
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    });
}

trait Capture {
    /// Whether it has nothing to read now.
    fn nothing_more(&self) -> bool;
}

impl Capture for Socket {
    fn nothing_more(&self) -> bool {
        use crate::support::Talk;
        self.hears_nothing()
    }
}

/// Every datagram in the name of another victim: no cap of a source ever holds, and that of all of them does.
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
            forger.send(SocketAddrV4::new(victim, port), own, b"pour this over them");
        }
        wait_until("all are seen", || {
            let before = server.counter("datagrams_in");
            thread::sleep(Duration::from_millis(20));
            server.counter("datagrams_in") == before
        });
        let passed = began.elapsed().as_secs_f64();
        let ledger = server.ledger();
        let (received, sent) = (ledger["datagrams_in"], ledger["datagrams_out"]);
        figure(&format!(
            "u9: {received} datagrams from as many sources in {passed:.2} s drew {sent} answers under a cap of 500 a second"
        ));
        assert!(
            sent as f64 <= 500.0 * (passed + 1.0),
            "{sent} in {passed} s"
        );
        assert!(sent >= 1 && sent <= received);
        assert!(ledger["dropped{total_rate}"] > 0);
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    });
}
