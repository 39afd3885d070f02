//! Reaching a server: which addresses to try, from where, and what it means if that fails.
//!
//! What may live in this file: resolving, binding, connecting, and naming an error of a socket by its class. What may
//! not: sending a single byte.

use super::Plan;
use crate::cli::exit::{Class, Failure};
use crate::cli::units::Time;
use crate::net::{Address, Endpoint, UnixName};
use nix::errno::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Where we speak from, if that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Port 0 lets the system pick one.
    Ip(SocketAddr),
    Unix(UnixName),
}

impl Source {
    /// Reads a source that fits the kind of the server's address.
    pub(super) fn parse(text: &str, address: &Address) -> Result<Self, Failure> {
        let refuse = |what: &str| {
            let text = format!("--source '{text}' does not fit {address}: write {what}");
            Failure::new(Class::Usage, text)
        };
        match address {
            Address::Tcp(_) | Address::Udp(_) => {
                let bare = text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 0));
                bare.or_else(|_| text.parse()).map(Self::Ip).map_err(|_| {
                    refuse("an IP address, for example 127.0.0.1, 127.0.0.1:4000 or [::1]:4000")
                })
            }
            Address::Unix(_) | Address::UnixDatagram(_) => match format!("unix://{text}").parse() {
                Ok(Address::Unix(name)) => Ok(Self::Unix(name)),
                _ => Err(refuse("a path such as /tmp/client.sock, or @name")),
            },
        }
    }
}

/// A connected socket, and its file if it has one.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) socket: Socket,
    pub(super) endpoint: Endpoint,
    _file: Option<OwnFile>,
}

/// The file of our own end, gone with it.
#[derive(Debug)]
struct OwnFile(PathBuf);

impl Drop for OwnFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The endpoints to try, in the order in which the resolver named them.
pub(super) fn targets(address: &Address) -> Result<Vec<Endpoint>, Failure> {
    if let Address::Tcp(host) | Address::Udp(host) = address {
        if host.port == 0 {
            let text = format!("{address}: nobody listens on port 0; name the server's own port");
            return Err(Failure::new(Class::Usage, text));
        }
    }
    let endpoints = address.resolve().map_err(|error| {
        let text =
            format!("{address}: {error}; check the host's name, or write its address in numbers");
        Failure::new(Class::Resolve, text)
    })?;
    Ok(endpoints.into_iter().flat_map(reachable).collect())
}

/// "All interfaces" is where a server listens; whoever wants to talk to it finds it on this machine.
fn reachable(endpoint: Endpoint) -> Vec<Endpoint> {
    let addresses = |address: SocketAddr| -> Vec<SocketAddr> {
        let hosts = match address.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
                vec![
                    IpAddr::V6(Ipv6Addr::LOCALHOST),
                    IpAddr::V4(Ipv4Addr::LOCALHOST),
                ]
            }
            _ => return vec![address],
        };
        hosts
            .into_iter()
            .map(|host| SocketAddr::new(host, address.port()))
            .collect()
    };
    match endpoint {
        Endpoint::Tcp(address) => addresses(address).into_iter().map(Endpoint::Tcp).collect(),
        Endpoint::Udp(address) => addresses(address).into_iter().map(Endpoint::Udp).collect(),
        unix => vec![unix],
    }
}

/// A socket that is connected with an endpoint, and gives up by the plan's timeout whatever it does.
pub(super) fn connect(endpoint: &Endpoint, plan: &Plan) -> Result<Connected, Failure> {
    let connected = match endpoint {
        Endpoint::Tcp(address) => connect_tcp(*address, plan),
        Endpoint::Udp(address) => connect_udp(*address, plan),
        Endpoint::Unix(name) => connect_unix(name, Type::STREAM, plan),
        Endpoint::UnixDatagram(name) => connect_unix(name, Type::DGRAM, plan),
    };
    let (socket, file) = connected.map_err(|trouble| match trouble {
        Trouble::Source(error) => source_failure(endpoint, plan, &error),
        Trouble::Peer(error) => failure(endpoint, plan.timeout, &error, ""),
    })?;
    Ok(Connected {
        socket,
        endpoint: endpoint.clone(),
        _file: file,
    })
}

/// Which end was at fault.
enum Trouble {
    Source(io::Error),
    Peer(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Peer(error)
    }
}

type Opened = Result<(Socket, Option<OwnFile>), Trouble>;

fn connect_tcp(address: SocketAddr, plan: &Plan) -> Opened {
    let socket = open_ip(address, Type::STREAM, Protocol::TCP, plan)?;
    socket.connect_timeout(&address.into(), plan.timeout)?;
    // A free port of this machine can be connected with itself, and would echo to perfection.
    let (ours, theirs) = (socket.local_addr()?, socket.peer_addr()?);
    if ours.as_socket() == theirs.as_socket() {
        return Err(io::Error::from_raw_os_error(Errno::ECONNREFUSED as i32).into());
    }
    socket.set_tcp_nodelay(true)?;
    Ok((socket, None))
}

/// A connected UDP socket hears its peer alone: stray datagrams from elsewhere do not count as answers.
fn connect_udp(address: SocketAddr, plan: &Plan) -> Opened {
    let socket = open_ip(address, Type::DGRAM, Protocol::UDP, plan)?;
    socket.connect(&address.into())?;
    Ok((socket, None))
}

fn open_ip(
    address: SocketAddr,
    kind: Type,
    protocol: Protocol,
    plan: &Plan,
) -> Result<Socket, Trouble> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    set_timeouts(&socket, plan.timeout)?;
    if let Some(Source::Ip(source)) = plan.source {
        let bound = socket.bind(&SockAddr::from(source));
        bound.map_err(Trouble::Source)?;
    }
    Ok(socket)
}

fn connect_unix(name: &UnixName, kind: Type, plan: &Plan) -> Opened {
    let socket = Socket::new(Domain::UNIX, kind, None)?;
    // The timeout of writing is that of connecting too: a server whose queue is full keeps us waiting.
    set_timeouts(&socket, plan.timeout)?;
    let file = match &plan.source {
        Some(Source::Unix(own)) => bind_unix(&socket, own).map_err(Trouble::Source)?,
        // Only who has a name can be answered with datagrams.
        _ if kind == Type::DGRAM => bind_unix(&socket, &own_name()).map_err(Trouble::Source)?,
        _ => None,
    };
    socket.connect(&name.to_sock_addr()?)?;
    Ok((socket, file))
}

fn bind_unix(socket: &Socket, name: &UnixName) -> io::Result<Option<OwnFile>> {
    socket.bind(&name.to_sock_addr()?)?;
    Ok(match name {
        UnixName::Path(path) => Some(OwnFile(path.clone())),
        UnixName::Abstract(_) => None,
    })
}

/// A name that nobody else has: without a file where the system can do that, else in the folder for such things.
fn own_name() -> UnixName {
    let name = format!(
        "echo-reactor-send-{:016x}",
        RandomState::new().build_hasher().finish()
    );
    match cfg!(target_os = "linux") {
        true => UnixName::Abstract(name),
        false => UnixName::Path(std::env::temp_dir().join(name)),
    }
}

fn set_timeouts(socket: &Socket, timeout: Duration) -> io::Result<()> {
    // Below a microsecond the system would take it for none at all.
    let timeout = timeout.max(Duration::from_micros(1));
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))
}

fn source_failure(endpoint: &Endpoint, plan: &Plan, error: &io::Error) -> Failure {
    let source = match &plan.source {
        Some(Source::Ip(address)) => address.to_string(),
        Some(Source::Unix(name)) => name.to_string(),
        None => "a name of our own".to_owned(),
    };
    let (class, remedy) = match error.kind() {
        ErrorKind::AddrInUse => (Class::Usage, "it is taken; use another one"),
        ErrorKind::AddrNotAvailable => (Class::Usage, "it is not an address of this machine"),
        ErrorKind::InvalidInput => (Class::Usage, "it must be of the same kind as the server's"),
        ErrorKind::PermissionDenied => (Class::Permission, "this user may not use it"),
        _ if error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32) => {
            (Class::Usage, "it must be of the same kind as the server's")
        }
        _ => (Class::Io, "use another one, or none"),
    };
    let text = format!("{endpoint}: cannot speak from {source}: {error}; {remedy}");
    Failure::new(class, text)
}

/// What an error of a socket says of its server. `when` tells how far things had come, or is empty.
pub(super) fn failure(
    endpoint: &Endpoint,
    timeout: Duration,
    error: &io::Error,
    when: &str,
) -> Failure {
    let (class, told, remedy) = match error.kind() {
        // No file, or one that nobody listens at any more.
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => (
            Class::Refused,
            "nobody listens there".to_owned(),
            format!("; start a server with 'echo-reactor serve {endpoint}'"),
        ),
        // The system's own timers end a connect or a connection with TimedOut; ours end a call with WouldBlock.
        ErrorKind::TimedOut | ErrorKind::WouldBlock => {
            let told = format!("no answer within {}", Time(timeout));
            (Class::Timeout, told, String::new())
        }
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
            let told = "the server reset the connection".to_owned();
            (Class::Reset, told, String::new())
        }
        ErrorKind::UnexpectedEof => {
            let told = "the server closed the connection".to_owned();
            (Class::Closed, told, String::new())
        }
        ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::AddrNotAvailable => {
            let told = format!("no way leads there: {error}");
            (Class::Unreachable, told, String::new())
        }
        ErrorKind::PermissionDenied => (
            Class::Permission,
            format!("this user may not talk to it: {error}"),
            "; see the mode of the socket's file, or the firewall".to_owned(),
        ),
        _ => rare_failure(error),
    };
    let space = if when.is_empty() { "" } else { " " };
    Failure::new(class, format!("{endpoint}: {told}{space}{when}{remedy}"))
}

/// Those that std has no kind for: class, what happened, and what to do.
fn rare_failure(error: &io::Error) -> (Class, String, String) {
    let (class, remedy) = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPROTOTYPE) => (
            Class::Io,
            "; the socket there is of the other kind: swap unix:// and unixgram://",
        ),
        Some(Errno::EMSGSIZE) => (Class::Usage, "; send less, or over a stream"),
        Some(Errno::EAFNOSUPPORT) => (Class::Unreachable, "; this machine has no such network"),
        _ => (Class::Io, ""),
    };
    (class, error.to_string(), remedy.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn sources_fit_their_servers() {
        let parse = |source, server| Source::parse(source, &address(server)).ok();
        let ip = |text: &str| Some(Source::Ip(text.parse().unwrap()));
        assert_eq!(parse("127.0.0.1", "127.0.0.1:7"), ip("127.0.0.1:0"));
        assert_eq!(parse("127.0.0.1:9", "udp://127.0.0.1:7"), ip("127.0.0.1:9"));
        assert_eq!(parse("::1", "[::1]:7"), ip("[::1]:0"));
        assert_eq!(parse("/tmp/c", "127.0.0.1:7"), None);
        let name = Some(Source::Unix(UnixName::Path("/tmp/c".into())));
        assert_eq!(parse("/tmp/c", "unixgram:///tmp/s"), name);
        assert_eq!(parse("tmp/c", "unixgram:///tmp/s"), None);
    }

    #[test]
    fn a_server_on_all_interfaces_is_found_on_this_machine() {
        let texts = |text: &str| -> Vec<String> {
            let endpoints = targets(&address(text)).ok().unwrap();
            endpoints.iter().map(ToString::to_string).collect()
        };
        assert_eq!(texts(":7"), ["tcp://[::1]:7", "tcp://127.0.0.1:7"]);
        assert_eq!(texts("udp://0.0.0.0:7"), ["udp://127.0.0.1:7"]);
        assert_eq!(texts("192.0.2.1:7"), ["tcp://192.0.2.1:7"]);
        assert_eq!(
            targets(&address("127.0.0.1:0")).err().unwrap().class,
            Class::Usage
        );
    }

    #[test]
    fn every_error_has_its_class() {
        let classes = [
            (Errno::ECONNREFUSED, Class::Refused),
            (Errno::ENOENT, Class::Refused),
            (Errno::ETIMEDOUT, Class::Timeout),
            (Errno::EAGAIN, Class::Timeout),
            (Errno::ECONNRESET, Class::Reset),
            (Errno::EPIPE, Class::Reset),
            (Errno::EHOSTUNREACH, Class::Unreachable),
            (Errno::ENETUNREACH, Class::Unreachable),
            (Errno::EADDRNOTAVAIL, Class::Unreachable),
            (Errno::EACCES, Class::Permission),
            (Errno::EPERM, Class::Permission),
            (Errno::EMSGSIZE, Class::Usage),
            (Errno::EPROTOTYPE, Class::Io),
            (Errno::EIO, Class::Io),
        ];
        let endpoint = Endpoint::Tcp("127.0.0.1:7".parse().unwrap());
        for (errno, class) in classes {
            let error = io::Error::from_raw_os_error(errno as i32);
            let failure = failure(&endpoint, Duration::from_secs(5), &error, "");
            assert_eq!(failure.class, class, "{errno}: {failure}");
            assert!(failure.text.starts_with("tcp://127.0.0.1:7: "), "{failure}");
        }
    }
}
