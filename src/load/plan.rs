//! What a load is to do: the plan of a run, and the part of it that each worker has.

use super::schedule::Arrivals;
use super::sources::Sources;
use crate::net::connect::{ConnectOptions, Trigger};
use crate::net::proxy::Version;
use crate::net::{Address, Endpoint};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::time::Duration;

/// What a load is to do: servers, connections, requests and times.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The servers. Connections go to them in turn.
    #[serde(serialize_with = "to_texts", deserialize_with = "from_texts")]
    pub targets: Vec<Endpoint>,
    /// Local addresses of the connections; with `None` the kernel chooses.
    pub sources: Option<Sources>,
    /// The version of the PROXY header that each connection begins with, if there is one. It is no part of any request.
    pub proxy: Option<Version>,
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

/// Endpoints as the texts that they print, which are addresses of exactly one endpoint each.
fn to_texts<S: Serializer>(targets: &[Endpoint], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(targets.iter().map(ToString::to_string))
}

fn from_texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Endpoint>, D::Error> {
    let mut targets = Vec::new();
    for text in Vec::<String>::deserialize(deserializer)? {
        let address: Address = text.parse().map_err(D::Error::custom)?;
        targets.extend(address.resolve().map_err(D::Error::custom)?);
    }
    Ok(targets)
}

/// Number of badly behaved clients of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BadClients {
    /// Send without end and never read.
    pub slow_reader: usize,
    /// Connect, send a request, and reset at once; repeated up to fifty times a second each.
    pub reset: usize,
    /// Send a byte a second and never end; they read what comes back.
    pub slowloris: usize,
    /// Connect, send a request, send FIN, and read to the end; repeated up to fifty times a second each.
    pub half_close: usize,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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

impl Plan {
    /// A closed loop against these servers for ten seconds, after one of warm-up: every connection has one request of 64
    /// bytes under way.
    #[must_use]
    pub fn closed_loop(targets: Vec<Endpoint>, connections: usize) -> Self {
        Self {
            targets,
            sources: None,
            proxy: None,
            worker: 0,
            first_number: 0,
            connections,
            active: connections,
            active_by_worker: Vec::new(),
            bad_clients: BadClients::default(),
            size: 64,
            depth: 1,
            mode: Mode::Closed,
            trigger: Trigger::default(),
            warm_up: Duration::from_secs(1),
            duration: Duration::from_secs(10),
            requests: None,
            ramp_up: Duration::ZERO,
            connect_concurrency: 64,
            timeout: Duration::from_secs(5),
            interval: Duration::from_secs(1),
            seed: 1,
            servers: Vec::new(),
            reset_at_end: false,
        }
    }

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

    /// The server of a connection.
    pub(super) fn target(&self, number: u32) -> &Endpoint {
        &self.targets[number as usize % self.targets.len()]
    }

    /// The local address of a connection. Targets change faster than sources, so that every pair comes up.
    pub(super) fn options(&self, number: u32) -> ConnectOptions {
        let turn = u64::from(number) / self.targets.len() as u64;
        ConnectOptions {
            source: self.sources.map(|sources| sources.nth(turn)),
            receive_buffer: None,
            ..ConnectOptions::default()
        }
    }
}

impl BadClients {
    /// The number of all clients.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slow_reader + self.reset + self.slowloris + self.half_close
    }

    /// Whether there is no client.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of each kind, by its name on the command line.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, usize); 4] {
        [
            ("slow-reader", self.slow_reader),
            ("reset", self.reset),
            ("slowloris", self.slowloris),
            ("half-close", self.half_close),
        ]
    }

    /// Applies a function to the number of each kind.
    #[must_use]
    pub fn map(&self, mut number: impl FnMut(usize) -> usize) -> Self {
        Self {
            slow_reader: number(self.slow_reader),
            reset: number(self.reset),
            slowloris: number(self.slowloris),
            half_close: number(self.half_close),
        }
    }
}
