//! echo-reactor
pub mod echo;
pub mod limits;
pub mod net;
pub mod stats;

#[cfg(feature = "cli")]
pub mod cli;

pub use limits::Limits;
pub use stats::Stats;
