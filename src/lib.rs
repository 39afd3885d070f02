//! A hand-written echo server: one thread, one event loop, edge-triggered epoll through [mio], no async/await, and the
//! blocking version beside it to compare with.
//!
//! It answers over TCP and UDP, IPv4 and IPv6, and over Unix sockets of both kinds, all from one process. It is made to
//! be read (start with the [`guide`]), to be measured against, and to be embedded: without default features it needs
//! mio, slab, log, socket2 and libc, and nothing else. Two features are for programs that embed it: `timerfd` and
//! `pktinfo`, by nix.
//!
//! ```text
//!                 wait                 next_event                 on_ready            advance
//!   kernel ─────────────▶ Reactor ───────────────▶ echo::Server ──────────▶ Connection ────────▶ kernel
//!     ▲      who is ready   │ slots, run queue,        │ limits, accept,       │ read into the read buffer,
//!     │                     │ deadlines                │ drain, counters         │ write at once,
//!     │                     │                          │                       │ keep the rest: the tail
//!     └─────── want ◀───────┴───────── Wait(Reading | Writing | Lingering) ◀───┘
//! ```
//!
//! # Serve
//!
//! ```no_run
//! use echo_reactor::{Limits, echo::Server};
//!
//! let addresses = ["127.0.0.1:50007".parse()?, "udp://127.0.0.1:50007".parse()?, "unix://@echo".parse()?];
//! Server::bind(&addresses, Limits::default())?.run()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Stop it from another thread, and read its counters
//!
//! ```
//! use echo_reactor::{Limits, Stats, echo::Server, net::Endpoint};
//! use std::io::{Read, Write};
//! use std::net::{Shutdown, TcpStream};
//!
//! let mut server = Server::bind(&["127.0.0.1:0".parse()?], Limits::default())?;
//! let Endpoint::Tcp(address) = server.addresses()[0] else { unreachable!("it was asked for TCP") };
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
//! handle.drain(); // finish what is unsent, then stop; `handle.stop()` would cut
//! let stats = running.join().unwrap()?;
//! assert_eq!((stats.accepted, stats.bytes_in, stats.bytes_out), (1, 13, 13));
//! assert_eq!(stats.check_invariants(), Ok(()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # One turn at a time
//!
//! A turn waits no longer than it is told to, so that whoever has other things to do in the same thread gets to them.
//!
//! ```
//! use echo_reactor::{Limits, echo::{Server, Turn}};
//! use std::time::Duration;
//!
//! let mut server = Server::bind(&["127.0.0.1:0".parse()?], Limits::default())?;
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
//! The server's event queue is a descriptor. From the first time that it is taken it is readable whenever a turn is due: a
//! source is ready, the last turn left work behind, a deadline has come (with the feature `timerfd`), another thread gave
//! an order, or the server has finished. Each of these is a new edge, too. So register it, level-triggered or
//! edge-triggered, and give the server **one turn for each readiness**; a loop around the turns would starve the other
//! sources of yours for as long as clients send. When a turn returns [`Turn::Finished`](echo::Turn::Finished) the server
//! needs no more, and its descriptor stays readable.
//!
//! Without the feature `timerfd` the descriptor does not tell of deadlines. Wait no longer then than
//! [`timeout`](echo::Server::timeout) says, and give a turn when it is zero, as here; with the feature, `None` would do.
//!
//! ```
//! use echo_reactor::{Limits, echo::{Server, Turn}, net::Endpoint};
//! use mio::{Events, Interest, Poll, Token, unix::SourceFd};
//! use std::io::{Read, Write};
//! use std::os::fd::AsRawFd;
//! use std::time::Duration;
//!
//! const SERVER: Token = Token(0);
//! let mut server = Server::bind(&["127.0.0.1:0".parse()?], Limits::default())?;
//! let Endpoint::Tcp(address) = server.addresses()[0] else { unreachable!("it was asked for TCP") };
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
//! The server lowers its limit of connections to the descriptors that the process has left when it starts, and keeps
//! [`Limits::descriptors_reserved`] free for the rest of the program ([`Config::fit_descriptors`](echo::Config::fit_descriptors)).
//!
//! # On sockets that exist already, and over to another server
//!
//! A service manager's sockets, or those of a server that is to be replaced: [`net::BoundSocket::from_fd`] takes them as owned
//! descriptors. The accept queue belongs to the socket, so that nobody is refused while one server takes over from another,
//! in this process or, as `echo-reactor serve` does on SIGUSR2, in a new one.
//!
//! ```
//! use echo_reactor::{Limits, echo::{Server, Turn}, net::BoundSocket};
//!
//! let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! let address = listener.local_addr()?;
//! let mut old = Server::with_sockets(vec![BoundSocket::from_fd(listener)?], Limits::default())?;
//!
//! let sockets = old.try_clone_listeners()?.into_iter().map(|(copy, _)| BoundSocket::from_fd(copy)).collect::<Result<_, _>>()?;
//! let mut new = Server::with_sockets(sockets, Limits::default())?;
//! old.detach_listeners(); // it serves on whoever is inside, and accepts nobody more
//! assert_eq!(old.turn(None)?, Turn::Finished);
//!
//! let _client = std::net::TcpStream::connect(address)?;
//! while new.stats().accepted == 0 {
//!     new.turn(None)?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The rooms, in reading order
//!
//! | room | what may live there |
//! |---|---|
//! | [`guide`] | the journey of one byte, and where beginners slip; no code |
//! | [`limits`] | every bound: unit, default, reason |
//! | [`stats`] | the counters: counters that must balance |
//! | [`net`] | what a socket is: addresses, binding, accepting, streams, datagrams |
//! | [`reactor`] | who is ready, in what order, and whose time is over; no bytes |
//! | [`echo`] | the server: whose bytes go where, and who has to wait |
//! | [`blocking`] | the blocking models: one client at a time, and a thread for each |
#![cfg_attr(
    feature = "bench",
    doc = "| [`load`] | the load generator, on the same reactor: clients, pace, record, verdict |"
)]
#![cfg_attr(
    feature = "cli",
    doc = "| [`cli`] | the program: what was typed, and what it means |"
)]
//!
//! Who may know whom: `limits`, `stats`, `net` and `reactor` know nobody; `echo` knows these four; `blocking` knows all
//! of them but the reactor; `load` knows `reactor`, `net` and `limits`, and never `echo`, since it must be able to test any
//! echo server; `cli` knows everybody, and nobody knows it. mio is named in `net` and `reactor` alone, slab in
//! `reactor` alone. A test reads the sources and holds this.
//!
//! # What always holds
//!
//! - **Every byte comes back once and in order, or its loss is counted with a reason**: bytes in = bytes out + unsent +
//!   discarded, and accepted = live + closed ([`Stats::check_invariants`](stats::Stats::check_invariants)).
//! - **Nothing is read while something is unsent**, so that a connection holds at most one read buffer of memory, and an idle
//!   one none at all ([`echo::connection`]).
//! - **One state, one interest, one deadline**: a connection waits to read or to write, never for both, and is registered
//!   anew only when that changes ([`reactor::Registration`]).
//! - **Every edge is drained, or queued**: nobody will report it again ([`reactor`]).
//! - **A key that is outdated harms nobody** ([`reactor::Key`]).
//! - **A turn has an end**: so many sources, and so many bytes of each. No order, new connection or deadline waits for longer
//!   ([`reactor`]).
//! - **A limit slows, it never switches the service off** ([`echo::accept_gate`]).
//! - **An error ends one connection**, in one place, with one reason ([`stats::CloseReason`]).
//! - **Time is read once a turn**, and nobody is called idle before what they had sent is heard ([`reactor::Reactor`]).
//!
//! # Platforms
//!
//! Linux is the platform. What only Linux has is behind `cfg`, with a fallback: abstract names are refused elsewhere,
//! connections that do not inherit TCP_NODELAY get it one by one, urgent data is not announced, and errors of `accept`
//! that have no portable name pause the listener. Other Unixes that mio and std know should compile; none is tested.
//! Windows is not supported.

pub mod blocking;
#[cfg(feature = "cli")]
pub mod cli;
pub mod echo;
pub mod guide;
pub mod limits;
#[cfg(feature = "bench")]
pub mod load;
pub mod net;
mod procfs;
pub mod reactor;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
pub mod stats;

pub use limits::Limits;
pub use stats::Stats;
