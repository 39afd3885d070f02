//! Replacing the program of a master: new workers first, then this process executes the program that they run.
//!
//! ```text
//! SIGUSR2 ─ worker 0 of the program on disk is started, and the rest when it is ready      failed, or late: they are
//!         ─ all are ready, and accept nothing yet                                          killed; nothing has changed
//!         ─ execve(2) of the executable that worker 0 runs, with all sockets, all links, and the state below
//!           (the program that has just shown that it can read this version of it)
//!         ─ the program in this process reads the state: "go" to the new workers, "retire" to the old ones
//! ```
//!
//! Between the last two steps signals are blocked, which exec(3) keeps, so that none is lost or ends the process by its
//! default action. The executable is `/proc/PID/exe`: by its path another file may be found by then.

use super::listeners::{Group, Listeners};
use super::parts::{Cohort, Master, Phase};
use super::process::{Process, State};
use super::slot::Slot;
use crate::cli::error::{CliError, CliErrorKind};
use crate::cli::own_program;
use crate::cli::serve::counter_file::CounterFileOf;
use crate::cli::serve::counters::Counters;
use crate::cli::serve::link::{Command, Link, VERSION, number};
use crate::cli::serve::notify;
use crate::cli::serve::passing::{Block, Role, VARIABLES};
use crate::cli::serve::program::Program;
use crate::cli::serve::worker::name_sockets;
use crate::cli::units::plural;
use crate::net::{BoundSocket, FileIdentity, SocketFile};
use crate::procfs::own::executable_of;
use nix::unistd::{Pid, execve};
use serde_json::{Value, json};
use std::env;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::{Duration, Instant};

// --- The program that is replaced --------------------------------------------------------------------------------------

impl Master<'_> {
    /// Starts the first worker of the program on disk.
    pub(super) fn begin_replacement(&mut self) {
        if self.phase != Phase::Serving {
            return log::warn!("SIGUSR2 is ignored: this server is starting or stopping");
        }
        if self.cohort.is_some() {
            return log::warn!("SIGUSR2: a replacement is under way already; wait for it");
        }
        log::info!(
            "replacing the program by '{}', as soon as its workers are ready",
            self.program.file.display()
        );
        notify::reloading();
        self.cohort = Some(Cohort {
            is_replacement: true,
            until: Some(Instant::now() + self.args.replace_timeout()),
        });
        if let Err(error) = self.start(0, true) {
            self.give_up_replacement(&format!("it cannot be started: {error}"));
        }
    }

    /// Kills the new workers, which have accepted nothing. Everything is as it was.
    pub(super) fn give_up_replacement(&mut self, why: &str) {
        if !self
            .cohort
            .as_ref()
            .is_some_and(|cohort| cohort.is_replacement)
        {
            return;
        }
        self.cohort = None;
        for process in self
            .processes
            .iter_mut()
            .filter(|process| process.is_in_cohort)
        {
            process.is_in_cohort = false;
            process.enter(State::Retired);
            process.has_reported = true; // there is nothing to report
            process.kill();
        }
        log::warn!("the replacement failed, and nothing has changed: {why}");
        notify::ready();
    }

    /// Whether all new workers are ready.
    pub(super) fn is_replacement_ready(&self) -> bool {
        let is_replacement = self
            .cohort
            .as_ref()
            .is_some_and(|cohort| cohort.is_replacement);
        is_replacement && self.members_ready() == self.workers
    }

    /// Executes the program of the new workers. This returns only if a signal is to be handled first, or if it is
    /// impossible.
    pub(super) fn become_new_program(&mut self) {
        self.signals.block();
        if self.signals.is_pending() {
            return self.signals.unblock();
        }
        let error = self.execute();
        self.signals.unblock();
        self.give_up_replacement(&format!("it cannot be executed: {error}"));
    }

    fn execute(&self) -> io::Error {
        let attempt = || -> io::Result<()> {
            let (ours, theirs) = Link::pair()?;
            ours.send(&self.state().to_string())?;
            let links = self.processes.iter().map(|process| process.link.as_fd());
            let descriptors: Vec<_> = [theirs.as_fd()]
                .into_iter()
                .chain(links)
                .chain(self.listeners.all())
                .collect();
            let block = Block::of(&descriptors)?;
            let arguments = self.program.arguments.iter().map(|text| text.as_bytes());
            let arguments: Vec<CString> = arguments.map(CString::new).collect::<Result<_, _>>()?;
            let others =
                env::vars_os().filter(|(name, _)| !VARIABLES.iter().any(|known| name == known));
            let own = block.variables(Role::Successor);
            let own = own
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()));
            let environment = others
                .chain(own)
                .map(|(name, value): (OsString, OsString)| {
                    CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())
                });
            let environment: Vec<CString> = environment.collect::<Result<_, _>>()?;
            let Some(worker) = self.processes.iter().find(|process| process.is_in_cohort) else {
                return Err(io::ErrorKind::NotFound.into());
            };
            let executable = executable_of(worker.pid).into_os_string();
            let executable = CString::new(executable.into_vec())?;
            execve(&executable, &arguments, &environment)?;
            Ok(())
        };
        attempt()
            .err()
            .unwrap_or_else(|| io::ErrorKind::Other.into())
    }

    fn state(&self) -> Value {
        let groups = self.listeners.groups.iter().map(
            |group| json!({"endpoint": group.endpoint.to_string(), "sockets": group.sockets.len()}),
        );
        let files = self
            .listeners
            .files
            .iter()
            .map(|file| file_to_json(&file.identity()));
        let processes = self.processes.iter().map(|process| {
            json!({
                "worker": process.worker,
                "pid": process.pid.as_raw(),
                "state": process.state.name(),
                "is_new": process.is_in_cohort,
                "counter_file": process.counter_file.as_ref().map(|counter_file| counter_file.number),
                "drains_in_ms": process.drain_at.map(|at| ms(at.saturating_duration_since(Instant::now()))),
            })
        });
        let slots = self.slots.iter().map(|slot| {
            json!({
                "processes": slot.processes,
                "unreported": slot.unreported,
                "ended": slot.ended.to_message(),
            })
        });
        json!({
            "version": VERSION,
            "program": self.program.file.as_os_str().as_bytes(),
            "age_ms": ms(self.started.elapsed()),
            "groups": groups.collect::<Vec<_>>(),
            "files": files.collect::<Vec<_>>(),
            "processes": processes.collect::<Vec<_>>(),
            "slots": slots.collect::<Vec<_>>(),
        })
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
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

// --- The program that takes the process over ---------------------------------------------------------------------------

/// What the program before this one has left: its sockets, its workers, its counters.
#[derive(Debug)]
pub(in crate::cli::serve) struct Inheritance {
    pub(super) program: Program,
    pub(super) listeners: Listeners,
    pub(super) processes: Vec<Process>,
    pub(super) slots: Vec<Slot>,
    pub(super) started: Instant,
}

impl Inheritance {
    /// Reads the state, which is the message of the first link. The rest of the links are those of the workers.
    pub(in crate::cli::serve) fn read(
        links: Vec<Link>,
        sockets: Vec<BoundSocket>,
    ) -> Result<Self, CliError> {
        own_program::restore_name();
        let mut links = links.into_iter();
        let message = links.next().and_then(|link| link.receive().ok().flatten());
        let state = message.and_then(|text| serde_json::from_str::<Value>(&text).ok());
        let read = state.and_then(|state| Self::from_state(&state, links.collect(), sockets));
        read.ok_or_else(|| {
            let text = "this program was to replace another one, and cannot read its state; was ECHO_REACTOR_ROLE set by hand?";
            CliError::new(CliErrorKind::System, text)
        })
    }

    fn from_state(state: &Value, links: Vec<Link>, sockets: Vec<BoundSocket>) -> Option<Self> {
        if state["version"] != VERSION {
            return None;
        }
        let bytes = state["program"].as_array()?.iter();
        let bytes = bytes.map(|byte| byte.as_u64()?.try_into().ok());
        let mut program = Program::of_this_process();
        program.file = OsString::from_vec(bytes.collect::<Option<_>>()?).into();
        let now = Instant::now();
        let mut processes = Vec::new();
        for (process, link) in state["processes"].as_array()?.iter().zip(links) {
            processes.push(process_from_json(process, link, now)?);
        }
        let slots = state["slots"].as_array()?.iter().map(|slot| Slot {
            processes: slot["processes"].as_u64().unwrap_or(0),
            unreported: slot["unreported"].as_u64().unwrap_or(0),
            ended: Counters::from_message(&slot["ended"]),
            ..Slot::default()
        });
        let files = state["files"].as_array()?.iter().filter_map(file_from_json);
        let files = files.map(SocketFile::from_identity).collect();
        let age = Duration::from_millis(state["age_ms"].as_u64()?);
        Some(Self {
            program,
            listeners: Listeners::restored(files, groups(state, sockets)?),
            processes,
            slots: slots.collect(),
            started: now.checked_sub(age).unwrap_or(now),
        })
    }
}

fn groups(state: &Value, sockets: Vec<BoundSocket>) -> Option<Vec<Group>> {
    let mut sockets = sockets.into_iter();
    let mut groups = Vec::new();
    for group in state["groups"].as_array()? {
        let count = usize::try_from(group["sockets"].as_u64()?).ok()?;
        let mut sockets: Vec<BoundSocket> = sockets.by_ref().take(count).collect();
        let name = group["endpoint"].as_str()?.to_owned();
        name_sockets(&mut sockets, &vec![name; count]);
        let endpoint = sockets.first()?.endpoint.clone();
        groups.push(Group { endpoint, sockets });
    }
    Some(groups)
}

fn process_from_json(process: &Value, link: Link, now: Instant) -> Option<Process> {
    let worker = usize::try_from(process["worker"].as_u64()?).ok()?;
    let pid = Pid::from_raw(i32::try_from(process["pid"].as_i64()?).ok()?);
    let mut restored = Process::new(worker, pid, link);
    restored.state = State::named(process["state"].as_str()?)?;
    restored.counter_file =
        number(&process["counter_file"]).and_then(|number| CounterFileOf::open(pid, number));
    restored.is_in_cohort = process["is_new"].as_bool()?;
    let drains_in = process["drains_in_ms"].as_u64().map(Duration::from_millis);
    restored.drain_at = drains_in.and_then(|time| now.checked_add(time));
    Some(restored)
}

impl Master<'_> {
    /// Lets the new workers serve, and retires the old ones.
    pub(super) fn replace_workers(&mut self) {
        let drain_at = self
            .args
            .retire_timeout()
            .map(|timeout| Instant::now() + timeout);
        let (mut new, old): (Vec<_>, Vec<_>) = std::mem::take(&mut self.processes)
            .into_iter()
            .partition(|process| process.is_in_cohort);
        for process in &mut new {
            process.go();
        }
        let mut retired = 0;
        self.processes = new;
        for mut process in old {
            if matches!(process.state, State::Starting | State::Ready) {
                process.has_reported = true; // it has served nothing, and ends when it reads the command
            }
            if !matches!(process.state, State::Retired | State::Leaving) {
                process.tell(Command::Retire);
                process.enter(State::Retired);
                process.drain_at = drain_at;
                retired += 1;
            }
            self.processes.push(process);
        }
        log::info!(
            "replaced by version {}: {} serve; {} accept nothing more, and serve what they have",
            env!("CARGO_PKG_VERSION"),
            plural(self.workers as u64, "new worker"),
            plural(retired, "old one")
        );
        notify::ready();
    }
}
