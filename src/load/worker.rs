//! A worker: one thread, one reactor, some connections, from the first connect to the last answer.
//!
//! It composes parts that own their state: the sockets ([`Connections`]), the queue of an open loop ([`ArrivalQueue`]), the
//! badly behaved clients ([`BadClientDriver`]), and what the clients share, the record among it ([`WorkerContext`]). This
//! file has the stages of a run, the turn of the loop, and the housekeeping between turns.
//!
//! The loop is the server's, seen from the other side, and as lean: in a closed loop an answer costs one event, one
//! read, one reading of the clock, and one write.

use super::arrivals::ArrivalQueue;
use super::bad_clients::BadClientDriver;
use super::connections::{Connections, Outcome};
use super::context::WorkerContext;
use super::in_flight::{Request, Step};
use super::message::{Control, ControlChannel, Final, Message, ServerFigures};
use super::metrics::{Fairness, Stage};
use super::plan::{Mode, Plan};
use super::schedule::{ArrivalSchedule, TICK, nanoseconds};
use super::teardown;
use crate::procfs::{ServerSample, own_usage};
use crate::reactor::{Key, Timer};
use std::io;
use std::time::Duration;

/// Nanoseconds within which the next arrival is waited for by polling: arming a timer and sleeping would take as
/// long.
const NEAR: u64 = 5_000;
/// Requests with which a closed loop is started in one turn. To start a million without reading answers in between
/// would count the start's own time as the server's.
const START_BUDGET: usize = 1_024;
/// A pause of the generator that is shorter than this is noise of the machine.
const PAUSE_MIN: u64 = 50_000_000;
/// The longest wait for answers that are under way when a run is ended by Ctrl-C.
const GRACE: Duration = Duration::from_secs(1);

/// A worker: one thread, one reactor, and its connections.
pub(super) struct Worker<'a> {
    plan: &'a Plan,
    channel: &'a mut dyn ControlChannel,
    control: Control,
    connections: Connections<'a>,
    arrivals: ArrivalQueue,
    bad_clients: BadClientDriver,
    context: WorkerContext,
    timer: Timer,
    /// The time for which the timer is armed.
    timer_at: u64,
    /// Connections of a closed loop that have not been started yet.
    to_start: Vec<Key>,
    /// Whether connections are still to be opened or started. It spares every later turn the question.
    starting: bool,
    next_tick: u64,
    next_interval: u64,
}

impl<'a> Worker<'a> {
    pub(super) fn new(plan: &'a Plan, channel: &'a mut dyn ControlChannel) -> io::Result<Self> {
        let connections = Connections::new(plan)?;
        let mut timer = Timer::new()?;
        connections.watch(&mut timer)?;
        Ok(Self {
            plan,
            control: channel.control(),
            channel,
            connections,
            arrivals: ArrivalQueue::new(plan),
            bad_clients: BadClientDriver::default(),
            context: WorkerContext::new(plan),
            timer,
            timer_at: 0,
            to_start: Vec::new(),
            starting: true,
            next_tick: 0,
            next_interval: u64::MAX,
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
        let open = self.connections.connector().open() as u64;
        self.channel.tell(&Message::Opened(open, began));
        while self.control.go.is_none() && !self.control.stop {
            self.turn(self.context.now() + 2_000_000)?;
            // More often than a tick would do: all workers are to begin at the same time.
            self.control = self.channel.control();
        }
        let stage = self.load()?;
        let (begin, usage) = (look(self.plan), own_usage());
        let (window_began, window_ends) = self.context.record().window();
        if stage == Stage::Drain {
            self.pass(window_ends)?;
        }
        let ended_at = self.context.read_clock();
        let usage = own_usage().since(usage);
        let end = look(self.plan);
        let window = match stage {
            Stage::Drain => ended_at.saturating_sub(window_began),
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
        let mut fairness = self.connections.account(ended_at, &mut self.context);
        if stage != Stage::Drain {
            fairness = Fairness::default(); // there was no window
        }
        self.rotate(stage, self.context.now());
        let (connections, mut context) = (self.connections, self.context);
        teardown::close_all(self.plan, connections, &mut context, self.channel)?;
        Ok(Final {
            fairness,
            usage,
            window,
            server,
            interrupted,
            ..context.into_final()
        })
    }

    /// Opens the connections, and proves each by an echo. A churn opens its connections under load.
    fn open_all(&mut self) -> io::Result<()> {
        self.next_tick = self.context.read_clock() + TICK;
        if matches!(self.plan.mode, Mode::Churn { .. }) {
            return Ok(());
        }
        while !self.connections.connector().is_over() && !self.control.stop {
            self.connections.open_some(&mut self.context);
            self.turn(self.context.now() + 1_000_000)?;
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
        self.channel.tell(&Message::Begun);
        let start = self.start();
        let begin_at = start + nanoseconds(self.plan.warm_up);
        self.set_window(begin_at);
        self.pass(begin_at)?;
        if self.context.now() < begin_at {
            return Ok(Stage::WarmUp);
        }
        self.begin_window();
        Ok(Stage::Drain)
    }

    fn set_window(&mut self, begin: u64) {
        let end = begin + nanoseconds(self.plan.duration);
        self.context.recorder().set_window(begin, end);
    }

    /// Starts the load. Returns the time at which it began by plan: in an open loop the same for all workers.
    fn start(&mut self) -> u64 {
        let now = self.context.read_clock();
        self.starting = true;
        self.bad_clients = BadClientDriver::new(self.plan.bad_clients, self.plan.timeout, now);
        self.rotate(Stage::WarmUp, now);
        self.next_interval = now + nanoseconds(self.plan.interval);
        self.context.limit_requests(self.plan.requests);
        match self.plan.mode {
            Mode::Closed => {
                self.context.send_again(true);
                self.to_start = self.connections.connector().active();
                self.to_start.reverse(); // the first one is taken first
            }
            Mode::Open { rate, arrivals } => {
                let start = self.control.go.map_or(now, |go| self.context.at(go));
                let (seed, worker) = (self.plan.seed, self.plan.worker);
                let schedule = ArrivalSchedule::new(
                    (arrivals, rate),
                    start,
                    seed,
                    &self.plan.active_by_worker,
                    worker,
                );
                self.arrivals.begin(schedule, &mut self.connections);
                return start;
            }
            Mode::Churn { .. } => self.connections.connector_mut().churn(),
        }
        self.context.read_clock()
    }

    /// Runs the loop until a time, or until there is nothing more to do.
    fn pass(&mut self, until: u64) -> io::Result<()> {
        while self.context.now() < until && !self.control.stop && !self.is_idle() {
            self.turn(until)?;
        }
        Ok(())
    }

    /// Whether no event can follow: everything was sent and answered, or no connection is left that could send.
    fn is_idle(&self) -> bool {
        let done = self.context.is_exhausted()
            && self.arrivals.is_empty()
            && self.context.record().has_all_back()
            && self.sends();
        done || self.connections.connector().is_hopeless()
    }

    /// Begins the window: what was measured before does not count.
    fn begin_window(&mut self) {
        let now = self.context.read_clock();
        self.rotate(Stage::Window, now);
        self.next_interval = now + nanoseconds(self.plan.interval);
        self.connections.reset_tallies(now);
        if matches!(self.plan.mode, Mode::Open { .. }) {
            // Their wait began before the window, so neither it nor their answers would be measured. The last turn of the
            // warm-up may have ended late, and taken requests of the window: these stay.
            let (begin, _) = self.context.record().window();
            let dropped = self.arrivals.forget_before(begin);
            self.context.recorder().counters_mut().warm_up_dropped = dropped;
        } else {
            self.set_window(now);
        }
    }

    /// Sends no more, and awaits the answers in flight until their timeout. `stage` is what the run was in: answers
    /// after a window belong to its figures, and answers after a warm-up to none.
    ///
    /// A request without an answer is worse than a slow one. It is waited for until its timeout, and then it is a fault
    /// of its connection; what is still awaited when a run is ended early is reported as such. Either way its latency is
    /// recorded as the time that it has waited so far.
    fn drain(&mut self, ended_at: u64, stage: Stage) -> io::Result<()> {
        self.rotate(stage, ended_at);
        self.next_interval = u64::MAX;
        self.context.send_again(false);
        self.arrivals.take_until_end(ended_at, &mut self.context);
        self.to_start = Vec::new();
        self.context.limit_requests(Some(0));
        self.connections.connector_mut().stop();
        self.bad_clients.close_all(&mut self.connections);
        self.arrivals.give_up(ended_at, &mut self.context);
        let mut until = ended_at + nanoseconds(self.plan.timeout);
        let mut stopped_until = None;
        while self.reported_until() < until && !self.is_quiet() {
            if self.control.stop {
                let soon = self.context.now().max(ended_at) + nanoseconds(GRACE);
                until = until.min(*stopped_until.get_or_insert(soon));
            }
            self.turn(until)?;
        }
        self.check_all_timeouts();
        // A double of the last answer is right behind it, if there is one.
        let until = self.context.read_clock() + 2_000_000;
        while self.context.now() < until {
            self.turn(until)?;
        }
        self.connections.check_for_extra_bytes(&mut self.context);
        self.rotate(stage, self.context.now());
        Ok(())
    }

    /// Whether nothing is under way any more. A connection of a churn that is not open yet is under way, too.
    fn is_quiet(&self) -> bool {
        self.context.record().has_all_back() && self.connections.connector().pending() == 0
    }

    /// Sends the current interval, and begins another.
    fn rotate(&mut self, stage: Stage, now: u64) {
        let open = self.connections.connector().open() as u64;
        self.context
            .recorder()
            .rotate(stage, now, open, self.channel);
    }

    // ---- the turn ----

    /// One iteration of the loop, which waits until `until` at most.
    fn turn(&mut self, until: u64) -> io::Result<()> {
        let wait = self.wait_time(until)?;
        self.connections.wait(wait)?;
        let before = self.context.now();
        if self.arrivals.is_on() {
            self.take_arrivals();
        }
        while let Some((key, readiness)) = self.connections.next_ready() {
            match self.connections.on_ready(key, readiness, &mut self.context) {
                Outcome::Step(Step::Nothing) => {}
                Outcome::Step(Step::Proved) => self.on_proved(key),
                Outcome::Step(Step::Answered) => self.on_answered(key),
                Outcome::Bad(place) => self.on_bad_ready(key, place),
            }
            let due = self.arrivals.next_due();
            if due.is_some_and(|due| due <= self.context.now()) {
                self.take_arrivals();
            }
        }
        if self.context.now() == before {
            self.context.read_clock(); // there was no answer, whose time is read
        }
        if self.starting {
            self.go_on_starting();
        }
        if self.context.now() >= self.next_tick {
            self.tick();
        }
        Ok(())
    }

    /// The timeout of the next wait. The next arrival is waited for by the timer, whose resolution is finer.
    fn wait_time(&mut self, until: u64) -> io::Result<u64> {
        let now = self.context.now();
        if self.starting && !self.to_start.is_empty() {
            return Ok(0);
        }
        let wait = until.min(self.next_tick).saturating_sub(now);
        let Some(due) = self.arrivals.next_due() else {
            return Ok(wait);
        };
        if due <= now + NEAR {
            return Ok(0);
        }
        if due != self.timer_at {
            self.timer.arm(Duration::from_nanos(due - now))?;
            self.timer_at = due;
        }
        Ok(wait)
    }

    fn take_arrivals(&mut self) {
        self.arrivals
            .take_due(&mut self.connections, &mut self.context);
    }

    fn on_answered(&mut self, key: Key) {
        self.arrivals
            .on_answered(key, &mut self.connections, &mut self.context);
    }

    fn on_bad_ready(&mut self, key: Key, place: u32) {
        self.bad_clients
            .on_ready(key, place, &mut self.connections, &mut self.context);
    }

    fn on_proved(&mut self, key: Key) {
        self.connections.on_proved(key, &mut self.context);
        self.connections
            .connector_mut()
            .tell_powers_of_ten(self.channel);
    }

    #[cold]
    fn go_on_starting(&mut self) {
        if self.connections.connector().has_work() {
            self.connections.open_some(&mut self.context);
        }
        self.start_some();
        let connector = self.connections.connector();
        let opens = connector.is_churn() || !connector.is_over();
        self.starting = opens || !self.to_start.is_empty();
    }

    /// Starts a part of the connections of a closed loop: each gets as many requests as it may have under way, in one
    /// write.
    fn start_some(&mut self) {
        let mut started = 0;
        while started < START_BUDGET {
            let Some(key) = self.to_start.pop() else {
                return;
            };
            started += self.plan.depth;
            self.connections.start(key, &mut self.context);
        }
    }

    // ---- housekeeping ----

    /// Commands, intervals, and timeouts. None of it is urgent, and all of it is done in small parts: checking ten
    /// thousand connections in one pass would delay reads, and show up as latency.
    fn tick(&mut self) {
        let now = self.context.read_clock();
        // A tick that comes much later than it was to come shows that the loop itself stood still.
        let late = now.saturating_sub(self.next_tick);
        if late >= PAUSE_MIN {
            self.context.recorder().note_pause(self.next_tick, late);
        }
        self.next_tick = now + TICK;
        if now >= self.next_interval {
            self.rotate(self.context.record().stage(), now);
            self.next_interval += nanoseconds(self.plan.interval);
        }
        self.control = self.channel.control();
        let connector = self.connections.connector_mut();
        connector.retry();
        connector.tell(self.channel);
        self.check_some_timeouts();
        self.bad_clients
            .drive(&mut self.connections, &mut self.context);
    }

    fn reported_until(&self) -> u64 {
        self.connections.reported_until(self.context.now())
    }

    /// Checks a part of the connections for an expired timeout: all of them in a quarter of the
    /// timeout, or a second. All in one pass would delay the next read by a tenth of a microsecond each.
    fn check_some_timeouts(&mut self) {
        let moment = self.reported_until();
        let round = (nanoseconds(self.plan.timeout) / 4).clamp(TICK, 1_000_000_000);
        let all = self.connections.connector().len();
        let share = (all as u64 * TICK).div_ceil(round) as usize;
        for _ in 0..share.min(all) {
            if let Some(key) = self.connections.connector_mut().next_to_check() {
                self.check_timeout(key, moment);
            }
        }
    }

    /// Checks all connections for an expired timeout, when no more answers are awaited.
    fn check_all_timeouts(&mut self) {
        self.context.read_clock();
        let moment = self.reported_until();
        for key in self.connections.connector().keys() {
            self.check_timeout(key, moment);
        }
    }

    /// Ends a connection that has waited for too long, and sends other datagrams in place of lost ones.
    fn check_timeout(&mut self, key: Key, moment: u64) {
        let given_up = self
            .connections
            .check_timeout(key, moment, &mut self.context);
        if given_up == 0 || !self.connections.goes_on_after_loss(key, &mut self.context) {
            return;
        }
        if !self.context.sends_again() {
            return self.on_answered(key);
        }
        let request = Request::unplanned(self.context.read_clock());
        for _ in 0..given_up {
            if self.context.may_send() {
                self.connections.send(key, request, &mut self.context);
            }
        }
    }
}
