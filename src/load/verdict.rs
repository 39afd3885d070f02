//! Whether a measurement is worth anything.
//!
//! Every benchmark prints numbers; whether they are about the server is another question. What may live in this file:
//! the rules by which a run is called invalid, each as a sentence that says what was found and what to do about it.
//!
//! A server that is slow, or overloaded, does not make a run invalid: that is a result. What does is a generator that
//! could not do what was planned, or a machine that got in between.

use super::machine::KernelCounters;
use super::{FaultKind, Mode, Plan, Total};
use std::time::Duration;

/// An open loop must not be later than this, for 99 of 100 requests, by its own fault.
const LAG_MAX: Duration = Duration::from_millis(1);
/// The share of a processor from which a worker counts as busy without pause.
const BUSY: f64 = 0.97;
/// The share of the window for which a worker may be kept waiting for a processor.
const WAITED_MAX: f64 = 0.10;
/// Answers below which the hundredth of them is an anecdote.
const ANSWERS_MIN: u64 = 1_000;

/// What there is to say of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why its figures are not to be believed: `not valid because ...`.
    pub invalid: Vec<String>,
    /// What one should know to read them.
    pub notes: Vec<String>,
}

impl Verdict {
    /// Whether its figures may be believed.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.invalid.is_empty()
    }
}

/// Judges a run that has ended.
#[must_use]
pub fn judge(plan: &Plan, workers: usize, total: &Total, kernel: &KernelCounters) -> Verdict {
    let mut verdict = Verdict::default();
    if !total.end.ledger.balance() {
        verdict.invalid.push(
            "the ledger does not balance, a mistake in this program; please report it".into(),
        );
    }
    if total.echoes == 0 {
        let all = plan.requests.filter(|&all| total.end.ledger.echoed >= all);
        verdict.invalid.push(match all {
            Some(all) => format!(
                "all {all} requests had come back before the window began; ask for more (-n), or use --warm-up 0"
            ),
            None => "nothing came back in the window".into(),
        });
        return verdict;
    }
    judge_limits(&mut verdict, total);
    judge_generator(&mut verdict, plan, workers, total);
    judge_pace(&mut verdict, plan, total);
    judge_machine(&mut verdict, plan, kernel);
    if total.end.interrupted {
        let text = format!("it was ended early, after {:.1} s", total.window());
        verdict.notes.push(text);
    }
    if total.latency().len() < ANSWERS_MIN {
        let text = format!(
            "only {} answers: high percentiles are anecdotes; measure for longer",
            total.latency().len()
        );
        verdict.notes.push(text);
    }
    verdict
}

/// Was it a limit of our own that was met? Then fewer were sent than was meant, and the server is not to blame.
fn judge_limits(verdict: &mut Verdict, total: &Total) {
    let limits = [
        (
            FaultKind::NoPort,
            "connect, since no port of ours was free",
            "--source names more addresses, and --churn reset leaves none resting",
        ),
        (
            FaultKind::NoDescriptor,
            "be opened for want of a descriptor",
            "raise the limit (ulimit -n), or use --workers",
        ),
    ];
    for (kind, what, remedy) in limits {
        let count = total.end.faults.count(kind);
        if count > 0 {
            verdict.invalid.push(format!(
                "the generator met a limit of its own: {count} times a connection could not {what}; {remedy}"
            ));
        }
    }
}

/// Was it the generator that was measured?
fn judge_generator(verdict: &mut Verdict, plan: &Plan, workers: usize, total: &Total) {
    let window = total.end.window as f64 * workers as f64;
    let cpu = total.end.usage.cpu as f64 / window;
    let waited = total.end.usage.waited as f64 / window;
    if waited > WAITED_MAX {
        verdict.invalid.push(format!(
            "the generator was kept waiting for a processor {:.0} % of the time; give it one of its own (taskset), or \
             stop what else is running",
            waited * 100.0
        ));
    }
    // Where arrivals are planned, being late tells of the limit, and being busy need not: between two arrivals that are
    // close together the generator does not sleep.
    if matches!(plan.mode, Mode::Open { .. }) {
        return;
    }
    // A generator without pause is what limits, unless the server has no pause either.
    let server = total.end.server.map(|server| {
        let used = server.end.usage.since(server.begin.usage);
        (used.cpu + used.waited) as f64 / total.end.window as f64
    });
    if cpu > BUSY && server.is_none_or(|server| server < BUSY) {
        let seen = match server {
            Some(server) => format!("the server only {:.0} %", server * 100.0),
            None => "nothing is known of the server's (--server-pid would tell)".to_owned(),
        };
        let remedy = match plan.mode {
            // The kernel looks for a port whose tuple does not rest, and looks the longer the more of them do.
            Mode::Churn { reset: false } => {
                "; closed by FIN, each tuple rests for a minute, and finding a free one takes long: --source names \
                 more of them, --churn reset leaves none behind"
            }
            _ => "",
        };
        verdict.invalid.push(format!(
            "the generator was busy {:.0} % of the time, and {seen}: it may have been the bottleneck; use \
             --workers {}{remedy}",
            cpu * 100.0,
            workers + 1
        ));
    }
}

/// Was an open loop as open as planned?
fn judge_pace(verdict: &mut Verdict, plan: &Plan, total: &Total) {
    let Mode::Open { rate, .. } = plan.mode else {
        return;
    };
    let lag = Duration::from_nanos(total.lag.value_at_quantile(0.99));
    if lag > LAG_MAX {
        verdict.invalid.push(format!(
            "the generator was late itself, by {lag:?} for one request in a hundred; ask for less, use --workers, or \
             give it a processor of its own"
        ));
    }
    let missed = 1.0 - total.rate() / rate;
    if plan.requests.is_none() && missed > 0.005 {
        verdict.notes.push(format!(
            "{:.1} % of the planned rate did not come back in the window: the server was overloaded, or stood still",
            missed * 100.0
        ));
    }
    if total.end.ledger.unsent > 0 {
        verdict.notes.push(format!(
            "{} planned requests found no connection free until the end; their wait is in the planned latencies as far \
             as it went",
            total.end.ledger.unsent
        ));
    }
}

/// Did the kernel throw anything away?
fn judge_machine(verdict: &mut Verdict, plan: &Plan, kernel: &KernelCounters) {
    let overflows = kernel.get("ListenOverflows").max(kernel.get("ListenDrops"));
    if overflows > 0 {
        let text = format!(
            "an accept queue of this machine overflowed {overflows} times: clients were kept waiting for a second and \
             more, by the backlog and not by the server's work"
        );
        match plan.mode {
            Mode::Churn { .. } => verdict.invalid.push(text),
            _ => verdict.notes.push(text),
        }
    }
    let retransmitted = kernel.get("RetransSegs");
    if retransmitted > 0 {
        verdict.notes.push(format!(
            "TCP segments sent again on this machine: {retransmitted}; each may have kept somebody waiting \
             for 200 ms or more"
        ));
    }
    for (name, whose) in [("RcvbufErrors", "receive"), ("SndbufErrors", "send")] {
        let dropped = kernel.get(name);
        if dropped > 0 {
            verdict.notes.push(format!(
                "{dropped} datagrams were dropped on this machine for want of a {whose} buffer; that is loss \
                 without a network"
            ));
        }
    }
}

/// How long connecting took where a handshake was lost and tried again: after 1, 3 and 7 seconds (RFC 6298, with Linux'
/// first wait of a second).
#[must_use]
pub fn handshakes_retried(total: &Total) -> [(u32, u64); 3] {
    let within = |from: u64, to: u64| total.connect.count_between(from, to);
    const MS: u64 = 1_000_000;
    [
        (1, within(950 * MS, 1_900 * MS)),
        (3, within(2_900 * MS, 4_900 * MS)),
        (7, within(6_800 * MS, 9_900 * MS)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::fit::tests::plan;
    use super::super::{Arrivals, Final, ServerFigures};
    use super::*;
    use crate::load::machine::Usage;
    use crate::net::Endpoint;

    fn total(cpu: u64, waited: u64) -> Total {
        let mut total = Total::new(1);
        (0..10_000).for_each(|_| total.actual.saturating_record(1_000));
        total.echoes = 10_000;
        total.end = Final {
            usage: Usage { cpu, waited },
            window: 1_000_000_000,
            ..Final::default()
        };
        total
    }

    fn judged(mode: Mode, total: &Total) -> Verdict {
        let mut plan = plan(Endpoint::Tcp("127.0.0.1:7".parse().unwrap()));
        plan.mode = mode;
        judge(&plan, 1, total, &KernelCounters::default())
    }

    #[test]
    fn a_generator_with_time_to_spare_is_believed() {
        let verdict = judged(Mode::Closed, &total(500_000_000, 0));
        assert_eq!(verdict, Verdict::default());
    }

    #[test]
    fn a_generator_without_time_to_spare_is_not() {
        let verdict = judged(Mode::Closed, &total(990_000_000, 0));
        assert!(verdict.invalid[0].contains("bottleneck"), "{verdict:?}");
        let verdict = judged(Mode::Closed, &total(500_000_000, 200_000_000));
        assert!(verdict.invalid[0].contains("20 %"), "{verdict:?}");
    }

    #[test]
    fn beside_a_server_that_is_as_busy_it_is_believed() {
        let beside = |server: u64| {
            let mut total = total(990_000_000, 0);
            let mut figures = ServerFigures::default();
            figures.end.usage.cpu = server;
            total.end.server = Some(figures);
            judged(Mode::Closed, &total)
        };
        assert_eq!(beside(980_000_000), Verdict::default());
        let idler = beside(960_000_000);
        assert!(idler.invalid[0].contains("only 96 %"), "{idler:?}");
    }

    #[test]
    fn an_open_loop_that_was_late_by_itself_is_not() {
        let open = Mode::Open {
            rate: 10_000.0,
            arrivals: Arrivals::Constant,
        };
        let mut late = total(500_000_000, 0);
        assert!(judged(open, &late).is_valid());
        (0..100).for_each(|_| late.lag.saturating_record(5_000_000));
        assert!(judged(open, &late).invalid[0].contains("late itself"));
        late.echoes = 5_000;
        assert!(judged(open, &late).notes[0].contains("50.0 %"));
    }

    #[test]
    fn a_limit_of_our_own_is_no_result_of_the_servers() {
        let mut short = total(500_000_000, 0);
        short.end.faults.add(FaultKind::Refused, 1, "refused");
        assert!(judged(Mode::Closed, &short).is_valid(), "that is a result");
        short.end.faults.add(FaultKind::NoPort, 3, "no port");
        let verdict = judged(Mode::Churn { reset: false }, &short);
        assert!(verdict.invalid[0].contains("3 times a connection could not connect"));
        assert!(verdict.invalid[0].contains("--source"), "{verdict:?}");
    }

    #[test]
    fn nothing_is_no_measurement() {
        let mut nothing = Total::new(1);
        let verdict = judged(Mode::Closed, &nothing);
        assert_eq!(verdict.invalid, ["nothing came back in the window"]);
        let mut plan = plan(Endpoint::Tcp("127.0.0.1:7".parse().unwrap()));
        plan.requests = Some(500);
        (nothing.end.ledger.sent, nothing.end.ledger.echoed) = (500, 500);
        let verdict = judge(&plan, 1, &nothing, &KernelCounters::default());
        assert!(verdict.invalid[0].contains("--warm-up 0"), "{verdict:?}");
    }
}
