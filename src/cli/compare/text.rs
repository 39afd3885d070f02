//! The comparison as a table for people, and how its figures are written.

use super::record::{Cell, Entry, Figure, Ratio, Record, Scenario};
use super::statistics::JUDGED;
use crate::cli::units::{grouped, plural};
use std::fmt::Write;

/// The whole report. Writing to a string cannot fail.
pub(super) fn report(record: &Record) -> String {
    let mut out = String::new();
    let _ = head(&mut out, record);
    for failure in record.failures() {
        let _ = writeln!(out, "\nMISSING: {failure}");
    }
    let mut last = None;
    for cell in &record.cells {
        if last != Some((cell.scenario, cell.size)) {
            last = Some((cell.scenario, cell.size));
            let _ = title(&mut out, cell);
        }
        let _ = rows(&mut out, record, cell);
    }
    let _ = summary(&mut out, record);
    out
}

fn head(out: &mut String, record: &Record) -> std::fmt::Result {
    for model in &record.models {
        writeln!(out, "{:<14} {}", model.name, model.note)?;
    }
    let machine = &record.machine;
    writeln!(
        out,
        "\n{}, Linux {}, {} x {}; {} of {} ms for each figure: the medians, and how far the rounds lie apart",
        machine.name,
        machine.kernel,
        machine.processors,
        machine.processor,
        plural(record.rounds, "round"),
        record.window_seconds * 1e3,
    )
}

/// What is done to a server, in words.
pub(super) fn scenario_title(scenario: Scenario) -> &'static str {
    match scenario {
        Scenario::RequestResponse => "request and response",
        Scenario::Pipelined => "pipelined, 16 requests under way on each connection",
        Scenario::Churn => "churn: connect, one request, reset",
        Scenario::MostlyIdle => "mostly idle: one connection in five is active",
        Scenario::SlowReader => "beside one that sends without end and never reads",
    }
}

/// A load in a few words.
pub(in crate::cli) fn load_name(scenario: Scenario, connections: u64, size: u64) -> String {
    format!(
        "{}, {} x {}",
        scenario.name(),
        grouped(connections),
        bytes(size as f64)
    )
}

fn title(out: &mut String, cell: &Cell) -> std::fmt::Result {
    writeln!(
        out,
        "\n{}, {} a request\n",
        scenario_title(cell.scenario),
        bytes(cell.size as f64)
    )?;
    writeln!(
        out,
        "  connections  model            echoes/s        p50      p99   p99.99  CPU/echo  calls  switches  threads  \
         memory/conn.  throughput, ratio"
    )
}

fn rows(out: &mut String, record: &Record, cell: &Cell) -> std::fmt::Result {
    let mut connections = grouped(cell.connections);
    for (model, entry) in record.models.iter().zip(&cell.entries) {
        let name: String = model.name.chars().take(14).collect();
        write!(out, "  {connections:>11}  {name:<14}")?;
        connections.clear();
        match (&entry.left_out, entry.samples.is_empty()) {
            (Some(why), true) => writeln!(out, "  - {why}")?,
            (None, true) => writeln!(out, "  - it was not measured")?,
            (left_out, false) => {
                figures(out, entry)?;
                if let Some(why) = left_out {
                    writeln!(out, "{:29}and then: {why}", "")?;
                }
            }
        }
    }
    Ok(())
}

fn figures(out: &mut String, entry: &Entry) -> std::fmt::Result {
    let told = |figure, write: fn(f64) -> String| entry.median(figure).map_or("-".into(), write);
    let spread = entry.spread(Figure::Throughput).map_or(0.0, |spread| {
        (spread.most - spread.least) / 2.0 / spread.median * 100.0
    });
    let calls = entry.system_calls.as_ref();
    let calls = calls.map_or("-".into(), |calls| format!("{:.2}", calls.per_echo));
    // A star: most of its rounds were not valid, by the rules of `bench`.
    let invalid = entry.samples.iter().filter(|one| !one.invalid.is_empty());
    let star = if invalid.count() * 2 > entry.samples.len() {
        '*'
    } else {
        ' '
    };
    write!(
        out,
        " {:>10}{star}±{:>2.0} %  {:>7}  {:>7}  {:>7}  {:>8}  {:>5}  {:>8}  {:>7}  {:>12}",
        told(Figure::Throughput, count),
        spread,
        told(Figure::P50, time),
        told(Figure::P99, time),
        told(Figure::P9999, time),
        told(Figure::CpuPerEcho, time),
        calls,
        told(Figure::SwitchesPerEcho, |value| format!("{value:.2}")),
        told(Figure::Threads, count),
        told(Figure::RssPerConnection, bytes),
    )?;
    match entry.ratio(Figure::Throughput) {
        Some(ratio) => writeln!(out, "  {}", in_words(ratio)),
        None => writeln!(out),
    }
}

/// `0.61 (0.58 to 0.64): worse`
pub(in crate::cli) fn in_words(ratio: &Ratio) -> String {
    format!(
        "{:.2} ({:.2} to {:.2}): {}",
        ratio.ratio,
        ratio.low,
        ratio.high,
        ratio.verdict.name()
    )
}

/// What a figure is called in a sentence.
pub(in crate::cli) fn figure_title(figure: Figure) -> &'static str {
    match figure {
        Figure::Throughput => "throughput",
        Figure::P50 => "p50",
        Figure::P90 => "p90",
        Figure::P99 => "p99",
        Figure::P999 => "p99.9",
        Figure::P9999 => "p99.99",
        Figure::CpuPerEcho => "CPU per echo",
        Figure::SwitchesPerEcho => "context switches per echo",
        Figure::Threads => "threads",
        Figure::Rss => "memory",
        Figure::RssPerConnection => "memory per connection",
    }
}

fn summary(out: &mut String, record: &Record) -> std::fmt::Result {
    let Some(first) = record.models.first() else {
        return Ok(());
    };
    writeln!(out)?;
    for model in record.models.iter().skip(1) {
        for figure in JUDGED {
            if let Some(ratio) = model.ratio(figure) {
                let title = figure_title(figure);
                let words = in_words(ratio);
                let cells = match record.failures().is_empty() {
                    true => "all cells together",
                    false => "the cells that both could serve together",
                };
                writeln!(
                    out,
                    "{} against {}, {cells}: {title} {words}",
                    model.name, first.name
                )?;
            }
        }
    }
    let invalid = |entry: &Entry| entry.samples.iter().any(|one| !one.invalid.is_empty());
    if record
        .cells
        .iter()
        .flat_map(|cell| &cell.entries)
        .any(invalid)
    {
        writeln!(
            out,
            "* in most rounds the measurement was not valid; the record says why"
        )?;
    }
    for note in &record.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

// --- How figures are written -------------------------------------------------------------------------------------------

/// A number of things: 291,203.
pub(super) fn count(number: f64) -> String {
    grouped(number.round().max(0.0) as u64)
}

/// Three digits and a unit, of nanoseconds.
pub(super) fn time(nanoseconds: f64) -> String {
    crate::cli::bench::time::time(nanoseconds.round().max(0.0) as u64)
}

/// Three digits and a unit, of bytes.
pub(super) fn bytes(bytes: f64) -> String {
    match bytes {
        n if n < 1_023.5 => format!("{n:.0} B"),
        n if n < 1_048_000.0 => trimmed(n / 1_024.0, " KiB"),
        n => trimmed(n / 1_048_576.0, " MiB"),
    }
}

/// Whole numbers have no digits behind the point: 4 KiB.
fn trimmed(value: f64, unit: &str) -> String {
    match value.fract() < 0.05 || value >= 99.95 {
        true => format!("{value:.0}{unit}"),
        false => format!("{value:.1}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::sample;
    use super::*;

    #[test]
    fn figures_have_units() {
        assert_eq!(
            [time(12.0), time(3_400.0), time(2e9)],
            ["12ns", "3.40us", "2.00s"]
        );
        let sizes = [64.0, 4_096.0, 65_536.0, 10_444.8, 3e6].map(bytes);
        assert_eq!(sizes, ["64 B", "4 KiB", "64 KiB", "10.2 KiB", "2.9 MiB"]);
        assert_eq!(count(291_203.4), "291,203");
    }

    #[test]
    fn the_table_has_every_model_of_every_cell_and_every_note() {
        let record = sample();
        let text = report(&record);
        let mut lines = text.lines();
        for cell in &record.cells {
            for model in &record.models {
                let found = lines.any(|line| {
                    line.get(15..)
                        .is_some_and(|rest| rest.starts_with(&model.name))
                });
                assert!(found, "{} at {:?}", model.name, cell.scenario);
            }
        }
        for note in &record.notes {
            assert!(text.contains(note));
        }
        assert!(text.contains("one connection after another"), "{text}");
    }
}
