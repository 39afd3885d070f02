//! Figures as people read them: three digits and a unit, never more than was measured.

use super::super::record::{Figure, Scenario, Unit};
use crate::cli::units::grouped;

/// Three digits, with thousands apart where there are more.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 999.5 => {
            let negative = if value < 0.0 { "\u{2212}" } else { "" };
            format!("{negative}{}", grouped(size.round() as u64))
        }
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => trimmed(format!("{value:.1}")),
        size if size >= 0.001 || size == 0.0 => trimmed(format!("{value:.2}")),
        _ => "0".to_owned(),
    }
}

fn trimmed(text: String) -> String {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// Nanoseconds as a time.
pub(super) fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        n if n < 999.5 => format!("{} ns", number(n)),
        n if n < 999.5e3 => format!("{} µs", number(n / 1e3)),
        n if n < 999.5e6 => format!("{} ms", number(n / 1e6)),
        n => format!("{} s", number(n / 1e9)),
    }
}

/// Bytes of memory, in powers of ten.
pub(super) fn memory(bytes: f64) -> String {
    match bytes.abs() {
        size if size < 999.5 => format!("{} B", number(bytes.round())),
        size if size < 999.5e3 => format!("{} kB", number(bytes / 1e3)),
        size if size < 999.5e6 => format!("{} MB", number(bytes / 1e6)),
        _ => format!("{} GB", number(bytes / 1e9)),
    }
}

/// A count as it is written at an axis: 1, 10k, 2M.
pub(super) fn short(value: f64) -> String {
    match value {
        v if v < 999.5 => number(v),
        v if v < 999.5e3 => format!("{}k", number(v / 1e3)),
        v => format!("{}M", number(v / 1e6)),
    }
}

/// Bytes of a message: 64 B, 4 KiB.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 20 && b % (1 << 20) == 0 => format!("{} MiB", b >> 20),
        b if b >= 1 << 10 && b % (1 << 10) == 0 => format!("{} KiB", b >> 10),
        b => format!("{} B", grouped(b)),
    }
}

/// How many times as much.
pub(super) fn times(ratio: f64) -> String {
    match ratio {
        r if r >= 9.95 => number(r.round()),
        r if r >= 1.995 => format!("{r:.1}"),
        r => format!("{r:.2}"),
    }
}

/// A figure with its unit.
pub(super) fn of(figure: Figure, value: f64) -> String {
    match figure.unit() {
        Unit::PerSecond => format!("{}/s", number(value.round())),
        Unit::Nanoseconds => time(value),
        Unit::Bytes => memory(value),
        Unit::Count => number(value),
    }
}

/// What a figure is called.
pub(super) fn name(figure: Figure) -> &'static str {
    match figure {
        Figure::Throughput => "echoes per second",
        Figure::P50 => "p50",
        Figure::P90 => "p90",
        Figure::P99 => "p99",
        Figure::P999 => "p99.9",
        Figure::P9999 => "p99.99",
        Figure::CpuPerEcho => "CPU per echo",
        Figure::SwitchesPerEcho => "context switches per echo",
        Figure::Threads => "threads",
        Figure::Rss => "memory (RSS)",
        Figure::RssPerConnection => "memory per connection",
    }
}

/// What a load is called.
pub(super) fn load(scenario: Scenario) -> &'static str {
    match scenario {
        Scenario::RequestResponse => "request-response",
        Scenario::Pipelined => "pipelined",
        Scenario::Churn => "churn",
        Scenario::MostlyIdle => "mostly idle",
        Scenario::SlowReader => "one slow reader",
    }
}

/// What a load is, in a sentence.
pub(super) fn load_in_words(scenario: Scenario) -> &'static str {
    match scenario {
        Scenario::RequestResponse => {
            "One request is under way on each connection; the next is sent when the answer has come."
        }
        Scenario::Pipelined => "Several requests are under way on each connection.",
        Scenario::Churn => "Connect, one request, close, and again.",
        Scenario::MostlyIdle => {
            "One connection in five sends requests; the others are open, and silent."
        }
        Scenario::SlowReader => "Beside the others, one client sends without end and never reads.",
    }
}

/// `1 connection`, `10k connections`.
pub(super) fn connections(count: u64) -> String {
    match count {
        1 => "1 connection".to_owned(),
        _ => format!("{} connections", grouped(count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        assert_eq!(time(26_451.0), "26.5 µs");
        assert_eq!(time(999.7), "1 µs");
        assert_eq!(time(58_970_900.0), "59 ms");
        assert_eq!(memory(54.0), "54 B");
        assert_eq!(memory(10_240.0), "10.2 kB");
        assert_eq!(memory(3_400_054.0), "3.4 MB");
        assert_eq!(of(Figure::Throughput, 303_053.7), "303,054/s");
        assert_eq!(
            (short(5_000.0), short(1.0), short(250e3)),
            ("5k".into(), "1".into(), "250k".into())
        );
        assert_eq!(
            (size(64), size(4096), size(65_536), size(1000)),
            (
                "64 B".into(),
                "4 KiB".into(),
                "64 KiB".into(),
                "1,000 B".into()
            )
        );
        assert_eq!(
            (times(1.0683), times(1.7), times(189.6), times(3.71)),
            ("1.07".into(), "1.70".into(), "190".into(), "3.7".into())
        );
    }
}
