//! Opening connections, and reopening them after they have ended.
//!
//! A connection is open once an echo has come back over it: a handshake alone is answered by the kernel. The number
//! of connections that are being opened has a bound; ten thousand connects at once would measure the length of the
//! server's accept queue.

use super::datagram::DatagramClient;
use super::finish::resent;
use super::in_flight::Tally;
use super::metrics::{Fairness, Fault, FaultKind};
use super::stream::StreamClient;
use super::worker::{Client, Worker};
use super::{Message, Mode, Plan};
use crate::net::Stream;
use crate::net::connect::{ClientSocket, ClientSource, ConnectOptions};
use crate::net::{Endpoint, StreamSocket};
use crate::reactor::{Interest, Key, Registration, TimeoutClass};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};

/// Nanoseconds after which a connection of a churn is asked for the segments that TCP has sent again on it.
const SLOW_CYCLE: u64 = 100_000_000;

/// The connections by number, and which of them are to be opened next.
#[derive(Debug)]
pub(super) struct Connector {
    places: Vec<Option<Key>>,
    active: usize,
    /// The next number that was not used yet, and numbers to be reopened: at once, and at the next tick.
    next: usize,
    again: Vec<u32>,
    later: Vec<u32>,
    /// Connections that are being opened, and are not proved yet.
    pending: usize,
    pending_max: usize,
    /// Connections that are proved.
    pub(super) open: usize,
    /// The next power of ten of them that is reported, and the number in the last report.
    tell_at: usize,
    told: usize,
    /// Nanoseconds between two connects.
    spacing: u64,
    churn: bool,
    stopped: bool,
    /// What each connection of a churn has done.
    tallies: Vec<Tally>,
    /// What closed connections have done, where they are not reopened.
    ended: BTreeMap<u32, Tally>,
    /// Proved connections among those that send requests.
    open_active: usize,
    /// Connections without an answer to their first request within the timeout; in a churn, since the last answer.
    timeouts: usize,
    /// Whether a churn that ends by its number of requests is given up, since nothing answers.
    given_up: bool,
}

impl Connector {
    pub(super) fn new(plan: &Plan) -> Self {
        let churn = matches!(plan.mode, Mode::Churn { .. });
        let spacing = plan.ramp_up.as_nanos() as u64 / plan.connections.max(1) as u64;
        Self {
            places: vec![None; plan.connections],
            active: plan.active,
            next: 0,
            again: Vec::new(),
            later: Vec::new(),
            pending: 0,
            pending_max: plan.connect_concurrency.max(1),
            open: 0,
            tell_at: 10,
            told: 0,
            spacing,
            churn: false,
            stopped: churn,
            tallies: if churn {
                (0..plan.connections as u32)
                    .map(|place| Tally::new(place, 0))
                    .collect()
            } else {
                Vec::new()
            },
            ended: BTreeMap::new(),
            open_active: 0,
            timeouts: 0,
            given_up: false,
        }
    }

    /// From now on every connection is reopened as soon as it has ended.
    pub(super) fn churn(&mut self) {
        (self.churn, self.stopped) = (true, false);
        self.pending_max = self.places.len();
    }

    /// Opens no more connections.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether every connection was opened, or has failed to.
    pub(super) fn is_over(&self) -> bool {
        self.next == self.places.len()
            && self.pending == 0
            && self.again.is_empty()
            && self.later.is_empty()
    }

    /// Whether no connection is left that could send, and none will be opened. Without sending connections that means
    /// nothing.
    pub(super) fn is_hopeless(&self) -> bool {
        self.given_up || !self.churn && self.active > 0 && self.open_active == 0
    }

    pub(super) fn is_churn(&self) -> bool {
        self.churn
    }

    /// Connections that are being opened, and are not proved yet.
    pub(super) fn pending(&self) -> usize {
        self.pending
    }

    /// Whether opening is to stop: nothing has answered at all, or as many connections had no answer as may be opened
    /// at the same time. Each further attempt would take another timeout.
    fn must_give_up(&self) -> bool {
        let all = self.pending_max.min(self.places.len());
        let nothing_answers = self.timeouts > 0 && self.open == 0 && !self.churn;
        nothing_answers || self.timeouts >= all
    }

    /// Tries no more connections. Returns how many were never tried.
    fn give_up(&mut self) -> u64 {
        let untried = self.places.len() - self.next + self.again.len() + self.later.len();
        self.next = self.places.len();
        self.again.clear();
        self.later.clear();
        untried as u64
    }

    /// What a closed connection has done.
    pub(super) fn ended(&self, place: usize) -> Option<Tally> {
        self.ended.get(&(place as u32)).copied()
    }

    pub(super) fn has_work(&self) -> bool {
        !self.stopped
            && self.pending < self.pending_max
            && (self.next < self.places.len() || !self.again.is_empty())
    }

    pub(super) fn retry(&mut self) {
        self.again.append(&mut self.later);
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn key(&self, place: usize) -> Option<Key> {
        self.places[place]
    }

    /// The open connections, with their numbers.
    pub(super) fn keys(&self) -> Vec<(usize, Key)> {
        let places = self.places.iter().enumerate();
        places
            .filter_map(|(place, key)| Some((place, (*key)?)))
            .collect()
    }

    /// The connections that send requests.
    pub(super) fn active(&self) -> Vec<Key> {
        self.places[..self.active]
            .iter()
            .flatten()
            .copied()
            .collect()
    }

    /// How evenly the connections of a churn were served.
    pub(super) fn take_fairness(&mut self, now: u64) -> Fairness {
        let mut fairness = Fairness::default();
        for tally in self.tallies.drain(..) {
            fairness.note(tally.echoes, tally.longest_gap(now));
        }
        fairness
    }

    /// Forgets what was done so far.
    pub(super) fn reset_tallies(&mut self, now: u64) {
        let all = self.tallies.iter_mut().chain(self.ended.values_mut());
        all.for_each(|tally| tally.reset(now));
    }

    /// The number of the next connection to open, if it is due.
    fn next_place(&mut self, now: u64) -> Option<u32> {
        if self.stopped || self.pending >= self.pending_max {
            return None;
        }
        if let Some(place) = self.again.pop() {
            return Some(place);
        }
        let due = self.next as u64 * self.spacing;
        (self.next < self.places.len() && due <= now).then(|| {
            self.next += 1;
            self.next as u32 - 1
        })
    }
}

impl Plan {
    /// The server of a connection.
    pub(super) fn target(&self, number: u32) -> &Endpoint {
        &self.targets[number as usize % self.targets.len()]
    }

    /// The local address of a connection. Targets change faster than sources, so that every pair comes up.
    pub(super) fn options(&self, number: u32) -> ConnectOptions {
        let turn = u64::from(number) / self.targets.len() as u64;
        ConnectOptions {
            source: self.sources.map(|sources| sources.nth(turn)),
            receive_buffer: None,
        }
    }
}

impl Worker<'_> {
    /// Opens as many connections as may be opened at the same time.
    pub(super) fn open_some(&mut self) {
        while let Some(place) = self.connector.next_place(self.context.now) {
            if self.connector.churn && !self.context.may_plan() {
                return;
            }
            let number = self.plan.first_number + place;
            match self.open_one(number) {
                Ok(key) => {
                    self.connector.places[place as usize] = Some(key);
                    self.connector.pending += 1;
                    self.begin(key);
                }
                // The accept queue of a Unix listener is full.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.connector.later.push(place);
                }
                Err(error) => self.not_opened(place, &error.into()),
            }
        }
    }

    fn open_one(&mut self, number: u32) -> io::Result<Key> {
        let endpoint = self.plan.target(number);
        let since = self.context.read_clock();
        let socket = ClientSocket::connect(endpoint, &self.plan.options(number))?;
        let origin = self.context.pattern.origin(u64::from(number));
        let (state, interest) = match &socket {
            ClientSocket::Stream(StreamSocket::Tcp(_)) => {
                let client = StreamClient::new(number, origin, since, true);
                (Client::Stream(client), Interest::Write)
            }
            ClientSocket::Stream(StreamSocket::Unix(_)) => {
                let client = StreamClient::new(number, origin, since, false);
                (Client::Stream(client), Interest::Read)
            }
            ClientSocket::Datagrams(_) => {
                let client = DatagramClient::new(number, origin, since);
                (Client::Datagram(client), Interest::Read)
            }
        };
        let trigger = self.plan.trigger;
        self.register(
            ClientSource {
                socket,
                state,
                trigger,
            },
            interest,
        )
    }

    pub(super) fn register(
        &mut self,
        outgoing: ClientSource<Client>,
        interest: Interest,
    ) -> io::Result<Key> {
        let want = Registration {
            interest,
            class: TimeoutClass::NEVER,
        };
        self.reactor.add(outgoing, want).map_err(|(_, error)| error)
    }

    /// Sends the first request on a socket that needs no handshake.
    fn begin(&mut self, key: Key) {
        let Some(ClientSource { socket, state, .. }) = self.reactor.get_mut(key) else {
            return;
        };
        let sent = match (socket, &mut *state) {
            (ClientSocket::Stream(stream), Client::Stream(client)) if !client.is_connecting() => {
                client.prove(stream, &mut self.context)
            }
            (ClientSocket::Datagrams(socket), Client::Datagram(client)) => {
                client.prove(socket, &mut self.context)
            }
            _ => return,
        };
        let blocked = state.is_blocked();
        match sent {
            Ok(()) if blocked => self.want(key, true),
            Ok(()) => {}
            Err(fault) => self.end(key, &fault),
        }
    }

    /// A connecting socket has become writable: it is connected, or its error is known.
    pub(super) fn on_connected(&mut self, key: Key) {
        let Some(ClientSource { socket, state, .. }) = self.reactor.get_mut(key) else {
            return;
        };
        let Client::Stream(client) = state else {
            return;
        };
        let confirmed = socket.confirm(self.plan.target(client.tally.number));
        let ClientSocket::Stream(stream) = socket else {
            return;
        };
        let sent = confirmed
            .map_err(Fault::from)
            .and_then(|()| client.connected(stream, &mut self.context));
        let blocked = client.is_blocked();
        match sent {
            Ok(()) => self.want(key, blocked),
            Err(fault) => self.end(key, &fault),
        }
    }

    pub(super) fn is_proved(&mut self, key: Key) -> bool {
        let outgoing = self.reactor.get_mut(key);
        outgoing.is_some_and(|outgoing| outgoing.state.is_ready())
    }

    /// The datagram that was to prove the server has had no answer.
    pub(super) fn prove_again(&mut self, key: Key) {
        match self.reactor.get_mut(key) {
            Some(ClientSource {
                state: Client::Datagram(client),
                ..
            }) if client.is_hopeless() => {
                let text = format!(
                    "no answer to several datagrams, {:?} each",
                    self.plan.timeout
                );
                self.end(key, &Fault::new(FaultKind::Timeout, text));
            }
            _ => self.begin(key),
        }
    }

    /// The first echo of a connection has come.
    pub(super) fn on_proved(&mut self, key: Key) {
        self.connector.pending -= 1;
        self.context.counters.opened += 1;
        let Mode::Churn { reset } = self.plan.mode else {
            self.connector.open += 1;
            self.connector.open_active += usize::from(self.is_active(key));
            if self.connector.open >= self.connector.tell_at {
                self.connector.tell_at *= 10;
                self.tell_opening();
            }
            return;
        };
        let Some(ClientSource {
            socket, mut state, ..
        }) = self.reactor.close(key)
        else {
            return;
        };
        self.context.counters.cycles += 1;
        self.connector.timeouts = 0;
        // TCP sends a segment again after a fifth of a second at least (RFC 6298, with Linux' shortest timeout).
        let slow = |tally: &mut Tally| tally.longest_gap(self.context.now) > SLOW_CYCLE;
        if state.tally().is_some_and(slow) {
            self.context.resent.note(resent(&socket));
        }
        if let (true, ClientSocket::Stream(stream)) = (reset, &socket) {
            stream.reset_on_close();
        }
        if let Some(tally) = state.tally() {
            let place = tally.number - self.plan.first_number;
            self.connector.places[place as usize] = None;
            self.connector.tallies[place as usize].count(self.context.now);
            self.connector.again.push(place);
        }
    }

    fn is_active(&mut self, key: Key) -> bool {
        let state = self
            .reactor
            .get_mut(key)
            .map(|outgoing| &mut outgoing.state);
        let number = state.and_then(Client::tally).map(|tally| tally.number);
        number.is_some_and(|number| self.is_active_number(number))
    }

    fn is_active_number(&self, number: u32) -> bool {
        ((number - self.plan.first_number) as usize) < self.plan.active
    }

    /// Reports how many connections are open, if the number has grown.
    pub(super) fn tell_opening(&mut self) {
        if self.connector.open > self.connector.told && !self.connector.is_over() {
            self.connector.told = self.connector.open;
            let message = Message::Opening(self.connector.open as u64);
            self.channel.tell(&message);
        }
    }

    /// Forgets a connection that a fault has closed.
    pub(super) fn connection_failed(&mut self, mut state: Client, fault: &Fault) {
        let ready = state.is_ready();
        let Some(tally) = state.tally() else {
            return;
        };
        let (number, tally) = (tally.number, *tally);
        let place = number - self.plan.first_number;
        self.connector.places[place as usize] = None;
        if ready {
            self.connector.open -= 1;
            self.connector.open_active -= usize::from(self.is_active_number(number));
            self.connector.ended.insert(place, tally);
        } else {
            self.connector.pending -= 1;
            self.connector.timeouts += usize::from(fault.kind == FaultKind::Timeout);
        }
        self.not_opened(place, fault);
        let by_count = self.plan.requests.is_some();
        match self.connector.must_give_up() {
            true if self.connector.churn => self.connector.given_up = by_count,
            true if !ready => self.context.counters.untried += self.connector.give_up(),
            _ => {}
        }
    }

    fn not_opened(&mut self, place: u32, fault: &Fault) {
        let number = self.plan.first_number + place;
        let target = self.plan.target(number);
        self.context
            .faults
            .note(fault, || format!("connection {number} to {target}"));
        self.context.counters.failed += 1;
        if self.connector.churn {
            self.connector.later.push(place);
        }
    }
}

impl Client {
    pub(super) fn tally(&mut self) -> Option<&mut Tally> {
        match self {
            Self::Stream(client) => Some(&mut client.tally),
            Self::Datagram(client) => Some(&mut client.tally),
            Self::Bad(_) => None,
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        match self {
            Self::Stream(client) => client.in_flight(),
            Self::Datagram(client) => client.in_flight(),
            Self::Bad(_) => 0,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        match self {
            Self::Stream(client) => client.is_ready(),
            Self::Datagram(client) => client.is_ready(),
            Self::Bad(_) => false,
        }
    }

    pub(super) fn is_blocked(&self) -> bool {
        match self {
            Self::Stream(client) => client.is_blocked(),
            Self::Datagram(client) => client.is_blocked(),
            Self::Bad(_) => false,
        }
    }
}
