//! What an error of accept(2), or of recv(2) at a datagram socket, means: for this one client, for all of them, or for the
//! socket.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! Both the event loop and the blocking models ask here. What to do about it is theirs: the loop holds new connections back by a
//! timer, a thread sleeps.
//!
//! A socket is given up only for an error that says of the descriptor itself that it can never work again. Everything
//! else may pass, whatever it is: a security module or a seccomp profile answers `EPERM` until it is changed, a network is
//! down until it is up. An error that does not pass must not be met in a loop, however, so a socket that fails again and
//! again rests ([`RetryDelay`]).

use std::io;
use std::time::Duration;

/// What an error of accept(2) means for the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptError {
    /// The queue is empty.
    WouldBlock,
    /// This one client came to nothing; the next one may be fine.
    Connection,
    /// There is no room in the system: wait.
    Resources(&'static str),
    /// An error that the man page does not name. It may pass, or not.
    Unknown,
    /// The descriptor is closed, is no socket, or does not listen: this will not change.
    Listener,
}

/// The errnos by their Linux numbers, which std does not name. Elsewhere the numbers differ, so the classes by
/// [`io::ErrorKind`] below must do, and what remains unknown pauses the listener: neither lost nor spinning.
#[cfg(target_os = "linux")]
mod errno {
    pub(super) const EPERM: i32 = 1;
    pub(super) const EBADF: i32 = 9;
    pub(super) const ENOMEM: i32 = 12;
    pub(super) const EINVAL: i32 = 22;
    pub(super) const ENFILE: i32 = 23;
    pub(super) const EMFILE: i32 = 24;
    pub(super) const ENONET: i32 = 64;
    pub(super) const EPROTO: i32 = 71;
    pub(super) const ENOTSOCK: i32 = 88;
    pub(super) const EMSGSIZE: i32 = 90;
    pub(super) const ENOPROTOOPT: i32 = 92;
    pub(super) const EOPNOTSUPP: i32 = 95;
    pub(super) const ENETDOWN: i32 = 100;
    pub(super) const ENETUNREACH: i32 = 101;
    pub(super) const ENOBUFS: i32 = 105;
    pub(super) const ETIMEDOUT: i32 = 110;
    pub(super) const EHOSTDOWN: i32 = 112;
    pub(super) const EHOSTUNREACH: i32 = 113;
}

/// What an error of accept(2) means. The man page asks for the network errors of the new connection to be treated like
/// `EAGAIN`; it means: go on with the next.
pub fn classify(error: &io::Error) -> AcceptError {
    match error.kind() {
        io::ErrorKind::WouldBlock => return AcceptError::WouldBlock,
        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {
            return AcceptError::Connection;
        }
        _ => {}
    }
    #[cfg(target_os = "linux")]
    match error.raw_os_error() {
        Some(errno::EMFILE) => {
            return AcceptError::Resources(
                "this process has no descriptors left; raise its limit (`ulimit -n`, LimitNOFILE= of systemd)",
            );
        }
        Some(errno::ENFILE) => {
            return AcceptError::Resources(
                "the system has no descriptors left; raise `sysctl fs.file-max`",
            );
        }
        Some(errno::ENOBUFS) => {
            return AcceptError::Resources(
                "the system has no socket buffers left; see `sysctl net.ipv4.tcp_mem`",
            );
        }
        Some(errno::ENOMEM) => {
            return AcceptError::Resources(
                "the system has no memory left; see `free -m`, and hold fewer connections",
            );
        }
        Some(errno::EBADF | errno::EINVAL | errno::ENOTSOCK) => return AcceptError::Listener,
        // EPERM: a firewall's rule forbids this one.
        Some(
            errno::EPERM
            | errno::EPROTO
            | errno::ENOPROTOOPT
            | errno::ENONET
            | errno::EOPNOTSUPP
            | errno::ENETDOWN
            | errno::ENETUNREACH
            | errno::ETIMEDOUT
            | errno::EHOSTDOWN
            | errno::EHOSTUNREACH,
        ) => return AcceptError::Connection,
        _ => {}
    }
    AcceptError::Unknown
}

/// What an error of recv(2) at a datagram socket means. Most are errors of an answer that was sent earlier (its receiver
/// was not there, a router refused it), which udp(7) tells by the next call; they say nothing about the next datagram.
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
    #[cfg(target_os = "linux")]
    match error.raw_os_error() {
        Some(errno::EBADF | errno::ENOTSOCK) => return AcceptError::Listener,
        // What an ICMP message may say of an earlier answer (net/ipv4/icmp.c, icmp_err_convert).
        Some(
            errno::EPROTO
            | errno::ENOPROTOOPT
            | errno::EMSGSIZE
            | errno::ENONET
            | errno::EOPNOTSUPP
            | errno::EHOSTDOWN
            | errno::ENOBUFS,
        ) => return AcceptError::Connection,
        _ => {}
    }
    AcceptError::Unknown
}

/// So many errors in a row that concern one client or datagram each are one error that concerns them all.
const ERRORS_IN_A_ROW: u32 = 64;
/// The longest pause, unless the first one is longer: so long at most it takes until a socket whose trouble is over is
/// served again.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// When a socket whose calls fail is tried again: at once as long as the errors may concern one client each, then after
/// pauses that double. One call that goes well makes it start over.
#[derive(Debug, Default)]
pub struct RetryDelay {
    errors: u32,
    pause: Duration,
}

impl RetryDelay {
    /// So many calls failed, the last one with this verdict. The pause that is due now, if one is; `first` is the length
    /// of the first.
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

    /// A call went well, or found nothing to do.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn every_errno_of_the_man_page_has_its_verdict() {
        let judged = |errno| classify(&io::Error::from_raw_os_error(errno));
        assert_eq!(judged(11), AcceptError::WouldBlock); // EAGAIN
        for errno in [1, 4, 64, 71, 92, 95, 100, 101, 103, 110, 112, 113] {
            assert_eq!(judged(errno), AcceptError::Connection, "errno {errno}");
        }
        for errno in [9, 22, 88] {
            assert_eq!(judged(errno), AcceptError::Listener, "errno {errno}");
        }
        for errno in [5, 13, 14, 38, 121] {
            assert_eq!(judged(errno), AcceptError::Unknown, "errno {errno}");
        }
        let texts: std::collections::HashSet<_> = [12, 23, 24, 105]
            .map(|errno| match judged(errno) {
                AcceptError::Resources(text) => text,
                other => panic!("errno {errno} is {other:?}"),
            })
            .into();
        assert_eq!(texts.len(), 4, "each shortage has a text of its own");
    }

    /// Only an error of the descriptor itself closes a datagram socket.
    #[test]
    fn every_errno_of_receive_has_its_verdict() {
        let judged = |errno| judge_receive(&io::Error::from_raw_os_error(errno));
        for errno in 1..134 {
            let verdict = judged(errno);
            assert_eq!(
                verdict == AcceptError::Listener,
                [9, 88].contains(&errno),
                "errno {errno}"
            );
        }
        assert_eq!(judged(11), AcceptError::WouldBlock);
        for errno in [
            1, 4, 12, 13, 71, 90, 92, 95, 100, 101, 104, 105, 111, 112, 113,
        ] {
            assert_eq!(judged(errno), AcceptError::Connection, "errno {errno}");
        }
        assert_eq!(judged(38), AcceptError::Unknown);
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
    fn errors_of_single_clients_pause_nothing_until_there_is_nothing_else() {
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
            "each retry looks at several"
        );
        assert_eq!(
            delay.failed(1, AcceptError::Connection, first),
            Some(first),
            "and these pauses do not grow: each error took a connection off the queue"
        );
    }
}
