//! The sockets of all workers, which the master holds for its whole life.

use crate::cli::error::CliError;
use crate::cli::serve::errors;
use crate::echo::StartError;
use crate::limits::Limits;
use crate::net::{BindError, BindOptions, BoundSocket, Endpoint, SocketFile, steer_by_source};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Bits of the prefix that `--udp-rate-per-source` counts as one source.
const SOURCE_BITS: (u8, u8) = (32, 64);

/// The sockets of one address.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) endpoint: Endpoint,
    /// One for each worker, or one that is shared.
    pub(super) sockets: Vec<BoundSocket>,
}

#[derive(Debug)]
pub(super) struct Listeners {
    /// The files of Unix sockets; first, to be dropped before the sockets.
    pub(super) files: Vec<SocketFile>,
    pub(super) groups: Vec<Group>,
    /// The addresses, after the sockets are closed too.
    endpoints: Vec<Endpoint>,
}

impl Listeners {
    /// Makes a group of each socket that can be one. The first `inherited` sockets were passed to this process: there is
    /// one of each, and all workers share it.
    pub(super) fn new(
        sockets: Vec<BoundSocket>,
        inherited: usize,
        workers: usize,
        options: &BindOptions,
        limits: &Limits,
    ) -> Result<Self, CliError> {
        let mut files = Vec::new();
        let mut groups = Vec::new();
        for (place, mut socket) in sockets.into_iter().enumerate() {
            files.extend(socket.file.take());
            let endpoint = socket.endpoint.clone();
            let is_inherited = place < inherited;
            if is_inherited {
                refuse_shared(&endpoint, workers, limits)?;
            }
            let sockets = match socket.can_be_grouped() && !is_inherited {
                true => group(socket, workers, options, limits).map_err(|error| {
                    errors::start_error(&StartError::Bind(BindError::Bind(endpoint.clone(), error)))
                })?,
                false => vec![socket],
            };
            groups.push(Group { endpoint, sockets });
        }
        let listeners = Self::restored(files, groups);
        if workers > 1 && listeners.of_worker(1).is_empty() {
            let text = format!(
                "--workers {workers}: the datagram sockets here are served by one worker, so there is nothing for the rest; \
                 add another address, or leave out --workers"
            );
            return Err(CliError::usage(text));
        }
        Ok(listeners)
    }

    pub(super) fn restored(files: Vec<SocketFile>, groups: Vec<Group>) -> Self {
        let endpoints = groups.iter().map(|group| group.endpoint.clone()).collect();
        Self {
            files,
            groups,
            endpoints,
        }
    }

    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        self.endpoints.clone()
    }

    /// The sockets of one worker, with their addresses. A shared datagram socket is worker 0's, so that the limits for each
    /// source are kept in one place; a shared listener is every worker's.
    pub(super) fn of_worker(&self, worker: usize) -> Vec<(BorrowedFd<'_>, String)> {
        let groups = self.groups.iter().filter_map(|group| {
            let socket = match &group.sockets[..] {
                [shared] => {
                    let is_datagram =
                        matches!(group.endpoint, Endpoint::Udp(_) | Endpoint::UnixDatagram(_));
                    (worker == 0 || !is_datagram).then_some(shared)?
                }
                each => each.get(worker)?,
            };
            Some((socket.as_fd(), group.endpoint.to_string()))
        });
        groups.collect()
    }

    /// All sockets, in the order of the groups.
    pub(super) fn all(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let sockets = self.groups.iter().flat_map(|group| &group.sockets);
        sockets.map(AsFd::as_fd)
    }

    /// Removes the files, and closes the master's copies.
    pub(super) fn close(&mut self) {
        self.files.clear();
        self.groups.clear();
    }
}

/// Makes the group of one address. Limits for each source take all of a source to one worker.
fn group(
    socket: BoundSocket,
    workers: usize,
    options: &BindOptions,
    limits: &Limits,
) -> io::Result<Vec<BoundSocket>> {
    let is_udp = matches!(socket.endpoint, Endpoint::Udp(_));
    let group = socket.into_group(workers, options)?;
    let steered = match is_udp {
        true => limits.datagrams_per_source.map(|_| SOURCE_BITS),
        false => limits
            .connections_per_prefix
            .map(|_| (limits.prefix_bits_ipv4, limits.prefix_bits_ipv6)),
    };
    if let Some((ipv4, ipv6)) = steered.filter(|_| workers > 1) {
        steer_by_source(&group, ipv4, ipv6)?;
    }
    Ok(group)
}

/// A listener that all workers share leads a prefix to any of them, so that none can keep a limit for it.
fn refuse_shared(endpoint: &Endpoint, workers: usize, limits: &Limits) -> Result<(), CliError> {
    if workers < 2
        || limits.connections_per_prefix.is_none()
        || !matches!(endpoint, Endpoint::Tcp(_))
    {
        return Ok(());
    }
    let text = format!(
        "{endpoint} came by LISTEN_FDS, and {workers} workers that share a listener cannot keep --max-per-prefix (which \
         --hardened sets); use --workers 1, '--max-per-prefix off', or an address in place of the socket"
    );
    Err(CliError::usage(text))
}
