//! System calls of one echo, as strace counts them: a short run of its own, since strace makes a server ten times slower.
//!
//! The server is watched from its start to the end of the load, twice, with a few requests and with many. The difference
//! is what the requests between cost: start, accepting and closing are in both, and cancel.

use super::record::SystemCalls;
use super::subject::Subject;
use super::workloads::{Course, Load};
use crate::cli::bench::run::measure;
use crate::cli::bench::server_process::Processors;
use crate::cli::error::CliError;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Requests of the short run, and of the long one.
const REQUESTS: (u64, u64) = (500, 3_500);
/// A call that comes up less often than this in an echo is no part of it: a timer, or the end.
const RARE: f64 = 0.002;

/// Counts system calls, or returns the reason why that is not possible. `None` inside: the comparison was
/// interrupted.
pub(super) fn count(
    subject: &Subject,
    load: &Load,
    processors: Option<&Processors>,
    stop: &AtomicBool,
) -> Result<Result<SystemCalls, String>, CliError> {
    let mut counts = Vec::new();
    for requests in [REQUESTS.0, REQUESTS.1] {
        match watch(subject, load, requests, processors, stop)? {
            Ok(counted) => counts.push(counted),
            Err(why) => return Ok(Err(why)),
        }
    }
    Ok(Ok(difference(&counts[0], &counts[1])))
}

type Counts = BTreeMap<String, u64>;

fn difference(few: &Counts, many: &Counts) -> SystemCalls {
    let requests = (REQUESTS.1 - REQUESTS.0) as f64;
    let mut names: Vec<(String, f64)> = (many.iter())
        .map(|(name, count)| {
            let before = few.get(name).copied().unwrap_or(0);
            (name.clone(), count.saturating_sub(before) as f64 / requests)
        })
        .filter(|(_, each)| *each > RARE)
        .collect();
    names.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    SystemCalls {
        per_echo: names.iter().map(|(_, each)| each).sum(),
        names,
    }
}

fn watch(
    subject: &Subject,
    load: &Load,
    requests: u64,
    processors: Option<&Processors>,
    stop: &AtomicBool,
) -> Result<Result<Counts, String>, CliError> {
    let server = match subject.start(processors) {
        Ok(server) => server,
        Err(why) => return Ok(Err(why)),
    };
    let pids = server.pids();
    let mut strace = match Strace::attach(&pids) {
        Ok(strace) => strace,
        Err(why) => return Ok(Err(why)),
    };
    let course = Course {
        rounds: 1,
        warm_up: Duration::ZERO,
        window: Duration::from_secs(20),
        budget: None,
    };
    let mut plan = load.plan(&course, server.endpoint.clone(), &[]);
    plan.requests = Some(requests);
    let enough = || stop.load(Ordering::Relaxed);
    let run = measure(plan, 1, &enough, |_| {})?;
    let counts = strace.end();
    Ok(match run.total.end.faults.iter().next() {
        Some((_, _, first)) => Err(format!("under strace it failed: {first}")),
        None => counts,
    })
}

/// strace at work on a server.
struct Strace {
    child: Child,
    table: std::path::PathBuf,
}

impl Strace {
    fn attach(pids: &[u32]) -> Result<Self, String> {
        if pids.is_empty() {
            return Err("the server was not started by this program".to_owned());
        }
        let name = format!("echo-reactor-strace-{}", std::process::id());
        let table = std::env::temp_dir().join(name);
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-o"]).arg(&table);
        for pid in pids {
            command.args(["-p", &pid.to_string()]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| format!("strace cannot be started: {error}"))?;
        let mut strace = Self { child, table };
        let said = strace.child.stderr.take().map(BufReader::new);
        let mut line = String::new();
        if let Some(mut said) = said {
            let _ = said.read_line(&mut line);
            // Whatever else it says would fill the pipe one day.
            std::thread::spawn(move || said.lines().map_while(Result::ok).for_each(drop));
        }
        match line.contains("attached") {
            true => Ok(strace),
            false => Err(format!("strace may not attach here: {}", line.trim())),
        }
    }

    /// Lets go of the server, and reads the table.
    fn end(&mut self) -> Result<Counts, String> {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
        let _ = self.child.wait();
        let text = fs::read_to_string(&self.table)
            .map_err(|error| format!("strace has left no table: {error}"))?;
        match parse(&text) {
            // A file system that is full, or a strace of another form: no calls at all is no count.
            counts if counts.is_empty() => Err("strace has left an empty table".to_owned()),
            counts => Ok(counts),
        }
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        let _ = self.end();
        let _ = fs::remove_file(&self.table);
    }
}

/// `% time  seconds  usecs/call  calls  [errors]  name`, a line for each call.
fn parse(table: &str) -> Counts {
    let rows = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let name = *fields.last()?;
        let count = fields.get(3)?.parse().ok()?;
        (fields.len() >= 5 && name != "total").then(|| (name.to_owned(), count))
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 51.20    0.020000           5      3501           sendto
 40.00    0.010000           4      3503         2 recvfrom
  8.80    0.001000           3      1751           epoll_wait
  0.00    0.000010          10         1           accept4
------ ----------- ----------- --------- --------- ----------------
100.00    0.031010           3      8756         2 total
";

    #[test]
    fn a_table_is_read() {
        let counts = parse(TABLE);
        assert_eq!(counts.len(), 4);
        assert_eq!((counts["recvfrom"], counts["accept4"]), (3503, 1));
    }

    #[test]
    fn what_is_in_both_runs_cancels() {
        let few = [
            ("sendto", 501),
            ("recvfrom", 503),
            ("epoll_wait", 251),
            ("accept4", 1),
        ];
        let few = few.map(|(name, count)| (name.to_owned(), count)).into();
        let calls = difference(&few, &parse(TABLE));
        let expected = [("recvfrom", 1.0), ("sendto", 1.0), ("epoll_wait", 0.5)];
        let expected = expected.map(|(name, each)| (name.to_owned(), each));
        assert_eq!(calls.names, expected);
        assert!((calls.per_echo - 2.5).abs() < 1e-9);
    }
}
