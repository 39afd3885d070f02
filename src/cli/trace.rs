//! `echo-reactor trace FILE`: what a recorded server did, in words, as a page, or for a viewer of traces.
//!
//! What may live in this file: arguments and files. Words, page and JSON are in [`crate::trace`].

use super::error::{CliError, CliErrorKind, Exit};
use super::output::printable;
use super::output_file::{OutputFile, Purpose, refuse_same};
use super::stdio;
use crate::trace::page::page;
use crate::trace::perfetto::perfetto;
use crate::trace::{Text, Trace};
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  echo-reactor serve --trace loop.trace      record; Ctrl-C ends it
  echo-reactor trace loop.trace | less       one line an event
  echo-reactor trace loop.trace --html loop.html      step through it
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

    /// Write a page that steps through the last events, forwards and back, in place of the text
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Write Trace Event JSON for ui.perfetto.dev, in place of the text
    #[arg(long, value_name = "FILE")]
    perfetto: Option<PathBuf>,
}

pub(super) fn run(args: &TraceArgs) -> Result<Exit, CliError> {
    let (html, json) = (args.html.as_ref(), args.perfetto.as_ref());
    refuse_same(&[
        ("FILE", Some(&args.file)),
        ("--html", html),
        ("--perfetto", json),
    ])?;
    let trace = read(&args.file)?;
    if let Some(path) = html {
        let title = args.file.file_name().unwrap_or_default().to_string_lossy();
        write("--html", path, &page(&trace, &title))?;
    }
    if let Some(path) = json {
        write("--perfetto", path, &perfetto(&trace))?;
    }
    if html.is_none() && json.is_none() {
        print(&trace)?;
    }
    Ok(Exit::Ok)
}

fn read(path: &Path) -> Result<Trace, CliError> {
    let of_file = |text: String| format!("'{}': {text}", path.display());
    let bytes = fs::read(path)
        .map_err(|error| CliError::new(CliErrorKind::Io, of_file(error.to_string())))?;
    Trace::from_bytes(&bytes).map_err(|error| CliError::usage(of_file(error.to_string())))
}

fn write(flag: &'static str, path: &Path, content: &str) -> Result<(), CliError> {
    let mut file = OutputFile::open(flag, path, Purpose::Measuring)?;
    file.write(content.as_bytes())?;
    file.finish()
}

fn print(trace: &Trace) -> Result<(), CliError> {
    let mut lines = Text::of(trace).lines();
    loop {
        let part: Vec<String> = lines.by_ref().take(LINES).collect();
        if part.is_empty() {
            return Ok(());
        }
        stdio::print(&printable(&(part.join("\n") + "\n")))?;
    }
}
