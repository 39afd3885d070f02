//! A server of our own, for whoever has named none: this very program, as another process.

use crate::cli::exit::{Class, Failure};
use crate::net::Address;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// `echo-reactor serve`, for as long as this lives.
#[derive(Debug)]
pub(super) struct Server {
    process: Process,
    pub(super) address: Address,
}

/// A process that ends with its owner.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // The first signal drains and the second stops at once: a clean end, which removes a socket's file.
        if let Ok(pid) = i32::try_from(self.0.id()) {
            for _ in 0..2 {
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
        }
        let _ = self.0.wait();
    }
}

impl Server {
    /// Starts it, and waits until it says where it listens.
    pub(super) fn start(address: &str) -> Result<Self, Failure> {
        let failure = |text: String| Failure::new(Class::System, text);
        let program = std::env::current_exe()
            .map_err(|error| failure(format!("this program cannot be found: {error}")))?;
        let child = Command::new(program)
            .args(["serve", address, "--quiet"])
            // What is measured is the server, and not its guard against other people's servers.
            .args(["--udp-rate", "off", "--udp-rate-per-source", "off"])
            .arg(format!("--end-with={}", std::process::id()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0) // Ctrl-C is for us; the server is to see the end of the load first
            .spawn()
            .map_err(|error| failure(format!("no server can be started: {error}")))?;
        let mut process = Process(child);
        let mut line = String::new();
        if let Some(out) = process.0.stdout.take() {
            let _ = BufReader::new(out).read_line(&mut line);
        }
        match line.trim().strip_prefix("listening ").map(str::parse) {
            Some(Ok(address)) => Ok(Self { process, address }),
            _ => Err(failure(format!("the server on {address} has not started"))),
        }
    }

    /// Gives the server a processor of its own, and the load the others, if there is more than one. Left alone, the
    /// scheduler likes to put two that talk to each other on the same one, and then each waits for the other: what is
    /// measured is neither.
    pub(super) fn separate(&self) {
        let ourselves = Pid::from_raw(0);
        let Ok(allowed) = sched_getaffinity(ourselves) else {
            return;
        };
        let mut processors = (0..CpuSet::count()).filter(|&at| allowed.is_set(at) == Ok(true));
        let (mut theirs, mut ours) = (CpuSet::new(), CpuSet::new());
        let first = processors.next().map(|at| theirs.set(at));
        let others = processors.map(|at| ours.set(at)).count();
        let Ok(pid) = i32::try_from(self.pid()) else {
            return;
        };
        if first.is_some() && others > 0 {
            // Where it is not allowed, the verdict will see what comes of that.
            let _ = sched_setaffinity(Pid::from_raw(pid), &theirs);
            let _ = sched_setaffinity(ourselves, &ours);
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.0.id()
    }
}
