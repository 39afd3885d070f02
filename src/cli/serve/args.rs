//! What can be typed after `serve`, and what it means.
//!
//! Every field of [`Limits`] has a flag here whose default is [`Limits::default`]'s, printed in human units; the
//! function [`ServeArgs::limits`] names every field, so that a new limit without a flag does not compile. What may live in
//! this file: flags, their help, and their translation. What may not: acting on them.

use super::sandbox::Sandbox;
use crate::cli::DEFAULT_ADDRESS;
use crate::cli::logging::Verbosity;
use crate::cli::units::{Auto, Bytes, Count, Most, Off, Or, Time};
use crate::echo::{AccessList, Config};
use crate::limits::{Limits, OverloadPolicy};
use crate::net::{Address, IpNet};
use clap::{Args, ValueEnum};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  echo-reactor serve                                  tcp://127.0.0.1:50007, for this machine alone
  echo-reactor serve :7777                            TCP on all interfaces, IPv4 and IPv6
  echo-reactor serve udp://127.0.0.1:7777 -v          UDP, and a line for everything that comes
  echo-reactor serve unix:///run/echo.sock --unix-mode 0660
  echo-reactor serve localhost:0 | head -n 2          any free port; the lines say which
  echo-reactor serve --idle-timeout 1m30s --max-connections 10k --stats-json stats.json

Addresses: tcp://host:port  udp://host:port  unix:///path  unix://@name  unixgram:///path  host:port  :port
Bytes: 64KiB or 64k is 65,536, 64kB is 64,000. Times: 250ms, 5s, 1m30s. Counts: 500, 10k, 1M, 100,000.
Signals: SIGTERM and SIGINT drain, a second one stops at once, also where they were inherited blocked or ignored; SIGHUP is
ignored; SIGUSR1 prints the counters; SIGUSR2 hands all listeners over to a new process of this program as it lies on disk
now, without a client noticing.
Environment: LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES pass listening sockets (systemd), beside ADDRESS or in its place;
NOTIFY_SOCKET is told READY, RELOADING and STOPPING, again until the manager takes it.
";

/// Send back whatever comes, until told to stop
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct ServeArgs {
    #[arg(value_name = "ADDRESS", help = format!(
        "Where to listen; port 0 picks a free one; a name is resolved in 10s or is an error \
         [default: {DEFAULT_ADDRESS}, or the sockets of LISTEN_FDS]"
    ))]
    addresses: Vec<Address>,

    /// What serves: the event loop, or one of its blocking models
    #[arg(long, value_name = "MODEL", value_enum, default_value_t = Model::Reactor)]
    pub(super) model: Model,

    /// Keep IPv4 clients out of IPv6 addresses
    #[arg(long)]
    pub(super) ipv6_only: bool,

    /// Permission bits of Unix socket files, in octal
    #[arg(long, value_name = "MODE", default_value_t = Mode(Config::default().unix_mode))]
    pub(super) unix_mode: Mode,

    /// Keep tight bounds, for a server that strangers can reach; what else is typed goes before
    ///
    /// --max-connections 10k --max-per-prefix 100 --read-buffer 16KiB --idle-timeout 30s
    /// --write-stall-timeout 10s --send-buffer 16KiB --receive-buffer 8KiB
    /// --keepalive 10s --user-timeout 15s --udp-rate-per-source 100 --udp-rate 10k
    #[arg(long, verbatim_doc_comment)]
    pub(super) hardened: bool,

    /// End with the parent, which has this number: for servers that are started for a measurement
    #[arg(long, value_name = "PID", hide = true)]
    pub(super) end_with: Option<u32>,

    /// Give up, before the first client, all that serving does not need: files, programs, other sockets (seccomp, Landlock)
    #[arg(long, value_name = "HOW", value_enum, default_value_t, num_args = 0..=1, require_equals = true,
        default_missing_value = "try")]
    pub(super) sandbox: Sandbox,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    admission: Admission,

    #[command(flatten)]
    capacity: Capacity,

    #[command(flatten)]
    turns: Turns,

    #[command(flatten)]
    deadlines: Deadlines,

    #[command(flatten)]
    kernel: Kernel,

    #[command(flatten)]
    datagrams: Datagrams,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Output")]
struct Output {
    /// Write the counters to this file at the end, as JSON ('-' is standard output), in place of an older one
    #[arg(long, value_name = "FILE")]
    stats_json: Option<PathBuf>,

    /// Keep the number of the serving process in this file
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,

    /// Say more: -v every connection and what it sends, -vv everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,

    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Who may come")]
struct Admission {
    /// Serve UDP to other machines too, and say nothing of TCP that they can reach
    #[arg(long)]
    allow_public_udp: bool,

    /// Let in only these networks (10.0.0.0/8,2001:db8::/32), over TCP and UDP; may be repeated
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    allow: Vec<IpNet>,

    /// Keep these networks out, even where --allow has them
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    deny: Vec<IpNet>,

    /// Connections that one prefix may hold at once, or 'off'; who comes on top is reset
    #[arg(long, value_name = "COUNT",
        default_value_t = per_prefix(Limits::default().connections_per_prefix),
        default_value_if("hardened", "true", "100"))]
    max_per_prefix: Or<Count, Off>,

    /// Bits of an IPv4 address that make a prefix
    #[arg(long, value_name = "BITS", default_value_t = Limits::default().prefix_bits_ipv4)]
    prefix_ipv4: u8,

    /// Bits of an IPv6 address that make a prefix
    #[arg(long, value_name = "BITS", default_value_t = Limits::default().prefix_bits_ipv6)]
    prefix_ipv6: u8,
}

fn per_prefix(limit: Option<usize>) -> Or<Count, Off> {
    Or::some(limit.map(|most| Count(most as u64)))
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Capacity")]
struct Capacity {
    #[arg(long, value_name = "COUNT", help = format!(
        "Connections held at once; see --overload [default: {}, or what the descriptors allow]",
        Count(Limits::default().connections_max as u64)
    ))]
    max_connections: Option<Count>,

    /// What becomes of new connections when so many are open
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Full::Wait)]
    overload: Full,

    /// Make room for so many connections at the start: our slots, and the kernel's table of descriptors
    #[arg(long, value_name = "COUNT", default_value_t = Count(Limits::default().preallocate_connections as u64))]
    preallocate: Count,

    /// Refuse to start if the descriptors do not suffice for --max-connections
    #[arg(long)]
    strict: bool,

    /// Descriptors kept free for everything that is no connection
    #[arg(long, value_name = "COUNT",
        default_value_t = Count(Limits::default().descriptors_reserved as u64))]
    reserve_descriptors: Count,

    /// Handshakes that the kernel may finish ahead of us
    #[arg(long, value_name = "COUNT", default_value_t = Or::some(None))]
    backlog: Or<Count, Most>,

    /// Stack of each thread of --model threads
    #[arg(long, value_name = "BYTES",
        default_value_t = Bytes(Limits::default().thread_stack_bytes))]
    thread_stack: Bytes,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Fairness")]
struct Turns {
    /// Bytes that one connection may read in a turn of the loop
    #[arg(long, value_name = "BYTES", default_value_t = Bytes(Limits::default().read_budget_bytes))]
    read_budget: Bytes,

    /// Connections that one listener may accept in a turn
    #[arg(long, value_name = "COUNT",
        default_value_t = Count(Limits::default().accept_budget as u64))]
    accept_budget: Count,

    /// Datagrams that one socket may answer in a turn
    #[arg(long, value_name = "COUNT",
        default_value_t = Count(Limits::default().datagram_budget as u64))]
    datagram_budget: Count,

    /// Size of the one buffer that everything is read into, and the most that a connection can be unsent
    #[arg(long, value_name = "BYTES", default_value_t = Bytes(Limits::default().read_buffer_bytes),
        default_value_if("hardened", "true", "16KiB"))]
    read_buffer: Bytes,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Deadlines")]
struct Deadlines {
    /// Close a connection that says nothing for so long, or 'off'
    #[arg(long, value_name = "TIME",
        default_value_t = Or::some(Limits::default().idle_timeout.map(Time)),
        default_value_if("hardened", "true", "30s"))]
    idle_timeout: Or<Time, Off>,

    /// Reset a connection that takes nothing of what it is unsent for so long, or 'off'
    #[arg(long, value_name = "TIME",
        default_value_t = Or::some(Limits::default().write_stall_timeout.map(Time)),
        default_value_if("hardened", "true", "10s"))]
    write_stall_timeout: Or<Time, Off>,

    /// Wait so long for the peer's own end after we have said ours
    #[arg(long, value_name = "TIME", default_value_t = Time(Limits::default().fin_timeout))]
    fin_timeout: Time,

    /// Cut what is not finished so long after the signal to stop
    #[arg(long, value_name = "TIME", default_value_t = Time(Limits::default().drain_timeout))]
    drain_timeout: Time,

    /// While draining, end a connection that says nothing for so long
    #[arg(long, value_name = "TIME", default_value_t = Time(Limits::default().drain_idle_timeout))]
    drain_idle_timeout: Time,

    /// Give a successor up that is not ready so long after SIGUSR2
    #[arg(long, value_name = "TIME", default_value_t = Time(Duration::from_secs(10)))]
    handover_timeout: Time,

    /// After a hand-over, drain whoever is still here after so long, or 'off'
    #[arg(long, value_name = "TIME", default_value_t = Or::some(None))]
    handover_drain_timeout: Or<Time, Off>,

    /// Pause so long after accepting failed for want of descriptors or memory
    #[arg(long, value_name = "TIME", default_value_t = Time(Limits::default().accept_retry))]
    accept_retry: Time,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Kernel")]
struct Kernel {
    /// The kernel's send buffer of each connection, or 'auto'
    #[arg(long, value_name = "BYTES",
        default_value_t = Or::some(Limits::default().send_buffer_bytes.map(Bytes)),
        default_value_if("hardened", "true", "16KiB"))]
    send_buffer: Or<Bytes, Auto>,

    /// The kernel's receive buffer of each connection, or 'auto'
    #[arg(long, value_name = "BYTES",
        default_value_t = Or::some(Limits::default().receive_buffer_bytes.map(Bytes)),
        default_value_if("hardened", "true", "8KiB"))]
    receive_buffer: Or<Bytes, Auto>,

    /// Let TCP probe a peer that is silent for so long, or 'off'
    #[arg(long, value_name = "TIME",
        default_value_t = Or::some(Limits::default().keepalive.map(Time)),
        default_value_if("hardened", "true", "10s"))]
    keepalive: Or<Time, Off>,

    /// Let TCP give a peer up that acknowledges nothing for so long, or 'off'
    #[arg(long, value_name = "TIME",
        default_value_t = Or::some(Limits::default().user_timeout.map(Time)),
        default_value_if("hardened", "true", "15s"))]
    user_timeout: Or<Time, Off>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "UDP")]
struct Datagrams {
    /// Datagrams a second that one source may have answered, or 'off' for no limit (and no end of loops)
    #[arg(long, value_name = "COUNT",
        default_value_t = rate(Limits::default().datagrams_per_source),
        default_value_if("hardened", "true", "100"))]
    udp_rate_per_source: Or<Count, Off>,

    /// Datagrams a second answered in all, or 'off' for no limit
    #[arg(long, value_name = "COUNT", default_value_t = rate(Limits::default().datagrams_total),
        default_value_if("hardened", "true", "10k"))]
    udp_rate: Or<Count, Off>,
}

fn rate(limit: Option<u32>) -> Or<Count, Off> {
    Or::some(limit.map(|rate| Count(u64::from(rate))))
}

impl ServeArgs {
    pub(super) fn verbosity(&self) -> Verbosity {
        Verbosity::from_flags(self.output.quiet, self.output.verbose)
    }

    pub(super) fn stats_json(&self) -> Option<&PathBuf> {
        self.output.stats_json.as_ref()
    }

    /// Where to listen. Nothing typed means the usual address, unless there is something to listen at already.
    pub(super) fn addresses(&self, inherited: bool) -> Vec<Address> {
        match self.addresses.is_empty() && !inherited {
            true => DEFAULT_ADDRESS.parse().into_iter().collect(),
            false => self.addresses.clone(),
        }
    }

    pub(super) fn pid_file(&self) -> Option<&Path> {
        self.output.pid_file.as_deref()
    }

    pub(super) fn handover_timeout(&self) -> Duration {
        self.deadlines.handover_timeout.0
    }

    pub(super) fn handover_drain_timeout(&self) -> Option<Duration> {
        self.deadlines
            .handover_drain_timeout
            .value()
            .map(|time| time.0)
    }

    pub(super) fn strict(&self) -> bool {
        self.capacity.strict
    }

    /// Whether `--max-connections` was typed: a limit of the user's own making may not be lowered without a word.
    pub(super) fn asked_for_connections(&self) -> bool {
        self.capacity.max_connections.is_some()
    }

    /// The limits as they were typed. Numbers that no counter can hold become the greatest that it can, which
    /// [`Limits::check`] then judges.
    pub(super) fn limits(&self) -> Limits {
        let size = |count: Count| usize::try_from(count.0).unwrap_or(usize::MAX);
        let rate = |rate: Or<Count, Off>| {
            rate.value()
                .map(|rate| u32::try_from(rate.0).unwrap_or(u32::MAX))
        };
        let time = |time: Or<Time, Off>| -> Option<Duration> { time.value().map(|time| time.0) };
        let bytes = |bytes: Or<Bytes, Auto>| bytes.value().map(|bytes| bytes.0);
        let profile = self.profile();
        Limits {
            connections_max: self
                .capacity
                .max_connections
                .map_or(profile.connections_max, size),
            overload: self.capacity.overload.into(),
            connections_per_prefix: self.admission.max_per_prefix.value().map(size),
            prefix_bits_ipv4: self.admission.prefix_ipv4,
            prefix_bits_ipv6: self.admission.prefix_ipv6,
            preallocate_connections: size(self.capacity.preallocate),
            descriptors_reserved: size(self.capacity.reserve_descriptors),
            backlog: self
                .capacity
                .backlog
                .value()
                .map_or(i32::MAX, |count| i32::try_from(count.0).unwrap_or(i32::MAX)),
            read_budget_bytes: self.turns.read_budget.0,
            accept_budget: size(self.turns.accept_budget),
            datagram_budget: size(self.turns.datagram_budget),
            read_buffer_bytes: self.turns.read_buffer.0,
            idle_timeout: time(self.deadlines.idle_timeout),
            write_stall_timeout: time(self.deadlines.write_stall_timeout),
            fin_timeout: self.deadlines.fin_timeout.0,
            drain_timeout: self.deadlines.drain_timeout.0,
            drain_idle_timeout: self.deadlines.drain_idle_timeout.0,
            accept_retry: self.deadlines.accept_retry.0,
            send_buffer_bytes: bytes(self.kernel.send_buffer),
            receive_buffer_bytes: bytes(self.kernel.receive_buffer),
            keepalive: time(self.kernel.keepalive),
            user_timeout: time(self.kernel.user_timeout),
            datagrams_per_source: rate(self.datagrams.udp_rate_per_source),
            datagrams_total: rate(self.datagrams.udp_rate),
            thread_stack_bytes: self.capacity.thread_stack.0,
        }
    }

    pub(super) fn config(&self, limits: Limits) -> Config {
        Config {
            limits,
            ipv6_only: self.ipv6_only,
            unix_mode: self.unix_mode.0,
            access: self.access(),
            fit_descriptors: false, // they have been fitted to the limit that was raised
        }
    }

    pub(super) fn access(&self) -> AccessList {
        AccessList {
            allow: self.admission.allow.clone(),
            deny: self.admission.deny.clone(),
        }
    }

    /// Whether other machines are meant to reach this server.
    pub(super) fn is_exposed(&self) -> bool {
        self.admission.allow_public_udp
    }

    /// Where the flags that were not typed come from. Those that have a default in their help know the two values
    /// themselves, and a test holds them to it.
    fn profile(&self) -> Limits {
        if self.hardened {
            Limits::hardened()
        } else {
            Limits::default()
        }
    }
}

/// What becomes of new connections while as many connections are open as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Full {
    /// They wait in the kernel's queue until one closes
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

/// What serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Model {
    /// One thread, one event loop, all connections
    Reactor,
    /// A thread for each connection
    Threads,
    /// One connection after the other, as in the tutorial
    Iterative,
}

impl Model {
    /// Its name, as it is typed and as machines read it.
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
            _ => {
                Err("permission bits are 0000 to 0777 in octal; write for example 0600".to_owned())
            }
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
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: ServeArgs,
    }

    fn args(arguments: &[&str]) -> ServeArgs {
        let line = [&["serve"], arguments].concat();
        Line::try_parse_from(line).unwrap().args
    }

    #[test]
    fn nothing_typed_means_the_defaults() {
        let args = args(&[]);
        assert_eq!(args.limits(), Limits::default());
        let config = args.config(args.limits());
        assert_eq!(
            (config.ipv6_only, config.unix_mode),
            (false, Config::default().unix_mode)
        );
        assert_eq!(args.addresses(false)[0].to_string(), DEFAULT_ADDRESS);
        assert!(args.addresses(true).is_empty());
        assert_eq!(args.handover_drain_timeout(), None);
        assert_eq!(args.model, Model::Reactor);
        assert!(!args.asked_for_connections() && !args.strict());
    }

    #[test]
    fn every_limit_has_a_flag() {
        let line = "--max-connections 10k --preallocate 9k --reserve-descriptors 7 --backlog 128 --read-budget 1k --accept-budget 2 \
            --datagram-budget 3 --read-buffer 4KiB --idle-timeout 1m30s --write-stall-timeout off --fin-timeout 5ms \
            --drain-timeout 1s --drain-idle-timeout 9ms --accept-retry 7ms --send-buffer 8k --receive-buffer 9k \
            --keepalive 1h --udp-rate-per-source off --udp-rate 5k --thread-stack 128k --overload reject \
            --max-per-prefix 9 --prefix-ipv4 24 --prefix-ipv6 56 --user-timeout 20s";
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let expected = Limits {
            connections_max: 10_000,
            overload: OverloadPolicy::Reject,
            connections_per_prefix: Some(9),
            prefix_bits_ipv4: 24,
            prefix_bits_ipv6: 56,
            preallocate_connections: 9_000,
            descriptors_reserved: 7,
            backlog: 128,
            read_budget_bytes: 1024,
            accept_budget: 2,
            datagram_budget: 3,
            read_buffer_bytes: 4096,
            idle_timeout: Some(Duration::from_secs(90)),
            write_stall_timeout: None,
            fin_timeout: Duration::from_millis(5),
            drain_timeout: Duration::from_secs(1),
            drain_idle_timeout: Duration::from_millis(9),
            accept_retry: Duration::from_millis(7),
            send_buffer_bytes: Some(8 << 10),
            receive_buffer_bytes: Some(9 << 10),
            keepalive: Some(Duration::from_secs(3600)),
            user_timeout: Some(Duration::from_secs(20)),
            datagrams_per_source: None,
            datagrams_total: Some(5_000),
            thread_stack_bytes: 128 << 10,
        };
        assert_eq!(args(&arguments).limits(), expected);
        let hardened = [&["--hardened"], &arguments[..]].concat();
        assert_eq!(
            args(&hardened).limits(),
            expected,
            "what is typed goes before the profile"
        );
    }

    #[test]
    fn the_profile_is_the_librarys_and_its_help_says_so() {
        assert_eq!(args(&["--hardened"]).limits(), Limits::hardened());
        let help = <Line as clap::CommandFactory>::command()
            .render_long_help()
            .to_string();
        let (_, profile) = help.split_once("--hardened").unwrap();
        let flags = profile
            .split_whitespace()
            .skip_while(|word| !word.starts_with("--"));
        let flags: Vec<&str> = flags.take(22).collect();
        assert_eq!(args(&flags).limits(), Limits::hardened(), "{flags:?}");
    }

    #[test]
    fn networks_are_lists() {
        let args = args(&[
            "--allow",
            "10.0.0.0/8,::1",
            "--allow",
            "192.0.2.1",
            "--deny",
            "10.1.0.0/16",
        ]);
        let texts = |list: &[IpNet]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            texts(&args.access().allow),
            ["10.0.0.0/8", "::1", "192.0.2.1"]
        );
        assert_eq!(texts(&args.access().deny), ["10.1.0.0/16"]);
    }

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
