//! The report as CSV: a line of names, then a line for each step. Latencies are in nanoseconds.

use super::record::{Generator, QUANTILES};
use super::run::Run;
use crate::load::Latencies;

pub(super) fn report(runs: &[Run]) -> String {
    let mut names = vec![
        "planned_rate",
        "echoes_per_second",
        "seconds",
        "connections",
        "size",
        "valid",
    ];
    names.extend(["sent", "echoed", "lost", "in_flight", "faults"]);
    names.extend(QUANTILES.map(|(name, _)| name));
    names.extend(["max", "service_time_p99", "generator_cpu_ns_per_echo"]);
    let mut text = format!("{}\n", names.join(","));
    for run in runs {
        text.push_str(&format!("{}\n", line(run).join(",")));
    }
    text
}

fn line(run: &Run) -> Vec<String> {
    let total = &run.total;
    let counters = &total.end.counters;
    let mut values = vec![
        run.planned_rate()
            .map_or_else(String::new, |rate| rate.to_string()),
        format!("{:.1}", total.rate()),
        format!("{:.6}", total.window()),
        total.opened.0.to_string(),
        run.plan.size.to_string(),
        run.validity.is_valid().to_string(),
    ];
    values.extend(
        [
            counters.sent,
            counters.echoed,
            counters.lost,
            counters.in_flight,
            total.end.faults.total(),
        ]
        .map(|count| count.to_string()),
    );
    let latency = total.latency();
    values.extend(QUANTILES.map(|(_, quantile)| at(latency, quantile)));
    values.push(at(latency, 1.0));
    values.push(at(&total.service_time, 0.99));
    values.push(format!(
        "{:.0}",
        Generator::new(&run.total, run.workers).cpu_ns_per_echo
    ));
    values
}

/// Empty where nothing came back, which took no time at all.
fn at(latencies: &Latencies, quantile: f64) -> String {
    match latencies.is_empty() {
        true => String::new(),
        false => latencies.value_at_quantile(quantile).to_string(),
    }
}
