//! The server: one `match` on what the reactor says.
//!
//! ```text
//! Ready(key)    a listener: let new connections in       a connection: advance it       a datagram socket: answer
//! Expired(key)  idle or stalled: end it            draining and quiet: say goodbye
//! Alarm         try to accept again                the next stage of draining
//! ```
//!
//! Before them all come control: another thread gave one, or a foreign source (signals) has something.
//!
//! This room decides whose bytes go where, and who is refused. How a socket is read is `net`'s business, who is ready is
//! the reactor's. Four rules:
//!
//! - **An error ends one connection.** A listener's error pauses the listener. Only waiting for events may fail as a
//!   whole, and then nothing can be served any more.
//! - **One way out.** Every connection ends in [`Server::close_connection`], with a reason, and the counters balances after it.
//! - **A limit slows, it does not refuse**, unless it is asked to. Who finds no room waits in the kernel's queue until
//!   there is some.
//! - **Nobody takes the whole turn.** Each source has a budget, and queues up again when it is spent.
//!
//! In reading order: this page, [`connection`], [`write_buffer`], `accept`, [`accept_gate`], [`backoff`], [`admission`], `close`, [`datagram`], [`udp_filter`], [`backend`], `start`.

mod accept;
pub mod accept_gate;
pub mod admission;
pub mod backend;
pub mod backoff;
mod close;
pub mod connection;
pub mod datagram;
mod log_limit;
mod start;
pub mod udp_filter;
pub mod write_buffer;

pub use admission::AccessList;
pub use backend::{Backend, Os};
pub use start::{Config, Handle, StartError};

use crate::limits::{CONNECTIONS_CEILING, Limits};
use crate::net::{Endpoint, SocketFile};
use crate::reactor::{Event, Interest, Key, Reactor, Readiness, Registration, TimeoutClass};
use crate::stats::{CloseReason, Stats};
use accept_gate::AcceptGate;
use admission::Admission;
use backend::Socket;
use backoff::Backoff;
use connection::{Outcome, Wait};
use log_limit::LogLimit;
use start::Control;
use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};
use udp_filter::UdpFilter;

/// What a turn of the loop ended with.
#[must_use = "a server that has finished needs no more turns"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There will be more.
    Serving,
    /// A foreign source (see [`Server::watch`]) or a [`Handle`] woke the loop: look after it, then turn again.
    Woken,
    /// Drained: nothing is left.
    Finished,
}

/// A turn with no more who are ready than this, and nothing beside their echoes, is not looked at when the longest is
/// sought.
const UNTIMED_EVENTS_MAX: usize = 8;

/// An echo server on one thread. Make one with [`Server::bind`], then [`run`](Server::run) it, or give it one
/// [`turn`](Server::turn) after the other.
#[derive(Debug)]
pub struct Server<W: Backend = Os> {
    /// The files of Unix sockets. They come first, to be removed first: a file whose socket is closed looks like a dead
    /// server's, and the next server must not replace it just before it is removed.
    files: Vec<SocketFile>,
    reactor: Reactor<Socket<W>, W::Selector>,
    limits: Limits,
    stats: Stats,
    /// The one buffer that every stream is read into.
    read_buffer: Box<[u8]>,
    /// The one that every datagram is read into; empty until there is a datagram socket.
    datagram_buffer: Box<[u8]>,
    registrations: Registrations,
    accept_gate: AcceptGate,
    backoff: Backoff,
    admission: Admission,
    udp_filter: UdpFilter,
    /// Listeners and datagram sockets: what makes this a server.
    listeners: Vec<Key>,
    /// While the server drains: how many datagrams each socket may still answer.
    drain_datagrams_left: HashMap<Key, u64>,
    endpoints: Vec<Endpoint>,
    phase: Phase,
    /// Why the last listener ended, if it was not our doing.
    failure: Option<io::Error>,
    control: Control,
    pause_log: LogLimit,
    reject_log: LogLimit,
    listener_log: LogLimit,
    /// The longest turn so far: [`Stats::turn_us_max`] before it is rounded.
    longest_turn: Duration,
    /// Whether somebody came in this turn, or somebody's time was over: things that take longer than an echo.
    must_time_turn: bool,
}

/// How far the server has come with stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Somebody else has the listeners. Who is here already is served as ever.
    HandedOver,
    /// What was queued when this began is served, and each listener and datagram socket closed when its queue is empty.
    /// Who is in the middle of something may finish it; the quiet ones are told goodbye. At `goodbye` everybody is, and
    /// at `cut` it is over.
    Draining {
        close_at: Instant,
        abort_at: Instant,
    },
    /// Everybody has been told close_at, and what is still queued is refused and counted.
    Closing {
        abort_at: Instant,
    },
    /// Nobody is left.
    Stopped,
}

/// What each kind of source waits for, and how long.
#[derive(Debug)]
struct Registrations {
    listeners: Registration,
    reading: Registration,
    reading_while_draining: Registration,
    writing: Registration,
    lingering: Registration,
}

impl<W: Backend> Server<W> {
    /// A server without a listener. `own_ports` are the UDP ports that it will have, for its udp_filter.
    pub(crate) fn new(
        selector: W::Selector,
        limits: Limits,
        control: Control,
        own_ports: Vec<u16>,
    ) -> Self {
        let mut reactor = Reactor::new(selector);
        reactor.reserve(limits.preallocate_connections.min(limits.connections_max));
        let registrations = Registrations::new(&mut reactor, &limits);
        let udp_filter = UdpFilter::new(&limits, own_ports, reactor.now());
        Self {
            read_buffer: vec![0; limits.read_buffer_bytes].into_boxed_slice(),
            datagram_buffer: Box::default(),
            registrations,
            accept_gate: AcceptGate::default(),
            backoff: Backoff::default(),
            admission: Admission::new(&limits),
            udp_filter,
            listeners: Vec::new(),
            drain_datagrams_left: HashMap::new(),
            endpoints: Vec::new(),
            files: Vec::new(),
            phase: Phase::Serving,
            failure: None,
            control,
            pause_log: LogLimit::new(Duration::from_secs(5)),
            reject_log: LogLimit::new(Duration::from_secs(5)),
            listener_log: LogLimit::new(Duration::from_secs(1)),
            longest_turn: Duration::ZERO,
            must_time_turn: false,
            stats: Stats::default(),
            limits,
            reactor,
        }
    }

    // ---- the loop ----

    /// Serves until drained or stopped.
    ///
    /// # Errors
    /// Waiting for events failed, or every listener did: either way nobody can be served any more.
    pub fn run(&mut self) -> io::Result<()> {
        while self.turn(None)? != Turn::Finished {}
        Ok(())
    }

    /// One turn: waits for events, at most for `max_wait`, and serves what is ready. Deadlines count from the last turn
    /// here; a loop that does other things for long between two turns passes [`timeout`](Server::timeout), which counts from
    /// now.
    ///
    /// # Errors
    /// As [`Server::run`].
    // Kept whole: inlined into a caller with a large frame of its own, the path of an echo grows by a fifth.
    #[inline(never)]
    pub fn turn(&mut self, max_wait: Option<Duration>) -> io::Result<Turn> {
        if self.is_finished() {
            return Ok(Turn::Finished); // it was told so between two turns, and there is nothing to wait for
        }
        let is_woken = self.reactor.wait(max_wait)?;
        self.stats.turns += 1;
        // Control come first, and whoever drives us is told before the others have had their turn: with a thousand who are
        // ready that may take a while, and "nobody new" is meant at once. The next call goes on with them.
        let has_command = self.control.is_pending();
        let end = if is_woken || has_command {
            self.on_woken();
            Turn::Woken
        } else {
            self.serve_this_turn();
            Turn::Serving
        };
        self.end_turn(end)
    }

    fn serve_this_turn(&mut self) {
        while let Some(event) = self.reactor.next_event() {
            match event {
                Event::Ready(key, readiness) => self.on_ready(key, readiness),
                Event::Expired(key) => self.on_expired(key),
                Event::Alarm => self.on_alarm(),
            }
        }
        if self.reactor.events_served() > UNTIMED_EVENTS_MAX || self.must_time_turn {
            self.record_turn_time();
        }
    }

    /// Notes how long this turn took, if none was longer. A turn of a few who are ready, and nothing else, is as short as
    /// turns get, and is not worth a second reading of the clock.
    fn record_turn_time(&mut self) {
        self.must_time_turn = false;
        let busy = self.reactor.turn_elapsed();
        if busy > self.longest_turn {
            self.longest_turn = busy;
            self.stats.turn_us_max = u64::try_from(busy.as_micros()).unwrap_or(u64::MAX);
        }
    }

    fn end_turn(&mut self, end: Turn) -> io::Result<Turn> {
        self.stats.stale_events = self.reactor.stale_events();
        if self.accept_gate.is_paused() {
            self.record_pause_time();
        }
        self.announce();
        if self.is_finished() {
            self.failure.take().map_or(Ok(Turn::Finished), Err)
        } else {
            Ok(end)
        }
    }

    /// Tells an outer event loop, if there is one, when the next turn is due: at the end of a turn, and after whatever
    /// changes that between two turns.
    fn announce(&mut self) {
        if self.reactor.is_watched() {
            let due = self.timeout();
            self.reactor.announce(due);
        }
    }

    fn on_ready(&mut self, key: Key, readiness: Readiness) {
        match self.reactor.begin_event(key, readiness) {
            Some(Socket::Connection(connection)) => {
                let outcome = connection.advance(
                    readiness,
                    &mut self.read_buffer,
                    self.limits.read_budget_bytes,
                    &mut self.stats,
                );
                // Nearly always everything is echoed, and there is nothing to arrange.
                if outcome != Outcome::KeepReading {
                    self.apply(key, readiness, outcome);
                }
            }
            Some(Socket::Listener(_)) => self.accept(key, readiness),
            Some(Socket::Datagrams(_)) => self.answer(key, readiness),
            None => {}
        }
    }

    /// Does what a connection's outcome asks for.
    #[inline(never)]
    fn apply(&mut self, key: Key, readiness: Readiness, outcome: Outcome) {
        match outcome {
            Outcome::KeepReading => {}
            Outcome::Wait(wait) => {
                let registration = self.registrations.of(wait, self.phase);
                if let Err(error) = self.reactor.set_registration(key, registration) {
                    log::debug!("a connection cannot be watched any more: {error}");
                    self.close_connection(key, CloseReason::RegisterFailed);
                }
            }
            Outcome::Yield => {
                self.stats.budget_yields += 1;
                self.reactor.requeue(key, readiness);
            }
            Outcome::Done(reason) => self.close_connection(key, reason),
        }
    }

    /// Somebody's time is over. What that means depends on what they were waiting for.
    #[inline(never)]
    fn on_expired(&mut self, key: Key) {
        self.must_time_turn = true;
        let Some(Socket::Connection(connection)) = self.reactor.get_mut(key) else {
            return;
        };
        match (connection.waits_for(), self.phase) {
            (Wait::Reading, Phase::Serving | Phase::HandedOver) => {
                self.close_connection(key, CloseReason::Idle);
            }
            (Wait::Reading, _) => self.begin_close(key),
            (Wait::Writing, _) => {
                let outcome = connection.advance_stalled(
                    &mut self.read_buffer,
                    self.limits.read_budget_bytes,
                    &mut self.stats,
                );
                self.apply(key, Readiness::Exceptional, outcome);
            }
            (Wait::Lingering, _) => self.close_connection(key, CloseReason::ShutDown),
        }
    }

    #[inline(never)]
    fn on_alarm(&mut self) {
        self.must_time_turn = true;
        let now = self.reactor.now();
        if self.accept_gate.retry_at().is_some_and(|at| at <= now) {
            self.resume_accepting();
        }
        for key in self.backoff.take_due(now) {
            self.reactor.requeue(key, Readiness::Normal);
        }
        match self.phase {
            Phase::Draining { close_at, abort_at } if close_at <= now => self.say_goodbye(abort_at),
            Phase::Closing { abort_at } if abort_at <= now => self.stop(),
            _ => {}
        }
        self.set_alarm();
    }

    #[inline(never)]
    fn on_woken(&mut self) {
        match self.control.take() {
            start::Command::None => {}
            start::Command::Drain => self.drain(),
            start::Command::Stop => self.stop(),
        }
    }

    /// The one alarm is for whichever comes first.
    fn set_alarm(&mut self) {
        let stage = match self.phase {
            Phase::Serving | Phase::HandedOver | Phase::Stopped => None,
            Phase::Draining { close_at, .. } => Some(close_at),
            Phase::Closing { abort_at } => Some(abort_at),
        };
        let at = [stage, self.accept_gate.retry_at(), self.backoff.resume_at()]
            .into_iter()
            .flatten()
            .min();
        self.reactor.set_alarm(at);
    }

    // ---- datagrams ----

    #[inline(never)]
    fn answer(&mut self, key: Key, readiness: Readiness) {
        let now = self.reactor.now();
        if self.backoff.is_resting(key) {
            return;
        }
        let Some(Socket::Datagrams(socket)) = self.reactor.get_mut(key) else {
            return;
        };
        let before = self.stats.datagrams_in;
        let read_buffer = &mut self.datagram_buffer;
        let budget = self.limits.datagram_budget;
        let is_empty = match self.phase {
            Phase::Closing { .. } | Phase::Stopped => {
                datagram::discard_all(&mut **socket, read_buffer, budget, &mut self.stats)
            }
            _ => datagram::echo_datagrams(
                &mut **socket,
                read_buffer,
                budget,
                &mut self.udp_filter,
                now,
                &mut self.stats,
            ),
        };
        match is_empty {
            Ok(true) => self.on_queue_empty(key),
            Ok(false) if self.has_drained(key, self.stats.datagrams_in - before) => {
                self.close_listener(key);
            }
            Ok(false) => {
                self.backoff.forget(key);
                self.stats.budget_yields += 1;
                self.reactor.requeue(key, readiness);
            }
            Err(error) => self.receive_failed(key, error),
        }
    }

    // ---- asking ----

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The limits that it keeps.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What it is bound to, in the order in which it was asked for; a port 0 is replaced by the real one. A listener that
    /// broke is no longer among them.
    pub fn addresses(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Memory of its slots, in bytes: of those that connections have, and of all that there is room for.
    pub fn slot_bytes(&self) -> (usize, usize) {
        self.reactor.slot_bytes()
    }

    /// How long [`Server::turn`] would wait from now on if nothing happened; `None` is without end. It is zero while
    /// there is work left, when an order of a [`Handle`] waits to be followed, and once the server has finished.
    ///
    /// For an outer event loop: see [its page](crate#in-another-event-loop).
    pub fn timeout(&self) -> Option<Duration> {
        if self.is_finished() || self.control.is_pending() {
            return Some(Duration::ZERO);
        }
        self.reactor.timeout()
    }

    /// Adds a listener or a datagram socket.
    pub(crate) fn add_listener(&mut self, socket: Socket<W>) -> io::Result<()> {
        if matches!(socket, Socket::Datagrams(_)) && self.datagram_buffer.is_empty() {
            self.datagram_buffer = vec![0; datagram::DATAGRAM_BYTES_MAX].into_boxed_slice();
        }
        let key = self
            .reactor
            .add(socket, self.registrations.listeners)
            .map_err(|(_, error)| error)?;
        self.listeners.push(key);
        Ok(())
    }
}

impl Registrations {
    fn new<W: Backend>(reactor: &mut Reactor<Socket<W>, W::Selector>, limits: &Limits) -> Self {
        let mut read = |timeout| Registration {
            interest: Interest::Read,
            class: reactor.timeout_class(timeout),
        };
        Self {
            listeners: Registration {
                interest: Interest::Read,
                class: TimeoutClass::NEVER,
            },
            reading: read(limits.idle_timeout),
            reading_while_draining: read(Some(limits.drain_idle_timeout)),
            lingering: read(Some(limits.fin_timeout)),
            writing: Registration {
                interest: Interest::Write,
                class: reactor.timeout_class(limits.write_stall_timeout),
            },
        }
    }

    fn of(&self, wait: Wait, phase: Phase) -> Registration {
        match wait {
            Wait::Reading if matches!(phase, Phase::Serving | Phase::HandedOver) => self.reading,
            Wait::Reading => self.reading_while_draining,
            Wait::Writing => self.writing,
            Wait::Lingering => self.lingering,
        }
    }
}

/// Every connection that may be asked for has a key, and some are left for listeners.
const _: () = assert!(CONNECTIONS_CEILING + 1_024 <= Reactor::<Socket<Os>>::SOURCES_MAX);

/// What an idle connection costs us, in bytes: its slot, and nothing else. (mio's sockets are larger in debug builds, in
/// which they remember their event queue.)
#[cfg(all(target_pointer_width = "64", not(debug_assertions)))]
const _: () = assert!(Reactor::<Socket<Os>>::SLOT_BYTES <= 48);
