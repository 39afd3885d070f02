//! How a server on the real sockets begins, and how it is reached from outside: everything that only the
//! [`Os`](super::Os) has.

use super::Server;
use super::admission::AccessList;
use super::backend::Socket;
use crate::limits::{LimitError, Limits};
use crate::net::{
    Address, BindError, BindOptions, BoundSocket, DatagramSocket, Endpoint, FileIdentity,
    ListenerSocket, Peer, SocketFile, UnixName, bind_all,
};
use crate::reactor::{Epoll, ExternalSource, Waker};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// How a server is set up. [`Limits`] alone will do where one is asked for.
#[derive(Clone, Debug)]
pub struct Config {
    /// The bounds that it keeps.
    pub limits: Limits,
    /// Whether IPv6 listeners refuse IPv4 clients (default: they serve both).
    pub ipv6_only: bool,
    /// Permission bits of Unix socket files (default 0o600: only the same user may connect).
    pub unix_mode: u32,
    /// Which networks may connect, or have datagrams answered (default: all).
    pub access: AccessList,
    /// Whether [`Limits::connections_max`] is lowered to what this process has descriptors for when the server starts
    /// ([`Limits::fit_process`]; default: yes), so that a program that the server is embedded in can still open files.
    /// Several servers in one process each count on what is free then: give each its part of `connections_max`.
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
            fit_descriptors: true,
        }
    }
}

impl Config {
    /// The part of it that concerns binding.
    #[must_use]
    pub fn bind_options(&self) -> BindOptions {
        BindOptions {
            backlog: self.limits.backlog,
            ipv6_only: self.ipv6_only,
            unix_mode: self.unix_mode,
            send_buffer_bytes: self.limits.send_buffer_bytes,
            receive_buffer_bytes: self.limits.receive_buffer_bytes,
            keepalive: self.limits.keepalive,
            user_timeout: self.limits.user_timeout,
        }
    }
}

/// Why a server could not start. Nothing is left behind then: no listener, no file.
#[derive(Debug)]
pub enum StartError {
    /// A limit is out of range.
    Limit(LimitError),
    /// There was nothing to bind, or it could not be bound.
    Bind(BindError),
    /// The event queue could not be made.
    Reactor(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit(error) => write!(f, "{error}"),
            Self::Bind(error) => write!(f, "{error}"),
            Self::Reactor(error) => write!(f, "cannot make an event queue: {error}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // Their own texts are part of ours.
            Self::Limit(error) => error.source(),
            Self::Bind(error) => error.source(),
            Self::Reactor(error) => error.source(),
        }
    }
}

impl Server {
    /// Binds every address, each name with all the addresses behind it, and listens.
    ///
    /// # Errors
    /// The first thing that did not work; then nothing is bound.
    pub fn bind(addresses: &[Address], config: impl Into<Config>) -> Result<Self, StartError> {
        let config = config.into();
        config.limits.check().map_err(StartError::Limit)?;
        let bound = bind_all(addresses, &config.bind_options()).map_err(StartError::Bind)?;
        Self::with_sockets(bound, config)
    }

    /// A server on sockets that are bound already: [`BoundSocket::from_fd`] takes over those that somebody else has made. Of the
    /// configuration, the limits count; what concerns binding has been decided.
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
    /// A limit is out of range, there is no socket, or one cannot be watched; then all of them are closed.
    pub fn with_sockets(
        bound: Vec<BoundSocket>,
        config: impl Into<Config>,
    ) -> Result<Self, StartError> {
        let mut config = config.into();
        config.limits.check().map_err(StartError::Limit)?;
        if bound.is_empty() {
            return Err(StartError::Bind(BindError::NoAddress));
        }
        let options = config.bind_options();
        let epoll = Epoll::new().map_err(StartError::Reactor)?;
        // Now that everything of ours is open that is no connection.
        if config.fit_descriptors && config.limits.fit_process() {
            log::info!(
                "this process has descriptors for {} connections, {} kept in reserve",
                config.limits.connections_max,
                config.limits.descriptors_reserved
            );
        }
        let mut server = Self::new(epoll, config.limits, Control::default(), udp_ports(&bound));
        server.udp_filter.access = config.access.clone();
        server.udp_filter.own_names = unix_names(&bound);
        server.admission.access = config.access;
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
        self.stats.option_errors += u64::from(option_errors);
        let source = match &endpoint {
            Endpoint::Tcp(_) | Endpoint::Unix(_) => {
                Socket::Listener(Box::new(ListenerSocket::new(socket, &endpoint, options)?))
            }
            Endpoint::Udp(_) | Endpoint::UnixDatagram(_) => {
                Socket::Datagrams(Box::new(DatagramSocket::new(socket, &endpoint)?))
            }
        };
        self.add_listener(source)?;
        self.endpoints.push(endpoint);
        self.files.extend(file);
        Ok(())
    }

    /// A copy of each listening and datagram socket, with its address, for whoever is to take over. The queue behind a
    /// copy is the same: whichever side accepts first has the connection, and no datagram is read twice.
    ///
    /// # Errors
    /// Those of fcntl(2), `F_DUPFD_CLOEXEC`: usually that there are no descriptors left.
    pub fn try_clone_listeners(&mut self) -> io::Result<Vec<(OwnedFd, Endpoint)>> {
        let mut copies = Vec::new();
        for (&key, endpoint) in self.listeners.iter().zip(&self.endpoints) {
            let copy = match self.reactor.get_mut(key) {
                Some(Socket::Listener(listener)) => listener.share()?,
                Some(Socket::Datagrams(socket)) => socket.share()?,
                _ => continue,
            };
            copies.push((copy, endpoint.clone()));
        }
        Ok(copies)
    }

    /// Which files this server will remove in the end.
    pub fn files(&self) -> impl Iterator<Item = FileIdentity> {
        self.files.iter().map(SocketFile::identity)
    }

    /// Removes this file too in the end: for the one who takes over from a server that has left it.
    pub fn adopt_socket_file(&mut self, file: SocketFile) {
        self.files.push(file);
    }

    /// A handle that stops this server from another thread.
    pub fn handle(&self) -> Handle {
        Handle {
            control: self.control.clone(),
            waker: self.reactor.waker(),
        }
    }

    /// Watches a foreign event source, signals for example: when it becomes readable, the wait ends, and
    /// [`Server::turn`] returns [`Turn::Woken`](super::Turn::Woken).
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn watch(&self, source: &mut dyn ExternalSource) -> io::Result<()> {
        self.reactor.watch(source)
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

/// The names of the Unix datagram sockets as the kernel has them, which are not those under which they are found: they are
/// bound before their file gets its path.
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

/// The server's event queue, for an outer event loop. From the first time that it is taken it is kept readable whenever
/// a turn is due: see [the page of the crate](crate#in-another-event-loop).
impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reactor.as_fd()
    }
}

impl AsRawFd for Server {
    fn as_raw_fd(&self) -> RawFd {
        self.reactor.as_raw_fd()
    }
}

/// Stops a server from another thread. It may outlive the server, and does nothing then.
#[derive(Clone, Debug)]
pub struct Handle {
    control: Control,
    waker: Waker,
}

impl Handle {
    /// As [`Server::drain`].
    pub fn drain(&self) {
        self.command(Command::Drain);
    }

    /// As [`Server::stop`].
    pub fn stop(&self) {
        self.command(Command::Stop);
    }

    fn command(&self, command: Command) {
        self.control.request(command);
        if let Err(error) = self.waker.wake() {
            log::error!("cannot wake the server: {error}");
        }
    }
}

/// What another thread wants of the server. The gravest order stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Control(Arc<AtomicU8>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    None,
    Drain,
    Stop,
}

impl Control {
    fn request(&self, command: Command) {
        self.0.fetch_max(command as u8, Ordering::Release);
    }

    /// Whether there is one. The waker's event may stand behind those of thousands who are ready; this does not.
    #[inline]
    pub(super) fn is_pending(&self) -> bool {
        self.0.load(Ordering::Relaxed) != Command::None as u8
    }

    pub(super) fn take(&self) -> Command {
        match self.0.swap(Command::None as u8, Ordering::Acquire) {
            0 => Command::None,
            1 => Command::Drain,
            _ => Command::Stop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::echo::Turn;
    use std::io::Write;
    use std::net::TcpStream;

    /// More are ready than the kernel speaks of at once, and the waker's event stands behind them.
    #[test]
    fn s2_an_order_is_followed_before_those_who_are_ready() {
        const CLIENTS: u64 = 300;
        let mut server =
            Server::bind(&["127.0.0.1:0".parse().unwrap()], Limits::default()).unwrap();
        let Endpoint::Tcp(address) = server.addresses()[0] else {
            panic!("TCP was asked for");
        };
        let connect = |_| TcpStream::connect(address).unwrap();
        let mut clients: Vec<TcpStream> = (0..CLIENTS).map(connect).collect();
        while server.stats().connections_open < CLIENTS {
            let _ = server.turn(None).unwrap();
        }
        for client in &mut clients {
            client.write_all(b"ready").unwrap();
        }
        server.handle().drain();
        assert_eq!(server.turn(None).unwrap(), Turn::Woken);
        assert_eq!(
            server.stats().bytes_out,
            0,
            "they have their turn after that"
        );
        assert!(TcpStream::connect(address).is_err(), "nobody new");
        while server.stats().bytes_out < 5 * CLIENTS {
            let _ = server.turn(None).unwrap();
        }
    }
}
