//! What is seen while a comparison lasts: a status line on a terminal, a line for every load elsewhere. Both go to standard
//! error, so that the report alone is on standard output.

use super::record::{Figure, Load, Sample};
use crate::cli::logging::print_line;
use crate::cli::status_line::StatusLine;

/// The progress on standard error while a comparison lasts.
pub(super) struct Progress {
    quiet: bool,
    status: Option<StatusLine>,
    models: Vec<String>,
    rounds: u64,
    loads: usize,
    /// Loads that were measured, of all rounds.
    done: u64,
    /// Of the load that is being measured: what each model did.
    line: Vec<String>,
}

impl Progress {
    pub(super) fn new(quiet: bool, models: Vec<String>, rounds: u64, loads: usize) -> Self {
        Self {
            quiet,
            status: StatusLine::on_terminal().filter(|_| !quiet),
            models,
            rounds,
            loads,
            done: 0,
            line: Vec::new(),
        }
    }

    /// Prints a sentence above the status line.
    pub(super) fn tell(&self, text: &str) {
        match &self.status {
            _ if self.quiet => {}
            Some(status) => status.print_above(text),
            None => print_line(text),
        }
    }

    pub(super) fn measured(&mut self, round: u64, load: &Load, model: usize, sample: &Sample) {
        let rate = sample.get(Figure::Throughput).unwrap_or(0.0);
        let line = format!(
            "{} {}/s",
            self.models[model],
            Figure::Throughput.write(rate)
        );
        if let Some(status) = &self.status {
            let share = self.done as f64 / (self.rounds * self.loads as u64) as f64;
            let text = format!(
                "{:>3.0} %  {line}  round {}, {load}",
                share * 100.0,
                round + 1
            );
            status.show(share, &text);
        }
        self.line.push(line);
    }

    pub(super) fn left_out(&mut self, load: &Load, model: usize, why: &str) {
        self.tell(&format!("{load}: without {}: {why}", self.models[model]));
    }

    /// Every model has had this load.
    pub(super) fn done(&mut self, round: u64, load: &Load) {
        self.done += 1;
        let line = std::mem::take(&mut self.line).join("  ");
        if self.status.is_none() {
            let (round, load) = (round + 1, load.to_string());
            self.tell(&format!(
                "round {round} of {}  {load:<36}  {line}",
                self.rounds
            ));
        }
    }

    pub(super) fn finish(&self) {
        if let Some(status) = &self.status {
            status.clear();
        }
    }
}
