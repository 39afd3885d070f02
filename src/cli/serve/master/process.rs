//! A process that serves as a worker: how it is started, and how far it is.

use crate::cli::error::Exit;
use crate::cli::logging;
use crate::cli::own_program;
use crate::cli::serve::counter_file::CounterFileOf;
use crate::cli::serve::counters::Counters;
use crate::cli::serve::link::{Assignment, Command, Link};
use crate::cli::serve::passing::{Block, Role, VARIABLES};
use crate::cli::serve::program::Program;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Stdio;
use std::time::Instant;

/// How far a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It was started.
    Starting,
    /// Everything is open, and it waits for "go".
    Ready,
    /// It accepts and serves.
    Serving,
    /// It accepts nothing more, and serves on.
    Retired,
    /// It drains, because a signal told it to.
    Leaving,
}

impl State {
    pub(super) const ALL: [(Self, &'static str); 5] = [
        (Self::Starting, "starting"),
        (Self::Ready, "ready"),
        (Self::Serving, "serving"),
        (Self::Retired, "retired"),
        (Self::Leaving, "leaving"),
    ];

    pub(super) fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        let found = Self::ALL.into_iter().find(|(_, known)| *known == name);
        found.map(|(state, _)| state)
    }
}

/// Why workers could not begin.
#[derive(Debug)]
pub(super) enum Failure {
    /// It has said why, and ended with this code.
    Told(Exit),
    Untold(String),
}

#[derive(Debug)]
pub(super) struct Process {
    pub(super) worker: usize,
    pub(super) pid: Pid,
    pub(super) link: Link,
    pub(super) is_link_open: bool,
    pub(super) state: State,
    /// Since when it is in this state.
    pub(super) since: Instant,
    /// Whether it begins together with the rest of a cohort.
    pub(super) is_in_cohort: bool,
    /// When it is told to drain, if it is retired and has clients by then.
    pub(super) drain_at: Option<Instant>,
    /// Its counters in memory, for the case that it is killed.
    pub(super) counter_file: Option<CounterFileOf>,
    /// Its last report.
    pub(super) counters: Option<Counters>,
    /// Whether that was its very last one.
    pub(super) has_reported: bool,
    /// Whether it was asked for its counters, and has not answered yet.
    pub(super) is_asked: bool,
}

impl Process {
    /// Starts a worker: this very program, or the one that is on disk now.
    pub(super) fn start(
        program: &Program,
        is_new: bool,
        worker: usize,
        workers: usize,
        sockets: &[(BorrowedFd<'_>, String)],
    ) -> io::Result<Self> {
        let (link, theirs) = Link::pair()?;
        let assignment = Assignment {
            worker,
            workers,
            endpoints: sockets.iter().map(|(_, name)| name.clone()).collect(),
        };
        link.send(&assignment.to_message())?;
        let descriptors = sockets.iter().map(|(descriptor, _)| *descriptor);
        let descriptors: Vec<_> = [theirs.as_fd()].into_iter().chain(descriptors).collect();
        let block = Block::of(&descriptors)?;
        let mut command = match is_new {
            true => program.command(),
            false => own_program::command_with_settings()?,
        };
        command.args(&program.arguments[1.min(program.arguments.len())..]);
        for name in VARIABLES {
            command.env_remove(name);
        }
        if logging::ignores_environment() {
            command.env_remove("RUST_LOG");
        }
        let child = command
            .envs(block.variables(Role::Worker))
            .env_remove("NOTIFY_SOCKET") // the master speaks for all
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self::new(worker, pid(child.id()), link))
    }

    pub(super) fn new(worker: usize, pid: Pid, link: Link) -> Self {
        Self {
            worker,
            pid,
            link,
            is_link_open: true,
            state: State::Starting,
            since: Instant::now(),
            is_in_cohort: false,
            drain_at: None,
            counter_file: None,
            counters: None,
            has_reported: false,
            is_asked: false,
        }
    }

    /// Sends a command. A worker that does not take it has ended, or is stopped and reads it later.
    pub(super) fn tell(&self, command: Command) {
        if let Err(error) = self.link.send(command.name()) {
            log::debug!(
                "process {} was not told to {}: {error}",
                self.pid,
                command.name()
            );
        }
    }

    pub(super) fn enter(&mut self, state: State) {
        self.state = state;
        self.since = Instant::now();
    }

    /// The counters of a process that has ended without a report, as far as it has kept them: what was open is lost.
    pub(super) fn kept_counters(&self) -> Option<Counters> {
        let mut stats = self.counter_file.as_ref()?.read()?;
        stats.close_as_killed();
        Some(Counters {
            stats,
            ..Counters::default()
        })
    }

    /// Kills it: it serves nothing, or does not react.
    pub(super) fn kill(&self) {
        let _ = kill(self.pid, Signal::SIGKILL);
    }

    pub(super) fn go(&mut self) {
        self.is_in_cohort = false;
        self.tell(Command::Go);
        self.enter(State::Serving);
    }

    /// Why it is not part of a cohort any more. A worker that ends with a code of this program has said why.
    pub(super) fn failure(&self, status: WaitStatus) -> Failure {
        if let WaitStatus::Exited(_, code) = status {
            if let Some(exit) = Exit::with_code(code).filter(|&exit| exit != Exit::Ok) {
                return Failure::Told(exit);
            }
        }
        Failure::Untold(format!(
            "worker {}, process {}, {} before it was ready",
            self.worker,
            self.pid,
            told(status)
        ))
    }
}

pub(super) fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap_or(i32::MAX))
}

/// How a process ended.
pub(super) fn told(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("ended with code {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("was killed by {signal}"),
        other => format!("ended: {other:?}"),
    }
}
