//! Setting up a server: its configuration, and the sockets that it begins with.

use super::accept::Acceptor;
use super::admission::AccessList;
use super::answers::Responder;
use super::backend::{Backend, Native, Socket};
use super::core::Core;
use super::datagram::DatagramEcho;
use super::handle::Control;
use super::parts::Server;
use super::proxied::ProxyProtocol;
use super::shutdown::Shutdown;
use super::udp_filter::UdpFilter;
use crate::limits::{LimitError, Limits};
use crate::net::{
    Address, AddressError, BindError, BindOptions, BoundSocket, DatagramSocket, Endpoint,
    ListenerSocket, Peer, UnixName, bind_all,
};
use crate::reactor::Epoll;
use std::fmt;
use std::io;
use std::sync::Arc;

/// The configuration of a server. Where one is asked for, [`Limits`] alone will do.
/// As of [`Limits`], more fields will come: begin with a default, and change fields by name or by [`Config::with`].
///
/// ```
/// use echo_reactor::{Limits, echo::Config};
///
/// let config = Config::from(Limits::hardened()).with(|config| config.ipv6_only = true);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Every bound of the server.
    pub limits: Limits,
    /// Whether IPv6 listeners refuse IPv4 clients (default: they serve both).
    pub ipv6_only: bool,
    /// Permission bits of Unix socket files (default 0o600: only the same user may connect).
    pub unix_mode: u32,
    /// The networks whose connections are accepted and whose datagrams are answered (default: all).
    pub access: AccessList,
    /// Which peers are proxies, whose connections begin with a header that declares the client (default: none). Datagrams
    /// have no such header, and are answered as without it.
    pub proxy: Option<ProxyProtocol>,
    /// What makes answers to requests, in place of echoes (`serve --reply identity`).
    pub(crate) responder: Option<Arc<dyn Responder>>,
    /// Whether [`Limits::connections_max`] is lowered at the start to the number of descriptors that this process has left
    /// ([`Limits::fit_process`]; default: yes), so that a program that the server is embedded in can still open files.
    /// Several servers in one process each take all that are free for theirs: give each its part of `connections_max`.
    pub fit_descriptors: bool,
}

impl Default for Config {
    fn default() -> Self {
        Limits::default().into()
    }
}

impl From<Limits> for Config {
    fn from(limits: Limits) -> Self {
        Self {
            limits,
            ipv6_only: false,
            unix_mode: 0o600,
            access: AccessList::default(),
            proxy: None,
            responder: None,
            fit_descriptors: true,
        }
    }
}

impl Config {
    /// This configuration, changed by `change`.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The options for [`bind_all`].
    #[must_use]
    pub fn bind_options(&self) -> BindOptions {
        BindOptions {
            ipv6_only: self.ipv6_only,
            unix_mode: self.unix_mode,
            ..BindOptions::from(&self.limits)
        }
    }
}

/// The reason why a server could not start. Nothing is left behind then: no listener, no file.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// A text is not an address.
    Address(AddressError),
    /// A limit is out of range.
    Limit(LimitError),
    /// There was no address, or one could not be bound.
    Bind(BindError),
    /// The epoll instance could not be made.
    Reactor(io::Error),
}

impl StartError {
    /// The limit that is out of range, if that is the reason.
    #[must_use]
    pub fn limit(&self) -> Option<&LimitError> {
        match self {
            Self::Limit(error) => Some(error),
            _ => None,
        }
    }

    /// The address that could not be resolved or bound, if that is the reason.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        match self {
            Self::Bind(error) => error.address(),
            _ => None,
        }
    }

    /// The error of the resolver or of the system call, if one failed.
    #[must_use]
    pub fn io_error(&self) -> Option<&io::Error> {
        match self {
            Self::Bind(error) => error.io_error(),
            Self::Reactor(error) => Some(error),
            Self::Address(_) | Self::Limit(_) => None,
        }
    }

    /// The kind of [`io_error`](Self::io_error); `InvalidInput` for an address or a limit that cannot be.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Bind(error) => error.kind(),
            Self::Reactor(error) => error.kind(),
            Self::Address(_) | Self::Limit(_) => io::ErrorKind::InvalidInput,
        }
    }
}

/// For programs whose own functions return [`io::Result`]: the kind and the text stay.
impl From<StartError> for io::Error {
    fn from(error: StartError) -> Self {
        Self::new(error.kind(), error)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(error) => write!(f, "{error}"),
            Self::Limit(error) => write!(f, "{error}"),
            Self::Bind(error) => write!(f, "{error}"),
            Self::Reactor(error) => write!(f, "cannot make an epoll instance: {error}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // The texts of these errors are part of this one's.
            Self::Address(error) => error.source(),
            Self::Limit(error) => error.source(),
            Self::Bind(error) => error.source(),
            Self::Reactor(error) => error.source(),
        }
    }
}

impl<B: Backend> Server<B> {
    /// A server without a listener. `own_ports` are the UDP ports that it will be bound to: its datagram echo must not answer
    /// itself.
    pub(crate) fn new(
        selector: B::Selector,
        limits: Limits,
        control: Control,
        own_ports: Vec<u16>,
    ) -> Self {
        let acceptor = Acceptor::new(&limits);
        let core = Core::new(selector, limits);
        let filter = UdpFilter::new(&core.limits, own_ports, core.reactor.now());
        Self {
            acceptor,
            datagrams: DatagramEcho::new(filter),
            shutdown: Shutdown::new(),
            control,
            core,
        }
    }

    /// Changes the lists of networks, for connections and datagrams.
    pub(crate) fn set_access(&mut self, access: AccessList) {
        self.datagrams.filter.access = access.clone();
        self.acceptor.admission.access = access;
    }

    /// Changes which peers are proxies, for connections that are accepted from now on.
    pub(crate) fn set_proxy_protocol(&mut self, protocol: Option<ProxyProtocol>) {
        self.acceptor.proxies.protocol = protocol;
    }

    /// Changes what makes answers in place of echoes, before the first client.
    pub(crate) fn set_responder(&mut self, responder: Option<Arc<dyn Responder>>) {
        self.datagrams.responder = responder.clone();
        self.acceptor.answers.responder = responder;
    }

    /// Adds a listener or a datagram socket.
    pub(crate) fn add_listener(&mut self, socket: Socket<B>) -> io::Result<()> {
        if matches!(socket, Socket::Datagrams(_)) {
            self.datagrams.allocate_buffer();
        }
        self.acceptor.listeners.add(&mut self.core, socket)
    }
}

impl Server {
    /// Makes a server that is bound to every address. A host name is bound with all of its addresses.
    ///
    /// An address is an [`Address`], a text that is one, a [`SocketAddr`](std::net::SocketAddr) (TCP), or an [`Endpoint`]. Names
    /// are resolved here, which can take long: see [`Address::resolve`].
    ///
    /// ```
    /// use echo_reactor::{Limits, echo::Server, net::Address};
    ///
    /// let server = Server::bind(["127.0.0.1:0", "udp://[::1]:0"], Limits::default())?;
    /// let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    /// let server = Server::bind([Address::tcp(address), Address::udp(address)], Limits::hardened())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The first failure; nothing is bound then.
    pub fn bind<A>(
        addresses: impl IntoIterator<Item = A>,
        config: impl Into<Config>,
    ) -> Result<Self, StartError>
    where
        A: TryInto<Address>,
        A::Error: Into<AddressError>,
    {
        let addresses = Address::convert_all(addresses).map_err(StartError::Address)?;
        let config = config.into();
        config.limits.check().map_err(StartError::Limit)?;
        let bound = bind_all(&addresses, &config.bind_options()).map_err(StartError::Bind)?;
        Self::with_sockets(bound, config)
    }

    /// Makes a server on sockets that are bound already. [`BoundSocket::from_fd`] takes over sockets that were made outside of
    /// this library. What the configuration says about binding has no effect.
    ///
    /// ```
    /// use echo_reactor::{Limits, echo::Server, net::BoundSocket};
    ///
    /// let mine = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let server = Server::with_sockets(vec![BoundSocket::from_fd(mine)?], Limits::default())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A limit is out of range, there is no socket, or one cannot be registered; all of them are closed then.
    pub fn with_sockets(
        bound: Vec<BoundSocket>,
        config: impl Into<Config>,
    ) -> Result<Self, StartError> {
        Self::with_selector(Epoll::new, bound, config)
    }
}

impl<B: Native> Server<B> {
    /// Makes a server as [`Server::with_sockets`], whose backend may hold the sockets inside other types.
    pub(crate) fn with_selector(
        selector: impl FnOnce() -> io::Result<B::Selector>,
        bound: Vec<BoundSocket>,
        config: impl Into<Config>,
    ) -> Result<Self, StartError> {
        let mut config = config.into();
        config.limits.check().map_err(StartError::Limit)?;
        if bound.is_empty() {
            return Err(StartError::Bind(BindError::NoAddress));
        }
        let options = config.bind_options();
        let selector = selector().map_err(StartError::Reactor)?;
        // Counted now, when every descriptor is open that is not a connection's.
        if config.fit_descriptors && config.limits.fit_process() {
            log::info!(
                "this process has descriptors for {} connections, {} kept in reserve",
                config.limits.connections_max,
                config.limits.descriptors_reserved
            );
        }
        let mut server = Self::new(
            selector,
            config.limits,
            Control::default(),
            udp_ports(&bound),
        );
        server.datagrams.filter.own_names = unix_names(&bound);
        server.set_access(config.access);
        server.set_proxy_protocol(config.proxy);
        server.set_responder(config.responder);
        for socket in bound {
            let endpoint = socket.endpoint.clone();
            server
                .open(socket, &options)
                .map_err(|error| StartError::Bind(BindError::Bind(endpoint, error)))?;
        }
        Ok(server)
    }

    fn open(&mut self, bound: BoundSocket, options: &BindOptions) -> io::Result<()> {
        let BoundSocket {
            socket,
            endpoint,
            file,
            option_errors,
        } = bound;
        self.core.stats.option_errors += u64::from(option_errors);
        let selector = self.core.reactor.selector();
        let source = match &endpoint {
            Endpoint::Tcp(_) | Endpoint::Unix(_) => {
                let listener = ListenerSocket::new(socket, &endpoint, options)?;
                Socket::Listener(Box::new(B::listener(selector, listener)))
            }
            Endpoint::Udp(_) | Endpoint::UnixDatagram(_) => {
                let datagrams = DatagramSocket::new(socket, &endpoint)?;
                Socket::Datagrams(Box::new(B::datagrams(selector, datagrams)))
            }
        };
        self.add_listener(source)?;
        self.acceptor.listeners.add_endpoint(endpoint);
        self.acceptor.listeners.files.extend(file);
        Ok(())
    }
}

fn udp_ports(bound: &[BoundSocket]) -> Vec<u16> {
    bound
        .iter()
        .filter_map(|bound| match bound.endpoint {
            Endpoint::Udp(address) => Some(address.port()),
            _ => None,
        })
        .collect()
}

/// The names of the Unix datagram sockets as the kernel has them. They are not the paths of the socket files: a socket is
/// bound before its file is moved to its path.
fn unix_names(bound: &[BoundSocket]) -> Vec<UnixName> {
    let datagrams = bound
        .iter()
        .filter(|bound| matches!(bound.endpoint, Endpoint::UnixDatagram(_)));
    let names = datagrams.filter_map(|bound| match Peer::from(&bound.socket.local_addr().ok()?) {
        Peer::Unix(name) => Some(name),
        _ => None,
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;

    #[test]
    fn a_configuration_reaches_the_sockets() {
        let config = Config::default().with(|config| {
            config.ipv6_only = true;
            config.unix_mode = 0o666;
            config.limits.backlog = 7;
        });
        let options = config.bind_options();
        assert_eq!(
            (options.ipv6_only, options.unix_mode, options.backlog),
            (true, 0o666, 7)
        );
    }

    #[test]
    fn a_start_error_tells_the_limit_the_address_and_the_error_of_the_system() {
        let start = |address: &str, limits: Limits| Server::bind([address], limits).unwrap_err();
        let parse = start("no address", Limits::default());
        let limit = start(
            "127.0.0.1:0",
            Limits::default().with(|limits| limits.read_buffer_bytes = 0),
        );
        let bind = start("192.0.2.1:7", Limits::default());
        let reactor = StartError::Reactor(io::ErrorKind::OutOfMemory.into());
        let found = |error: &StartError| {
            let limit = error.limit().map(LimitError::limit);
            (
                limit,
                error.address(),
                error.io_error().map(io::Error::kind),
            )
        };
        assert_eq!(found(&parse), (None, None, None));
        assert_eq!(found(&limit), (Some("read_buffer_bytes"), None, None));
        let (address, missing) = (
            "tcp://192.0.2.1:7".parse().unwrap(),
            io::ErrorKind::AddrNotAvailable,
        );
        assert_eq!(found(&bind), (None, Some(address), Some(missing)));
        assert_eq!(
            found(&reactor),
            (None, None, Some(io::ErrorKind::OutOfMemory))
        );
        let kinds = [parse, limit, bind, reactor].map(|error| io::Error::from(error).kind());
        let input = io::ErrorKind::InvalidInput;
        assert_eq!(kinds, [input, input, missing, io::ErrorKind::OutOfMemory]);
    }

    /// The text of the error within is part of this one, so the source is what lies below that.
    #[test]
    fn the_source_of_a_start_error_is_the_cause_below() {
        let not_utf8 = std::ffi::CString::new([0xff]).unwrap().into_string();
        let error = StartError::Reactor(io::Error::other(not_utf8.unwrap_err()));
        let source = error.source().expect("there is a cause");
        assert!(source.is::<std::str::Utf8Error>(), "{source}");
    }

    #[test]
    fn options_that_a_bound_socket_lacks_are_counted() {
        let options = BindOptions {
            keepalive: Some(std::time::Duration::from_secs(40_000)), // more than the kernel allows
            ..BindOptions::default()
        };
        let any = ["127.0.0.1:0"; 2].map(|address| address.parse().unwrap());
        let bound = bind_all(&any, &options).unwrap();
        let server = Server::with_sockets(bound, Limits::default()).unwrap();
        assert_eq!(server.stats().option_errors, 2);
    }
}
