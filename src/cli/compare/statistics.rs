//! What the figures allow to say: ratios with their intervals, and the words for them.
//!
//! Statistics of logarithms, whatever the numbers stand for.
//!
//! - **Logarithms**, since a ratio is what is asked for: twice as fast and half as fast are then equally far from the same,
//!   and what disturbs a measurement (another process, a slower minute) multiplies.
//! - **Pairs**, since two servers that are measured one right after the other share the minute. What they share cancels.
//! - **Student's t** over the rounds: few rounds have a wide interval, as they should.
//! - **Many questions.** A hundred questions with 5 % of error each have five wrong answers. All intervals of a report are so
//!   wide that with 95 % *none* of them is wrong (Bonferroni): half of the error is for the cells, half for the summary.
//! - **A margin**, since with enough rounds every difference is significant, and one of a percent is no news. Better or worse
//!   is what lies wholly outside of it, the same what lies wholly within; what is left is within the noise.
//!
//! The road not taken: to look at the seconds inside one measurement as if they were many. They agree with each other and
//! not with the next process that is started.

use super::record::{Entry, Figure, Ratio, Record, Verdict};
use distrs::StudentsT;
use std::collections::BTreeMap;

/// The error probability of a whole report, over all of its intervals.
const ERROR: f64 = 0.05;
/// With fewer rounds than this no interval is computed.
const ROUNDS_MIN: usize = 3;
/// What is compared.
pub(in crate::cli) const JUDGED: [Figure; 3] =
    [Figure::EchoesPerSecond, Figure::P99Ns, Figure::CpuNsPerEcho];

/// The largest difference that does not matter: 2 %; of the tail, which is an extreme value and jumps, 10 %.
fn margin(figure: Figure) -> f64 {
    if figure == Figure::P99Ns { 1.10 } else { 1.02 }
}

/// The error probability of one interval of so many, of which half of the error is for.
pub(in crate::cli) fn error_of_one(intervals: usize) -> f64 {
    ERROR / 2.0 / intervals.max(1) as f64
}

/// Logarithms of a figure, by round.
pub(in crate::cli) type Logs = BTreeMap<u64, f64>;

/// Puts the spreads into every entry, a ratio into every entry but those of the first model, and a summary into its model.
pub(super) fn judge(record: &mut Record) {
    let entries = record.cells.iter_mut().flat_map(|cell| &mut cell.entries);
    entries.for_each(Entry::summarize);
    let (mut questions, mut summaries) = (Vec::new(), Vec::new());
    for model in 1..record.models.len() {
        for figure in JUDGED {
            for (place, cell) in record.cells.iter().enumerate() {
                let pair = pair(&cell.entries[0], &cell.entries[model], figure);
                let series = Location::of_rounds(pair.as_slice());
                questions.extend(series.map(|series| (place, model, figure, series)));
            }
            let series = Location::of_rounds(&overall(record, model, figure));
            summaries.push((model, figure, series));
        }
    }
    let error = error_of_one(questions.len());
    for (place, model, figure, series) in questions {
        let ratio = series.ratio(figure, margin(figure), error);
        record.cells[place].entries[model].ratios.push(ratio);
    }
    let error = error_of_one(summaries.len());
    for (model, figure, series) in summaries {
        let ratio = series.map(|series| series.ratio(figure, margin(figure), error));
        record.models[model].overall.extend(ratio);
    }
}

/// The ratios of one model to the first, of each round the mean over all cells in which both took part to the end. None of
/// a figure that one of these cells lacks: a mean over the rest would leave out the slowest.
fn overall(record: &Record, model: usize, figure: Figure) -> Vec<Logs> {
    let both = (record.cells.iter()).map(|cell| (&cell.entries[0], &cell.entries[model]));
    let both = both.filter(|(first, other)| first.is_whole() && other.is_whole());
    let pairs = both.map(|(first, other)| pair(first, other, figure));
    pairs.collect::<Option<_>>().unwrap_or_default()
}

/// The logarithms of the ratios of a figure, of the rounds that both have.
fn pair(first: &Entry, other: &Entry, figure: Figure) -> Option<Logs> {
    let (first, other) = (logs(first, figure)?, logs(other, figure)?);
    let ratio = |(round, log): (u64, f64)| Some((round, log - first.get(&round)?));
    Some(other.into_iter().filter_map(ratio).collect())
}

/// The logarithms of a figure. `None` if the load was not served to the end, or if a round lacks the figure, as a slow
/// round lacks the p99: what is left would be the good rounds.
pub(in crate::cli) fn logs(entry: &Entry, figure: Figure) -> Option<Logs> {
    let log = |value: f64| (value > 0.0).then(|| value.ln());
    let rounds = entry.samples.iter();
    let rounds = rounds.map(|one| Some((one.round, one.get(figure).and_then(log)?)));
    rounds.collect::<Option<_>>().filter(|_| entry.is_whole())
}

/// A ratio and its word, of a mean of logarithms, and of how far the truth may be from it.
fn ratio(figure: Figure, mean: f64, reach: f64, margin: f64) -> Ratio {
    let (low, high) = ((mean - reach).exp(), (mean + reach).exp());
    let (more, less) = match figure.more_is_better() {
        true => (Verdict::Better, Verdict::Worse),
        false => (Verdict::Worse, Verdict::Better),
    };
    let verdict = match () {
        () if low > margin => more,
        () if high < 1.0 / margin => less,
        () if low >= 1.0 / margin && high <= margin => Verdict::Same,
        () => Verdict::Noise,
    };
    Ratio {
        figure,
        ratio: mean.exp(),
        low,
        high,
        verdict,
    }
}

/// Where the samples of a series lie, as a logarithm, and how much one of them varies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::cli) struct Location {
    mean: f64,
    variance: f64,
    /// As how many independent samples they count.
    count: f64,
}

impl Location {
    /// Of logarithms: their mean is the logarithm of the geometric mean. `None` of too few.
    pub(in crate::cli) fn of_logs(logs: &[f64], count: f64) -> Option<Self> {
        (logs.len() >= ROUNDS_MIN && count >= 2.0).then(|| Self {
            mean: mean(logs),
            variance: variance(logs),
            count,
        })
    }

    /// Of each round the mean over all loads. A round counts if it has every load: otherwise its mixture is another one. Each
    /// round is a process of its own, so the rounds are independent.
    pub(in crate::cli) fn of_rounds(loads: &[Logs]) -> Option<Self> {
        let rounds = loads.first()?.keys();
        let of_round = |round: &u64| {
            let logs = loads.iter().map(|logs| logs.get(round).copied());
            logs.collect::<Option<Vec<_>>>().map(|logs| mean(&logs))
        };
        let means: Vec<f64> = rounds.filter_map(of_round).collect();
        Self::of_logs(&means, means.len() as f64)
    }

    /// Of values of which some are zero, as seconds without an echo are, and have no logarithm: the logarithm of their
    /// arithmetic mean, and the variance relative to that (the delta method). `None` of too few, and of zeros alone.
    pub(in crate::cli) fn of_values(values: &[f64], count: f64) -> Option<Self> {
        let of_values = Self::of_logs(values, count)?;
        let middle = of_values.mean;
        (middle > 0.0).then(|| Self {
            mean: middle.ln(),
            variance: of_values.variance / (middle * middle),
            count,
        })
    }

    /// A series of ratios, by Student's interval of their mean, which is wrong with probability `error`.
    fn ratio(&self, figure: Figure, margin: f64, error: f64) -> Ratio {
        let reach = student(self.count - 1.0, error) * (self.variance / self.count).sqrt();
        ratio(figure, self.mean, reach, margin)
    }

    /// The ratio of this series to another one, which are no pairs: by Welch's interval.
    pub(in crate::cli) fn ratio_to(
        &self,
        other: &Self,
        figure: Figure,
        margin: f64,
        error: f64,
    ) -> Ratio {
        let (ours, theirs) = (self.variance / self.count, other.variance / other.count);
        let both = ours + theirs;
        let shares = ours * ours / (self.count - 1.0) + theirs * theirs / (other.count - 1.0);
        let freedom = match shares > 0.0 {
            true => both * both / shares,
            false => 1.0,
        };
        // Rounded down, which makes the interval wider.
        let reach = student(freedom.max(1.0).floor(), error) * both.sqrt();
        ratio(figure, self.mean - other.mean, reach, margin)
    }
}

/// How many independent samples a series is worth: a slow second is followed by a slow second. Of a series that
/// remembers a share `r` of its past (autoregressive, of first order) it is n (1 - r) / (1 + r).
pub(in crate::cli) fn independent(series: &[f64]) -> f64 {
    let (middle, count) = (mean(series), series.len() as f64);
    let off = |value: &f64| value - middle;
    let all: f64 = series.iter().map(|value| off(value).powi(2)).sum();
    if all <= 0.0 || series.len() < 3 {
        return count;
    }
    let next: f64 = (series.windows(2))
        .map(|pair| off(&pair[0]) * off(&pair[1]))
        .sum();
    // The estimate from a short series is too low by about this much (Kendall, 1954); one that avoids itself is not
    // believed to.
    let memory = (next / all + 4.0 / count).clamp(0.0, 0.95);
    count * (1.0 - memory) / (1.0 + memory)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn variance(values: &[f64]) -> f64 {
    let middle = mean(values);
    let squares: f64 = values.iter().map(|value| (value - middle).powi(2)).sum();
    squares / (values.len() as f64 - 1.0)
}

/// Within how many standard deviations of zero Student's t lies but for `error`.
fn student(freedom: f64, error: f64) -> f64 {
    StudentsT::ppf(1.0 - error / 2.0, freedom)
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::sample;
    use super::super::record::{Cell, Load, Sample, Scenario};
    use super::*;
    use crate::random::Random;

    #[test]
    fn student_is_as_in_the_tables() {
        // Two-sided, from the table of any textbook.
        let table = [
            (1.0, 0.05, 12.706),
            (2.0, 0.05, 4.303),
            (3.0, 0.01, 5.841),
            (4.0, 0.05, 2.776),
            (5.0, 0.001, 6.869),
            (9.0, 0.05, 2.262),
            (9.0, 0.001, 4.781),
            (30.0, 0.01, 2.750),
            (120.0, 0.05, 1.980),
        ];
        for (freedom, error, expected) in table {
            let found = student(freedom, error);
            assert!((found - expected).abs() < 0.002, "{freedom}: {found}");
        }
    }

    /// A number from the bell curve: the sum of twelve even ones has a variance of one.
    fn bell(random: &mut Random) -> f64 {
        (0..12).map(|_| random.fraction()).sum::<f64>() - 6.0
    }

    /// Ten rounds of twenty cells, in which the second model is `slower` times the first. Both share the minute, each has
    /// its own noise, and now and then the machine stands still.
    fn compared(slower: f64, noise: f64, random: &mut Random) -> Record {
        let mut record = sample();
        record.models.truncate(2);
        record.models[1].overall.clear();
        record.cells.clear();
        for connections in 1..=20 {
            let mut entries = [Entry::default(), Entry::default()];
            for round in 0..10 {
                let minute = bell(random) * 0.05;
                for (place, entry) in entries.iter_mut().enumerate() {
                    let mut log = minute + bell(random) * noise;
                    if random.fraction() < 0.02 {
                        log += 0.2;
                    }
                    let time = log.exp() * if place == 1 { slower } else { 1.0 };
                    let mut sample = Sample::new(round, &[]);
                    sample.set(Figure::EchoesPerSecond, 1e5 / time);
                    sample.set(Figure::P99Ns, 1e5 * time * (bell(random) * 0.1).exp());
                    sample.set(Figure::CpuNsPerEcho, 3_000.0 * time);
                    entry.samples.push(sample);
                }
            }
            let load = Load {
                scenario: Scenario::RequestResponse,
                connections,
                size: 64,
            };
            record.cells.push(Cell {
                load,
                entries: entries.into(),
            });
        }
        judge(&mut record);
        record
    }

    fn overall_of(record: &Record, figure: Figure) -> Ratio {
        let overall = &record.models[1].overall;
        *overall.iter().find(|ratio| ratio.figure == figure).unwrap()
    }

    fn verdicts(record: &Record) -> impl Iterator<Item = Verdict> {
        let cells = record.cells.iter().flat_map(|cell| &cell.entries[1].ratios);
        let all = cells.chain(&record.models[1].overall);
        all.map(|ratio| ratio.verdict)
    }

    #[test]
    fn a_server_against_itself_is_called_different_in_five_of_a_hundred_reports_at_most() {
        for noise in [0.005, 0.03] {
            let mut random = Random::new(1);
            let differs = |record: &Record| {
                verdicts(record).any(|verdict| matches!(verdict, Verdict::Better | Verdict::Worse))
            };
            let alarms = (0..200).filter(|_| differs(&compared(1.0, noise, &mut random)));
            let alarms = alarms.count();
            assert!(
                alarms <= 10,
                "{alarms} of 200 reports with a noise of {noise}"
            );
        }
    }

    #[test]
    fn a_server_that_is_slower_by_a_tenth_is_called_worse() {
        let mut random = Random::new(2);
        for _ in 0..100 {
            let record = compared(1.1, 0.03, &mut random);
            for figure in [Figure::EchoesPerSecond, Figure::CpuNsPerEcho] {
                let ratio = overall_of(&record, figure);
                assert_eq!(ratio.verdict, Verdict::Worse, "{ratio:?}");
            }
            assert!(verdicts(&record).all(|verdict| verdict != Verdict::Better));
        }
    }

    #[test]
    fn a_quiet_machine_says_the_same_of_the_same() {
        let record = compared(1.0, 0.002, &mut Random::new(3));
        let ratio = overall_of(&record, Figure::CpuNsPerEcho);
        assert_eq!(ratio.verdict, Verdict::Same, "{ratio:?}");
    }

    #[test]
    fn the_word_depends_on_the_whole_interval() {
        let word = |figure, mean: f64, reach| ratio(figure, mean.ln(), reach, 1.02).verdict;
        assert_eq!(word(Figure::EchoesPerSecond, 1.2, 0.05), Verdict::Better);
        assert_eq!(word(Figure::EchoesPerSecond, 0.8, 0.05), Verdict::Worse);
        assert_eq!(word(Figure::CpuNsPerEcho, 0.8, 0.05), Verdict::Better);
        assert_eq!(word(Figure::CpuNsPerEcho, 1.2, 0.05), Verdict::Worse);
        assert_eq!(word(Figure::EchoesPerSecond, 1.0, 0.01), Verdict::Same);
        assert_eq!(word(Figure::EchoesPerSecond, 1.2, 0.2), Verdict::Noise);
        assert_eq!(word(Figure::EchoesPerSecond, 1.03, 0.02), Verdict::Noise);
    }

    #[test]
    fn too_little_is_not_judged() {
        let rounds = Logs::from([(0, 0.1), (1, 0.2)]);
        assert_eq!(Location::of_rounds(&[rounds]), None);
        assert_eq!(Location::of_logs(&[1.0, 2.0], 2.0), None);
        assert_eq!(Location::of_logs(&[1.0; 9], 1.5), None);
        assert_eq!(Location::of_values(&[0.0; 9], 9.0), None);
    }

    #[test]
    fn a_series_that_remembers_is_worth_less() {
        let mut random = Random::new(4);
        let fresh: Vec<f64> = (0..200).map(|_| bell(&mut random)).collect();
        let mut last = 0.0;
        let slow: Vec<f64> = (0..200)
            .map(|_| {
                last = 0.8 * last + bell(&mut random);
                last
            })
            .collect();
        let (fresh, slow) = (independent(&fresh), independent(&slow));
        assert!(fresh > 120.0, "{fresh}");
        assert!((10.0..40.0).contains(&slow), "{slow}"); // 200 × 0.2 / 1.8 = 22
    }

    #[test]
    fn samples_that_are_no_pairs_are_compared_too() {
        let mut random = Random::new(5);
        let mut alarms = 0;
        for _ in 0..400 {
            let mut draw = || -> Vec<f64> { (0..10).map(|_| bell(&mut random)).collect() };
            let (a, b) = (draw(), draw());
            let location = |logs: &[f64]| Location::of_logs(logs, 10.0).unwrap();
            let ratio = location(&a).ratio_to(&location(&b), Figure::P99Ns, 1.0, 0.05);
            alarms += u32::from(ratio.verdict != Verdict::Noise);
        }
        assert!((8..=34).contains(&alarms), "{alarms} of 400 at 5 %");
    }
}
