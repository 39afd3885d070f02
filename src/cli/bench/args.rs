//! The command line of `bench`: flags, their help, and their translation into a [`Plan`].

mod bad;
mod refused;
mod share;

use super::workers::Machines;
use crate::cli::error::CliError;
use crate::cli::units::{Bytes, Count, List, Percent, Rate, Time};
use crate::load::{Arrivals, BadClients, Mode, Plan, Sources};
use crate::net::connect::Trigger;
use crate::net::proxy::Version;
use crate::net::{Address, Endpoint};
use crate::procfs::subtree::descendants;
use bad::{Bad, BadKind};
use clap::{Args, ValueEnum};
use share::Share;
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  echo-reactor bench
      ten seconds on a server of its own
  echo-reactor bench localhost:7777 -c 1k -d 30s -s 64
      closed loop: the next request when the answer has come
  echo-reactor bench localhost:7777 -r 50k
      open loop: 50,000 a second, whatever the server does
  echo-reactor bench localhost:7777 -r 10k,20k,40k
      three steps of that
  echo-reactor bench localhost:7777 --find-max-rate 1ms
      the highest rate with a p99 of at most 1 ms
  echo-reactor bench localhost:7777 --churn fin -c 50
      connect, one request, close, and again
  echo-reactor bench localhost:7777 -c 10k --hold 30s
      keep 10,000 open, one echo on each every 30 s
  echo-reactor bench localhost:7777 -c 10k --active 20%
      2,000 connections that send, and 8,000 idle ones
  echo-reactor bench udp://127.0.0.1:7777 --pipeline 8
      datagrams: loss, duplicates, reordering
  echo-reactor bench localhost:7777 --bad-clients slow-reader=2,half-close=5
  echo-reactor bench localhost:7777 -c 50k --workers 3 --source 127.0.0.0/16
  echo-reactor bench host:7 --at 'ssh a echo-reactor' --at 'ssh b echo-reactor'
      from two other machines, which need the program and nothing else
  echo-reactor bench localhost:7777 --format json --svg run.svg --hdr run.hlog

Service time is counted from the moment when a request was sent, response time
from the moment when it was planned to be sent. A closed loop plans nothing and
has service times alone, which leave out the requests that would have been sent
while the server was slow (coordinated omission). A run that says 'not valid
because ...' ends with exit code 4; an echo that was wrong, with 65.
'echo-reactor --help' lists all exit codes.
";

/// Put an echo server under load, verify every byte, and measure
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct BenchArgs {
    /// The servers; connections go to them in turn. Without an address a server is started for the run
    #[arg(value_name = "ADDRESS")]
    addresses: Vec<Address>,

    /// Start 'serve' on this address, and measure that [default, if there is no ADDRESS: tcp://127.0.0.1:0]
    #[arg(long, value_name = "ADDRESS", conflicts_with = "addresses")]
    serve: Option<Address>,

    /// Connections
    #[arg(short, long, value_name = "COUNT", default_value_t = Count(50))]
    connections: Count,

    /// Time that is measured [default: 10s, or as long as --requests take]
    #[arg(short, long, value_name = "TIME")]
    duration: Option<Time>,

    /// End after this number of requests
    #[arg(short = 'n', long, value_name = "COUNT")]
    requests: Option<Count>,

    /// Bytes of a request
    #[arg(short, long, value_name = "BYTES", default_value_t = Bytes(64))]
    size: Bytes,

    #[command(flatten)]
    load: Load,

    #[command(flatten)]
    timing: Timing,

    #[command(flatten)]
    output: Output,

    /// Run one worker: the plan comes on standard input
    #[arg(long, hide = true)]
    pub(super) worker: bool,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Load")]
struct Load {
    /// Requests a second in all, planned on a clock (open loop), for example 50k or 0.5; several, as in 10k,20k, in steps
    /// of --duration each
    #[arg(short, long, value_name = "RATE", conflicts_with_all = ["churn", "hold", "find_max_rate"])]
    rate: Vec<List<Rate>>,

    /// How the planned requests follow one another
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Following::Constant)]
    arrivals: Following,

    /// Requests that a connection may have under way
    #[arg(long, value_name = "COUNT", default_value_t = Count(1))]
    pipeline: Count,

    /// Close each connection after one request, and open it anew
    #[arg(long, value_name = "HOW", value_enum, conflicts_with_all = ["hold", "find_max_rate"])]
    churn: Option<Closing>,

    /// Keep the connections open, with one echo on each in this time
    #[arg(long, value_name = "TIME", conflicts_with = "find_max_rate")]
    hold: Option<Time>,

    /// Find the highest rate at which the p99 of the response time is at most this, in steps of --duration each
    #[arg(long, value_name = "TIME")]
    find_max_rate: Option<Time>,

    /// Connections that send requests, as a number (50) or as a share (50%); the rest is idle
    #[arg(long, value_name = "SHARE", default_value_t = Share::Percent(Percent(100.0)))]
    active: Share,

    /// Badly behaved clients beside the load: slow-reader (sends without end, never reads), reset (connects, sends,
    /// resets), slowloris (a byte a second), half-close (sends, FIN, reads to the end); several, with commas
    #[arg(long, value_name = "KIND=COUNT", value_delimiter = ',')]
    bad_clients: Vec<Bad>,

    /// Begin each connection with a PROXY header of its own addresses, as a load balancer does
    #[arg(long, value_name = "VERSION", value_enum)]
    proxy: Option<ProxyVersion>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Timing")]
struct Timing {
    /// Time under load before anything counts [default: 1s, or none with --requests]
    #[arg(long, value_name = "TIME")]
    warm_up: Option<Time>,

    /// Spread the opening of the connections over this time
    #[arg(long, value_name = "TIME", default_value_t = Time(Duration::ZERO))]
    ramp_up: Time,

    /// Connections that are being opened at the same time, at most
    #[arg(long, value_name = "COUNT", default_value_t = Count(64))]
    connect_concurrency: Count,

    /// Longest wait for an answer, and for the resolver; a datagram that is not back by then is lost [default: 5s, of
    /// datagrams 1s]
    #[arg(long, value_name = "TIME")]
    timeout: Option<Time>,

    /// epoll trigger mode of the client: level (as most tools) or edge
    #[arg(long, value_name = "MODE", value_enum, default_value_t = TriggerMode::Level)]
    trigger: TriggerMode,

    /// Local addresses of the connections: one, a range, or a network
    #[arg(long, value_name = "RANGE")]
    source: Option<Sources>,

    /// Worker processes, each with its own event loop; the load is divided among them
    #[arg(long, value_name = "COUNT", default_value_t = Count(1))]
    workers: Count,

    /// Run the workers by this command, and not on this machine: sh -c 'exec COMMAND bench --worker'. Several times, with one
    /// command for each machine, the load is divided among them; --workers then counts those of each
    #[arg(long, value_name = "COMMAND", requires = "addresses", conflicts_with_all = ["serve", "server_pid"])]
    at: Vec<String>,

    /// Processes of the server on this machine, each with its child processes; the report then has their CPU time and memory
    #[arg(long, value_name = "PID", value_delimiter = ',', value_parser = process_id)]
    server_pid: Vec<u32>,

    /// Seed of the random numbers
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Output")]
struct Output {
    /// Format of the report
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Format::Text)]
    format: Format,

    /// Write the histograms to this file, second by second, as an HdrHistogram log
    #[arg(long, value_name = "FILE")]
    hdr: Option<PathBuf>,

    /// Draw latency by percentile, and throughput over time, into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Time between two lines while it runs
    #[arg(long, value_name = "TIME", default_value_t = Time(Duration::from_secs(1)))]
    interval: Time,

    /// Count loss, duplicates and reordering of datagrams, but do not fail for them
    #[arg(long)]
    allow_loss: bool,

    /// Print no progress
    #[arg(short, long)]
    quiet: bool,
}

/// How planned requests follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Following {
    /// Equally far apart
    Constant,
    /// At random (a Poisson process), as requests of many independent clients do
    Poisson,
}

/// The epoll trigger mode, which decides the order in which answers are read that are ready at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TriggerMode {
    /// Reported once, in the order of arrival; the p99 is a fifth lower at 50 connections than with level
    Edge,
    /// Reported while there is something to read: a socket that was just read stays ahead of the rest
    Level,
}

/// The version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ProxyVersion {
    /// A line of text
    V1,
    /// Binary
    V2,
}

/// How a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Closing {
    /// FIN; the port then stays in TIME_WAIT for a minute on this side
    Fin,
    /// RST, which leaves no TIME_WAIT
    Reset,
}

/// The format of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Format {
    /// A table for people
    Text,
    /// One object; see the schema
    Json,
    /// A line of names, and a line of values for each step
    Csv,
}

/// What is to be measured, step by step.
#[derive(Clone, Debug)]
pub(super) enum Steps {
    /// One plan.
    Once,
    /// The same at several rates.
    Rates(Vec<f64>),
    /// The highest rate with a p99 within this.
    Find(Duration),
}

/// The duration of a run that is ended by the number of its requests: a week, longer than any of them.
const ENDLESS: Duration = Duration::from_secs(7 * 24 * 60 * 60);

fn process_id(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| "a process id is a whole number; write for example 1234".to_owned())
}

impl BenchArgs {
    /// The servers that were named.
    pub(super) fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// What to start, if no server was named.
    pub(super) fn serve(&self) -> Option<String> {
        match &self.serve {
            Some(address) => Some(address.to_string()),
            None => self
                .addresses
                .is_empty()
                .then(|| "tcp://127.0.0.1:0".to_owned()),
        }
    }

    /// Whether each connection begins with a PROXY header.
    pub(super) fn is_proxied(&self) -> bool {
        self.load.proxy.is_some()
    }

    /// How long the resolver may take for all names. Without --timeout that is what a stream has: a name takes as long
    /// for datagrams as for streams.
    pub(super) fn resolving(&self) -> Duration {
        self.timing
            .timeout
            .map_or(Duration::from_secs(5), |time| time.0)
    }

    pub(super) fn machines(&self) -> Machines {
        Machines {
            at: self.timing.at.clone(),
            workers: usize::try_from(self.timing.workers.0).unwrap_or(usize::MAX),
        }
    }

    pub(super) fn format(&self) -> Format {
        self.output.format
    }

    pub(super) fn hdr(&self) -> Option<&PathBuf> {
        self.output.hdr.as_ref()
    }

    pub(super) fn svg(&self) -> Option<&PathBuf> {
        self.output.svg.as_ref()
    }

    pub(super) fn quiet(&self) -> bool {
        self.output.quiet
    }

    /// Whether this is a hold, which is about the cost of connections more than about echoes.
    pub(super) fn is_hold(&self) -> bool {
        self.load.hold.is_some()
    }

    pub(super) fn allow_loss(&self) -> bool {
        self.output.allow_loss
    }

    pub(super) fn steps(&self) -> Steps {
        let rates = self.rates();
        match (&self.load.find_max_rate, rates.len()) {
            (Some(bound), _) => Steps::Find(bound.0),
            (None, 0 | 1) => Steps::Once,
            _ => Steps::Rates(rates),
        }
    }

    fn rates(&self) -> Vec<f64> {
        let lists = self.load.rate.iter();
        lists
            .flat_map(|list| list.0.iter().map(|rate| rate.0))
            .collect()
    }

    pub(super) fn arrivals(&self) -> Arrivals {
        match self.load.arrivals {
            Following::Constant => Arrivals::Constant,
            Following::Poisson => Arrivals::Poisson,
        }
    }

    /// The plan against these servers, whose process ids are `servers` as far as they are known.
    pub(super) fn plan(&self, targets: Vec<Endpoint>, servers: &[u32]) -> Result<Plan, CliError> {
        self.refuse_nonsense()?;
        let size = |count: Count| usize::try_from(count.0).unwrap_or(usize::MAX);
        let connections = size(self.connections);
        let by_count = self.requests.is_some();
        let warm_up = match by_count {
            true => Duration::ZERO,
            false => Duration::from_secs(1),
        };
        // Of a stream nothing gets lost, so what takes long is still to come; of datagrams it is gone.
        let datagrams =
            |target: &Endpoint| matches!(target, Endpoint::Udp(_) | Endpoint::UnixDatagram(_));
        let has_datagrams = targets.iter().any(datagrams);
        if self.output.allow_loss && !has_datagrams {
            let text =
                "--allow-loss has no effect on streams, on which nothing gets lost; leave it out";
            return Err(CliError::usage(text));
        }
        let timeout = Duration::from_secs(if has_datagrams { 1 } else { 5 });
        let mut servers = servers.to_vec();
        servers.extend(self.servers_named());
        let duration = match by_count {
            true => ENDLESS,
            false => Duration::from_secs(10),
        };
        Ok(Plan {
            sources: self.timing.source,
            proxy: self.load.proxy.map(|version| match version {
                ProxyVersion::V1 => Version::V1,
                ProxyVersion::V2 => Version::V2,
            }),
            active: self.load.active.of(connections),
            bad_clients: self.bad_clients(),
            size: self.size.0,
            depth: size(self.load.pipeline),
            mode: self.mode(),
            trigger: match self.timing.trigger {
                TriggerMode::Edge => Trigger::Edge,
                TriggerMode::Level => Trigger::Level,
            },
            warm_up: self.timing.warm_up.map_or(warm_up, |time| time.0),
            duration: self.duration.map_or(duration, |time| time.0),
            requests: self.requests.map(|count| count.0),
            ramp_up: self.timing.ramp_up.0,
            connect_concurrency: size(self.timing.connect_concurrency),
            timeout: self.timing.timeout.map_or(timeout, |time| time.0),
            interval: self.output.interval.0,
            seed: self.timing.seed,
            servers,
            ..Plan::closed_loop(targets, connections)
        })
    }

    fn bad_clients(&self) -> BadClients {
        let mut bad_clients = BadClients::default();
        for bad in &self.load.bad_clients {
            let of_its_kind = match bad.kind {
                BadKind::SlowReader => &mut bad_clients.slow_reader,
                BadKind::Reset => &mut bad_clients.reset,
                BadKind::Slowloris => &mut bad_clients.slowloris,
                BadKind::HalfClose => &mut bad_clients.half_close,
            };
            *of_its_kind = usize::try_from(bad.count.0).unwrap_or(usize::MAX);
        }
        bad_clients
    }

    fn mode(&self) -> Mode {
        let arrivals = self.arrivals();
        if let Some(closing) = self.load.churn {
            return Mode::Churn {
                reset: closing == Closing::Reset,
            };
        }
        if let Some(every) = self.load.hold {
            // One echo on each, every so often, is an open loop that goes round.
            let active = self.load.active.of(self.connections.0 as usize);
            let rate = active as f64 / every.0.as_secs_f64();
            return Mode::Open { rate, arrivals };
        }
        match self.rates().first() {
            Some(&rate) => Mode::Open { rate, arrivals },
            None => Mode::Closed,
        }
    }

    /// The processes of `--server-pid`: a master of workers serves by its child processes.
    fn servers_named(&self) -> Vec<u32> {
        let mut named = self.timing.server_pid.clone();
        for &pid in &self.timing.server_pid {
            named.extend(descendants(pid).unwrap_or_default());
        }
        named.sort_unstable();
        named.dedup();
        named
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cli::error::CliErrorKind;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: BenchArgs,
    }

    pub(in crate::cli::bench) fn args(arguments: &[&str]) -> BenchArgs {
        let line = [&["bench"], arguments].concat();
        Line::try_parse_from(line).unwrap().args
    }

    fn plan(arguments: &[&str]) -> Result<Plan, CliError> {
        args(arguments).plan(vec![Endpoint::Tcp("127.0.0.1:7".parse().unwrap())], &[])
    }

    #[test]
    fn defaults_are_a_closed_loop_of_ten_seconds_on_an_own_server() {
        let args = args(&[]);
        assert_eq!(args.serve().as_deref(), Some("tcp://127.0.0.1:0"));
        let plan = plan(&[]).unwrap();
        assert_eq!((plan.connections, plan.active, plan.size), (50, 50, 64));
        assert_eq!((plan.mode, plan.depth), (Mode::Closed, 1));
        assert_eq!(plan.duration, Duration::from_secs(10));
    }

    #[test]
    fn modes() {
        let mode = |arguments: &[&str]| plan(arguments).unwrap().mode;
        let open = |rate| Mode::Open {
            rate,
            arrivals: Arrivals::Constant,
        };
        assert_eq!(mode(&["-r", "50k"]), open(50_000.0));
        assert_eq!(mode(&["-r", "0.5"]), open(0.5));
        assert_eq!(mode(&["-c", "1", "--hold", "2s"]), open(0.5));
        assert_eq!(mode(&["-c", "10k", "--hold", "20s"]), open(500.0));
        assert_eq!(mode(&["--churn", "reset"]), Mode::Churn { reset: true });
        let poisson = mode(&["-r", "1k", "--arrivals", "poisson"]);
        assert!(matches!(
            poisson,
            Mode::Open {
                arrivals: Arrivals::Poisson,
                ..
            }
        ));
        let steps = args(&["-r", "1k,2k"]).steps();
        assert!(matches!(steps, Steps::Rates(rates) if rates == [1e3, 2e3]));
        assert_eq!(
            plan(&["-c", "10k", "--active", "20%"]).unwrap().active,
            2_000
        );
        assert_eq!(plan(&["-n", "5"]).unwrap().warm_up, Duration::ZERO);
    }

    #[test]
    fn a_proxy_header_has_a_version() {
        let proxy = |arguments: &[&str]| plan(arguments).unwrap().proxy;
        assert_eq!(proxy(&[]), None);
        assert_eq!(proxy(&["--proxy", "v1"]), Some(Version::V1));
        assert_eq!(proxy(&["--proxy", "v2"]), Some(Version::V2));
    }

    #[test]
    fn nothing_is_lost_on_a_stream() {
        let failure = plan(&["--allow-loss"]).unwrap_err();
        assert_eq!(failure.class, CliErrorKind::Usage);
    }
}
