//! A server that was started for a measurement ends with its parent, even if the parent is killed.
//!
//! SIGKILL leaves the parent no time to stop its children, so the child has to notice. Two ways are safe: a pipe from the
//! parent, which reads end of file when the parent is gone; or PR_SET_PDEATHSIG of prctl(2), by which the kernel sends a
//! signal. The pipe is portable, but needs a further thread, or a descriptor in the loop, in a process whose threads, memory
//! and system calls are measured. So it is the signal: SIGTERM drains, and removes the files of Unix sockets.
//!
//! (The workers of `bench` read commands from a pipe anyway, and end with it.)

use nix::unistd::{Pid, getppid};

/// Asks for SIGTERM when the parent process ends, which should have this number. Returns whether it still runs.
#[cfg(target_os = "linux")]
pub(super) fn end_with(parent: u32) -> bool {
    use nix::sys::{prctl, signal::Signal};
    crate::cli::own_program::restore_name();
    // It can fail for an invalid signal only. A parent that ended before the call sends nothing, so it is checked after.
    let _ = prctl::set_pdeathsig(Signal::SIGTERM);
    i32::try_from(parent).is_ok_and(|parent| getppid() == Pid::from_raw(parent))
}

/// Other systems send no such signal: the server outlives a killed parent.
#[cfg(not(target_os = "linux"))]
pub(super) fn end_with(parent: u32) -> bool {
    i32::try_from(parent).is_ok_and(|parent| getppid() == Pid::from_raw(parent))
}
