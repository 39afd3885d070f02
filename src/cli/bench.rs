//! `echo-reactor bench`: puts a server under load, and reports what came of it, and whether to believe it.
//!
//! The command line is in [`args`]; the server that is started if none was named in [`server_process`]; the endpoint
//! of each name in [`targets`]; running a plan, in one process or several, in [`workers`] and [`worker`]; progress in
//! [`progress`]; the formats of the report in [`text`], [`json`], [`csv`], [`hdr`] and [`svg`].

mod args;
mod csv;
pub(super) mod environment;
mod hdr;
pub(crate) mod ipc;
mod json;
mod progress;
mod rate_search;
pub(super) mod server_process;
mod svg;
mod targets;
pub(super) mod text;
mod worker;
pub(super) mod workers;

pub(super) use args::BenchArgs;
pub(super) use targets::resolve;

use super::descriptors;
use super::error::{CliError, CliErrorKind, Exit};
use super::logging;
use super::memory::{MemoryTable, Row};
use super::output::printable;
use super::output_file::{OutputFile, Purpose, refuse_same};
use super::stdio;
use crate::load::validity::{Validity, assess};
use crate::load::{FaultKind, Mode, Plan, Total, preflight};
use crate::procfs::{KernelCounters, own::ignores_signal};
use args::{Format, Steps};
use environment::Host;
use progress::Progress;
use rate_search::Search;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use workers::Told;

/// A plan that has been run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) plan: Plan,
    pub(super) workers: usize,
    pub(super) total: Total,
    pub(super) kernel: KernelCounters,
    pub(super) validity: Validity,
    /// What the connections of a hold cost, at every power of ten of them.
    pub(super) memory: Vec<Row>,
}

impl Run {
    /// What was asked for a second, if anything was.
    pub(super) fn planned_rate(&self) -> Option<f64> {
        match self.plan.mode {
            Mode::Open { rate, .. } => Some(rate),
            _ => None,
        }
    }
}

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
        .map(|address| server_process::Server::start(&address))
        .transpose()?;
    let targets = match &server {
        Some(server) => resolve(std::slice::from_ref(&server.address), args.resolving())?,
        None => resolve(args.addresses(), args.resolving())?,
    };
    let pids: Vec<u32> = server.iter().map(server_process::Server::pid).collect();
    let plan = args.plan(targets, &pids)?;
    preflight::check(&plan, args.workers(), descriptors)
        .map_err(|text| CliError::new(CliErrorKind::Usage, text))?;
    let mut log = args.hdr().map(|path| hdr::Log::create(path)).transpose()?;
    let drawing = args
        .svg()
        .map(|path| OutputFile::open("--svg", path, Purpose::Measuring))
        .transpose()?;
    let mut progress = Progress::new(args.quiet());
    let mut bench = Bench {
        workers: args.workers(),
        stop: &stop,
        progress: &mut progress,
        log: log.as_mut(),
        is_hold: args.is_hold(),
    };
    let (mut answer, failure) = bench.answer(args, &plan);
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
        false => Some(deliver(args, &host, &answer, log, drawing)),
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

/// What a command has measured: a run, or several, of which a search has found one or none.
#[derive(Debug)]
struct Answer {
    /// All runs, in the order in which they were made.
    runs: Vec<Run>,
    search: Option<Search>,
}

impl Answer {
    /// The run that is the result: the last, and of a search the best. `None` if the search has found nothing.
    fn result(&self) -> Option<&Run> {
        match &self.search {
            Some(search) => self.runs.get(search.best?),
            None => self.runs.last(),
        }
    }

    /// What a search has found, or has not, in a sentence.
    fn finding(&self) -> Option<String> {
        let search = self.search.as_ref()?;
        Some(search.finding(&self.runs))
    }
}

/// Writes the report, and then the files beside it, each whether or not the rest could be written: a disk that is
/// full for a drawing
/// must not cost the figures. Says what failed, and returns how the command ends.
fn deliver(
    args: &BenchArgs,
    host: &Host,
    answer: &Answer,
    log: Option<hdr::Log>,
    drawing: Option<OutputFile>,
) -> Exit {
    let report = match args.format() {
        Format::Text => text::report(host, answer),
        Format::Json => format!("{:#}\n", json::report(host, answer)),
        Format::Csv => csv::report(&answer.runs),
    };
    let written = [
        stdio::print(&printable(&report)),
        log.map_or(Ok(()), hdr::Log::finish),
        drawing.map_or(Ok(()), |file| draw(file, answer)),
    ];
    let exit = conclude(answer, args.allow_loss());
    // The text has said it, and is for people, as standard error is.
    if exit != Exit::Ok && args.format() != Format::Text {
        explain(answer);
    }
    with_failures(exit, written)
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

/// What every run of this command has in common.
pub(super) struct Bench<'a> {
    pub(super) workers: usize,
    pub(super) stop: &'a AtomicBool,
    progress: &'a mut Progress,
    log: Option<&'a mut hdr::Log>,
    is_hold: bool,
}

impl Bench<'_> {
    /// Measures what was asked for, and says why not all of it, if a part of it failed.
    fn answer(&mut self, args: &BenchArgs, plan: &Plan) -> (Answer, Option<CliError>) {
        let (mut runs, mut search) = (Vec::new(), None);
        let ended = match args.steps() {
            Steps::Once => self.run(plan).map(|run| runs.push(run)),
            Steps::Rates(rates) => {
                rate_search::steps(self, plan, &rates, args.arrivals(), &mut runs)
            }
            Steps::Find(bound) => {
                search
                    .insert(Search::new(bound))
                    .run(self, plan, args.arrivals(), &mut runs)
            }
        };
        (Answer { runs, search }, ended.err())
    }

    /// Runs a plan, and judges it.
    pub(super) fn run(&mut self, plan: &Plan) -> Result<Run, CliError> {
        self.progress.begin(plan);
        let (progress, log) = (&mut *self.progress, &mut self.log);
        if let Some(log) = log {
            log.begin_step();
        }
        let mut table = self.is_hold.then(|| MemoryTable::new(&plan.servers));
        let told = |told: Told<'_>| match told {
            Told::Open(open) => {
                progress.opening(open, plan);
                let all = plan.connections as u64;
                if let Some(table) = &mut table {
                    // At every power of ten, and at the end of the way.
                    if open >= 10 && (table.is_due(open) || open == all && !table.ends_at(all)) {
                        table.add_other(open);
                    }
                }
            }
            Told::Interval(interval, total) => {
                progress.tell(interval, total);
                if let Some(log) = log {
                    log.write(interval);
                }
            }
        };
        let stop = || self.stop.load(Ordering::Relaxed);
        let mut run = measure(plan.clone(), self.workers, &stop, told)?;
        run.memory = table.map_or_else(Vec::new, |table| table.rows().to_vec());
        Ok(run)
    }

    /// Whether the run was interrupted.
    pub(super) fn must_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Runs a plan, and assesses the result. `stop` is called twenty times a second, `told` with what goes on.
pub(super) fn measure(
    plan: Plan,
    workers: usize,
    stop: &dyn Fn() -> bool,
    told: impl FnMut(Told<'_>),
) -> Result<Run, CliError> {
    let before = KernelCounters::read();
    let total = workers::run(&plan, workers, stop, told)?;
    let kernel = KernelCounters::read().since(before);
    let validity = assess(&plan, workers, &total, &kernel);
    Ok(Run {
        plan,
        workers,
        total,
        kernel,
        validity,
        memory: Vec::new(),
    })
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
            let text = format!("{} ({count} of them), the first: {first}", kind.name());
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
    if !allow_loss && end.counters.duplicates + end.counters.reordered > 0 {
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
    if !allow_loss && end.counters.lost + end.counters.late > 0 {
        return Exit::Timeout;
    }
    match run.validity.is_valid() {
        true => Exit::Ok,
        false => Exit::Invalid,
    }
}
