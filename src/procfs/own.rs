//! This process: its executable, its descriptors, its user, its ignored signals, its capabilities.

#[cfg(feature = "cli")]
use super::text::value;
use std::fmt::Display;
use std::fs;
use std::ops::RangeBounds;
use std::path::PathBuf;

/// The executable of the calling process, even after its path has changed (proc(5)); in a child between fork and exec it is
/// still that of the parent.
#[cfg(feature = "cli")]
pub(crate) const EXECUTABLE: &str = "/proc/self/exe";

/// The executable of another process; as [`EXECUTABLE`], even after its path has changed.
#[cfg(feature = "cli")]
pub(crate) fn executable_of(process: impl Display) -> PathBuf {
    format!("/proc/{process}/exe").into()
}

/// What a descriptor of another process is open for; as [`descriptor_path`] for this one.
#[cfg(feature = "cli")]
pub(crate) fn descriptor_of(process: impl Display, number: impl Display) -> PathBuf {
    format!("/proc/{process}/fd/{number}").into()
}

/// The path that leads to what a descriptor is open for. It works as long as the descriptor is open.
pub(crate) fn descriptor_path(number: impl Display) -> PathBuf {
    format!("/proc/self/fd/{number}").into()
}

/// Whether a descriptor is open; `None` without /proc.
#[cfg(feature = "cli")]
pub(crate) fn is_open(number: impl Display) -> Option<bool> {
    let path = descriptor_path(number);
    fs::metadata(path.parent()?).ok()?;
    Some(path.is_symlink())
}

/// The effective user, where no crate is there for geteuid(2).
#[cfg(not(all(feature = "pktinfo", target_os = "linux")))]
pub(crate) fn user() -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let process = fs::metadata("/proc/self").ok()?;
    Some(process.uid())
}

/// How many more descriptors this process may open: its soft limit (RLIMIT_NOFILE of getrlimit(2)), less those that are
/// open. Read from /proc, since getrlimit(2) takes `unsafe` or a further crate, and the library has neither.
pub(crate) fn descriptors_left() -> Option<u64> {
    let limit = soft_limit(&fs::read_to_string("/proc/self/limits").ok()?)?;
    Some(limit.saturating_sub(open_descriptors(..)?))
}

/// How many descriptors with a number in this range are open. The range must include the lowest free number.
pub(crate) fn open_descriptors(range: impl RangeBounds<u64>) -> Option<u64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?;
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok());
    let open = numbers.filter(|number| range.contains(number)).count() as u64;
    // One of them is the directory being read, which is closed by now.
    Some(open.saturating_sub(1))
}

/// The soft limit of descriptors in the table of /proc/self/limits.
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

/// Whether this process ignores a signal (SigIgn of proc_pid_status(5)); without /proc it ignores none.
#[cfg(feature = "cli")]
pub(crate) fn ignores_signal(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    mask(&status, "SigIgn").is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// A hexadecimal bit mask in the table of /proc/self/status.
#[cfg(feature = "cli")]
pub(super) fn mask(status: &str, name: &str) -> Option<u64> {
    u64::from_str_radix(value(status, name)?, 16).ok()
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
    fn open_descriptors_are_subtracted() {
        let limit = soft_limit(&fs::read_to_string("/proc/self/limits").unwrap()).unwrap();
        assert!(
            (1..=limit - 3).contains(&descriptors_left().unwrap()),
            "three are open at least"
        );
    }

    #[cfg(all(feature = "cli", target_os = "linux"))]
    #[test]
    fn rust_ignores_sigpipe_and_no_other_signal() {
        // nohup(1), and a shell that starts a program in the background, have these ignored.
        let inherited = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT];
        let own = (1..=31).filter(|signal| !inherited.contains(signal));
        for signal in own {
            assert_eq!(ignores_signal(signal), signal == libc::SIGPIPE, "{signal}");
        }
    }
}
