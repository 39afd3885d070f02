//! Several runs in a row: steps of a rate, and the search for the highest that a bound of the latency allows.
//!
//! Each step opens its own connections, so that what one has left behind in queues does not count against the next.

use super::{Bench, Run};
use crate::cli::exit::Failure;
use crate::load::{Arrivals, Mode, Plan};
use std::time::Duration;

/// When two rates are so close, the search has found what it can.
const CLOSE: f64 = 1.03;
/// Steps of a search, at most.
const STEPS_MAX: usize = 16;

/// One run for each rate.
pub(super) fn steps(
    bench: &mut Bench<'_>,
    plan: &Plan,
    rates: &[f64],
    arrivals: Arrivals,
) -> Result<Vec<Run>, Failure> {
    let mut runs = Vec::new();
    for &rate in rates {
        if bench.must_stop() {
            break;
        }
        runs.push(bench.run(&at(plan, rate, arrivals))?);
    }
    Ok(runs)
}

fn at(plan: &Plan, rate: f64, arrivals: Arrivals) -> Plan {
    Plan {
        mode: Mode::Open { rate, arrivals },
        // The next step wants the ports of this one.
        reset_at_end: true,
        ..plan.clone()
    }
}

/// The highest rate at which the p99, from the planned send, is within `bound`. A closed loop says how fast the server
/// is when nobody is in a hurry; above that there is nothing to find, and below it the interval is halved.
pub(super) fn find_max(
    bench: &mut Bench<'_>,
    plan: &Plan,
    bound: Duration,
    arrivals: Arrivals,
) -> Result<Vec<Run>, Failure> {
    let closed = bench.run(plan)?;
    let (mut low, mut high) = (0.0, closed.total.rate().max(2.0));
    let mut runs = vec![closed];
    let mut best = None;
    while runs.len() < STEPS_MAX && !bench.must_stop() && high > low * CLOSE && high >= 2.0 {
        let rate = match low > 0.0 {
            true => f64::midpoint(low, high),
            false => high * 0.7,
        };
        let run = bench.run(&at(plan, rate.round(), arrivals))?;
        if keeps(&run, rate, bound) {
            low = rate;
            best = Some(runs.len());
        } else {
            high = rate;
        }
        runs.push(run);
    }
    // The best comes last: it is the one of which the report tells.
    if let Some(best) = best {
        let best = runs.remove(best);
        runs.push(best);
    }
    Ok(runs)
}

fn keeps(run: &Run, rate: f64, bound: Duration) -> bool {
    let p99 = Duration::from_nanos(run.total.latency().value_at_quantile(0.99));
    p99 <= bound && run.total.rate() >= rate * 0.99
}
