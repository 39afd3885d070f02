//! The arguments of `serve`, and their translation into [`Limits`] and [`Config`].
//!
//! Every field of [`Limits`] has a flag in [`super::flags`]. [`ServeArgs::limits`] names every field, so a new limit
//! without a flag does not compile.

use super::faults::{Beside, FaultFlags};
use super::flags::{
    Admission, Capacity, Datagrams, Deadlines, Kernel, Mode, Model, Output, Turns, spin_max,
};
use super::identity::Reply;
use super::proxies::{self, ProxyPeers, ProxyPolicy};
use super::sandbox::Sandbox;
use super::tracing::TraceTarget;
use super::watching::WatchName;
use crate::cli::error::CliError;
use crate::cli::logging::Verbosity;
use crate::cli::names::DEFAULT_ADDRESS;
use crate::cli::units::{Auto, Bytes, Count, Off, Or, Time};
use crate::echo::{AccessList, Config, ProxyProtocol};
use crate::limits::Limits;
use crate::net::Address;
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  echo-reactor serve
      tcp://127.0.0.1:50007, for this machine alone
  echo-reactor serve :7777
      TCP on all interfaces, IPv4 and IPv6
  echo-reactor serve udp://127.0.0.1:7777 -v
      UDP, and a log line for every datagram
  echo-reactor serve unix:///run/echo.sock --unix-mode 0660
  echo-reactor serve localhost:0 | head -n 2
      any free port; the lines say which
  echo-reactor serve :7777 --workers auto
      a worker for each processor
  echo-reactor serve --idle-timeout 1m30s --max-connections 10k

Addresses: tcp://host:port  udp://host:port  unix:///path  unix://@name
           unixgram:///path  host:port  :port
Bytes: 64KiB or 64k is 65,536, 64kB is 64,000. Times: 250ms, 5s, 1m30s.
Counts: 500, 10k, 1M, 100,000.
Signals: SIGTERM and SIGINT drain, a second one stops at once, also where they
were inherited blocked or ignored; with --drain-delay they serve on first, and a
second one drains; SIGHUP is ignored; SIGUSR1 prints the counters; SIGUSR2, with
--workers, replaces the program by the one on disk.
With --workers N the limits are those of all workers together: N divides
--max-connections, --udp-rate and --preallocate; with --max-per-prefix or
--udp-rate-per-source all of a source goes to one worker.
Environment: LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES pass listening sockets
(systemd), beside ADDRESS or in its place; NOTIFY_SOCKET receives READY,
RELOADING and STOPPING, repeated until the manager takes them; every flag has a
variable, which --print-config names if it is set.
";

/// Serve echo: send received bytes back, until a signal stops it
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct ServeArgs {
    #[arg(value_name = "ADDRESS", help = format!(
        "Where to listen; port 0 picks a free one; a name is resolved in 10s or is an error \
         [default: {DEFAULT_ADDRESS}, or the sockets of LISTEN_FDS]"
    ))]
    addresses: Vec<Address>,

    /// The event loop, or one of the blocking models to compare it with
    #[arg(long, value_name = "MODEL", value_enum, default_value_t = Model::Reactor)]
    pub(super) model: Model,

    /// Serve by this many processes, or 'auto' for one a processor, under a master that holds the sockets
    #[arg(long, value_name = "COUNT", value_parser = super::flags::workers)]
    pub(super) workers: Option<Or<Count, Auto>>,

    /// Accept no IPv4 clients at IPv6 addresses (IPV6_V6ONLY)
    #[arg(long)]
    pub(super) ipv6_only: bool,

    /// Permission bits of Unix socket files, in octal
    #[arg(long, value_name = "MODE", default_value_t = Mode(Config::default().unix_mode))]
    pub(super) unix_mode: Mode,

    /// Set tight bounds, for a server on an open network; other flags override them
    ///
    /// --max-connections 10k --max-per-prefix 100 --read-buffer 16KiB --idle-timeout 30s
    /// --write-stall-timeout 10s --send-buffer 16KiB --receive-buffer 8KiB
    /// --keepalive 10s --user-timeout 15s --udp-rate-per-source 100 --udp-rate 10k
    #[arg(long, verbatim_doc_comment)]
    pub(super) hardened: bool,

    /// Print what each flag is set to and where that is from: flag, environment or default; and end
    #[arg(long)]
    print_config: bool,

    /// Stop when the parent process ends, which has this number (used by bench and compare)
    #[arg(long, value_name = "PID", hide = true)]
    pub(super) end_with: Option<u32>,

    /// Before the first client, give up access to files, programs and other sockets (seccomp, Landlock)
    #[arg(long, value_name = "HOW", value_enum, default_value_t, num_args = 0..=1, require_equals = true,
        default_missing_value = "try")]
    pub(super) sandbox: Sandbox,

    /// What clients get: their bytes, or to each line and datagram a JSON object that says which server has answered
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub(super) reply: Reply,

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

    #[command(flatten)]
    pub(super) faults: FaultFlags,
}

impl ServeArgs {
    pub(in crate::cli) fn is_print_config(&self) -> bool {
        self.print_config
    }

    pub(super) fn verbosity(&self) -> Verbosity {
        Verbosity::from_flags(self.output.quiet, self.output.verbose)
    }

    pub(super) fn stats_json(&self) -> Option<&PathBuf> {
        self.output.stats_json.as_ref()
    }

    pub(super) fn trace(&self) -> Option<&TraceTarget> {
        self.output.trace.as_ref()
    }

    /// The addresses to listen at: by default [`DEFAULT_ADDRESS`], unless listeners were inherited.
    pub(super) fn addresses(&self, inherited: bool) -> Vec<Address> {
        match self.addresses.is_empty() && !inherited {
            true => DEFAULT_ADDRESS.parse().into_iter().collect(),
            false => self.addresses.clone(),
        }
    }

    pub(super) fn pid_file(&self) -> Option<&Path> {
        self.output.pid_file.as_deref()
    }

    /// The number of workers, if there are workers.
    pub(super) fn worker_count(&self) -> Option<usize> {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        self.workers.map(|workers| match workers.value() {
            Some(count) => usize::try_from(count.0).unwrap_or(usize::MAX),
            None => processors(),
        })
    }

    /// Where health and metrics are asked for.
    pub(super) fn admin(&self) -> Option<&Address> {
        self.output.admin.as_ref().map(|url| &url.0)
    }

    /// Where the state of the server is asked for.
    pub(super) fn watch(&self) -> Option<&WatchName> {
        self.output.watch.as_ref()
    }

    /// How long the server serves on after the first signal to stop.
    pub(super) fn drain_delay(&self) -> Duration {
        self.deadlines.drain_delay.0
    }

    pub(super) fn replace_timeout(&self) -> Duration {
        self.deadlines.replace_timeout.0
    }

    pub(super) fn retire_timeout(&self) -> Option<Duration> {
        self.deadlines.retire_timeout.value().map(|time| time.0)
    }

    pub(super) fn strict(&self) -> bool {
        self.capacity.strict
    }

    /// Whether `--max-connections` was given. Then it may not be lowered without a warning.
    pub(super) fn asked_for_connections(&self) -> bool {
        self.capacity.max_connections.is_some()
    }

    /// The limits as they were typed. Their parser has refused what does not fit into 32 bits; a size beyond the address
    /// space becomes the largest size, which [`Limits::check`] refuses.
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
            spin_max: spin_max(self.turns.spin),
            read_buffer_bytes: self.turns.read_buffer.0,
            idle_timeout: time(self.deadlines.idle_timeout),
            write_stall_timeout: time(self.deadlines.write_stall_timeout),
            proxy_header_timeout: self.deadlines.proxy_header_timeout.0,
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
            proxy: self.proxy(),
            responder: self.reply.responder(),
            fit_descriptors: false, // done already, to the limit that was raised
        }
    }

    pub(super) fn access(&self) -> AccessList {
        AccessList {
            allow: self.admission.allow.clone(),
            deny: self.admission.deny.clone(),
        }
    }

    /// Refuses faults to order beside flags that they exclude.
    pub(super) fn check_faults(&self) -> Result<(), CliError> {
        self.faults.check(&Beside {
            is_hardened: self.hardened,
            is_blocking: self.model != Model::Reactor,
            has_workers: self.workers.is_some(),
            has_trace: self.trace().is_some(),
            is_sandboxed: self.sandbox != Sandbox::Off,
            idle_timeout: self.limits().idle_timeout,
        })
    }

    /// Refuses answers in place of echoes beside flags that they exclude.
    pub(super) fn check_reply(&self) -> Result<(), CliError> {
        self.reply
            .check(self.trace().is_some(), self.faults.first())
    }

    pub(super) fn proxy_policy(&self) -> Option<ProxyPolicy> {
        self.admission.proxy_protocol
    }

    pub(super) fn proxy_from(&self) -> &[ProxyPeers] {
        &self.admission.proxy_from
    }

    fn proxy(&self) -> Option<ProxyProtocol> {
        let policy = self.proxy_policy()?;
        Some(proxies::protocol(policy, self.proxy_from()))
    }

    /// Whether other machines are to reach this server, over UDP too.
    pub(super) fn is_exposed(&self) -> bool {
        self.admission.allow_public_udp
    }

    /// The limits behind flags that were not given and have no default in their help. The other flags state the defaults of
    /// both profiles themselves; a test compares them.
    fn profile(&self) -> Limits {
        if self.hardened {
            Limits::hardened()
        } else {
            Limits::default()
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cli::units::grouped;
    use crate::limits::OverloadPolicy;
    use crate::net::IpNet;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: ServeArgs,
    }

    /// What these words after `serve` mean.
    pub(in crate::cli::serve) fn args(arguments: &[&str]) -> ServeArgs {
        let line = [&["serve"], arguments].concat();
        Line::try_parse_from(line).unwrap().args
    }

    #[test]
    fn no_arguments_are_the_defaults() {
        let args = args(&[]);
        assert_eq!(args.limits(), Limits::default());
        let config = args.config(args.limits());
        assert_eq!(
            (config.ipv6_only, config.unix_mode),
            (false, Config::default().unix_mode)
        );
        assert_eq!(args.addresses(false)[0].to_string(), DEFAULT_ADDRESS);
        assert!(args.addresses(true).is_empty());
        assert_eq!((args.retire_timeout(), args.worker_count()), (None, None));
        assert_eq!(args.model, Model::Reactor);
        assert!(!args.asked_for_connections() && !args.strict());
    }

    #[test]
    fn every_limit_has_a_flag() {
        let line = "--max-connections 10k --preallocate 9k --reserve-descriptors 7 --backlog 128 --read-budget 1k --accept-budget 2 \
            --datagram-budget 3 --spin 70us --read-buffer 4KiB --idle-timeout 1m30s --write-stall-timeout off --fin-timeout 5ms \
            --drain-timeout 1s --drain-idle-timeout 9ms --accept-retry 7ms --send-buffer 8k --receive-buffer 9k \
            --keepalive 1h --udp-rate-per-source off --udp-rate 5k --thread-stack 128k --overload reject \
            --proxy-header-timeout 6s --max-per-prefix 9 --prefix-ipv4 24 --prefix-ipv6 56 --user-timeout 20s";
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
            spin_max: Duration::from_micros(70),
            read_buffer_bytes: 4096,
            idle_timeout: Some(Duration::from_secs(90)),
            write_stall_timeout: None,
            proxy_header_timeout: Duration::from_secs(6),
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
            "a flag overrides the profile"
        );
    }

    #[test]
    fn the_hardened_profile_is_that_of_the_library_and_its_help_lists_it() {
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
    fn a_count_beyond_its_integer_is_refused_with_the_bound() {
        for (flag, most) in [
            ("--udp-rate", 4_294_967_295),
            ("--udp-rate-per-source", 4_294_967_295),
            ("--backlog", 2_147_483_647_u64),
        ] {
            assert!(args(&[flag, &most.to_string()]).limits().check().is_ok());
            let beyond = (most + 1).to_string();
            let error = Line::try_parse_from(["serve", flag, &beyond]).unwrap_err();
            let text = error.to_string();
            for part in [flag, &beyond, &format!("more than {}", grouped(most))] {
                assert!(text.contains(part), "{text} does not say {part}");
            }
        }
    }

    #[test]
    fn workers_are_counted() {
        assert_eq!(args(&["--workers", "3"]).worker_count(), Some(3));
        let processors = args(&["--workers", "auto"]).worker_count();
        assert!(processors.is_some_and(|count| count > 0));
        for wrong in ["0", "257", "many", "-1"] {
            assert!(
                Line::try_parse_from(["serve", "--workers", wrong]).is_err(),
                "{wrong}"
            );
        }
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
}
