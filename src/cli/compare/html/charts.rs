//! Which charts there are, and what they show: built from a record, drawn by [`super::svg`].
//!
//! What may live in this file: which cells and figures go into which chart, its words for screen readers, and
//! what is missing in it. What may not: shapes and colours.

use super::super::record::{Cell, Figure, Record, Scenario};
use super::figures::{self, connections, memory, short, time};
use super::svg::{Anchor, Axis, Chart, LOOKS, Point, Series, Svg};
use std::collections::BTreeSet;

/// The percentile axis ends here: five nines, of which a short run knows little enough.
const NINES_MAX: f64 = 5.0;

/// The message sizes of the load that goes over all numbers of connections.
pub(super) fn sizes(record: &Record) -> Vec<u64> {
    let cells = record
        .cells
        .iter()
        .filter(|cell| cell.scenario == Scenario::RequestResponse);
    let sizes: BTreeSet<u64> = cells.map(|cell| cell.size).collect();
    sizes.into_iter().collect()
}

/// The request-response cells of a size, by their connections.
pub(super) fn cells_of(record: &Record, size: u64) -> Vec<&Cell> {
    let mut cells: Vec<&Cell> = (record.cells.iter())
        .filter(|cell| cell.scenario == Scenario::RequestResponse && cell.size == size)
        .collect();
    cells.sort_by_key(|cell| cell.connections);
    cells
}

/// A figure over the number of connections, for each model.
pub(super) fn over_connections(record: &Record, size: u64, figure: Figure) -> Chart {
    let cells = cells_of(record, size);
    let mut missing = Vec::new();
    let mut series = Vec::new();
    for (look, model) in record.models.iter().enumerate() {
        let mut points = Vec::new();
        for cell in &cells {
            let entry = &cell.entries[look];
            match entry.spread(figure) {
                Some(spread) => points.push(Point {
                    x: cell.connections as f64,
                    y: spread.median,
                    spread: Some((spread.least, spread.most)),
                    title: format!(
                        "{}, {}: {}, from {} to {}",
                        model.name,
                        connections(cell.connections),
                        figures::of(figure, spread.median),
                        figures::of(figure, spread.least),
                        figures::of(figure, spread.most)
                    ),
                }),
                None => missing.push((look, cell.connections)),
            }
        }
        series.push(Series {
            look,
            points,
            marked: true,
        });
    }
    let points = series.iter().flat_map(|series: &Series| &series.points);
    let values: Vec<f64> = points
        .flat_map(|point| {
            [
                Some(point.y),
                point.spread.map(|s| s.0),
                point.spread.map(|s| s.1),
            ]
        })
        .flatten()
        .collect();
    let y = match figure {
        Figure::Throughput => Axis::from_zero(values, short),
        _ => Axis::decades(values, |value| figures::of(figure, value)),
    };
    let numbers: Vec<u64> = cells.iter().map(|cell| cell.connections).collect();
    let counts: Vec<f64> = cells.iter().map(|cell| cell.connections as f64).collect();
    Chart {
        title: format!("{} a message", figures::size(size)),
        description: describe(record, &series, figure),
        x: Axis::at(&counts, short),
        y,
        x_name: "connections".to_owned(),
        y_name: figures::name(figure).to_owned(),
        series,
        missing: absent(record, &numbers, &missing),
    }
}

/// What the chart shows, as a list of its points.
fn describe(record: &Record, series: &[Series], figure: Figure) -> String {
    let mut text = format!(
        "{} over the number of connections.",
        capital(figures::name(figure))
    );
    for series in series.iter().filter(|series| !series.points.is_empty()) {
        let points: Vec<String> = (series.points.iter())
            .map(|point| format!("{} at {}", figures::of(figure, point.y), short(point.x)))
            .collect();
        let name = &record.models[series.look].name;
        text.push_str(&format!(" {name}: {}.", points.join(", ")));
    }
    text
}

/// With its first letter large.
pub(super) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters
        .next()
        .map(|letter| letter.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}

/// `threads: nothing at 5k, 10k`, or the other way round where that is shorter.
fn absent(record: &Record, counts: &[u64], missing: &[(usize, u64)]) -> Vec<String> {
    let list = |counts: &[u64]| {
        let texts: Vec<String> = counts.iter().map(|&count| short(count as f64)).collect();
        texts.join(", ")
    };
    let mut lines = Vec::new();
    for (look, model) in record.models.iter().enumerate() {
        let (absent, there): (Vec<u64>, Vec<u64>) = counts
            .iter()
            .partition(|&&count| missing.contains(&(look, count)));
        let text = match (absent.len(), there.len()) {
            (0, _) => continue,
            (_, 0) => "nothing".to_owned(),
            (absent, few) if few < absent => format!("only at {}", list(&there)),
            _ => format!("nothing at {}", list(&absent)),
        };
        lines.push(format!("{}: {text}", model.name));
    }
    lines
}

/// Latency by percentile, in one cell.
pub(super) fn by_percentile(record: &Record, cell: &Cell) -> Chart {
    let nines = |quantile: f64| -(1.0 - quantile).log10();
    let mut series = Vec::new();
    for (look, entry) in cell.entries.iter().enumerate() {
        let curve = entry.curve.iter().filter(|(quantile, _)| {
            // Beyond five nines, or at all of them, a curve is the story of one answer.
            (0.0..1.0).contains(quantile) && nines(*quantile) <= NINES_MAX + 1e-6
        });
        let points = curve.map(|&(quantile, latency)| Point {
            x: nines(quantile),
            y: latency as f64,
            spread: None,
            title: format!(
                "{}: {} % within {}",
                record.models[look].name,
                percent(quantile),
                time(latency as f64)
            ),
        });
        series.push(Series {
            look,
            points: points.collect(),
            marked: false,
        });
    }
    let points = || series.iter().flat_map(|series| &series.points);
    let end = points().map(|point| point.x).fold(1.0, f64::max);
    let ticks = [
        (0.0, "0"),
        (1.0, "90"),
        (2.0, "99"),
        (3.0, "99.9"),
        (4.0, "99.99"),
        (5.0, "99.999"),
    ];
    let ticks = ticks.into_iter().filter(|(at, _)| *at <= end + 0.01);
    let y = Axis::decades(points().map(|point| point.y), time);
    let what = format!(
        "{}, {}",
        connections(cell.connections),
        figures::size(cell.size)
    );
    let mut description = format!("Latency by percentile: {what}.");
    for series in &series {
        if let Some(last) = series.points.last() {
            description.push_str(&format!(" {}.", last.title));
        }
    }
    Chart {
        title: what,
        description,
        x: Axis {
            scale: super::svg::Scale::Linear,
            low: 0.0,
            high: end,
            ticks: ticks.map(|(at, name)| (at, name.to_owned())).collect(),
        },
        y,
        x_name: "percent of all answers came within".to_owned(),
        y_name: "latency".to_owned(),
        missing: series
            .iter()
            .filter(|series: &&Series| series.points.is_empty())
            .map(|series| format!("{}: nothing", record.models[series.look].name))
            .collect(),
        series,
    }
}

fn percent(quantile: f64) -> String {
    let text = format!("{:.4}", quantile * 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The cells whose percentiles are worth a chart: few connections, a hundred, and the most that as many models could hold.
pub(super) fn telling_cells(record: &Record) -> Vec<&Cell> {
    let Some(&size) = sizes(record).first() else {
        return Vec::new();
    };
    let curves = |cell: &Cell| {
        cell.entries
            .iter()
            .filter(|entry| entry.curve.len() > 1)
            .count()
    };
    first_middle_last(cells_of(record, size), curves)
}

/// The first of these cells, one of a hundred connections or more, and the last in which as many models took part as in
/// that one; `count` says how many did.
fn first_middle_last(mut cells: Vec<&Cell>, count: impl Fn(&Cell) -> usize) -> Vec<&Cell> {
    cells.retain(|cell| count(cell) > 0);
    let middle = cells
        .iter()
        .find(|cell| cell.connections >= 100)
        .or(cells.last());
    let enough = middle.map_or(0, |cell| count(cell));
    let last = cells.iter().rev().find(|cell| count(cell) >= enough);
    let mut chosen: Vec<&Cell> = [cells.first(), middle, last]
        .into_iter()
        .flatten()
        .copied()
        .collect();
    chosen.sort_by_key(|cell| cell.connections);
    chosen.dedup_by_key(|cell| cell.connections);
    chosen
}

/// The cells whose system calls are worth a chart. Other loads have theirs in the tables.
fn counted_cells(record: &Record) -> Vec<&Cell> {
    let Some(&size) = sizes(record).first() else {
        return Vec::new();
    };
    let counted = |cell: &Cell| {
        cell.entries
            .iter()
            .filter(|entry| entry.system_calls.is_some())
            .count()
    };
    first_middle_last(cells_of(record, size), counted)
}

/// System calls of one echo: a bar for each model in each cell where they were counted, and their names below it.
pub(super) fn system_calls(record: &Record, width: f64) -> Option<(Svg, f64, String)> {
    const ROW: f64 = 34.0;
    let cells = counted_cells(record);
    let entries = cells.iter().flat_map(|cell| &cell.entries);
    let most = entries
        .filter_map(|entry| Some(entry.system_calls.as_ref()?.per_echo))
        .fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    let mut svg = Svg::default();
    let mut description = String::from("System calls of one echo.");
    let mut y = 0.0;
    let full = width - 64.0;
    for cell in &cells {
        let what = format!(
            "{}, {}",
            connections(cell.connections),
            figures::size(cell.size)
        );
        svg.text("title", (2.0, y + 16.0), Anchor::Start, &what);
        description.push_str(&format!(" {what}:"));
        y += 24.0;
        for (look, entry) in cell.entries.iter().enumerate() {
            let Some(calls) = &entry.system_calls else {
                continue;
            };
            let name = &record.models[look].name;
            let length = (full * calls.per_echo / most).max(2.0);
            let count = figures::number(calls.per_echo);
            let names: Vec<String> = (calls.names.iter())
                .filter(|(_, count)| *count >= 0.005)
                .take(4)
                .map(|(name, count)| format!("{} {name}", figures::number(*count)))
                .collect();
            let title = format!("{name}: {count} an echo: {}", names.join(", "));
            svg.rect(
                &format!("bar m{}", look % LOOKS),
                (2.0, y),
                (length, 12.0),
                &title,
            );
            svg.text("value", (length + 8.0, y + 10.5), Anchor::Start, &count);
            svg.text(
                "tick",
                (2.0, y + 24.5),
                Anchor::Start,
                &format!("{name}: {}", names.join(" + ")),
            );
            description.push_str(&format!(" {title}."));
            y += ROW;
        }
        y += 10.0;
    }
    Some((svg, y, description))
}

/// The memory of the server's process over connections, and what one connection adds to it.
pub(super) fn memory_charts(record: &Record) -> Vec<Chart> {
    let Some(&size) = sizes(record).first() else {
        return Vec::new();
    };
    let mut charts: Vec<Chart> = [Figure::Rss, Figure::RssPerConnection]
        .into_iter()
        .map(|figure| over_connections(record, size, figure))
        .collect();
    charts[0].title = "the server's process".to_owned();
    charts[1].title = "one more connection".to_owned();
    for chart in &mut charts {
        for series in &mut chart.series {
            // What is below a byte cannot be shown on a logarithmic axis, and is not worth showing.
            series.points.retain(|point| point.y >= 1.0);
            for point in &mut series.points {
                point.spread = point.spread.map(|(least, most)| (least.max(1.0), most));
            }
        }
        let points = chart.series.iter().flat_map(|series| &series.points);
        let values: Vec<f64> = points.map(|point| point.y).collect();
        chart.y = Axis::decades(values, memory);
    }
    charts
}
