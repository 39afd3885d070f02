//! All loads at a glance: the throughput of each model as a multiple of the first one's, with its interval.
//!
//! What may live in this file: the rows of that drawing. It is made for a width, since on a telephone a drawing that is
//! scaled down to half cannot be read.

use super::figures::{self, short};
use super::svg::{Anchor, Axis, LOOKS, Svg};
use crate::cli::compare::record::{Cell, Figure, Ratio, Record, Scenario};

const ROW: f64 = 20.0;
/// Room for the names of the rows, and behind the plot.
const LABEL: f64 = 108.0;
const RIGHT: f64 = 16.0;

/// The drawing so far.
struct Overview<'a> {
    record: &'a Record,
    axis: Axis,
    width: f64,
    rows: Svg,
    description: String,
    /// Where the next row begins.
    y: f64,
}

/// The drawing, its height, and its words for screen readers; `None` if nothing was compared.
pub(super) fn draw(record: &Record, width: f64) -> Option<(Svg, f64, String)> {
    let mut overview = Overview {
        record,
        axis: axis(record)?,
        width,
        rows: Svg::default(),
        description: format!(
            "Echoes per second, divided by those of {}, with confidence intervals.",
            record.models[0].name
        ),
        y: 26.0,
    };
    for scenario in Scenario::ALL {
        let cells = record.cells.iter().filter(|cell| cell.scenario == scenario);
        let mut cells: Vec<&Cell> = cells.filter(|cell| ratios(cell).next().is_some()).collect();
        cells.sort_by_key(|cell| (cell.size, cell.connections));
        if !cells.is_empty() {
            overview.scenario(scenario, &cells);
        }
    }
    Some(overview.finish())
}

/// The ratios of a cell, and whose they are.
fn ratios(cell: &Cell) -> impl Iterator<Item = (usize, &Ratio)> {
    let entries = cell.entries.iter().enumerate();
    entries.filter_map(|(look, entry)| Some((look, entry.ratio(Figure::Throughput)?)))
}

/// Wide enough for all ratios, and for their intervals as long as these tell anything.
fn axis(record: &Record) -> Option<Axis> {
    let all = || record.cells.iter().flat_map(ratios).map(|(_, ratio)| ratio);
    all().next()?;
    let low = all().map(|ratio| ratio.low.max(ratio.ratio / 3.0));
    let high = all().map(|ratio| ratio.high.min(ratio.ratio * 3.0));
    let ends = [low.fold(0.95, f64::min), high.fold(1.05, f64::max)];
    Some(Axis::decades(ends, |value| {
        format!("{}×", figures::number(value))
    }))
}

impl Overview<'_> {
    fn place(&self, value: f64) -> f64 {
        LABEL + (self.width - LABEL - RIGHT) * self.axis.place(value).clamp(0.0, 1.0)
    }

    fn scenario(&mut self, scenario: Scenario, cells: &[&Cell]) {
        let at = (2.0, self.y + 14.0);
        self.rows
            .text("title", at, Anchor::Start, figures::load(scenario));
        self.y += ROW;
        for cell in cells {
            self.row(cell);
            self.y += ROW;
        }
        self.y += 6.0;
    }

    fn row(&mut self, cell: &Cell) {
        let (count, size) = (short(cell.connections as f64), figures::size(cell.size));
        let label = format!("{count} × {size}");
        let y = self.y + 10.0;
        self.rows
            .text("tick", (LABEL - 12.0, y + 4.0), Anchor::End, &label);
        self.rows.line("grid", (LABEL, y), (self.width - RIGHT, y));
        for (look, ratio) in ratios(cell) {
            let (low, high) = (self.place(ratio.low), self.place(ratio.high));
            let class = format!("spread m{}", look % LOOKS);
            self.rows.line(&class, (low, y), (high, y));
            let title = format!(
                "{}, {}, {label}: {}× ({} to {}), {}",
                self.record.models[look].name,
                figures::load(cell.scenario),
                figures::times(ratio.ratio),
                figures::times(ratio.low),
                figures::times(ratio.high),
                ratio.verdict.name()
            );
            let at = (self.place(ratio.ratio), y);
            self.rows.marker(look, at, &title);
            self.description.push_str(&format!(" {title}."));
        }
    }

    /// The axis goes under the rows, now that one knows how long it is.
    fn finish(self) -> (Svg, f64, String) {
        let mut svg = Svg::default();
        for (value, name) in &self.axis.ticks {
            let is_one = (value - 1.0).abs() < 1e-9;
            let (class, x) = (if is_one { "one" } else { "grid" }, self.place(*value));
            svg.line(class, (x, 20.0), (x, self.y));
            svg.text("tick", (x, 13.0), Anchor::Middle, name);
        }
        svg.0.push_str(&self.rows.0);
        (svg, self.y + 4.0, self.description)
    }
}
