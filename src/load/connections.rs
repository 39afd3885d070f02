//! The sockets of a worker: registered with its reactor, opened, proved, and ended in one place.
//!
//! What is opened next is decided by the [`Connector`]; what is sent when, by the arrivals and the worker.

use super::client::{Client, resent};
use super::connector::Connector;
use super::context::WorkerContext;
use super::datagram::PROOFS;
use super::faults::{Fault, FaultKind};
use super::in_flight::{Request, Step, Tally};
use super::metrics::Fairness;
use super::plan::{Mode, Plan};
use super::schedule::nanoseconds;
use crate::net::connect::{ClientSocket, ClientSource, Trigger, send_proxy_header};
use crate::net::{Stream, StreamSocket};
use crate::reactor::{
    Epoll, ExternalSource, Interest, Key, Reactor, Readiness, Registration, TimeoutClass,
};
use std::io::{self, ErrorKind, Read};
use std::time::Duration;

/// Nanoseconds after which a connection of a churn is asked for the segments that TCP has sent again on it.
const SLOW_CYCLE: u64 = 100_000_000;

/// The sockets of a worker.
pub(super) struct Connections<'a> {
    plan: &'a Plan,
    reactor: Reactor<ClientSource<Client>>,
    connector: Connector,
}

/// What the worker has to do about a socket that was ready.
pub(super) enum Outcome {
    Step(Step),
    /// The socket is that of a badly behaved client, with this index.
    Bad(u32),
}

impl<'a> Connections<'a> {
    pub(super) fn new(plan: &'a Plan) -> io::Result<Self> {
        Ok(Self {
            plan,
            reactor: Reactor::new(Epoll::new()?),
            connector: Connector::new(plan),
        })
    }

    #[inline]
    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    pub(super) fn connector_mut(&mut self) -> &mut Connector {
        &mut self.connector
    }

    // ---- the turn ----

    /// Ends every wait when this source becomes readable.
    pub(super) fn watch(&self, source: &mut dyn ExternalSource) -> io::Result<()> {
        self.reactor.watch(source)
    }

    /// Waits for readiness, for this long at most.
    #[inline]
    pub(super) fn wait(&mut self, nanoseconds: u64) -> io::Result<()> {
        // The result names an expired timer or a waker; neither carries anything but the wakeup.
        let _ = self.reactor.wait(Some(Duration::from_nanos(nanoseconds)))?;
        Ok(())
    }

    /// The next socket that is ready in this turn.
    #[inline]
    pub(super) fn next_ready(&mut self) -> Option<(Key, Readiness)> {
        self.reactor.next_ready()
    }

    /// The moment up to which all that has come was also reported to this loop. Timeouts are judged by it, and not by the
    /// clock: after a stop of this process the answers that came in time are still in the sockets, more of them than one
    /// turn reads.
    pub(super) fn reported_until(&self, now: u64) -> u64 {
        now.saturating_sub(nanoseconds(self.reactor.unreported_for()))
    }

    /// Handles the readiness of a socket.
    #[inline]
    pub(super) fn on_ready(
        &mut self,
        key: Key,
        readiness: Readiness,
        context: &mut WorkerContext,
    ) -> Outcome {
        const NOTHING: Outcome = Outcome::Step(Step::Nothing);
        let Some(ClientSource { socket, state, .. }) = self.reactor.begin_event(key, readiness)
        else {
            return NOTHING;
        };
        let (step, blocked) = match (socket, state) {
            (ClientSocket::Stream(stream), Client::Stream(client)) => {
                if client.is_connecting() {
                    self.on_connected(key, context);
                    return NOTHING;
                }
                let before = client.is_blocked();
                let step = client.advance(stream, readiness, context);
                let blocked = client.is_blocked();
                (step, (blocked != before).then_some(blocked))
            }
            (ClientSocket::Datagrams(socket), Client::Datagram(client)) => {
                let before = client.is_blocked();
                let step = client.advance(socket, context);
                let blocked = client.is_blocked();
                (step, (blocked != before).then_some(blocked))
            }
            (_, &mut Client::Bad(place)) => return Outcome::Bad(place),
            _ => return NOTHING,
        };
        match step {
            Ok(step) => {
                if let Some(blocked) = blocked {
                    self.want(key, blocked, context);
                }
                Outcome::Step(step)
            }
            Err(fault) => {
                self.end(key, &fault, context);
                NOTHING
            }
        }
    }

    // ---- opening ----

    /// Opens as many connections as may be opened at the same time.
    pub(super) fn open_some(&mut self, context: &mut WorkerContext) {
        while let Some(place) = self.connector.next_place(context.now()) {
            if self.connector.is_churn() && !context.may_plan() {
                return;
            }
            match self.open_one(self.plan.first_number + place, context) {
                Ok(key) => {
                    self.connector.begun(place, key);
                    self.prove(key, context);
                }
                // The accept queue of a Unix listener is full.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.connector.postponed(place);
                }
                Err(error) => self.note_failure(place, &error.into(), context),
            }
        }
    }

    fn open_one(&mut self, number: u32, context: &mut WorkerContext) -> io::Result<Key> {
        let since = context.read_clock();
        let socket = ClientSocket::connect(self.plan.target(number), &self.plan.options(number))?;
        let (state, interest) = Client::new(&socket, number, context.origin(number), since);
        self.register(socket, state, self.plan.trigger, interest)
    }

    /// Connects a socket for a badly behaved client; its first event, when it is writable, starts the client.
    pub(super) fn connect_bad_client(&mut self, place: u32) -> io::Result<Key> {
        let number = self.bad_number(place);
        let socket = ClientSocket::connect(self.plan.target(number), &self.plan.options(number))?;
        // Most of them do not read what they are told of.
        self.register(socket, Client::Bad(place), Trigger::Edge, Interest::Write)
    }

    /// The number of a badly behaved client: they follow behind the connections.
    fn bad_number(&self, place: u32) -> u32 {
        self.plan.connections as u32 + place
    }

    fn register(
        &mut self,
        socket: ClientSocket,
        state: Client,
        trigger: Trigger,
        interest: Interest,
    ) -> io::Result<Key> {
        let source = ClientSource {
            socket,
            state,
            trigger,
        };
        let registration = Registration {
            interest,
            class: TimeoutClass::NEVER,
        };
        self.reactor
            .add(source, registration)
            .map_err(|(_, error)| error)
    }

    /// Sends the first request, on a socket that needs no handshake or has made it.
    fn prove(&mut self, key: Key, context: &mut WorkerContext) {
        let Some(ClientSource { socket, state, .. }) = self.reactor.get_mut(key) else {
            return;
        };
        if matches!(state, Client::Stream(client) if client.is_connecting()) {
            return;
        }
        let sent = state.prove(socket, context);
        let blocked = state.is_blocked();
        match sent {
            Ok(()) if blocked => self.want(key, true, context),
            Ok(()) => {}
            Err(fault) => self.end(key, &fault, context),
        }
    }

    /// A connecting socket has become writable: it is connected, or its error is known.
    fn on_connected(&mut self, key: Key, context: &mut WorkerContext) {
        let Some(ClientSource {
            socket,
            state: Client::Stream(client),
            ..
        }) = self.reactor.get_mut(key)
        else {
            return;
        };
        let confirmed = socket.confirm(self.plan.target(client.tally().number()));
        let ClientSocket::Stream(stream) = socket else {
            return;
        };
        let sent = confirmed
            .map_err(Fault::from)
            .and_then(|()| client.connected(stream, context));
        let blocked = client.is_blocked();
        match sent {
            Ok(()) => self.want(key, blocked, context),
            Err(fault) => self.end(key, &fault, context),
        }
    }

    /// The error with which a badly behaved client's connecting has ended, if it has. Its PROXY header, if there is one, is
    /// as it should be: a client behaves badly, and not the load balancer in front of it.
    pub(super) fn confirm_bad_client(&mut self, key: Key, place: u32) -> io::Result<()> {
        let target = self.plan.target(self.bad_number(place));
        let Some(source) = self.reactor.get_mut(key) else {
            return Ok(());
        };
        source.socket.confirm(target)?;
        match (self.plan.proxy, &mut source.socket) {
            (Some(version), ClientSocket::Stream(stream)) => send_proxy_header(stream, version),
            _ => Ok(()),
        }
    }

    /// A badly behaved client could not connect. Only that is a fault: a server may close such a client, but it has to
    /// accept it.
    pub(super) fn bad_client_failed(
        &self,
        place: u32,
        error: io::Error,
        context: &mut WorkerContext,
    ) {
        let target = self.plan.target(self.bad_number(place));
        let name = || format!("bad client {place} to {target}");
        context.recorder().note_fault(&Fault::from(error), name);
    }

    /// The first echo of a connection has come.
    pub(super) fn on_proved(&mut self, key: Key, context: &mut WorkerContext) {
        context.recorder().counters_mut().opened += 1;
        let Mode::Churn { reset } = self.plan.mode else {
            if let Some(place) = self.place(key) {
                self.connector.proved(place);
            }
            return;
        };
        let Some(ClientSource { socket, state, .. }) = self.reactor.close(key) else {
            return;
        };
        let now = context.now();
        context.recorder().counters_mut().cycles += 1;
        // TCP sends a segment again after a fifth of a second at least (RFC 6298, with Linux' shortest timeout).
        let slow = |tally: &Tally| tally.longest_gap(now) > SLOW_CYCLE;
        if state.tally().is_some_and(slow) {
            context.recorder().note_resent(resent(&socket));
        }
        if let (true, ClientSocket::Stream(stream)) = (reset, &socket) {
            stream.reset_on_close();
        }
        if let Some(tally) = state.tally() {
            let place = tally.number() - self.plan.first_number;
            self.connector.cycled(place, now);
        }
    }

    /// The place of a connection.
    fn place(&mut self, key: Key) -> Option<u32> {
        let tally = self.reactor.get_mut(key)?.state.tally()?;
        Some(tally.number() - self.plan.first_number)
    }

    // ---- sending ----

    /// Sends as many requests as may be under way on a connection.
    pub(super) fn start(&mut self, key: Key, context: &mut WorkerContext) {
        let depth = self.plan.depth;
        self.with_client(key, context, |client, socket, context| {
            client.start(socket, depth, context)
        });
    }

    /// Sends a request.
    pub(super) fn send(&mut self, key: Key, request: Request, context: &mut WorkerContext) {
        self.with_client(key, context, |client, socket, context| {
            client.send(socket, request, context)
        });
    }

    /// Lets a connection send, and waits for room to write if there was too little.
    fn with_client(
        &mut self,
        key: Key,
        context: &mut WorkerContext,
        act: impl FnOnce(&mut Client, &mut ClientSocket, &mut WorkerContext) -> Result<(), Fault>,
    ) {
        let Some(ClientSource { socket, state, .. }) = self.reactor.get_mut(key) else {
            return;
        };
        let before = state.is_blocked();
        let sent = act(state, socket, context);
        let blocked = state.is_blocked();
        match sent {
            Ok(()) if blocked != before => self.want(key, blocked, context),
            Ok(()) => {}
            Err(fault) => self.end(key, &fault, context),
        }
    }

    /// The place of a connection that sends requests, if it may take another one.
    pub(super) fn free_place(&mut self, key: Key) -> Option<u32> {
        let state = &self.reactor.get_mut(key)?.state;
        let is_free = state.in_flight() < self.plan.depth;
        let place = state.tally()?.number() - self.plan.first_number;
        (is_free && self.connector.is_active(place)).then_some(place)
    }

    pub(super) fn is_alive(&mut self, key: Key) -> bool {
        self.reactor.get_mut(key).is_some()
    }

    /// The stream of a socket, for a badly behaved client. Targets without streams were refused in `preflight`.
    pub(super) fn stream(&mut self, key: Key) -> Option<&mut StreamSocket> {
        match &mut self.reactor.get_mut(key)?.socket {
            ClientSocket::Stream(stream) => Some(stream),
            ClientSocket::Datagrams(_) => None,
        }
    }

    /// Registers a socket for writing if it has unsent bytes, and for reading otherwise.
    pub(super) fn want(&mut self, key: Key, blocked: bool, context: &mut WorkerContext) {
        let interest = match blocked {
            true => Interest::Write,
            false => Interest::Read,
        };
        let registration = Registration {
            interest,
            class: TimeoutClass::NEVER,
        };
        if let Err(error) = self.reactor.set_registration(key, registration) {
            self.end(key, &error.into(), context);
        }
    }

    // ---- timeouts ----

    /// Ends a connection that has waited for as long as the timeout at this moment, and gives up its datagrams. Returns
    /// how many were given up.
    pub(super) fn check_timeout(
        &mut self,
        key: Key,
        moment: u64,
        context: &mut WorkerContext,
    ) -> usize {
        let timeout = nanoseconds(self.plan.timeout);
        match self.reactor.get_mut(key).map(|source| &mut source.state) {
            Some(Client::Stream(client)) => {
                let limit = moment.saturating_sub(timeout);
                if client.waiting_since().is_some_and(|since| since <= limit) {
                    let fault = client.timed_out(self.plan.size, self.plan.timeout);
                    self.end(key, &fault, context);
                }
                0
            }
            Some(Client::Datagram(client)) => {
                // The first one may get lost, and all of its repetitions have one timeout together.
                let allowed = match client.is_ready() {
                    true => timeout,
                    false => timeout / u64::from(PROOFS),
                };
                client.give_up(moment.saturating_sub(allowed), context)
            }
            _ => 0,
        }
    }

    /// Datagrams of a connection were given up: ends it, or sends the first one again, if one of these is due. Returns
    /// whether others may be sent in their place.
    pub(super) fn goes_on_after_loss(&mut self, key: Key, context: &mut WorkerContext) -> bool {
        let Some(Client::Datagram(client)) = self.reactor.get_mut(key).map(|source| &source.state)
        else {
            return false;
        };
        let timeout = self.plan.timeout;
        if client.is_hopeless() {
            let text = format!("no answer to several datagrams, {timeout:?} each");
            self.end(key, &Fault::new(FaultKind::Timeout, text), context);
            return false;
        }
        if !client.is_ready() {
            self.prove(key, context);
            return false;
        }
        // A run that ends by its number of requests would go on for as many timeouts.
        let most = u64::from(PROOFS) * nanoseconds(timeout);
        if self.plan.requests.is_some() && client.tally().silence(context.now()) >= most {
            let text = format!("no answer for {PROOFS} timeouts, {timeout:?} each");
            self.end(key, &Fault::new(FaultKind::Timeout, text), context);
            return false;
        }
        true
    }

    // ---- the end of a connection ----

    /// Closes a socket without a fault.
    pub(super) fn close(&mut self, key: Key) {
        drop(self.reactor.close(key));
    }

    /// Closes a socket by a reset.
    pub(super) fn reset(&mut self, key: Key) {
        if let Some(source) = self.reactor.close(key) {
            if let ClientSocket::Stream(stream) = &source.socket {
                stream.reset_on_close();
            }
        }
    }

    /// Closes a connection after a fault. Its requests in flight are lost.
    pub(super) fn end(&mut self, key: Key, fault: &Fault, context: &mut WorkerContext) {
        let Some(ClientSource { socket, state, .. }) = self.reactor.close(key) else {
            return;
        };
        context.recorder().counters_mut().lost += state.in_flight() as u64;
        context.recorder().note_resent(resent(&socket));
        let (is_ready, by_timeout) = (state.is_ready(), fault.kind() == FaultKind::Timeout);
        // The first request of a connection proves it, and belongs to the load in a churn alone.
        if by_timeout && (is_ready || self.connector.is_churn()) {
            state.count_unanswered(context);
        }
        if let ClientSocket::Stream(stream) = &socket {
            stream.reset_on_close(); // unread bytes are of no use any more
        }
        let Some(tally) = state.tally() else {
            return;
        };
        let place = tally.number() - self.plan.first_number;
        match is_ready {
            true => self.connector.broken(place, *tally),
            false => self.connector.not_proved(place, by_timeout),
        }
        self.note_failure(place, fault, context);
        let by_count = self.plan.requests.is_some();
        let untried = self.connector.give_up_if_hopeless(!is_ready, by_count);
        context.recorder().counters_mut().untried += untried;
    }

    fn note_failure(&mut self, place: u32, fault: &Fault, context: &mut WorkerContext) {
        let number = self.plan.first_number + place;
        let target = self.plan.target(number);
        let name = || format!("connection {number} to {target}");
        context.recorder().note_fault(fault, name);
        context.recorder().counters_mut().failed += 1;
        self.connector.reopen_in_churn(place);
    }

    /// Sends FIN. Returns whether the server's FIN is to be awaited.
    pub(super) fn send_fin(&mut self, key: Key) -> bool {
        match self.reactor.get_mut(key) {
            Some(ClientSource {
                socket: ClientSocket::Stream(stream),
                state: Client::Stream(_),
                ..
            }) if stream.shutdown_write().is_ok() => true,
            _ => {
                self.close(key);
                false
            }
        }
    }

    /// Closes a ready connection if the server has sent FIN, or the connection is broken, and returns whether it has.
    /// Bytes before that are discarded.
    pub(super) fn close_at_fin(
        &mut self,
        key: Key,
        readiness: Readiness,
        context: &mut WorkerContext,
    ) -> bool {
        let source = self.reactor.begin_event(key, readiness);
        let Some(ClientSocket::Stream(stream)) = source.map(|source| &mut source.socket) else {
            return false;
        };
        loop {
            match stream.read(context.read_buffer_mut()) {
                Ok(1..) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
            }
        }
        self.close(key);
        true
    }

    // ---- the window, and the end of the run ----

    /// Forgets what the connections have done so far: the window begins.
    pub(super) fn reset_tallies(&mut self, now: u64) {
        for key in self.reactor.keys() {
            let source = self.reactor.get_mut(key);
            if let Some(tally) = source.and_then(|source| source.state.tally_mut()) {
                tally.reset(now);
            }
        }
        self.connector.reset_tallies(now);
    }

    /// Checks every connection for bytes that were not asked for.
    pub(super) fn check_for_extra_bytes(&mut self, context: &mut WorkerContext) {
        for key in self.connector.keys() {
            let Some(ClientSource { socket, state, .. }) = self.reactor.get_mut(key) else {
                continue;
            };
            if let (ClientSocket::Stream(stream), Client::Stream(client)) = (socket, state) {
                if client.in_flight() > 0 {
                    continue;
                }
                if let Err(fault) = client.check_for_extra_bytes(stream, context) {
                    self.end(key, &fault, context);
                }
            }
        }
    }

    /// Counts what is still under way, and how evenly the connections fared in the window that ended at `ended_at`: those
    /// that broke, or never came about, have had a share, too.
    pub(super) fn account(&mut self, ended_at: u64, context: &mut WorkerContext) -> Fairness {
        let is_churn = self.connector.is_churn();
        let mut fairness = self.connector.take_fairness(ended_at);
        for place in 0..self.connector.len() {
            let key = self.connector.key(place);
            let tally = match key.and_then(|key| self.reactor.get_mut(key)) {
                Some(ClientSource { socket, state, .. }) => {
                    context.recorder().note_resent(resent(socket));
                    state.count_awaited(is_churn, context);
                    state.tally().copied()
                }
                None => self.connector.ended(place),
            };
            if !is_churn && self.connector.is_active(place as u32) {
                match tally {
                    Some(tally) => fairness.note(tally.echoes(), tally.longest_gap(ended_at)),
                    None => {
                        let window = ended_at.saturating_sub(context.record().window().0);
                        fairness.note(0, window);
                    }
                }
            }
        }
        if fairness.connections > 0 {
            // What was awaited at the end of the window is a gap that went on behind it.
            let longest = context.record().longest_unanswered();
            fairness.longest_gap = fairness.longest_gap.max(longest);
        }
        fairness
    }
}
