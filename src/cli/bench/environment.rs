//! Where and when a run took place: what is needed to repeat it, or to explain a difference.

use crate::procfs::port_range;
use crate::procfs::tree::Tree;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The machine and the command line of a run.
#[derive(Debug)]
pub(in crate::cli) struct Host {
    pub(in crate::cli) command: Vec<String>,
    /// Seconds since 1970.
    pub(in crate::cli) started: u64,
    pub(in crate::cli) machine: Machine,
}

/// Where a run took place, as the records of `bench` and `compare` keep it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cli) struct Machine {
    pub(in crate::cli) name: String,
    pub(in crate::cli) kernel: String,
    pub(in crate::cli) processor: String,
    pub(in crate::cli) processors: u64,
    /// `null` if it is not known.
    pub(in crate::cli) memory_bytes: Option<u64>,
    /// The most that one process may have.
    pub(in crate::cli) descriptors: u64,
    /// The first and the last port that the kernel chooses from.
    pub(in crate::cli) ports: (u16, u16),
    pub(in crate::cli) somaxconn: Option<u64>,
}

impl Host {
    pub(in crate::cli) fn look(descriptors: u64) -> Self {
        Self {
            command: std::env::args_os()
                .map(|argument| argument.to_string_lossy().into_owned())
                .collect(),
            started: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |time| time.as_secs()),
            machine: Machine::look(descriptors),
        }
    }
}

impl Machine {
    fn look(descriptors: u64) -> Self {
        let tree = Tree(Path::new("/"));
        let line = |path: &str| tree.line(path).unwrap_or_default();
        let processor = tree.text("proc/cpuinfo").and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        });
        Self {
            name: line("proc/sys/kernel/hostname"),
            kernel: line("proc/sys/kernel/osrelease"),
            processor: processor.unwrap_or_default(),
            processors: std::thread::available_parallelism().map_or(0, |count| count.get() as u64),
            memory_bytes: tree.memory_total(),
            descriptors,
            ports: port_range(),
            somaxconn: line("proc/sys/net/core/somaxconn").parse().ok(),
        }
    }
}
