//! seccomp(2): a list of the system calls of a running server; any other kills the process by SIGSYS.
//!
//! The list comes from strace of all servers that the integration tests start, from the announcement of their addresses to
//! their end, less the calls whose origin was not needed. The tests run under the list, too (`scripts/check`): a server with
//! a new call that is missing here dies in a test.
//!
//! Most calls are allowed with any arguments. For those the kernel keeps a bitmap (since Linux 5.11), so the calls of an
//! echo pass without running the filter. Conditions are for calls that are rare and could do harm.
//!
//! A violation kills the process (SECCOMP_RET_KILL_PROCESS): an unexpected system call means that it may be compromised.
//! [`REFUSED`] has the exceptions.

use super::super::needs::Needs;
use libc::{self, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};
use std::collections::BTreeMap;

/// The loop: waiting, accepting, reading, writing and closing.
const ECHO: &[c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait, // what epoll_wait is by another C library, or on another processor
    libc::SYS_epoll_ctl,
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_close,
    libc::SYS_shutdown,
];

/// Options of a connection (TCP_NODELAY, SO_LINGER for a reset), the peer's address for the log, and datagrams with their
/// destination address (IP_PKTINFO).
const SOCKETS: &[c_long] = &[
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendmsg,
];

/// The log polls for room and writes a line; the waker of the loop is an eventfd; the report asks for the
/// length of its file, reserves space and truncates it.
const OUTPUT: &[c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64, // a worker keeps its counters
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_lseek,
];

/// Signals: the way back from a handler, and a wait that goes on after a stop (SIGSTOP, then SIGCONT).
const SIGNALS: &[c_long] = &[libc::SYS_rt_sigreturn, libc::SYS_restart_syscall];

/// Time comes from the vDSO without a call, except on machines whose clock it cannot read; a hash table needs a seed; the
/// loop offers its core to other threads while it polls (`--spin`).
const SMALL: &[c_long] = &[
    libc::SYS_clock_gettime,
    libc::SYS_sched_yield,
    libc::SYS_getrandom,
    libc::SYS_futex, // a lock that is contended; with one thread none is
];

/// Memory for slots and write buffers. New memory must not be executable: see [`conditions`].
const MEMORY: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
];

/// The end of the process: std frees the signal stack of the main thread; `abort` blocks signals, restores the default of
/// SIGABRT and raises it.
const END: &[c_long] = &[
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_getpid,
    libc::SYS_gettid,
];

/// Socket files and that of `--pid-file` are removed at the end, if they are still those of this process.
const OWN_FILES: &[c_long] = &[
    libc::SYS_statx,
    libc::SYS_pread64,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    libc::SYS_unlinkat,
];

/// Calls that fail with EPERM instead of killing: std makes them to print the backtrace of a panic (its own file, the list
/// of its mappings). A panic ends the process in any case, and its message must not be lost.
const REFUSED: &[c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    libc::SYS_openat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
];

/// Calls that are allowed with certain arguments only.
fn conditions() -> Result<Vec<(c_long, SeccompRule)>, seccompiler::BackendError> {
    let rule = |argument: u8, operator: SeccompCmpOp, value: u64| {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
        SeccompRule::new(vec![condition])
    };
    let executable = libc::PROT_EXEC as u64;
    let mut conditions = vec![
        // Memory that is writable and executable is what an exploit needs first.
        (
            libc::SYS_mmap,
            rule(2, SeccompCmpOp::MaskedEq(executable), 0)?,
        ),
        (
            libc::SYS_mprotect,
            rule(2, SeccompCmpOp::MaskedEq(executable), 0)?,
        ),
        // `abort` sends SIGABRT to its own thread.
        (
            libc::SYS_tgkill,
            rule(2, SeccompCmpOp::Eq, libc::SIGABRT as u64)?,
        ),
    ];
    if cfg!(debug_assertions) {
        // Debug builds of std check whether the descriptor to close is open.
        let looks = rule(1, SeccompCmpOp::Eq, libc::F_GETFD as u64)?;
        conditions.push((libc::SYS_fcntl, looks));
    }
    Ok(conditions)
}

/// The calls that this server may make with any arguments.
fn allowed(needs: &Needs) -> Vec<c_long> {
    let mut groups = vec![ECHO, SOCKETS, OUTPUT, SIGNALS, SMALL, MEMORY, END];
    if !needs.directories.is_empty() {
        groups.push(OWN_FILES);
    }
    groups.concat()
}

/// Two filters, since a filter of seccompiler has only two actions. The kernel runs both and takes the stricter result: a
/// refused call is allowed by the one and fails by the other.
fn programs(needs: &Needs) -> Result<([BpfProgram; 2], usize), seccompiler::BackendError> {
    let processor: TargetArch = std::env::consts::ARCH.try_into()?;
    let any_arguments = |calls: &[c_long]| -> BTreeMap<i64, Vec<SeccompRule>> {
        calls.iter().map(|&call| (call, Vec::new())).collect()
    };
    let refused = SeccompFilter::new(
        any_arguments(REFUSED),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        processor,
    )?;
    let mut list = any_arguments(&allowed(needs));
    for (call, rule) in conditions()? {
        list.entry(call).or_default().push(rule);
    }
    let count = list.len();
    list.extend(any_arguments(REFUSED));
    let list = SeccompFilter::new(
        list,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        processor,
    )?;
    Ok(([refused.try_into()?, list.try_into()?], count))
}

/// Applies the list. seccompiler sets no_new_privs first, without which the kernel refuses a filter.
pub(super) fn restrict(needs: &Needs) -> Result<String, String> {
    let refused = |error: &dyn std::fmt::Display| format!("seccomp was refused: {error}");
    let (programs, count) = programs(needs).map_err(|error| refused(&error))?;
    for program in &programs {
        apply_filter(program).map_err(|error| refused(&error))?;
    }
    Ok(format!("{count} system calls (seccomp)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::thread;

    #[test]
    fn no_call_is_on_two_lists() {
        let needs = Needs {
            directories: vec!["/".into()],
            ..Needs::default()
        };
        let mut calls = [allowed(&needs), REFUSED.to_vec()].concat();
        calls.extend(conditions().unwrap().iter().map(|(call, _)| *call));
        let count = calls.len();
        calls.sort_unstable();
        calls.dedup();
        assert_eq!(calls.len(), count);
    }

    /// A filter holds for one thread, so the thread of a test can restrict itself.
    #[test]
    fn a_refused_call_fails_and_does_not_kill() {
        let refused = thread::spawn(|| {
            let (programs, _) = programs(&Needs::default()).unwrap();
            apply_filter(&programs[0]).unwrap();
            File::open("/proc/self/maps").map(drop)
        });
        let error = refused.join().unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }
}
