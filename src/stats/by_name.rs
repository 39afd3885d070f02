//! Counters of a server in another process: set by their names, and closed for one that was killed.

use super::{CloseReason, DropReason, RejectReason, Stats};

impl Stats {
    /// Sets the counter of this name, as [`Stats::counters`] has it. A name that is not known (of another version of this
    /// program) has no effect.
    pub(crate) fn set(&mut self, name: &str, count: u64) {
        let counter = match name {
            "accepted" => &mut self.accepted,
            "connections_open" => &mut self.connections_open,
            "connections_open_peak" => &mut self.connections_open_peak,
            "proxy_headers" => &mut self.proxy_headers,
            "accept_pauses" => &mut self.accept_pauses,
            "accept_paused_ms" => &mut self.accept_paused_ms,
            "bytes_in" => &mut self.bytes_in,
            "bytes_out" => &mut self.bytes_out,
            "bytes_added" => &mut self.bytes_added,
            "unsent_bytes" => &mut self.unsent_bytes,
            "unsent_bytes_peak" => &mut self.unsent_bytes_peak,
            "discarded" => &mut self.discarded,
            "datagrams_in" => &mut self.datagrams_in,
            "datagrams_out" => &mut self.datagrams_out,
            "turns" => &mut self.turns,
            "turn_us_max" => &mut self.turn_us_max,
            "stale_events" => &mut self.stale_events,
            "spurious_events" => &mut self.spurious_events,
            "budget_yields" => &mut self.budget_yields,
            "option_errors" => &mut self.option_errors,
            "log_suppressed" => &mut self.log_suppressed,
            _ => return,
        };
        *counter = count;
    }

    /// Sets the counter of a reason: `closed`, `rejected` or `dropped`, and the name of the reason.
    pub(crate) fn set_reason(&mut self, family: &str, reason: &str, count: u64) {
        let place = match family {
            "closed" => place(CloseReason::ALL.iter().map(|each| each.name()), reason),
            "rejected" => place(RejectReason::ALL.iter().map(|each| each.name()), reason),
            "dropped" => place(DropReason::ALL.iter().map(|each| each.name()), reason),
            _ => None,
        };
        let counters: &mut [u64] = match family {
            "closed" => &mut self.closed,
            "rejected" => &mut self.rejected,
            _ => &mut self.dropped,
        };
        if let Some(place) = place {
            counters[place] = count;
        }
    }

    /// Counts every open connection as closed by the end of its process, and its unsent bytes as discarded.
    pub(crate) fn close_as_killed(&mut self) {
        self.closed[CloseReason::Killed as usize] += self.connections_open;
        self.connections_open = 0;
        self.discarded += self.unsent_bytes;
        self.unsent_bytes = 0;
    }
}

fn place(mut names: impl Iterator<Item = &'static str>, wanted: &str) -> Option<usize> {
    names.position(|name| name == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_can_be_set_by_its_name() {
        let mut stats = Stats::default();
        let names: Vec<&str> = stats.counters().map(|(name, _)| name).collect();
        for (name, count) in names.iter().zip(1..) {
            stats.set(name, count);
        }
        for ((name, count), expected) in stats.counters().zip(1..) {
            assert_eq!(count, expected, "{name}");
        }
        stats.set_reason("closed", "idle", 3);
        stats.set_reason("rejected", "prefix", 4);
        stats.set_reason("dropped", "loop", 5);
        stats.set_reason("dropped", "of another version", 6);
        stats.set_reason("unknown", "idle", 7);
        assert_eq!(stats.closed(CloseReason::Idle), 3);
        assert_eq!(stats.rejected(RejectReason::Prefix), 4);
        assert_eq!(
            (stats.dropped(DropReason::Loop), stats.dropped_total()),
            (5, 5)
        );
    }
}
