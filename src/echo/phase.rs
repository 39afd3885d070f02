//! The phases of a server, from serving to stopped.
//!
//! ```text
//!              detach_listeners
//!            ┌──────────────────▶ HandedOver ──┐
//!   Serving ─┤                                 │ drain
//!            └──────── drain ──▶ Draining ◀────┘
//!                                   │ close_at: FIN to every connection, queued connections are reset
//!                                   ▼
//!                                Closing ── abort_at, or stop ──▶ Stopped
//! ```
//!
//! `stop` leads to `Stopped` from every phase. Only [`shutdown`](super::shutdown) changes the phase; the other parts are
//! told the present one with each call.

use super::decision::PhaseName;
use std::time::Instant;

/// How far a server has come with its shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Connections and datagrams are accepted and served.
    Serving,
    /// Another server has the listeners. Open connections are served as before.
    HandedOver,
    /// Each listener and datagram socket is served until its queue is empty, and then closed. A connection that is silent
    /// for [`Limits::drain_idle_timeout`](crate::Limits::drain_idle_timeout) gets a FIN; the rest get it at `close_at`.
    Draining {
        close_at: Instant,
        abort_at: Instant,
    },
    /// Every connection got its FIN, or gets it once nothing is unsent. What is still queued is refused and counted.
    Closing { abort_at: Instant },
    /// Every connection and every listener is closed.
    Stopped,
}

impl Phase {
    /// Whether connections are to end and listeners to close.
    pub(super) fn is_stopping(self) -> bool {
        !matches!(self, Self::Serving | Self::HandedOver)
    }

    /// Whether queued connections are reset and queued datagrams dropped, because the time for serving them is over.
    pub(super) fn is_refusing(self) -> bool {
        matches!(self, Self::Closing { .. } | Self::Stopped)
    }

    /// Its name, without its times.
    pub(super) fn name(self) -> PhaseName {
        match self {
            Self::Serving => PhaseName::Serving,
            Self::HandedOver => PhaseName::HandedOver,
            Self::Draining { .. } => PhaseName::Draining,
            Self::Closing { .. } => PhaseName::Closing,
            Self::Stopped => PhaseName::Stopped,
        }
    }

    /// When the next phase begins by itself.
    pub(super) fn ends_at(self) -> Option<Instant> {
        match self {
            Self::Serving | Self::HandedOver | Self::Stopped => None,
            Self::Draining { close_at, .. } => Some(close_at),
            Self::Closing { abort_at } => Some(abort_at),
        }
    }
}
