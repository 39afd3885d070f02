//! The rounds: every load on every model once, in an order of its own, and again.
//!
//! Models are measured one right after the other at the same load, so that what changes from minute to minute changes for
//! all; their order is drawn anew each time, so that no model is always the first.

use super::progress::Progress;
use super::record::{Cell, Entry, Load, Record};
use super::sample::{self, Conditions, Outcome};
use super::subject::Subject;
use crate::cli::error::CliError;
use crate::cli::units::grouped;
use crate::load::{Latencies, latencies};
use crate::random::Random;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Points of a curve for each nine of its percentiles.
const POINTS: u32 = 12;

pub(super) struct Rounds<'a> {
    pub(super) subjects: &'a [Subject],
    pub(super) conditions: Conditions<'a>,
    pub(super) progress: &'a mut Progress,
    pub(super) random: Random,
    /// What is filled in: every cell has a load, and an entry for each subject.
    pub(super) record: &'a mut Record,
    /// Whether a server echoed something else than what was sent.
    pub(super) wrong: bool,
}

/// An empty cell for each load.
pub(super) fn cells(subjects: &[Subject], loads: &[Load]) -> Vec<Cell> {
    let entry = |load, subject: &Subject| Entry {
        model: subject.model().name,
        left_out: subject.excuse(load).map(str::to_owned),
        ..Entry::default()
    };
    let cells = loads.iter().map(|load| Cell {
        load: *load,
        entries: subjects
            .iter()
            .map(|subject| entry(load, subject))
            .collect(),
    });
    cells.collect()
}

impl Rounds<'_> {
    /// Measures until all rounds are done, or the time is over, or it is stopped.
    ///
    /// # Errors
    /// A failure of our own, which ends it too; what was measured until then is in the record.
    pub(super) fn run(&mut self, began: Instant) -> Result<(), CliError> {
        let histograms = |cell: &Cell| cell.entries.iter().map(|_| latencies()).collect();
        let mut all: Vec<Vec<Latencies>> = self.record.cells.iter().map(histograms).collect();
        let ended = self.fill(began, &mut all);
        for (cell, latencies) in self.record.cells.iter_mut().zip(&all) {
            for (entry, latencies) in cell.entries.iter_mut().zip(latencies) {
                entry.latency_by_percentile = curve(latencies);
            }
        }
        ended
    }

    fn fill(&mut self, began: Instant, latencies: &mut [Vec<Latencies>]) -> Result<(), CliError> {
        let Conditions { timing, stop, .. } = self.conditions;
        let mut longest = Duration::ZERO;
        for round in 0..timing.rounds {
            let round_began = Instant::now();
            let is_late = |budget| began.elapsed() + longest > budget;
            if timing.budget.is_some_and(is_late) {
                break;
            }
            for cell in shuffled(latencies.len(), &mut self.random) {
                self.measure(cell, round, &mut latencies[cell])?;
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
            }
            self.record.rounds += 1;
            longest = longest.max(round_began.elapsed());
        }
        Ok(())
    }

    /// One load on every model.
    fn measure(&mut self, cell: usize, round: u64, all: &mut [Latencies]) -> Result<(), CliError> {
        let load = self.record.cells[cell].load;
        for model in shuffled(self.subjects.len(), &mut self.random) {
            let entry = &mut self.record.cells[cell].entries[model];
            if entry.left_out.is_some() {
                continue;
            }
            match sample::take(&self.subjects[model], &load, round, self.conditions)? {
                Outcome::Measured(sample, latencies) => {
                    self.progress.measured(&load, &entry.model, &sample);
                    entry.samples.push(*sample);
                    all[model].add(&latencies);
                }
                Outcome::LeftOut { why, wrong } => {
                    self.wrong |= wrong;
                    self.progress
                        .tell(&format!("{load}: without {}: {why}", entry.model));
                    self.leave_out(load, model, &why);
                }
                Outcome::Stopped => return Ok(()),
            }
        }
        self.progress.done(round, &load);
        Ok(())
    }

    /// A subject that cannot serve a load is not asked for it again, nor for a larger one.
    fn leave_out(&mut self, failed: Load, model: usize, why: &str) {
        for Cell { load, entries } in &mut self.record.cells {
            let is_more = load.scenario == failed.scenario
                && load.size >= failed.size
                && load.connections > failed.connections;
            let entry = &mut entries[model];
            if *load == failed {
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

/// The numbers up to `count` in an order of which every one is as likely (Fisher and Yates).
fn shuffled(count: usize, random: &mut Random) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, random.below(last + 1));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_keeps_every_element_and_follows_the_seed() {
        let shuffled = |seed| shuffled(20, &mut Random::new(seed));
        let mut sorted = shuffled(1);
        assert_eq!(sorted, shuffled(1));
        assert_ne!(sorted, shuffled(2));
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>());
        let firsts = (0..3_000).map(|seed| super::shuffled(3, &mut Random::new(seed))[0]);
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
