//! A rule: its name, its level, its source, and the function that tries it.

use super::finding::{Finding, Limit};
use super::process::Server;
use crate::net::Endpoint;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How binding a rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Without it the server is no echo server: RFC 862, and what TCP promises.
    Must,
    /// What a server that unknown clients can reach should do.
    Should,
    /// Worth knowing.
    Info,
}

impl Level {
    /// The word that reports use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
            Self::Info => "INFO",
        }
    }
}

/// How much time a check may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// Some ten seconds for all rules.
    Quick,
    /// Some thirty seconds.
    Normal,
    /// Some sixty seconds.
    Full,
}

impl Effort {
    /// One of three values.
    pub(super) fn pick<T>(self, quick: T, normal: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Normal => normal,
            Self::Full => full,
        }
    }
}

/// The circumstances of a check.
#[derive(Clone, Copy, Debug)]
pub struct Trial<'a> {
    /// How much time it may take.
    pub effort: Effort,
    /// Set when the check is to end.
    pub stop: &'a AtomicBool,
}

impl Trial<'_> {
    /// How long a server may do nothing although it could: see `stall_timeout`.
    pub(super) fn stall_timeout(self) -> Duration {
        Duration::from_millis(self.effort.pick(1_000, 2_000, 3_000))
    }

    pub(super) fn is_stopped(self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// What a rule needs of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// A stream socket, TCP or Unix.
    Stream,
    /// A TCP socket.
    Tcp,
    /// A datagram socket, UDP or Unix.
    Datagrams,
    /// A UDP socket.
    Udp,
    /// A Unix stream socket.
    Unix,
    /// A server that the checker has started, on TCP.
    Process,
}

type Run = fn(&mut Server, &Trial<'_>) -> Result<Finding, Limit>;

/// One requirement, and how it is checked.
#[derive(Debug)]
pub struct Rule {
    /// Its name, which stays the same from version to version.
    pub id: &'static str,
    /// How binding it is.
    pub level: Level,
    /// Its stage, from 1 on: a server that is being written passes them in this order.
    pub stage: u8,
    /// The requirement, one sentence.
    pub asks: &'static str,
    /// What it follows from.
    pub source: &'static str,
    /// A line for a shell that shows the same, on port 50007.
    pub by_hand: &'static str,
    /// The page and the heading of the guide.
    pub guide: &'static str,
    /// The usual mistakes, by the names of `tests/mutants`; empty where there is none.
    pub mistakes: &'static [&'static str],
    pub(super) needs: Needs,
    pub(super) run: Run,
}

impl Rule {
    /// Its name for this kind of address.
    #[must_use]
    pub fn id_for(&self, endpoint: &Endpoint) -> String {
        match endpoint {
            Endpoint::Unix(_) => self.id.replace("tcp/", "unix/"),
            Endpoint::UnixDatagram(_) => self.id.replace("udp/", "unixgram/"),
            _ => self.id.to_owned(),
        }
    }

    /// Its stage for this kind of address: Unix sockets are a stage of their own.
    #[must_use]
    pub fn stage_for(&self, endpoint: &Endpoint) -> u8 {
        match endpoint {
            Endpoint::Unix(_) | Endpoint::UnixDatagram(_) => 8,
            _ => self.stage,
        }
    }

    /// Whether the rule is one for this kind of address.
    #[must_use]
    pub fn concerns(&self, endpoint: &Endpoint) -> bool {
        match self.needs {
            Needs::Stream => is_stream(endpoint),
            Needs::Tcp | Needs::Process => matches!(endpoint, Endpoint::Tcp(_)),
            Needs::Datagrams => !is_stream(endpoint),
            Needs::Udp => matches!(endpoint, Endpoint::Udp(_)),
            Needs::Unix => matches!(endpoint, Endpoint::Unix(_)),
        }
    }

    /// Why the rule cannot be tried on this server.
    pub(super) fn inapplicable(&self, server: &Server) -> Option<&'static str> {
        if !self.concerns(server.endpoint()) {
            return Some("it is a rule for another kind of address");
        }
        let needs_process = self.needs == Needs::Process && !server.is_own();
        needs_process.then_some("only a server that --command starts can be watched")
    }

    pub(super) fn run(&self, server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
        (self.run)(server, trial)
    }
}

/// Whether an endpoint is one of streams.
fn is_stream(endpoint: &Endpoint) -> bool {
    matches!(endpoint, Endpoint::Tcp(_) | Endpoint::Unix(_))
}
