//! Runs plans one after another, and tells of their progress.

use super::hdr;
use super::progress::Progress;
use super::run::{Run, measure};
use super::workers::{Machines, Told};
use crate::cli::error::CliError;
use crate::cli::memory::MemoryTable;
use crate::load::Plan;
use std::sync::atomic::{AtomicBool, Ordering};

/// What every run of this command has in common.
pub(super) struct Runner<'a> {
    pub(super) machines: &'a Machines,
    pub(super) stop: &'a AtomicBool,
    pub(super) progress: &'a mut Progress,
    pub(super) log: Option<&'a mut hdr::Log>,
    pub(super) is_hold: bool,
}

impl Runner<'_> {
    /// Runs a plan, and judges it.
    pub(super) fn run(&mut self, plan: &Plan) -> Result<Run, CliError> {
        self.progress.begin(plan);
        let (progress, log) = (&mut *self.progress, &mut self.log);
        if let Some(log) = log {
            log.begin_step();
        }
        let mut table = self.is_hold.then(|| MemoryTable::of_others(&plan.servers));
        let told = |told: Told<'_>| match told {
            Told::Open(open) => {
                progress.opening(open, plan);
                let all = plan.connections as u64;
                if let Some(table) = &mut table {
                    // At every power of ten, and at the end of the way.
                    if open >= 10 && (table.is_due(open) || open == all && !table.ends_at(all)) {
                        table.add_other(open);
                    }
                }
            }
            Told::Interval(interval, total) => {
                progress.tell(interval, total);
                if let Some(log) = log {
                    log.write(interval);
                }
            }
        };
        let stop = || self.stop.load(Ordering::Relaxed);
        let mut run = measure(plan.clone(), self.machines, &stop, told)?;
        run.memory = table.map_or_else(Vec::new, |table| table.rows().to_vec());
        Ok(run)
    }

    /// Whether the run was interrupted.
    pub(super) fn must_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
