//! The report as people read it.

use super::answer::Answer;
use super::environment::Host;
use super::record::{Generator, Server};
use super::run::Run;
use super::time::{bytes, time};
use crate::cli::units::{grouped, grouped_rate, plural};
use crate::load::validity::handshakes_retried;
use crate::load::{Latencies, Mode};
use crate::net::connect::Trigger;
use crate::net::proxy::Version;
use crate::procfs::KERNEL_COUNTERS;
use std::fmt::Write;

/// Columns of a terminal. The tables fit; a sentence may be longer, and is wrapped.
#[cfg(test)]
const COLUMNS: usize = 80;

pub(super) fn report(host: &Host, answer: &Answer) -> String {
    let mut out = String::new();
    if let Some(finding) = answer.finding() {
        let _ = writeln!(out, "{finding}\n");
    }
    if answer.runs.len() > 1 || answer.search.is_some() {
        steps(&mut out, answer);
    }
    if let Some(run) = answer.result() {
        // Writing to a string cannot fail.
        let _ = one(&mut out, host, run);
    }
    out
}

/// One line for each step; and what was wrong with those of which the report says no more.
fn steps(out: &mut String, answer: &Answer) {
    let _ = writeln!(
        out,
        "   planned/s    echoes/s         p50         p99     lag p99"
    );
    for run in &answer.runs {
        let _ = writeln!(out, "{}", step(run));
    }
    let _ = writeln!(out);
    let result = answer.result();
    let others = answer.runs.iter().enumerate();
    for (place, run) in others.filter(|(_, run)| !result.is_some_and(|it| std::ptr::eq(it, *run))) {
        let mut said = Vec::new();
        let faults = run.total.end.faults.iter();
        said.extend(faults.map(|(kind, count, first)| {
            format!("{} x {}; the first: {first}", grouped(count), kind)
        }));
        let reasons = run.validity.invalid.iter();
        said.extend(reasons.map(|reason| format!("NOT VALID because {reason}")));
        for text in said {
            let _ = writeln!(out, "  step {}: {text}", place + 1);
        }
    }
}

fn step(run: &Run) -> String {
    let at = |latencies: &Latencies, quantile| match latencies.is_empty() {
        true => "-".to_owned(),
        false => time(latencies.value_at_quantile(quantile)),
    };
    let planned = run
        .planned_rate()
        .map_or_else(|| "-".to_owned(), grouped_rate);
    let latency = run.total.latency();
    let doubt = match run.validity.is_valid() {
        true => "",
        false => "  not valid",
    };
    format!(
        "{planned:>12}{:>12}{:>12}{:>12}{:>12}{doubt}",
        grouped_rate(run.total.rate()),
        at(latency, 0.5),
        at(latency, 0.99),
        at(&run.total.lag, 0.99),
    )
}

fn one(out: &mut String, host: &Host, run: &Run) -> std::fmt::Result {
    let machine = &host.machine;
    let total = &run.total;
    let targets: Vec<String> = run.plan.targets.iter().map(ToString::to_string).collect();
    let what = match run.plan.mode {
        Mode::Closed => "closed loop".to_owned(),
        Mode::Open { rate, .. } => {
            format!("open loop at {} a second", grouped_rate(rate))
        }
        Mode::Churn { reset: true } => "churn, closed by reset".to_owned(),
        Mode::Churn { reset: false } => "churn, closed by FIN".to_owned(),
    };
    let trigger = match run.plan.trigger {
        Trigger::Edge => ", edge-triggered",
        Trigger::Level => "",
    };
    let proxy = match run.plan.proxy {
        Some(Version::V1) => ", PROXY headers v1",
        Some(Version::V2) => ", PROXY headers v2",
        None => "",
    };
    writeln!(out, "{}  {what}{trigger}{proxy}", targets.join(" "))?;
    writeln!(
        out,
        "  {}, {} of them active; {} under way on each; {} a request",
        plural(run.plan.connections as u64, "connection"),
        grouped(run.plan.active as u64),
        plural(run.plan.depth as u64, "request"),
        plural(run.plan.size as u64, "byte"),
    )?;
    writeln!(out)?;
    writeln!(
        out,
        "  {} echoes/s   {} in {:.2} s   {}/s each way",
        grouped_rate(total.rate()),
        echoes(total.echoes),
        total.window(),
        bytes(total.rate() * run.plan.size as f64)
    )?;
    writeln!(out)?;
    latencies(out, run)?;
    writeln!(out)?;
    counters(out, run)?;
    figures(out, run)?;
    machines(out, run)?;
    memory(out, run)?;
    writeln!(
        out,
        "  machine    {}, Linux {}, {} x {}; seed {}",
        machine.name, machine.kernel, machine.processors, machine.processor, run.plan.seed
    )?;
    validity(out, run)
}

fn echoes(count: u64) -> String {
    let ending = if count == 1 { "" } else { "es" };
    format!("{} echo{ending}", grouped(count))
}

/// A table: what was measured, and its percentiles.
fn latencies(out: &mut String, run: &Run) -> std::fmt::Result {
    writeln!(
        out,
        "  latency            min      p50      p90      p99    p99.9   p99.99      max"
    )?;
    let total = &run.total;
    row(out, "response time", &total.response_time)?;
    row(out, "service time", &total.service_time)?;
    row(out, "generator lag", &total.lag)?;
    row(out, "connect", &total.connect)?;
    for (seconds, count) in handshakes_retried(total) {
        if count > 0 {
            writeln!(
                out,
                "    {} took about {seconds} s, as one does whose SYN was lost and sent again",
                plural(count, "connect")
            )?;
        }
    }
    Ok(())
}

fn row(out: &mut String, name: &str, latencies: &Latencies) -> std::fmt::Result {
    if latencies.is_empty() {
        return Ok(());
    }
    write!(out, "  {name:<13}{:>9}", time(latencies.min()))?;
    for quantile in [0.5, 0.9, 0.99, 0.999, 0.9999] {
        write!(out, "{:>9}", time(latencies.value_at_quantile(quantile)))?;
    }
    writeln!(out, "{:>9}", time(latencies.max()))?;
    match latencies.beyond_range() {
        0 => Ok(()),
        count => writeln!(
            out,
            "    {} longer than an hour, where percentiles tell none apart; the maximum is exact",
            grouped(count)
        ),
    }
}

fn counters(out: &mut String, run: &Run) -> std::fmt::Result {
    let counters = &run.total.end.counters;
    write!(
        out,
        "  requests   {} sent = {} echoed + {} lost + {} in flight",
        grouped(counters.sent),
        grouped(counters.echoed),
        grouped(counters.lost),
        grouped(counters.in_flight)
    )?;
    let rest = counters.counters().into_iter().skip(4);
    let is_shown = |name: &str| name != "opened" && !name.starts_with("bad_") && name != "slow_cut";
    for (name, count) in rest.filter(|(name, count)| *count > 0 && is_shown(name)) {
        write!(out, "; {} {}", grouped(count), name.replace('_', " "))?;
    }
    writeln!(out)?;
    for (kind, count, first) in run.total.end.faults.iter() {
        writeln!(
            out,
            "  fault      {} x {}; the first: {first}",
            grouped(count),
            kind
        )?;
    }
    bad_clients(out, run)
}

/// The badly behaved clients, kind by kind, and what became of them.
fn bad_clients(out: &mut String, run: &Run) -> std::fmt::Result {
    let (bad_clients, counters) = (&run.plan.bad_clients, &run.total.end.counters);
    if bad_clients.is_empty() {
        return Ok(());
    }
    let parts = [
        (
            "slow-reader client",
            bad_clients.slow_reader,
            counters.slow_cut,
            "cut off",
        ),
        (
            "reset client",
            bad_clients.reset,
            counters.bad_resets,
            "resets",
        ),
        (
            "slowloris client",
            bad_clients.slowloris,
            counters.bad_bytes,
            "bytes sent",
        ),
        (
            "half-close client",
            bad_clients.half_close,
            counters.bad_half_closed,
            "whole echoes",
        ),
    ];
    let parts = parts.into_iter().filter(|(_, count, ..)| *count > 0);
    let mut parts: Vec<String> = parts
        .map(|(kind, count, done, what)| {
            format!("{}, {} {what}", plural(count as u64, kind), grouped(done))
        })
        .collect();
    if counters.bad_cut > 0 {
        parts.push(format!(
            "{} cut off or cut short by the server",
            grouped(counters.bad_cut)
        ));
    }
    writeln!(out, "  bad clients {}", parts.join("; "))
}

fn figures(out: &mut String, run: &Run) -> std::fmt::Result {
    let total = &run.total;
    let shares = &total.end.fairness;
    if shares.connections > 0 {
        let jain = shares.jain();
        writeln!(
            out,
            "  fairness   Jain {}; {} to {} echoes on a connection; longest gap {}",
            jain.map_or_else(|| "-".to_owned(), |jain| format!("{jain:.4}")),
            grouped(shares.fewest),
            grouped(shares.most),
            time(shares.longest_gap)
        )?;
    }
    let generator = Generator::new(total, run.workers);
    writeln!(
        out,
        "  generator  {} of CPU an echo, {:.0} % busy, {:.1} % kept waiting for a processor",
        time(generator.cpu_ns_per_echo as u64),
        generator.cpu_share * 100.0,
        generator.waited_share * 100.0
    )?;
    if let Some(server) = Server::new(run) {
        writeln!(
            out,
            "  server     {} of CPU an echo, {:.0} % busy; {} RSS a connection; {} context switches; {}",
            time(server.cpu_ns_per_echo as u64),
            server.cpu_share * 100.0,
            plural(server.rss_bytes_per_connection as u64, "byte"),
            grouped(server.switches_voluntary + server.switches_forced),
            plural(server.threads, "thread"),
        )?;
    }
    let kernel = KERNEL_COUNTERS
        .iter()
        .zip(run.kernel.0)
        .filter(|(_, count)| *count > 0);
    let kernel: Vec<String> = kernel
        .map(|((_, name), count)| format!("{name} {}", grouped(count)))
        .collect();
    if !kernel.is_empty() {
        writeln!(
            out,
            "  kernel     {} (of all programs on this machine)",
            kernel.join(", ")
        )?;
    }
    Ok(())
}

/// A row for each machine of `--at`.
fn machines(out: &mut String, run: &Run) -> std::fmt::Result {
    if run.shares.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\n    echoes/s  lag p99  busy   resent  machine (all began within {})",
        time(run.spread.as_nanos() as u64)
    )?;
    for share in &run.shares {
        let total = &share.total;
        let lag = match total.lag.is_empty() {
            true => "-".to_owned(),
            false => time(total.lag.value_at_quantile(0.99)),
        };
        writeln!(
            out,
            "  {:>10}{lag:>9}{:>4.0} %{:>9}  {}",
            grouped_rate(total.rate()),
            Generator::new(total, run.workers_each()).cpu_share * 100.0,
            grouped(total.end.resent.segments),
            share.at
        )?;
    }
    writeln!(out)
}

/// What the connections of a hold cost: a line for every power of ten.
fn memory(out: &mut String, run: &Run) -> std::fmt::Result {
    if run.memory.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\n                                      bytes a connection\n  connections  open after   server RSS      user  kernel, both ends  TCP queues"
    )?;
    for row in &run.memory {
        let (user, kernel, queues) = row.of_one();
        writeln!(
            out,
            "  {:>11}{:>10.2} s{:>10} kB{user:>10.1}{kernel:>19.0}{queues:>12.0}",
            grouped(row.connections),
            row.at,
            grouped(row.rss_bytes() / 1024),
        )?;
    }
    writeln!(out)
}

fn validity(out: &mut String, run: &Run) -> std::fmt::Result {
    writeln!(out)?;
    for note in &run.validity.notes {
        writeln!(out, "  note: {note}")?;
    }
    for reason in &run.validity.invalid {
        writeln!(out, "  NOT VALID because {reason}")?;
    }
    if run.validity.is_valid() {
        writeln!(
            out,
            "  valid: the generator kept up, and every byte was verified"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::latencies;

    #[test]
    fn small_figures_are_none_that_look_like_nothing() {
        assert_eq!((echoes(1), echoes(2)), ("1 echo".into(), "2 echoes".into()));
    }

    #[test]
    fn a_row_fits_a_terminal() {
        let mut wide = latencies();
        for nanoseconds in [1_234_567, 99_940, 3_599_999_999_999] {
            wide.saturating_record(nanoseconds);
        }
        let mut out = String::new();
        row(&mut out, "generator lag", &wide).unwrap();
        assert!(out.contains("1.23ms") && out.contains("3600s"), "{out}");
        assert!(out.trim_end().chars().count() <= COLUMNS, "{out}");
    }
}
