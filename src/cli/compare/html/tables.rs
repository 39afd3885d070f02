//! The tables behind the charts: every figure of every cell, where it was measured.
//!
//! What may live in this file: their rows and columns. They are as wide as they need to be, and scroll in boxes of their
//! own, so that the page never does.

use super::super::record::{Cell, Entry, Figure, Record, Scenario, Verdict};
use super::{escape, figures};
use std::collections::BTreeSet;
use std::fmt::{Result, Write};

/// The columns behind throughput and ratio.
const COLUMNS: [Figure; 10] = [
    Figure::P50,
    Figure::P90,
    Figure::P99,
    Figure::P999,
    Figure::P9999,
    Figure::CpuPerEcho,
    Figure::SwitchesPerEcho,
    Figure::Threads,
    Figure::Rss,
    Figure::RssPerConnection,
];

pub(super) fn all(out: &mut String, record: &Record) -> Result {
    out.write_str(
        "<h2 id=\"tables\">Tables</h2>\n<p>Medians over the rounds; behind them, small, the least and the most. The ratio \
         is that of echoes per second to the first model's, with its confidence interval.</p>\n",
    )?;
    for scenario in Scenario::ALL {
        let cells = || {
            record
                .cells
                .iter()
                .filter(move |cell| cell.scenario == scenario)
        };
        let sizes: BTreeSet<u64> = cells().map(|cell| cell.size).collect();
        for size in sizes {
            let mut those: Vec<&Cell> = cells().filter(|cell| cell.size == size).collect();
            those.sort_by_key(|cell| cell.connections);
            table(out, record, scenario, size, &those)?;
        }
    }
    Ok(())
}

fn table(
    out: &mut String,
    record: &Record,
    scenario: Scenario,
    size: u64,
    cells: &[&Cell],
) -> Result {
    let title = format!(
        "{}, {} a message",
        figures::load(scenario),
        figures::size(size)
    );
    writeln!(
        out,
        "<details><summary>{0}</summary><div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{0}\"><table>\
         <caption>{1}</caption><thead><tr><th scope=\"col\">connections</th><th scope=\"col\" class=\"name\">model</th>\
         <th scope=\"col\">echoes per second</th><th scope=\"col\">ratio</th>",
        escape(&title),
        escape(figures::load_in_words(scenario))
    )?;
    for figure in COLUMNS {
        write!(
            out,
            "<th scope=\"col\">{}</th>",
            escape(figures::name(figure))
        )?;
    }
    out.write_str("<th scope=\"col\">system calls per echo</th></tr></thead>\n<tbody>")?;
    for cell in cells {
        for (place, (entry, model)) in cell.entries.iter().zip(&record.models).enumerate() {
            let first = if place == 0 { " class=\"first\"" } else { "" };
            write!(
                out,
                "<tr{first}><th scope=\"row\">{}</th><th scope=\"row\" class=\"name\">{}</th>",
                figures::number(cell.connections as f64),
                escape(&model.name)
            )?;
            row(out, entry)?;
            out.write_str("</tr>\n")?;
        }
    }
    out.write_str("</tbody></table></div></details>\n")
}

fn row(out: &mut String, entry: &Entry) -> Result {
    if entry.samples.is_empty() {
        let why = entry.left_out.as_deref().unwrap_or("not measured");
        let columns = COLUMNS.len() + 3;
        return write!(
            out,
            "<td class=\"why\" colspan=\"{columns}\">{}</td>",
            escape(why)
        );
    }
    let doubt = entry
        .samples
        .iter()
        .filter(|sample| !sample.invalid.is_empty())
        .count();
    let doubt = match doubt {
        0 => String::new(),
        count => format!(" <small>({count} in doubt)</small>"),
    };
    match entry.spread(Figure::Throughput) {
        Some(spread) => write!(
            out,
            "<td>{} <small>{}–{}</small>{doubt}</td>",
            figures::number(spread.median.round()),
            figures::number(spread.least.round()),
            figures::number(spread.most.round())
        )?,
        None => write!(out, "<td>–{doubt}</td>")?,
    }
    match entry.ratio(Figure::Throughput) {
        Some(ratio) => write!(
            out,
            "<td class=\"{}\">{}× <small>{}–{}, {}</small></td>",
            match ratio.verdict {
                Verdict::Better => "better",
                Verdict::Worse => "worse",
                Verdict::Same | Verdict::Noise => "level",
            },
            figures::times(ratio.ratio),
            figures::times(ratio.low),
            figures::times(ratio.high),
            ratio.verdict.name()
        )?,
        None => out.write_str("<td>–</td>")?,
    }
    for figure in COLUMNS {
        let text = entry
            .median(figure)
            .map_or("–".to_owned(), |value| figures::of(figure, value));
        write!(out, "<td>{}</td>", escape(&text))?;
    }
    let calls = entry
        .system_calls
        .as_ref()
        .map_or("–".to_owned(), |calls| figures::number(calls.per_echo));
    write!(out, "<td>{}</td>", escape(&calls))
}
