//! `serve --workers N`: a master process that holds the sockets, and N workers that serve them.
//!
//! ```text
//!   master ── binds everything once, and holds every socket for its whole life; does no network I/O
//!     │ link (socket pair) to each: assignment and commands down, readiness and counters up
//!     ├── worker 0   the single-threaded server, whole, with its sandbox; listener 0 of every TCP and UDP address
//!     ├── worker 1   the same, listener 1; ...
//!     └── ...        Unix stream listeners are shared; Unix datagram sockets are worker 0's
//! ```
//!
//! **Sockets.** TCP and UDP addresses have one socket a worker, which the kernel chooses from by a hash
//! (`net::reuse_port`). The master has a copy of each, so that the queue of a worker that dies waits for its successor.
//!
//! **Workers** are child processes of this same program, which get their sockets by [`passing`](super::passing). Each
//! becomes ready, waits for "go", and serves. One that ends unasked is started again, at once if it has lived for a second,
//! after a growing pause otherwise. The end of the link tells a worker that its master is gone.
//!
//! **Signals.** SIGTERM and SIGINT drain all workers, a second one stops them, a third one kills those that do not react;
//! SIGUSR1 asks all for their counters. Every child is reaped, also those of other processes if this one is PID 1. The
//! master ends when its last worker has.
//!
//! **Replacing the program** (SIGUSR2) keeps this process, its number and its sockets. First the program on disk is started
//! as workers of a second set, and only when all of them are ready, this process executes the program that they run
//! ([`replacement`]). Until then nothing has changed, so that a program which fails is given up. The program in this process
//! then lets the new workers go and the old ones retire: they accept nothing more, and serve on until their clients leave.
//!
//! Roads not taken: threads would share one set of counters and limits, but a fault in one ends all, and the C library makes
//! each call dearer as soon as there is a second thread; one listener for all workers is divided by chance (the guide has
//! the figures); a new process for a new program has another number, which ends a container.

mod answer;
mod listeners;
mod parts;
mod process;
mod replacement;
mod slot;

pub(super) use parts::Master;
pub(super) use replacement::Inheritance;

use super::args::ServeArgs;
use super::commands::delay_text;
use super::counter_file::CounterFileOf;
use super::counters::Counters;
use super::delivery::Delivery;
use super::end::End;
use super::errors;
use super::event_loop;
use super::link::{Command, Report};
use super::notify;
use super::pid_file::PidFile;
use super::plan::Plan;
use super::program::Program;
use super::signals::MasterSignals;
use crate::cli::error::{CliError, CliErrorKind, Exit};
use crate::cli::units::{Time, plural};
use crate::net::BoundSocket;
use crate::stats::CloseReason;
use listeners::Listeners;
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use parts::{Cohort, Phase};
use process::{Failure, Process, State};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use slot::Slot;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

/// The results of a master that has ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Served(Box<End>),
    /// A worker failed at the start, and has said why.
    Failed(Exit),
}

impl<'a> Master<'a> {
    /// Binds everything, starts the workers, and serves until all of them have ended.
    pub(super) fn serve(
        args: &'a ServeArgs,
        workers: usize,
        plan: Plan<'_>,
        inherited: Vec<BoundSocket>,
    ) -> Result<Outcome, CliError> {
        let program = Program::of_this_process();
        let signals = MasterSignals::register()?;
        let options = plan.config.bind_options();
        let shared = inherited.len();
        let sockets = event_loop::bind(&plan, inherited)?;
        let listeners = Listeners::new(sockets, shared, workers, &options, &plan.config.limits)?;
        let _pid_file = plan.pid_file.map(PidFile::write).transpose()?;
        let mut master = Self {
            args,
            program,
            workers,
            listeners,
            processes: Vec::new(),
            slots: (0..workers).map(|_| Slot::default()).collect(),
            phase: Phase::Starting,
            drain_at: None,
            is_told_to_stop: false,
            cohort: Some(Cohort {
                is_replacement: false,
                until: None,
            }),
            question: None,
            failure: None,
            killed_workers: 0,
            killed_connections: 0,
            signals,
            announcement: Some(plan.announcement),
            delivery: None,
            started: Instant::now(),
        };
        // The rest follows when it is ready: if it fails, it fails once.
        master
            .start(0, false)
            .map_err(|error| errors::system("no worker can be started", &error))?;
        master.run()
    }

    /// Goes on where the program before this one has executed it.
    pub(super) fn succeed(
        args: &'a ServeArgs,
        delivery: Delivery,
        inheritance: Inheritance,
    ) -> Result<Outcome, CliError> {
        let signals = MasterSignals::register()?;
        let pid_file = args.pid_file().map(PidFile::write).transpose();
        let _pid_file = pid_file.unwrap_or_else(|failure| {
            log::error!("{}", failure.text); // no reason to end a service
            None
        });
        let Inheritance {
            program,
            listeners,
            processes,
            slots,
            started,
        } = inheritance;
        let mut master = Self {
            args,
            program,
            workers: slots.len(),
            listeners,
            processes,
            slots,
            phase: Phase::Serving,
            drain_at: None,
            is_told_to_stop: false,
            cohort: None,
            question: None,
            failure: None,
            killed_workers: 0,
            killed_connections: 0,
            signals,
            announcement: None,
            delivery: Some(delivery),
            started,
        };
        master.replace_workers();
        master.run()
    }

    fn run(mut self) -> Result<Outcome, CliError> {
        loop {
            let timeout = self.timeout();
            let links = self.processes.iter().filter(|process| process.is_link_open);
            self.signals
                .wait(links.map(|process| &process.link), timeout)?;
            for signal in self.signals.take() {
                self.on_signal(signal);
            }
            self.read_links();
            self.reap();
            self.on_time(Instant::now());
            if self.phase == Phase::Stopping && self.processes.is_empty() {
                break;
            }
        }
        match self.failure.take() {
            Some(Failure::Told(exit)) => Ok(Outcome::Failed(exit)),
            Some(Failure::Untold(text)) => Err(CliError::new(CliErrorKind::System, text)),
            None => Ok(Outcome::Served(Box::new(self.finish()))),
        }
    }

    /// When there is something to do by itself.
    fn timeout(&mut self) -> Option<Duration> {
        let restarts = self.slots.iter().filter_map(|slot| slot.restart_at);
        let retirements = self.processes.iter().filter_map(|process| process.drain_at);
        let ready = self.cohort.as_ref().and_then(|cohort| cohort.until);
        let answer = self.question.as_ref().map(|question| question.until);
        let next = restarts.chain(retirements).chain(ready).chain(answer);
        let next = next.chain(self.drain_at).min();
        let now = Instant::now();
        let next = next.map(|next| next.saturating_duration_since(now));
        let delivery = self.delivery.as_mut().and_then(Delivery::retry);
        [next, delivery].into_iter().flatten().min()
    }

    // ---- commands ----

    fn on_signal(&mut self, signal: i32) {
        match signal {
            SIGTERM | SIGINT if self.is_told_to_stop => {
                log::warn!("killing the workers that are left");
                for process in &self.processes {
                    process.kill();
                }
            }
            SIGTERM | SIGINT if self.phase == Phase::Stopping => {
                log::info!("stopping at once");
                self.is_told_to_stop = true;
                self.tell_all(Command::Stop);
            }
            SIGTERM | SIGINT if self.drain_at.is_some() => self.begin_drain(),
            SIGTERM | SIGINT => {
                // First: that it is given up is another READY.
                self.give_up_replacement("this process was told to stop meanwhile");
                notify::stopping();
                self.delay_drain();
            }
            SIGUSR1 => self.ask(),
            SIGUSR2 if self.drain_at.is_some() => {
                log::warn!("SIGUSR2 is ignored: this process was told to stop");
            }
            SIGUSR2 => self.begin_replacement(),
            SIGHUP => log::info!("SIGHUP is ignored; SIGTERM drains and stops"),
            _ => {} // SIGCHLD: children are reaped after each wait
        }
    }

    /// Serves on for `--drain-delay` before the drain. Before the first worker serves, there is nothing to serve on.
    fn delay_drain(&mut self) {
        let delay = self.args.drain_delay();
        if delay.is_zero() || self.phase == Phase::Starting {
            return self.begin_drain();
        }
        log::info!("{}", delay_text(delay));
        self.drain_at = Some(Instant::now() + delay);
    }

    fn begin_drain(&mut self) {
        log::info!(
            "draining {}, at most {}; once more to stop at once",
            plural(self.processes.len() as u64, "worker"),
            Time(self.args.limits().drain_timeout)
        );
        self.stop();
    }

    /// Drains all workers. Files of Unix sockets are removed before that, so that no new client can connect. The sockets
    /// are the workers' alone from then on: each closes them when it has served their queues.
    fn stop(&mut self) {
        self.phase = Phase::Stopping;
        self.drain_at = None;
        self.give_up_replacement("this process was told to stop meanwhile");
        self.cohort = None;
        for worker in 0..self.workers {
            // Its queue is served, too.
            if self.slots[worker].restart_at.take().is_some() {
                if let Err(error) = self.start(worker, false) {
                    log::error!("worker {worker} cannot be started: {error}");
                }
            }
        }
        self.tell_all(Command::Drain);
        self.listeners.close();
    }

    fn tell_all(&mut self, command: Command) {
        for process in &self.processes {
            process.tell(command);
        }
    }

    // ---- workers ----

    /// Starts the worker of this number: a process of this program, or of the one on disk.
    fn start(&mut self, worker: usize, is_new: bool) -> std::io::Result<()> {
        let mut process = Process::start(
            &self.program,
            is_new,
            worker,
            self.workers,
            &self.listeners.of_worker(worker),
        )?;
        log::debug!("worker {worker} is process {}", process.pid);
        process.is_in_cohort = is_new || self.phase == Phase::Starting;
        if !is_new {
            self.slots[worker].restart_at = None;
        }
        self.slots[worker].processes += 1;
        self.processes.push(process);
        Ok(())
    }

    fn read_links(&mut self) {
        for place in 0..self.processes.len() {
            self.read_link(place);
        }
    }

    /// Reads what a worker reports. The end of its link is told by waitpid(2) as well, which says how it ended.
    fn read_link(&mut self, place: usize) {
        loop {
            match self.processes[place].link.receive() {
                Ok(Some(message)) => match Report::from_message(&message) {
                    Some(report) => self.on_report(place, report),
                    None => log::warn!("a worker said {message:?}, which is unknown here"),
                },
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Ok(None) | Err(_) => {
                    self.processes[place].is_link_open = false;
                    return;
                }
            }
        }
    }

    fn on_report(&mut self, place: usize, report: Report) {
        let process = &mut self.processes[place];
        match report {
            Report::Ready { counter_file } => {
                process.counter_file =
                    counter_file.and_then(|number| CounterFileOf::open(process.pid, number));
                process.enter(State::Ready);
                match process.is_in_cohort {
                    true => self.advance_cohort(),
                    false => process.go(),
                }
            }
            Report::Leaving => {
                let worker = process.worker;
                process.enter(State::Leaving);
                if self.phase == Phase::Serving {
                    self.slots[worker].restart_at = Some(Instant::now());
                }
            }
            Report::Count(counters) => {
                process.counters = Some(counters);
                process.is_asked = false;
                self.answer_if_complete();
            }
            Report::End(counters) => {
                process.counters = Some(counters);
                process.has_reported = true;
            }
        }
    }

    /// A member of the cohort is ready. When the first one is, the rest are started; when all are, they begin.
    fn advance_cohort(&mut self) {
        let is_replacement = self
            .cohort
            .as_ref()
            .is_some_and(|cohort| cohort.is_replacement);
        if self.members().count() == 1 {
            for worker in 1..self.workers {
                if let Err(error) = self.start(worker, is_replacement) {
                    return self.fail_cohort(Failure::Untold(format!(
                        "worker {worker} cannot be started: {error}"
                    )));
                }
            }
        }
        // The end of a replacement comes after all reports are read.
        if !is_replacement && self.members_ready() == self.workers {
            self.begin_serving();
        }
    }

    fn members(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| process.is_in_cohort)
    }

    fn members_ready(&self) -> usize {
        let ready = self
            .members()
            .filter(|process| process.state == State::Ready);
        ready.count()
    }

    /// All workers are ready for the first time.
    fn begin_serving(&mut self) {
        self.cohort = None;
        self.phase = Phase::Serving;
        for process in &mut self.processes {
            process.go();
        }
        let pids: Vec<String> = (self.processes.iter())
            .map(|process| process.pid.to_string())
            .collect();
        log::info!(
            "{} serve: processes {}",
            plural(self.workers as u64, "worker"),
            pids.join(", ")
        );
        if let Some(announcement) = self.announcement.take() {
            self.delivery = Some(announcement.tell(&self.listeners.endpoints()));
        }
    }

    /// A member of the cohort cannot begin.
    fn fail_cohort(&mut self, failure: Failure) {
        let is_replacement = self
            .cohort
            .as_ref()
            .is_some_and(|cohort| cohort.is_replacement);
        if !is_replacement {
            self.failure = Some(failure);
            return self.stop();
        }
        match failure {
            Failure::Told(_) => self.give_up_replacement("it has said why above"),
            Failure::Untold(why) => self.give_up_replacement(&why),
        }
    }

    // ---- ends ----

    /// Reaps all children that have ended; also orphans, which are adopted by the process that is PID 1.
    fn reap(&mut self) {
        loop {
            let (pid, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(status @ (WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..))) => {
                    (pid, status)
                }
                Ok(WaitStatus::StillAlive) => return,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(_) => return, // ECHILD: there is none
            };
            match self.processes.iter().position(|process| process.pid == pid) {
                Some(place) => self.on_end(place, status),
                None => log::debug!("process {pid}, no worker, has ended"),
            }
        }
    }

    fn on_end(&mut self, place: usize, status: WaitStatus) {
        self.read_link(place); // its last report
        let process = self.processes.remove(place);
        let slot = &mut self.slots[process.worker];
        let mut lost = None;
        match &process.counters {
            Some(counters) if process.has_reported => slot.add(counters),
            _ if process.state == State::Starting || process.state == State::Ready => {}
            _ => match process.kept_counters() {
                Some(counters) => {
                    slot.ended.add(&counters);
                    lost = Some(counters.stats.closed(CloseReason::Killed));
                }
                None => slot.unreported += 1,
            },
        }
        if process.is_in_cohort && self.cohort.is_some() {
            return self.fail_cohort(process.failure(status));
        }
        match (self.phase, process.state) {
            (Phase::Stopping, State::Serving | State::Retired | State::Leaving)
                if !process.has_reported =>
            {
                self.killed_workers += 1;
                self.killed_connections += lost.unwrap_or(0);
            }
            (Phase::Serving, State::Starting | State::Ready | State::Serving) => {
                self.restart(&process, status, lost);
            }
            _ if !process.has_reported => log::warn!(
                "worker {}, process {}, {}; {} cut",
                process.worker,
                process.pid,
                process::told(status),
                were(lost)
            ),
            _ => {}
        }
        self.answer_if_complete();
    }

    fn restart(&mut self, process: &Process, status: WaitStatus, lost: Option<u64>) {
        let slot = &mut self.slots[process.worker];
        let pause = slot.pause_after(process.state == State::Serving, process.since.elapsed());
        slot.restart_at = Some(Instant::now() + pause);
        let again = match pause.is_zero() {
            true => String::new(),
            false => format!(" in {}", Time(pause)),
        };
        let lost = match process.has_reported || process.state != State::Serving {
            true => String::new(),
            false => format!("; {} cut, its queue waits", were(lost)),
        };
        log::warn!(
            "worker {}, process {}, {}{lost}; it is started again{again}",
            process.worker,
            process.pid,
            process::told(status)
        );
        if slot.has_failed_repeatedly() {
            log::error!(
                "worker {} has ended {} times in a row within a second; the lines before this one say why, and it is tried on",
                process.worker,
                slot.failures
            );
        }
    }

    /// Does what is due.
    fn on_time(&mut self, now: Instant) {
        if self.drain_at.is_some_and(|at| at <= now) {
            self.begin_drain();
        }
        for worker in 0..self.workers {
            if self.slots[worker].restart_at.is_some_and(|at| at <= now) {
                if let Err(error) = self.start(worker, false) {
                    let slot = &mut self.slots[worker];
                    let pause = slot.pause_after(false, Duration::ZERO);
                    slot.restart_at = Some(now + pause.max(Duration::from_millis(100)));
                    log::error!("worker {worker} cannot be started: {error}");
                }
            }
        }
        for process in &mut self.processes {
            if process.drain_at.is_some_and(|at| at <= now) {
                process.drain_at = None;
                log::info!("draining what stayed with process {}", process.pid);
                process.tell(Command::Drain);
            }
        }
        if (self.cohort.as_ref()).is_some_and(|cohort| cohort.until.is_some_and(|at| at <= now)) {
            self.give_up_replacement(
                "it was not ready in time, and was killed (see --replace-timeout)",
            );
        }
        if self
            .question
            .as_ref()
            .is_some_and(|question| question.until <= now)
        {
            self.answer();
        }
        if self.is_replacement_ready() {
            self.become_new_program();
        }
    }

    /// All workers have ended: adds up what they have reported.
    fn finish(mut self) -> End {
        if let Some(delivery) = self.delivery.take() {
            delivery.finish();
        }
        let mut counters = Counters::default();
        for slot in &self.slots {
            counters.add(&slot.ended);
        }
        let rows = self.slots.iter().enumerate();
        End {
            counters,
            addresses: self.listeners.endpoints(),
            workers: Some(rows.map(|(worker, slot)| slot.row(worker)).collect()),
            killed_workers: self.killed_workers,
            killed_connections: self.killed_connections,
            lasted: Some(self.started.elapsed()),
            ..End::default()
        }
    }
}

/// The connections of a worker that was killed, as the subject of a sentence.
fn were(lost: Option<u64>) -> String {
    match lost {
        None => "its connections are".to_owned(),
        Some(1) => "its one connection is".to_owned(),
        Some(count) => format!("its {count} connections are"),
    }
}
