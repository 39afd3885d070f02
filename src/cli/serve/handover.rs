//! SIGUSR2: a new process of this program takes over the listening sockets of the running one, without a refused client.
//!
//! ```text
//! old process                                  new process
//!   │ starts it, with copies of all sockets ────▶│ as LISTEN_FDS (see `listen_fds`), and a socket pair for control
//!   │ state: names, files, in JSON ─────────────▶│ binds nothing, opens its event queue, accepts nothing
//!   │◀──────────────────────────────── READY ────│
//!   │ GO ───────────────────────────────────────▶│ serves; the files of Unix sockets are its own now
//!   │ detaches the listeners, serves its connections, ends
//! ```
//!
//! No client is refused, since the sockets never close: both processes hold the same ones, with one accept queue, and each
//! queued connection goes to the process that accepts first. Until GO the new process accepts nothing. So up to that moment
//! it can be given up without harm, if it has ended or is not ready in time, and the old process goes on; from that moment on
//! the old process accepts nothing. Every datagram and every connection is therefore served by exactly one of them.
//!
//! The new process runs the program as it lies on disk now, which is how a new version is brought in, with the arguments of
//! this process, its environment and its working directory. Its addresses are those of the sockets that it was given; the
//! addresses among the arguments are not bound again.
//!
//! Two roads were not taken: `exec` in place would lose every connection, and a second server with SO_REUSEPORT has an
//! accept queue of its own, whose connections are reset when the old one closes.

use super::listen_fds::{FIRST, OLD_PROCESS};
use super::notify;
use crate::cli::error::{CliError, CliErrorKind};
use crate::cli::units::plural;
use crate::echo::Server;
use crate::net::{Address, BoundSocket, FileIdentity, SocketFile};
use crate::procfs::own::EXECUTABLE;
use command_fds::{CommandFdExt, FdMapping};
use serde_json::{Value, json};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const READY: u8 = b'R';
const GO: u8 = b'G';

/// How this program is started once more.
#[derive(Debug)]
pub(super) struct Program {
    file: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// The program of this process. To be called at the start: once the file has been replaced, the system tells only that
    /// it is deleted.
    pub(super) fn of_this_process() -> Self {
        let mut arguments = env::args_os();
        let args = arguments.next().map(PathBuf::from).unwrap_or_default();
        let running = Path::new(EXECUTABLE);
        let same = |path: &Path| {
            let identity = |path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
            identity(path).is_some_and(|file| Some(file) == identity(running))
        };
        // The first argument may be a link that will lead to another version by then, while the system tells where it
        // leads now. A name without a slash was looked up in PATH, so a file of that name here is another one.
        let file = match args.components().count() > 1 && same(&args) {
            true => args,
            false => env::current_exe().unwrap_or(args),
        };
        Self {
            file,
            arguments: arguments.collect(),
        }
    }

    /// Starts it with these sockets, and one end of a socket pair for control.
    fn start(&self, sockets: Vec<OwnedFd>) -> io::Result<(Child, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut names = vec!["listener"; sockets.len()];
        names.push(OLD_PROCESS);
        let descriptors = sockets.into_iter().chain([theirs.into()]);
        let mappings = descriptors
            .zip(FIRST..)
            .map(|(parent_fd, number)| FdMapping {
                parent_fd,
                child_fd: i32::try_from(number).unwrap_or(i32::MAX),
            });
        // Between fork and exec the child moves these descriptors to their numbers, over open ones; also over the pipe by
        // which std learns that exec has failed, if that were there. It is not: the copies, one more than the numbers,
        // have filled every gap below it.
        let mut command = Command::new(&self.file);
        command
            .args(&self.arguments)
            // The process id is not known before the process exists; sd_listen_fds(3) of this program does without.
            .env_remove("LISTEN_PID")
            .env("LISTEN_FDS", names.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .fd_mappings(mappings.collect())
            .map_err(io::Error::other)?;
        let child = command.spawn()?;
        Ok((child, ours))
        // Here the copies are closed, so that the socket pair ends when the child does.
    }
}

// --- The old process ---------------------------------------------------------------------------------------------------

/// Hands the server of this process over when it is told to.
#[derive(Debug)]
pub(super) struct Handover {
    program: Program,
    /// How long the new process may take to be ready.
    ready_timeout: Duration,
    /// How long open connections may stay after that.
    drain_timeout: Option<Duration>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Serving, and no hand-over has begun.
    Alone,
    /// Serving, with a new process that is not ready yet.
    Waiting(NewProcess),
    /// The listeners belong to the new process. At this time the connections that are still open are drained.
    HandedOver(Option<Instant>),
}

#[derive(Debug)]
struct NewProcess {
    child: Child,
    line: UnixStream,
    until: Instant,
}

impl Handover {
    pub(super) fn new(
        program: Program,
        ready_timeout: Duration,
        drain_timeout: Option<Duration>,
    ) -> Self {
        Self {
            program,
            ready_timeout,
            drain_timeout,
            state: State::Alone,
        }
    }

    /// Whether there is something to look after.
    pub(super) fn is_under_way(&self) -> bool {
        !matches!(self.state, State::Alone)
    }

    /// Whether the listeners belong to the new process.
    pub(super) fn is_handed_over(&self) -> bool {
        matches!(self.state, State::HandedOver(_))
    }

    /// Time until [`Handover::look`] has something to do by itself; `None` is without end.
    pub(super) fn timeout(&self) -> Option<Duration> {
        let until = match &self.state {
            State::Alone => None,
            State::Waiting(new_process) => Some(new_process.until),
            State::HandedOver(until) => *until,
        };
        until.map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// Begins a hand-over: SIGUSR2 has arrived.
    pub(super) fn begin(&mut self, server: &mut Server) {
        match &self.state {
            State::Alone => {}
            State::Waiting(new_process) => {
                let process = new_process.child.id();
                return log::warn!(
                    "SIGUSR2: process {process} is taking over already; wait for it"
                );
            }
            State::HandedOver(_) => {
                return log::warn!(
                    "SIGUSR2: another process has taken over already; send it there"
                );
            }
        }
        notify::reloading();
        match self.start_process(server) {
            Ok(new_process) => {
                log::info!(
                    "handing over to process {}, as soon as it is ready",
                    new_process.child.id()
                );
                self.state = State::Waiting(new_process);
            }
            Err(error) => {
                let file = self.program.file.display();
                self.fail(&format!("'{file}' cannot be started: {error}"));
            }
        }
    }

    fn start_process(&self, server: &mut Server) -> io::Result<NewProcess> {
        let (sockets, endpoints): (Vec<_>, Vec<_>) =
            server.try_clone_listeners()?.into_iter().unzip();
        let endpoints: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
        let files: Vec<Value> = server.files().map(|file| file_to_json(&file)).collect();
        let state = json!({"version": 1, "process": std::process::id(), "endpoints": endpoints, "files": files});
        let (child, line) = self.program.start(sockets)?;
        let mut new_process = NewProcess {
            child,
            line,
            until: Instant::now() + self.ready_timeout,
        };
        let told = new_process
            .line
            .set_nonblocking(true)
            .and_then(|()| match writeln!(&new_process.line, "{state}") {
                // The process has ended already; `look` finds out how.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                result => result,
            })
            .and_then(|()| server.watch(&new_process.line));
        match told {
            Ok(()) => Ok(new_process),
            Err(error) => {
                new_process.give_up();
                Err(error)
            }
        }
    }

    /// Advances a hand-over that has begun; to be called after each wake-up.
    pub(super) fn look(&mut self, server: &mut Server) {
        match &mut self.state {
            State::Alone | State::HandedOver(None) => {}
            State::Waiting(new_process) => match new_process.look() {
                Ok(false) => {}
                Ok(true) => self.hand_over(server),
                Err(why) => self.fail(&why),
            },
            State::HandedOver(Some(until)) if *until <= Instant::now() => {
                self.state = State::HandedOver(None);
                log::info!(
                    "draining {} that stayed",
                    plural(server.stats().connections_open, "connection")
                );
                server.drain();
            }
            State::HandedOver(Some(_)) => {}
        }
    }

    /// Gives up a new process that is not ready yet: this process is about to stop.
    pub(super) fn give_up(&mut self) {
        if let State::Waiting(new_process) = &mut self.state {
            new_process.give_up();
            self.fail("this process was told to stop meanwhile");
        }
    }

    fn hand_over(&mut self, server: &mut Server) {
        let before = std::mem::replace(&mut self.state, State::Alone);
        let State::Waiting(mut new_process) = before else {
            return;
        };
        // From here on the new process serves, so this must be the last call that can fail.
        if let Err(error) = (&new_process.line).write_all(&[GO]) {
            new_process.give_up();
            return self.fail(&format!(
                "the new process does not answer any more: {error}"
            ));
        }
        server.detach_listeners();
        let process = new_process.child.id();
        notify::succeeded_by(process);
        log::info!(
            "handed over to process {process}; {} left to serve here",
            plural(server.stats().connections_open, "connection")
        );
        self.state = State::HandedOver(self.drain_timeout.map(|timeout| Instant::now() + timeout));
    }

    fn fail(&mut self, why: &str) {
        log::warn!("the hand-over failed, and this process serves on: {why}");
        notify::ready();
        self.state = State::Alone;
    }
}

impl NewProcess {
    /// Whether the process is ready, or why it never will be.
    fn look(&mut self) -> Result<bool, String> {
        let mut said = [0; 1];
        let process = self.child.id();
        match (&self.line).read(&mut said) {
            Ok(1..) if said == [READY] => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() < self.until {
                    return Ok(false);
                }
                self.give_up();
                Err(format!(
                    "process {process} was not ready in time, and was killed (see --handover-timeout)"
                ))
            }
            _ => {
                // A process that has ended cannot be killed any more, and `wait` tells how it ended.
                let end = self.give_up();
                Err(format!(
                    "process {process} ended before it was ready: {end}"
                ))
            }
        }
    }

    /// Kills the process, which has accepted nothing yet. Returns how it ended.
    fn give_up(&mut self) -> String {
        let _ = self.child.kill();
        match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }
}

// --- The new process ---------------------------------------------------------------------------------------------------

/// The old process, seen from the new one.
#[derive(Debug)]
pub(super) struct OldProcess {
    line: UnixStream,
    process: u64,
    endpoints: Vec<String>,
    files: Vec<FileIdentity>,
}

impl OldProcess {
    /// Reads the state that the old process has sent.
    pub(super) fn read(line: UnixStream) -> Result<Self, CliError> {
        let failure = |why: &str| {
            let text =
                format!("a hand-over without its state: {why}; was LISTEN_FDNAMES set by hand?");
            CliError::new(CliErrorKind::System, text)
        };
        let mut state = String::new();
        BufReader::new(&line)
            .read_line(&mut state)
            .map_err(|error| failure(&error.to_string()))?;
        let state: Value =
            serde_json::from_str(&state).map_err(|error| failure(&error.to_string()))?;
        let all = |name: &str| state[name].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Ok(Self {
            line,
            process: state["process"].as_u64().unwrap_or(0),
            endpoints: all("endpoints").iter().filter_map(text).collect(),
            files: all("files").iter().filter_map(file_from_json).collect(),
        })
    }

    /// Gives Unix sockets their real names. getsockname(2) tells only the name under which they were bound, before the
    /// file was moved to its place.
    pub(super) fn name(&self, sockets: &mut [BoundSocket]) {
        for (socket, endpoint) in sockets.iter_mut().zip(&self.endpoints) {
            if let Ok(address @ (Address::Unix(_) | Address::UnixDatagram(_))) = endpoint.parse() {
                if let Some(endpoint) = address.resolve().ok().and_then(|mut all| all.pop()) {
                    socket.endpoint = endpoint;
                }
            }
        }
    }

    /// Reports that this process is ready, waits for GO, and takes over the socket files. If the old process has died
    /// meanwhile, this one serves as well.
    pub(super) fn succeed(self, server: &mut Server) {
        let mut said = [0; 1];
        let answer = (&self.line)
            .write_all(&[READY])
            .and_then(|()| (&self.line).read_exact(&mut said));
        if answer.is_err() || said != [GO] {
            // It would have killed this process if it wanted to go on.
            log::warn!("the old process, {}, has died", self.process);
        }
        for file in self.files {
            server.adopt_socket_file(SocketFile::from_identity(file));
        }
        let names: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
        log::info!(
            "took over from process {}: {}",
            self.process,
            names.join(", ")
        );
    }
}

fn file_to_json(file: &FileIdentity) -> Value {
    // A path was parsed from an address, so it is valid text.
    json!({"path": file.path.to_string_lossy(), "device": file.device, "inode": file.inode})
}

fn file_from_json(file: &Value) -> Option<FileIdentity> {
    Some(FileIdentity {
        path: file["path"].as_str()?.into(),
        device: file["device"].as_u64()?,
        inode: file["inode"].as_u64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_read_as_it_was_written() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = FileIdentity {
            path: "/tmp/a name\nof \"two\" lines".into(),
            device: u64::MAX,
            inode: 7,
        };
        let state = json!({"process": 42, "endpoints": ["tcp://[::1]:7", "unix:///a b"], "files": [file_to_json(&file)]});
        writeln!(&ours, "{state}").unwrap();
        let heard = OldProcess::read(theirs).unwrap();
        assert_eq!((heard.process, heard.files), (42, vec![file]));
        assert_eq!(heard.endpoints, ["tcp://[::1]:7", "unix:///a b"]);
    }

    #[test]
    fn a_missing_state_is_a_failure() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(ours);
        let failure = OldProcess::read(theirs).unwrap_err();
        assert!(failure.text.contains("LISTEN_FDNAMES"), "{failure}");
    }

    #[test]
    fn the_program_is_the_file_that_runs() {
        let program = Program::of_this_process();
        let running = fs::metadata(EXECUTABLE).unwrap().ino();
        assert_eq!(fs::metadata(program.file).unwrap().ino(), running);
    }
}
