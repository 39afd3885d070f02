//! The drawing that goes into README: four charts in one image, in the hand of the page.
//!
//! What may live in this file: which charts, and where. An image is shown without the page's style sheet, and may not
//! know on which ground: so it brings the colours of both schemes, and its own ground with them.

use super::charts::{self, by_percentile, over_connections, sizes, telling_cells};
use super::svg::{Anchor, Chart, Svg};
use super::{DRAWING_STYLE, STYLE, escape, figures, title};
use crate::cli::compare::record::{Figure, Record};
use crate::cli::units::plural;

/// Four charts in one image, for README: good on a light and on a dark page, since it brings its own ground.
pub(in crate::cli) fn drawing(record: &Record) -> String {
    const PANEL: (f64, f64) = (400.0, 270.0);
    const MARGIN: f64 = 20.0;
    const HEAD: f64 = 76.0;
    let (width, height) = (
        2.0 * PANEL.0 + 3.0 * MARGIN,
        HEAD + 2.0 * PANEL.1 + 2.0 * MARGIN + 24.0,
    );
    let mut svg = Svg::default();
    svg.rect("ground", (0.5, 0.5), (width - 1.0, height - 1.0), "");
    let title = title(record);
    svg.text("head", (MARGIN, 32.0), Anchor::Start, &title);
    legend(&mut svg, record, MARGIN);
    let panels = panels(record);
    let mut description = String::new();
    for (place, chart) in panels.iter().enumerate() {
        let left = MARGIN + (place % 2) as f64 * (PANEL.0 + MARGIN);
        let top = HEAD + (place / 2) as f64 * (PANEL.1 + MARGIN);
        chart.draw(&mut svg, (left, top), PANEL);
        description.push_str(&chart.description);
        description.push(' ');
    }
    let machine = &record.machine;
    let foot = format!(
        "{} × {}, Linux {}; medians of {}",
        machine.processors,
        machine.processor,
        machine.kernel,
        plural(record.rounds, "round")
    );
    svg.text("name", (MARGIN, height - 16.0), Anchor::Start, &foot);
    let (light, dark) = schemes();
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         role=\"img\" aria-labelledby=\"t d\">\n<title id=\"t\">{}</title>\n<desc id=\"d\">{}</desc>\n<style>\n\
         svg {{ {light} }}\n@media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}\n{DRAWING_STYLE}\
         svg .ground {{ fill: var(--card); stroke: var(--rule); rx: 10px; }}\n\
         svg .head {{ font-size: 20px; font-weight: 600; }}\n</style>\n{}\n</svg>\n",
        escape(&title),
        escape(&description),
        svg.0
    )
}

/// The legend: a line, its marker, and the name.
fn legend(svg: &mut Svg, record: &Record, left: f64) {
    let mut x = left;
    for (look, model) in record.models.iter().enumerate() {
        svg.swatch(look, (x, 56.0));
        svg.text("name", (x + 33.0, 60.0), Anchor::Start, &model.name);
        x += 60.0 + 7.0 * model.name.chars().count() as f64;
    }
}

/// What most people ask first, of the smallest messages.
fn panels(record: &Record) -> Vec<Chart> {
    let mut panels: Vec<Chart> = Vec::new();
    if let Some(&size) = sizes(record).first() {
        let of = |figure, name: &str| {
            let mut chart = over_connections(record, size, figure);
            chart.title = format!("{name}, {} a message", figures::size(size));
            chart
        };
        panels.push(of(Figure::Throughput, "Throughput"));
        panels.push(of(Figure::P99, "Latency, the 99th percentile"));
        panels.extend(
            charts::memory_charts(record)
                .into_iter()
                .take(1)
                .map(|mut chart| {
                    chart.title = "Memory of the server's process".to_owned();
                    chart
                }),
        );
        panels.extend(telling_cells(record).last().map(|cell| {
            let mut chart = by_percentile(record, cell);
            chart.title = format!("Latency by percentile, {}", chart.title);
            chart
        }));
    }
    panels
}

/// The colours of the page, light and dark, for a drawing that stands by itself.
pub(super) fn schemes() -> (&'static str, &'static str) {
    let colours = |from: &'static str| {
        let start = from.find("--page").unwrap_or(0);
        let end = from[start..]
            .find('}')
            .map_or(from.len(), |end| start + end);
        &from[start..end]
    };
    let dark = STYLE.find("prefers-color-scheme: dark").unwrap_or(0);
    (colours(STYLE), colours(&STYLE[dark..]))
}
