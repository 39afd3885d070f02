//! SIGUSR1: the counters of all workers, and how evenly the connections are spread.

use super::parts::{Master, Question};
use super::process::State;
use crate::cli::logging;
use crate::cli::serve::counters::Counters;
use crate::cli::serve::link::Command;
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long a worker may take to answer. One that is stopped has a row without counters.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

impl Master<'_> {
    /// Asks all workers for their counters.
    pub(super) fn ask(&mut self) {
        for process in &mut self.processes {
            if !matches!(process.state, State::Starting | State::Ready) {
                process.is_asked = true;
                process.tell(Command::Count);
            }
        }
        self.question = Some(Question {
            until: Instant::now() + ANSWER_TIMEOUT,
        });
        self.answer_if_complete();
    }

    pub(super) fn answer_if_complete(&mut self) {
        if self.question.is_some() && !self.processes.iter().any(|process| process.is_asked) {
            self.answer();
        }
    }

    /// Prints the sum, the spread, and a line for each process.
    pub(super) fn answer(&mut self) {
        self.question = None;
        let mut sum = Counters::default();
        for slot in &self.slots {
            sum.add(&slot.ended);
        }
        let mut lines = Vec::new();
        let mut accepted = vec![0; self.workers];
        for process in &mut self.processes {
            let name = format!(
                "worker {} process {} {}:",
                process.worker,
                process.pid,
                process.state.name()
            );
            match &process.counters {
                Some(counters) if !process.is_asked => {
                    sum.add(counters);
                    lines.push(format!("{name} {}", counters.stats));
                    lines.extend(
                        counters
                            .memory
                            .iter()
                            .map(|row| format!("{name} {}", memory(row))),
                    );
                    if process.state == State::Serving {
                        accepted[process.worker] = counters.stats.accepted;
                    }
                }
                _ if process.is_asked => lines.push(format!("{name} no answer")),
                _ => {}
            }
            process.is_asked = false;
        }
        logging::print_line(&sum.stats.to_string());
        logging::print_line(&spread(&accepted));
        for line in lines {
            logging::print_line(&line);
        }
    }
}

/// A row of memory as the counters are printed, `name=count`.
fn memory(row: &Value) -> String {
    let mut line = format!("memory{{{}}}", row["connections"]);
    for (name, value) in row.as_object().into_iter().flatten() {
        if name != "connections" && !value.is_null() {
            line += &format!(" {name}={value}");
        }
    }
    line
}

/// How far the busiest worker is above the mean, beside what a hash leads to: the parts of k connections differ by about
/// the square root of the part, which for the largest of N is 1 + 2 sqrt(N / k) of the mean.
fn spread(accepted: &[u64]) -> String {
    let (workers, sum) = (accepted.len() as f64, accepted.iter().sum::<u64>() as f64);
    let most = accepted.iter().copied().max().unwrap_or(0) as f64;
    let counts: Vec<String> = accepted.iter().map(u64::to_string).collect();
    let counts = counts.join("/");
    if sum < 1.0 {
        return format!("spread accepted={counts}");
    }
    format!(
        "spread accepted={counts} most_over_mean={:.2} by_hashing_about={:.2}",
        most * workers / sum,
        (1.0 + 2.0 * (workers / sum).sqrt()).min(workers)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_printed_as_the_counters_are() {
        let row = serde_json::json!({"connections": 10, "rss_bytes": 7, "tcp_socket_bytes": null});
        assert_eq!(memory(&row), "memory{10} rss_bytes=7");
    }

    #[test]
    fn the_spread_is_told_beside_what_hashing_leads_to() {
        assert_eq!(spread(&[0, 0]), "spread accepted=0/0");
        assert_eq!(
            spread(&[227, 251, 262, 260]),
            "spread accepted=227/251/262/260 most_over_mean=1.05 by_hashing_about=1.13"
        );
        let few = spread(&[1, 0, 0]);
        assert!(
            few.ends_with("most_over_mean=3.00 by_hashing_about=3.00"),
            "{few}"
        );
    }
}
