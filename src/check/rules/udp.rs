//! Stage 7: datagrams come back as they are, from where they were sent to, and not to everywhere.

use crate::check::datagrams::DatagramClient;
use crate::check::finding::{Broken, Finding, Limit, bytes};
use crate::check::process::Server;
use crate::check::rule::{Level, Needs, Rule, Trial};
use crate::random::Random;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "udp/bytes/same-address",
        level: Level::Must,
        stage: 7,
        asks: "a datagram comes back unchanged, from the address and port that it was sent to",
        source: "RFC 862, UDP Based Echo Service; RFC 1122, 4.1.3.5",
        by_hand: "printf hello | nc -u -w 1 127.0.0.1 50007",
        guide: "mistakes, Echo loops",
        mistakes: &[],
        needs: Needs::Datagrams,
        run: same_address,
    },
    Rule {
        id: "udp/bytes/empty",
        level: Level::Must,
        stage: 7,
        asks: "an empty datagram comes back as an empty datagram",
        source: "udp(7): zero bytes are a datagram, and no end",
        by_hand: r#"python3 -c 'import socket as s; c=s.socket(2,2); c.settimeout(2); c.sendto(b"",("127.0.0.1",50007)); print(c.recvfrom(9))'"#,
        guide: "mistakes, `Ok(0)`",
        mistakes: &["udp-zero-is-eof"],
        needs: Needs::Datagrams,
        run: empty,
    },
    Rule {
        id: "udp/sizes/up-to-65507",
        level: Level::Must,
        stage: 7,
        asks: "datagrams of 1 to 65507 bytes come back whole, not cut to a buffer",
        source: "udp(7): the rest of a datagram that is longer than the buffer is discarded",
        by_hand: r#"python3 -c 'import socket as s; c=s.socket(2,2); c.settimeout(2); c.sendto(b"x"*65507,("127.0.0.1",50007)); print(len(c.recv(70000)))'"#,
        guide: "mistakes, `Ok(0)`",
        mistakes: &[],
        needs: Needs::Datagrams,
        run: sizes,
    },
    Rule {
        id: "udp/burst/boundaries",
        level: Level::Must,
        stage: 7,
        asks: "each datagram of a burst comes back as one datagram, and none twice",
        source: "RFC 768: a datagram is a unit",
        by_hand: r#"python3 -c 'import socket as s; c=s.socket(2,2); c.settimeout(2); c.connect(("127.0.0.1",50007)); [c.send(b"%d"%i) for i in range(20)]; [print(c.recv(99)) for i in range(20)]'"#,
        guide: "edges, Two ways to keep the contract",
        mistakes: &["udp-once"],
        needs: Needs::Datagrams,
        run: burst,
    },
    Rule {
        id: "udp/icmp/client-is-gone",
        level: Level::Should,
        stage: 7,
        asks: "a client that is gone when its answer comes (ICMP) does not stop the server",
        source: "udp(7): an ICMP error is reported by the next call on the socket",
        by_hand: "for i in 1 2 3; do printf x | nc -u -w 0 127.0.0.1 50007; done; printf hello | nc -u -w 1 127.0.0.1 50007",
        guide: "mistakes, An error of an earlier datagram",
        mistakes: &["udp-error-closes-socket"],
        needs: Needs::Datagrams,
        run: client_is_gone,
    },
    Rule {
        id: "udp/loops/service-ports",
        level: Level::Should,
        stage: 7,
        asks: "datagrams from the ports of echo and chargen (7, 19) draw no answer",
        source: "CVE-1999-0103, CVE-2024-2169; RFC 862 has no remedy",
        by_hand: "printf x | sudo nc -u -p 7 -w 1 127.0.0.1 50007    # nothing comes back",
        guide: "mistakes, Echo loops",
        mistakes: &["udp-answers-itself"],
        needs: Needs::Udp,
        run: service_ports,
    },
    Rule {
        id: "udp/loops/own-address",
        level: Level::Should,
        stage: 7,
        asks: "a datagram that claims to come from the server's own address is not answered: it would be without end",
        source: "RFC 862; CERT advisory CA-1996-01, UDP port denial of service",
        by_hand: r#"sudo python3 -c 'import socket as s,struct; r=s.socket(2,3,17); r.sendto(struct.pack("!4H",50007,50007,9,0)+b"x",("127.0.0.1",0))'; top"#,
        guide: "mistakes, Echo loops",
        mistakes: &["udp-answers-itself"],
        needs: Needs::Udp,
        run: own_address,
    },
];

/// A finding about one datagram.
fn broken(sent: &[u8], answer: Option<&[u8]>) -> Broken {
    let differs = |came: &[u8]| came.iter().zip(sent).position(|(one, other)| one != other);
    Broken {
        sent: format!(
            "a datagram of {}, up to three times",
            bytes(sent.len() as u64)
        ),
        expected: "the same datagram".to_owned(),
        got: match answer {
            None => "nothing".to_owned(),
            Some(came) => match differs(came) {
                Some(at) => format!("{}, another one at offset {at}", bytes(came.len() as u64)),
                None => bytes(came.len() as u64),
            },
        },
        is_silence: answer.is_none(),
    }
}

fn noise(random: &mut Random, length: usize) -> Vec<u8> {
    (0..length).map(|_| random.next() as u8).collect()
}

/// Each of these lengths, one after the other. An answer to an earlier attempt is not taken for a wrong one.
fn lengths(server: &Server, trial: &Trial<'_>, lengths: &[usize]) -> Result<Finding, Limit> {
    let mut random = Random::new(3);
    for &length in lengths {
        let mut client = DatagramClient::new(server, trial)?;
        let datagram = noise(&mut random, length);
        let answer = client.ask(&datagram)?;
        if answer.as_ref() != Some(&datagram) {
            return Ok(Finding::Broken(broken(&datagram, answer.as_deref())));
        }
    }
    Ok(Finding::holds())
}

fn same_address(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    lengths(server, trial, &[13, 256, 1])
}

fn empty(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    lengths(server, trial, &[0, 5, 0])
}

fn sizes(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    lengths(server, trial, &[1, 512, 1_472, 2_049, 8_192, 65_507])
}

fn burst(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    const COUNT: usize = 100;
    let mut random = Random::new(4);
    let sent: Vec<Vec<u8>> = (0..COUNT)
        .map(|place| noise(&mut random, 16 + place))
        .collect();
    let mut client = DatagramClient::new(server, trial)?;
    for datagram in &sent {
        client.send(datagram)?;
    }
    let mut missing: BTreeSet<&Vec<u8>> = sent.iter().collect();
    while !missing.is_empty() {
        let Some(answer) = client.receive()? else {
            break;
        };
        if !missing.remove(&answer) {
            let got = match sent.contains(&answer) {
                true => "one of them twice".to_owned(),
                false => format!(
                    "a datagram of {} that is none of them",
                    bytes(answer.len() as u64)
                ),
            };
            let (sent, expected) = (
                format!("{COUNT} different datagrams at once"),
                "each of them once".to_owned(),
            );
            return Ok(Finding::Broken(Broken {
                sent,
                expected,
                got,
                is_silence: false,
            }));
        }
    }
    Ok(match (missing.len(), client.ask(b"still there?")?) {
        (COUNT, _) | (_, None) => Finding::Broken(Broken {
            sent: format!("{COUNT} different datagrams at once, then one more"),
            expected: "each of them once; some may be lost".to_owned(),
            got: format!(
                "{} of them, and no answer to one more",
                COUNT - missing.len()
            ),
            is_silence: true,
        }),
        (0, _) => Finding::holds(),
        (lost, _) => Finding::Holds(format!("{lost} of {COUNT} were lost, which UDP permits")),
    })
}

fn client_is_gone(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    for _ in 0..20 {
        DatagramClient::new(server, trial)?.send(b"no one waits for this")?;
    }
    let mut client = DatagramClient::new(server, trial)?;
    Ok(match client.ask(b"hello")? {
        Some(_) => Finding::holds(),
        None => Finding::Broken(broken(b"hello", None)),
    })
}

fn service_ports(server: &mut Server, _: &Trial<'_>) -> Result<Finding, Limit> {
    let Some(address) = server.endpoint().socket_addr() else {
        return Ok(Finding::NotRun("it is a rule for UDP".to_owned()));
    };
    for port in [7, 19] {
        let socket = match UdpSocket::bind((if address.is_ipv4() { "0.0.0.0" } else { "::" }, port))
        {
            Ok(socket) => socket,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Ok(Finding::NotRun(format!(
                    "only root may send from port {port}"
                )));
            }
            Err(error) => {
                return Ok(Finding::NotRun(format!(
                    "port {port} cannot be used here: {error}"
                )));
            }
        };
        let asked = socket
            .connect(address)
            .and_then(|()| socket.set_read_timeout(Some(Duration::from_millis(300))))
            .and_then(|()| socket.send(b"from a service port"));
        asked
            .map_err(|error| Limit(format!("no datagram can be sent from port {port}: {error}")))?;
        if let Ok(length) = socket.recv(&mut [0; 99]) {
            return Ok(Finding::Broken(Broken {
                sent: format!("a datagram from port {port}"),
                expected: "no answer".to_owned(),
                got: format!("an answer of {}", bytes(length as u64)),
                is_silence: false,
            }));
        }
    }
    Ok(Finding::holds())
}

/// A datagram of UDP from a port to the same port, with its header (RFC 768). A checksum of zero means that there is none.
fn to_itself(port: u16, text: &[u8]) -> Vec<u8> {
    const HEADER: usize = 8;
    let length = (HEADER + text.len()) as u16;
    let header = [port, port, length, 0].map(u16::to_be_bytes);
    [header.as_flattened(), text].concat()
}

/// How long datagrams are counted, and how many may pass: the one that is sent, and an answer to it by a server that then
/// sees what it does.
const COUNTING: Duration = Duration::from_millis(300);
const ANSWERS: usize = 3;

/// A raw socket sends the datagram, and sees a copy of each one that arrives at this machine (raw(7)).
fn own_address(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let Some(SocketAddr::V4(address)) = server.endpoint().socket_addr() else {
        return Ok(Finding::NotRun("it is tried over IPv4 alone".to_owned()));
    };
    if !address.ip().is_loopback() {
        return Ok(Finding::NotRun(
            "no address is forged outside of this machine".to_owned(),
        ));
    }
    let raw = match Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)) {
        Ok(raw) => raw,
        Err(error) => {
            return Ok(Finding::NotRun(format!(
                "only root may forge an address: {error}"
            )));
        }
    };
    let port = address.port();
    let forged = to_itself(port, b"from the server itself");
    let is_own = |packet: &[u8]| {
        // The IPv4 header comes first; its length is in units of 4 bytes (RFC 791, 3.1).
        let ports = packet
            .first()
            .and_then(|&first| packet.get(usize::from(first & 15) * 4..)?.get(..4));
        ports.is_some_and(|ports| *ports == forged[..4])
    };
    let limit = |error: io::Error| Limit(format!("no raw datagram can be sent: {error}"));
    raw.bind(&SocketAddr::from((*address.ip(), 0)).into())
        .map_err(limit)?;
    raw.set_read_timeout(Some(COUNTING)).map_err(limit)?;
    raw.send_to(&forged, &SocketAddr::V4(address).into())
        .map_err(limit)?;
    let (began, mut packet, mut passed) = (Instant::now(), [0; 2_048], 0);
    while began.elapsed() < COUNTING && passed <= ANSWERS && !trial.is_stopped() {
        if let Ok(length) = (&raw).read(&mut packet) {
            passed += usize::from(is_own(&packet[..length]));
        }
    }
    Ok(match passed <= ANSWERS {
        true => Finding::holds(),
        false => Finding::Broken(Broken {
            sent: format!("one datagram from {address} to itself"),
            expected: "no answer".to_owned(),
            got: "answers to answers, without end".to_owned(),
            is_silence: false,
        }),
    })
}
