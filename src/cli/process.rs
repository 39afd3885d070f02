//! The state of a process that is inherited over execve(2): signal mask, ignored signals, umask, open descriptors.
//!
//! A parent seldom means what it passes on: a thread that blocks signals starts a program, a shell has the umask of another
//! task. daemon(7) tells services to reset it all, and this program does, whichever of its commands runs:
//!
//! - **Signal mask**: emptied, or SIGTERM would stay pending for ever. SIGTTOU alone is blocked in `serve`.
//! - **Ignored signals**: the handlers of `serve` take the place of `SIG_IGN`; also of an ignored SIGINT, which a shell gives
//!   to the background jobs of a script: a service that cannot be stopped is worse than one that ends with its script.
//!   SIGHUP never ends `serve`, so nohup(1) needs nothing more. An ignored SIGCHLD would lose the exit status of children
//!   (ECHILD of waitpid(2)).
//! - **SIGXFSZ**: caught, so that a file at RLIMIT_FSIZE is a failed write (EFBIG) and not the end.
//! - **umask**: bits of the owner are cleared. With 0177 a new directory cannot be entered, with 0777 a report not be read;
//!   what group and others may do is left as it is.
//! - **Descriptors 0 to 2**: std opens /dev/null for those that are closed, before main.
//!
//! What may live in this file: such state, and asking for it. What may not: limits, which `serve` fits itself to.

use super::descriptors;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::stat::{Mode, umask};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Resets what has to be reset before any command runs.
pub(crate) fn prepare() {
    let group_and_others = Mode::S_IRWXG | Mode::S_IRWXO;
    let inherited = umask(group_and_others);
    umask(inherited & group_and_others);
    handle(Signal::SIGXFSZ);
    if is_ignored(Signal::SIGCHLD) {
        handle(Signal::SIGCHLD);
    }
}

/// Installs a handler that does nothing. Unlike `SIG_IGN` it is not inherited by the programs that this one starts.
fn handle(signal: Signal) {
    let flag = Arc::new(AtomicBool::new(false));
    // It fails for signals alone that cannot be handled.
    let _ = signal_hook::flag::register(signal as i32, flag);
}

/// Whether this process ignores a signal, by `SigIgn` of proc_pid_status(5); without /proc none is.
fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal as i32 - 1) & 1 == 1)
}

/// Empties the signal mask. Pending signals are delivered now, so handlers come before this.
pub(crate) fn unblock_signals() {
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Lets a background job write to its terminal whatever `stty tostop` says: with SIGTTOU blocked the kernel lets the write
/// pass, where it would stop the process (tty_check_change). A handler would not do: write(2) is interrupted by it for ever.
pub(crate) fn block_terminal_stop() {
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTTOU);
    let _ = stop.thread_block();
}

/// Open descriptors below the hard limit, the standard streams not counted; 0 where the system does not tell.
pub(crate) fn descriptors_in_use() -> u64 {
    let limit = descriptors::limits().map_or(u64::MAX, |(_, hard)| hard);
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return 0;
    };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok());
    let open = numbers.filter(|number| (3..limit).contains(number)).count() as u64;
    open.saturating_sub(1) // the directory itself
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_ignores_a_broken_pipe_and_no_child() {
        assert!(!cfg!(target_os = "linux") || is_ignored(Signal::SIGPIPE));
        assert!(!is_ignored(Signal::SIGCHLD));
    }
}
