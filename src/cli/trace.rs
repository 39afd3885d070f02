//! `echo-reactor trace FILE`: what a recorded server did, in words.
//!
//! What may live in this file: arguments and files. The words are in [`crate::trace`].

use super::error::{CliError, CliErrorKind, Exit};
use super::output::printable;
use super::stdio;
use crate::trace::{Text, Trace};
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  echo-reactor serve --trace loop.trace      record; Ctrl-C ends it
  echo-reactor trace loop.trace | less       one line an event
  echo-reactor serve --trace -               one line a turn, as it happens
  kill -USR1 PID                             write the file now

Columns: seconds since the start, turn, source, event, and the function of the
source code that did it. A source is a slot of the reactor; '#3.2' is the second
one in slot 3. No byte of what clients send is recorded.
";

/// Lines that are written at once.
const LINES: usize = 1_000;

/// Show what a server recorded by serve --trace did, event by event
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct TraceArgs {
    /// The file that serve --trace has written
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn run(args: &TraceArgs) -> Result<Exit, CliError> {
    let trace = read(&args.file)?;
    let mut lines = Text::of(&trace).lines();
    loop {
        let part: Vec<String> = lines.by_ref().take(LINES).collect();
        if part.is_empty() {
            return Ok(Exit::Ok);
        }
        let text = part.join("\n") + "\n";
        stdio::print(&printable(&text))?;
    }
}

fn read(path: &Path) -> Result<Trace, CliError> {
    let of_file = |text: String| format!("'{}': {text}", path.display());
    let bytes = fs::read(path)
        .map_err(|error| CliError::new(CliErrorKind::Io, of_file(error.to_string())))?;
    Trace::from_bytes(&bytes).map_err(|error| CliError::usage(of_file(error.to_string())))
}
