//! The charts of a comparison, drawn by plotters: figures over the number of connections, latency by percentile, and the
//! ratios of all loads with their intervals.
//!
//! Values are drawn by their logarithms to the base of ten: then equal ratios are equally far apart. Colours are those of the light scheme, and `palette.css` has their counterparts of the dark one. A
//! model has a marker and a dash too, for eyes that tell fewer colours apart.

use super::record::{Cell, Entry, Figure, Load, Ratio, Record, Scenario, Spread, bytes};
use crate::cli::bench::environment::Machine;
use crate::cli::output::printable;
use crate::cli::units::{grouped, plural};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
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
const GROUND: RGBColor = RGBColor(0xff, 0xff, 0xff);
/// A chart in pixels, which is about the width of a telephone.
const CHART: (u32, u32) = (400, 270);
/// The chart of all ratios: its width, the height of a row, and the room for the names of the rows.
const RATIOS: (u32, u32, u32) = (560, 26, 220);
/// The percentile axis ends here: five nines, of which a short run knows little enough.
const NINES_MAX: f64 = 5.0;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<io::Error>>;
/// A value in the words of an axis.
type Words<'a> = &'a dyn Fn(f64) -> String;

fn svg(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<String, String> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
    let drawn = draw(&area).and_then(|()| area.present());
    drop(area);
    drawn.map(|()| text).map_err(|error| error.to_string())
}

fn color(model: usize) -> RGBColor {
    COLORS[model % COLORS.len()]
}

fn font(size: f64) -> TextStyle<'static> {
    ("system-ui, sans-serif", size).into_font().color(&INK)
}

/// An axis from one value to another, and where its ticks are.
#[derive(Clone)]
struct Axis {
    ends: Range<f64>,
    ticks: Vec<f64>,
}

impl Axis {
    /// For the logarithms of these values: ticks at round values, the coarsest that are three.
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let logs = values.filter(|value| *value > 0.0).map(f64::log10);
        let logs: Vec<f64> = logs.collect();
        let least = logs.iter().copied().reduce(f64::min).unwrap_or(0.0);
        let most = logs.iter().copied().reduce(f64::max).unwrap_or(1.0);
        let ends = least - 0.05..most + 0.05;
        let mut ticks = Vec::new();
        let sets: [&[f64]; 3] = [
            &[1.0],
            &[1.0, 2.0, 5.0],
            &[1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0],
        ];
        for digits in sets {
            let decades = ends.start.floor() as i32..=ends.end.ceil() as i32;
            let all = decades.flat_map(|decade| {
                digits
                    .iter()
                    .map(move |digit| f64::from(decade) + digit.log10())
            });
            ticks = all.filter(|tick| ends.contains(tick)).collect();
            if ticks.len() >= 3 {
                break;
            }
        }
        Self { ends, ticks }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let share = (value - self.ends.start) / (self.ends.end - self.ends.start);
        from + (share * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match hint.weight().allow_light_points() {
            true => Vec::new(), // no finer lines between the ticks
            false => self.ticks.clone(),
        }
    }

    fn range(&self) -> Range<f64> {
        self.ends.clone()
    }
}

/// A line of a model: places on the x axis, and the spreads there.
type Line = Vec<(f64, Spread)>;

/// Draws a line for each model.
fn plot(
    area: &Area<'_>,
    title: &str,
    (x, words): (Axis, Words<'_>),
    figure: Figure,
    lines: &[Line],
) -> Drawn {
    let spreads = lines.iter().flatten().map(|(_, spread)| *spread);
    let y = Axis::of(spreads.flat_map(|spread| [spread.least, spread.most]));
    let mut chart = ChartBuilder::on(area)
        .caption(title, font(14.0))
        .margin_right(26)
        .x_label_area_size(26)
        .y_label_area_size(72)
        .build_cartesian_2d(x, y.clone())?;
    (chart.configure_mesh())
        .bold_line_style(GRID)
        .axis_style(GRID)
        .label_style(font(12.0))
        .x_label_formatter(&|x| words(*x))
        .y_label_formatter(&|y| figure.write(10f64.powf(*y)))
        .draw()?;
    let height = |value: f64| value.log10().max(y.ends.start);
    for (model, line) in lines.iter().enumerate() {
        let bars = line
            .iter()
            .map(|(x, spread)| [(*x, height(spread.least)), (*x, height(spread.most))]);
        let bar = color(model).mix(0.35).stroke_width(4);
        chart.draw_series(bars.map(|ends| PathElement::new(ends, bar)))?;
        let points: Vec<_> = line
            .iter()
            .map(|(x, spread)| (*x, height(spread.median)))
            .collect();
        let (dash, gap) = if model == 0 {
            (1_000, 0)
        } else {
            (10 / model as u32 + 2, 4)
        };
        let style = color(model).stroke_width(2);
        let dashes = DashedLineSeries::new(points.iter().copied(), dash, gap, style);
        chart.draw_series(dashes)?;
        // On a curve of many points there is a marker at each tick.
        for at in points
            .into_iter()
            .filter(|(x, _)| line.len() < 20 || x.fract() < 1e-6)
        {
            chart.plotting_area().draw(&marker(model, at))?;
        }
    }
    Ok(())
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
    let (title, svg) = (title.to_owned(), svg(size, draw)?);
    Ok(Chart { title, svg })
}

/// The request-response cells by the size of their messages, and by their connections.
pub(super) fn by_size(record: &Record) -> Vec<Vec<&Cell>> {
    let mut groups = record.groups();
    groups.retain(|cells| cells[0].load.scenario == Scenario::RequestResponse);
    groups
}

/// Throughput and p99 over connections, for each size of messages.
pub(super) fn curves(record: &Record) -> Result<Vec<Chart>, String> {
    let mut charts = Vec::new();
    for cells in by_size(record) {
        for figure in [Figure::Throughput, Figure::P99] {
            let (size, figure_title) = (size(cells[0]), figure.title());
            let title = format!("{figure_title} over connections, {size} a request");
            let draw = |area: &Area<'_>| over_connections(area, &cells, figure);
            charts.push(chart(&title, CHART, draw)?);
        }
    }
    Ok(charts)
}

fn size(cell: &Cell) -> String {
    bytes(cell.load.size as f64)
}

fn over_connections(area: &Area<'_>, cells: &[&Cell], figure: Figure) -> Drawn {
    let mut lines = vec![Line::new(); cells[0].entries.len()];
    for cell in cells {
        for (line, entry) in lines.iter_mut().zip(&cell.entries) {
            let x = (cell.load.connections as f64).log10();
            line.extend(entry.spread(figure).map(|spread| (x, spread)));
        }
    }
    let title = format!("{}, {} a request", figure.title(), size(cells[0]));
    let x = Axis::of(cells.iter().map(|cell| cell.load.connections as f64));
    let words = |x: f64| grouped(10f64.powf(x).round() as u64);
    plot(area, &title, (x, &words), figure, &lines)
}

/// Latency by percentile of the smallest messages: of the fewest connections, of a hundred, and of the most.
pub(super) fn percentiles(record: &Record) -> Result<Vec<Chart>, String> {
    let mut cells = by_size(record).into_iter().next().unwrap_or_default();
    let has_curve = |entry: &Entry| entry.latency_by_percentile.len() > 1;
    cells.retain(|cell| cell.entries.iter().any(has_curve));
    let hundred = cells.iter().find(|cell| cell.load.connections >= 100);
    let chosen = [cells.first(), hundred, cells.last()].into_iter().flatten();
    let mut chosen: Vec<&Cell> = chosen.copied().collect();
    chosen.dedup_by_key(|cell| cell.load.connections);
    let drawn = chosen.into_iter().map(|cell| {
        let connections = plural(cell.load.connections, "connection");
        let title = format!("latency by percentile, {connections}");
        chart(&title, CHART, |area| by_percentile(area, &title, cell))
    });
    drawn.collect()
}

/// Each step to the right is a tenth of what was left: 90 %, 99 %, 99.9 %.
fn by_percentile(area: &Area<'_>, title: &str, cell: &Cell) -> Drawn {
    let point = |&(quantile, latency): &(f64, u64)| {
        let nines = -(1.0 - quantile).log10();
        (nines, Spread::none(latency.max(1) as f64))
    };
    let line = |entry: &Entry| -> Line {
        let points = entry.latency_by_percentile.iter().map(point);
        points.filter(|(nines, _)| *nines <= NINES_MAX).collect()
    };
    let x = Axis {
        ends: 0.0..NINES_MAX,
        ticks: (0..=NINES_MAX as u32).map(f64::from).collect(),
    };
    let words = |nines: f64| {
        let decimals = (nines.round() as usize).saturating_sub(2);
        format!("{:.decimals$} %", 100.0 - 100.0 / 10f64.powf(nines.round()))
    };
    let lines: Vec<Line> = cell.entries.iter().map(line).collect();
    plot(area, title, (x, &words), Figure::P99, &lines)
}

/// The ratios of throughput of all loads, with their intervals; `None` if there are none.
pub(super) fn ratios(record: &Record) -> Result<Option<Chart>, String> {
    let mut rows = Vec::new();
    for cell in record.groups().concat() {
        let entries = cell.entries.iter().enumerate();
        let ratios =
            entries.filter_map(|(model, entry)| Some((model, *entry.ratio(Figure::Throughput)?)));
        rows.push((cell.load, ratios.collect::<Vec<_>>()));
    }
    rows.retain(|(_, ratios)| !ratios.is_empty());
    let size = (RATIOS.0, RATIOS.1 * rows.len() as u32 + 40);
    let title = "throughput as a multiple of that of the first model, with intervals";
    let drawn = (!rows.is_empty()).then(|| chart(title, size, |area| intervals(area, &rows)));
    drawn.transpose()
}

fn intervals(area: &Area<'_>, rows: &[(Load, Vec<(usize, Ratio)>)]) -> Drawn {
    // Wide enough for all ratios, and for their intervals as long as these tell anything.
    let told = |ratio: &Ratio| {
        [
            ratio.low.max(ratio.ratio / 3.0),
            ratio.high.min(ratio.ratio * 3.0),
        ]
    };
    let ratios = rows.iter().flat_map(|(_, ratios)| ratios);
    let x = Axis::of(
        ratios
            .flat_map(|(_, ratio)| told(ratio))
            .chain([0.95, 1.05]),
    );
    let y = Axis {
        ends: rows.len() as f64 - 0.5..-0.5,
        ticks: (0..rows.len()).map(|row| row as f64).collect(),
    };
    let mut chart = ChartBuilder::on(area)
        .margin_right(16)
        .top_x_label_area_size(26)
        .y_label_area_size(RATIOS.2)
        .build_cartesian_2d(x.clone(), y.clone())?;
    (chart.configure_mesh())
        .bold_line_style(GRID)
        .axis_style(GRID)
        .label_style(font(12.0))
        .x_label_formatter(&|x| format!("{:.2}x", 10f64.powf(*x)).replace(".00", ""))
        .y_label_formatter(&|row| rows[row.round() as usize].0.to_string())
        .draw()?;
    let line = |x: f64, from: f64, to: f64| [(x, from), (x, to)];
    chart.draw_series([PathElement::new(line(0.0, y.ends.start, y.ends.end), INK)])?;
    for (row, (_, ratios)) in rows.iter().enumerate() {
        for (place, (model, ratio)) in ratios.iter().enumerate() {
            // Those of one row stand below each other.
            let y = row as f64 + (place as f64 - (ratios.len() - 1) as f64 / 2.0) * 0.22;
            let at = |ratio: f64| (ratio.log10().clamp(x.ends.start, x.ends.end), y);
            let bar = color(*model).mix(0.45).stroke_width(4);
            chart.draw_series([PathElement::new([at(ratio.low), at(ratio.high)], bar)])?;
            chart
                .plotting_area()
                .draw(&marker(*model, at(ratio.ratio)))?;
        }
    }
    Ok(())
}

/// Throughput and p99 over connections in one image, for README: good on a light and on a dark page, since it brings its
/// own ground.
pub(super) fn drawing(record: &Record) -> Result<String, String> {
    let size = (2 * CHART.0, CHART.1 + 50);
    let (machine, rounds) = (&record.machine, plural(record.rounds, "round"));
    let Machine {
        processors,
        processor,
        kernel,
        ..
    } = machine;
    let foot = format!("{processors} x {processor}, Linux {kernel}; medians of {rounds}");
    let text = svg(size, |area| {
        area.fill(&GROUND)?;
        let mut left = 16;
        for (place, model) in record.models.iter().enumerate() {
            area.draw(&marker(place, (left, 14)))?;
            area.draw_text(&model.name, &font(13.0), (left + 12, 7))?;
            left += 40 + 8 * model.name.chars().count() as i32;
        }
        area.draw_text(&foot, &font(11.0), (16, size.1 as i32 - 18))?;
        let (panels, _) = area.margin(26, 0, 0, 0).split_vertically(CHART.1);
        let figures = [Figure::Throughput, Figure::P99];
        for (panel, figure) in panels.split_evenly((1, 2)).iter().zip(figures) {
            if let Some(cells) = by_size(record).first() {
                over_connections(panel, cells, figure)?;
            }
        }
        Ok(())
    })?;
    Ok(printable(&text.replacen(
        '>',
        &format!("><style>{STYLE}</style>"),
        1,
    )))
}
