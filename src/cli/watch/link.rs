//! The socket between `watch` and its server, and the signals that end the command.

use super::target::{Target, foreign};
use crate::cli::error::{CliError, CliErrorKind};
use crate::cli::serve::{REQUEST, WatchState};
use crate::net::{DatagramSocket, Datagrams, Endpoint};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use signal_hook::consts::{SIGINT, SIGTERM};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Longest answer. One has some thousand bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What has ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// Something has come from the server.
    Answer,
    /// SIGINT or SIGTERM has come.
    Signal,
    /// The time is over.
    Time,
}

/// A socket that is connected with that of a server: the kernel delivers the datagrams of no other one.
#[derive(Debug)]
pub(super) struct Link {
    socket: DatagramSocket,
    endpoint: Endpoint,
    /// The reading end of a pipe that the signals write to.
    signals: UnixStream,
    /// Whether answers of any user are believed: root may watch all.
    is_root: bool,
    buffer: Vec<u8>,
}

impl Link {
    pub(super) fn open(target: &Target) -> Result<Self, CliError> {
        target.check()?;
        let endpoint = target.endpoint();
        let socket = connect(&endpoint).map_err(|error| target.failure(&error))?;
        let system = |error: io::Error| {
            let text = format!("no signal handlers: {error}");
            CliError::new(CliErrorKind::System, text)
        };
        Ok(Self {
            socket,
            endpoint,
            signals: signals().map_err(system)?,
            is_root: nix::unistd::geteuid().is_root(),
            buffer: vec![0; ANSWER_BYTES_MAX],
        })
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends a request. If the queue of the server is full, it has requests enough.
    pub(super) fn ask(&self) -> Result<(), CliError> {
        let DatagramSocket::Unix(socket, _) = &self.socket else {
            return Ok(());
        };
        match socket.send(REQUEST) {
            Err(error) if !is_passing(&error) => Err(self.failure(&error)),
            _ => Ok(()),
        }
    }

    /// Waits for an answer or a signal, until this time at most.
    pub(super) fn wait(&self, until: Instant) -> Result<Woken, CliError> {
        let DatagramSocket::Unix(socket, _) = &self.socket else {
            return Ok(Woken::Time);
        };
        let left = until.saturating_duration_since(Instant::now());
        // Rounded up, since poll(2) counts whole milliseconds.
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1));
        let descriptors = [self.signals.as_fd(), socket.as_fd()];
        let mut polled = descriptors.map(|one| PollFd::new(one, PollFlags::POLLIN));
        match poll(&mut polled, timeout.unwrap_or(PollTimeout::MAX)) {
            Err(Errno::EINTR) => {} // by a signal: the pipe tells which
            Err(errno) => return Err(self.failure(&errno.into())),
            Ok(_) => {}
        }
        Ok(match polled.map(|one| one.any() == Some(true)) {
            [true, _] => Woken::Signal,
            [_, true] => Woken::Answer,
            _ => Woken::Time,
        })
    }

    /// Takes the answers that have come, and returns the last one.
    pub(super) fn take(&mut self) -> Result<Option<WatchState>, CliError> {
        let mut last = None;
        loop {
            match self.socket.receive(&mut self.buffer) {
                Ok((length, path)) => {
                    if DatagramSocket::check(&path).is_err() && !self.is_root {
                        let text = foreign(&self.endpoint.to_string());
                        return Err(CliError::new(CliErrorKind::Permission, text));
                    }
                    let state = WatchState::from_bytes(&self.buffer[..length]);
                    last = Some(state.ok_or_else(|| self.not_understood())?);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(last),
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(self.failure(&error)),
            }
        }
    }

    fn not_understood(&self) -> CliError {
        let text = format!(
            "{}: the answer is of another version of this program; use the program of the server",
            self.endpoint
        );
        CliError::new(CliErrorKind::Io, text)
    }

    fn failure(&self, error: &io::Error) -> CliError {
        let endpoint = &self.endpoint;
        match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset | ErrorKind::NotConnected => {
                let text = format!("{endpoint}: the server has ended");
                CliError::new(CliErrorKind::Refused, text)
            }
            _ => CliError::new(CliErrorKind::System, format!("{endpoint}: {error}")),
        }
    }
}

/// Whether a call may succeed later.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
        || error.raw_os_error() == Some(Errno::ENOBUFS as i32)
}

/// A socket needs a name to be answered: by bind(2) to the empty name, the kernel chooses an abstract one (unix(7)).
fn connect(endpoint: &Endpoint) -> io::Result<DatagramSocket> {
    let Endpoint::UnixDatagram(name) = endpoint else {
        return Err(ErrorKind::Unsupported.into());
    };
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    socket.bind(&SockAddr::unix("")?)?;
    socket.connect(&name.to_sock_addr()?)?;
    DatagramSocket::new(socket, endpoint)
}

/// Registers the handlers. With a pipe, none comes unseen between a look and the wait.
fn signals() -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(read)
}
