//! The arguments of `doctor`: flags, their help, and their translation into a [`Question`].

use crate::cli::error::{CliError, CliErrorKind};
use crate::cli::units::{Count, Percent, grouped};
use clap::{Args, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  echo-reactor doctor
      could 'serve' hold 10,000 connections here?
  echo-reactor doctor --connections 1M
      a million of them?
  echo-reactor doctor --connections 50k --role client --workers 3 --sources 2
  echo-reactor doctor --role both --churn 2k
      both ends here, and 2,000 new connections a second
  echo-reactor doctor --connections 1M --json | jq .bottleneck

Nothing is changed, and no rights are needed; what only root can read is
estimated, and marked so. Exit code 0: all of them fit; 6: they do not.
'echo-reactor --help' lists all exit codes.
";

/// Compare the limits of this machine with a number of connections: the bottleneck, and the commands that raise it
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct DoctorArgs {
    /// Connections to be open at once
    #[arg(short, long, value_name = "COUNT", default_value_t = Count(10_000))]
    connections: Count,

    /// The end of the connections that is on this machine
    #[arg(long, value_name = "ROLE", value_enum, default_value_t = Role::Server)]
    role: Role,

    /// Client: processes that share the connections (bench --workers)
    #[arg(long, value_name = "COUNT", default_value_t = Count(1))]
    workers: Count,

    /// Client: source addresses to connect from (bench --source); 127.0.0.0/16 has 65,534
    #[arg(long, value_name = "COUNT", default_value_t = Count(1))]
    sources: Count,

    /// Client: addresses and ports to connect to
    #[arg(long, value_name = "COUNT", default_value_t = Count(1))]
    targets: Count,

    /// New connections that may arrive at the same moment
    #[arg(long, value_name = "COUNT", default_value_t = Count(1_000))]
    burst: Count,

    /// Connections opened and closed again each second
    #[arg(long, value_name = "COUNT", default_value_t = Count(0))]
    churn: Count,

    /// Share of the connections that have data in flight at the same moment
    #[arg(long, value_name = "PERCENT", default_value_t = Percent(10.0))]
    active_percent: Percent,

    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Which end of the connections is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Role {
    /// 'serve' runs here, the clients elsewhere
    Server,
    /// 'bench' runs here, the server elsewhere
    Client,
    /// Both run here
    Both,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::Both => "both",
        }
    }

    pub(super) fn serves(self) -> bool {
        self != Self::Client
    }

    pub(super) fn connects(self) -> bool {
        self != Self::Server
    }

    /// Ends of each connection on this machine: sockets, descriptors, memory.
    pub(super) fn ends(self) -> u64 {
        u64::from(self.serves()) + u64::from(self.connects())
    }
}

/// The question that the command line asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) connections: u64,
    pub(super) role: Role,
    pub(super) workers: u64,
    pub(super) sources: u64,
    pub(super) targets: u64,
    pub(super) burst: u64,
    /// Per second.
    pub(super) churn: u64,
    /// In a hundred.
    pub(super) active_percent: u64,
}

impl DoctorArgs {
    pub(super) fn question(&self) -> Result<Question, CliError> {
        // Within these bounds no sum or product of the arithmetic overflows.
        let bounded = [
            ("--connections", self.connections, 1),
            ("--workers", self.workers, 1),
            ("--sources", self.sources, 1),
            ("--targets", self.targets, 1),
            ("--burst", self.burst, 0),
            ("--churn", self.churn, 0),
        ];
        for (flag, Count(count), least) in bounded {
            if count < least || count > u64::from(u32::MAX) {
                let text = format!(
                    "{flag} {}: write a number from {least} to {}",
                    grouped(count),
                    grouped(u64::from(u32::MAX))
                );
                return Err(CliError::new(CliErrorKind::Usage, text));
            }
        }
        if !(0.0..=100.0).contains(&self.active_percent.0) || self.active_percent.0.fract() != 0.0 {
            let text = format!(
                "--active-percent {}: write a whole number of percent, for example 10%",
                self.active_percent
            );
            return Err(CliError::new(CliErrorKind::Usage, text));
        }
        Ok(Question {
            connections: self.connections.0,
            role: self.role,
            workers: self.workers.0,
            sources: self.sources.0,
            targets: self.targets.0,
            burst: self.burst.0,
            churn: self.churn.0,
            active_percent: self.active_percent.0 as u64,
        })
    }

    pub(super) fn json(&self) -> bool {
        self.json
    }
}
