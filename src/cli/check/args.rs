//! The command line of `check`: which servers, which rules, how much time, and what is printed.

use crate::check::{Effort, Rule, Transport, rules};
use crate::cli::error::CliError;
use crate::cli::names::DEFAULT_ADDRESS;
use crate::cli::units::List;
use crate::net::{Address, Endpoint};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const EXAMPLES: &str = "\
Examples:
  echo-reactor check
      the server on tcp://127.0.0.1:50007
  echo-reactor check --command './mine --port {port}'
      start the server, and watch its process, too
  echo-reactor check --over unix --command './mine {path}'
      the same on another kind of socket
  echo-reactor check --stage 3 --quick host:7
      half-close only
  echo-reactor check --only half-close,tcp/sizes/powers
      rules whose names have one of these in them
  echo-reactor check udp://127.0.0.1:7 unix:///run/echo
      several servers: a table
  echo-reactor check --format junit > check.xml
      for a build server; tap and json as well
  echo-reactor check --html report.html
      a page to look at, beside the report
  echo-reactor check --list
      all rules

Verdicts: pass; loose (a SHOULD does not hold); fail (a MUST does not hold);
info; skipped; unknown (this machine was the limit: too busy, or out of
descriptors). Exit code 0: no MUST is broken; 7: one is, or with --strict a
SHOULD; 4: none is, and some rules are unknown.
'echo-reactor --help' lists all exit codes.
";

/// Judge an echo server by rules: every byte back, half-close, many clients, slow ones, no spinning
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct CheckArgs {
    /// Servers that run already; if none is named and there is no --command, tcp://127.0.0.1:50007
    #[arg(value_name = "ADDRESS")]
    addresses: Vec<Address>,

    /// A server to start, a line for sh: {port} is replaced by a free port of 127.0.0.1. May be given several times
    #[arg(long, value_name = "COMMAND")]
    command: Vec<String>,

    /// The socket of the servers that --command starts; in place of {port}, those on Unix sockets get a {path}
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Over::Tcp, requires = "command")]
    over: Over,

    /// Only rules whose names contain one of these
    #[arg(long, value_name = "NAME,...")]
    only: Option<List<String>>,

    /// No rules whose names contain one of these
    #[arg(long, value_name = "NAME,...")]
    exclude: Option<List<String>>,

    /// Only rules of this stage, 1 to 9; 8 is all rules on Unix sockets
    #[arg(long, value_name = "STAGE", value_parser = clap::value_parser!(u8).range(1..=9))]
    stage: Option<u8>,

    /// List the rules, and check nothing
    #[arg(long)]
    list: bool,

    /// Smaller sizes and shorter pauses: some ten seconds in all
    #[arg(long, conflicts_with = "full")]
    quick: bool,

    /// Larger sizes and longer pauses: some sixty seconds in all
    #[arg(long)]
    full: bool,

    /// Count a SHOULD like a MUST: exit code 7 for what is loose, too
    #[arg(long)]
    strict: bool,

    /// What is printed
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    format: Format,

    /// Write the report to this file, too, as a page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// The socket of a server that is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Over {
    /// TCP, and all that is seen of its process
    Tcp,
    /// UDP
    Udp,
    /// A Unix stream socket
    Unix,
    /// A Unix datagram socket
    Unixgram,
}

/// The form of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Text,
    /// For programs
    Json,
    /// For build servers (XML)
    Junit,
    /// Test Anything Protocol, version 13
    Tap,
}

impl CheckArgs {
    /// The rules that are asked for.
    pub(super) fn rules(&self) -> Result<Vec<&'static Rule>, CliError> {
        let all = rules();
        let usage = |text: String| Err(CliError::usage(text));
        for (flag, names) in [("--only", &self.only), ("--exclude", &self.exclude)] {
            let names = names.iter().flat_map(|list| &list.0);
            for name in names {
                if !all.iter().any(|rule| rule.id.contains(name)) {
                    return usage(format!(
                        "{flag} '{name}': no rule has this in its name; --list shows all"
                    ));
                }
            }
        }
        let place = self.transport().placeholder();
        if let Some(command) = self.command.iter().find(|command| !command.contains(place)) {
            return usage(format!(
                "--command '{command}' has no {place}: write {place} where it is to listen"
            ));
        }
        let named = |list: &Option<List<String>>, rule: &Rule| {
            list.as_ref()
                .map(|list| list.0.iter().any(|name| rule.id.contains(name)))
        };
        let chosen: Vec<&Rule> = all
            .into_iter()
            .filter(|rule| named(&self.only, rule).unwrap_or(true))
            .filter(|rule| !named(&self.exclude, rule).unwrap_or(false))
            .filter(|rule| {
                self.stage
                    .is_none_or(|stage| stage == 8 || stage == rule.stage)
            })
            .collect();
        match chosen.is_empty() {
            true => usage("no rule is left; --list shows all".to_owned()),
            false => Ok(chosen),
        }
    }

    /// Whether a rule is one for this kind of address, and of the stage that is asked for.
    pub(super) fn is_asked(&self, rule: &Rule, endpoint: &Endpoint) -> bool {
        let is_in = |stage| stage == rule.stage || stage == rule.stage_for(endpoint);
        rule.concerns(endpoint) && self.stage.is_none_or(is_in)
    }

    pub(super) fn addresses(&self) -> &[Address] {
        static DEFAULT: OnceLock<Vec<Address>> = OnceLock::new();
        match self.addresses.is_empty() && self.command.is_empty() {
            true => DEFAULT.get_or_init(|| DEFAULT_ADDRESS.parse().into_iter().collect()),
            false => &self.addresses,
        }
    }

    pub(super) fn commands(&self) -> &[String] {
        &self.command
    }

    /// The sockets of the servers that are started.
    pub(super) fn transport(&self) -> Transport {
        match self.over {
            Over::Tcp => Transport::Tcp,
            Over::Udp => Transport::Udp,
            Over::Unix => Transport::Unix,
            Over::Unixgram => Transport::UnixDatagram,
        }
    }

    pub(super) fn list(&self) -> bool {
        self.list
    }

    pub(super) fn is_strict(&self) -> bool {
        self.strict
    }

    pub(super) fn effort(&self) -> Effort {
        match (self.quick, self.full) {
            (true, _) => Effort::Quick,
            (_, true) => Effort::Full,
            _ => Effort::Normal,
        }
    }

    pub(super) fn html(&self) -> Option<&Path> {
        self.html.as_deref()
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }
}
