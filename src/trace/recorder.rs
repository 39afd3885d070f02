//! The recorder: the ring, its clock, and what is put into it.

use super::file::Trace;
use super::record::{ERRNO_UNKNOWN, Kind, Record, SourceId};
use super::ring::Ring;
use crate::echo::decision::Decision;
use crate::reactor::{Key, Readiness, Step};
use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::{Instant, SystemTime};

/// Records what a server does. A copy records into the same ring, and reads it.
#[derive(Clone, Debug)]
pub struct Recorder(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    ring: RefCell<Ring>,
    clock: Clock,
    turns: Cell<u64>,
    started_unix_ns: u64,
}

/// How a turn has waited.
#[derive(Debug, Default)]
pub(super) struct Wait {
    pub(super) began_ns: u64,
    /// It goes on with the wait that was recorded last: that one was a poll, and found nothing.
    pub(super) goes_on: bool,
    /// It ended with a poll.
    pub(super) is_polled: bool,
}

/// Where the time of a record comes from.
#[derive(Debug)]
enum Clock {
    /// The system's clock, read for each call.
    System(Instant),
    /// The clock of a simulation, as its selector last told it: first, and last.
    Simulated(Cell<Option<(Instant, Instant)>>),
}

impl Recorder {
    /// A recorder for a server of this system, which holds the last `capacity` records.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let started_unix_ns = since.map_or(0, |since| since.as_nanos() as u64);
        Self::with(capacity, Clock::System(Instant::now()), started_unix_ns)
    }

    /// A recorder for a simulated server: times are those of its clock, and begin with 0.
    #[must_use]
    pub fn simulated(capacity: usize) -> Self {
        Self::with(capacity, Clock::Simulated(Cell::new(None)), 0)
    }

    fn with(capacity: usize, clock: Clock, started_unix_ns: u64) -> Self {
        Self(Rc::new(Shared {
            ring: RefCell::new(Ring::new(capacity)),
            clock,
            turns: Cell::new(0),
            started_unix_ns,
        }))
    }

    /// Returns a copy of what is recorded.
    #[must_use]
    pub fn trace(&self) -> Trace {
        let ring = self.0.ring.borrow();
        let records: Vec<Record> = ring.since(0).copied().collect();
        Trace {
            started_unix_ns: self.0.started_unix_ns,
            overwritten: ring.total() - records.len() as u64,
            records,
        }
    }

    /// Returns the number of records so far, those that were overwritten among them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.ring.borrow().total()
    }

    /// Returns the records from this number on, those that are still there.
    #[must_use]
    pub fn since(&self, from: u64) -> Vec<Record> {
        self.0.ring.borrow().since(from).copied().collect()
    }

    // ---- time ----

    /// Hears what the clock of the selector says.
    #[inline]
    pub(super) fn set_time(&self, now: Instant) {
        if let Clock::Simulated(time) = &self.0.clock {
            let first = time.get().map_or(now, |(first, _)| first);
            time.set(Some((first, now)));
        }
    }

    #[inline]
    pub(super) fn now_ns(&self) -> u64 {
        let passed = match &self.0.clock {
            Clock::System(start) => start.elapsed(),
            Clock::Simulated(time) => time
                .get()
                .map_or_else(Default::default, |(first, now)| now - first),
        };
        // Not by `as_nanos`, which computes in 128 bits: this is done for each call.
        passed.as_secs() * 1_000_000_000 + u64::from(passed.subsec_nanos())
    }

    // ---- what is recorded ----

    /// Adds a record as it is.
    #[inline]
    pub(crate) fn push(&self, record: Record) {
        self.0.ring.borrow_mut().push(record);
    }

    /// Records a turn, with the events that its wait reported.
    pub(super) fn turn<T>(
        &self,
        wait: &Wait,
        result: &io::Result<T>,
        events: impl ExactSizeIterator<Item = (Option<Key>, Readiness)>,
    ) {
        let time_ns = self.now_ns();
        let number = self.0.turns.get() + u64::from(!wait.goes_on);
        self.0.turns.set(number);
        let mut ring = self.0.ring.borrow_mut();
        let turn = Record {
            time_ns,
            subject: number,
            amount: time_ns.saturating_sub(wait.began_ns),
            asked: events.len() as u32,
            errno: errno(result),
            detail: u8::from(wait.is_polled),
            ..Record::new(Kind::Turn)
        };
        match wait.goes_on {
            true => ring.replace_last(turn),
            false => ring.push(turn),
        }
        for (key, readiness) in events {
            let ready = key.map(|key| Record {
                subject: SourceId::from(key).number(),
                detail: readiness as u8,
                ..Record::new(Kind::Ready)
            });
            ring.push(Record {
                time_ns,
                ..ready.unwrap_or_else(|| Record::new(Kind::Woken))
            });
        }
    }

    /// Records a system call with its result.
    #[inline]
    pub(super) fn call<T>(&self, record: Record, result: &io::Result<T>) {
        self.push(Record {
            time_ns: self.now_ns(),
            errno: errno(result),
            ..record
        });
    }

    pub(super) fn step(&self, step: Step) {
        let (kind, key) = match step {
            Step::Requeued(key) => (Kind::Requeued, Some(key)),
            Step::Stale(key) => (Kind::Stale, Some(key)),
            Step::Merged(key) => (Kind::Merged, Some(key)),
            Step::TimeoutRestarted(key) => (Kind::TimeoutRestarted, Some(key)),
            Step::Expired(key) => (Kind::Expired, Some(key)),
            Step::Alarm => (Kind::Alarm, None),
        };
        self.event(kind, key, 0);
    }

    pub(super) fn decision(&self, decision: Decision) {
        let (kind, key, detail) = match decision {
            Decision::BudgetSpent(key) => (Kind::BudgetSpent, Some(key), 0),
            Decision::Closed(key, reason) => (Kind::Closed, Some(key), reason as u8),
            Decision::AcceptPaused(reason) => (Kind::AcceptPaused, None, reason as u8),
            Decision::AcceptResumed => (Kind::AcceptResumed, None, 0),
            Decision::Rests(key) => (Kind::Rests, Some(key), 0),
            Decision::Rejected(reason) => (Kind::Rejected, None, reason as u8),
            Decision::PhaseBegan(phase) => (Kind::Phase, None, phase as u8),
        };
        self.event(kind, key, detail);
    }

    fn event(&self, kind: Kind, key: Option<Key>, detail: u8) {
        self.push(Record {
            time_ns: self.now_ns(),
            subject: key.map_or(0, |key| SourceId::from(key).number()),
            detail,
            ..Record::new(kind)
        });
    }
}

/// The errno of a result, 0 if it is no error. The simulated network returns some errors by their kind alone.
#[inline]
fn errno<T>(result: &io::Result<T>) -> u16 {
    let Err(error) = result else {
        return 0;
    };
    let errno = error.raw_os_error().or(match error.kind() {
        ErrorKind::WouldBlock => Some(libc::EAGAIN),
        ErrorKind::Interrupted => Some(libc::EINTR),
        ErrorKind::ConnectionReset => Some(libc::ECONNRESET),
        ErrorKind::ConnectionAborted => Some(libc::ECONNABORTED),
        ErrorKind::BrokenPipe => Some(libc::EPIPE),
        ErrorKind::TimedOut => Some(libc::ETIMEDOUT),
        _ => None,
    });
    errno
        .and_then(|errno| u16::try_from(errno).ok())
        .unwrap_or(ERRNO_UNKNOWN)
}
