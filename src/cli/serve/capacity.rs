//! How many connections this process can hold, by its limits of descriptors and threads.
//!
//! What may live in this file: asking the system, raising what may be raised, and fitting the limits of the server to it.
//! What may not: the limits that were typed; those are in [`super::typed`].

use super::args::ServeArgs;
use super::errors::limit_error;
use super::flags::Model;
use crate::blocking::threads_max;
use crate::cli::descriptors;
use crate::cli::error::{CliError, CliErrorKind};
use crate::cli::units::{grouped, plural};
use crate::limits::Limits;
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::close;
use std::io;

/// What the server itself opens beside its sockets: standard streams and their copies, the event queue, signal pipes, the
/// file of the report, the way to a service manager. The rest of the reserve has room for what was inherited.
const DESCRIPTORS_OWN: usize = 16;

/// The limits that this process can keep, and what to say of them at the start. Of the
/// descriptors `in_use` are inherited ones and listeners.
pub(super) fn fit(args: &ServeArgs, in_use: u64) -> Result<(Limits, String), CliError> {
    let mut limits = args.limits();
    limits.check().map_err(|error| limit_error(&error))?;
    let asked = limits.connections_max as u64;
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
    let fits = limits.connections_max as u64;
    if lowered && args.asked_for_connections() {
        let text = format!(
            "--max-connections {} is more than fits: there is room for {} ({room}); raise the hard limit \
             (ulimit -Hn, or LimitNOFILE= of systemd), or ask for less",
            grouped(asked),
            grouped(fits)
        );
        if args.strict() {
            return Err(CliError::new(CliErrorKind::System, text));
        }
        log::warn!("{text}");
    }
    if args.model == Model::Reactor {
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

/// Makes the kernel's table of our descriptors as large as the reserve asks for. Left alone it doubles as connections
/// come, and the one that needs place 524,288 waits until four megabytes have been copied. The table never shrinks, so
/// taking a high descriptor once, and giving it back, is all it needs (F_DUPFD of fcntl(2)).
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
        // They will come one by one, then.
        Err(error) => log::warn!(
            "no room can be made for {} descriptors ahead of time: {error}",
            grouped(highest as u64)
        ),
    }
}
