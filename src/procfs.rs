//! Readers of /proc and /sys: what the kernel says of this process, of other processes, and of the machine (proc(5)).
//!
//! Every file may be missing (in a container, on another kernel, for another user), so a reader returns `None`, or zero
//! where a count that cannot be read is as good as none. What may live in this folder: reading these files. What may not:
//! judging the values.

#[cfg(feature = "cli")]
pub(crate) mod memory;
#[cfg(feature = "bench")]
mod network;
pub(crate) mod own;
#[cfg(feature = "bench")]
mod server;
#[cfg(any(all(feature = "cli", feature = "bench"), feature = "check"))]
pub(crate) mod subtree;
mod sysctl;
#[cfg(any(feature = "cli", feature = "bench"))]
mod text;
#[cfg(feature = "cli")]
pub(crate) mod tree;
#[cfg(feature = "cli")]
mod unix_sockets;

#[cfg(feature = "bench")]
pub(crate) use network::port_range;
#[cfg(feature = "bench")]
pub use network::{KERNEL_COUNTERS, KernelCounters};
#[cfg(all(feature = "cli", feature = "bench"))]
pub(crate) use server::check_process;
#[cfg(feature = "check")]
pub(crate) use server::open_descriptors_of;
#[cfg(feature = "bench")]
pub(crate) use server::own_usage;
#[cfg(feature = "bench")]
pub use server::{ServerSample, Usage};
pub(crate) use sysctl::sysctl;
#[cfg(feature = "cli")]
pub(crate) use unix_sockets::abstract_datagram_names;
