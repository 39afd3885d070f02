//! The two forms of most files: lines `name: value`, and numbers in columns.

/// The text behind `name:` in a table such as /proc/PID/status.
pub(super) fn value<'a>(table: &'a str, name: &str) -> Option<&'a str> {
    table
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

/// The number behind `name:`; a unit behind it is ignored.
pub(super) fn number(table: &str, name: &str) -> Option<u64> {
    value(table, name)?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_names() {
        let table = "Name:\tx\nVmRSSx:\t1 kB\nVmRSS:\t  12 kB\n";
        assert_eq!(value(table, "VmRSS"), Some("12 kB"));
        assert_eq!(value(table, "Vm"), None);
        assert_eq!(
            (number(table, "VmRSS"), number(table, "Name")),
            (Some(12), None)
        );
    }
}
