//! The server that is judged: one that runs somewhere, or one that the checker starts, watches and ends.

use super::finding::Limit;
use super::place::{Place, Transport};
use crate::net::Endpoint;
use crate::procfs::subtree::descendants;
use crate::procfs::{ServerSample, open_descriptors_of};
use crate::settings;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use std::io::{self, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take until it listens, and until it has ended after SIGTERM.
const START: Duration = Duration::from_secs(20);
const END: Duration = Duration::from_secs(3);
/// Time between what a client sees of the end of a process and that end.
const ENDING: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_millis(5);

/// A server, with its process if the checker has started it.
#[derive(Debug)]
pub struct Server {
    endpoint: Endpoint,
    own: Option<Own>,
}

/// A child process that serves.
#[derive(Debug)]
struct Own {
    command: String,
    transport: Transport,
    child: Child,
    place: Place,
    _watcher: Watcher,
}

impl Own {
    /// How the process has ended, if it has: "exit status: 101", "signal: 11 (SIGSEGV)". It is not waited for: as long as it is a
    /// zombie, no other process and no other group gets its number.
    fn ending(&self) -> Option<String> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let raw = match waitid(Id::Pid(self.process()), flags).ok()? {
            WaitStatus::Exited(_, code) => code << 8,
            WaitStatus::Signaled(_, signal, _) => signal as i32,
            _ => return None,
        };
        Some(ExitStatus::from_raw(raw).to_string())
    }

    fn process(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    fn signal(&self, signal: Signal) {
        let _ = kill(self.process(), signal); // it may have ended
    }
}

/// Ends the server by SIGTERM, and by SIGKILL what is left of its process group: it may take too long, or have children that
/// outlive it.
impl Drop for Own {
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + END;
        while self.ending().is_none() && Instant::now() < deadline {
            thread::sleep(PAUSE);
        }
        let _ = killpg(self.process(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Ends the process group of a server once this process has ended, even by SIGKILL: a shell that reads a pipe of which only
/// this process has the other end.
#[derive(Debug)]
struct Watcher {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Watcher {
    fn of(server: &Child) -> io::Result<Self> {
        let group = server.id();
        let end = format!("kill -s TERM -- -{group}; sleep 1; kill -s KILL -- -{group}");
        let mut shell = Command::new("sh")
            .args(["-c", &format!("read -r end || {{ {end}; }}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // Ctrl-C ends this process, and that is seen
            .spawn()?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe })
    }
}

/// The server has ended in order.
impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            let _ = pipe.write_all(b"end\n");
        }
        let _ = self.shell.wait();
    }
}

/// Starts a shell that waits until [`begin`], and ends if this process ends before: no watcher would end its server.
fn start_waiting(line: &str) -> io::Result<Child> {
    settings::remove_from(&mut Command::new("sh"))
        .args([
            "-c",
            &format!("read -r begin || exit; exec </dev/null; {line}"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}

/// Lets the shell begin.
fn begin(shell: &mut Child) -> io::Result<()> {
    match shell.stdin.take() {
        Some(mut pipe) => pipe.write_all(b"begin\n"),
        None => Ok(()),
    }
}

impl Server {
    /// A server that runs already.
    #[must_use]
    pub fn running(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            own: None,
        }
    }

    /// Starts a server by a shell's command, in which the [placeholder](Transport::placeholder) stands for a free port of
    /// 127.0.0.1 or for a path, and waits until it listens. Its output is discarded.
    ///
    /// # Errors
    /// Why it does not serve, as a sentence.
    pub fn start(command: &str, transport: Transport) -> Result<Self, String> {
        Self::start_limited(command, transport, None)
    }

    fn start_limited(
        command: &str,
        transport: Transport,
        descriptors: Option<u64>,
    ) -> Result<Self, String> {
        let place = Place::free(transport)
            .map_err(|error| format!("there is no place for it to listen: {error}"))?;
        let limit = descriptors.map_or_else(String::new, |count| format!("ulimit -n {count}; "));
        let line = format!(
            "{limit}exec {}",
            command.replace(transport.placeholder(), &place.text)
        );
        let unstarted = |error| format!("sh cannot be started: {error}");
        let mut child = start_waiting(&line).map_err(unstarted)?;
        let begun = Watcher::of(&child).and_then(|watcher| begin(&mut child).map(|()| watcher));
        let watcher = begun.map_err(|error| {
            let _ = child.kill();
            let _ = child.wait();
            unstarted(error)
        })?;
        let own = Own {
            command: command.to_owned(),
            transport,
            child,
            place,
            _watcher: watcher,
        };
        let deadline = Instant::now() + START;
        while !own.place.is_served() {
            let endpoint = own.place.endpoint.clone();
            if let Some(ending) = own.ending() {
                return Err(format!(
                    "the server has ended ({ending}) before it listened on {endpoint}: try the command by hand"
                ));
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "nothing listens on {endpoint} after {} s",
                    START.as_secs()
                ));
            }
            thread::sleep(PAUSE);
        }
        Ok(Self {
            endpoint: own.place.endpoint.clone(),
            own: Some(own),
        })
    }

    /// The address that is judged.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether the checker has started it.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.own.is_some()
    }

    pub(super) fn process_id(&self) -> Option<u32> {
        self.own.as_ref().map(|own| own.child.id())
    }

    /// Starts the server again if it has ended.
    pub(super) fn ensure_running(&mut self) -> Result<(), Limit> {
        if self.unexpected_end().is_some() {
            if let Some(own) = self.own.take() {
                *self = Self::start(&own.command, own.transport).map_err(Limit)?;
            }
        }
        Ok(())
    }

    /// Gives a server that is ending the time for it: to a client the end of a process is a reset or a refused connect, and
    /// both come before the process is gone.
    pub(super) fn wait_if_ending(&self) {
        let deadline = Instant::now() + ENDING;
        while self.is_own() && self.unexpected_end().is_none() && Instant::now() < deadline {
            thread::sleep(PAUSE);
        }
    }

    /// How the server has ended, if it has; always `None` for one that the checker has not started.
    pub(super) fn unexpected_end(&self) -> Option<String> {
        self.own.as_ref()?.ending()
    }

    /// Another process of the same command, which may have so many descriptors.
    pub(super) fn another(&self, descriptors: Option<u64>) -> Result<Self, Limit> {
        let own = self.own.as_ref();
        let own = own.ok_or_else(|| Limit("the server was not started here".to_owned()))?;
        Self::start_limited(&own.command, own.transport, descriptors).map_err(Limit)
    }

    /// Processor time and memory of the server, all of its processes together.
    pub(super) fn sample(&self) -> Result<ServerSample, Limit> {
        let unreadable = |what: &str| Limit(format!("the server's process cannot be read: {what}"));
        let process = self
            .process_id()
            .ok_or_else(|| unreadable("it is not ours"))?;
        let mut processes = descendants(process).unwrap_or_default();
        processes.push(process);
        ServerSample::take_all_threads(&processes).map_err(|error| unreadable(&error.to_string()))
    }

    /// Descriptors that the server has open.
    pub(super) fn descriptors(&self) -> Option<u64> {
        open_descriptors_of(self.process_id()?)
    }

    /// Sets the soft limit of the server's descriptors while it runs, by prlimit(1), and returns whether it could. A server
    /// that has adapted itself to the limit at its start meets EMFILE only so.
    pub(super) fn limit_descriptors(&self, count: u64) -> bool {
        let Some(process) = self.process_id() else {
            return false;
        };
        let limited = Command::new("prlimit")
            .args(["--pid", &process.to_string(), &format!("--nofile={count}:")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        limited.is_ok_and(|status| status.success())
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Some(own) = &self.own {
            own.signal(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_does_not_serve_is_an_error_with_its_exit_code() {
        let error = Server::start("false", Transport::Tcp).unwrap_err();
        assert!(error.contains("exit status: 1"), "{error}");
    }

    /// The checker may be killed between the start of the shell and that of the watcher.
    #[test]
    fn no_server_runs_before_it_is_watched() {
        let mut shell = start_waiting("exit 7").unwrap();
        drop(shell.stdin.take()); // as the kernel does
        assert_eq!(shell.wait().unwrap().code(), Some(1));
        let mut shell = start_waiting("exit 7").unwrap();
        begin(&mut shell).unwrap();
        assert_eq!(shell.wait().unwrap().code(), Some(7));
    }
}
