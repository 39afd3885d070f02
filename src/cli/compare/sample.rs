//! One measurement: a server is started, put under one load, and ended; what came of it, as a sample.
//!
//! The figures of one run, and the reasons why a run gives none.

use super::record::{Figure, Load, Sample, Scenario};
use super::subject::{Server, Subject};
use super::workloads::{Timing, plan};
use crate::cli::bench::record::Server as ServerRecord;
use crate::cli::bench::run::{Run, measure};
use crate::cli::bench::server_process::Processors;
use crate::cli::bench::workers::{Machines, Told};
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

/// What every measurement has in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conditions<'a> {
    pub(super) timing: &'a Timing,
    pub(super) processors: Option<&'a Processors>,
    pub(super) stop: &'a AtomicBool,
}

/// Measures once.
///
/// # Errors
/// No measurement was possible, for a reason that is not the subject's.
pub(super) fn take(
    subject: &Subject,
    load: &Load,
    round: u64,
    conditions: Conditions<'_>,
) -> Result<Outcome, CliError> {
    let server = match subject.start(conditions.processors) {
        Ok(server) => server,
        Err(why) => return Ok(Outcome::LeftOut { why, wrong: false }),
    };
    let run = put_under_load(&server, load, conditions)?;
    if conditions.stop.load(Ordering::Relaxed) {
        return Ok(Outcome::Stopped);
    }
    if let Some((why, wrong)) = refusal(&run, load, &server) {
        return Ok(Outcome::LeftOut { why, wrong });
    }
    let (sample, latencies) = (sample(&run, load, round), run.total.service_time);
    Ok(Outcome::Measured(Box::new(sample), Box::new(latencies)))
}

fn put_under_load(
    server: &Server,
    load: &Load,
    conditions: Conditions<'_>,
) -> Result<Run, CliError> {
    let Conditions { timing, stop, .. } = conditions;
    let plan = plan(load, timing, server.endpoint.clone(), &server.pids());
    // Connections that are not made within this time never will be: a server without room for them keeps them
    // waiting.
    let limit = Duration::from_secs(6) + Duration::from_millis(1) * load.connections as u32;
    let late = Instant::now() + limit;
    let is_open = Cell::new(load.scenario == Scenario::Churn);
    let enough = || stop.load(Ordering::Relaxed) || (!is_open.get() && Instant::now() > late);
    measure(plan, &Machines::local(1), &enough, |told| {
        if let Told::Interval(_, total) = told {
            is_open.set(is_open.get() || total.is_open());
        }
    })
}

/// Why a run is no measurement, and whether it is because of what came back.
fn refusal(run: &Run, load: &Load, server: &Server) -> Option<(String, bool)> {
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
        why.push_str(&format!("; the first: {kind}, {first}"));
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
    let Some(server) = ServerRecord::new(run) else {
        return sample;
    };
    sample.set(Figure::CpuPerEcho, server.cpu_ns_per_echo);
    sample.set(Figure::Threads, server.threads as f64);
    sample.set(Figure::Rss, server.rss_bytes as f64);
    // Where connections come and go, threads may too, and each takes its count of switches with it.
    if load.scenario != Scenario::Churn {
        let switches = (server.switches_voluntary + server.switches_forced) as f64;
        let echoes = total
            .end
            .counters
            .echoed
            .saturating_sub(total.opened.0)
            .max(1);
        sample.set(Figure::SwitchesPerEcho, switches / echoes as f64);
        if load.connections >= CONNECTIONS_WEIGHED {
            sample.set(Figure::RssPerConnection, server.rss_bytes_per_connection);
        }
    }
    sample
}
