//! Times and sizes as people read them.

/// A time as people read it: three digits, and a unit.
pub(in crate::cli) fn time(nanoseconds: u64) -> String {
    let digits = |value: f64, unit: &str| match value {
        _ if value < 9.995 => format!("{value:.2}{unit}"),
        _ if value < 99.95 => format!("{value:.1}{unit}"),
        _ => format!("{value:.0}{unit}"),
    };
    match nanoseconds as f64 {
        n if n < 999.5 => format!("{n}ns"),
        n if n < 999_500.0 => digits(n / 1e3, "us"),
        n if n < 999_500_000.0 => digits(n / 1e6, "ms"),
        n => digits(n / 1e9, "s"),
    }
}

/// Three digits and a unit: 64 B, 10.2 KiB. Whole numbers have no digits behind the point.
pub(in crate::cli) fn bytes(bytes: f64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let units = units.map(|(power, unit)| (bytes / 2f64.powi(power), unit));
    match units.into_iter().find(|(value, _)| *value > 0.9995) {
        None => format!("{bytes:.0} B"),
        Some((value, unit)) if value.fract() < 0.05 || value >= 99.95 => {
            format!("{value:.0} {unit}")
        }
        Some((value, unit)) => format!("{value:.1} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        let expected = [
            (0, "0ns"),
            (999, "999ns"),
            (1_000, "1.00us"),
            (9_996, "10.0us"),
            (123_456, "123us"),
            (1_500_000, "1.50ms"),
            (2_000_000_000, "2.00s"),
        ];
        for (nanoseconds, text) in expected {
            assert_eq!(time(nanoseconds), text);
        }
    }

    #[test]
    fn sizes_have_three_digits_and_a_unit() {
        let sizes = [64.0, 4_096.0, 65_536.0, 10_444.8, 3e6].map(bytes);
        assert_eq!(sizes, ["64 B", "4 KiB", "64 KiB", "10.2 KiB", "2.9 MiB"]);
    }
}
