//! The result of advancing a connection: what the connection and the server agree on.

use crate::stats::CloseReason;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The peer's next bytes; nothing is unsent.
    Reading,
    /// Room in the send buffer for unsent bytes.
    Writing,
    /// The peer's FIN, after the server's.
    Lingering,
}

/// The result of [`Connection::advance`](super::connection::Connection::advance).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is echoed, and the connection goes on waiting for bytes: nothing is to be changed.
    KeepReading,
    /// The connection waits for this from now on.
    Wait(Wait),
    /// The budget is spent before the socket would block: advance again in the next turn.
    Yield,
    /// The connection has ended.
    Done(CloseReason),
}
