//! Two records of `bench`: their intervals are samples, and what no latency tells of is found in their counters.
//!
//! Of the processor's time there is one figure for a whole run, so there is no interval for it.

use super::answer::Answer;
use crate::cli::bench::record::{Record, Step, Way};
use crate::cli::compare::record::Figure;
use crate::cli::compare::statistics::{Location, independent};
use crate::load::Second;
use serde_json::json;

/// Echoes that a stretch of a run has on average, so that one without any is no chance: of arrivals at random it would be
/// one of 20,000.
const ECHOES_OF_A_STRETCH: f64 = 10.0;
/// The share of its rate from which a step counts as reached.
const REACHED: f64 = 0.95;

pub(super) fn compare(before: &Record, after: &Record, tolerance: f64) -> Answer {
    let mut answer = Answer::default();
    compare_plans(&mut answer, before, after);
    compare_losses(&mut answer, before, after, tolerance);
    compare_steps(&mut answer, before, after);
    let whole: Vec<&Second> = whole_intervals(&before.intervals).collect();
    let echoes: u64 = whole.iter().map(|one| one.echoes).sum();
    if echoes > 0 {
        let seconds: f64 = whole.iter().map(|one| one.lasted).sum();
        let length = ECHOES_OF_A_STRETCH * seconds / echoes as f64;
        let [was, is] = [before, after].map(|run| stretches(&run.intervals, length));
        compare_stretches(&mut answer, [&was, &is], tolerance);
    }
    answer
}

/// What was asked for differently. Their servers may be at any address, and each run may have its own seed.
fn compare_plans(answer: &mut Answer, before: &Record, after: &Record) {
    let (before, after) = (json!(before.plan), json!(after.plan));
    for (name, was) in before.as_object().into_iter().flatten() {
        let is = &after[name];
        if is != was && name != "targets" && name != "seed" {
            let text = format!("{name} {was} and {is}");
            answer.note("not the same was asked for", text);
        }
    }
}

fn compare_stretches(answer: &mut Answer, both: [&[Second]; 2], tolerance: f64) {
    // The sum of nothing is -0.0.
    let sum = |of: fn(&Second) -> f64| both.map(|all| all.iter().map(of).sum::<f64>() + 0.0);
    let [of_before, of_after] = sum(|one| one.lasted);
    let [was, is] = sum(|one| if one.echoes == 0 { one.lasted } else { 0.0 });
    if both[1].is_empty() || is / of_after.max(1e-9) - was / of_before.max(1e-9) > tolerance {
        let [before, after] = sum(|one| one.echoes as f64);
        let ratio = after / of_after.max(1e-9) / (before / of_before);
        let text = format!(
            "throughput     {ratio:.2}: worse, nothing came back in {is:.1} s of {of_after:.1}, and before in {was:.1} of \
             {of_before:.1}"
        );
        answer.worse("the run", text);
    } else {
        let locations = both.map(|all| {
            let rates = all.iter().map(|one| one.echoes as f64 / one.lasted);
            let rates: Vec<f64> = rates.collect();
            Location::of_values(&rates, independent(&rates))
        });
        answer.ask("the run", Figure::EchoesPerSecond, locations);
    }
    let locations = both.map(|all| {
        let logs: Vec<f64> = waits(all).iter().map(|wait| wait.ln()).collect();
        Location::of_logs(&logs, independent(&logs))
    });
    answer.ask("the run", Figure::P99Ns, locations);
}

/// The p99 of each stretch, in nanoseconds. One without an echo has none; a request that was sent at its begin, or before,
/// has waited until its end at least.
fn waits(all: &[Second]) -> Vec<f64> {
    let mut silent = 0.0;
    let wait = |one: &Second| {
        silent = match one.echoes {
            0 => silent + one.lasted,
            _ => 0.0,
        };
        (one.p99 as f64).max(silent * 1e9)
    };
    all.iter().map(wait).filter(|wait| *wait > 0.0).collect()
}

/// What no latency tells of: faults, requests that were lost or never sent, and connections that were never made.
fn compare_losses(answer: &mut Answer, before: &Record, after: &Record, tolerance: f64) {
    let share = |count: u64, of: u64| count as f64 / of.max(1) as f64;
    let [was, is] = [before, after].map(|run| run.faults.total());
    if share(is, after.requests.sent) > share(was, before.requests.sent) * (1.0 + tolerance) {
        let kinds = after.faults.iter().map(|(kind, ..)| kind.to_string());
        let kinds = kinds.collect::<Vec<_>>().join(", ");
        let text = format!("worse: {is} faults ({kinds}), and before {was}");
        answer.worse("the run", text);
    }
    let shares = |run: &Record| {
        let (requests, planned) = (&run.requests, run.connections.planned);
        let asked = requests.sent + requests.unsent;
        let opened = match run.plan.mode {
            // Where each connection is used once, how many are open at the start says nothing.
            Way::ChurnFin | Way::ChurnReset => planned,
            _ => run.connections.opened,
        };
        let (lost, unsent) = (share(requests.lost, asked), share(requests.unsent, asked));
        let never_made = share(planned.saturating_sub(opened), planned);
        [
            (lost, "of the requests were lost", tolerance),
            (
                unsent,
                "of the requests found no connection free",
                tolerance,
            ),
            (never_made, "of the connections were not made", 0.0),
        ]
    };
    for ((was, ..), (is, what, allowed)) in shares(before).into_iter().zip(shares(after)) {
        if is - was > allowed {
            let (was, is) = (was * 100.0, is * 100.0);
            let text = format!("worse: {is:.1} % {what}, and before {was:.1} %");
            answer.worse("the run", text);
        }
    }
}

/// Steps of a rate, and the result of a search: each was asked for, and is not to vanish. Of the steps beside the last
/// there are no intervals, so they are only held to their own plan.
fn compare_steps(answer: &mut Answer, before: &Record, after: &Record) {
    let found = |run: &Record| run.search.as_ref().and_then(|search| search.found_rate);
    if let Some(was) = found(before) {
        if found(after).is_none() {
            let text = format!("worse: no rate keeps the bound, and before {was:.0} a second did");
            answer.worse("the search", text);
        }
        return; // its steps are where it looked, and differ from run to run
    }
    for step in before.steps.iter().filter(|_| before.steps.len() > 1) {
        let Some(rate) = step.rate else { continue };
        let what = format!("the step of {rate} a second");
        let is_reached = |step: &Step| step.echoes_per_second >= rate * REACHED;
        match after.steps.iter().find(|other| other.rate == step.rate) {
            None => answer.worse(&what, "missing: it is not in the second record"),
            Some(other) if is_reached(step) && !is_reached(other) => {
                let [was, is] = [step, other].map(|step| step.echoes_per_second);
                let text = format!("worse: {is:.1} echoes a second, and before {was:.1}");
                answer.worse(&what, text);
            }
            Some(_) => {}
        }
    }
}

/// The intervals but for the rest of one, at the end.
fn whole_intervals(intervals: &[Second]) -> impl Iterator<Item = &Second> {
    let longest = intervals.iter().map(|one| one.lasted).fold(0.0, f64::max);
    let intervals = intervals.iter();
    intervals.filter(move |one| one.lasted > longest / 2.0)
}

/// Joins intervals to stretches of at least this length, in seconds: of their p99 a stretch has the longest. A run that is
/// shorter is one stretch.
fn stretches(intervals: &[Second], length: f64) -> Vec<Second> {
    let (mut joined, mut open) = (Vec::new(), Second::default());
    for interval in whole_intervals(intervals) {
        open.lasted += interval.lasted;
        open.echoes += interval.echoes;
        open.p99 = open.p99.max(interval.p99);
        if open.lasted >= length {
            joined.push(std::mem::take(&mut open));
        }
    }
    if joined.is_empty() && open.lasted > 0.0 {
        joined.push(open);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::error::Exit;
    use crate::load::FaultKind;
    use crate::random::Random;
    use serde_json::Value;

    fn read(value: Value) -> Record {
        serde_json::from_value(value).unwrap()
    }

    fn run(echoes: &[u64]) -> Record {
        let intervals: Vec<Value> = (echoes.iter())
            .map(|&echoes| json!({"seconds": 0.5, "echoes": echoes, "p99": 1_000_000 * echoes.min(1)}))
            .collect();
        read(json!({"intervals": intervals}))
    }

    /// The report of two runs, and whether the second is worse.
    fn told(before: &Record, after: &Record) -> (String, bool) {
        let (text, exit) = compare(before, after, 0.05).report(0.05);
        (text, exit == Exit::Worse)
    }

    #[track_caller]
    fn is_worse(before: &Record, after: &Record, words: &str) {
        let (text, is_worse) = told(before, after);
        assert!(is_worse && text.contains(words), "{text}");
    }

    #[track_caller]
    fn is_not_worse(before: &Record, after: &Record) {
        let (text, is_worse) = told(before, after);
        assert!(!is_worse, "{text}");
    }

    #[test]
    fn runs_are_compared_by_their_seconds() {
        let mut random = Random::new(2);
        let mut noisy = |rate: f64| {
            let seconds: Vec<Value> = (0..30)
                .map(|_| {
                    let noise = 1.0 + (random.fraction() - 0.5) * 0.04;
                    let (echoes, p99) = ((rate * noise) as u64, (1e9 / rate) as u64);
                    json!({"seconds": 1.0, "echoes": echoes, "p99": p99})
                })
                .chain([json!({"seconds": 0.01, "echoes": 3, "p99": 1})])
                .collect();
            read(json!({"intervals": seconds}))
        };
        let (before, same, slower) = (noisy(1e5), noisy(1e5), noisy(0.9e5));
        is_not_worse(&before, &same);
        is_worse(&before, &slower, "0.90 (");
    }

    #[test]
    fn seconds_without_an_echo_are_worse_and_no_chance() {
        let before = run(&[900; 24]);
        let mut stalled = [900; 24];
        stalled[8..18].fill(0);
        is_worse(
            &before,
            &run(&stalled),
            "0.58: worse, nothing came back in 5.0 s of 12.0, and before in 0.0 of 12.0",
        );
        is_not_worse(&run(&stalled), &before);
        // Of two requests a second, many half seconds have none.
        let sparse: Vec<u64> = (0..60).map(|at| u64::from(at % 3 == 0)).collect();
        is_not_worse(&run(&sparse), &run(&sparse));
        let (text, is_worse_too) = told(&run(&[3]), &run(&[2]));
        assert!(
            !is_worse_too && text.contains("too little to tell"),
            "{text}"
        );
        is_worse(&before, &run(&[0; 24]), "0.00: worse");
        is_worse(&before, &run(&[]), "0.00: worse");
    }

    #[test]
    fn a_stretch_without_an_echo_has_a_wait_all_the_same() {
        let stretch = |echoes: u64| Second {
            lasted: 0.5,
            echoes,
            p99: echoes * 1_000,
            ..Second::default()
        };
        let waits = waits(&[2, 0, 0, 3].map(stretch));
        assert_eq!(waits, [2e3, 5e8, 1e9, 3e3]);
    }

    #[test]
    fn losses_count_though_no_latency_tells_of_them() {
        let with = |change: fn(&mut Record)| {
            let mut run = run(&[900; 24]);
            (
                run.requests.sent,
                run.connections.planned,
                run.connections.opened,
            ) = (1_000, 10, 10);
            change(&mut run);
            run
        };
        let whole = with(|_| {});
        is_not_worse(&whole, &whole);
        let reset = with(|run| {
            run.faults.add(FaultKind::Reset, 3, "");
        });
        is_worse(&whole, &reset, "3 faults (reset), and before 0");
        is_not_worse(&reset, &reset);
        is_worse(
            &whole,
            &with(|run| run.requests.lost = 100),
            "10.0 % of the requests were lost",
        );
        is_worse(
            &whole,
            &with(|run| run.connections.opened = 9),
            "10.0 % of the connections were not made",
        );
    }

    #[test]
    fn a_step_and_a_finding_that_are_gone_are_missed() {
        let steps = |rates: &[(f64, f64)]| {
            let steps = rates
                .iter()
                .map(|(rate, reached)| json!({"rate": rate, "echoes_per_second": reached}));
            read(json!({"steps": steps.collect::<Vec<_>>(), "search": null}))
        };
        let before = steps(&[(100.0, 100.0), (200.0, 199.0)]);
        is_worse(
            &before,
            &steps(&[(100.0, 60.0)]),
            "worse: 60.0 echoes a second, and before 100.0",
        );
        is_worse(
            &before,
            &steps(&[(100.0, 60.0)]),
            "missing: it is not in the second record",
        );
        let search = |rate: Value| read(json!({"search": {"found_rate": rate}, "steps": []}));
        is_worse(
            &search(json!(500.0)),
            &search(Value::Null),
            "before 500 a second did",
        );
    }

    #[test]
    fn runs_of_different_plans_are_named() {
        let plan = |trigger: &str, seed: u64| {
            read(json!({"plan": {"seed": seed, "size": 64, "trigger": trigger}}))
        };
        assert!(
            !told(&plan("level", 1), &plan("level", 2))
                .0
                .contains("asked for")
        );
        let (text, _) = told(&plan("edge", 1), &plan("level", 1));
        assert!(text.contains(r#"trigger "edge" and "level""#), "{text}");
    }
}
