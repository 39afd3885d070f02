//! The counters as JSON, for machines.
//!
//! ```text
//! {"program": "echo-reactor", "version": .., "model": .., "addresses": [..], "seconds": 1.5,
//!  "accepted": 3, ..every counter by its name..,
//!  "memory": [{"connections": 10, "rss_bytes": .., ..}, {"connections": 100, ..}, ..growth at every power of ten..],
//!  "closed": {every reason: count}, "rejected": {every reason: count}, "dropped": {every reason: count}, "accept_errors": {"EMFILE(24)": count},
//!  "receive_errors": the same, "log_lines_lost": count}
//! ```
//!
//! The file is written by [`crate::cli::output_file`].

use crate::cli::logging;
use crate::cli::memory::Row;
use crate::net::Endpoint;
use crate::stats::{CloseReason, DropReason, RejectReason, Stats};
use nix::errno::Errno;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The report of a server that has ended.
pub(super) fn report(
    stats: &Stats,
    model: &str,
    addresses: &[Endpoint],
    lasted: Duration,
    memory: &[Row],
) -> Value {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let mut report = Map::new();
    report.insert("program".into(), json!("echo-reactor"));
    report.insert("version".into(), json!(env!("CARGO_PKG_VERSION")));
    report.insert("model".into(), json!(model));
    report.insert("addresses".into(), json!(addresses));
    report.insert("seconds".into(), json!(lasted.as_secs_f64()));
    for (name, count) in stats.counters() {
        report.insert(name.into(), json!(count));
    }
    let closed = CloseReason::ALL.iter();
    let closed = closed.map(|&reason| (reason.name().to_owned(), json!(stats.closed(reason))));
    report.insert("closed".into(), Value::Object(closed.collect()));
    let rejected = RejectReason::ALL.iter();
    let rejected = rejected.map(|&why| (why.name().to_owned(), json!(stats.rejected(why))));
    report.insert("rejected".into(), Value::Object(rejected.collect()));
    let dropped = DropReason::ALL.iter();
    let dropped = dropped.map(|&why| (why.name().to_owned(), json!(stats.dropped(why))));
    report.insert("dropped".into(), Value::Object(dropped.collect()));
    for (family, errors) in [
        ("accept_errors", &stats.accept_errors),
        ("receive_errors", &stats.receive_errors),
    ] {
        let named = |(&errno, count): (&i32, &u64)| (errno_name(errno), json!(count));
        let errors = errors.iter().map(named).collect();
        report.insert(family.into(), Value::Object(errors));
    }
    report.insert("log_lines_lost".into(), json!(logging::lost_lines()));
    let memory: Vec<Value> = memory.iter().map(Row::to_json).collect();
    report.insert("memory".into(), Value::Array(memory));
    Value::Object(report)
}

/// `EMFILE(24)`, or the number alone if it has no name.
fn errno_name(errno: i32) -> String {
    match Errno::from_raw(errno) {
        Errno::UnknownErrno => errno.to_string(),
        known => format!("{known:?}({errno})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn the_report_has_every_counter_and_every_reason() {
        let mut stats = Stats::default();
        stats.open();
        stats.bytes_in += 7;
        stats.store_unsent(7);
        stats.close(CloseReason::Aborted, 7);
        stats.accept_error(&io::Error::from_raw_os_error(libc::EMFILE));
        stats.accept_error(&io::Error::other("no errno at all"));
        let address = Endpoint::Tcp("127.0.0.1:7".parse().unwrap());
        let report = report(
            &stats,
            "reactor",
            &[address],
            Duration::from_millis(1_500),
            &[],
        );
        assert_eq!(report["addresses"], json!(["tcp://127.0.0.1:7"]));
        assert_eq!(report["seconds"], json!(1.5));
        assert_eq!(report["closed"]["aborted"], json!(1));
        assert_eq!(report["discarded"], json!(7));
        assert_eq!(report["accept_errors"], json!({"EMFILE(24)": 1, "0": 1}));
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
        assert!(stats.counters().all(|(name, _)| report[name].is_u64()));
    }
}
