//! The command line: arguments, their meaning, and the exit code.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! One folder for each command: [`serve`], [`send`], [`watch`], [`doctor`], `bench`, `check`, `compare`, `diff` and [`trace`]; `man` and
//! `completions` are in [`manual`]. Beside them what several need: values with units ([`units`]), names of hosts ([`names`]), the log
//! ([`logging`]), output that does not block ([`output`]), output that blocks ([`stdio`]), files ([`output_file`]), flags by environment variables
//! ([`variables`]), templates of reports ([`templates`]),
//! inherited state of the process ([`process`], [`descriptors`]), errors and exit codes ([`error`]). What may live in this file: the top of the command line, and the
//! one place where an error is printed. What may not: anything that one command alone needs.
//!
//! Nothing here uses `println!` or `eprintln!`: they panic when the stream is closed, and a closed terminal is no
//! reason for a server to end.

#[cfg(feature = "bench")]
pub(crate) mod bench;
#[cfg(feature = "check")]
mod check;
#[cfg(feature = "bench")]
mod compare;
mod descriptors;
#[cfg(feature = "bench")]
mod diff;
mod doctor;
mod error;
mod logging;
mod manual;
mod memory;
mod names;
mod output;
mod output_file;
mod own_program;
#[cfg(feature = "bench")]
mod page;
mod process;
mod send;
mod serve;
#[cfg(feature = "bench")]
mod status_line;
mod stdio;
mod templates;
mod trace;
pub(crate) mod units;
mod variables;
mod watch;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use error::{CliError, Exit};
use std::ffi::OsString;
use std::panic;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  echo-reactor serve
      serve on tcp://127.0.0.1:50007
  echo-reactor send
      send 'Hello, world!' to it
  echo-reactor serve :7777 udp://127.0.0.1:7777
      TCP on all interfaces, UDP on this machine
  echo-reactor bench
      ten seconds of load on a server of its own, and a report
  echo-reactor doctor --connections 100k
      can this machine hold 100,000 connections?
  echo-reactor check
      does the server on port 50007 keep the rules?
  echo-reactor compare --quick
      the event loop against its blocking models, in less than a minute
  echo-reactor serve --help
      every limit, with its default

Environment: ECHO_REACTOR_<COMMAND>_<FLAG> sets a flag that is not on the
command line, such as ECHO_REACTOR_SERVE_MAX_CONNECTIONS=10k. A switch is true
or false, a list has commas, and ECHO_REACTOR_SERVE_ADDRESS is one address.
";

#[derive(Debug, Parser)]
#[command(
    name = "echo-reactor",
    version,
    about = "An echo server on one thread and one event loop, and a client and a load generator for any echo server",
    after_help = format!("{EXAMPLES}\nExit codes:\n{}", Exit::help()),
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::ServeArgs>),
    Send(Box<send::SendArgs>),
    Doctor(Box<doctor::DoctorArgs>),
    #[cfg(feature = "bench")]
    Bench(Box<bench::BenchArgs>),
    #[cfg(feature = "bench")]
    Compare(Box<compare::CompareArgs>),
    #[cfg(feature = "check")]
    Check(check::CheckArgs),
    #[cfg(feature = "bench")]
    Diff(diff::DiffArgs),
    Trace(trace::TraceArgs),
    Watch(watch::WatchArgs),
    Man(manual::ManArgs),
    Completions(manual::CompletionsArgs),
    /// Resolves names in a child process of `serve`
    #[command(name = names::COMMAND, hide = true)]
    Resolve(names::ResolveArgs),
}

/// Runs the program on its own command line, and returns its exit code.
pub fn main() -> ExitCode {
    process::prepare();
    // A panic is a bug in this program. Its message has been printed before it arrives here.
    let exit = panic::catch_unwind(run).unwrap_or(Exit::Internal);
    logging::finish();
    exit.into()
}

fn run() -> Exit {
    let line: Vec<OsString> = std::env::args_os().collect();
    let parsed = variables::parse(&Arguments::command(), &line);
    let parsed = parsed.and_then(|matches| Ok((Arguments::from_arg_matches(&matches)?, matches)));
    let (args, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return answer(&error, &line),
    };
    if !matches!(args.command, Command::Serve(_)) {
        process::unblock_signals(); // `serve` does so later, once it has handlers
    }
    let result = match args.command {
        Command::Serve(args) => match matches.subcommand() {
            Some((name, given)) if args.is_print_config() => {
                serve::print_config(&args, &named(name), given)
            }
            _ => serve::run(&args),
        },
        Command::Send(args) => send::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        #[cfg(feature = "bench")]
        Command::Bench(args) => bench::run(&args),
        #[cfg(feature = "bench")]
        Command::Compare(args) => compare::run(&args),
        #[cfg(feature = "check")]
        Command::Check(args) => check::run(&args),
        #[cfg(feature = "bench")]
        Command::Diff(args) => diff::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Man(args) => manual::write_pages(&args, &command_line()),
        Command::Completions(args) => manual::print_completions(&args, &command_line()),
        Command::Resolve(args) => names::answer(&args),
    };
    result.unwrap_or_else(|mut failure| {
        if failure.exit() == Exit::Usage {
            failure.text += &variables::origins(&failure.text, &Arguments::command(), &line);
        }
        logging::print_line(&failure.to_string());
        failure.exit()
    })
}

/// The command line with the variables of its flags.
fn command_line() -> clap::Command {
    variables::with_variables(Arguments::command())
}

/// One command of the command line.
fn named(name: &str) -> clap::Command {
    let command = command_line();
    command.find_subcommand(name).cloned().unwrap_or(command)
}

/// Prints what clap returns: help and version as they are, errors on one line.
fn answer(error: &clap::Error, line: &[OsString]) -> Exit {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A terminal takes a few thousand bytes at once, and may be non-blocking: clap's own `print` would give up.
            let _ = stdio::print(&error.render().to_string());
            Exit::Ok
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print(); // on standard error
            Exit::Usage
        }
        _ => {
            let command = Arguments::command();
            let subcommand = line.get(1).and_then(|name| command.find_subcommand(name));
            let name = subcommand.map(clap::Command::get_name);
            let failure = CliError::usage(one_line(error, name, &command, line));
            logging::print_line(&failure.to_string());
            failure.exit()
        }
    }
}

/// Puts clap's message on one line, without its usage text, and names the help to read. Not every error of clap knows its
/// subcommand, so the caller passes it.
fn one_line(
    error: &clap::Error,
    subcommand: Option<&str>,
    command: &clap::Command,
    line: &[OsString],
) -> String {
    let text = error.render().to_string();
    let told: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        // Of `--rate -5` it takes the number for a flag, and what follows `--` is no rate either.
        .filter(|line| !line.starts_with("tip: to pass '-"))
        .collect();
    let told = told.join(" ").replace(" tip: ", "; ");
    let told = told.strip_prefix("error: ").unwrap_or(&told);
    let told = told.to_owned() + &variables::origins(told, command, line);
    match subcommand {
        Some(name) => format!("{told}; see 'echo-reactor {name} --help'"),
        None => format!("{told}; see 'echo-reactor --help'"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The command line, for the tests of other files.
    pub(crate) fn command() -> clap::Command {
        Arguments::command()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
        command_line().debug_assert();
    }

    #[track_caller]
    fn refused(arguments: &[&str]) -> String {
        let line = [&["echo-reactor"], arguments].concat();
        let subcommand = arguments.first().copied().filter(|&name| name != "sevre");
        let error = Arguments::try_parse_from(&line).unwrap_err();
        let line: Vec<OsString> = line.iter().map(OsString::from).collect();
        one_line(&error, subcommand, &Arguments::command(), &line)
    }

    /// A line that clap breaks, of a table or of an example, goes on at the left edge.
    #[test]
    fn every_help_fits_80_columns_as_it_is_written() {
        let mut all = command_line().term_width(80);
        all.build();
        for command in std::iter::once(&all).chain(all.get_subcommands()) {
            let behind = command.get_after_help().map(ToString::to_string);
            let long = command.clone().render_long_help().to_string();
            let short = command.clone().render_help().to_string();
            for line in behind
                .iter()
                .flat_map(|text| text.lines())
                .chain(long.lines())
                .chain(short.lines())
            {
                let width = line.chars().count();
                assert!(width <= 80, "{}: {width}: {line}", command.get_name());
            }
        }
    }

    #[test]
    fn the_advice_for_a_negative_value_is_not_to_pass_it_elsewhere() {
        let said = refused(&["serve", "--max-connections", "-5"]);
        assert!(said.contains("'-5'") && !said.contains("-- -5"), "{said}");
    }

    #[test]
    fn an_error_is_one_line_that_names_the_value_and_the_help() {
        let said = refused(&["serve", "--max-connections", "10x"]);
        assert!(
            said.contains("'10x'") && said.contains("--max-connections"),
            "{said}"
        );
        assert!(said.contains("write for example 500, 10k or 1M"), "{said}");
        assert!(said.ends_with("see 'echo-reactor serve --help'"), "{said}");
        let said = refused(&["sevre"]);
        assert!(
            said.contains("'sevre'") && said.contains("'serve'"),
            "{said}"
        );
        let said = refused(&["send", "--nothing"]);
        assert!(said.contains("--nothing") && !said.contains('\n'), "{said}");
    }
}
