//! Running a plan: in a process of its own, or in several, here or on other machines, whose figures are added up.
//!
//! Processes and not threads, for three reasons. What limits a load of many connections is first of all the number of
//! descriptors that one process may have. A process with one thread makes cheaper system calls (see
//! [`ControlChannel`](crate::load::ControlChannel)). And adding up, drawing and printing
//! in this process delays no request of the workers. What a worker does is in [`super::worker`].
//!
//! A worker that a command of `--at` starts on another machine gets the same plan, commands and messages, by the same pipes.
//! No clock is shared: the order to begin has no time in it then, and how far apart the machines began is bounded by the
//! time from the first order to the last answer.

use super::ipc;
use super::worker::{GO, STOP};
use super::worker_process::{Heard, WorkerProcess};
use crate::cli::error::{CliError, CliErrorKind};
use crate::load::validity::Part;
use crate::load::{Interval, Message, Mode, Plan, Total, monotonic_ns};
use nix::sys::signal::{Signal, raise};
use signal_hook::consts::SIGTSTP;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// How often the signals are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long before the load begins all workers of this machine receive the time of its start.
const LEAD: Duration = Duration::from_millis(20);
/// How long the workers may take for the end that they were ordered to come to; then they are killed.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// The same at the end of their commands, when the run is over, or is given up.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a worker may take for its first message, and under load for the next one, beside what it waits for itself.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// The same for the first message, once the run was ended.
const SILENCE_MAX_STOPPED: Duration = Duration::from_millis(500);
/// Messages that wait to be added up. Then their workers' pipes fill, and the workers keep them.
const QUEUE: usize = 64;

/// The machines that make the load.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Machines {
    /// The command that leads to each; none for this machine.
    pub(in crate::cli) at: Vec<String>,
    /// Workers on each.
    pub(in crate::cli) workers: usize,
}

impl Machines {
    /// This machine.
    pub(in crate::cli) fn local(workers: usize) -> Self {
        let at = Vec::new();
        Self { at, workers }
    }

    /// Workers of all.
    pub(in crate::cli) fn all_workers(&self) -> usize {
        self.workers.saturating_mul(self.at.len().max(1))
    }
}

/// What the workers of one machine have reported.
#[derive(Debug)]
pub(in crate::cli) struct Share {
    pub(in crate::cli) at: String,
    pub(in crate::cli) total: Total,
    /// The last lines of standard error.
    pub(in crate::cli) said: Vec<String>,
    /// Why its figures do not hold, once they have been assessed.
    pub(in crate::cli) invalid: Vec<String>,
}

impl Share {
    /// As it is assessed, with this number of workers.
    pub(in crate::cli) fn part(&self, workers: usize) -> Part<'_> {
        Part {
            machine: Some(&self.at),
            workers,
            total: &self.total,
        }
    }
}

/// What is reported while a run lasts.
pub(in crate::cli) enum Told<'a> {
    /// The number of open connections.
    Open(u64),
    /// A second has passed.
    Interval(&'a Interval, &'a Total),
}

/// Runs a plan to its end, and tells of every second of it. Returns the sum, the share of each machine of `--at`, and the
/// bound on how far apart these began.
pub(super) fn run(
    plan: &Plan,
    machines: &Machines,
    stop: &dyn Fn() -> bool,
    mut told: impl FnMut(Told<'_>),
) -> Result<(Total, Vec<Share>, Duration), CliError> {
    let (sender, receiver) = mpsc::sync_channel(QUEUE);
    let mut workers = Workers::start(plan, machines, &sender)?;
    drop(sender);
    let total = collect(&receiver, stop, &mut workers, &mut told);
    drop(receiver); // a full queue must not keep a worker that is to end
    let total = total?;
    workers.keep_said();
    let shares = std::mem::take(&mut workers.shares);
    Ok((total, shares, workers.spread))
}

fn collect(
    messages: &Receiver<Heard>,
    stop: &dyn Fn() -> bool,
    workers: &mut Workers,
    told: &mut impl FnMut(Told<'_>),
) -> Result<Total, CliError> {
    let mut total = Total::new(workers.all.len());
    let mut stopped = None;
    while !total.is_over() {
        suspend_together(workers);
        match messages.recv_timeout(LOOK) {
            Ok((worker, heard)) => {
                let message = workers.hear(worker, heard)?;
                let opens = matches!(message, Message::Opening(_) | Message::Opened(..));
                match total.take(worker, message) {
                    Ok(Some(interval)) => told(Told::Interval(&interval, &total)),
                    Ok(None) if opens => told(Told::Open(total.opening())),
                    Ok(None) => {}
                    Err(why) => return Err(workers.refuse(worker, &why)),
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                let text = "a worker has ended without a report";
                return Err(CliError::new(CliErrorKind::Internal, text));
            }
        }
        if total.is_open() && workers.began.is_none() {
            workers.begin();
        }
        if (stop() || workers.has_sent_all()) && stopped.is_none() {
            stopped = Some(Instant::now());
            workers.stop();
        }
        if stop() && stopped.is_some_and(|since| since.elapsed() > END_TIMEOUT) {
            workers.signal(Signal::SIGKILL);
        }
        workers.check_silence()?;
    }
    Ok(total)
}

/// Ctrl-Z stops this process, and with it the load: the workers have process groups of their own, and would go on.
/// The load of other machines goes on.
fn suspend_together(workers: &mut Workers) {
    if !suspended().swap(false, Ordering::Relaxed) {
        return;
    }
    workers.signal(Signal::SIGSTOP);
    let _ = raise(Signal::SIGSTOP); // it returns when this process is continued
    workers.signal(Signal::SIGCONT);
    for worker in &mut workers.all {
        worker.heard_at = Instant::now();
    }
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

/// The workers of a run.
#[derive(Debug)]
struct Workers {
    all: Vec<Worker>,
    /// Of each machine of `--at`, the sum of what its workers have reported.
    shares: Vec<Share>,
    /// Workers of each machine.
    each: usize,
    /// When they were ordered to begin.
    began: Option<Instant>,
    /// From the order to begin to the last answer.
    spread: Duration,
    stopped: bool,
}

#[derive(Debug)]
struct Worker {
    process: WorkerProcess,
    plan: Plan,
    /// When its last message came.
    heard_at: Instant,
    /// Whether it has the plan: it gets it when it has said its version.
    has_plan: bool,
    is_over: bool,
}

impl Workers {
    fn start(
        plan: &Plan,
        machines: &Machines,
        sender: &SyncSender<Heard>,
    ) -> Result<Self, CliError> {
        let each = machines.workers;
        let mut started = Self {
            all: Vec::new(),
            shares: Vec::new(),
            each,
            began: None,
            spread: Duration::ZERO,
            stopped: false,
        };
        for at in &machines.at {
            started.shares.push(Share {
                at: at.clone(),
                total: Total::new(each),
                said: Vec::new(),
                invalid: Vec::new(),
            });
        }
        for plan in plan.divide(machines.all_workers()) {
            let at = machines.at.get(plan.worker / each).map(String::as_str);
            started.all.push(Worker {
                process: WorkerProcess::start(at, plan.worker, sender.clone())?,
                plan,
                heard_at: Instant::now(),
                has_plan: false,
                is_over: false,
            });
        }
        Ok(started)
    }

    /// Takes note of a message, and gives it back.
    fn hear(&mut self, number: usize, heard: Result<Message, String>) -> Result<Message, CliError> {
        let worker = &mut self.all[number];
        worker.heard_at = Instant::now();
        let message = heard.map_err(|why| worker.process.failure(CliErrorKind::System, &why))?;
        match &message {
            Message::Hello(version) if !worker.has_plan => self.greet(number, version)?,
            _ if !worker.has_plan => return Err(self.refuse(number, "it has not said its version")),
            Message::Begun => self.spread = self.began.map_or(self.spread, |at| at.elapsed()),
            Message::Done(_) => worker.is_over = true,
            _ => {}
        }
        if let Some(share) = self.shares.get_mut(number / self.each) {
            let taken = share.total.take(number % self.each, message.clone());
            taken.map_err(|why| self.refuse(number, &why))?;
        }
        Ok(message)
    }

    /// Gives the plan to a worker of this version.
    fn greet(&mut self, number: usize, version: &str) -> Result<(), CliError> {
        const OWN: &str = env!("CARGO_PKG_VERSION");
        let worker = &mut self.all[number];
        if version != OWN {
            let why = format!(
                "is echo-reactor {version}, and this is {OWN}: install the same version on both"
            );
            return Err(worker.process.failure(CliErrorKind::System, &why));
        }
        let mut line = Vec::new();
        ipc::write(&worker.plan, &mut line);
        worker.process.say(&line);
        worker.has_plan = true;
        if self.stopped {
            worker.process.say(format!("{STOP}\n").as_bytes());
        }
        Ok(())
    }

    /// Orders all to begin.
    fn begin(&mut self) {
        let order = match self.shares.is_empty() {
            true => format!("{GO} {}\n", monotonic_ns() + LEAD.as_nanos() as u64),
            false => format!("{GO}\n"),
        };
        self.began = Some(Instant::now());
        self.say(&order);
        for worker in &mut self.all {
            worker.heard_at = Instant::now();
        }
    }

    /// Orders all to end. A worker that has no plan yet gets the order behind it.
    fn stop(&mut self) {
        self.stopped = true;
        self.say(&format!("{STOP}\n"));
    }

    fn say(&mut self, order: &str) {
        for worker in self.all.iter_mut().filter(|worker| worker.has_plan) {
            worker.process.say(order.as_bytes());
        }
    }

    fn signal(&self, signal: Signal) {
        for worker in self.all.iter().filter(|worker| !worker.is_over) {
            worker.process.signal(signal);
        }
    }

    /// Whether only workers without sending connections are left: nothing else would end them in a run that ends by
    /// its number of requests.
    fn has_sent_all(&self) -> bool {
        let sends = |plan: &Plan| plan.active > 0 || matches!(plan.mode, Mode::Churn { .. });
        let mut senders = self.all.iter().filter(|worker| sends(&worker.plan));
        senders.all(|worker| worker.is_over)
    }

    /// Ends a run of which a machine says nothing any more: what leads to it may have been cut.
    fn check_silence(&mut self) -> Result<(), CliError> {
        if self.shares.is_empty() {
            return Ok(());
        }
        let (stopped, began) = (self.stopped, self.began.is_some());
        for worker in self.all.iter_mut().filter(|worker| !worker.is_over) {
            let limit = match worker.has_plan {
                false if stopped => SILENCE_MAX_STOPPED,
                false => SILENCE_MAX,
                true if began => SILENCE_MAX + worker.plan.interval + worker.plan.timeout,
                true => continue,
            };
            let silence = worker.heard_at.elapsed();
            if silence > limit {
                let why = format!("has not answered for {:.1} s", silence.as_secs_f64());
                return Err(worker.process.failure(CliErrorKind::Timeout, &why));
            }
        }
        Ok(())
    }

    /// Why what a worker reports is not taken.
    fn refuse(&mut self, worker: usize, why: &str) -> CliError {
        let process = &mut self.all[worker].process;
        process.failure(CliErrorKind::System, &format!("cannot go on: {why}"))
    }

    /// Keeps what the workers of each machine have written to standard error.
    fn keep_said(&mut self) {
        for (number, worker) in self.all.iter().enumerate() {
            if let Some(share) = self.shares.get_mut(number / self.each) {
                share.said.extend(worker.process.last_said());
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in &mut self.all {
            worker.process.close();
        }
        let now = Instant::now();
        for worker in &mut self.all {
            // A command that has not led to a worker may not even read its pipe.
            worker.process.wait(match worker.has_plan {
                true => now + CLOSE_TIMEOUT,
                false => now,
            });
        }
    }
}
