//! The counters in the text format of Prometheus, version 0.0.4.
//!
//! Names and units follow its conventions: seconds and bytes, and `_total` at the end of a counter.

use crate::cli::logging;
use crate::cli::serve::counters::errno_name;
use crate::stats::{CloseReason, DropReason, RejectReason, Stats};
use std::fmt::{Display, Write as _};

/// A counter of [`Stats::counters`]: its name there, that of the metric, and what it counts.
type Row = (&'static str, &'static str, &'static str);

#[rustfmt::skip] // a table
const ROWS: [Row; 21] = [
    ("accepted", "accepted_total", "Connections accepted."),
    ("connections_open", "connections_open", "Connections that are open now."),
    ("connections_open_peak", "connections_open_peak", "Most connections that were open at once."),
    ("proxy_headers", "proxy_headers_total", "PROXY headers that were whole and valid."),
    ("accept_pauses", "accept_pauses_total", "Pauses of accepting: no descriptors or memory, or the limit of connections."),
    ("accept_paused_ms", "accept_paused_seconds_total", "Time for which accepting was paused."),
    ("bytes_in", "received_bytes_total", "Bytes read from streams."),
    ("bytes_out", "sent_bytes_total", "Bytes written to streams."),
    ("bytes_added", "added_bytes_total", "Bytes that answers to requests have beyond them; an echo adds none."),
    ("unsent_bytes", "unsent_bytes", "Bytes read and not yet written."),
    ("unsent_bytes_peak", "unsent_bytes_peak", "Most bytes that were unsent at once."),
    ("discarded", "discarded_bytes_total", "Bytes read and never written: their connection was closed first, or their request was too long."),
    ("datagrams_in", "datagrams_received_total", "Datagrams received."),
    ("datagrams_out", "datagrams_sent_total", "Datagrams echoed."),
    ("turns", "turns_total", "Turns of the event loop."),
    ("turn_us_max", "turn_seconds_max", "Longest turn of the event loop."),
    ("stale_events", "stale_events_total", "Events of connections that had been closed before."),
    ("spurious_events", "spurious_events_total", "Events after which the first read or accept would have blocked."),
    ("budget_yields", "budget_yields_total", "Times that a source used its whole budget of a turn."),
    ("option_errors", "option_errors_total", "Socket options that could not be set on a connection."),
    ("log_suppressed", "log_suppressed_total", "Log lines that the rate limit suppressed."),
];

/// All metrics of this server.
pub(super) fn text(stats: &Stats, is_ready: bool) -> String {
    let mut text = String::with_capacity(8 * 1024);
    head(&mut text, "info", "The version of this program.");
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(text, "echo_reactor_info{{version=\"{version}\"}} 1");
    let is_ready = u64::from(is_ready);
    single(
        &mut text,
        "ready",
        "Whether /readyz answers with 200.",
        is_ready,
    );
    for ((name, count), (of, metric, help)) in stats.counters().zip(ROWS) {
        debug_assert_eq!(name, of);
        match name {
            "accept_paused_ms" => single(&mut text, metric, help, count as f64 / 1e3),
            "turn_us_max" => single(&mut text, metric, help, count as f64 / 1e6),
            _ => single(&mut text, metric, help, count),
        }
    }
    let (lost, help) = (logging::lost_lines(), "Log lines that were not written.");
    single(&mut text, "log_lines_lost_total", help, lost);
    families(&mut text, stats);
    text
}

/// Counters by reason, and by errno.
fn families(text: &mut String, stats: &Stats) {
    let closed = CloseReason::ALL.iter();
    let closed = closed.map(|&reason| (reason.name().to_owned(), stats.closed(reason)));
    let help = "Connections closed.";
    family(text, "closed_total", "reason", help, closed);
    let rejected = RejectReason::ALL.iter();
    let rejected = rejected.map(|&why| (why.name().to_owned(), stats.rejected(why)));
    let help = "New connections that were reset at once.";
    family(text, "rejected_total", "reason", help, rejected);
    let dropped = DropReason::ALL.iter();
    let dropped = dropped.map(|&why| (why.name().to_owned(), stats.dropped(why)));
    let help = "Datagrams not echoed.";
    family(text, "datagrams_dropped_total", "reason", help, dropped);
    let named = |(&errno, &count): (&i32, &u64)| (errno_name(errno), count);
    let (help, errors) = ("Failed calls of accept(2).", stats.accept_errors.iter());
    family(
        text,
        "accept_errors_total",
        "errno",
        help,
        errors.map(named),
    );
    let help = "Failed calls that receive a datagram.";
    let errors = stats.receive_errors.iter();
    family(
        text,
        "receive_errors_total",
        "errno",
        help,
        errors.map(named),
    );
}

/// What comes before the samples of a metric.
fn head(text: &mut String, metric: &str, help: &str) {
    let kind = match metric.ends_with("_total") {
        true => "counter",
        false => "gauge",
    };
    let _ = writeln!(text, "# HELP echo_reactor_{metric} {help}");
    let _ = writeln!(text, "# TYPE echo_reactor_{metric} {kind}");
}

fn single(text: &mut String, metric: &str, help: &str, value: impl Display) {
    head(text, metric, help);
    let _ = writeln!(text, "echo_reactor_{metric} {value}");
}

/// Counters that differ in one label. Its values are names of this program and of errnos, without characters to escape.
fn family(
    text: &mut String,
    metric: &str,
    label: &str,
    help: &str,
    counters: impl Iterator<Item = (String, u64)>,
) {
    head(text, metric, help);
    for (value, count) in counters {
        let _ = writeln!(text, "echo_reactor_{metric}{{{label}=\"{value}\"}} {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn every_counter_has_its_row() {
        let counters = Stats::default().counters();
        assert_eq!(counters.len(), ROWS.len());
        for ((name, _), (row, metric, _)) in counters.zip(ROWS) {
            assert_eq!(name, row);
            let is_gauge = name.starts_with("connections_open")
                || name.starts_with("unsent_bytes")
                || name == "turn_us_max";
            assert_eq!(!is_gauge, metric.ends_with("_total"), "{metric}");
        }
    }

    #[test]
    fn reasons_are_labels_and_times_are_seconds() {
        let mut stats = Stats::default();
        stats.open();
        stats.close(CloseReason::Idle, 0);
        stats.accept_paused_ms = 1_500;
        stats.accept_error(&io::Error::from_raw_os_error(libc::EMFILE));
        let text = text(&stats, false);
        for line in [
            "echo_reactor_ready 0",
            "echo_reactor_accepted_total 1",
            "echo_reactor_accept_paused_seconds_total 1.5",
            "echo_reactor_closed_total{reason=\"idle\"} 1",
            "echo_reactor_closed_total{reason=\"reset\"} 0",
            "echo_reactor_accept_errors_total{errno=\"EMFILE(24)\"} 1",
        ] {
            assert!(
                text.lines().any(|printed| printed == line),
                "{line}\n{text}"
            );
        }
        assert!(
            text.len() < 16 * 1024,
            "a response fits into the send buffer"
        );
    }
}
