//! The flags of `serve` by the headings of its help, and the values that only they have.
//!
//! Every default is that of [`Limits::default`], printed in human units.

use super::admin::AdminUrl;
use super::proxies::{ProxyPeers, ProxyPolicy};
use super::tracing::TraceTarget;
use super::watching::WatchName;
use crate::cli::units::{Auto, Bytes, Count, Most, Off, Or, Time, UnitError, Word, grouped};
use crate::cli::variables::TRUE;
use crate::limits::{Limits, OverloadPolicy};
use crate::net::IpNet;
use crate::procfs::tree::Tree;
use clap::{Args, ValueEnum};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

#[derive(Args, Debug)]
#[command(next_help_heading = "Output")]
pub(super) struct Output {
    /// Write the counters to this file at the end, as JSON; '-' is standard output
    #[arg(long, value_name = "FILE")]
    pub(super) stats_json: Option<PathBuf>,

    /// Record what the loop does: to this file at the end and on SIGUSR1, the last 8MiB or SIZE; '-' prints each turn
    #[arg(long, value_name = "FILE[,SIZE]")]
    pub(super) trace: Option<TraceTarget>,

    /// Write the process id of the server, or of its master, to this file
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,

    /// Answer /livez, /readyz and /metrics (Prometheus) here, by HTTP: http://127.0.0.1:9090, or unix:///path
    #[arg(long, value_name = "URL")]
    pub(super) admin: Option<AdminUrl>,

    /// Tell 'echo-reactor watch' what the loop does, at @echo-reactor.PID, or at this path or @name
    #[arg(long, value_name = "SOCKET", num_args = 0..=1, require_equals = true, default_missing_value = "auto")]
    pub(super) watch: Option<WatchName>,

    /// Log more: -v every connection and what it sends, -vv everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,

    /// Log errors only
    #[arg(short, long)]
    pub(super) quiet: bool,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Access")]
pub(super) struct Admission {
    /// Serve UDP to other machines too, and do not warn about TCP that they can reach
    #[arg(long)]
    pub(super) allow_public_udp: bool,

    /// Serve these networks only (10.0.0.0/8,2001:db8::/32), over TCP and UDP; may be repeated
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub(super) allow: Vec<IpNet>,

    /// Refuse these networks, even those that --allow includes; may be repeated
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub(super) deny: Vec<IpNet>,

    /// Read the PROXY header of each connection from --proxy-from: it declares the client
    #[arg(long, value_name = "POLICY", value_enum)]
    pub(super) proxy_protocol: Option<ProxyPolicy>,

    /// Load balancers that declare clients: networks (10.0.0.0/24), or 'unix' for peers of Unix sockets; may be repeated
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub(super) proxy_from: Vec<ProxyPeers>,

    /// Connections that one address prefix may hold at once, or 'off'; further ones are reset
    #[arg(long, value_name = "COUNT",
        default_value_t = per_prefix(Limits::default().connections_per_prefix),
        default_value_ifs = hardened("100"))]
    pub(super) max_per_prefix: Or<Count, Off>,

    /// Length of an IPv4 prefix in bits
    #[arg(long, value_name = "BITS", default_value_t = Limits::default().prefix_bits_ipv4)]
    pub(super) prefix_ipv4: u8,

    /// Length of an IPv6 prefix in bits
    #[arg(long, value_name = "BITS", default_value_t = Limits::default().prefix_bits_ipv6)]
    pub(super) prefix_ipv6: u8,
}

/// The default of a flag beside `--hardened`. clap compares texts, and that of a variable is any of these words.
fn hardened(value: &'static str) -> [(&'static str, &'static str, &'static str); TRUE.len()] {
    TRUE.map(|word| ("hardened", word, value))
}

fn per_prefix(limit: Option<usize>) -> Or<Count, Off> {
    Or::some(limit.map(|most| Count(most as u64)))
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Capacity")]
pub(super) struct Capacity {
    #[arg(long, value_name = "COUNT", help = format!(
        "Connections open at once; see --overload [default: {}, or what the descriptors allow]",
        Count(Limits::default().connections_max as u64)
    ))]
    pub(super) max_connections: Option<Count>,

    /// What happens to new connections when --max-connections are open
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Full::Wait)]
    pub(super) overload: Full,

    /// Allocate for this many connections at the start: slots, and the kernel's table of descriptors
    #[arg(long, value_name = "COUNT", default_value_t = Count(Limits::default().preallocate_connections as u64))]
    pub(super) preallocate: Count,

    /// Refuse to start if there are too few descriptors for --max-connections
    #[arg(long)]
    pub(super) strict: bool,

    /// Descriptors kept free for everything but connections
    #[arg(long, value_name = "COUNT",
        default_value_t = Count(Limits::default().descriptors_reserved as u64))]
    pub(super) reserve_descriptors: Count,

    /// Length of the accept queue of each listener (listen(2)), or 'max'
    #[arg(long, value_name = "COUNT", default_value_t = Or::some(None), value_parser = at_most::<Most>(i32::MAX as u64))]
    pub(super) backlog: Or<Count, Most>,

    /// Stack size of each thread of --model threads
    #[arg(long, value_name = "BYTES",
        default_value_t = Bytes(Limits::default().thread_stack_bytes))]
    pub(super) thread_stack: Bytes,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Fairness")]
pub(super) struct Turns {
    /// Bytes that one connection may read per turn of the loop
    #[arg(long, value_name = "BYTES", default_value_t = Bytes(Limits::default().read_budget_bytes))]
    pub(super) read_budget: Bytes,

    /// Connections that one listener may accept per turn
    #[arg(long, value_name = "COUNT",
        default_value_t = Count(Limits::default().accept_budget as u64))]
    pub(super) accept_budget: Count,

    /// Datagrams that one socket may answer per turn
    #[arg(long, value_name = "COUNT",
        default_value_t = Count(Limits::default().datagram_budget as u64))]
    pub(super) datagram_budget: Count,

    /// Poll for up to this time before each sleep, 'auto', or 'off'
    #[arg(long, value_name = "TIME", default_value_t = Or::Word(Off))]
    pub(super) spin: Spin,

    /// Length of a read, and the most bytes that a connection can have unsent
    #[arg(long, value_name = "BYTES", default_value_t = Bytes(Limits::default().read_buffer_bytes),
        default_value_ifs = hardened("16KiB"))]
    pub(super) read_buffer: Bytes,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Deadlines")]
pub(super) struct Deadlines {
    /// Close a connection that has been idle for this time, or 'off'
    #[arg(long, value_name = "TIME",
        default_value_t = Or::some(Limits::default().idle_timeout.map(Time)),
        default_value_ifs = hardened("30s"))]
    pub(super) idle_timeout: Or<Time, Off>,

    /// Reset a connection that has taken none of its unsent bytes for this time, or 'off'
    #[arg(long, value_name = "TIME",
        default_value_t = Or::some(Limits::default().write_stall_timeout.map(Time)),
        default_value_ifs = hardened("10s"))]
    pub(super) write_stall_timeout: Or<Time, Off>,

    /// Time in which a PROXY header has to be whole; with --proxy-protocol
    #[arg(long, value_name = "TIME", default_value_t = Time(Limits::default().proxy_header_timeout))]
    pub(super) proxy_header_timeout: Time,

    /// Time that the peer has for its FIN after the FIN of the server
    #[arg(long, value_name = "TIME", default_value_t = Time(Limits::default().fin_timeout))]
    pub(super) fin_timeout: Time,

    /// After the signal to stop, serve on for this time, while managers and health checks learn that this server is not ready
    #[arg(long, value_name = "TIME", default_value_t = Time(Duration::ZERO))]
    pub(super) drain_delay: Time,

    /// Abort connections that are still open this time after draining has begun
    #[arg(long, value_name = "TIME", default_value_t = Time(Limits::default().drain_timeout))]
    pub(super) drain_timeout: Time,

    /// While draining, close a connection that has been idle for this time
    #[arg(long, value_name = "TIME", default_value_t = Time(Limits::default().drain_idle_timeout))]
    pub(super) drain_idle_timeout: Time,

    /// Time that the workers of a new program have to be ready after SIGUSR2; with --workers
    #[arg(long, value_name = "TIME", default_value_t = Time(Duration::from_secs(10)))]
    pub(super) replace_timeout: Time,

    /// After SIGUSR2, drain the connections that stay with old workers for longer than this, or 'off'; with --workers
    #[arg(long, value_name = "TIME", default_value_t = Or::some(None))]
    pub(super) retire_timeout: Or<Time, Off>,

    /// Pause of accepting after it failed for lack of descriptors or memory
    #[arg(long, value_name = "TIME", default_value_t = Time(Limits::default().accept_retry))]
    pub(super) accept_retry: Time,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Kernel")]
pub(super) struct Kernel {
    /// The kernel's send buffer of each connection (SO_SNDBUF), or 'auto'
    #[arg(long, value_name = "BYTES",
        default_value_t = Or::some(Limits::default().send_buffer_bytes.map(Bytes)),
        default_value_ifs = hardened("16KiB"))]
    pub(super) send_buffer: Or<Bytes, Auto>,

    /// The kernel's receive buffer of each connection (SO_RCVBUF), or 'auto'
    #[arg(long, value_name = "BYTES",
        default_value_t = Or::some(Limits::default().receive_buffer_bytes.map(Bytes)),
        default_value_ifs = hardened("8KiB"))]
    pub(super) receive_buffer: Or<Bytes, Auto>,

    /// Idle time after which TCP probes the peer (SO_KEEPALIVE), or 'off'
    #[arg(long, value_name = "TIME",
        default_value_t = Or::some(Limits::default().keepalive.map(Time)),
        default_value_ifs = hardened("10s"))]
    pub(super) keepalive: Or<Time, Off>,

    /// Time without acknowledgement after which TCP drops the peer (TCP_USER_TIMEOUT), or 'off'
    #[arg(long, value_name = "TIME",
        default_value_t = Or::some(Limits::default().user_timeout.map(Time)),
        default_value_ifs = hardened("15s"))]
    pub(super) user_timeout: Or<Time, Off>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "UDP")]
pub(super) struct Datagrams {
    /// Datagrams answered per second and source address, or 'off' (an echo loop then never ends)
    #[arg(long, value_name = "COUNT", value_parser = at_most::<Off>(u64::from(u32::MAX)),
        default_value_t = rate(Limits::default().datagrams_per_source),
        default_value_ifs = hardened("100"))]
    pub(super) udp_rate_per_source: Or<Count, Off>,

    /// Datagrams answered per second in all, or 'off'
    #[arg(long, value_name = "COUNT", value_parser = at_most::<Off>(u64::from(u32::MAX)),
        default_value_t = rate(Limits::default().datagrams_total),
        default_value_ifs = hardened("10k"))]
    pub(super) udp_rate: Or<Count, Off>,
}

/// Most workers: more than any machine has processors that a server would use.
const WORKERS_MAX: u64 = 256;

/// Parses a number of workers.
pub(super) fn workers(text: &str) -> Result<Or<Count, Auto>, String> {
    match at_most(WORKERS_MAX)(text)? {
        Or::Value(Count(0)) => Err("a server needs at least one; write 1, or 'auto'".to_owned()),
        workers => Ok(workers),
    }
}

/// Parses a count that has an upper bound, since a narrower integer holds it.
fn at_most<W: Word>(most: u64) -> impl Fn(&str) -> Result<Or<Count, W>, String> + Clone {
    move |text| {
        let count: Or<Count, W> = text.parse().map_err(|error: UnitError| error.to_string())?;
        match count {
            Or::Value(Count(count)) if count > most => Err(format!(
                "it is more than {}; write a smaller number, or '{}'",
                grouped(most),
                W::WORD
            )),
            count => Ok(count),
        }
    }
}

/// Longest time for which a wait polls before it sleeps.
pub(super) type Spin = Or<Or<Time, Auto>, Off>;

/// The time of `--spin auto`: what the documentation of `net.core.busy_poll` recommends for the same purpose.
const SPIN_AUTO: Duration = Duration::from_micros(50);

pub(super) fn spin_max(spin: Spin) -> Duration {
    match spin {
        Or::Word(Off) => Duration::ZERO,
        Or::Value(Or::Value(Time(time))) => time,
        // Polling would use the quota up, and the process would stand still for the rest of the period.
        Or::Value(Or::Word(Auto)) if Tree(Path::new("/")).has_cpu_quota() => Duration::ZERO,
        Or::Value(Or::Word(Auto)) => SPIN_AUTO,
    }
}

fn rate(limit: Option<u32>) -> Or<Count, Off> {
    Or::some(limit.map(|rate| Count(u64::from(rate))))
}

/// What happens to new connections while `--max-connections` are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Full {
    /// They wait in the accept queue until one closes
    Wait,
    /// They are reset at once
    Reject,
}

impl From<Full> for OverloadPolicy {
    fn from(full: Full) -> Self {
        match full {
            Full::Wait => Self::Wait,
            Full::Reject => Self::Reject,
        }
    }
}

/// The model of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Model {
    /// One thread, one event loop, all connections
    Reactor,
    /// A thread for each connection
    Threads,
    /// One connection after the other
    Iterative,
}

impl Model {
    /// Its name on the command line and in JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Reactor => "reactor",
            Self::Threads => "threads",
            Self::Iterative => "iterative",
        }
    }
}

/// Permission bits, in octal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Mode(pub(super) u32);

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("0o").unwrap_or(text);
        // `from_str_radix` alone would take "+600".
        let octal =
            !digits.is_empty() && digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
        match u32::from_str_radix(digits, 8) {
            Ok(mode) if octal && mode <= 0o777 => Ok(Self(mode)),
            _ => Err("it is not between 0000 and 0777 in octal; write for example 0600".to_owned()),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal() {
        assert_eq!("0600".parse(), Ok(Mode(0o600)));
        assert_eq!("660".parse(), Ok(Mode(0o660)));
        assert_eq!("0o777".parse(), Ok(Mode(0o777)));
        assert_eq!(Mode(0o600).to_string(), "0600");
        for wrong in ["", "8", "1000", "rw", "+600", "-1", "0o"] {
            assert!(wrong.parse::<Mode>().is_err(), "{wrong}");
        }
    }
}
