//! Counters of a server, the reasons for which connections and datagrams end, and the equations that hold between them.
//!
//! ```text
//! accepted         = open + closed                    each close has one CloseReason
//! bytes in + added = bytes out + unsent + discarded   an echo adds nothing
//! datagrams in     = datagrams out + dropped          each drop has one DropReason
//! ```
//!
//! [`Stats::check_invariants`] checks the three; every test of the server calls it.
//!
//! The counters are plain integers: the event loop is one thread, and an atomic add costs more than the rest of the
//! bookkeeping of an echo. Each thread of the blocking models has counters of its own, which [`Stats::merge`] adds up.
//!
//! This module holds counters, reasons and their names. It takes no decision, and imports nothing of this crate.

#[cfg(feature = "cli")]
mod by_name;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;

/// Reason for which a connection was closed. Every close is counted under exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer sent FIN, and everything that it had sent before was echoed.
    PeerClosed,
    /// The peer sent RST, or the connection was already gone at a write (`ECONNRESET`, `EPIPE`).
    Reset,
    /// Keepalive probes or retransmissions were not acknowledged in time (`ETIMEDOUT`).
    PeerTimeout,
    /// The socket was aborted on this machine, as `ss -K` does (`ECONNABORTED`).
    ConnectionAborted,
    /// Nothing arrived for `idle_timeout`, and nothing was unsent.
    Idle,
    /// The peer took none of the unsent bytes for `write_stall_timeout`.
    WriteStall,
    /// The server shut down and closed the connection in order: everything read had been echoed, then FIN was sent.
    ShutDown,
    /// The server shut down, and `drain_timeout` ended before the connection could be closed in order.
    Aborted,
    /// There was no memory to store its unsent bytes.
    OutOfMemory,
    /// It could not be added to the interest list (`ENOSPC` or `ENOMEM` of epoll_ctl(2)).
    RegisterFailed,
    /// Its socket failed with any other error.
    Error,
    /// The process that served it was killed, as the master of several processes counts it (`serve --workers`).
    Killed,
    /// Its PROXY header was malformed, or ended before it was whole.
    ProxyHeader,
    /// Its PROXY header was not whole within `proxy_header_timeout`.
    ProxyTimeout,
    /// The client that its PROXY header declares is on the deny list, or not on the allow list.
    ProxyDenied,
    /// The address prefix of the client that its PROXY header declares holds `connections_per_prefix` connections already.
    ProxyPrefix,
}

impl CloseReason {
    /// All reasons, in the order in which reports print them.
    pub const ALL: &'static [Self] = &[
        Self::PeerClosed,
        Self::Reset,
        Self::PeerTimeout,
        Self::ConnectionAborted,
        Self::Idle,
        Self::WriteStall,
        Self::ShutDown,
        Self::Aborted,
        Self::OutOfMemory,
        Self::RegisterFailed,
        Self::Error,
        Self::Killed,
        Self::ProxyHeader,
        Self::ProxyTimeout,
        Self::ProxyDenied,
        Self::ProxyPrefix,
    ];

    /// Returns the stable name of the reason in reports and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PeerClosed => "peer_closed",
            Self::Reset => "reset",
            Self::PeerTimeout => "peer_timeout",
            Self::ConnectionAborted => "connection_aborted",
            Self::Idle => "idle",
            Self::WriteStall => "write_stall",
            Self::ShutDown => "shut_down",
            Self::Aborted => "aborted",
            Self::OutOfMemory => "out_of_memory",
            Self::RegisterFailed => "register_failed",
            Self::Error => "error",
            Self::Killed => "killed",
            Self::ProxyHeader => "proxy_header",
            Self::ProxyTimeout => "proxy_timeout",
            Self::ProxyDenied => "proxy_denied",
            Self::ProxyPrefix => "proxy_prefix",
        }
    }
}

impl From<&io::Error> for CloseReason {
    /// Classifies an error that a connection's own socket returned.
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset,
            io::ErrorKind::TimedOut => Self::PeerTimeout,
            io::ErrorKind::ConnectionAborted => Self::ConnectionAborted,
            io::ErrorKind::OutOfMemory => Self::OutOfMemory,
            _ => Self::Error,
        }
    }
}

/// Reason for which a new connection was taken from the accept queue and reset at once. A rejected connection is counted
/// neither in `accepted` nor in `closed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectReason {
    /// `connections_max` connections are open, and `overload` is [`Reject`](crate::limits::OverloadPolicy::Reject).
    Limit,
    /// Its address prefix holds `connections_per_prefix` connections already.
    Prefix,
    /// Its address is on the deny list, or not on the allow list.
    Denied,
    /// It was still in the accept queue when `drain_timeout` ended.
    Stopping,
    /// Its peer is no proxy, and connections of proxies alone are served
    /// ([`DirectPolicy::Reject`](crate::echo::DirectPolicy::Reject)).
    NotProxy,
}

impl RejectReason {
    /// All reasons, in the order in which reports print them.
    pub const ALL: &'static [Self] = &[
        Self::Limit,
        Self::Prefix,
        Self::Denied,
        Self::Stopping,
        Self::NotProxy,
    ];

    /// Returns the stable name of the reason in reports and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Prefix => "prefix",
            Self::Denied => "denied",
            Self::Stopping => "stopping",
            Self::NotProxy => "not_proxy",
        }
    }

    /// Describes the reason in words, with the limit or list that decides it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Limit => "as many connections are open as the limit connections_max allows",
            Self::Prefix => {
                "its network has as many connections open as connections_per_prefix allows"
            }
            Self::Denied => "its address is on the deny list, or not on the allow list",
            Self::Stopping => "the server is stopping, and drain_timeout is over",
            Self::NotProxy => "it is in no network of the proxies, and only they are served",
        }
    }
}

/// Reason for which a datagram was not echoed or answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DropReason {
    /// Its source port belongs to a service (below 1024, or NFS's 2049) or is 0: an answer might start a loop.
    ServicePort,
    /// Its source is a socket of this server, by port or by Unix name: an answer would start a loop.
    OwnPort,
    /// Its source is no single host: a multicast, broadcast or unspecified address.
    NoHost,
    /// Its destination was a broadcast or multicast address, which must not be a source address (RFC 1122, 3.2.1.3).
    Group,
    /// Its destination is unknown since its control messages were truncated: an answer from another address would be
    /// discarded by the sender.
    NoDestination,
    /// Its sender runs as another user, neither root nor this server's own (Unix sockets only): the name to answer to
    /// might lead to a socket that only this server may write to.
    ForeignSender,
    /// Its source is on the deny list, or not on the allow list.
    Denied,
    /// Its source has used up `datagrams_per_source`.
    SourceRate,
    /// All sources together have used up `datagrams_total`.
    TotalRate,
    /// Its source has sent thousands of datagrams without a pause, as another echo server would; one of them is dropped
    /// to end a possible loop.
    Loop,
    /// Its sender has no address to answer to (Unix sockets only).
    Unnamed,
    /// It was longer than the read buffer, so that its echo would have been truncated (Unix sockets only).
    TooLong,
    /// Its answer would have been more than three times as long, and its source may be forged (RFC 9000, section 8.1); an
    /// echo never is.
    Amplification,
    /// The socket's send buffer was full. Datagrams are not queued for a later attempt.
    WouldBlock,
    /// It was still in the receive buffer when `drain_timeout` ended.
    Stopping,
    /// It was dropped on purpose: a fault to order (`serve --drop`).
    Injected,
    /// Sending the answer failed with any other error.
    Error,
}

impl DropReason {
    /// All reasons, in the order in which reports print them.
    pub const ALL: &'static [Self] = &[
        Self::ServicePort,
        Self::OwnPort,
        Self::NoHost,
        Self::Group,
        Self::NoDestination,
        Self::ForeignSender,
        Self::Denied,
        Self::SourceRate,
        Self::TotalRate,
        Self::Loop,
        Self::Unnamed,
        Self::TooLong,
        Self::Amplification,
        Self::WouldBlock,
        Self::Stopping,
        Self::Injected,
        Self::Error,
    ];

    /// Returns the stable name of the reason in reports and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ServicePort => "service_port",
            Self::OwnPort => "own_port",
            Self::NoHost => "no_host",
            Self::Group => "group",
            Self::NoDestination => "no_destination",
            Self::ForeignSender => "foreign_sender",
            Self::Denied => "denied",
            Self::SourceRate => "source_rate",
            Self::TotalRate => "total_rate",
            Self::Loop => "loop",
            Self::Unnamed => "unnamed",
            Self::TooLong => "too_long",
            Self::Amplification => "amplification",
            Self::WouldBlock => "would_block",
            Self::Stopping => "stopping",
            Self::Injected => "injected",
            Self::Error => "error",
        }
    }
}

/// Counters of one server since its start. `connections_open` and `unsent_bytes` are gauges: they tell of now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections accepted; rejected ones are not among them.
    pub accepted: u64,
    /// Connections that are open now.
    pub connections_open: u64,
    /// Maximum of `connections_open`.
    pub connections_open_peak: u64,
    /// Connections closed, by [`CloseReason`]; read by [`Stats::closed`].
    closed: [u64; CloseReason::ALL.len()],
    /// New connections that were reset at once, by [`RejectReason`]; read by [`Stats::rejected`].
    rejected: [u64; RejectReason::ALL.len()],
    /// Failed calls of accept(2), by errno (0 if the error has none).
    pub accept_errors: BTreeMap<i32, u64>,
    /// Failed calls that receive a datagram, by errno (0 if the error has none).
    pub receive_errors: BTreeMap<i32, u64>,
    /// PROXY headers that were whole and valid. Their bytes are in no other counter.
    pub proxy_headers: u64,
    /// Pauses of accepting, caused by a lack of descriptors or memory or by the connection limit.
    pub accept_pauses: u64,
    /// Total time for which accepting was paused (milliseconds).
    pub accept_paused_ms: u64,
    /// Bytes read from streams.
    pub bytes_in: u64,
    /// Bytes written to streams.
    pub bytes_out: u64,
    /// Bytes that answers to requests have beyond their requests (`serve --reply identity`). An echo adds none.
    pub bytes_added: u64,
    /// Bytes read and not yet written: the content of all write buffers, and requests that are not answered yet.
    pub unsent_bytes: u64,
    /// Maximum of `unsent_bytes`.
    pub unsent_bytes_peak: u64,
    /// Bytes read and never written, since their connection was closed first, or since their request was too long.
    pub discarded: u64,
    /// Datagrams received.
    pub datagrams_in: u64,
    /// Datagrams echoed or answered.
    pub datagrams_out: u64,
    /// Datagrams not echoed, by [`DropReason`]; read by [`Stats::dropped`].
    dropped: [u64; DropReason::ALL.len()],
    /// Turns of the event loop: calls of epoll_wait(2) with what follows them.
    pub turns: u64,
    /// Longest turn, from the return of epoll_wait(2) to the last event served (microseconds): a source that becomes
    /// ready waits at most about this long. Turns of at most eight events are not timed. Zero in the blocking models.
    pub turn_us_max: u64,
    /// Stale events: their connection had been closed before they were served.
    pub stale_events: u64,
    /// Spurious events: the first read or accept after them would have blocked.
    pub spurious_events: u64,
    /// Times that a source used its whole budget of a turn and was queued for the next one.
    pub budget_yields: u64,
    /// Socket options that could not be set on a connection; it is served without them.
    pub option_errors: u64,
    /// Log lines that the rate limit suppressed.
    pub log_suppressed: u64,
}

impl Stats {
    /// Counts an accepted connection.
    pub(crate) fn open(&mut self) {
        self.accepted += 1;
        self.connections_open += 1;
        self.connections_open_peak = self.connections_open_peak.max(self.connections_open);
    }

    /// Counts a closed connection, whose `unsent` bytes are discarded.
    pub(crate) fn close(&mut self, reason: CloseReason, unsent: usize) {
        self.connections_open -= 1;
        self.closed[reason as usize] += 1;
        self.discard_unsent(unsent);
    }

    /// Counts `bytes` that a connection has stored in its write buffer.
    pub(crate) fn store_unsent(&mut self, bytes: usize) {
        self.unsent_bytes += bytes as u64;
        self.unsent_bytes_peak = self.unsent_bytes_peak.max(self.unsent_bytes);
    }

    /// Counts `bytes` that a connection has written from its write buffer.
    pub(crate) fn flush_unsent(&mut self, bytes: usize) {
        self.unsent_bytes -= bytes as u64;
        self.bytes_out += bytes as u64;
    }

    /// Counts `bytes` of the unsent ones as discarded.
    pub(crate) fn discard_unsent(&mut self, bytes: usize) {
        self.unsent_bytes -= bytes as u64;
        self.discarded += bytes as u64;
    }

    /// Counts a failed call of accept(2) by its errno.
    pub(crate) fn accept_error(&mut self, error: &io::Error) {
        *self
            .accept_errors
            .entry(error.raw_os_error().unwrap_or(0))
            .or_default() += 1;
    }

    /// Counts a failed call that receives a datagram by its errno.
    pub(crate) fn receive_error(&mut self, error: &io::Error) {
        *self
            .receive_errors
            .entry(error.raw_os_error().unwrap_or(0))
            .or_default() += 1;
    }

    /// Counts a new connection that was reset at once.
    pub(crate) fn reject(&mut self, why: RejectReason) {
        self.rejected[why as usize] += 1;
    }

    /// Counts a datagram that was not echoed.
    pub(crate) fn drop_datagram(&mut self, why: DropReason) {
        self.dropped[why as usize] += 1;
    }

    /// Returns the number of connections closed for this reason.
    #[must_use]
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize]
    }

    /// Returns the number of connections closed, for any reason.
    #[must_use]
    pub fn closed_total(&self) -> u64 {
        self.closed.iter().sum()
    }

    /// Returns the number of new connections reset at once for this reason.
    #[must_use]
    pub fn rejected(&self, why: RejectReason) -> u64 {
        self.rejected[why as usize]
    }

    /// Returns the number of new connections reset at once, for any reason.
    #[must_use]
    pub fn rejected_total(&self) -> u64 {
        self.rejected.iter().sum()
    }

    /// Returns the number of datagrams not echoed for this reason.
    #[must_use]
    pub fn dropped(&self, why: DropReason) -> u64 {
        self.dropped[why as usize]
    }

    /// Returns the number of datagrams not echoed, for any reason.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Checks the three equations that connect the counters (see the [module page](self)).
    ///
    /// # Errors
    /// The first equation that does not hold, with its figures.
    pub fn check_invariants(&self) -> Result<(), String> {
        let equations = [
            (
                "accepted = connections open + closed",
                self.accepted,
                self.connections_open + self.closed_total(),
            ),
            (
                "bytes in + added = bytes out + unsent + discarded",
                self.bytes_in + self.bytes_added,
                self.bytes_out + self.unsent_bytes + self.discarded,
            ),
            (
                "datagrams in = datagrams out + dropped",
                self.datagrams_in,
                self.datagrams_out + self.dropped_total(),
            ),
        ];
        match equations.iter().find(|(_, left, right)| left != right) {
            None => Ok(()),
            Some((equation, left, right)) => {
                Err(format!("{equation} does not hold: {left} is not {right}"))
            }
        }
    }

    /// Adds the counters of `other` to these. Peaks are added too and become an upper bound, since the two need not have
    /// been reached at the same moment; `turn_us_max` becomes the longer of both.
    pub fn merge(&mut self, other: &Self) {
        // Destructured without `..`, so that a counter that is forgotten here does not compile.
        let Self {
            accepted,
            connections_open,
            connections_open_peak,
            closed,
            rejected,
            accept_errors,
            receive_errors,
            proxy_headers,
            accept_pauses,
            accept_paused_ms,
            bytes_in,
            bytes_out,
            bytes_added,
            unsent_bytes,
            unsent_bytes_peak,
            discarded,
            datagrams_in,
            datagrams_out,
            dropped,
            turns,
            turn_us_max,
            stale_events,
            spurious_events,
            budget_yields,
            option_errors,
            log_suppressed,
        } = other;
        self.accepted += accepted;
        self.connections_open += connections_open;
        self.connections_open_peak += connections_open_peak;
        for (sum, count) in self.closed.iter_mut().zip(closed) {
            *sum += count;
        }
        for (sum, count) in self.rejected.iter_mut().zip(rejected) {
            *sum += count;
        }
        for (&errno, count) in accept_errors {
            *self.accept_errors.entry(errno).or_default() += count;
        }
        for (&errno, count) in receive_errors {
            *self.receive_errors.entry(errno).or_default() += count;
        }
        self.proxy_headers += proxy_headers;
        self.accept_pauses += accept_pauses;
        self.accept_paused_ms += accept_paused_ms;
        self.bytes_in += bytes_in;
        self.bytes_out += bytes_out;
        self.bytes_added += bytes_added;
        self.unsent_bytes += unsent_bytes;
        self.unsent_bytes_peak += unsent_bytes_peak;
        self.discarded += discarded;
        self.datagrams_in += datagrams_in;
        self.datagrams_out += datagrams_out;
        for (sum, count) in self.dropped.iter_mut().zip(dropped) {
            *sum += count;
        }
        self.turns += turns;
        self.turn_us_max = self.turn_us_max.max(*turn_us_max);
        self.stale_events += stale_events;
        self.spurious_events += spurious_events;
        self.budget_yields += budget_yields;
        self.option_errors += option_errors;
        self.log_suppressed += log_suppressed;
    }

    /// Iterates over the scalar counters with their stable names, in the order in which reports print them. The families
    /// `closed`, `rejected`, `dropped`, `accept_errors` and `receive_errors` have accessors of their own.
    pub fn counters(&self) -> impl ExactSizeIterator<Item = (&'static str, u64)> + use<> {
        [
            ("accepted", self.accepted),
            ("connections_open", self.connections_open),
            ("connections_open_peak", self.connections_open_peak),
            ("proxy_headers", self.proxy_headers),
            ("accept_pauses", self.accept_pauses),
            ("accept_paused_ms", self.accept_paused_ms),
            ("bytes_in", self.bytes_in),
            ("bytes_out", self.bytes_out),
            ("bytes_added", self.bytes_added),
            ("unsent_bytes", self.unsent_bytes),
            ("unsent_bytes_peak", self.unsent_bytes_peak),
            ("discarded", self.discarded),
            ("datagrams_in", self.datagrams_in),
            ("datagrams_out", self.datagrams_out),
            ("turns", self.turns),
            ("turn_us_max", self.turn_us_max),
            ("stale_events", self.stale_events),
            ("spurious_events", self.spurious_events),
            ("budget_yields", self.budget_yields),
            ("option_errors", self.option_errors),
            ("log_suppressed", self.log_suppressed),
        ]
        .into_iter()
    }
}

/// Prints one line: counters as `name=count`, families as `closed{reason}=count` without their zeros.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (name, count)) in self.counters().enumerate() {
            write!(f, "{}{name}={count}", if place == 0 { "" } else { " " })?;
        }
        let closed = CloseReason::ALL.iter();
        let closed = closed.map(|&reason| ("closed", reason.name(), self.closed(reason)));
        let rejected = RejectReason::ALL.iter();
        let rejected = rejected.map(|&why| ("rejected", why.name(), self.rejected(why)));
        let dropped = DropReason::ALL.iter();
        let dropped = dropped.map(|&why| ("dropped", why.name(), self.dropped(why)));
        for (family, reason, count) in closed.chain(rejected).chain(dropped) {
            if count > 0 {
                write!(f, " {family}{{{reason}}}={count}")?;
            }
        }
        for (errno, count) in &self.accept_errors {
            write!(f, " accept_errors{{{errno}}}={count}")?;
        }
        for (errno, count) in &self.receive_errors {
            write!(f, " receive_errors{{{errno}}}={count}")?;
        }
        Ok(())
    }
}
