//! The blocking models: the same echo without an event loop, to compare the event loop with.
//!
//! - [`Model::Iterative`] is the tutorial's server: accept one client, echo until it leaves, accept the next.
//! - [`Model::ThreadPerConnection`] gives each client a thread, with a small stack and a buffer of its own.
//!
//! Neither is a straw man. They start from the same bound sockets as the event loop ([`BoundSocket`]), keep the same
//! [`Limits`], and count in the same [`Stats`]; between a read and its write they touch nothing that another thread
//! writes to. What may live in this room: std's blocking sockets, and threads. What may not: the reactor, readiness, or
//! anything that does not block. In reading order: this file, `connection`, `shared`.
//!
//! ```
//! use echo_reactor::Limits;
//! use echo_reactor::blocking::{Model, Server};
//! use echo_reactor::net::BindOptions;
//! use std::io::{Read, Write};
//!
//! let address = "127.0.0.1:0".parse()?;
//! let server = Server::bind(Model::ThreadPerConnection, &[address], Limits::default(), &BindOptions::default())?;
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
//! # How a thread that is blocked is stopped
//!
//! By [`shutdown(2)`](https://man7.org/linux/man-pages/man2/shutdown.2.html) on the socket that it is blocked in, from
//! the outside: a read then returns what had arrived and after that EOF, a write fails, and on Linux an `accept` returns
//! `EINVAL`, on TCP and Unix sockets alike, in every thread, whether it is in the call or about to enter it.
//!
//! The roads not taken. Connecting to oneself is what portable programs do to wake `accept`; it needs a free place in
//! the accept queue, a route to the own address and the permission to use the socket file, and wakes one thread for each
//! connect. A second descriptor in a `poll(2)` before every read doubles the system calls of each echo. A timeout that
//! looks at a flag now and then wakes ten thousand idle threads for nothing. And a signal needs `unsafe`.
//!
//! It has two prices. Other systems answer `shutdown` of a listener with `ENOTCONN`, and not all of them wake its
//! threads: there a stop may wait for one more client. And a socket that was shut both ways answers later bytes with a
//! reset (RFC 1122, 4.2.2.13), so this server cannot linger as the event loop does
//! ([`Limits::fin_timeout`](crate::Limits::fin_timeout)): a client that sends on while we drain may lose echoes
//! that are still on their way.

mod connection;
mod error;
mod shared;
#[cfg(test)]
mod tests;

pub use error::StartError;

use crate::limits::{Limits, OverloadPolicy};
use crate::net::accept::{self, AcceptError, RetryDelay};
use crate::net::{
    Address, BindOptions, BoundSocket, Endpoint, Peer, Resolved, bind_all, bind_resolved, trace,
};
use crate::stats::{CloseReason, Stats};
use connection::Stream;
use shared::Shared;
use std::io;
use std::sync::Arc;
use std::thread::{self, Scope};

/// About how many threads this process can have, and what says so; `None` where the system does not tell.
///
/// A thread needs four places in the process's map of memory: its stack and the page that guards it, and the same again
/// for the stack on which signals are handled. The map has 65,530 places unless somebody has changed that (sysctl
/// vm.max_map_count), so most machines stop at 16,000 threads, whatever memory they have; and std cannot do without the
/// second stack: a thread that does not get it takes the process with it. So the bound must be kept, not tried.
#[must_use]
pub fn threads_max() -> Option<(usize, &'static str)> {
    const MAPS_OF_A_THREAD: usize = 4;
    // The program, its libraries, and the heaps that many threads make the allocator open.
    const OTHER_MAPS: usize = 1_024;
    let number = |path: &str| {
        std::fs::read_to_string(path)
            .ok()?
            .trim()
            .parse::<usize>()
            .ok()
    };
    let maps = number("/proc/sys/vm/max_map_count");
    let bounds = [
        (
            maps.map(|maps| maps.saturating_sub(OTHER_MAPS) / MAPS_OF_A_THREAD),
            "vm.max_map_count",
        ),
        (number("/proc/sys/kernel/threads-max"), "kernel.threads-max"),
        (number("/proc/sys/kernel/pid_max"), "kernel.pid_max"),
    ];
    let bounds = bounds
        .into_iter()
        .filter_map(|(most, why)| Some((most?, why)));
    bounds.min_by_key(|&(most, _)| most)
}

/// How clients share the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Model {
    /// They take turns: a client is served until it leaves, and the next one waits in the accept queue.
    Iterative,
    /// Each has a thread.
    ThreadPerConnection,
}

/// A server that is bound, and serves once [`Server::run`] is called.
#[derive(Debug)]
pub struct Server {
    model: Model,
    listeners: Vec<Arc<BoundSocket>>,
    shared: Arc<Shared>,
}

/// Ends a server from another thread, and reads its counters. It may outlive the server.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Server {
    /// Binds every address and listens: clients may connect from now on, and are served once [`Server::run`] is called.
    ///
    /// # Errors
    /// The first thing that did not work; nothing stays bound then.
    pub fn bind(
        model: Model,
        addresses: &[Address],
        limits: Limits,
        options: &BindOptions,
    ) -> Result<Self, StartError> {
        Self::check(addresses, &limits)?;
        let bound = bind_all(addresses, options).map_err(StartError::Bind)?;
        Self::new(model, bound, limits)
    }

    /// The same for addresses whose names have been resolved already.
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

    /// Refuses what needs the event loop, before anything is bound.
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
            listeners: bound.into_iter().map(Arc::new).collect(),
            shared: Arc::new(Shared::new(limits)),
        })
    }

    /// The bound endpoints, with the ports that the system chose, in the order in which they were named.
    #[must_use]
    pub fn addresses(&self) -> Vec<Endpoint> {
        let endpoint = |bound: &Arc<BoundSocket>| bound.endpoint.clone();
        self.listeners.iter().map(endpoint).collect()
    }

    /// A handle to end it with.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Serves until a [`Handle`] ends it, and returns the counters when every thread is done and every socket closed.
    ///
    /// # Errors
    /// The first threads could not be had; or every listener broke, which is the last one's error. An error of one
    /// connection ends that connection, and only that one.
    pub fn run(self) -> io::Result<Stats> {
        let Self {
            model,
            listeners,
            shared,
        } = self;
        shared.guard(&listeners);
        match model {
            Model::Iterative => iterative(&shared, &listeners[0])?,
            Model::ThreadPerConnection => thread_per_connection(&shared, listeners)?,
        }
        Ok(shared.stats())
    }
}

impl Handle {
    /// Finish what is unsent, then stop: nobody new is accepted, and every client gets what had arrived from it echoed and
    /// is then closed ([`CloseReason::ShutDown`]). Who is still there after [`Limits::drain_timeout`] is cut ([`CloseReason::Aborted`]).
    /// It returns at once; [`Server::run`] returns when it is done.
    pub fn drain(&self) {
        self.shared.drain();
    }

    /// Stops at once: every connection is cut ([`CloseReason::Aborted`]), and whatever it was unsent is discarded.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// The counters so far. It knows how many connections are live, and the bytes of those that have ended: a thread tells
    /// what it has counted when it is done, since to tell at every echo would be to share.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }
}

/// The tutorial's server, in the thread that called. A second thread only waits for the end: this one will be blocked in
/// a client when the time to drain it is over.
fn iterative(shared: &Shared, listener: &Arc<BoundSocket>) -> io::Result<()> {
    let mut read_buffer = vec![0; shared.limits.read_buffer_bytes];
    thread::scope(|scope| {
        let watch = thread::Builder::new().name("drain".into());
        (watch.spawn_scoped(scope, || shared.conclude())).inspect_err(|_| shared.stop())?;
        accept_clients(shared, listener, |client| {
            client.serve(shared, &mut read_buffer);
        })
    })
}

/// One thread accepts at each listener and gives every client a thread of its own; the one that called waits for the end.
///
/// The threads are scoped rather than free: the scope counts them, and does not end before all of them have. Handles to
/// join would have to be collected, one for each connection there ever was.
fn thread_per_connection(shared: &Shared, listeners: Vec<Arc<BoundSocket>>) -> io::Result<()> {
    thread::scope(|scope| {
        let mut acceptors = Vec::new();
        for listener in listeners {
            let accept = move || {
                let serve = |client| serve_in_thread(shared, scope, client);
                accept_clients(shared, &listener, serve)
                // Here the last `Arc` of the listener goes, which closes it and removes its file.
            };
            let acceptor = thread::Builder::new().name("accept".into());
            let acceptor = (acceptor.spawn_scoped(scope, accept)).inspect_err(|_| shared.stop())?;
            acceptors.push(acceptor);
        }
        shared.conclude();
        let ended = acceptors.into_iter().filter_map(|one| one.join().ok());
        // One good end is a good end: a listener broke, but the others served on until somebody stopped us.
        ended.reduce(Result::or).unwrap_or(Ok(()))
    })
}

/// A client that has entered the register, under this number.
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
        shared.leave(self.number, reason, own);
    }
}

fn serve_in_thread<'scope>(
    shared: &'scope Shared,
    scope: &'scope Scope<'scope, '_>,
    client: Client,
) {
    let number = client.number;
    // The buffer comes from the heap, not from the stack, whose size is a limit of its own. Zeroed memory that is fresh
    // from the system is not touched until a client fills it: who never speaks costs little more than the thread.
    let serve = move || client.serve(shared, &mut vec![0; shared.limits.read_buffer_bytes]);
    let thread = thread::Builder::new().stack_size(shared.limits.thread_stack_bytes);
    if let Err(error) = thread.spawn_scoped(scope, serve) {
        // The client went with the closure, but for its place in the register. Whoever comes next would fare no better,
        // so the rest wait in the accept queue, where they are not lost.
        shared.leave(number, CloseReason::OutOfMemory, Stats::default());
        shared.warn(format_args!(
            "a client had to be closed for want of a thread: {error}"
        ));
        shared.pause();
    }
}

/// Accepts until the server ends, with `Ok`, or the listener breaks.
fn accept_clients(
    shared: &Shared,
    listener: &Arc<BoundSocket>,
    mut serve: impl FnMut(Client),
) -> io::Result<()> {
    let mut delay = RetryDelay::default();
    while shared.wait_below_limit() {
        let (stream, peer) = match Stream::accept(listener) {
            Ok((stream, peer)) => {
                delay.succeeded();
                (Arc::new(stream), peer)
            }
            Err(error) => {
                let serving = shared.count_accept_error(&error);
                match accept::classify(&error) {
                    _ if !serving => break,
                    // A listener that blocks has nothing to say of an empty queue, so this is an error like the others.
                    verdict @ (AcceptError::Connection
                    | AcceptError::WouldBlock
                    | AcceptError::Unknown) => {
                        let first = shared.limits.accept_retry;
                        if let Some(pause) = delay.failed(1, verdict, first) {
                            let endpoint = &listener.endpoint;
                            shared.warn(format_args!("{endpoint} rests for {pause:?}: {error}"));
                            shared.pause_for(pause);
                        }
                    }
                    AcceptError::Resources(remedy) => {
                        shared.warn(format_args!(
                            "accept on {} pauses: {error}: {remedy}",
                            listener.endpoint
                        ));
                        shared.pause();
                    }
                    AcceptError::Listener => {
                        log::error!("accept on {} ends: {error}", listener.endpoint);
                        shared.lose(listener);
                        return Err(error);
                    }
                }
                continue;
            }
        };
        let Some(number) = shared.enter(&stream) else {
            break;
        };
        trace::log_connected(&peer);
        serve(Client {
            number,
            stream,
            peer,
        });
    }
    Ok(())
}
