//! A simulated operating system: sockets, an edge-triggered event queue, and a clock, all from one seed.
//!
//! It keeps the kernel's promises and breaks everything that the kernel does not promise. An edge is told once, when
//! something arrives or when the registration changes, and only if it is still true by the time of asking. Events come
//! in any order, some for nothing, some late, some for sockets that are gone. Calls are interrupted, come short, fail.
//! Slots and descriptors are limited, and time jumps.
//!
//! What may live in this file: the mechanism, and the knobs. What clients do, and what they must get, is `simulation`'s.

mod sockets;

pub(crate) use sockets::{Handle, Simulated};

use crate::reactor::{Interest, Readiness, Selector};
use mio::Token;
use std::cell::{RefCell, RefMut};
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How often, in a thousand times, the world is unkind in each way. Each seed turns each knob anew.
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
    /// One source is told of twice in a batch, so that the second time may be for somebody who has left since, or for
    /// whoever lives in that slot by then.
    pub(crate) double_event: u64,
    pub(crate) wait_interrupted: u64,
    pub(crate) accept_error: u64,
    pub(crate) register_error: u64,
    pub(crate) deregister_error: u64,
    pub(crate) shutdown_error: u64,
    /// How many events one wait reports at most.
    pub(crate) events_max: usize,
    /// How many bytes the kernel takes for a peer that does not read.
    pub(crate) window_bytes: usize,
    /// How many descriptors there are for connections.
    pub(crate) descriptors: usize,
}

/// A small generator of pseudo-random numbers (SplitMix64): all that happens follows from its seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn happens(&mut self, in_a_thousand: u64) -> bool {
        self.next() % 1000 < in_a_thousand
    }

    fn one_of(&mut self, errnos: &[i32]) -> io::Error {
        io::Error::from_raw_os_error(errnos[self.below(errnos.len())])
    }
}

/// One side's view of everything: the kernel's tables.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) random: Random,
    pub(crate) knobs: Knobs,
    pub(crate) now: Instant,
    /// Sockets by number. Numbers are never reused: the slots and keys of the server are, and that is the point.
    pub(crate) sockets: BTreeMap<usize, Socket>,
    next: usize,
    old_tokens: Vec<Token>,
    /// How many clients were reset in an accept queue when its listener was closed: no counter of the server tells of them.
    pub(crate) resets_in_queue: usize,
    /// The one call that is to fail, for `torture`.
    pub(crate) fault: Option<Fault>,
}

/// The calls that the server makes of the system.
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

/// One call, the so-many-th of its kind, fails with an errno.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) call: Call,
    /// How many of these calls go well before; 0 makes it the next one.
    pub(crate) after: usize,
    pub(crate) errno: i32,
    pub(crate) has_struck: bool,
}

#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) kind: Kind,
    registered: Option<(Token, Interest)>,
    /// Something has happened since the event queue last told of this socket.
    edge: bool,
    /// How many waits had no room for it since then.
    passed_over: u32,
    /// Another process has a copy of its descriptor, so it outlives its closing here, and so does its registration.
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
    },
}

/// What lies between a client and the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wire {
    pub(crate) client: usize,
    pub(crate) to_server: VecDeque<u8>,
    pub(crate) to_client: VecDeque<u8>,
    /// The client has said FIN.
    pub(crate) client_finished: bool,
    /// The server has said FIN.
    pub(crate) server_finished: bool,
    /// An error that the next call of the server will see.
    pub(crate) broken: Option<ErrorKind>,
    /// Whether this is TCP, where a short read leaves nothing behind, or a Unix socket.
    pub(crate) short_read_means_empty: bool,
    /// The server was told that there is no room, and waits to hear of some.
    pub(crate) starved: bool,
    /// The server has asked for a reset rather than an orderly end.
    pub(crate) aborted: bool,
    /// The event queue has watched it: it was not sent away at once.
    pub(crate) was_watched: bool,
    /// The client's address; without one it is a Unix socket.
    pub(crate) address: Option<SocketAddr>,
    /// When the client connected, sent or took something last.
    pub(crate) sent_at: Option<Instant>,
    /// How long it had been silent before that.
    pub(crate) silence: Duration,
    pub(crate) took_at: Option<Instant>,
}

impl Wire {
    fn is_ready(&self, interest: Interest, window: usize) -> bool {
        self.broken.is_some()
            || match interest {
                Interest::Read => !self.to_server.is_empty() || self.client_finished,
                Interest::Write => self.is_writable(window),
            }
    }

    /// Whether the kernel tells of room, which is not the same as whether there is any: on TCP when a third of the send
    /// buffer is free (`sk_stream_is_writeable`), on a Unix socket three quarters (`unix_writable`).
    fn is_writable(&self, window: usize) -> bool {
        let used = self.to_client.len();
        if self.short_read_means_empty {
            used < window && window - used >= used / 2
        } else {
            4 * used <= window
        }
    }
}

/// The simulated world, shared by the server, the clients and the event queue.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    kernel: Rc<RefCell<Kernel>>,
    /// Connections that the server has closed.
    remains: Rc<RefCell<Vec<Wire>>>,
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
                old_tokens: Vec::new(),
                resets_in_queue: 0,
                fault: None,
            })),
            remains: Rc::default(),
        }
    }

    pub(crate) fn kernel(&self) -> RefMut<'_, Kernel> {
        self.kernel.borrow_mut()
    }

    pub(crate) fn take_remains(&self) -> Vec<Wire> {
        self.remains.take()
    }

    pub(crate) fn selector(&self) -> Queue {
        Queue(self.clone())
    }

    fn socket(&self, kind: Kind) -> Handle {
        Handle {
            number: self.kernel().add(kind),
            network: self.clone(),
        }
    }

    pub(crate) fn listener(&self) -> Handle {
        self.socket(Kind::Listener {
            queue: VecDeque::new(),
        })
    }

    pub(crate) fn datagrams(&self) -> Handle {
        self.socket(Kind::Datagrams {
            inbox: VecDeque::new(),
            answers: Vec::new(),
        })
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
                passed_over: 0,
                is_shared: false,
            },
        );
        self.next
    }

    /// The server's end of a connection.
    pub(crate) fn wire(&mut self, number: usize) -> &mut Wire {
        match &mut self.sockets.get_mut(&number).expect("an open socket").kind {
            Kind::Stream(wire) => wire,
            other => panic!("{other:?} is no stream"),
        }
    }

    /// The connections that are open at the server's end.
    pub(crate) fn wires(&self) -> impl Iterator<Item = &Wire> {
        self.sockets
            .values()
            .filter_map(|socket| match &socket.kind {
                Kind::Stream(wire) => Some(&**wire),
                _ => None,
            })
    }

    /// How many these are.
    pub(crate) fn streams(&self) -> usize {
        self.wires().count()
    }

    /// Another process gets copies of all listeners and datagram sockets.
    pub(crate) fn share(&mut self) {
        for socket in self.sockets.values_mut() {
            socket.is_shared = !matches!(socket.kind, Kind::Stream(_));
        }
    }

    /// How many sockets are open here or, where they are shared, still watched from here.
    pub(crate) fn open_here(&self) -> usize {
        self.sockets
            .values()
            .filter(|socket| !socket.is_shared || socket.registered.is_some())
            .count()
    }

    /// Something has happened to a socket: an edge, for whoever watches for this.
    pub(crate) fn touch(&mut self, number: usize, what: Interest) {
        if let Some(socket) = self.sockets.get_mut(&number) {
            socket.edge |= socket
                .registered
                .is_some_and(|(_, interest)| interest == what);
        }
    }

    /// A connection breaks, which whoever watches for anything hears of.
    pub(crate) fn break_wire(&mut self, number: usize, how: ErrorKind) {
        self.wire(number).broken = Some(how);
        self.touch(number, Interest::Read);
        self.touch(number, Interest::Write);
    }

    /// Somebody connects.
    pub(crate) fn connect(&mut self, listener: usize, mut wire: Wire) {
        (wire.sent_at, wire.took_at) = (Some(self.now), Some(self.now));
        let Kind::Listener { queue } =
            &mut self.sockets.get_mut(&listener).expect("a listener").kind
        else {
            panic!("no listener");
        };
        queue.push_back(wire);
        self.touch(listener, Interest::Read);
    }

    /// What a client took makes room, and the server is told if it had asked.
    pub(crate) fn made_room(&mut self, number: usize) {
        let window = self.knobs.window_bytes;
        let wire = self.wire(number);
        if wire.starved && wire.is_writable(window) {
            wire.starved = false;
            self.touch(number, Interest::Write);
        }
    }

    /// Whether there is an edge that the event queue has not told of.
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
        socket.edge = true; // what is ready already is told again
    }

    /// Fails if this is the call that is to fail.
    fn strike(&mut self, call: Call, number: usize) -> io::Result<()> {
        let Some(fault) = self
            .fault
            .as_mut()
            .filter(|fault| fault.call == call && !fault.has_struck)
        else {
            return Ok(());
        };
        if fault.after > 0 {
            fault.after -= 1;
            return Ok(());
        }
        fault.has_struck = true;
        let error = io::Error::from_raw_os_error(fault.errno);
        if error.kind() == ErrorKind::WouldBlock {
            if let Some(socket) = self.sockets.get_mut(&number) {
                socket.edge = true; // the kernel says so only if it will tell again
            }
        }
        Err(error)
    }

    fn maybe_unregistered(&mut self, number: usize) -> io::Result<()> {
        let is_stream = matches!(self.sockets[&number].kind, Kind::Stream(_));
        if is_stream && self.random.happens(self.knobs.register_error) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC)); // epoll_ctl(2)'s "too many watches"
        }
        Ok(())
    }

    fn maybe_interrupted(&mut self) -> io::Result<()> {
        if self.random.happens(self.knobs.interrupted) {
            Err(ErrorKind::Interrupted.into())
        } else {
            Ok(())
        }
    }

    fn report(&mut self, mut tell: impl FnMut(Token, Readiness)) -> bool {
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
        // Who has waited for longest is told of first, as in the kernel's list; who has waited equally long, in any order.
        let waited = |number: &usize| Reverse(self.sockets[number].passed_over);
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
            socket.passed_over = 0;
            let (token, _) = socket.registered.expect("it was registered just now");
            let special = match &socket.kind {
                Kind::Stream(wire) => wire.client_finished || wire.broken.is_some(),
                _ => false,
            };
            let readiness = if special {
                Readiness::Exceptional
            } else {
                Readiness::Normal
            };
            tell(token, readiness);
            if self.random.happens(knobs.double_event) {
                twice.push((token, readiness));
            }
        }
        for (token, readiness) in twice {
            tell(token, readiness);
        }
        for number in &later {
            self.sockets
                .get_mut(number)
                .expect("it is ready")
                .passed_over += 1;
        }
        self.report_nonsense(&mut tell);
        later.is_empty()
    }

    /// Events that mean nothing: for somebody who is not ready, or who has left.
    fn report_nonsense(&mut self, tell: &mut impl FnMut(Token, Readiness)) {
        let knobs = self.knobs.clone();
        if self.random.happens(knobs.spurious_event) {
            let registered: Vec<Token> = self
                .sockets
                .values()
                .filter_map(|socket| socket.registered)
                .map(|(token, _)| token)
                .collect();
            if !registered.is_empty() {
                tell(
                    registered[self.random.below(registered.len())],
                    Readiness::Normal,
                );
            }
        }
        if self.random.happens(knobs.stale_event) && !self.old_tokens.is_empty() {
            let old = self.old_tokens[self.random.below(self.old_tokens.len())];
            let in_use = self
                .sockets
                .values()
                .any(|socket| socket.registered.is_some_and(|(token, _)| token == old));
            assert!(!in_use, "no two registrations share a token");
            tell(old, Readiness::Exceptional);
        }
    }
}

/// The event queue.
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
        kernel.strike(Call::Wait, 0)?;
        let interrupted = kernel.knobs.wait_interrupted;
        if kernel.random.happens(interrupted) {
            return Err(ErrorKind::Interrupted.into());
        }
        if !kernel.has_edges() {
            // Nothing will happen by itself, so this is the wait in full.
            kernel.now += timeout.expect("a wait without end, and nothing to come");
        }
        Ok(kernel.report(report))
    }

    fn now(&self) -> Instant {
        self.0.kernel().now
    }
}
