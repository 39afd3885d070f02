//! One record: what the loop did, in 32 bytes.

use crate::echo::decision::{PauseReason, PhaseName};
use crate::reactor::{Interest, Key, Readiness};
use crate::stats::{CloseReason, DropReason, RejectReason};

/// Size of a record in a file (bytes).
pub const RECORD_BYTES: usize = 32;

/// Errno of an error that has none.
pub const ERRNO_UNKNOWN: u16 = u16::MAX;

/// Number of no source: that of a connection which was not registered. No slot has it.
pub const NO_SOURCE: u64 = u64::MAX;

/// What the loop did at one time. What `subject`, `detail`, `asked` and `amount` hold depends on the [`Kind`]; they are 0
/// where it names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Time since the start of the recording (nanoseconds). A call is recorded when it returns.
    pub time_ns: u64,
    /// The source ([`source`](Self::source)), or [`NO_SOURCE`]; of a turn, its number.
    pub subject: u64,
    /// Bytes that a call has read or written; of a turn, the time that its wait took (nanoseconds).
    pub amount: u64,
    /// Bytes that a call asked for; of a turn, the events that were reported.
    pub asked: u32,
    /// Errno of a call that failed, or 0.
    pub errno: u16,
    /// What was done.
    pub kind: Kind,
    /// An interest, a readiness or a reason, by the number that it has among those of its type.
    pub detail: u8,
}

/// A source in a trace: its slot, and the generation that tells it from an earlier source in the same slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId {
    /// Number of the slot.
    pub slot: u32,
    /// Generation of the source.
    pub generation: u32,
}

impl From<Key> for SourceId {
    fn from(key: Key) -> Self {
        Self {
            slot: key.slot() as u32,
            generation: key.generation(),
        }
    }
}

impl SourceId {
    pub(super) fn number(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }
}

/// Types of sources, in a record of [`Kind::Registered`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceType {
    /// A connection.
    Connection,
    /// A listener.
    Listener,
    /// A datagram socket.
    Datagrams,
}

/// Declares the kinds: each with its code in a file, its name, and the function that does it.
macro_rules! kinds {
    ($($(#[$page:meta])* $kind:ident = $code:literal, $name:literal, $function:literal;)*) => {
        /// What was done.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[$page])* $kind = $code,)*
        }

        impl Kind {
            /// All kinds, in the order of their codes.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// Returns the name of the kind in text and on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }

            /// Returns the function of this crate that does it.
            #[must_use]
            pub fn function(self) -> &'static str {
                match self {
                    $(Self::$kind => $function,)*
                }
            }
        }
    };
}

kinds! {
    /// A wait for events has returned, and a turn begins. `subject`: its number; `amount`: nanoseconds of the wait; `asked`:
    /// events reported; `detail`: 1 if it polled and did not sleep (`serve --spin`).
    Turn = 1, "turn", "Reactor::wait";
    /// The kernel reported the source as ready. `detail`: a [`Readiness`].
    Ready = 2, "ready", "Epoll::wait";
    /// A waker or an external source has ended the wait.
    Woken = 3, "woken", "Epoll::wait";
    /// The event named a source that was closed: nothing was done.
    Stale = 4, "stale", "Reactor::begin_event";
    /// The source was queued already: the next turn includes this event.
    Merged = 5, "merged", "Reactor::begin_event";
    /// The source was queued for the next turn.
    Requeued = 6, "requeued", "Reactor::requeue";
    /// The source was active after a pause, and its timeout began anew.
    TimeoutRestarted = 7, "timeout-restarted", "Reactor::begin_event_after_pause";
    /// The timeout of the source has passed.
    Expired = 8, "expired", "Reactor::next_expired";
    /// The time of the alarm has come: a retry of accept, or the next phase of a shutdown.
    Alarm = 9, "alarm", "Reactor::next_event";
    /// epoll_ctl(2), EPOLL_CTL_ADD. `detail`: an [`Interest`]; `asked`: a [`SourceType`].
    Registered = 10, "registered", "Reactor::add";
    /// epoll_ctl(2), EPOLL_CTL_MOD. `detail`: an [`Interest`].
    Reregistered = 11, "reregistered", "Reactor::set_registration";
    /// epoll_ctl(2), EPOLL_CTL_DEL.
    Deregistered = 12, "deregistered", "Reactor::release";
    /// accept(2) on a listener.
    Accepted = 13, "accept", "Acceptor::accept";
    /// read(2). `asked`: the size of the buffer; `amount`: the bytes read, 0 for FIN.
    Read = 14, "read", "Connection::echo_all";
    /// write(2). `asked`: the bytes to be written; `amount`: those that were taken.
    Write = 15, "write", "Connection::write_back";
    /// shutdown(2): the server's FIN.
    Fin = 16, "fin", "Connection::try_advance";
    /// SO_LINGER of 0: the coming close sends RST. A rejected connection has no source.
    ResetOnClose = 17, "reset-on-close", "close_connection";
    /// recvmsg(2), or one of the datagrams that recvmmsg(2) has read. `amount`: the length of the datagram.
    Received = 18, "receive", "serve_datagrams";
    /// sendmsg(2). `asked`: the length of the datagram.
    Replied = 19, "reply", "answer_one";
    /// The source has used its whole budget of this turn.
    BudgetSpent = 20, "budget-spent", "apply";
    /// The connection is closed. `detail`: a [`CloseReason`].
    Closed = 21, "closed", "close_connection";
    /// Accepting is paused. `detail`: a [`PauseReason`].
    AcceptPaused = 22, "accept-paused", "Acceptor::pause_on_error";
    /// Accepting goes on.
    AcceptResumed = 23, "accept-resumed", "Acceptor::resume_accepting";
    /// The calls on this listener or datagram socket fail, so it rests.
    Rests = 24, "rests", "Listeners::on_failure";
    /// A connection was reset at once. `detail`: a [`RejectReason`].
    Rejected = 25, "rejected", "Acceptor::reject";
    /// The server has entered a phase. `detail`: a [`PhaseName`].
    Phase = 26, "phase", "Shutdown::enter";
    /// The datagram that was received last is not answered. `detail`: a [`DropReason`].
    Dropped = 27, "dropped", "answer_one";
}

impl Kind {
    /// Returns the kind of a code, unless there is none.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }

    /// Returns whether `subject` names a source.
    #[must_use]
    pub fn has_source(self) -> bool {
        !matches!(
            self,
            Self::Turn
                | Self::Woken
                | Self::Alarm
                | Self::AcceptPaused
                | Self::AcceptResumed
                | Self::Rejected
                | Self::Phase
        )
    }

    /// Returns whether it is a system call, which takes time.
    #[must_use]
    pub fn is_call(self) -> bool {
        matches!(
            self,
            Self::Registered
                | Self::Reregistered
                | Self::Deregistered
                | Self::Accepted
                | Self::Read
                | Self::Write
                | Self::Fin
                | Self::ResetOnClose
                | Self::Received
                | Self::Replied
        )
    }
}

const INTERESTS: [Interest; 2] = [Interest::Read, Interest::Write];
const READINESSES: [Readiness; 2] = [Readiness::Normal, Readiness::Exceptional];
const SOURCE_TYPES: [SourceType; 3] = [
    SourceType::Connection,
    SourceType::Listener,
    SourceType::Datagrams,
];
const PAUSES: [PauseReason; 2] = [PauseReason::Limit, PauseReason::Shortage];
const PHASES: [PhaseName; 5] = [
    PhaseName::Serving,
    PhaseName::HandedOver,
    PhaseName::Draining,
    PhaseName::Closing,
    PhaseName::Stopped,
];

/// What the numbers of a record stand for. `None` means that the kind has no such thing, or that the number stands for
/// none, as in a damaged file.
impl Record {
    /// A record without amounts.
    #[inline]
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            time_ns: 0,
            subject: 0,
            amount: 0,
            asked: 0,
            errno: 0,
            kind,
            detail: 0,
        }
    }

    /// The source that it concerns.
    #[must_use]
    pub fn source(&self) -> Option<SourceId> {
        let has_source = self.kind.has_source() && self.subject != NO_SOURCE;
        has_source.then_some(SourceId {
            slot: self.subject as u32,
            generation: (self.subject >> 32) as u32,
        })
    }

    fn detail_of<T: Copy>(&self, kinds: &[Kind], all: &[T]) -> Option<T> {
        kinds.contains(&self.kind).then_some(())?;
        all.get(usize::from(self.detail)).copied()
    }

    /// The interest of a registration.
    #[must_use]
    pub fn interest(&self) -> Option<Interest> {
        self.detail_of(&[Kind::Registered, Kind::Reregistered], &INTERESTS)
    }

    /// The readiness that was reported.
    #[must_use]
    pub fn readiness(&self) -> Option<Readiness> {
        self.detail_of(&[Kind::Ready], &READINESSES)
    }

    /// The type of a source that was registered.
    #[must_use]
    pub fn source_type(&self) -> Option<SourceType> {
        (self.kind == Kind::Registered).then_some(())?;
        SOURCE_TYPES.get(self.asked as usize).copied()
    }

    /// Why a connection was closed.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.detail_of(&[Kind::Closed], CloseReason::ALL)
    }

    /// Why accepting was paused.
    #[must_use]
    pub fn pause_reason(&self) -> Option<PauseReason> {
        self.detail_of(&[Kind::AcceptPaused], &PAUSES)
    }

    /// Why a connection was rejected.
    #[must_use]
    pub fn reject_reason(&self) -> Option<RejectReason> {
        self.detail_of(&[Kind::Rejected], RejectReason::ALL)
    }

    /// Why a datagram was dropped.
    #[must_use]
    pub fn drop_reason(&self) -> Option<DropReason> {
        self.detail_of(&[Kind::Dropped], DropReason::ALL)
    }

    /// The phase that was entered.
    #[must_use]
    pub fn phase(&self) -> Option<PhaseName> {
        self.detail_of(&[Kind::Phase], &PHASES)
    }

    /// Whether a call would have blocked.
    #[must_use]
    pub fn would_block(&self) -> bool {
        i32::from(self.errno) == libc::EAGAIN
    }

    /// Bytes of a write that were not taken: the connection's unsent bytes from now on. `None` if the write failed with
    /// another error than that it would block, or if this is no write.
    #[must_use]
    pub fn unsent_bytes(&self) -> Option<u64> {
        let has_result = self.kind == Kind::Write && (self.errno == 0 || self.would_block());
        has_result.then(|| u64::from(self.asked).saturating_sub(self.amount))
    }

    /// The form of a record in a file, little-endian.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..8].copy_from_slice(&self.time_ns.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.subject.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.amount.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.asked.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.errno.to_le_bytes());
        bytes[30] = self.kind as u8;
        bytes[31] = self.detail;
        bytes
    }

    /// Reads what [`Record::to_bytes`] has made.
    ///
    /// # Errors
    /// The code of its kind, if there is no such kind.
    pub fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Result<Self, u8> {
        let eight = |place: usize| std::array::from_fn(|index| bytes[place + index]);
        Ok(Self {
            time_ns: u64::from_le_bytes(eight(0)),
            subject: u64::from_le_bytes(eight(8)),
            amount: u64::from_le_bytes(eight(16)),
            asked: u32::from_le_bytes(std::array::from_fn(|index| bytes[24 + index])),
            errno: u16::from_le_bytes([bytes[28], bytes[29]]),
            kind: Kind::from_code(bytes[30]).ok_or(bytes[30])?,
            detail: bytes[31],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::{Path, PathBuf};

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for (place, &kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(
                (kind as usize, Kind::from_code(kind as u8)),
                (place + 1, Some(kind))
            );
            let record = Record {
                time_ns: u64::MAX - 1,
                subject: SourceId {
                    slot: 3,
                    generation: u32::MAX,
                }
                .number(),
                amount: 0x0102_0304_0506_0708,
                asked: 0x090a_0b0c,
                errno: 0x0d0e,
                kind,
                detail: 0x0f,
            };
            assert_eq!(Record::from_bytes(&record.to_bytes()), Ok(record));
            if let Some(source) = record.source() {
                assert_eq!((source.slot, source.generation), (3, u32::MAX));
            }
            assert_eq!(record.interest(), None, "no interest has this number");
        }
        for code in [0, Kind::ALL.len() as u8 + 1, 255] {
            let mut bytes = Record::new(Kind::Alarm).to_bytes();
            bytes[30] = code;
            assert_eq!(Record::from_bytes(&bytes), Err(code));
        }
    }

    #[test]
    fn the_numbers_are_those_of_the_types() {
        for interest in INTERESTS {
            assert_eq!(INTERESTS[interest as usize], interest);
        }
        for readiness in READINESSES {
            assert_eq!(READINESSES[readiness as usize], readiness);
        }
        for source in SOURCE_TYPES {
            assert_eq!(SOURCE_TYPES[source as usize], source);
        }
        for pause in PAUSES {
            assert_eq!(PAUSES[pause as usize], pause);
        }
        for phase in PHASES {
            assert_eq!(PHASES[phase as usize], phase);
        }
        for &reason in CloseReason::ALL {
            assert_eq!(CloseReason::ALL[reason as usize], reason);
        }
        for &reason in RejectReason::ALL {
            assert_eq!(RejectReason::ALL[reason as usize], reason);
        }
        for &reason in DropReason::ALL {
            assert_eq!(DropReason::ALL[reason as usize], reason);
        }
    }

    fn sources(folder: PathBuf, all: &mut String) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                sources(entry.path(), all);
            } else {
                *all += &fs::read_to_string(entry.path()).unwrap_or_default();
            }
        }
    }

    #[test]
    fn every_kind_names_a_function_that_there_is() {
        let mut all = String::new();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for module in ["reactor.rs", "echo.rs"] {
            all += &fs::read_to_string(root.join(module)).unwrap();
        }
        for module in ["reactor", "echo"] {
            sources(root.join(module), &mut all);
        }
        for kind in Kind::ALL {
            let name = kind.function().rsplit("::").next().unwrap();
            let is_there = [format!("fn {name}("), format!("fn {name}<")];
            assert!(is_there.iter().any(|form| all.contains(form)), "{name}");
        }
    }
}
