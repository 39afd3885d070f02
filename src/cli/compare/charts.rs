//! The charts of a comparison, drawn by plotters: figures over the number of connections, latency by percentile, and the
//! ratios of all loads with their intervals.
//!
//! Axes are logarithmic: equal ratios are equally far apart. Colours are those of the light scheme, and `palette.css` has their counterparts of the dark one. A model has a marker and a dash too, for eyes that
//! tell fewer colours apart.

use super::record::{Cell, Entry, Figure, Ratio, Record, Scenario};
use crate::cli::bench::time::bytes;
use crate::cli::units::{grouped, plural};
use plotters::coord::Shift;
use plotters::coord::combinators::{LogCoord, WithKeyPoints};
use plotters::prelude::*;
use serde::Serialize;
use std::io;
use std::ops::Range;

/// Colours and how they change with the scheme, for drawings within the page and on their own.
pub(super) const STYLE: &str = concat!(
    include_str!("../../palette.css"),
    include_str!("charts.css")
);
const COLORS: [RGBColor; 6] = [
    RGBColor(0x0a, 0x63, 0xb0),
    RGBColor(0xb8, 0x43, 0x0e),
    RGBColor(0x00, 0x73, 0x5a),
    RGBColor(0x8a, 0x3a, 0x92),
    RGBColor(0x7a, 0x5b, 0x00),
    RGBColor(0x50, 0x56, 0x5e),
];
const INK: RGBColor = RGBColor(0x1a, 0x1d, 0x21);
const GRID: RGBColor = RGBColor(0xe4, 0xe7, 0xeb);
/// A chart in pixels, which is about the width of a telephone.
const CHART: (u32, u32) = (400, 270);
/// The chart of all ratios: its width, the height of a row, and the room for the names of the rows.
const RATIOS: (u32, u32, u32) = (560, 26, 220);
/// The percentile axis ends here: at one answer of so many, of which a short run knows little enough.
const ONE_OF_MAX: f64 = 1e5;
/// The room beside the values of an axis, as a factor.
const AXIS_MARGIN: f64 = 1.12;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<io::Error>>;
/// A value in the words of an axis.
type Words<'a> = &'a dyn Fn(f64) -> String;

/// A chart on the page, with its words for screen readers.
#[derive(Debug, Serialize)]
pub(super) struct Chart {
    title: String,
    svg: String,
}

fn chart(
    title: &str,
    size: (u32, u32),
    draw: impl FnOnce(&Area<'_>) -> Drawn,
) -> Result<Chart, String> {
    let (title, mut svg) = (title.to_owned(), String::new());
    let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    let drawn = draw(&area).and_then(|()| area.present());
    drop(area);
    drawn
        .map(|()| Chart { title, svg })
        .map_err(|error| error.to_string())
}

fn color(model: usize) -> RGBColor {
    COLORS[model % COLORS.len()]
}

fn font(size: f64) -> TextStyle<'static> {
    ("system-ui, sans-serif", size).into_font().color(&INK)
}

type Axis = WithKeyPoints<LogCoord<f64>>;

/// An axis for these values: ticks at round ones, the coarsest that are three.
fn axis(values: impl Iterator<Item = f64>) -> Axis {
    let values: Vec<f64> = values.filter(|value| *value > 0.0).collect();
    let least = values.iter().copied().reduce(f64::min).unwrap_or(1.0);
    let most = values.iter().copied().reduce(f64::max).unwrap_or(10.0);
    let ends = least / AXIS_MARGIN..most * AXIS_MARGIN;
    let digits: [&[f64]; 3] = [
        &[1.0],
        &[1.0, 2.0, 5.0],
        &[1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0],
    ];
    let sets = digits.map(|digits| {
        let [first, last] = [ends.start, ends.end].map(|end| end.log10().floor() as i32);
        let decades = (first..=last).map(|decade| 10f64.powi(decade));
        let ticks = decades.flat_map(|decade| digits.iter().map(move |digit| decade * digit));
        ticks.filter(|tick| ends.contains(tick)).collect::<Vec<_>>()
    });
    let coarsest = sets.iter().find(|ticks| ticks.len() >= 3);
    let ticks = coarsest.unwrap_or(&sets[2]).clone();
    ends.log_scale().with_key_points(ticks)
}

/// A line of a model: places on the x axis, and the least value there, the median, and the most.
type Line = Vec<(f64, [f64; 3])>;

/// A line for each model.
fn plot(
    title: &str,
    (x, words): (Axis, Words<'_>),
    figure: Figure,
    lines: &[Line],
) -> Result<Chart, String> {
    chart(title, CHART, |area| {
        let y = axis(lines.iter().flatten().flat_map(|(_, values)| *values));
        let bottom = y.range().start;
        let mut chart = ChartBuilder::on(area)
            .caption(title, font(14.0))
            .margin_right(26)
            .x_label_area_size(26)
            .y_label_area_size(72)
            .build_cartesian_2d(x, y)?;
        (chart.configure_mesh())
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(font(12.0))
            .x_label_formatter(&|x| words(*x))
            .y_label_formatter(&|y| figure.write(*y))
            .draw()?;
        for (model, line) in lines.iter().enumerate() {
            let points = |which: usize| {
                let height = move |values: &[f64; 3]| values[which].max(bottom);
                line.iter().map(move |(x, values)| (*x, height(values)))
            };
            let bar = color(model).mix(0.35).stroke_width(4);
            let bars = points(0).zip(points(2));
            chart.draw_series(bars.map(|(least, most)| PathElement::new([least, most], bar)))?;
            let (dash, gap) = match model as u32 {
                0 => (1_000, 0),
                model => (10 / model + 2, 4),
            };
            let style = color(model).stroke_width(2);
            chart.draw_series(DashedLineSeries::new(points(1), dash, gap, style))?;
            // On a curve of many points there is a marker at each tick.
            let is_at_tick = |x: f64| (x.log10() - x.log10().round()).abs() < 1e-6;
            for at in points(1).filter(|(x, _)| line.len() < 20 || is_at_tick(*x)) {
                chart.plotting_area().draw(&marker(model, at))?;
            }
        }
        Ok(())
    })
}

/// The marker of a model, at a point of a chart or at a pixel.
fn marker<'a, DB: DrawingBackend + 'a, C: Clone + 'static>(
    model: usize,
    at: C,
) -> DynElement<'a, DB, C> {
    let style = color(model);
    match model % 3 {
        0 => Circle::new(at, 4, style.filled()).into_dyn(),
        1 => TriangleMarker::new(at, 6, style.filled()).into_dyn(),
        _ => Cross::new(at, 4, style.stroke_width(2)).into_dyn(),
    }
}

/// The request-response cells by the size of their messages, and by their connections.
pub(super) fn by_size(record: &Record) -> Vec<Vec<&Cell>> {
    let mut groups = record.groups();
    groups.retain(|cells| cells[0].load.scenario == Scenario::RequestResponse);
    groups
}

/// Throughput and p99 over connections, for each size of messages.
pub(super) fn curves(record: &Record) -> Result<Vec<Chart>, String> {
    let figures = [Figure::EchoesPerSecond, Figure::P99Ns];
    let of_size = |cells: Vec<&Cell>| figures.map(|figure| over_connections(&cells, figure));
    by_size(record).into_iter().flat_map(of_size).collect()
}

fn over_connections(cells: &[&Cell], figure: Figure) -> Result<Chart, String> {
    let mut lines = vec![Line::new(); cells[0].entries.len()];
    for cell in cells {
        for (line, entry) in lines.iter_mut().zip(&cell.entries) {
            let x = cell.load.connections as f64;
            let spread = entry.spread(figure);
            line.extend(spread.map(|one| (x, [one.least, one.median, one.most])));
        }
    }
    let size = bytes(cells[0].load.size as f64);
    let title = format!("{}, {size} a request", figure.title());
    let x = axis(cells.iter().map(|cell| cell.load.connections as f64));
    let words = |x: f64| grouped(x.round() as u64);
    plot(&title, (x, &words), figure, &lines)
}

/// Latency by percentile of the smallest messages: of the fewest connections, of a hundred, and of the most.
pub(super) fn percentiles(record: &Record) -> Result<Vec<Chart>, String> {
    let mut cells = by_size(record).into_iter().next().unwrap_or_default();
    let has_curve = |entry: &Entry| entry.latency_by_percentile.len() > 1;
    cells.retain(|cell| cell.entries.iter().any(has_curve));
    let hundred = cells.iter().find(|cell| cell.load.connections >= 100);
    let chosen = [cells.first(), hundred, cells.last()].into_iter().flatten();
    let mut chosen: Vec<&&Cell> = chosen.collect();
    chosen.dedup_by_key(|cell| cell.load.connections);
    chosen.into_iter().map(|cell| by_percentile(cell)).collect()
}

/// Each step to the right is a tenth of what was left: 90 %, 99 %, 99.9 %.
fn by_percentile(cell: &Cell) -> Result<Chart, String> {
    let point = |&(quantile, latency): &(f64, u64)| {
        let one_of = 1.0 / (1.0 - quantile);
        (one_of, [latency.max(1) as f64; 3])
    };
    let line = |entry: &Entry| -> Line {
        let points = entry.latency_by_percentile.iter().map(point);
        points.filter(|(one_of, _)| *one_of <= ONE_OF_MAX).collect()
    };
    let lines: Vec<Line> = cell.entries.iter().map(line).collect();
    let connections = plural(cell.load.connections, "connection");
    let title = format!("latency by percentile, {connections}");
    let x = (1.0..ONE_OF_MAX).log_scale();
    let x = x.with_key_points(vec![1.0, 1e1, 1e2, 1e3, 1e4, 1e5]);
    let words = |one_of: f64| {
        let decimals = (one_of.log10().round() as usize).saturating_sub(2);
        format!("{:.decimals$} %", 100.0 - 100.0 / one_of)
    };
    plot(&title, (x, &words), Figure::P99Ns, &lines)
}

/// The ratios of throughput of all loads, with their intervals; `None` if there are none.
pub(super) fn ratios(record: &Record) -> Result<Option<Chart>, String> {
    let mut rows = record.groups().concat();
    rows.retain(|cell| throughputs(cell).next().is_some());
    let size = (RATIOS.0, RATIOS.1 * rows.len() as u32 + 40);
    let title = "throughput as a multiple of that of the first model, with intervals";
    let drawn = (!rows.is_empty()).then(|| chart(title, size, |area| intervals(area, &rows)));
    drawn.transpose()
}

/// The ratios of throughput of a cell, each with the place of its model.
fn throughputs(cell: &Cell) -> impl Iterator<Item = (usize, &Ratio)> {
    let entries = cell.entries.iter().enumerate();
    entries.filter_map(|(model, entry)| {
        let is_it = |ratio: &&Ratio| ratio.figure == Figure::EchoesPerSecond;
        Some((model, entry.ratios.iter().find(is_it)?))
    })
}

fn intervals(area: &Area<'_>, rows: &[&Cell]) -> Drawn {
    // Wide enough for all ratios, and for their intervals as long as these tell anything.
    let told = |(_, one): (usize, &Ratio)| {
        let (least, most) = (one.ratio / 3.0, one.ratio * 3.0);
        [one.low.max(least), one.high.min(most)]
    };
    let ratios = rows.iter().flat_map(|cell| throughputs(cell));
    let x = axis(ratios.flat_map(told).chain([0.95, 1.05]));
    let Range { start, end } = x.range();
    // Heights are hundredths of a row.
    let (top, bottom) = (-50, rows.len() as i32 * 100 - 50);
    let middles = (0..bottom).step_by(100).collect();
    let mut chart = ChartBuilder::on(area)
        .margin_right(16)
        .top_x_label_area_size(26)
        .y_label_area_size(RATIOS.2)
        .build_cartesian_2d(x, (bottom..top).with_key_points(middles))?;
    (chart.configure_mesh())
        .bold_line_style(GRID)
        .axis_style(GRID)
        .label_style(font(12.0))
        .x_label_formatter(&|x| format!("{x:.2}x").replace(".00", ""))
        .y_label_formatter(&|y| rows[*y as usize / 100].load.to_string())
        .draw()?;
    chart.draw_series([PathElement::new([(1.0, bottom), (1.0, top)], INK)])?;
    for (row, cell) in rows.iter().enumerate() {
        let last = throughputs(cell).count() as i32 - 1;
        for (place, (model, ratio)) in throughputs(cell).enumerate() {
            // Those of one row stand below each other.
            let y = row as i32 * 100 + (2 * place as i32 - last) * 11;
            let at = |ratio: f64| (ratio.clamp(start, end), y);
            let bar = color(model).mix(0.45).stroke_width(4);
            chart.draw_series([PathElement::new([at(ratio.low), at(ratio.high)], bar)])?;
            let area = chart.plotting_area();
            area.draw(&marker(model, at(ratio.ratio)))?;
        }
    }
    Ok(())
}
