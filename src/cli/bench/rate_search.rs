//! Several runs in a row: steps of a rate, and the search for the highest that a bound of the latency allows.
//!
//! Each step opens its own connections, so that what one has left behind in queues does not count against the next.

use super::run::Run;
use super::runner::Runner;
use super::time::time;
use crate::cli::error::CliError;
use crate::cli::units::{Time, grouped, plural};
use crate::load::{Arrivals, Mode, Plan};
use std::time::Duration;

/// When two rates are so close, the search has found what it can.
const CLOSE: f64 = 1.03;
/// Steps of a search, at most.
const STEPS_MAX: usize = 16;

/// The search for the highest rate within a bound, and how far it came.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Search {
    /// The bound of the p99.
    pub(super) bound: Duration,
    /// The place of the run with the highest rate that kept the bound.
    pub(super) best: Option<usize>,
    /// Whether it was ended before it was done.
    pub(super) interrupted: bool,
}

/// One run for each rate. Those that were measured before a failure are kept.
pub(super) fn steps(
    runner: &mut Runner<'_>,
    plan: &Plan,
    rates: &[f64],
    arrivals: Arrivals,
    runs: &mut Vec<Run>,
) -> Result<(), CliError> {
    for &rate in rates {
        if runner.must_stop() {
            break;
        }
        runs.push(runner.run(&at(plan, rate, arrivals))?);
    }
    Ok(())
}

fn at(plan: &Plan, rate: f64, arrivals: Arrivals) -> Plan {
    Plan {
        mode: Mode::Open { rate, arrivals },
        // The next step wants the ports of this one.
        reset_at_end: true,
        ..plan.clone()
    }
}

impl Search {
    pub(super) fn new(bound: Duration) -> Self {
        Self {
            bound,
            best: None,
            interrupted: false,
        }
    }

    /// Looks for the highest rate at which the p99, from the planned send, is within the bound. A closed loop says how fast
    /// the server is when nothing is in a hurry; above that there is nothing to find, and below it the interval is halved.
    pub(super) fn run(
        &mut self,
        runner: &mut Runner<'_>,
        plan: &Plan,
        arrivals: Arrivals,
        runs: &mut Vec<Run>,
    ) -> Result<(), CliError> {
        runs.push(runner.run(&Plan {
            reset_at_end: true, // as in the steps
            ..plan.clone()
        })?);
        let (mut low, mut high) = (0.0, runs[0].total.rate().max(2.0));
        while runs.len() < STEPS_MAX && high > low * CLOSE && high >= 2.0 {
            if runner.must_stop() {
                break;
            }
            let rate = match low > 0.0 {
                true => f64::midpoint(low, high),
                false => high * 0.7,
            };
            let run = runner.run(&at(plan, rate.round(), arrivals))?;
            // A run that was cut short has not shown that it keeps anything, nor that it does not.
            if !run.total.end.interrupted {
                match keeps(&run, self.bound) {
                    true => (low, self.best) = (rate, Some(runs.len())),
                    false => high = rate,
                }
            }
            runs.push(run);
        }
        self.interrupted = runner.must_stop();
        Ok(())
    }

    /// What the search has found, in a sentence.
    pub(super) fn finding(&self, runs: &[Run]) -> String {
        let (bound, planned) = (Time(self.bound), |run: &Run| run.planned_rate());
        let early = match self.interrupted {
            true => "; it was ended early",
            false => "",
        };
        if let Some(best) = self.best.and_then(|best| runs.get(best)) {
            let rate = grouped(planned(best).unwrap_or(0.0) as u64);
            let p99 = time(best.total.latency().value_at_quantile(0.99));
            let doubt = doubt(best, runs);
            return format!(
                "{rate} a second is the highest rate found with a p99 within {bound}: {p99}{doubt}{early}"
            );
        }
        let tried = runs.iter().filter_map(|run| Some((planned(run)?, run)));
        let Some((rate, lowest)) = tried.min_by(|(one, _), (other, _)| one.total_cmp(other)) else {
            return format!("no rate with a p99 within {bound} was found: none was tried{early}");
        };
        let (latency, faults) = (lowest.total.latency(), lowest.total.end.faults.total());
        let p99 = match latency.is_empty() {
            true => "nothing came back".to_owned(),
            false => format!(
                "it was {}, with {} echoes a second",
                time(latency.value_at_quantile(0.99)),
                grouped(lowest.total.rate() as u64)
            ),
        };
        let faults = match faults {
            0 => String::new(),
            count => format!(" and {}", plural(count, "fault")),
        };
        format!(
            "no rate with a p99 within {bound} was found: at {} a second, the lowest that was tried, {p99}{faults}{early}",
            grouped(rate as u64)
        )
    }
}

/// What limits the answer of a search from above: the next higher rate, if the generator and not the bound has failed
/// there.
fn doubt(best: &Run, runs: &[Run]) -> String {
    let rate = |run: &Run| run.planned_rate().unwrap_or(0.0);
    let above = runs.iter().filter(|run| rate(run) > rate(best));
    match above.min_by(|one, other| rate(one).total_cmp(&rate(other))) {
        Some(next) if !next.validity.is_valid() && next.total.end.faults.total() == 0 => format!(
            "; {} a second, the next above it, was not measured validly: the server may be able to do more",
            grouped(rate(next) as u64)
        ),
        _ => String::new(),
    }
}

/// Whether a run at a planned rate reached it, within the bound, and without a fault: a connection that broke has taken
/// its requests out of the latencies.
pub(super) fn keeps(run: &Run, bound: Duration) -> bool {
    let (latency, faults) = (run.total.latency(), run.total.end.faults.total());
    let p99 = Duration::from_nanos(latency.value_at_quantile(0.99));
    let reached = run.total.rate() >= run.planned_rate().unwrap_or(0.0) * 0.99;
    !latency.is_empty() && p99 <= bound && reached && faults == 0
}

#[cfg(test)]
mod tests {
    use super::super::args::tests::args;
    use super::*;
    use crate::load::Total;
    use crate::load::validity::Validity;
    use crate::net::Endpoint;
    use crate::procfs::KernelCounters;

    /// A step in which every answer took so long; `late` is the reason why the generator has failed, if it has.
    fn step(rate: f64, milliseconds: u64, late: Option<&str>) -> Run {
        let target = Endpoint::Tcp("127.0.0.1:7".parse().unwrap());
        let plan = args(&[]).plan(vec![target], &[]).unwrap();
        let mut total = Total::new(1);
        total
            .response_time
            .saturating_record(milliseconds * 1_000_000);
        Run {
            plan: at(&plan, rate, Arrivals::Constant),
            workers: 1,
            shares: Vec::new(),
            spread: Duration::ZERO,
            total,
            kernel: KernelCounters::default(),
            validity: Validity {
                invalid: late.map(str::to_owned).into_iter().collect(),
                notes: Vec::new(),
            },
            memory: Vec::new(),
        }
    }

    fn finding(best: Option<usize>, runs: &[Run]) -> String {
        let mut search = Search::new(Duration::from_millis(5));
        search.best = best;
        search.finding(runs)
    }

    /// Where the bound was not kept above the result, the server is what limits it; where the generator was late, it may not be.
    #[test]
    fn a_search_tells_what_limits_its_result() {
        let found = "1,000 a second is the highest rate found with a p99 within 5ms: ";
        let kept = |above| finding(Some(0), &[step(1_000.0, 2, None), above]);
        let by_server = kept(step(1_100.0, 9, None));
        assert!(by_server.starts_with(found), "{by_server}");
        assert!(!by_server.contains("above"), "{by_server}");
        let by_generator = kept(step(1_100.0, 9, Some("the generator was late")));
        let doubt = "; 1,100 a second, the next above it, was not measured validly: the server may be able to do more";
        assert!(by_generator.starts_with(found), "{by_generator}");
        assert!(by_generator.ends_with(doubt), "{by_generator}");
        // Only the next one above counts, and none below.
        let runs = [
            step(1_000.0, 2, None),
            step(900.0, 9, Some("late")),
            step(1_300.0, 9, Some("late")),
            step(1_100.0, 9, None),
        ];
        assert!(!finding(Some(0), &runs).contains("validly"));
    }

    #[test]
    fn a_search_that_has_found_nothing_tells_the_lowest_rate() {
        let runs = [step(700.0, 9, None), step(350.0, 8, None)];
        let text = finding(None, &runs);
        assert!(
            text.starts_with("no rate with a p99 within 5ms was found: at 350 a second"),
            "{text}"
        );
        assert!(text.contains("it was 8"), "{text}");
        assert!(finding(None, &[]).ends_with("none was tried"));
    }
}
