//! A guide to non-blocking I/O, with this crate as its example: one page a subject, and no code.
//!
//! Each page stands alone; a learner reads them in this order:
//!
//! 1. [`primer`]: O_NONBLOCK, epoll(7) and mio, which the other pages take for granted.
//! 2. [`staircase`]: eight small servers, from one blocking client to a small reactor, each with one new difficulty.
//! 3. [`path`]: the path of one byte through the reactor and back, with the functions that it passes.
//! 4. [`tracing`]: the loop at work, event by event, recorded or replayed from a seed.
//! 5. [`edges`]: the contract of an edge-triggered event, and the two ways to keep it.
//! 6. [`mistakes`]: the classic mistakes, each with its place in the source and a test that notices it.
//! 7. [`cost`]: the memory of a connection, and the limits that a machine sets to many of them.
//! 8. [`workers`]: several loops under one master: who accepts, what is shared, what dies with a worker.
//! 9. [`sockets`]: SOCK_STREAM, SOCK_DGRAM and SOCK_RAW: what each promises, ping, and forged sources.
//!
//! Five pages are for the use of the program:
//!
//! - [`checking`]: `check`, the rules that any echo server can be judged by.
//! - [`afternoon`]: a class of ninety minutes with the staircase and the checker.
//! - [`operations`]: addresses, limits, stopping, statistics, the sandbox, systemd, exit codes.
//! - [`benchmarking`]: `bench`, `compare`, `doctor`, a million connections, and the meaning of their figures.
//! - [`changelog`]: what changed between versions.
//!
//! After [`edges`] the source is read in the order of the crate page, beginning with `src/reactor/epoll.rs`.
//! `tests/it/guide.rs` checks what these pages state: tables against the program, names against the source, and commands by
//! running them.

pub mod primer {
    #![doc = include_str!("guide/primer.md")]
}

pub mod staircase {
    #![doc = include_str!("guide/staircase.md")]
}

pub mod path {
    #![doc = include_str!("guide/path.md")]
    #![doc = ""] // HTML begins after an empty line
    #![doc = include_str!("figures/write-buffer.svg")]
}

pub mod tracing {
    #![doc = include_str!("guide/tracing.md")]
}

pub mod edges {
    #![doc = include_str!("guide/edges.md")]
    #![doc = ""] // HTML begins after an empty line
    #![doc = include_str!("figures/edge-spent.svg")]
    #![doc = include_str!("figures/stale-event.svg")]
    #![doc = include_str!("figures/fairness.svg")]
}

pub mod mistakes {
    #![doc = include_str!("guide/mistakes.md")]
    #![doc = ""] // HTML begins after an empty line
    #![doc = include_str!("figures/accept-pause.svg")]
}

pub mod cost {
    #![doc = include_str!("guide/cost.md")]
}

pub mod workers {
    #![doc = include_str!("guide/workers.md")]
}

pub mod sockets {
    #![doc = include_str!("guide/sockets.md")]
}

pub mod checking {
    #![doc = include_str!("guide/checking.md")]
}

pub mod afternoon {
    #![doc = include_str!("guide/afternoon.md")]
}

pub mod operations {
    #![doc = include_str!("guide/operations.md")]
}

pub mod benchmarking {
    #![doc = include_str!("guide/benchmarking.md")]
}

pub mod changelog {
    #![doc = include_str!("guide/changelog.md")]
}

// The Rust in README is compiled, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
