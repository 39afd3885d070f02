//! Decisions of the server: what it does between its system calls.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! The calls themselves can be seen at the sockets, and a decision cannot: why a connection was closed, or accepting paused.
//! So each is told to the backend ([`Backend::note`](super::Backend::note)), where the operating system's does nothing. None
//! is on the path of an echo.

use crate::reactor::Key;
use crate::stats::{CloseReason, RejectReason};

/// One decision, with the source that it concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The source used its whole budget of this turn, and is queued for the next one.
    BudgetSpent(Key),
    /// The connection is closed.
    Closed(Key, CloseReason),
    /// Accepting is paused, at all listeners.
    AcceptPaused(PauseReason),
    /// Accepting goes on.
    AcceptResumed,
    /// The calls on this listener or datagram socket fail, so it rests for a while.
    Rests(Key),
    /// The connection that was accepted last is reset at once.
    Rejected(RejectReason),
    /// The server enters this phase.
    PhaseBegan(PhaseName),
}

/// Why accepting is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseReason {
    /// As many connections are open as [`Limits::connections_max`](crate::Limits::connections_max) allows.
    Limit,
    /// The system is short of descriptors or memory.
    Shortage,
}

/// The phases of a server by their names; file `phase` shows how they follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhaseName {
    /// Connections and datagrams are accepted and served.
    Serving,
    /// Another server has the listeners; open connections are served.
    HandedOver,
    /// What is queued is served, and a silent connection gets a FIN.
    Draining,
    /// Every connection gets its FIN, and what is queued is refused.
    Closing,
    /// Every connection and every listener is closed.
    Stopped,
}

impl PhaseName {
    /// Returns the name in words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::HandedOver => "handed over",
            Self::Draining => "draining",
            Self::Closing => "closing",
            Self::Stopped => "stopped",
        }
    }
}
