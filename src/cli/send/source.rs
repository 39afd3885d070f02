//! The client's own address: parsing `--source`, binding, and removing the files of sockets.
//!
//! A Unix datagram server answers to the name of the client's socket, so the client needs one that leads back to it. An
//! abstract name does not cross network namespaces (network_namespaces(7)), and a server whose socket is a file can be
//! reached from another one. There the client's name is a file, too, in a new directory of its own. A server with an abstract
//! name is in the client's namespace, and so an abstract name will do.

use super::destination::PingHost;
use crate::cli::error::{CliError, CliErrorKind};
use crate::net::{Address, Endpoint, UnixName};
use crate::random::unpredictable;
use nix::errno::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use socket2::{Domain, SockAddr, Socket, Type};
use std::fmt::Display;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;

/// The address of the client's end, if one was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Port 0 lets the system pick one.
    Ip(SocketAddr),
    Unix(UnixName),
}

impl Source {
    /// Reads a source that fits the kind of the server's address.
    pub(super) fn parse(text: &str, address: &Address) -> Result<Self, CliError> {
        let refuse = |what: &str| {
            let text = format!("--source '{text}' does not fit {address}: write {what}");
            CliError::usage(text)
        };
        match address {
            Address::Tcp(_) | Address::Udp(_) => {
                let bare = text.trim_matches(['[', ']']);
                let bare = bare.parse().map(|ip: IpAddr| SocketAddr::new(ip, 0));
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

    /// Reads a source for pinging, which has no port.
    pub(super) fn parse_host(text: &str, host: &PingHost) -> Result<Self, CliError> {
        let address = text.trim_matches(['[', ']']).parse();
        let own = address.map(|ip: IpAddr| Self::Ip(SocketAddr::new(ip, 0)));
        own.map_err(|_| {
            let what = "an IP address of this machine without a port, for example 127.0.0.1";
            CliError::usage(format!(
                "--source '{text}' does not fit {host}: write {what}"
            ))
        })
    }

    /// Whether a socket that is bound to it can reach `endpoint` as far as families are concerned.
    pub(super) fn fits(&self, endpoint: &Endpoint) -> bool {
        match (self, endpoint.socket_addr()) {
            (Self::Ip(own), Some(theirs)) => own.is_ipv4() == theirs.is_ipv4(),
            (Self::Unix(_), None) => true,
            _ => false,
        }
    }
}

/// The failure of a source whose family is that of no address of the server.
pub(super) fn fits_none(address: &impl Display, source: Option<&Source>) -> CliError {
    let (source, wanted) = match source {
        Some(Source::Ip(ip)) if ip.is_ipv6() => (ip.to_string(), "an IPv4 address"),
        Some(Source::Ip(ip)) => (ip.to_string(), "an IPv6 address"),
        _ => ("none".to_owned(), "another one"),
    };
    let text = format!(
        "{address}: --source {source} is of another address family than the server; write {wanted} of this machine, or leave it out"
    );
    CliError::usage(text)
}

/// Binds the client's end of a connection over IP.
pub(super) fn bind_ip(socket: &Socket, kind: Type, source: SocketAddr) -> io::Result<()> {
    if kind == Type::STREAM && source.port() != 0 {
        // The end that sends FIN first keeps the pair of addresses in TIME_WAIT for a minute, and that is this one.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&SockAddr::from(source))
}

/// Binds to the name of `--source`. A stale socket file that an earlier client left there is replaced.
pub(super) fn bind_unix(
    socket: &Socket,
    kind: Type,
    name: &UnixName,
) -> io::Result<Option<OwnFile>> {
    let UnixName::Path(path) = name else {
        return socket.bind(&name.to_sock_addr()?).map(|()| None);
    };
    let bound = match socket.bind(&name.to_sock_addr()?) {
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_stale(path, kind) => {
            fs::remove_file(path)?;
            socket.bind(&name.to_sock_addr()?)
        }
        result => result,
    };
    bound.map(|()| Some(OwnFile::new(vec![path.clone()])))
}

/// Binds a datagram socket to a name of its own through which `server` can answer.
pub(super) fn bind_unnamed(socket: &Socket, server: &UnixName) -> io::Result<Option<OwnFile>> {
    let name = format!("echo-reactor-send-{:016x}", unpredictable());
    if let UnixName::Abstract(_) = server {
        let own = UnixName::Abstract(name);
        return socket.bind(&own.to_sock_addr()?).map(|()| None);
    }
    let mut directory = std::env::temp_dir().join(&name);
    if directory.join("s").as_os_str().len() > crate::net::address::UNIX_PATH_MAX {
        directory = Path::new("/tmp").join(&name);
    }
    DirBuilder::new().mode(0o700).create(&directory)?;
    let path = directory.join("s");
    // Removed whatever fails from here on: files first, then their directory.
    let file = OwnFile::new(vec![path.clone(), directory.clone()]);
    socket.bind(&SockAddr::unix(&path)?)?;
    // The server may run as another user: it needs to search the directory and to write to the socket. Datagrams of other
    // processes do not arrive, since the socket is connected to the server (unix(7)).
    fs::set_permissions(&path, Permissions::from_mode(0o666))?;
    fs::set_permissions(&directory, Permissions::from_mode(0o711))?;
    Ok(Some(file))
}

/// Whether a path holds the file of a socket that no process has open. Only ECONNREFUSED proves that.
fn is_stale(path: &Path, kind: Type) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket());
    let probe = || -> io::Result<()> {
        let probe = Socket::new(Domain::UNIX, kind, None)?;
        probe.set_nonblocking(true)?;
        probe.connect(&SockAddr::unix(path)?)
    };
    is_socket && probe().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// The socket file of the client, and the directory made for it; both are removed on drop.
#[derive(Debug)]
pub(super) struct OwnFile {
    paths: Vec<PathBuf>,
}

impl OwnFile {
    /// Also removes them when a signal ends the process. If signals cannot be watched, the next client removes the file.
    fn new(paths: Vec<PathBuf>) -> Self {
        if let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) {
            let own = Self {
                paths: paths.clone(),
            };
            // A thread that cannot be started drops `own`: then nothing is bound yet that it could remove.
            let watch = move || {
                if let Some(signal) = signals.forever().next() {
                    own.remove();
                    let _ = emulate_default_handler(signal);
                }
            };
            let _ = thread::Builder::new()
                .name("signals".to_owned())
                .spawn(watch);
        }
        Self { paths }
    }

    fn remove(&self) {
        for path in &self.paths {
            let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
        }
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The failure to bind the client's own address.
pub(super) fn failure(
    endpoint: &impl Display,
    source: Option<&Source>,
    error: &io::Error,
) -> CliError {
    let source = match source {
        Some(Source::Ip(address)) => address.to_string(),
        Some(Source::Unix(name)) => name.to_string(),
        None => format!("a name in {}", std::env::temp_dir().display()),
    };
    let (class, remedy) = match error.kind() {
        ErrorKind::AddrInUse => (CliErrorKind::Usage, "it is taken; use another one"),
        ErrorKind::AddrNotAvailable => (
            CliErrorKind::Usage,
            "it is not an address of this machine; 'ip address' lists them",
        ),
        ErrorKind::InvalidInput => (
            CliErrorKind::Usage,
            "it must be of the same kind as the server's",
        ),
        ErrorKind::PermissionDenied => (
            CliErrorKind::Permission,
            "this user may not bind it; use another one",
        ),
        ErrorKind::NotFound => (
            CliErrorKind::Usage,
            "there is no such directory; make it first",
        ),
        _ if error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32) => (
            CliErrorKind::Usage,
            "it must be of the same kind as the server's",
        ),
        _ => (CliErrorKind::Io, "use another one, or none"),
    };
    let text = format!("{endpoint}: cannot send from {source}: {error}; {remedy}");
    CliError::new(class, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_fit_their_servers() {
        let parse = |source, server: &str| Source::parse(source, &server.parse().unwrap()).ok();
        let ip = |text: &str| Some(Source::Ip(text.parse().unwrap()));
        assert_eq!(parse("127.0.0.1", "127.0.0.1:7"), ip("127.0.0.1:0"));
        assert_eq!(parse("127.0.0.1:9", "udp://127.0.0.1:7"), ip("127.0.0.1:9"));
        assert_eq!(parse("::1", "[::1]:7"), ip("[::1]:0"));
        assert_eq!(parse("[::1]", "[::1]:7"), ip("[::1]:0"));
        assert_eq!(parse("/tmp/c", "127.0.0.1:7"), None);
        let name = Some(Source::Unix(UnixName::Path("/tmp/c".into())));
        assert_eq!(parse("/tmp/c", "unixgram:///tmp/s"), name);
        assert_eq!(parse("tmp/c", "unixgram:///tmp/s"), None);
    }
}
