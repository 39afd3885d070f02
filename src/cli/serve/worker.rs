//! A worker: the server of one process, whole, on sockets that its master has made, with its commands from the master.
//!
//! A worker gets its assignment and its sockets, opens everything, enters the sandbox, and tells that it is ready; it accepts
//! nothing before the master says so. It removes no file and announces nothing: those are the master's. If the master is
//! gone, which ends the link, the worker drains and ends.
//!
//! SIGTERM and SIGINT mean "drain", however often they come: a terminal and a service manager send them to every process of
//! a group, the master too, and a second one is counted there. "At once" comes from the master alone. With `--drain-delay`
//! a worker that got the signal serves on for that time as the master does, and drains when the master tells it to.

use super::args::ServeArgs;
use super::capacity;
use super::commands::held;
use super::counter_file::CounterFile;
use super::counters::Counters;
use super::errors;
use super::event_loop::{self, Control};
use super::link::{Assignment, Command, Link, Report};
use super::sandbox;
use super::signals::Signals;
use crate::cli::error::{CliError, CliErrorKind, Exit};
use crate::cli::logging;
use crate::cli::memory::MemoryTable;
use crate::cli::own_program;
use crate::echo::{Os, Server};
use crate::net::{Address, BoundSocket};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::ErrorKind;
use std::time::{Duration, Instant};

/// Time after a delay in which the command of the master comes, if it got the signal, too. A worker that drains by itself is
/// replaced.
const MASTER_FIRST: Duration = Duration::from_millis(250);

/// Serves what the master assigns, until it or its master ends.
pub(super) fn run(
    args: &ServeArgs,
    links: Vec<Link>,
    mut sockets: Vec<BoundSocket>,
    descriptors_inherited: u64,
) -> Result<Exit, CliError> {
    let (link, assignment) = assignment(links)?;
    logging::name_process(format!("worker {}", assignment.worker));
    own_program::set_name(&format!("echo-reactor/{}", assignment.worker));
    let mut signals = Signals::register()?;
    name_sockets(&mut sockets, &assignment.endpoints);
    let limits = capacity::of_worker(
        args,
        descriptors_inherited,
        assignment.worker,
        assignment.workers,
    )?;
    let memory = MemoryTable::of_this_process();
    let mut server = Server::with_sockets(sockets, args.config(limits))
        .map_err(|error| errors::start_error(&error))?;
    let counter_file = CounterFile::create();
    let counter_file =
        counter_file.inspect_err(|error| log::debug!("no counters are kept: {error}"));
    sandbox::enter_without_files(args.sandbox, server.addresses())?;
    let mut worker = Worker {
        link,
        counter_file: counter_file.ok(),
        memory,
        drain_delay: args.drain_delay(),
        drain_at: None,
        stopping: None,
    };
    worker.tell(&Report::Ready {
        counter_file: worker.counter_file.as_ref().map(CounterFile::number),
    });
    let command = worker.first_command()?;
    if !matches!(command, Some(Command::Go | Command::Drain)) {
        return Ok(Exit::Ok); // there is nothing to serve, or no master
    }
    let no_link = |error| errors::system("no link to the master in the event loop", &error);
    server.watch(&worker.link).map_err(no_link)?;
    signals.watch_with(&server)?;
    if command == Some(Command::Drain) {
        worker.drain(&mut server); // what is queued is served all the same
    }
    worker.follow_link(&mut server); // a command that came before the link was watched
    event_loop::run(&mut server, &mut signals, &mut worker)?;
    let counters = worker.counters(&server);
    worker.tell(&Report::End(counters));
    Ok(Exit::Ok)
}

fn assignment(links: Vec<Link>) -> Result<(Link, Assignment), CliError> {
    let read = |link: Link| match link.wait() {
        Ok(Some(message)) => Ok((link, Assignment::from_message(&message)?)),
        Ok(None) => Err("the master has ended".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let link = links.into_iter().next();
    let link =
        link.ok_or_else(|| "there is no link; was ECHO_REACTOR_ROLE set by hand?".to_owned());
    link.and_then(read).map_err(|why| {
        let text = format!("this worker got no assignment from its master: {why}");
        CliError::new(CliErrorKind::System, text)
    })
}

/// Gives Unix sockets the names of their files. getsockname(2) tells only the name under which they were bound, before the
/// file was moved to its place.
pub(super) fn name_sockets(sockets: &mut [BoundSocket], endpoints: &[String]) {
    for (socket, endpoint) in sockets.iter_mut().zip(endpoints) {
        if let Ok(address @ (Address::Unix(_) | Address::UnixDatagram(_))) = endpoint.parse() {
            if let Some(endpoint) = address.resolve().ok().and_then(|mut all| all.pop()) {
                socket.endpoint = endpoint;
            }
        }
    }
}

struct Worker {
    link: Link,
    /// What its master knows of its counters if it is killed.
    counter_file: Option<CounterFile>,
    memory: MemoryTable,
    drain_delay: Duration,
    /// When it drains, because it got a signal itself.
    drain_at: Option<Instant>,
    /// Bytes discarded when stopping began, if it has.
    stopping: Option<u64>,
}

impl Worker {
    /// Reports to the master. A master that is gone or stopped is no reason to fail: the end of the link is noticed elsewhere.
    fn tell(&self, report: &Report) {
        if let Err(error) = self.link.send(&report.to_message()) {
            log::debug!("the master was not told: {error}");
        }
    }

    fn counters(&self, server: &Server) -> Counters {
        let discarded_before = self.stopping.unwrap_or(0);
        Counters::of(server.stats(), discarded_before, self.memory.rows())
    }

    /// The counters of now, with a row of memory of now.
    fn counters_now(&self, server: &Server) -> Counters {
        let mut counters = self.counters(server);
        let held = held(server);
        let row = self.memory.row(held.connections, Some(held));
        counters.memory.push(row.to_json());
        counters
    }

    /// Waits for the first command; there is none if the master is gone.
    fn first_command(&self) -> Result<Option<Command>, CliError> {
        let failed = |error| errors::system("no command from the master", &error);
        let command = self.link.wait().map_err(failed)?;
        Ok(command.as_deref().and_then(Command::named))
    }

    /// Follows the commands that have come over the link.
    fn follow_link(&mut self, server: &mut Server) {
        loop {
            match self.link.receive() {
                Ok(Some(message)) => match Command::named(&message) {
                    Some(command) => self.follow(command, server),
                    None => log::warn!("the master said {message:?}, which is unknown here"),
                },
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Ok(None) | Err(_) => {
                    if self.stopping.is_none() {
                        log::warn!("the master is gone; this worker drains");
                        self.drain(server);
                    }
                    return;
                }
            }
        }
    }

    fn follow(&mut self, command: Command, server: &mut Server) {
        match command {
            Command::Go => {}
            Command::Retire => server.detach_listeners(),
            Command::Drain => self.drain(server),
            Command::Stop => {
                self.drain(server);
                server.stop();
            }
            Command::Count => self.tell(&Report::Count(self.counters_now(server))),
        }
    }

    fn drain(&mut self, server: &mut Server) {
        self.drain_at = None;
        self.stopping.get_or_insert(server.stats().discarded);
        server.drain();
    }
}

impl Control<Os> for Worker {
    fn after_turn(&mut self, server: &Server) {
        if let Some(counter_file) = &mut self.counter_file {
            counter_file.update(server.stats());
        }
    }

    fn on_woken(&mut self, signals: &mut Signals, server: &mut Server) {
        self.follow_link(server); // first: a drain by the master needs no report
        for signal in signals.take() {
            if matches!(signal, SIGTERM | SIGINT) && self.stopping.is_none() {
                let delay = match self.drain_delay.is_zero() {
                    true => Duration::ZERO,
                    false => self.drain_delay + MASTER_FIRST,
                };
                self.drain_at.get_or_insert(Instant::now() + delay);
            }
        }
    }

    fn on_time(&mut self, server: &mut Server) -> Option<Duration> {
        let left = self.drain_at?.saturating_duration_since(Instant::now());
        if left.is_zero() {
            self.tell(&Report::Leaving);
            self.drain(server);
        }
        Some(left)
    }

    fn memory(&mut self) -> &mut MemoryTable {
        &mut self.memory
    }
}
