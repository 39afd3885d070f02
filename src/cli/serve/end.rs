//! The end of a server: its results, and the exit code that they make.

use super::counters::Counters;
use crate::cli::error::{CliError, Exit};
use crate::cli::logging;
use crate::cli::units::{Time, plural};
use crate::net::Endpoint;
use crate::stats::{CloseReason, DropReason, RejectReason};
use serde_json::Value;
use std::time::Duration;

/// The results of a server that has ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) counters: Counters,
    pub(super) addresses: Vec<Endpoint>,
    /// A row for each worker, if there are workers.
    pub(super) workers: Option<Vec<Value>>,
    /// Workers that were killed while the server stopped.
    pub(super) killed_workers: u64,
    /// The connections that they had open.
    pub(super) killed_connections: u64,
    /// How long it has served, if that was longer than this program.
    pub(super) lasted: Option<Duration>,
    /// Whether its trace was written, if there is one.
    pub(super) trace: Result<(), CliError>,
}

impl Default for End {
    fn default() -> Self {
        Self {
            counters: Counters::default(),
            addresses: Vec::new(),
            workers: None,
            killed_workers: 0,
            killed_connections: 0,
            lasted: None,
            trace: Ok(()),
        }
    }
}

/// Logs the result, and returns whether the end was in order.
pub(super) fn conclude(end: &End, lasted: Duration) -> Exit {
    let lasted = Duration::from_millis(u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX));
    let Counters {
        stats,
        discarded_before,
        ..
    } = &end.counters;
    log::info!("ended after {}: {stats}", Time(lasted));
    if let Err(problem) = stats.check_invariants() {
        log::error!("a bug in this program, please report it: the counters disagree: {problem}");
    }
    let cut = stats.closed(CloseReason::Aborted) + end.killed_connections;
    let refused = stats.rejected(RejectReason::Stopping);
    let dropped = stats.dropped(DropReason::Stopping);
    if cut + refused + dropped + end.killed_workers == 0 {
        return Exit::Ok;
    }
    let bytes = stats.discarded.saturating_sub(*discarded_before);
    let mut lost = format!(
        "{} cut, {} not echoed",
        plural(cut, "connection"),
        plural(bytes, "byte")
    );
    if refused > 0 {
        lost += &format!("; {} reset", plural(refused, "queued connection"));
    }
    if dropped > 0 {
        lost += &format!("; {} not answered", plural(dropped, "queued datagram"));
    }
    if end.killed_workers > 0 {
        let workers = plural(end.killed_workers, "worker");
        lost += &format!("; {workers} killed, their accept queues reset");
    }
    logging::print_line(&format!("echo-reactor: {lost}"));
    Exit::Cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Stats;

    #[test]
    fn an_end_with_aborted_connections_has_an_exit_code_of_its_own() {
        let mut end = End::default();
        assert_eq!(conclude(&end, Duration::ZERO), Exit::Ok);
        end.counters.stats.open();
        end.counters.stats.close(CloseReason::Aborted, 0);
        assert_eq!(conclude(&end, Duration::ZERO), Exit::Cut);
        end.counters.stats = Stats::default();
        end.counters.stats.reject(RejectReason::Stopping);
        assert_eq!(conclude(&end, Duration::ZERO), Exit::Cut);
        end.counters.stats = Stats::default();
        end.counters.stats.datagrams_in += 1;
        end.counters.stats.drop_datagram(DropReason::Stopping);
        assert_eq!(conclude(&end, Duration::ZERO), Exit::Cut);
        end.counters.stats = Stats::default();
        end.killed_workers = 1;
        assert_eq!(conclude(&end, Duration::ZERO), Exit::Cut);
    }
}
