//! A worker: one thread, one reactor, some connections, from the first connect to the last answer.
//!
//! This file has the stages of a run, and the turn of the loop. Bytes are in `stream` and `datagram`, opening
//! connections in `connector`, and the choice of the connection that sends the next request in `issuing`.
//!
//! The loop is the server's, seen from the other side, and as lean: in a closed loop an answer costs one event, one
//! read, one reading of the clock, and one write.

use super::bad_clients::BadClient;
use super::connector::Connector;
use super::datagram::DatagramClient;
use super::finish::resent;
use super::in_flight::WorkerContext;
use super::metrics::{
    Counters, Fault, FaultKind, Faults, Interval, Pauses, Resent, Stage, Unanswered,
};
use super::payload::Pattern;
use super::schedule::{ArrivalSchedule, Clock};
use super::stream::{Step, StreamClient};
use super::{Control, ControlChannel, Final, Message, Mode, Plan, ServerFigures};
use crate::net::Stream;
use crate::net::connect::{ClientSocket, ClientSource};
use crate::procfs::{ServerSample, own_usage};
use crate::reactor::{
    Epoll, Event, Interest, Key, Reactor, Readiness, Registration, TimeoutClass, Timer,
};
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

/// Size of the one buffer for all reads: what large requests need, and more than small ones ever fill.
pub(super) const READ_BUFFER_BYTES: usize = 256 * 1024;
/// Time between two rounds of housekeeping, in nanoseconds.
pub(super) const TICK: u64 = 20_000_000;
/// Nanoseconds within which the next arrival is waited for by polling: arming a timer and sleeping would take as
/// long.
const NEAR: u64 = 5_000;

/// The state of one socket of the load.
#[derive(Debug)]
pub(super) enum Client {
    Stream(StreamClient),
    Datagram(DatagramClient),
    /// A badly behaved client, by its index.
    Bad(u32),
}

/// A worker: one thread, one reactor, and its connections.
pub(super) struct Worker<'a> {
    pub(super) plan: &'a Plan,
    pub(super) channel: &'a mut dyn ControlChannel,
    pub(super) control: Control,
    pub(super) reactor: Reactor<ClientSource<Client>>,
    timer: Timer,
    /// The time for which the timer is armed.
    timer_at: u64,
    pub(super) context: WorkerContext,
    pub(super) connector: Connector,
    pub(super) bad_clients: Vec<BadClient>,
    pub(super) schedule: Option<ArrivalSchedule>,
    /// Connections of an open loop that may take another request, the longest waiting first; and the planned times of
    /// requests that found no free connection, at most [`QUEUE_MAX`](super::QUEUE_MAX) of them.
    pub(super) free: VecDeque<(Key, u32)>,
    pub(super) backlog: VecDeque<u64>,
    /// Which connections are in `free`, by number.
    pub(super) listed: Vec<bool>,
    /// Connections of a closed loop that have not been started yet.
    pub(super) to_start: Vec<Key>,
    /// Whether connections are still to be opened or started. It spares every later turn the question.
    starting: bool,
    pub(super) next_tick: u64,
    pub(super) next_interval: u64,
    /// The interval that is filled next; `None` before the first was sent.
    spare: Option<Box<Interval>>,
    /// The connection at which the search for expired timeouts goes on.
    pub(super) cursor: usize,
    pub(super) pauses: Pauses,
    /// Pauses while the connections were opened.
    pub(super) opening_pauses: Pauses,
    /// When a run that is ended by Ctrl-C stops waiting for answers.
    pub(super) stopped_until: Option<u64>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(plan: &'a Plan, channel: &'a mut dyn ControlChannel) -> io::Result<Self> {
        let reactor = Reactor::new(Epoll::new()?);
        let mut timer = Timer::new()?;
        reactor.watch(&mut timer)?;
        let clock = Clock::start();
        let read_buffer = READ_BUFFER_BYTES.max(plan.size.min(1 << 16) + 1);
        let context = WorkerContext {
            clock,
            pattern: Pattern::new(plan.seed, read_buffer),
            read_buffer: vec![0; read_buffer].into_boxed_slice(),
            interval: Box::new(Interval::new(Stage::Opening, 0)),
            counters: Counters::default(),
            faults: Faults::default(),
            unanswered: Unanswered::default(),
            resent: Resent::default(),
            size: plan.size,
            again: false,
            planned: false,
            window: (0, 0),
            remaining: None,
            now: 0,
        };
        Ok(Self {
            plan,
            control: channel.control(),
            channel,
            reactor,
            timer,
            timer_at: 0,
            context,
            connector: Connector::new(plan),
            bad_clients: Vec::new(),
            schedule: None,
            free: VecDeque::new(),
            backlog: VecDeque::new(),
            listed: vec![false; plan.connections],
            to_start: Vec::new(),
            starting: true,
            next_tick: 0,
            next_interval: u64::MAX,
            spare: None,
            cursor: 0,
            pauses: Pauses::default(),
            opening_pauses: Pauses::default(),
            stopped_until: None,
        })
    }

    // ---- the stages of a run ----

    pub(super) fn run(mut self) -> io::Result<Final> {
        let look = |plan: &Plan| ServerSample::take_all(&plan.servers).ok();
        let sample_threads = |plan: &Plan| ServerSample::take_all_threads(&plan.servers).ok();
        let before = look(self.plan);
        self.open_all()?;
        let opened = sample_threads(self.plan);
        let began = self.context.read_clock();
        let open = self.connector.open as u64;
        self.channel.tell(&Message::Opened(open, began));
        while self.control.go.is_none() && !self.control.stop {
            self.turn(self.context.now + 2_000_000)?;
            // More often than a tick would do: all workers are to begin at the same time.
            self.control = self.channel.control();
        }
        let stage = self.load()?;
        let (begin, usage) = (look(self.plan), own_usage());
        if stage == Stage::Drain {
            self.pass(self.context.window.1)?;
        }
        let ended_at = self.context.read_clock();
        let usage = own_usage().since(usage);
        let end = look(self.plan);
        let window = match stage {
            Stage::Drain => ended_at.saturating_sub(self.context.window.0),
            _ => 0,
        };
        // A worker without sending connections is ended by a command when the rest has finished.
        let interrupted = self.control.stop && self.sends();
        self.drain(ended_at, stage)?;
        let drained = sample_threads(self.plan);
        let server = match (before, opened, begin, end, drained) {
            (Some(before), Some(opened), Some(begin), Some(end), Some(drained))
                if !self.plan.servers.is_empty() =>
            {
                Some(ServerFigures {
                    before,
                    opened,
                    begin,
                    end,
                    drained,
                })
            }
            _ => None,
        };
        let fairness = self.account_connections(ended_at, stage);
        self.close_all()?;
        Ok(Final {
            counters: self.context.counters,
            faults: self.context.faults,
            fairness,
            unanswered: self.context.unanswered,
            pauses: self.pauses,
            opening_pauses: self.opening_pauses,
            resent: self.context.resent,
            usage,
            window,
            server,
            interrupted,
        })
    }

    /// Opens the connections, and proves each by an echo. A churn opens its connections under load.
    fn open_all(&mut self) -> io::Result<()> {
        self.next_tick = self.context.read_clock() + TICK;
        if matches!(self.plan.mode, Mode::Churn { .. }) {
            return Ok(());
        }
        while !self.connector.is_over() && !self.control.stop {
            self.open_some();
            self.turn(self.context.now + 1_000_000)?;
        }
        Ok(())
    }

    /// Whether any connection of this worker sends requests, once it is proved.
    fn sends(&self) -> bool {
        self.plan.active > 0 || matches!(self.plan.mode, Mode::Churn { .. })
    }

    /// Starts the load, lets the warm-up pass, and begins the window. Returns the stage to which answers belong that
    /// come after the end of the run: [`Stage::Drain`] if the window has begun, otherwise the stage that was
    /// interrupted.
    fn load(&mut self) -> io::Result<Stage> {
        if self.control.stop {
            return Ok(Stage::Opening);
        }
        let start = self.start();
        let begin_at = start + nanoseconds(self.plan.warm_up);
        self.context.window = (begin_at, begin_at + nanoseconds(self.plan.duration));
        self.pass(begin_at)?;
        if self.context.now < begin_at {
            return Ok(Stage::WarmUp);
        }
        self.begin_window();
        Ok(Stage::Drain)
    }

    /// Starts the load. Returns the time at which it began by plan: in an open loop the same for all workers.
    fn start(&mut self) -> u64 {
        let now = self.context.read_clock();
        self.starting = true;
        self.bad_clients = self.plan.bad_clients.spread_over_time(now);
        self.rotate(Stage::WarmUp, now);
        self.next_interval = now + nanoseconds(self.plan.interval);
        match self.plan.mode {
            Mode::Closed => {
                self.context.again = true;
                self.context.remaining = self.plan.requests;
                self.to_start = self.connector.active();
                self.to_start.reverse(); // the first one is taken first
            }
            Mode::Open { rate, arrivals } => {
                self.context.planned = true;
                self.context.remaining = self.plan.requests;
                let start = self.control.go.map_or(now, |go| self.context.clock.at(go));
                let (seed, worker) = (self.plan.seed, self.plan.worker);
                self.schedule = ArrivalSchedule::new(
                    (arrivals, rate),
                    start,
                    seed,
                    &self.plan.active_by_worker,
                    worker,
                );
                for key in self.connector.active() {
                    self.list(key);
                }
                return start;
            }
            Mode::Churn { .. } => {
                self.context.remaining = self.plan.requests;
                self.connector.churn();
            }
        }
        self.context.read_clock()
    }

    /// Runs the loop until a time, or until there is nothing more to do.
    fn pass(&mut self, until: u64) -> io::Result<()> {
        while self.context.now < until && !self.control.stop && !self.is_idle() {
            self.turn(until)?;
        }
        Ok(())
    }

    /// Whether no event can follow: everything was sent and answered, or no connection is left that could send.
    fn is_idle(&self) -> bool {
        let counters = &self.context.counters;
        let done = self.context.remaining == Some(0)
            && self.backlog.is_empty()
            && counters.sent == counters.echoed + counters.lost
            && self.sends();
        done || self.connector.is_hopeless()
    }

    /// Begins the window: what was measured before does not count.
    fn begin_window(&mut self) {
        let now = self.context.read_clock();
        self.rotate(Stage::Window, now);
        self.next_interval = now + nanoseconds(self.plan.interval);
        for key in self.reactor.keys() {
            if let Some(tally) = self.reactor.get_mut(key).and_then(|out| out.state.tally()) {
                tally.reset(now);
            }
        }
        self.connector.reset_tallies(now);
        if self.context.planned {
            // Their wait began before the window, so neither it nor their answers would be measured.
            self.context.counters.warm_up_dropped = self.backlog.len() as u64;
            self.backlog.clear();
        } else {
            self.context.window = (now, now + nanoseconds(self.plan.duration));
        }
    }

    /// Sends the interval, and begins another. Two of them take turns: to allocate one, a megabyte of zeros, took
    /// half a millisecond out of every second.
    pub(super) fn rotate(&mut self, stage: Stage, now: u64) {
        let spare = self.spare.take();
        let mut next = spare.unwrap_or_else(|| Box::new(Interval::new(stage, now)));
        next.begin(stage, now);
        let mut interval = std::mem::replace(&mut self.context.interval, next);
        interval.end = now;
        interval.open = self.connector.open as u64;
        interval.faults = self.context.faults.total();
        let message = Message::Interval(interval);
        self.channel.tell(&message);
        if let Message::Interval(interval) = message {
            self.spare = Some(interval);
        }
    }

    // ---- the turn ----

    /// One iteration of the loop, which waits until `until` at most.
    pub(super) fn turn(&mut self, until: u64) -> io::Result<()> {
        let wait = self.wait_time(until)?;
        // The result names an expired timer or a waker; neither carries anything but the wakeup.
        let _ = self.reactor.wait(Some(Duration::from_nanos(wait)))?;
        let before = self.context.now;
        if self.schedule.is_some() {
            self.take_arrivals();
        }
        while let Some(event) = self.reactor.next_event() {
            if let Event::Ready(key, readiness) = event {
                self.on_ready(key, readiness);
                if self
                    .schedule
                    .as_ref()
                    .is_some_and(|schedule| schedule.next_due() <= self.context.now)
                {
                    self.take_arrivals();
                }
            }
        }
        if self.context.now == before {
            self.context.read_clock(); // there was no answer, whose time is read
        }
        if self.starting {
            self.go_on_starting();
        }
        if self.context.now >= self.next_tick {
            self.tick();
        }
        Ok(())
    }

    #[cold]
    fn go_on_starting(&mut self) {
        if self.connector.has_work() {
            self.open_some();
        }
        self.start_some();
        let opens = self.connector.is_churn() || !self.connector.is_over();
        self.starting = opens || !self.to_start.is_empty();
    }

    /// The timeout of the next wait. The next arrival is waited for by the timer, whose resolution is finer.
    fn wait_time(&mut self, until: u64) -> io::Result<u64> {
        let now = self.context.now;
        if self.starting && !self.to_start.is_empty() {
            return Ok(0);
        }
        let wait = until.min(self.next_tick).saturating_sub(now);
        let Some(schedule) = &self.schedule else {
            return Ok(wait);
        };
        let due = schedule.next_due();
        if due <= now + NEAR {
            return Ok(0);
        }
        if due != self.timer_at {
            self.timer.arm(Duration::from_nanos(due - now))?;
            self.timer_at = due;
        }
        Ok(wait)
    }

    /// Handles the readiness of a socket.
    #[inline]
    fn on_ready(&mut self, key: Key, readiness: Readiness) {
        let Some(ClientSource { socket, state, .. }) = self.reactor.begin_event(key, readiness)
        else {
            return;
        };
        let (step, blocked) = match (socket, state) {
            (ClientSocket::Stream(stream), Client::Stream(client)) => {
                if client.is_connecting() {
                    return self.on_connected(key);
                }
                let before = client.is_blocked();
                let step = client.advance(stream, readiness, &mut self.context);
                let blocked = client.is_blocked();
                (step, (blocked != before).then_some(blocked))
            }
            (ClientSocket::Datagrams(socket), Client::Datagram(client)) => {
                let before = client.is_blocked();
                let step = client.advance(socket, &mut self.context);
                let blocked = client.is_blocked();
                (step, (blocked != before).then_some(blocked))
            }
            (_, &mut Client::Bad(place)) => return self.on_bad_ready(key, place),
            _ => return,
        };
        match step {
            Ok(step) => {
                if let Some(blocked) = blocked {
                    self.want(key, blocked);
                }
                match step {
                    Step::Nothing => {}
                    Step::Proved => self.on_proved(key),
                    Step::Answered => self.on_answered(key),
                }
            }
            Err(fault) => self.end(key, &fault),
        }
    }

    /// Gives the next planned request to a connection of an open loop that may take one.
    pub(super) fn on_answered(&mut self, key: Key) {
        if self.schedule.is_some() {
            self.list(key);
            self.serve_backlog();
        }
    }

    /// Registers a connection for writing if it has unsent bytes, and for reading otherwise.
    pub(super) fn want(&mut self, key: Key, blocked: bool) {
        let interest = match blocked {
            true => Interest::Write,
            false => Interest::Read,
        };
        let want = Registration {
            interest,
            class: TimeoutClass::NEVER,
        };
        if let Err(error) = self.reactor.set_registration(key, want) {
            self.end(key, &error.into());
        }
    }

    /// Closes a connection after a fault. Its requests in flight are lost.
    pub(super) fn end(&mut self, key: Key, fault: &Fault) {
        let Some(ClientSource { socket, state, .. }) = self.reactor.close(key) else {
            return;
        };
        self.context.counters.lost += state.in_flight() as u64;
        self.context.resent.note(resent(&socket));
        // The first request of a connection proves it, and belongs to the load in a churn alone.
        let is_load = state.is_ready() || self.connector.is_churn();
        if fault.kind == FaultKind::Timeout && is_load {
            self.context.no_answer(&state, self.context.now);
        }
        if let ClientSocket::Stream(stream) = &socket {
            stream.reset_on_close(); // unread bytes are of no use any more
        }
        self.connection_failed(state, fault);
    }
}

pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4)
}
