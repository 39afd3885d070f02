//! `echo-reactor serve`: starts a server, announces its addresses, handles signals, and reports at the end.
//!
//! What may live in this file: the order of these steps. What may not: one step. Arguments are in [`args`] and [`flags`], the
//! number of connections that fit in [`capacity`], reachability from other machines in [`exposure`], load balancers in
//! [`proxies`] and [`proxy_check`], inherited sockets in
//! [`listen_fds`], errors of a start in [`errors`], the sandbox in [`sandbox`], signals in [`signals`] and [`commands`],
//! announcements in [`announcement`], [`notify`], [`pid_file`] and [`delivery`], the end with the parent in [`parent_death`],
//! health and metrics in [`admin`], the state for `watch` in [`watching`], the results in [`counters`], [`end`] and [`report`], and the trace of a recorded server in [`tracing`].
//! `--print-config` is answered by [`print_config`](mod@print_config); [`faults`](mod@faults) are those to order,
//! and [`identity`](mod@identity) makes answers in place of echoes.
//!
//! Three ways to serve: in this process by [`event_loop`] or by [`blocking_models`], or by workers under a [`master`]; a
//! [`worker`] is the event loop again, on sockets that the master passes ([`passing`]) and with a [`link`] to it.

mod admin;
mod announcement;
mod args;
mod blocking_models;
mod capacity;
mod commands;
mod counter_file;
mod counters;
mod delivery;
mod end;
mod errors;
mod event_loop;
mod exposure;
mod faults;
mod flags;
mod identity;
mod link;
mod listen_fds;
mod master;
mod notify;
mod parent_death;
mod passing;
mod pid_file;
mod plan;
mod print_config;
mod program;
mod proxies;
mod proxy_check;
mod report;
mod sandbox;
mod shares;
mod signals;
mod tracing;
mod watching;
mod worker;

pub(super) use args::ServeArgs;
pub(super) use watching::{REQUEST, WatchName, WatchState};

use super::error::{CliError, Exit};
use super::logging;
use super::names;
use super::output::printable;
use super::output_file::{OutputFile, Purpose};
use super::process;
use crate::blocking;
use crate::echo::AccessList;
use crate::limits::OverloadPolicy;
use crate::net::BoundSocket;
use announcement::Announcement;
use delivery::Delivery;
use end::conclude;
use flags::Model;
use identity::Reply;
use listen_fds::Inherited;
use master::{Inheritance, Master, Outcome};
use passing::Role;
use plan::Plan;
use sandbox::Sandbox;
use std::time::{Duration, Instant};
use tracing::TraceOutput;

/// Time for resolving all names of the command line; stated in the help of ADDRESS.
const RESOLVER_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn run(args: &ServeArgs) -> Result<Exit, CliError> {
    process::block_terminal_stop(); // from the first line of the log on
    let descriptors_inherited = process::descriptors_in_use();
    // Before anything is opened: nothing else may be at the numbers of inherited sockets.
    let inherited = listen_fds::take();
    logging::start(args.verbosity());
    let Inherited {
        role,
        sockets,
        links,
    } = inherited?;
    let started = Instant::now();
    match role {
        Some(Role::Worker) => worker::run(args, links, sockets, descriptors_inherited),
        Some(Role::Successor) => {
            let inheritance = Inheritance::read(links, sockets)?;
            let report_file = open_report(args).unwrap_or_else(|failure| {
                log::error!("{}", failure.text); // no reason to end a service
                None
            });
            let delivery = Delivery::prepare();
            let outcome = Master::succeed(args, delivery, inheritance)?;
            finish(args, outcome, report_file, started)
        }
        None => start(args, sockets, descriptors_inherited, started),
    }
}

/// Prints what the flags are set to, or says why no server would start with it.
pub(super) fn print_config(
    args: &ServeArgs,
    command: &clap::Command,
    given: &clap::ArgMatches,
) -> Result<Exit, CliError> {
    let limits = args.limits().check();
    limits.map_err(|error| errors::limit_error(&error))?;
    refuse_what_the_model_cannot(args, &[])?;
    proxy_check::check(args, &[])?;
    print_config::print(args, command, given)
}

/// Serves as the process that was started by a user.
fn start(
    args: &ServeArgs,
    inherited: Vec<BoundSocket>,
    descriptors_inherited: u64,
    started: Instant,
) -> Result<Exit, CliError> {
    if args
        .end_with
        .is_some_and(|parent| !parent_death::end_with(parent))
    {
        return Ok(Exit::Ok); // the parent has ended already
    }
    refuse_what_the_model_cannot(args, &inherited)?;
    proxy_check::check(args, &inherited)?;
    let workers = args.worker_count();
    let addresses = args.addresses(!inherited.is_empty());
    let addresses = names::resolve_apart(addresses, RESOLVER_TIMEOUT)?;
    exposure::check(args, &addresses)?;
    let admin = args.admin().into_iter().cloned().collect();
    let admin = names::resolve_apart(admin, RESOLVER_TIMEOUT)?.pop();
    let of_admin = match &admin {
        Some(admin) => (admin.endpoints.len() + admin::CONNECTIONS_MAX) as u64,
        None => 0,
    };
    let of_watch = u64::from(args.watch().is_some());
    let in_use = descriptors_inherited + addresses.len() as u64 + of_admin + of_watch;
    let (limits, capacity) = capacity::fit(args, in_use, workers.unwrap_or(1))?;
    let report_file = open_report(args)?;
    let trace = open_trace(args)?;
    let plan = Plan {
        addresses,
        faults: args.faults.faults(limits.fin_timeout),
        config: args.config(limits),
        admin,
        watch: args.watch(),
        drain_delay: args.drain_delay(),
        pid_file: args.pid_file(),
        sandbox: args.sandbox,
        announcement: Announcement {
            capacity,
            is_exposed: args.is_exposed(),
            warning: args.faults.warning(),
            delivery: Delivery::prepare(),
        },
    };
    let outcome = match (args.model, workers) {
        (Model::Reactor, Some(workers)) => Master::serve(args, workers, plan, inherited)?,
        (Model::Reactor, None) => {
            Outcome::Served(event_loop::serve(plan, inherited, trace)?.into())
        }
        (Model::Threads, _) => {
            let model = blocking::Model::ThreadPerConnection;
            Outcome::Served(blocking_models::serve(model, plan)?.into())
        }
        (Model::Iterative, _) => {
            let model = blocking::Model::Iterative;
            Outcome::Served(blocking_models::serve(model, plan)?.into())
        }
    };
    finish(args, outcome, report_file, started)
}

fn open_report(args: &ServeArgs) -> Result<Option<OutputFile>, CliError> {
    // A master opens the file itself, outside of the sandbox of its workers.
    let is_sandboxed = args.sandbox != Sandbox::Off && args.workers.is_none();
    let open = |path| OutputFile::open("--stats-json", path, Purpose::Serving { is_sandboxed });
    args.stats_json().map(|path| open(path)).transpose()
}

fn open_trace(args: &ServeArgs) -> Result<Option<TraceOutput>, CliError> {
    let is_sandboxed = args.sandbox != Sandbox::Off;
    let open = |target| TraceOutput::open(target, is_sandboxed);
    args.trace().map(open).transpose()
}

/// Logs the result, and writes the report.
fn finish(
    args: &ServeArgs,
    outcome: Outcome,
    report_file: Option<OutputFile>,
    started: Instant,
) -> Result<Exit, CliError> {
    let end = match outcome {
        Outcome::Served(end) => end,
        Outcome::Failed(exit) => return Ok(exit),
    };
    let lasted = end.lasted.unwrap_or_else(|| started.elapsed());
    let exit = conclude(&end, lasted);
    if let Some(mut file) = report_file {
        let report = report::report(&end, args.model.name(), lasted);
        file.write(printable(&format!("{report:#}\n")).as_bytes())?;
        file.finish()?;
    }
    end.trace?;
    Ok(exit)
}

/// Refuses what the blocking models lack. They have no datagrams (blocking on several sockets takes a thread for each), no
/// admission control, and they bind their listeners themselves.
fn refuse_what_the_model_cannot(
    args: &ServeArgs,
    inherited: &[BoundSocket],
) -> Result<(), CliError> {
    args.check_faults()?;
    args.check_reply()?;
    let addresses = args.addresses(!inherited.is_empty());
    let what = if let Some(socket) = inherited.first() {
        format!("{} came by LISTEN_FDS, and that needs", socket.endpoint)
    } else if let Some(address) = addresses.iter().find(|address| address.is_datagram()) {
        format!("{address}: datagrams need")
    } else if args.access() != AccessList::default() {
        "--allow and --deny need".to_owned()
    } else if args.proxy_policy().is_some() {
        "--proxy-protocol needs".to_owned()
    } else if args.limits().connections_per_prefix.is_some() {
        "--max-per-prefix (which --hardened sets; 'off' takes it away) needs".to_owned()
    } else if args.limits().overload == OverloadPolicy::Reject {
        "--overload reject needs".to_owned()
    } else if args.sandbox != Sandbox::Off {
        // The models start threads while they serve; a list with the system calls for that protects little.
        "--sandbox needs".to_owned()
    } else if args.workers.is_some() {
        "--workers needs".to_owned()
    } else if args.reply == Reply::Identity {
        "--reply identity needs".to_owned()
    } else if args.trace().is_some() {
        "--trace needs".to_owned()
    } else if args.drain_delay() > Duration::ZERO {
        "--drain-delay needs".to_owned()
    } else if args.admin().is_some() {
        "--admin needs".to_owned()
    } else if args.watch().is_some() {
        "--watch needs".to_owned()
    } else {
        return Ok(());
    };
    if args.admin().is_some() && args.workers.is_some() {
        return Err(CliError::usage(
            "--admin and --workers exclude each other: the master of workers has no network I/O; serve by one process, \
             or read the counters by SIGUSR1 and --stats-json",
        ));
    }
    if args.model == Model::Reactor {
        return refuse_one_loop_of_workers(args);
    }
    Err(CliError::usage(format!(
        "{what} --model reactor, and this is --model {}",
        args.model.name()
    )))
}

/// A trace is of one loop, and so is what is watched; each worker has one of its own.
fn refuse_one_loop_of_workers(args: &ServeArgs) -> Result<(), CliError> {
    match (args.workers, args.trace(), args.watch()) {
        (Some(_), Some(_), _) => Err(CliError::usage(
            "--trace records one event loop, and with --workers each worker has its own; leave --workers out",
        )),
        (Some(_), _, Some(_)) => Err(CliError::usage(
            "--watch shows one event loop, and with --workers each worker has its own; leave --workers out, \
             or read the counters of all by SIGUSR1",
        )),
        _ => Ok(()),
    }
}
