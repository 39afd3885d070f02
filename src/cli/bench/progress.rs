//! What is seen while a run lasts: a bar on a terminal, a line for every second elsewhere.

use super::time::time;
use crate::cli::status_line::StatusLine;
use crate::cli::units::{grouped, grouped_rate};
use crate::load::{Interval, Plan, Stage, Total};
use std::time::Instant;

/// The progress on standard error while a run lasts.
pub(super) struct Progress {
    line: StatusLine,
    seconds: f64,
    interval: f64,
    /// When a line of the opening was written last.
    opening_told: Instant,
}

impl Progress {
    pub(super) fn new(quiet: bool) -> Self {
        Self {
            line: StatusLine::new(quiet),
            seconds: 0.0,
            interval: 1.0,
            opening_told: Instant::now(),
        }
    }

    /// A run begins.
    pub(super) fn begin(&mut self, plan: &Plan) {
        self.seconds = (plan.warm_up + plan.duration).as_secs_f64();
        self.interval = plan.interval.as_secs_f64();
        self.opening_told = Instant::now();
        self.line.restart();
        self.line.show(0.0, "opening connections");
    }

    /// Shows how many connections are open by now.
    pub(super) fn opening(&mut self, open: u64, plan: &Plan) {
        let all = plan.connections as u64;
        let text = format!("{} of {} open", grouped(open), grouped(all));
        if self.line.is_on_terminal() {
            self.line.show(open as f64 / all.max(1) as f64, &text);
        } else if self.opening_told.elapsed() >= plan.interval {
            self.opening_told = Instant::now();
            self.line
                .tell(&format!("{:>7} {text}", Stage::Opening.to_string()));
        }
    }

    /// A second has passed.
    pub(super) fn tell(&mut self, interval: &Interval, _: &Total) {
        if interval.stage == Stage::Drain {
            return;
        }
        let lasted = interval.end.saturating_sub(interval.start) as f64 / 1e9;
        // The rest of a second, at the end of a stage, has nothing to tell.
        if lasted < self.interval / 2.0 && interval.stage != Stage::Opening {
            return;
        }
        let line = line(interval, lasted);
        match self.line.is_on_terminal() {
            true => {
                let share = interval.end as f64 / 1e9 / self.seconds;
                self.line.show(share, &line);
            }
            false => self.line.tell(&line),
        }
    }

    pub(super) fn finish(&self) {
        self.line.clear();
    }
}

fn line(interval: &Interval, lasted: f64) -> String {
    if interval.stage == Stage::Opening {
        return format!(
            "{:>7} {} open after {lasted:.2} s",
            interval.stage.to_string(),
            grouped(interval.open)
        );
    }
    let latency = interval.latency();
    // While an open loop warms up nothing is recorded, and none of its answers took "0 ns".
    let at = |quantile| match latency.is_empty() {
        true => "-".to_owned(),
        false => time(latency.value_at_quantile(quantile)),
    };
    let mut line = format!(
        "{:>7} {:>9} echoes/s  p50 {:>6}  p99 {:>6}",
        interval.stage.to_string(),
        grouped_rate(interval.echoes as f64 / lasted),
        at(0.5),
        at(0.99),
    );
    // What went wrong is read even where the line is cut off.
    if interval.faults > 0 {
        line.push_str(&format!("  {} faults", grouped(interval.faults)));
    }
    line.push_str(&format!("  {} open", grouped(interval.open)));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_without_latencies_claims_none() {
        let mut interval = Interval::new(Stage::WarmUp, 0);
        interval.echoes = 500;
        let said = line(&interval, 0.5);
        assert!(
            said.contains("1,000 echoes/s  p50      -  p99      -"),
            "{said}"
        );
        interval.service_time.saturating_record(1_500);
        let said = line(&interval, 0.5);
        assert!(said.contains("p50 1.50us  p99 1.50us"), "{said}");
    }

    #[test]
    fn the_line_of_a_bar_fits_a_terminal() {
        let mut interval = Interval::new(Stage::WarmUp, 0);
        (interval.echoes, interval.open, interval.faults) = (9_999_999, 10_000, 0);
        interval.service_time.saturating_record(99_900_000);
        let bar = "100s ========== ".len();
        let said = line(&interval, 1.0);
        assert!(bar + said.chars().count() <= 80, "{said}");
        interval.faults = 12;
        let said = line(&interval, 1.0);
        assert!(said.find("faults").unwrap() + bar <= 80, "{said}");
    }
}
