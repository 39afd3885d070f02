//! Whether the figures of a run are about the server.
//!
//! Each rule by which a run is called invalid is a sentence: what was found, and what to do about it.
//!
//! A slow or overloaded server does not make a run invalid: that is a result. A generator that did less than was
//! planned does, and so does a machine that came in between.

use super::metrics::Pauses;
use super::{FaultKind, Mode, Plan, QUEUE_MAX, Total, Unanswered};
use crate::procfs::KernelCounters;
use std::time::Duration;

/// The largest p99 of the generator's own lateness in an open loop.
const LAG_MAX: Duration = Duration::from_millis(1);
/// The share of a processor from which a worker counts as busy without pause.
const BUSY: f64 = 0.97;
/// The share of the window for which a worker may be kept waiting for a processor.
const WAITED_MAX: f64 = 0.10;
/// Fewer answers than this have no meaningful p99.
const ANSWERS_MIN: u64 = 1_000;
/// The share of the window by which machines may begin apart.
const APART_MAX: f64 = 0.01;
/// The longest pause of the generator, in nanoseconds, and the share of the window for all pauses together.
const PAUSE_MAX: u64 = 100_000_000;
const PAUSED_MAX: f64 = 0.01;
/// A time without an answer, in nanoseconds, that is noted where the p99 is ten times shorter.
const GAP_MIN: u64 = 100_000_000;

/// What is to be known about the figures of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validity {
    /// Reasons why the figures do not hold: `not valid because ...`.
    pub invalid: Vec<String>,
    /// Notes on how to read the figures.
    pub notes: Vec<String>,
}

impl Validity {
    /// Whether the figures hold.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.invalid.is_empty()
    }
}

/// A time with three significant digits.
fn brief(nanoseconds: u64) -> Duration {
    let unit = 10u64.pow((nanoseconds.max(1).ilog10() + 1).saturating_sub(3));
    Duration::from_nanos(nanoseconds.saturating_add(unit / 2) / unit * unit)
}

/// "1 request", "2 requests", with an s behind the noun where it is more than one.
fn several(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// The share of one machine in a run.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The machine as its reasons name it; `None` if it is the only one.
    pub machine: Option<&'a str>,
    /// Its workers.
    pub workers: usize,
    /// The sum of what these have reported.
    pub total: &'a Total,
}

/// Assesses a run of this machine that has ended.
#[must_use]
pub fn assess(plan: &Plan, workers: usize, total: &Total, kernel: &KernelCounters) -> Validity {
    let part = Part {
        machine: None,
        workers,
        total,
    };
    assess_parts(plan, total, &[part], kernel)
}

/// Assesses a run of several machines, which began within `spread` nanoseconds. The counters of their kernels are not
/// known.
#[must_use]
pub fn assess_machines(plan: &Plan, total: &Total, parts: &[Part<'_>], spread: u64) -> Validity {
    let mut validity = assess_parts(plan, total, parts, &KernelCounters::default());
    if spread as f64 > total.end.window as f64 * APART_MAX && total.echoes > 0 {
        validity.invalid.push(format!(
            "the machines began up to {:?} apart, more than 1 % of the window, so a part of it had less than the load; \
             measure for longer (--duration)",
            brief(spread)
        ));
    }
    validity
}

fn assess_parts(
    plan: &Plan,
    total: &Total,
    parts: &[Part<'_>],
    kernel: &KernelCounters,
) -> Validity {
    let mut validity = Validity::default();
    if !total.end.counters.balance() {
        validity.invalid.push(
            "the counters do not balance, a mistake in this program; please report it".into(),
        );
    }
    assess_answers(&mut validity, plan, total);
    assess_connections(&mut validity, plan, total);
    for part in parts {
        let of_it = assess_part(plan, part, total.echoes > 0);
        let named = |text| match part.machine {
            Some(machine) => format!("'{machine}': {text}"),
            None => text,
        };
        validity
            .invalid
            .extend(of_it.invalid.into_iter().map(named));
        validity.notes.extend(of_it.notes.into_iter().map(named));
    }
    assess_machine(&mut validity, plan, total, kernel);
    if total.echoes == 0 {
        return validity;
    }
    assess_schedule(&mut validity, plan, total);
    if total.end.interrupted {
        let text = format!("it was ended early, after {:.1} s", total.window());
        validity.notes.push(text);
    }
    if total.latency().len() < ANSWERS_MIN {
        let text = format!(
            "only {}: high percentiles are anecdotes; measure for longer",
            several(total.latency().len(), "answer")
        );
        validity.notes.push(text);
    }
    validity
}

/// The generator of one machine.
#[must_use]
pub fn assess_part(plan: &Plan, part: &Part<'_>, has_answers: bool) -> Validity {
    let mut validity = Validity::default();
    assess_limits(&mut validity, part.total);
    assess_pauses(&mut validity, part.workers, part.total);
    if has_answers {
        assess_generator(&mut validity, plan, part);
        assess_lag(&mut validity, plan, part.total);
    }
    validity
}

/// Requests without an answer. They are worse than any latency, and a server that leaves requests unanswered is not
/// described by the ones that it answers.
fn assess_answers(validity: &mut Validity, plan: &Plan, total: &Total) {
    let end = &total.end;
    if total.echoes == 0 {
        let all = plan.requests.filter(|&all| end.counters.echoed >= all);
        validity.invalid.push(match all {
            Some(all) => format!(
                "all {all} requests had come back before the window began; ask for more (-n), or use --warm-up 0"
            ),
            None if end.window == 0 && end.interrupted => {
                "it was ended before the window began, and nothing was measured".into()
            }
            None if end.window == 0 => {
                "no connection was left when the window was to begin, and nothing was measured".into()
            }
            None => "nothing came back in the window".into(),
        });
    } else if total.latency().is_empty() {
        validity.invalid.push("no latency was measured".into());
    }
    if end.faults.total() == 0 && end.counters.lost > 0 {
        validity.notes.push(format!(
            "{} of {} sent did not come back in {:?}",
            several(end.counters.lost, "datagram"),
            end.counters.sent,
            plan.timeout
        ));
    }
    if end.unanswered.connections == 0 {
        return assess_gap(validity, plan, total);
    }
    validity.invalid.push(without_an_answer(&end.unanswered));
}

fn without_an_answer(unanswered: &Unanswered) -> String {
    let and_more = match unanswered.connections > unanswered.numbers.len() as u64 {
        true => ", ...",
        false => "",
    };
    let mut numbers = unanswered.numbers.clone();
    numbers.sort_unstable();
    numbers.dedup(); // a churn reuses numbers
    let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
    let half = match unanswered.half {
        0 => String::new(),
        half => format!("; on {half} of them half an answer came"),
    };
    format!(
        "{} on {} (number {}{and_more}) had no answer, the longest for {:?}{half}; the latencies have that wait as far as \
         it went",
        several(unanswered.requests, "request"),
        several(unanswered.connections, "connection"),
        numbers.join(", "),
        brief(unanswered.longest)
    )
}

/// A long gap. A closed loop sends nothing while it waits, so a server that stands still for a moment has only one
/// slow answer on each connection, which no percentile shows.
fn assess_gap(validity: &mut Validity, plan: &Plan, total: &Total) {
    let gap = total.end.fairness.longest_gap;
    let usual = total.service_time.value_at_quantile(0.99);
    // A broken connection has no answer until the end, and is reported as a fault.
    let all_lived = total.end.faults.total() == 0;
    if plan.mode == Mode::Closed
        && all_lived
        && total.echoes > 0
        && gap >= GAP_MIN
        && gap >= 10 * usual
    {
        // What was not read cannot be told from what did not come.
        let own = match total.end.pauses.longest {
            0 => String::new(),
            longest => format!(
                " (in which the generator stood still for up to {:?} itself)",
                brief(longest)
            ),
        };
        validity.notes.push(format!(
            "a connection had no answer for {:?}{own}, where 99 of 100 took {:?} at most; a closed loop asks nothing \
             meanwhile, so its percentiles leave that out (--rate shows it)",
            brief(gap),
            brief(usual)
        ));
    }
}

/// Fewer connections than planned.
fn assess_connections(validity: &mut Validity, plan: &Plan, total: &Total) {
    let (opened, planned) = (total.opened.0, plan.connections as u64);
    let untried = total.end.counters.untried;
    if matches!(plan.mode, Mode::Churn { .. }) || opened >= planned || total.end.interrupted {
        return;
    }
    let untried = match untried {
        0 => String::new(),
        _ => format!(
            "; {untried} were not tried any more, since too many before them had no answer within the timeout"
        ),
    };
    validity.invalid.push(format!(
        "only {opened} of {} came about{untried}",
        several(planned, "connection")
    ));
}

/// Pauses of the generator itself.
fn assess_pauses(validity: &mut Validity, workers: usize, total: &Total) {
    let stood_still = |pauses: &Pauses| {
        format!(
            "the generator itself stood still, {} of {:?} in all, the longest of {:?} at {:.1} s",
            several(pauses.count, "pause"),
            brief(pauses.total),
            brief(pauses.longest),
            pauses.at as f64 / 1e9
        )
    };
    let opening = &total.end.opening_pauses;
    if opening.longest >= PAUSE_MAX {
        validity.notes.push(format!(
            "{} of the run, while connections were opened; connects that took that long are its own",
            stood_still(opening)
        ));
    }
    let pauses = &total.end.pauses;
    if pauses.count == 0 {
        return;
    }
    let text = format!(
        "{} of the window: it was stopped or kept from the processor, and its own time looks like the server's",
        stood_still(pauses)
    );
    let share = pauses.total as f64 / (total.end.window.max(1) as f64 * workers as f64);
    match pauses.longest >= PAUSE_MAX || share > PAUSED_MAX {
        true => validity.invalid.push(text),
        false => validity.notes.push(text),
    }
}

/// Limits of this machine. The load was then smaller than asked for, for a reason outside of the server.
fn assess_limits(validity: &mut Validity, total: &Total) {
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
            validity.invalid.push(format!(
                "the generator met a limit of its own: {count} times a connection could not {what}; {remedy}"
            ));
        }
    }
}

/// A generator that was the bottleneck.
fn assess_generator(validity: &mut Validity, plan: &Plan, part: &Part<'_>) {
    let Part { workers, total, .. } = *part;
    let window = total.end.window as f64 * workers as f64;
    let cpu = total.end.usage.cpu as f64 / window;
    let waited = total.end.usage.waited as f64 / window;
    if waited > WAITED_MAX {
        validity.invalid.push(format!(
            "the generator was kept waiting for a processor {:.0} % of the time; give it one of its own (taskset), or \
             stop what else is running",
            waited * 100.0
        ));
    }
    // Where arrivals are planned, lateness shows the limit, and CPU time does not: between two close arrivals the
    // generator polls.
    if matches!(plan.mode, Mode::Open { .. }) {
        return;
    }
    // A generator without pause limits the load, unless the server has no pause either.
    let server = total.end.server.map(|server| {
        let used = server.end.usage.since(server.begin.usage);
        (used.cpu + used.waited) as f64 / total.end.window as f64
    });
    if cpu > BUSY && server.is_none_or(|server| server < BUSY) {
        let seen = match server {
            Some(server) => format!("the server only {:.0} %", server * 100.0),
            None if part.machine.is_some() => "nothing is known of the server's".to_owned(),
            None => "nothing is known of the server's (--server-pid would tell)".to_owned(),
        };
        let remedy = match plan.mode {
            // The kernel searches for a port whose tuple is not in TIME_WAIT, and searches longer the more of them
            // are.
            Mode::Churn { reset: false } => {
                "; closed by FIN, each tuple rests for a minute, and finding a free one takes long: --source names \
                 more of them, --churn reset leaves none behind"
            }
            _ => "",
        };
        validity.invalid.push(format!(
            "the generator was busy {:.0} % of the time, and {seen}: it may have been the bottleneck; use \
             --workers {}{remedy}",
            cpu * 100.0,
            workers + 1
        ));
    }
}

/// A generator that took up the requests of an open loop late.
fn assess_lag(validity: &mut Validity, plan: &Plan, total: &Total) {
    let lag = total.lag.value_at_quantile(0.99);
    if matches!(plan.mode, Mode::Open { .. }) && Duration::from_nanos(lag) > LAG_MAX {
        let lag = brief(lag);
        validity.invalid.push(format!(
            "the generator was late itself, by {lag:?} for one request in a hundred; ask for less, use --workers, or \
             give it a processor of its own"
        ));
    }
}

/// An open loop that did less than its plan.
fn assess_schedule(validity: &mut Validity, plan: &Plan, total: &Total) {
    let Mode::Open { rate, .. } = plan.mode else {
        return;
    };
    let missed = 1.0 - total.rate() / rate;
    if plan.requests.is_none() && missed > 0.005 {
        validity.notes.push(format!(
            "{:.1} % of the planned rate did not come back in the window; the generator took up 99 of 100 requests within \
             {:?} of their time",
            missed * 100.0,
            brief(total.lag.value_at_quantile(0.99))
        ));
    }
    let counters = &total.end.counters;
    if counters.left_out > 0 {
        validity.invalid.push(format!(
            "the queue of planned requests was full ({QUEUE_MAX} in each worker), and {} were left out; ask for less \
             (--rate), or use more connections, a deeper --pipeline or --workers",
            counters.left_out
        ));
    }
    if counters.warm_up_dropped > 0 {
        validity.notes.push(format!(
            "when the window began, {} planned in the warm-up still waited for a connection: dropped, and in no figure",
            several(counters.warm_up_dropped, "request")
        ));
    }
    if counters.unsent > 0 {
        validity.notes.push(format!(
            "{} found no connection free until the end; the response times have that wait as far as it went",
            several(counters.unsent, "planned request")
        ));
    }
}

/// Packets and connections that the kernel dropped.
///
/// These counters are of the whole machine, and so of every program on it. What happened to this run is known from
/// its own connections: the time of their handshakes, and what TCP has sent again on them.
fn assess_machine(validity: &mut Validity, plan: &Plan, total: &Total, kernel: &KernelCounters) {
    let resent = total.end.resent;
    let retried = handshakes_retried(total).into_iter();
    let late = retried.fold(0, |sum: u64, (_, count)| sum.saturating_add(count));
    let overflows = kernel.get("ListenOverflows").max(kernel.get("ListenDrops"));
    match plan.mode {
        _ if overflows == 0 => {}
        _ if late == 0 && resent.segments == 0 => validity.notes.push(format!(
            "accept queues on this machine overflowed {overflows} times; it does not show in any connection of this run, so \
             they may be those of another program"
        )),
        mode => {
            let text = format!(
                "accept queues on this machine overflowed {overflows} times, and {} of this run had segments to send again, \
                 {late} of them the first one of their handshake: that wait is spent in a queue of the kernel, and is no \
                 work of a server",
                several(resent.connections.max(late), "connection")
            );
            match mode {
                Mode::Churn { .. } => validity.invalid.push(text),
                _ => validity.notes.push(text),
            }
        }
    }
    let retransmitted = kernel.get("RetransSegs");
    if resent.segments > 0 {
        validity.notes.push(format!(
            "TCP segments sent again on {} of this run: {} (TCP_INFO); each may have cost 200 ms or more",
            several(resent.connections, "connection"),
            resent.segments
        ));
    } else if retransmitted > 0 {
        validity.notes.push(format!(
            "TCP segments sent again on this machine: {retransmitted}; none of them by the connections of this run (TCP_INFO)"
        ));
    }
    for (name, whose) in [("RcvbufErrors", "receive"), ("SndbufErrors", "send")] {
        let dropped = kernel.get(name);
        if dropped > 0 {
            validity.notes.push(format!(
                "{dropped} datagrams, of this run or of another program, were dropped on this machine for want of a \
                 {whose} buffer; that is loss without a network"
            ));
        }
    }
}

/// Connects that took as long as a handshake whose SYN was lost and sent again: after 1, 3 and 7 seconds (RFC 6298,
/// with Linux' initial timeout of a second).
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
mod tests;
