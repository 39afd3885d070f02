//! `echo-reactor bench`: puts a server under load, and reports what came of it, and whether to believe it.
//!
//! What may live in this file: the order of those steps, and the exit code. What was typed is in [`typed`]; the server
//! that is started if none was named in [`child`]; running a plan, in a process or several, in [`crew`] and [`worker`]; what is
//! seen meanwhile in [`progress`]; the forms of the report in [`text`], [`json`], [`csv`], [`hdr`] and [`svg`].

pub(super) mod child;
pub(super) mod crew;
mod csv;
mod hdr;
pub(super) mod host;
mod json;
mod progress;
mod search;
mod svg;
pub(super) mod text;
mod typed;
pub(crate) mod wire;
mod worker;

pub(super) use typed::Typed;

use super::exit::{Class, Exit, Failure};
use super::footprint::{Ladder, Row};
use super::logging;
use super::output::printable;
use super::units::Time;
use crate::load::machine::KernelCounters;
use crate::load::verdict::{Verdict, judge};
use crate::load::{FaultKind, Mode, Plan, Total, fit};
use crate::net::Endpoint;
use crew::Told;
use host::Host;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use progress::Progress;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use typed::{Format, Steps};

/// A plan that has been run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) plan: Plan,
    pub(super) workers: usize,
    pub(super) total: Total,
    pub(super) kernel: KernelCounters,
    pub(super) verdict: Verdict,
    /// What the connections of a hold cost, at every power of ten of them.
    pub(super) memory: Vec<Row>,
}

impl Run {
    /// What was asked for a second, if anything was.
    pub(super) fn planned_rate(&self) -> Option<f64> {
        match self.plan.mode {
            Mode::Open { rate, .. } => Some(rate),
            _ => None,
        }
    }
}

pub(super) fn run(typed: &Typed) -> Result<Exit, Failure> {
    if typed.as_worker {
        return worker::work();
    }
    let stop = listen_to_signals()?;
    let descriptors = raise_descriptors();
    let host = Host::look(descriptors);
    let server = typed
        .serve()
        .map(|address| child::Server::start(&address))
        .transpose()?;
    let targets = match &server {
        Some(server) => resolve(std::slice::from_ref(&server.address), typed.resolving())?,
        None => resolve(typed.addresses(), typed.resolving())?,
    };
    let pids: Vec<u32> = server.iter().map(child::Server::pid).collect();
    let plan = typed.plan(targets, &pids)?;
    fit::check(&plan, typed.workers(), descriptors)
        .map_err(|text| Failure::new(Class::Usage, text))?;
    let mut log = typed.hdr().map(|path| hdr::Log::create(path)).transpose()?;
    let mut drawing = typed
        .svg()
        .map(|path| svg::Drawing::create(path))
        .transpose()?;
    let mut progress = Progress::new(typed.quiet());
    let mut bench = Bench {
        workers: typed.workers(),
        stop: &stop,
        progress: &mut progress,
        log: log.as_mut(),
        is_hold: typed.is_hold(),
    };
    let runs = match typed.steps() {
        Steps::Once => vec![bench.run(&plan)?],
        Steps::Rates(rates) => search::steps(&mut bench, &plan, &rates, typed.arrivals())?,
        Steps::Find(bound) => search::find_max(&mut bench, &plan, bound, typed.arrivals())?,
    };
    drop(server);
    progress.finish();
    let Some(last) = runs.last() else {
        return Err(Failure::new(Class::Internal, "nothing was run"));
    };
    if let Some(drawing) = &mut drawing {
        drawing.draw(last)?;
    }
    let report = match typed.format() {
        Format::Text => text::report(&host, &runs),
        Format::Json => format!("{:#}\n", json::report(&host, &runs)),
        Format::Csv => csv::report(&runs),
    };
    write_out(&report)?;
    Ok(conclude(&runs, typed.allow_loss()))
}

/// What every run of this command has in common.
pub(super) struct Bench<'a> {
    pub(super) workers: usize,
    pub(super) stop: &'a AtomicBool,
    progress: &'a mut Progress,
    log: Option<&'a mut hdr::Log>,
    is_hold: bool,
}

impl Bench<'_> {
    /// Runs a plan, and judges it.
    pub(super) fn run(&mut self, plan: &Plan) -> Result<Run, Failure> {
        self.progress.begin(plan);
        let (progress, log) = (&mut *self.progress, &mut self.log);
        let mut trouble = None;
        let mut ladder = self.is_hold.then(|| Ladder::new(&plan.servers));
        let told = |told: Told<'_>| match told {
            Told::Open(open) => {
                progress.opening(open, plan);
                let all = plan.connections as u64;
                if let Some(ladder) = &mut ladder {
                    // At every power of ten, and at the end of the way.
                    if open >= 10 && (ladder.is_due(open) || open == all && !ladder.ends_at(all)) {
                        ladder.climb_beside(open);
                    }
                }
            }
            Told::Slice(slice, total) => {
                progress.tell(slice, total);
                if let Some(log) = log {
                    trouble = log.write(slice).err().or(trouble.take());
                }
            }
        };
        let stop = || self.stop.load(Ordering::Relaxed);
        let mut run = measure(plan.clone(), self.workers, &stop, told)?;
        if let Some(failure) = trouble {
            return Err(failure);
        }
        run.memory = ladder.map_or_else(Vec::new, |ladder| ladder.rows().to_vec());
        Ok(run)
    }

    /// Whether somebody has said that it is enough.
    pub(super) fn must_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Runs a plan, and judges it. `stop` is asked twenty times a second, `told` hears of what goes on.
pub(super) fn measure(
    plan: Plan,
    workers: usize,
    stop: &dyn Fn() -> bool,
    told: impl FnMut(Told<'_>),
) -> Result<Run, Failure> {
    let before = KernelCounters::read();
    let total = crew::run(&plan, workers, stop, told)?;
    let kernel = KernelCounters::read().since(before);
    let verdict = judge(&plan, workers, &total, &kernel);
    Ok(Run {
        plan,
        workers,
        total,
        kernel,
        verdict,
        memory: Vec::new(),
    })
}

/// SIGINT and SIGTERM end the run, with a report. A second one hurries nothing: the end is a second away at most, and
/// whoever left at once would leave the server and the workers behind.
pub(super) fn listen_to_signals() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| Failure::new(Class::System, format!("no signal handlers: {error}")))?;
    }
    Ok(stop)
}

/// Raises the soft limit of descriptors to the hard one, and returns how many there may be now.
pub(super) fn raise_descriptors() -> u64 {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() => hard,
        Ok((soft, _)) => soft,
        Err(_) => u64::MAX,
    }
}

/// One endpoint for each address: the first that the resolver names. Trying the others would measure two servers.
///
/// The resolver knows no deadline of ours (getaddrinfo(3) has none, and resolv.conf(5) is not ours to change), so it is
/// asked in a thread of its own, which is left behind where it takes too long: the end of the process ends it too.
pub(super) fn resolve(
    addresses: &[crate::net::Address],
    timeout: Duration,
) -> Result<Vec<Endpoint>, Failure> {
    let (sender, receiver) = mpsc::channel();
    let (asked, theirs) = (Instant::now(), addresses.to_vec());
    thread::Builder::new()
        .name("resolver".to_owned())
        .spawn(move || {
            for address in theirs {
                // Whoever does not listen any more has given up.
                let _ = sender.send(address.resolve());
            }
        })
        .map_err(|error| Failure::new(Class::System, format!("no thread for names: {error}")))?;
    let mut targets = Vec::new();
    for address in addresses {
        let left = timeout.saturating_sub(asked.elapsed());
        let found = first_of(address, &receiver, left, timeout)?;
        targets.extend(found.into_iter().next().map(reachable));
    }
    Ok(targets)
}

/// What the resolver says next, if it says so in time.
fn first_of<T>(
    address: &crate::net::Address,
    answers: &mpsc::Receiver<io::Result<T>>,
    left: Duration,
    timeout: Duration,
) -> Result<T, Failure> {
    let text = match answers.recv_timeout(left) {
        Ok(Ok(found)) => return Ok(found),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!(
            "the resolver has not answered within {} (--timeout)",
            Time(timeout)
        ),
    };
    let text = format!("{address}: {text}; check the host's name, or write its address in numbers");
    Err(Failure::new(Class::Resolve, text))
}

/// "All interfaces" is where a server listens; from here it is found on this machine.
fn reachable(endpoint: Endpoint) -> Endpoint {
    let here = |mut address: std::net::SocketAddr| {
        if address.ip().is_unspecified() {
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        address
    };
    match endpoint {
        Endpoint::Tcp(address) => Endpoint::Tcp(here(address)),
        Endpoint::Udp(address) => Endpoint::Udp(here(address)),
        unix => unix,
    }
}

/// Writes the report. Whoever closed our standard output does not want it.
pub(super) fn write_out(report: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out
        .write_all(printable(report).as_bytes())
        .and_then(|()| out.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let text = format!("cannot write to standard output: {error}");
            Err(Failure::new(Class::Io, text))
        }
        _ => Ok(()),
    }
}

/// What the exit code says: a wrong echo is worse than a failed connection, and that than a doubtful measurement.
fn conclude(runs: &[Run], allow_loss: bool) -> Exit {
    let exits = runs.iter().map(|run| exit_of(run, allow_loss));
    let rank = |exit: &Exit| match exit {
        Exit::Ok => 0,
        Exit::Invalid => 1,
        Exit::Mismatch => 3,
        _ => 2,
    };
    let exit = exits.max_by_key(rank).unwrap_or(Exit::Internal);
    if exit != Exit::Ok {
        for run in runs {
            for (kind, count, first) in run.total.end.faults.iter() {
                let text = format!("{} ({count} of them), the first: {first}", kind.name());
                logging::say(&format!("echo-reactor: {text}"));
            }
            for reason in &run.verdict.invalid {
                logging::say(&format!("echo-reactor: not valid because {reason}"));
            }
        }
    }
    exit
}

fn exit_of(run: &Run, allow_loss: bool) -> Exit {
    let end = &run.total.end;
    let faults = &end.faults;
    let has = |kind| faults.count(kind) > 0;
    if has(FaultKind::Mismatch) || has(FaultKind::Extra) {
        return Exit::Mismatch;
    }
    if !allow_loss && end.ledger.duplicates + end.ledger.reordered > 0 {
        return Exit::Mismatch;
    }
    if faults.total() > 0 {
        return match () {
            () if has(FaultKind::Reset) || has(FaultKind::Closed) || has(FaultKind::Io) => Exit::Io,
            () if has(FaultKind::Timeout) => Exit::Timeout,
            () if has(FaultKind::Refused) => Exit::Unavailable,
            () => Exit::System,
        };
    }
    if !allow_loss && end.ledger.lost + end.ledger.late > 0 {
        return Exit::Timeout;
    }
    match run.verdict.is_valid() {
        true => Exit::Ok,
        false => Exit::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_that_does_not_answer_is_given_up() {
        let address = "example.com:7".parse().unwrap();
        let (sender, receiver) = mpsc::channel::<io::Result<Vec<Endpoint>>>();
        let timeout = Duration::from_millis(20);
        let failure = first_of(&address, &receiver, timeout, timeout).unwrap_err();
        assert_eq!(failure.class, Class::Resolve);
        assert!(
            failure.text.contains("within 20ms (--timeout)"),
            "{}",
            failure.text
        );
        sender.send(Ok(Vec::new())).unwrap();
        assert!(first_of(&address, &receiver, timeout, timeout).is_ok());
    }

    #[test]
    fn several_names_are_resolved_in_their_order() {
        let addresses = ["127.0.0.1:7", "unix://@x", ":9"].map(|text| text.parse().unwrap());
        let targets = resolve(&addresses, Duration::from_secs(60)).unwrap();
        let texts: Vec<String> = targets.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["tcp://127.0.0.1:7", "unix://@x", "tcp://127.0.0.1:9"]
        );
    }
}
