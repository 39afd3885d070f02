//! Connecting to a server: the addresses to try, the timeouts, and the kind of each socket error.

use super::plan::Plan;
use super::source::{self, OwnFile, Source};
use crate::cli::error::{CliError, CliErrorKind};
use crate::cli::names;
use crate::cli::units::Time;
use crate::net::{Address, Endpoint, UnixName};
use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A connected socket, and its file if it has one.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) socket: Socket,
    pub(super) endpoint: Endpoint,
    _file: Option<OwnFile>,
}

/// The endpoints to try, in the order in which the resolver named them, and until when. The resolver and all attempts to
/// connect share one timeout: a health probe has to end in time however many addresses a name has.
#[derive(Debug)]
pub(super) struct Targets {
    endpoints: Vec<Endpoint>,
    next: usize,
    deadline: Instant,
}

/// An endpoint to try, and how long.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) endpoint: Endpoint,
    allowed: Duration,
}

impl Targets {
    /// Resolves the address of the server. Of a name with addresses of both families those are left that the client's own
    /// address can speak to.
    pub(super) fn resolve(plan: &Plan) -> Result<Self, CliError> {
        let address = &plan.address;
        if let Address::Tcp(host) | Address::Udp(host) = address {
            if host.port == 0 {
                let text =
                    format!("{address}: nothing listens on port 0; name the server's own port");
                return Err(CliError::usage(text));
            }
        }
        let deadline = Instant::now() + plan.timeout;
        let resolved = names::resolve_within(vec![address.clone()], plan.timeout)?;
        let found = resolved.into_iter().flat_map(|one| one.endpoints);
        let mut endpoints: Vec<Endpoint> = found.flat_map(names::reachable).collect();
        if let Some(source) = &plan.source {
            endpoints.retain(|endpoint| source.fits(endpoint));
        }
        match endpoints.is_empty() {
            true => Err(source::fits_none(address, plan.source.as_ref())),
            false => Ok(Self {
                endpoints,
                next: 0,
                deadline,
            }),
        }
    }
}

impl Iterator for Targets {
    type Item = Target;

    /// Each attempt gets an equal part of the time that is left, so the first cannot use up that of the last.
    fn next(&mut self) -> Option<Target> {
        let endpoint = self.endpoints.get(self.next)?.clone();
        let untried = u32::try_from(self.endpoints.len() - self.next).unwrap_or(u32::MAX);
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.next += 1;
        Some(Target {
            endpoint,
            // socket2 refuses a timeout of zero; a millisecond ends as an ordinary timeout.
            allowed: (left / untried).max(Duration::from_millis(1)),
        })
    }
}

/// A socket that is connected with a target, or the reason why it is not, in the time that the target has.
pub(super) fn connect(target: &Target, plan: &Plan) -> Result<Connected, CliError> {
    let endpoint = &target.endpoint;
    let connected = match endpoint {
        Endpoint::Tcp(address) => connect_tcp(*address, plan, target.allowed),
        Endpoint::Udp(address) => connect_udp(*address, plan),
        Endpoint::Unix(name) => connect_unix(name, Type::STREAM, plan, target.allowed),
        Endpoint::UnixDatagram(name) => connect_unix(name, Type::DGRAM, plan, target.allowed),
    };
    let (socket, file) = connected.map_err(|trouble| match trouble {
        Trouble::Source(error) => source::failure(endpoint, plan.source.as_ref(), &error),
        Trouble::Peer(error) => failure(endpoint, target.allowed, &error, ""),
    })?;
    Ok(Connected {
        socket,
        endpoint: endpoint.clone(),
        _file: file,
    })
}

/// The end that an error concerns.
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

fn connect_tcp(address: SocketAddr, plan: &Plan, allowed: Duration) -> Opened {
    let socket = open_ip(address, Type::STREAM, Protocol::TCP, plan)?;
    socket.connect_timeout(&address.into(), allowed)?;
    // On loopback a socket can connect to itself (simultaneous open at an ephemeral port), and would echo every byte.
    let (ours, theirs) = (socket.local_addr()?, socket.peer_addr()?);
    if ours.as_socket() == theirs.as_socket() {
        return Err(io::Error::from_raw_os_error(Errno::ECONNREFUSED as i32).into());
    }
    socket.set_tcp_nodelay(true)?;
    Ok((socket, None))
}

/// A connected UDP socket receives datagrams of its peer only, so a stray datagram does not count as an answer.
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
        source::bind_ip(&socket, kind, source).map_err(Trouble::Source)?;
    }
    Ok(socket)
}

fn connect_unix(name: &UnixName, kind: Type, plan: &Plan, allowed: Duration) -> Opened {
    let socket = Socket::new(Domain::UNIX, kind, None)?;
    // SO_SNDTIMEO also bounds connect(2), which blocks while the accept queue of the server is full.
    set_timeouts(&socket, allowed)?;
    let file = match &plan.source {
        Some(Source::Unix(own)) => {
            source::bind_unix(&socket, kind, own).map_err(Trouble::Source)?
        }
        // A socket without a name cannot be answered with datagrams.
        _ if kind == Type::DGRAM => source::bind_unnamed(&socket, name).map_err(Trouble::Source)?,
        _ => None,
    };
    socket.connect(&name.to_sock_addr()?)?;
    set_timeouts(&socket, plan.timeout)?;
    Ok((socket, file))
}

fn set_timeouts(socket: &Socket, timeout: Duration) -> io::Result<()> {
    // Zero means no timeout (SO_RCVTIMEO of socket(7)), and the kernel counts in microseconds.
    let timeout = timeout.max(Duration::from_micros(1));
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))
}

/// Describes a socket error. `when` says how far the exchange had come, or is empty.
pub(super) fn failure(
    endpoint: &impl Display,
    timeout: Duration,
    error: &io::Error,
    when: &str,
) -> CliError {
    let (class, told, remedy) = match error.kind() {
        // The socket file is missing or stale, or no socket listens at the port.
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => (
            CliErrorKind::Refused,
            "no server listens there".to_owned(),
            format!("; start a server with 'echo-reactor serve {endpoint}'"),
        ),
        // The system's own timers end a connect or a connection with TimedOut; ours end a call with WouldBlock.
        ErrorKind::TimedOut | ErrorKind::WouldBlock => {
            let told = format!("no answer within {}", Time(timeout));
            (CliErrorKind::Timeout, told, String::new())
        }
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
            let told = "the server reset the connection".to_owned();
            (CliErrorKind::Reset, told, String::new())
        }
        ErrorKind::UnexpectedEof => {
            let told = "the server closed the connection".to_owned();
            (CliErrorKind::Closed, told, String::new())
        }
        ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::AddrNotAvailable => {
            let told = format!("the address cannot be reached: {error}");
            (CliErrorKind::Unreachable, told, String::new())
        }
        ErrorKind::PermissionDenied => (
            CliErrorKind::Permission,
            format!("this user may not connect to it: {error}"),
            "; check the mode of the socket file, or the firewall".to_owned(),
        ),
        _ => rare_failure(error),
    };
    let space = if when.is_empty() { "" } else { " " };
    CliError::new(class, format!("{endpoint}: {told}{space}{when}{remedy}"))
}

/// Errors without an [`ErrorKind`] of std: kind, text, and what to do.
fn rare_failure(error: &io::Error) -> (CliErrorKind, String, String) {
    let (class, remedy) = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPROTOTYPE) => (
            CliErrorKind::Io,
            "; the socket there is of the other kind: swap unix:// and unixgram://",
        ),
        Some(Errno::EMSGSIZE) => (CliErrorKind::Usage, "; send less, or over a stream"),
        Some(Errno::EAFNOSUPPORT) => (
            CliErrorKind::Unreachable,
            "; this machine has no such network",
        ),
        _ => (CliErrorKind::Io, ""),
    };
    (class, error.to_string(), remedy.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_all_interfaces_is_found_on_this_machine() {
        let texts = |text: &str| -> Vec<String> {
            let targets = Targets::resolve(&plan(text, None)).unwrap();
            targets.map(|target| target.endpoint.to_string()).collect()
        };
        assert_eq!(texts(":7"), ["tcp://127.0.0.1:7", "tcp://[::1]:7"]);
        assert_eq!(texts("udp://0.0.0.0:7"), ["udp://127.0.0.1:7"]);
        assert_eq!(texts("192.0.2.1:7"), ["tcp://192.0.2.1:7"]);
        let failure = Targets::resolve(&plan("127.0.0.1:0", None)).unwrap_err();
        assert_eq!(failure.class, CliErrorKind::Usage);
    }

    /// `:7` stands for addresses of both families, as `localhost:7` does on most machines.
    #[test]
    fn the_clients_own_address_picks_the_family() {
        let targets = |text: &str, source: &str| -> Result<Vec<String>, CliError> {
            let targets = Targets::resolve(&plan(text, Some(source)))?;
            Ok(targets.map(|target| target.endpoint.to_string()).collect())
        };
        assert_eq!(
            targets("udp://:7", "127.0.0.1").unwrap(),
            ["udp://127.0.0.1:7"]
        );
        assert_eq!(targets(":7", "::1").unwrap(), ["tcp://[::1]:7"]);
        let failure = targets("127.0.0.1:7", "::1").unwrap_err();
        assert_eq!(failure.class, CliErrorKind::Usage, "{failure}");
        assert!(failure.text.contains("IPv4 address"), "{failure}");
    }

    #[test]
    fn all_addresses_of_a_name_share_one_timeout() {
        let targets = Targets::resolve(&plan(":7", None)).unwrap();
        let allowed: Vec<Duration> = targets.map(|target| target.allowed).collect();
        let limit = Duration::from_secs(5);
        assert!(
            allowed[0] <= limit / 2 && allowed[1] <= limit,
            "{allowed:?}"
        );
    }

    fn plan(text: &str, source: Option<&str>) -> Plan {
        let address: Address = text.parse().unwrap();
        Plan {
            source: source.map(|source| Source::parse(source, &address).unwrap()),
            address,
            input: super::super::plan::Input::Standard,
            form: super::super::plan::Form::Nothing,
            repeat: 1,
            interval: Duration::ZERO,
            timeout: Duration::from_secs(5),
            proxy: None,
        }
    }

    #[test]
    fn every_error_has_its_class() {
        let classes = [
            (Errno::ECONNREFUSED, CliErrorKind::Refused),
            (Errno::ENOENT, CliErrorKind::Refused),
            (Errno::ETIMEDOUT, CliErrorKind::Timeout),
            (Errno::EAGAIN, CliErrorKind::Timeout),
            (Errno::ECONNRESET, CliErrorKind::Reset),
            (Errno::EPIPE, CliErrorKind::Reset),
            (Errno::EHOSTUNREACH, CliErrorKind::Unreachable),
            (Errno::ENETUNREACH, CliErrorKind::Unreachable),
            (Errno::EADDRNOTAVAIL, CliErrorKind::Unreachable),
            (Errno::EACCES, CliErrorKind::Permission),
            (Errno::EPERM, CliErrorKind::Permission),
            (Errno::EMSGSIZE, CliErrorKind::Usage),
            (Errno::EPROTOTYPE, CliErrorKind::Io),
            (Errno::EIO, CliErrorKind::Io),
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
