//! An echo server on one thread and one event loop: edge-triggered epoll(7) through [mio], written by hand, without
//! async/await.
//!
//! It echoes over TCP and UDP, IPv4 and IPv6, and Unix sockets of both kinds, from one process. It is made to be read
//! (begin with the [`guide`]), to be measured against, and to be embedded. Without default features the library needs mio,
//! slab, log, socket2 and libc, and nothing else. Three features are for programs that embed it: `timerfd`, `pktinfo` and
//! `long-reads`, by nix.
//!
//! ```text
//!              epoll_wait             next_event                 on_ready            advance
//!   kernel ────────────────▶ Reactor ────────────▶ echo::Server ──────────▶ Connection ──────▶ kernel
//!     ▲       ready list       │ paged slab,            │ limits, accept,        │ read into the read buffer,
//!     │                        │ run queue,             │ shutdown,              │ write at once,
//!     │                        │ timeouts               │ counters               │ store the rest: the write buffer
//!     └──── interest list ◀────┴──── waits_for: Reading | Writing | Lingering ◀───┘
//! ```
//!
//! # Serve
//!
//! ```no_run
//! use echo_reactor::{Limits, echo::Server};
//!
//! let addresses = ["127.0.0.1:50007", "udp://127.0.0.1:50007", "unix://@echo"];
//! Server::bind(addresses, Limits::default())?.run()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # In a thread of its own
//!
//! [`Server::run`](echo::Server::run) takes the thread that calls it. A [`Handle`](echo::Handle) reads the counters and stops
//! the server from any other thread.
//!
//! ```
//! use echo_reactor::{Limits, Stats, echo::Server, net::Endpoint};
//! use std::io::Write;
//! use std::net::{Shutdown, TcpStream};
//! use std::time::Duration;
//!
//! let mut server = Server::bind(["127.0.0.1:0"], Limits::default())?;
//! let Endpoint::Tcp(address) = server.addresses()[0] else { unreachable!("TCP was asked for") };
//! let handle = server.handle();
//! let running = std::thread::spawn(move || -> std::io::Result<Stats> {
//!     server.run()?;
//!     Ok(server.stats().clone())
//! });
//!
//! let mut client = TcpStream::connect(address)?;
//! client.write_all(b"Hello, world!")?;
//! client.shutdown(Shutdown::Write)?;
//! assert_eq!(std::io::read_to_string(client)?, "Hello, world!");
//!
//! let stats = handle.stats(Duration::from_secs(5)).expect("the loop answers within a turn");
//! assert_eq!((stats.accepted, stats.bytes_in, stats.bytes_out), (1, 13, 13));
//!
//! handle.drain(); // sends what is unsent, then stops; `handle.stop()` aborts the connections
//! let stats = running.join().unwrap()?;
//! assert_eq!(stats.check_invariants(), Ok(()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # One turn at a time
//!
//! A turn waits no longer than it is told to, so that the thread has time for other work.
//!
//! ```
//! use echo_reactor::{Limits, echo::{Server, Turn}};
//! use std::time::Duration;
//!
//! let mut server = Server::bind(["127.0.0.1:0"], Limits::default())?;
//! for _ in 0..3 {
//!     assert_eq!(server.turn(Some(Duration::from_millis(1)))?, Turn::Serving);
//! }
//! server.drain();
//! assert_eq!(server.turn(None)?, Turn::Finished);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # In another event loop
//!
//! The server's epoll instance is a descriptor ([`AsFd`](std::os::fd::AsFd) of [`Server`](echo::Server)). After it has been
//! taken for the first time it is readable whenever a turn is due: a source is ready, the last turn left work in the run
//! queue, a timeout has passed (with the feature `timerfd`), another thread has given a command, or the server has
//! finished. Each of these is a new edge, too. So register it, level-triggered or edge-triggered, and give the server **one
//! turn for each readiness**; a loop around the turns would starve the other sources for as long as clients send. When a
//! turn returns [`Turn::Finished`](echo::Turn::Finished) the server needs no more turns, and its descriptor stays readable.
//!
//! Without the feature `timerfd` the descriptor does not tell of timeouts. The outer loop then waits no longer than
//! [`timeout`](echo::Server::timeout) says, and gives a turn when that is zero, as here; with the feature, `None` would do.
//!
//! ```
//! use echo_reactor::{Limits, echo::{Server, Turn}, net::Endpoint};
//! use mio::{Events, Interest, Poll, Token, unix::SourceFd};
//! use std::io::{Read, Write};
//! use std::os::fd::AsRawFd;
//! use std::time::Duration;
//!
//! const SERVER: Token = Token(0);
//! let mut server = Server::bind(["127.0.0.1:0"], Limits::default())?;
//! let Endpoint::Tcp(address) = server.addresses()[0] else { unreachable!("TCP was asked for") };
//! let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(8));
//! poll.registry().register(&mut SourceFd(&server.as_raw_fd()), SERVER, Interest::READABLE)?;
//!
//! let mut client = std::net::TcpStream::connect(address)?;
//! client.write_all(b"hi")?;
//! loop {
//!     poll.poll(&mut events, server.timeout())?;
//!     let is_due = events.iter().any(|event| event.token() == SERVER) || server.timeout() == Some(Duration::ZERO);
//!     if is_due && server.turn(Some(Duration::ZERO))? == Turn::Finished {
//!         break;
//!     }
//!     // Other events of this loop are handled here.
//!     if server.stats().bytes_out == 2 {
//!         server.drain();
//!     }
//! }
//! let mut back = [0; 2];
//! client.read_exact(&mut back)?;
//! assert_eq!(&back, b"hi");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! At its start the server lowers its limit of connections to the descriptors that the process has left, and keeps
//! [`Limits::descriptors_reserved`] free for the rest of the program ([`Config::fit_descriptors`](echo::Config::fit_descriptors)).
//!
//! # On sockets that exist already, and over to another server
//!
//! Sockets of std, of a service manager, or of a server that is to be replaced become a [`net::BoundSocket`], by `TryFrom` or
//! by [`from_fd`](net::BoundSocket::from_fd). The accept queue belongs to the socket. So no client is refused while one
//! server takes over from another, in this process or, as workers of `echo-reactor serve` do on SIGUSR2, in a new one.
//!
//! ```
//! use echo_reactor::{Limits, echo::{Server, Turn}, net::BoundSocket};
//!
//! let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! let address = listener.local_addr()?;
//! let mut old = Server::with_sockets(vec![listener.try_into()?], Limits::default())?;
//!
//! let sockets = old.try_clone_listeners()?.into_iter().map(|(copy, _)| BoundSocket::from_fd(copy)).collect::<Result<_, _>>()?;
//! let mut new = Server::with_sockets(sockets, Limits::default())?;
//! old.detach_listeners(); // it serves its open connections on, and accepts no more
//! assert_eq!(old.turn(None)?, Turn::Finished);
//!
//! let _client = std::net::TcpStream::connect(address)?;
//! while new.stats().accepted == 0 {
//!     new.turn(None)?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is promised
//!
//! A release changes these only as semantic versioning allows: [`echo`] with `Server`, `Config`, `Handle`, `Turn`,
//! `StartError` and `AccessList`; [`limits`]; [`stats`]; [`net`] with addresses, endpoints, bound sockets, their options and
//! their errors; [`blocking`]. They name types of std alone. What will grow is `#[non_exhaustive]`, and a feature adds items
//! but changes none. `tests/it/public_api.txt` records them, and a test compares that with the sources.
//!
//! All else is public for readers of this documentation, and each page says so under **Unpromised**: [`reactor`], the parts
//! of the server ([`echo::connection`], [`echo::write_buffer`]), the sockets behind [`net`], and what belongs to the program.
//!
//! # What is logged
//!
//! By the `log` crate, each line under the module that writes it. Nothing is logged for an echo.
//!
//! | target | level | lines |
//! |---|---|---|
//! | `echo_reactor::echo` and below | error | the last listener is lost; a listener is closed |
//! | | warn | accepting pauses, a listener rests, a connection is rejected (at most one line in some seconds; the rest is counted in [`Stats::log_suppressed`](stats::Stats::log_suppressed)) |
//! | | info | the limit of connections was lowered to the descriptors that are left |
//! | | debug | a connection ended with an error; a datagram could not be answered |
//! | `echo_reactor::net` and below | warn, debug | an endpoint was left out, since there is no IPv6; a socket option could not be set |
//! | `echo_reactor::reactor` and below | error | an outer event loop cannot be told of work or of timeouts |
//! | `echo_reactor::trace` | trace | each new connection, and the bytes of each read, escaped |
//!
//! # The modules
//!
//! | module | what may live there |
//! |---|---|
//! | [`guide`] | how it works and where beginners slip; no code |
//! | [`limits`] | every bound: unit, default, reason |
//! | [`stats`] | the counters, and the equations that they keep |
//! | [`net`] | sockets: addresses, binding, accepting, streams, datagrams |
//! | [`reactor`] | which source is ready, in which order, and whose timeout has passed; no bytes |
//! | [`echo`] | the server: whose bytes go where, and what has to wait |
//! | [`blocking`] | the blocking models: one client at a time, and one thread for each |
#![cfg_attr(
    feature = "bench",
    doc = "| [`load`] | the load generator on the same reactor: clients, schedule, metrics, validity |"
)]
#![cfg_attr(
    feature = "check",
    doc = "| [`check`] | the conformance checker: rules that any echo server can be judged by |"
)]
#![cfg_attr(
    feature = "trace",
    doc = "| [`trace`](crate::trace) | what the loop did, as events: recorded, written, read back and told in words |"
)]
#![cfg_attr(
    feature = "simulation",
    doc = "| [`simulation`] | the server on a network in memory: everything follows from a seed |
| [`fuzz_targets`] | properties of any input bytes, for cargo-fuzz |"
)]
#![cfg_attr(
    feature = "cli",
    doc = "| [`cli`] | the program: what was typed, and what it means |"
)]
//!
//! Four private modules serve them: `procfs` alone reads /proc and /sys, `random` makes random numbers, `settings` keeps
//! the environment variables of this program from those that it starts, and `faults` makes a server that is late or stands
//! still to order.
//!
//! `stats` and `reactor` import no other module, and `net` none but `limits`; `echo` imports these four; `blocking` imports
//! them without the reactor; `load` imports `reactor`, `net` and `limits`, `check` imports `load`, `reactor` and `net`, and
//! neither imports `echo`, since they have to work on any echo server; `trace` imports `echo`, whose calls it records, with the
//! traits of `net` and `reactor` that it wraps; `faults` the same; `simulation` imports `echo` and what it imports, and `trace`; `cli` imports all
//! but the simulation, and is imported by none. mio is named in `net` and `reactor` alone, slab in `reactor`
//! alone. A test reads the sources and holds this.
//!
//! **Reading order**: [`guide`]; `src/reactor/epoll.rs`, the only file that calls epoll; [`reactor`] (`src/reactor.rs`), with
//! `sources.rs`, `paged_slab.rs` and `timeouts.rs` below it; [`echo`] and `src/echo/server.rs`, the loop; [`echo::connection`],
//! [`echo::write_buffer`]; `src/echo/accept.rs`, [`echo::datagram`], `src/echo/shutdown.rs`; [`blocking`]; and last
//! `src/simulation.rs`, the network on which the tests run the same server.
//!
//! **The path of one echo** is five files, in this order:
//!
//! 1. `src/reactor/epoll.rs`: `Epoll::wait` calls epoll_wait(2), and hands on the token and readiness of each event.
//! 2. `src/reactor.rs`: `Reactor::wait` puts them into the turn, and `next_event` takes them out one by one.
//! 3. `src/echo/server.rs`: `Server::turn` takes the event, and `on_ready` finds the connection that its key names.
//! 4. `src/echo/connection.rs`: `Connection::advance` reads into the read buffer and writes back, until a read would block.
//! 5. `src/net/stream.rs`: `StreamSocket` makes the two system calls, read(2) and write(2).
//!
//! # Glossary
//!
//! First the words of epoll(7) and tcp(7), then those of this library.
//!
//! - **interest list**: the descriptors that an epoll instance watches, each with the events that were asked for.
//! - **ready list**: those of them that have something to report; epoll_wait(2) takes from its head.
//! - **readiness**: a call would not block now: `EPOLLIN` for read or accept, `EPOLLOUT` for write.
//! - **level-triggered**: epoll_wait reports readiness for as long as it lasts.
//! - **edge-triggered** (`EPOLLET`): epoll_wait reports readiness once for each change, such as bytes that arrive.
//! - **spurious event**: an event after which the first call would block all the same.
//! - **stale event**: an event of a source that was closed earlier in the same turn.
//! - **short read**: a read that fills less than the buffer: with TCP the socket is then empty.
//! - **half-close**: one side has sent its FIN and still reads; **FIN**: the end of one direction, read as 0 bytes.
//! - **RST**: the reset of a connection, which discards what is under way.
//! - **accept queue**: connections that the kernel has completed and accept(2) has not taken; **backlog**: its length.
//! - **backpressure**: a peer that does not read fills the buffers, so that its own sending comes to a halt.
//! - **starvation**: a source waits without end because another one is always ready.
//! - **turn**: one iteration of the loop: one epoll_wait, and the events that it reported.
//! - **source**: what is registered with the reactor: a connection, a listener or a datagram socket.
//! - **budget**: the bytes, connections or datagrams that one source may have in one turn.
//! - **run queue**: sources that used up their budget, for the next turn: no new edge will report them.
//! - **key**: slot and **generation** of a source; the generation tells it from an earlier source in the same slot.
//! - **registration**: the one interest (read or write) and the one timeout class of a source.
//! - **unsent bytes**: bytes read and not yet written back; they are in the connection's **write buffer**.
//! - **linger**: after the server's own FIN, read and discard until the peer's FIN or the FIN timeout.
//! - **drain**: graceful shutdown: serve what is queued, send what is unsent, close.
//!
//! # What always holds
//!
//! - **Every byte comes back once and in order, or its loss is counted with a reason**: bytes in = bytes out + unsent +
//!   discarded (less what answers to requests add, where they take the place of echoes), and accepted = open + closed
//!   ([`Stats::check_invariants`](stats::Stats::check_invariants)).
//! - **Nothing is read while bytes are unsent**, so that a connection holds at most one read buffer of memory, and an idle
//!   one none at all ([`echo::connection`]).
//! - **One state, one interest, one timeout**: a connection waits to read or to write, never for both, and is registered
//!   anew only when that changes ([`reactor::Registration`]).
//! - **After an event a source is read until it would block, or put into the run queue**: the edge is not reported again
//!   ([`reactor`]).
//! - **A stale key finds nothing** ([`reactor::Key`]).
//! - **A turn has an end**: so many sources, and so many bytes of each. No command, new connection or timeout waits longer
//!   ([`reactor`]).
//! - **A limit slows; it never switches the service off** ([`echo::accept_gate`]).
//! - **An error ends one connection**, in one place, with one reason ([`stats::CloseReason`]).
//! - **The clock is read once a turn**, and no connection is closed as idle before its pending bytes are read
//!   ([`reactor::Reactor`]).
//!
//! # Platforms
//!
//! Linux is the platform. What only Linux has is behind `cfg`, with a fallback: abstract names are refused elsewhere,
//! connections that do not inherit TCP_NODELAY get it one by one, urgent data is not announced, and errors of `accept`
//! that have no portable name pause the listener. Other Unixes that mio and std know should compile; none is tested.
//! Windows is not supported.

pub mod blocking;
#[cfg(feature = "check")]
pub mod check;
#[cfg(feature = "cli")]
pub mod cli;
pub mod echo;
#[cfg(feature = "cli")]
mod faults;
#[cfg(any(test, feature = "simulation"))]
pub mod fuzz_targets;
pub mod guide;
pub mod limits;
#[cfg(feature = "bench")]
pub mod load;
pub mod net;
mod procfs;
mod random;
pub mod reactor;
#[cfg(any(feature = "check", feature = "cli"))]
mod settings;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
pub mod stats;
#[cfg(feature = "trace")]
pub mod trace;

pub use limits::Limits;
pub use stats::Stats;
