//! What a master consists of.

use super::listeners::Listeners;
use super::process::{Failure, Process};
use super::slot::Slot;
use crate::cli::serve::announcement::Announcement;
use crate::cli::serve::args::ServeArgs;
use crate::cli::serve::delivery::Delivery;
use crate::cli::serve::program::Program;
use crate::cli::serve::signals::MasterSignals;
use std::time::Instant;

/// Processes that are to begin together: those of the start, or those of a new program.
#[derive(Debug)]
pub(super) struct Cohort {
    pub(super) is_replacement: bool,
    /// Until when all have to be ready.
    pub(super) until: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Starting,
    Serving,
    Stopping,
}

pub(in crate::cli::serve) struct Master<'a> {
    pub(super) args: &'a ServeArgs,
    pub(super) program: Program,
    pub(super) workers: usize,
    pub(super) listeners: Listeners,
    pub(super) processes: Vec<Process>,
    pub(super) slots: Vec<Slot>,
    pub(super) phase: Phase,
    /// When the drain begins, if a signal to stop came and `--drain-delay` is not over.
    pub(super) drain_at: Option<Instant>,
    /// Whether the workers were told to stop at once.
    pub(super) is_told_to_stop: bool,
    pub(super) cohort: Option<Cohort>,
    pub(super) question: Option<Question>,
    /// The reason why the first workers did not start.
    pub(super) failure: Option<Failure>,
    /// Workers that were killed while this server stops, and what they had open.
    pub(super) killed_workers: u64,
    pub(super) killed_connections: u64,
    pub(super) signals: MasterSignals,
    pub(super) announcement: Option<Announcement>,
    pub(super) delivery: Option<Delivery>,
    pub(super) started: Instant,
}

/// A question for the counters that not all workers have answered yet.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) until: Instant,
}
