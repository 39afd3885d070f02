//! A server that was started for a measurement ends with whoever measures, even if that one is killed.
//!
//! A process can clean up behind itself at every end but SIGKILL and the like, so it is the child that has to notice.
//! Two ways are safe: a pipe from the parent, whose end of file says that it is gone; or prctl(2), PR_SET_PDEATHSIG, by
//! which the kernel sends a signal at that moment. The pipe is portable, and somebody has to listen to it: a thread
//! more, or a descriptor more in the loop, in a process whose threads, memory and system calls are what is measured. So
//! it is the signal, SIGTERM: it drains, and removes the file of a Unix socket, as every other SIGTERM does.
//!
//! (The workers of `bench` need none of this: their orders come by a pipe to which they listen anyway.)

use nix::unistd::{Pid, getppid};

/// From now on the end of our parent, which should have this number, is SIGTERM for us. Says whether it is still there.
#[cfg(target_os = "linux")]
pub(super) fn end_with(parent: u32) -> bool {
    use nix::sys::{prctl, signal::Signal};
    crate::cli::own_program::restore_name();
    // It can fail for a wrong signal alone. What ended before the call sends nothing, so we look afterwards.
    let _ = prctl::set_pdeathsig(Signal::SIGTERM);
    i32::try_from(parent).is_ok_and(|parent| getppid() == Pid::from_raw(parent))
}

/// Elsewhere nobody tells; a parent that is killed leaves us behind.
#[cfg(not(target_os = "linux"))]
pub(super) fn end_with(parent: u32) -> bool {
    i32::try_from(parent).is_ok_and(|parent| getppid() == Pid::from_raw(parent))
}
