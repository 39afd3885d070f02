//! `echo-reactor check`: does an echo server, in any language, keep the rules?
//!
//! What may live in this file: the order of the steps, and the exit code. The question is in [`args`]; the rules and their
//! verdicts are in [`crate::check`]; what is printed is in [`text`] and, for other programs, in [`formats`]; the page that
//! `--html` writes is in [`page`].

mod args;
mod formats;
mod judged;
mod page;
mod text;

pub(super) use args::CheckArgs;

use super::bench::environment::Host;
use super::bench::{listen_to_signals, resolve};
use super::descriptors;
use super::error::{CliError, CliErrorKind, Exit};
use super::output::printable;
use super::output_file::{OutputFile, Purpose};
use super::stdio;
use crate::check::process::Server;
use crate::check::{Rule, Trial, Verdict, judge};
use crate::net::Endpoint;
use args::Format;
use judged::Judged;
use std::io;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long a server may take to accept the first connection, and a resolver to answer.
const REACH: Duration = Duration::from_secs(5);

pub(super) fn run(args: &CheckArgs) -> Result<Exit, CliError> {
    let rules = args.rules()?;
    if args.list() {
        stdio::print(&text::list(&rules))?;
        return Ok(Exit::Ok);
    }
    let page = args
        .html()
        .map(|path| OutputFile::open("--html", path, Purpose::Measuring))
        .transpose()?;
    let stop = listen_to_signals()?;
    let host = Host::look(descriptors::raise());
    let trial = Trial {
        effort: args.effort(),
        stop: &stop,
    };
    let mut subjects = subjects(args)?;
    let is_alone = subjects.len() == 1;
    let mut judged = Vec::new();
    for (name, server) in &mut subjects {
        let concerned: Vec<&'static Rule> = rules
            .iter()
            .copied()
            .filter(|rule| args.is_asked(rule, server.endpoint()))
            .collect();
        if args.format() == Format::Text && is_alone {
            stdio::print(&printable(&text::heading(name)))?;
        }
        let mut outcomes = Vec::new();
        for rule in concerned {
            let outcome = judge(rule, server, &trial);
            if args.format() == Format::Text && is_alone {
                stdio::print(&printable(&text::outcome(&outcome)))?;
            }
            outcomes.push(outcome);
        }
        judged.push(Judged {
            name: name.clone(),
            outcomes,
        });
    }
    stdio::print(&printable(&match args.format() {
        Format::Text if is_alone => text::summary(&judged[0]),
        Format::Text => text::table(&judged),
        Format::Json => formats::json(&judged),
        Format::Junit => formats::junit(&judged),
        Format::Tap => formats::tap(&judged),
    }))?;
    if let Some(mut file) = page {
        let page =
            page::page(&judged, &host).map_err(|why| CliError::new(CliErrorKind::Internal, why))?;
        file.write(page.as_bytes())?;
        file.finish()?;
    }
    Ok(conclude(&judged, args.is_strict()))
}

/// The servers, each with the name that reports use: those that run, and those that are started.
fn subjects(args: &CheckArgs) -> Result<Vec<(String, Server)>, CliError> {
    let mut subjects = Vec::new();
    for endpoint in resolve(args.addresses(), REACH)? {
        reach(&endpoint)?;
        subjects.push((endpoint.to_string(), Server::running(endpoint)));
    }
    for command in args.commands() {
        let server = Server::start(command, args.transport()).map_err(|why| {
            CliError::new(
                CliErrorKind::Unavailable,
                format!("--command '{command}': {why}"),
            )
        })?;
        subjects.push((command.clone(), server));
    }
    Ok(subjects)
}

/// A server that does not listen breaks no rule: there is no server.
fn reach(endpoint: &Endpoint) -> Result<(), CliError> {
    let connected = match endpoint {
        Endpoint::Tcp(address) => TcpStream::connect_timeout(address, REACH).map(|_| ()),
        Endpoint::Unix(crate::net::UnixName::Path(path)) => UnixStream::connect(path).map(|_| ()),
        _ => Ok(()),
    };
    connected.map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => CliErrorKind::Refused,
            io::ErrorKind::TimedOut => CliErrorKind::Timeout,
            io::ErrorKind::PermissionDenied => CliErrorKind::Permission,
            _ => CliErrorKind::Unreachable,
        };
        CliError::new(
            kind,
            format!("{endpoint}: {error}; start the server first, or let --command start it"),
        )
    })
}

/// The worst verdict: a rule that does not hold, then one of which nothing is known.
fn conclude(judged: &[Judged], is_strict: bool) -> Exit {
    let has = |verdict| {
        judged
            .iter()
            .flat_map(|one| &one.outcomes)
            .any(|outcome| outcome.verdict == verdict)
    };
    let is_broken = has(Verdict::Fail) || is_strict && has(Verdict::Loose);
    match (is_broken, has(Verdict::Unknown)) {
        (true, _) => Exit::Nonconforming,
        (false, true) => Exit::Invalid,
        (false, false) => Exit::Ok,
    }
}
