//! Every bound of the server: its unit, its default, and the reason for both.
//!
//! A server without a limit has one all the same: the one at which it falls over. So whatever can grow or last is named
//! here. What may live in this file: a bound, why it is what it is, and the check that the bounds fit together. What may
//! not: enforcing them (that is done by whoever spends the resource), or reading them from a command line (`cli` does).

use crate::procfs::own;
use std::fmt;
use std::time::Duration;

/// Descriptors that may still be opened where there is no /proc: the smallest default of a soft limit (macOS). A program
/// that knows better switches [`Config::fit_descriptors`](crate::echo::Config::fit_descriptors) off.
const DESCRIPTORS_LEFT_ASSUMED: u64 = 256;

/// The bounds that a server keeps: connections, memory, work in a turn, times and rates.
///
/// Start from [`Limits::default`] or [`Limits::hardened`] and change fields. More fields will come, so a program cannot
/// name them all in a struct expression; [`Limits::with`] changes some of them in the midst of an expression.
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
    /// Connections held at once (count; default 1,000,000). What happens when it is reached is `overload`'s. The
    /// descriptors that the process may have are usually the tighter bound, and a server lowers this to what they allow
    /// ([`Config::fit_descriptors`](crate::echo::Config::fit_descriptors)).
    pub connections_max: usize,

    /// What becomes of new connections while as many connections are open as may be (default: they wait).
    pub overload: OverloadPolicy,

    /// Connections that one prefix may hold at once (count; default `None`, no limit). Whoever comes on top of it is
    /// reset at once: to let them wait would hold up everybody behind them in the queue, whom it does not concern. It is
    /// what keeps one abuser from taking all of `connections_max`; but many honest clients may be one prefix too, behind
    /// an address translation. It costs a table entry for each connection, and nothing for each echo.
    pub connections_per_prefix: Option<usize>,

    /// How many bits of an IPv4 address make a prefix (default 32: each address by itself).
    pub prefix_bits_ipv4: u8,

    /// How many bits of an IPv6 address make a prefix (default 64: whoever has one address usually has all of its /64).
    pub prefix_bits_ipv6: u8,

    /// Connections for which there is memory from the start on (count; default 0, at most `connections_max`): 48 bytes
    /// each. Without it the slots are made 4,096 at a time as connections come, which never takes long, but may fail on a
    /// machine that has no memory left by then. The kernel accounts for it at once and hands it out when it is written to.
    pub preallocate_connections: usize,

    /// Descriptors kept free for everything that is not a connection: listeners, the epoll instance, standard streams,
    /// a log file, and whatever else the program opens that this server is embedded in (count; default 32, as redis
    /// does). It only matters to [`Limits::fit_descriptors`] and [`Limits::fit_process`].
    pub descriptors_reserved: usize,

    /// Handshakes that the kernel may finish ahead of `accept` (count; default the system's maximum,
    /// `net.core.somaxconn`, to which the kernel cuts every greater number). Too small a queue does not refuse clients:
    /// it drops their SYN, and they try again after a whole second.
    pub backlog: i32,

    /// Bytes that one connection may read in a turn before the others get theirs (bytes; default 256 KiB). Smaller is
    /// fairer to the quiet ones, larger saves a few turns of the loop for the busy ones.
    pub read_budget_bytes: usize,

    /// Connections that one listener may accept in a turn (count; default 64). It keeps a burst of new connections from
    /// holding up those who are being served: sixty-four cost less than a millisecond.
    pub accept_budget: usize,

    /// Datagrams that one socket may answer in a turn (count; default 64), for the same reason.
    pub datagram_budget: usize,

    /// Size of the read buffer, the one buffer that every stream is read into (bytes; default 64 KiB: what the kernel hands
    /// over in one piece, so that a message of that size costs one read). It is also the most that a connection can owe,
    /// since nothing is read while something is unsent: a peer that never reads pins one read buffer of ours and no more.
    pub read_buffer_bytes: usize,

    /// Time after which a connection with nothing unsent and nothing to say is closed (default off: RFC 862 serves "until
    /// the calling user terminates the connection").
    pub idle_timeout: Option<Duration>,

    /// Time that a connection may owe bytes to a peer who takes none at all (default 60 s, as nginx's `send_timeout`).
    /// Any progress starts it anew. Past it the connection is reset: an orderly close would leave the unsent bytes in
    /// the kernel for as long as the peer pleases.
    ///
    /// Progress is what the kernel lets us see: that it takes another byte, whether or not it has told of room. It fills
    /// its buffer by whole packets of up to 64 KiB, and the peer's TCP tells of room by the segment or by a sixteenth of its
    /// receive buffer (RFC 9293, 3.8.6.2.2). So a peer that takes 128 KiB in this time, two kilobytes a second by default,
    /// is recognised on any path; one that is still slower may look like one that has stopped.
    pub write_stall_timeout: Option<Duration>,

    /// Silence after which a connection is told goodbye while the server drains (default 50 ms). Those who are in the
    /// middle of something may finish it, within `drain_timeout`.
    pub drain_idle_timeout: Duration,

    /// Time for which a connection that we end, by draining, waits for its peer's own FIN and throws away what still
    /// arrives (default 1 s). Closing at once with unread input sends a reset, which can destroy the last echoes on
    /// their way to the peer.
    pub fin_timeout: Duration,

    /// Time that draining may take in all before what is left is cut and counted (default 5 s: container runtimes
    /// kill after ten).
    pub drain_timeout: Duration,

    /// Pause after `accept` failed for want of descriptors or memory, unless a connection closes earlier
    /// (default 100 ms, as HAProxy: at most ten futile calls a second). It is also the first pause of a socket whose
    /// calls fail again and again for any other reason; those that follow double, up to a second.
    pub accept_retry: Duration,

    /// The kernel's send buffer of each connection (bytes; default `None`: the kernel tunes it, up to `tcp_wmem[2]`).
    /// Setting it switches the tuning off. Linux doubles what is asked for, to hold its own book-keeping.
    pub send_buffer_bytes: Option<usize>,

    /// The kernel's receive buffer of each connection (bytes; default `None`, as above). A datagram socket's two buffers are
    /// only ever enlarged by these limits: below the system's default the longest datagrams would be lost.
    pub receive_buffer_bytes: Option<usize>,

    /// Idle time after which TCP probes whether the peer is still there (default off). Probes then follow at a third of
    /// it, and the third that nobody answers ends the connection. Without it a peer that lost its power stays for ever.
    pub keepalive: Option<Duration>,

    /// Time that bytes on their way to a peer may stay unacknowledged before TCP gives up (TCP_USER_TIMEOUT of tcp(7);
    /// default off: the kernel goes on trying for about a quarter of an hour). It catches the peer that vanished while
    /// it was unsent bytes, during which keepalive does not run; and where both are set, an idle peer too is given up
    /// once it has left probes unanswered for so long. Linux alone; elsewhere it is not set.
    pub user_timeout: Option<Duration>,

    /// Datagrams that one source, an IPv4 address, an IPv6 /64 or a Unix name, may have answered (per second; default
    /// 1,000; `None` is unlimited). With it goes what ends a loop with another echo server: one datagram in 5,000 to 10,000
    /// of an address and port that never pauses is not answered. `None` switches that off too.
    pub datagrams_per_source: Option<u32>,

    /// Datagrams answered in all (per second; default 100,000; `None` is unlimited): what this host can be made to send
    /// to forged sources.
    pub datagrams_total: Option<u32>,

    /// Stack of each thread of the blocking model (bytes; default 64 KiB beside its buffer; the platform's 2 to 8 MiB
    /// are reserved address space, but at ten thousand threads even that is a wall).
    pub thread_stack_bytes: usize,
}

/// What becomes of new connections while as many connections are open as may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OverloadPolicy {
    /// They wait in the kernel's accept queue, and are let in as others leave. A burst costs them time and nothing else.
    #[default]
    Wait,
    /// They are reset at once. For clients that have somewhere else to go, and should learn early that they must.
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
            read_budget_bytes: 256 * 1024,
            accept_budget: 64,
            datagram_budget: 64,
            read_buffer_bytes: 64 * 1024,
            idle_timeout: None,
            write_stall_timeout: Some(Duration::from_secs(60)),
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
    /// The bounds for a server that strangers can reach: nobody may hold much, or for long, or hold it without giving a
    /// sign of life. What differs from [`Limits::default`], and why:
    ///
    /// | limit | value | reason |
    /// |---|---|---|
    /// | `connections_max` | 10,000 | at their worst they pin less than a gigabyte: 70 KB of the kernel's and 16 KiB of ours each |
    /// | `connections_per_prefix` | 100 | a hundred prefixes must conspire to fill it; one cannot |
    /// | `read_buffer_bytes` | 16 KiB | what a peer that does not read is unsent at most; no more arrives in one piece anyway |
    /// | `idle_timeout` | 30 s | a connection that is not used is not kept; here we part with RFC 862 |
    /// | `write_stall_timeout` | 10 s | who takes nothing for so long is not slow but stuck |
    /// | `send_buffer_bytes`, `receive_buffer_bytes` | 16 KiB, 8 KiB | the kernel doubles both, and goes over them by a packet: 70 KB for a peer that does not read, where its own tuning ends at 5 MB |
    /// | `keepalive` | 10 s | a peer that vanished while idle is gone after 20 s |
    /// | `user_timeout` | 15 s | one that vanished while it was unsent bytes, after 16 s |
    /// | `datagrams_per_source` | 100 a second | a loop with a foreign echo server costs both next to nothing until it ends |
    /// | `datagrams_total` | 10,000 a second | what all forged sources together can have us send |
    ///
    /// Its price is the throughput of large messages over long distances: a window of 8 KB at 50 ms of round trip carries
    /// 160 kB a second.
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

/// The most connections that can be asked for: four times what a single process may have descriptors for by default
/// (`fs.nr_open`); on a 32-bit machine not quite as many, since a key cannot name more slots.
pub(crate) const CONNECTIONS_CEILING: usize = if usize::BITS < 64 {
    1_000_000
} else {
    4_000_000
};
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest timeout that the loop itself keeps: 100 years. Its clock would hold more, but not every system's `Instant`
/// can be added to without end.
const TIMEOUT_CEILING: Duration = Duration::from_secs(36_500 * DAY.as_secs());
/// The longest TCP_USER_TIMEOUT: the kernel takes milliseconds in a signed `int`, which ends after 24.8 days (tcp(7)).
const USER_TIMEOUT_CEILING: Duration = Duration::from_secs(24 * DAY.as_secs());
/// The largest scratch. Beyond it a read only evicts from the cache what the write wants next.
const READ_BUFFER_CEILING: usize = 16 * 1024 * 1024;

impl Limits {
    /// These limits, changed by `change`.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Checks every bound against what the server can keep.
    ///
    /// # Errors
    /// The first limit that is out of range.
    pub fn check(&self) -> Result<(), LimitError> {
        in_range(
            "connections_max",
            self.connections_max,
            1,
            CONNECTIONS_CEILING,
        )?;
        in_range(
            "preallocate_connections",
            self.preallocate_connections,
            0,
            CONNECTIONS_CEILING,
        )?;
        in_range(
            "connections_per_prefix",
            self.connections_per_prefix.unwrap_or(1),
            1,
            CONNECTIONS_CEILING,
        )?;
        for (name, bits, most) in [
            ("prefix_bits_ipv4", self.prefix_bits_ipv4, 32),
            ("prefix_bits_ipv6", self.prefix_bits_ipv6, 128),
        ] {
            in_range(name, usize::from(bits), 1, most)?;
        }
        in_range(
            "backlog",
            usize::try_from(self.backlog).unwrap_or(0),
            1,
            i32::MAX as usize,
        )?;
        in_range("read_budget_bytes", self.read_budget_bytes, 1, usize::MAX)?;
        in_range("accept_budget", self.accept_budget, 1, usize::MAX)?;
        in_range("datagram_budget", self.datagram_budget, 1, usize::MAX)?;
        in_range(
            "read_buffer_bytes",
            self.read_buffer_bytes,
            1,
            READ_BUFFER_CEILING,
        )?;
        in_range(
            "thread_stack_bytes",
            self.thread_stack_bytes,
            16 * 1024,
            1 << 30,
        )?;
        for (name, bytes) in [
            ("send_buffer_bytes", self.send_buffer_bytes),
            ("receive_buffer_bytes", self.receive_buffer_bytes),
        ] {
            in_range(name, bytes.unwrap_or(1), 1, i32::MAX as usize / 2)?;
        }
        for (name, rate) in [
            ("datagrams_per_source", self.datagrams_per_source),
            ("datagrams_total", self.datagrams_total),
        ] {
            in_range(
                name,
                rate.map_or(1, |rate| rate as usize),
                1,
                u32::MAX as usize,
            )?;
        }
        for (name, time) in [
            ("idle_timeout", self.idle_timeout),
            ("write_stall_timeout", self.write_stall_timeout),
            ("drain_idle_timeout", Some(self.drain_idle_timeout)),
            ("fin_timeout", Some(self.fin_timeout)),
            ("drain_timeout", Some(self.drain_timeout)),
            ("accept_retry", Some(self.accept_retry)),
        ] {
            time_in_range(name, time, TIMEOUT_CEILING)?;
        }
        time_in_range("user_timeout", self.user_timeout, USER_TIMEOUT_CEILING)?;
        if self
            .keepalive
            .is_some_and(|idle| idle < Duration::from_secs(1) || idle.as_secs() > 32_767)
        {
            return Err(LimitError::new(
                "keepalive",
                format!("{:?}", self.keepalive.unwrap_or_default()),
                "1s to 32767s (tcp(7))",
            ));
        }
        Ok(())
    }

    /// Lowers `connections_max` to what a process with `descriptors` file descriptors can hold, the reserve kept.
    /// Returns whether it had to.
    pub fn fit_descriptors(&mut self, descriptors: u64) -> bool {
        let room = usize::try_from(descriptors)
            .unwrap_or(usize::MAX)
            .saturating_sub(self.descriptors_reserved)
            .max(1);
        let lowered = room < self.connections_max;
        self.connections_max = self.connections_max.min(room);
        lowered
    }

    /// The same with as many descriptors as this process may still open: its soft limit, less those that are open now.
    /// Where that cannot be known (there is no `/proc`) 256 are assumed.
    pub fn fit_process(&mut self) -> bool {
        self.fit_descriptors(own::descriptors_left().unwrap_or(DESCRIPTORS_LEFT_ASSUMED))
    }
}

/// A limit whose value is out of range.
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

    /// The name of the limit: that of the field of [`Limits`].
    #[must_use]
    pub fn limit(&self) -> &'static str {
        self.name
    }

    /// The value that was asked for, with its unit.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The values that it can have, in words: `1 to 4000000`, `1ms to 36500 days`.
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

/// A timeout that is off is in range.
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
    fn every_time_ends_where_its_keeper_does() {
        let longest = |time: Duration| Limits {
            idle_timeout: Some(time),
            write_stall_timeout: Some(time),
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
    fn descriptors_lower_the_connections_and_keep_the_reserve() {
        let mut limits = Limits::default();
        assert!(limits.fit_descriptors(20_000));
        assert_eq!(limits.connections_max, 20_000 - 32);
        assert!(!limits.fit_descriptors(u64::MAX));
        assert!(limits.fit_descriptors(3));
        assert_eq!(
            limits.connections_max, 1,
            "a server that can hold nobody would be no server"
        );
    }
}
