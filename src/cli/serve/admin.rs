//! `serve --admin`: health and metrics over HTTP, beside the service and on the same loop.
//!
//! ```text
//! /livez     200 for as long as the loop turns
//! /readyz    200, and 503 from the signal to stop on
//! /metrics   the counters, for Prometheus
//! ```
//!
//! Each connection serves one request. Its sockets are external sources of the reactor: when one of them is ready the turn
//! ends, all of them are tried, and the echo has the next turn. So there is no second epoll instance, and no state of
//! readiness for each; with at most [`CONNECTIONS_MAX`] of them an unneeded read costs less than both.
//!
//! **The echo is not harmed**, whatever comes in here. There are bounds for the connections ([`CONNECTIONS_MAX`]; a new one
//! takes the place of the oldest, so that slow clients cannot keep a health check out), their time ([`TIME_MAX`]), the bytes
//! of a request ([`REQUEST_MAX`]) and those that follow it ([`DISCARD_MAX`]), and the work
//! ([`READS_MAX`], [`ACCEPTS_MAX`], [`PASS_INTERVAL`]). Descriptors are reserved at the start. A response always fits into the send buffer of
//! its socket, which is empty, so that nothing is ever left to write.
//!
//! What may live in this file: sockets and their bounds. Requests and responses are in [`http`], the text of the metrics in
//! [`metrics`].

mod http;
mod metrics;

use super::errors;
use crate::cli::error::CliError;
use crate::echo::{Config, Native, Server, StartError};
use crate::net::{
    BindOptions, BoundSocket, Endpoint, Listener, ListenerSocket, Resolved, SocketFile, Stream,
    StreamSocket, bind_resolved,
};
use crate::reactor::ExternalFd;
use http::{Parsed, Response};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

pub(in crate::cli) use http::AdminUrl;

/// Connections open at once.
pub(super) const CONNECTIONS_MAX: usize = 8;
/// Time of a connection, from accept to close.
const TIME_MAX: Duration = Duration::from_secs(5);
/// Part of it after the response: time for the peer's FIN.
const FIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of a request, with all of its headers.
const REQUEST_MAX: usize = 4096;
/// Bytes that are read and discarded behind a request: closing with unread bytes would reset the connection, and destroy
/// the response.
const DISCARD_MAX: usize = 64 * 1024;
/// Reads of one connection in a pass.
const READS_MAX: usize = 4;
/// Connections accepted in a pass.
const ACCEPTS_MAX: usize = CONNECTIONS_MAX;
/// Time between two passes over all sockets, of some forty system calls at most.
const PASS_INTERVAL: Duration = Duration::from_millis(1);
/// Pause after accept(2) has failed, for lack of memory for example.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// SO_SNDBUF of a connection, far more than a response has.
const SEND_BUFFER: usize = 64 * 1024;
/// SO_RCVBUF of a connection.
const RECEIVE_BUFFER: usize = 8 * 1024;

/// The listeners and connections of `--admin`.
#[derive(Debug)]
pub(super) struct Admin {
    /// Dropped first, as in [`BoundSocket`]: a file whose socket is closed looks like that of a dead server.
    _files: Vec<SocketFile>,
    listeners: Vec<ListenerSocket>,
    endpoints: Vec<Endpoint>,
    /// The oldest one first.
    connections: VecDeque<Connection>,
    /// When accepting is tried again after an error.
    accept_at: Option<Instant>,
    /// Whether a socket may be ready.
    is_due: bool,
    /// The earliest time of the next pass over all sockets.
    pass_at: Instant,
}

impl Admin {
    /// Binds the address.
    pub(super) fn bind(address: Resolved, config: &Config) -> Result<Self, CliError> {
        let options = BindOptions {
            send_buffer_bytes: Some(SEND_BUFFER),
            receive_buffer_bytes: Some(RECEIVE_BUFFER),
            ..config.bind_options()
        };
        let sockets = bind_resolved(&[address], &options)
            .map_err(|error| errors::start_error(&StartError::Bind(error)))?;
        let mut admin = Self {
            _files: Vec::new(),
            listeners: Vec::new(),
            endpoints: Vec::new(),
            connections: VecDeque::new(),
            accept_at: None,
            is_due: true,
            pass_at: Instant::now(),
        };
        for bound in sockets {
            let BoundSocket {
                file,
                socket,
                endpoint,
                ..
            } = bound;
            let listener = ListenerSocket::new(socket, &endpoint, &options)
                .map_err(|error| errors::system("no listener for --admin", &error))?;
            admin.listeners.push(listener);
            admin.endpoints.push(endpoint);
            admin._files.extend(file);
        }
        Ok(admin)
    }

    pub(super) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Adds the listeners to the interest list of the server, and says where they are.
    pub(super) fn watch_with(&self, server: &Server<impl Native>) -> Result<(), CliError> {
        for (listener, endpoint) in self.listeners.iter().zip(&self.endpoints) {
            let watched = match listener {
                ListenerSocket::Tcp { socket, .. } => watch(server, socket),
                ListenerSocket::Unix { socket, .. } => watch(server, socket),
            };
            watched.map_err(|error| errors::system("no --admin in the event loop", &error))?;
            log::info!("health and metrics at {}", http::url(endpoint));
        }
        Ok(())
    }

    /// A descriptor has become readable: one of these, or another one.
    pub(super) fn wake(&mut self) {
        self.is_due = true;
    }

    /// Does what is due. Returns the time until there is something to do without an event.
    pub(super) fn serve(
        &mut self,
        server: &Server<impl Native>,
        is_ready: bool,
    ) -> Option<Duration> {
        let next = self.next_pass()?; // nearly always there is none
        let now = Instant::now();
        if next > now {
            return Some(next - now);
        }
        self.pass(server, is_ready, now);
        Some(self.next_pass()?.saturating_duration_since(now))
    }

    fn next_pass(&self) -> Option<Instant> {
        let ends = self.connections.iter().map(|one| one.ends_at);
        let due = self.is_due.then_some(self.pass_at);
        ends.chain(self.accept_at).chain(due).min()
    }

    /// Tries every socket.
    fn pass(&mut self, server: &Server<impl Native>, is_ready: bool, now: Instant) {
        self.is_due = false;
        self.pass_at = now + PASS_INTERVAL;
        if self.accept_at.is_none_or(|at| at <= now) {
            self.accept_at = None;
            self.is_due |= self.accept(server, now);
        }
        for connection in &mut self.connections {
            self.is_due |= connection.advance(server, is_ready, now);
        }
        self.connections.retain(|one| !one.is_over(now));
    }

    /// Accepts what is queued. Returns whether more may be queued: that raises no new edge.
    fn accept(&mut self, server: &Server<impl Native>, now: Instant) -> bool {
        let Self {
            listeners,
            connections,
            accept_at,
            ..
        } = self;
        let mut is_left = false;
        for listener in listeners {
            is_left |= (0..ACCEPTS_MAX).all(|_| match listener.accept() {
                Ok(accepted) => {
                    if connections.len() == CONNECTIONS_MAX {
                        connections.pop_front();
                    }
                    connections.extend(Connection::new(accepted.stream, server, now));
                    true
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => false,
                Err(error) => {
                    log::debug!("--admin: accept failed: {error}");
                    *accept_at = Some(now + ACCEPT_RETRY);
                    false
                }
            });
        }
        is_left
    }
}

/// Adds a socket to the interest list of the server. Closing it ends that.
fn watch(server: &Server<impl Native>, socket: &impl AsFd) -> io::Result<()> {
    let descriptor = socket.as_fd().as_raw_fd();
    server.watch_source(&mut ExternalFd(&descriptor))
}

/// One connection, for one request.
#[derive(Debug)]
struct Connection {
    stream: StreamSocket,
    ends_at: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The request so far.
    Receiving(Vec<u8>),
    /// The response is sent, and this many bytes behind the request may still be discarded.
    Discarding(usize),
    Closed,
}

impl Connection {
    /// `None` if the connection cannot be watched.
    fn new(stream: StreamSocket, server: &Server<impl Native>, now: Instant) -> Option<Self> {
        let watched = match &stream {
            StreamSocket::Tcp(socket) => watch(server, socket),
            StreamSocket::Unix(socket) => watch(server, socket),
        };
        if let Err(error) = watched {
            log::debug!("--admin: a connection cannot be watched: {error}");
            return None;
        }
        Some(Self {
            stream,
            ends_at: now + TIME_MAX,
            state: State::Receiving(Vec::new()),
        })
    }

    fn is_over(&self, now: Instant) -> bool {
        matches!(self.state, State::Closed) || self.ends_at <= now
    }

    /// Reads, and responds once the request is complete. Returns whether more may be there: that raises no new edge.
    fn advance(&mut self, server: &Server<impl Native>, is_ready: bool, now: Instant) -> bool {
        let mut bytes = [0; 1024];
        for _ in 0..READS_MAX {
            let length = match self.stream.read(&mut bytes) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => 0,
            };
            match &mut self.state {
                State::Receiving(request) if length > 0 => {
                    request.extend_from_slice(&bytes[..length]);
                    if let Some(response) = respond(request, server, is_ready) {
                        self.send(&response, now);
                    }
                }
                State::Discarding(left) if length > 0 && length <= *left => *left -= length,
                _ => self.state = State::Closed, // FIN, an error, or too many bytes
            }
            if matches!(self.state, State::Closed) {
                return false;
            }
        }
        true
    }

    /// Sends the response and FIN. What the send buffer does not take at once means that the peer is gone.
    fn send(&mut self, response: &[u8], now: Instant) {
        let is_sent = matches!(self.stream.write(response), Ok(length) if length == response.len());
        if !is_sent || self.stream.shutdown_write().is_err() {
            self.state = State::Closed;
            return;
        }
        self.state = State::Discarding(DISCARD_MAX);
        self.ends_at = self.ends_at.min(now + FIN_TIMEOUT);
    }
}

/// The response, once the request is complete or cannot become valid.
fn respond(request: &[u8], server: &Server<impl Native>, is_ready: bool) -> Option<Vec<u8>> {
    let (response, has_body) = match http::parse(request) {
        Parsed::Partial if request.len() < REQUEST_MAX => return None,
        Parsed::Partial => (Response::too_large(), true),
        Parsed::Wrong(response) => (response, true),
        Parsed::Get { path, has_body } => {
            let response = match path {
                "/livez" => Response::ok("ok\n"),
                "/readyz" if is_ready => Response::ok("ok\n"),
                "/readyz" => Response::unavailable("stopping\n"),
                "/metrics" => Response::metrics(metrics::text(server.stats(), is_ready)),
                _ => Response::not_found(),
            };
            (response, has_body)
        }
    };
    Some(response.to_bytes(has_body))
}
