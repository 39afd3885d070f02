//! Server processes for measurements: `serve` where no address was named, and what every such child process needs.
//!
//! Starting a process, its processors, and its end with its parent process.

use crate::cli::error::{CliError, CliErrorKind};
use crate::cli::own_program;
use crate::net::Address;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a child process may take to end before it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// `echo-reactor serve`, for as long as this lives.
#[derive(Debug)]
pub(super) struct Server {
    process: Process,
    pub(super) address: Address,
}

impl Server {
    /// Starts it on a processor of its own, and waits until it says where it listens. `is_proxied` is whether its connections
    /// begin with a PROXY header.
    pub(super) fn start(address: &str, is_proxied: bool) -> Result<Self, CliError> {
        let failure = |text: String| CliError::new(CliErrorKind::System, text);
        let mut command = serve(address)?;
        command.arg("--quiet");
        if is_proxied {
            // Of any address of this machine: it is started for this load alone.
            command.args(["--proxy-protocol", "require"]);
            command.args(["--proxy-from", "0.0.0.0/0,::/0,unix"]);
        }
        let processors = Processors::look(|_| 1);
        let mut process = Process::start(&mut command, processors.as_ref())
            .map_err(|error| failure(format!("no server can be started: {error}")))?;
        match process.listens() {
            Some(address) => Ok(Self { process, address }),
            _ => Err(failure(format!("the server on {address} has not started"))),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }
}

/// This very program as a server: the command, which says by a line on its standard output where it listens.
pub(in crate::cli) fn serve(address: &str) -> Result<Command, CliError> {
    let mut command = own_program::command().map_err(|error| {
        let text = format!("this program cannot be found: {error}");
        CliError::new(CliErrorKind::System, text)
    })?;
    command
        .args(["serve", address])
        // What is measured is the server, and not its guard against other people's servers.
        .args(["--udp-rate", "off", "--udp-rate-per-source", "off"])
        .arg(format!("--end-with={}", std::process::id()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    Ok(command)
}

/// A process that ends with its owner, and with it whatever it has started.
#[derive(Debug)]
pub(in crate::cli) struct Process(Child);

impl Process {
    /// Starts it on the processors that are for servers.
    pub(in crate::cli) fn start(
        command: &mut Command,
        processors: Option<&Processors>,
    ) -> io::Result<Self> {
        spawn_on(command, processors).map(Self)
    }

    /// The address on which our own server listens; `None` if it has ended before it listened.
    pub(in crate::cli) fn listens(&mut self) -> Option<Address> {
        let mut line = String::new();
        let out = self.0.stdout.take()?;
        BufReader::new(out).read_line(&mut line).ok()?;
        line.trim().strip_prefix("listening ")?.parse().ok()
    }

    pub(in crate::cli) fn id(&self) -> u32 {
        self.0.id()
    }

    /// What it writes to standard error, if that was asked for and has not been taken.
    pub(in crate::cli) fn stderr(&mut self) -> Option<std::process::ChildStderr> {
        self.0.stderr.take()
    }

    /// Writes to its standard input, which stays open until it is to end. One that has ended already is seen to have.
    pub(in crate::cli) fn say(&mut self, bytes: &[u8]) {
        if let Some(pipe) = &mut self.0.stdin {
            let _ = pipe.write_all(bytes);
        }
    }

    /// How it ended, if it has.
    pub(in crate::cli) fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().ok().flatten()
    }

    fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.id()) {
            let _ = killpg(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Our own server drains at the first signal and stops at the second: a clean end, which removes a socket
        // file.
        for _ in 0..2 {
            self.signal(Signal::SIGTERM);
        }
        drop(self.0.stdin.take());
        let deadline = Instant::now() + END_TIMEOUT;
        let mut pause = Duration::from_millis(1);
        while self.ended().is_none() {
            if Instant::now() > deadline {
                self.signal(Signal::SIGKILL);
                let _ = self.0.wait();
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

/// Starts a process on the processors that are for servers. It has a process group of its own: Ctrl-C is for us, and a
/// server is to see the end of the load first.
fn spawn_on(command: &mut Command, processors: Option<&Processors>) -> io::Result<Child> {
    // A child inherits the processors of its parent, and so does every thread that it starts in turn. To set them between
    // fork and exec would be shorter, and needs `unsafe`.
    if let Some(processors) = processors {
        use_only(&processors.theirs);
    }
    let child = command.process_group(0).spawn();
    if let Some(processors) = processors {
        use_only(&processors.ours);
    }
    child
}

/// The processors, divided between servers and load. Left alone, the scheduler likes to put two that talk to each other
/// on the same one, and then each waits for the other: what is measured is neither.
#[derive(Debug)]
pub(in crate::cli) struct Processors {
    theirs: CpuSet,
    ours: CpuSet,
}

impl Processors {
    /// So many of all that we may use for the servers, and the rest for the load; `None` where there is but one, or the
    /// system does not tell. To be asked once: afterwards we may use our own alone.
    pub(in crate::cli) fn look(for_servers: impl Fn(usize) -> usize) -> Option<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).ok()?;
        let all: Vec<usize> = (0..CpuSet::count())
            .filter(|&at| allowed.is_set(at) == Ok(true))
            .collect();
        if all.len() < 2 {
            return None;
        }
        let (mut theirs, mut ours) = (CpuSet::new(), CpuSet::new());
        let count = for_servers(all.len()).clamp(1, all.len() - 1);
        for (place, &at) in all.iter().enumerate() {
            let set = if place < count {
                &mut theirs
            } else {
                &mut ours
            };
            set.set(at).ok()?;
        }
        Some(Self { theirs, ours })
    }
}

/// Where it is not permitted, the assessment of the run shows the effect.
fn use_only(processors: &CpuSet) {
    let _ = sched_setaffinity(Pid::from_raw(0), processors);
}
