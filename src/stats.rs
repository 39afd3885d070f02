//! The counters: plain counters that must balance.
//!
//! ```text
//! accepted  = live + closed (each with a reason)
//! bytes in  = bytes out + unsent + discarded
//! datagrams in = datagrams out + dropped (each with a reason)
//! ```
//!
//! Plain integers, since one thread counts: an atomic would pay for a second one that is not there. The threads of the
//! blocking model keep one counters each, and [`Stats::merge`] adds them up. What may live in this file: counters, reasons,
//! and their names. What may not: deciding anything by them.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

/// Why a connection ended. Every one ends with exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer said FIN, and everything that it had sent was echoed.
    PeerClosed,
    /// The peer reset it, or was gone when we wrote (`ECONNRESET`, `EPIPE`).
    Reset,
    /// The kernel gave up on the peer: keepalive or retransmission (`ETIMEDOUT`).
    PeerTimeout,
    /// Somebody on this machine killed the socket (`ECONNABORTED`: `ss -K`).
    ConnectionAborted,
    /// Nothing came for the idle timeout, and nothing was unsent.
    Idle,
    /// The peer took nothing of what it was unsent for the write-stall timeout.
    WriteStall,
    /// We were stopping, and said goodbye in order: all that was read had been echoed.
    ShutDown,
    /// We were stopping, and the time to do it in order was over.
    Aborted,
    /// There was no memory for what it was unsent.
    OutOfMemory,
    /// The event queue would not have it (`ENOSPC`, `ENOMEM` of `epoll_ctl`).
    RegisterFailed,
    /// Any other error of its socket.
    Error,
}

impl CloseReason {
    /// Every reason, in the order of the counters.
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
    ];

    /// Its name in the counters: stable, for machines too.
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
        }
    }
}

impl From<&io::Error> for CloseReason {
    /// What an error of a connection's own socket says of its end.
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

/// Why a connection was taken from the queue and reset at once. Those were never connections of ours: the counters counts
/// them apart, and they are in neither `accepted` nor `closed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectReason {
    /// As many connections are open as may be, and new connections are not to wait.
    Limit,
    /// Its prefix holds as many connections as one prefix may.
    Prefix,
    /// Its address is on the deny-list, or not on the allow-list.
    Denied,
    /// It was still in the accept queue when the server's time for stopping was over.
    Stopping,
}

impl RejectReason {
    /// Every reason, in the order of the counters.
    pub const ALL: &'static [Self] = &[Self::Limit, Self::Prefix, Self::Denied, Self::Stopping];

    /// Its name in the counters: stable, for machines too.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Prefix => "prefix",
            Self::Denied => "denied",
            Self::Stopping => "stopping",
        }
    }

    /// The reason in words, with the limit or list that decides it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Limit => "as many connections are open as the limit connections_max allows",
            Self::Prefix => {
                "its network has as many connections open as connections_per_prefix allows"
            }
            Self::Denied => "its address is on the deny list, or not on the allow list",
            Self::Stopping => "the server is stopping, and drain_timeout is over",
        }
    }
}

/// Why a datagram was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DropReason {
    /// Its source port belongs to a service (below 1024, or NFS's 2049) or cannot exist (0): an answer may start a loop.
    ServicePort,
    /// Its source is one of our own sockets, by its port or by its Unix name: we would talk to ourselves for ever.
    OwnPort,
    /// Its source is no single host: multicast, broadcast or unspecified.
    NoHost,
    /// It was sent to a broadcast or multicast address, and RFC 1122 lets no answer leave from one.
    Group,
    /// The address that it was sent to is unknown (its control messages were cut off): an answer from another one would
    /// be thrown away by its sender.
    NoDestination,
    /// Its sender is a process of another user, neither root nor this server's own (Unix sockets only): its name might
    /// lead to a socket that only this server may write to.
    ForeignSender,
    /// Its source is on the deny-list, or not on the allow-list.
    Denied,
    /// Its source has had its share of answers for now.
    SourceRate,
    /// All sources together have had theirs.
    TotalRate,
    /// Its source has sent thousands without a pause, of which one is not answered: it might be another echo server.
    Loop,
    /// Its sender has no address to answer to (Unix sockets only).
    Unnamed,
    /// It was longer than we have room for (Unix sockets only), so that its echo would have been cut.
    TooLong,
    /// The socket's send buffer was full. A datagram is not worth waiting for.
    WouldBlock,
    /// It was still queued when the server's time for stopping was over.
    Stopping,
    /// Sending failed in any other way.
    Error,
}

impl DropReason {
    /// Every reason, in the order of the counters.
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
        Self::WouldBlock,
        Self::Stopping,
        Self::Error,
    ];

    /// Its name in the counters: stable, for machines too.
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
            Self::WouldBlock => "would_block",
            Self::Stopping => "stopping",
            Self::Error => "error",
        }
    }
}

/// What a server has done so far. All are counts since its start, but for `live` and `unsent`, which are of now, and
/// `turn_us_max`, which is a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections open now.
    pub connections_open: u64,
    /// The most connections that were open at once.
    pub connections_open_peak: u64,
    /// Connections ended, by [`CloseReason`]; read them with [`Stats::closed`].
    closed: [u64; CloseReason::ALL.len()],
    /// New connections who were reset at once, by [`RejectReason`]; read them with [`Stats::rejected`].
    rejected: [u64; RejectReason::ALL.len()],
    /// Calls of `accept` that failed, by errno (0 where the system gave none).
    pub accept_errors: BTreeMap<i32, u64>,
    /// Calls that read a datagram and failed, by errno (0 where the system gave none).
    pub receive_errors: BTreeMap<i32, u64>,
    /// Times that accepting was paused, by a shortage or by the connection limit.
    pub accept_pauses: u64,
    /// Time for which accepting was paused, in all (milliseconds).
    pub accept_paused_ms: u64,
    /// Bytes read from streams.
    pub bytes_in: u64,
    /// Bytes echoed to streams.
    pub bytes_out: u64,
    /// Bytes read and not yet echoed: the tails of all live connections.
    pub unsent_bytes: u64,
    /// The most that was unsent at once, in bytes.
    pub unsent_bytes_peak: u64,
    /// Bytes read that were never echoed, since their connection ended first.
    pub discarded: u64,
    /// Datagrams read.
    pub datagrams_in: u64,
    /// Datagrams answered.
    pub datagrams_out: u64,
    /// Datagrams not answered, by [`DropReason`]; read them with [`Stats::dropped`].
    dropped: [u64; DropReason::ALL.len()],
    /// Turns of the loop.
    pub turns: u64,
    /// The longest turn, from the end of its wait to its own end (microseconds): for so long, somebody who was ready may
    /// have had to wait. Turns of up to eight who are ready, and nobody else, are not looked at. Zero where there is no loop.
    pub turn_us_max: u64,
    /// Events for a connection that was gone by then.
    pub stale_events: u64,
    /// Events that turned out to be for nothing: the first read or accept would have blocked.
    pub spurious_events: u64,
    /// Times that a source had more to do than one turn allows, and queued up again.
    pub budget_yields: u64,
    /// Socket options that could not be set on a connection, which was served without.
    pub option_errors: u64,
    /// Log lines that were held back, since the same line had just been written.
    pub log_suppressed: u64,
}

impl Stats {
    /// A connection was accepted.
    pub(crate) fn open(&mut self) {
        self.accepted += 1;
        self.connections_open += 1;
        self.connections_open_peak = self.connections_open_peak.max(self.connections_open);
    }

    /// A connection ended: `unsent` bytes of what it was unsent go with it.
    pub(crate) fn close(&mut self, reason: CloseReason, unsent: usize) {
        self.connections_open -= 1;
        self.closed[reason as usize] += 1;
        self.unsent_bytes -= unsent as u64;
        self.discarded += unsent as u64;
    }

    /// A connection owes `bytes` more.
    pub(crate) fn store_unsent(&mut self, bytes: usize) {
        self.unsent_bytes += bytes as u64;
        self.unsent_bytes_peak = self.unsent_bytes_peak.max(self.unsent_bytes);
    }

    /// A connection paid back `bytes` of what it unsent.
    pub(crate) fn flush_unsent(&mut self, bytes: usize) {
        self.unsent_bytes -= bytes as u64;
        self.bytes_out += bytes as u64;
    }

    /// A call of `accept` failed.
    pub(crate) fn accept_error(&mut self, error: &io::Error) {
        *self
            .accept_errors
            .entry(error.raw_os_error().unwrap_or(0))
            .or_default() += 1;
    }

    /// A call that reads a datagram failed.
    pub(crate) fn receive_error(&mut self, error: &io::Error) {
        *self
            .receive_errors
            .entry(error.raw_os_error().unwrap_or(0))
            .or_default() += 1;
    }

    /// A new connection was reset at once.
    pub(crate) fn reject(&mut self, why: RejectReason) {
        self.rejected[why as usize] += 1;
    }

    /// A datagram was not answered.
    pub(crate) fn drop_datagram(&mut self, why: DropReason) {
        self.dropped[why as usize] += 1;
    }

    /// Connections that ended for this reason.
    #[must_use]
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize]
    }

    /// Connections that ended, for whatever reason.
    #[must_use]
    pub fn closed_total(&self) -> u64 {
        self.closed.iter().sum()
    }

    /// New connections who were reset at once for this reason.
    #[must_use]
    pub fn rejected(&self, why: RejectReason) -> u64 {
        self.rejected[why as usize]
    }

    /// New connections who were reset at once, for whatever reason.
    #[must_use]
    pub fn rejected_total(&self) -> u64 {
        self.rejected.iter().sum()
    }

    /// Datagrams that were not answered for this reason.
    #[must_use]
    pub fn dropped(&self, why: DropReason) -> u64 {
        self.dropped[why as usize]
    }

    /// Datagrams that were not answered, for whatever reason.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Checks the three equations at the head of this page.
    ///
    /// # Errors
    /// The equation that does not hold, with its figures.
    pub fn check_invariants(&self) -> Result<(), String> {
        let equations = [
            (
                "accepted = connections open + closed",
                self.accepted,
                self.connections_open + self.closed_total(),
            ),
            (
                "bytes in = bytes out + unsent + discarded",
                self.bytes_in,
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

    /// Adds another counters to this one. The peaks are added too, which makes them an upper bound: two counters do not
    /// tell whether they peaked at the same moment. Of the longest turns the longer one stays.
    pub fn merge(&mut self, other: &Self) {
        // Taken apart by name, so that a counter which is added to the struct and forgotten here does not compile.
        let Self {
            accepted,
            connections_open,
            connections_open_peak,
            closed,
            rejected,
            accept_errors,
            receive_errors,
            accept_pauses,
            accept_paused_ms,
            bytes_in,
            bytes_out,
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
        self.accept_pauses += accept_pauses;
        self.accept_paused_ms += accept_paused_ms;
        self.bytes_in += bytes_in;
        self.bytes_out += bytes_out;
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

    /// The plain counters with their stable names, in the order in which people want to read them. The families
    /// `closed`, `rejected`, `dropped`, `accept_errors` and `receive_errors` have their own accessors.
    #[must_use]
    pub fn counters(&self) -> impl ExactSizeIterator<Item = (&'static str, u64)> + use<> {
        [
            ("accepted", self.accepted),
            ("connections_open", self.connections_open),
            ("connections_open_peak", self.connections_open_peak),
            ("accept_pauses", self.accept_pauses),
            ("accept_paused_ms", self.accept_paused_ms),
            ("bytes_in", self.bytes_in),
            ("bytes_out", self.bytes_out),
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

/// One line: the counters as `name=count`, the families as `closed{reason}=count`, what is zero left out of the latter.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, count)) in self.counters().enumerate() {
            write!(f, "{}{name}={count}", if i == 0 { "" } else { " " })?;
        }
        for reason in CloseReason::ALL
            .iter()
            .copied()
            .filter(|&reason| self.closed(reason) > 0)
        {
            write!(f, " closed{{{}}}={}", reason.name(), self.closed(reason))?;
        }
        for why in RejectReason::ALL
            .iter()
            .copied()
            .filter(|&why| self.rejected(why) > 0)
        {
            write!(f, " rejected{{{}}}={}", why.name(), self.rejected(why))?;
        }
        for why in DropReason::ALL
            .iter()
            .copied()
            .filter(|&why| self.dropped(why) > 0)
        {
            write!(f, " dropped{{{}}}={}", why.name(), self.dropped(why))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reasons_are_listed_in_the_order_of_their_places() {
        assert!(
            CloseReason::ALL
                .iter()
                .enumerate()
                .all(|(place, &reason)| place == reason as usize)
        );
        assert!(
            DropReason::ALL
                .iter()
                .enumerate()
                .all(|(place, &why)| place == why as usize)
        );
        assert!(
            RejectReason::ALL
                .iter()
                .enumerate()
                .all(|(place, &why)| place == why as usize)
        );
    }

    #[test]
    fn a_life_of_one_connection_balances_at_every_step() {
        let mut stats = Stats::default();
        stats.open();
        assert_eq!(stats.check_invariants(), Ok(()));
        stats.bytes_in += 10;
        assert!(stats.check_invariants().unwrap_err().contains("bytes in"));
        stats.bytes_out += 4;
        stats.store_unsent(6);
        assert_eq!(stats.check_invariants(), Ok(()));
        stats.flush_unsent(1);
        stats.close(CloseReason::Reset, 5);
        assert_eq!(stats.check_invariants(), Ok(()));
        assert_eq!(
            (stats.discarded, stats.unsent_bytes, stats.unsent_bytes_peak),
            (5, 0, 6)
        );
    }

    #[test]
    fn counters_add_up() {
        let mut one = Stats::default();
        one.open();
        one.close(CloseReason::Idle, 0);
        one.accept_error(&io::Error::from_raw_os_error(libc::EMFILE));
        let mut sum = one.clone();
        sum.merge(&one);
        assert_eq!(
            (
                sum.accepted,
                sum.closed(CloseReason::Idle),
                sum.accept_errors[&24]
            ),
            (2, 2, 2)
        );
        assert_eq!(sum.check_invariants(), Ok(()));
        assert!(
            sum.to_string()
                .contains("closed{idle}=2 accept_errors{24}=2"),
            "{sum}"
        );
    }
}
