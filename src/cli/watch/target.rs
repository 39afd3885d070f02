//! The server to watch: by its process number, by its socket, or the only one.

use crate::cli::error::{CliError, CliErrorKind};
use crate::cli::serve::WatchName;
use crate::net::{Endpoint, UnixName};
use crate::procfs::abstract_datagram_names;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::io::{self, ErrorKind};
use std::str::FromStr;

/// What to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Process(u32),
    Socket(UnixName),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
            let process = text.parse().ok().filter(|&process| process > 0);
            let process = process.filter(|&process: &u32| i32::try_from(process).is_ok());
            return process
                .map(Self::Process)
                .ok_or_else(|| "it is no process id; ps(1) lists them".to_owned());
        }
        match text.parse()? {
            WatchName::Named(name) => Ok(Self::Socket(name)),
            WatchName::OfProcess => Err(
                "the command finds the only server by itself; leave the argument out".to_owned(),
            ),
        }
    }
}

impl Target {
    /// The only server that can be watched.
    pub(super) fn only() -> Result<Self, CliError> {
        let names = abstract_datagram_names();
        let mut processes: Vec<u32> = names
            .iter()
            .filter_map(|name| WatchName::process_of(name))
            .collect();
        processes.sort_unstable();
        match processes[..] {
            [process] => Ok(Self::Process(process)),
            [] => Err(CliError::new(
                CliErrorKind::Refused,
                "there is no server to watch; start one with 'echo-reactor serve --watch', or name its socket",
            )),
            _ => {
                let all: Vec<String> = processes.iter().map(ToString::to_string).collect();
                let text = format!(
                    "there are several servers to watch; name one of {}",
                    all.join(", ")
                );
                Err(CliError::usage(text))
            }
        }
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint::UnixDatagram(match self {
            Self::Process(process) => WatchName::OfProcess.unix_name(*process),
            Self::Socket(name) => name.clone(),
        })
    }

    /// Checks that the process is there, and belongs to a user whose servers this one may watch.
    pub(super) fn check(&self) -> Result<(), CliError> {
        let Self::Process(process) = *self else {
            return Ok(());
        };
        let (class, text) = match kill(Pid::from_raw(process as i32), None) {
            Err(Errno::ESRCH) => (
                CliErrorKind::Refused,
                format!("there is no process {process}; ps(1) lists the processes"),
            ),
            Err(Errno::EPERM) => (
                CliErrorKind::Permission,
                foreign(&format!("process {process}")),
            ),
            _ => return Ok(()),
        };
        Err(CliError::new(class, text))
    }

    /// Why the socket cannot be connected with.
    pub(super) fn failure(&self, error: &io::Error) -> CliError {
        let (class, text) = match (error.kind(), self) {
            (ErrorKind::ConnectionRefused | ErrorKind::NotFound, Self::Process(process)) => (
                CliErrorKind::Refused,
                format!(
                    "process {process} has no socket {}; start the server with 'echo-reactor serve --watch', or name \
                     the socket that its --watch names",
                    self.endpoint()
                ),
            ),
            (ErrorKind::ConnectionRefused | ErrorKind::NotFound, Self::Socket(name)) => (
                CliErrorKind::Refused,
                format!(
                    "{}: no server is watched there; start one with 'echo-reactor serve --watch={name}'",
                    self.endpoint()
                ),
            ),
            (ErrorKind::PermissionDenied, _) => (
                CliErrorKind::Permission,
                foreign(&self.endpoint().to_string()),
            ),
            _ if error.raw_os_error() == Some(Errno::EPROTOTYPE as i32) => (
                CliErrorKind::Refused,
                format!(
                    "{}: the socket there is none of serve --watch; name that one",
                    self.endpoint()
                ),
            ),
            _ => (
                CliErrorKind::System,
                format!("{}: {error}", self.endpoint()),
            ),
        };
        CliError::new(class, text)
    }
}

/// What is said of a server of another user.
pub(super) fn foreign(what: &str) -> String {
    format!("{what} belongs to another user; watch as that user, or as root")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_process_or_a_socket() {
        let target = |text: &str| text.parse::<Target>();
        assert_eq!(target("42"), Ok(Target::Process(42)));
        let name = UnixName::Abstract("a".into());
        assert_eq!(target("@a"), Ok(Target::Socket(name)));
        assert_eq!(
            target("42").unwrap().endpoint().to_string(),
            "unixgram://@echo-reactor.42"
        );
        for wrong in [
            "",
            "0",
            "4294967295",
            "99999999999999999999",
            "a",
            "auto",
            "-1",
        ] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
    }
}
