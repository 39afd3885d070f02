//! Two years of uptime: idle phases, overload phases, and every counter of time and of registrations past its wrap.
//!
//! Some faults show after months only: a clock that wraps around, state left over from a busy hour and used again in the
//! next season, a count that grows with every connection. Here the clock runs through two years in seconds. Connections
//! that send twice an hour stay open to the end, silent ones are closed after their timeout, stalled readers are reset, and
//! new connections come every day.

use super::network::Knobs;
use super::time::Stage;
use crate::limits::Limits;
use crate::stats::CloseReason;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const HALF_HOUR: Duration = Duration::from_secs(1_800);
const HALF_HOURS_A_DAY: u64 = 48;
const DAYS: u64 = 2 * 365;
/// Connections that stay open: more than one wait reports, so that all of them together are an overload.
const STEADY: usize = 12;

struct Years {
    stage: Stage,
    steady: Vec<usize>,
    short_lived: u64,
    readers: u64,
}

impl Years {
    fn new() -> Self {
        let limits = Limits {
            idle_timeout: Some(2 * HALF_HOUR),
            write_stall_timeout: Some(MINUTE),
            connections_max: STEADY + 8,
            accept_retry: MINUTE,
            ..Limits::default()
        };
        let knobs = Knobs {
            events_max: 4,
            window_bytes: 100,
            descriptors: STEADY + 6,
            ..Knobs::default()
        };
        let mut stage = Stage::with_knobs(limits, knobs);
        let steady = stage.connect(STEADY);
        Self {
            stage,
            steady,
            short_lived: 0,
            readers: 0,
        }
    }

    /// Each connection sends a byte and reads its echo.
    fn echo_a_byte(&mut self, sockets: &[usize]) {
        for &socket in sockets {
            self.stage.send(socket, 1);
        }
        self.stage.settle();
        let mut kernel = self.stage.network.kernel();
        for &socket in sockets {
            let echo = std::mem::take(&mut kernel.wire(socket).to_client);
            assert_eq!(echo.len(), 1, "echoed at once");
        }
    }

    fn new_connection(&mut self) -> usize {
        let before = self.stage.sockets();
        let after = self.stage.connect(1);
        let new_connection = after.into_iter().find(|socket| !before.contains(socket));
        new_connection.expect("there is room for one")
    }

    /// The connections send one after the other, with long pauses.
    fn idle_day(&mut self) {
        for _ in 0..HALF_HOURS_A_DAY {
            self.stage.pass(HALF_HOUR);
            for socket in self.steady.clone() {
                self.echo_a_byte(&[socket]);
            }
        }
    }

    /// All connections send at once, again and again: the event buffer is full at every wait.
    fn busy_hour(&mut self) {
        let steady = self.steady.clone();
        for _ in 0..60 {
            self.stage.pass(MINUTE);
            self.echo_a_byte(&steady);
        }
    }

    /// More clients connect than there are descriptors. All but one send FIN; the last one stays silent until its timeout.
    fn short_lived_connections(&mut self) {
        self.stage.arrive(8);
        self.stage.settle();
        let short_lived = self.stage.sockets().split_off(STEADY);
        assert_eq!(short_lived.len(), 6, "as many as there are descriptors for");
        self.stage.finish(short_lived[0]);
        self.stage.finish(short_lived[1]);
        self.stage.settle();
        let short_lived = self.stage.sockets().split_off(STEADY);
        assert_eq!(
            short_lived.len(),
            6,
            "the two in the accept queue are accepted"
        );
        for &connection in &short_lived[1..] {
            self.stage.finish(connection);
        }
        self.stage.settle();
        self.short_lived += 1;
        let began = self.stage.network.kernel().now;
        let idle = self.stage.closed(CloseReason::Idle);
        self.pass_until(|stage| stage.closed(CloseReason::Idle) > idle);
        let lasted = self.stage.network.kernel().now - began;
        assert!(lasted >= 2 * HALF_HOUR - MINUTE && lasted <= 2 * HALF_HOUR + 5 * MINUTE);
        assert_eq!(self.stage.closed(CloseReason::Idle), self.short_lived);
    }

    /// A client takes a byte every half minute for a while, and then none.
    fn stalling_reader(&mut self) {
        let reader = self.new_connection();
        self.stage.send(reader, 300);
        self.stage.settle();
        for _ in 0..20 {
            self.stage.pass(MINUTE / 2);
            let mut kernel = self.stage.network.kernel();
            kernel.wire(reader).to_client.pop_front();
            kernel.consumed(reader);
            drop(kernel);
            self.stage.settle();
        }
        assert_eq!(self.stage.closed(CloseReason::WriteStall), self.readers);
        self.readers += 1;
        self.pass_until(|stage| {
            stage.closed(CloseReason::WriteStall) > 0 && stage.sockets().len() == STEADY
        });
        assert_eq!(self.stage.closed(CloseReason::WriteStall), self.readers);
    }

    /// Lets time pass by the minute, while the steady connections send.
    fn pass_until(&mut self, is_so: impl Fn(&Stage) -> bool) {
        for minute in 0..120 {
            if is_so(&self.stage) {
                return;
            }
            self.stage.pass(MINUTE);
            if minute % 20 == 0 {
                let steady = self.steady.clone();
                self.echo_a_byte(&steady);
            }
            self.stage.settle();
        }
        panic!("it never happened: {}", self.stage.server.stats());
    }
}

#[test]
fn two_years_of_uptime_leave_no_trace() {
    let mut years = Years::new();
    for day in 0..DAYS {
        years.idle_day();
        // A month of varied load; then a month, and seven weeks, without. State left over from a busy hour is then older
        // than 31 bits of milliseconds (24.8 days), and nearly older than 32 (49.7).
        let day_of_season = day % 120;
        if day_of_season < 40 && day % 3 == 0 {
            years.short_lived_connections();
        }
        if day_of_season < 40 && day % 5 == 0 {
            years.stalling_reader();
        }
        if [0, 7, 8, 40, 70, 71, 119].contains(&day_of_season) {
            years.busy_hour();
        }
        let stats = years.stage.server.stats();
        assert_eq!(stats.check_invariants(), Ok(()), "day {day}: {stats}");
        assert_eq!(stats.connections_open, STEADY as u64, "day {day}: {stats}");
        assert_eq!(stats.unsent_bytes, 0);
    }
    let stats = years.stage.server.stats();
    assert_eq!(
        stats.closed(CloseReason::Idle),
        years.short_lived,
        "{stats}"
    );
    assert_eq!(
        stats.closed(CloseReason::WriteStall),
        years.readers,
        "{stats}"
    );
    assert!(
        stats.accept_paused_ms < 1_000 * stats.accept_pauses,
        "{stats}"
    );
    assert_eq!(years.stage.sockets(), years.steady);
    years.stage.server.drain();
    years.stage.ends();
}
