//! A small hand for SVG: axes, lines, markers, text; every colour a class, and every text escaped.
//!
//! What may live in this file: scales, ticks, and how a chart with two axes is drawn. What may not: what the charts are
//! about.
//!
//! plotters, which draws for `bench`, writes each colour into each element. Here one drawing has to be good on a light
//! and on a dark page, and both are known only where it is looked at, so colours must be left to the style sheet; and
//! screen readers need titles, descriptions, markers and dashes. That could be worked into its output
//! afterwards, by rules that its next version would break; these lines are fewer.

use super::escape;
use std::fmt::Write;

/// How many looks there are: colour, marker and dash. Models beyond that begin again.
pub(super) const LOOKS: usize = 6;

/// Elements, as they come.
#[derive(Debug, Default)]
pub(super) struct Svg(pub(super) String);

/// Where a text stands towards its point.
#[derive(Clone, Copy, Debug)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    // Writing to a string cannot fail.

    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = write!(
            self.0,
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        );
    }

    pub(super) fn rect(&mut self, class: &str, at: (f64, f64), size: (f64, f64), title: &str) {
        let _ = write!(
            self.0,
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\">{}</rect>",
            at.0,
            at.1,
            size.0.max(0.0),
            size.1.max(0.0),
            title_of(title)
        );
    }

    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        let mut d = String::new();
        for (place, (x, y)) in points.iter().enumerate() {
            let _ = write!(d, "{}{x:.1} {y:.1}", if place == 0 { "M" } else { "L" });
        }
        let _ = write!(self.0, "<path class=\"{class}\" d=\"{d}\"/>");
    }

    pub(super) fn text(&mut self, class: &str, at: (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = write!(
            self.0,
            "<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            at.0,
            at.1,
            escape(text)
        );
    }

    /// The marker of a look: each has a shape of its own, so that the colours need not be told apart.
    pub(super) fn marker(&mut self, look: usize, (x, y): (f64, f64), title: &str) {
        let class = format!("mark m{}", look % LOOKS);
        let polygon = |points: &[(f64, f64)]| {
            let points: Vec<String> = points
                .iter()
                .map(|(dx, dy)| format!("{:.1},{:.1}", x + dx, y + dy))
                .collect();
            format!(
                "<polygon class=\"{class}\" points=\"{}\">",
                points.join(" ")
            )
        };
        let (open, close) = match look % LOOKS {
            0 => (
                format!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.6\">"),
                "circle",
            ),
            1 => (
                polygon(&[(-3.4, -3.4), (3.4, -3.4), (3.4, 3.4), (-3.4, 3.4)]),
                "polygon",
            ),
            2 => (polygon(&[(0.0, -4.4), (4.3, 3.3), (-4.3, 3.3)]), "polygon"),
            3 => (
                polygon(&[(0.0, -4.8), (4.8, 0.0), (0.0, 4.8), (-4.8, 0.0)]),
                "polygon",
            ),
            4 => (polygon(&[(0.0, 4.4), (4.3, -3.3), (-4.3, -3.3)]), "polygon"),
            _ => (
                polygon(&[(-4.2, -1.4), (4.2, -1.4), (4.2, 1.4), (-4.2, 1.4)]),
                "polygon",
            ),
        };
        let _ = write!(self.0, "{open}{}</{close}>", title_of(title));
    }

    /// A line with its marker, for legends.
    pub(super) fn swatch(&mut self, look: usize, (x, y): (f64, f64)) {
        self.path(&format!("line m{}", look % LOOKS), &[(x, y), (x + 26.0, y)]);
        self.marker(look, (x + 13.0, y), "");
    }
}

/// What is shown when the pointer rests on an element, and what is read aloud.
fn title_of(title: &str) -> String {
    match title {
        "" => String::new(),
        title => format!("<title>{}</title>", escape(title)),
    }
}

/// How values become places.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    Linear,
    Log,
}

/// One axis: from where to where, and what is written at it.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) scale: Scale,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From nothing to a little above the highest, with about five ticks at round numbers.
    pub(super) fn from_zero(
        values: impl IntoIterator<Item = f64>,
        name: impl Fn(f64) -> String,
    ) -> Self {
        let most = values.into_iter().fold(0.0, f64::max);
        let most = if most > 0.0 { most } else { 1.0 };
        let rough = most / 4.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|digit| digit * power)
            .find(|&step| step >= rough * 0.999)
            .unwrap_or(power * 10.0);
        let count = (most / step * 0.9999).ceil().max(1.0) as usize;
        Self {
            scale: Scale::Linear,
            low: 0.0,
            high: step * count as f64,
            ticks: (0..=count)
                .map(|n| (step * n as f64, name(step * n as f64)))
                .collect(),
        }
    }

    /// Decades around the values; where they are few, with 2 and 5 between.
    pub(super) fn decades(
        values: impl IntoIterator<Item = f64>,
        name: impl Fn(f64) -> String,
    ) -> Self {
        let (mut low, mut high) = (f64::INFINITY, 0.0f64);
        for value in values
            .into_iter()
            .filter(|&value| value > 0.0 && value.is_finite())
        {
            (low, high) = (low.min(value), high.max(value));
        }
        if high == 0.0 {
            (low, high) = (1.0, 10.0);
        }
        (low, high) = (low * 0.7, high * 1.4);
        let digits: &[f64] = match (high / low).log10() {
            few if few < 2.2 => &[1.0, 2.0, 5.0],
            _ => &[1.0],
        };
        let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
        let round =
            decades.flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)));
        let mut round: Vec<f64> = round.collect();
        round.retain(|value| (low..=high).contains(value));
        Self {
            scale: Scale::Log,
            low,
            high,
            ticks: round
                .into_iter()
                .map(|value| (value, name(value)))
                .collect(),
        }
    }

    /// A logarithmic one with ticks at these values, which are all there are.
    pub(super) fn at(values: &[f64], name: impl Fn(f64) -> String) -> Self {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(0.0, f64::max);
        let (low, high) = if low.is_finite() {
            (low, high)
        } else {
            (1.0, 10.0)
        };
        Self {
            scale: Scale::Log,
            low: low / 1.25,
            high: high * 1.25,
            ticks: values.iter().map(|&value| (value, name(value))).collect(),
        }
    }

    /// Where a value lies: 0 at the low end, 1 at the high one.
    pub(super) fn place(&self, value: f64) -> f64 {
        let (low, high, value) = match self.scale {
            Scale::Linear => (self.low, self.high, value),
            Scale::Log => (
                self.low.ln(),
                self.high.ln(),
                value.max(self.low * 1e-3).ln(),
            ),
        };
        match high > low {
            true => (value - low) / (high - low),
            false => 0.5,
        }
    }
}

/// A value at a place, and how far the rounds lie apart.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) spread: Option<(f64, f64)>,
    /// What it says when it is pointed at.
    pub(super) title: String,
}

/// A line, in the look of its model.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) look: usize,
    pub(super) points: Vec<Point>,
    /// Whether each of its points was measured by itself, or they are one curve.
    pub(super) marked: bool,
}

/// A chart with two axes.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) title: String,
    /// The title and the description, for screen readers.
    pub(super) description: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    /// What is along the axes, with the unit.
    pub(super) x_name: String,
    pub(super) y_name: String,
    pub(super) series: Vec<Series>,
    /// What is missing, and why; for the caption.
    pub(super) missing: Vec<String>,
}

/// Room around the plot: for the title and the names of the axes, and for what is written at the ticks.
const TOP: f64 = 48.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 22.0;
const BOTTOM: f64 = 40.0;

impl Chart {
    /// Draws it, with the upper left corner at this place.
    pub(super) fn draw(&self, svg: &mut Svg, (left, top): (f64, f64), (width, height): (f64, f64)) {
        let plot = (
            left + LEFT,
            top + TOP,
            width - LEFT - RIGHT,
            height - TOP - BOTTOM,
        );
        svg.text(
            "title",
            (left + 2.0, top + 15.0),
            Anchor::Start,
            &self.title,
        );
        svg.text(
            "name",
            (left + 2.0, top + 33.0),
            Anchor::Start,
            &self.y_name,
        );
        let end = (left + width - RIGHT, top + height - 6.0);
        svg.text("name", end, Anchor::End, &self.x_name);
        self.frame(svg, plot);
        for series in &self.series {
            self.series(svg, plot, series);
        }
    }

    fn frame(&self, svg: &mut Svg, (x0, y0, width, height): (f64, f64, f64, f64)) {
        for (value, name) in &self.y.ticks {
            let y = y0 + height * (1.0 - self.y.place(*value));
            svg.line("grid", (x0, y), (x0 + width, y));
            svg.text("tick", (x0 - 6.0, y + 3.8), Anchor::End, name);
        }
        for (value, name) in &self.x.ticks {
            let x = x0 + width * self.x.place(*value);
            svg.line("grid", (x, y0), (x, y0 + height));
            svg.text("tick", (x, y0 + height + 15.0), Anchor::Middle, name);
        }
        svg.line("axis", (x0, y0 + height), (x0 + width, y0 + height));
    }

    fn series(
        &self,
        svg: &mut Svg,
        (x0, y0, width, height): (f64, f64, f64, f64),
        series: &Series,
    ) {
        let place = |x: f64, y: f64| {
            let y = self.y.place(y).clamp(-0.02, 1.02);
            (x0 + width * self.x.place(x), y0 + height * (1.0 - y))
        };
        let points: Vec<_> = series
            .points
            .iter()
            .map(|point| place(point.x, point.y))
            .collect();
        let look = series.look % LOOKS;
        if points.len() > 1 {
            svg.path(&format!("line m{look}"), &points);
        }
        if !series.marked {
            // One marker says whose curve it is; a title on the whole of it is not to be had.
            if let (Some(at), Some(point)) = (points.last(), series.points.last()) {
                svg.marker(look, *at, &point.title);
            }
            return;
        }
        for (at, point) in points.iter().zip(&series.points) {
            if let Some((least, most)) = point.spread {
                let (low, high) = (place(point.x, least), place(point.x, most));
                svg.line(&format!("spread m{look}"), low, high);
            }
            svg.marker(look, *at, &point.title);
        }
    }

    /// The chart as an image of its own, inside a page.
    pub(super) fn inline(&self, id: &str, (width, height): (f64, f64)) -> String {
        let mut svg = Svg::default();
        self.draw(&mut svg, (0.0, 0.0), (width, height));
        image(id, &self.title, &self.description, (width, height), &svg)
    }
}

/// An image that is read aloud as well.
pub(super) fn image(
    id: &str,
    title: &str,
    description: &str,
    (width, height): (f64, f64),
    svg: &Svg,
) -> String {
    format!(
        "<svg viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\
         <title id=\"{id}-t\">{}</title><desc id=\"{id}-d\">{}</desc>{}</svg>",
        escape(title),
        escape(description),
        svg.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, name)| name.as_str()).collect()
    }

    #[test]
    fn axes_have_round_ticks_that_hold_every_value() {
        let name = |value: f64| format!("{value}");
        let axis = Axis::from_zero([3.0, 303_053.0], name);
        assert_eq!(ticks(&axis), ["0", "100000", "200000", "300000", "400000"]);
        assert!(axis.place(303_053.0) < 1.0 && axis.place(0.0) == 0.0);
        let axis = Axis::decades([40e3, 9e9], name);
        assert_eq!(ticks(&axis).len(), 6, "{axis:?}");
        assert!(axis.place(40e3) > 0.0 && axis.place(9e9) < 1.0);
        let few = Axis::decades([3.0, 30.0], name);
        assert_eq!(ticks(&few), ["5", "10", "20"]);
    }

    #[test]
    fn nothing_to_draw_is_no_reason_to_fail() {
        let name = |value: f64| format!("{value}");
        let nothing = Axis::decades([], name);
        assert!(nothing.place(5.0).is_finite());
        assert!(Axis::at(&[], name).place(1.0).is_finite());
        assert!(Axis::at(&[100.0], name).place(100.0).is_finite());
        assert_eq!(Axis::from_zero([0.0], name).place(0.0), 0.0);
        assert!(Axis::decades([5.0], name).place(0.0).is_finite());
    }

    #[test]
    fn texts_are_escaped() {
        let mut svg = Svg::default();
        svg.text("t", (0.0, 0.0), Anchor::Start, "<a & b>");
        svg.marker(1, (0.0, 0.0), "\"<x>");
        assert!(svg.0.contains("&lt;a &amp; b&gt;") && svg.0.contains("&quot;&lt;x&gt;"));
        assert!(!svg.0.contains("<a"));
    }
}
