//! `echo-reactor compare`: the event loop against its blocking models, and against any other server.
//!
//! The command line is in [`args`]; the loads are in [`workloads`]; the compared servers are in [`subject`], and are ended by
//! [`guard`]; all rounds are in [`rounds`], what came of each run in [`sample`], the statistics in [`statistics`]. What is
//! kept is in [`record`], and shown by [`views`] with their [`charts`].

mod args;
mod charts;
mod guard;
pub(super) mod record;
mod rounds;
mod sample;
pub(super) mod statistics;
mod subject;
mod views;
mod workloads;

pub(super) use args::CompareArgs;

use super::bench::environment::Host;
use super::bench::server_process::Processors;
use super::bench::{listen_to_signals, with_failures};
use super::descriptors;
use super::error::{CliError, CliErrorKind, Exit};
use super::output::printable;
use super::output_file::{OutputFile, Purpose, refuse_same};
use super::status_line::StatusLine;
use super::stdio;
use super::units::plural;
use crate::random::Random;
use record::{Load, Record};
use rounds::Rounds;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use subject::Subject;
use workloads::Timing;

pub(super) fn run(args: &CompareArgs) -> Result<Exit, CliError> {
    if args.as_guard {
        return guard::work();
    }
    let (subjects, loads, timing) = (args.subjects()?, args.loads()?, args.timing()?);
    let files = open_files(args)?;
    let stop = listen_to_signals()?;
    let descriptors = descriptors::raise();
    check_descriptors(&loads, descriptors)?;
    let host = Host::look(descriptors);
    // The load is one thread on one processor; the servers may use the rest.
    let processors = Processors::look(|all| all - 1);
    let mut record = Record {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: host.command,
        started_unix: host.started,
        seed: args.timing.seed,
        window_seconds: timing.window.as_secs_f64(),
        machine: host.machine,
        models: subjects.iter().map(Subject::model).collect(),
        cells: rounds::cells(&subjects, &loads),
        ..Record::default()
    };
    let status = StatusLine::new(args.output.quiet);
    status.tell(&announcement(&subjects, &loads, &timing));
    let began = Instant::now();
    let mut rounds = Rounds {
        subjects: &subjects,
        timing: &timing,
        processors: processors.as_ref(),
        stop: &stop,
        status: &status,
        random: Random::new(record.seed),
        record: &mut record,
        done: 0,
        wrong: false,
    };
    let ended = rounds.run();
    let wrong = rounds.wrong;
    status.clear();
    record.seconds = began.elapsed().as_secs_f64();
    record.interrupted = stop.load(Ordering::Relaxed);
    record.notes = notes(&record, &subjects, &timing);
    if let Err(failure) = &ended {
        let text = format!("it was not measured to the end: {}", failure.text);
        record.notes.push(text);
    }
    statistics::judge(&mut record);
    let fill =
        |form: Form| form(&record).map_err(|error| CliError::new(CliErrorKind::Internal, error));
    let report = fill(views::text).and_then(|text| stdio::print(&text));
    // Each file is written, whether or not the rest could be.
    let written = files.into_iter().map(|(mut file, form)| {
        file.write(fill(form)?.as_bytes())?;
        file.finish()
    });
    let written = std::iter::once(report).chain(written);
    let exit = with_failures(conclude(&record, wrong), written);
    ended.map(|()| exit)
}

/// A record as the text of a file.
type Form = fn(&Record) -> Result<String, String>;

/// Opens the files that were asked for.
fn open_files(args: &CompareArgs) -> Result<Vec<(OutputFile, Form)>, CliError> {
    let output = &args.output;
    let files: [(_, _, Form); 3] = [
        ("--json", output.json.as_ref(), json),
        ("--html", output.html.as_ref(), views::page),
        ("--svg", output.svg.as_ref(), views::drawing),
    ];
    refuse_same(&files.map(|(flag, path, _)| (flag, path)))?;
    let asked = files.into_iter();
    let asked = asked.filter_map(|(flag, path, form)| Some((flag, path?, form)));
    asked
        .map(|(flag, path, form)| Ok((OutputFile::open(flag, path, Purpose::Measuring)?, form)))
        .collect()
}

fn json(record: &Record) -> Result<String, String> {
    let text = serde_json::to_string_pretty(record).map_err(|error| error.to_string())?;
    Ok(format!("{}\n", printable(&text)))
}

/// What the exit code says: a wrong echo is worse than a server that could not be measured at all, and that than one that
/// failed at some of the loads. That one is slower than the other is a result.
fn conclude(record: &Record, wrong: bool) -> Exit {
    let was_measured = |model: usize| record.was_measured(model);
    let has_failed = |model: &usize| record.entries(*model).any(|entry| entry.failed);
    let failed = (0..record.models.len()).filter(has_failed);
    match () {
        () if wrong => Exit::Mismatch,
        () if !failed.clone().all(was_measured) => Exit::Unavailable,
        () if failed.count() > 0 => Exit::Short,
        () if !(0..record.models.len()).any(was_measured) => Exit::Invalid,
        () => Exit::Ok,
    }
}

/// A load that does not fit is refused before anything is measured: a quarter of an hour later it would be a pity.
fn check_descriptors(loads: &[Load], descriptors: u64) -> Result<(), CliError> {
    const OURS: u64 = 64;
    let most = loads.iter().map(|load| load.connections).max();
    let Some(most) = most.filter(|most| most + OURS > descriptors) else {
        return Ok(());
    };
    Err(CliError::usage(format!(
        "{} need as many descriptors, and this process may have {descriptors}; raise the hard limit (ulimit -Hn, or \
         LimitNOFILE= of a unit), or ask for fewer by --connections",
        plural(most, "connection")
    )))
}

/// How long it will take.
fn announcement(subjects: &[Subject], loads: &[Load], timing: &Timing) -> String {
    let of_load = |load: &Load| {
        let able = subjects.iter().filter(|one| one.excuse(load).is_none());
        timing.length_of(load) * able.count() as u32
    };
    let round: Duration = loads.iter().map(of_load).sum();
    let time = match (round * timing.rounds as u32).as_secs() {
        all @ 0..90 => plural(all.max(1), "second"),
        all => plural(all.div_ceil(60), "minute"),
    };
    format!(
        "{}, {}, {} of {:?} each: about {time}; Ctrl-C ends it with a report of what there is by then",
        plural(loads.len() as u64, "load"),
        plural(subjects.len() as u64, "model"),
        plural(timing.rounds, "round"),
        timing.window
    )
}

/// What is to be known of how the comparison was made, in sentences.
fn notes(record: &Record, subjects: &[Subject], timing: &Timing) -> Vec<String> {
    let (rounds, planned) = (record.rounds, timing.rounds);
    let mut notes = Vec::new();
    if record.interrupted {
        let whole = plural(rounds, "whole round");
        notes.push(format!("it was ended early, after {whole} of {planned}"));
    }
    if rounds < 3 {
        let text = "with fewer than 3 rounds there are no intervals, and so no verdicts";
        notes.push(text.to_owned());
    }
    if (subjects.iter()).any(|subject| matches!(subject, Subject::Running(_))) {
        let text = "of a server that ran already, neither processor nor memory is known, and it kept its memory and its \
                    place from round to round";
        notes.push(text.to_owned());
    }
    notes
}
