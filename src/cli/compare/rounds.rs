//! The rounds: every load on every model once, in an order of its own, and again.
//!
//! Models are measured one right after the other at the same load, so that what changes from minute to minute changes for
//! all; their order is drawn anew each time, so that no model is always the first.

use super::record::{Cell, Entry, Figure, Load, Record, Sample, Scenario};
use super::sample::{LeftOut, figures, refusal};
use super::subject::{Server, Subject};
use super::workloads::{Timing, plan};
use crate::cli::bench::run::{Run, measure};
use crate::cli::bench::server_process::Processors;
use crate::cli::bench::workers::{Machines, Told};
use crate::cli::error::CliError;
use crate::cli::status_line::StatusLine;
use crate::cli::units::grouped;
use crate::load::Latencies;
use crate::random::Random;
use std::cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A sample and its latencies, or why there is none.
type Taken = Result<(Sample, Latencies), LeftOut>;

pub(super) struct Rounds<'a> {
    pub(super) subjects: &'a [Subject],
    pub(super) timing: &'a Timing,
    pub(super) processors: Option<&'a Processors>,
    pub(super) stop: &'a AtomicBool,
    /// A line that is written over on a terminal; elsewhere, each load has one.
    pub(super) status: &'a StatusLine,
    pub(super) random: Random,
    /// What is filled in: every cell has a load, and an entry for each subject.
    pub(super) record: &'a mut Record,
    /// Loads that were measured, of all rounds.
    pub(super) done: u64,
    /// Whether a server echoed something else than what was sent.
    pub(super) wrong: bool,
}

/// An empty cell for each load.
pub(super) fn cells(subjects: &[Subject], loads: &[Load]) -> Vec<Cell> {
    let entry = |load: &Load, subject: &Subject| Entry {
        model: subject.model().name,
        left_out: subject.excuse(load).map(str::to_owned),
        ..Entry::default()
    };
    let cell = |load: &Load| Cell {
        load: *load,
        entries: subjects.iter().map(|one| entry(load, one)).collect(),
    };
    loads.iter().map(cell).collect()
}

impl Rounds<'_> {
    /// Measures until all rounds are done, or it is stopped.
    ///
    /// # Errors
    /// A failure of our own, which ends it too; what was measured until then is in the record.
    pub(super) fn run(&mut self) -> Result<(), CliError> {
        for round in 0..self.timing.rounds {
            for cell in shuffled(self.record.cells.len(), &mut self.random) {
                self.measure(cell, round)?;
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
            }
            self.record.rounds += 1;
        }
        Ok(())
    }

    /// One load on every model.
    fn measure(&mut self, cell: usize, round: u64) -> Result<(), CliError> {
        let (load, rounds) = (self.record.cells[cell].load, self.timing.rounds);
        let share = self.done as f64 / (rounds * self.record.cells.len() as u64) as f64;
        let (percent, place) = (share * 100.0, round + 1);
        let mut told = Vec::new();
        for model in shuffled(self.subjects.len(), &mut self.random) {
            if self.record.cells[cell].entries[model].left_out.is_some() {
                continue;
            }
            let taken = self.take(model, &load, round)?;
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let entry = &mut self.record.cells[cell].entries[model];
            match taken {
                Ok((sample, latencies)) => {
                    let rate = sample.get(Figure::EchoesPerSecond).unwrap_or(0.0);
                    let text = format!("{} {}/s", entry.model, Figure::EchoesPerSecond.write(rate));
                    let shown = format!("{percent:>3.0} %  {text}  round {place}, {load}");
                    self.status.show(share, &shown);
                    told.push(text);
                    entry.add(sample, &latencies);
                }
                Err(LeftOut { why, wrong }) => {
                    self.wrong |= wrong;
                    let text = format!("{load}: without {}: {why}", entry.model);
                    self.status.tell(&text);
                    self.leave_out(load, model, &why);
                }
            }
        }
        self.done += 1;
        if !self.status.is_on_terminal() {
            let (load, told) = (load.to_string(), told.join("  "));
            let text = format!("round {place} of {rounds}  {load:<36}  {told}");
            self.status.tell(&text);
        }
        Ok(())
    }

    /// One measurement: a server is started, put under one load, and ended.
    ///
    /// # Errors
    /// No measurement was possible, for a reason that is not the model's.
    fn take(&self, model: usize, load: &Load, round: u64) -> Result<Taken, CliError> {
        let server = match self.subjects[model].start(self.processors) {
            Ok(server) => server,
            Err(why) => return Ok(Err(LeftOut { why, wrong: false })),
        };
        let run = self.put_under_load(&server, load)?;
        if let Some(left_out) = refusal(&run, load, server.complaint()) {
            return Ok(Err(left_out));
        }
        let sample = Sample {
            round,
            figures: figures(&run, load),
            not_valid_because: run.validity.invalid,
        };
        Ok(Ok((sample, run.total.service_time)))
    }

    fn put_under_load(&self, server: &Server, load: &Load) -> Result<Run, CliError> {
        let plan = plan(load, self.timing, server.endpoint.clone(), &server.pids());
        // Connections that are not made within this time never will be: a server without room keeps them waiting.
        let limit = Duration::from_secs(6) + Duration::from_millis(1) * load.connections as u32;
        let late = Instant::now() + limit;
        let is_open = cell::Cell::new(load.scenario == Scenario::Churn);
        let is_late = || !is_open.get() && Instant::now() > late;
        let enough = || self.stop.load(Ordering::Relaxed) || is_late();
        measure(plan, &Machines::local(1), &enough, |told| {
            if let Told::Interval(_, total) = told {
                is_open.set(is_open.get() || total.is_open());
            }
        })
    }

    /// A subject that cannot serve a load is not asked for it again, nor for a larger one.
    fn leave_out(&mut self, failed: Load, model: usize, why: &str) {
        for Cell { load, entries } in &mut self.record.cells {
            let is_more = load.scenario == failed.scenario
                && load.size >= failed.size
                && load.connections > failed.connections;
            let entry = &mut entries[model];
            let why = match () {
                () if *load == failed => why.to_owned(),
                () if is_more && entry.left_out.is_none() => {
                    let at = grouped(failed.connections);
                    format!("it failed at {at} already: {why}")
                }
                () => continue,
            };
            (entry.left_out, entry.failed) = (Some(why), true);
        }
    }
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
}
