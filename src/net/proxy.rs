//! The header of the PROXY protocol, versions 1 and 2: what a load balancer sends ahead of a connection that it forwards.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! ```text
//! version 1   PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n                   a line of at most 107 bytes
//! version 2   \r\n\r\n\0\r\nQUIT\n  version, command | family, transport | length | addresses | TLVs
//!             12 bytes              1 byte             1 byte              2        12, 36 or 216
//! ```
//!
//! [`Header::parse`] is a function of the bytes that have come so far, and keeps nothing between two calls. It tells a header
//! that is not whole yet from one that can never become valid, as early as the bytes show it; so its caller needs no other
//! rule, and no byte behind the header is touched. Both forms have a bound ([`HEADER_BYTES_MAX`]).
//!
//! The specification is doc/proxy-protocol.txt of HAProxy (2020/03/05). Where it leaves a choice:
//!
//! - Both versions are accepted, and told apart by their first byte.
//! - `UNKNOWN`, and family or transport `UNSPEC`, are accepted: the peer then speaks for itself, as with `LOCAL`.
//! - The addresses of a connection that the proxy received as datagrams (`DGRAM`) are used as those of a stream.
//! - TLVs are skipped unread, the checksum among them: what TCP delivers has a checksum already.
//! - An IPv6 address may end in dotted form (`::ffff:192.0.2.1`), as inet_ntop(3) prints it.

mod error;
#[cfg(test)]
mod tests;

pub use error::HeaderError;

use super::address::UnixName;
use super::peer::Peer;
use HeaderError as Error;
#[cfg(any(feature = "bench", feature = "cli"))]
use socket2::SockRef;
use std::ffi::OsStr;
#[cfg(any(feature = "bench", feature = "cli"))]
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

/// Longest header (bytes). The format of version 2 allows 65,551, of which all but 232 are TLVs; this is the bound of nginx.
pub const HEADER_BYTES_MAX: usize = 4096;

/// Longest line of version 1, with its CRLF (bytes).
const LINE_BYTES_MAX: usize = 107;
const LINE_START: &[u8] = b"PROXY ";
const UNKNOWN: &[u8] = b"PROXY UNKNOWN";

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// What comes ahead of the addresses of version 2 (bytes).
const FIXED_BYTES: usize = 16;
/// The name of a Unix socket in version 2 (bytes).
const UNIX_NAME_BYTES: usize = 108;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "bench", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "bench", serde(rename_all = "lowercase"))]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// What a header says of its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Header {
    /// The peer speaks for itself, such as a health check (`LOCAL`), or does not know the client (`UNKNOWN`, `UNSPEC`).
    Local,
    /// The connection is forwarded.
    Proxied {
        /// The client, as the proxy saw it.
        source: Peer,
        /// The address that the client connected to.
        destination: Peer,
    },
}

impl Header {
    /// Parses the header that these bytes begin with, and returns it with its length; `None` if it is not whole yet.
    ///
    /// # Errors
    /// No header begins with these bytes, whatever follows.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, HeaderError> {
        let parse = match bytes.first() {
            Some(b'P') => parse_line,
            Some(b'\r') => parse_binary,
            Some(_) => return Err(Error::Signature),
            None => return Ok(None),
        };
        parse(bytes)
    }

    /// Returns the header in its wire format. Version 1 has no names of Unix sockets, and gets `UNKNOWN` for them; an IPv4
    /// address beside an IPv6 address is written as IPv4-mapped.
    #[must_use]
    pub fn to_bytes(&self, version: Version) -> Vec<u8> {
        let addresses = match self {
            Self::Local => Addresses::None,
            Self::Proxied {
                source,
                destination,
            } => Addresses::of(source, destination),
        };
        match version {
            Version::V1 => addresses.to_line(),
            Version::V2 => addresses.to_binary(),
        }
    }
}

/// The header by which a connected socket declares itself: its own address, and that of its peer.
///
/// # Errors
/// Those of getsockname(2) and getpeername(2).
#[cfg(any(feature = "bench", feature = "cli"))]
pub(crate) fn of_socket(socket: &SockRef<'_>) -> io::Result<Header> {
    Ok(Header::Proxied {
        source: Peer::from(&socket.local_addr()?),
        destination: Peer::from(&socket.peer_addr()?),
    })
}

// ---- version 1 ----

fn parse_line(bytes: &[u8]) -> Result<Option<(Header, usize)>, Error> {
    if !have_common_start(bytes, LINE_START) {
        return Err(Error::Signature);
    }
    let Some(length) = line_length(bytes)? else {
        return Ok(None);
    };
    let header = parse_fields(&bytes[..length - b"\r\n".len()])?;
    Ok(Some((header, length)))
}

/// The length of the line with its CRLF, if it is whole. What follows `UNKNOWN` is ignored up to the CRLF; any other line has
/// no CR or LF of its own.
fn line_length(bytes: &[u8]) -> Result<Option<usize>, Error> {
    let line = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let crlf = line.windows(2).position(|pair| pair == b"\r\n");
    let end = crlf.unwrap_or(line.len());
    let is_alone = |&(place, byte): &(usize, &u8)| match byte {
        b'\r' => place + 1 < line.len(), // the LF may be the next byte to come
        byte => *byte == b'\n',
    };
    if !line.starts_with(UNKNOWN) && line[..end].iter().enumerate().any(|at| is_alone(&at)) {
        return Err(Error::LineEnd);
    }
    match crlf {
        Some(end) => Ok(Some(end + 2)),
        None if line.len() == LINE_BYTES_MAX => Err(Error::LongLine),
        None => Ok(None),
    }
}

fn parse_fields(line: &[u8]) -> Result<Header, Error> {
    if let Some(ignored) = line.strip_prefix(UNKNOWN) {
        return match ignored.first() {
            None | Some(b' ') => Ok(Header::Local),
            Some(_) => Err(Error::LineFamily),
        };
    }
    // Bytes that are no text are in no field that parses.
    let line = String::from_utf8_lossy(line);
    let fields: Vec<&str> = line.split(' ').skip(1).collect();
    let proxied = match fields[..] {
        ["TCP4", ..] => proxied_by::<Ipv4Addr>,
        ["TCP6", ..] => proxied_by::<Ipv6Addr>,
        _ => return Err(Error::LineFamily),
    };
    match fields[1..] {
        [source, destination, source_port, destination_port] => {
            proxied([source, source_port], [destination, destination_port])
        }
        _ => Err(Error::Fields),
    }
}

fn proxied_by<Ip: FromStr + Into<IpAddr>>(
    source: [&str; 2],
    destination: [&str; 2],
) -> Result<Header, Error> {
    let peer = |[address, port]: [&str; 2], wrong: Error| {
        let address: Ip = address.parse().map_err(|_| wrong)?;
        Ok(Peer::from(SocketAddr::new(
            address.into(),
            parse_port(port)?,
        )))
    };
    Ok(Header::Proxied {
        source: peer(source, Error::Source)?,
        destination: peer(destination, Error::Destination)?,
    })
}

/// Parses a port, which has no sign and no leading zero.
fn parse_port(text: &str) -> Result<u16, Error> {
    let is_canonical = text == "0" || text.starts_with(|first| ('1'..='9').contains(&first));
    let port = text.parse().ok().filter(|_| is_canonical);
    port.ok_or(Error::Port)
}

// ---- version 2 ----

fn parse_binary(bytes: &[u8]) -> Result<Option<(Header, usize)>, Error> {
    if !have_common_start(bytes, SIGNATURE) {
        return Err(Error::Signature);
    }
    let rest = &bytes[bytes.len().min(SIGNATURE.len())..];
    let is_local = match rest.first() {
        Some(0x20) => true,
        Some(0x21) => false,
        Some(byte) if byte >> 4 != 2 => return Err(Error::Version),
        Some(_) => return Err(Error::Command),
        None => return Ok(None),
    };
    // A proxy that speaks for itself may name any family.
    let family = match rest.get(1) {
        Some(_) if is_local => Family::None,
        Some(&byte) => Family::of(byte)?,
        None => return Ok(None),
    };
    let &[_, _, high, low, ref rest @ ..] = rest else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length < family.bytes() {
        return Err(Error::ShortAddresses);
    }
    if FIXED_BYTES + length > HEADER_BYTES_MAX {
        return Err(Error::LongHeader);
    }
    let header = rest.get(..length).map(|block| family.header(block));
    Ok(header.map(|header| (header, FIXED_BYTES + length)))
}

/// The families of version 2 by what their addresses look like.
#[derive(Clone, Copy, Debug)]
enum Family {
    None,
    Ipv4,
    Ipv6,
    Unix,
}

impl Family {
    /// That of the fourteenth byte: the family above, the transport below.
    fn of(byte: u8) -> Result<Self, Error> {
        match (byte >> 4, byte & 0x0f) {
            (_, 3..) => Err(Error::Transport),
            (4.., _) => Err(Error::Family),
            (0, _) | (_, 0) => Ok(Self::None),
            (1, _) => Ok(Self::Ipv4),
            (2, _) => Ok(Self::Ipv6),
            (3, _) => Ok(Self::Unix),
        }
    }

    /// The length of both addresses.
    fn bytes(self) -> usize {
        match self {
            Self::None => 0,
            Self::Ipv4 => 12,
            Self::Ipv6 => 36,
            Self::Unix => 2 * UNIX_NAME_BYTES,
        }
    }

    /// The header whose addresses are at the start of this block, which is long enough.
    fn header(self, block: &[u8]) -> Header {
        let (source, destination) = match self {
            Self::None => return Header::Local,
            Self::Ipv4 => ip_pair::<4>(block),
            Self::Ipv6 => ip_pair::<16>(block),
            Self::Unix => {
                let (source, rest) = block.split_at(UNIX_NAME_BYTES);
                (unix_peer(source), unix_peer(&rest[..UNIX_NAME_BYTES]))
            }
        };
        Header::Proxied {
            source,
            destination,
        }
    }
}

/// Two addresses of `N` bytes, and the two ports behind them.
fn ip_pair<const N: usize>(block: &[u8]) -> (Peer, Peer)
where
    IpAddr: From<[u8; N]>,
{
    let peer = |number: usize| {
        let mut address = [0; N];
        address.copy_from_slice(&block[number * N..][..N]);
        let port = &block[2 * N + 2 * number..];
        let port = u16::from_be_bytes([port[0], port[1]]);
        Peer::from(SocketAddr::new(address.into(), port))
    };
    (peer(0), peer(1))
}

/// A name as `sun_path` of unix(7) has it: a path up to its first NUL, or a NUL and a name in the abstract namespace, whose
/// length is not told; NULs at its end are padding.
fn unix_peer(name: &[u8]) -> Peer {
    let Some([0, abstract_name @ ..]) = name.get(..UNIX_NAME_BYTES) else {
        let end = name.iter().position(|&byte| byte == 0);
        let path = OsStr::from_bytes(&name[..end.unwrap_or(name.len())]);
        return Peer::Unix(UnixName::Path(PathBuf::from(path)));
    };
    match abstract_name.iter().rposition(|&byte| byte != 0) {
        None => Peer::Unnamed,
        Some(last) => {
            let name = String::from_utf8_lossy(&abstract_name[..=last]);
            Peer::Unix(UnixName::Abstract(name.into_owned()))
        }
    }
}

// ---- both ----

/// Whether the shorter of both is the start of the longer.
fn have_common_start(bytes: &[u8], expected: &[u8]) -> bool {
    bytes.iter().zip(expected).all(|(one, other)| one == other)
}

/// The addresses of a header to be sent, of one family.
#[derive(Debug)]
enum Addresses {
    None,
    Ipv4([(Ipv4Addr, u16); 2]),
    Ipv6([(Ipv6Addr, u16); 2]),
    Unix([[u8; UNIX_NAME_BYTES]; 2]),
}

impl Addresses {
    fn of(source: &Peer, destination: &Peer) -> Self {
        let [source, destination] = match (source, destination) {
            (Peer::Ip(source), Peer::Ip(destination)) => [source, destination],
            (Peer::Ip(_), _) | (_, Peer::Ip(_)) => return Self::None,
            (source, destination) => return Self::Unix([source, destination].map(unix_name)),
        };
        let ports = [source.port(), destination.port()];
        match [source.ip(), destination.ip()] {
            [IpAddr::V4(one), IpAddr::V4(other)] => {
                Self::Ipv4([(one, ports[0]), (other, ports[1])])
            }
            ips => {
                let [one, other] = ips.map(|ip| match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                });
                Self::Ipv6([(one, ports[0]), (other, ports[1])])
            }
        }
    }

    fn to_line(&self) -> Vec<u8> {
        let line = match self {
            Self::None | Self::Unix(_) => "PROXY UNKNOWN\r\n".to_owned(),
            Self::Ipv4([(source, from), (destination, to)]) => {
                format!("PROXY TCP4 {source} {destination} {from} {to}\r\n")
            }
            Self::Ipv6([(source, from), (destination, to)]) => {
                format!("PROXY TCP6 {source} {destination} {from} {to}\r\n")
            }
        };
        line.into_bytes()
    }

    fn to_binary(&self) -> Vec<u8> {
        let (command, family, block) = match self {
            Self::None => (0x20, 0x00, Vec::new()),
            Self::Ipv4(pair) => (0x21, 0x11, ip_block(pair, |ip| ip.octets().to_vec())),
            Self::Ipv6(pair) => (0x21, 0x21, ip_block(pair, |ip| ip.octets().to_vec())),
            Self::Unix(pair) => (0x21, 0x31, pair.concat()),
        };
        let length = (block.len() as u16).to_be_bytes();
        [SIGNATURE, &[command, family], &length, &block].concat()
    }
}

fn ip_block<Ip>(pair: &[(Ip, u16); 2], octets: impl Fn(&Ip) -> Vec<u8>) -> Vec<u8> {
    let [(source, from), (destination, to)] = pair;
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    [octets(source), octets(destination), ports].concat()
}

/// The name as `sun_path` of unix(7) has it; an empty one where there is no room for it.
fn unix_name(peer: &Peer) -> [u8; UNIX_NAME_BYTES] {
    let bytes = match peer {
        Peer::Unix(UnixName::Path(path)) => path.as_os_str().as_bytes().to_vec(),
        Peer::Unix(UnixName::Abstract(name)) => [b"\0", name.as_bytes()].concat(),
        Peer::Unnamed | Peer::Ip(_) => Vec::new(),
    };
    let mut name = [0; UNIX_NAME_BYTES];
    if let Some(place) = name.get_mut(..bytes.len()) {
        place.copy_from_slice(&bytes);
    }
    name
}
