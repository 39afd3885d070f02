//! The system calls of a server that serves, and death by SIGSYS for any other: seccomp(2).
//!
//! The list was read off strace, which watched every server that the integration tests start, from the line that says
//! where it listens to its end; and then shortened by asking of each call who makes it. The tests run on it, too
//! (`scripts/check`), so a call that the server learns and the list does not is a server that dies in a test.
//!
//! Most calls are allowed whatever their arguments are. That is not for want of zeal: of such calls the kernel keeps a
//! bitmap (since Linux 5.11), so that the calls of an echo are let through without a look at the program. Conditions are for
//! calls that are rare and could do harm.
//!
//! Death is the answer rather than an error, since a server that makes a call which it never makes is no longer ours,
//! and must not get a second try. [`REFUSED`] has the exceptions.

use super::Needs;
use libc::{self, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};
use std::collections::BTreeMap;

/// The loop itself: who is ready, who is new, in, out, and the end of one.
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

/// Options of a connection (NODELAY where it is not inherited, the reset of one that is given up), its peer's name for
/// the log, and datagrams with the address that was asked (IP_PKTINFO).
const SOCKETS: &[c_long] = &[
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
];

/// The log asks whether there is room for a line, and writes it; the waker of the loop is an eventfd that is written and
/// read; the report reserves its space, and cuts its file to its length.
const WORDS: &[c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
];

/// Signals: the way back from a handler, and a wait that goes on after a stop (SIGSTOP, then SIGCONT).
const SIGNALS: &[c_long] = &[libc::SYS_rt_sigreturn, libc::SYS_restart_syscall];

/// Time comes from the vDSO and takes no call, but for machines whose clock the vDSO cannot read; and a hash table
/// wants a seed.
const SMALL: &[c_long] = &[
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_futex, // a lock that is contended; with one thread none is
];

/// Memory for slots and tails, given and taken back. New memory may be anything but executable: see [`conditions`].
const MEMORY: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
];

/// The end: std takes down the main thread's signal stack; and `abort`, should it come to that, blocks signals, restores
/// the default of SIGABRT and raises it.
const END: &[c_long] = &[
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_getpid,
    libc::SYS_gettid,
];

/// The socket's file and that of `--pid-file` are removed at the end, if they are still ours.
const OWN_FILES: &[c_long] = &[
    libc::SYS_statx,
    libc::SYS_pread64,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    libc::SYS_unlinkat,
];

/// Refused with EPERM, and survived: what std asks for to print the backtrace of a panic (its own file, the list of its
/// mappings). A panic is a mistake of ours that ends the process in any case, and its message must not be lost.
const REFUSED: &[c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    libc::SYS_openat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
];

/// Calls that are on the list with such arguments alone.
fn conditions() -> Result<Vec<(c_long, SeccompRule)>, seccompiler::BackendError> {
    let rule = |argument: u8, operator: SeccompCmpOp, value: u64| {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
        SeccompRule::new(vec![condition])
    };
    let executable = libc::PROT_EXEC as u64;
    let mut conditions = vec![
        // Memory that can be written and then run is what an attacker wants first.
        (
            libc::SYS_mmap,
            rule(2, SeccompCmpOp::MaskedEq(executable), 0)?,
        ),
        (
            libc::SYS_mprotect,
            rule(2, SeccompCmpOp::MaskedEq(executable), 0)?,
        ),
        // `abort` kills its own thread by this; nobody else can be meant by SIGABRT for long.
        (
            libc::SYS_tgkill,
            rule(2, SeccompCmpOp::Eq, libc::SIGABRT as u64)?,
        ),
    ];
    if cfg!(debug_assertions) {
        // std looks, in debug builds, whether what it closes is open.
        let looks = rule(1, SeccompCmpOp::Eq, libc::F_GETFD as u64)?;
        conditions.push((libc::SYS_fcntl, looks));
    }
    Ok(conditions)
}

/// What is on the list of this server.
fn allowed(needs: &Needs) -> Vec<c_long> {
    let mut groups = vec![ECHO, SOCKETS, WORDS, SIGNALS, SMALL, MEMORY, END];
    if !needs.directories.is_empty() {
        groups.push(OWN_FILES);
    }
    groups.concat()
}

/// Two programs, since each knows but two answers. The kernel runs both, and the stricter answer counts: a refused call is
/// allowed by the one and refused by the other.
fn programs(needs: &Needs) -> Result<([BpfProgram; 2], usize), seccompiler::BackendError> {
    let processor: TargetArch = std::env::consts::ARCH.try_into()?;
    let whatever = |calls: &[c_long]| -> BTreeMap<i64, Vec<SeccompRule>> {
        calls.iter().map(|&call| (call, Vec::new())).collect()
    };
    let refused = SeccompFilter::new(
        whatever(REFUSED),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        processor,
    )?;
    let mut list = whatever(&allowed(needs));
    for (call, rule) in conditions()? {
        list.entry(call).or_default().push(rule);
    }
    let count = list.len();
    list.extend(whatever(REFUSED));
    let list = SeccompFilter::new(
        list,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        processor,
    )?;
    Ok(([refused.try_into()?, list.try_into()?], count))
}

/// Applies the list. seccompiler sets no_new_privs before, without which the kernel refuses it.
pub(super) fn raise(needs: &Needs) -> Result<String, String> {
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

    /// Filters are a thread's own, so a test can give itself one and take it to the grave.
    #[test]
    fn what_is_refused_is_survived() {
        let refused = thread::spawn(|| {
            let (programs, _) = programs(&Needs::default()).unwrap();
            apply_filter(&programs[0]).unwrap();
            File::open("/proc/self/maps").map(drop)
        });
        let error = refused.join().unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }
}
