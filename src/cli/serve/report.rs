//! The report of `--stats-json`, for machines.
//!
//! ```text
//! {"program": "echo-reactor", "version": .., "model": .., "addresses": [..], "seconds": 1.5,
//!  "accepted": 3, ..every counter by its name..,
//!  "memory": [{"connections": 10, "rss_bytes": .., ..}, {"connections": 100, ..}, ..growth at every power of ten..],
//!  "closed": {every reason: count}, "rejected": {every reason: count}, "dropped": {every reason: count}, "accept_errors": {"EMFILE(24)": count},
//!  "receive_errors": the same, "log_lines_lost": count,
//!  "workers": [{"worker": 0, "processes": 1, "unreported": 0, ..its part of all the counters..}, ..]}
//! ```
//!
//! `workers` is there with `--workers` alone. The counters above it are then their sums, and `memory` is empty, since each
//! worker has a table of its own. The file is written by [`crate::cli::output_file`].

use super::end::End;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The report of a server that has ended.
pub(super) fn report(end: &End, model: &str, lasted: Duration) -> Value {
    let addresses: Vec<String> = end.addresses.iter().map(ToString::to_string).collect();
    let mut report = Map::new();
    report.insert("program".into(), json!("echo-reactor"));
    report.insert("version".into(), json!(env!("CARGO_PKG_VERSION")));
    report.insert("model".into(), json!(model));
    report.insert("addresses".into(), json!(addresses));
    report.insert("seconds".into(), json!(lasted.as_secs_f64()));
    report.extend(end.counters.to_json());
    if let Some(workers) = &end.workers {
        report.insert("workers".into(), json!(workers));
    }
    Value::Object(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Endpoint;
    use crate::stats::{CloseReason, DropReason, Stats};
    use std::io;

    #[test]
    fn the_report_has_every_counter_and_every_reason() {
        let mut end = End {
            addresses: vec![Endpoint::Tcp("127.0.0.1:7".parse().unwrap())],
            ..End::default()
        };
        let stats = &mut end.counters.stats;
        stats.open();
        stats.bytes_in += 7;
        stats.store_unsent(7);
        stats.close(CloseReason::Aborted, 7);
        stats.accept_error(&io::Error::from_raw_os_error(libc::EMFILE));
        stats.accept_error(&io::Error::other("no errno at all"));
        let report = report(&end, "reactor", Duration::from_millis(1_500));
        assert_eq!(report["addresses"], json!(["tcp://127.0.0.1:7"]));
        assert_eq!(report["seconds"], json!(1.5));
        assert_eq!(report["closed"]["aborted"], json!(1));
        assert_eq!(report["discarded"], json!(7));
        assert_eq!(report["accept_errors"], json!({"EMFILE(24)": 1, "0": 1}));
        assert!(report["memory"].is_array() && report["workers"].is_null());
        assert!(
            CloseReason::ALL
                .iter()
                .all(|reason| report["closed"][reason.name()].is_u64())
        );
        assert!(
            DropReason::ALL
                .iter()
                .all(|why| report["dropped"][why.name()].is_u64())
        );
        assert!(
            Stats::default()
                .counters()
                .all(|(name, _)| report[name].is_u64())
        );
    }
}
