//! stub
use crate::limits::{LimitError, Limits};
use crate::net::{Address, Endpoint};
use crate::stats::Stats;
use std::fmt;
use std::io;
use std::time::Duration;

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// The bounds that it keeps.
    pub limits: Limits,
    /// Whether IPv6 listeners refuse IPv4 clients (default: they serve both).
    pub ipv6_only: bool,
    /// Permission bits of Unix socket files (default 0o600).
    pub unix_mode: u32,
}
impl Default for Config {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            ipv6_only: false,
            unix_mode: 0o600,
        }
    }
}
impl From<Limits> for Config {
    fn from(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }
}

/// Why a server could not start.
#[derive(Debug)]
pub enum StartError {
    /// A limit is out of range.
    Limit(LimitError),
    /// No address was given
    NoAddress,
    /// A name could not be resolved.
    Resolve(Address, io::Error),
    /// An address could not be bound.
    Bind(Endpoint, io::Error),
    /// The event queue could not be made.
    Reactor(io::Error),
}
impl fmt::Display for StartError {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}
impl std::error::Error for StartError {}

/// What a turn of the loop ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There will be more.
    Serving,
    /// A foreign source (see [`Server::watch`]) or a handle woke the loop: look after it, then turn again.
    Woken,
    /// Drained: nothing is left.
    Finished,
}

/// The server.
#[derive(Debug)]
pub struct Server;
impl Server {
    /// Binds every address.
    pub fn bind(_addresses: &[Address], _config: impl Into<Config>) -> Result<Self, StartError> {
        todo!()
    }
    /// The bound endpoints (port 0 replaced by the real one), in the order in which they were named.
    pub fn addresses(&self) -> Vec<Endpoint> {
        todo!()
    }
    /// Registers a foreign event source (signals): its events end the wait, and `turn` returns `Woken`.
    pub fn watch(&mut self, _source: &mut dyn mio::event::Source) -> io::Result<()> {
        todo!()
    }
    /// One turn.
    pub fn turn(&mut self, _wait: Option<Duration>) -> io::Result<Turn> {
        todo!()
    }
    /// Turns until finished.
    pub fn run(&mut self) -> io::Result<()> {
        todo!()
    }
    /// Starts draining: listeners close, what is owed is paid, everything ends by the drain timeout. Idempotent.
    pub fn drain(&mut self) {
        todo!()
    }
    /// Ends at once: whatever is live is cut and counted as such.
    pub fn stop(&mut self) {
        todo!()
    }
    /// The ledger.
    pub fn stats(&self) -> &Stats {
        todo!()
    }
    /// A handle that another thread can drain or stop the server with.
    pub fn handle(&self) -> Handle {
        todo!()
    }
}
/// Stops a server from another thread.
#[derive(Clone, Debug)]
pub struct Handle;
impl Handle {
    /// See [`Server::drain`].
    pub fn drain(&self) {
        todo!()
    }
    /// See [`Server::stop`].
    pub fn stop(&self) {
        todo!()
    }
}
