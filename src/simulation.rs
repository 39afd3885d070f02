//! Test bench without a kernel: scripted sockets, exhaustive choices, and a simulated network with a virtual clock.
//!
//! It is compiled for the tests of this crate and with the feature `simulation`, which replays seeds from other programs.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! In reading order:
//!
//! - `script`: a socket whose calls return what a script says: a short read, a short write, `WouldBlock`, a reset.
//! - `choices`: enumerates every sequence of decisions up to a depth. A script that takes its results from it leads one
//!   connection through everything that can happen to it.
//! - `network`: sockets, an edge-triggered event queue and a clock in memory, all driven by one seed. The server runs on
//!   it unchanged, as another `echo::Backend`.
//! - `seeds` ([`replay`], [`check_seeds`], `tell`): random clients and faults on that network, with the invariants that must hold.
//! - `torture`: every call fails once, with every errno, at every place.
//! - `catalogue`: the rows of the fault catalogue that no real kernel produces on demand.
//! - `counters`: each counter with the event that it counts.
//! - `ends`: drain, stop, and a listener that breaks.
//! - `proxied`: PROXY headers, in pieces, late and malformed.
//! - `answers`: requests that are answered in place of echoes, in pieces, too long, and for slow readers.
//! - `time`: timeouts, by a clock that the test moves.
//! - `uptime`: two years of that.
//!
//! The server has no hook for any of it, and no module of the program imports it.

#[cfg(test)]
mod answers;
#[cfg(test)]
mod catalogue;
pub mod choices;
#[cfg(test)]
mod counters;
#[cfg(test)]
mod ends;
mod network;
#[cfg(test)]
mod proxied;
pub(crate) mod script;
mod seeds;
#[cfg(test)]
mod time;
#[cfg(test)]
mod torture;
#[cfg(test)]
mod uptime;

#[cfg(feature = "trace")]
pub use seeds::story::{Story, tell};
pub use seeds::{check_seeds, replay};
