//! The load generator: it sends requests to an echo server, verifies every byte of what comes back, and measures when.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! ```text
//!             ┌────────── worker: one thread, one reactor ──────────┐  seconds, one by one
//!   Plan ───▶ │ opening ─▶ warm-up ─▶ window ─▶ drain               │ ─────────────────────▶ whoever asked
//!             │    client: issue ─▶ write .. read ─▶ verify, record │       Message
//!             └─────────────────────────────────────────────────────┘
//! ```
//!
//! It runs on the same reactor as the server, and knows nothing of the server: any echo server will do. What may live
//! in this room: connections as a client sees them, clocks, histograms, figures of the machine, and the verdict on
//! whether a measurement is worth anything. What may not: options as people type them, and reports as people read them.
//!
//! Three rules make its figures believable. **Every byte is verified**, against a text in which each depends on its
//! position. **Time is taken from the plan**: an open loop counts from the moment when a request was due, however late
//! it could be sent. **The generator measures itself**: how late it was, and whether it was the bottleneck.
//!
//! In reading order: this page, `pattern`, `pace`, `latencies`, `record`, `request`, `stream`, `datagram`, `worker`,
//! `opening`, `issuing`, `finish`, `leaving`, `chores`, `company`, [`machine`], [`fit`], [`verdict`].

mod bad_clients;
mod connector;
mod datagram;
mod finish;
mod housekeeping;
mod in_flight;
mod issuing;
mod latencies;
mod metrics;
mod payload;
pub mod preflight;
mod schedule;
mod stream;
pub mod summary;
mod teardown;
pub mod validity;
mod worker;

pub use crate::procfs::{KERNEL_COUNTERS, KernelCounters, ServerSample, Usage};
pub use bad_clients::BadClients;
pub use datagram::HEADER_BYTES;
pub use issuing::QUEUE_MAX;
pub use latencies::{LATENCY_RANGE_NS, Latencies, latencies};
pub use metrics::{
    Counters, Fairness, FaultKind, Faults, Interval, Pauses, Resent, Stage, Unanswered,
};
pub use payload::Random;
pub use preflight::Sources;
pub use schedule::{Arrivals, monotonic_ns};
pub use summary::Total;

use crate::net::Endpoint;
use crate::net::connect::Trigger;
use std::io;
use std::time::Duration;

/// What is to be done to a server.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The servers; connections take them in turn.
    pub targets: Vec<Endpoint>,
    /// Addresses of ours to come from; `None` leaves it to the system.
    pub sources: Option<Sources>,
    /// Which of several workers this plan is for, from 0 on. It signs what it reports.
    pub worker: usize,
    /// The number of the first connection: each worker has numbers of its own.
    pub first_number: u32,
    /// Connections.
    pub connections: usize,
    /// How many of them send requests; the others are proved by one echo and then idle.
    pub active: usize,
    /// How many connections send requests in each worker, this one included: by these shares the workers divide the
    /// planned requests of an open loop. Empty for a run of one worker.
    pub team: Vec<usize>,
    /// Connections beside them that behave badly.
    pub company: BadClients,
    /// Bytes of a request.
    pub size: usize,
    /// Requests that a connection may have under way.
    pub depth: usize,
    /// When requests are sent.
    pub mode: Mode,
    /// When the kernel says that an answer is there, which decides whose is read first.
    pub trigger: Trigger,
    /// Time under load before anything counts.
    pub warm_up: Duration,
    /// Time that is measured.
    pub duration: Duration,
    /// Ends the measurement early, after so many requests.
    pub requests: Option<u64>,
    /// Time over which the connections are opened, at least.
    pub ramp: Duration,
    /// Connections that may be on their way to being proved at once.
    pub opening: usize,
    /// Time after which an answer is not waited for any more.
    pub timeout: Duration,
    /// Time between two slices of the record.
    pub interval: Duration,
    /// From which everything random is drawn.
    pub seed: u64,
    /// Processes whose figures are taken along: those of the server.
    pub servers: Vec<u32>,
    /// Whether the connections are reset at the end. A connection that is closed by FIN keeps its port for a minute
    /// (TIME_WAIT), in which a run that follows cannot have it.
    pub reset_at_end: bool,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// Each connection sends the next one when an answer has come.
    Closed,
    /// They are planned on a clock, so many a second in all, whatever the server does.
    Open {
        /// Requests a second, over all connections.
        rate: f64,
        /// How they follow one another.
        arrivals: Arrivals,
    },
    /// Each connection is closed after one request, and opened anew.
    Churn {
        /// By a reset; else by FIN.
        reset: bool,
    },
}

/// What a worker tells while it runs.
#[derive(Debug)]
pub enum Message {
    /// The connections are open: so many of them, after so many nanoseconds. The load waits for the order to go.
    Opened(u64, u64),
    /// So many connections are open, and more are to come: told now and then, and at every power of ten.
    Opening(u64),
    /// A second has passed.
    Interval(Box<Interval>),
    /// It is over.
    Done(Box<Final>),
    /// It could not run at all.
    Failed(String),
}

/// What is known at the end of a run, beside its slices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Final {
    /// What became of every request.
    pub counters: Counters,
    /// What went wrong.
    pub faults: Faults,
    /// How evenly the connections were served.
    pub shares: Fairness,
    /// Requests on streams that had no answer when they were given up, or when the run ended.
    pub unanswered: Unanswered,
    /// Times in which the generator itself stood still.
    pub pauses: Pauses,
    /// What TCP sent again on the connections of this run.
    pub resent: Resent,
    /// What the generator used of the processor in the window.
    pub usage: Usage,
    /// The length of the window, in nanoseconds.
    pub window: u64,
    /// The server, if it could be seen.
    pub server: Option<ServerFigures>,
    /// Whether it was ended before its time by an order.
    pub interrupted: bool,
}

/// The server at five moments.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServerFigures {
    /// Before the first connection.
    pub before: ServerSample,
    /// With all connections open.
    pub opened: ServerSample,
    /// When the window began.
    pub begin: ServerSample,
    /// When it ended.
    pub end: ServerSample,
    /// When nothing was under way any more. This sample and `opened` have looked at every thread, however many there are:
    /// context switches are those between these two, and of all echoes between them.
    pub drained: ServerSample,
}

impl ServerFigures {
    /// Context switches while the load was on, voluntary and forced; warm-up and drain are part of it.
    #[must_use]
    pub fn switches(&self) -> (u64, u64) {
        let (first, last) = (&self.opened, &self.drained);
        (
            last.switches_voluntary
                .saturating_sub(first.switches_voluntary),
            last.switches_forced.saturating_sub(first.switches_forced),
        )
    }
}

/// What a worker has been told by now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// The load may begin, since all workers are ready, at this time of the monotonic clock, in nanoseconds. It is the
    /// same time for all of them: their plans are parts of one.
    pub go: Option<u64>,
    /// End now, with a report.
    pub stop: bool,
}

/// The line to whoever ordered a run: control come in on it, and messages go out.
///
/// Both ends of it are called in the middle of the loop, so neither may wait: meanwhile no answer is read, and the load
/// would measure itself. A worker could leave both to a second thread, and for a while it did. But where a process has
/// two threads every system call costs more, in libc (which must then expect to be cancelled in the middle of it) and in
/// the kernel (which must then count the users of a descriptor): here that was two to four per cent of the load.
pub trait ControlChannel {
    /// All control that have come by now. Asked fifty times a second.
    fn control(&mut self) -> Control;
    /// Sends a message.
    fn tell(&mut self, message: &Message);
}

impl Plan {
    /// The shares of several workers: connections and requests are divided, and the first one alone looks at the server.
    /// Requests go by the connections that send them: a worker with none of those has none to send.
    #[must_use]
    pub fn divide(&self, workers: usize) -> Vec<Self> {
        // They add up to all (Hermite), and a part of something has no larger share anywhere than the whole.
        let share = |all: usize, worker: usize| (all + worker) / workers;
        // Every connection of a churn sends.
        let senders = match self.mode {
            Mode::Churn { .. } => self.connections,
            _ => self.active,
        };
        let team: Vec<usize> = (0..workers).map(|worker| share(senders, worker)).collect();
        let mut first_number = self.first_number;
        (0..workers)
            .map(|worker| {
                let connections = share(self.connections, worker);
                let before: usize = team[..worker].iter().sum();
                let of_requests = |all: u64| {
                    let up_to =
                        |sending: usize| u128::from(all) * sending as u128 / senders.max(1) as u128;
                    (up_to(before + team[worker]) - up_to(before)) as u64
                };
                let plan = Self {
                    worker,
                    first_number,
                    connections,
                    active: share(self.active, worker),
                    team: team.clone(),
                    company: self.company.map(|count| share(count, worker)),
                    requests: self.requests.map(of_requests),
                    seed: self.seed.wrapping_add(worker as u64),
                    servers: if worker == 0 {
                        self.servers.clone()
                    } else {
                        Vec::new()
                    },
                    ..self.clone()
                };
                first_number += connections as u32;
                plan
            })
            .collect()
    }
}

/// Runs a plan on the calling thread. Everything that there is to know of it goes out on the line, and the last message is
/// [`Message::Done`] or [`Message::Failed`].
pub fn run(plan: &Plan, line: &mut dyn ControlChannel) {
    let ended: io::Result<Final> = worker::Worker::new(plan, line).and_then(worker::Worker::run);
    line.tell(&match ended {
        Ok(end) => Message::Done(Box::new(end)),
        Err(error) => Message::Failed(error.to_string()),
    });
}
