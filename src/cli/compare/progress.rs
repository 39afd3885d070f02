//! What is seen while a comparison lasts: a status line on a terminal, a line for every load elsewhere.

use super::record::{Figure, Load, Sample};
use crate::cli::status_line::StatusLine;
use std::mem;

/// The progress of a comparison.
pub(super) struct Progress {
    status: StatusLine,
    rounds: u64,
    loads: usize,
    /// Loads that were measured, of all rounds.
    done: u64,
    /// Of the load that is being measured: what each model did.
    line: Vec<String>,
}

impl Progress {
    pub(super) fn new(quiet: bool, rounds: u64, loads: usize) -> Self {
        Self {
            status: StatusLine::new(quiet),
            rounds,
            loads,
            done: 0,
            line: Vec::new(),
        }
    }

    /// Prints a sentence.
    pub(super) fn tell(&self, text: &str) {
        self.status.tell(text);
    }

    pub(super) fn measured(&mut self, load: &Load, model: &str, sample: &Sample) {
        let rate = sample.get(Figure::Throughput).unwrap_or(0.0);
        let line = format!("{model} {}/s", Figure::Throughput.write(rate));
        let (share, round) = (
            self.done as f64 / (self.rounds * self.loads as u64) as f64,
            sample.round + 1,
        );
        let percent = share * 100.0;
        self.status.show(
            share,
            &format!("{percent:>3.0} %  {line}  round {round}, {load}"),
        );
        self.line.push(line);
    }

    /// Every model has had this load.
    pub(super) fn done(&mut self, round: u64, load: &Load) {
        self.done += 1;
        let line = mem::take(&mut self.line).join("  ");
        if !self.status.is_on_terminal() {
            let (round, rounds, load) = (round + 1, self.rounds, load.to_string());
            self.tell(&format!("round {round} of {rounds}  {load:<36}  {line}"));
        }
    }

    pub(super) fn finish(&self) {
        self.status.clear();
    }
}
