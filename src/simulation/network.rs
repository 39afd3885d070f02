//! A simulated operating system: sockets, an edge-triggered event queue, and a clock, all driven by one seed.
//!
//! It keeps the promises of the kernel and breaks everything that the kernel does not promise. An edge is reported once,
//! after something has arrived or the registration has changed, and only if the socket is still ready by then. Events come
//! in any order; some are spurious, some late, some stale. Calls are interrupted, transfer fewer bytes than asked for, or
//! fail. Descriptors are limited, and the clock jumps.
//!
//! This file holds the mechanism and its knobs; what clients do, and what they must receive, is in `seeds`.

mod sockets;

pub(crate) use sockets::{Handle, OnNetwork, Simulated};

use crate::random::Random;
use crate::reactor::{Interest, Readiness, Selector, Token};
use std::cell::{RefCell, RefMut};
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Probability of each fault, in thousandths. Each seed draws a value for each knob.
#[derive(Clone, Debug, Default)]
pub(crate) struct Knobs {
    pub(crate) interrupted: u64,
    pub(crate) short_write: u64,
    pub(crate) short_read: u64,
    pub(crate) broken: u64,
    pub(crate) would_block_for_nothing: u64,
    pub(crate) spurious_event: u64,
    pub(crate) stale_event: u64,
    pub(crate) late_event: u64,
    /// One source is reported twice in a batch: by the second event it may have been closed, and its slot reused.
    pub(crate) double_event: u64,
    pub(crate) wait_interrupted: u64,
    pub(crate) accept_error: u64,
    pub(crate) register_error: u64,
    pub(crate) deregister_error: u64,
    pub(crate) shutdown_error: u64,
    /// Capacity of the event buffer: the most events that one wait reports.
    pub(crate) events_max: usize,
    /// Send buffer: the bytes that the kernel takes for a peer that does not read.
    pub(crate) window_bytes: usize,
    /// Number of descriptors for connections.
    pub(crate) descriptors: usize,
    /// Socket options that cannot be set on an accepted connection.
    pub(crate) option_errors: u32,
    /// Time that passes between two readings of the clock.
    pub(crate) tick: Duration,
}

#[cfg(test)]
impl Knobs {
    /// A network without faults, and with room in all of it: a test adds what it is about.
    pub(crate) fn roomy() -> Self {
        Self {
            events_max: 1_024,
            window_bytes: 16 << 20,
            descriptors: 10_000,
            ..Self::default()
        }
    }
}

/// The faults that are there, and the sizes, for the story of a seed.
impl fmt::Display for Knobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults = [
            ("interrupted calls", self.interrupted),
            ("short writes", self.short_write),
            ("short reads", self.short_read),
            ("broken connections", self.broken),
            (
                "calls that would block for nothing",
                self.would_block_for_nothing,
            ),
            ("spurious events", self.spurious_event),
            ("stale events", self.stale_event),
            ("late events", self.late_event),
            ("double events", self.double_event),
            ("interrupted waits", self.wait_interrupted),
            ("failed accepts", self.accept_error),
            ("failed registrations", self.register_error),
            ("failed deregistrations", self.deregister_error),
            ("failed shutdowns", self.shutdown_error),
        ];
        write!(f, "the network of this seed, per thousand:")?;
        for (name, share) in faults.iter().filter(|(_, share)| *share > 0) {
            write!(f, " {share} {name},")?;
        }
        write!(
            f,
            " at most {} events a wait, a send buffer of {} bytes, {} descriptors",
            self.events_max, self.window_bytes, self.descriptors
        )
    }
}

/// One of these errors; everything in a simulation follows from the seed.
fn one_of(random: &mut Random, errnos: &[i32]) -> io::Error {
    io::Error::from_raw_os_error(errnos[random.below(errnos.len())])
}

/// State of the simulated kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) random: Random,
    pub(crate) knobs: Knobs,
    pub(crate) now: Instant,
    /// Sockets by number. Unlike the slots of the server, numbers are never reused: they identify a connection.
    pub(crate) sockets: BTreeMap<usize, Socket>,
    next: usize,
    stale_tokens: Vec<Token>,
    /// Connections that were reset in an accept queue when its listener was closed. No counter of the server has them.
    pub(crate) resets_in_queue: usize,
    /// Number of read calls.
    pub(crate) reads: usize,
    /// The calls that fail, for `torture` and `counters`.
    pub(crate) fault: Option<Fault>,
}

/// System calls that the server makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Accept,
    Read,
    Write,
    Shutdown,
    Register,
    Reregister,
    Deregister,
    Wait,
    Receive,
    Answer,
}

/// Calls of one kind fail with an errno.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) call: Call,
    /// Number of calls of this kind that succeed first.
    pub(crate) after: usize,
    /// Number of calls that fail then, one after the other.
    pub(crate) times: usize,
    pub(crate) errno: i32,
    pub(crate) was_injected: bool,
}

#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) kind: Kind,
    registered: Option<(Token, Interest)>,
    /// An edge that has not been reported yet.
    edge: bool,
    /// Waits since then that had no room for it in the event buffer.
    waits_skipped: u32,
    /// Another process has a duplicate of the descriptor, so that closing it here ends neither socket nor registration.
    pub(crate) is_shared: bool,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Listener {
        queue: VecDeque<Wire>,
    },
    Stream(Box<Wire>),
    Datagrams {
        inbox: VecDeque<(Vec<u8>, SocketAddr)>,
        answers: Vec<(Vec<u8>, SocketAddr)>,
        /// The error that ended a call after its first datagram: that of the next call.
        error: Option<io::Error>,
    },
}

/// A connection: the bytes under way in both directions, and what each side has done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wire {
    pub(crate) client: usize,
    pub(crate) to_server: VecDeque<u8>,
    pub(crate) to_client: VecDeque<u8>,
    /// The client has sent FIN.
    pub(crate) client_sent_fin: bool,
    /// The server has sent FIN.
    pub(crate) server_sent_fin: bool,
    /// Error of the next call of the server.
    pub(crate) broken: Option<ErrorKind>,
    /// Whether a short read empties the socket, as on TCP; a Unix socket may have more.
    pub(crate) short_read_means_empty: bool,
    /// A write was short or would have blocked: room in the send buffer will raise an edge.
    pub(crate) waits_for_room: bool,
    /// The server has asked for RST at close (SO_LINGER of 0).
    pub(crate) aborted: bool,
    /// It has been in the interest list, so it was not rejected.
    pub(crate) was_watched: bool,
    /// Address of the client; a Unix socket has none.
    pub(crate) address: Option<SocketAddr>,
    /// Time at which the client last connected or sent.
    pub(crate) last_sent_at: Option<Instant>,
    /// Silence of the client before that.
    pub(crate) silence: Duration,
    pub(crate) last_read_at: Option<Instant>,
}

impl Wire {
    fn is_ready(&self, interest: Interest, window: usize) -> bool {
        self.broken.is_some()
            || match interest {
                Interest::Read => !self.to_server.is_empty() || self.client_sent_fin,
                Interest::Write => self.is_writable(window),
            }
    }

    /// Whether the kernel reports the socket as writable. Some room is not enough: TCP reports it when a third of the send
    /// buffer is free (`sk_stream_is_writeable`), a Unix socket when three quarters are (`unix_writable`).
    fn is_writable(&self, window: usize) -> bool {
        let used = self.to_client.len();
        if self.short_read_means_empty {
            used < window && window - used >= used / 2
        } else {
            4 * used <= window
        }
    }
}

/// The simulated network, shared by the server, the clients and the event queue.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    kernel: Rc<RefCell<Kernel>>,
    /// Connections that the server has closed, until a test takes them.
    closed_wires: Rc<RefCell<Vec<Wire>>>,
}

impl Network {
    pub(crate) fn new(random: Random, knobs: Knobs) -> Self {
        Self {
            kernel: Rc::new(RefCell::new(Kernel {
                random,
                knobs,
                now: Instant::now(),
                sockets: BTreeMap::new(),
                next: 0,
                stale_tokens: Vec::new(),
                resets_in_queue: 0,
                reads: 0,
                fault: None,
            })),
            closed_wires: Rc::default(),
        }
    }

    pub(crate) fn kernel(&self) -> RefMut<'_, Kernel> {
        self.kernel.borrow_mut()
    }

    pub(crate) fn take_closed(&self) -> Vec<Wire> {
        self.closed_wires.take()
    }

    pub(crate) fn selector(&self) -> Queue {
        Queue(self.clone())
    }
}

impl Kernel {
    fn add(&mut self, kind: Kind) -> usize {
        self.next += 1;
        self.sockets.insert(
            self.next,
            Socket {
                kind,
                registered: None,
                edge: false,
                waits_skipped: 0,
                is_shared: false,
            },
        );
        self.next
    }

    /// The connection of a socket of the server.
    pub(crate) fn wire(&mut self, number: usize) -> &mut Wire {
        match &mut self.sockets.get_mut(&number).expect("an open socket").kind {
            Kind::Stream(wire) => wire,
            other => panic!("{other:?} is no stream"),
        }
    }

    /// Iterates over the connections that the server has open.
    pub(crate) fn wires(&self) -> impl Iterator<Item = &Wire> {
        self.sockets
            .values()
            .filter_map(|socket| match &socket.kind {
                Kind::Stream(wire) => Some(&**wire),
                _ => None,
            })
    }

    /// Returns the number of connections that the server has open.
    pub(crate) fn streams(&self) -> usize {
        self.wires().count()
    }

    /// Gives another process duplicates of all listeners and datagram sockets.
    pub(crate) fn share(&mut self) {
        for socket in self.sockets.values_mut() {
            socket.is_shared = !matches!(socket.kind, Kind::Stream(_));
        }
    }

    /// Returns the number of sockets that are open here or, if shared, still in the interest list here.
    pub(crate) fn open_or_watched(&self) -> usize {
        self.sockets
            .values()
            .filter(|socket| !socket.is_shared || socket.registered.is_some())
            .count()
    }

    /// Raises an edge, if the socket is registered for this interest.
    pub(crate) fn touch(&mut self, number: usize, what: Interest) {
        if let Some(socket) = self.sockets.get_mut(&number) {
            socket.edge |= socket
                .registered
                .is_some_and(|(_, interest)| interest == what);
        }
    }

    /// Breaks a connection, which raises an edge for any interest.
    pub(crate) fn break_connection(&mut self, number: usize, how: ErrorKind) {
        self.wire(number).broken = Some(how);
        self.touch(number, Interest::Read);
        self.touch(number, Interest::Write);
    }

    /// A client connects: the connection joins the accept queue.
    pub(crate) fn connect(&mut self, listener: usize, mut wire: Wire) {
        (wire.last_sent_at, wire.last_read_at) = (Some(self.now), Some(self.now));
        let Kind::Listener { queue } =
            &mut self.sockets.get_mut(&listener).expect("a listener").kind
        else {
            panic!("no listener");
        };
        queue.push_back(wire);
        self.touch(listener, Interest::Read);
    }

    /// The client has read bytes, which makes room in the send buffer, and raises an edge if the server waits for it.
    pub(crate) fn consumed(&mut self, number: usize) {
        let window = self.knobs.window_bytes;
        let wire = self.wire(number);
        if wire.waits_for_room && wire.is_writable(window) {
            wire.waits_for_room = false;
            self.touch(number, Interest::Write);
        }
    }

    /// Returns whether the ready list is not empty.
    pub(crate) fn has_edges(&self) -> bool {
        self.sockets.values().any(|socket| {
            socket.edge
                && socket
                    .registered
                    .is_some_and(|(_, interest)| self.is_ready(socket, interest))
        })
    }

    fn is_ready(&self, socket: &Socket, interest: Interest) -> bool {
        match &socket.kind {
            Kind::Listener { queue } => !queue.is_empty(),
            Kind::Stream(wire) => wire.is_ready(interest, self.knobs.window_bytes),
            Kind::Datagrams { inbox, .. } => !inbox.is_empty(),
        }
    }

    fn watch(&mut self, number: usize, token: Token, interest: Interest) {
        let socket = self.sockets.get_mut(&number).expect("an open socket");
        if let Kind::Stream(wire) = &mut socket.kind {
            wire.was_watched = true;
        }
        socket.registered = Some((token, interest));
        socket.edge = true; // EPOLL_CTL_MOD reports present readiness again
    }

    /// Returns the error of the injected fault, if this is its call.
    fn inject_fault(&mut self, call: Call, number: usize) -> io::Result<()> {
        let Some(fault) = self
            .fault
            .as_mut()
            .filter(|fault| fault.call == call && fault.times > 0)
        else {
            return Ok(());
        };
        if fault.after > 0 {
            fault.after -= 1;
            return Ok(());
        }
        fault.was_injected = true;
        fault.times -= 1;
        let error = io::Error::from_raw_os_error(fault.errno);
        if error.kind() == ErrorKind::WouldBlock {
            if let Some(socket) = self.sockets.get_mut(&number) {
                socket.edge = true; // EAGAIN promises another edge
            }
        }
        Err(error)
    }

    fn maybe_fail_to_register(&mut self, number: usize) -> io::Result<()> {
        let is_stream = matches!(self.sockets[&number].kind, Kind::Stream(_));
        if is_stream && self.random.happens(self.knobs.register_error) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC)); // epoll_ctl(2)'s "too many watches"
        }
        Ok(())
    }

    fn late_error(&mut self, number: usize) -> &mut Option<io::Error> {
        match self.sockets.get_mut(&number).map(|socket| &mut socket.kind) {
            Some(Kind::Datagrams { error, .. }) => error,
            _ => panic!("no datagram socket"),
        }
    }

    fn maybe_interrupt(&mut self) -> io::Result<()> {
        if self.random.happens(self.knobs.interrupted) {
            Err(ErrorKind::Interrupted.into())
        } else {
            Ok(())
        }
    }

    fn report(&mut self, mut report: impl FnMut(Token, Readiness)) -> bool {
        let knobs = self.knobs.clone();
        let mut ready: Vec<usize> = Vec::new();
        for (&number, socket) in &self.sockets {
            let Some((_, interest)) = socket.registered else {
                continue;
            };
            if socket.edge && self.is_ready(socket, interest) {
                ready.push(number);
            }
        }
        // The ready list is FIFO; sockets that have waited equally long are reported in any order.
        let waited = |number: &usize| Reverse(self.sockets[number].waits_skipped);
        ready.sort_by_key(waited);
        let next = ready.len().min(knobs.events_max);
        let later = ready.split_off(next);
        let mut twice = Vec::new();
        while !ready.is_empty() {
            let number = ready.swap_remove(self.random.below(ready.len()));
            if self.random.happens(knobs.late_event) {
                continue; // the edge stays, for a later wait
            }
            let socket = self
                .sockets
                .get_mut(&number)
                .expect("it was there just now");
            socket.edge = false;
            socket.waits_skipped = 0;
            let (token, _) = socket.registered.expect("it was registered just now");
            let is_exceptional = match &socket.kind {
                Kind::Stream(wire) => wire.client_sent_fin || wire.broken.is_some(),
                _ => false,
            };
            let readiness = if is_exceptional {
                Readiness::Exceptional
            } else {
                Readiness::Normal
            };
            report(token, readiness);
            if self.random.happens(knobs.double_event) {
                twice.push((token, readiness));
            }
        }
        for (token, readiness) in twice {
            report(token, readiness);
        }
        for number in &later {
            self.sockets
                .get_mut(number)
                .expect("it is ready")
                .waits_skipped += 1;
        }
        self.report_false_events(&mut report);
        later.is_empty()
    }

    /// Reports a spurious event, of a socket that is not ready, and a stale one, of a closed socket.
    fn report_false_events(&mut self, report: &mut impl FnMut(Token, Readiness)) {
        let knobs = self.knobs.clone();
        if self.random.happens(knobs.spurious_event) {
            let registered: Vec<Token> = self
                .sockets
                .values()
                .filter_map(|socket| socket.registered)
                .map(|(token, _)| token)
                .collect();
            if !registered.is_empty() {
                report(
                    registered[self.random.below(registered.len())],
                    Readiness::Normal,
                );
            }
        }
        if self.random.happens(knobs.stale_event) && !self.stale_tokens.is_empty() {
            let old = self.stale_tokens[self.random.below(self.stale_tokens.len())];
            let in_use = self
                .sockets
                .values()
                .any(|socket| socket.registered.is_some_and(|(token, _)| token == old));
            assert!(!in_use, "no two registrations share a token");
            report(old, Readiness::Exceptional);
        }
    }
}

/// The simulated event queue.
#[derive(Debug)]
pub(crate) struct Queue(Network);

impl Selector for Queue {
    type Registry = Network;

    fn registry(&self) -> &Network {
        &self.0
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        report: impl FnMut(Token, Readiness),
    ) -> io::Result<bool> {
        let mut kernel = self.0.kernel();
        kernel.inject_fault(Call::Wait, 0)?;
        let interrupted = kernel.knobs.wait_interrupted;
        if kernel.random.happens(interrupted) {
            return Err(ErrorKind::Interrupted.into());
        }
        if !kernel.has_edges() {
            // Nothing happens during a wait, so it lasts for its whole timeout.
            kernel.now += timeout.expect("a wait without timeout while no event can come");
        }
        Ok(kernel.report(report))
    }

    fn now(&self) -> Instant {
        let mut kernel = self.0.kernel();
        let tick = kernel.knobs.tick;
        kernel.now += tick;
        kernel.now
    }

    /// Polling takes time, and another thread may keep the core.
    fn yield_core(&mut self) {
        let mut kernel = self.0.kernel();
        let lost_us = if kernel.random.below(50) == 0 {
            3_000
        } else {
            1
        };
        kernel.now += Duration::from_micros(lost_us);
    }
}
