//! One measurement: a server is started, put under one load, and ended; what came of it, as a sample.
//!
//! The figures of one run, and the reasons why a run gives none.

use super::record::{Figure, Load, Sample, Scenario};
use super::subject::{Server, Subject};
use super::workloads::{Timing, plan};
use crate::cli::bench::run::{Run, measure};
use crate::cli::bench::server_process::Processors;
use crate::cli::bench::workers::Told;
use crate::cli::error::CliError;
use crate::cli::units::grouped;
use crate::load::{FaultKind, Latencies};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// From this number of connections on, the memory of each can be computed: memory comes in pages of 4 KiB, and a
/// server that takes
/// one more of them for three connections has not used a kilobyte for each.
const CONNECTIONS_WEIGHED: u64 = 100;

/// What came of a measurement.
#[derive(Debug)]
pub(super) enum Outcome {
    Measured(Box<Sample>, Box<Latencies>),
    /// It cannot do this, for a reason; it may have echoed something wrong, which is worse than nothing.
    LeftOut {
        why: String,
        wrong: bool,
    },
    /// The comparison was interrupted.
    Stopped,
}

/// Measures once.
///
/// # Errors
/// No measurement was possible, for a reason that is not the subject's.
pub(super) fn take(
    subject: &Subject,
    load: &Load,
    timing: &Timing,
    processors: Option<&Processors>,
    round: u64,
    stop: &AtomicBool,
) -> Result<Outcome, CliError> {
    let mut server = match subject.start(processors) {
        Ok(server) => server,
        Err(why) => return Ok(Outcome::LeftOut { why, wrong: false }),
    };
    let run = put_under_load(&server, load, timing, stop)?;
    if stop.load(Ordering::Relaxed) {
        return Ok(Outcome::Stopped);
    }
    if let Some((why, wrong)) = refusal(&run, load, &mut server) {
        return Ok(Outcome::LeftOut { why, wrong });
    }
    let sample = sample(&run, load, round);
    Ok(Outcome::Measured(
        Box::new(sample),
        Box::new(run.total.service_time),
    ))
}

fn put_under_load(
    server: &Server,
    load: &Load,
    timing: &Timing,
    stop: &AtomicBool,
) -> Result<Run, CliError> {
    let plan = plan(load, timing, server.endpoint.clone(), &server.pids());
    // Connections that are not made within this time never will be: a server without room for them keeps them
    // waiting.
    let limit = Duration::from_secs(6) + Duration::from_millis(1) * load.connections as u32;
    let late = Instant::now() + limit;
    let is_open = Cell::new(load.scenario == Scenario::Churn);
    let enough = || stop.load(Ordering::Relaxed) || (!is_open.get() && Instant::now() > late);
    measure(plan, 1, &enough, |told| {
        if let Told::Interval(_, total) = told {
            is_open.set(is_open.get() || total.is_open());
        }
    })
}

/// Why a run is no measurement, and whether it is because of what came back.
fn refusal(run: &Run, load: &Load, server: &mut Server) -> Option<(String, bool)> {
    let faults = &run.total.end.faults;
    let opened = run.total.opened.0;
    let planned = load.connections;
    let few = load.scenario != Scenario::Churn && opened < planned;
    if faults.total() == 0 && !few && run.total.echoes > 0 {
        return None;
    }
    let mut why = match few {
        true => format!(
            "{} of {} connections came about",
            grouped(opened),
            grouped(planned)
        ),
        false if faults.total() == 0 => "nothing came back".to_owned(),
        false => format!("{} faults", grouped(faults.total())),
    };
    if let Some((kind, _, first)) = faults.iter().next() {
        why.push_str(&format!("; the first: {}, {first}", kind.name()));
    }
    if let Some(complaint) = server.complaint() {
        why.push_str(&format!("; the server said: {complaint}"));
    }
    let wrong = [FaultKind::Mismatch, FaultKind::Extra]
        .iter()
        .any(|&kind| faults.count(kind) > 0);
    Some((why, wrong))
}

fn sample(run: &Run, load: &Load, round: u64) -> Sample {
    let total = &run.total;
    let mut sample = Sample::new(round, &run.validity.invalid);
    sample.set(Figure::Throughput, total.rate());
    let quantiles = [
        (Figure::P50, 0.5),
        (Figure::P90, 0.9),
        (Figure::P99, 0.99),
        (Figure::P999, 0.999),
        (Figure::P9999, 0.9999),
    ];
    for (figure, quantile) in quantiles {
        // Of a hundred answers there is no thousandth.
        if total.service_time.len() as f64 * (1.0 - quantile) >= 1.0 {
            sample.set(
                figure,
                total.service_time.value_at_quantile(quantile) as f64,
            );
        }
    }
    let Some(server) = &total.end.server else {
        return sample;
    };
    let used = server.end.usage.since(server.begin.usage);
    sample.set(
        Figure::CpuPerEcho,
        used.cpu as f64 / total.echoes.max(1) as f64,
    );
    sample.set(Figure::Threads, server.end.threads as f64);
    sample.set(Figure::Rss, server.end.rss as f64);
    // Where connections come and go, threads may too, and each takes its count of switches with it.
    if load.scenario != Scenario::Churn {
        let (voluntary, forced) = server.switches();
        let counters = &total.end.counters;
        let echoes = counters.echoed.saturating_sub(total.opened.0).max(1);
        let switches = (voluntary + forced) as f64 / echoes as f64;
        sample.set(Figure::SwitchesPerEcho, switches);
        if load.connections >= CONNECTIONS_WEIGHED {
            let grown = server.opened.rss.saturating_sub(server.before.rss) as f64;
            sample.set(
                Figure::RssPerConnection,
                grown / total.opened.0.max(1) as f64,
            );
        }
    }
    sample
}
