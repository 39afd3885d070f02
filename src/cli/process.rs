//! The state of a process that is inherited over execve(2): signal mask, ignored signals, umask, open descriptors.
//!
//! Most of it is inherited by accident: from a thread that blocks signals, or a shell with the umask of another task.
//! daemon(7) tells services to reset it, and all commands of this program do:
//!
//! - **Signal mask**: emptied, or SIGTERM would stay pending for ever. SIGTTOU alone is blocked in `serve`.
//! - **Ignored signals**: the handlers of `serve` take the place of `SIG_IGN`; also of an ignored SIGINT, which a shell gives
//!   to the background jobs of a script: a service that cannot be stopped is worse than one that ends with its script.
//!   SIGHUP never ends `serve`, so nohup(1) needs nothing more. An ignored SIGCHLD would lose the exit status of children
//!   (ECHILD of waitpid(2)).
//! - **SIGXFSZ**: caught, so that a file at RLIMIT_FSIZE is a failed write (EFBIG) and not the end.
//! - **umask**: bits of the owner are cleared. With 0177 a new directory cannot be entered, with 0777 a report not be read;
//!   what group and world may do is left as it is.
//! - **Descriptors 0 to 2**: std opens /dev/null for those that are closed, before main.

use super::descriptors;
use crate::procfs::own;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::stat::{Mode, umask};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Resets the inherited state before any command runs.
pub(crate) fn prepare() {
    let group_and_others = Mode::S_IRWXG | Mode::S_IRWXO;
    let inherited = umask(group_and_others);
    umask(inherited & group_and_others);
    handle(Signal::SIGXFSZ);
    if own::ignores_signal(Signal::SIGCHLD as i32) {
        handle(Signal::SIGCHLD);
    }
}

/// Installs a handler that does nothing. Unlike `SIG_IGN` it is not inherited by the programs that this one starts.
fn handle(signal: Signal) {
    let flag = Arc::new(AtomicBool::new(false));
    // It fails for signals alone that cannot be handled.
    let _ = signal_hook::flag::register(signal as i32, flag);
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

/// Open descriptors below the hard limit, without the standard streams; 0 where there is no /proc.
pub(crate) fn descriptors_in_use() -> u64 {
    let limit = descriptors::limits().map_or(u64::MAX, |(_, hard)| hard);
    own::open_descriptors(3..limit).unwrap_or(0)
}
