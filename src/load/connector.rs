//! Which connection is opened next, and which are open.
//!
//! A connection is open once an echo has come back over it: a handshake alone is answered by the kernel. The number of
//! connections that are being opened has a bound; ten thousand connects at once would measure the length of the server's
//! accept queue. The sockets themselves are in [`connections`](super::connections).

use super::in_flight::Tally;
use super::message::{ControlChannel, Message};
use super::metrics::Fairness;
use super::plan::{Mode, Plan};
use crate::reactor::Key;
use std::collections::BTreeMap;

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
    open: usize,
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
    /// The place at which the search for expired timeouts goes on.
    cursor: usize,
}

impl Connector {
    pub(super) fn new(plan: &Plan) -> Self {
        let churn = matches!(plan.mode, Mode::Churn { .. });
        let spacing = plan.ramp_up.as_nanos() as u64 / plan.connections.max(1) as u64;
        let tallies = match churn {
            true => plan.connections as u32,
            false => 0,
        };
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
            tallies: (0..tallies).map(|place| Tally::new(place, 0)).collect(),
            ended: BTreeMap::new(),
            open_active: 0,
            timeouts: 0,
            given_up: false,
            cursor: 0,
        }
    }

    // ---- what is to be done ----

    /// From now on every connection is reopened as soon as it has ended.
    pub(super) fn churn(&mut self) {
        (self.churn, self.stopped) = (true, false);
        self.pending_max = self.places.len();
    }

    /// Opens no more connections.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    pub(super) fn has_work(&self) -> bool {
        !self.stopped
            && self.pending < self.pending_max
            && (self.next < self.places.len() || !self.again.is_empty())
    }

    /// The number of the next connection to open, if it is due.
    pub(super) fn next_place(&mut self, now: u64) -> Option<u32> {
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

    /// Connections that could not be opened just now may be tried again.
    pub(super) fn retry(&mut self) {
        self.again.append(&mut self.later);
    }

    // ---- what has happened ----

    /// A connection is being opened.
    pub(super) fn begun(&mut self, place: u32, key: Key) {
        self.places[place as usize] = Some(key);
        self.pending += 1;
    }

    /// A connection could not be opened just now, for want of room at the server.
    pub(super) fn postponed(&mut self, place: u32) {
        self.later.push(place);
    }

    /// A connection has had its first echo.
    pub(super) fn proved(&mut self, place: u32) {
        self.pending -= 1;
        self.open += 1;
        self.open_active += usize::from(self.is_active(place));
    }

    /// A connection of a churn has had its echo, and is closed.
    pub(super) fn cycled(&mut self, place: u32, now: u64) {
        self.pending -= 1;
        self.timeouts = 0;
        self.places[place as usize] = None;
        self.tallies[place as usize].count(now);
        self.again.push(place);
    }

    /// An open connection has ended by a fault.
    pub(super) fn broken(&mut self, place: u32, tally: Tally) {
        self.places[place as usize] = None;
        self.open -= 1;
        self.open_active -= usize::from(self.is_active(place));
        self.ended.insert(place, tally);
    }

    /// A connection that was being opened has ended by a fault.
    pub(super) fn not_proved(&mut self, place: u32, by_timeout: bool) {
        self.places[place as usize] = None;
        self.pending -= 1;
        self.timeouts += usize::from(by_timeout);
    }

    /// A connection is closed, and is reopened later if it is one of a churn.
    pub(super) fn reopen_in_churn(&mut self, place: u32) {
        if self.churn {
            self.later.push(place);
        }
    }

    /// Gives up if nothing has answered at all, or if as many connections had no answer as may be opened at the same time:
    /// each further attempt would take another timeout. Returns how many were never tried. `was_opening` tells whether
    /// the last fault was that of a connection that was being opened, and `by_count` whether the run ends by its number of
    /// requests.
    pub(super) fn give_up_if_hopeless(&mut self, was_opening: bool, by_count: bool) -> u64 {
        let all = self.pending_max.min(self.places.len());
        let nothing_answers = self.timeouts > 0 && self.open == 0 && !self.churn;
        if !nothing_answers && self.timeouts < all {
            return 0;
        }
        if self.churn {
            self.given_up = by_count;
            return 0;
        }
        if !was_opening {
            return 0;
        }
        let untried = self.places.len() - self.next + self.again.len() + self.later.len();
        self.next = self.places.len();
        self.again.clear();
        self.later.clear();
        untried as u64
    }

    /// Reports how many connections are open, at every power of ten.
    pub(super) fn tell_powers_of_ten(&mut self, channel: &mut dyn ControlChannel) {
        if self.open >= self.tell_at {
            self.tell_at *= 10;
            self.tell(channel);
        }
    }

    /// Reports how many connections are open, if the number has grown.
    pub(super) fn tell(&mut self, channel: &mut dyn ControlChannel) {
        if self.open > self.told && !self.is_over() {
            self.told = self.open;
            channel.tell(&Message::Opening(self.open as u64));
        }
    }

    // ---- what there is ----

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

    /// Connections that are proved.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Whether the connection of a place sends requests.
    pub(super) fn is_active(&self, place: u32) -> bool {
        (place as usize) < self.active
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn key(&self, place: usize) -> Option<Key> {
        self.places[place]
    }

    /// The keys of the open connections.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.places.iter().flatten().copied().collect()
    }

    /// The keys of the connections that send requests.
    pub(super) fn active(&self) -> Vec<Key> {
        let active = self.places[..self.active].iter();
        active.flatten().copied().collect()
    }

    /// The next place of an endless round through all of them, and its key.
    pub(super) fn next_to_check(&mut self) -> Option<Key> {
        self.cursor = (self.cursor + 1) % self.places.len();
        self.places[self.cursor]
    }

    /// What a closed connection has done.
    pub(super) fn ended(&self, place: usize) -> Option<Tally> {
        self.ended.get(&(place as u32)).copied()
    }

    /// How evenly the connections of a churn were served.
    pub(super) fn take_fairness(&mut self, now: u64) -> Fairness {
        let mut fairness = Fairness::default();
        for tally in self.tallies.drain(..) {
            fairness.note(tally.echoes(), tally.longest_gap(now));
        }
        fairness
    }

    /// Forgets what was done so far.
    pub(super) fn reset_tallies(&mut self, now: u64) {
        let all = self.tallies.iter_mut().chain(self.ended.values_mut());
        all.for_each(|tally| tally.reset(now));
    }
}
