//! Messages of ICMP (RFC 792) and ICMPv6 (RFC 4443): the echo request, and what may come back for it.
//!
//! ```text
//! type  code  checksum     identifier  sequence     payload
//! ```
//!
//! A raw socket receives every ICMP message of its machine. What is no answer to a request of this program is `None`
//! here: its own request among them, which a raw socket on loopback receives, too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The version of IP below ICMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// ICMP.
    V4,
    /// ICMPv6.
    V6,
}

/// The numbers of a request that its answer repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    /// The sender of the request.
    pub(super) identifier: u16,
    /// The request among those of the sender.
    pub(super) sequence: u16,
}

/// A message that may concern a request of this program.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// The echo reply, with the payload of the request.
    Reply(Numbers, &'a [u8]),
    /// An error about an echo request that was sent to this address.
    Error(Numbers, IpAddr, String),
}

/// The bytes before the payload.
pub(super) const HEADER_BYTES: usize = 8;
/// The number of ICMPv6 as the protocol above IPv6.
const ICMPV6: u8 = 58;
/// The number of ICMP as the protocol above IPv4.
const ICMPV4: u8 = 1;

impl Version {
    fn request_type(self) -> u8 {
        match self {
            Self::V4 => 8,
            Self::V6 => 128,
        }
    }

    fn reply_type(self) -> u8 {
        match self {
            Self::V4 => 0,
            Self::V6 => 129,
        }
    }
}

impl From<IpAddr> for Version {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// Makes an echo request. A raw socket of IPv4 sends it as it is, so it has its checksum. The kernel computes that of ICMPv6,
/// which also covers the addresses (RFC 3542, 3.1), and writes checksum and identifier of a ping socket (icmp(7)).
pub(super) fn request(version: Version, numbers: Numbers, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![version.request_type(), 0, 0, 0];
    message.extend(numbers.identifier.to_be_bytes());
    message.extend(numbers.sequence.to_be_bytes());
    message.extend(payload);
    if version == Version::V4 {
        let checksum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&checksum);
    }
    message
}

/// Reads a message. The checksum of ICMP is verified, which the kernel does not do before it hands a message to a raw
/// socket; that of ICMPv6 it has verified.
pub(super) fn parse(version: Version, message: &[u8]) -> Option<Message<'_>> {
    if version == Version::V4 && checksum(message) != 0 {
        return None;
    }
    let (kind, code) = (*message.first()?, *message.get(1)?);
    if kind == version.reply_type() {
        return Some(Message::Reply(
            numbers(message)?,
            message.get(HEADER_BYTES..)?,
        ));
    }
    let problem = match version {
        Version::V4 => problem_v4(kind, code)?,
        Version::V6 => problem_v6(kind, code)?,
    };
    // An error carries the start of the packet that it is about.
    let packet = message.get(HEADER_BYTES..)?;
    let (to, request) = match version {
        Version::V4 => (destination_v4(packet)?, payload_of_ipv4(packet)?),
        Version::V6 => (destination_v6(packet)?, packet.get(40..)?),
    };
    let is_request = request.first() == Some(&version.request_type());
    is_request.then_some(Message::Error(numbers(request)?, to, problem))
}

/// Returns what follows the header of an IPv4 packet, which a raw socket of IPv4 receives with each message (raw(7)).
pub(super) fn payload_of_ipv4(packet: &[u8]) -> Option<&[u8]> {
    let first = *packet.first()?;
    let header_bytes = usize::from(first & 0x0f) * 4;
    let is_ipv4 = first >> 4 == 4 && header_bytes >= 20;
    is_ipv4.then_some(packet.get(header_bytes..)?)
}

fn numbers(message: &[u8]) -> Option<Numbers> {
    let number = |at: usize| {
        Some(u16::from_be_bytes([
            *message.get(at)?,
            *message.get(at + 1)?,
        ]))
    };
    Some(Numbers {
        identifier: number(4)?,
        sequence: number(6)?,
    })
}

/// The destination of an IPv4 packet of ICMP.
fn destination_v4(packet: &[u8]) -> Option<IpAddr> {
    let address: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    (packet[9] == ICMPV4).then_some(Ipv4Addr::from(address).into())
}

/// The destination of an IPv6 packet of ICMPv6 without extension headers.
fn destination_v6(packet: &[u8]) -> Option<IpAddr> {
    let address: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
    (packet[6] == ICMPV6).then_some(Ipv6Addr::from(address).into())
}

fn problem_v4(kind: u8, code: u8) -> Option<String> {
    let text = match (kind, code) {
        (3, 0 | 6 | 11) => "network unreachable",
        (3, 1 | 7 | 12) => "host unreachable",
        (3, 2) => "protocol unreachable",
        (3, 4) => "fragmentation needed",
        (3, 9 | 10 | 13) => "administratively prohibited",
        (3, _) => return Some(format!("destination unreachable, code {code}")),
        (11, 1) => "reassembly time exceeded",
        (11, _) => "time to live exceeded in transit",
        (12, _) => "parameter problem",
        _ => return None,
    };
    Some(text.to_owned())
}

fn problem_v6(kind: u8, code: u8) -> Option<String> {
    let text = match (kind, code) {
        (1, 0) => "no route to the destination",
        (1, 1) => "administratively prohibited",
        (1, 3) => "address unreachable",
        (1, _) => return Some(format!("destination unreachable, code {code}")),
        (2, _) => "packet too big",
        (3, 1) => "reassembly time exceeded",
        (3, _) => "hop limit exceeded in transit",
        (4, _) => "parameter problem",
        _ => return None,
    };
    Some(text.to_owned())
}

/// The Internet checksum (RFC 1071). Over a message with a right checksum it is 0.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u64 = 0;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u64::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const OURS: Numbers = Numbers {
        identifier: 0x1234,
        sequence: 7,
    };

    /// A message with this header and body, and a right checksum.
    fn message(kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
        let mut message = [&[kind, code, 0, 0], body].concat();
        let sum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        message
    }

    /// The example of RFC 1071, section 3, and a packet that ping(8) of iputils has sent.
    #[test]
    fn the_checksum_is_that_of_the_internet() {
        let example = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&example), !0xddf2);
        assert_eq!(checksum(&[]), 0xffff);
        assert_eq!(checksum(&[0xff]), !0xff00, "an odd byte is the high one");
        for length in 0..50 {
            let sent = request(Version::V4, OURS, &vec![0xab; length]);
            assert_eq!(checksum(&sent), 0, "{length}");
        }
    }

    #[test]
    fn a_reply_has_the_numbers_and_the_payload_of_its_request() {
        let sent = request(Version::V4, OURS, b"hello");
        assert_eq!(sent[..2], [8, 0]);
        assert_eq!(sent[4..], *b"\x12\x34\x00\x07hello");
        let reply = message(0, 0, &sent[4..]);
        let expected = Some(Message::Reply(OURS, b"hello"));
        assert_eq!(parse(Version::V4, &reply), expected);
        let sent = request(Version::V6, OURS, b"hello");
        assert_eq!(sent[..4], [128, 0, 0, 0], "the kernel adds the checksum");
        let reply = [&[129, 0, 0, 0], &sent[4..]].concat();
        assert_eq!(parse(Version::V6, &reply), expected);
    }

    #[test]
    fn requests_and_damaged_messages_are_no_answers() {
        for version in [Version::V4, Version::V6] {
            assert_eq!(parse(version, &request(version, OURS, b"hello")), None);
        }
        let mut reply = message(0, 0, b"\x12\x34\x00\x07hello");
        reply[9] ^= 1;
        assert_eq!(parse(Version::V4, &reply), None, "a wrong checksum");
        assert_eq!(parse(Version::V4, &message(13, 0, &[0; 16])), None);
        assert_eq!(
            parse(Version::V6, &[135; 24]),
            None,
            "a neighbor solicitation"
        );
    }

    #[test]
    fn an_error_names_the_request_that_it_is_about() {
        let request_v4 = request(Version::V4, OURS, b"");
        let mut ip = [0x46; 24]; // a header with one option
        ip[9] = ICMPV4;
        ip[16..20].copy_from_slice(&[192, 0, 2, 1]);
        let packet = [&[0; 4], &ip[..], &request_v4].concat();
        let to = IpAddr::from([192, 0, 2, 1]);
        for (kind, code, text) in [
            (3, 0, "network unreachable"),
            (3, 1, "host unreachable"),
            (3, 13, "administratively prohibited"),
            (3, 99, "destination unreachable, code 99"),
            (11, 0, "time to live exceeded in transit"),
        ] {
            let expected = Some(Message::Error(OURS, to, text.to_owned()));
            assert_eq!(parse(Version::V4, &message(kind, code, &packet)), expected);
        }
        let mut of_udp = packet.clone();
        of_udp[4 + 9] = 17;
        assert_eq!(parse(Version::V4, &message(3, 1, &of_udp)), None);

        let mut ip = [0x60; 40];
        ip[6] = ICMPV6;
        let to = Ipv6Addr::LOCALHOST;
        ip[24..40].copy_from_slice(&to.octets());
        let request_v6 = request(Version::V6, OURS, b"");
        let packet = [&[0; 4], &ip[..], &request_v6].concat();
        for (kind, code, text) in [
            (1, 0, "no route to the destination"),
            (1, 3, "address unreachable"),
            (3, 0, "hop limit exceeded in transit"),
        ] {
            let error = [&[kind, code, 0, 0], &packet[..]].concat();
            let expected = Some(Message::Error(OURS, to.into(), text.to_owned()));
            assert_eq!(parse(Version::V6, &error), expected);
        }
    }

    #[test]
    fn the_header_of_ipv4_is_as_long_as_it_says() {
        let packet = |first: u8, length: usize| [&[first], &vec![0; length][..]].concat();
        assert_eq!(payload_of_ipv4(&packet(0x45, 20)), Some(&[0][..]));
        assert_eq!(payload_of_ipv4(&packet(0x46, 23)), Some(&[][..]));
        assert_eq!(payload_of_ipv4(&packet(0x46, 22)), None, "cut");
        assert_eq!(
            payload_of_ipv4(&packet(0x44, 40)),
            None,
            "no header is so short"
        );
        assert_eq!(payload_of_ipv4(&packet(0x65, 40)), None, "IPv6");
        assert_eq!(payload_of_ipv4(&[]), None);
    }

    /// Whatever arrives is read without a panic, and so is each start of what is right.
    #[test]
    fn any_bytes_are_read_to_their_end() {
        let mut random = Random::new(1);
        for _ in 0..20_000 {
            let length = random.below(80);
            let mut bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
            if let Some(first) = bytes.first_mut() {
                *first = [0, 3, 11, 129, 1, 3, 0x45, 0x4f][random.below(8)];
            }
            let _ = payload_of_ipv4(&bytes).map(|rest| parse(Version::V4, rest));
            let _ = parse(Version::V6, &bytes);
            let _ = bytes.get(2..).map(|body| {
                let whole = message(bytes[0], bytes[1], body);
                parse(Version::V4, &whole).is_some()
            });
        }
    }
}
