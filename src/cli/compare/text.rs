//! The comparison as a table for people.

use super::record::{Cell, Entry, Figure, Record};
use crate::cli::units::{grouped, plural};
use std::fmt::{Result, Write};

/// The columns behind throughput, with their widths.
const COLUMNS: [(Figure, usize); 7] = [
    (Figure::P50, 8),
    (Figure::P99, 8),
    (Figure::P9999, 8),
    (Figure::CpuPerEcho, 8),
    (Figure::SwitchesPerEcho, 8),
    (Figure::Threads, 7),
    (Figure::RssPerConnection, 12),
];

/// The whole report.
pub(super) fn report(record: &Record) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut out, record);
    out
}

fn write(out: &mut String, record: &Record) -> Result {
    for model in &record.models {
        writeln!(out, "{:<14} {}", model.name, model.note)?;
    }
    let (machine, rounds) = (&record.machine, plural(record.rounds, "round"));
    writeln!(
        out,
        "\n{}, Linux {}, {} x {}; {rounds} of {} ms for each figure: the medians, and how far the rounds lie apart",
        machine.name,
        machine.kernel,
        machine.processors,
        machine.processor,
        record.window_seconds * 1e3,
    )?;
    for failure in record.failures() {
        writeln!(out, "\nMISSING: {failure}")?;
    }
    let mut last = None;
    for cell in &record.cells {
        if last.replace((cell.load.scenario, cell.load.size))
            != Some((cell.load.scenario, cell.load.size))
        {
            title(out, cell)?;
        }
        rows(out, record, cell)?;
    }
    summary(out, record)
}

fn title(out: &mut String, cell: &Cell) -> Result {
    let size = Figure::Rss.write(cell.load.size as f64);
    writeln!(out, "\n{}, {size} a request\n", cell.load.scenario.title())?;
    writeln!(
        out,
        "  connections  model            echoes/s             p50       p99    p99.99  CPU/echo  switches  threads  \
         memory/conn.  throughput, ratio"
    )
}

fn rows(out: &mut String, record: &Record, cell: &Cell) -> Result {
    let mut connections = grouped(cell.load.connections);
    for (model, entry) in record.models.iter().zip(&cell.entries) {
        let name: String = model.name.chars().take(14).collect();
        write!(out, "  {connections:>11}  {name:<14}")?;
        connections.clear();
        let why = entry.left_out.as_deref();
        if entry.samples.is_empty() {
            writeln!(out, "  - {}", why.unwrap_or("it was not measured"))?;
            continue;
        }
        figures(out, entry)?;
        if let Some(why) = why {
            writeln!(out, "{:29}and then: {why}", "")?;
        }
    }
    Ok(())
}

fn figures(out: &mut String, entry: &Entry) -> Result {
    let spread = entry.spread(Figure::Throughput).map_or(0.0, |spread| {
        (spread.most - spread.least) / 2.0 / spread.median * 100.0
    });
    // A star: most of its rounds were not valid, by the rules of `bench`.
    let star = if is_doubtful(entry) { '*' } else { ' ' };
    let throughput = entry.median(Figure::Throughput);
    write!(out, " {throughput:>10}{star}±{spread:>3.0} %")?;
    for (figure, width) in COLUMNS {
        write!(out, "  {:>width$}", entry.median(figure))?;
    }
    match entry.ratio(Figure::Throughput) {
        Some(ratio) => writeln!(out, "  {ratio}"),
        None => writeln!(out),
    }
}

fn is_doubtful(entry: &Entry) -> bool {
    let invalid = entry
        .samples
        .iter()
        .filter(|one| !one.not_valid_because.is_empty());
    invalid.count() * 2 > entry.samples.len()
}

fn summary(out: &mut String, record: &Record) -> Result {
    let cells = match record.failures().is_empty() {
        true => "all cells together",
        false => "the cells that both could serve together",
    };
    writeln!(out)?;
    for model in record.models.iter().skip(1) {
        for ratio in &model.overall {
            let (name, first) = (&model.name, &record.models[0].name);
            writeln!(
                out,
                "{name} against {first}, {cells}: {} {ratio}",
                ratio.figure.title()
            )?;
        }
    }
    if record
        .cells
        .iter()
        .flat_map(|cell| &cell.entries)
        .any(is_doubtful)
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

#[cfg(test)]
mod tests {
    use super::super::record::tests::sample;
    use super::*;

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
                assert!(found, "{} at {}", model.name, cell.load);
            }
        }
        for note in &record.notes {
            assert!(text.contains(note));
        }
        assert!(text.contains("one connection after another"), "{text}");
    }
}
