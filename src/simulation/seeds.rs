//! The whole server in the simulated network, with random faults, limits and clients from one seed after the other.
//!
//! Each seed draws the probability of each fault, the server's limits, and clients that read at once, slowly or never, that
//! send FIN, reset the connection or stay silent. Meanwhile the clock jumps, in one seed of eight by weeks; and now and
//! then the server is told to drain, or detaches its listeners for another process. These must hold:
//!
//! - The bytes that a client receives are a prefix of those that it sent, and all of them after an orderly close.
//! - When the faults stop, every connection is served without another byte sent: no edge is lost.
//! - No connection is closed as idle or stalled before its time, and none is rejected without being counted.
//! - The invariants of the counters hold after every turn, and in the end no socket is left.
//!
//! The example `replay` tells one seed, the server's calls beside what the network does. `ECHO_SEED=n` replays one with a log, `ECHO_SEEDS=n` runs that many, from `ECHO_FIRST_SEED=n` on;
//! `scripts/simulate` runs them for any length of time.

mod client;
mod clients;
#[cfg(feature = "trace")]
pub(super) mod story;

use super::network::{Handle, Kind, Knobs, Network, OnNetwork, Queue, Simulated, Wire};
use crate::echo::backend::Socket;
use crate::echo::connection::Wait;
use crate::echo::{Server, Turn};
use crate::limits::{Limits, OverloadPolicy};
use crate::random::Random;
use crate::reactor::Interest;
use crate::stats::{CloseReason, Stats};
use client::Client;
use std::ops::Range;
use std::panic::catch_unwind;
use std::time::{Duration, Instant};

/// The fields of [`Knobs`]; resets and half-closes by clients, clock jumps, drains, changes of the descriptor limit, long
/// times, detached listeners, and rejected clients.
const KNOBS: usize = 17 + 8;
/// Factor of all times in a seed with long times: it turns milliseconds into half an hour, and seconds into weeks.
const LONG_SCALE: u32 = 2_000_000;
/// More turns than any seed needs to come to rest; a connection that needs more is not being served.
const TURNS_MAX: usize = 20_000;

/// Runs the server through one seed, and logs each step on standard error.
///
/// # Panics
/// If one of the invariants does not hold.
pub fn replay(seed: u64) {
    Simulation::<Simulated>::new(seed, |queue| queue, Some(Box::new(print))).run();
}

/// Runs the server through many seeds. The first one that fails is replayed.
///
/// # Panics
/// If one of the invariants does not hold.
pub fn check_seeds(seeds: Range<u64>) {
    for seed in seeds.clone() {
        let run = || Simulation::<Simulated>::new(seed, |queue| queue, None).run();
        if catch_unwind(run).is_err() {
            eprintln!("seed {seed} again, with a log:");
            replay(seed);
            panic!("seed {seed} failed, and did not when it was replayed");
        }
    }
    let count = seeds.end - seeds.start;
    println!("{count} seeds from {} on, {KNOBS} knobs", seeds.start);
}

#[test]
fn t2_ten_thousand_seeds() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse().expect("a whole number"))
    };
    if let Some(seed) = number("ECHO_SEED") {
        return replay(seed);
    }
    let first = number("ECHO_FIRST_SEED").unwrap_or(0);
    check_seeds(first..first + number("ECHO_SEEDS").unwrap_or(10_000));
}

/// Hears each step of the clients and of the network, with the number of turns before it.
type Teller = Box<dyn Fn(usize, &str)>;

fn print(turns: usize, what: &str) {
    eprintln!("{turns:>5}  {what}");
}

struct Simulation<B: OnNetwork> {
    seed: u64,
    teller: Option<Teller>,
    random: Random,
    network: Network,
    server: Server<B>,
    listeners: Vec<usize>,
    datagrams: usize,
    clients: Vec<Client>,
    datagrams_sent: u64,
    draining: bool,
    /// The listeners are detached; the connections and datagrams that had been accepted and received by then.
    detached: Option<(u64, u64)>,
    millisecond: Duration,
    /// Whether each event is reported in time and once, so that the server can know of all input.
    events_are_timely: bool,
    turns: usize,
    full_and_finished: u64,
    /// Descriptors after the next change of their number: 0 at first.
    other_descriptors: usize,
    /// Whether accept never fails, so that the server can empty its accept queues.
    can_accept: bool,
    /// What the last long read may have read beyond a first one, where writes take less than there is room for (bytes).
    unsent_beyond: u64,
}

impl<B: OnNetwork> Drop for Simulation<B> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "seed {}: replay it with cargo run --features simulation --example replay -- {}",
                self.seed, self.seed
            );
        }
    }
}

impl<B: OnNetwork> Simulation<B> {
    fn new(seed: u64, wrap: impl FnOnce(Queue) -> B::Selector, teller: Option<Teller>) -> Self {
        let mut random = Random::new(seed);
        let knobs = knobs(&mut random);
        let scale = if random.below(8) == 0 { LONG_SCALE } else { 1 };
        let limits = limits(&mut random, scale);
        let (first, longest) = (limits.read_buffer_bytes, limits.read_budget_bytes);
        let unsent_beyond = match knobs.short_write {
            0 => 0,
            _ => longest.saturating_sub(first) as u64,
        };
        assert_eq!(limits.check(), Ok(()));
        if let Some(tell) = &teller {
            tell(0, &knobs.to_string());
            tell(0, &format!("{limits:?}"));
        }
        let can_accept = knobs.accept_error == 0;
        let events_are_timely =
            knobs.late_event + knobs.double_event + knobs.spurious_event + knobs.stale_event == 0;
        let network = Network::new(Random::new(random.next()), knobs);
        let selector = wrap(network.selector());
        let mut sockets = Vec::new();
        let mut open = |handle: Handle, socket: fn(&B::Selector, Handle) -> Socket<B>| {
            let number = handle.number;
            sockets.push(socket(&selector, handle));
            number
        };
        let listeners = (0..1 + random.below(2))
            .map(|_| open(network.listener(), listener))
            .collect();
        let datagrams = open(network.datagrams(), |selector, handle| {
            Socket::Datagrams(Box::new(B::datagrams(selector, handle)))
        });
        let mut server = Server::new(selector, limits, Default::default(), vec![50_007]);
        for socket in sockets {
            server
                .add_listener(socket)
                .expect("no fault strikes a listener");
        }
        Self {
            seed,
            teller,
            random,
            network,
            server,
            listeners,
            datagrams,
            clients: Vec::new(),
            datagrams_sent: 0,
            draining: false,
            detached: None,
            millisecond: Duration::from_millis(1) * scale,
            events_are_timely,
            turns: 0,
            full_and_finished: 0,
            other_descriptors: 0,
            can_accept,
            unsent_beyond,
        }
    }

    fn run(mut self) {
        for _ in 0..50 + self.random.below(300) {
            self.step();
        }
        self.stop_faults();
        self.check_all_served();
        self.close_all();
        self.check_nothing_left();
    }

    // ---- with faults ----

    fn step(&mut self) {
        match self.random.below(100) {
            0..35 => self.turn(Duration::ZERO),
            35..40 => self.turn(Duration::from_millis(1)),
            40..55 => self.connect(),
            55..90 if !self.clients.is_empty() => {
                let client = self.random.below(self.clients.len());
                self.client_acts(client);
            }
            90..95 => self.datagram(),
            95..98 => {
                let jump = self.millisecond * self.random.below(1_500) as u32;
                self.log(|| format!("the clock jumps by {jump:?}"));
                self.network.kernel().now += jump;
            }
            98 => match self.random.below(8) {
                0 => self.drain(),
                1 => self.detach_listeners(),
                _ => {}
            },
            99 => self.change_descriptors(),
            _ => {}
        }
    }

    /// Another part of the process takes all descriptors, or frees them. No event reports either.
    fn change_descriptors(&mut self) {
        let mut kernel = self.network.kernel();
        let before = kernel.knobs.descriptors;
        kernel.knobs.descriptors = std::mem::replace(&mut self.other_descriptors, before);
        self.can_accept &= kernel.knobs.descriptors > 0;
        let now = kernel.knobs.descriptors;
        drop(kernel);
        self.log(|| format!("{now} descriptors from now on, instead of {before}"));
    }

    fn datagram(&mut self) {
        if self.draining {
            return;
        }
        let source = format!(
            "10.0.0.{}:{}",
            self.random.below(3),
            self.random.below(60_000)
        );
        let length = self.random.below(1_000);
        let bytes = vec![self.datagrams_sent as u8; length];
        let mut kernel = self.network.kernel();
        if let Kind::Datagrams { inbox, .. } =
            &mut kernel.sockets.get_mut(&self.datagrams).expect("open").kind
        {
            inbox.push_back((bytes, source.parse().expect("an address")));
        }
        kernel.touch(self.datagrams, Interest::Read);
        drop(kernel);
        self.datagrams_sent += 1;
        self.log(|| format!("a datagram of {length} bytes arrives from {source}"));
    }

    fn drain(&mut self) {
        self.log(|| "drain".into());
        self.check_datagrams();
        self.draining = true;
        self.server.drain();
        self.find_sockets();
    }

    /// The server detaches its listeners, whose accept queues another process serves from now on.
    fn detach_listeners(&mut self) {
        if self.draining || self.detached.is_some() {
            return;
        }
        self.log(|| "detach the listeners".into());
        self.network.kernel().share();
        self.server.detach_listeners();
        let stats = self.server.stats();
        self.detached = Some((stats.accepted, stats.datagrams_in));
        self.find_sockets();
        for client in &mut self.clients {
            client.is_closed |= client.socket.is_none();
        }
    }

    // ---- a turn of the server, and its result ----

    fn turn(&mut self, max_wait: Duration) {
        self.turns += 1;
        let before = self.server.stats().clone();
        match self.server.turn(Some(max_wait)) {
            Ok(Turn::Finished) => {
                assert!(
                    self.draining || self.detached.is_some(),
                    "it ends only when it is told to"
                );
            }
            Ok(_) => {}
            Err(error) => panic!("the loop ended: {error}"),
        }
        let closed = self.network.take_closed();
        self.check_closes(&before, &closed);
        self.record_closes(closed);
        self.find_sockets();
        let stats = self.server.stats();
        if let Some(counts) = self.detached {
            assert_eq!(
                (stats.accepted, stats.datagrams_in),
                counts,
                "the listeners are detached"
            );
        }
        assert_eq!(stats.check_invariants(), Ok(()), "{stats}");
        let waiting = [Wait::Header, Wait::Reading, Wait::Writing, Wait::Lingering];
        let waiting = waiting.map(|wait| self.server.connections_waiting(wait));
        assert_eq!(waiting.iter().sum::<u64>(), stats.connections_open);
        let unsent_each = self.server.limits().read_buffer_bytes as u64;
        let unsent_max = stats.connections_open * unsent_each + self.unsent_beyond;
        assert!(
            stats.unsent_bytes <= unsent_max,
            "{} bytes are unsent, at most {unsent_max} may be",
            stats.unsent_bytes
        );
        assert!(stats.connections_open as usize <= self.server.limits().connections_max);
        assert_eq!(
            stats.connections_open as usize,
            self.network.kernel().streams(),
            "the open connections are the counted ones"
        );
    }

    /// Checks that no connection was closed as idle or stalled before its time, and none rejected without being counted.
    fn check_closes(&self, before: &Stats, closed: &[Wire]) {
        let (stats, limits) = (self.server.stats(), self.server.limits());
        let kernel = self.network.kernel();
        let count = |is_so: &dyn Fn(&Wire) -> bool| {
            let count = closed.iter().filter(|wire| is_so(wire)).count();
            count as u64
        };
        let is_over = |since: Option<Instant>, timeout: Option<Duration>| {
            timeout.is_some_and(|timeout| since.is_none_or(|since| kernel.now - since >= timeout))
        };
        let ended = |reason| stats.closed(reason) - before.closed(reason);
        let stalled =
            count(&|wire| wire.aborted && is_over(wire.last_read_at, limits.write_stall_timeout));
        assert!(
            ended(CloseReason::WriteStall) <= stalled,
            "read something in time: {closed:?}"
        );
        if self.events_are_timely {
            // Bytes that arrive after the timeout may come too late, if more sources are ready than one wait reports.
            let silent = count(&|wire| {
                let is_late = |timeout| wire.silence >= timeout;
                is_over(wire.last_sent_at, limits.idle_timeout)
                    || limits.idle_timeout.is_some_and(is_late)
            });
            assert!(
                ended(CloseReason::Idle) <= silent,
                "sent something in time: {closed:?}"
            );
        }
        let rejected = count(&|wire| wire.aborted && !wire.was_watched);
        assert_eq!(stats.rejected_total() - before.rejected_total(), rejected);
        let most = limits.connections_per_prefix.unwrap_or(usize::MAX);
        for wire in kernel.wires().filter(|wire| wire.address.is_some()) {
            let same = |other: &&Wire| other.address == wire.address;
            assert!(kernel.wires().filter(same).count() <= most);
        }
    }

    /// Notes for each client which socket of the server has its connection, or that it is closed.
    fn find_sockets(&mut self) {
        for (&number, socket) in &self.network.kernel().sockets {
            if let Kind::Stream(wire) = &socket.kind {
                self.clients[wire.client].socket = Some(number);
            }
        }
        let closed = self.network.take_closed();
        self.record_closes(closed);
    }

    fn record_closes(&mut self, closed: Vec<Wire>) {
        for wire in closed {
            let index = wire.client;
            let client = &mut self.clients[index];
            client.is_closed = true;
            if !wire.aborted && !client.is_reset {
                wire.to_client
                    .iter()
                    .for_each(|&byte| client.receives(index, byte));
            }
            let is_full = client.received == client.sent;
            self.full_and_finished += u64::from(is_full && wire.client_sent_fin);
            self.log(|| {
                format!(
                    "client {index} was closed{}, with {} bytes unread on their way to it and {} from it",
                    if wire.aborted { " by RST" } else { "" },
                    wire.to_client.len(),
                    wire.to_server.len()
                )
            });
        }
    }

    // ---- without faults ----

    fn stop_faults(&mut self) {
        self.log(|| "the faults stop".into());
        let mut kernel = self.network.kernel();
        kernel.knobs = Knobs {
            events_max: kernel.knobs.events_max,
            window_bytes: kernel.knobs.window_bytes,
            descriptors: kernel.knobs.descriptors.max(self.other_descriptors),
            ..Knobs::default()
        };
    }

    /// Checks that every connection is served to its last byte although no client sends any more: no edge is lost.
    fn check_all_served(&mut self) {
        for _ in 0..TURNS_MAX {
            for client in 0..self.clients.len() {
                self.client_reads(client, usize::MAX);
            }
            // Without edges and progress only the retry of accept can follow: nothing more will come.
            let (wait, was) = (self.millisecond, self.server.stats().clone());
            let had_edges = self.network.kernel().has_edges();
            self.turn(wait);
            let now = self.server.stats();
            if !had_edges
                && (was.bytes_in, was.bytes_out, was.accepted)
                    == (now.bytes_in, now.bytes_out, now.accepted)
            {
                break;
            }
        }
        let kernel = self.network.kernel();
        for (number, socket) in &kernel.sockets {
            if let Kind::Stream(wire) = &socket.kind {
                let client = &self.clients[wire.client];
                assert!(
                    !wire.client_sent_fin,
                    "FIN of socket {number} was never read: {wire:?} {client:?}"
                );
                assert!(
                    wire.to_server.is_empty(),
                    "input of socket {number} was never read: {wire:?} {client:?}"
                );
                assert!(
                    wire.server_sent_fin || client.received == client.sent,
                    "socket {number} has unsent bytes: {wire:?} {client:?}"
                );
            }
        }
        drop(kernel);
        self.check_datagrams();
    }

    /// All clients send FIN. Connections in the accept queue are accepted as open ones close.
    fn close_all(&mut self) {
        for client in 0..self.clients.len() {
            self.client_sends_fin(client);
        }
        for _ in 0..TURNS_MAX {
            if self.clients.iter().all(|client| client.is_closed) {
                break;
            }
            for client in 0..self.clients.len() {
                self.client_reads(client, usize::MAX);
            }
            self.turn(self.millisecond);
        }
        let waiting: Vec<_> = self
            .clients
            .iter()
            .filter(|client| !client.is_closed)
            .collect();
        assert!(waiting.is_empty(), "never served: {waiting:?}");
        let stats = self.server.stats();
        assert!(
            stats.closed(CloseReason::PeerClosed) <= self.full_and_finished,
            "an orderly close has echoed everything: {stats}"
        );
    }

    fn check_nothing_left(mut self) {
        if !self.draining {
            self.drain();
        }
        let mut turns = 0;
        while self.server.turn(None).expect("the loop goes on") != Turn::Finished {
            turns += 1;
            assert!(turns < TURNS_MAX, "it does not end");
        }
        let stats = self.server.stats();
        assert_eq!((stats.connections_open, stats.unsent_bytes), (0, 0));
        assert_eq!(stats.check_invariants(), Ok(()));
        let open = self.network.kernel().open_or_watched();
        assert_eq!(open, 0, "sockets left open");
        if self.detached.is_some() {
            self.check_datagrams(); // the other process receives the rest
        } else {
            assert_eq!(
                stats.datagrams_in, self.datagrams_sent,
                "datagrams that were queued and never read"
            );
        }
        if self.can_accept {
            let reset = self.network.kernel().resets_in_queue;
            assert_eq!(
                reset, 0,
                "connections reset in the accept queue, without a counter"
            );
        }
    }

    fn check_datagrams(&self) {
        let stats = self.server.stats();
        let kernel = self.network.kernel();
        let Some(socket) = kernel.sockets.get(&self.datagrams) else {
            return;
        };
        let Kind::Datagrams { inbox, answers, .. } = &socket.kind else {
            panic!("no datagram socket")
        };
        assert_eq!(stats.datagrams_in + inbox.len() as u64, self.datagrams_sent);
        assert_eq!(stats.datagrams_out, answers.len() as u64);
        assert!(
            answers
                .iter()
                .all(|(_, source)| source.port() >= 1024 && source.port() != 50_007)
        );
    }

    fn log(&self, what: impl FnOnce() -> String) {
        if let Some(tell) = &self.teller {
            tell(self.turns, &what());
        }
    }
}

fn listener<B: OnNetwork>(selector: &B::Selector, handle: Handle) -> Socket<B> {
    Socket::Listener(Box::new(B::listener(selector, handle)))
}

fn knobs(random: &mut Random) -> Knobs {
    let mut knob = |most: usize| {
        if random.below(2) == 0 {
            0
        } else {
            random.below(most) as u64
        }
    };
    Knobs {
        interrupted: knob(300),
        short_write: knob(700),
        short_read: knob(700),
        broken: knob(20),
        would_block_for_nothing: knob(300),
        spurious_event: knob(500),
        stale_event: knob(500),
        late_event: knob(500),
        double_event: knob(500),
        wait_interrupted: knob(200),
        accept_error: knob(500),
        register_error: knob(100),
        deregister_error: knob(500),
        shutdown_error: knob(300),
        events_max: 1 + random.below(16),
        window_bytes: 1 + random.below(500),
        descriptors: 1 + random.below(24),
        option_errors: 0,
        tick: Duration::ZERO,
    }
}

fn limits(random: &mut Random, scale: u32) -> Limits {
    let time = |random: &mut Random| Duration::from_millis(10 + random.below(1_000) as u64) * scale;
    Limits {
        connections_max: 1 + random.below(24),
        overload: if random.below(4) == 0 {
            OverloadPolicy::Reject
        } else {
            OverloadPolicy::Wait
        },
        connections_per_prefix: (random.below(4) == 0).then(|| 1 + random.below(4)),
        read_budget_bytes: 1 + random.below(300),
        accept_budget: 1 + random.below(4),
        datagram_budget: 1 + random.below(4),
        read_buffer_bytes: 1 + random.below(100),
        idle_timeout: (random.below(3) == 0).then(|| time(random)),
        write_stall_timeout: (random.below(3) == 0).then(|| time(random)),
        drain_idle_timeout: time(random),
        fin_timeout: time(random),
        drain_timeout: time(random),
        accept_retry: time(random),
        datagrams_per_source: None,
        spin_max: Duration::from_micros(25) * random.below(3) as u32,
        ..Limits::default()
    }
}
