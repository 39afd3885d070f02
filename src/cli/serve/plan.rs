//! A server to be started: the arguments, checked and resolved.

use super::announcement::Announcement;
use super::sandbox::Sandbox;
use super::watching::WatchName;
use crate::echo::Config;
use crate::faults::Faults;
use crate::net::Resolved;
use std::path::Path;
use std::time::Duration;

/// What is to be bound, and how it is to be served and announced.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) addresses: Vec<Resolved>,
    pub(super) config: Config,
    /// Where health and metrics are asked for.
    pub(super) admin: Option<Resolved>,
    /// Where the state is asked for.
    pub(super) watch: Option<&'a WatchName>,
    pub(super) drain_delay: Duration,
    pub(super) pid_file: Option<&'a Path>,
    pub(super) sandbox: Sandbox,
    /// Faults to order.
    pub(super) faults: Option<Faults>,
    pub(super) announcement: Announcement,
}
