//! The record of a comparison: plain data, and its form as JSON.
//!
//! This file has what was measured, under which names, and writes and reads it as `schema.json`, next to this file,
//! describes it.
//!
//! Every cell has one [`Entry`] for each model, in the order of [`Record::models`]; the first model is the one that the
//! rest is compared with. A median that is written is computed from the samples beside it, and is computed anew, not
//! believed, when the file is read.

use crate::cli::units::plural;
use serde_json::{Map, Value, json};

/// What `program` says in the file: how a reader knows what it has in hand.
pub(in crate::cli) const PROGRAM: &str = "echo-reactor compare";

/// A comparison, complete or interrupted.
#[derive(Clone, Debug, PartialEq)]
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
    /// Rounds that were planned.
    pub(in crate::cli) rounds: u64,
    /// The length of one measurement, in seconds.
    pub(in crate::cli) window_seconds: f64,
    /// Whether it was ended before its time.
    pub(in crate::cli) interrupted: bool,
    pub(in crate::cli) machine: Machine,
    /// What was compared; the first is the reference.
    pub(in crate::cli) models: Vec<Model>,
    pub(in crate::cli) cells: Vec<Cell>,
    /// What one should know to read it, such as why system calls were not counted.
    pub(in crate::cli) notes: Vec<String>,
}

/// Where it was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Machine {
    pub(in crate::cli) name: String,
    pub(in crate::cli) kernel: String,
    pub(in crate::cli) processor: String,
    pub(in crate::cli) processors: u64,
    pub(in crate::cli) memory_bytes: u64,
    /// The most that one process may have.
    pub(in crate::cli) descriptors: u64,
}

/// One of those that were compared.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct Model {
    /// A short name: `reactor`, `threads`, `iterative`, or what stands behind `--against`.
    pub(in crate::cli) name: String,
    /// The command that started its server; empty if it ran already.
    pub(in crate::cli) command: String,
    /// What it is, in one sentence.
    pub(in crate::cli) note: String,
    /// Its ratio to the first model over all cells that both took part in. The first has none.
    pub(in crate::cli) overall: Vec<Ratio>,
}

/// What was done to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::cli) enum Scenario {
    /// One request under way on each connection.
    RequestResponse,
    /// Several under way on each.
    Pipelined,
    /// Connect, one request, close, and again.
    Churn,
    /// One connection in five sends; the rest is idle.
    MostlyIdle,
    /// Beside the load, one connection sends without end and never reads.
    SlowReader,
}

/// The same load on every model.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct Cell {
    pub(in crate::cli) scenario: Scenario,
    pub(in crate::cli) connections: u64,
    /// Bytes of a request.
    pub(in crate::cli) size: u64,
    /// One for each model, in their order.
    pub(in crate::cli) entries: Vec<Entry>,
}

/// What one model did in a cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::cli) struct Entry {
    /// Why it did not take part, if it did not, or did not to the end.
    pub(in crate::cli) left_out: Option<String>,
    /// Whether it was asked, and could not do it to the end; not what is left out since the load is not for it.
    pub(in crate::cli) failed: bool,
    /// One for each round that was measured.
    pub(in crate::cli) samples: Vec<Sample>,
    /// Latency by percentile, of all rounds together: the quantile (0.99), and nanoseconds.
    pub(in crate::cli) curve: Vec<(f64, u64)>,
    /// System calls of one echo, counted in a run of its own; the second by name, the most frequent first.
    pub(in crate::cli) system_calls: Option<SystemCalls>,
    /// Compared with the first model, round by round. The first has none.
    pub(in crate::cli) ratios: Vec<Ratio>,
}

/// What strace counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::cli) struct SystemCalls {
    pub(in crate::cli) per_echo: f64,
    /// By name, the most frequent first.
    pub(in crate::cli) names: Vec<(String, f64)>,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct Sample {
    /// From 0 on.
    pub(in crate::cli) round: u64,
    /// Why it is not to be believed, if it is not: what `bench` says behind `not valid because`.
    pub(in crate::cli) invalid: Vec<String>,
    figures: [Option<f64>; Figure::ALL.len()],
}

/// What is measured of each sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Figure {
    Throughput,
    P50,
    P90,
    P99,
    P999,
    P9999,
    CpuPerEcho,
    SwitchesPerEcho,
    Threads,
    Rss,
    RssPerConnection,
}

/// In what a figure is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Unit {
    PerSecond,
    Nanoseconds,
    Bytes,
    Count,
}

/// The middle of several samples, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::cli) struct Spread {
    pub(in crate::cli) median: f64,
    pub(in crate::cli) least: f64,
    pub(in crate::cli) most: f64,
}

/// A figure of one model, divided by that of the first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::cli) struct Ratio {
    pub(in crate::cli) figure: Figure,
    /// The geometric mean over the rounds.
    pub(in crate::cli) ratio: f64,
    /// Its confidence interval.
    pub(in crate::cli) low: f64,
    pub(in crate::cli) high: f64,
    pub(in crate::cli) verdict: Verdict,
}

/// What a ratio says of the one that was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Verdict {
    Better,
    /// The interval lies within the indifference zone.
    Same,
    Worse,
    /// The interval is too wide to tell: the difference is within the noise.
    Noise,
}

impl Scenario {
    pub(in crate::cli) const ALL: [Self; 5] = [
        Self::RequestResponse,
        Self::Pipelined,
        Self::Churn,
        Self::MostlyIdle,
        Self::SlowReader,
    ];

    /// Its name, as machines read it.
    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            Self::RequestResponse => "request-response",
            Self::Pipelined => "pipelined",
            Self::Churn => "churn",
            Self::MostlyIdle => "mostly-idle",
            Self::SlowReader => "slow-reader",
        }
    }
}

impl Verdict {
    pub(in crate::cli) const ALL: [Self; 4] = [Self::Better, Self::Same, Self::Worse, Self::Noise];

    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Same => "same",
            Self::Worse => "worse",
            Self::Noise => "within the noise",
        }
    }
}

impl Figure {
    pub(in crate::cli) const ALL: [Self; 11] = [
        Self::Throughput,
        Self::P50,
        Self::P90,
        Self::P99,
        Self::P999,
        Self::P9999,
        Self::CpuPerEcho,
        Self::SwitchesPerEcho,
        Self::Threads,
        Self::Rss,
        Self::RssPerConnection,
    ];

    /// Its name, as machines read it.
    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            Self::Throughput => "echoes_per_second",
            Self::P50 => "p50_ns",
            Self::P90 => "p90_ns",
            Self::P99 => "p99_ns",
            Self::P999 => "p99_9_ns",
            Self::P9999 => "p99_99_ns",
            Self::CpuPerEcho => "cpu_ns_per_echo",
            Self::SwitchesPerEcho => "switches_per_echo",
            Self::Threads => "threads",
            Self::Rss => "rss_bytes",
            Self::RssPerConnection => "rss_bytes_per_connection",
        }
    }

    pub(in crate::cli) fn unit(self) -> Unit {
        match self {
            Self::Throughput => Unit::PerSecond,
            Self::SwitchesPerEcho | Self::Threads => Unit::Count,
            Self::Rss | Self::RssPerConnection => Unit::Bytes,
            _ => Unit::Nanoseconds,
        }
    }

    /// Whether more of it is better; of everything but throughput, less is.
    pub(in crate::cli) fn more_is_better(self) -> bool {
        self == Self::Throughput
    }
}

impl Record {
    /// What could not be measured, a sentence for each model that failed: worse than any figure that is slow, and part of
    /// none.
    pub(in crate::cli) fn failures(&self) -> Vec<String> {
        let of_model = |(place, model): (usize, &Model)| {
            let failed = self.cells.iter().filter(|cell| cell.entries[place].failed);
            let why = failed.clone().find_map(|cell| {
                let why = cell.entries[place].left_out.as_deref()?;
                let name = cell.scenario.name();
                let connections = plural(cell.connections, "connection");
                Some(format!("{name} at {connections}: {why}"))
            })?;
            let (count, all) = (failed.count(), self.cells.len());
            Some(format!(
                "{} failed at {count} of {all} loads, and no ratio has them in it; the first: {why}",
                model.name
            ))
        };
        self.models
            .iter()
            .enumerate()
            .filter_map(of_model)
            .collect()
    }

    /// Whether a model was measured at all.
    pub(in crate::cli) fn was_measured(&self, model: usize) -> bool {
        let mut entries = self.cells.iter().map(|cell| &cell.entries[model]);
        entries.any(|entry| !entry.samples.is_empty())
    }

    /// The cell of this load, if there is one.
    pub(in crate::cli) fn cell(
        &self,
        scenario: Scenario,
        connections: u64,
        size: u64,
    ) -> Option<&Cell> {
        self.cells.iter().find(|cell| {
            (cell.scenario, cell.connections, cell.size) == (scenario, connections, size)
        })
    }
}

impl Sample {
    /// One without figures.
    pub(in crate::cli) fn new(round: u64) -> Self {
        Self {
            round,
            invalid: Vec::new(),
            figures: Default::default(),
        }
    }

    /// A figure; `None` if it could not be seen, as of a server on another machine.
    pub(in crate::cli) fn get(&self, figure: Figure) -> Option<f64> {
        self.figures[figure as usize]
    }

    pub(in crate::cli) fn set(&mut self, figure: Figure, value: impl Into<Option<f64>>) {
        self.figures[figure as usize] = value.into().filter(|value| value.is_finite());
    }
}

impl Entry {
    /// The median of a figure over the rounds, with the least and the most; `None` if there is a round without it. A round
    /// with few answers has no p99.99, and those that have one are the quick rounds: percentiles of one entry are all of
    /// the same rounds, so that a higher percentile is never lower.
    pub(in crate::cli) fn spread(&self, figure: Figure) -> Option<Spread> {
        let values = self.samples.iter().map(|sample| sample.get(figure));
        let mut values: Vec<f64> = values.collect::<Option<_>>()?;
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let median = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Spread {
            median,
            least,
            most,
        })
    }

    pub(in crate::cli) fn median(&self, figure: Figure) -> Option<f64> {
        self.spread(figure).map(|spread| spread.median)
    }

    /// The ratio of a figure to that of the first model.
    pub(in crate::cli) fn ratio(&self, figure: Figure) -> Option<&Ratio> {
        self.ratios.iter().find(|ratio| ratio.figure == figure)
    }
}

// --- Writing -----------------------------------------------------------------------------------------------------------

impl Record {
    pub(in crate::cli) fn to_json(&self) -> Value {
        let models = self.models.iter().map(|model| {
            json!({
                "name": model.name,
                "command": model.command,
                "note": model.note,
                "overall": ratios_to_json(&model.overall),
            })
        });
        json!({
            "program": PROGRAM,
            "version": self.version,
            "command": self.command,
            "started_unix": self.started_unix,
            "seconds": self.seconds,
            "seed": self.seed,
            "rounds": self.rounds,
            "window_seconds": self.window_seconds,
            "interrupted": self.interrupted,
            "machine": {
                "name": self.machine.name,
                "kernel": self.machine.kernel,
                "processor": self.machine.processor,
                "processors": self.machine.processors,
                "memory_bytes": self.machine.memory_bytes,
                "descriptors": self.machine.descriptors,
            },
            "models": models.collect::<Vec<_>>(),
            "cells": self.cells.iter().map(|cell| cell.to_json(&self.models)).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }
}

impl Cell {
    fn to_json(&self, models: &[Model]) -> Value {
        let entries = self.entries.iter().zip(models);
        json!({
            "scenario": self.scenario.name(),
            "connections": self.connections,
            "size": self.size,
            "models": entries.map(|(entry, model)| entry.to_json(&model.name)).collect::<Vec<_>>(),
        })
    }
}

impl Entry {
    fn to_json(&self, model: &str) -> Value {
        let figures = Figure::ALL.iter().map(|&figure| {
            let spread = self.spread(figure).map(|spread| {
                json!({"median": spread.median, "least": spread.least, "most": spread.most})
            });
            (figure.name().to_owned(), json!(spread))
        });
        let calls = self.system_calls.as_ref().map(|calls| {
            let names: Map<String, Value> = calls
                .names
                .iter()
                .map(|(name, count)| (name.clone(), json!(count)))
                .collect();
            json!({"per_echo": calls.per_echo, "names": names})
        });
        json!({
            "model": model,
            "left_out": self.left_out,
            "failed": self.failed,
            "figures": figures.collect::<Map<_, _>>(),
            "ratios": ratios_to_json(&self.ratios),
            "system_calls": calls,
            "samples": self.samples.iter().map(Sample::to_json).collect::<Vec<_>>(),
            "latency_by_percentile": self.curve.iter().map(|&(q, ns)| json!([q, ns])).collect::<Vec<_>>(),
        })
    }
}

impl Sample {
    fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("round".into(), json!(self.round));
        object.insert("not_valid_because".into(), json!(self.invalid));
        for figure in Figure::ALL {
            object.insert(figure.name().into(), json!(self.get(figure)));
        }
        Value::Object(object)
    }
}

fn ratios_to_json(ratios: &[Ratio]) -> Value {
    let ratio = |ratio: &Ratio| {
        json!({
            "figure": ratio.figure.name(),
            "ratio": ratio.ratio,
            "low": ratio.low,
            "high": ratio.high,
            "verdict": ratio.verdict.name(),
        })
    };
    Value::Array(ratios.iter().map(ratio).collect())
}

// --- Reading -----------------------------------------------------------------------------------------------------------

/// What is missing or wrong, by its place in the file.
type Read<T> = Result<T, String>;

impl Record {
    /// Reads what [`Record::to_json`] has written.
    ///
    /// # Errors
    /// The first thing that is missing or is not what it should be, with its place.
    pub(in crate::cli) fn from_json(value: &Value) -> Read<Self> {
        let at = At {
            value,
            path: String::new(),
        };
        if at.member("program")?.text()? != PROGRAM {
            return Err(format!("/program is not '{PROGRAM}'"));
        }
        let machine = at.member("machine")?;
        let models = at.member("models")?.each(model_from)?;
        let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
        Ok(Self {
            version: at.member("version")?.text()?,
            command: at.member("command")?.each(At::text)?,
            started_unix: at.member("started_unix")?.whole()?,
            seconds: at.member("seconds")?.number()?,
            seed: at.member("seed")?.whole()?,
            rounds: at.member("rounds")?.whole()?,
            window_seconds: at.member("window_seconds")?.number()?,
            interrupted: at.member("interrupted")?.flag()?,
            machine: Machine {
                name: machine.member("name")?.text()?,
                kernel: machine.member("kernel")?.text()?,
                processor: machine.member("processor")?.text()?,
                processors: machine.member("processors")?.whole()?,
                memory_bytes: machine.member("memory_bytes")?.whole()?,
                descriptors: machine.member("descriptors")?.whole()?,
            },
            cells: at.member("cells")?.each(|at| cell_from(at, &names))?,
            notes: at.member("notes")?.each(At::text)?,
            models,
        })
    }
}

fn model_from(at: &At<'_>) -> Read<Model> {
    Ok(Model {
        name: at.member("name")?.text()?,
        command: at.member("command")?.text()?,
        note: at.member("note")?.text()?,
        overall: at.member("overall")?.each(ratio_from)?,
    })
}

fn cell_from(at: &At<'_>, models: &[&str]) -> Read<Cell> {
    let entries = at.member("models")?;
    let named = entries.each(|entry| entry.member("model")?.text())?;
    if named != models {
        return Err(format!("{}: its models are not {models:?}", entries.path));
    }
    Ok(Cell {
        scenario: at
            .member("scenario")?
            .one_of(&Scenario::ALL, Scenario::name)?,
        connections: at.member("connections")?.whole()?,
        size: at.member("size")?.whole()?,
        entries: entries.each(entry_from)?,
    })
}

fn entry_from(at: &At<'_>) -> Read<Entry> {
    let point = |at: &At<'_>| {
        let pair = at.each(At::number)?;
        match pair[..] {
            [quantile, nanoseconds] => Ok((quantile, nanoseconds as u64)),
            _ => Err(format!("{} is no pair", at.path)),
        }
    };
    Ok(Entry {
        left_out: at.member("left_out")?.perhaps(At::text)?,
        failed: at.member("failed")?.flag()?,
        samples: at.member("samples")?.each(sample_from)?,
        curve: at.member("latency_by_percentile")?.each(point)?,
        system_calls: at.member("system_calls")?.perhaps(calls_from)?,
        ratios: at.member("ratios")?.each(ratio_from)?,
    })
}

fn calls_from(at: &At<'_>) -> Read<SystemCalls> {
    let names = at.member("names")?;
    let counts = names.value.as_object().ok_or_else(|| names.wrong())?;
    let mut names = counts
        .keys()
        .map(|name| Ok((name.clone(), names.member(name)?.number()?)))
        .collect::<Read<Vec<_>>>()?;
    names.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    Ok(SystemCalls {
        per_echo: at.member("per_echo")?.number()?,
        names,
    })
}

fn sample_from(at: &At<'_>) -> Read<Sample> {
    let mut sample = Sample::new(at.member("round")?.whole()?);
    sample.invalid = at.member("not_valid_because")?.each(At::text)?;
    for figure in Figure::ALL {
        sample.set(figure, at.member(figure.name())?.perhaps(At::number)?);
    }
    Ok(sample)
}

fn ratio_from(at: &At<'_>) -> Read<Ratio> {
    Ok(Ratio {
        figure: at.member("figure")?.one_of(&Figure::ALL, Figure::name)?,
        ratio: at.member("ratio")?.number()?,
        low: at.member("low")?.number()?,
        high: at.member("high")?.number()?,
        verdict: at.member("verdict")?.one_of(&Verdict::ALL, Verdict::name)?,
    })
}

/// A value, and where it stands.
struct At<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> At<'a> {
    fn member(&self, name: &str) -> Read<Self> {
        let path = format!("{}/{name}", self.path);
        match self.value.get(name) {
            Some(value) => Ok(Self { value, path }),
            None => Err(format!("{path} is missing")),
        }
    }

    fn each<T>(&self, read: impl Fn(&Self) -> Read<T>) -> Read<Vec<T>> {
        let items = self.value.as_array().ok_or_else(|| self.wrong())?;
        let at = |(place, value)| Self {
            value,
            path: format!("{}/{place}", self.path),
        };
        items
            .iter()
            .enumerate()
            .map(|item| read(&at(item)))
            .collect()
    }

    fn perhaps<T>(&self, read: impl Fn(&Self) -> Read<T>) -> Read<Option<T>> {
        match self.value.is_null() {
            true => Ok(None),
            false => read(self).map(Some),
        }
    }

    fn one_of<T: Copy>(&self, all: &[T], name: impl Fn(T) -> &'static str) -> Read<T> {
        let text = self.text()?;
        let found = all.iter().find(|&&one| name(one) == text);
        found.copied().ok_or_else(|| self.wrong())
    }

    fn text(&self) -> Read<String> {
        let text = self.value.as_str().map(str::to_owned);
        text.ok_or_else(|| self.wrong())
    }

    fn whole(&self) -> Read<u64> {
        self.value.as_u64().ok_or_else(|| self.wrong())
    }

    fn number(&self) -> Read<f64> {
        self.value.as_f64().ok_or_else(|| self.wrong())
    }

    fn flag(&self) -> Read<bool> {
        self.value.as_bool().ok_or_else(|| self.wrong())
    }

    fn wrong(&self) -> String {
        format!("{} cannot be {}", self.path, self.value)
    }
}

#[cfg(test)]
pub(in crate::cli) mod tests {
    use super::*;

    /// A record with everything that a record can have. Its figures are invented.
    pub(in crate::cli) fn sample() -> Record {
        let text = include_str!("../../../tests/fixtures/compare.json");
        Record::from_json(&serde_json::from_str(text).unwrap()).unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let record = sample();
        assert_eq!(Record::from_json(&record.to_json()), Ok(record));
    }

    #[test]
    fn what_is_missing_is_named_by_its_place() {
        let mut json = sample().to_json();
        json["cells"][1]["models"][0]["samples"][0]["p99_ns"] = json!("much");
        assert_eq!(
            Record::from_json(&json),
            Err("/cells/1/models/0/samples/0/p99_ns cannot be \"much\"".to_owned())
        );
        json["cells"][1] = json!({});
        let missing = Record::from_json(&json).unwrap_err();
        assert_eq!(missing, "/cells/1/models is missing");
        let bench = json!({"program": "echo-reactor bench"});
        assert!(Record::from_json(&bench).unwrap_err().contains("/program"));
    }

    #[test]
    fn a_median_is_the_middle_or_between_the_two_middles() {
        let mut entry = Entry::default();
        assert_eq!(entry.spread(Figure::P99), None);
        for (round, value) in [4.0, 1.0, 9.0, 2.0].into_iter().enumerate() {
            let mut sample = Sample::new(round as u64);
            sample.set(Figure::P99, value);
            sample.set(Figure::Rss, f64::NAN);
            entry.samples.push(sample);
        }
        let spread = entry.spread(Figure::P99).unwrap();
        assert_eq!((spread.least, spread.median, spread.most), (1.0, 3.0, 9.0));
        assert_eq!(entry.median(Figure::Rss), None);
        entry.samples.pop();
        assert_eq!(entry.median(Figure::P99), Some(4.0));
    }

    #[test]
    fn every_figure_is_at_its_place() {
        for (place, figure) in Figure::ALL.into_iter().enumerate() {
            assert_eq!(figure as usize, place);
        }
    }
}
