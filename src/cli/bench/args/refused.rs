//! Command lines of `bench` that are refused: values with which nothing is measured, and options that change nothing in the
//! chosen mode.

use super::{BenchArgs, Following, Share};
use crate::cli::error::CliError;
use crate::cli::units::{Count, Percent, Time};
use crate::net::Address;
use crate::procfs::check_process;
use std::io::ErrorKind;
use std::time::Duration;

/// Requests a second. Below this, the time between two of them is longer than any run.
const RATE_MIN: f64 = 0.001;

impl BenchArgs {
    /// Refuses what no server is needed to refuse: it is asked before one is started, and before names are resolved.
    pub(in crate::cli::bench) fn refuse_nonsense(&self) -> Result<(), CliError> {
        let (load, timing, connections) = (&self.load, &self.timing, self.connections.0);
        let zero = |time: Option<Time>| time.is_some_and(|time| time.0.is_zero());
        let refused = [
            (
                connections == 0,
                "--connections 0 loads nothing; write 1 or more",
            ),
            (connections > 4_000_000, "--connections has at most 4M"),
            (
                load.bad_clients.iter().any(|bad| bad.count.0 > 1_000_000),
                "--bad-clients has at most 1M of a kind",
            ),
            (
                self.size.0 == 0,
                "--size 0 asks for nothing; write 1 or more",
            ),
            (
                load.active.of(connections as usize) == 0,
                "--active 0 loads nothing; write 1 or more",
            ),
            (
                matches!(load.active, Share::Count(count) if count > connections),
                "--active is more than --connections; write a number up to that, or a share such as 50%",
            ),
            (
                load.pipeline.0 == 0,
                "--pipeline 0 sends nothing; write 1 or more",
            ),
            (
                self.rates().iter().any(|rate| *rate < RATE_MIN),
                "--rate has at least 0.001, which is one request in 1,000 s; write for example 0.5",
            ),
            (
                timing.workers.0 == 0 || self.machines().all_workers() as u64 > connections,
                "--workers is 1 or more, and each, on each machine of --at, has a connection at least",
            ),
            (
                timing.at.iter().any(|command| command.trim().is_empty()),
                "--at has a command that runs this program, for example 'ssh load1 echo-reactor'",
            ),
            (
                timing.connect_concurrency.0 == 0,
                "--connect-concurrency 0 opens nothing; write 1 or more",
            ),
            (
                self.requests == Some(Count(0)),
                "--requests 0 sends nothing; write 1 or more",
            ),
            (
                zero(self.duration) || zero(load.hold) || zero(load.find_max_rate),
                "a time of 0 measures nothing; write for example 10s",
            ),
            (
                zero(timing.timeout),
                "--timeout 0 leaves no time for an answer; write for example 5s",
            ),
            (
                self.output.interval.0 < Duration::from_millis(100),
                "--interval is 100ms at least",
            ),
        ];
        if let Some((_, text)) = refused.into_iter().find(|(is_refused, _)| *is_refused) {
            return Err(CliError::usage(text));
        }
        self.refuse_headers_of_datagrams()?;
        self.refuse_without_effect()?;
        self.refuse_unknown_processes()
    }

    fn refuse_headers_of_datagrams(&self) -> Result<(), CliError> {
        let mut addresses = self.addresses.iter().chain(&self.serve);
        if self.is_proxied() && addresses.any(Address::is_datagram) {
            let text = "--proxy is for connections, and datagrams have no header; leave it out";
            return Err(CliError::usage(text));
        }
        Ok(())
    }

    /// A figure of the server that is missing at the end would be noticed after the run.
    fn refuse_unknown_processes(&self) -> Result<(), CliError> {
        for pid in &self.timing.server_pid {
            let why = match check_process(*pid) {
                Ok(()) => continue,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    "there is no such process".to_owned()
                }
                Err(error) => error.to_string(),
            };
            return Err(CliError::usage(format!(
                "--server-pid {pid}: {why}; 'ss -tlnp' shows which process listens where"
            )));
        }
        Ok(())
    }

    /// Refuses options that change nothing in the chosen mode: a command line that has them means another mode.
    fn refuse_without_effect(&self) -> Result<(), CliError> {
        let (load, timing) = (&self.load, &self.timing);
        let plans = !load.rate.is_empty() || load.hold.is_some() || load.find_max_rate.is_some();
        if load.arrivals == Following::Poisson && !plans {
            return Err(CliError::usage(
                "--arrivals has no effect without a plan; add --rate, or leave it out",
            ));
        }
        let args = [
            ("--pipeline", load.pipeline.0 > 1),
            ("--active", load.active != Share::Percent(Percent(100.0))),
            ("--ramp-up", !timing.ramp_up.0.is_zero()),
            (
                "--connect-concurrency",
                timing.connect_concurrency != Count(64),
            ),
        ];
        match args.iter().find(|(_, is_typed)| *is_typed) {
            Some((flag, _)) if load.churn.is_some() => Err(CliError::usage(format!(
                "{flag} has no effect with --churn, where every connection has one request; leave it out"
            ))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::args;
    use crate::cli::error::CliErrorKind;

    #[test]
    fn impossible_values_are_refused() {
        for wrong in [
            "-c 0",
            "-s 0",
            "--active 0",
            "--pipeline 0",
            "-r 0",
            "--workers 0",
            "-n 0",
            "-d 0",
            "--timeout 0",
            "--workers 51",
            "--workers 26 --at ssh --at ssh 127.0.0.1:7",
            "--at  127.0.0.1:7",
            "--connect-concurrency 0",
            "--active 51",
            "-r 0.0001",
            "--server-pid 4294967294",
            "--interval 99ms",
            "--bad-clients reset=2M",
            "--proxy v1 127.0.0.1:7 udp://127.0.0.1:7",
            "--proxy v2 --serve unixgram://@x",
        ] {
            let arguments: Vec<&str> = wrong.split(' ').collect();
            let failure = args(&arguments).refuse_nonsense().unwrap_err();
            assert_eq!(failure.class, CliErrorKind::Usage, "{wrong}");
        }
    }

    #[test]
    fn what_has_no_effect_is_refused() {
        for wrong in [
            "--arrivals poisson",
            "--churn fin --pipeline 2",
            "--churn fin --active 1",
            "--churn reset --ramp-up 1s",
            "--churn reset --connect-concurrency 5",
        ] {
            let arguments: Vec<&str> = wrong.split(' ').collect();
            let failure = args(&arguments).refuse_without_effect().unwrap_err();
            assert!(failure.text.contains("has no effect"), "{wrong}");
        }
        for right in [
            "--arrivals poisson -r 5",
            "--pipeline 2",
            "--churn fin -c 5",
        ] {
            let arguments: Vec<&str> = right.split(' ').collect();
            assert_eq!(args(&arguments).refuse_without_effect(), Ok(()), "{right}");
        }
    }
}
