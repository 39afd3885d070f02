//! What has changed between two states of a server: rates, and events by their counters.

use crate::cli::serve::WatchState;
use crate::cli::units::plural;
use crate::stats::{CloseReason, DropReason, RejectReason, Stats};
use nix::errno::Errno;

/// Numbers a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rates {
    pub(super) turns: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) datagrams_in: u64,
    pub(super) datagrams_out: u64,
}

impl Rates {
    /// Those between two states; `None` if no time lies between them.
    pub(super) fn between(before: &WatchState, now: &WatchState) -> Option<Self> {
        let passed_ms = now.uptime_ms.saturating_sub(before.uptime_ms);
        let rate = |counter: fn(&Stats) -> u64| {
            let count = counter(&now.stats).saturating_sub(counter(&before.stats));
            let rate = u128::from(count) * 1_000 / u128::from(passed_ms.max(1));
            u64::try_from(rate).unwrap_or(u64::MAX)
        };
        (passed_ms > 0).then(|| Self {
            turns: rate(|stats| stats.turns),
            bytes_in: rate(|stats| stats.bytes_in),
            bytes_out: rate(|stats| stats.bytes_out),
            datagrams_in: rate(|stats| stats.datagrams_in),
            datagrams_out: rate(|stats| stats.datagrams_out),
        })
    }
}

/// What has happened between two states, in a few words each. An echo is no event.
pub(super) fn changes(before: &WatchState, now: &WatchState) -> Vec<String> {
    let mut told = Vec::new();
    if now.phase != before.phase {
        told.push(format!("phase: {}", now.phase));
    }
    let (was, is) = (&before.stats, &now.stats);
    let mut tell = |was: u64, is: u64, words: &dyn Fn(u64) -> String| {
        if is > was {
            told.push(words(is - was));
        }
    };
    tell(was.accepted, is.accepted, &|count| {
        plural(count, "connection") + " accepted"
    });
    for &reason in CloseReason::ALL {
        tell(was.closed(reason), is.closed(reason), &|count| {
            format!("{count} closed: {}", reason.name())
        });
    }
    for &reason in RejectReason::ALL {
        tell(was.rejected(reason), is.rejected(reason), &|count| {
            format!("{count} rejected: {}", reason.name())
        });
    }
    for (&errno, &count) in &is.accept_errors {
        let before = was.accept_errors.get(&errno).copied().unwrap_or(0);
        tell(before, count, &|count| {
            format!("{count} accept failed: {:?}", Errno::from_raw(errno))
        });
    }
    tell(was.accept_pauses, is.accept_pauses, &|count| {
        plural(count, "pause") + " of accepting"
    });
    for &reason in DropReason::ALL {
        tell(was.dropped(reason), is.dropped(reason), &|count| {
            format!("{} dropped: {}", plural(count, "datagram"), reason.name())
        });
    }
    tell(was.log_suppressed, is.log_suppressed, &|count| {
        plural(count, "line") + " of the log suppressed"
    });
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_servers_clock() {
        let mut before = WatchState::default();
        let mut now = WatchState::default();
        assert_eq!(Rates::between(&before, &now), None);
        (before.uptime_ms, now.uptime_ms) = (1_000, 1_500);
        (before.stats.turns, now.stats.turns) = (100, 150);
        now.stats.bytes_in = u64::MAX;
        let rates = Rates::between(&before, &now).unwrap();
        assert_eq!((rates.turns, rates.bytes_in), (100, u64::MAX));
    }

    #[test]
    fn each_counter_that_grew_is_told_with_its_reason() {
        let before = WatchState {
            phase: "serving".to_owned(),
            ..WatchState::default()
        };
        assert!(changes(&before, &before).is_empty());
        let mut now = before.clone();
        now.phase = "draining".to_owned();
        for _ in 0..3 {
            now.stats.open();
        }
        now.stats.close(CloseReason::Reset, 0);
        now.stats.reject(RejectReason::Limit);
        now.stats.drop_datagram(DropReason::Denied);
        now.stats.accept_pauses = 1;
        let emfile = std::io::Error::from_raw_os_error(libc::EMFILE);
        now.stats.accept_error(&emfile);
        let expected = [
            "phase: draining",
            "3 connections accepted",
            "1 closed: reset",
            "1 rejected: limit",
            "1 accept failed: EMFILE",
            "1 pause of accepting",
            "1 datagram dropped: denied",
        ];
        assert_eq!(changes(&before, &now), expected);
        assert!(changes(&now, &before).iter().eq(["phase: serving"]));
    }
}
