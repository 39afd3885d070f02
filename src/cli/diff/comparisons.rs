//! Two records of `compare`: models and loads of one name belong together.

use super::answer::Answer;
use crate::cli::compare::record::{Entry, Figure, Record};
use crate::cli::compare::statistics::{JUDGED, Location, logs};
use std::slice;

pub(super) fn compare(before: &Record, after: &Record) -> Answer {
    let mut answer = Answer::default();
    let place = |record: &Record, name: &str| record.models.iter().position(|one| one.name == name);
    for (was, model) in before.models.iter().enumerate() {
        let name = &model.name;
        match place(after, name) {
            Some(is) => models(&mut answer, name, (before, was), (after, is)),
            None if before.was_measured(was) => {
                answer.worse(name, "missing: it is not in the second record");
            }
            None => {}
        }
    }
    for (is, model) in after.models.iter().enumerate() {
        if place(before, &model.name).is_none() && after.was_measured(is) {
            answer.note(&model.name, "it is in the second record alone");
        }
    }
    answer
}

fn models(answer: &mut Answer, name: &str, before: (&Record, usize), after: (&Record, usize)) {
    let mut common = Vec::new();
    for cell in &before.0.cells {
        let what = format!("{name}: {}", cell.load);
        let was = &cell.entries[before.1];
        let is = after.0.cells.iter().find(|other| other.load == cell.load);
        let is = is.map(|cell| &cell.entries[after.1]);
        match (was.is_whole(), is.filter(|is| is.is_whole())) {
            (true, Some(is)) => common.push((what, [was, is])),
            (true, None) => {
                let unknown = "it is not in the second record";
                let why = is.and_then(|is| is.left_out.as_deref()).unwrap_or(unknown);
                answer.worse(&what, format!("missing: {why}"));
            }
            (false, Some(_)) => answer.note(&what, "only the second record could be measured"),
            (false, None) => {}
        }
    }
    for figure in JUDGED {
        figures(answer, name, &common, figure);
    }
}

/// A figure at each load, and over all of them.
fn figures(answer: &mut Answer, name: &str, common: &[(String, [&Entry; 2])], figure: Figure) {
    let mut all = [Vec::new(), Vec::new()];
    for (what, entries) in common {
        match entries.map(|entry| logs(entry, figure)) {
            [Some(was), Some(is)] => {
                let locations = [&was, &is].map(|logs| Location::of_rounds(slice::from_ref(logs)));
                answer.ask(what, figure, locations);
                all[0].push(was);
                all[1].push(is);
            }
            [Some(_), None] => {
                let text = format!("missing: {} is not known of every round", figure.title());
                answer.worse(what, text);
            }
            [None, _] => {}
        }
    }
    if all[0].len() == common.len() && !common.is_empty() {
        let what = format!("{name}: all loads together");
        answer.ask(&what, figure, all.map(|loads| Location::of_rounds(&loads)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::compare::record::tests::sample;
    use crate::cli::error::Exit;
    use crate::random::Random;

    /// The same record, with another noise, and slower by a factor.
    fn again(record: &Record, slower: f64, random: &mut Random) -> Record {
        let mut record = record.clone();
        for entry in record.cells.iter_mut().flat_map(|cell| &mut cell.entries) {
            let first = entry.samples.first().cloned();
            entry.samples = first
                .into_iter()
                .cycle()
                .take(if entry.samples.is_empty() { 0 } else { 8 })
                .collect();
            for (round, sample) in entry.samples.iter_mut().enumerate() {
                sample.round = round as u64;
                let time = slower * (1.0 + (random.fraction() - 0.5) * 0.03);
                for figure in JUDGED {
                    let factor = if figure.more_is_better() {
                        1.0 / time
                    } else {
                        time
                    };
                    sample.set(figure, sample.get(figure).map(|value| value * factor));
                }
            }
        }
        record
    }

    fn judged(before: &Record, after: &Record) -> (String, Exit) {
        compare(before, after).report(0.05)
    }

    #[test]
    fn the_same_again_is_not_worse_and_a_tenth_less_is() {
        let mut random = Random::new(1);
        let before = again(&sample(), 1.0, &mut random);
        for _ in 0..40 {
            let (text, exit) = judged(&before, &again(&sample(), 1.0, &mut random));
            assert_eq!(exit, Exit::Ok, "{text}");
            assert!(text.contains("\n0 better, "), "{text}");
            let (text, exit) = judged(&before, &again(&sample(), 1.1, &mut random));
            assert_eq!(exit, Exit::Worse, "{text}");
            let (text, exit) = judged(&before, &again(&sample(), 0.9, &mut random));
            assert_eq!(exit, Exit::Ok, "{text}");
            assert!(text.contains("better"));
        }
    }

    #[test]
    fn what_the_second_record_could_not_serve_is_worse_and_is_said_first() {
        let mut random = Random::new(3);
        let before = again(&sample(), 1.0, &mut random);
        let mut failed = again(&sample(), 0.5, &mut random);
        let entry = &mut failed.cells[0].entries[1];
        (entry.failed, entry.left_out) = (true, Some("it ended in round 3".to_owned()));
        let (text, exit) = judged(&before, &failed);
        assert_eq!(exit, Exit::Worse);
        let first = text.lines().next().unwrap();
        assert!(first.contains("missing: it ended in round 3"), "{text}");
        let mut shorter = again(&sample(), 0.5, &mut random);
        shorter.cells.remove(0);
        let (text, exit) = judged(&before, &shorter);
        assert_eq!(exit, Exit::Worse, "{text}");
        let mut fewer = again(&sample(), 0.5, &mut random);
        fewer.models[1].name = "another".to_owned();
        let (text, exit) = judged(&before, &fewer);
        assert_eq!(exit, Exit::Worse, "{text}");
        // A slow round has too few answers for a p99; those that have one are the quick rounds.
        let mut few = again(&sample(), 0.5, &mut random);
        few.cells[0].entries[0].samples[2].set(Figure::P99Ns, None);
        let (text, exit) = judged(&before, &few);
        assert_eq!(exit, Exit::Worse, "{text}");
        assert!(
            text.contains("missing: p99 is not known of every round"),
            "{text}"
        );
    }
}
