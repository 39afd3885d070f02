//! How many file descriptors this process has left: its soft limit (RLIMIT_NOFILE of getrlimit(2)), less those that are
//! open. Both are read from `/proc/self` (proc(5)), since asking the kernel takes `unsafe` or a crate more.

use std::fs;

/// What is assumed where there is no `/proc`: the smallest soft limit that a system of mio's has by default (macOS).
/// A program that knows better switches [`Config::fit_descriptors`](crate::echo::Config::fit_descriptors) off.
const ASSUMED_LEFT: u64 = 256;

/// How many more descriptors this process may open.
pub(super) fn left() -> u64 {
    left_by_proc().unwrap_or(ASSUMED_LEFT)
}

fn left_by_proc() -> Option<u64> {
    let limit = soft_limit(&fs::read_to_string("/proc/self/limits").ok()?)?;
    let open = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    // The directory itself is one of them, and closed by now.
    Some(limit.saturating_sub(open.saturating_sub(1)))
}

/// The soft limit of descriptors in the table of `/proc/self/limits`.
fn soft_limit(table: &str) -> Option<u64> {
    let mut columns = table
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?
        .split_whitespace();
    match columns.next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_the_first_column() {
        let table = "Limit                     Soft Limit           Hard Limit           Units     \n\
                     Max processes             127412               127412               processes \n\
                     Max open files            1024                 4096                 files     \n";
        assert_eq!(soft_limit(table), Some(1_024));
        let unlimited = table.replace("1024", "unlimited");
        assert_eq!(soft_limit(&unlimited), Some(u64::MAX));
        assert_eq!(soft_limit("Max processes 1 1 processes"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn open_descriptors_are_not_left() {
        let limit = soft_limit(&fs::read_to_string("/proc/self/limits").unwrap()).unwrap();
        assert!(
            (1..=limit - 3).contains(&left_by_proc().unwrap()),
            "three are open at least"
        );
    }
}
