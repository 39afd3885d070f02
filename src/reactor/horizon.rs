//! The moment up to which every ready source has been reported, and by which timeouts are judged.
//!
//! The clock would be wrong: if this process was stopped for a minute, its peers have sent in the meantime, and no
//! connection may be closed as idle before that input is read. So a timeout expires only when it is over at this moment.

/// Latest moment at which every source that was ready is known to have been reported.
#[derive(Debug, Default)]
pub(super) struct ExpiryHorizon {
    ms: u64,
    /// The sweep that is under way while epoll_wait keeps filling the event buffer. A sweep that began before `ms` is
    /// outdated: a wait has emptied the ready list since.
    sweep: Option<ReadyListSweep>,
}

/// One pass over the ready list. The list is FIFO, so after as many events as there are sources, every source that was
/// ready at `began_ms` has been reported.
#[derive(Debug)]
struct ReadyListSweep {
    began_ms: u64,
    /// Events that are still to come.
    left: usize,
}

impl ExpiryHorizon {
    /// Milliseconds on the clock of the timeouts.
    pub(super) fn ms(&self) -> u64 {
        self.ms
    }

    /// A wait has emptied the ready list: everything that was ready at this moment is reported.
    pub(super) fn move_to(&mut self, now_ms: u64) {
        self.ms = now_ms;
    }

    /// A wait has filled the event buffer with `reported` events. If every wait does, timeouts expire once a sweep.
    #[cold]
    pub(super) fn continue_sweep(&mut self, reported: usize, sources: usize, now_ms: u64) {
        let mut sweep = match self.sweep.take() {
            Some(sweep) if sweep.began_ms > self.ms => sweep,
            // Twice the number of sources, since stale events take room, too.
            _ => ReadyListSweep {
                began_ms: now_ms,
                left: 2 * sources,
            },
        };
        sweep.left = sweep.left.saturating_sub(reported);
        if sweep.left == 0 {
            self.ms = sweep.began_ms;
        } else {
            self.sweep = Some(sweep);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_ends_after_twice_as_many_events_as_there_are_sources() {
        let mut horizon = ExpiryHorizon::default();
        horizon.continue_sweep(12, 10, 5);
        horizon.continue_sweep(7, 10, 6);
        assert_eq!(horizon.ms(), 0);
        horizon.continue_sweep(1, 10, 7);
        assert_eq!(horizon.ms(), 5, "the time at which the sweep began");
    }

    #[test]
    fn a_sweep_that_was_overtaken_is_given_up() {
        let mut horizon = ExpiryHorizon::default();
        horizon.continue_sweep(12, 10, 5);
        horizon.move_to(50); // a wait has emptied the ready list
        horizon.continue_sweep(8, 10, 60);
        assert_eq!(horizon.ms(), 50, "a new sweep has begun");
        horizon.continue_sweep(12, 10, 70);
        assert_eq!(horizon.ms(), 60);
    }

    /// The ready list was emptied in the millisecond in which the sweep began.
    #[test]
    fn a_sweep_that_was_overtaken_at_once_is_given_up_too() {
        let mut horizon = ExpiryHorizon::default();
        horizon.continue_sweep(12, 10, 5);
        horizon.move_to(5);
        horizon.continue_sweep(8, 10, 60);
        horizon.continue_sweep(12, 10, 70);
        assert_eq!(horizon.ms(), 60, "a new sweep has begun then");
    }
}
