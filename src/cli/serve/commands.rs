//! Commands that come as signals, for a server of one process.

use super::notify;
use crate::blocking;
use crate::cli::logging;
use crate::cli::memory::{Held, MemoryTable};
use crate::cli::units::{Time, plural};
use crate::echo::{Backend, Server};
use crate::stats::Stats;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use std::time::{Duration, Instant};

/// The operations of a server that signals call.
pub(super) trait Served {
    fn drain(&mut self);
    fn stop(&mut self);
    fn stats(&self) -> Stats;

    /// Connections and their memory, for the table of memory.
    fn held(&self) -> Held {
        let stats = self.stats();
        Held {
            connections: stats.connections_open,
            write_buffers: stats.unsent_bytes,
            ..Held::default()
        }
    }
}

impl<B: Backend> Served for Server<B> {
    fn drain(&mut self) {
        Self::drain(self);
    }

    fn stop(&mut self) {
        Self::stop(self);
    }

    fn stats(&self) -> Stats {
        Self::stats(self).clone()
    }

    fn held(&self) -> Held {
        held(self)
    }
}

/// Connections of the event loop and their memory.
pub(super) fn held(server: &Server<impl Backend>) -> Held {
    let stats = server.stats();
    let (taken, room) = server.slot_bytes();
    Held {
        connections: stats.connections_open,
        slots: (taken as u64, room as u64),
        write_buffers: stats.unsent_bytes,
        turn_us_max: stats.turn_us_max,
    }
}

impl Served for blocking::Handle {
    fn drain(&mut self) {
        Self::drain(self);
    }

    fn stop(&mut self) {
        Self::stop(self);
    }

    fn stats(&self) -> Stats {
        Self::stats(self)
    }
}

/// What the log says when a drain is delayed.
pub(super) fn delay_text(delay: Duration) -> String {
    format!(
        "not ready any more; serving on for {} before draining; once more to drain now",
        Time(delay)
    )
}

/// Commands that came as signals.
#[derive(Debug)]
pub(super) struct SignalCommands {
    drain_delay: Duration,
    drain_timeout: Duration,
    /// When the drain begins, if a signal to stop came and `drain_delay` is not over.
    drain_at: Option<Instant>,
    /// Bytes discarded when the drain began, if it has.
    stopping: Option<u64>,
    /// Memory per connection so far.
    pub(super) memory: MemoryTable,
}

impl SignalCommands {
    pub(super) fn new(drain_delay: Duration, drain_timeout: Duration) -> Self {
        Self {
            drain_delay,
            drain_timeout,
            drain_at: None,
            stopping: None,
            memory: MemoryTable::of_this_process(),
        }
    }

    /// Whether a signal to stop has come.
    pub(super) fn is_stopping(&self) -> bool {
        self.drain_at.is_some() || self.stopping.is_some()
    }

    pub(super) fn discarded_before(&self) -> u64 {
        self.stopping.unwrap_or(0)
    }

    /// Prints the counters, and memory per connection at every power of ten and now.
    fn print_counters(&self, server: &impl Served) {
        logging::print_line(&server.stats().to_string());
        let held = server.held();
        let now = self.memory.row(held.connections, Some(held));
        for row in self.memory.rows().iter().chain([&now]) {
            logging::print_line(&row.to_string());
        }
    }

    fn delay_drain(&mut self, server: &mut impl Served) {
        if self.drain_delay.is_zero() {
            return self.begin_drain(server);
        }
        log::info!("{}", delay_text(self.drain_delay));
        self.drain_at = Some(Instant::now() + self.drain_delay);
    }

    fn begin_drain(&mut self, server: &mut impl Served) {
        let stats = server.stats();
        self.drain_at = None;
        self.stopping = Some(stats.discarded);
        log::info!(
            "draining {}, at most {}; once more to stop at once",
            plural(stats.connections_open, "connection"),
            Time(self.drain_timeout)
        );
        server.drain();
    }

    /// Begins the drain if its delay is over. Returns the time until there is something to do.
    pub(super) fn on_time(&mut self, now: Instant, server: &mut impl Served) -> Option<Duration> {
        let left = self.drain_at?.saturating_duration_since(now);
        if left.is_zero() {
            self.begin_drain(server);
        }
        Some(left)
    }

    pub(super) fn follow(&mut self, signal: i32, server: &mut impl Served) {
        match signal {
            SIGTERM | SIGINT if self.stopping.is_some() => {
                log::info!("stopping at once");
                server.stop();
            }
            SIGTERM | SIGINT if self.drain_at.is_some() => self.begin_drain(server),
            SIGTERM | SIGINT => {
                notify::stopping();
                self.delay_drain(server);
            }
            SIGUSR1 => self.print_counters(server),
            SIGUSR2 => log::warn!(
                "SIGUSR2 is ignored: one process cannot replace itself; start it with --workers, 1 or more, for a master that can"
            ),
            SIGHUP => log::info!("SIGHUP is ignored; SIGTERM drains and stops"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Recorder {
        said: Vec<&'static str>,
        stats: Stats,
    }

    impl Served for Recorder {
        fn drain(&mut self) {
            self.said.push("drain");
        }

        fn stop(&mut self) {
            self.said.push("stop");
        }

        fn stats(&self) -> Stats {
            self.stats.clone()
        }
    }

    #[test]
    fn the_first_sigterm_drains_and_the_second_stops_whatever_comes_between() {
        let mut commands = SignalCommands::new(Duration::ZERO, Duration::from_secs(5));
        let mut server = Recorder::default();
        server.stats.discarded = 7;
        for signal in [SIGHUP, SIGUSR1, SIGTERM, SIGUSR1, SIGHUP] {
            commands.follow(signal, &mut server);
        }
        assert_eq!(server.said, ["drain"]);
        assert_eq!(commands.discarded_before(), 7);
        server.stats.discarded = 9;
        commands.follow(SIGINT, &mut server);
        assert_eq!(server.said, ["drain", "stop"]);
        assert_eq!(commands.discarded_before(), 7, "the first signal counts");
    }

    #[test]
    fn a_delayed_drain_begins_by_time_or_by_a_second_signal() {
        let second = Duration::from_secs(1);
        let mut commands = SignalCommands::new(second, second);
        let mut server = Recorder::default();
        assert_eq!(commands.on_time(Instant::now(), &mut server), None);
        commands.follow(SIGTERM, &mut server);
        let left = commands.on_time(Instant::now(), &mut server);
        assert!(left.is_some_and(|left| left <= second) && server.said.is_empty());
        server.stats.discarded = 7;
        let later = Instant::now() + second;
        assert_eq!(commands.on_time(later, &mut server), Some(Duration::ZERO));
        assert_eq!(commands.on_time(later, &mut server), None);
        assert_eq!(server.said, ["drain"]);
        assert_eq!(commands.discarded_before(), 7, "the drain counts");

        let mut commands = SignalCommands::new(second, second);
        let mut server = Recorder::default();
        for expected in [&[][..], &["drain"], &["drain", "stop"]] {
            commands.follow(SIGTERM, &mut server);
            assert_eq!(server.said, expected);
        }
        assert_eq!(commands.on_time(later, &mut server), None);
    }
}
