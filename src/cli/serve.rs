//! `echo-reactor serve`: starts a server, announces its addresses, handles signals, and reports at the end.
//!
//! What may live in this file: the order of these steps, for the event loop and for the blocking models. What may not: one
//! step. Arguments are in [`args`] and [`flags`], the number of connections that fit in [`capacity`], reachability from
//! other machines in [`exposure`], inherited sockets in [`listen_fds`], errors of a start in [`errors`], the sandbox in
//! [`sandbox`], signals in [`signals`], announcements in [`notify`], [`pid_file`] and [`delivery`], handover in
//! [`handover`], the end with the parent in [`parent_death`], and the counters as JSON in [`report`].

mod args;
mod capacity;
mod delivery;
mod errors;
mod exposure;
mod flags;
mod handover;
mod listen_fds;
mod notify;
mod parent_death;
mod pid_file;
mod report;
mod sandbox;
mod signals;

pub(super) use args::ServeArgs;

use super::error::{CliError, CliErrorKind, Exit};
use super::logging;
use super::memory::{Held, MemoryTable, Row};
use super::names;
use super::output::printable;
use super::output_file::{OutputFile, Purpose};
use super::process;
use super::units::{Time, plural};
use crate::blocking;
use crate::echo::{AccessList, Config, Server, StartError, Turn};
use crate::limits::OverloadPolicy;
use crate::net::{BoundSocket, Endpoint, Resolved, bind_resolved};
use crate::stats::{CloseReason, DropReason, RejectReason, Stats};
use delivery::Delivery;
use flags::Model;
use handover::{Handover, OldProcess, Program};
use listen_fds::Inherited;
use pid_file::PidFile;
use sandbox::Sandbox;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signals::Signals;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Time for resolving all names of the command line; stated in the help of ADDRESS.
const RESOLVER_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn run(args: &ServeArgs) -> Result<Exit, CliError> {
    process::block_terminal_stop(); // from the first line of the log on
    let descriptors_inherited = process::descriptors_in_use();
    // Before anything is opened: nothing else may be at the numbers of inherited sockets.
    let inherited = listen_fds::take();
    logging::start(args.verbosity());
    let inherited = inherited?;
    let program = Program::of_this_process();
    if args
        .end_with
        .is_some_and(|parent| !parent_death::end_with(parent))
    {
        return Ok(Exit::Ok); // the parent has ended already
    }
    if inherited.predecessor.is_some() && args.sandbox != Sandbox::Off {
        // A sandboxed server starts no successor, so LISTEN_FDNAMES was set by another program.
        let text = "--sandbox excludes a hand-over by SIGUSR2: leave it out, or let a supervisor pass the sockets by LISTEN_FDS";
        return Err(CliError::new(CliErrorKind::Usage, text));
    }
    refuse_what_the_model_cannot(args, &inherited.sockets)?;
    let addresses = match inherited.predecessor {
        Some(_) => Vec::new(), // the predecessor passes its own
        None => args.addresses(!inherited.sockets.is_empty()),
    };
    let addresses = names::resolve_apart(addresses, RESOLVER_TIMEOUT)?;
    exposure::check(args, &addresses)?;
    let (limits, capacity) = capacity::fit(args, descriptors_inherited + addresses.len() as u64)?;
    let is_sandboxed = args.sandbox != Sandbox::Off;
    let report_file = args
        .stats_json()
        .map(|path| OutputFile::open("--stats-json", path, Purpose::Serving { is_sandboxed }))
        .transpose()?;
    let plan = Plan {
        addresses,
        config: args.config(limits),
        pid_file: args.pid_file(),
        sandbox: args.sandbox,
        announcement: Announcement {
            capacity,
            is_exposed: args.is_exposed(),
            delivery: Delivery::prepare(),
        },
    };
    let started = Instant::now();
    let end = match args.model {
        Model::Reactor => {
            let handover = Handover::new(
                program,
                args.handover_timeout(),
                args.handover_drain_timeout(),
            );
            serve_by_events(plan, inherited, handover)?
        }
        Model::Threads => serve_by_blocking(blocking::Model::ThreadPerConnection, plan)?,
        Model::Iterative => serve_by_blocking(blocking::Model::Iterative, plan)?,
    };
    let lasted = started.elapsed();
    let exit = conclude(&end, lasted);
    if let Some(mut file) = report_file {
        let name = args.model.name();
        let report = report::report(&end.stats, name, &end.addresses, lasted, &end.memory);
        file.write(printable(&format!("{report:#}\n")).as_bytes())?;
        file.finish()?;
    }
    Ok(exit)
}

/// A server to be started: the arguments, checked and resolved.
struct Plan<'a> {
    addresses: Vec<Resolved>,
    config: Config,
    pid_file: Option<&'a Path>,
    sandbox: Sandbox,
    announcement: Announcement,
}

/// What is announced once the server listens.
struct Announcement {
    capacity: String,
    /// Other machines are meant to reach it.
    is_exposed: bool,
    delivery: Delivery,
}

impl Announcement {
    /// Logs the capacity, and writes the addresses to standard output, where a script reads them. Either stream may be
    /// closed; that does not stop the server.
    fn tell(mut self, addresses: &[Endpoint]) -> Delivery {
        if !self.is_exposed {
            exposure::warn(addresses);
        }
        log::info!(
            "echo-reactor {}: {}; stop with Ctrl-C",
            env!("CARGO_PKG_VERSION"),
            self.capacity
        );
        let lines = |address: &Endpoint| format!("listening {address}\n");
        self.delivery
            .announce(&addresses.iter().map(lines).collect::<String>());
        self.delivery
    }
}

/// The results of a server that has ended.
struct End {
    stats: Stats,
    addresses: Vec<Endpoint>,
    /// Bytes that had been discarded when stopping began; they are not counted as lost by the stop.
    discarded_before: u64,
    /// Memory per connection at every power of ten; of the event loop alone.
    memory: Vec<Row>,
}

/// Refuses what the blocking models lack. They have no datagrams (blocking on several sockets takes a thread for each), no
/// admission control, and they bind their listeners themselves.
fn refuse_what_the_model_cannot(
    args: &ServeArgs,
    inherited: &[BoundSocket],
) -> Result<(), CliError> {
    let addresses = args.addresses(!inherited.is_empty());
    let what = if let Some(socket) = inherited.first() {
        format!("{} came by LISTEN_FDS, and that needs", socket.endpoint)
    } else if let Some(address) = addresses.iter().find(|address| address.is_datagram()) {
        format!("{address}: datagrams need")
    } else if args.access() != AccessList::default() {
        "--allow and --deny need".to_owned()
    } else if args.limits().connections_per_prefix.is_some() {
        "--max-per-prefix (which --hardened sets; 'off' takes it away) needs".to_owned()
    } else if args.limits().overload == OverloadPolicy::Reject {
        "--overload reject needs".to_owned()
    } else if args.sandbox != Sandbox::Off {
        // The models start threads while they serve; a list with the system calls for that protects little.
        "--sandbox needs".to_owned()
    } else {
        return Ok(());
    };
    if args.model == Model::Reactor {
        return Ok(());
    }
    Err(CliError::new(
        CliErrorKind::Usage,
        format!(
            "{what} --model reactor, and this is --model {}",
            args.model.name()
        ),
    ))
}

fn serve_by_events(
    plan: Plan<'_>,
    inherited: Inherited,
    mut handover: Handover,
) -> Result<End, CliError> {
    // Handlers come first: a script that reads the address may send a signal at once.
    let mut signals = Signals::register()?;
    let mut commands = SignalCommands::new(plan.config.limits.drain_timeout);
    let is_confined = plan.sandbox != Sandbox::Off;
    let Opened {
        mut server,
        mut delivery,
        mut pid_file,
    } = open(plan, inherited)?;
    signals.watch_with(&server)?;
    let addresses = server.addresses().to_vec();
    let mut wait = delivery.retry();
    loop {
        let turn = server.turn(wait);
        let turn = turn.map_err(|error| errors::system("the event loop failed", &error))?;
        let is_due = commands.memory.is_due(server.stats().connections_open);
        let is_woken = turn == Turn::Woken || signals.is_pending();
        if turn == Turn::Serving && !is_woken && !is_due && wait.is_none() {
            continue; // nearly always
        }
        if turn == Turn::Finished {
            break;
        }
        wait = None;
        if is_woken {
            for signal in signals.take() {
                match signal {
                    SIGUSR2 if is_confined => log::warn!(
                        "SIGUSR2 is refused: in a sandbox no other process can be started; \
                         a supervisor can pass the sockets by LISTEN_FDS"
                    ),
                    SIGUSR2 if commands.stopping.is_none() => handover.begin(&mut server),
                    SIGUSR2 => log::warn!("SIGUSR2 is ignored: this process is stopping"),
                    other => commands.follow(other, &mut server),
                }
            }
            if commands.stopping.is_some() {
                handover.give_up();
            }
            // What the signal has closed raises no event, so the next turn must not wait for one.
            wait = Some(Duration::ZERO);
        }
        if is_due {
            commands.memory.add(server.held());
        }
        if handover.is_under_way() {
            handover.look(&mut server);
            if handover.is_handed_over() {
                commands.is_the_service = false;
                if let Some(file) = pid_file.take() {
                    file.leave();
                }
            }
            wait = wait.or(handover.timeout());
        }
        wait = [wait, delivery.retry()].into_iter().flatten().min();
    }
    delivery.finish();
    Ok(End {
        stats: server.stats().clone(),
        addresses,
        discarded_before: commands.discarded_before(),
        memory: commands.memory.rows().to_vec(),
    })
}

/// A server that has been announced.
struct Opened {
    server: Server,
    delivery: Delivery,
    pid_file: Option<PidFile>,
}

/// Opens the listeners, inherited ones and those of the arguments, and announces the server once it may accept.
fn open(plan: Plan<'_>, inherited: Inherited) -> Result<Opened, CliError> {
    let Inherited {
        mut sockets,
        predecessor,
    } = inherited;
    let predecessor = predecessor.map(OldProcess::read).transpose()?;
    let mut addresses = plan.addresses;
    if let Some(predecessor) = &predecessor {
        predecessor.name(&mut sockets);
    }
    // What was passed to this process need not be bound again, even if a name means it.
    for address in &mut addresses {
        let is_new = |endpoint: &Endpoint| sockets.iter().all(|own| own.endpoint != *endpoint);
        address.endpoints.retain(is_new);
    }
    addresses.retain(|address| !address.endpoints.is_empty());
    if sockets.is_empty() || !addresses.is_empty() {
        let bound = bind_resolved(&addresses, &plan.config.bind_options())
            .map_err(|error| errors::start_error(&StartError::Bind(error)))?;
        sockets.extend(bound);
    }
    let mut server =
        Server::with_sockets(sockets, plan.config).map_err(|error| errors::start_error(&error))?;
    let write_pid_file = || plan.pid_file.map(PidFile::write).transpose();
    let Some(predecessor) = predecessor else {
        let pid_file = write_pid_file()?;
        // Everything that is ever opened is open now, and no connection has been accepted.
        sandbox::enter(plan.sandbox, server.addresses(), plan.pid_file)?;
        let delivery = plan.announcement.tell(server.addresses());
        return Ok(Opened {
            server,
            delivery,
            pid_file,
        });
    };
    predecessor.succeed(&mut server);
    // This process serves the clients by now, so a failure must not end it.
    let pid_file = write_pid_file().unwrap_or_else(|failure| {
        log::error!("{}", failure.text);
        None
    });
    Ok(Opened {
        server,
        delivery: plan.announcement.delivery,
        pid_file,
    })
}

fn serve_by_blocking(model: blocking::Model, plan: Plan<'_>) -> Result<End, CliError> {
    let mut signals = signals::signals()?;
    signals::listen();
    let mut commands = SignalCommands::new(plan.config.limits.drain_timeout);
    let options = plan.config.bind_options();
    let server =
        blocking::Server::bind_resolved(model, &plan.addresses, plan.config.limits, &options)
            .map_err(|error| errors::blocking_error(&error))?;
    let _pid_file = plan.pid_file.map(PidFile::write).transpose()?;
    let mut handle = server.handle();
    let closer = signals.handle();
    let watch = move || {
        for signal in &mut signals {
            commands.follow(signal.si_signo, &mut handle);
        }
        commands
    };
    let watcher = thread::Builder::new()
        .name("signals".to_owned())
        .spawn(watch)
        .map_err(|error| errors::system("no thread for signals", &error))?;
    let addresses = server.addresses();
    let mut delivery = plan.announcement.tell(&addresses);
    if let Some(mut pause) = delivery.retry() {
        let deliver = move || loop {
            thread::sleep(pause);
            match delivery.retry() {
                Some(next) => pause = next,
                None => break,
            }
        };
        // Without a thread there is only the first attempt.
        let _ = thread::Builder::new().spawn(deliver);
    }
    let result = server.run();
    notify::finish(delivery::FINISH_TIMEOUT);
    closer.close();
    let commands = watcher.join().ok();
    Ok(End {
        stats: result.map_err(|error| errors::system("serving failed", &error))?,
        addresses,
        discarded_before: commands.map_or(0, |commands| commands.discarded_before()),
        memory: Vec::new(),
    })
}

/// The operations of a server that signals call.
trait Served {
    fn drain(&mut self);
    fn stop(&mut self);
    fn stats(&self) -> Stats;

    /// Connections and their memory, for the table of memory.
    fn held(&self) -> Held {
        let stats = self.stats();
        Held {
            connections: stats.connections_open,
            write_buffers: stats.unsent_bytes,
            ..Held::default()
        }
    }
}

impl Served for Server {
    fn drain(&mut self) {
        Self::drain(self);
    }

    fn stop(&mut self) {
        Self::stop(self);
    }

    fn stats(&self) -> Stats {
        Self::stats(self).clone()
    }

    fn held(&self) -> Held {
        let stats = Self::stats(self);
        let (taken, room) = self.slot_bytes();
        Held {
            connections: stats.connections_open,
            slots: (taken as u64, room as u64),
            write_buffers: stats.unsent_bytes,
            turn_us_max: stats.turn_us_max,
        }
    }
}

impl Served for blocking::Handle {
    fn drain(&mut self) {
        Self::drain(self);
    }

    fn stop(&mut self) {
        Self::stop(self);
    }

    fn stats(&self) -> Stats {
        Self::stats(self)
    }
}

/// Commands that came as signals.
#[derive(Debug)]
struct SignalCommands {
    drain_timeout: Duration,
    /// Bytes discarded when the first signal to stop came, if one has.
    stopping: Option<u64>,
    /// Whether the service manager counts this process as the service: no longer after a hand-over.
    is_the_service: bool,
    /// Memory per connection so far.
    memory: MemoryTable,
}

impl SignalCommands {
    fn new(drain_timeout: Duration) -> Self {
        Self {
            drain_timeout,
            stopping: None,
            is_the_service: true,
            memory: MemoryTable::new(&[std::process::id()]),
        }
    }

    fn discarded_before(&self) -> u64 {
        self.stopping.unwrap_or(0)
    }

    /// Prints the counters, and memory per connection at every power of ten and now.
    fn print_counters(&self, server: &impl Served) {
        logging::print_line(&server.stats().to_string());
        let held = server.held();
        let now = self.memory.row(held.connections, Some(held), false);
        for row in self.memory.rows().iter().chain([&now]) {
            logging::print_line(&row.to_string());
        }
    }

    fn follow(&mut self, signal: i32, server: &mut impl Served) {
        match signal {
            SIGTERM | SIGINT if self.stopping.is_some() => {
                log::info!("stopping at once");
                server.stop();
            }
            SIGTERM | SIGINT => {
                let stats = server.stats();
                self.stopping = Some(stats.discarded);
                if self.is_the_service {
                    notify::stopping();
                }
                log::info!(
                    "draining {}, at most {}; once more to stop at once",
                    plural(stats.connections_open, "connection"),
                    Time(self.drain_timeout)
                );
                server.drain();
            }
            SIGUSR1 => self.print_counters(server),
            SIGUSR2 => log::warn!("SIGUSR2 is ignored: only --model reactor hands over"),
            SIGHUP => log::info!("SIGHUP is ignored; SIGTERM drains and stops"),
            _ => {}
        }
    }
}

/// Logs the result, and returns whether the end was in order.
fn conclude(end: &End, lasted: Duration) -> Exit {
    let lasted = Duration::from_millis(u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX));
    log::info!("ended after {}: {}", Time(lasted), end.stats);
    if let Err(problem) = end.stats.check_invariants() {
        log::error!("a bug in this program, please report it: the counters disagree: {problem}");
    }
    let cut = end.stats.closed(CloseReason::Aborted);
    let refused = end.stats.rejected(RejectReason::Stopping);
    let dropped = end.stats.dropped(DropReason::Stopping);
    if cut + refused + dropped == 0 {
        return Exit::Ok;
    }
    let bytes = end.stats.discarded.saturating_sub(end.discarded_before);
    let mut lost = format!(
        "{} cut, {} not echoed",
        plural(cut, "connection"),
        plural(bytes, "byte")
    );
    if refused > 0 {
        lost += &format!("; {} reset", plural(refused, "queued connection"));
    }
    if dropped > 0 {
        lost += &format!("; {} not answered", plural(dropped, "queued datagram"));
    }
    logging::print_line(&format!("echo-reactor: {lost}"));
    Exit::Cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Recorder {
        said: Vec<&'static str>,
        stats: Stats,
    }

    impl Served for Recorder {
        fn drain(&mut self) {
            self.said.push("drain");
        }

        fn stop(&mut self) {
            self.said.push("stop");
        }

        fn stats(&self) -> Stats {
            self.stats.clone()
        }
    }

    #[test]
    fn the_first_sigterm_drains_and_the_second_stops_whatever_comes_between() {
        let mut commands = SignalCommands::new(Duration::from_secs(5));
        let mut server = Recorder::default();
        server.stats.discarded = 7;
        for signal in [SIGHUP, SIGUSR1, SIGTERM, SIGUSR1, SIGHUP] {
            commands.follow(signal, &mut server);
        }
        assert_eq!(server.said, ["drain"]);
        assert_eq!(commands.discarded_before(), 7);
        server.stats.discarded = 9;
        commands.follow(SIGINT, &mut server);
        assert_eq!(server.said, ["drain", "stop"]);
        assert_eq!(commands.discarded_before(), 7, "the first signal counts");
    }

    #[test]
    fn an_end_with_aborted_connections_has_an_exit_code_of_its_own() {
        let mut end = End {
            stats: Stats::default(),
            addresses: Vec::new(),
            discarded_before: 0,
            memory: Vec::new(),
        };
        assert_eq!(conclude(&end, Duration::ZERO), Exit::Ok);
        end.stats.open();
        end.stats.close(CloseReason::Aborted, 0);
        assert_eq!(conclude(&end, Duration::ZERO), Exit::Cut);
        end.stats = Stats::default();
        end.stats.reject(RejectReason::Stopping);
        assert_eq!(conclude(&end, Duration::ZERO), Exit::Cut);
        end.stats = Stats::default();
        end.stats.datagrams_in += 1;
        end.stats.drop_datagram(DropReason::Stopping);
        assert_eq!(conclude(&end, Duration::ZERO), Exit::Cut);
    }
}
