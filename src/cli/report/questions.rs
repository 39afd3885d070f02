//! What two records can be asked: which of their figures belong together, and what one of them lacks.
//!
//! What is missing is worse than what is slow. A load that the second record could not serve, a second in which nothing
//! came back, a connection that was never made: none of them has a figure, and a comparison of the figures alone would
//! praise the server that left its slowest work undone. So each of these is a finding, decided without statistics.

use crate::cli::compare::record::{Entry, Figure, Record};
use crate::cli::compare::statistics::{Estimate, JUDGED, Location, difference, independent, mean};
use crate::cli::compare::text::load_name;
use serde_json::Value;

/// Echoes that a stretch of a run has on average, so that one without any is no chance: of arrivals at random it would be
/// one of 20,000.
const ECHOES_OF_A_STRETCH: f64 = 10.0;
/// The share of its rate from which a step counts as reached.
const REACHED: f64 = 0.95;

/// A figure of both records.
pub(super) struct Question {
    /// Of what: a model at a load, or a run.
    pub(super) what: String,
    pub(super) figure: Figure,
    before: Location,
    after: Location,
    /// Whether it is about all loads together.
    pub(super) is_summary: bool,
}

/// What needs no statistics: something is missing in the second record, or only there.
pub(super) struct Finding {
    pub(super) what: String,
    pub(super) text: String,
    /// Whether it makes the second record worse.
    pub(super) is_worse: bool,
}

/// All that there is to say of two records.
#[derive(Default)]
pub(super) struct Comparison {
    pub(super) findings: Vec<Finding>,
    pub(super) questions: Vec<Question>,
}

impl Question {
    pub(super) fn estimate(&self, error: f64) -> Option<Estimate> {
        difference(&self.after, &self.before, error)
    }
}

impl Comparison {
    fn find(&mut self, what: impl Into<String>, text: impl Into<String>, is_worse: bool) {
        self.findings.push(Finding {
            what: what.into(),
            text: text.into(),
            is_worse,
        });
    }

    /// Asks for a figure, if both have it; if one of them lacks it, that is what is found.
    fn ask(
        &mut self,
        what: &str,
        figure: Figure,
        (before, after): (Option<Location>, Option<Location>),
        is_summary: bool,
    ) {
        match (before, after) {
            (Some(before), Some(after)) => self.questions.push(Question {
                what: what.to_owned(),
                figure,
                before,
                after,
                is_summary,
            }),
            // What each of several loads lacks has been said of the load.
            (Some(_), None) if !is_summary => {
                let text = format!("missing: {} is not known of every round", figure.name());
                self.find(what, text, true);
            }
            _ => {}
        }
    }
}

// --- Two comparisons ---------------------------------------------------------------------------------------------------

pub(super) fn of_comparisons(before: &Record, after: &Record) -> Comparison {
    let mut comparison = Comparison::default();
    for (place, model) in before.models.iter().enumerate() {
        match after.models.iter().position(|one| one.name == model.name) {
            Some(partner) => of_models(&mut comparison, (before, place), (after, partner)),
            None if before.was_measured(place) => {
                comparison.find(&model.name, "missing: it is not in the second record", true);
            }
            None => {}
        }
    }
    for (place, model) in after.models.iter().enumerate() {
        let is_new = before.models.iter().all(|one| one.name != model.name);
        if is_new && after.was_measured(place) {
            comparison.find(&model.name, "it is in the second record alone", false);
        }
    }
    comparison
}

fn of_models(
    comparison: &mut Comparison,
    (before, place): (&Record, usize),
    (after, partner): (&Record, usize),
) {
    let name = &before.models[place].name;
    let mut common = Vec::new();
    for cell in &before.cells {
        let load = load_name(cell.scenario, cell.connections, cell.size);
        let (what, entry) = (format!("{name}: {load}"), &cell.entries[place]);
        let other = after.cell(cell.scenario, cell.connections, cell.size);
        let other = other.map(|cell| &cell.entries[partner]);
        match (is_whole(entry), other) {
            (true, None) => {
                comparison.find(what, "missing: this load is not in the second record", true);
            }
            (true, Some(other)) if !is_whole(other) => {
                let why = other.left_out.as_deref().unwrap_or("it was not measured");
                comparison.find(what, format!("missing: {why}"), true);
            }
            (true, Some(other)) => common.push((what, entry, other)),
            (false, Some(other)) if is_whole(other) => {
                comparison.find(what, "only the second record could be measured", false);
            }
            (false, _) => {}
        }
    }
    for (what, before, after) in &common {
        for figure in JUDGED {
            let both = (of_rounds(&[before], figure), of_rounds(&[after], figure));
            comparison.ask(what, figure, both, false);
        }
    }
    let (before, after): (Vec<&Entry>, Vec<&Entry>) = common
        .iter()
        .map(|(_, before, after)| (*before, *after))
        .unzip();
    for figure in JUDGED {
        let both = (of_rounds(&before, figure), of_rounds(&after, figure));
        let what = format!("{name}: all loads together");
        comparison.ask(&what, figure, both, true);
    }
}

/// Whether a load was served in every round that was measured.
fn is_whole(entry: &Entry) -> bool {
    !entry.samples.is_empty() && !entry.failed
}

/// Each round is a process of its own, so the rounds are independent. Of several loads it is the mean of each round, if
/// the round has them all. `None` if a round lacks the figure: of the rest alone, it would be that of the good rounds.
fn of_rounds(entries: &[&Entry], figure: Figure) -> Option<Location> {
    let mut logs = Vec::new();
    for round in entries.first()?.samples.iter().map(|sample| sample.round) {
        let samples =
            (entries.iter()).map(|entry| entry.samples.iter().find(|sample| sample.round == round));
        // An interruption may have come between two loads of a round.
        let Some(samples) = samples.collect::<Option<Vec<_>>>() else {
            continue;
        };
        let of_load = |value: Option<f64>| value.filter(|value| *value > 0.0).map(f64::ln);
        let of_loads = samples.iter().map(|sample| of_load(sample.get(figure)));
        logs.push(mean(&of_loads.collect::<Option<Vec<f64>>>()?));
    }
    (!logs.is_empty()).then(|| Location::of_logs(&logs, logs.len() as f64))
}

// --- Two runs ----------------------------------------------------------------------------------------------------------

/// A stretch of a run: an interval, or several that are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Stretch {
    seconds: f64,
    echoes: f64,
    /// In nanoseconds; the longest of those that are joined.
    p99: f64,
}

/// Two runs of `bench`, by their intervals. Of the processor's time there is one figure for all of them, so there is no
/// interval for it. `tolerance` is a share.
pub(super) fn of_runs(before: &Value, after: &Value, tolerance: f64) -> Comparison {
    let mut comparison = Comparison::default();
    count_losses(&mut comparison, before, after, tolerance);
    match_steps(&mut comparison, before, after);
    let (before, after) = (intervals(before), intervals(after));
    let echoes = sum(&before, |one| one.echoes);
    if echoes <= 0.0 {
        return comparison;
    }
    let length = ECHOES_OF_A_STRETCH * sum(&before, |one| one.seconds) / echoes;
    let (before, after) = (join(&before, length), join(&after, length));
    let rate = |all: &[Stretch]| sum(all, |one| one.echoes) / sum(all, |one| one.seconds).max(1e-9);
    let silence = |all: &[Stretch]| {
        let silent = sum(all, |one| if one.echoes > 0.0 { 0.0 } else { one.seconds });
        (silent, sum(all, |one| one.seconds))
    };
    let ((was, of_all_was), (is, of_all_is)) = (silence(&before), silence(&after));
    let share = |silent: f64, all: f64| silent / all.max(1e-9);
    if after.is_empty() || share(is, of_all_is) - share(was, of_all_was) > tolerance {
        let ratio = rate(&after) / rate(&before);
        let text = format!(
            "throughput     {ratio:.2}: worse, nothing came back in {is:.1} s of {of_all_is:.1}, and before in {was:.1} \
             of {of_all_was:.1}"
        );
        comparison.find("the run", text, true);
    } else {
        let throughput = |all: &[Stretch]| {
            let rates: Vec<f64> = all.iter().map(|one| one.echoes / one.seconds).collect();
            Location::of_values(&rates, independent(&rates))
        };
        let both = (throughput(&before), throughput(&after));
        comparison.ask("the run", Figure::Throughput, both, false);
    }
    let p99 = |all: &[Stretch]| {
        let logs: Vec<f64> = waits(all).iter().map(|wait| wait.ln()).collect();
        (!logs.is_empty()).then(|| Location::of_logs(&logs, independent(&logs)))
    };
    comparison.ask("the run", Figure::P99, (p99(&before), p99(&after)), false);
    comparison
}

fn sum(all: &[Stretch], value: impl Fn(&Stretch) -> f64) -> f64 {
    all.iter().map(value).fold(0.0, |sum, one| sum + one)
}

/// The intervals of a run. The rest of an interval, at the end, is none.
fn intervals(run: &Value) -> Vec<Stretch> {
    let all = run["intervals"].as_array().into_iter().flatten();
    let number = |interval: &Value, name: &str| interval[name].as_f64().unwrap_or(0.0);
    let all: Vec<Stretch> = all
        .map(|interval| Stretch {
            seconds: number(interval, "seconds"),
            echoes: number(interval, "echoes"),
            p99: number(interval, "p99"),
        })
        .collect();
    let longest = all.iter().map(|one| one.seconds).fold(0.0, f64::max);
    all.into_iter()
        .filter(|one| one.seconds > longest / 2.0)
        .collect()
}

/// Joins intervals to stretches of at least this length, in seconds. A run that is shorter is one stretch.
fn join(intervals: &[Stretch], length: f64) -> Vec<Stretch> {
    let (mut joined, mut open) = (Vec::new(), Stretch::default());
    for interval in intervals {
        open.seconds += interval.seconds;
        open.echoes += interval.echoes;
        open.p99 = open.p99.max(interval.p99);
        if open.seconds >= length {
            joined.push(std::mem::take(&mut open));
        }
    }
    if joined.is_empty() && open.seconds > 0.0 {
        joined.push(open);
    }
    joined
}

/// The p99 of each stretch, in nanoseconds. One without an echo has none; a request that was sent at its begin, or before,
/// has waited until its end at least.
fn waits(all: &[Stretch]) -> Vec<f64> {
    let mut silent = 0.0;
    let wait = |one: &Stretch| {
        silent = match one.echoes > 0.0 {
            true => 0.0,
            false => silent + one.seconds,
        };
        one.p99.max(silent * 1e9)
    };
    let waits = all.iter().map(wait).collect::<Vec<f64>>();
    waits.into_iter().filter(|wait| *wait > 0.0).collect()
}

/// What no latency tells of: faults, requests that were lost or never sent, and connections that were never made.
fn count_losses(comparison: &mut Comparison, before: &Value, after: &Value, tolerance: f64) {
    let number = |run: &Value, path: &str| run.pointer(path).and_then(Value::as_f64);
    let faults = |run: &Value| -> f64 {
        let kinds = run["faults"].as_object().into_iter().flatten();
        let counts = kinds.filter_map(|(_, fault)| fault["count"].as_f64());
        counts.fold(0.0, |sum, count| sum + count) // the sum of nothing is -0.0
    };
    let (was, is) = (faults(before), faults(after));
    let requests = |run: &Value| number(run, "/requests/sent").unwrap_or(0.0).max(1.0);
    if is / requests(after) > was / requests(before) * (1.0 + tolerance) {
        let kinds = after["faults"].as_object().into_iter().flatten();
        let kinds: Vec<&str> = kinds.map(|(kind, _)| kind.as_str()).collect();
        let text = format!(
            "worse: {is} faults ({}), and before {was}",
            kinds.join(", ")
        );
        comparison.find("the run", text, true);
    }
    for (name, what) in [
        ("lost", "were lost"),
        ("unsent", "found no connection free"),
    ] {
        let share = |run: &Value| {
            let count = number(run, &format!("/requests/{name}")).unwrap_or(0.0);
            let unsent = number(run, "/requests/unsent").unwrap_or(0.0);
            count / (requests(run) + unsent)
        };
        let (was, is) = (share(before), share(after));
        if is - was > tolerance {
            let text = format!(
                "worse: {:.1} % of the requests {what}, and before {:.1} %",
                is * 100.0,
                was * 100.0
            );
            comparison.find("the run", text, true);
        }
    }
    let opened = |run: &Value| {
        let planned = number(run, "/connections/planned")?;
        Some(number(run, "/connections/opened")? / planned.max(1.0))
    };
    if let (Some(was), Some(is)) = (opened(before), opened(after)) {
        if is < was && run_keeps_connections(after) {
            let text = format!(
                "worse: {:.1} % of the connections came about, and before {:.1} %",
                is * 100.0,
                was * 100.0
            );
            comparison.find("the run", text, true);
        }
    }
}

/// Whether connections stay open: where each is used once, how many are open at the start says nothing.
fn run_keeps_connections(run: &Value) -> bool {
    let mode = run.pointer("/plan/mode").and_then(Value::as_str);
    !mode.is_some_and(|mode| mode.starts_with("churn"))
}

/// Steps of a rate, and what a search has found: each was asked for, and is not to vanish. Of the steps beside the last
/// there are no intervals, so they are only held to their own plan.
fn match_steps(comparison: &mut Comparison, before: &Value, after: &Value) {
    if let Some(was) = before.pointer("/search/found_rate").and_then(Value::as_f64) {
        let found = after.pointer("/search/found_rate");
        if found.and_then(Value::as_f64).is_none() {
            let text = format!("worse: no rate keeps the bound, and before {was:.0} a second did");
            comparison.find("the search", text, true);
        }
        return; // its steps are where it looked, and differ from run to run
    }
    let steps = |run: &Value| -> Vec<(f64, f64)> {
        let all = run["steps"].as_array().into_iter().flatten();
        let pair =
            |step: &Value| Some((step["rate"].as_f64()?, step["echoes_per_second"].as_f64()?));
        all.filter_map(pair).collect()
    };
    let (before, after) = (steps(before), steps(after));
    if before.len() < 2 {
        return;
    }
    for (rate, reached) in before {
        let what = format!("the step of {rate} a second");
        match after.iter().find(|step| step.0 == rate) {
            None => comparison.find(what, "missing: it is not in the second record", true),
            Some((_, now)) if reached >= rate * REACHED && *now < rate * REACHED => {
                let text = format!("worse: {now:.1} echoes a second, and before {reached:.1}");
                comparison.find(what, text, true);
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(echoes: &[f64]) -> Value {
        let intervals: Vec<Value> = (echoes.iter())
            .map(|echoes| json!({"seconds": 0.5, "echoes": echoes, "p99": if *echoes > 0.0 { 1e6 } else { 0.0 }}))
            .collect();
        json!({"intervals": intervals})
    }

    fn worse(comparison: &Comparison) -> Vec<&str> {
        let worse = comparison
            .findings
            .iter()
            .filter(|finding| finding.is_worse);
        worse.map(|finding| finding.text.as_str()).collect()
    }

    #[test]
    fn seconds_without_an_echo_are_worse_and_no_chance() {
        let before = run(&[900.0; 24]);
        let mut stalled = [900.0; 24];
        stalled[8..18].fill(0.0);
        let comparison = of_runs(&before, &run(&stalled), 0.05);
        let said = worse(&comparison);
        assert!(
            said[0].contains("0.58: worse, nothing came back in 5.0 s of 12.0"),
            "{said:?}"
        );
        // Of two requests a second, many half seconds have none.
        let sparse: Vec<f64> = (0..60).map(|at| f64::from(at % 3 == 0)).collect();
        assert_eq!(worse(&of_runs(&run(&sparse), &run(&sparse), 0.05)), [""; 0]);
        let short = of_runs(&run(&[3.0]), &run(&[2.0]), 0.05);
        assert_eq!(worse(&short), [""; 0]);
        assert_eq!(
            short.questions[0].estimate(0.05),
            None,
            "too little to tell"
        );
        let nothing = of_runs(&before, &run(&[0.0; 24]), 0.05);
        assert!(worse(&nothing)[0].contains("0.00: worse"));
        assert!(worse(&of_runs(&before, &run(&[]), 0.05))[0].contains("0.00: worse"));
        assert_eq!(worse(&of_runs(&run(&stalled), &before, 0.05)), [""; 0]);
    }

    #[test]
    fn a_stretch_without_an_echo_has_a_wait_all_the_same() {
        let stretch = |echoes: f64| Stretch {
            seconds: 0.5,
            echoes,
            p99: echoes * 1e3,
        };
        let waits = waits(&[stretch(2.0), stretch(0.0), stretch(0.0), stretch(3.0)]);
        assert_eq!(waits, [2e3, 5e8, 1e9, 3e3]);
    }

    #[test]
    fn losses_count_though_no_latency_tells_of_them() {
        let with = |member: &str, value: Value| {
            let mut run = run(&[900.0; 24]);
            run["requests"] = json!({"sent": 1_000, "lost": 0, "unsent": 0});
            run["connections"] = json!({"planned": 10, "opened": 10});
            run["plan"] = json!({"mode": "closed"});
            *run.pointer_mut(member).unwrap_or(&mut json!(null)) = value.clone();
            if member == "/faults" {
                run["faults"] = value;
            }
            run
        };
        let whole = with("/faults", json!({}));
        let said = |after: &Value| worse(&of_runs(&whole, after, 0.05)).join("; ");
        assert_eq!(said(&whole), "");
        let reset = with("/faults", json!({"reset": {"count": 3, "first": ""}}));
        assert!(said(&reset).contains("3 faults (reset), and before 0"));
        assert_eq!(worse(&of_runs(&reset, &reset, 0.05)), [""; 0]);
        assert!(
            said(&with("/requests/lost", json!(100))).contains("10.0 % of the requests were lost")
        );
        assert!(said(&with("/connections/opened", json!(9))).contains("90.0 % of the connections"));
    }

    #[test]
    fn a_step_and_a_finding_that_are_gone_are_missed() {
        let steps = |rates: &[(f64, f64)]| {
            let steps = rates
                .iter()
                .map(|(rate, reached)| json!({"rate": rate, "echoes_per_second": reached}));
            json!({"steps": steps.collect::<Vec<_>>(), "search": null})
        };
        let before = steps(&[(100.0, 100.0), (200.0, 199.0)]);
        let found = of_runs(&before, &steps(&[(100.0, 60.0)]), 0.05);
        assert_eq!(
            worse(&found),
            [
                "worse: 60.0 echoes a second, and before 100.0",
                "missing: it is not in the second record"
            ]
        );
        let search = |rate: Value| json!({"search": {"found_rate": rate}, "steps": []});
        let found = of_runs(&search(json!(500.0)), &search(Value::Null), 0.05);
        assert!(worse(&found)[0].contains("before 500 a second did"));
    }
}
