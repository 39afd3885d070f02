//! The blocking models: the same echo without an event loop, to compare the event loop with.
//!
//! - [`Model::Iterative`] accepts one connection, echoes until it ends, and accepts the next (Stevens' iterative server).
//! - [`Model::ThreadPerConnection`] gives each connection a thread, with a small stack and a buffer of its own.
//!
//! The comparison is a fair one. Both start from the same bound sockets as the event loop ([`BindOptions`]), keep the same
//! [`Limits`], and count in the same [`Stats`]; between a read and its write they touch nothing that another thread
//! writes to.
//!
//! What may live in this module: std's blocking sockets, and threads. What may not: the reactor, readiness, or anything
//! that does not block. In reading order: this file, `connection`, `acceptor`, `shared`.
//!
//! ```
//! use echo_reactor::Limits;
//! use echo_reactor::blocking::{Model, Server};
//! use std::io::{Read, Write};
//!
//! let server = Server::bind(Model::ThreadPerConnection, ["127.0.0.1:0"], Limits::default())?;
//! let (handle, addresses) = (server.handle(), server.addresses());
//! let running = std::thread::spawn(|| server.run());
//!
//! let echo_reactor::net::Endpoint::Tcp(address) = addresses[0] else { unreachable!() };
//! let mut client = std::net::TcpStream::connect(address)?;
//! client.write_all(b"Hello, world!")?;
//! client.shutdown(std::net::Shutdown::Write)?;
//! assert_eq!(std::io::read_to_string(client)?, "Hello, world!");
//!
//! handle.drain();
//! assert_eq!(running.join().unwrap()?.bytes_out, 13);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How a blocked thread is stopped
//!
//! A thread that is blocked in a connection is stopped by
//! [`shutdown(2)`](https://man7.org/linux/man-pages/man2/shutdown.2.html) of its socket, from another thread: a read then
//! returns what had arrived and after that EOF, and a write fails.
//!
//! For a thread that is blocked in accept(2) this is not enough. On Linux shutdown(2) of a listener ends the call with
//! `EINVAL`, but it also resets the connections in the accept queue of a TCP listener, whose clients have been told that
//! they are connected. So the listener is first made non-blocking, and shut down only if its thread is still in the call
//! and the queue is empty. A thread that is not in the call, because it serves a connection or waits for one to close,
//! comes back to a listener that does not block and empties the queue. What it accepts while the server drains is served
//! as the open connections are: what has arrived is echoed, then it is closed. What is still queued at the drain timeout
//! is reset and counted ([`RejectReason::Stopping`](crate::stats::RejectReason::Stopping)).
//!
//! Roads not taken:
//!
//! - A connection to the own listener wakes accept(2) on every system. It needs a route to the own address and the
//!   permission to use the socket file, and has to be told apart from those of clients.
//! - poll(2) on the socket and a second descriptor doubles the system calls of each echo.
//! - A read timeout after which a flag is checked wakes ten thousand idle threads for nothing.
//! - A signal that ends the call with `EINTR` needs `unsafe`.
//!
//! Two limitations follow. Other systems answer `shutdown` of a listener with `ENOTCONN`, and not all of them wake its
//! threads: there a stop may wait for one more client. And a socket that was shut down both ways answers later bytes with
//! a reset (RFC 1122, 4.2.2.13), so this server cannot linger as the event loop does
//! ([`Limits::fin_timeout`](crate::Limits::fin_timeout)): a client that goes on sending while the server drains may lose
//! echoes that are still on their way.

mod acceptor;
mod connection;
mod error;
mod shared;
#[cfg(test)]
mod tests;

pub use error::StartError;

use crate::limits::{Limits, OverloadPolicy};
use crate::net::accept::{self, AcceptError, RetryDelay};
use crate::net::{
    Address, AddressError, BindOptions, BoundSocket, Endpoint, Peer, Resolved, bind_all,
    bind_resolved, trace,
};
use crate::procfs::sysctl;
use crate::stats::{CloseReason, Stats};
use acceptor::Acceptor;
use connection::Stream;
use shared::{AcceptPhase, Shared};
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::{self, Scope};

/// Returns about how many threads this process can have, and the setting that bounds them; `None` where the system does
/// not tell.
///
/// A thread needs four memory mappings: its stack and the guard page below it, and the same again for the stack on which
/// signals are handled. A process may have 65,530 of them by default (sysctl vm.max_map_count), so most machines stop at
/// 16,000 threads, however much memory they have. std cannot do without the second stack: if it cannot be mapped, the new
/// thread aborts the process. So the bound has to be known beforehand.
#[must_use]
pub fn threads_max() -> Option<(usize, &'static str)> {
    const MAPS_OF_A_THREAD: usize = 4;
    // The program, its libraries, and the heaps that many threads make the allocator open.
    const OTHER_MAPS: usize = 1_024;
    // The setting, how many of it are not for threads, and how many a thread takes.
    let settings = [
        ("vm.max_map_count", OTHER_MAPS, MAPS_OF_A_THREAD),
        ("kernel.threads-max", 0, 1),
        ("kernel.pid_max", 0, 1),
    ];
    let bounds = settings.into_iter().filter_map(|(name, others, each)| {
        Some((sysctl(name)?.saturating_sub(others) / each, name))
    });
    bounds.min_by_key(|&(most, _)| most)
}

/// Which of the two blocking models serves the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Model {
    /// One connection is served until it ends; the next one waits in the accept queue.
    Iterative,
    /// Each connection has a thread.
    ThreadPerConnection,
}

/// A blocking server that is bound, and serves once [`Server::run`] is called.
#[derive(Debug)]
pub struct Server {
    model: Model,
    acceptors: Vec<Arc<Acceptor>>,
    shared: Arc<Shared>,
}

/// Ends a [`Server`] from another thread, and reads its counters. It may outlive the server.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Server {
    /// Binds every address and listens: clients can connect from now on, and are served once [`Server::run`] is called.
    ///
    /// The addresses are those of [`echo::Server::bind`](crate::echo::Server::bind): texts, [`Address`]es,
    /// [`SocketAddr`](std::net::SocketAddr)s, [`Endpoint`]s.
    ///
    /// # Errors
    /// The first step that failed; nothing stays bound then.
    pub fn bind<A>(
        model: Model,
        addresses: impl IntoIterator<Item = A>,
        limits: Limits,
    ) -> Result<Self, StartError>
    where
        A: TryInto<Address>,
        A::Error: Into<AddressError>,
    {
        let addresses = Address::convert_all(addresses).map_err(StartError::Address)?;
        Self::check(&addresses, &limits)?;
        let bound = bind_all(&addresses, &BindOptions::from(&limits)).map_err(StartError::Bind)?;
        Self::new(model, bound, limits)
    }

    /// Binds addresses whose names have been resolved already, with these options instead of those of the limits, and listens.
    ///
    /// # Errors
    /// Those of [`Server::bind`].
    pub fn bind_resolved(
        model: Model,
        addresses: &[Resolved],
        limits: Limits,
        options: &BindOptions,
    ) -> Result<Self, StartError> {
        let written: Vec<Address> = addresses.iter().map(|one| one.address.clone()).collect();
        Self::check(&written, &limits)?;
        let bound = bind_resolved(addresses, options).map_err(StartError::Bind)?;
        Self::new(model, bound, limits)
    }

    /// Refuses what only the event loop has, before anything is bound.
    fn check(addresses: &[Address], limits: &Limits) -> Result<(), StartError> {
        limits.check().map_err(StartError::Limit)?;
        if let Some(address) = addresses.iter().find(|address| address.is_datagram()) {
            return Err(StartError::Datagrams(address.clone()));
        }
        if limits.connections_per_prefix.is_some() {
            return Err(StartError::Admission("a limit of connections per prefix"));
        }
        if limits.overload == OverloadPolicy::Reject {
            return Err(StartError::Admission("rejecting at the limit"));
        }
        Ok(())
    }

    fn new(model: Model, bound: Vec<BoundSocket>, limits: Limits) -> Result<Self, StartError> {
        if model == Model::Iterative && bound.len() > 1 {
            return Err(StartError::OneAddress(bound.len()));
        }
        Ok(Self {
            model,
            acceptors: (bound.into_iter().map(Acceptor::new))
                .map(Arc::new)
                .collect(),
            shared: Arc::new(Shared::new(limits)),
        })
    }

    /// Returns the bound endpoints, with the ports that the system chose, in the order of the addresses.
    #[must_use]
    pub fn addresses(&self) -> Vec<Endpoint> {
        let endpoint = |acceptor: &Arc<Acceptor>| acceptor.bound.endpoint.clone();
        self.acceptors.iter().map(endpoint).collect()
    }

    /// Returns a handle that ends the server from another thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Serves until a [`Handle`] ends it, and returns the counters when every thread has ended and every socket is closed.
    ///
    /// # Errors
    /// The first threads could not be started, or every listener failed; it is then the error of the last one. An error of
    /// one connection ends that connection only.
    pub fn run(self) -> io::Result<Stats> {
        let Self {
            model,
            acceptors,
            shared,
        } = self;
        shared.add_acceptors(&acceptors);
        let ended = match model {
            Model::Iterative => iterative(&shared, &acceptors[0]),
            Model::ThreadPerConnection => thread_per_connection(&shared, acceptors),
        };
        shared.clear_acceptors();
        ended.map(|()| shared.stats())
    }
}

impl Handle {
    /// Begins a graceful shutdown, and returns at once; [`Server::run`] returns when it is done.
    ///
    /// What has arrived on each connection is echoed, then it is closed ([`CloseReason::ShutDown`]). Connections in the
    /// accept queue are served in the same way. After [`Limits::drain_timeout`] open connections are aborted
    /// ([`CloseReason::Aborted`]), and queued ones are reset ([`RejectReason::Stopping`](crate::stats::RejectReason::Stopping)).
    pub fn drain(&self) {
        self.shared.drain();
    }

    /// Stops at once: every connection is aborted ([`CloseReason::Aborted`]), and its unsent bytes are discarded; queued
    /// connections are reset.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Returns the counters so far: how many connections are open, and the bytes of those that are closed. A thread adds
    /// its bytes when its connection closes, since adding them at every echo would share a cache line between threads.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }
}

/// The iterative server of Stevens, in the thread of the caller. A second thread only waits for the end: this one is
/// blocked in a connection when the drain timeout is over.
fn iterative(shared: &Shared, acceptor: &Arc<Acceptor>) -> io::Result<()> {
    let mut read_buffer = vec![0; shared.limits.read_buffer_bytes];
    thread::scope(|scope| {
        let watch = thread::Builder::new().name("drain".into());
        (watch.spawn_scoped(scope, || shared.conclude())).inspect_err(|_| shared.stop())?;
        accept_clients(shared, acceptor, |client| {
            client.serve(shared, &mut read_buffer);
        })
    })
}

/// One thread a listener accepts, and starts a thread for every connection; the thread of the caller waits for the end.
///
/// The threads are scoped: the scope counts them, and does not end before all of them have. Join handles would have to be
/// collected, one for each connection that ever was.
fn thread_per_connection(shared: &Shared, acceptors: Vec<Arc<Acceptor>>) -> io::Result<()> {
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for acceptor in acceptors {
            let accept = move || {
                let serve = |client| serve_in_thread(shared, scope, client);
                accept_clients(shared, &acceptor, serve)
                // The last `Arc` of the listener is dropped here, which closes it and removes its file.
            };
            let thread = thread::Builder::new().name("accept".into());
            let thread = (thread.spawn_scoped(scope, accept)).inspect_err(|_| shared.stop())?;
            threads.push(thread);
        }
        shared.conclude();
        let ended = threads.into_iter().filter_map(|one| one.join().ok());
        // `Ok` if any listener served until the server was told to end, although another one failed.
        ended.reduce(Result::or).unwrap_or(Ok(()))
    })
}

/// A connection that is registered under this number.
struct Client {
    number: u64,
    stream: Arc<Stream>,
    peer: Peer,
}

impl Client {
    fn serve(self, shared: &Shared, read_buffer: &mut [u8]) {
        let mut own = Stats::default();
        own.option_errors += self.stream.set_options(&shared.limits);
        let reason = connection::echo(&*self.stream, &self.peer, read_buffer, &mut own);
        drop(self.stream);
        shared.close(self.number, reason, own);
    }
}

fn serve_in_thread<'scope>(
    shared: &'scope Shared,
    scope: &'scope Scope<'scope, '_>,
    client: Client,
) {
    let number = client.number;
    // The buffer is on the heap, not on the stack, whose size is a limit of its own. Fresh zeroed memory is not resident
    // until a read fills it: a connection that never sends costs little more than its thread.
    let serve = move || client.serve(shared, &mut vec![0; shared.limits.read_buffer_bytes]);
    let thread = thread::Builder::new().stack_size(shared.limits.thread_stack_bytes);
    if let Err(error) = thread.spawn_scoped(scope, serve) {
        // The stream was dropped with the closure. The next connection would fare no better, so accepting pauses: queued
        // connections are not lost.
        shared.close(number, CloseReason::OutOfMemory, Stats::default());
        shared.warn(format_args!(
            "a connection is closed, since no thread can be started for it: {error}; see threads-max and max_map_count"
        ));
        shared.pause();
    }
}

/// Accepts and serves until the server ends, or the listener fails. A drain serves what is queued; a stop, and the end of
/// the drain timeout, resets and counts it.
fn accept_clients(
    shared: &Shared,
    acceptor: &Arc<Acceptor>,
    mut serve: impl FnMut(Client),
) -> io::Result<()> {
    let mut delay = RetryDelay::default();
    let mut ended = Ok(());
    while shared.may_accept(acceptor) {
        match acceptor.accept() {
            Ok((stream, peer)) => {
                delay.succeeded();
                let stream = Arc::new(stream);
                let Some(number) = shared.open(&stream) else {
                    shared.reject(&stream);
                    break;
                };
                trace::log_connected(&peer);
                serve(Client {
                    number,
                    stream,
                    peer,
                });
            }
            Err(error) => {
                if let ControlFlow::Break(result) =
                    accept_failed(shared, acceptor, error, &mut delay)
                {
                    ended = result;
                    break;
                }
            }
        }
    }
    reject_queued(shared, acceptor);
    shared.remove_acceptor(acceptor);
    ended
}

/// Decides by an error of accept(2) whether the listener is tried again, and pauses before that if it has to be.
fn accept_failed(
    shared: &Shared,
    acceptor: &Acceptor,
    error: io::Error,
    delay: &mut RetryDelay,
) -> ControlFlow<io::Result<()>> {
    let verdict = accept::classify(&error);
    let is_end = matches!(verdict, AcceptError::WouldBlock | AcceptError::Listener);
    let endpoint = &acceptor.bound.endpoint;
    match (shared.count_accept_error(&error, is_end), verdict) {
        (AcceptPhase::Aborting, _) => return ControlFlow::Break(Ok(())),
        (AcceptPhase::Draining, _) if is_end => return ControlFlow::Break(Ok(())),
        (_, AcceptError::Listener) => {
            log::error!("accept on {endpoint} ends: {error}");
            return ControlFlow::Break(Err(error));
        }
        (_, AcceptError::Resources(remedy)) => {
            shared.warn(format_args!(
                "accept on {endpoint} pauses: {error}: {remedy}"
            ));
            shared.pause();
        }
        // A blocking listener does not report an empty queue, so `EAGAIN` is an error like the rest.
        (_, AcceptError::Connection | AcceptError::WouldBlock | AcceptError::Unknown) => {
            if let Some(pause) = delay.failed(1, verdict, shared.limits.accept_retry) {
                shared.warn(format_args!("{endpoint} rests for {pause:?}: {error}"));
                shared.pause_for(pause);
            }
        }
    }
    ControlFlow::Continue(())
}

/// Resets and counts what is queued when there is no time to serve it.
fn reject_queued(shared: &Shared, acceptor: &Acceptor) {
    /// More than `net.core.somaxconn`, to which the kernel cuts a queue, usually is. A flood of clients could fill the
    /// queue as fast as it is emptied.
    const QUEUED_MAX: usize = 65_536;
    if !shared.must_reject_queued() {
        return;
    }
    for _ in 0..QUEUED_MAX {
        match acceptor.accept() {
            Ok((stream, _)) => shared.reject(&stream),
            Err(error) if accept::classify(&error) == AcceptError::Connection => {}
            Err(_) => return,
        }
    }
}
