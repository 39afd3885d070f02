//! The record of a comparison: plain data, which serde writes and reads as `schema.json`, next to this file, describes it.
//!
//! Every cell has one [`Entry`] for each model, in the order of [`Record::models`]; the first model is the one that the
//! rest is compared with.

use crate::cli::bench::environment::Machine;
use crate::cli::bench::time::{bytes, time};
use crate::cli::units::grouped;
use crate::load::{Latencies, latencies};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Points of a curve for each nine of its percentiles.
const POINTS: u32 = 12;

/// A comparison, complete or interrupted. A reader knows the file by its `program`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "program", rename = "echo-reactor compare")]
pub(in crate::cli) struct Record {
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
pub(in crate::cli) type Figures<T> = BTreeMap<Figure, Option<T>>;

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
    #[serde(skip)]
    pub(in crate::cli) latencies: Option<Latencies>,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::cli) struct Sample {
    /// From 0 on.
    pub(in crate::cli) round: u64,
    pub(in crate::cli) not_valid_because: Vec<String>,
    #[serde(flatten)]
    pub(in crate::cli) figures: Figures<f64>,
}

/// What is measured of each sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::cli) enum Figure {
    EchoesPerSecond,
    P50Ns,
    P90Ns,
    P99Ns,
    #[serde(rename = "p99_9_ns")]
    P999Ns,
    #[serde(rename = "p99_99_ns")]
    P9999Ns,
    CpuNsPerEcho,
    SwitchesPerEcho,
    Threads,
    RssBytes,
    RssBytesPerConnection,
}

/// The middle of several samples, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::cli) struct Spread {
    pub(in crate::cli) median: f64,
    pub(in crate::cli) least: f64,
    pub(in crate::cli) most: f64,
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
        let (ratio, low, high) = (self.ratio, self.low, self.high);
        write!(f, "{ratio:.2} ({low:.2} to {high:.2}): {}", self.verdict)
    }
}

impl Figure {
    /// All figures, as they are declared, with what they are called in a sentence.
    pub(in crate::cli) const TITLES: [(Self, &'static str); 11] = [
        (Self::EchoesPerSecond, "throughput"),
        (Self::P50Ns, "p50"),
        (Self::P90Ns, "p90"),
        (Self::P99Ns, "p99"),
        (Self::P999Ns, "p99.9"),
        (Self::P9999Ns, "p99.99"),
        (Self::CpuNsPerEcho, "CPU per echo"),
        (Self::SwitchesPerEcho, "switches per echo"),
        (Self::Threads, "threads"),
        (Self::RssBytes, "memory"),
        (Self::RssBytesPerConnection, "memory per connection"),
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
            Self::EchoesPerSecond | Self::Threads => grouped(value.round().max(0.0) as u64),
            Self::SwitchesPerEcho => format!("{value:.2}"),
            Self::RssBytes | Self::RssBytesPerConnection => bytes(value),
            _ => time(value.round().max(0.0) as u64),
        }
    }

    /// Whether more of it is better; of everything but throughput, less is.
    pub(in crate::cli) fn more_is_better(self) -> bool {
        self == Self::EchoesPerSecond
    }
}

impl Record {
    /// What could not be measured, a sentence for each model that failed: worse than any figure that is slow, and part of
    /// none.
    pub(in crate::cli) fn failures(&self) -> Vec<String> {
        let of_model = |(place, model): (usize, &Model)| {
            let failed = || self.cells.iter().filter(|cell| cell.entries[place].failed);
            let (first, count) = (failed().next()?, failed().count());
            let why = first.entries[place].left_out.as_deref()?;
            let (name, load, all) = (&model.name, first.load, self.cells.len());
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
}

impl Sample {
    /// A figure; `None` if it could not be seen.
    pub(in crate::cli) fn get(&self, figure: Figure) -> Option<f64> {
        self.figures.get(&figure).copied().flatten()
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
            let (least, most) = (*values.first()?, *values.last()?);
            let middle = [(values.len() - 1) / 2, values.len() / 2].map(|at| values[at]);
            Some(Spread {
                median: f64::midpoint(middle[0], middle[1]),
                least,
                most,
            })
        };
        self.figures = Figure::each(spread);
    }

    pub(in crate::cli) fn spread(&self, figure: Figure) -> Option<Spread> {
        self.figures.get(&figure).copied().flatten()
    }

    /// Adds a sample, and the latencies that it was computed from.
    pub(in crate::cli) fn add(&mut self, sample: Sample, more: &Latencies) {
        let all = self.latencies.get_or_insert_with(latencies);
        all.add(more);
        self.latency_by_percentile = curve(all);
        self.samples.push(sample);
    }

    /// Whether the load was served in every round that was measured.
    pub(in crate::cli) fn is_whole(&self) -> bool {
        !self.samples.is_empty() && !self.failed
    }
}

/// Latency by percentile, on the scale on which each step is a tenth of what was left: up to the last of all answers.
fn curve(latencies: &Latencies) -> Vec<(f64, u64)> {
    if latencies.is_empty() {
        return Vec::new();
    }
    let nines = (latencies.len() as f64).log10();
    let points = (nines * f64::from(POINTS)) as u32;
    (0..=points)
        .map(|point| 1.0 - 10f64.powf(-f64::from(point) / f64::from(POINTS)))
        .map(|quantile| (quantile, latencies.value_at_quantile(quantile)))
        .collect()
}

#[cfg(test)]
pub(in crate::cli) mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A record with everything that a record can have. Its figures are invented.
    pub(in crate::cli) fn sample() -> Record {
        serde_json::from_str(include_str!("../../../tests/fixtures/compare.json")).unwrap()
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

        pub(in crate::cli) fn set(&mut self, figure: Figure, value: impl Into<Option<f64>>) {
            self.figures.insert(figure, value.into());
        }
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
        assert_eq!(entry.spread(Figure::P99Ns), None);
        for (round, value) in [4.0, 1.0, 9.0, 2.0].into_iter().enumerate() {
            let mut sample = Sample::new(round as u64, &[]);
            sample.set(Figure::P99Ns, value);
            entry.samples.push(sample);
        }
        entry.summarize();
        let spread = entry.spread(Figure::P99Ns).unwrap();
        assert_eq!((spread.least, spread.median, spread.most), (1.0, 3.0, 9.0));
        assert_eq!(entry.spread(Figure::RssBytes), None);
        entry.samples.pop();
        entry.summarize();
        assert_eq!(entry.spread(Figure::P99Ns).unwrap().median, 4.0);
    }

    #[test]
    fn figures_stand_in_their_order_and_have_units() {
        let order = Figure::TITLES.map(|(figure, _)| figure as usize);
        assert!(order.into_iter().eq(0..order.len()));
        assert_eq!(Figure::EchoesPerSecond.write(291_203.4), "291,203");
        assert!(Figure::P99Ns.write(3_400.0).starts_with("3.40"));
        assert_eq!(Figure::SwitchesPerEcho.write(0.015), "0.01");
    }

    #[test]
    fn a_curve_rises_to_the_last_answer() {
        let mut histogram = latencies();
        (1..=1_000).for_each(|value| histogram.saturating_record(value * 1_000));
        let curve = curve(&histogram);
        assert_eq!(curve[0].0, 0.0);
        assert!(curve.windows(2).all(|pair| pair[0] <= pair[1]));
        let (quantile, value) = curve[curve.len() - 1];
        assert!(quantile > 0.998 && value >= 998_000, "{quantile} {value}");
        assert_eq!(super::curve(&latencies()), []);
    }
}
