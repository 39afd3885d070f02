//! The flags of faults to order, and what does not go with them.

use crate::cli::error::CliError;
use crate::cli::units::{Bytes, Count, Percent, Time};
use crate::faults::{Faults, Stall};
use clap::Args;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Longest delay, and longest period of stalls.
const TIME_MAX: Duration = Duration::from_secs(3600);

#[derive(Args, Debug)]
#[command(next_help_heading = "Faults to order, for the calibration of load generators")]
pub(super) struct FaultFlags {
    /// Answer everything this much later
    #[arg(long, value_name = "TIME", value_parser = delay)]
    delay: Option<Time>,

    /// Serve nothing for a time in each period, for example 100ms/1s
    #[arg(long, value_name = "TIME/PERIOD")]
    stall: Option<StallFlag>,

    /// Give this share of datagrams no answer, for example 1%
    #[arg(long, value_name = "PERCENT", value_parser = share)]
    drop: Option<Percent>,

    /// Close each stream after this many echoed bytes
    #[arg(long, value_name = "BYTES", value_parser = close_after)]
    close_after: Option<Bytes>,

    /// The seed of the choice of --drop: the same seed drops the same datagrams
    #[arg(long, value_name = "NUMBER", default_value_t = Count(1))]
    fault_seed: Count,
}

/// What else the command line says.
#[derive(Debug)]
pub(super) struct Beside {
    pub(super) is_hardened: bool,
    pub(super) is_blocking: bool,
    pub(super) has_workers: bool,
    pub(super) has_trace: bool,
    pub(super) is_sandboxed: bool,
    pub(super) idle_timeout: Option<Duration>,
}

impl FaultFlags {
    /// What is ordered, if anything is.
    pub(super) fn faults(&self, fin_timeout: Duration) -> Option<Faults> {
        let faults = Faults {
            delay: self.delay.map_or(Duration::ZERO, |delay| delay.0),
            stall: self.stall.map(|stall| stall.0),
            drop_share: self.drop.map_or(0.0, |percent| percent.0 / 100.0),
            close_after: self.close_after.map(|bytes| bytes.0 as u64),
            fin_timeout,
            seed: self.fault_seed.0,
        };
        self.first().map(|_| faults)
    }

    /// The first of the flags that was given.
    pub(super) fn first(&self) -> Option<&'static str> {
        let given = [
            (self.delay.is_some(), "--delay"),
            (self.stall.is_some(), "--stall"),
            (self.drop.is_some(), "--drop"),
            (self.close_after.is_some(), "--close-after"),
        ];
        given.into_iter().find(|given| given.0).map(|given| given.1)
    }

    /// Refuses faults where they mean nothing: in a server for an open network, outside of this process's own loop, or under a
    /// list of system calls; and a delay that outlasts the idle timeout, which counts from the arrival.
    pub(super) fn check(&self, beside: &Beside) -> Result<(), CliError> {
        let Some(flag) = self.first() else {
            return Ok(());
        };
        let reasons = [
            (
                beside.is_hardened,
                "--hardened",
                "a server for an open network has no faults to order",
            ),
            (
                beside.is_blocking,
                "--model",
                "only the reactor has faults to order",
            ),
            (
                beside.has_workers,
                "--workers",
                "faults are those of one event loop",
            ),
            (
                beside.has_trace,
                "--trace",
                "a server with ordered faults is not recorded",
            ),
            (
                beside.is_sandboxed,
                "--sandbox",
                "faults take system calls that are on no list",
            ),
        ];
        if let Some((_, other, reason)) = reasons.into_iter().find(|reason| reason.0) {
            return Err(CliError::usage(format!(
                "{flag} and {other} exclude each other: {reason}; leave one of them out"
            )));
        }
        match (self.delay, beside.idle_timeout) {
            (Some(delay), Some(idle)) if delay.0 >= idle => Err(CliError::usage(format!(
                "--delay {delay} and --idle-timeout {}: a connection would be closed before it is answered; \
                 write a shorter delay, or a longer timeout",
                Time(idle)
            ))),
            _ => Ok(()),
        }
    }

    /// The line of the log that says what is ordered.
    pub(super) fn warning(&self) -> Option<String> {
        let parts = [
            self.delay
                .map(|delay| format!("each answer is {delay} late")),
            self.stall.map(|stall| {
                let Stall { length, period } = stall.0;
                format!(
                    "nothing is served for {} of each {}",
                    Time(length),
                    Time(period)
                )
            }),
            self.drop
                .map(|share| format!("{share} of datagrams get no answer")),
            self.close_after
                .map(|bytes| format!("each stream is closed after {} bytes", bytes.0)),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let told = || {
            format!(
                "faults are ordered: {}; do not measure this server",
                parts.join(", ")
            )
        };
        (!parts.is_empty()).then(told)
    }
}

fn delay(text: &str) -> Result<Time, String> {
    let time: Time = text.parse().map_err(|error| format!("{error}"))?;
    match time.0 <= TIME_MAX {
        true => Ok(time),
        false => Err(format!(
            "it is more than {}; write a shorter time",
            Time(TIME_MAX)
        )),
    }
}

fn share(text: &str) -> Result<Percent, String> {
    let percent: Percent = text.parse().map_err(|error| format!("{error}"))?;
    match percent.0 <= 100.0 {
        true => Ok(percent),
        false => Err("there are no more than 100%; write for example 1%".to_owned()),
    }
}

fn close_after(text: &str) -> Result<Bytes, String> {
    let bytes: Bytes = text.parse().map_err(|error| format!("{error}"))?;
    match bytes.0 {
        0 => Err("nothing would be echoed; write 1 or more".to_owned()),
        _ => Ok(bytes),
    }
}

/// The value of `--stall`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StallFlag(Stall);

impl FromStr for StallFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((length, period)) = text.split_once('/') else {
            return Err("it has no period; write for example 100ms/1s".to_owned());
        };
        let time = |text: &str| -> Result<Duration, String> {
            let time: Result<Time, _> = text.parse();
            time.map(|time| time.0)
                .map_err(|error| format!("'{text}': {error}"))
        };
        let (length, period) = (time(length)?, time(period)?);
        if length.is_zero() {
            return Err("a stall of no time is none; leave --stall out".to_owned());
        }
        if length >= period {
            let text = "the stall has to be shorter than its period; write for example 100ms/1s";
            return Err(text.to_owned());
        }
        match period <= TIME_MAX {
            true => Ok(Self(Stall { length, period })),
            false => Err(format!("its period is more than {}", Time(TIME_MAX))),
        }
    }
}

impl fmt::Display for StallFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Time(self.0.length), Time(self.0.period))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        flags: FaultFlags,
    }

    fn flags(line: &str) -> FaultFlags {
        let words = ["serve"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words).unwrap().flags
    }

    #[test]
    fn what_is_ordered_is_parsed_and_told_in_one_line() {
        assert_eq!(flags("--fault-seed 7").faults(Duration::ZERO), None);
        assert_eq!(flags("").warning(), None);
        let all = flags("--delay 5ms --stall 100ms/1s --drop 1% --close-after 64k --fault-seed 7");
        let expected = Faults {
            delay: Duration::from_millis(5),
            stall: Some(Stall {
                length: Duration::from_millis(100),
                period: Duration::from_secs(1),
            }),
            drop_share: 0.01,
            close_after: Some(64 << 10),
            fin_timeout: Duration::from_secs(1),
            seed: 7,
        };
        assert_eq!(all.faults(Duration::from_secs(1)), Some(expected));
        let warning = all.warning().unwrap();
        for part in [
            "5ms late",
            "100ms of each 1s",
            "1% of datagrams",
            "after 65536 bytes",
        ] {
            assert!(warning.contains(part), "{warning}");
        }
        for one in [
            "--delay 0",
            "--stall 1us/2us",
            "--drop 0",
            "--close-after 1",
        ] {
            assert!(flags(one).faults(Duration::ZERO).is_some(), "{one}");
            assert_eq!(flags(one).first(), one.split(' ').next());
        }
    }

    #[test]
    fn orders_that_cannot_be_are_refused_with_the_reason() {
        for (line, words) in [
            ("--stall 100ms", "no period"),
            ("--stall 0/1s", "leave --stall out"),
            ("--stall 1s/1s", "shorter than its period"),
            ("--stall x/1s", "'x'"),
            ("--stall 1s/2h", "more than 1h"),
            ("--delay 2h", "more than 1h"),
            ("--delay soon", "250ms"),
            ("--drop 101%", "101%"),
            ("--close-after 0", "1 or more"),
        ] {
            let words_of_line = ["serve"].into_iter().chain(line.split_whitespace());
            let error = Line::try_parse_from(words_of_line).unwrap_err().to_string();
            assert!(error.contains(words), "{line}: {error}");
        }
        let stall: StallFlag = "100ms/1m".parse().unwrap();
        assert_eq!(stall.to_string(), "100ms/1m");
    }
}
