//! `echo-reactor compare`: the event loop against its blocking models, and against any other server.
//!
//! The command line is in [`args`]; the compared servers are in [`subject`], and are ended by [`guard`]; the loads are in
//! [`workloads`], one measurement in [`sample`], all rounds in [`rounds`], system calls in [`strace`], the statistics in
//! [`statistics`]; what is kept is in [`record`], and shown by [`text`], [`html`](mod@html) and [`progress`].

mod args;
mod guard;
mod html;
mod progress;
pub(super) mod record;
mod rounds;
mod sample;
pub(super) mod statistics;
mod strace;
mod subject;
pub(super) mod text;
mod workloads;

pub(super) use args::CompareArgs;

use super::bench::environment::Host;
use super::bench::server_process::Processors;
use super::bench::{listen_to_signals, with_failures};
use super::descriptors;
use super::error::{CliError, CliErrorKind, Exit};
use super::output::printable;
use super::output_file::{OutputFile, Purpose, refuse_same};
use super::stdio;
use super::units::plural;
use crate::procfs::tree::Tree;
use crate::random::Random;
use progress::Progress;
use record::{Machine, Record, Scenario};
use rounds::{Brought, Rounds};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use subject::Subject;
use workloads::{Course, Load};

/// Connections at which system calls are counted: one that waits for each answer, and many that are ready together.
const COUNTED_AT: [usize; 2] = [1, 100];

pub(super) fn run(args: &CompareArgs) -> Result<Exit, CliError> {
    if args.as_guard {
        return guard::work();
    }
    let (subjects, loads, course) = (args.subjects()?, args.loads()?, args.course()?);
    let files = Files::create(args)?;
    let stop = listen_to_signals()?;
    let descriptors = descriptors::raise();
    check_descriptors(&loads, descriptors)?;
    let host = Host::look(descriptors);
    // The load is one thread on one processor; the servers may use the rest.
    let processors = Processors::look(|all| all - 1);
    let models: Vec<_> = subjects.iter().map(Subject::model).collect();
    let names = models.iter().map(|model| model.name.clone()).collect();
    let mut progress = Progress::new(args.quiet(), names, course.rounds, loads.len());
    progress.tell(&announcement(&subjects, &loads, &course));
    let began = Instant::now();
    let mut rounds = Rounds {
        subjects: &subjects,
        loads: &loads,
        course,
        processors: processors.as_ref(),
        stop: &stop,
        progress: &mut progress,
        random: Random::new(args.seed()),
    };
    let (mut brought, mut failure) = rounds.run(began);
    let mut notes = notes(&subjects, &course, &brought, &stop);
    if args.counts_system_calls() && failure.is_none() {
        progress.counting();
        let processors = processors.as_ref();
        match count(&subjects, &loads, processors, &stop, &mut brought) {
            Ok(counted) => notes.extend(counted),
            Err(why) => failure = Some(why),
        }
    }
    if let Some(failure) = &failure {
        notes.push(format!("it was not measured to the end: {}", failure.text));
    }
    progress.finish();
    let mut record = Record {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_unix: host.started,
        seconds: began.elapsed().as_secs_f64(),
        seed: args.seed(),
        rounds: brought.rounds,
        window_seconds: course.window.as_secs_f64(),
        interrupted: stop.load(Ordering::Relaxed),
        machine: machine(&host),
        command: host.command,
        models,
        cells: brought.cells,
        notes,
    };
    statistics::judge(&mut record);
    let written = std::iter::once(stdio::print(&printable(&text::report(&record))))
        .chain(files.fill(&record));
    let exit = with_failures(conclude(&record, brought.wrong), written);
    failure.map_or(Ok(exit), Err)
}

/// The files that were asked for.
struct Files {
    json: Option<OutputFile>,
    html: Option<OutputFile>,
    svg: Option<OutputFile>,
}

impl Files {
    fn create(args: &CompareArgs) -> Result<Self, CliError> {
        let [json, html, svg] = [
            ("--json", args.json()),
            ("--html", args.html()),
            ("--svg", args.svg()),
        ];
        refuse_same(&[json, html, svg])?;
        let create = |(flag, path): (&'static str, Option<&PathBuf>)| {
            let file = path.map(|path| OutputFile::open(flag, path, Purpose::Measuring));
            file.transpose()
        };
        Ok(Self {
            json: create(json)?,
            html: create(html)?,
            svg: create(svg)?,
        })
    }

    /// Writes each file, whether or not the rest could be written.
    fn fill(self, record: &Record) -> [Result<(), CliError>; 3] {
        let fill = |file: Option<OutputFile>, text: &dyn Fn() -> String| {
            let Some(mut file) = file else {
                return Ok(());
            };
            file.write(text().as_bytes())?;
            file.finish()
        };
        [
            fill(self.json, &|| format!("{:#}\n", record.to_json())),
            fill(self.html, &|| html::page(record)),
            fill(self.svg, &|| html::drawing(record)),
        ]
    }
}

/// What the exit code says: a wrong echo is worse than a server that could not be measured at all, and that than one that
/// failed at some of the loads. That one is slower than the other is a result.
fn conclude(record: &Record, wrong: bool) -> Exit {
    let models = || 0..record.models.len();
    let has_failed = |model: usize| record.cells.iter().any(|cell| cell.entries[model].failed);
    match () {
        () if wrong => Exit::Mismatch,
        () if models().any(|model| has_failed(model) && !record.was_measured(model)) => {
            Exit::Unavailable
        }
        () if models().any(has_failed) => Exit::Short,
        () if !models().any(|model| record.was_measured(model)) => Exit::Invalid,
        () => Exit::Ok,
    }
}

/// A load that does not fit is refused before anything is measured: a quarter of an hour later it would be a pity.
fn check_descriptors(loads: &[Load], descriptors: u64) -> Result<(), CliError> {
    const OURS: u64 = 64;
    let most = loads.iter().map(|load| load.connections as u64).max();
    match most.filter(|most| most + OURS > descriptors) {
        Some(most) => {
            let text = format!(
                "{} need as many descriptors, and this process may have {descriptors}; raise the hard limit \
                 (ulimit -Hn, or LimitNOFILE= of a unit), or ask for fewer by --connections",
                plural(most, "connection")
            );
            Err(CliError::new(CliErrorKind::Usage, text))
        }
        None => Ok(()),
    }
}

/// How long it will take.
fn announcement(subjects: &[Subject], loads: &[Load], course: &Course) -> String {
    let round: Duration = (loads.iter())
        .map(|load| {
            let able = subjects.iter().filter(|one| one.excuse(load).is_none());
            course.length_of(load) * able.count() as u32
        })
        .sum();
    let all = (round * course.rounds as u32).as_secs();
    let time = match all {
        0..90 => plural(all.max(1), "second"),
        _ => plural(all.div_ceil(60), "minute"),
    };
    format!(
        "{}, {}, {} of {:?} each: about {time}; Ctrl-C ends it with a report of what there is by then",
        plural(loads.len() as u64, "load"),
        plural(subjects.len() as u64, "model"),
        plural(course.rounds, "round"),
        course.window
    )
}

fn machine(host: &Host) -> Machine {
    let memory = Tree(Path::new("/")).memory_total();
    Machine {
        name: host.name.clone(),
        kernel: host.kernel.clone(),
        processor: host.processor.clone(),
        processors: host.processors,
        memory_bytes: memory.unwrap_or(0),
        descriptors: host.descriptors,
    }
}

/// What is to be known of how the comparison was made, in sentences.
fn notes(
    subjects: &[Subject],
    course: &Course,
    brought: &Brought,
    stop: &AtomicBool,
) -> Vec<String> {
    let mut notes = Vec::new();
    if stop.load(Ordering::Relaxed) {
        let whole = plural(brought.rounds, "whole round");
        notes.push(format!(
            "it was ended early, after {whole} of {}",
            course.rounds
        ));
    } else if brought.rounds < course.rounds {
        notes.push(format!(
            "{} of {} were measured: the time was over, this machine is slower than was thought",
            brought.rounds,
            plural(course.rounds, "round")
        ));
    }
    if brought.rounds < 3 {
        notes
            .push("with fewer than 3 rounds there are no intervals, and so no verdicts".to_owned());
    }
    if subjects
        .iter()
        .any(|one| matches!(one, Subject::Running(_)))
    {
        notes.push(
            "of a server that ran already, neither processor nor memory is known, and it kept its memory \
             and its place from round to round"
                .to_owned(),
        );
    }
    notes
}

/// System calls of each model, at some of the loads. Returns why there are none, where there are none.
fn count(
    subjects: &[Subject],
    loads: &[Load],
    processors: Option<&Processors>,
    stop: &AtomicBool,
    brought: &mut Brought,
) -> Result<Vec<String>, CliError> {
    let mut notes = Vec::new();
    let smallest = loads.iter().map(|load| load.size).min();
    for (model, subject) in subjects.iter().enumerate() {
        for (load, cell) in loads.iter().zip(&mut brought.cells) {
            let is_counted = load.scenario == Scenario::RequestResponse
                && Some(load.size) == smallest
                && COUNTED_AT.contains(&load.connections);
            let entry = &mut cell.entries[model];
            if !is_counted || entry.samples.is_empty() || stop.load(Ordering::Relaxed) {
                continue;
            }
            match strace::count(subject, load, processors, stop)? {
                Ok(calls) => entry.system_calls = Some(calls),
                Err(why) => {
                    let name = subject.model().name;
                    notes.push(format!("system calls of {name} were not counted: {why}"));
                    break;
                }
            }
        }
    }
    Ok(notes)
}
