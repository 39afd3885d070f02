//! `serve --watch`: the state of the server by datagrams, for `echo-reactor watch`.
//!
//! ```text
//! watch                                   serve --watch
//!   │ "echo-reactor watch 1"                │
//!   ├──────────── datagram ────────────────▶│ an external source of the loop: the turn ends
//!   │◀─────────── datagram ─────────────────┤ state as JSON, sent without waiting
//! ```
//!
//! A state is sent when it is asked for, and at no other time. So a server that is not watched does nothing, and one whose
//! watcher is dead or stopped does nothing either: there is no subscription, no timer and no buffer. What is not taken at
//! once is dropped, and counted in the next state. That a watcher asks and does not read is bounded by the send buffer of
//! the socket (SO_SNDBUF), in which the kernel counts unread answers: then no watcher has answers until that one reads or ends.
//!
//! **The echo is not harmed.** The socket is non-blocking; [`ANSWERS_MAX`] requests are answered in a pass, and a pass
//! follows another one after [`PASS_INTERVAL`]. The counters are there already, and connections are counted by state where
//! their state changes, so an answer takes the same time for one connection as for a million.
//!
//! **Access.** Processes of the user of the server, and of root, are answered; the kernel tells the user with each datagram
//! ([`crate::net::datagram`]). A socket file has the mode 0600 in addition, whatever `--unix-mode` says.

mod name;
mod state;

pub(in crate::cli) use name::WatchName;
pub(in crate::cli) use state::{REQUEST, WatchState};

use super::errors;
use super::tracing::Tracing;
use crate::cli::error::CliError;
use crate::echo::{Backend, Config, Native, Server, StartError};
use crate::net::{
    BindOptions, BoundSocket, DatagramSocket, Datagrams, Endpoint, Resolved, SocketFile,
    bind_resolved,
};
use crate::reactor::ExternalFd;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Requests that are answered in a pass.
const ANSWERS_MAX: usize = 4;
/// Time between two passes.
const PASS_INTERVAL: Duration = Duration::from_millis(20);
/// Permission bits of a socket file: those of the owner.
const MODE: u32 = 0o600;
/// Last events of a recorded server in a state.
const EVENTS: usize = 8;

/// The socket of `--watch`.
#[derive(Debug)]
pub(super) struct Watching {
    /// Dropped first, as in [`BoundSocket`]: a file whose socket is closed looks like that of a dead server.
    _file: Option<SocketFile>,
    socket: DatagramSocket,
    endpoint: Endpoint,
    started: Instant,
    /// Whether a request may be queued.
    is_due: bool,
    /// The earliest time of the next pass.
    pass_at: Instant,
    /// Answers that were not taken at once.
    answers_lost: u64,
}

impl Watching {
    /// Binds the socket.
    pub(super) fn bind(name: &WatchName, config: &Config) -> Result<Self, CliError> {
        let options = BindOptions {
            unix_mode: MODE,
            ..config.bind_options()
        };
        let address = name.address(std::process::id());
        let endpoints = vec![Endpoint::UnixDatagram(name.unix_name(std::process::id()))];
        let resolved = Resolved { address, endpoints };
        let bound = bind_resolved(&[resolved], &options)
            .map_err(|error| errors::start_error(&StartError::Bind(error)))?;
        let system = |error| errors::system("no socket for --watch", &error);
        let missing = || system(ErrorKind::AddrNotAvailable.into());
        let bound = bound.into_iter().next().ok_or_else(missing)?;
        let BoundSocket {
            file,
            socket,
            endpoint,
            ..
        } = bound;
        let now = Instant::now();
        Ok(Self {
            _file: file,
            socket: DatagramSocket::new(socket, &endpoint).map_err(system)?,
            endpoint,
            started: now,
            is_due: true,
            pass_at: now,
            answers_lost: 0,
        })
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Adds the socket to the interest list of the server, and says where it is.
    pub(super) fn watch_with(&self, server: &Server<impl Native>) -> Result<(), CliError> {
        if let DatagramSocket::Unix(socket, _) = &self.socket {
            let watched = server.watch_source(&mut ExternalFd(&socket.as_raw_fd()));
            watched.map_err(|error| errors::system("no --watch in the event loop", &error))?;
        }
        log::info!("watched at {}", self.endpoint);
        Ok(())
    }

    /// A descriptor has become readable: this one, or another one.
    pub(super) fn wake(&mut self) {
        self.is_due = true;
    }

    /// Answers what is queued, if something may be. Returns the time until there is something to do without an event.
    pub(super) fn serve(
        &mut self,
        server: &Server<impl Backend>,
        tracing: &impl Tracing,
    ) -> Option<Duration> {
        if !self.is_due {
            return None; // nearly always
        }
        let now = Instant::now();
        if now < self.pass_at {
            return Some(self.pass_at - now);
        }
        self.pass_at = now + PASS_INTERVAL;
        self.is_due = self.answer(server, tracing);
        self.is_due.then_some(PASS_INTERVAL)
    }

    /// Returns whether more requests may be queued: they raise no new edge.
    fn answer(&mut self, server: &Server<impl Backend>, tracing: &impl Tracing) -> bool {
        let mut request = [0; 64];
        for _ in 0..ANSWERS_MAX {
            let (length, path) = match self.socket.receive(&mut request) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => {
                    log::debug!("--watch: no request can be received: {error}");
                    return false;
                }
            };
            if &request[..length] != REQUEST || DatagramSocket::check(&path).is_err() {
                continue;
            }
            let state = self.state(server, tracing.last_events(EVENTS));
            if let Err(error) = self.socket.reply(&state.to_bytes(), &path) {
                log::debug!("--watch: an answer is dropped: {error}");
                self.answers_lost += 1;
            }
        }
        true
    }

    fn state(&self, server: &Server<impl Backend>, events: Vec<String>) -> WatchState {
        let uptime = self.started.elapsed().as_millis();
        WatchState {
            process: std::process::id(),
            uptime_ms: u64::try_from(uptime).unwrap_or(u64::MAX),
            answers_lost: self.answers_lost,
            events,
            ..WatchState::of(server)
        }
    }
}
