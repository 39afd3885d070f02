//! The integration tests: one binary, one file for each kind of behaviour.
//!
//! They run beside each other in one process, so each takes port 0 and a directory of its own, and none asks what this
//! process has open: whoever counts descriptors or signals a server has one as a child. Every wait has a deadline, and
//! none of them measures speed. What cannot be tested here and now says so on standard error: `skipped: ...`.

mod support;

// The server, through the library and through the program.
mod datagrams;
mod drain;
mod echo;
mod errors;
mod hostile;
#[cfg(all(feature = "pktinfo", target_os = "linux"))]
mod inherited_sockets;
mod limits;
mod socket_files;
mod stop;

// The program alone.
#[cfg(all(feature = "cli", feature = "bench"))]
mod bench;
#[cfg(all(feature = "cli", feature = "bench"))]
mod bench_ends;
#[cfg(all(feature = "cli", feature = "bench"))]
mod bench_mutants;
#[cfg(all(feature = "cli", feature = "bench"))]
mod bench_output;
#[cfg(feature = "cli")]
mod cli_send;
#[cfg(feature = "cli")]
mod cli_serve;
#[cfg(all(feature = "cli", feature = "bench"))]
mod compare;
#[cfg(feature = "cli")]
mod doctor;
#[cfg(feature = "cli")]
mod escaping;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod failing_calls;
#[cfg(feature = "cli")]
mod inherited;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod memory;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod names;
#[cfg(feature = "cli")]
mod outputs;
#[cfg(feature = "cli")]
mod python;

// The fault catalogue, row by row.
#[cfg(all(feature = "cli", target_os = "linux"))]
mod catalogue;

// What all of it stands on.
mod architecture;
mod kernel;
