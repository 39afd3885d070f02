//! The integration tests: one binary, one file for each kind of behaviour.
//!
//! They run side by side in one process, so each takes port 0 and a directory of its own, and none counts the
//! descriptors of this process or signals it: a test that needs to starts the server as a child process. Every wait has
//! a deadline, and no test measures speed. A test that cannot run on this machine says so on standard error: `skipped:
//! ...`.

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
#[cfg(all(feature = "cli", target_os = "linux"))]
mod admin;
#[cfg(all(feature = "cli", feature = "bench"))]
mod bench;
#[cfg(all(feature = "cli", feature = "bench", target_os = "linux"))]
mod bench_at;
#[cfg(all(feature = "cli", feature = "bench"))]
mod bench_ends;
mod bench_merge;
#[cfg(all(feature = "cli", feature = "bench"))]
mod bench_mutants;
#[cfg(all(feature = "cli", feature = "bench"))]
mod bench_output;
#[cfg(all(feature = "cli", feature = "check"))]
mod check;
#[cfg(feature = "cli")]
mod cli_send;
#[cfg(feature = "cli")]
mod cli_serve;
#[cfg(all(feature = "cli", feature = "bench"))]
mod compare;
#[cfg(all(feature = "cli", feature = "check"))]
mod configuration;
#[cfg(all(feature = "cli", feature = "bench", target_os = "linux"))]
mod deploy;
#[cfg(feature = "cli")]
mod doctor;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod drain_delay;
#[cfg(feature = "cli")]
mod escaping;
#[cfg(all(feature = "cli", feature = "check", target_os = "linux"))]
mod exercises;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod failing_calls;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod faults;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod identity;
#[cfg(feature = "cli")]
mod inherited;
#[cfg(all(feature = "cli", feature = "bench"))]
mod manual;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod memory;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod names;
#[cfg(feature = "cli")]
mod outputs;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod ping;
#[cfg(all(feature = "cli", feature = "bench", target_os = "linux"))]
mod proxied;
#[cfg(feature = "cli")]
mod python;
#[cfg(all(feature = "cli", feature = "bench", target_os = "linux"))]
mod rolling_update;
#[cfg(all(feature = "cli", feature = "check", target_os = "linux"))]
mod staircase;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod trace;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod watch;

// The fault catalogue, row by row.
#[cfg(all(feature = "cli", target_os = "linux"))]
mod catalogue;

// What README and the guide state.
#[cfg(all(feature = "cli", feature = "bench", target_os = "linux"))]
mod guide;

// The facts about the kernel that the design stands on, and the shape of the sources.
mod architecture;
mod kernel;
mod language;
mod public_api;
