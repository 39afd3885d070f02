//! The report for programs: JSON, JUnit's XML, and TAP. Each is small enough to be written by hand, and a test reads each
//! with a parser of another project.

use super::judged::Judged;
use crate::check::{Outcome, Verdict};
use serde_json::{Value, json};
use std::fmt::Write;

/// The version of the JSON form.
const VERSION: u32 = 1;

pub(super) fn json(judged: &[Judged]) -> String {
    let servers: Vec<Value> = judged
        .iter()
        .map(|one| json!({ "name": one.name, "rules": one.outcomes.iter().map(rule).collect::<Vec<_>>() }))
        .collect();
    format!("{:#}\n", json!({ "check": VERSION, "servers": servers }))
}

pub(super) fn rule(outcome: &Outcome) -> Value {
    let broken = outcome.broken.as_ref();
    json!({
        "id": outcome.id,
        "level": outcome.rule.level.name(),
        "stage": outcome.stage,
        "verdict": outcome.verdict.name(),
        "note": outcome.note,
        "seconds": outcome.elapsed.as_secs_f64(),
        "failures": outcome.failures.0,
        "tries": outcome.failures.1,
        "asks": outcome.rule.asks,
        "source": outcome.rule.source,
        "by_hand": outcome.rule.by_hand,
        "guide": outcome.rule.guide,
        "mistakes": outcome.rule.mistakes,
        "sent": broken.map(|broken| &broken.sent),
        "expected": broken.map(|broken| &broken.expected),
        "got": broken.map(|broken| &broken.got),
    })
}

/// JUnit's form, as build servers read it. A broken MUST is a failure; `unknown` is an error, which is not the server's.
pub(super) fn junit(judged: &[Judged]) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for one in judged {
        let count = |verdict| {
            one.outcomes
                .iter()
                .filter(|outcome| outcome.verdict == verdict)
                .count()
        };
        let seconds: f64 = one
            .outcomes
            .iter()
            .map(|outcome| outcome.elapsed.as_secs_f64())
            .sum();
        let _ = writeln!(
            text,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{seconds:.3}\">",
            xml(&one.name),
            one.outcomes.len(),
            count(Verdict::Fail),
            count(Verdict::Unknown),
            count(Verdict::Skipped),
        );
        for outcome in &one.outcomes {
            text.push_str(&test_case(outcome));
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

fn test_case(outcome: &Outcome) -> String {
    let (group, name) = outcome
        .id
        .rsplit_once('/')
        .unwrap_or(("check", &outcome.id));
    let head = format!(
        "    <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\"",
        xml(&group.replace('/', ".")),
        xml(name),
        outcome.elapsed.as_secs_f64()
    );
    let told = xml(&told(outcome));
    match outcome.verdict {
        Verdict::Pass => format!("{head}/>\n"),
        Verdict::Fail => {
            format!("{head}>\n      <failure message=\"{told}\" type=\"MUST\"/>\n    </testcase>\n")
        }
        Verdict::Unknown => format!(
            "{head}>\n      <error message=\"{told}\" type=\"unknown\"/>\n    </testcase>\n"
        ),
        Verdict::Skipped => {
            format!("{head}>\n      <skipped message=\"{told}\"/>\n    </testcase>\n")
        }
        Verdict::Loose | Verdict::Info => {
            format!(
                "{head}>\n      <system-out>{}: {told}</system-out>\n    </testcase>\n",
                outcome.verdict.name()
            )
        }
    }
}

/// One line on a rule that does not simply pass.
fn told(outcome: &Outcome) -> String {
    match &outcome.broken {
        Some(broken) => {
            format!(
                "sent {}; expected {}; got {} ({})",
                broken.sent, broken.expected, broken.got, outcome.note
            )
        }
        None => outcome.note.clone(),
    }
}

/// Text within XML. Control characters have no place in XML 1.0, not even escaped.
fn xml(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// TAP, version 13, which readers of version 14 take, too. A SHOULD that does not hold is a TODO, which does not fail the run.
pub(super) fn tap(judged: &[Judged]) -> String {
    let total: usize = judged.iter().map(|one| one.outcomes.len()).sum();
    let mut text = format!("TAP version 13\n1..{total}\n");
    let outcomes = judged
        .iter()
        .flat_map(|one| one.outcomes.iter().map(move |outcome| (&one.name, outcome)));
    for (number, (server, outcome)) in outcomes.enumerate() {
        let (ok, directive) = match outcome.verdict {
            Verdict::Pass | Verdict::Info => ("ok", String::new()),
            Verdict::Loose => ("not ok", " # TODO a SHOULD".to_owned()),
            Verdict::Skipped => ("ok", format!(" # SKIP {}", outcome.note)),
            Verdict::Fail | Verdict::Unknown => ("not ok", String::new()),
        };
        let number = number + 1;
        let _ = writeln!(
            text,
            "{ok} {number} - {} of {}{directive}",
            outcome.id,
            server.replace('#', "\\#")
        );
        let told = told(outcome);
        if !told.is_empty() && outcome.verdict != Verdict::Skipped {
            let _ = writeln!(
                text,
                "  ---\n  verdict: {}\n  told: {}\n  ...",
                outcome.verdict.name(),
                json!(told)
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xml_has_no_character_that_xml_forbids() {
        assert_eq!(
            xml("a<b>&\"c\"\u{1b}"),
            "a&lt;b&gt;&amp;&quot;c&quot;\u{fffd}"
        );
    }
}
