//! The server without a kernel: scripted sockets, exhaustive choices, and a simulated network that is drawn from a seed.
//!
//! This module is there in the crate's own tests and with the feature `simulation`, which replays seeds from other programs
//! and serves the targets of cargo-fuzz.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! - `script`: a socket that does what a list says: short reads, short writes, `WouldBlock`, a reset. For one connection.
//! - [`choices`]: every sequence of decisions up to a depth, one after the other. With a script that asks it what to do
//!   next, a connection is taken through everything that can happen to it.
//! - `network`: a whole operating system's worth of sockets, in memory, from a seed. The server runs in it unchanged.
//! - `seeds` ([`replay`], [`check_seeds`]): clients of every behavior, and the oracle that knows what each must get.
//! - [`fuzz_targets`]: properties that must hold for any bytes, with the corpus that the fuzzer has found.
//!
//! And tests that need the simulated network: `time` (which connection is closed when), `uptime` (two years of that),
//! `catalogue` (rows of the fault catalogue that no real kernel shows on demand), `torture` (every call fails once, in
//! every way, at every place).

#[cfg(test)]
mod catalogue;
pub mod choices;
pub mod fuzz_targets;
mod network;
mod script;
mod seeds;
#[cfg(test)]
mod time;
#[cfg(test)]
mod torture;
#[cfg(test)]
mod uptime;

pub use seeds::{check_seeds, replay};
