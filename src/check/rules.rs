//! All rules, in the order of their stages.
//!
//! One file a group: [`bytes`] (stages 1 and 2), [`closing`] (3), [`many`] (4), [`pressure`] (5), [`abuse`] (6), [`udp`] (7),
//! [`unix`] (8), [`watched`] (9). The rules of the other stages are tried on Unix sockets, too, as rules of stage 8. A rule is a table entry and a function of a
//! few lines: connect, send, wait, judge.

mod abuse;
mod bytes;
mod closing;
mod many;
mod pressure;
mod udp;
mod unix;
mod watched;

use super::rule::Rule;

/// What the stages are about, from stage 1 on.
pub const STAGES: [&str; 9] = [
    "one message, all byte values, nothing added",
    "sizes, single bytes, random cuts",
    "half-close",
    "many clients, silent ones among them",
    "clients that do not read",
    "resets, bursts, pushers, pauses",
    "datagrams",
    "the same on Unix sockets",
    "what is seen of a process that `--command` has started: EMFILE, processor time, memory, SIGTERM",
];

/// All rules, in the order of their stages.
#[must_use]
pub fn all() -> Vec<&'static Rule> {
    let groups = [
        bytes::RULES,
        closing::RULES,
        many::RULES,
        pressure::RULES,
        abuse::RULES,
        udp::RULES,
        unix::RULES,
        watched::RULES,
    ];
    groups.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    #[test]
    fn every_rule_is_complete_and_its_name_is_its_own() {
        let rules = all();
        let names: BTreeSet<&str> = rules.iter().map(|rule| rule.id).collect();
        assert_eq!(names.len(), rules.len(), "no name is used twice");
        assert!(
            rules.windows(2).all(|pair| pair[0].stage <= pair[1].stage),
            "stages in order"
        );
        for rule in rules {
            assert_eq!(rule.id.split('/').count(), 3, "{}", rule.id);
            assert!(
                !rule.source.is_empty() && !rule.by_hand.is_empty() && rule.guide.contains(", "),
                "{}",
                rule.id
            );
            assert!(
                rule.asks.len() < 110 && !rule.asks.ends_with('.'),
                "{}",
                rule.id
            );
        }
    }

    #[test]
    fn the_guide_names_the_stages() {
        let guide = include_str!("../guide/checking.md");
        for (place, subject) in STAGES.iter().enumerate() {
            let row = format!("| {} | {subject} |", place + 1);
            assert!(guide.contains(&row), "{row}");
        }
    }

    #[test]
    fn the_sections_and_the_mistakes_that_rules_name_exist() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for rule in all() {
            let (page, heading) = rule.guide.split_once(", ").unwrap();
            let text = fs::read_to_string(root.join(format!("src/guide/{page}.md"))).unwrap();
            let is_heading = |line: &str| {
                line.starts_with('#') && line.trim_start_matches(['#', ' ']) == heading
            };
            assert!(text.lines().any(is_heading), "{}: {}", rule.id, rule.guide);
            for mistake in rule.mistakes {
                let patch = root.join(format!("tests/mutants/{mistake}.patch"));
                assert!(patch.exists(), "{}: {mistake}", rule.id);
            }
        }
    }
}
