//! Running a plan: in a process of its own, or in several whose figures are added up.
//!
//! Processes and not threads, for three reasons. What limits a load of many connections is first of all the number of
//! descriptors that one process may have. A process with one thread makes cheaper system calls (see
//! [`ControlChannel`](crate::load::ControlChannel)). And adding up, drawing and printing
//! in this process delays no request of the workers. What a worker does is in [`super::worker`].

use super::ipc;
use super::worker::{GO, STOP};
use crate::cli::error::{CliError, CliErrorKind};
use crate::cli::own_program;
use crate::load::{Interval, Message, Mode, Plan, Total, monotonic_ns};
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;
use signal_hook::consts::SIGTSTP;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

/// How often the signals are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long before the load begins all workers receive the time of its start.
const LEAD: Duration = Duration::from_millis(20);
/// How long the workers may take for the end that they were ordered to come to; then they are killed.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// What is reported while a run lasts.
pub(in crate::cli) enum Told<'a> {
    /// The number of open connections.
    Open(u64),
    /// A second has passed.
    Interval(&'a Interval, &'a Total),
}

/// Runs a plan to its end, and tells of every second of it.
pub(super) fn run(
    plan: &Plan,
    workers: usize,
    stop: &dyn Fn() -> bool,
    mut told: impl FnMut(Told<'_>),
) -> Result<Total, CliError> {
    let (sender, receiver) = mpsc::channel();
    let mut started = Workers(Vec::new());
    for plan in plan.divide(workers) {
        started.0.push(Worker::start(&plan, sender.clone())?);
    }
    drop(sender);
    collect(&receiver, stop, &mut started, &mut told)
}

fn system(what: &str, error: &io::Error) -> CliError {
    CliError::new(CliErrorKind::System, format!("{what}: {error}"))
}

fn collect(
    messages: &Receiver<(usize, Message)>,
    stop: &dyn Fn() -> bool,
    workers: &mut Workers,
    told: &mut impl FnMut(Told<'_>),
) -> Result<Total, CliError> {
    let mut total = Total::new(workers.0.len());
    let (mut gone, mut stopped) = (false, None);
    while !total.is_over() {
        suspend_together(workers);
        match messages.recv_timeout(LOOK) {
            Ok((worker, message)) => {
                let opens = matches!(message, Message::Opening(_) | Message::Opened(..));
                workers.0[worker].is_over |= matches!(message, Message::Done(_));
                match total.take(worker, message) {
                    Ok(Some(interval)) => told(Told::Interval(&interval, &total)),
                    Ok(None) if opens => told(Told::Open(total.opening())),
                    Ok(None) => {}
                    Err(why) => return Err(workers.failure(worker, &why)),
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                let text = "a worker has ended without a report";
                return Err(CliError::new(CliErrorKind::Internal, text));
            }
        }
        if total.is_open() && !gone {
            gone = true;
            let at = monotonic_ns() + LEAD.as_nanos() as u64;
            workers.say(&format!("{GO} {at}"));
        }
        if (stop() || workers.has_sent_all()) && stopped.is_none() {
            stopped = Some(Instant::now());
            workers.say(STOP);
        }
        if stop() && stopped.is_some_and(|since| since.elapsed() > END_TIMEOUT) {
            workers.signal(Signal::SIGKILL);
        }
    }
    Ok(total)
}

/// Ctrl-Z stops this process, and with it the load: the workers have process groups of their own, and would go on.
fn suspend_together(workers: &Workers) {
    if !suspended().swap(false, Ordering::Relaxed) {
        return;
    }
    workers.signal(Signal::SIGSTOP);
    let _ = raise(Signal::SIGSTOP); // it returns when this process is continued
    workers.signal(Signal::SIGCONT);
}

/// Whether SIGTSTP has come. The first call installs the handler.
fn suspended() -> &'static AtomicBool {
    static SUSPENDED: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| {
        let flag = Arc::default();
        // Where it cannot be caught, this process alone is stopped by it, as any other.
        let _ = signal_hook::flag::register(SIGTSTP, Arc::clone(&flag));
        flag
    });
    &SUSPENDED
}

/// The worker processes.
struct Workers(Vec<Worker>);

/// A process, and the pipe that leads to it.
struct Worker {
    child: Child,
    pipe: ChildStdin,
    /// Whether any of its connections sends requests.
    sends: bool,
    is_over: bool,
}

impl Workers {
    fn say(&mut self, order: &str) {
        for worker in &mut self.0 {
            // One that has ended needs no orders.
            let _ = writeln!(worker.pipe, "{order}");
        }
    }

    fn signal(&self, signal: Signal) {
        for worker in self.0.iter().filter(|worker| !worker.is_over) {
            if let Ok(pid) = i32::try_from(worker.child.id()) {
                let _ = kill(Pid::from_raw(pid), signal);
            }
        }
    }

    /// Whether only workers without sending connections are left: nothing else would end them in a run that ends by
    /// its number of requests.
    fn has_sent_all(&self) -> bool {
        let mut senders = self.0.iter().filter(|worker| worker.sends);
        senders.all(|worker| worker.is_over)
    }

    /// Why there is no load, and how the worker ended if it did not say so itself.
    fn failure(&mut self, worker: usize, why: &str) -> CliError {
        let how = match self.0[worker].child.wait() {
            Ok(status) if !status.success() => format!(" ({status})"),
            _ => String::new(),
        };
        CliError::new(CliErrorKind::System, format!("no load: {why}{how}"))
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for mut worker in self.0.drain(..) {
            drop(worker.pipe); // the end of its commands ends a worker
            let _ = worker.child.wait();
        }
    }
}

impl Worker {
    fn start(plan: &Plan, sender: Sender<(usize, Message)>) -> Result<Self, CliError> {
        let mut child = own_program::command()
            .map_err(|error| system("this program cannot be found", &error))?
            .args(["bench", "--worker"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0) // Ctrl-C is for us; the workers get an order
            .spawn()
            .map_err(|error| system("no worker can be started", &error))?;
        let (Some(mut pipe), Some(out)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(CliError::new(
                CliErrorKind::Internal,
                "a worker has no pipes",
            ));
        };
        let mut line = Vec::new();
        ipc::write(plan, &mut line);
        pipe.write_all(&line)
            .map_err(|error| system("a worker takes no plan", &error))?;
        let worker = plan.worker;
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let Some(message) = ipc::read(&line) else {
                    continue;
                };
                let is_last = matches!(message, Message::Done(_) | Message::Failed(_));
                if sender.send((worker, message)).is_err() || is_last {
                    return;
                }
            }
            // Without this message the run would wait for the worker without end.
            let text = format!("worker {worker} has ended without a report");
            let _ = sender.send((worker, Message::Failed(text)));
        });
        Ok(Self {
            child,
            pipe,
            sends: plan.active > 0 || matches!(plan.mode, Mode::Churn { .. }),
            is_over: false,
        })
    }
}
