//! The command line of `compare`, and what it means.
//!
//! What may live in this file: flags, their help, and their translation into subjects, loads and a timing. What may
//! not: acting on them.

use super::record::{Load, Scenario};
use super::subject::{Own, PORT, Subject};
use super::workloads::{Timing, combine, standard_loads};
use crate::cli::error::CliError;
use crate::cli::units::{Bytes, Count, List, Time};
use crate::net::Address;
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = include_str!("examples.txt");

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
    loads: LoadArgs,

    #[command(flatten)]
    pub(super) timing: TimingArgs,

    #[command(flatten)]
    pub(super) output: OutputArgs,

    /// Be the guard of a server of another one's: the command comes by standard input
    #[arg(long, hide = true)]
    pub(super) as_guard: bool,
}

#[derive(Args, Debug)]
#[command(
    next_help_heading = "Loads (any of these replaces the standard ones by all combinations)"
)]
struct LoadArgs {
    /// What is done to the servers [default: request-response]
    #[arg(long, value_name = "SCENARIO", value_enum, value_delimiter = ',')]
    scenarios: Vec<Scenario>,

    /// Connections [default: 1,10,100,1k]
    #[arg(short, long, value_name = "COUNT")]
    connections: Vec<List<Count>>,

    /// Bytes of a request [default: 64]
    #[arg(short, long, value_name = "BYTES")]
    sizes: Vec<List<Bytes>>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Timing")]
pub(super) struct TimingArgs {
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
    pub(super) seed: u64,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Output")]
pub(super) struct OutputArgs {
    /// Write the record to this file; the schema is in the source, as src/cli/compare/schema.json
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,

    /// Write a page with drawings to this file, which needs no other
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,

    /// Draw throughput and p99 over connections into this file
    #[arg(long, value_name = "FILE")]
    pub(super) svg: Option<PathBuf>,

    /// Say nothing while it runs
    #[arg(short, long)]
    pub(super) quiet: bool,
}

impl CompareArgs {
    /// The servers that are compared; the first is the reference.
    pub(super) fn subjects(&self) -> Result<Vec<Subject>, CliError> {
        let mut subjects: Vec<Subject> = self.models.iter().copied().map(Subject::Own).collect();
        for address in &self.against {
            if address.is_datagram() {
                let text =
                    format!("--against {address}: streams are compared; write tcp:// or unix://");
                return Err(CliError::usage(text));
            }
            subjects.push(Subject::Running(address.clone()));
        }
        for command in &self.against_command {
            if !command.contains(PORT) {
                let text = format!(
                    "--against-command '{command}' has no {PORT} in it, which stands for the port; write for example \
                     'python3 echo.py {PORT}'"
                );
                return Err(CliError::usage(text));
            }
            subjects.push(Subject::Command(command.clone()));
        }
        Ok(subjects)
    }

    pub(super) fn loads(&self) -> Result<Vec<Load>, CliError> {
        let args = &self.loads;
        if args.scenarios.is_empty() && args.connections.is_empty() && args.sizes.is_empty() {
            return Ok(standard_loads(self.quick));
        }
        let connections = args.connections.iter().flat_map(|list| &list.0);
        let connections = or(connections.map(|count| count.0), &[1, 10, 100, 1_000]);
        let sizes = args.sizes.iter().flat_map(|list| &list.0);
        let sizes = or(sizes.map(|size| size.0 as u64), &[64]);
        if connections.contains(&0) || sizes.contains(&0) {
            let text = "--connections and --sizes are 1 or more: nothing is no load";
            return Err(CliError::usage(text));
        }
        let scenarios = args.scenarios.iter().copied();
        let scenarios = or(scenarios, &[Scenario::RequestResponse]);
        Ok(combine(&scenarios, &connections, &sizes))
    }

    pub(super) fn timing(&self) -> Result<Timing, CliError> {
        let args = &self.timing;
        let default = Timing::of(self.quick);
        let rounds = args.rounds.map_or(default.rounds, |rounds| rounds.0);
        let window = args.window.map_or(default.window, |time| time.0);
        if rounds == 0 || window.is_zero() {
            let text = "--rounds 0 and --window 0s measure nothing; write 3 or more, and for example 250ms";
            return Err(CliError::usage(text));
        }
        Ok(Timing {
            rounds,
            window,
            warm_up: args.warm_up.map_or(default.warm_up, |time| time.0),
        })
    }
}

/// The arguments, or their default where there are none.
fn or<T: Copy>(arguments: impl Iterator<Item = T>, default: &[T]) -> Vec<T> {
    let arguments: Vec<T> = arguments.collect();
    match arguments.is_empty() {
        true => default.to_vec(),
        false => arguments,
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
    fn without_a_word_it_is_the_standard_loads_and_three_models() {
        let args = args("");
        assert_eq!(args.subjects().unwrap().len(), 3);
        assert_eq!(args.loads().unwrap(), standard_loads(false));
        assert_eq!(args.timing().unwrap(), Timing::of(false));
    }

    #[test]
    fn loads_that_are_named_replace_the_standard_ones() {
        let args =
            args("--quick -c 1,2 --scenarios churn,pipelined -s 64,1k --rounds 3 --window 50ms");
        assert_eq!(args.loads().unwrap().len(), 8);
        let timing = args.timing().unwrap();
        assert_eq!(
            (timing.rounds, timing.window),
            (3, Duration::from_millis(50))
        );
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
        refused(args("--rounds 0").timing().err(), "3 or more");
        refused(args("--window 0s").timing().err(), "250ms");
    }
}
