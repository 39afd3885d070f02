//! Addresses in text form, and the endpoints that sockets are bound to.
//!
//! Unpromised as a path: programs take these items from [`net`](super).
//!
//! ```text
//! tcp://host:port     udp://host:port        host: a name, an IPv4 address, an [IPv6 address]; empty: all interfaces
//! unix:///path        unixgram:///path       a socket file
//! unix://@name        unixgram://@name       an abstract name (Linux): no file, gone with the process
//! host:port  :port                           TCP
//! ```
//!
//! Schemes are written in capitals or not, as RFC 3986 (3.1) has it. An [`Address`] is what was written;
//! [`Address::resolve`] asks the system for the [`Endpoint`]s behind it, which may be several: `localhost` is usually both
//! 127.0.0.1 and ::1.

use super::escape::Escaped;
use socket2::SockAddr;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

/// An address as it was written, not resolved. Parse one with [`str::parse`].
///
/// ```
/// use echo_reactor::net::Address;
///
/// let address: Address = "localhost:50007".parse().unwrap();
/// assert_eq!(address.to_string(), "tcp://localhost:50007");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// `tcp://host:port`
    Tcp(HostPort),
    /// `udp://host:port`
    Udp(HostPort),
    /// `unix://...`, a stream
    Unix(UnixName),
    /// `unixgram://...`, datagrams
    UnixDatagram(UnixName),
}

/// A host, by name or as an IP address, and a port. An empty host means all interfaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// The host, without the brackets of an IPv6 address.
    pub host: String,
    /// The port. 0 lets the system choose one.
    pub port: u16,
}

/// The name of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UnixName {
    /// A file.
    Path(PathBuf),
    /// A name in the abstract namespace, without a file (Linux only).
    Abstract(String),
}

/// An address together with the endpoints that it was resolved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The address that was written.
    pub address: Address,
    /// The endpoints, at least one, in the order of the resolver.
    pub endpoints: Vec<Endpoint>,
}

/// One address that a socket can be bound to, or connected with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// TCP over IPv4 or IPv6.
    Tcp(SocketAddr),
    /// UDP over IPv4 or IPv6.
    Udp(SocketAddr),
    /// A Unix stream socket.
    Unix(UnixName),
    /// A Unix datagram socket.
    UnixDatagram(UnixName),
}

impl Address {
    /// Resolves the address to all endpoints that the system's resolver knows, each once.
    ///
    /// A name can block for as long as resolv.conf(5) allows, half a minute with its defaults: getaddrinfo(3) has no
    /// deadline. IP addresses and paths ([`Address::needs_resolver`]) never block.
    ///
    /// # Errors
    /// Those of getaddrinfo(3), for example that there is no such host.
    pub fn resolve(&self) -> io::Result<Vec<Endpoint>> {
        match self {
            Self::Tcp(host) => Ok(host.resolve()?.into_iter().map(Endpoint::Tcp).collect()),
            Self::Udp(host) => Ok(host.resolve()?.into_iter().map(Endpoint::Udp).collect()),
            Self::Unix(name) => Ok(vec![Endpoint::Unix(name.clone())]),
            Self::UnixDatagram(name) => Ok(vec![Endpoint::UnixDatagram(name.clone())]),
        }
    }
}

impl Address {
    /// Whether the address is one of datagrams.
    #[must_use]
    pub fn is_datagram(&self) -> bool {
        matches!(self, Self::Udp(_) | Self::UnixDatagram(_))
    }

    /// Whether the host is a name, so that resolving it may block and may yield several endpoints.
    #[must_use]
    pub fn needs_resolver(&self) -> bool {
        match self {
            Self::Tcp(host) | Self::Udp(host) => host.is_name(),
            Self::Unix(_) | Self::UnixDatagram(_) => false,
        }
    }
}

impl HostPort {
    /// Hosts that are no names: empty (all interfaces), IPv4, or IPv6 with a zone or without. Only IPv6 has colons.
    fn is_name(&self) -> bool {
        let is_number = self.host.parse::<Ipv4Addr>().is_ok() || self.host.contains(':');
        !self.host.is_empty() && !is_number
    }

    fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        if self.host.is_empty() {
            // One dual-stack socket serves IPv4 too. Where there is no IPv6, binding falls back to 0.0.0.0.
            return Ok(vec![SocketAddr::new(
                IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                self.port,
            )]);
        }
        let mut found: Vec<SocketAddr> = Vec::new();
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            let address = without_mapping(address);
            if !found.contains(&address) {
                found.push(address);
            }
        }
        if found.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the name has no addresses",
            ));
        }
        Ok(found)
    }
}

/// Converts an IPv4-mapped address to IPv4: `::ffff:0.0.0.0` is a wildcard, and an IPv6-only socket could not be bound to
/// such an address.
fn without_mapping(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        IpAddr::V6(_) => address, // with its scope id
    }
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    text: String,
    problem: Problem,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Problem {
    Empty,
    Scheme(String),
    /// Contains an example with a port.
    NoPort(String),
    PortAlone(String),
    Port(String),
    Brackets,
    Colons,
    Asterisk(String),
    BarePath,
    NoPath,
    RelativePath,
    LongPath(usize),
    Nul,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is not an address: ", Escaped::new(&self.text))?;
        match &self.problem {
            Problem::Empty => write!(f, "it is empty; write for example 127.0.0.1:50007"),
            Problem::Scheme(scheme) => {
                write!(
                    f,
                    "there is no '{}://'; use tcp://, udp://, unix:// or unixgram://",
                    Escaped::new(scheme)
                )
            }
            Problem::NoPort(example) => write!(
                f,
                "it has no port; write host:port, for example {}",
                Escaped::new(example)
            ),
            Problem::PortAlone(port) => write!(
                f,
                "it has no host; write 127.0.0.1:{port} for this machine only, or :{port} for all interfaces",
            ),
            Problem::Asterisk(port) => write!(
                f,
                "'*' is not a host; write :{} for all interfaces",
                Escaped::new(port)
            ),
            Problem::BarePath => write!(
                f,
                "a socket's path needs its scheme; write unix:///path or unixgram:///path"
            ),
            Problem::Colons => write!(
                f,
                "it has one ':' too many; write host:port or scheme://host:port, for example udp://127.0.0.1:50007"
            ),
            Problem::Port(port) => write!(
                f,
                "'{}' is not a port; ports are 0 to 65535",
                Escaped::new(port)
            ),
            Problem::Brackets => write!(
                f,
                "put an IPv6 address in brackets, for example [::1]:50007"
            ),
            Problem::NoPath => write!(f, "it has no path; write unix:///path or unix://@name"),
            Problem::RelativePath => {
                write!(
                    f,
                    "the path of a socket has to be absolute; write unix:///path (three slashes) or unix://@name"
                )
            }
            Problem::LongPath(bytes) => {
                write!(
                    f,
                    "its path has {bytes} bytes, and unix(7) allows {UNIX_PATH_MAX}; use a shorter one"
                )
            }
            Problem::Nul => write!(f, "it contains a NUL byte; leave that out"),
        }
    }
}

impl std::error::Error for AddressError {}

/// How many bytes the path of a Unix socket may have: `sun_path` of unix(7), less the NUL at its end.
pub const UNIX_PATH_MAX: usize = 107;

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
            None => ("tcp".to_owned(), text),
        };
        let parsed = match scheme.as_str() {
            _ if text.is_empty() => Err(Problem::Empty),
            _ if text.contains('\0') => Err(Problem::Nul),
            "tcp" => HostPort::parse(rest).map(Address::Tcp),
            "udp" => HostPort::parse(rest).map(Address::Udp),
            "unix" => UnixName::parse(rest).map(Address::Unix),
            "unixgram" => UnixName::parse(rest).map(Address::UnixDatagram),
            _ => Err(Problem::Scheme(scheme)),
        };
        parsed.map_err(|problem| AddressError {
            text: text.to_owned(),
            problem,
        })
    }
}

impl HostPort {
    fn parse(text: &str) -> Result<Self, Problem> {
        let no_port = |host: &str| Problem::NoPort(format!("{host}:50007"));
        let (host, port) = match text.rsplit_once(':') {
            _ if text.starts_with(['/', '@', '.']) => return Err(Problem::BarePath),
            // The last colon of `[::1]` is inside the brackets.
            _ if text.starts_with('[') && text.ends_with(']') => {
                Self::parse_ipv6(&text[1..])?;
                return Err(no_port(text));
            }
            None if is_number(text) => return Err(Problem::PortAlone(text.to_owned())),
            None if text.is_empty() => return Err(no_port("127.0.0.1")),
            None => return Err(no_port(text)),
            Some(parts) => parts,
        };
        let host = match host.strip_prefix('[') {
            Some(rest) => Self::parse_ipv6(rest)?,
            // `::1` would be parsed as the host `:` with port 1, which cannot be meant.
            None if text.parse::<Ipv6Addr>().is_ok() || host.parse::<Ipv6Addr>().is_ok() => {
                return Err(Problem::Brackets);
            }
            None if host.contains(['[', ']']) => return Err(Problem::Brackets),
            None if matches!(host, "unix" | "unixgram") => return Err(Problem::BarePath),
            None if host.contains(':') => return Err(Problem::Colons),
            None if host == "*" => return Err(Problem::Asterisk(port.to_owned())),
            None => host,
        };
        match port.parse() {
            // `parse` by itself would accept "+1" as a port.
            Ok(number) if is_number(port) => Ok(Self {
                host: host.to_owned(),
                port: number,
            }),
            _ if port.is_empty() => Err(no_port(text.trim_end_matches(':'))),
            _ => Err(Problem::Port(port.to_owned())),
        }
    }

    /// Parses what follows an opening bracket: an IPv6 address, possibly with a zone (`fe80::1%eth0`), and the closing one.
    fn parse_ipv6(rest: &str) -> Result<&str, Problem> {
        let host = rest.strip_suffix(']').ok_or(Problem::Brackets)?;
        let (address, zone) = host.split_once('%').unwrap_or((host, ""));
        match address.parse::<Ipv6Addr>() {
            Ok(_) if !zone.contains(['[', ']']) => Ok(host),
            _ => Err(Problem::Brackets),
        }
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl UnixName {
    fn parse(text: &str) -> Result<Self, Problem> {
        let (name, bytes) = match text.strip_prefix('@') {
            Some(name) => (Self::Abstract(name.to_owned()), name.len()),
            None if text.is_empty() => return Err(Problem::NoPath),
            None if !text.starts_with('/') => return Err(Problem::RelativePath),
            None => (Self::Path(PathBuf::from(text)), text.len()),
        };
        match bytes {
            0 => Err(Problem::NoPath),
            1..=UNIX_PATH_MAX => Ok(name),
            _ => Err(Problem::LongPath(bytes)),
        }
    }
}

impl UnixName {
    /// Converts the name for the system. An abstract name starts with a NUL byte (unix(7)).
    pub(crate) fn to_sock_addr(&self) -> io::Result<SockAddr> {
        match self {
            Self::Path(path) => SockAddr::unix(path),
            Self::Abstract(name) if cfg!(target_os = "linux") => {
                SockAddr::unix(format!("\0{name}"))
            }
            Self::Abstract(_) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "abstract names exist on Linux only; use a path",
            )),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host) => write!(f, "tcp://{host}"),
            Self::Udp(host) => write!(f, "udp://{host}"),
            Self::Unix(name) => write!(f, "unix://{name}"),
            Self::UnixDatagram(name) => write!(f, "unixgram://{name}"),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = Escaped::new(&self.host);
        match self.host.contains(':') {
            true => write!(f, "[{host}]:{}", self.port),
            false => write!(f, "{host}:{}", self.port),
        }
    }
}

impl fmt::Display for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => Escaped::new(path.as_os_str().as_bytes()).fmt(f),
            Self::Abstract(name) => write!(f, "@{}", Escaped::new(name)),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Udp(address) => write!(f, "udp://{address}"),
            Self::Unix(name) => write!(f, "unix://{name}"),
            Self::UnixDatagram(name) => write!(f, "unixgram://{name}"),
        }
    }
}

impl Endpoint {
    /// Returns the IP address and port, if the endpoint has them.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) | Self::Udp(address) => Some(*address),
            Self::Unix(_) | Self::UnixDatagram(_) => None,
        }
    }

    /// Returns the IPv4 wildcard with the same port if this is the IPv6 wildcard: it is bound where the machine has no IPv6.
    #[must_use]
    pub(super) fn ipv4_wildcard(&self) -> Option<Self> {
        let ipv4 = |address: &SocketAddr| {
            (address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED))
                .then(|| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()))
        };
        match self {
            Self::Tcp(address) => ipv4(address).map(Self::Tcp),
            Self::Udp(address) => ipv4(address).map(Self::Udp),
            Self::Unix(_) | Self::UnixDatagram(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        match text.parse::<Address>() {
            Ok(address) => assert_eq!(address.to_string(), expected),
            Err(error) => {
                let said = error.to_string();
                assert!(
                    said.contains(expected),
                    "{said:?} does not say {expected:?}"
                );
                assert!(
                    said.contains(&Escaped::new(text).to_string()),
                    "{said:?} does not name {text:?}"
                );
            }
        }
    }

    #[test]
    fn addresses_print_as_they_parse() {
        check("127.0.0.1:50007", "tcp://127.0.0.1:50007");
        check("tcp://[::1]:7", "tcp://[::1]:7");
        check("[::]:0", "tcp://[::]:0");
        check("[fe80::1%eth0]:7", "tcp://[fe80::1%eth0]:7");
        check(":50007", "tcp://:50007");
        check("udp://example.org:65535", "udp://example.org:65535");
        check("unix:///tmp/echo.sock", "unix:///tmp/echo.sock");
        check("unix://@echo", "unix://@echo");
        check("unixgram://@echo", "unixgram://@echo");
    }

    /// RFC 3986, 3.1: schemes are case-insensitive. Paths and hosts are left unchanged.
    #[test]
    fn schemes_may_be_written_in_capitals() {
        check("TCP://localhost:7", "tcp://localhost:7");
        check("Udp://[::1]:7", "udp://[::1]:7");
        check("UNIX:///tmp/Echo", "unix:///tmp/Echo");
        check("UnixGram://@Echo", "unixgram://@Echo");
    }

    #[test]
    fn only_names_need_the_resolver() {
        let needs = |text: &str| text.parse::<Address>().unwrap().needs_resolver();
        for name in ["localhost:7", "udp://example.org:7", "a.b:7"] {
            assert!(needs(name), "{name}");
        }
        for number in [
            ":7",
            "127.0.0.1:7",
            "[::1]:7",
            "[fe80::1%eth0]:7",
            "unix:///s",
        ] {
            assert!(!needs(number), "{number}");
        }
    }

    #[test]
    fn ipv4_mapped_addresses_are_ipv4() {
        let endpoints = |text: &str| text.parse::<Address>().unwrap().resolve().unwrap();
        assert_eq!(endpoints("[::ffff:127.0.0.1]:7"), endpoints("127.0.0.1:7"));
        assert_eq!(
            endpoints("udp://[::ffff:0.0.0.0]:7"),
            endpoints("udp://0.0.0.0:7")
        );
    }

    #[test]
    fn the_error_says_what_is_wrong_with_an_address() {
        check("", "it is empty");
        check(
            "localhost",
            "no port; write host:port, for example localhost:50007",
        );
        check(
            "localhost:",
            "no port; write host:port, for example localhost:50007",
        );
        check("[::1]", "no port; write host:port, for example [::1]:50007");
        check(
            "[::1]:",
            "no port; write host:port, for example [::1]:50007",
        );
        check("tcp://[::1%lo]", "no port");
        check("[fe80::1%[eth0]]:7", "brackets");
        check(
            "tcp://",
            "no port; write host:port, for example 127.0.0.1:50007",
        );
        check("7777", "no host; write 127.0.0.1:7777");
        check("*:7777", "write :7777 for all interfaces");
        check("/tmp/echo.sock", "write unix:///path");
        check("@echo", "write unix:///path");
        check("unix:/tmp/echo.sock", "write unix:///path");
        check("udp:localhost:7", "one ':' too many");
        check("localhost:7:8", "':' too many");
        check("[::1", "in brackets");
        check("[]", "in brackets");
        check("::1", "in brackets");
        check("fe80::1:7", "in brackets");
        check(
            "localhost:http",
            "'http' is not a port; ports are 0 to 65535",
        );
        check("localhost:+80", "'+80' is not a port");
        check("localhost:65536", "'65536' is not a port");
        check("::1:7", "in brackets");
        check("[::1:7", "in brackets");
        check("[[::1]:7", "in brackets");
        check("[localhost]:7", "in brackets");
        check("a[b:7", "in brackets");
        check(
            "http://localhost:80",
            "use tcp://, udp://, unix:// or unixgram://",
        );
        check("unix://", "no path");
        check("unix://@", "no path");
        check("unix://tmp/x", "three slashes");
        check(
            &format!("unix:///{}", "x".repeat(107)),
            "has 108 bytes, and unix(7) allows 107",
        );
        check("unix:///a\0b", "NUL");
    }

    #[test]
    fn all_interfaces_are_one_dual_stack_endpoint_with_a_fallback() {
        let endpoints = ":7".parse::<Address>().unwrap().resolve().unwrap();
        assert_eq!(endpoints, [Endpoint::Tcp("[::]:7".parse().unwrap())]);
        assert_eq!(
            endpoints[0].ipv4_wildcard(),
            Some(Endpoint::Tcp("0.0.0.0:7".parse().unwrap()))
        );
        assert_eq!(
            Endpoint::Tcp("[::1]:7".parse().unwrap()).ipv4_wildcard(),
            None
        );
    }
}
