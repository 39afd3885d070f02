//! `serve --sandbox`: once everything is open, the process gives up what serving does not need.
//!
//! An echo server opens its sockets, and from then on reads and writes descriptors that it has. All other abilities of a
//! process would help an attacker only. So between the last open and the first accept the process restricts itself by
//! Landlock and seccomp, in [`linux`]; neither can be lifted again.
//!
//! This has two consequences. A sandboxed server cannot start a new process of itself, since execve(2) is not on the list;
//! with `--workers` the workers are sandboxed, and their master starts processes. And the blocking models have no sandbox: they start a thread for each
//! client, and a list that allows that protects little.
//!
//! What may live in this file: the level that was asked for, and the error if the kernel does not grant it. What may not: a
//! system call by name.

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

/// Builds without seccomp and Landlock report that the sandbox is missing.
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
    use crate::cli::serve::sandbox::needs::{Needs, Restrictions};

    pub(super) fn restrict(_: &Needs) -> Restrictions {
        Restrictions {
            applied: Vec::new(),
            missing: vec![
                "this build has none (it takes the feature 'sandbox', and Linux on x86_64, aarch64 or riscv64)"
                    .to_owned(),
            ],
        }
    }
}

mod needs;

use super::notify;
use crate::cli::error::{CliError, CliErrorKind};
use crate::net::Endpoint;
use clap::ValueEnum;
use needs::Needs;
use std::path::Path;

/// The requested level of the sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Sandbox {
    /// None
    #[default]
    Off,
    /// Apply what this kernel supports, and warn if that is not all
    Try,
    /// Refuse to start if this kernel does not support all of it
    Require,
}

/// Restricts the calling thread, and all threads that it might start, for good.
///
/// # Errors
/// All of it was required, and the kernel did not grant all of it.
pub(super) fn enter(
    sandbox: Sandbox,
    endpoints: &[Endpoint],
    pid_file: Option<&Path>,
) -> Result<(), CliError> {
    confine(sandbox, Needs::of(endpoints, pid_file))
}

/// The same for a worker, which has no file to remove: all files are its master's.
///
/// # Errors
/// Those of [`enter`].
pub(super) fn enter_without_files(
    sandbox: Sandbox,
    endpoints: &[Endpoint],
) -> Result<(), CliError> {
    let mut needs = Needs::of(endpoints, None);
    needs.directories.clear();
    confine(sandbox, needs)
}

fn confine(sandbox: Sandbox, mut needs: Needs) -> Result<(), CliError> {
    if sandbox == Sandbox::Off {
        return Ok(());
    }
    notify::prepare();
    needs.sends_to_names |= notify::is_abstract();
    let restrictions = linux::restrict(&needs);
    if !restrictions.applied.is_empty() {
        log::info!("sandbox: {}", restrictions.applied.join("; "));
    }
    if restrictions.missing.is_empty() {
        return Ok(());
    }
    let missing = restrictions.missing.join("; ");
    if sandbox == Sandbox::Require {
        let text = format!(
            "--sandbox=require: the sandbox is not complete: {missing}; use plain --sandbox to serve with what there is"
        );
        return Err(CliError::new(CliErrorKind::System, text));
    }
    log::warn!("the sandbox is not complete: {missing}; --sandbox=require would refuse to start");
    Ok(())
}
