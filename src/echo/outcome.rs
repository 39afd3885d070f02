//! The states of a connection, and the results of advancing one and of one turn of the loop.

use crate::stats::CloseReason;

/// How far a connection is with its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The PROXY header is not whole yet.
    Header,
    /// Bytes are echoed.
    Open,
    /// The same, and a read was full, and no turn since has read less than an eighth of that: much may be there at once.
    Streaming,
    /// Requests are answered.
    Answering,
    /// The server ends the connection as soon as the requests that were read are answered.
    LastAnswers,
    /// The server ends the connection as soon as nothing is unsent.
    Closing,
    /// The server has sent its FIN. Bytes that still arrive are discarded until the peer's FIN.
    Lingering,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The rest of the PROXY header.
    Header,
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
    /// The connection has a PROXY header to read first.
    ReadHeader,
    /// The connection may have requests to answer.
    Answer,
    /// The connection waits for this from now on.
    Wait(Wait),
    /// The budget is spent before the socket would block: advance again in the next turn.
    Yield,
    /// The connection has ended.
    Done(CloseReason),
}

/// The result of one turn of the loop.
#[must_use = "a server that has finished needs no more turns"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Turn {
    /// The server goes on: there will be more turns.
    Serving,
    /// An external source ([`Server::watch`](super::Server::watch)) is ready, or a [`Handle`](super::Handle) has given a
    /// command. Events that are ready as well are served by the next turn.
    Woken,
    /// The server has stopped: no connection and no listener is left.
    Finished,
}
