//! `serve --sandbox`: once everything is open, the process gives up whatever serving does not need.
//!
//! An echo server opens its sockets, and from then on reads and writes descriptors that it has. Whatever else a process
//! may do is of use to nobody but whoever should find a way to take this one over. So between the last thing that is
//! opened and the first client that is accepted two linux of the kernel go up, and nothing takes them down again:
//! Landlock and seccomp, in [`linux`].
//!
//! What follows from that is meant. A sandboxed server cannot start a successor, since execve(2) is not on the list; a
//! supervisor that holds the listening sockets can still start one beside it. And the blocking models have no sandbox:
//! they start a thread for each client, and a list of calls with which one can do that is worth little.
//!
//! What may live in this file: what was asked for, what a server still needs, and what to say if the kernel does not
//! grant it. What may not: a system call by name.

#[cfg(all(
    feature = "sandbox",
    target_os = "linux",
    any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64"
    )
))]
mod linux;

/// Where there is nothing to build a fence with, there is still somebody to tell.
#[cfg(not(all(
    feature = "sandbox",
    target_os = "linux",
    any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64"
    )
)))]
mod linux {
    pub(super) fn raise(_: &super::Needs) -> super::Raised {
        super::Raised {
            stands: Vec::new(),
            missing: vec![
                "this build has none (it takes the feature 'sandbox', and Linux on x86_64, aarch64 or riscv64)"
                    .to_owned(),
            ],
        }
    }
}

use super::notify;
use crate::cli::error::{CliError, CliErrorKind};
use crate::net::{Endpoint, UnixName};
use clap::ValueEnum;
use std::path::{Path, PathBuf};

/// How much of a sandbox is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Sandbox {
    /// None
    #[default]
    Off,
    /// As much as this kernel grants, and a warning if that is not all
    Try,
    /// All of it, or no start
    Require,
}

/// What a server still does after the linux are up, as far as that is not the same for every server.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    /// The directories in which its files are, which it removes at the end: socket files, and that of `--pid-file`.
    directories: Vec<PathBuf>,
    /// Whether it sends datagrams to abstract names: to clients of a Unix datagram socket, to a service manager.
    sends_to_names: bool,
}

/// What has become of the linux.
#[derive(Debug, Default)]
struct Raised {
    stands: Vec<String>,
    missing: Vec<String>,
}

impl Needs {
    fn of(endpoints: &[Endpoint], pid_file: Option<&Path>) -> Self {
        let mut needs = Self::default();
        needs.directories.extend(pid_file.map(directory_of));
        for endpoint in endpoints {
            if let Endpoint::Unix(UnixName::Path(path))
            | Endpoint::UnixDatagram(UnixName::Path(path)) = endpoint
            {
                needs.directories.push(directory_of(path));
            }
            needs.sends_to_names |= matches!(endpoint, Endpoint::UnixDatagram(_));
        }
        needs
    }
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(directory) if directory.as_os_str().is_empty() => PathBuf::from("."),
        Some(directory) => directory.to_owned(),
        None => PathBuf::from("/"),
    }
}

/// Raises the linux for good, for the thread that calls this and all that it might start.
///
/// # Errors
/// If all was required and not all was granted.
pub(super) fn enter(
    sandbox: Sandbox,
    endpoints: &[Endpoint],
    pid_file: Option<&Path>,
) -> Result<(), CliError> {
    if sandbox == Sandbox::Off {
        return Ok(());
    }
    notify::prepare();
    let mut needs = Needs::of(endpoints, pid_file);
    needs.sends_to_names |= notify::is_abstract();
    let raised = linux::raise(&needs);
    if !raised.stands.is_empty() {
        log::info!("sandbox: {}", raised.stands.join("; "));
    }
    if raised.missing.is_empty() {
        return Ok(());
    }
    let missing = raised.missing.join("; ");
    if sandbox == Sandbox::Require {
        let text = format!(
            "--sandbox=require: the sandbox is not complete: {missing}; plain --sandbox serves with what there is"
        );
        return Err(CliError::new(CliErrorKind::System, text));
    }
    log::warn!("the sandbox is not complete: {missing}; --sandbox=require would refuse to start");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_needs_the_directories_of_its_files_and_nothing_for_the_rest() {
        let endpoint = |text: &str| {
            let address: crate::net::Address = text.parse().unwrap();
            address.resolve().unwrap().remove(0)
        };
        let plain = ["127.0.0.1:0", "udp://127.0.0.1:0", "unix://@name"].map(endpoint);
        assert_eq!(Needs::of(&plain, None), Needs::default());
        let files = ["unix:///run/a", "unixgram:///tmp/b"].map(endpoint);
        let needs = Needs {
            directories: [".", "/run", "/tmp"].map(PathBuf::from).to_vec(),
            sends_to_names: true,
        };
        assert_eq!(Needs::of(&files, Some(Path::new("pid"))), needs);
    }
}
