//! echo-reactor
pub mod blocking;
pub mod echo;
pub mod limits;
#[cfg(feature = "bench")]
pub mod load;
pub mod net;
pub mod reactor;
pub mod stats;

#[cfg(feature = "cli")]
pub mod cli;

pub use limits::Limits;
pub use stats::Stats;

#[cfg(test)]
mod testing;
