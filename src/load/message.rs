//! What a worker and the process that started it tell each other.

use super::faults::Faults;
use super::metrics::{Counters, Fairness, Interval, Pauses, Resent, Unanswered};
use crate::procfs::{ServerSample, Usage};
use serde::{Deserialize, Serialize};

/// What a worker reports while it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Message {
    /// The first message: the version of the program. Plans and messages of another version may differ.
    Hello(String),
    /// The connections are open: their number, and the nanoseconds that opening took. The load begins at
    /// [`Control::go`].
    Opened(u64, u64),
    /// The number of connections that are open so far: sent now and then, and at every power of ten.
    Opening(u64),
    /// The load begins: the answer to [`Control::go`].
    Begun,
    /// An interval has passed.
    Interval(Box<Interval>),
    /// The run is over.
    Done(Box<Final>),
    /// The run was not possible.
    Failed(String),
}

/// What is known at the end of a run, beside its intervals.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Final {
    /// What became of every request.
    pub counters: Counters,
    /// What went wrong.
    pub faults: Faults,
    /// How evenly the connections were served.
    pub fairness: Fairness,
    /// Requests on streams that had no answer when they were given up, or when the run ended.
    pub unanswered: Unanswered,
    /// Times in which the generator itself stood still, in the window or behind it.
    pub pauses: Pauses,
    /// The same while the connections were opened: their times are then its own. `at` counts from the start of the run.
    pub opening_pauses: Pauses,
    /// What TCP sent again on the connections of this run.
    pub resent: Resent,
    /// CPU time of the generator in the window.
    pub usage: Usage,
    /// The length of the window, in nanoseconds.
    pub window: u64,
    /// Samples of the server, if its processes could be read.
    pub server: Option<ServerFigures>,
    /// Whether a command ended the run before its time.
    pub interrupted: bool,
}

/// The server at five moments of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerFigures {
    /// Before the first connection.
    pub before: ServerSample,
    /// With all connections open.
    pub opened: ServerSample,
    /// At the start of the window.
    pub begin: ServerSample,
    /// At the end of the window.
    pub end: ServerSample,
    /// When nothing was in flight any more. This sample and `opened` include every thread, however many there are:
    /// context switches are counted between these two, and so are the echoes that they are divided by.
    pub drained: ServerSample,
}

impl ServerFigures {
    /// Context switches while the load was on, voluntary and forced; warm-up and drain are part of it.
    #[must_use]
    pub fn switches(&self) -> (u64, u64) {
        let (first, last) = (&self.opened, &self.drained);
        (
            last.switches_voluntary
                .saturating_sub(first.switches_voluntary),
            last.switches_forced.saturating_sub(first.switches_forced),
        )
    }
}

/// Commands that a worker has received so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// The load may begin, since all workers are ready, at this time of the monotonic clock, in nanoseconds. It is
    /// the same for all workers of one machine: their plans are parts of one.
    pub go: Option<u64>,
    /// The run must end now, with a report.
    pub stop: bool,
}

/// The channel between a worker and the process that started it: commands come in, messages go out.
///
/// Both methods are called in the middle of the loop, so neither may block: while they block no answer is read, and
/// the load would measure itself. A second thread could do both; but in a process with two threads every system call
/// costs more, in libc (which must expect cancellation in the middle of it) and in the kernel (which must count the
/// users of a descriptor): 2 to 4 % of the load here.
pub trait ControlChannel {
    /// All commands that have come by now. Called fifty times a second.
    fn control(&mut self) -> Control;
    /// Sends a message.
    fn tell(&mut self, message: &Message);
}
