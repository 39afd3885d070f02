//! A plan that has been run: its sums, and whether to believe them.

use super::workers::{self, Machines, Share, Told};
use crate::cli::error::CliError;
use crate::cli::memory::Row;
use crate::load::validity::{Part, Validity, assess, assess_machines, assess_part};
use crate::load::{Mode, Plan, Total};
use crate::procfs::KernelCounters;
use std::time::Duration;

/// A plan that has been run.
#[derive(Debug)]
pub(in crate::cli) struct Run {
    pub(in crate::cli) plan: Plan,
    pub(in crate::cli) workers: usize,
    pub(in crate::cli) total: Total,
    pub(in crate::cli) kernel: KernelCounters,
    pub(in crate::cli) validity: Validity,
    /// What the connections of a hold cost, at every power of ten of them.
    pub(in crate::cli) memory: Vec<Row>,
    /// What each machine of `--at` has done.
    pub(in crate::cli) shares: Vec<Share>,
    /// The bound on how far apart they began.
    pub(in crate::cli) spread: Duration,
}

impl Run {
    /// The number of workers of each machine.
    pub(in crate::cli) fn workers_each(&self) -> usize {
        self.workers / self.shares.len().max(1)
    }

    /// What was asked for a second, if anything was.
    pub(in crate::cli) fn planned_rate(&self) -> Option<f64> {
        match self.plan.mode {
            Mode::Open { rate, .. } => Some(rate),
            _ => None,
        }
    }
}

/// Runs a plan, and assesses the result. `stop` is called twenty times a second, `told` with what goes on.
pub(in crate::cli) fn measure(
    plan: Plan,
    machines: &Machines,
    stop: &dyn Fn() -> bool,
    told: impl FnMut(Told<'_>),
) -> Result<Run, CliError> {
    let before = KernelCounters::read();
    let (total, mut shares, spread) = workers::run(&plan, machines, stop, told)?;
    for share in &mut shares {
        let part = share.part(machines.workers);
        share.invalid = assess_part(&plan, &part, share.total.echoes > 0).invalid;
    }
    let kernel = KernelCounters::read().since(before);
    let workers = machines.all_workers();
    let parts: Vec<Part<'_>> = (shares.iter())
        .map(|share| share.part(machines.workers))
        .collect();
    let mut validity = match parts.is_empty() {
        true => assess(&plan, workers, &total, &kernel),
        false => assess_machines(&plan, &total, &parts, spread.as_nanos() as u64),
    };
    for share in shares.iter().filter(|share| !share.said.is_empty()) {
        let text = format!("'{}' said: {}", share.at, share.said.join(" | "));
        validity.notes.push(text);
    }
    Ok(Run {
        plan,
        workers,
        total,
        kernel,
        validity,
        memory: Vec::new(),
        shares,
        spread,
    })
}
