//! Bind and listen: both the event loop and the blocking models start from these sockets.
//!
//! Unpromised as a path: programs take these items from [`net`](super).
//!
//! Listeners are made with socket2 rather than by mio's or std's `bind`, which listen with a backlog of 128: a burst of a
//! few hundred clients overflows that accept queue, and a SYN that was dropped is retransmitted after a whole second.
//! Socket options that a connection inherits on Linux (TCP_NODELAY, buffer sizes, keepalive) are set once, on the listener.

use super::address::{Address, Endpoint, Resolved, UnixName};
use super::bind_error::BindError;
use super::socket_file::SocketFile;
#[cfg(any(feature = "check", all(feature = "bench", feature = "cli")))]
use crate::{procfs::port_range, random::unpredictable};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use std::io;
#[cfg(any(feature = "check", all(feature = "bench", feature = "cli")))]
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// How sockets are bound: backlog, permission bits and socket options. The default is the longest accept queue, Unix
/// sockets that only their owner may use, and the socket options of the system.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BindOptions {
    /// Length of the accept queue (the backlog of listen(2)); the kernel cuts it to `net.core.somaxconn`.
    pub backlog: i32,
    /// Whether an IPv6 socket refuses IPv4 clients.
    pub ipv6_only: bool,
    /// Permission bits of a Unix socket's file. Users with write permission may connect.
    pub unix_mode: u32,
    /// SO_SNDBUF of each connection, in bytes.
    pub send_buffer_bytes: Option<usize>,
    /// SO_RCVBUF of each connection, in bytes.
    pub receive_buffer_bytes: Option<usize>,
    /// Idle time before TCP probes the peer (SO_KEEPALIVE). Probes follow at a third of it; after three unanswered ones the
    /// connection ends.
    pub keepalive: Option<Duration>,
    /// How long sent bytes may stay unacknowledged (TCP_USER_TIMEOUT).
    pub user_timeout: Option<Duration>,
    /// Whether further sockets of this user may have the same address (SO_REUSEPORT); see `reuse_port`.
    pub(crate) reuse_port: bool,
}

impl Default for BindOptions {
    fn default() -> Self {
        Self {
            backlog: i32::MAX,
            ipv6_only: false,
            unix_mode: 0o600,
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
            keepalive: None,
            user_timeout: None,
            reuse_port: false,
        }
    }
}

/// Socket options for accepted connections. Linux lets most be inherited from the listener; elsewhere they are set one by
/// one.
#[derive(Clone, Copy, Debug)]
pub struct StreamOptions {
    keepalive: Option<Duration>,
    user_timeout: Option<Duration>,
    send_buffer_bytes: Option<usize>,
    receive_buffer_bytes: Option<usize>,
}

impl StreamOptions {
    pub(super) fn new(options: &BindOptions) -> Self {
        Self {
            keepalive: options.keepalive,
            user_timeout: options.user_timeout,
            send_buffer_bytes: options.send_buffer_bytes,
            receive_buffer_bytes: options.receive_buffer_bytes,
        }
    }
}

/// How often a socket is bound again because its staging directory was removed.
const FURTHER_BINDS_MAX: u32 = 3;

/// A bound socket that listens if it is a stream socket, and is still blocking.
#[derive(Debug)]
pub struct BoundSocket {
    /// The file of a Unix socket, if it has one. The field comes first, to be dropped first: a file whose socket is closed
    /// looks like that of a dead server, and the next server must not replace it just before it is removed here.
    pub(crate) file: Option<SocketFile>,
    pub(crate) socket: Socket,
    /// Its address, with the port that the system chose.
    pub(crate) endpoint: Endpoint,
    /// How many socket options could not be set. The socket can be served without them.
    pub(crate) option_errors: u32,
}

impl BoundSocket {
    /// Binds an endpoint, and listens if it is one of streams.
    ///
    /// # Errors
    /// Those of socket(2), bind(2) and listen(2). `AddrInUse` for the path of a Unix socket means that a running server has
    /// that socket open.
    pub fn new(endpoint: &Endpoint, options: &BindOptions) -> io::Result<Self> {
        match (Self::bind(endpoint, options), endpoint.ipv4_wildcard()) {
            // A listener for IPv6 only cannot fall back to IPv4.
            (Err(error), Some(ipv4)) if is_without_ipv6(&error) && !options.ipv6_only => {
                log::warn!("{endpoint}: {error}; this machine has no IPv6, and {ipv4} serves IPv4");
                Self::bind(&ipv4, options)
            }
            (result, _) => result,
        }
    }

    fn bind(endpoint: &Endpoint, options: &BindOptions) -> io::Result<Self> {
        Self::bind_and_publish(|| Self::bind_and_listen(endpoint, options))
    }

    /// Gives the file of a socket its name last of all, so that a client that finds it finds a server that listens. If
    /// another process has removed the staging directory, a new socket is made, since one cannot be bound twice.
    fn bind_and_publish(bind: impl Fn() -> io::Result<Self>) -> io::Result<Self> {
        let mut further = 0..FURTHER_BINDS_MAX;
        loop {
            let mut bound = bind()?;
            match bound.file.as_mut().map_or(Ok(()), SocketFile::publish) {
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound && further.next().is_some() => {}
                result => return result.map(|()| bound),
            }
        }
    }

    pub(super) fn bind_and_listen(endpoint: &Endpoint, options: &BindOptions) -> io::Result<Self> {
        let mut bound = match endpoint {
            Endpoint::Tcp(address) => Self::bind_ip(*address, Type::STREAM, Protocol::TCP, options),
            Endpoint::Udp(address) => Self::bind_ip(*address, Type::DGRAM, Protocol::UDP, options),
            Endpoint::Unix(name) => Self::bind_unix(name, Type::STREAM, options),
            Endpoint::UnixDatagram(name) => Self::bind_unix(name, Type::DGRAM, options),
        }?;
        bound.option_errors += {
            let socket = SockRef::from(&bound.socket);
            let stream = StreamOptions::new(options);
            match endpoint {
                Endpoint::Tcp(_) => stream.set_buffers(&socket) + stream.set_tcp(&socket),
                Endpoint::Unix(_) => stream.set_buffers(&socket),
                Endpoint::Udp(_) | Endpoint::UnixDatagram(_) => stream.enlarge_buffers(&socket),
            }
        };
        if matches!(endpoint, Endpoint::Tcp(_) | Endpoint::Unix(_)) {
            bound.socket.listen(options.backlog)?;
        }
        Ok(bound)
    }

    fn bind_ip(
        address: SocketAddr,
        kind: Type,
        protocol: Protocol,
        options: &BindOptions,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
        if address.is_ipv6() {
            socket.set_only_v6(options.ipv6_only)?;
        }
        let option_errors = match kind {
            // A server that is restarted must not wait until its old connections leave TIME_WAIT. (On UDP the same option
            // would let a second server take the port.)
            Type::STREAM => failed("SO_REUSEADDR", socket.set_reuse_address(true)),
            _ => 0,
        };
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&SockAddr::from(address))?;
        let address = socket.local_addr()?.as_socket().unwrap_or(address);
        let endpoint = match kind {
            Type::STREAM => Endpoint::Tcp(address),
            _ => Endpoint::Udp(address),
        };
        Ok(Self {
            socket,
            endpoint,
            file: None,
            option_errors,
        })
    }

    fn bind_unix(name: &UnixName, kind: Type, options: &BindOptions) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, kind, None)?;
        let file = match name {
            UnixName::Abstract(_) => {
                socket.bind(&name.to_sock_addr()?)?;
                None
            }
            UnixName::Path(path) => Some(SocketFile::bind(&socket, path, options.unix_mode)?),
        };
        let endpoint = match kind {
            Type::STREAM => Endpoint::Unix(name.clone()),
            _ => Endpoint::UnixDatagram(name.clone()),
        };
        Ok(Self {
            socket,
            endpoint,
            file,
            option_errors: 0,
        })
    }
}

impl StreamOptions {
    /// Sets the options of a TCP connection, and returns how many could not be set; a connection can be served without them.
    ///
    /// TCP_NODELAY, since no more bytes follow an echo: Nagle's algorithm would wait for the delayed acknowledgement of the
    /// peer, 40 ms. Keepalive and TCP_USER_TIMEOUT find out that a peer is gone, if that is wanted.
    pub(super) fn set_tcp(self, socket: &SockRef<'_>) -> u32 {
        let mut errors = failed("TCP_NODELAY", socket.set_tcp_nodelay(true));
        if let Some(idle) = self.keepalive {
            let interval = (idle / 3).max(Duration::from_secs(1));
            let probes = TcpKeepalive::new().with_time(idle).with_interval(interval);
            #[cfg(any(target_os = "linux", target_os = "freebsd", target_os = "macos"))]
            let probes = probes.with_retries(3);
            errors += failed("keepalive", socket.set_tcp_keepalive(&probes));
        }
        if self.user_timeout.is_some() {
            #[cfg(target_os = "linux")]
            let result = socket.set_tcp_user_timeout(self.user_timeout);
            #[cfg(not(target_os = "linux"))]
            let result = Err(io::ErrorKind::Unsupported.into());
            errors += failed("TCP_USER_TIMEOUT", result);
        }
        errors
    }

    /// Sets the kernel's buffers of a datagram socket, if that enlarges them, and returns how many could not be set.
    ///
    /// A bound on the memory of a connection does not shrink them: a buffer smaller than one datagram would lose the largest
    /// ones, silently on the way in, and with `EMSGSIZE` or `ENOBUFS` on the way out.
    pub(super) fn enlarge_buffers(self, socket: &SockRef<'_>) -> u32 {
        let larger = |wanted: Option<usize>, now: io::Result<usize>| {
            // Linux returns twice the value that was set (socket(7)).
            wanted.filter(|&bytes| now.is_ok_and(|now| bytes > now / 2))
        };
        let larger = Self {
            send_buffer_bytes: larger(self.send_buffer_bytes, socket.send_buffer_size()),
            receive_buffer_bytes: larger(self.receive_buffer_bytes, socket.recv_buffer_size()),
            ..self
        };
        larger.set_buffers(socket)
    }

    /// Whether a listener has every option that its connections are to inherit. One that another program made may not.
    pub(super) fn are_set(self, socket: &SockRef<'_>) -> bool {
        self.has_tcp(socket) && self.has_buffers(socket) && is_clean(socket)
    }

    fn has_buffers(self, socket: &SockRef<'_>) -> bool {
        let has = |wanted: Option<usize>, now: io::Result<usize>| {
            wanted.is_none_or(|bytes| now.is_ok_and(|now| now <= 2 * bytes.max(SMALLEST_BUFFER)))
        };
        has(self.send_buffer_bytes, socket.send_buffer_size())
            && has(self.receive_buffer_bytes, socket.recv_buffer_size())
    }

    /// Sets on a connection the options that it has not inherited from a listener of another program, and clears those that
    /// it should not have inherited. Returns how many could not be set.
    pub(super) fn set_inherited(self, socket: &SockRef<'_>) -> u32 {
        #[cfg(target_os = "linux")]
        let cork = socket.set_tcp_cork(false);
        #[cfg(not(target_os = "linux"))]
        let cork = Ok(());
        self.set_tcp(socket)
            + self.set_buffers(socket)
            + failed("SO_LINGER off", socket.set_linger(None))
            + failed("TCP_CORK off", cork)
    }

    fn has_tcp(self, socket: &SockRef<'_>) -> bool {
        let probes_after = || match socket.keepalive() {
            Ok(true) => socket.tcp_keepalive_time().ok(),
            _ => None,
        };
        #[cfg(target_os = "linux")]
        if self.user_timeout.is_some() && socket.tcp_user_timeout().ok() != Some(self.user_timeout)
        {
            return false;
        }
        matches!(socket.tcp_nodelay(), Ok(true))
            && (self.keepalive.is_none() || self.keepalive == probes_after())
    }

    /// Sets the kernel's buffers, and returns how many could not be set.
    pub(super) fn set_buffers(self, socket: &SockRef<'_>) -> u32 {
        let send = self
            .send_buffer_bytes
            .map(|bytes| socket.set_send_buffer_size(bytes));
        let receive = self
            .receive_buffer_bytes
            .map(|bytes| socket.set_recv_buffer_size(bytes));
        failed("SO_SNDBUF", send.unwrap_or(Ok(()))) + failed("SO_RCVBUF", receive.unwrap_or(Ok(())))
    }
}

/// The smallest size that the kernel may give a buffer, whatever is asked for (socket(7): the minimum of SO_SNDBUF is 2048,
/// doubled; that of SO_RCVBUF is 256, doubled).
const SMALLEST_BUFFER: usize = 2_304;

/// Whether a listener has none of the options that connections inherit and that would delay or lose echoes: with SO_LINGER
/// close(2) blocks the loop or resets the connection, with TCP_CORK the end of each echo waits for 200 ms.
fn is_clean(socket: &SockRef<'_>) -> bool {
    #[cfg(target_os = "linux")]
    if !matches!(socket.tcp_cork(), Ok(false)) {
        return false;
    }
    matches!(socket.linger(), Ok(None))
}

/// Returns 1 and logs the error if an option could not be set, 0 otherwise.
pub(super) fn failed(option: &str, result: io::Result<()>) -> u32 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            log::debug!("a socket is served without {option}: {error}");
            1
        }
    }
}

/// Whether an error of an IPv6 socket means that there is no IPv6: EAFNOSUPPORT where the kernel has none, EADDRNOTAVAIL
/// where it is switched off (`net.ipv6.conf.all.disable_ipv6`, the default of containers).
fn is_without_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.kind() == io::ErrorKind::Unsupported
        || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

/// Resolves every address, binds all endpoints, and listens.
///
/// Resolving a name can block for long ([`Address::resolve`]); [`bind_resolved`] takes the result of a resolver with a
/// deadline instead.
///
/// # Errors
/// The first step that failed; then nothing stays bound.
pub fn bind_all(
    addresses: &[Address],
    options: &BindOptions,
) -> Result<Vec<BoundSocket>, BindError> {
    let resolved: Vec<Resolved> = addresses
        .iter()
        .map(|address| match address.resolve() {
            Ok(endpoints) => Ok(Resolved {
                address: address.clone(),
                endpoints,
            }),
            Err(error) => Err(BindError::Resolve(address.clone(), error)),
        })
        .collect::<Result<_, _>>()?;
    bind_resolved(&resolved, options)
}

/// Binds all endpoints of every resolved address, and listens.
///
/// A name may have an IPv6 address on a machine without IPv6, as `localhost` has in /etc/hosts of most containers. That
/// endpoint is left out with a warning if another one of the same name can be bound. An address that was written as a
/// number is bound, or is an error.
///
/// # Errors
/// The first step that failed; then nothing stays bound.
pub fn bind_resolved(
    addresses: &[Resolved],
    options: &BindOptions,
) -> Result<Vec<BoundSocket>, BindError> {
    let mut bound: Vec<(&Address, BoundSocket)> = Vec::new();
    for Resolved { address, endpoints } in addresses {
        let mut missing = None;
        let bound_before = bound.len();
        for endpoint in endpoints {
            let is_ipv6 = endpoint.socket_addr().is_some_and(|ip| ip.is_ipv6());
            match BoundSocket::new(endpoint, options) {
                Ok(socket) => bound.push((address, socket)),
                Err(error) if is_ipv6 && address.needs_resolver() && is_without_ipv6(&error) => {
                    missing = missing.or(Some((endpoint.clone(), error)));
                }
                Err(error) => return Err(explain(address, endpoint, error, &bound)),
            }
        }
        match missing {
            Some((endpoint, error)) if bound.len() == bound_before => {
                return Err(BindError::Bind(endpoint, error));
            }
            Some((endpoint, error)) => {
                log::warn!("{address}: {endpoint} is left out: {error}; this machine has no IPv6");
            }
            None => {}
        }
    }
    if bound.is_empty() {
        return Err(BindError::NoAddress);
    }
    Ok(bound.into_iter().map(|(_, socket)| socket).collect())
}

/// Makes the error of a bind. An address in use may be in use by a socket of the same call, which no list of other
/// processes would show.
fn explain(
    address: &Address,
    endpoint: &Endpoint,
    error: io::Error,
    bound: &[(&Address, BoundSocket)],
) -> BindError {
    let is_in_use = error.kind() == io::ErrorKind::AddrInUse;
    let own = bound.iter().find(|(_, own)| own.occupies(endpoint));
    match own {
        Some((earlier, own)) if is_in_use => BindError::Twice {
            address: address.clone(),
            earlier: (*earlier).clone(),
            endpoint: own.endpoint.clone(),
        },
        _ => BindError::Bind(endpoint.clone(), error),
    }
}

impl BoundSocket {
    /// The address that this socket is bound to, with the port that the system chose.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether this socket prevents binding `other`.
    fn occupies(&self, other: &Endpoint) -> bool {
        match (&self.endpoint, other) {
            (Endpoint::Tcp(own), Endpoint::Tcp(other))
            | (Endpoint::Udp(own), Endpoint::Udp(other)) => {
                let is_wide = own.ip().is_unspecified() || other.ip().is_unspecified();
                own.port() == other.port() && (is_wide || own.ip() == other.ip())
            }
            // Two spellings of a path (`/tmp/s`, `/tmp/./s`) lead to one file. Streams and datagrams share the names.
            (
                _,
                Endpoint::Unix(UnixName::Path(path)) | Endpoint::UnixDatagram(UnixName::Path(path)),
            ) => self.file.as_ref().is_some_and(|file| file.is_at(path)),
            (own, other) => own == other,
        }
    }
}

/// The socket's descriptor, to set options that [`BindOptions`] does not have.
impl AsFd for BoundSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A port of 127.0.0.1 that no socket of this type uses now, for a server that is started next.
///
/// It is none of those that the kernel assigns (ip_local_port_range of ip(7)), if there are others from [`PORTS_FROM`] on: an
/// assigned one may be a client's before the server has bound it. Another program may still bind it first; then that
/// server reports it.
///
/// # Errors
/// Those of socket(2) and bind(2).
#[cfg(any(feature = "check", all(feature = "bench", feature = "cli")))]
pub(crate) fn free_port(kind: Type) -> io::Result<u16> {
    const TRIES: usize = 100;
    let bind = |port: u16| {
        let socket = Socket::new(Domain::IPV4, kind, None)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
        let address = socket.local_addr()?.as_socket();
        address.map_or(Err(io::ErrorKind::Unsupported.into()), |own| Ok(own.port()))
    };
    let (assigned_from, _) = port_range();
    let count = u64::from(assigned_from.saturating_sub(PORTS_FROM));
    let offset = || unpredictable().checked_rem(count);
    let ports = (0..TRIES).filter_map(|_| Some(PORTS_FROM + offset()? as u16));
    let found = ports.map(bind).find_map(Result::ok);
    found.map_or_else(|| bind(0), Ok)
}

/// The first port for a server that is started next: few services have one from here on.
#[cfg(any(feature = "check", all(feature = "bench", feature = "cli")))]
const PORTS_FROM: u16 = 10_000;

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
