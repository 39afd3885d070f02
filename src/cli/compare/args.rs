//! The command line of `compare`, and what it means.
//!
//! What may live in this file: flags, their help, and their translation into subjects, loads and a course. What may
//! not: acting on them.

use super::record::Scenario;
use super::subject::{Own, PORT, Subject};
use super::workloads::{Course, Load, combine, menu};
use crate::cli::error::{CliError, CliErrorKind};
use crate::cli::units::{Bytes, Count, List, Time};
use crate::net::Address;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  echo-reactor compare --quick
      less than a minute, and a table
  echo-reactor compare --html report.html
      all of it, and a page with drawings; says beforehand how long it takes
  echo-reactor compare --json before.json
      for 'echo-reactor report before.json after.json'
  echo-reactor compare --against-command 'python3 echo.py {port}'
  echo-reactor compare --against-command './other serve 127.0.0.1:{port}'
  echo-reactor compare --against otherhost:7
      any running server; its CPU time and memory stay unknown
  echo-reactor compare -c 1,10,100 --scenarios churn --rounds 20

The command of --against-command is started anew for every measurement, with a
free port in place of {port}, on which it must answer within 10 s over TCP on
127.0.0.1. It is ended by SIGTERM, and so is every process that it has started,
in the background too, even if compare itself is killed. It is split into words
by sh, and is one command. Servers run on all processors but the last, which the
load has for itself. Ratios are to the first model, round by round, with
intervals of which all together are right with 95 %; a difference of less than
2 % (of the p99: 10 %) is called the same.
";

/// Put the same load on the event loop, on its blocking models and on other servers, and compare
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct CompareArgs {
    /// A short one, in less than a minute
    #[arg(long)]
    quick: bool,

    /// Our own models; the first is what all are compared with
    #[arg(long, value_name = "MODEL", value_enum, value_delimiter = ',',
        default_values_t = [Own::Reactor, Own::Threads, Own::Iterative])]
    models: Vec<Own>,

    /// A TCP server that is running somewhere, beside them; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    against: Vec<Address>,

    /// A command that starts a TCP echo server on 127.0.0.1:{port}, beside them; may be given several times
    #[arg(long, value_name = "COMMAND")]
    against_command: Vec<String>,

    #[command(flatten)]
    loads: Loads,

    #[command(flatten)]
    course: HowOften,

    #[command(flatten)]
    output: Output,

    /// Be the guard of a server of another one's: the command comes by standard input
    #[arg(long, hide = true)]
    pub(super) as_guard: bool,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Loads (any of these replaces the menu by all their combinations)")]
struct Loads {
    /// What is done to the servers [default: request-response]
    #[arg(long, value_name = "SCENARIO", value_enum, value_delimiter = ',')]
    scenarios: Vec<Way>,

    /// Connections [default: 1,10,100,1k]
    #[arg(short, long, value_name = "COUNT")]
    connections: Vec<List<Count>>,

    /// Bytes of a request [default: 64]
    #[arg(short, long, value_name = "BYTES")]
    sizes: Vec<List<Bytes>>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Course")]
struct HowOften {
    /// How often each load is measured [default: 10, with --quick 6]
    #[arg(long, value_name = "COUNT")]
    rounds: Option<Count>,

    /// How long one measurement is [default: 1500ms, with --quick 250ms]
    #[arg(long, value_name = "TIME")]
    window: Option<Time>,

    /// Time under load before each [default: 400ms, with --quick 80ms]
    #[arg(long, value_name = "TIME")]
    warm_up: Option<Time>,

    /// What the order of each round is drawn from
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,

    /// Do not count system calls
    #[arg(long)]
    no_strace: bool,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Output")]
struct Output {
    /// Write the record to this file; the schema is in the source, as src/cli/compare/schema.json
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write a page with drawings to this file, which needs no other
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Draw throughput and p99 over connections into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Say nothing while it runs
    #[arg(short, long)]
    quiet: bool,
}

/// What is done to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    /// One request under way on each connection
    RequestResponse,
    /// Sixteen under way on each
    Pipelined,
    /// Connect, one request, reset, and again
    Churn,
    /// One connection in five is active
    MostlyIdle,
    /// One more sends without end and never reads
    SlowReader,
}

impl From<Way> for Scenario {
    fn from(way: Way) -> Self {
        match way {
            Way::RequestResponse => Self::RequestResponse,
            Way::Pipelined => Self::Pipelined,
            Way::Churn => Self::Churn,
            Way::MostlyIdle => Self::MostlyIdle,
            Way::SlowReader => Self::SlowReader,
        }
    }
}

impl CompareArgs {
    /// The servers that are compared; the first is the reference.
    pub(super) fn subjects(&self) -> Result<Vec<Subject>, CliError> {
        let mut subjects: Vec<Subject> = self.models.iter().copied().map(Subject::Own).collect();
        for address in &self.against {
            if address.is_datagram() {
                let text =
                    format!("--against {address}: streams are compared; write tcp:// or unix://");
                return Err(CliError::new(CliErrorKind::Usage, text));
            }
            subjects.push(Subject::Running(address.clone()));
        }
        for command in &self.against_command {
            if !command.contains(PORT) {
                let text = format!(
                    "--against-command '{command}' has no {PORT} in it, which stands for the port; write for example \
                     'python3 echo.py {PORT}'"
                );
                return Err(CliError::new(CliErrorKind::Usage, text));
            }
            subjects.push(Subject::Command(command.clone()));
        }
        Ok(subjects)
    }

    pub(super) fn loads(&self) -> Result<Vec<Load>, CliError> {
        let args = &self.loads;
        if args.scenarios.is_empty() && args.connections.is_empty() && args.sizes.is_empty() {
            return Ok(menu(self.quick));
        }
        let usize_of = |count: &Count| usize::try_from(count.0).unwrap_or(usize::MAX);
        let or = |args: Vec<usize>, default: &[usize]| match args.is_empty() {
            true => default.to_vec(),
            false => args,
        };
        let connections = args
            .connections
            .iter()
            .flat_map(|list| &list.0)
            .map(usize_of)
            .collect();
        let connections = or(connections, &[1, 10, 100, 1_000]);
        let sizes = args
            .sizes
            .iter()
            .flat_map(|list| &list.0)
            .map(|size| size.0)
            .collect();
        let sizes = or(sizes, &[64]);
        if connections.contains(&0) || sizes.contains(&0) {
            let text = "--connections and --sizes are 1 or more: nothing is no load";
            return Err(CliError::new(CliErrorKind::Usage, text));
        }
        let mut scenarios: Vec<Scenario> = args.scenarios.iter().map(|&way| way.into()).collect();
        if scenarios.is_empty() {
            scenarios.push(Scenario::RequestResponse);
        }
        Ok(combine(&scenarios, &connections, &sizes))
    }

    pub(super) fn course(&self) -> Result<Course, CliError> {
        let args = &self.course;
        let default = Course::of(self.quick);
        let refuse = |text: &str| Err(CliError::new(CliErrorKind::Usage, text));
        let rounds = args.rounds.map_or(default.rounds, |rounds| rounds.0);
        let window = args.window.map_or(default.window, |time| time.0);
        if rounds == 0 {
            return refuse(
                "--rounds 0 measures nothing; write 3 or more, or there will be no intervals",
            );
        }
        if window.is_zero() {
            return refuse("--window 0s measures nothing; write for example 250ms");
        }
        // With the number and the length of rounds given, the time that all may take is given, too.
        let is_own = args.rounds.is_some() || args.window.is_some();
        Ok(Course {
            rounds,
            window,
            warm_up: args.warm_up.map_or(default.warm_up, |time| time.0),
            budget: default.budget.filter(|_| !is_own),
        })
    }

    pub(super) fn seed(&self) -> u64 {
        self.course.seed
    }

    pub(super) fn counts_system_calls(&self) -> bool {
        !self.course.no_strace
    }

    pub(super) fn json(&self) -> Option<&PathBuf> {
        self.output.json.as_ref()
    }

    pub(super) fn html(&self) -> Option<&PathBuf> {
        self.output.html.as_ref()
    }

    pub(super) fn svg(&self) -> Option<&PathBuf> {
        self.output.svg.as_ref()
    }

    pub(super) fn quiet(&self) -> bool {
        self.output.quiet
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::time::Duration;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: CompareArgs,
    }

    fn args(line: &str) -> CompareArgs {
        Line::parse_from(
            std::iter::once("compare").chain(line.split(' ').filter(|word| !word.is_empty())),
        )
        .args
    }

    #[test]
    fn without_a_word_it_is_the_menu_and_three_models() {
        let args = args("");
        assert_eq!(args.subjects().unwrap().len(), 3);
        assert_eq!(args.loads().unwrap(), menu(false));
        assert_eq!(args.course().unwrap(), Course::of(false));
        assert!(args.counts_system_calls());
    }

    #[test]
    fn loads_that_are_named_replace_the_menu() {
        let args =
            args("--quick -c 1,2 --scenarios churn,pipelined -s 64,1k --rounds 3 --window 50ms");
        assert_eq!(args.loads().unwrap().len(), 8);
        let course = args.course().unwrap();
        assert_eq!(
            (course.rounds, course.window),
            (3, Duration::from_millis(50))
        );
        assert_eq!(course.budget, None);
    }

    #[test]
    fn nonsense_is_refused_with_a_remedy() {
        let refused = |failure: Option<CliError>, word: &str| {
            let text = failure.expect("it is refused").text;
            assert!(text.contains(word), "{text}");
        };
        refused(args("--against-command server").subjects().err(), "{port}");
        refused(
            args("--against udp://127.0.0.1:7").subjects().err(),
            "tcp://",
        );
        refused(args("-c 0").loads().err(), "1 or more");
        refused(args("--rounds 0").course().err(), "3 or more");
        refused(args("--window 0s").course().err(), "250ms");
    }
}
