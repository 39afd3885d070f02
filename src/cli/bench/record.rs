//! The report as a record: plain data, which serde writes as `schema.json`, next to this file, describes it, and reads again
//! for `diff`. What a record lacks is zero or empty when it is read.

use super::answer::Answer;
use super::environment::{Host, Machine};
use super::rate_search::keeps;
use super::run::Run;
use super::workers::Share;
use crate::cli::memory::Row;
use crate::load::validity::{Validity, handshakes_retried};
use crate::load::{
    Arrivals, BadClients, Counters, Faults, Latencies, Message, Mode, Plan, Resent, Second,
    Sources, Total, Unanswered,
};
use crate::net::connect::Trigger;
use crate::net::proxy::Version;
use crate::procfs::{KERNEL_COUNTERS, KernelCounters};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// The percentiles of the report, by name.
pub(super) const QUANTILES: [(&str, f64); 6] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99_9", 0.999),
    ("p99_99", 0.9999),
    ("p99_999", 0.99999),
];

/// The report of all steps. What is at the top is of the last; of a search, of the best. A reader knows the file by its
/// `program`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, tag = "program", rename = "echo-reactor bench")]
pub(in crate::cli) struct Record {
    pub(super) version: String,
    command: Vec<String>,
    pub(super) started_unix: u64,
    pub(super) host: Machine,
    pub(in crate::cli) plan: Planned,
    valid: bool,
    pub(in crate::cli) not_valid_because: Vec<String>,
    pub(super) notes: Vec<String>,
    echoes_per_second: f64,
    bytes_per_second: f64,
    seconds: f64,
    echoes: u64,
    interrupted: bool,
    pub(in crate::cli) connections: Connections,
    response_time_ns: Option<Percentiles>,
    service_time_ns: Option<Percentiles>,
    generator_lag_ns: Option<Percentiles>,
    connect_ns: Option<Percentiles>,
    handshakes_retried: BTreeMap<String, u64>,
    pub(in crate::cli) requests: Counters,
    unanswered: Unanswered,
    resent: Resent,
    pub(in crate::cli) faults: Faults,
    fairness: Shares,
    generator: Generator,
    server: Option<Server>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    machines: Vec<MachineShare>,
    #[serde(skip_serializing_if = "Option::is_none")]
    begin_spread_ns: Option<u64>,
    kernel: BTreeMap<String, u64>,
    memory: Vec<Value>,
    pub(in crate::cli) intervals: Vec<Second>,
    pub(in crate::cli) search: Option<Found>,
    pub(in crate::cli) steps: Vec<Step>,
    /// A [`Sum`]. It is read by a merge alone: what a target of it needs to be resolved is not asked for before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sum: Option<Value>,
}

/// A single run, as records are merged: its plan, and what it has reported, as one worker would have.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Sum {
    pub(super) plan: Plan,
    pub(super) reported: [Message; 3],
}

/// What was asked for.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::cli) struct Planned {
    targets: Vec<String>,
    pub(in crate::cli) mode: Way,
    rate: Option<f64>,
    arrivals: Option<Arrivals>,
    trigger: Trigger,
    size: usize,
    pipeline: usize,
    bad_clients: BadClients,
    sources: Option<Sources>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<Version>,
    pub(super) workers: usize,
    warm_up_seconds: f64,
    timeout_seconds: f64,
    seed: u64,
}

/// When requests are sent; of an open loop, the rate stands beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cli) enum Way {
    #[default]
    Closed,
    Open,
    ChurnReset,
    ChurnFin,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::cli) struct Connections {
    pub(in crate::cli) planned: u64,
    active: u64,
    pub(in crate::cli) opened: u64,
    seconds_to_open: f64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Percentiles {
    count: u64,
    min: u64,
    mean: f64,
    stdev: f64,
    #[serde(flatten)]
    quantiles: BTreeMap<String, u64>,
    max: u64,
    beyond_range: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Shares {
    jain: Option<f64>,
    fewest: u64,
    most: u64,
    longest_gap_ns: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Generator {
    pub(super) cpu_share: f64,
    pub(super) waited_share: f64,
    pub(super) cpu_ns_per_echo: f64,
    pauses: Paused,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Paused {
    count: u64,
    total_ns: u64,
    longest_ns: u64,
    longest_at_seconds: f64,
}

/// What one machine of `--at` has done.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct MachineShare {
    at: String,
    workers: usize,
    connections: u64,
    echoes: u64,
    echoes_per_second: f64,
    generator_lag_ns: Option<Percentiles>,
    generator: Generator,
    resent: Resent,
    valid: bool,
    not_valid_because: Vec<String>,
}

/// The processes of the server.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::cli) struct Server {
    pids: Vec<u32>,
    pub(super) cpu_share: f64,
    pub(in crate::cli) cpu_ns_per_echo: f64,
    pub(in crate::cli) rss_bytes: u64,
    pub(in crate::cli) rss_bytes_per_connection: f64,
    pub(in crate::cli) switches_voluntary: u64,
    pub(in crate::cli) switches_forced: u64,
    pub(in crate::cli) threads: u64,
}

/// What came of a search.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::cli) struct Found {
    p99_max_ns: u64,
    pub(in crate::cli) found_rate: Option<f64>,
    interrupted: bool,
    sentence: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::cli) struct Step {
    pub(in crate::cli) rate: Option<f64>,
    pub(in crate::cli) echoes_per_second: f64,
    p50: Option<u64>,
    p99: Option<u64>,
    generator_lag_p99: Option<u64>,
    faults: u64,
    within_bound: Option<bool>,
    valid: bool,
    not_valid_because: Vec<String>,
}

impl Record {
    /// If a search has found nothing, there is nothing at the top, and no failed step in its place. `None` without a run.
    pub(super) fn new(host: &Host, answer: &Answer) -> Option<Self> {
        let first = answer.runs.first()?;
        Some(match answer.result() {
            Some(run) => Self::of_run(host, answer, run),
            None => Self::of_run(host, answer, &nothing(answer, first)),
        })
    }

    fn of_run(host: &Host, answer: &Answer, run: &Run) -> Self {
        let (total, end) = (&run.total, &run.total.end);
        let bound = answer.search.as_ref().map(|search| search.bound);
        let kernel = KERNEL_COUNTERS.iter().zip(run.kernel.0);
        let retried = handshakes_retried(total);
        let sum = || Sum {
            plan: run.plan.clone(),
            reported: total.to_messages(),
        };
        let is_single = answer.runs.len() == 1 && answer.search.is_none();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command: host.command.clone(),
            started_unix: host.started,
            host: host.machine.clone(),
            plan: Planned::new(run),
            valid: run.validity.is_valid(),
            not_valid_because: run.validity.invalid.clone(),
            notes: run.validity.notes.clone(),
            echoes_per_second: total.rate(),
            bytes_per_second: total.rate() * run.plan.size as f64,
            seconds: total.window(),
            echoes: total.echoes,
            interrupted: end.interrupted,
            connections: Connections {
                planned: run.plan.connections as u64,
                active: run.plan.active as u64,
                opened: total.opened.0,
                seconds_to_open: total.opened.1.as_secs_f64(),
            },
            response_time_ns: Percentiles::new(&total.response_time),
            service_time_ns: Percentiles::new(&total.service_time),
            generator_lag_ns: Percentiles::new(&total.lag),
            connect_ns: Percentiles::new(&total.connect),
            handshakes_retried: retried
                .map(|(seconds, count)| (format!("after_{seconds}s"), count))
                .into(),
            requests: end.counters.clone(),
            unanswered: end.unanswered.clone(),
            resent: end.resent,
            faults: end.faults.clone(),
            fairness: Shares {
                jain: end.fairness.jain(),
                fewest: end.fairness.fewest,
                most: end.fairness.most,
                longest_gap_ns: end.fairness.longest_gap,
            },
            generator: Generator::new(total, run.workers),
            server: Server::new(run),
            machines: (run.shares.iter())
                .map(|share| MachineShare::new(run, share))
                .collect(),
            begin_spread_ns: (!run.shares.is_empty()).then_some(run.spread.as_nanos() as u64),
            kernel: kernel
                .map(|((table, name), count)| (format!("{table}.{name}"), count))
                .collect(),
            memory: run.memory.iter().map(Row::to_json).collect(),
            intervals: total.seconds.clone(),
            search: Found::new(answer),
            steps: answer
                .runs
                .iter()
                .map(|run| Step::new(run, bound))
                .collect(),
            sum: is_single.then(|| json!(sum())),
        }
    }
}

/// A run that was not made, of the plan of another one.
fn nothing(answer: &Answer, first: &Run) -> Run {
    Run {
        plan: first.plan.clone(),
        workers: first.workers,
        total: Total::new(first.workers),
        shares: Vec::new(),
        spread: Duration::ZERO,
        kernel: KernelCounters::default(),
        validity: Validity {
            invalid: answer.finding().into_iter().collect(),
            notes: Vec::new(),
        },
        memory: Vec::new(),
    }
}

impl Planned {
    fn new(run: &Run) -> Self {
        let plan = &run.plan;
        let (mode, arrivals) = match plan.mode {
            Mode::Closed => (Way::Closed, None),
            Mode::Open { arrivals, .. } => (Way::Open, Some(arrivals)),
            Mode::Churn { reset: true } => (Way::ChurnReset, None),
            Mode::Churn { reset: false } => (Way::ChurnFin, None),
        };
        Self {
            targets: plan.targets.iter().map(ToString::to_string).collect(),
            mode,
            rate: run.planned_rate(),
            arrivals,
            trigger: plan.trigger,
            size: plan.size,
            pipeline: plan.depth,
            bad_clients: plan.bad_clients,
            sources: plan.sources,
            proxy: plan.proxy,
            workers: run.workers,
            warm_up_seconds: plan.warm_up.as_secs_f64(),
            timeout_seconds: plan.timeout.as_secs_f64(),
            seed: plan.seed,
        }
    }
}

impl Percentiles {
    /// `None` where nothing was recorded: a histogram without values has no percentiles.
    fn new(latencies: &Latencies) -> Option<Self> {
        let quantiles = QUANTILES.map(|(name, quantile)| {
            let value = latencies.value_at_quantile(quantile);
            (name.to_owned(), value)
        });
        (!latencies.is_empty()).then(|| Self {
            count: latencies.len(),
            min: latencies.min(),
            mean: latencies.mean(),
            stdev: latencies.stdev(),
            quantiles: quantiles.into(),
            max: latencies.max(),
            beyond_range: latencies.beyond_range(),
        })
    }
}

impl Generator {
    pub(super) fn new(total: &Total, workers: usize) -> Self {
        let (usage, pauses) = (total.end.usage, total.end.pauses);
        let window = total.end.window.max(1) as f64 * workers as f64;
        Self {
            cpu_share: usage.cpu as f64 / window,
            waited_share: usage.waited as f64 / window,
            cpu_ns_per_echo: usage.cpu as f64 / total.echoes.max(1) as f64,
            pauses: Paused {
                count: pauses.count,
                total_ns: pauses.total,
                longest_ns: pauses.longest,
                longest_at_seconds: pauses.at as f64 / 1e9,
            },
        }
    }
}

impl MachineShare {
    fn new(run: &Run, share: &Share) -> Self {
        let (total, workers) = (&share.total, run.workers_each());
        Self {
            at: share.at.clone(),
            workers,
            connections: total.opened.0,
            echoes: total.echoes,
            echoes_per_second: total.rate(),
            generator_lag_ns: Percentiles::new(&total.lag),
            generator: Generator::new(total, workers),
            resent: total.end.resent,
            valid: share.invalid.is_empty(),
            not_valid_because: share.invalid.clone(),
        }
    }
}

impl Server {
    /// `None` if its processes could not be read.
    pub(in crate::cli) fn new(run: &Run) -> Option<Self> {
        let server = run.total.end.server.as_ref()?;
        let used = server.end.usage.since(server.begin.usage);
        let window = run.total.end.window.max(1) as f64;
        let grown = server.opened.rss.saturating_sub(server.before.rss) as f64;
        let (switches_voluntary, switches_forced) = server.switches();
        Some(Self {
            pids: run.plan.servers.clone(),
            cpu_share: used.cpu as f64 / window,
            cpu_ns_per_echo: used.cpu as f64 / run.total.echoes.max(1) as f64,
            rss_bytes: server.end.rss,
            rss_bytes_per_connection: grown / run.total.opened.0.max(1) as f64,
            switches_voluntary,
            switches_forced,
            threads: server.end.threads,
        })
    }
}

impl Found {
    fn new(answer: &Answer) -> Option<Self> {
        let search = answer.search.as_ref()?;
        Some(Self {
            p99_max_ns: search.bound.as_nanos() as u64,
            found_rate: answer.result().and_then(Run::planned_rate),
            interrupted: search.interrupted,
            sentence: answer.finding(),
        })
    }
}

impl Step {
    fn new(run: &Run, bound: Option<Duration>) -> Self {
        let (latency, lag) = (run.total.latency(), &run.total.lag);
        // Where nothing came back, that took no time at all.
        let at = |latencies: &Latencies, quantile| {
            (!latencies.is_empty()).then(|| latencies.value_at_quantile(quantile))
        };
        let rate = run.planned_rate();
        Self {
            rate,
            echoes_per_second: run.total.rate(),
            p50: at(latency, 0.5),
            p99: at(latency, 0.99),
            generator_lag_p99: at(lag, 0.99),
            faults: run.total.end.faults.total(),
            within_bound: rate.and(bound).map(|bound| keeps(run, bound)),
            valid: run.validity.is_valid(),
            not_valid_because: run.validity.invalid.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Its keys are promised, and so is what they mean: this file is of an earlier build.
    #[test]
    fn a_record_of_an_earlier_build_is_read_and_written_as_it_was() {
        let text = include_str!("../../../tests/fixtures/bench.json");
        let record: Record = serde_json::from_str(text).unwrap();
        assert_eq!(json!(record), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn what_a_record_lacks_is_empty_and_what_is_wrong_is_named() {
        let record: Record = serde_json::from_value(json!({"plan": {"size": 64}})).unwrap();
        assert_eq!((record.plan.size, record.steps.len()), (64, 0));
        let wrong = json!({"requests": {"sent": "many"}});
        let error = serde_json::from_value::<Record>(wrong).unwrap_err();
        assert!(error.to_string().contains("many"), "{error}");
    }
}
