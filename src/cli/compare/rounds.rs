//! The rounds: every load on every model once, in an order of its own, and again.
//!
//! Models are measured one right after the other at the same load, so that what changes from minute to minute changes for
//! all; their order is drawn anew each time, so that no model is always the first.

use super::progress::Progress;
use super::record::{Cell, Entry, Load};
use super::sample::{self, Outcome};
use super::subject::Subject;
use super::workloads::Timing;
use crate::cli::bench::server_process::Processors;
use crate::cli::error::CliError;
use crate::cli::units::grouped;
use crate::load::{Latencies, latencies};
use crate::random::Random;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Points of a curve for each nine of its percentiles.
const POINTS: u32 = 12;

pub(super) struct Rounds<'a> {
    pub(super) subjects: &'a [Subject],
    pub(super) loads: &'a [Load],
    pub(super) timing: Timing,
    pub(super) processors: Option<&'a Processors>,
    pub(super) stop: &'a AtomicBool,
    pub(super) progress: &'a mut Progress,
    pub(super) random: Random,
}

/// What the rounds have results.
#[derive(Debug)]
pub(super) struct Results {
    pub(super) cells: Vec<Cell>,
    /// Rounds that were measured to the end.
    pub(super) rounds: u64,
    /// Whether a server echoed something else than what was sent.
    pub(super) wrong: bool,
    /// Of each cell and model, all latencies.
    latencies: Vec<Vec<Latencies>>,
}

impl Rounds<'_> {
    /// Measures until all rounds are done, or the time is over, or it is stopped. A failure of our own ends it too, and is
    /// returned with what was measured until then.
    pub(super) fn run(&mut self, began: Instant) -> (Results, Option<CliError>) {
        let mut results = self.prepare();
        let failure = self.fill(began, &mut results).err();
        (results.finish(), failure)
    }

    fn fill(&mut self, began: Instant, results: &mut Results) -> Result<(), CliError> {
        let mut longest = Duration::ZERO;
        for round in 0..self.timing.rounds {
            let round_began = Instant::now();
            let is_late = |budget| began.elapsed() + longest > budget;
            if self.timing.budget.is_some_and(is_late) {
                break;
            }
            let mut order: Vec<usize> = (0..self.loads.len()).collect();
            shuffle(&mut order, &mut self.random);
            for cell in order {
                self.measure(cell, round, results)?;
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
            }
            results.rounds += 1;
            longest = longest.max(round_began.elapsed());
        }
        Ok(())
    }

    fn prepare(&self) -> Results {
        let entry = |load, subject: &Subject| Entry {
            model: subject.model().name,
            left_out: subject.excuse(load).map(str::to_owned),
            ..Entry::default()
        };
        let cells = self.loads.iter().map(|load| Cell {
            load: *load,
            entries: (self.subjects.iter())
                .map(|subject| entry(load, subject))
                .collect(),
        });
        let histograms = || self.subjects.iter().map(|_| latencies()).collect();
        Results {
            cells: cells.collect(),
            rounds: 0,
            wrong: false,
            latencies: self.loads.iter().map(|_| histograms()).collect(),
        }
    }

    /// One load on every model.
    fn measure(&mut self, cell: usize, round: u64, results: &mut Results) -> Result<(), CliError> {
        let load = &self.loads[cell];
        let mut order: Vec<usize> = (0..self.subjects.len()).collect();
        shuffle(&mut order, &mut self.random);
        for model in order {
            if results.cells[cell].entries[model].left_out.is_some() {
                continue;
            }
            let outcome = sample::take(
                &self.subjects[model],
                load,
                &self.timing,
                self.processors,
                round,
                self.stop,
            )?;
            match outcome {
                Outcome::Measured(sample, latencies) => {
                    self.progress.measured(round, load, model, &sample);
                    results.cells[cell].entries[model].samples.push(*sample);
                    results.latencies[cell][model].add(&latencies);
                }
                Outcome::LeftOut { why, wrong } => {
                    results.wrong |= wrong;
                    self.progress.left_out(load, model, &why);
                    self.leave_out(cell, model, &why, results);
                }
                Outcome::Stopped => return Ok(()),
            }
        }
        self.progress.done(round, load);
        Ok(())
    }

    /// A subject that cannot serve a load is not asked for it again, nor for a larger one.
    fn leave_out(&self, cell: usize, model: usize, why: &str, results: &mut Results) {
        let failed = &self.loads[cell];
        for (place, load) in self.loads.iter().enumerate() {
            let is_more = load.scenario == failed.scenario
                && load.size >= failed.size
                && load.connections > failed.connections;
            let entry = &mut results.cells[place].entries[model];
            if place == cell {
                entry.left_out = Some(why.to_owned());
            } else if is_more && entry.left_out.is_none() {
                let at = grouped(failed.connections);
                entry.left_out = Some(format!("it failed at {at} already: {why}"));
            } else {
                continue;
            }
            entry.failed = true;
        }
    }
}

impl Results {
    /// Draws the curves.
    fn finish(mut self) -> Self {
        for (cell, latencies) in self.cells.iter_mut().zip(&self.latencies) {
            for (entry, latencies) in cell.entries.iter_mut().zip(latencies) {
                entry.latency_by_percentile = curve(latencies);
            }
        }
        self
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

/// Every order is as likely as any other (Fisher and Yates).
fn shuffle(items: &mut [usize], random: &mut Random) {
    for last in (1..items.len()).rev() {
        items.swap(last, random.below(last + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_keeps_every_element_and_follows_the_seed() {
        let shuffled = |seed| {
            let mut items: Vec<usize> = (0..20).collect();
            shuffle(&mut items, &mut Random::new(seed));
            items
        };
        let mut sorted = shuffled(1);
        assert_eq!(sorted, shuffled(1));
        assert_ne!(sorted, shuffled(2));
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>());
        let firsts = (0..3_000).map(|seed| {
            let mut items = [0, 1, 2];
            shuffle(&mut items, &mut Random::new(seed));
            items[0]
        });
        let zero_first = firsts.filter(|&first| first == 0).count();
        assert!((900..1_100).contains(&zero_first), "{zero_first} of 3,000");
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
