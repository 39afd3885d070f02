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
//! A worker composes parts that own their state: `connections` (the sockets) with `connector` (which is opened next),
//! `arrivals` (the plan of an open loop), `bad_clients`, and `context`, which the clients share, with `recorder`.
//!
//! In reading order: this page, `plan`, `message`; `payload`, `schedule`, `latencies`, `metrics`, `faults`; `in_flight`, `recorder`,
//! `context`; `stream`, `datagram`, `client`; `connector`, `connections`, `arrivals`, `bad_clients`, `teardown`, `worker`;
//! `sources`, [`preflight`], [`summary`], [`validity`].

mod arrivals;
mod bad_clients;
mod client;
mod connections;
mod connector;
mod context;
mod datagram;
mod faults;
mod in_flight;
mod latencies;
mod message;
mod metrics;
mod payload;
mod plan;
pub mod preflight;
mod recorder;
mod schedule;
mod sources;
mod stream;
pub mod summary;
mod teardown;
pub mod validity;
mod worker;

pub use crate::procfs::{KERNEL_COUNTERS, KernelCounters, ServerSample, Usage};
pub use arrivals::QUEUE_MAX;
pub use datagram::HEADER_BYTES;
pub use faults::{FaultKind, Faults};
pub use latencies::{LATENCY_RANGE_NS, Latencies, latencies};
pub use message::{Control, ControlChannel, Final, Message, ServerFigures};
pub use metrics::{Counters, Fairness, Interval, Pauses, Resent, Stage, Unanswered};
#[cfg(feature = "check")]
pub(crate) use payload::Pattern;
pub use plan::{BadClients, Mode, Plan};
pub use schedule::{Arrivals, monotonic_ns};
pub use sources::{Sources, SourcesError};
pub use summary::{Second, Total};

use std::io;

/// Runs a plan on the calling thread. All results go out on the channel; the last message is [`Message::Done`] or
/// [`Message::Failed`].
pub fn run(plan: &Plan, channel: &mut dyn ControlChannel) {
    let ended: io::Result<Final> = worker::Worker::new(plan, channel).and_then(worker::Worker::run);
    channel.tell(&match ended {
        Ok(end) => Message::Done(Box::new(end)),
        Err(error) => Message::Failed(error.to_string()),
    });
}
