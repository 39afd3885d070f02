//! Addresses as people write them, and as sockets are bound to.
//!
//! ```text
//! tcp://host:port     udp://host:port        host: a name, an IPv4 address, an [IPv6 address]; empty: all interfaces
//! unix:///path        unixgram:///path       a socket file
//! unix://@name        unixgram://@name       an abstract name (Linux): no file, gone with the process
//! host:port  :port                           TCP
//! ```
//!
//! An [`Address`] is what was written; [`Address::resolve`] asks the system for the [`Endpoint`]s behind it, which may be
//! several: `localhost` is usually both 127.0.0.1 and ::1.

use super::Escaped;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

/// An address as it was written. Parse one with [`str::parse`].
///
/// ```
/// use echo_reactor::net::Address;
///
/// let address: Address = "localhost:50007".parse().unwrap();
/// assert_eq!(address.to_string(), "tcp://localhost:50007");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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

/// A host, by name or by number, and a port. An empty host means all interfaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Without the brackets of an IPv6 address.
    pub host: String,
    /// 0 lets the system pick one.
    pub port: u16,
}

/// Where a Unix socket is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UnixName {
    /// A file.
    Path(PathBuf),
    /// A name without a file, in a space that only Linux has.
    Abstract(String),
}

/// One address that a socket can be bound to, or connected with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
    /// The endpoints behind this address: all those that the system's resolver knows, each once.
    ///
    /// # Errors
    /// What the resolver said, for example that there is no such host.
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
    /// Whether it is one of datagrams.
    #[must_use]
    pub fn is_datagram(&self) -> bool {
        matches!(self, Self::Udp(_) | Self::UnixDatagram(_))
    }
}

impl HostPort {
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

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    text: String,
    problem: Problem,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Problem {
    Empty,
    Scheme(String),
    NoPort,
    Port(String),
    Brackets,
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
            Problem::NoPort => write!(
                f,
                "it has no port; write host:port, for example 127.0.0.1:50007"
            ),
            Problem::Port(port) => write!(
                f,
                "'{}' is no port; ports are 0 to 65535",
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
                    "a socket's path starts at the root; write unix:///path (three slashes) or unix://@name"
                )
            }
            Problem::LongPath(bytes) => {
                write!(
                    f,
                    "its path has {bytes} bytes, and unix(7) allows {UNIX_PATH_MAX}; use a shorter one"
                )
            }
            Problem::Nul => write!(f, "it has a NUL byte in it; leave that out"),
        }
    }
}

impl std::error::Error for AddressError {}

/// The bytes that a Unix socket's path may have: `sun_path` of unix(7), less the NUL at its end.
pub const UNIX_PATH_MAX: usize = 107;

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let parsed = match text.split_once("://") {
            _ if text.is_empty() => Err(Problem::Empty),
            _ if text.contains('\0') => Err(Problem::Nul),
            None => HostPort::parse(text).map(Address::Tcp),
            Some(("tcp", rest)) => HostPort::parse(rest).map(Address::Tcp),
            Some(("udp", rest)) => HostPort::parse(rest).map(Address::Udp),
            Some(("unix", rest)) => UnixName::parse(rest).map(Address::Unix),
            Some(("unixgram", rest)) => UnixName::parse(rest).map(Address::UnixDatagram),
            Some((scheme, _)) => Err(Problem::Scheme(scheme.to_owned())),
        };
        parsed.map_err(|problem| AddressError {
            text: text.to_owned(),
            problem,
        })
    }
}

impl HostPort {
    fn parse(text: &str) -> Result<Self, Problem> {
        let (host, port) = text.rsplit_once(':').ok_or(Problem::NoPort)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => Self::parse_ipv6(rest)?,
            // `::1` would be read as the host `:` with port 1: surely not what was meant.
            None if host.contains([':', '[', ']']) => return Err(Problem::Brackets),
            None => host,
        };
        // `parse` alone would take "+1" for a port.
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        match port.parse() {
            Ok(port) if digits => Ok(Self {
                host: host.to_owned(),
                port,
            }),
            _ if port.is_empty() => Err(Problem::NoPort),
            _ => Err(Problem::Port(port.to_owned())),
        }
    }

    /// What follows an opening bracket: an IPv6 address, perhaps with a zone (`fe80::1%eth0`), and the closing one.
    fn parse_ipv6(rest: &str) -> Result<&str, Problem> {
        let host = rest.strip_suffix(']').ok_or(Problem::Brackets)?;
        let (address, zone) = host.split_once('%').unwrap_or((host, ""));
        match address.parse::<Ipv6Addr>() {
            Ok(_) if !zone.contains(['[', ']']) => Ok(host),
            _ => Err(Problem::Brackets),
        }
    }
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
    /// The same endpoint for IPv4, if this is the IPv6 wildcard: what to bind where the machine has no IPv6.
    #[must_use]
    pub fn ipv4_wildcard(&self) -> Option<Self> {
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

    #[test]
    fn what_is_no_address_is_named_with_the_remedy() {
        check("", "it is empty");
        check("localhost", "no port");
        check("localhost:", "no port");
        check("localhost:http", "'http' is no port; ports are 0 to 65535");
        check("localhost:+80", "'+80' is no port");
        check("localhost:65536", "'65536' is no port");
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
    fn all_interfaces_are_one_dual_stack_endpoint_with_a_fall_back() {
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
