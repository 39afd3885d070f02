//! SIGUSR2: a new process of this program takes the place of this one, and no client notices.
//!
//! ```text
//! predecessor                                  successor
//!   │ starts it, with copies of all sockets ────▶│ as LISTEN_FDS (see `inherit`), and one line to talk over
//!   │ the will: names, files, in JSON ──────────▶│ binds nothing, opens its event queue, accepts nobody
//!   │◀──────────────────────────────── READY ────│
//!   │ GO ───────────────────────────────────────▶│ serves; the files of Unix sockets are its own now
//!   │ leaves the listeners, serves who is inside, ends
//! ```
//!
//! Nobody is refused, since the sockets never close: both processes hold the same ones, with one accept queue, and what
//! waits there is for whoever asks first. Until GO the successor asks for nothing. So up to that moment it can be given up
//! without harm, if it has died or is not ready in time, and this process simply goes on; and from that moment on this
//! process asks for nothing more. Every datagram and every connection is therefore had by exactly one of them.
//!
//! The successor is the program as it lies on disk now, which is how a new version is brought in, with the arguments of
//! this process, its environment and its working directory. Its addresses are those that it was given; what was typed is
//! not bound again.
//!
//! What may live in this file: both sides of that conversation. Two roads were not taken: `exec` in place would lose every
//! connection, and a second server with SO_REUSEPORT has a queue of its own, of which the leaving one takes whatever is in
//! it to the grave.

use super::listen_fds::{FIRST, OLD_PROCESS};
use super::notify;
use crate::cli::error::{CliError, CliErrorKind};
use crate::cli::units::plural;
use crate::echo::Server;
use crate::net::{Address, BoundSocket, FileIdentity, SocketFile};
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
    /// Of this process. To be asked at the start: once its file has been replaced, the system knows only that it is
    /// deleted.
    pub(super) fn of_this_process() -> Self {
        let mut arguments = env::args_os();
        let args = arguments.next().map(PathBuf::from).unwrap_or_default();
        let running = Path::new("/proc/self/exe");
        let same = |path: &Path| {
            let identity = |path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
            identity(path).is_some_and(|file| Some(file) == identity(running))
        };
        // What was typed may be a link that will lead to another version then, while the system tells where it leads now.
        // A name without a slash was looked up in PATH, and whatever is called so here is something else.
        let file = match args.components().count() > 1 && same(&args) {
            true => args,
            false => env::current_exe().unwrap_or(args),
        };
        Self {
            file,
            arguments: arguments.collect(),
        }
    }

    /// Starts it with these sockets, and a line to talk over.
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
        // Between fork and exec the child puts these descriptors at their numbers, over whatever is there; also over the
        // pipe by which std would hear that exec has failed, if that were there. It is not: our copies, which are one
        // more than the numbers, have filled every gap below it.
        let mut command = Command::new(&self.file);
        command
            .args(&self.arguments)
            // Its number is not known before it is there. Whoever reads these variables may do without.
            .env_remove("LISTEN_PID")
            .env("LISTEN_FDS", names.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .fd_mappings(mappings.collect())
            .map_err(io::Error::other)?;
        let child = command.spawn()?;
        Ok((child, ours))
        // Here our copies of what it has go, so that the line ends when it does.
    }
}

// --- The predecessor ---------------------------------------------------------------------------------------------------

/// Hands the server of this process over when it is told to.
#[derive(Debug)]
pub(super) struct Handover {
    program: Program,
    /// How long a successor may take to be ready.
    patience: Duration,
    /// How long those who are inside may stay after that.
    stay: Option<Duration>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Serving.
    Alone,
    /// Serving, with a successor that is not ready yet.
    Waiting(NewProcess),
    /// The listeners are the successor's. At this time those who are still inside are asked to go.
    Left(Option<Instant>),
}

#[derive(Debug)]
struct NewProcess {
    child: Child,
    line: UnixStream,
    until: Instant,
}

impl Handover {
    pub(super) fn new(program: Program, patience: Duration, stay: Option<Duration>) -> Self {
        Self {
            program,
            patience,
            stay,
            state: State::Alone,
        }
    }

    /// Whether there is something to look after.
    pub(super) fn is_under_way(&self) -> bool {
        !matches!(self.state, State::Alone)
    }

    /// Whether the listeners are somebody else's.
    pub(super) fn has_left(&self) -> bool {
        matches!(self.state, State::Left(_))
    }

    /// How long there is nothing to look after; `None` is without end.
    pub(super) fn timeout(&self) -> Option<Duration> {
        let until = match &self.state {
            State::Alone => None,
            State::Waiting(successor) => Some(successor.until),
            State::Left(until) => *until,
        };
        until.map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// SIGUSR2 has come.
    pub(super) fn begin(&mut self, server: &mut Server) {
        match &self.state {
            State::Alone => {}
            State::Waiting(successor) => {
                let process = successor.child.id();
                return log::warn!(
                    "SIGUSR2: process {process} is taking over already; wait for it"
                );
            }
            State::Left(_) => {
                return log::warn!(
                    "SIGUSR2: another process has taken over already; send it there"
                );
            }
        }
        notify::reloading();
        match self.start_process(server) {
            Ok(successor) => {
                log::info!(
                    "handing over to process {}, as soon as it is ready",
                    successor.child.id()
                );
                self.state = State::Waiting(successor);
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
        let will = json!({"version": 1, "process": std::process::id(), "endpoints": endpoints, "files": files});
        let (child, line) = self.program.start(sockets)?;
        let mut successor = NewProcess {
            child,
            line,
            until: Instant::now() + self.patience,
        };
        let told = successor
            .line
            .set_nonblocking(true)
            .and_then(|()| match writeln!(&successor.line, "{will}") {
                // It has ended already. `look` finds out how.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                result => result,
            })
            .and_then(|()| server.watch(&successor.line));
        match told {
            Ok(()) => Ok(successor),
            Err(error) => {
                successor.give_up();
                Err(error)
            }
        }
    }

    /// Looks after a hand-over that has begun; to be called whenever something may have come of it.
    pub(super) fn look(&mut self, server: &mut Server) {
        match &mut self.state {
            State::Alone | State::Left(None) => {}
            State::Waiting(successor) => match successor.look() {
                Ok(false) => {}
                Ok(true) => self.leave(server),
                Err(why) => self.fail(&why),
            },
            State::Left(Some(until)) if *until <= Instant::now() => {
                self.state = State::Left(None);
                log::info!(
                    "draining {} that stayed",
                    plural(server.stats().connections_open, "connection")
                );
                server.drain();
            }
            State::Left(Some(_)) => {}
        }
    }

    /// This process is to stop: a successor that is not ready yet is of no use to anybody.
    pub(super) fn give_up(&mut self) {
        if let State::Waiting(successor) = &mut self.state {
            successor.give_up();
            self.fail("this process was told to stop meanwhile");
        }
    }

    fn leave(&mut self, server: &mut Server) {
        let before = std::mem::replace(&mut self.state, State::Alone);
        let State::Waiting(mut successor) = before else {
            return;
        };
        // From here on the successor serves, so this must be the last thing that can fail.
        if let Err(error) = (&successor.line).write_all(&[GO]) {
            successor.give_up();
            return self.fail(&format!("the successor does not listen any more: {error}"));
        }
        server.detach_listeners();
        let process = successor.child.id();
        notify::succeeded_by(process);
        log::info!(
            "handed over to process {process}; {} left to serve here",
            plural(server.stats().connections_open, "connection")
        );
        self.state = State::Left(self.stay.map(|stay| Instant::now() + stay));
    }

    fn fail(&mut self, why: &str) {
        log::warn!("the hand-over failed, and this process serves on: {why}");
        notify::ready();
        self.state = State::Alone;
    }
}

impl NewProcess {
    /// Whether it is ready, or why it never will be.
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
                // Whoever is at its end already cannot be killed any more, and tells how it came to it.
                let end = self.give_up();
                Err(format!(
                    "process {process} ended before it was ready: {end}"
                ))
            }
        }
    }

    /// It has accepted nobody yet, and so takes nobody with it. How it ended.
    fn give_up(&mut self) -> String {
        let _ = self.child.kill();
        match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }
}

// --- The successor -----------------------------------------------------------------------------------------------------

/// The server before us, which waits until we are ready.
#[derive(Debug)]
pub(super) struct OldProcess {
    line: UnixStream,
    process: u64,
    endpoints: Vec<String>,
    files: Vec<FileIdentity>,
}

impl OldProcess {
    /// Reads the will.
    pub(super) fn hear(line: UnixStream) -> Result<Self, CliError> {
        let failure = |why: &str| {
            let text =
                format!("a hand-over without a will: {why}; was LISTEN_FDNAMES set by hand?");
            CliError::new(CliErrorKind::System, text)
        };
        let mut will = String::new();
        BufReader::new(&line)
            .read_line(&mut will)
            .map_err(|error| failure(&error.to_string()))?;
        let will: Value =
            serde_json::from_str(&will).map_err(|error| failure(&error.to_string()))?;
        let all = |name: &str| will[name].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Ok(Self {
            line,
            process: will["process"].as_u64().unwrap_or(0),
            endpoints: all("endpoints").iter().filter_map(text).collect(),
            files: all("files").iter().filter_map(file_from_json).collect(),
        })
    }

    /// Tells Unix sockets where they are found. They themselves know only the name under which they were bound, before
    /// they were given their real one.
    pub(super) fn name(&self, sockets: &mut [BoundSocket]) {
        for (socket, endpoint) in sockets.iter_mut().zip(&self.endpoints) {
            if let Ok(address @ (Address::Unix(_) | Address::UnixDatagram(_))) = endpoint.parse() {
                if let Some(endpoint) = address.resolve().ok().and_then(|mut all| all.pop()) {
                    socket.endpoint = endpoint;
                }
            }
        }
    }

    /// Says that we are ready, waits until it is our turn, and takes what is left to us. If the predecessor has died
    /// meanwhile, it is our turn as well.
    pub(super) fn succeed(self, server: &mut Server) {
        let mut said = [0; 1];
        let answer = (&self.line)
            .write_all(&[READY])
            .and_then(|()| (&self.line).read_exact(&mut said));
        if answer.is_err() || said != [GO] {
            // It would have killed us if it wanted to go on.
            log::warn!("the server before us, process {}, has died", self.process);
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
    // A path was an address once, and those are text.
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
    fn a_will_is_read_as_it_was_written() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = FileIdentity {
            path: "/tmp/a name\nof \"two\" lines".into(),
            device: u64::MAX,
            inode: 7,
        };
        let will = json!({"process": 42, "endpoints": ["tcp://[::1]:7", "unix:///a b"], "files": [file_to_json(&file)]});
        writeln!(&ours, "{will}").unwrap();
        let heard = OldProcess::hear(theirs).unwrap();
        assert_eq!((heard.process, heard.files), (42, vec![file]));
        assert_eq!(heard.endpoints, ["tcp://[::1]:7", "unix:///a b"]);
    }

    #[test]
    fn no_will_is_a_failure() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(ours);
        let failure = OldProcess::hear(theirs).unwrap_err();
        assert!(failure.text.contains("LISTEN_FDNAMES"), "{failure}");
    }

    #[test]
    fn the_program_is_the_file_that_runs() {
        let program = Program::of_this_process();
        let running = fs::metadata("/proc/self/exe").unwrap().ino();
        assert_eq!(fs::metadata(program.file).unwrap().ino(), running);
    }
}
