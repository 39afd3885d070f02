//! Serving by the event loop: turns of the server, and what is looked after between two of them.

use super::admin::Admin;
use super::commands::SignalCommands;
use super::counters::Counters;
use super::delivery::Delivery;
use super::end::End;
use super::errors;
use super::pid_file::PidFile;
use super::plan::Plan;
use super::sandbox;
use super::signals::Signals;
use super::tracing::{TraceOutput, Tracing, Untraced};
use super::watching::Watching;
use crate::cli::error::CliError;
use crate::cli::memory::MemoryTable;
use crate::echo::{Backend, Native, Os, Server, StartError, Turn};
use crate::faults::{Faulty, FaultySelector};
use crate::net::{BoundSocket, Endpoint, bind_resolved};
use crate::reactor::Epoll;
use crate::trace::Traced;
use crate::trace::traced::TracedSelector;
use std::io;
use std::time::{Duration, Instant};

/// What drives the server beside its clients.
pub(super) trait Control<B: Backend> {
    /// A turn is over, of whatever kind.
    fn after_turn(&mut self, server: &Server<B>);

    /// The loop was woken: commands may have come.
    fn on_woken(&mut self, signals: &mut Signals, server: &mut Server<B>);

    /// Does what is due: announcements that are not taken yet, a drain that was delayed, and requests for health and
    /// metrics. Returns the time until there is something to do.
    fn on_time(&mut self, server: &mut Server<B>) -> Option<Duration>;

    fn memory(&mut self) -> &mut MemoryTable;
}

/// Runs turns until the server has stopped.
pub(super) fn run<B: Backend>(
    server: &mut Server<B>,
    signals: &mut Signals,
    control: &mut impl Control<B>,
) -> Result<(), CliError> {
    let mut wait = control.on_time(server);
    loop {
        let turn = server
            .turn(wait)
            .map_err(|error| errors::system("the event loop failed", &error))?;
        control.after_turn(server);
        let is_due = control.memory().is_due(server.stats().connections_open);
        let is_woken = turn == Turn::Woken || signals.is_pending();
        if turn == Turn::Serving && !is_woken && !is_due && wait.is_none() {
            continue; // nearly always
        }
        if turn == Turn::Finished {
            return Ok(());
        }
        wait = None;
        if is_woken {
            control.on_woken(signals, server);
            // What the signal has closed raises no event, so the next turn must not wait for one.
            wait = Some(Duration::ZERO);
        }
        if is_due {
            control.memory().add(super::commands::held(server));
        }
        wait = [wait, control.on_time(server)].into_iter().flatten().min();
    }
}

/// The commands of a server that is one process.
struct Alone<T> {
    commands: SignalCommands,
    delivery: Delivery,
    tracing: T,
    admin: Option<Admin>,
    watching: Option<Watching>,
}

impl<B: Native, T: Tracing> Control<B> for Alone<T> {
    fn after_turn(&mut self, _server: &Server<B>) {
        self.tracing.after_turn();
    }

    fn on_woken(&mut self, signals: &mut Signals, server: &mut Server<B>) {
        for signal in signals.take() {
            self.commands.follow(signal, server);
            self.tracing.on_signal(signal);
        }
        if let Some(admin) = &mut self.admin {
            admin.wake();
        }
        if let Some(watching) = &mut self.watching {
            watching.wake();
        }
    }

    fn on_time(&mut self, server: &mut Server<B>) -> Option<Duration> {
        let delivery = self.delivery.retry();
        let drain = self.commands.on_time(Instant::now(), server);
        let is_ready = !self.commands.is_stopping();
        let admin = (self.admin.as_mut()).and_then(|admin| admin.serve(server, is_ready));
        let watching = self.watching.as_mut();
        let watching = watching.and_then(|watching| watching.serve(server, &self.tracing));
        let next = [delivery, drain, admin, watching];
        next.into_iter().flatten().min()
    }

    fn memory(&mut self) -> &mut MemoryTable {
        &mut self.commands.memory
    }
}

/// Serves in this process until the server has stopped, recorded or not, with ordered faults or without.
pub(super) fn serve(
    plan: Plan<'_>,
    inherited: Vec<BoundSocket>,
    trace: Option<TraceOutput>,
) -> Result<End, CliError> {
    if let Some(faults) = plan.faults {
        let selector = || FaultySelector::new(Epoll::new()?, faults);
        return serve_on::<Faulty<Os>, _>(plan, inherited, selector, Untraced);
    }
    let Some(trace) = trace else {
        return serve_on::<Os, _>(plan, inherited, Epoll::new, Untraced);
    };
    let recorder = trace.recorder();
    let selector = || Ok(TracedSelector::new(Epoll::new()?, recorder));
    serve_on::<Traced<Os>, _>(plan, inherited, selector, trace)
}

fn serve_on<B: Native, T: Tracing>(
    plan: Plan<'_>,
    inherited: Vec<BoundSocket>,
    selector: impl FnOnce() -> io::Result<B::Selector>,
    tracing: T,
) -> Result<End, CliError> {
    // Handlers come first: a script that reads the address may send a signal at once.
    let mut signals = Signals::register()?;
    let commands = SignalCommands::new(plan.drain_delay, plan.config.limits.drain_timeout);
    let sockets = bind(&plan, inherited)?;
    let admin = plan.admin.map(|admin| Admin::bind(admin, &plan.config));
    let admin = admin.transpose()?;
    let watching = plan.watch.map(|name| Watching::bind(name, &plan.config));
    let watching = watching.transpose()?;
    let mut server = Server::<B>::with_selector(selector, sockets, plan.config)
        .map_err(|error| errors::start_error(&error))?;
    let _pid_file = plan.pid_file.map(PidFile::write).transpose()?;
    // Everything that is ever opened is open now, and no connection has been accepted.
    let mut endpoints = server.addresses().to_vec();
    endpoints.extend_from_slice(admin.as_ref().map_or(&[], Admin::endpoints));
    endpoints.extend(watching.as_ref().map(|one| one.endpoint().clone()));
    sandbox::enter(plan.sandbox, &endpoints, plan.pid_file)?;
    let delivery = plan.announcement.tell(server.addresses());
    signals.watch_with(&server)?;
    if let Some(admin) = &admin {
        admin.watch_with(&server)?;
    }
    if let Some(watching) = &watching {
        watching.watch_with(&server)?;
    }
    let addresses = server.addresses().to_vec();
    let mut alone = Alone {
        commands,
        delivery,
        tracing,
        admin,
        watching,
    };
    run(&mut server, &mut signals, &mut alone)?;
    let Alone {
        commands,
        delivery,
        tracing,
        ..
    } = alone;
    delivery.finish();
    Ok(End {
        counters: Counters::of(
            server.stats(),
            commands.discarded_before(),
            commands.memory.rows(),
        ),
        addresses,
        trace: tracing.finish(),
        ..End::default()
    })
}

/// Binds the addresses of the arguments beside the inherited sockets. An address that was passed to this process need not
/// be bound again, even if a name means it.
pub(super) fn bind(
    plan: &Plan<'_>,
    inherited: Vec<BoundSocket>,
) -> Result<Vec<BoundSocket>, CliError> {
    let mut sockets = inherited;
    let mut addresses = plan.addresses.clone();
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
    Ok(sockets)
}
