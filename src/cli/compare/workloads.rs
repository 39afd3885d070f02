//! What is measured: which loads, for how long, how often, and how long all of it will take.
//!
//! What may live in this file: choices, each with its reason. What may not: acting on them.
//!
//! Many short measurements, not few long ones. What makes two measurements of the same server differ is hardly ever the
//! number of echoes in them; it is the process (where its memory lies, which of its buckets collide) and the minute (what
//! else the machine does). More of the same minute tells nothing of either, so every round starts its servers anew.

use super::record::{Load, Scenario};
use crate::load::{Mode, Plan};
use crate::net::Endpoint;
use std::time::Duration;

/// Requests under way on each connection where they are pipelined.
pub(super) const PIPELINE_DEPTH: usize = 16;
/// Of so many connections one is active where most are idle: 80 % are silent.
const IDLE_SHARE: usize = 5;

/// How often and for how long each is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timing {
    pub(super) rounds: u64,
    pub(super) warm_up: Duration,
    pub(super) window: Duration,
}

/// Every point of the curve over connections with small requests; with larger ones, the points that tell of copying; and
/// of each other way to use a server the sizes at which it shows.
const FULL_LOADS: [(Scenario, &[u64], u64); 8] = [
    (Scenario::RequestResponse, &[1, 10, 100, 1_000], 64),
    (Scenario::RequestResponse, &[5_000, 10_000], 64),
    (Scenario::RequestResponse, &[1, 100, 1_000, 10_000], 4_096),
    (Scenario::RequestResponse, &[1, 10, 100, 1_000], 65_536),
    (Scenario::Pipelined, &[1, 100, 1_000], 64),
    (Scenario::Churn, &[1, 100], 64),
    (Scenario::MostlyIdle, &[100, 1_000, 10_000], 64),
    (Scenario::SlowReader, &[10, 100], 64),
];

const QUICK_LOADS: [(Scenario, &[u64], u64); 4] = [
    (Scenario::RequestResponse, &[1, 10, 100, 1_000], 64),
    (Scenario::RequestResponse, &[10], 65_536),
    (Scenario::Churn, &[10], 64),
    (Scenario::MostlyIdle, &[1_000], 64),
];

impl Timing {
    pub(super) fn of(quick: bool) -> Self {
        let (rounds, warm_up, window) = match quick {
            true => (6, 80, 250),      // a minute was promised
            false => (10, 400, 1_500), // half an hour
        };
        Self {
            rounds,
            warm_up: Duration::from_millis(warm_up),
            window: Duration::from_millis(window),
        }
    }

    /// How long one measurement takes, roughly: a server is started, connections are opened, and closed again.
    pub(super) fn length_of(&self, load: &Load) -> Duration {
        const START_AND_END: Duration = Duration::from_millis(90);
        const CONNECTION: Duration = Duration::from_micros(180);
        self.warm_up + self.window + START_AND_END + CONNECTION * load.connections as u32
    }
}

/// The loads of the full comparison, or of the quick one.
pub(super) fn standard_loads(quick: bool) -> Vec<Load> {
    let rows: &[_] = if quick { &QUICK_LOADS } else { &FULL_LOADS };
    let loads = rows
        .iter()
        .flat_map(|&(scenario, connections, size)| combine(&[scenario], connections, &[size]));
    loads.collect()
}

/// Every combination of what was asked for.
pub(super) fn combine(scenarios: &[Scenario], connections: &[u64], sizes: &[u64]) -> Vec<Load> {
    let mut loads = Vec::new();
    for &scenario in scenarios {
        for &size in sizes {
            loads.extend(connections.iter().map(|&connections| Load {
                scenario,
                connections,
                size,
            }));
        }
    }
    loads
}

/// The plan of a load, against a server at `target` in processes of these numbers.
pub(super) fn plan(load: &Load, timing: &Timing, target: Endpoint, servers: &[u32]) -> Plan {
    let connections = load.connections as usize;
    let mut plan = Plan::closed_loop(vec![target], connections);
    plan.size = load.size as usize;
    (plan.warm_up, plan.duration, plan.interval) = (timing.warm_up, timing.window, timing.window);
    plan.servers = servers.to_vec();
    match load.scenario {
        Scenario::RequestResponse => {}
        Scenario::Pipelined => plan.depth = PIPELINE_DEPTH,
        // Closed by FIN, a hundred thousand tuples would rest for a minute each, and soon there would be no more.
        Scenario::Churn => plan.mode = Mode::Churn { reset: true },
        Scenario::MostlyIdle => plan.active = connections.div_ceil(IDLE_SHARE),
        Scenario::SlowReader => plan.bad_clients.slow_reader = 1,
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::plan as plan_of;
    use super::*;

    /// What the promise of half an hour and of a minute rests on: three models, of which the third takes part where there
    /// is one connection, or where they come and go.
    fn estimate(quick: bool) -> Duration {
        let timing = Timing::of(quick);
        let one_round: Duration = (standard_loads(quick).iter())
            .map(|load| {
                let alone = load.connections == 1 || load.scenario == Scenario::Churn;
                timing.length_of(load) * if alone { 3 } else { 2 }
            })
            .sum();
        one_round * timing.rounds as u32
    }

    #[test]
    fn the_promised_times_are_kept_with_room_to_spare() {
        let (quick, full) = (estimate(true).as_secs(), estimate(false).as_secs());
        assert!((25..48).contains(&quick), "{quick} s");
        assert!((15 * 60..25 * 60).contains(&full), "{full} s");
    }

    #[test]
    fn a_plan_is_what_the_scenario_says() {
        let plan = |scenario| {
            let load = Load {
                scenario,
                connections: 12,
                size: 64,
            };
            let target = Endpoint::Tcp("127.0.0.1:7".parse().unwrap());
            plan_of(&load, &Timing::of(false), target, &[7])
        };
        assert_eq!(plan(Scenario::MostlyIdle).active, 3);
        assert_eq!(plan(Scenario::SlowReader).bad_clients.slow_reader, 1);
        assert_eq!(plan(Scenario::Pipelined).depth, PIPELINE_DEPTH);
        assert_eq!(plan(Scenario::Churn).mode, Mode::Churn { reset: true });
        let plain = plan(Scenario::RequestResponse);
        assert_eq!(
            (plain.active, plain.bad_clients.slow_reader, plain.depth),
            (12, 0, 1)
        );
    }

    #[test]
    fn combinations_are_all_of_them() {
        let loads = combine(
            &[Scenario::RequestResponse, Scenario::Churn],
            &[1, 10, 100],
            &[64],
        );
        assert_eq!(loads.len(), 6);
        assert_eq!(loads[5].connections, 100);
    }
}
