//! The report for people: a line for each rule, and for a broken one what was sent, expected and seen, and how to see it.

use super::judged::{self, Judged};
use crate::check::{Outcome, Rule, Verdict};
use std::fmt::Write;

/// The width of the column of names.
const NAME: usize = 34;

/// All rules, one a line.
pub(super) fn list(rules: &[&Rule]) -> String {
    let mut text = String::new();
    for rule in rules {
        let _ = writeln!(
            text,
            "{}  {:<6}  {:<NAME$}  {}",
            rule.stage,
            rule.level.name(),
            rule.id,
            rule.asks
        );
    }
    text
}

pub(super) fn heading(name: &str) -> String {
    format!("{name}\n")
}

/// The line of one rule, and what belongs to it.
pub(super) fn outcome(outcome: &Outcome) -> String {
    let mut text = format!(
        "  {:<7}  {:<NAME$}  {}",
        outcome.verdict.name(),
        outcome.id,
        outcome.note
    );
    text.truncate(text.trim_end().len());
    text.push('\n');
    text + &details(outcome)
}

/// What was sent, expected and seen, where a rule does not hold.
fn details(outcome: &Outcome) -> String {
    let Some(broken) = &outcome.broken else {
        return String::new();
    };
    let rule = outcome.rule;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(
            text,
            "           {name:<9} {}",
            value.replace('\n', "\n                     ")
        );
    };
    line(
        "rule",
        &format!(
            "{}, stage {}: {}",
            rule.level.name(),
            outcome.stage,
            rule.asks
        ),
    );
    line("source", rule.source);
    line("sent", &broken.sent);
    line("expected", &broken.expected);
    line("got", &broken.got);
    line("by hand", rule.by_hand);
    line("guide", rule.guide);
    if !rule.mistakes.is_empty() {
        line("usually", &rule.mistakes.join(", "));
    }
    text
}

/// How many rules have which verdict.
fn counts(outcomes: &[Outcome]) -> String {
    let counts = Verdict::ALL.into_iter().filter_map(|verdict| {
        let count = outcomes
            .iter()
            .filter(|outcome| outcome.verdict == verdict)
            .count();
        (count > 0).then(|| format!("{count} {}", verdict.name()))
    });
    counts.collect::<Vec<_>>().join(", ")
}

pub(super) fn summary(judged: &Judged) -> String {
    format!("{}\n", counts(&judged.outcomes))
}

/// Several servers side by side, then what is broken of each.
pub(super) fn table(judged: &[Judged]) -> String {
    let mut text = String::new();
    for (place, one) in judged.iter().enumerate() {
        let _ = writeln!(text, "[{}] {}", place + 1, one.name);
    }
    let _ = write!(text, "\n{:<NAME$}", "");
    for place in 1..=judged.len() {
        let _ = write!(text, "  {:<7}", format!("[{place}]"));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    for name in judged::names(judged) {
        let _ = write!(text, "{name:<NAME$}");
        for one in judged {
            let verdict = one.outcomes.iter().find(|outcome| outcome.id == name);
            let _ = write!(
                text,
                "  {:<7}",
                verdict.map_or("", |outcome| outcome.verdict.name())
            );
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    for (place, one) in judged.iter().enumerate() {
        let _ = writeln!(text, "\n[{}] {}", place + 1, counts(&one.outcomes));
        for broken in one.outcomes.iter().filter(|one| one.broken.is_some()) {
            text.push_str(&outcome(broken));
        }
    }
    text
}
