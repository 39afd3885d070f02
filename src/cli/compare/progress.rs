//! What is seen while a comparison lasts: a bar on a terminal, a line for every load elsewhere. Both go to standard
//! error, so that the report alone is on standard output.

use super::record::{Figure, Sample};
use super::text::{count, load_name};
use super::workloads::Load;
use crate::cli::logging::print_line;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal};

/// The progress on standard error while a comparison lasts.
pub(super) struct Progress {
    quiet: bool,
    bar: Option<ProgressBar>,
    models: Vec<String>,
    rounds: u64,
    /// Of the load that is being measured: what each model did.
    line: Vec<String>,
}

impl Progress {
    pub(super) fn new(quiet: bool, models: Vec<String>, rounds: u64, loads: usize) -> Self {
        let bar = (!quiet && io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(rounds * loads as u64);
            // The template is ours, and a mistake in it shows at once; without it the bar has its own form.
            let template = "{elapsed:>4} {bar:10} {percent:>3} %, {eta} left  {wide_msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar
        });
        Self {
            quiet,
            bar,
            models,
            rounds,
            line: Vec::new(),
        }
    }

    /// A sentence, whatever else is on the terminal.
    pub(super) fn tell(&self, text: &str) {
        match &self.bar {
            _ if self.quiet => {}
            Some(bar) => bar.suspend(|| print_line(text)),
            None => print_line(text),
        }
    }

    pub(super) fn measured(&mut self, round: u64, load: &Load, model: usize, sample: &Sample) {
        let rate = sample.get(Figure::Throughput).unwrap_or(0.0);
        let line = format!("{} {}/s", self.models[model], count(rate));
        if let Some(bar) = &self.bar {
            let round = round + 1;
            let name = load_name(load.scenario, load.connections as u64, load.size as u64);
            bar.set_message(format!("{line}  round {round}, {name}"));
        }
        self.line.push(line);
    }

    pub(super) fn left_out(&mut self, load: &Load, model: usize, why: &str) {
        let name = load_name(load.scenario, load.connections as u64, load.size as u64);
        self.tell(&format!("{name}: without {}: {why}", self.models[model]));
    }

    /// Every model has had this load.
    pub(super) fn done(&mut self, round: u64, load: &Load) {
        let line = std::mem::take(&mut self.line).join("  ");
        match &self.bar {
            Some(bar) => bar.inc(1),
            None => {
                let name = load_name(load.scenario, load.connections as u64, load.size as u64);
                let round = format!("round {} of {}", round + 1, self.rounds);
                self.tell(&format!("{round}  {name:<36}  {line}"));
            }
        }
    }

    /// The rounds are over, and system calls are counted.
    pub(super) fn counting(&self) {
        match &self.bar {
            Some(bar) => bar.set_message("counting system calls"),
            None => self.tell("counting system calls"),
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
