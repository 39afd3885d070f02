//! What an error of accept(2), or of recv(2) at a datagram socket, means: whether it concerns one client, a resource of the
//! system, or the socket itself.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! The event loop and the blocking models both use this classification. They react differently: the loop pauses accepting
//! by a timer, a thread sleeps.
//!
//! A socket is closed only for an error that says that its descriptor can never work again. Every other error may pass: a
//! security module or a seccomp profile returns `EPERM` until it is changed, a network is down until it is up. An error
//! that does not pass must not become a busy loop, so a socket that fails again and again pauses ([`RetryDelay`]).

use std::io;
use std::time::Duration;

/// What an error of accept(2) means for the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptError {
    /// The queue is empty.
    WouldBlock,
    /// This connection failed; the next one may be fine.
    Connection,
    /// The process or the system lacks a resource: wait. The text says which one, and the remedy.
    Resources(&'static str),
    /// An error that the man page does not name. It may pass, or not.
    Unknown,
    /// The descriptor is closed, is no socket, or does not listen. This is permanent.
    Listener,
}

/// Classifies an error of accept(2). Network errors of the new connection are to be treated like `EAGAIN` according to the
/// man page, by which it means: try the next one.
pub fn classify(error: &io::Error) -> AcceptError {
    match error.kind() {
        io::ErrorKind::WouldBlock => return AcceptError::WouldBlock,
        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {
            return AcceptError::Connection;
        }
        _ => {}
    }
    match error.raw_os_error() {
        Some(libc::EMFILE) => {
            return AcceptError::Resources(
                "this process has no descriptors left; raise its limit (`ulimit -n`, LimitNOFILE= of systemd)",
            );
        }
        Some(libc::ENFILE) => {
            return AcceptError::Resources(
                "the system has no descriptors left; raise `sysctl fs.file-max`",
            );
        }
        Some(libc::ENOBUFS) => {
            return AcceptError::Resources(
                "the system has no socket buffers left; see `sysctl net.ipv4.tcp_mem`",
            );
        }
        Some(libc::ENOMEM) => {
            return AcceptError::Resources(
                "the system has no memory left; see `free -m`, and hold fewer connections",
            );
        }
        Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK) => return AcceptError::Listener,
        // EPERM: a firewall rule forbids this connection.
        Some(
            libc::EPERM
            | libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::EOPNOTSUPP
            | libc::ENETDOWN
            | libc::ENETUNREACH
            | libc::ETIMEDOUT
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH,
        ) => return AcceptError::Connection,
        #[cfg(target_os = "linux")]
        Some(libc::ENONET) => return AcceptError::Connection,
        _ => {}
    }
    AcceptError::Unknown
}

/// Classifies an error of recv(2) at a datagram socket. Most are errors of an earlier answer (no socket at its destination,
/// a router refused it), which udp(7) reports by the next call; they say nothing about the next datagram.
pub fn judge_receive(error: &io::Error) -> AcceptError {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkDown,
        NetworkUnreachable, OutOfMemory, PermissionDenied, TimedOut, WouldBlock,
    };
    match error.kind() {
        WouldBlock => return AcceptError::WouldBlock,
        Interrupted | ConnectionRefused | ConnectionReset | HostUnreachable
        | NetworkUnreachable | NetworkDown | PermissionDenied | OutOfMemory | TimedOut => {
            return AcceptError::Connection;
        }
        _ => {}
    }
    match error.raw_os_error() {
        Some(libc::EBADF | libc::ENOTSOCK) => return AcceptError::Listener,
        // What an ICMP message may report of an earlier answer (net/ipv4/icmp.c, icmp_err_convert).
        Some(
            libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::EMSGSIZE
            | libc::EOPNOTSUPP
            | libc::EHOSTDOWN
            | libc::ENOBUFS,
        ) => return AcceptError::Connection,
        #[cfg(target_os = "linux")]
        Some(libc::ENONET) => return AcceptError::Connection,
        _ => {}
    }
    AcceptError::Unknown
}

/// Whether an error of send(2) at a datagram socket means that a queue is full: that of the socket, or on Linux (`ENOBUFS`)
/// that of the network interface.
pub fn is_send_queue_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}

/// After this many errors in a row that concern one client or datagram each, the socket pauses: the cause is a common one.
const ERRORS_IN_A_ROW: u32 = 64;
/// The longest pause, unless the first one is longer: the longest time until a socket whose errors have ended is served
/// again.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The backoff of a socket whose calls fail: it is tried again at once while the errors may concern one client each, then
/// after pauses that double. A call that succeeds resets it.
#[derive(Debug, Default)]
pub struct RetryDelay {
    errors: u32,
    pause: Duration,
}

impl RetryDelay {
    /// Records that this many calls failed, the last one with this verdict, and returns the pause that is due now, if any.
    /// `first` is the length of the first pause.
    pub fn failed(
        &mut self,
        calls: usize,
        verdict: AcceptError,
        first: Duration,
    ) -> Option<Duration> {
        let calls = u32::try_from(calls).unwrap_or(u32::MAX);
        self.errors = self.errors.saturating_add(calls);
        if verdict == AcceptError::Connection && self.errors < ERRORS_IN_A_ROW {
            return None;
        }
        self.errors = 0;
        self.pause = if verdict == AcceptError::Connection {
            first // each of these errors took a connection off the queue: a pause against spinning is enough
        } else {
            (self.pause * 2).clamp(first, PAUSE_MAX.max(first))
        };
        Some(self.pause)
    }

    /// Records a call that succeeded, or found an empty queue.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn every_errno_of_accept_has_its_class() {
        let judged = |errno| classify(&io::Error::from_raw_os_error(errno));
        assert_eq!(judged(libc::EAGAIN), AcceptError::WouldBlock);
        for errno in [
            libc::EPERM,
            libc::EINTR,
            libc::ENONET,
            libc::EPROTO,
            libc::ENOPROTOOPT,
            libc::EOPNOTSUPP,
            libc::ENETDOWN,
            libc::ENETUNREACH,
            libc::ECONNABORTED,
            libc::ETIMEDOUT,
            libc::EHOSTDOWN,
            libc::EHOSTUNREACH,
        ] {
            assert_eq!(judged(errno), AcceptError::Connection, "errno {errno}");
        }
        for errno in [libc::EBADF, libc::EINVAL, libc::ENOTSOCK] {
            assert_eq!(judged(errno), AcceptError::Listener, "errno {errno}");
        }
        for errno in [
            libc::EIO,
            libc::EACCES,
            libc::EFAULT,
            libc::ENOSYS,
            libc::EREMOTEIO,
        ] {
            assert_eq!(judged(errno), AcceptError::Unknown, "errno {errno}");
        }
        let texts: std::collections::HashSet<_> =
            [libc::ENOMEM, libc::ENFILE, libc::EMFILE, libc::ENOBUFS]
                .map(|errno| match judged(errno) {
                    AcceptError::Resources(text) => text,
                    other => panic!("errno {errno} is {other:?}"),
                })
                .into();
        assert_eq!(texts.len(), 4, "each resource has a text of its own");
    }

    /// Only an error of the descriptor closes a datagram socket.
    #[test]
    fn every_errno_of_recv_has_its_class() {
        let judged = |errno| judge_receive(&io::Error::from_raw_os_error(errno));
        for errno in 1..134 {
            let verdict = judged(errno);
            assert_eq!(
                verdict == AcceptError::Listener,
                [libc::EBADF, libc::ENOTSOCK].contains(&errno),
                "errno {errno}"
            );
        }
        assert_eq!(judged(libc::EAGAIN), AcceptError::WouldBlock);
        for errno in [
            libc::EPERM,
            libc::EINTR,
            libc::ENOMEM,
            libc::EACCES,
            libc::EPROTO,
            libc::EMSGSIZE,
            libc::ENOPROTOOPT,
            libc::EOPNOTSUPP,
            libc::ENETDOWN,
            libc::ENETUNREACH,
            libc::ECONNRESET,
            libc::ENOBUFS,
            libc::ECONNREFUSED,
            libc::EHOSTDOWN,
            libc::EHOSTUNREACH,
        ] {
            assert_eq!(judged(errno), AcceptError::Connection, "errno {errno}");
        }
        assert_eq!(judged(libc::ENOSYS), AcceptError::Unknown);
    }

    #[test]
    fn pauses_grow_up_to_a_bound_and_start_over_after_a_success() {
        let first = Duration::from_millis(100);
        let mut delay = RetryDelay::default();
        let mut pauses = (0..6).map(|_| {
            delay
                .failed(1, AcceptError::Unknown, first)
                .unwrap()
                .as_millis()
        });
        assert!(pauses.by_ref().eq([100, 200, 400, 800, 1_000, 1_000]));
        drop(pauses);
        delay.succeeded();
        assert_eq!(delay.failed(1, AcceptError::Unknown, first), Some(first));
    }

    #[test]
    fn errors_of_single_clients_pause_after_64_in_a_row() {
        let first = Duration::from_millis(100);
        let mut delay = RetryDelay::default();
        let fail = |delay: &mut RetryDelay, count| {
            (0..count).any(|_| delay.failed(1, AcceptError::Connection, first).is_some())
        };
        assert!(!fail(&mut delay, ERRORS_IN_A_ROW - 1));
        delay.succeeded();
        assert!(!fail(&mut delay, ERRORS_IN_A_ROW - 1));
        assert_eq!(delay.failed(1, AcceptError::Connection, first), Some(first));
        assert!(
            !fail(&mut delay, ERRORS_IN_A_ROW - 1),
            "each retry allows several"
        );
        assert_eq!(
            delay.failed(1, AcceptError::Connection, first),
            Some(first),
            "and these pauses do not grow: each error took a connection off the queue"
        );
    }
}
