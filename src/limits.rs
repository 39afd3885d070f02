//! Bounds of the server: the unit of each, its default, and the reason for it.
//!
//! A server without a configured limit still has one: the point at which it runs out of memory, descriptors or time. So
//! every resource that can grow or last has a bound here. This module holds the bounds and checks that they are in range.
//! The module that spends a resource enforces its bound, and `cli` reads bounds from a command line.

use crate::procfs::own;
use std::fmt;
use std::time::Duration;

/// Assumed descriptors left where there is no /proc: the smallest default soft limit of the systems that mio supports
/// (macOS). [`Config::fit_descriptors`](crate::echo::Config::fit_descriptors) switches the check off.
const DESCRIPTORS_LEFT_ASSUMED: u64 = 256;

/// Bounds that a server keeps: connections, memory, work in a turn, times and rates.
///
/// Start from [`Limits::default`] or [`Limits::hardened`] and change fields. More fields will come, so a program cannot
/// name them all in a struct expression; [`Limits::with`] changes some of them within an expression.
///
/// ```
/// use echo_reactor::Limits;
/// use std::time::Duration;
///
/// let limits = Limits::default().with(|limits| limits.idle_timeout = Some(Duration::from_secs(30)));
/// limits.check().expect("thirty seconds is a fine timeout");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections open at once (count; default 1,000,000). `overload` decides what happens at this limit. The
    /// descriptor limit of the process is usually lower, and a server lowers this value to fit it
    /// ([`Config::fit_descriptors`](crate::echo::Config::fit_descriptors)).
    pub connections_max: usize,

    /// Treatment of new connections while `connections_max` are open (default: they wait in the accept queue).
    pub overload: OverloadPolicy,

    /// Connections that one address prefix may hold at once (count; default `None`, no limit). A connection beyond it is
    /// reset at once: leaving it in the accept queue would block the connections of other prefixes behind it. The limit
    /// keeps one prefix from taking all of `connections_max`; but many clients may share a prefix behind an address
    /// translation. It costs a table entry for each connection, and nothing for each echo.
    pub connections_per_prefix: Option<usize>,

    /// Length of the prefix of an IPv4 address (bits; default 32: each address by itself).
    pub prefix_bits_ipv4: u8,

    /// Length of the prefix of an IPv6 address (bits; default 64: a host usually controls all of its /64).
    pub prefix_bits_ipv6: u8,

    /// Connections whose slots are allocated at the start (count; default 0, at most `connections_max`): 48 bytes each.
    /// Otherwise slots are allocated 4,096 at a time as connections arrive, which is quick, but fails if memory has run
    /// out by then. The kernel counts preallocated memory at once, and provides it at the first write.
    pub preallocate_connections: usize,

    /// Descriptors kept free for everything but connections: listeners, the epoll instance, standard streams, a log
    /// file, and what else an embedding program opens (count; default 32, as redis does). Only
    /// [`Limits::fit_descriptors`] and [`Limits::fit_process`] use it.
    pub descriptors_reserved: usize,

    /// Length of the accept queue: connections that the kernel establishes ahead of accept(2) (count; default the
    /// system's maximum, `net.core.somaxconn`, to which the kernel cuts any greater number). A queue that overflows does
    /// not refuse clients: the kernel drops their SYN, and they retry after a second.
    pub backlog: i32,

    /// Bytes that one connection may read in a turn before the next source is served (bytes; default 260 KiB). A small
    /// budget is fair to connections with little traffic, a large one saves turns for busy connections. It also bounds a
    /// long read ([`echo::read_buffer`](crate::echo::read_buffer)); up to `read_buffer_bytes` there is none. The default
    /// lets a message of 256 KiB end in a short read, so that the socket is known to be empty without another one.
    pub read_budget_bytes: usize,

    /// Connections that one listener may accept in a turn (count; default 64). It keeps a burst of new connections from
    /// delaying the established ones: 64 take less than a millisecond.
    pub accept_budget: usize,

    /// Datagrams that one socket may echo in a turn (count; default 64), for the same reason.
    pub datagram_budget: usize,

    /// Longest time for which the loop polls before a wait that would sleep (default off, zero; at most 10 ms). The time
    /// adapts to what polling finds, and is zero in a loop with little to do: see
    /// [the guide](crate::guide::cost#one-turn-busy-polling). It helps a server that has a core to itself and peers
    /// that answer at once, and costs up to all of that core's idle time. A turn that may not wait never polls twice.
    pub spin_max: Duration,

    /// Length of a read (bytes; default 64 KiB: the kernel delivers at most that much in one piece, so that a message of
    /// this size takes one read). It also bounds the write buffer of a connection, since nothing is read while bytes are
    /// unsent: a peer that never reads costs one read. After a full one the next is long
    /// ([`echo::read_buffer`](crate::echo::read_buffer)), but only if the kernel says that the send buffer has room for it.
    /// Should it then lack the memory, one connection of the server has up to a long read unsent.
    pub read_buffer_bytes: usize,

    /// Time after which a connection without input and without unsent bytes is closed (default off: RFC 862 serves
    /// "until the calling user terminates the connection").
    pub idle_timeout: Option<Duration>,

    /// Time for which a connection may have unsent bytes while its peer takes none (default 60 s, as nginx's
    /// `send_timeout`). Every byte written restarts it. Past it the connection is reset: an orderly close would leave the
    /// bytes in the kernel's send buffer for as long as the peer stalls.
    ///
    /// Progress means that the kernel takes another byte, whether or not it has reported writability. The kernel fills its
    /// send buffer by whole packets of up to 64 KiB, and the peer's TCP opens its window by a segment or by a sixteenth of
    /// its receive buffer (RFC 9293, 3.8.6.2.2). So a peer that takes 128 KiB in this time, two KiB a second by default, is
    /// recognised on any path; a slower one may look stalled.
    pub write_stall_timeout: Option<Duration>,

    /// Time in which the PROXY header of a connection has to be whole (default 5 s: the specification asks for 3 at least,
    /// the time of one retransmission). The bytes that come do not restart it. Without
    /// [`Config::proxy`](crate::echo::Config::proxy) it has no effect.
    pub proxy_header_timeout: Duration,

    /// Silence after which the server closes a connection while it drains (default 50 ms). A connection in the middle of
    /// a message may finish it, within `drain_timeout`.
    pub drain_idle_timeout: Duration,

    /// Time for which a connection that the server closes waits for the peer's FIN, discarding what still arrives
    /// (default 1 s). Closing a socket with unread input sends RST, which can destroy the last echoes on their way.
    pub fin_timeout: Duration,

    /// Time that draining may take before the remaining connections are aborted and counted as such (default 5 s:
    /// container runtimes kill after ten). The last part of it, `fin_timeout` but at most a quarter, is for connections
    /// that get a FIN although they are not idle.
    pub drain_timeout: Duration,

    /// Pause after accept(2) failed for lack of descriptors or memory, unless a connection closes earlier (default
    /// 100 ms, as HAProxy: at most ten futile calls a second). It is also the first pause of a socket whose calls keep
    /// failing for any other reason; each further pause is twice as long, up to a second.
    pub accept_retry: Duration,

    /// SO_SNDBUF of each connection (bytes; default `None`: the kernel tunes it, up to `tcp_wmem[2]`). Setting it
    /// disables the tuning. Linux doubles the value, for its own bookkeeping.
    pub send_buffer_bytes: Option<usize>,

    /// SO_RCVBUF of each connection (bytes; default `None`, as above). The buffers of a datagram socket are only ever
    /// enlarged: below the system's default the longest datagrams would be lost.
    pub receive_buffer_bytes: Option<usize>,

    /// Idle time after which TCP sends keepalive probes (default off). Further probes follow at a third of it, and the
    /// third unanswered probe ends the connection. Without keepalive the connection of a peer that lost power stays open
    /// for ever.
    pub keepalive: Option<Duration>,

    /// Time that sent bytes may stay unacknowledged before TCP gives up (TCP_USER_TIMEOUT of tcp(7); default off: the
    /// kernel retransmits for about a quarter of an hour). It detects a peer that vanished while bytes were unsent, when
    /// keepalive does not run; the time in which a peer that is alive keeps its window closed counts, too. Where both are
    /// set, it also replaces the number of unanswered probes after which an idle connection ends. Linux only; ignored
    /// elsewhere.
    pub user_timeout: Option<Duration>,

    /// Datagrams echoed to one source, which is an IPv4 address, an IPv6 /64 or a Unix name (per second; default 1,000;
    /// `None` is unlimited). With it goes the rule that ends a loop with another echo server: of an address and port that
    /// sends without a pause, one datagram in 5,000 to 10,000 is dropped. `None` disables that, too.
    pub datagrams_per_source: Option<u32>,

    /// Datagrams echoed in all (per second; default 100,000; `None` is unlimited): the most that this host sends to
    /// forged sources.
    pub datagrams_total: Option<u32>,

    /// Stack of each thread of the thread-per-connection model (bytes; default 64 KiB beside its buffer). The platform's
    /// 2 to 8 MiB are only reserved address space, but at ten thousand threads even that runs out.
    pub thread_stack_bytes: usize,
}

/// Treatment of new connections while `connections_max` connections are open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OverloadPolicy {
    /// New connections wait in the kernel's accept queue until an open one closes. A burst costs them time only.
    #[default]
    Wait,
    /// New connections are reset at once, for clients that can turn to another server.
    Reject,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1_000_000,
            overload: OverloadPolicy::Wait,
            connections_per_prefix: None,
            prefix_bits_ipv4: 32,
            prefix_bits_ipv6: 64,
            preallocate_connections: 0,
            descriptors_reserved: 32,
            backlog: i32::MAX,
            read_budget_bytes: 260 * 1024,
            accept_budget: 64,
            datagram_budget: 64,
            spin_max: Duration::ZERO,
            read_buffer_bytes: 64 * 1024,
            idle_timeout: None,
            write_stall_timeout: Some(Duration::from_secs(60)),
            proxy_header_timeout: Duration::from_secs(5),
            drain_idle_timeout: Duration::from_millis(50),
            fin_timeout: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(5),
            accept_retry: Duration::from_millis(100),
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
            keepalive: None,
            user_timeout: None,
            datagrams_per_source: Some(1_000),
            datagrams_total: Some(100_000),
            thread_stack_bytes: 64 * 1024,
        }
    }
}

impl Limits {
    /// Returns the bounds for a server on a public network, where no peer may hold much, or for long, or while it is gone.
    /// They differ from [`Limits::default`] in these:
    ///
    /// | limit | value | reason |
    /// |---|---|---|
    /// | `connections_max` | 10,000 | at worst they pin less than a gigabyte: 70 KB in the kernel and 16 KiB in the server each |
    /// | `connections_per_prefix` | 100 | it takes a hundred prefixes to fill the server |
    /// | `read_buffer_bytes` | 16 KiB | bounds the unsent bytes of a peer that does not read; no more arrives in one piece anyway |
    /// | `idle_timeout` | 30 s | an unused connection is closed, other than RFC 862 says |
    /// | `write_stall_timeout` | 10 s | a peer that takes no byte for so long is not slow but stalled |
    /// | `send_buffer_bytes`, `receive_buffer_bytes` | 16 KiB, 8 KiB | the kernel doubles both and exceeds them by a packet: 70 KB for a peer that does not read, where its own tuning ends at 5 MB |
    /// | `keepalive` | 10 s | a peer that vanished while idle is detected after 20 s |
    /// | `user_timeout` | 15 s | a peer that vanished with bytes unacknowledged, after 16 s |
    /// | `datagrams_per_source` | 100 a second | a loop with another echo server costs next to nothing until it ends |
    /// | `datagrams_total` | 10,000 a second | bounds what forged sources can make this host send |
    ///
    /// The price is the throughput of large messages over long distances: a window of 8 KB at a round trip of 50 ms
    /// carries 160 kB a second.
    #[must_use]
    pub fn hardened() -> Self {
        Self {
            connections_max: 10_000,
            connections_per_prefix: Some(100),
            read_buffer_bytes: 16 * 1024,
            idle_timeout: Some(Duration::from_secs(30)),
            write_stall_timeout: Some(Duration::from_secs(10)),
            send_buffer_bytes: Some(16 * 1024),
            receive_buffer_bytes: Some(8 * 1024),
            keepalive: Some(Duration::from_secs(10)),
            user_timeout: Some(Duration::from_secs(15)),
            datagrams_per_source: Some(100),
            datagrams_total: Some(10_000),
            ..Self::default()
        }
    }
}

/// Greatest `connections_max`: four times the descriptors that a process can have by default (`fs.nr_open`); on a 32-bit
/// machine a little less than the slots that a key can name.
pub(crate) const CONNECTIONS_CEILING: usize = if usize::BITS < 64 {
    1_000_000
} else {
    4_000_000
};
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest timeout that the event loop keeps: 100 years. Its clock counts further, but an `Instant` does not on every
/// system.
const TIMEOUT_CEILING: Duration = Duration::from_secs(36_500 * DAY.as_secs());
/// Longest TCP_USER_TIMEOUT: the kernel takes milliseconds in a signed `int`, which ends after 24.8 days (tcp(7)).
const USER_TIMEOUT_CEILING: Duration = Duration::from_secs(24 * DAY.as_secs());
/// Longest `spin_max`: a sleep costs microseconds, so that polling for longer never pays.
const SPIN_CEILING: Duration = Duration::from_millis(10);
/// Largest read buffer. A larger one only evicts from the cache what the write needs next.
const READ_BUFFER_CEILING: usize = 16 * 1024 * 1024;

impl Limits {
    /// Returns these limits, changed by `change`.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Checks that every bound is in the range that the server can keep.
    ///
    /// # Errors
    /// The first limit that is out of range, with its name, its value, and the range.
    pub fn check(&self) -> Result<(), LimitError> {
        self.check_sizes()?;
        self.check_times()
    }

    fn check_sizes(&self) -> Result<(), LimitError> {
        const INT_MAX: usize = i32::MAX as usize;
        let per_prefix = self.connections_per_prefix.unwrap_or(1);
        let backlog = usize::try_from(self.backlog).unwrap_or(0);
        let rate = |rate: Option<u32>| rate.map_or(1, |rate| rate as usize);
        #[rustfmt::skip]
        let table = [
            ("connections_max", self.connections_max, 1, CONNECTIONS_CEILING),
            ("preallocate_connections", self.preallocate_connections, 0, CONNECTIONS_CEILING),
            ("connections_per_prefix", per_prefix, 1, CONNECTIONS_CEILING),
            ("prefix_bits_ipv4", usize::from(self.prefix_bits_ipv4), 1, 32),
            ("prefix_bits_ipv6", usize::from(self.prefix_bits_ipv6), 1, 128),
            ("backlog", backlog, 1, INT_MAX),
            ("read_budget_bytes", self.read_budget_bytes, 1, usize::MAX),
            ("accept_budget", self.accept_budget, 1, usize::MAX),
            ("datagram_budget", self.datagram_budget, 1, usize::MAX),
            ("read_buffer_bytes", self.read_buffer_bytes, 1, READ_BUFFER_CEILING),
            ("thread_stack_bytes", self.thread_stack_bytes, 16 * 1024, 1 << 30),
            ("send_buffer_bytes", self.send_buffer_bytes.unwrap_or(1), 1, INT_MAX / 2),
            ("receive_buffer_bytes", self.receive_buffer_bytes.unwrap_or(1), 1, INT_MAX / 2),
            ("datagrams_per_source", rate(self.datagrams_per_source), 1, u32::MAX as usize),
            ("datagrams_total", rate(self.datagrams_total), 1, u32::MAX as usize),
        ];
        table
            .into_iter()
            .try_for_each(|(name, value, least, most)| in_range(name, value, least, most))
    }

    fn check_times(&self) -> Result<(), LimitError> {
        for (name, time, most) in [
            ("idle_timeout", self.idle_timeout, TIMEOUT_CEILING),
            (
                "write_stall_timeout",
                self.write_stall_timeout,
                TIMEOUT_CEILING,
            ),
            (
                "proxy_header_timeout",
                Some(self.proxy_header_timeout),
                TIMEOUT_CEILING,
            ),
            (
                "drain_idle_timeout",
                Some(self.drain_idle_timeout),
                TIMEOUT_CEILING,
            ),
            ("fin_timeout", Some(self.fin_timeout), TIMEOUT_CEILING),
            ("drain_timeout", Some(self.drain_timeout), TIMEOUT_CEILING),
            ("accept_retry", Some(self.accept_retry), TIMEOUT_CEILING),
            ("user_timeout", self.user_timeout, USER_TIMEOUT_CEILING),
        ] {
            time_in_range(name, time, most)?;
        }
        if self.spin_max > SPIN_CEILING {
            let value = format!("{:?}", self.spin_max);
            return Err(LimitError::new("spin_max", value, "0 to 10ms"));
        }
        // The kernel takes whole seconds, at most MAX_TCP_KEEPIDLE of them.
        let Some(idle) = self
            .keepalive
            .filter(|idle| !(1..=32_767).contains(&idle.as_secs()))
        else {
            return Ok(());
        };
        Err(LimitError::new(
            "keepalive",
            format!("{idle:?}"),
            "1s to 32767s (tcp(7))",
        ))
    }

    /// Lowers `connections_max` to what a process with `descriptors` file descriptors can hold, less
    /// `descriptors_reserved`. Returns whether the value changed.
    pub fn fit_descriptors(&mut self, descriptors: u64) -> bool {
        let room = usize::try_from(descriptors)
            .unwrap_or(usize::MAX)
            .saturating_sub(self.descriptors_reserved)
            .max(1);
        let lowered = room < self.connections_max;
        self.connections_max = self.connections_max.min(room);
        lowered
    }

    /// Lowers `connections_max` to the descriptors that this process may still open: its soft limit less the open ones,
    /// or 256 where there is no `/proc` to read them from. Returns whether the value changed.
    pub fn fit_process(&mut self) -> bool {
        self.fit_descriptors(own::descriptors_left().unwrap_or(DESCRIPTORS_LEFT_ASSUMED))
    }
}

/// Error of [`Limits::check`]: a limit is out of range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitError {
    name: &'static str,
    value: String,
    range: String,
}

impl LimitError {
    fn new(name: &'static str, value: impl Into<String>, range: impl Into<String>) -> Self {
        Self {
            name,
            value: value.into(),
            range: range.into(),
        }
    }

    /// Returns the name of the limit: that of its field in [`Limits`].
    #[must_use]
    pub fn limit(&self) -> &'static str {
        self.name
    }

    /// Returns the rejected value, with its unit.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Returns the allowed values in words: `1 to 4000000`, `1ms to 36500 days`.
    #[must_use]
    pub fn range(&self) -> &str {
        &self.range
    }
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} is out of range: it can be {}",
            self.name, self.value, self.range
        )
    }
}

impl std::error::Error for LimitError {}

fn in_range(name: &'static str, value: usize, least: usize, most: usize) -> Result<(), LimitError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let range = if most == usize::MAX {
        format!("{least} or more")
    } else {
        format!("{least} to {most}")
    };
    Err(LimitError::new(name, value.to_string(), range))
}

/// Checks a timeout; `None`, off, is in range.
fn time_in_range(
    name: &'static str,
    time: Option<Duration>,
    most: Duration,
) -> Result<(), LimitError> {
    let Some(time) = time.filter(|time| !(Duration::from_millis(1)..=most).contains(time)) else {
        return Ok(());
    };
    let range = format!("1ms to {} days", most.as_secs() / DAY.as_secs());
    Err(LimitError::new(name, format!("{time:?}"), range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_range() {
        assert_eq!(Limits::default().check(), Ok(()));
        assert_eq!(Limits::hardened().check(), Ok(()));
    }

    #[test]
    fn a_limit_out_of_range_is_named_with_its_value_and_its_range() {
        let limits = Limits {
            connections_max: 5_000_000,
            ..Limits::default()
        };
        let text = limits.check().unwrap_err().to_string();
        assert_eq!(
            text,
            "connections_max of 5000000 is out of range: it can be 1 to 4000000"
        );

        let limits = Limits {
            idle_timeout: Some(Duration::ZERO),
            ..Limits::default()
        };
        assert!(
            limits
                .check()
                .unwrap_err()
                .to_string()
                .starts_with("idle_timeout of 0ns is out of range")
        );
    }

    #[test]
    fn timeouts_are_bounded_by_the_clock_that_keeps_them() {
        let longest = |time: Duration| Limits {
            idle_timeout: Some(time),
            write_stall_timeout: Some(time),
            proxy_header_timeout: time,
            drain_idle_timeout: time,
            fin_timeout: time,
            drain_timeout: time,
            accept_retry: time,
            ..Limits::default()
        };
        assert_eq!(longest(TIMEOUT_CEILING).check(), Ok(()));
        for beyond in [TIMEOUT_CEILING + Duration::from_nanos(1), Duration::MAX] {
            let text = longest(beyond).check().unwrap_err().to_string();
            assert!(text.ends_with("1ms to 36500 days"), "{text}");
        }
        let user_timeout = |time| Limits {
            user_timeout: Some(time),
            ..Limits::default()
        };
        assert_eq!(user_timeout(USER_TIMEOUT_CEILING).check(), Ok(()));
        let text = user_timeout(25 * DAY).check().unwrap_err().to_string();
        assert!(text.ends_with("1ms to 24 days"), "{text}");
    }

    #[test]
    fn few_descriptors_lower_the_connection_limit() {
        let mut limits = Limits::default();
        assert!(limits.fit_descriptors(20_000));
        assert_eq!(limits.connections_max, 20_000 - 32);
        assert!(!limits.fit_descriptors(u64::MAX));
        assert!(limits.fit_descriptors(3));
        assert_eq!(
            limits.connections_max, 1,
            "one connection is always allowed"
        );
    }
}
