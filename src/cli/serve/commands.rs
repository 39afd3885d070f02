//! Commands that come as signals, for a server of one process.

use super::notify;
use crate::blocking;
use crate::cli::logging;
use crate::cli::memory::{Held, MemoryTable};
use crate::cli::units::{Time, plural};
use crate::echo::{Backend, Server};
use crate::stats::Stats;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use std::time::Duration;

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

/// Commands that came as signals.
#[derive(Debug)]
pub(super) struct SignalCommands {
    drain_timeout: Duration,
    /// Bytes discarded when the first signal to stop came, if one has.
    stopping: Option<u64>,
    /// Memory per connection so far.
    pub(super) memory: MemoryTable,
}

impl SignalCommands {
    pub(super) fn new(drain_timeout: Duration) -> Self {
        Self {
            drain_timeout,
            stopping: None,
            memory: MemoryTable::of_this_process(),
        }
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

    pub(super) fn follow(&mut self, signal: i32, server: &mut impl Served) {
        match signal {
            SIGTERM | SIGINT if self.stopping.is_some() => {
                log::info!("stopping at once");
                server.stop();
            }
            SIGTERM | SIGINT => {
                let stats = server.stats();
                self.stopping = Some(stats.discarded);
                notify::stopping();
                log::info!(
                    "draining {}, at most {}; once more to stop at once",
                    plural(stats.connections_open, "connection"),
                    Time(self.drain_timeout)
                );
                server.drain();
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
        let mut commands = SignalCommands::new(Duration::from_secs(5));
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
}
