//! Sentences from the figures: which model is ahead, where, and by how much; where none is; what was left out, and why.
//!
//! A sentence claims nothing that the record does not. Which model is ahead is not judged here: every [`Ratio`] carries its verdict, and a difference within the
//! noise is called that, whichever way it points.

use super::super::record::{Cell, Figure, Ratio, Record, Scenario, Verdict};
use super::charts::{capital, cells_of, sizes};
use super::figures::{self, connections, number, time, times};
use crate::cli::units::plural;
use std::collections::BTreeMap;

/// What a sentence says of the first model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tone {
    Ahead,
    Behind,
    /// The same, or within the noise.
    Level,
    /// Something that was not measured, or is to be doubted.
    Missing,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sentence {
    pub(super) tone: Tone,
    pub(super) text: String,
}

fn say(tone: Tone, text: String) -> Sentence {
    Sentence { tone, text }
}

/// What one model did against the first, in the order in which it is told.
pub(super) fn about(record: &Record, model: usize) -> Vec<Sentence> {
    let mut sentences = Vec::new();
    for size in sizes(record) {
        let cells = cells_of(record, size);
        let load = format!("With messages of {}", figures::size(size));
        sentences.extend(over_connections(
            record,
            model,
            &cells,
            Figure::Throughput,
            &load,
        ));
    }
    if let Some(&size) = sizes(record).first() {
        let cells = cells_of(record, size);
        let load = format!("With messages of {}", figures::size(size));
        for figure in [Figure::P99, Figure::CpuPerEcho] {
            sentences.extend(over_connections(record, model, &cells, figure, &load));
        }
        sentences.extend(per_connection(record, model, &cells));
        sentences.extend(system_calls(record, model, &cells));
    }
    for scenario in &Scenario::ALL[1..] {
        for cell in record
            .cells
            .iter()
            .filter(|cell| cell.scenario == *scenario)
        {
            sentences.extend(in_cell(record, model, cell));
        }
    }
    sentences
}

fn names(record: &Record, model: usize) -> (&str, &str) {
    (&record.models[0].name, &record.models[model].name)
}

fn tone(verdict: Verdict) -> Tone {
    match verdict {
        // A ratio is that of the other one.
        Verdict::Better => Tone::Behind,
        Verdict::Worse => Tone::Ahead,
        Verdict::Same | Verdict::Noise => Tone::Level,
    }
}

/// One sentence for each verdict that came up, with the numbers of connections at which it did.
fn over_connections(
    record: &Record,
    model: usize,
    cells: &[&Cell],
    figure: Figure,
    load: &str,
) -> Vec<Sentence> {
    let ratios: Vec<(u64, &Ratio)> = (cells.iter())
        .filter_map(|cell| Some((cell.connections, cell.entries[model].ratio(figure)?)))
        .collect();
    let mut sentences = Vec::new();
    for tone_of in [Tone::Ahead, Tone::Behind, Tone::Level] {
        let those: Vec<(u64, &Ratio)> = (ratios.iter().copied())
            .filter(|(_, ratio)| tone(ratio.verdict) == tone_of)
            .collect();
        if those.is_empty() {
            continue;
        }
        let at = places(&those, &ratios, cells);
        let text = match tone_of {
            Tone::Level => level(record, model, figure, &those),
            _ => difference(record, model, figure, tone_of, &those),
        };
        sentences.push(say(tone_of, format!("{load}, {at}, {text}")));
    }
    sentences
}

/// Where: `from 100 connections on` if that is to the last of all, `from 100 to 5,000 connections` if a model stopped
/// there, `up to 10 connections`, or all of them by their numbers. `measured` are those at which both took part.
fn places(those: &[(u64, &Ratio)], measured: &[(u64, &Ratio)], all: &[&Cell]) -> String {
    let (first, last) = (those[0].0, those[those.len() - 1].0);
    let between = measured
        .iter()
        .filter(|(count, _)| (first..=last).contains(count));
    let is_run = between.count() == those.len();
    let is_least = |count| all.iter().all(|cell| cell.connections >= count);
    let is_most = |count| all.iter().all(|cell| cell.connections <= count);
    if those.len() == 1 {
        return format!("at {}", connections(first));
    }
    if !is_run {
        let counts: Vec<String> = (those.iter())
            .map(|(count, _)| number(*count as f64))
            .collect();
        let (others, last) = counts.split_at(counts.len() - 1);
        let (others, last) = (others.join(", "), last.concat());
        return format!("at {others} and {last} connections");
    }
    match (is_least(first), is_most(last)) {
        (false, true) => format!("from {} on", connections(first)),
        (true, false) => format!("up to {}", connections(last)),
        _ => format!("from {} to {}", number(first as f64), connections(last)),
    }
}

/// `reactor answered 1.52 to 1.70 times as many echoes a second as threads`.
fn difference(
    record: &Record,
    model: usize,
    figure: Figure,
    tone: Tone,
    those: &[(u64, &Ratio)],
) -> String {
    let (first, other) = names(record, model);
    // Of a figure of which less is better, the model with more is behind.
    let first_has_more = (tone == Tone::Ahead) == figure.more_is_better();
    let (subject, object) = if first_has_more {
        (first, other)
    } else {
        (other, first)
    };
    let factors = those.iter().map(|(_, ratio)| {
        if first_has_more {
            1.0 / ratio.ratio
        } else {
            ratio.ratio
        }
    });
    let range = range_of(factors);
    match figure {
        Figure::Throughput => {
            format!("{subject} answered {range} times as many echoes a second as {object}.")
        }
        Figure::CpuPerEcho => {
            format!("{subject} spent {range} times as much CPU on an echo as {object}.")
        }
        _ => {
            let figure = figures::name(figure);
            format!("the {figure} of {subject} was {range} times that of {object}.")
        }
    }
}

fn range_of(factors: impl Iterator<Item = f64>) -> String {
    let (mut least, mut most) = (f64::INFINITY, 0.0f64);
    for factor in factors {
        (least, most) = (least.min(factor), most.max(factor));
    }
    match (times(least), times(most)) {
        (least, most) if least == most => least,
        (least, most) => format!("{least} to {most}"),
    }
}

/// The sentence where no model is ahead: it is the same, or it cannot be told.
fn level(record: &Record, model: usize, figure: Figure, those: &[(u64, &Ratio)]) -> String {
    let (first, other) = names(record, model);
    let what = match figure {
        Figure::Throughput => "throughput",
        figure => figures::name(figure),
    };
    let low = those
        .iter()
        .map(|(_, ratio)| ratio.low)
        .fold(f64::INFINITY, f64::min);
    let high = those
        .iter()
        .map(|(_, ratio)| ratio.high)
        .fold(0.0, f64::max);
    let bounds = format!("{} to {} times", times(low), times(high));
    match those
        .iter()
        .all(|(_, ratio)| ratio.verdict == Verdict::Same)
    {
        true => format!(
            "there is no difference in {what} that matters: {other} had {bounds} that of {first}."
        ),
        false => format!(
            "a difference in {what} is within the noise: {other} had {bounds} that of {first}."
        ),
    }
}

/// Memory that a connection takes, at the most connections that both held.
fn per_connection(record: &Record, model: usize, cells: &[&Cell]) -> Option<Sentence> {
    let (first, other) = names(record, model);
    let figure = Figure::RssPerConnection;
    let both = |cell: &&&Cell| {
        let ours = cell.entries[0].median(figure)?;
        Some((cell.connections, ours, cell.entries[model].median(figure)?))
    };
    let (count, ours, theirs) = cells
        .iter()
        .rev()
        .find_map(|cell| both(&cell))
        .filter(|(count, ..)| *count >= 100)?;
    let what = |bytes: f64| {
        if bytes < 1.0 {
            "less than a byte that could be seen".to_owned()
        } else {
            figures::memory(bytes)
        }
    };
    let text = format!(
        "At {}, each of them took {} of memory from {other} and {} from {first}",
        connections(count),
        what(theirs),
        what(ours)
    );
    let (tone, text) = match (ours.max(1.0), theirs.max(1.0)) {
        (ours, theirs) if theirs > ours * 1.1 => (
            Tone::Ahead,
            format!("{text}: {} times as much.", times(theirs / ours)),
        ),
        (ours, theirs) if ours > theirs * 1.1 => (
            Tone::Behind,
            format!(
                "{text}: {} has {} times as much.",
                first,
                times(ours / theirs)
            ),
        ),
        _ => (Tone::Level, format!("{text}.")),
    };
    Some(say(tone, text))
}

/// System calls are counted, not measured: their sentence needs no interval. At the fewest and the most connections, that
/// is; between them it is something between.
fn system_calls(record: &Record, model: usize, cells: &[&Cell]) -> Vec<Sentence> {
    let (first, other) = names(record, model);
    let both = |cell: &&Cell| {
        let calls = |of: usize| Some(cell.entries[of].system_calls.as_ref()?.per_echo);
        Some((cell.connections, calls(0)?, calls(model)?))
    };
    let sentence = |(count, ours, theirs): (u64, f64, f64)| {
        let text = format!(
            "At {}, an echo took {first} {} system calls and {other} {}.",
            connections(count),
            number(ours),
            number(theirs)
        );
        let tone = match theirs - ours {
            more if more > 0.05 => Tone::Ahead,
            less if less < -0.05 => Tone::Behind,
            _ => Tone::Level,
        };
        say(tone, text)
    };
    let counted: Vec<_> = cells.iter().filter_map(both).collect();
    let ends = [
        counted.first(),
        counted.last().filter(|_| counted.len() > 1),
    ];
    ends.into_iter().flatten().copied().map(sentence).collect()
}

/// The sentences that most people come for: of the model that the headlines are about, throughput with the smallest
/// messages, and memory.
pub(super) fn in_short(record: &Record) -> Vec<Sentence> {
    let (Some(&size), Some(model)) = (sizes(record).first(), rival(record)) else {
        return Vec::new();
    };
    let cells = cells_of(record, size);
    let load = format!("With messages of {}", figures::size(size));
    let mut said = over_connections(record, model, &cells, Figure::Throughput, &load);
    said.extend(per_connection(record, model, &cells));
    said
}

/// Throughput and p99 in a cell of another scenario.
fn in_cell(record: &Record, model: usize, cell: &Cell) -> Option<Sentence> {
    let entry = &cell.entries[model];
    let ratio = entry.ratio(Figure::Throughput)?;
    let load = format!(
        "{}, {}, {}",
        figures::load(cell.scenario),
        connections(cell.connections),
        figures::size(cell.size)
    );
    let mut text = match tone(ratio.verdict) {
        Tone::Level => level(
            record,
            model,
            Figure::Throughput,
            &[(cell.connections, ratio)],
        ),
        tone => difference(
            record,
            model,
            Figure::Throughput,
            tone,
            &[(cell.connections, ratio)],
        ),
    };
    if let (Some(ours), Some(theirs)) = (
        cell.entries[0].median(Figure::P99),
        entry.median(Figure::P99),
    ) {
        let (first, other) = names(record, model);
        text.push_str(&format!(
            " The p99: {} of {first}, {} of {other}.",
            time(ours),
            time(theirs)
        ));
    }
    Some(say(
        tone(ratio.verdict),
        format!("{}: {text}", capital(&load)),
    ))
}

/// What was left out and why, and what is to be doubted and why.
pub(super) fn missing(record: &Record) -> Vec<Sentence> {
    let mut sentences = Vec::new();
    for (place, model) in record.models.iter().enumerate() {
        // The same reason is told once, with all the loads that it kept the model from.
        let mut reasons: BTreeMap<&str, Vec<&Cell>> = BTreeMap::new();
        for cell in &record.cells {
            if let Some(reason) = &cell.entries[place].left_out {
                reasons.entry(reason).or_default().push(cell);
            }
        }
        for (reason, cells) in reasons {
            let text = format!(
                "{} was left out of {}: {reason}.",
                model.name,
                loads_of(&cells)
            );
            sentences.push(say(Tone::Missing, text));
        }
        sentences.extend(doubts(record, place));
    }
    if record.interrupted {
        let text =
            "The comparison was ended before its time: what follows is what there was by then."
                .to_owned();
        sentences.push(say(Tone::Missing, text));
    }
    let notes = record.notes.iter().map(|note| {
        let end = if note.ends_with('.') { "" } else { "." };
        say(Tone::Missing, format!("{}{end}", capital(note)))
    });
    sentences.extend(notes);
    sentences
}

/// Measurements that are not to be believed, and the first reason of each kind: two that differ in a figure alone are one.
fn doubts(record: &Record, place: usize) -> Vec<Sentence> {
    let mut kinds: BTreeMap<String, (usize, &str)> = BTreeMap::new();
    let entries = record.cells.iter().map(|cell| &cell.entries[place]);
    for reason in entries
        .flat_map(|entry| &entry.samples)
        .flat_map(|sample| &sample.invalid)
    {
        let kind: String = reason
            .chars()
            .filter(|c| !c.is_ascii_digit() && *c != '.')
            .collect();
        kinds.entry(kind).or_insert((0, reason)).0 += 1;
    }
    let sentence = |(count, reason): (usize, &str)| {
        let text = match count {
            1 => format!(
                "1 measurement of {} is in doubt, because {reason}.",
                record.models[place].name
            ),
            _ => format!(
                "{count} measurements of {} are in doubt, the first of them because {reason}.",
                record.models[place].name
            ),
        };
        say(Tone::Missing, text)
    };
    kinds.into_values().map(sentence).collect()
}

/// A warning where so many measurements are in doubt that the whole is: one in ten.
pub(super) fn warning(record: &Record) -> Option<String> {
    let samples = || {
        record
            .cells
            .iter()
            .flat_map(|cell| &cell.entries)
            .flat_map(|entry| &entry.samples)
    };
    let doubted = samples().filter(|sample| !sample.invalid.is_empty());
    let (all, doubtful) = (samples().count(), doubted.clone().count());
    let reason = doubted.flat_map(|sample| &sample.invalid).next()?;
    (doubtful * 10 >= all).then(|| {
        format!(
            "{doubtful} of {} are in doubt, the first of them because {reason}.",
            plural(all as u64, "measurement")
        )
    })
}

/// `request-response (10 to 10k connections; 64 B, 4 KiB), churn (100 connections; 64 B)`.
fn loads_of(cells: &[&Cell]) -> String {
    let mut texts = Vec::new();
    for scenario in Scenario::ALL {
        let those: Vec<&&Cell> = cells
            .iter()
            .filter(|cell| cell.scenario == scenario)
            .collect();
        let counts = those.iter().map(|cell| cell.connections);
        let (Some(least), Some(most)) = (counts.clone().min(), counts.max()) else {
            continue;
        };
        let mut sizes: Vec<u64> = those.iter().map(|cell| cell.size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let sizes: Vec<String> = sizes.into_iter().map(figures::size).collect();
        let counts = match least == most {
            true => connections(least),
            false => format!("{} to {}", number(least as f64), connections(most)),
        };
        texts.push(format!(
            "{} ({counts}; {})",
            figures::load(scenario),
            sizes.join(", ")
        ));
    }
    texts.join(", ")
}

/// The few figures that stand at the top, large: the first model against the next model that it can be compared
/// with, whichever way they point.
pub(super) fn headlines(record: &Record) -> Vec<(String, String)> {
    let Some(&size) = sizes(record).first() else {
        return Vec::new();
    };
    let Some(model) = rival(record) else {
        return Vec::new();
    };
    let cells = cells_of(record, size);
    let (first, other) = names(record, model);
    let ratio = |cell: &&Cell| {
        Some((
            cell.connections,
            *cell.entries[model].ratio(Figure::Throughput)?,
        ))
    };
    let ratios: Vec<(u64, Ratio)> = cells.iter().filter_map(ratio).collect();
    let mut tiles = Vec::new();
    let ends = [ratios.first(), ratios.last().filter(|_| ratios.len() > 1)];
    for (count, ratio) in ends.into_iter().flatten() {
        let what = format!("the throughput of {other} at {}", connections(*count));
        tiles.push(match ratio.verdict {
            Verdict::Noise => (
                "≈".to_owned(),
                format!("{what}: a difference is within the noise"),
            ),
            Verdict::Same => (
                "=".to_owned(),
                format!("{what}: no difference that matters"),
            ),
            _ => (format!("{}×", times(1.0 / ratio.ratio)), what),
        });
    }
    let memory = cells.iter().rev().find_map(|cell| {
        let of = |model: usize| cell.entries[model].median(Figure::RssPerConnection);
        Some((cell.connections, of(0)?, of(model)?))
    });
    if let Some((count, ours, theirs)) = memory.filter(|(count, ..)| *count >= 100) {
        let text = format!(
            "of memory for a connection, {} in {other}; {} open",
            figures::memory(theirs.max(0.0)),
            number(count as f64)
        );
        tiles.push((figures::memory(ours.max(0.0)), text));
    }
    let calls = cells
        .iter()
        .rev()
        .find_map(|cell| Some((cell.connections, cell.entries[0].system_calls.as_ref()?)));
    if let Some((count, calls)) = calls {
        tiles.push((
            number(calls.per_echo),
            format!("system calls an echo of {first}, at {}", connections(count)),
        ));
    }
    tiles
}

/// The subject of the headlines: the model that took part in the most loads beside the first.
fn rival(record: &Record) -> Option<usize> {
    let took_part = |model: usize| {
        let cells = record.cells.iter();
        cells
            .filter(|cell| cell.entries[model].ratio(Figure::Throughput).is_some())
            .count()
    };
    let threads = record
        .models
        .iter()
        .position(|model| model.name == "threads");
    let most = (1..record.models.len()).max_by_key(|&model| (took_part(model), usize::MAX - model));
    threads
        .filter(|&model| model > 0)
        .or(most)
        .filter(|&model| took_part(model) > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::compare::record::tests::sample;

    /// The sample, with every throughput ratio of `threads` as `change` makes it.
    fn with(change: impl Fn(u64, &mut Ratio)) -> (Record, usize) {
        let mut record = sample();
        let threads = record
            .models
            .iter()
            .position(|model| model.name == "threads")
            .unwrap();
        for cell in &mut record.cells {
            let ratios = cell.entries[threads].ratios.iter_mut();
            for ratio in ratios.filter(|ratio| ratio.figure == Figure::Throughput) {
                change(cell.connections, ratio);
            }
        }
        (record, threads)
    }

    fn throughput(record: &Record, model: usize) -> Vec<Sentence> {
        let about = about(record, model).into_iter();
        about
            .filter(|sentence| {
                sentence.text.contains("echoes a second") || sentence.text.contains("throughput")
            })
            .collect()
    }

    #[test]
    fn threads_that_win_are_said_to_win() {
        let (record, threads) = with(|_, ratio| {
            (ratio.ratio, ratio.low, ratio.high) = (1.25, 1.2, 1.3);
            ratio.verdict = Verdict::Better;
        });
        for sentence in throughput(&record, threads) {
            assert_eq!(sentence.tone, Tone::Behind, "{sentence:?}");
            assert!(
                sentence
                    .text
                    .contains("threads answered 1.25 times as many echoes a second as reactor"),
                "{sentence:?}"
            );
        }
        let tiles = headlines(&record);
        assert_eq!(tiles[0].0, "0.80×", "{tiles:?}");
    }

    #[test]
    fn threads_that_lose_are_said_to_lose_from_there_on() {
        let (record, threads) = with(|connections, ratio| {
            let worse = connections >= 100;
            ratio.ratio = if worse { 0.5 } else { 1.1 };
            ratio.verdict = if worse {
                Verdict::Worse
            } else {
                Verdict::Better
            };
        });
        let sentences = throughput(&record, threads);
        let says = |tone: Tone, words: &str| {
            sentences
                .iter()
                .any(|s| s.tone == tone && s.text.contains(words))
        };
        assert!(
            says(Tone::Ahead, "from 100 connections on"),
            "{sentences:?}"
        );
        assert!(
            says(Tone::Ahead, "reactor answered 2.0 times as many"),
            "{sentences:?}"
        );
        assert!(
            says(Tone::Behind, "threads answered 1.10 times as many"),
            "{sentences:?}"
        );
    }

    #[test]
    fn noise_is_called_noise_whichever_way_it_points() {
        for middle in [0.9, 1.1] {
            let (record, threads) = with(|_, ratio| {
                (ratio.ratio, ratio.low, ratio.high) = (middle, 0.8, 1.2);
                ratio.verdict = Verdict::Noise;
            });
            for sentence in throughput(&record, threads) {
                assert_eq!(sentence.tone, Tone::Level);
                assert!(
                    sentence
                        .text
                        .contains("within the noise: threads had 0.80 to 1.20 times"),
                    "{sentence:?}"
                );
            }
            assert_eq!(headlines(&record)[0].0, "≈");
        }
    }

    #[test]
    fn of_a_latency_less_is_better() {
        let mut record = sample();
        for cell in &mut record.cells {
            for ratio in cell.entries[1]
                .ratios
                .iter_mut()
                .filter(|ratio| ratio.figure == Figure::P99)
            {
                (ratio.ratio, ratio.verdict) = (4.0, Verdict::Worse);
            }
        }
        let about = about(&record, 1);
        let sentence = about
            .iter()
            .find(|s| s.text.contains("the p99 of"))
            .unwrap();
        assert_eq!(sentence.tone, Tone::Ahead);
        assert!(
            sentence
                .text
                .contains("the p99 of threads was 4.0 times that of reactor"),
            "{sentence:?}"
        );
    }

    #[test]
    fn what_was_left_out_is_told_once_with_its_reason() {
        let record = sample();
        let missing = missing(&record);
        let all: Vec<&str> = missing.iter().map(|s| s.text.as_str()).collect();
        let reasons: Vec<&String> = record
            .cells
            .iter()
            .flat_map(|c| &c.entries)
            .filter_map(|e| e.left_out.as_ref())
            .collect();
        assert!(!reasons.is_empty());
        for reason in reasons {
            assert!(
                all.iter().any(|text| text.contains(reason.as_str())),
                "{reason}"
            );
        }
        let doubted = "5 measurements of asyncio are in doubt, the first of them because the generator was kept";
        assert!(all.iter().any(|text| text.starts_with(doubted)), "{all:?}");
        assert!(all.iter().any(|text| text.starts_with("Invented figures")));
    }

    #[test]
    fn where_much_is_in_doubt_a_warning_says_so_once() {
        let mut record = sample();
        assert_eq!(warning(&record), None, "a few are no reason to doubt all");
        let entries = record.cells.iter_mut().flat_map(|cell| &mut cell.entries);
        for (place, sample) in entries.flat_map(|entry| &mut entry.samples).enumerate() {
            sample.invalid = vec![format!("it was late by {place}.5 ms")];
        }
        assert!(
            warning(&record)
                .unwrap()
                .contains("because it was late by 0.5 ms")
        );
        let of_threads = doubts(&record, 1);
        assert_eq!(of_threads.len(), 1, "{of_threads:?}");
    }

    #[test]
    fn a_model_that_never_took_part_has_no_sentences_and_no_headline() {
        let mut record = sample();
        for cell in &mut record.cells {
            cell.entries[1..]
                .iter_mut()
                .for_each(|entry| *entry = Default::default());
        }
        assert_eq!(about(&record, 1), []);
        assert!(headlines(&record).is_empty());
        record.cells.clear();
        assert!(headlines(&record).is_empty() && about(&record, 1).is_empty());
    }
}
