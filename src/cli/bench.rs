//! `echo-reactor bench`: puts a server under load, and reports what came of it, and whether to believe it.
//!
//! The command line is in [`args`]; the server that is started if none was named in [`server_process`]; the endpoint
//! of each name in [`targets`]; running a plan, in one process or several, in [`workers`], [`worker_process`], [`said`] and [`worker`]; several plans
//! in [`runner`] and [`rate_search`]; what came of it in [`mod@run`] and [`answer`]; records of several machines in [`mod@merge`]; progress in [`progress`]; the formats of
//! the report in [`text`], [`record`] (JSON), [`csv`], [`hdr`] and [`svg`].

mod answer;
mod args;
mod csv;
pub(super) mod environment;
mod hdr;
pub(crate) mod ipc;
mod merge;
mod progress;
mod rate_search;
pub(super) mod record;
pub(super) mod run;
mod runner;
pub(super) mod said;
pub(super) mod server_process;
mod svg;
mod targets;
mod text;
pub(super) mod time;
mod worker;
mod worker_process;
pub(super) mod workers;

pub(super) use args::{BenchArgs, Format};
pub(super) use targets::resolve;

use super::descriptors;
use super::error::{CliError, CliErrorKind, Exit};
use super::logging;
use super::output::printable;
use super::output_file::{OutputFile, Purpose, refuse_same};
use super::stdio;
use crate::load::{FaultKind, Plan, preflight};
use crate::procfs::own::ignores_signal;
use answer::Answer;
use args::Steps;
use environment::Host;
use progress::Progress;
use rate_search::Search;
use record::Record;
use run::Run;
use runner::Runner;
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub(super) fn run(args: &BenchArgs) -> Result<Exit, CliError> {
    if args.worker {
        return worker::work();
    }
    args.refuse_nonsense()?;
    refuse_same(&[("--hdr", args.hdr()), ("--svg", args.svg())])?;
    let stop = listen_to_signals()?;
    let descriptors = descriptors::raise();
    let host = Host::look(descriptors);
    let server = args
        .serve()
        .map(|address| server_process::Server::start(&address, args.is_proxied()))
        .transpose()?;
    let targets = match &server {
        Some(server) => resolve(std::slice::from_ref(&server.address), args.resolving())?,
        None => resolve(args.addresses(), args.resolving())?,
    };
    let pids: Vec<u32> = server.iter().map(server_process::Server::pid).collect();
    let plan = args.plan(targets, &pids)?;
    let machines = args.machines();
    let checked = match machines.at.is_empty() {
        true => preflight::check(&plan, machines.workers, descriptors),
        false => preflight::check_requests(&plan), // the workers check the rest where they are
    };
    checked.map_err(CliError::usage)?;
    let mut log = args.hdr().map(|path| hdr::Log::create(path)).transpose()?;
    let drawing = args
        .svg()
        .map(|path| OutputFile::open("--svg", path, Purpose::Measuring))
        .transpose()?;
    let mut progress = Progress::new(args.quiet());
    let mut runner = Runner {
        machines: &machines,
        stop: &stop,
        progress: &mut progress,
        log: log.as_mut(),
        is_hold: args.is_hold(),
    };
    let (mut answer, failure) = measure_all(&mut runner, args, &plan);
    drop(server);
    progress.finish();
    if let (Some(failure), Some(last)) = (&failure, answer.runs.last_mut()) {
        let text = format!(
            "what was to come after this was not measured: {}",
            failure.text
        );
        last.validity.notes.push(text);
    }
    let exit = match answer.runs.is_empty() {
        true => None,
        false => {
            let form = (args.format(), args.allow_loss());
            Some(deliver(form, &host, &answer, log, drawing))
        }
    };
    match (failure, exit) {
        (Some(failure), _) => Err(failure),
        (None, Some(exit)) => Ok(exit),
        (None, None) => {
            logging::print_line("echo-reactor: it was ended before anything was measured");
            Ok(Exit::Invalid)
        }
    }
}

/// Measures what was asked for, and says why not all of it, if a part of it failed.
fn measure_all(
    runner: &mut Runner<'_>,
    args: &BenchArgs,
    plan: &Plan,
) -> (Answer, Option<CliError>) {
    let (mut runs, mut search) = (Vec::new(), None);
    let ended = match args.steps() {
        Steps::Once => runner.run(plan).map(|run| runs.push(run)),
        Steps::Rates(rates) => rate_search::steps(runner, plan, &rates, args.arrivals(), &mut runs),
        Steps::Find(bound) => {
            search
                .insert(Search::new(bound))
                .run(runner, plan, args.arrivals(), &mut runs)
        }
    };
    (Answer { runs, search }, ended.err())
}

/// Writes the report, and then the files beside it, each whether or not the rest could be written: a disk that is
/// full for a drawing
/// must not cost the figures. Says what failed, and returns how the command ends.
fn deliver(
    (format, allow_loss): (Format, bool),
    host: &Host,
    answer: &Answer,
    log: Option<hdr::Log>,
    drawing: Option<OutputFile>,
) -> Exit {
    let report = match format {
        Format::Text => text::report(host, answer),
        Format::Json => format!("{:#}\n", json!(Record::new(host, answer))),
        Format::Csv => csv::report(&answer.runs),
    };
    let written = [
        stdio::print(&printable(&report)),
        log.map_or(Ok(()), hdr::Log::finish),
        drawing.map_or(Ok(()), |file| draw(file, answer)),
    ];
    let exit = conclude(answer, allow_loss);
    // The text has said it, and is for people, as standard error is.
    if exit != Exit::Ok && format != Format::Text {
        explain(answer);
    }
    with_failures(exit, written)
}

/// Merges records that were made apart, each with the name of its file, and reports the sum as that of one run.
///
/// # Errors
/// They do not fit together.
pub(super) fn merge(records: &[(String, Record)], format: Format) -> Result<Exit, CliError> {
    let run = merge::merge(records).map_err(CliError::usage)?;
    let answer = Answer {
        runs: vec![run],
        search: None,
    };
    let mut host = Host::look(descriptors::raise());
    let started = records.iter().map(|(_, record)| record.started_unix);
    host.started = started.min().unwrap_or(host.started);
    Ok(deliver((format, false), &host, &answer, None, None))
}

/// Says which files could not be written. That decides how the command ends, unless an echo was wrong.
pub(super) fn with_failures(
    exit: Exit,
    written: impl IntoIterator<Item = Result<(), CliError>>,
) -> Exit {
    let failures: Vec<CliError> = written.into_iter().filter_map(Result::err).collect();
    for failure in &failures {
        logging::print_line(&failure.to_string());
    }
    match failures.first() {
        Some(failure) if exit != Exit::Mismatch => failure.exit(),
        _ => exit,
    }
}

fn draw(mut file: OutputFile, answer: &Answer) -> Result<(), CliError> {
    let Some(run) = answer.result() else {
        logging::print_line("echo-reactor: --svg: nothing was found, and nothing is drawn");
        return Ok(());
    };
    let drawing = svg::draw(run).map_err(|text| CliError::new(CliErrorKind::Internal, text))?;
    file.write(drawing.as_bytes())?;
    file.finish()
}

/// SIGINT, SIGTERM and SIGHUP (the terminal is gone) end the run, with a report. A second one hurries nothing: the end is a
/// second away at most, and to leave at once would leave the server and the workers behind.
pub(super) fn listen_to_signals() -> Result<Arc<AtomicBool>, CliError> {
    let stop = Arc::new(AtomicBool::new(false));
    // nohup(1) has SIGHUP ignored, and a handler would undo that.
    let hang_up = (!ignores_signal(SIGHUP)).then_some(SIGHUP);
    for signal in [SIGINT, SIGTERM].into_iter().chain(hang_up) {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(|error| {
            CliError::new(CliErrorKind::System, format!("no signal handlers: {error}"))
        })?;
    }
    Ok(stop)
}

/// What the exit code says: a wrong echo is worse than a failed connection, and that than a doubtful measurement. Of a
/// search it is that of its answer: it goes up to where the server fails, and that is no failure of what it has found.
fn conclude(answer: &Answer, allow_loss: bool) -> Exit {
    let exits = answer.runs.iter().map(|run| exit_of(run, allow_loss));
    let rank = |exit: &Exit| match exit {
        Exit::Ok => 0,
        Exit::Invalid => 1,
        Exit::Mismatch => 3,
        _ => 2,
    };
    let worst = exits.max_by_key(rank).unwrap_or(Exit::Internal);
    if answer.search.is_none() || worst == Exit::Mismatch {
        return worst;
    }
    match (answer.result(), answer.runs.first()) {
        (Some(found), _) => exit_of(found, allow_loss),
        // A server that fails in a closed loop is no question of the rate.
        (None, Some(closed)) if closed.total.end.faults.total() > 0 => exit_of(closed, allow_loss),
        _ => Exit::Short,
    }
}

/// Says what was found, what failed, and why it is not valid.
fn explain(answer: &Answer) {
    if let Some(finding) = answer.finding() {
        logging::print_line(&format!("echo-reactor: {finding}"));
    }
    // The steps of a search that are beyond its answer have failed on purpose.
    let runs = match answer.result() {
        Some(found) if answer.search.is_some() => std::slice::from_ref(found),
        _ => &answer.runs,
    };
    for run in runs {
        for (kind, count, first) in run.total.end.faults.iter() {
            let text = format!("{kind} ({count} of them), the first: {first}");
            logging::print_line(&format!("echo-reactor: {text}"));
        }
        for reason in &run.validity.invalid {
            logging::print_line(&format!("echo-reactor: not valid because {reason}"));
        }
    }
}

fn exit_of(run: &Run, allow_loss: bool) -> Exit {
    let end = &run.total.end;
    let faults = &end.faults;
    let has = |kind| faults.count(kind) > 0;
    if has(FaultKind::Mismatch) || has(FaultKind::Extra) {
        return Exit::Mismatch;
    }
    if !allow_loss && (end.counters.duplicates > 0 || end.counters.reordered > 0) {
        return Exit::Mismatch;
    }
    if faults.total() > 0 {
        return match () {
            () if has(FaultKind::Reset) || has(FaultKind::Closed) || has(FaultKind::Io) => Exit::Io,
            () if has(FaultKind::Timeout) => Exit::Timeout,
            () if has(FaultKind::Refused) => Exit::Unavailable,
            () => Exit::System,
        };
    }
    if !allow_loss && (end.counters.lost > 0 || end.counters.late > 0) {
        return Exit::Timeout;
    }
    match run.validity.is_valid() {
        true => Exit::Ok,
        false => Exit::Invalid,
    }
}
