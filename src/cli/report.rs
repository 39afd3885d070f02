//! `echo-reactor report A.json B.json`: two records of `bench` or of `compare`, and whether the second is the same, better
//! or worse.
//!
//! What may live in this file: reading the records, which of their figures belong together, and the exit code. The
//! statistics are [`super::compare::judge`]'s.
//!
//! Two records were made at different times, so nothing in them is a pair, and the machine may have changed its mind
//! between them. Nothing inside one record knows of that. `--tolerance` is what is allowed for it: a difference counts
//! if its whole interval is beyond.

use super::bench::write_out;
use super::compare::judge::{Estimate, JUDGED, difference, independent, mean, ratio};
use super::compare::record::{Entry, Figure, PROGRAM, Record, Verdict};
use super::compare::text::{figure_title, in_words, load_name};
use super::exit::{Class, Exit, Failure};
use clap::Args;
use serde_json::Value;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The error that all intervals of a report may make together.
const ERROR: f64 = 0.05;

const EXAMPLES: &str = "\
Examples:
  echo-reactor compare --quick --json before.json
  echo-reactor compare --quick --json after.json
  echo-reactor report before.json after.json          exit code 5 if something is worse
  echo-reactor bench --format json > a.json           a single run has its seconds
  echo-reactor report --tolerance 10% a.json b.json

All intervals together are right with 95 %. Better and worse is what lies wholly beyond the tolerance, the same what lies
wholly within; what is left is within the noise. Only 'worse' changes the exit code.
";

/// Compare two records of bench or of compare: same, better or worse
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Typed {
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

/// A share, as people write it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Percent(f64);

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').map(str::parse::<f64>);
        match number {
            Some(Ok(percent)) if (0.0..1000.0).contains(&percent) => Ok(Self(percent)),
            _ => Err("write for example 5%".to_owned()),
        }
    }
}

/// A figure of both records.
struct Question {
    /// Of what: a model at a load, or a run.
    what: String,
    figure: Figure,
    before: Series,
    after: Series,
    /// Whether it is about all loads together.
    is_summary: bool,
}

/// Logarithms of one figure, and as how many independent ones they count.
struct Series {
    logs: Vec<f64>,
    count: f64,
}

pub(super) fn run(typed: &Typed) -> Result<Exit, Failure> {
    let (before, after) = (read(&typed.before)?, read(&typed.after)?);
    let questions = match (&before, &after) {
        (File::Compare(before), File::Compare(after)) => of_comparisons(before, after),
        (File::Bench(before), File::Bench(after)) => of_runs(before, after),
        _ => {
            let text = "one is a record of bench and the other of compare; compare two of a kind";
            return Err(Failure::new(Class::Usage, text));
        }
    };
    let (report, worst) = report(&questions, typed.tolerance);
    let mut notes = String::new();
    for (path, file) in [(&typed.before, &before), (&typed.after, &after)] {
        if let Some(doubt) = file.doubt() {
            let _ = writeln!(notes, "note: {}: {doubt}", path.display());
        }
    }
    if let (File::Bench(before), File::Bench(after)) = (&before, &after) {
        for difference in differences(&before["plan"], &after["plan"]) {
            let _ = writeln!(notes, "note: not the same was asked for: {difference}");
        }
    }
    write_out(&format!("{report}{notes}"))?;
    match questions.is_empty() {
        true => {
            let text = "the two records have no load and no model in common";
            Err(Failure::new(Class::Usage, text))
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

fn read(path: &Path) -> Result<File, Failure> {
    let failure =
        |class, text: String| Failure::new(class, format!("'{}': {text}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| failure(Class::Io, error.to_string()))?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|error| failure(Class::Usage, format!("it is no JSON: {error}")))?;
    match value["program"].as_str() {
        Some(PROGRAM) => {
            let record = Record::from_json(&value).map_err(|error| {
                failure(Class::Usage, format!("it is no whole record: {error}"))
            })?;
            Ok(File::Compare(Box::new(record)))
        }
        Some("echo-reactor bench") => Ok(File::Bench(value)),
        _ => Err(failure(
            Class::Usage,
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

// --- What belongs together ---------------------------------------------------------------------------------------------

fn of_comparisons(before: &Record, after: &Record) -> Vec<Question> {
    let mut questions = Vec::new();
    for (place, model) in before.models.iter().enumerate() {
        let Some(partner) = after.models.iter().position(|one| one.name == model.name) else {
            continue;
        };
        let common: Vec<(String, &Entry, &Entry)> = (before.cells.iter())
            .filter_map(|cell| {
                let other = after.cell(cell.scenario, cell.connections, cell.size)?;
                let name = load_name(cell.scenario, cell.connections, cell.size);
                let what = format!("{}: {name}", model.name);
                let entries = (&cell.entries[place], &other.entries[partner]);
                let both = !entries.0.samples.is_empty() && !entries.1.samples.is_empty();
                both.then_some((what, entries.0, entries.1))
            })
            .collect();
        for (what, before, after) in &common {
            questions.extend(JUDGED.into_iter().filter_map(|figure| {
                let series = |entry| Series::of_rounds(&[entry], figure);
                Question::new(what, figure, series(before), series(after), false)
            }));
        }
        let (before, after): (Vec<&Entry>, Vec<&Entry>) = common
            .iter()
            .map(|(_, before, after)| (*before, *after))
            .unzip();
        questions.extend(JUDGED.into_iter().filter_map(|figure| {
            let (before, after) = (
                Series::of_rounds(&before, figure),
                Series::of_rounds(&after, figure),
            );
            let what = format!("{}: all loads together", model.name);
            Question::new(&what, figure, before, after, true)
        }));
    }
    questions
}

/// The seconds of two runs. Of the processor's time there is one figure for all of them, so there is no interval for it.
fn of_runs(before: &Value, after: &Value) -> Vec<Question> {
    let throughput = |run: &Value| {
        Series::of_seconds(run, |second| {
            Some(second["echoes"].as_f64()? / second["seconds"].as_f64()?)
        })
    };
    let p99 = |run: &Value| Series::of_seconds(run, |second| second["p99"].as_f64());
    let questions = [
        (Figure::Throughput, throughput(before), throughput(after)),
        (Figure::P99, p99(before), p99(after)),
    ];
    let questions = questions.into_iter().filter_map(|(figure, before, after)| {
        Question::new("the run", figure, before, after, false)
    });
    questions.collect()
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

impl Question {
    /// None, if one of the records knows nothing of it.
    fn new(
        what: &str,
        figure: Figure,
        before: Series,
        after: Series,
        is_summary: bool,
    ) -> Option<Self> {
        let is_asked = !before.logs.is_empty() && !after.logs.is_empty();
        is_asked.then(|| Self {
            what: what.to_owned(),
            figure,
            before,
            after,
            is_summary,
        })
    }

    fn estimate(&self, error: f64) -> Option<Estimate> {
        difference(
            (&self.after.logs, self.after.count),
            (&self.before.logs, self.before.count),
            error,
        )
    }
}

impl Series {
    /// Each round is a process of its own, so the rounds are independent. Of several loads it is the mean of each round,
    /// if the round has them all.
    fn of_rounds(entries: &[&Entry], figure: Figure) -> Self {
        let rounds = entries.first().into_iter().flat_map(|entry| &entry.samples);
        let log_of = |entry: &&Entry, round| {
            let sample = entry.samples.iter().find(|sample| sample.round == round)?;
            sample.get(figure).filter(|value| *value > 0.0).map(f64::ln)
        };
        let of_round = |round| {
            let logs: Option<Vec<f64>> = entries.iter().map(|entry| log_of(entry, round)).collect();
            logs.map(|logs| mean(&logs))
        };
        let logs: Vec<f64> = rounds.filter_map(|sample| of_round(sample.round)).collect();
        let count = logs.len() as f64;
        Self { logs, count }
    }

    /// The seconds of one run are not. The rest of a second, at the end, is no second.
    fn of_seconds(run: &Value, figure: impl Fn(&Value) -> Option<f64>) -> Self {
        let seconds: Vec<&Value> = run["intervals"].as_array().into_iter().flatten().collect();
        let lasted = |second: &Value| second["seconds"].as_f64().unwrap_or(0.0);
        let longest = seconds
            .iter()
            .map(|second| lasted(second))
            .fold(0.0, f64::max);
        let whole = seconds
            .into_iter()
            .filter(|second| lasted(second) > longest / 2.0);
        let logs: Vec<f64> = whole
            .filter_map(figure)
            .filter(|value| *value > 0.0)
            .map(f64::ln)
            .collect();
        let count = independent(&logs);
        Self { logs, count }
    }
}

// --- The report --------------------------------------------------------------------------------------------------------

/// A line for each question, how many said what, and the exit code.
fn report(questions: &[Question], tolerance: Percent) -> (String, Exit) {
    let mut out = String::new();
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
    let _ = writeln!(out, "\n{}", counts.join(", "));
    let exit = match count(Verdict::Worse) {
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
    use super::*;
    use crate::load::Random;
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
        let verdict = |after: &Value| report(&of_runs(&before, after), Percent(5.0));
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

    #[test]
    fn a_share_is_written_as_people_write_it() {
        assert_eq!("7.5%".parse(), Ok(Percent(7.5)));
        for wrong in ["5", "-1%", "x%", "%"] {
            assert!(wrong.parse::<Percent>().unwrap_err().contains("5%"));
        }
    }
}
