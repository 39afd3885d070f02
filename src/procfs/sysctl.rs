//! Settings of the kernel, by their names in sysctl(8).

use std::fs;

/// The first number of a setting such as `kernel.pid_max`.
pub(crate) fn sysctl(name: &str) -> Option<usize> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    let text = fs::read_to_string(path).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_read_by_its_name() {
        assert!(sysctl("kernel.pid_max").is_some_and(|pids| pids > 100));
        assert_eq!(sysctl("kernel.no_such_setting"), None);
    }
}
