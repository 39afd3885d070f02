//! The fault catalogue: each test is named after the row that it shows, one file for each letter.
//!
//! A row whose faithful place is the simulated network is a unit test with the row's name beside `src/testing`. What
//! needs root or a tool that is not there is skipped, and says so in one line. Where a row gives a time, the test asserts
//! it with room to spare, since others use the processors too, and prints the figure that it saw.

mod accept;
mod backpressure;
#[cfg(feature = "bench")]
mod clients;
mod closing;
mod config;
mod edges;
mod fairness;
mod logs;
mod network;
mod stop;
mod udp;
mod unix;
mod whole;
