//! `echo-reactor diff BEFORE AFTER`: two records of `bench` or of `compare`, and whether the second is the same, better or
//! worse.
//!
//! Which figures belong together, and what the second record lacks, is in [`comparisons`] and [`runs`], which make an
//! [`answer::Answer`]; the statistics are [`super::compare::statistics`]'s.
//!
//! Two records were made at different times, so nothing in them is a pair, and the machine may have changed its mind
//! between them. Nothing inside one record knows of that. `--tolerance` is what is allowed for it: a difference counts
//! if its whole interval is beyond.
//!
//! What is missing is worse than what is slow. A load that the second record could not serve, a second in which nothing
//! came back, a connection that was never made: none of them has a figure, and a comparison of the figures alone would
//! praise the server that left its slowest work undone. So each of these is a finding, decided without statistics.

mod answer;
mod comparisons;
mod runs;

use super::bench::{Format, record as bench};
use super::compare::record as compare;
use super::error::{CliError, CliErrorKind, Exit};
use super::output::printable;
use super::stdio;
use super::units::Percent;
use clap::Args;
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = include_str!("diff/examples.txt");

/// Compare two records of bench or of compare: same, better or worse
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct DiffArgs {
    /// The record that the other is compared with
    #[arg(value_name = "BEFORE")]
    before: PathBuf,

    /// The record that is judged
    #[arg(value_name = "AFTER")]
    after: PathBuf,

    /// Further records, with --merge
    #[arg(value_name = "RECORD", requires = "merge")]
    more: Vec<PathBuf>,

    /// Add up all records, of bench, that were made apart on several machines, to one record
    #[arg(long)]
    merge: bool,

    /// Format of the merged record
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Format::Text, requires = "merge")]
    format: Format,

    /// A difference that may come from the time between the two; of the p99, twice as much
    #[arg(long, value_name = "PERCENT", default_value = "5%")]
    tolerance: Percent,
}

pub(super) fn run(args: &DiffArgs) -> Result<Exit, CliError> {
    if args.merge {
        return merge(args);
    }
    let tolerance = args.tolerance.0 / 100.0;
    let (before, after) = (read(&args.before)?, read(&args.after)?);
    let answer = match (&before, &after) {
        (File::Compare(before), File::Compare(after)) => comparisons::compare(before, after),
        (File::Bench(before), File::Bench(after)) => runs::compare(before, after, tolerance),
        _ => {
            let text = "one is a record of bench and the other of compare; compare two of a kind";
            return Err(CliError::usage(text));
        }
    };
    let (mut report, exit) = answer.report(tolerance);
    for (path, file) in [(&args.before, &before), (&args.after, &after)] {
        let (name, doubt) = (path.display(), file.doubt());
        report.extend(doubt.map(|doubt| format!("note: {name}: {doubt}\n")));
    }
    stdio::print(&printable(&report))?;
    if answer.is_empty() {
        let text = "the two records have nothing in common that was measured";
        return Err(CliError::usage(text));
    }
    Ok(exit)
}

fn merge(args: &DiffArgs) -> Result<Exit, CliError> {
    let paths = [&args.before, &args.after].into_iter().chain(&args.more);
    let records = paths.map(|path| {
        let name = path.display().to_string();
        match read(path)? {
            File::Bench(record) => Ok((name, *record)),
            File::Compare(_) => Err(CliError::usage(format!("'{name}' is no record of bench"))),
        }
    });
    super::bench::merge(&records.collect::<Result<Vec<_>, _>>()?, args.format)
}

/// A record knows by its `program` of which command it is.
#[derive(Debug, Deserialize)]
#[serde(tag = "program")]
enum File {
    #[serde(rename = "echo-reactor bench")]
    Bench(Box<bench::Record>),
    #[serde(rename = "echo-reactor compare")]
    Compare(Box<compare::Record>),
}

impl File {
    /// What makes it doubtful, if it says so itself.
    fn doubt(&self) -> Option<String> {
        match self {
            Self::Bench(record) => {
                let why = record.not_valid_because.first()?;
                Some(format!("not valid because {why}"))
            }
            Self::Compare(record) => record.interrupted.then(|| "it was ended early".to_owned()),
        }
    }
}

fn read(path: &Path) -> Result<File, CliError> {
    let name = path.display();
    let text = fs::read_to_string(path)
        .map_err(|error| CliError::new(CliErrorKind::Io, format!("'{name}': {error}")))?;
    serde_json::from_str(&text).map_err(|error| {
        let what = if error.is_data() { "record" } else { "JSON" };
        CliError::usage(format!(
            "'{name}': it is no {what}: {error}; 'bench --format json' and 'compare --json FILE' make records"
        ))
    })
}
