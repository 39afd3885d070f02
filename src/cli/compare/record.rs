//! The record of a comparison: plain data, which serde writes and reads as `schema.json`, next to this file, describes it.
//!
//! Every cell has one [`Entry`] for each model, in the order of [`Record::models`]; the first model is the one that the
//! rest is compared with.

use crate::cli::bench::environment::Machine;
use crate::cli::bench::time::time;
use crate::cli::units::{grouped, plural};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What `program` says in the file, by which a reader knows it.
pub(in crate::cli) const PROGRAM: &str = "echo-reactor compare";

/// A comparison, complete or interrupted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::cli) struct Record {
    pub(in crate::cli) program: String,
    /// Of this program.
    pub(in crate::cli) version: String,
    /// The command line.
    pub(in crate::cli) command: Vec<String>,
    /// Seconds since 1970, at the start.
    pub(in crate::cli) started_unix: u64,
    /// How long all of it took.
    pub(in crate::cli) seconds: f64,
    /// What the orders of the rounds were drawn from.
    pub(in crate::cli) seed: u64,
    /// Rounds that were measured to the end.
    pub(in crate::cli) rounds: u64,
    /// The length of one measurement, in seconds.
    pub(in crate::cli) window_seconds: f64,
    /// Whether it was ended before its time.
    pub(in crate::cli) interrupted: bool,
    pub(in crate::cli) machine: Machine,
    /// The compared servers; the first is the reference.
    pub(in crate::cli) models: Vec<Model>,
    pub(in crate::cli) cells: Vec<Cell>,
    /// Facts that a reader of the figures needs, such as an early end.
    pub(in crate::cli) notes: Vec<String>,
}

/// A compared server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::cli) struct Model {
    /// A short name: `reactor`, `threads`, `iterative`, or of the argument of `--against`.
    pub(in crate::cli) name: String,
    /// The command that started its server; empty if it ran already.
    pub(in crate::cli) command: String,
    /// What it is, in one sentence.
    pub(in crate::cli) note: String,
    /// Its ratio to the first model over all cells that both took part in. The first has none.
    pub(in crate::cli) overall: Vec<Ratio>,
}

/// What is done to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cli) enum Scenario {
    /// One request under way on each connection
    RequestResponse,
    /// Sixteen under way on each
    Pipelined,
    /// Connect, one request, reset, and again
    Churn,
    /// One connection in five is active
    MostlyIdle,
    /// One more sends without end and never reads
    SlowReader,
}

/// One load: a row of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cli) struct Load {
    pub(in crate::cli) scenario: Scenario,
    pub(in crate::cli) connections: u64,
    /// Bytes of a request.
    pub(in crate::cli) size: u64,
}

/// The same load on every model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::cli) struct Cell {
    #[serde(flatten)]
    pub(in crate::cli) load: Load,
    /// One for each model, in their order.
    #[serde(rename = "models")]
    pub(in crate::cli) entries: Vec<Entry>,
}

/// Figures by name; `null` is a figure that could not be seen, as of a server on another machine.
type Figures<T> = BTreeMap<Figure, Option<T>>;

/// What one model did in a cell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::cli) struct Entry {
    /// The name of the model.
    pub(in crate::cli) model: String,
    /// Why it did not take part, if it did not, or did not to the end.
    pub(in crate::cli) left_out: Option<String>,
    /// Whether it was asked, and could not do it to the end; not if the load is not for it.
    pub(in crate::cli) failed: bool,
    /// Of all samples; `null` for a figure that a sample lacks.
    pub(in crate::cli) figures: Figures<Spread>,
    /// Compared with the first model, round by round. The first has none.
    pub(in crate::cli) ratios: Vec<Ratio>,
    /// One for each round that was measured.
    pub(in crate::cli) samples: Vec<Sample>,
    /// Of all rounds together: the quantile (0.99), and nanoseconds.
    pub(in crate::cli) latency_by_percentile: Vec<(f64, u64)>,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::cli) struct Sample {
    /// From 0 on.
    pub(in crate::cli) round: u64,
    pub(in crate::cli) not_valid_because: Vec<String>,
    #[serde(flatten)]
    figures: Figures<f64>,
}

/// What is measured of each sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(in crate::cli) enum Figure {
    #[serde(rename = "echoes_per_second")]
    Throughput,
    #[serde(rename = "p50_ns")]
    P50,
    #[serde(rename = "p90_ns")]
    P90,
    #[serde(rename = "p99_ns")]
    P99,
    #[serde(rename = "p99_9_ns")]
    P999,
    #[serde(rename = "p99_99_ns")]
    P9999,
    #[serde(rename = "cpu_ns_per_echo")]
    CpuPerEcho,
    #[serde(rename = "switches_per_echo")]
    SwitchesPerEcho,
    #[serde(rename = "threads")]
    Threads,
    #[serde(rename = "rss_bytes")]
    Rss,
    #[serde(rename = "rss_bytes_per_connection")]
    RssPerConnection,
}

/// The middle of several samples, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::cli) struct Spread {
    pub(in crate::cli) median: f64,
    pub(in crate::cli) least: f64,
    pub(in crate::cli) most: f64,
}

impl Spread {
    /// That of a single value.
    pub(in crate::cli) fn none(value: f64) -> Self {
        let [median, least, most] = [value; 3];
        Self {
            median,
            least,
            most,
        }
    }
}

/// A figure of one model, divided by that of the first.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::cli) struct Ratio {
    pub(in crate::cli) figure: Figure,
    /// The geometric mean over the rounds.
    pub(in crate::cli) ratio: f64,
    /// Its confidence interval.
    pub(in crate::cli) low: f64,
    pub(in crate::cli) high: f64,
    pub(in crate::cli) verdict: Verdict,
}

/// What a ratio says of the compared model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum Verdict {
    Better,
    /// The interval lies within the indifference zone.
    Same,
    Worse,
    /// The interval is too wide to tell: the difference is within the noise.
    #[serde(rename = "within the noise")]
    Noise,
}

impl Scenario {
    /// What is done, in words.
    pub(in crate::cli) fn title(self) -> &'static str {
        match self {
            Self::RequestResponse => "request and response",
            Self::Pipelined => "pipelined, 16 requests under way on each connection",
            Self::Churn => "churn: connect, one request, reset",
            Self::MostlyIdle => "mostly idle: one connection in five is active",
            Self::SlowReader => "beside one client that sends without end and never reads",
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.scenario.serialize(&mut *f)?;
        let (connections, size) = (grouped(self.connections), bytes(self.size as f64));
        write!(f, ", {connections} x {size}")
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// `0.61 (0.58 to 0.64): worse`
impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = (self.low, self.high);
        write!(
            f,
            "{:.2} ({low:.2} to {high:.2}): {}",
            self.ratio, self.verdict
        )
    }
}

impl Figure {
    /// All figures, as they are declared, with what they are called in a sentence.
    pub(in crate::cli) const TITLES: [(Self, &'static str); 11] = [
        (Self::Throughput, "throughput"),
        (Self::P50, "p50"),
        (Self::P90, "p90"),
        (Self::P99, "p99"),
        (Self::P999, "p99.9"),
        (Self::P9999, "p99.99"),
        (Self::CpuPerEcho, "CPU per echo"),
        (Self::SwitchesPerEcho, "switches per echo"),
        (Self::Threads, "threads"),
        (Self::Rss, "memory"),
        (Self::RssPerConnection, "memory per connection"),
    ];

    pub(in crate::cli) fn title(self) -> &'static str {
        Self::TITLES[self as usize].1
    }

    /// What each figure has, by the figure.
    pub(in crate::cli) fn each<T>(of: impl Fn(Self) -> T) -> BTreeMap<Self, T> {
        Self::TITLES.map(|(figure, _)| (figure, of(figure))).into()
    }

    /// A value of it, with its unit.
    pub(in crate::cli) fn write(self, value: f64) -> String {
        match self {
            Self::Throughput | Self::Threads => grouped(value.round().max(0.0) as u64),
            Self::SwitchesPerEcho => format!("{value:.2}"),
            Self::Rss | Self::RssPerConnection => bytes(value),
            _ => time(value.round().max(0.0) as u64),
        }
    }

    /// Whether more of it is better; of everything but throughput, less is.
    pub(in crate::cli) fn more_is_better(self) -> bool {
        self == Self::Throughput
    }
}

/// Three digits and a unit: 64 B, 10.2 KiB. Whole numbers have no digits behind the point.
pub(in crate::cli) fn bytes(bytes: f64) -> String {
    let digits = |value: f64, unit| match value.fract() < 0.05 || value >= 99.95 {
        true => format!("{value:.0} {unit}"),
        false => format!("{value:.1} {unit}"),
    };
    match bytes {
        n if n < 1_023.5 => format!("{n:.0} B"),
        n if n < 1_048_000.0 => digits(n / 1_024.0, "KiB"),
        n if n < 1_073_000_000.0 => digits(n / 1_048_576.0, "MiB"),
        n => digits(n / 1_073_741_824.0, "GiB"),
    }
}

impl Model {
    /// Its ratios over all cells: its name, the figure, and the ratio with its verdict.
    pub(in crate::cli) fn summary(&self) -> impl Iterator<Item = (&str, &'static str, String)> {
        let ratios = self.overall.iter();
        ratios.map(|ratio| (self.name.as_str(), ratio.figure.title(), ratio.to_string()))
    }
}

impl Record {
    /// What could not be measured, a sentence for each model that failed: worse than any figure that is slow, and part of
    /// none.
    pub(in crate::cli) fn failures(&self) -> Vec<String> {
        let of_model = |(place, model): (usize, &Model)| {
            let failed = self.cells.iter().filter(|cell| cell.entries[place].failed);
            let (load, why) = failed
                .clone()
                .find_map(|cell| Some((cell.load, cell.entries[place].left_out.as_deref()?)))?;
            let (name, count, all) = (&model.name, failed.count(), self.cells.len());
            Some(format!(
                "{name} failed at {count} of {all} loads, and no ratio has them in it; the first: {load}: {why}"
            ))
        };
        let models = self.models.iter().enumerate();
        models.filter_map(of_model).collect()
    }

    /// The cells that differ in their connections alone, together and in the order of these.
    pub(in crate::cli) fn groups(&self) -> Vec<Vec<&Cell>> {
        let key = |cell: &&Cell| (cell.load.scenario, cell.load.size);
        let mut cells: Vec<&Cell> = self.cells.iter().collect();
        cells.sort_by_key(|cell| (key(cell), cell.load.connections));
        let groups = cells.chunk_by(|one, other| key(one) == key(other));
        groups.map(<[_]>::to_vec).collect()
    }

    /// The entries of a model.
    pub(in crate::cli) fn entries(&self, model: usize) -> impl Iterator<Item = &Entry> {
        self.cells.iter().map(move |cell| &cell.entries[model])
    }

    /// Whether a model was measured at all.
    pub(in crate::cli) fn was_measured(&self, model: usize) -> bool {
        self.entries(model).any(|entry| !entry.samples.is_empty())
    }

    /// Samples that were not valid, of all; and why the first was not.
    pub(in crate::cli) fn doubtful(&self) -> Option<String> {
        let samples = || {
            (self.cells.iter())
                .flat_map(|cell| cell.entries.iter())
                .flat_map(|entry| &entry.samples)
        };
        let reason = samples().find_map(|sample| sample.not_valid_because.first())?;
        let doubtful = samples().filter(|sample| !sample.not_valid_because.is_empty());
        let all = plural(samples().count() as u64, "measurement");
        Some(format!(
            "{} of {all} were not valid; the first: {reason}",
            doubtful.count()
        ))
    }
}

impl Sample {
    /// One without figures.
    pub(in crate::cli) fn new(round: u64, not_valid_because: &[String]) -> Self {
        Self {
            round,
            not_valid_because: not_valid_because.to_vec(),
            figures: Figure::each(|_| None),
        }
    }

    /// A figure; `None` if it could not be seen.
    pub(in crate::cli) fn get(&self, figure: Figure) -> Option<f64> {
        self.figures.get(&figure).copied().flatten()
    }

    pub(in crate::cli) fn set(&mut self, figure: Figure, value: impl Into<Option<f64>>) {
        let value = value.into().filter(|value| value.is_finite());
        self.figures.insert(figure, value);
    }
}

impl Entry {
    /// Fills in the spread of each figure; `None` if there is a round without it. A round with few answers has no p99.99,
    /// and those that have one are the quick rounds: percentiles of one entry are all of the same rounds, so that a higher
    /// percentile is never lower.
    pub(in crate::cli) fn summarize(&mut self) {
        let spread = |figure| {
            let values = self.samples.iter().map(|sample| sample.get(figure));
            let mut values: Vec<f64> = values.collect::<Option<_>>()?;
            values.sort_by(f64::total_cmp);
            Some(Spread {
                median: f64::midpoint(
                    *values.get((values.len().max(1) - 1) / 2)?,
                    values[values.len() / 2],
                ),
                least: *values.first()?,
                most: *values.last()?,
            })
        };
        self.figures = Figure::each(spread);
    }

    pub(in crate::cli) fn spread(&self, figure: Figure) -> Option<Spread> {
        self.figures.get(&figure).copied().flatten()
    }

    /// The median of a figure with its unit, or a dash.
    pub(in crate::cli) fn median(&self, figure: Figure) -> String {
        let spread = self.spread(figure);
        spread.map_or("-".to_owned(), |spread| figure.write(spread.median))
    }

    /// The ratio of a figure to that of the first model.
    pub(in crate::cli) fn ratio(&self, figure: Figure) -> Option<&Ratio> {
        self.ratios.iter().find(|ratio| ratio.figure == figure)
    }
}

#[cfg(test)]
pub(in crate::cli) mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A record with everything that a record can have. Its figures are invented.
    pub(in crate::cli) fn sample() -> Record {
        serde_json::from_str(include_str!("../../../tests/fixtures/compare.json")).unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let record = sample();
        let json = serde_json::to_value(&record).unwrap();
        assert_eq!(json["cells"][0]["scenario"], "request-response");
        assert_eq!(json["cells"][0]["models"][0]["model"], "reactor");
        assert!(json["cells"][0]["models"][0]["samples"][0]["p99_ns"].is_number());
        assert_eq!(serde_json::from_value::<Record>(json).unwrap(), record);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let refused = |change: fn(&mut Value)| {
            let mut json = serde_json::to_value(sample()).unwrap();
            change(&mut json);
            serde_json::from_value::<Record>(json)
                .unwrap_err()
                .to_string()
        };
        let wrong =
            refused(|json| json["cells"][1]["models"][0]["samples"][0]["p99_ns"] = json!("much"));
        assert!(wrong.contains("\"much\""), "{wrong}");
        let missing = refused(|json| drop(json.as_object_mut().unwrap().remove("machine")));
        assert!(missing.contains("`machine`"), "{missing}");
    }

    #[test]
    fn a_median_is_the_middle_or_between_the_two_middles() {
        let mut entry = Entry::default();
        entry.summarize();
        assert_eq!(entry.spread(Figure::P99), None);
        for (round, value) in [4.0, 1.0, 9.0, 2.0].into_iter().enumerate() {
            let mut sample = Sample::new(round as u64, &[]);
            sample.set(Figure::P99, value);
            sample.set(Figure::Rss, f64::NAN);
            entry.samples.push(sample);
        }
        entry.summarize();
        let spread = entry.spread(Figure::P99).unwrap();
        assert_eq!((spread.least, spread.median, spread.most), (1.0, 3.0, 9.0));
        assert_eq!(entry.spread(Figure::Rss), None);
        entry.samples.pop();
        entry.summarize();
        assert_eq!(entry.spread(Figure::P99).unwrap().median, 4.0);
    }

    #[test]
    fn figures_stand_in_their_order_and_have_units() {
        let order = Figure::TITLES.map(|(figure, _)| figure as usize);
        assert!(order.into_iter().eq(0..order.len()));
        let sizes = [64.0, 4_096.0, 65_536.0, 10_444.8, 3e6].map(bytes);
        assert_eq!(sizes, ["64 B", "4 KiB", "64 KiB", "10.2 KiB", "2.9 MiB"]);
        assert_eq!(Figure::Throughput.write(291_203.4), "291,203");
        assert!(Figure::P99.write(3_400.0).starts_with("3.40"));
        assert_eq!(Figure::SwitchesPerEcho.write(0.015), "0.01");
    }
}
