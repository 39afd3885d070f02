//! What an error of accept(2) means: for this one client, for all of them, or for the listener.
//!
//! Both the event loop and the blocking twins ask here. What to do about it is theirs: the loop holds newcomers back by a
//! timer, a thread sleeps.

use std::io;

/// What an error of accept(2) means for the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The queue is empty.
    Empty,
    /// This one client came to nothing; the next one may be fine.
    Next,
    /// There is no room in the system: wait.
    Pause(&'static str),
    /// The listener is broken.
    Fatal,
}

/// The errnos by their Linux numbers, which std does not name. Elsewhere the numbers differ, so the classes by
/// [`io::ErrorKind`] below must do, and what remains unknown pauses the listener: neither lost nor spinning.
#[cfg(target_os = "linux")]
mod errno {
    pub(super) const EPERM: i32 = 1;
    pub(super) const EBADF: i32 = 9;
    pub(super) const ENOMEM: i32 = 12;
    pub(super) const EFAULT: i32 = 14;
    pub(super) const EINVAL: i32 = 22;
    pub(super) const ENFILE: i32 = 23;
    pub(super) const EMFILE: i32 = 24;
    pub(super) const ENONET: i32 = 64;
    pub(super) const EPROTO: i32 = 71;
    pub(super) const ENOTSOCK: i32 = 88;
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
pub fn judge(error: &io::Error) -> Verdict {
    match error.kind() {
        io::ErrorKind::WouldBlock => return Verdict::Empty,
        io::ErrorKind::ConnectionAborted if planted!("aborted-client-closes-door") => {
            return Verdict::Fatal;
        }
        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => return Verdict::Next,
        _ => {}
    }
    #[cfg(target_os = "linux")]
    match error.raw_os_error() {
        Some(errno::EMFILE) => {
            return Verdict::Pause(
                "this process has no descriptors left; raise its limit (`ulimit -n`, LimitNOFILE= of systemd)",
            );
        }
        Some(errno::ENFILE) => {
            return Verdict::Pause(
                "the system has no descriptors left; raise `sysctl fs.file-max`",
            );
        }
        Some(errno::ENOBUFS) => {
            return Verdict::Pause(
                "the system has no socket buffers left; see `sysctl net.ipv4.tcp_mem`",
            );
        }
        Some(errno::ENOMEM) => {
            return Verdict::Pause(
                "the system has no memory left; see `free -m`, and hold fewer connections",
            );
        }
        Some(errno::EBADF | errno::EINVAL | errno::ENOTSOCK | errno::EFAULT) => {
            return Verdict::Fatal;
        }
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
        ) => return Verdict::Next,
        _ => {}
    }
    Verdict::Pause("an error that accept(2) does not name")
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn every_errno_of_the_man_page_has_its_verdict() {
        let judged = |errno| judge(&io::Error::from_raw_os_error(errno));
        assert_eq!(judged(11), Verdict::Empty); // EAGAIN
        for errno in [1, 4, 64, 71, 92, 95, 100, 101, 103, 110, 112, 113] {
            assert_eq!(judged(errno), Verdict::Next, "errno {errno}");
        }
        for errno in [9, 14, 22, 88] {
            assert_eq!(judged(errno), Verdict::Fatal, "errno {errno}");
        }
        let texts: std::collections::HashSet<_> = [12, 23, 24, 105]
            .map(|errno| match judged(errno) {
                Verdict::Pause(text) => text,
                other => panic!("errno {errno} is {other:?}"),
            })
            .into();
        assert_eq!(texts.len(), 4, "each shortage has a text of its own");
    }
}
