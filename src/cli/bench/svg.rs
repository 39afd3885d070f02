//! The report as a drawing: latency by percentile on the left, throughput over time on the right.
//!
//! The percentiles have the usual scale of such drawings: each step to the right is a tenth of
//! what was left, 90 %, 99 %, 99.9 %. A straight line would be the tail of an exponential distribution.

use super::run::Run;
use crate::load::Latencies;
use plotters::prelude::*;

const SIZE: (u32, u32) = (1100, 420);
const FONT: (&str, u32) = ("sans-serif", 15);

/// Draws a run.
///
/// # Errors
/// What the drawing library did not like.
pub(super) fn draw(run: &Run) -> Result<String, String> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(|error| error.to_string())?;
        let (left, right) = area.split_horizontally(SIZE.0 / 2);
        percentiles(&left, run).map_err(|error| error.to_string())?;
        throughput(&right, run).map_err(|error| error.to_string())?;
    }
    Ok(text)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

/// Points of a line: how many nines, and the latency in microseconds.
fn line_of(latencies: &Latencies) -> Vec<(f64, f64)> {
    let nines = (latencies.len().max(10) as f64).log10();
    (0..=200)
        .map(|step| nines * f64::from(step) / 200.0)
        .map(|nines| {
            (
                nines,
                latencies.value_at_quantile(1.0 - 10f64.powf(-nines)) as f64 / 1e3,
            )
        })
        .collect()
}

fn percentiles<'a>(area: &Area<'a>, run: &Run) -> Drawn<'a> {
    let lines = [
        (
            "response time (from the planned send)",
            &run.total.response_time,
            &RED,
        ),
        (
            "service time (from the actual send)",
            &run.total.service_time,
            &BLUE,
        ),
    ];
    let lines: Vec<_> = lines
        .into_iter()
        .filter(|(_, latencies, _)| !latencies.is_empty())
        .collect();
    let top = lines
        .iter()
        .map(|(_, latencies, _)| latencies.max())
        .max()
        .unwrap_or(1) as f64
        / 1e3;
    let bottom = lines
        .iter()
        .map(|(_, latencies, _)| latencies.min())
        .min()
        .unwrap_or(1) as f64
        / 1e3;
    let right = lines
        .iter()
        .map(|(_, latencies, _)| latencies.len())
        .max()
        .unwrap_or(10)
        .max(10) as f64;
    let mut chart = ChartBuilder::on(area)
        .caption("latency by percentile", FONT)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(
            0.0..right.log10(),
            (bottom.max(0.1)..top.max(1.0) * 1.2).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_label_formatter(&|nines| match *nines {
            n if n < 0.05 => "0".to_owned(),
            n => format!("{:.5}", 100.0 * (1.0 - 10f64.powf(-n)))
                .trim_end_matches('0')
                .trim_end_matches('.')
                .to_owned(),
        })
        .x_desc("percent of the answers")
        .y_desc("microseconds")
        .draw()?;
    for (name, latencies, color) in lines {
        chart
            .draw_series(LineSeries::new(line_of(latencies), color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .border_style(BLACK.mix(0.3))
        .draw()
}

fn throughput<'a>(area: &Area<'a>, run: &Run) -> Drawn<'a> {
    // The rest of a second, at the end, would look like a fall.
    let whole = run.plan.interval.as_secs_f64() / 2.0;
    let points: Vec<(f64, f64)> = run
        .total
        .seconds
        .iter()
        .filter(|second| second.lasted >= whole)
        .map(|second| {
            (
                second.at + second.lasted,
                second.echoes as f64 / second.lasted,
            )
        })
        .collect();
    let top = points.iter().map(|point| point.1).fold(1.0, f64::max);
    let right = points.last().map_or(1.0, |point| point.0);
    let mut chart = ChartBuilder::on(area)
        .caption("echoes per second", FONT)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..right, 0.0..top * 1.1)?;
    chart
        .configure_mesh()
        .x_desc("seconds")
        .y_label_formatter(&|rate| format!("{rate:.0}"))
        .draw()?;
    chart.draw_series(LineSeries::new(points, BLUE.stroke_width(2)))?;
    Ok(())
}
