//! Two years of uptime: idle phases, overload phases, and every counter of time and of registrations past its wrap.
//!
//! A server fails after months where a clock wraps around, where something is left over from a busy hour in spring and
//! taken up again in summer, or where a count grows with every connection. So here the clock runs through two years in
//! seconds: connections that speak twice in an hour live to the end, those that fall silent go when their time is over,
//! readers that stop are reset, and new connections come every day. What may live in this file: that test.

use super::network::Knobs;
use super::time::Stage;
use crate::limits::Limits;
use crate::stats::CloseReason;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const HALF_HOUR: Duration = Duration::from_secs(1_800);
const HALF_HOURS_A_DAY: u64 = 48;
const DAYS: u64 = 2 * 365;
/// Connections that stay: more than the kernel tells of at once, so that all of them at the same time are an overload.
const VALUES: usize = 12;

struct Years {
    stage: Stage,
    values: Vec<usize>,
    visitors: u64,
    readers: u64,
}

impl Years {
    fn new() -> Self {
        let limits = Limits {
            idle_timeout: Some(2 * HALF_HOUR),
            write_stall_timeout: Some(MINUTE),
            connections_max: VALUES + 8,
            accept_retry: MINUTE,
            ..Limits::default()
        };
        let knobs = Knobs {
            events_max: 4,
            window_bytes: 100,
            descriptors: VALUES + 6,
            ..Knobs::default()
        };
        let mut stage = Stage::in_world(limits, knobs);
        let values = stage.connect(VALUES);
        Self {
            stage,
            values,
            visitors: 0,
            readers: 0,
        }
    }

    /// A byte each, and what came back is taken.
    fn speak(&mut self, sockets: &[usize]) {
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

    /// One after the other, and nothing else for most of the time.
    fn idle_day(&mut self) {
        for _ in 0..HALF_HOURS_A_DAY {
            self.stage.pass(HALF_HOUR);
            for socket in self.values.clone() {
                self.speak(&[socket]);
            }
        }
    }

    /// All at once, again and again: no wait has room for everything that is ready.
    fn busy_hour(&mut self) {
        let values = self.values.clone();
        for _ in 0..60 {
            self.stage.pass(MINUTE);
            self.speak(&values);
        }
    }

    /// More come than there are descriptors for. One of them falls silent, the others leave.
    fn visit(&mut self) {
        self.stage.arrive(8);
        self.stage.settle();
        let visitors = self.stage.sockets().split_off(VALUES);
        assert_eq!(visitors.len(), 6, "as many as there are descriptors for");
        self.stage.finish(visitors[0]);
        self.stage.finish(visitors[1]);
        self.stage.settle();
        let visitors = self.stage.sockets().split_off(VALUES);
        assert_eq!(visitors.len(), 6, "the two that waited are in");
        for &visitor in &visitors[1..] {
            self.stage.finish(visitor);
        }
        self.stage.settle();
        self.visitors += 1;
        let began = self.stage.network.kernel().now;
        let idle = self.stage.closed(CloseReason::Idle);
        self.pass_until(|stage| stage.closed(CloseReason::Idle) > idle);
        let lasted = self.stage.network.kernel().now - began;
        assert!(lasted >= 2 * HALF_HOUR - MINUTE && lasted <= 2 * HALF_HOUR + 5 * MINUTE);
        assert_eq!(self.stage.closed(CloseReason::Idle), self.visitors);
    }

    /// One is unsent bytes, takes some every half minute for a while, and then none.
    fn reader(&mut self) {
        let reader = self.new_connection();
        self.stage.send(reader, 300);
        self.stage.settle();
        for _ in 0..20 {
            self.stage.pass(MINUTE / 2);
            let mut kernel = self.stage.network.kernel();
            kernel.wire(reader).to_client.pop_front();
            kernel.made_room(reader);
            drop(kernel);
            self.stage.settle();
        }
        assert_eq!(self.stage.closed(CloseReason::WriteStall), self.readers);
        self.readers += 1;
        self.pass_until(|stage| {
            stage.closed(CloseReason::WriteStall) > 0 && stage.sockets().len() == VALUES
        });
        assert_eq!(self.stage.closed(CloseReason::WriteStall), self.readers);
    }

    /// Minute by minute, while the values speak.
    fn pass_until(&mut self, is_so: impl Fn(&Stage) -> bool) {
        for minute in 0..120 {
            if is_so(&self.stage) {
                return;
            }
            self.stage.pass(MINUTE);
            if minute % 20 == 0 {
                let values = self.values.clone();
                self.speak(&values);
            }
            self.stage.settle();
        }
        panic!("in vain: {}", self.stage.server.stats());
    }
}

#[test]
fn two_years_of_uptime_are_boring() {
    let mut years = Years::new();
    for day in 0..DAYS {
        years.idle_day();
        // A month of all kinds of things; a month, and then seven weeks, in which nothing happens. What a busy hour may
        // have left over is then older than 31 bits of milliseconds (24.8 days), and nearly than 32 (49.7).
        let day_of_season = day % 120;
        if day_of_season < 40 && day % 3 == 0 {
            years.visit();
        }
        if day_of_season < 40 && day % 5 == 0 {
            years.reader();
        }
        if [0, 7, 8, 40, 70, 71, 119].contains(&day_of_season) {
            years.busy_hour();
        }
        let stats = years.stage.server.stats();
        assert_eq!(stats.check_invariants(), Ok(()), "day {day}: {stats}");
        assert_eq!(stats.connections_open, VALUES as u64, "day {day}: {stats}");
        assert_eq!(stats.unsent_bytes, 0);
    }
    let stats = years.stage.server.stats();
    assert_eq!(stats.closed(CloseReason::Idle), years.visitors, "{stats}");
    assert_eq!(
        stats.closed(CloseReason::WriteStall),
        years.readers,
        "{stats}"
    );
    assert!(
        stats.accept_paused_ms < 1_000 * stats.accept_pauses,
        "{stats}"
    );
    assert_eq!(years.stage.sockets(), years.values);
    years.stage.server.drain();
    years.stage.ends();
}
