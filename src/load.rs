//! The load generator: it sends requests to an echo server, verifies every byte of what comes back, and measures when.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! ```text
//!             ┌────────── worker: one thread, one reactor ──────────┐  seconds, one by one
//!   Plan ───▶ │ opening ─▶ warm-up ─▶ window ─▶ drain               │ ─────────────────────▶ ControlChannel
//!             │    client: issue ─▶ write .. read ─▶ verify, record │       Message
//!             └─────────────────────────────────────────────────────┘
//! ```
//!
//! It runs on the same reactor as the server and knows nothing of the server: any echo server will do. What may live
//! in this module: connections as a client sees them, clocks, histograms, figures of the machine, and the rules by
//! which a run is called invalid. What may not: the command line, and the formats of reports.
//!
//! Three rules make its figures believable. **Every byte is verified** against a text in which each byte depends on
//! its position. **Time is taken from the plan**: an open loop counts the *response time* from the moment when a
//! request was planned to be sent, however late it was sent; the *service time* is counted from the actual send.
//! **The generator measures itself**: how late it was, and whether it was the bottleneck.
//!
//! In reading order: this page, `payload`, `schedule`, `latencies`, `metrics`, `in_flight`, `stream`, `datagram`,
//! `worker`, `connector`, `issuing`, `finish`, `teardown`, `housekeeping`, `bad_clients`, [`preflight`],
//! [`validity`].

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

/// What a load is to do: servers, connections, requests and times.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The servers. Connections go to them in turn.
    pub targets: Vec<Endpoint>,
    /// Local addresses of the connections; with `None` the kernel chooses.
    pub sources: Option<Sources>,
    /// The number of the worker that this plan is for, from 0 on. Its messages carry the number.
    pub worker: usize,
    /// The number of the first connection: each worker has numbers of its own.
    pub first_number: u32,
    /// Number of connections.
    pub connections: usize,
    /// Number of connections that send requests; the rest is proved by one echo and then idle.
    pub active: usize,
    /// Number of sending connections of each worker, this one included: the planned requests of an open loop are
    /// divided in these shares. Empty for a run of one worker.
    pub active_by_worker: Vec<usize>,
    /// Badly behaved clients beside the connections.
    pub bad_clients: BadClients,
    /// Bytes of a request.
    pub size: usize,
    /// Requests that may be in flight on one connection.
    pub depth: usize,
    /// When requests are sent.
    pub mode: Mode,
    /// The epoll trigger mode, which decides the order in which answers are read that are ready at the same time.
    pub trigger: Trigger,
    /// Time under load before the measurement begins.
    pub warm_up: Duration,
    /// Time that is measured.
    pub duration: Duration,
    /// Ends the measurement after this number of requests.
    pub requests: Option<u64>,
    /// Time over which the opening of the connections is spread.
    pub ramp_up: Duration,
    /// Connections that may be opened, and not proved yet, at the same time.
    pub connect_concurrency: usize,
    /// The longest wait for an answer.
    pub timeout: Duration,
    /// Length of an interval, after which the worker reports.
    pub interval: Duration,
    /// Seed of the random numbers.
    pub seed: u64,
    /// Processes of the server, whose CPU time and memory are sampled.
    pub servers: Vec<u32>,
    /// Whether the connections are reset at the end. A connection that is closed by FIN keeps its port in TIME_WAIT
    /// for a minute, and a following run cannot use the port.
    pub reset_at_end: bool,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// Each connection sends its next request when the answer to the last has come.
    Closed,
    /// Requests are planned on a clock, whatever the server does.
    Open {
        /// Requests a second, over all connections.
        rate: f64,
        /// How arrivals follow one another.
        arrivals: Arrivals,
    },
    /// Each connection is closed after one request, and opened anew.
    Churn {
        /// By a reset; otherwise by FIN.
        reset: bool,
    },
}

/// What a worker reports while it runs.
#[derive(Debug)]
pub enum Message {
    /// The connections are open: their number, and the nanoseconds that opening took. The load begins at
    /// [`Control::go`].
    Opened(u64, u64),
    /// The number of connections that are open so far: sent now and then, and at every power of ten.
    Opening(u64),
    /// An interval has passed.
    Interval(Box<Interval>),
    /// The run is over.
    Done(Box<Final>),
    /// The run was not possible.
    Failed(String),
}

/// What is known at the end of a run, beside its intervals.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Final {
    /// What became of every request.
    pub counters: Counters,
    /// What went wrong.
    pub faults: Faults,
    /// How evenly the connections were served.
    pub fairness: Fairness,
    /// Requests on streams that had no answer when they were given up, or when the run ended.
    pub unanswered: Unanswered,
    /// Times in which the generator itself stood still, in the window or behind it.
    pub pauses: Pauses,
    /// The same while the connections were opened: their times are then its own. `at` counts from the start of the run.
    pub opening_pauses: Pauses,
    /// What TCP sent again on the connections of this run.
    pub resent: Resent,
    /// CPU time of the generator in the window.
    pub usage: Usage,
    /// The length of the window, in nanoseconds.
    pub window: u64,
    /// Samples of the server, if its processes could be read.
    pub server: Option<ServerFigures>,
    /// Whether a command ended the run before its time.
    pub interrupted: bool,
}

/// The server at five moments of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServerFigures {
    /// Before the first connection.
    pub before: ServerSample,
    /// With all connections open.
    pub opened: ServerSample,
    /// At the start of the window.
    pub begin: ServerSample,
    /// At the end of the window.
    pub end: ServerSample,
    /// When nothing was in flight any more. This sample and `opened` include every thread, however many there are:
    /// context switches are counted between these two, and so are the echoes that they are divided by.
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

/// Commands that a worker has received so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// The load may begin, since all workers are ready, at this time of the monotonic clock, in nanoseconds. It is
    /// the same for all workers: their plans are parts of one.
    pub go: Option<u64>,
    /// The run must end now, with a report.
    pub stop: bool,
}

/// The channel between a worker and the process that started it: commands come in, messages go out.
///
/// Both methods are called in the middle of the loop, so neither may block: while they block no answer is read, and
/// the load would measure itself. A second thread could do both; but in a process with two threads every system call
/// costs more, in libc (which must expect cancellation in the middle of it) and in the kernel (which must count the
/// users of a descriptor): 2 to 4 % of the load here.
pub trait ControlChannel {
    /// All commands that have come by now. Called fifty times a second.
    fn control(&mut self) -> Control;
    /// Sends a message.
    fn tell(&mut self, message: &Message);
}

impl Plan {
    /// Divides the plan among several workers. Connections and requests are divided, and only the first worker
    /// samples the server. Requests are divided by sending connections: a worker without any has no requests.
    #[must_use]
    pub fn divide(&self, workers: usize) -> Vec<Self> {
        // Hermite's identity: the parts add up to the whole, and the share of a part never exceeds that of the whole.
        let share = |all: usize, worker: usize| (all + worker) / workers;
        // Every connection of a churn sends.
        let senders = match self.mode {
            Mode::Churn { .. } => self.connections,
            _ => self.active,
        };
        let active_by_worker: Vec<usize> =
            (0..workers).map(|worker| share(senders, worker)).collect();
        let mut first_number = self.first_number;
        (0..workers)
            .map(|worker| {
                let connections = share(self.connections, worker);
                let before: usize = active_by_worker[..worker].iter().sum();
                let of_requests = |all: u64| {
                    let up_to =
                        |sending: usize| u128::from(all) * sending as u128 / senders.max(1) as u128;
                    (up_to(before + active_by_worker[worker]) - up_to(before)) as u64
                };
                let plan = Self {
                    worker,
                    first_number,
                    connections,
                    active: share(self.active, worker),
                    active_by_worker: active_by_worker.clone(),
                    bad_clients: self.bad_clients.map(|count| share(count, worker)),
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

/// Runs a plan on the calling thread. All results go out on the channel; the last message is [`Message::Done`] or
/// [`Message::Failed`].
pub fn run(plan: &Plan, channel: &mut dyn ControlChannel) {
    let ended: io::Result<Final> = worker::Worker::new(plan, channel).and_then(worker::Worker::run);
    channel.tell(&match ended {
        Ok(end) => Message::Done(Box::new(end)),
        Err(error) => Message::Failed(error.to_string()),
    });
}
