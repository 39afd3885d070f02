//! A plan that has been run: its sums, and whether to believe them.

use super::workers::{self, Told};
use crate::cli::error::CliError;
use crate::cli::memory::Row;
use crate::load::validity::{Validity, assess};
use crate::load::{Mode, Plan, Total};
use crate::procfs::KernelCounters;

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
}

impl Run {
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
    workers: usize,
    stop: &dyn Fn() -> bool,
    told: impl FnMut(Told<'_>),
) -> Result<Run, CliError> {
    let before = KernelCounters::read();
    let total = workers::run(&plan, workers, stop, told)?;
    let kernel = KernelCounters::read().since(before);
    let validity = assess(&plan, workers, &total, &kernel);
    Ok(Run {
        plan,
        workers,
        total,
        kernel,
        validity,
        memory: Vec::new(),
    })
}
