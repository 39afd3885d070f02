//! `echo-reactor report A.json B.json`: two records of `bench` or of `compare`, and whether the second is the same, better
//! or worse.
//!
//! What may live in this file: reading the records, the report, and the exit code. Which figures belong together, and what
//! is missing, is in [`questions`]; the statistics are [`super::compare::statistics`]'s.
//!
//! Two records were made at different times, so nothing in them is a pair, and the machine may have changed its mind
//! between them. Nothing inside one record knows of that. `--tolerance` is what is allowed for it: a difference counts
//! if its whole interval is beyond.

mod questions;

use super::compare::record::{Figure, PROGRAM, Record, Verdict};
use super::compare::statistics::ratio;
use super::compare::text::{figure_title, in_words};
use super::error::{CliError, CliErrorKind, Exit};
use super::output::printable;
use super::stdio;
use super::units::Percent;
use clap::Args;
use questions::{Comparison, of_comparisons, of_runs};
use serde_json::Value;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// The error that all intervals of a report may make together.
const ERROR: f64 = 0.05;

const EXAMPLES: &str = "\
Examples:
  echo-reactor compare --quick --json before.json
  echo-reactor compare --quick --json after.json
  echo-reactor report before.json after.json  exit code 5 if something is worse
  echo-reactor bench --format json > a.json   a single run has its seconds
  echo-reactor report --tolerance 10% a.json b.json

All intervals together are right with 95 %. Better and worse is what lies wholly
beyond the tolerance, the same what lies wholly within; what is left is within
the noise. What the second record lacks, a load, a step, seconds with echoes,
connections or answers, is worse than what is slow, and is said first. Only
'worse' changes the exit code.
";

/// Compare two records of bench or of compare: same, better or worse
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct ReportArgs {
    /// The record that the other is compared with
    #[arg(value_name = "BEFORE")]
    before: PathBuf,

    /// The record that is judged
    #[arg(value_name = "AFTER")]
    after: PathBuf,

    /// A difference that may come from the time between the two; of the p99, twice as much
    #[arg(long, value_name = "PERCENT", default_value = "5%")]
    tolerance: Percent,
}

pub(super) fn run(args: &ReportArgs) -> Result<Exit, CliError> {
    if args.tolerance.0 >= 1_000.0 {
        let text = "--tolerance is less than 1000%; write for example 5%";
        return Err(CliError::new(CliErrorKind::Usage, text));
    }
    let (before, after) = (read(&args.before)?, read(&args.after)?);
    let comparison = match (&before, &after) {
        (File::Compare(before), File::Compare(after)) => of_comparisons(before, after),
        (File::Bench(before), File::Bench(after)) => {
            of_runs(before, after, args.tolerance.0 / 100.0)
        }
        _ => {
            let text = "one is a record of bench and the other of compare; compare two of a kind";
            return Err(CliError::new(CliErrorKind::Usage, text));
        }
    };
    let (report, worst) = report(&comparison, args.tolerance);
    let mut notes = String::new();
    for (path, file) in [(&args.before, &before), (&args.after, &after)] {
        if let Some(doubt) = file.doubt() {
            let _ = writeln!(notes, "note: {}: {doubt}", path.display());
        }
    }
    if let (File::Bench(before), File::Bench(after)) = (&before, &after) {
        for difference in differences(&before["plan"], &after["plan"]) {
            let _ = writeln!(notes, "note: not the same was asked for: {difference}");
        }
    }
    stdio::print(&printable(&format!("{report}{notes}")))?;
    match comparison.questions.is_empty() && worst == Exit::Ok {
        true => {
            let text = "the two records have nothing in common that was measured";
            Err(CliError::new(CliErrorKind::Usage, text))
        }
        false => Ok(worst),
    }
}

// --- Reading -----------------------------------------------------------------------------------------------------------

#[derive(Debug)]
enum File {
    Bench(Value),
    Compare(Box<Record>),
}

fn read(path: &Path) -> Result<File, CliError> {
    let failure =
        |class, text: String| CliError::new(class, format!("'{}': {text}", path.display()));
    let text =
        fs::read_to_string(path).map_err(|error| failure(CliErrorKind::Io, error.to_string()))?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|error| failure(CliErrorKind::Usage, format!("it is no JSON: {error}")))?;
    match value["program"].as_str() {
        Some(PROGRAM) => {
            let record = Record::from_json(&value).map_err(|error| {
                failure(
                    CliErrorKind::Usage,
                    format!("it is no whole record: {error}"),
                )
            })?;
            Ok(File::Compare(Box::new(record)))
        }
        Some("echo-reactor bench") => Ok(File::Bench(value)),
        _ => Err(failure(
            CliErrorKind::Usage,
            "it is no record; 'bench --format json' and 'compare --json FILE' make one".to_owned(),
        )),
    }
}

impl File {
    /// What makes it doubtful, if it says so itself.
    fn doubt(&self) -> Option<String> {
        match self {
            Self::Bench(run) => match run["not_valid_because"].get(0)?.as_str() {
                Some(why) => Some(format!("not valid because {why}")),
                None => Some("not valid".to_owned()),
            },
            Self::Compare(record) if record.interrupted => Some("it was ended early".to_owned()),
            Self::Compare(_) => None,
        }
    }
}

/// What was asked for differently in two runs. Their servers may be at any address, and each run may have its own seed.
fn differences(before: &Value, after: &Value) -> Vec<String> {
    let members = before.as_object().into_iter().flatten();
    members
        .filter(|(name, value)| {
            !["targets", "seed"].contains(&name.as_str()) && after[name.as_str()] != **value
        })
        .map(|(name, value)| format!("{name} {value} and {}", after[name.as_str()]))
        .collect()
}

// --- The report --------------------------------------------------------------------------------------------------------

/// What is missing, a line for each question, how many said what, and the exit code.
fn report(comparison: &Comparison, tolerance: Percent) -> (String, Exit) {
    let mut out = String::new();
    let questions = &comparison.questions;
    for finding in &comparison.findings {
        let _ = writeln!(out, "{:<48} {}", finding.what, finding.text);
    }
    let mut verdicts = Vec::new();
    for question in questions {
        let alike = questions
            .iter()
            .filter(|other| other.is_summary == question.is_summary);
        // Half of the error is for the loads one by one, and half for the summaries.
        let error = ERROR / 2.0 / alike.count() as f64;
        let figure = question.figure;
        let told = question
            .estimate(error)
            .map(|estimate| ratio(figure, estimate, margin(figure, tolerance)));
        let words = told
            .as_ref()
            .map_or_else(|| "too little to tell".to_owned(), in_words);
        let _ = writeln!(
            out,
            "{:<48} {:<14} {words}",
            question.what,
            figure_title(figure)
        );
        verdicts.extend(told.map(|ratio| ratio.verdict));
    }
    let count = |verdict| verdicts.iter().filter(|&&one| one == verdict).count();
    let counts = Verdict::ALL.map(|verdict| format!("{} {}", count(verdict), verdict.name()));
    let worse = comparison
        .findings
        .iter()
        .filter(|one| one.is_worse)
        .count();
    let missing = match worse {
        0 => String::new(),
        worse => format!("; {worse} missing or lost, which is worse"),
    };
    let _ = writeln!(out, "\n{}{missing}", counts.join(", "));
    let exit = match count(Verdict::Worse) + worse {
        0 => Exit::Ok,
        _ => Exit::Worse,
    };
    (out, exit)
}

fn margin(figure: Figure, tolerance: Percent) -> f64 {
    let tail = if figure == Figure::P99 { 2.0 } else { 1.0 };
    1.0 + tolerance.0 * tail / 100.0
}

#[cfg(test)]
mod tests {
    use super::super::compare::record::tests::sample;
    use super::super::compare::statistics::JUDGED;
    use super::*;
    use crate::random::Random;
    use serde_json::json;

    /// The same record, with another noise, and slower by a factor.
    fn again(record: &Record, slower: f64, random: &mut Random) -> Record {
        let mut record = record.clone();
        for entry in record.cells.iter_mut().flat_map(|cell| &mut cell.entries) {
            let first = entry.samples.first().cloned();
            entry.samples = first
                .into_iter()
                .cycle()
                .take(if entry.samples.is_empty() { 0 } else { 8 })
                .collect();
            for (round, sample) in entry.samples.iter_mut().enumerate() {
                sample.round = round as u64;
                let time = slower * (1.0 + (random.fraction() - 0.5) * 0.03);
                for figure in JUDGED {
                    let factor = if figure.more_is_better() {
                        1.0 / time
                    } else {
                        time
                    };
                    sample.set(figure, sample.get(figure).map(|value| value * factor));
                }
            }
        }
        record
    }

    fn judged(before: &Record, after: &Record) -> (String, Exit) {
        report(&of_comparisons(before, after), Percent(5.0))
    }

    #[test]
    fn the_same_again_is_not_worse_and_a_tenth_less_is() {
        let mut random = Random::new(1);
        let before = again(&sample(), 1.0, &mut random);
        for _ in 0..40 {
            let (text, exit) = judged(&before, &again(&sample(), 1.0, &mut random));
            assert_eq!(exit, Exit::Ok, "{text}");
            assert!(text.contains("\n0 better, "), "{text}");
            let (text, exit) = judged(&before, &again(&sample(), 1.1, &mut random));
            assert_eq!(exit, Exit::Worse, "{text}");
            let (text, exit) = judged(&before, &again(&sample(), 0.9, &mut random));
            assert_eq!(exit, Exit::Ok, "{text}");
            assert!(text.contains("better"));
        }
    }

    #[test]
    fn what_the_second_record_could_not_serve_is_worse_and_is_said_first() {
        let mut random = Random::new(3);
        let before = again(&sample(), 1.0, &mut random);
        let mut failed = again(&sample(), 0.5, &mut random);
        let entry = &mut failed.cells[0].entries[1];
        (entry.failed, entry.left_out) = (true, Some("it ended in round 3".to_owned()));
        let (text, exit) = judged(&before, &failed);
        assert_eq!(exit, Exit::Worse);
        assert!(
            text.lines()
                .next()
                .unwrap()
                .contains("missing: it ended in round 3"),
            "{text}"
        );
        let mut shorter = again(&sample(), 0.5, &mut random);
        shorter.cells.remove(0);
        let (text, exit) = judged(&before, &shorter);
        assert_eq!(exit, Exit::Worse, "{text}");
        let mut fewer = again(&sample(), 0.5, &mut random);
        fewer.models[1].name = "another".to_owned();
        let (text, exit) = judged(&before, &fewer);
        assert_eq!(exit, Exit::Worse, "{text}");
        // A slow round has too few answers for a p99; those that have one are the quick rounds.
        let mut few = again(&sample(), 0.5, &mut random);
        few.cells[0].entries[0].samples[2].set(Figure::P99, None);
        let (text, exit) = judged(&before, &few);
        assert_eq!(exit, Exit::Worse, "{text}");
        assert!(
            text.contains("missing: p99_ns is not known of every round"),
            "{text}"
        );
    }

    #[test]
    fn runs_are_compared_by_their_seconds() {
        let mut random = Random::new(2);
        let mut run = |rate: f64| {
            let seconds: Vec<Value> = (0..30)
                .map(|at| {
                    let noise = 1.0 + (random.fraction() - 0.5) * 0.04;
                    json!({"at": at, "seconds": 1.0, "echoes": rate * noise, "p99": 1e9 / rate, "p50": 1, "max": 1})
                })
                .chain([json!({"at": 30, "seconds": 0.01, "echoes": 3, "p99": 1, "p50": 1, "max": 1})])
                .collect();
            json!({"program": "echo-reactor bench", "intervals": seconds})
        };
        let (before, same, slower) = (run(1e5), run(1e5), run(0.9e5));
        let verdict = |after: &Value| report(&of_runs(&before, after, 0.05), Percent(5.0));
        assert_eq!(verdict(&same).1, Exit::Ok);
        let (text, exit) = verdict(&slower);
        assert_eq!(exit, Exit::Worse, "{text}");
        assert!(text.contains("0.90 ("), "{text}");
    }

    #[test]
    fn runs_of_different_plans_are_named() {
        let plan = |trigger| json!({"seed": 1, "size": 64, "targets": [], "trigger": trigger});
        let mut level = plan("level");
        level["seed"] = 2.into();
        assert_eq!(differences(&plan("level"), &level), [""; 0]);
        let told = differences(&plan("edge"), &level);
        assert_eq!(told, [r#"trigger "edge" and "level""#]);
    }
}
