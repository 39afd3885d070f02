//! Events, and what a source is registered for.

use super::key::Key;

/// Next thing to do, returned by [`Reactor::next_event`](super::Reactor::next_event).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A source is ready, or was queued for this turn. [`Reactor::begin_event`](super::Reactor::begin_event) returns it,
    /// unless it is closed.
    Ready(Key, Readiness),
    /// A source was inactive for the timeout of its class, which starts anew.
    Expired(Key),
    /// The time set by [`Reactor::set_alarm`](super::Reactor::set_alarm) has come.
    Alarm,
}

/// What the reactor does with a source without a system call, told to [`Selector::note`](super::Selector::note).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The source was queued for the next turn.
    Requeued(Key),
    /// The event was stale: its source had been closed.
    Stale(Key),
    /// The source was queued already, so the event became part of the one of the next turn.
    Merged(Key),
    /// The source was active after a pause, so its timeout began anew.
    TimeoutRestarted(Key),
    /// The timeout of the source had passed.
    Expired(Key),
    /// The time of the alarm had come.
    Alarm,
}

/// What the kernel reported of a ready source. It is a hint: only the next call shows what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readiness {
    /// EPOLLIN or EPOLLOUT alone is set.
    Normal,
    /// EPOLLRDHUP, EPOLLHUP, EPOLLERR or EPOLLPRI is set, too (FIN, an error, urgent data): a short read does not mean
    /// that the socket is empty.
    Exceptional,
}

/// What the kernel watches a source for: one of two.
///
/// Registering for both would save an epoll_ctl(2) when a peer turns slow, and on TCP it would cost nothing; on Unix and UDP
/// sockets it doubles the number of events, since every message sent makes the socket writable again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Input: bytes, connections, datagrams, or FIN (EPOLLIN).
    Read,
    /// Room in the send buffer (EPOLLOUT).
    Write,
}

/// What a source waits for, and how long at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The readiness that the kernel reports.
    pub interest: Interest,
    /// The timeout of the wait.
    pub class: TimeoutClass,
}

/// A timeout that many sources share, made by [`Reactor::timeout_class`](super::Reactor::timeout_class) or
/// [`Reactor::deadline_class`](super::Reactor::deadline_class).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutClass(pub(super) u8);

impl TimeoutClass {
    /// The class without a timeout.
    pub const NEVER: Self = Self(0);
}
