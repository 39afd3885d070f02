//! The conformance checker: it judges any echo server from outside, in any language, by rules.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! ```text
//!   rule ──▶ Clients: connections on one reactor, each with a text to send and to compare ──▶ Finding ──▶ Verdict
//!                      │ no byte moves                                               │ broken: twice more
//!                      └──▶ StallTimeout: counts the time in which the server could have moved
//! ```
//!
//! A [`Rule`] is a function that connects, sends and reads, and returns what it found. [`judge`] runs it, repeats it where it
//! is broken, and turns the finding into a [`Verdict`] by the rule's [`Level`].
//!
//! **A correct server must never fail.** Wrong bytes, an early FIN and a reset are facts. Silence is not: the server may wait
//! for a processor. So `stall_timeout` reads from /proc how long the server's threads were runnable without running, and does
//! not count that time; and where the checker itself was late, or has no more descriptors or ports, the verdict is
//! [`Verdict::Unknown`].
//!
//! What may live in this module: clients, rules and their verdicts. What may not: the command line, the formats of reports,
//! and anything of this crate's own server.
//!
//! In reading order: this page, `client`, `clients`, `stall_timeout`, `process`, `datagrams`, `rules` and the files below it.

mod client;
mod clients;
mod datagrams;
mod finding;
mod place;
pub mod process;
mod rule;
mod rules;
mod stall_timeout;

pub use finding::{Broken, Finding, Limit};
pub use place::Transport;
pub use rule::{Effort, Level, Rule, Trial};
pub use rules::{STAGES, all as rules};

use process::Server;
use std::time::{Duration, Instant};

/// What a rule says of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// The rule holds.
    Pass,
    /// A rule of the level SHOULD does not hold.
    Loose,
    /// A rule of the level MUST does not hold.
    Fail,
    /// A rule of the level INFO, with what was seen.
    Info,
    /// The rule does not apply to this server, or this user may not check it.
    Skipped,
    /// The checker's own machine was the limit, so the rule says nothing of the server.
    Unknown,
}

impl Verdict {
    /// All of them, the order of reports.
    pub const ALL: [Self; 6] = [
        Self::Pass,
        Self::Loose,
        Self::Fail,
        Self::Info,
        Self::Skipped,
        Self::Unknown,
    ];

    /// The word that reports use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Loose => "loose",
            Self::Fail => "fail",
            Self::Info => "info",
            Self::Skipped => "skipped",
            Self::Unknown => "unknown",
        }
    }
}

/// The verdict on one rule, with its reasons.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The rule.
    pub rule: &'static Rule,
    /// The rule's name for this kind of address: `unix/...` where the rule is `tcp/...`.
    pub id: String,
    /// The rule's stage for this kind of address.
    pub stage: u8,
    /// The verdict.
    pub verdict: Verdict,
    /// What was seen, or why nothing was: one sentence, which may be empty.
    pub note: String,
    /// What was sent, expected and seen, where the rule does not hold.
    pub broken: Option<Broken>,
    /// How often the rule did not hold, and how often it was tried.
    pub failures: (u32, u32),
    /// How long all tries took.
    pub elapsed: Duration,
}

/// A broken rule is tried this often in all.
const TRIES: u32 = 3;

/// Checks one rule on one server.
pub fn judge(rule: &'static Rule, server: &mut Server, trial: &Trial<'_>) -> Outcome {
    let began = Instant::now();
    let mut outcome = Outcome {
        rule,
        id: rule.id_for(server.endpoint()),
        stage: rule.stage_for(server.endpoint()),
        verdict: Verdict::Pass,
        note: String::new(),
        broken: None,
        failures: (0, 0),
        elapsed: Duration::ZERO,
    };
    if let Some(reason) = rule.inapplicable(server) {
        (outcome.verdict, outcome.note) = (Verdict::Skipped, reason.to_owned());
        return outcome;
    }
    while outcome.failures.1 < TRIES && outcome.failures.0 == outcome.failures.1 {
        let found = attempt(rule, server, trial);
        outcome.failures.1 += 1;
        match found {
            Ok(Finding::Holds(note)) => outcome.note = note,
            Ok(Finding::Told(note)) => (outcome.verdict, outcome.note) = (Verdict::Info, note),
            Ok(Finding::NotRun(note)) => (outcome.verdict, outcome.note) = (Verdict::Skipped, note),
            Ok(Finding::Broken(broken)) => {
                outcome.failures.0 += 1;
                outcome.broken.get_or_insert(broken);
            }
            Err(Limit(reason)) => (outcome.verdict, outcome.note) = (Verdict::Unknown, reason),
        }
    }
    conclude(&mut outcome);
    outcome.elapsed = began.elapsed();
    outcome
}

/// The verdict on a rule that was broken at least once. Silence that a second try did not confirm proves nothing.
fn conclude(outcome: &mut Outcome) {
    let Some(broken) = &outcome.broken else {
        return;
    };
    let (failed, tried) = outcome.failures;
    if failed < tried && broken.is_silence {
        outcome.verdict = Verdict::Unknown;
        outcome.note = format!("{} once, and not when it was tried again", broken.got);
        outcome.broken = None;
        return;
    }
    outcome.verdict = match outcome.rule.level {
        Level::Must => Verdict::Fail,
        Level::Should => Verdict::Loose,
        Level::Info => Verdict::Info,
    };
    outcome.note = format!("{failed} of {tried}");
}

/// One try of a rule. A server that has ended is a finding of every rule, and is started again where that is possible.
fn attempt(rule: &Rule, server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    server.ensure_running()?;
    let found = rule.run(server, trial);
    if let Ok(Finding::Broken(broken)) = &found {
        if !broken.is_silence {
            server.wait_if_ending();
        }
    }
    let Some(ending) = server.unexpected_end() else {
        return found;
    };
    Ok(Finding::Broken(Broken {
        sent: rule.asks.to_owned(),
        expected: "a server that goes on".to_owned(),
        got: format!("the server has ended: {ending}"),
        is_silence: false,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(level: Level, failures: (u32, u32), is_silence: bool) -> Outcome {
        let rule = rules()
            .into_iter()
            .find(|rule| rule.level == level)
            .unwrap();
        let broken = Broken {
            sent: String::new(),
            expected: String::new(),
            got: "nothing".to_owned(),
            is_silence,
        };
        let mut outcome = Outcome {
            rule,
            id: rule.id.to_owned(),
            stage: rule.stage,
            verdict: Verdict::Pass,
            note: String::new(),
            broken: Some(broken),
            failures,
            elapsed: Duration::ZERO,
        };
        conclude(&mut outcome);
        outcome
    }

    #[test]
    fn silence_has_to_be_confirmed_and_wrong_bytes_do_not() {
        assert_eq!(outcome(Level::Must, (1, 2), true).verdict, Verdict::Unknown);
        assert_eq!(outcome(Level::Must, (3, 3), true).verdict, Verdict::Fail);
        assert_eq!(outcome(Level::Must, (1, 2), false).verdict, Verdict::Fail);
        assert_eq!(outcome(Level::Must, (1, 2), false).note, "1 of 2");
    }

    #[test]
    fn only_a_must_fails() {
        assert_eq!(
            outcome(Level::Should, (3, 3), false).verdict,
            Verdict::Loose
        );
        assert_eq!(outcome(Level::Info, (3, 3), false).verdict, Verdict::Info);
    }
}
