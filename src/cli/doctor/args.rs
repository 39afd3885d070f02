//! The arguments of `doctor`: flags, their help, which are the question.

use crate::cli::units::{Count, Percent, UnitError, grouped};
use clap::{Args, ValueEnum};
use serde::Serialize;

const EXAMPLES: &str = "\
Examples:
  echo-reactor doctor
      could 'serve' hold 10,000 connections here?
  echo-reactor doctor --connections 1M
      a million of them?
  echo-reactor doctor --connections 60k --server-workers 4
      as many for each of four processes ('serve --workers 4')?
  echo-reactor doctor --connections 50k --role client --workers 3 --sources 2
  echo-reactor doctor --role both --churn 2k
      both ends here, and 2,000 new connections a second
  echo-reactor doctor --connections 1M --json | jq .bottleneck

Nothing is changed, and no rights are needed; what only root can read is
estimated, and marked so. Exit code 0: all of them fit; 6: they do not.
'echo-reactor --help' lists all exit codes.
";

/// Compare the limits of this machine with a number of connections: the bottleneck, and the commands that raise it
#[derive(Args, Clone, Copy, Debug, Serialize)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct DoctorArgs {
    /// Connections to be open at once
    #[arg(short, long, value_name = "COUNT", default_value = "10k", value_parser = number::<1>)]
    pub(super) connections: u64,

    /// The end of the connections that is on this machine
    #[arg(long, value_name = "ROLE", value_enum, default_value_t = Role::Server)]
    pub(super) role: Role,

    /// Server: processes that share the connections (serve --workers); the kernel's hash gives the busiest more than its share
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = number::<1>)]
    pub(super) server_workers: u64,

    /// Client: processes that share the connections (bench --workers)
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = number::<1>)]
    pub(super) workers: u64,

    /// Client: source addresses to connect from (bench --source); 127.0.0.0/16 has 65,534
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = number::<1>)]
    pub(super) sources: u64,

    /// Client: addresses and ports to connect to
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = number::<1>)]
    pub(super) targets: u64,

    /// New connections that may arrive at the same moment
    #[arg(long, value_name = "COUNT", default_value = "1k", value_parser = number::<0>)]
    pub(super) burst: u64,

    /// Connections opened and closed again each second
    #[arg(long, value_name = "COUNT", default_value = "0", value_parser = number::<0>)]
    #[serde(rename = "churn_per_second")]
    pub(super) churn: u64,

    /// Share of the connections that have data in flight at the same moment
    #[arg(long, value_name = "PERCENT", default_value = "10%", value_parser = percent)]
    pub(super) active_percent: u64,

    /// Print the answer as JSON
    #[arg(long)]
    #[serde(skip)]
    pub(super) json: bool,
}

/// A number from a least one on, and so small that no sum or product of the arithmetic overflows.
fn number<const LEAST: u64>(text: &str) -> Result<u64, String> {
    let Count(count) = text.parse().map_err(|error: UnitError| error.to_string())?;
    let most = u64::from(u32::MAX);
    match (LEAST..=most).contains(&count) {
        true => Ok(count),
        false => Err(format!("write a number from {LEAST} to {}", grouped(most))),
    }
}

fn percent(text: &str) -> Result<u64, String> {
    let Percent(percent) = text.parse().map_err(|error: UnitError| error.to_string())?;
    match (0.0..=100.0).contains(&percent) && percent.fract() == 0.0 {
        true => Ok(percent as u64),
        false => Err("write a whole number of percent, for example 10%".to_owned()),
    }
}

/// Which end of the connections is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    /// 'serve' runs here, the clients elsewhere
    Server,
    /// 'bench' runs here, the server elsewhere
    Client,
    /// Both run here
    Both,
}

impl Role {
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
