//! The answer of `diff`: what is missing, and the ratios of figures that both records have.

use crate::cli::compare::record::{Figure, Ratio, Verdict};
use crate::cli::compare::statistics::{Location, error_of_one, ratio};
use crate::cli::error::Exit;
use std::fmt::{Display, Write};

/// All that there is to say of two records.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// A line for each fact that needs no statistics.
    findings: Vec<String>,
    /// How many of them make the second record worse.
    worse: usize,
    questions: Vec<Question>,
}

/// A figure of both records: where it lies in each, `None` if that is too little to tell.
#[derive(Debug)]
struct Question {
    /// A model at a load, or a run.
    what: String,
    figure: Figure,
    /// In the one before, and in the one after.
    locations: [Option<Location>; 2],
}

impl Answer {
    /// Notes what makes the second record worse.
    pub(super) fn worse(&mut self, what: &str, text: impl Display) {
        self.worse += 1;
        self.note(what, text);
    }

    /// Notes what is good to know.
    pub(super) fn note(&mut self, what: &str, text: impl Display) {
        self.findings.push(format!("{what:<48} {text}\n"));
    }

    /// Asks for the ratio of a figure.
    pub(super) fn ask(&mut self, what: &str, figure: Figure, locations: [Option<Location>; 2]) {
        let what = what.to_owned();
        self.questions.push(Question {
            what,
            figure,
            locations,
        });
    }

    /// Whether nothing was found, and nothing can be asked.
    pub(super) fn is_empty(&self) -> bool {
        self.questions.is_empty() && self.worse == 0
    }

    /// The findings, a line for each question, how many said what, and the exit code.
    pub(super) fn report(&self, tolerance: f64) -> (String, Exit) {
        let mut out = self.findings.concat();
        let mut verdicts = Vec::new();
        for question in &self.questions {
            let told = self.ratio(question, tolerance);
            let words = told.map_or("too little to tell".to_owned(), |ratio| ratio.to_string());
            let (what, figure) = (&question.what, question.figure.title());
            let _ = writeln!(out, "{what:<48} {figure:<14} {words}");
            verdicts.extend(told.map(|ratio| ratio.verdict));
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
        let _ = writeln!(out, "\n{}{missing}", counts.join(", "));
        match count(Verdict::Worse) + self.worse {
            0 => (out, Exit::Ok),
            _ => (out, Exit::Worse),
        }
    }

    fn ratio(&self, question: &Question, tolerance: f64) -> Option<Ratio> {
        let (error, [before, after]) = (error_of_one(self.questions.len()), question.locations);
        let estimate = after?.difference(&before?, error);
        let factor = match question.figure {
            Figure::P99 => 2.0,
            _ => 1.0,
        };
        Some(ratio(question.figure, estimate, 1.0 + tolerance * factor))
    }
}
