//! A worker: one thread, one reactor, some connections, from the first connect to the last answer.
//!
//! What may live in this file: the order of the parts of a run, and the turn of the loop. What may not: bytes (`stream` and
//! `datagram` have them), how a connection comes about (`opening`), and which one sends the next request (`issuing`).
//!
//! The loop is the server's, seen from the other side, and as lean: in a closed loop an answer costs one event, one
//! read, one look at the clock, and one write.

use super::bad_clients::BadClient;
use super::connector::Opening;
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

/// Everything is read into one buffer of this size: what large requests want; small ones never see its end.
pub(super) const READ_BUFFER_BYTES: usize = 256 * 1024;
/// How often the loop looks after what is not urgent.
pub(super) const TICK: u64 = 20_000_000;
/// An arrival that is nearer than this is waited for by polling: setting a timer and sleeping would take as long.
const NEAR: u64 = 5_000;

/// One connection, or whatever it is that sends.
#[derive(Debug)]
pub(super) enum Client {
    Stream(StreamClient),
    Datagram(DatagramClient),
    /// One of the bad company, by its place there.
    Bad(u32),
}

/// See the page above.
pub(super) struct Worker<'a> {
    pub(super) plan: &'a Plan,
    pub(super) line: &'a mut dyn ControlChannel,
    pub(super) control: Control,
    pub(super) reactor: Reactor<ClientSource<Client>>,
    timer: Timer,
    /// When the timer rings, if it does.
    timer_at: u64,
    pub(super) context: WorkerContext,
    pub(super) opening: Opening,
    pub(super) company: Vec<BadClient>,
    pub(super) pace: Option<ArrivalSchedule>,
    /// Connections of an open loop that may take another request, the longest waiting first; and the planned times of
    /// requests that found none, at most [`QUEUE_MAX`](super::QUEUE_MAX) of them.
    pub(super) free: VecDeque<(Key, u32)>,
    pub(super) backlog: VecDeque<u64>,
    /// Which connections are in `free`, by number.
    pub(super) listed: Vec<bool>,
    /// Connections of a closed loop that have not been started yet.
    pub(super) to_start: Vec<Key>,
    /// Whether a turn may have connections to open or to start; else it does not ask.
    starting: bool,
    pub(super) next_tick: u64,
    pub(super) next_slice: u64,
    /// The slice that is filled next. None before the first has been told of.
    spare: Option<Box<Interval>>,
    /// The connection at which the search for those that wait too long goes on.
    pub(super) cursor: usize,
    pub(super) pauses: Pauses,
    /// When a run that is ended by Ctrl-C waits no longer for answers.
    pub(super) stopped_until: Option<u64>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(plan: &'a Plan, line: &'a mut dyn ControlChannel) -> io::Result<Self> {
        let reactor = Reactor::new(Epoll::new()?);
        let mut timer = Timer::new()?;
        reactor.watch(&mut timer)?;
        let clock = Clock::start();
        let read_buffer = READ_BUFFER_BYTES.max(plan.size.min(1 << 16) + 1);
        let context = WorkerContext {
            clock,
            pattern: Pattern::new(plan.seed, read_buffer),
            read_buffer: vec![0; read_buffer].into_boxed_slice(),
            slice: Box::new(Interval::new(Stage::Opening, 0)),
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
            control: line.control(),
            line,
            reactor,
            timer,
            timer_at: 0,
            context,
            opening: Opening::new(plan),
            company: Vec::new(),
            pace: None,
            free: VecDeque::new(),
            backlog: VecDeque::new(),
            listed: vec![false; plan.connections],
            to_start: Vec::new(),
            starting: true,
            next_tick: 0,
            next_slice: u64::MAX,
            spare: None,
            cursor: 0,
            pauses: Pauses::default(),
            stopped_until: None,
        })
    }

    // ---- the parts of a run ----

    pub(super) fn run(mut self) -> io::Result<Final> {
        let look = |plan: &Plan| ServerSample::take_all(&plan.servers).ok();
        let look_closely = |plan: &Plan| ServerSample::take_all_threads(&plan.servers).ok();
        let before = look(self.plan);
        self.open_all()?;
        let opened = look_closely(self.plan);
        let began = self.context.read_clock();
        let open = self.opening.open as u64;
        self.line.tell(&Message::Opened(open, began));
        while self.control.go.is_none() && !self.control.stop {
            self.turn(self.context.now + 2_000_000)?;
            // More often than a tick would ask: all workers are to begin at once.
            self.control = self.line.control();
        }
        let part = self.load()?;
        let (begin, usage) = (look(self.plan), own_usage());
        if part == Stage::Drain {
            self.pass(self.context.window.1)?;
        }
        let ended_at = self.context.read_clock();
        let usage = own_usage().since(usage);
        let end = look(self.plan);
        let window = match part {
            Stage::Drain => ended_at.saturating_sub(self.context.window.0),
            _ => 0,
        };
        // A worker without connections that send ends when the others have.
        let interrupted = self.control.stop && self.sends();
        self.drain(ended_at, part)?;
        let drained = look_closely(self.plan);
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
        let shares = self.settle(ended_at, part);
        self.disperse()?;
        Ok(Final {
            counters: self.context.counters,
            faults: self.context.faults,
            shares,
            unanswered: self.context.unanswered,
            pauses: self.pauses,
            resent: self.context.resent,
            usage,
            window,
            server,
            interrupted,
        })
    }

    /// Opens the connections, and proves each by an echo. In churn there is nothing to open ahead.
    fn open_all(&mut self) -> io::Result<()> {
        self.context.read_clock();
        if matches!(self.plan.mode, Mode::Churn { .. }) {
            return Ok(());
        }
        while !self.opening.is_over() && !self.control.stop {
            self.open_some();
            self.turn(self.context.now + 1_000_000)?;
        }
        Ok(())
    }

    /// Whether any connection of this worker sends requests, once it is proved.
    fn sends(&self) -> bool {
        self.plan.active > 0 || matches!(self.plan.mode, Mode::Churn { .. })
    }

    /// Puts the load on, lets the warm-up pass, and begins the window. The part in which the answers are that come behind
    /// the end of the run: it is [`Stage::Drain`] if the window has begun, and the one that it did not get beyond if not.
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

    /// The load is on. Since when the plan says so: an open loop's is common to all workers.
    fn start(&mut self) -> u64 {
        let now = self.context.read_clock();
        self.starting = true;
        self.company = self.plan.company.gather(now);
        self.rotate(Stage::WarmUp, now);
        self.next_slice = now + nanoseconds(self.plan.interval);
        match self.plan.mode {
            Mode::Closed => {
                self.context.again = true;
                self.context.remaining = self.plan.requests;
                self.to_start = self.opening.active();
                self.to_start.reverse(); // the first one is taken first
            }
            Mode::Open { rate, arrivals } => {
                self.context.planned = true;
                self.context.remaining = self.plan.requests;
                let start = self.control.go.map_or(now, |go| self.context.clock.at(go));
                let (seed, worker) = (self.plan.seed, self.plan.worker);
                self.pace =
                    ArrivalSchedule::new((arrivals, rate), start, seed, &self.plan.team, worker);
                for key in self.opening.active() {
                    self.list(key);
                }
                return start;
            }
            Mode::Churn { .. } => {
                self.context.remaining = self.plan.requests;
                self.opening.churn();
            }
        }
        self.context.read_clock()
    }

    /// Lets the load go on until a time, or until there is nothing more to do.
    fn pass(&mut self, until: u64) -> io::Result<()> {
        while self.context.now < until && !self.control.stop && !self.is_idle() {
            self.turn(until)?;
        }
        Ok(())
    }

    /// Whether nothing will ever happen again: all is sent that was to be sent and has come back, or no connection is
    /// left that could send.
    fn is_idle(&self) -> bool {
        let counters = &self.context.counters;
        let done = self.context.remaining == Some(0)
            && self.backlog.is_empty()
            && counters.sent == counters.echoed + counters.lost
            && self.sends();
        done || self.opening.is_hopeless()
    }

    /// What was so far does not count.
    fn begin_window(&mut self) {
        let now = self.context.read_clock();
        self.rotate(Stage::Window, now);
        self.next_slice = now + nanoseconds(self.plan.interval);
        for key in self.reactor.keys() {
            if let Some(tally) = self.reactor.get_mut(key).and_then(|out| out.state.tally()) {
                tally.reset(now);
            }
        }
        self.opening.forget_shares(now);
        if self.context.planned {
            // Their wait would count as none of the window's, and their answers neither.
            self.context.counters.warm_up_dropped = self.backlog.len() as u64;
            self.backlog.clear();
        } else {
            self.context.window = (now, now + nanoseconds(self.plan.duration));
        }
    }

    /// Tells of the slice, and begins another. There are two of them, which take turns: to make a new one, a megabyte of
    /// zeros, took half a millisecond out of every second.
    pub(super) fn rotate(&mut self, part: Stage, now: u64) {
        let spare = self.spare.take();
        let mut next = spare.unwrap_or_else(|| Box::new(Interval::new(part, now)));
        next.begin(part, now);
        let mut slice = std::mem::replace(&mut self.context.slice, next);
        slice.end = now;
        slice.open = self.opening.open as u64;
        slice.faults = self.context.faults.total();
        let message = Message::Interval(slice);
        self.line.tell(&message);
        if let Message::Interval(slice) = message {
            self.spare = Some(slice);
        }
    }

    // ---- the turn ----

    /// One turn of the loop, which waits until `until` at most.
    pub(super) fn turn(&mut self, until: u64) -> io::Result<()> {
        let wait = self.wait_time(until)?;
        // That the timer rang, or a waker did, is all that they have to say.
        let _ = self.reactor.wait(Some(Duration::from_nanos(wait)))?;
        self.context.read_clock();
        if self.pace.is_some() {
            self.arrive();
        }
        while let Some(event) = self.reactor.next_event() {
            if let Event::Ready(key, readiness) = event {
                self.on_ready(key, readiness);
                if self
                    .pace
                    .as_ref()
                    .is_some_and(|pace| pace.next_due() <= self.context.now)
                {
                    self.arrive();
                }
            }
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
        if self.opening.has_work() {
            self.open_some();
        }
        self.start_some();
        let opens = self.opening.is_churn() || !self.opening.is_over();
        self.starting = opens || !self.to_start.is_empty();
    }

    /// How long the next wait may be. The next arrival is waited for by the timer, which is finer.
    fn wait_time(&mut self, until: u64) -> io::Result<u64> {
        let now = self.context.now;
        if self.starting && !self.to_start.is_empty() {
            return Ok(0);
        }
        let wait = until.min(self.next_tick).saturating_sub(now);
        let Some(pace) = &self.pace else {
            return Ok(wait);
        };
        let due = pace.next_due();
        if due <= now + NEAR {
            return Ok(0);
        }
        if due != self.timer_at {
            self.timer.arm(Duration::from_nanos(due - now))?;
            self.timer_at = due;
        }
        Ok(wait)
    }

    /// Somebody has something.
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

    /// A connection of an open loop may take the next request.
    pub(super) fn on_answered(&mut self, key: Key) {
        if self.pace.is_some() {
            self.list(key);
            self.serve_backlog();
        }
    }

    /// Says whether a connection waits for room to write.
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

    /// Ends a connection for a fault. What it had under way is lost.
    pub(super) fn end(&mut self, key: Key, fault: &Fault) {
        let Some(ClientSource { socket, state, .. }) = self.reactor.close(key) else {
            return;
        };
        self.context.counters.lost += state.in_flight() as u64;
        self.context.resent.note(resent(&socket));
        // The first request of a connection is none of the load, unless there is no other.
        let is_load = state.is_ready() || self.opening.is_churn();
        if fault.kind == FaultKind::Timeout && is_load {
            self.context.no_answer(&state, self.context.now);
        }
        if let ClientSocket::Stream(stream) = &socket {
            stream.reset_on_close(); // what it still has to say interests nobody
        }
        self.lost_member(state, fault);
    }
}

pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4)
}
