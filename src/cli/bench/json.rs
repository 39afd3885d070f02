//! The report as JSON. Its form is `schema.json`, next to this file, to which a test holds it.

use super::answer::Answer;
use super::environment::Host;
use super::rate_search::keeps;
use super::run::Run;
use crate::cli::memory::Row;
use crate::load::validity::{Validity, handshakes_retried};
use crate::load::{Arrivals, BadClients, Latencies, Mode, ServerFigures, Total};
use crate::net::connect::Trigger;
use crate::procfs::{KERNEL_COUNTERS, KernelCounters};
use serde_json::{Map, Value, json};
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

/// The report of all steps. What is at the top is of the last; of a search, of the best. If a search has found nothing,
/// there is nothing at the top, and no failed step in its place.
pub(super) fn report(host: &Host, answer: &Answer) -> Value {
    match (answer.result(), answer.runs.first()) {
        (Some(run), _) => of_run(host, answer, run),
        (None, Some(first)) => of_run(host, answer, &nothing(answer, first)),
        (None, None) => Value::Null,
    }
}

/// A run that was not made, of the plan of another one.
fn nothing(answer: &Answer, first: &Run) -> Run {
    Run {
        plan: first.plan.clone(),
        workers: first.workers,
        total: Total::new(first.workers),
        kernel: KernelCounters::default(),
        validity: Validity {
            invalid: answer.finding().into_iter().collect(),
            notes: Vec::new(),
        },
        memory: Vec::new(),
    }
}

fn of_run(host: &Host, answer: &Answer, run: &Run) -> Value {
    let mut report = Map::new();
    let mut put = |name: &str, value: Value| report.insert(name.to_owned(), value);
    put("program", json!("echo-reactor bench"));
    put("version", json!(env!("CARGO_PKG_VERSION")));
    put("command", json!(host.command));
    put("started_unix", json!(host.started));
    put("host", json!(host.machine));
    put("plan", plan(run));
    put("valid", json!(run.validity.is_valid()));
    put("not_valid_because", json!(run.validity.invalid));
    put("notes", json!(run.validity.notes));
    put("echoes_per_second", json!(run.total.rate()));
    let bytes = run.total.rate() * run.plan.size as f64;
    put("bytes_per_second", json!(bytes));
    put("seconds", json!(run.total.window()));
    put("echoes", json!(run.total.echoes));
    put("interrupted", json!(run.total.end.interrupted));
    put(
        "connections",
        json!({
            "planned": run.plan.connections,
            "active": run.plan.active,
            "opened": run.total.opened.0,
            "seconds_to_open": run.total.opened.1.as_secs_f64(),
        }),
    );
    let [retried_1s, retried_3s, retried_7s] =
        handshakes_retried(&run.total).map(|(_, count)| count);
    put("response_time_ns", latency(&run.total.response_time));
    put("service_time_ns", latency(&run.total.service_time));
    put("generator_lag_ns", latency(&run.total.lag));
    put("connect_ns", latency(&run.total.connect));
    put(
        "handshakes_retried",
        json!({"after_1s": retried_1s, "after_3s": retried_3s, "after_7s": retried_7s}),
    );
    let counters = run.total.end.counters.counters();
    let counters = counters.map(|(name, count)| (name.to_owned(), json!(count)));
    put("requests", Value::Object(counters.into_iter().collect()));
    put("unanswered", unanswered(run));
    put("resent", resent(run));
    let faults = run.total.end.faults.iter().map(|(kind, count, first)| {
        (
            kind.name().to_owned(),
            json!({"count": count, "first": first}),
        )
    });
    put("faults", Value::Object(faults.collect()));
    put("fairness", fairness(run));
    put("generator", generator(run));
    let server = run.total.end.server.as_ref();
    put(
        "server",
        server.map_or(Value::Null, |server| self::server(run, server)),
    );
    let kernel = KERNEL_COUNTERS.iter().zip(run.kernel.0);
    let kernel = kernel.map(|((table, name), count)| (format!("{table}.{name}"), json!(count)));
    put("kernel", Value::Object(kernel.collect()));
    let memory = run.memory.iter().map(Row::to_json);
    put("memory", Value::Array(memory.collect()));
    put("intervals", intervals(run));
    put("search", search(answer));
    let bound = answer.search.as_ref().map(|search| search.bound);
    let steps = answer.runs.iter().map(|run| step(run, bound));
    put("steps", Value::Array(steps.collect()));
    Value::Object(report)
}

fn plan(run: &Run) -> Value {
    let plan = &run.plan;
    let targets: Vec<String> = plan.targets.iter().map(ToString::to_string).collect();
    let (mode, rate, arrivals) = match plan.mode {
        Mode::Closed => ("closed", None, None),
        Mode::Open { rate, arrivals } => ("open", Some(rate), Some(arrivals)),
        Mode::Churn { reset: true } => ("churn-reset", None, None),
        Mode::Churn { reset: false } => ("churn-fin", None, None),
    };
    json!({
        "targets": targets,
        "mode": mode,
        "rate": rate,
        "arrivals": arrivals.map(|arrivals| match arrivals {
            Arrivals::Constant => "constant",
            Arrivals::Poisson => "poisson",
        }),
        "trigger": match plan.trigger {
            Trigger::Edge => "edge",
            Trigger::Level => "level",
        },
        "size": plan.size,
        "pipeline": plan.depth,
        "bad_clients": bad_clients(plan.bad_clients),
        "sources": plan.sources.map(|sources| sources.to_string()),
        "workers": run.workers,
        "warm_up_seconds": plan.warm_up.as_secs_f64(),
        "timeout_seconds": plan.timeout.as_secs_f64(),
        "seed": plan.seed,
    })
}

fn bad_clients(bad_clients: BadClients) -> Value {
    let kinds = bad_clients.counts().into_iter();
    Value::Object(
        kinds
            .map(|(kind, count)| (kind.replace('-', "_"), json!(count)))
            .collect(),
    )
}

/// `null` where nothing was recorded: a histogram without values has no percentiles.
fn latency(latencies: &Latencies) -> Value {
    if latencies.is_empty() {
        return Value::Null;
    }
    let mut object = Map::new();
    object.insert("count".into(), json!(latencies.len()));
    object.insert("min".into(), json!(latencies.min()));
    object.insert("mean".into(), json!(latencies.mean()));
    object.insert("stdev".into(), json!(latencies.stdev()));
    for (name, quantile) in QUANTILES {
        object.insert(name.into(), json!(latencies.value_at_quantile(quantile)));
    }
    object.insert("max".into(), json!(latencies.max()));
    object.insert("beyond_range".into(), json!(latencies.beyond_range()));
    Value::Object(object)
}

fn resent(run: &Run) -> Value {
    let resent = run.total.end.resent;
    json!({"segments": resent.segments, "connections": resent.connections})
}

fn unanswered(run: &Run) -> Value {
    let unanswered = &run.total.end.unanswered;
    json!({
        "requests": unanswered.requests,
        "awaited": unanswered.awaited,
        "connections": unanswered.connections,
        "half": unanswered.half,
        "longest_ns": unanswered.longest,
        "numbers": unanswered.numbers,
    })
}

fn fairness(run: &Run) -> Value {
    let shares = &run.total.end.fairness;
    json!({
        "jain": shares.jain(),
        "fewest": shares.fewest,
        "most": shares.most,
        "longest_gap_ns": shares.longest_gap,
    })
}

fn generator(run: &Run) -> Value {
    let (usage, pauses) = (run.total.end.usage, run.total.end.pauses);
    let window = run.total.end.window.max(1) as f64 * run.workers as f64;
    json!({
        "cpu_share": usage.cpu as f64 / window,
        "waited_share": usage.waited as f64 / window,
        "cpu_ns_per_echo": usage.cpu as f64 / run.total.echoes.max(1) as f64,
        "pauses": {
            "count": pauses.count,
            "total_ns": pauses.total,
            "longest_ns": pauses.longest,
            "longest_at_seconds": pauses.at as f64 / 1e9,
        },
    })
}

fn server(run: &Run, server: &ServerFigures) -> Value {
    let used = server.end.usage.since(server.begin.usage);
    let window = run.total.end.window.max(1) as f64;
    let grown = server.opened.rss.saturating_sub(server.before.rss) as f64;
    json!({
        "pids": run.plan.servers,
        "cpu_share": used.cpu as f64 / window,
        "cpu_ns_per_echo": used.cpu as f64 / run.total.echoes.max(1) as f64,
        "rss_bytes": server.end.rss,
        "rss_bytes_per_connection": grown / run.total.opened.0.max(1) as f64,
        "switches_voluntary": server.switches().0,
        "switches_forced": server.switches().1,
        "threads": server.end.threads,
    })
}

fn intervals(run: &Run) -> Value {
    let seconds = run.total.seconds.iter().map(|second| {
        json!({
            "at": second.at,
            "seconds": second.lasted,
            "echoes": second.echoes,
            "p50": second.p50,
            "p99": second.p99,
            "max": second.max,
        })
    });
    Value::Array(seconds.collect())
}

fn search(answer: &Answer) -> Value {
    let Some(search) = &answer.search else {
        return Value::Null;
    };
    json!({
        "p99_max_ns": search.bound.as_nanos() as u64,
        "found_rate": answer.result().and_then(Run::planned_rate),
        "interrupted": search.interrupted,
        "sentence": answer.finding(),
    })
}

/// A step; `null` where nothing came back, which took no time at all.
fn step(run: &Run, bound: Option<Duration>) -> Value {
    let (latency, lag) = (run.total.latency(), &run.total.lag);
    let at = |latencies: &Latencies, quantile| match latencies.is_empty() {
        true => Value::Null,
        false => json!(latencies.value_at_quantile(quantile)),
    };
    let is_probe = run.planned_rate().is_some();
    json!({
        "rate": run.planned_rate(),
        "echoes_per_second": run.total.rate(),
        "p50": at(latency, 0.5),
        "p99": at(latency, 0.99),
        "generator_lag_p99": at(lag, 0.99),
        "faults": run.total.end.faults.total(),
        "within_bound": bound.filter(|_| is_probe).map(|bound| keeps(run, bound)),
        "valid": run.validity.is_valid(),
        "not_valid_because": run.validity.invalid,
    })
}
