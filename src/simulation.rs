//! What the tests stand on: a scripted socket, exhaustive choices, and a simulated network. Only there under `cfg(test)`, and part of
//! it for the fuzzer (`cfg(fuzzing)`).
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! - [`script`]: a socket that does what a list says: short reads, short writes, `WouldBlock`, a reset. For one
//!   connection.
//! - [`choices`]: every sequence of decisions up to a depth, one after the other. With a script that asks it what to do
//!   next, a connection is taken through everything that can happen to it.
//! - [`network`]: a whole operating system's worth of sockets, in memory, from a seed. The server runs in it unchanged.
//! - [`simulation`]: clients of all manners, the oracle that knows what each must get, and the seeds.
//! - [`fuzzed`]: laws that must hold of any bytes, for the fuzzer to break, with the corpus that it has found.
//! - [`time`]: who is closed when.
//! - [`uptime`]: two years of that.
//! - [`catalogue`]: rows of the fault catalogue that no real kernel shows on demand.
//! - [`torture`]: every call fails once, in every way, at every place.

// The fuzzer has no use for the tests themselves.
#![cfg_attr(fuzzing, allow(dead_code))]

#[cfg(test)]
mod catalogue;
mod choices;
pub mod fuzz_targets;
#[cfg(test)]
mod network;
mod script;
#[cfg(test)]
mod seeds;
#[cfg(test)]
mod time;
#[cfg(test)]
mod torture;
#[cfg(test)]
mod uptime;
