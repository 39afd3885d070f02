//! Fitting the number of connections to the limits of descriptors and threads of this process.

use super::args::ServeArgs;
use super::errors::limit_error;
use super::flags::Model;
use super::shares;
use crate::blocking::threads_max;
use crate::cli::descriptors;
use crate::cli::error::{CliError, CliErrorKind};
use crate::cli::units::{grouped, plural};
use crate::limits::Limits;
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::close;
use std::io;

/// Descriptors that the server opens beside its sockets: standard streams and their copies, epoll, signal pipes, the file of
/// the report, the socket to a service manager. The rest of the reserve is for inherited ones.
const DESCRIPTORS_OWN: usize = 16;

/// Returns the limits that this process can keep, and a text about them for the log. `in_use` counts the descriptors that
/// are inherited or listeners.
/// With several workers the limits are those of all of them, and each has descriptors of its own.
pub(super) fn fit(
    args: &ServeArgs,
    in_use: u64,
    workers: usize,
) -> Result<(Limits, String), CliError> {
    let all = args.limits();
    all.check().map_err(|error| limit_error(&error))?;
    let asked = all.connections_max as u64;
    // The first worker has the largest part.
    let mut limits = shares::of_worker(&all, 0, workers)?;
    let descriptors = descriptors::raise();
    let slack = limits.descriptors_reserved.saturating_sub(DESCRIPTORS_OWN) as u64;
    let beyond = in_use.saturating_sub(slack);
    let mut lowered = limits.fit_descriptors(descriptors.saturating_sub(beyond));
    let in_use = match beyond {
        0 => String::new(),
        _ => format!(
            " and {} more in use (inherited, or listeners)",
            grouped(beyond)
        ),
    };
    let mut room = format!(
        "{} descriptors, {} kept in reserve{in_use}",
        grouped(descriptors),
        grouped(limits.descriptors_reserved as u64)
    );
    if args.model == Model::Threads {
        if let Some((most, why)) = threads_max().filter(|&(most, _)| most < limits.connections_max)
        {
            limits.connections_max = most;
            room = format!("{} threads, by {why}", grouped(most as u64));
            lowered = true;
        }
    }
    let fits = match lowered {
        true => (limits.connections_max * workers) as u64,
        false => asked,
    };
    if lowered && args.asked_for_connections() {
        let text = format!(
            "--max-connections {} is too much: the limits allow {} ({room}); raise the hard limit \
             (ulimit -Hn, or LimitNOFILE= of systemd), or ask for less",
            grouped(asked),
            grouped(fits)
        );
        if args.strict() {
            return Err(CliError::new(CliErrorKind::System, text));
        }
        log::warn!("{text}");
    }
    if args.model == Model::Reactor && args.workers.is_none() {
        reserve_descriptors(&limits, descriptors);
    }
    let why = match (lowered, args.asked_for_connections()) {
        (true, _) => room,
        (false, true) => "as --max-connections says".to_owned(),
        (false, false) => "the default of --max-connections".to_owned(),
    };
    let capacity = match args.model {
        Model::Iterative => "serves one connection at a time".to_owned(),
        _ => format!("holds up to {} ({why})", plural(fits, "connection")),
    };
    Ok((limits, capacity))
}

/// The limits of one worker: its part of all, fitted to its descriptors. What is too much has been told by the master.
pub(super) fn of_worker(
    args: &ServeArgs,
    in_use: u64,
    worker: usize,
    workers: usize,
) -> Result<Limits, CliError> {
    let mut limits = shares::of_worker(&args.limits(), worker, workers)?;
    let descriptors = descriptors::raise();
    let slack = limits.descriptors_reserved.saturating_sub(DESCRIPTORS_OWN) as u64;
    limits.fit_descriptors(descriptors.saturating_sub(in_use.saturating_sub(slack)));
    reserve_descriptors(&limits, descriptors);
    Ok(limits)
}

/// Grows the kernel's table of this process's descriptors for `--preallocate`. By itself it doubles as connections come,
/// and descriptor 524,288 waits until 4 MiB have been copied. The table never shrinks, so it is enough to take a high
/// descriptor once and to close it (F_DUPFD of fcntl(2)).
fn reserve_descriptors(limits: &Limits, descriptors: u64) {
    let wanted = limits.preallocate_connections.min(limits.connections_max);
    let highest = (wanted + limits.descriptors_reserved)
        .min(usize::try_from(descriptors).unwrap_or(usize::MAX));
    let Some(highest) = i32::try_from(highest).ok().filter(|_| wanted > 0) else {
        return;
    };
    match fcntl(io::stderr(), FcntlArg::F_DUPFD_CLOEXEC(highest - 1)) {
        Ok(descriptor) => {
            let _ = close(descriptor);
        }
        // The table then grows as connections come.
        Err(error) => log::warn!(
            "--preallocate: the table for {} descriptors could not be made at the start: {error}",
            grouped(highest as u64)
        ),
    }
}
