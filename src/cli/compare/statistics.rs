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

use super::record::{Cell, Figure, Model, Ratio, Record, Verdict};

/// The error probability of a whole report, over all of its intervals.
const ERROR: f64 = 0.05;
/// With fewer rounds than this no interval is computed.
const ROUNDS_MIN: usize = 3;
/// What is compared.
pub(in crate::cli) const JUDGED: [Figure; 3] =
    [Figure::Throughput, Figure::P99, Figure::CpuPerEcho];

/// The largest difference that does not matter: 2 %; of the tail, which is an extreme value and jumps, 10 %.
fn margin(figure: Figure) -> f64 {
    match figure {
        Figure::P99 => 1.10,
        _ => 1.02,
    }
}

/// The mean of some logarithms, and how far the truth may be from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::cli) struct Estimate {
    pub(in crate::cli) mean: f64,
    pub(in crate::cli) reach: f64,
}

/// Puts a ratio into every entry, and a summary into every model but the first.
pub(super) fn judge(record: &mut Record) {
    let others = |cell: &Cell| 1..cell.entries.len();
    let questions = (record.cells.iter())
        .flat_map(|cell| others(cell).map(move |model| (cell, model)))
        .flat_map(|(cell, model)| JUDGED.map(|figure| pairs(cell, model, figure).len()))
        .filter(|&rounds| rounds >= ROUNDS_MIN)
        .count();
    let error = ERROR / 2.0 / questions.max(1) as f64;
    for cell in &mut record.cells {
        for model in 1..cell.entries.len() {
            let ratios = JUDGED.iter().filter_map(|&figure| {
                let logs: Vec<f64> = pairs_of(cell, model, figure);
                estimate(&logs, error).map(|estimate| ratio(figure, estimate, margin(figure)))
            });
            let ratios = ratios.collect();
            cell.entries[model].ratios = ratios;
        }
    }
    let questions = record.models.len().saturating_sub(1) * JUDGED.len();
    let error = ERROR / 2.0 / questions.max(1) as f64;
    for model in 1..record.models.len() {
        record.models[model].overall = overall(&record.cells, model, error);
    }
}

/// Over all cells in which both took part to the end: of each round the mean, and those means compared. `None` of a figure
/// that one of these cells lacks: a mean over the rest would leave out the slowest.
fn overall(cells: &[Cell], model: usize, error: f64) -> Vec<Ratio> {
    let take_part = |cell: &&Cell| {
        let both = [&cell.entries[0], &cell.entries[model]];
        both.iter()
            .all(|entry| !entry.failed && !entry.samples.is_empty())
    };
    let figures = JUDGED.iter().filter_map(|&figure| {
        let cells = cells.iter().filter(take_part);
        let pairs: Vec<Vec<(u64, f64)>> = cells.map(|cell| pairs(cell, model, figure)).collect();
        if pairs.iter().any(Vec::is_empty) {
            return None;
        }
        // A round counts if it has every cell; otherwise its mixture is another one.
        let rounds = pairs.first()?.iter().map(|&(round, _)| round);
        let means = rounds.filter_map(|round| {
            let of_round = |pairs: &Vec<(u64, f64)>| {
                let found = pairs.iter().find(|pair| pair.0 == round);
                found.map(|pair| pair.1)
            };
            let logs: Option<Vec<f64>> = pairs.iter().map(of_round).collect();
            logs.map(|logs| mean(&logs))
        });
        let means: Vec<f64> = means.collect();
        estimate(&means, error).map(|estimate| ratio(figure, estimate, margin(figure)))
    });
    figures.collect()
}

/// The logarithms of the ratios of one model to the first, with their rounds. None if one of the two could not serve the
/// load to the end, or lacks the figure in a round that both have, as a slow round lacks the p99: what is left would be the
/// good rounds.
fn pairs(cell: &Cell, model: usize, figure: Figure) -> Vec<(u64, f64)> {
    let (first, other) = (&cell.entries[0], &cell.entries[model]);
    if first.failed || other.failed {
        return Vec::new();
    }
    let both = other.samples.iter().filter_map(|sample| {
        let partner = first
            .samples
            .iter()
            .find(|first| first.round == sample.round)?;
        Some((sample, partner))
    });
    let pairs: Option<Vec<(u64, f64)>> = both
        .map(|(sample, partner)| {
            let (ours, theirs) = (sample.get(figure)?, partner.get(figure)?);
            (ours > 0.0 && theirs > 0.0).then(|| (sample.round, (ours / theirs).ln()))
        })
        .collect();
    pairs.unwrap_or_default()
}

fn pairs_of(cell: &Cell, model: usize, figure: Figure) -> Vec<f64> {
    pairs(cell, model, figure)
        .into_iter()
        .map(|pair| pair.1)
        .collect()
}

/// A ratio and its word.
pub(in crate::cli) fn ratio(figure: Figure, estimate: Estimate, margin: f64) -> Ratio {
    let at = |log: f64| log.exp();
    let (low, high) = (
        at(estimate.mean - estimate.reach),
        at(estimate.mean + estimate.reach),
    );
    let more = match figure.more_is_better() {
        true => Verdict::Better,
        false => Verdict::Worse,
    };
    let less = match figure.more_is_better() {
        true => Verdict::Worse,
        false => Verdict::Better,
    };
    let verdict = match () {
        () if low > margin => more,
        () if high < 1.0 / margin => less,
        () if low >= 1.0 / margin && high <= margin => Verdict::Same,
        () => Verdict::Noise,
    };
    Ratio {
        figure,
        ratio: at(estimate.mean),
        low,
        high,
        verdict,
    }
}

/// Student's interval of the mean, wrong with probability `error`. `None` of too few.
pub(in crate::cli) fn estimate(logs: &[f64], error: f64) -> Option<Estimate> {
    if logs.len() < ROUNDS_MIN {
        return None;
    }
    let freedom = logs.len() as u32 - 1;
    let deviation = (variance(logs) / logs.len() as f64).sqrt();
    Some(Estimate {
        mean: mean(logs),
        reach: student(freedom, error) * deviation,
    })
}

/// Where the samples of a series lie, as a logarithm, and how much one of them varies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::cli) struct Location {
    mean: f64,
    variance: f64,
    /// As how many independent samples they count.
    count: f64,
    is_enough: bool,
}

impl Location {
    /// Of logarithms: their mean is the logarithm of the geometric mean.
    pub(in crate::cli) fn of_logs(logs: &[f64], count: f64) -> Self {
        Self {
            mean: mean(logs),
            variance: variance(logs),
            count,
            is_enough: logs.len() >= ROUNDS_MIN && count >= 2.0,
        }
    }

    /// Of values of which some are zero, as seconds without an echo are, and have no logarithm: the logarithm of their
    /// arithmetic mean, and the variance relative to that (the delta method). `None` if all of them are zero.
    pub(in crate::cli) fn of_values(values: &[f64], count: f64) -> Option<Self> {
        let middle = mean(values);
        (middle > 0.0).then(|| Self {
            mean: middle.ln(),
            variance: variance(values) / (middle * middle),
            count,
            is_enough: values.len() >= ROUNDS_MIN && count >= 2.0,
        })
    }
}

/// The difference of two series that are no pairs: Welch's interval, `first` from `second`.
pub(in crate::cli) fn difference(
    first: &Location,
    second: &Location,
    error: f64,
) -> Option<Estimate> {
    if !first.is_enough || !second.is_enough {
        return None;
    }
    let (one, other) = (first.variance / first.count, second.variance / second.count);
    let both = one + other;
    let freedom = match both > 0.0 {
        true => {
            both * both / (one * one / (first.count - 1.0) + other * other / (second.count - 1.0))
        }
        false => 1.0,
    };
    Some(Estimate {
        mean: first.mean - second.mean,
        // Rounded down, which makes the interval wider.
        reach: student(freedom.max(1.0) as u32, error) * both.sqrt(),
    })
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

pub(in crate::cli) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn variance(values: &[f64]) -> f64 {
    let middle = mean(values);
    let squares: f64 = values.iter().map(|value| (value - middle).powi(2)).sum();
    squares / (values.len() as f64 - 1.0)
}

/// Within how many standard deviations of zero Student's t lies but for `error`, found by halving.
fn student(freedom: u32, error: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while within(high, freedom) < 1.0 - error && high < 1e9 {
        high *= 2.0;
    }
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        match within(middle, freedom) < 1.0 - error {
            true => low = middle,
            false => high = middle,
        }
    }
    high
}

/// The probability that Student's t lies within -t and t. Of whole degrees of freedom it is a finite sum (Abramowitz and
/// Stegun, 26.7.3 and 26.7.4): a dozen lines instead of a crate.
fn within(t: f64, freedom: u32) -> f64 {
    let n = f64::from(freedom);
    let angle = (t / n.sqrt()).atan();
    let (sin, cos) = angle.sin_cos();
    let is_odd = freedom % 2 == 1;
    // Each term is the one before, times cos² and a fraction: (k - 1) / k, over the even k or over the odd.
    let (mut term, mut sum) = if is_odd { (cos, 0.0) } else { (1.0, 0.0) };
    let mut k = if is_odd { 3 } else { 2 };
    while k <= freedom {
        sum += term;
        term *= cos * cos * f64::from(k - 1) / f64::from(k);
        k += 2;
    }
    match is_odd {
        true => (angle + sin * sum) * std::f64::consts::FRAC_2_PI,
        false => sin * sum,
    }
}

impl Model {
    /// The ratio of a figure to that of the first model, over all cells.
    pub(super) fn ratio(&self, figure: Figure) -> Option<&Ratio> {
        self.overall.iter().find(|ratio| ratio.figure == figure)
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::sample;
    use super::super::record::{Entry, Sample, Scenario};
    use super::*;
    use crate::random::Random;

    #[test]
    fn student_is_as_in_the_tables() {
        // Two-sided, from the table of any textbook.
        let table = [
            (1, 0.05, 12.706),
            (2, 0.05, 4.303),
            (3, 0.01, 5.841),
            (4, 0.05, 2.776),
            (5, 0.001, 6.869),
            (9, 0.05, 2.262),
            (9, 0.001, 4.781),
            (30, 0.01, 2.750),
            (120, 0.05, 1.980),
        ];
        for (freedom, error, expected) in table {
            let found = student(freedom, error);
            assert!((found - expected).abs() < 0.001, "{freedom}: {found}");
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
                    let mut sample = Sample::new(round);
                    sample.set(Figure::Throughput, 1e5 / time);
                    sample.set(Figure::P99, 1e5 * time * (bell(random) * 0.1).exp());
                    sample.set(Figure::CpuPerEcho, 3_000.0 * time);
                    entry.samples.push(sample);
                }
            }
            record.cells.push(Cell {
                scenario: Scenario::RequestResponse,
                connections,
                size: 64,
                entries: entries.into(),
            });
        }
        judge(&mut record);
        record
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
            for figure in [Figure::Throughput, Figure::CpuPerEcho] {
                let ratio = record.models[1].ratio(figure).unwrap();
                assert_eq!(ratio.verdict, Verdict::Worse, "{ratio:?}");
            }
            assert!(verdicts(&record).all(|verdict| verdict != Verdict::Better));
        }
    }

    #[test]
    fn a_quiet_machine_says_the_same_of_the_same() {
        let record = compared(1.0, 0.002, &mut Random::new(3));
        let ratio = record.models[1].ratio(Figure::CpuPerEcho).unwrap();
        assert_eq!(ratio.verdict, Verdict::Same, "{ratio:?}");
    }

    #[test]
    fn the_word_depends_on_the_whole_interval() {
        let word = |figure, mean: f64, reach| {
            let mean = mean.ln();
            ratio(figure, Estimate { mean, reach }, 1.02).verdict
        };
        assert_eq!(word(Figure::Throughput, 1.2, 0.05), Verdict::Better);
        assert_eq!(word(Figure::Throughput, 0.8, 0.05), Verdict::Worse);
        assert_eq!(word(Figure::CpuPerEcho, 0.8, 0.05), Verdict::Better);
        assert_eq!(word(Figure::CpuPerEcho, 1.2, 0.05), Verdict::Worse);
        assert_eq!(word(Figure::Throughput, 1.0, 0.01), Verdict::Same);
        assert_eq!(word(Figure::Throughput, 1.2, 0.2), Verdict::Noise);
        assert_eq!(word(Figure::Throughput, 1.03, 0.02), Verdict::Noise);
    }

    #[test]
    fn too_little_is_not_judged() {
        assert_eq!(estimate(&[0.1, 0.2], 0.05), None);
        let (nine, two) = (
            Location::of_logs(&[1.0; 9], 9.0),
            Location::of_logs(&[1.0, 2.0], 2.0),
        );
        assert_eq!(difference(&nine, &two, 0.05), None);
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
            let location = |logs: &[f64]| Location::of_logs(logs, 10.0);
            let estimate = difference(&location(&a), &location(&b), 0.05).unwrap();
            alarms += u32::from(estimate.mean.abs() > estimate.reach);
        }
        assert!((8..=34).contains(&alarms), "{alarms} of 400 at 5 %");
    }
}
