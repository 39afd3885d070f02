//! What a server says once it listens: its capacity in the log, its addresses on standard output, READY to a manager.

use super::delivery::Delivery;
use super::exposure;
use crate::net::Endpoint;

/// What is announced once the server listens.
#[derive(Debug)]
pub(super) struct Announcement {
    pub(super) capacity: String,
    /// Other machines are meant to reach it.
    pub(super) is_exposed: bool,
    /// What else the log warns of.
    pub(super) warning: Option<String>,
    pub(super) delivery: Delivery,
}

impl Announcement {
    /// Logs the capacity, and writes the addresses to standard output, where a script reads them. Either stream may be
    /// closed; that does not stop the server.
    pub(super) fn tell(mut self, addresses: &[Endpoint]) -> Delivery {
        if !self.is_exposed {
            exposure::warn(addresses);
        }
        if let Some(warning) = &self.warning {
            log::warn!("{warning}");
        }
        log::info!(
            "echo-reactor {}: {}; stop with Ctrl-C",
            env!("CARGO_PKG_VERSION"),
            self.capacity
        );
        let lines = |address: &Endpoint| format!("listening {address}\n");
        self.delivery
            .announce(&addresses.iter().map(lines).collect::<String>());
        self.delivery
    }
}
