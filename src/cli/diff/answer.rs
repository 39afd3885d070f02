//! The answer of `diff`: what is missing, and the ratios of figures that both records have.

use crate::cli::compare::record::{Figure, Verdict};
use crate::cli::compare::statistics::{Location, error_of_one};
use crate::cli::error::Exit;
use std::fmt::Display;

/// All that there is to say of two records.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// A line for each fact that needs no statistics.
    findings: String,
    /// How many of them make the second record worse.
    worse: usize,
    questions: Vec<Question>,
}

/// A model at a load, or a run; a figure of both records; where it lies in each, `None` if that is too little to tell.
type Question = (String, Figure, [Option<Location>; 2]);

impl Answer {
    /// Notes what makes the second record worse.
    pub(super) fn worse(&mut self, what: &str, text: impl Display) {
        self.worse += 1;
        self.note(what, text);
    }

    /// Notes what is good to know.
    pub(super) fn note(&mut self, what: &str, text: impl Display) {
        self.findings.push_str(&format!("{what:<48} {text}\n"));
    }

    /// Asks for the ratio of a figure, of which is known where it lies before and after.
    pub(super) fn ask(&mut self, what: &str, figure: Figure, locations: [Option<Location>; 2]) {
        self.questions.push((what.to_owned(), figure, locations));
    }

    /// Whether nothing was found, and nothing can be asked.
    pub(super) fn is_empty(&self) -> bool {
        self.questions.is_empty() && self.worse == 0
    }

    /// The findings, a line for each question, how many said what, and the exit code.
    pub(super) fn report(&self, tolerance: f64) -> (String, Exit) {
        let (mut out, mut verdicts) = (self.findings.clone(), Vec::new());
        let error = error_of_one(self.questions.len());
        for (what, figure, [before, after]) in &self.questions {
            let margin = 1.0 + tolerance * if *figure == Figure::P99Ns { 2.0 } else { 1.0 };
            let both = before.zip(*after);
            let ratio = both.map(|(before, after)| after.ratio_to(&before, *figure, margin, error));
            let words = ratio.map_or("too little to tell".to_owned(), |ratio| ratio.to_string());
            let figure = figure.title();
            out.push_str(&format!("{what:<48} {figure:<14} {words}\n"));
            verdicts.extend(ratio.map(|ratio| ratio.verdict));
        }
        let count = |verdict: Verdict| verdicts.iter().filter(|&&one| one == verdict).count();
        let all = [
            Verdict::Better,
            Verdict::Same,
            Verdict::Worse,
            Verdict::Noise,
        ];
        let counts = all.map(|verdict| format!("{} {verdict}", count(verdict)));
        let missing = match self.worse {
            0 => String::new(),
            worse => format!("; {worse} missing or lost, which is worse"),
        };
        out.push_str(&format!("\n{}{missing}\n", counts.join(", ")));
        match count(Verdict::Worse) + self.worse {
            0 => (out, Exit::Ok),
            _ => (out, Exit::Worse),
        }
    }
}
