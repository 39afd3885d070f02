//! Bad company: clients beside the load that no server likes, and every server meets.
//!
//! They send and end as badly behaved clients do, so that one sees what the good ones feel of it. What may live in this
//! file: how each kind behaves, and when it comes again. What may not: the load itself; nothing that they send is among
//! its requests, and nothing of theirs is among its latencies.
//!
//! All of them are looked after in the tick, and each acts at a moment of its own: a thousand that acted at once would
//! hold up the good ones here, in the generator, and be taken for a fault of the server.

use super::in_flight::WorkerContext;
use super::metrics::Fault;
use super::worker::{Client, READ_BUFFER_BYTES, TICK, Worker, nanoseconds};
use crate::net::connect::{ClientSocket, ClientSource, Trigger};
use crate::net::{Stream, StreamSocket};
use crate::reactor::{Interest, Key};
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

/// How often a dribbler sends its byte, and how long any of them stays away after it has been cut off.
const DRIBBLE: u64 = Duration::from_secs(1).as_nanos() as u64;

/// How many there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BadClients {
    /// Send without end and never read.
    pub slow_readers: usize,
    /// Connect, send a request, and reset at once; and again, up to fifty times a second each.
    pub resetters: usize,
    /// Send a byte a second and never end, as slowloris does; what comes back they read.
    pub dribblers: usize,
    /// Connect, send a request, say FIN, and read to the end; and again, up to fifty times a second each.
    pub half_closers: usize,
}

/// What one of them does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behavior {
    SlowReader,
    Resetter,
    Dribbler,
    HalfCloser,
}

/// One of them, whether it is connected or not.
#[derive(Debug)]
pub(super) struct BadClient {
    habit: Behavior,
    key: Option<Key>,
    /// When it acts next: comes again, sends its byte, or gives its echo up.
    due: u64,
    connected: bool,
    sent: u64,
    back: u64,
}

impl BadClients {
    /// All of them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slow_readers + self.resetters + self.dribblers + self.half_closers
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many there are of each kind, by name.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, usize); 4] {
        [
            ("slow_readers", self.slow_readers),
            ("resetters", self.resetters),
            ("dribblers", self.dribblers),
            ("half_closers", self.half_closers),
        ]
    }

    /// What each kind becomes when its number does.
    #[must_use]
    pub fn map(&self, mut number: impl FnMut(usize) -> usize) -> Self {
        Self {
            slow_readers: number(self.slow_readers),
            resetters: number(self.resetters),
            dribblers: number(self.dribblers),
            half_closers: number(self.half_closers),
        }
    }

    /// All of them, to come one after another: fifty a second, or all within the second after `now`.
    pub(super) fn gather(&self, now: u64) -> Vec<BadClient> {
        let habits = [
            (Behavior::SlowReader, self.slow_readers),
            (Behavior::Resetter, self.resetters),
            (Behavior::Dribbler, self.dribblers),
            (Behavior::HalfCloser, self.half_closers),
        ];
        let mut members = Vec::with_capacity(self.len());
        for (habit, count) in habits {
            let within = DRIBBLE.min(TICK * count as u64);
            members.extend((0..count).map(|place| BadClient {
                habit,
                key: None,
                due: now + within * place as u64 / count as u64,
                connected: false,
                sent: 0,
                back: 0,
            }));
        }
        members
    }
}

/// What became of one that has done what it could.
enum Went {
    /// It waits for the socket, or for its time.
    On,
    /// It is through, as it wished.
    Through,
    /// The server has cut it off, or has cut its echo.
    Cut,
}

impl Worker<'_> {
    /// Those whose time has come act. To be called in the tick.
    pub(super) fn keep_company(&mut self, now: u64) {
        for place in 0..self.company.len() {
            if self.company[place].due > now {
                continue;
            }
            let key = self.company[place].key;
            let is_here = key.is_some_and(|key| self.reactor.get_mut(key).is_some());
            match self.company[place].habit {
                _ if !is_here => self.come(place, now),
                Behavior::Dribbler => {
                    self.company[place].due = now + DRIBBLE;
                    self.dribble(place);
                }
                // Its echo has not ended in time.
                Behavior::HalfCloser => self.leave(place, &Went::Cut),
                Behavior::SlowReader | Behavior::Resetter => self.company[place].due = u64::MAX,
            }
        }
    }

    /// They leave with the end of the window; what they do afterwards would show nobody anything.
    pub(super) fn dismiss_company(&mut self) {
        for member in self.company.drain(..) {
            if let Some(outgoing) = member.key.and_then(|key| self.reactor.close(key)) {
                abort(&outgoing.socket);
            }
        }
    }

    fn come(&mut self, place: usize, now: u64) {
        let number = (self.plan.connections + place) as u32;
        let target = self.plan.target(number);
        let options = self.plan.options(number);
        let member = &mut self.company[place];
        let again = match member.habit {
            Behavior::HalfCloser => nanoseconds(self.plan.timeout),
            _ => DRIBBLE,
        };
        (member.due, member.connected) = (now + again, false);
        (member.sent, member.back) = (0, 0);
        let state = Client::Bad(place as u32);
        let registered = ClientSocket::connect(target, &options)
            // The first event, as soon as it is writable, sets it going.
            .and_then(|socket| {
                let outgoing = ClientSource {
                    socket,
                    state,
                    trigger: Trigger::Edge, // most of them do not look after what they are told of
                };
                self.register(outgoing, Interest::Write)
            });
        match registered {
            Ok(key) => self.company[place].key = Some(key),
            // A Unix server whose queue is full.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => self.is_missing(place, error),
        }
    }

    /// It could not come. Only this is a fault: a server may be rude to the rude, but it has to be there.
    fn is_missing(&mut self, place: usize, error: io::Error) {
        let target = self.plan.target((self.plan.connections + place) as u32);
        let faults = &mut self.context.faults;
        faults.note(&Fault::from(error), || {
            format!("bad client {place} to {target}")
        });
    }

    /// The socket of one of them has something.
    pub(super) fn on_bad_ready(&mut self, key: Key, place: u32) {
        let place = place as usize;
        let known = self.company.get(place).is_some_and(|m| m.key == Some(key));
        if !known {
            return drop(self.reactor.close(key));
        }
        if !self.company[place].connected {
            let target = self.plan.target((self.plan.connections + place) as u32);
            let confirmed = self
                .reactor
                .get_mut(key)
                .map(|out| out.socket.confirm(target));
            if let Some(Err(error)) = confirmed {
                self.is_missing(place, error);
                self.company[place].due = self.context.now + DRIBBLE;
                return self.forget(place);
            }
            self.company[place].connected = true;
        }
        match self.company[place].habit {
            Behavior::SlowReader => self.on_slow_reader(place),
            Behavior::Resetter => self.on_resetter(place),
            Behavior::Dribbler => self.on_dribbler(place),
            Behavior::HalfCloser => self.on_half_closer(place),
        }
    }

    /// It writes for as long as the server takes it.
    fn on_slow_reader(&mut self, place: usize) {
        let went = self.with(place, |stream, _, context| {
            let bytes = context.pattern.slice(0, 0, READ_BUFFER_BYTES / 2);
            loop {
                match stream.write(bytes) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Went::On,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return Went::Cut,
                }
            }
        });
        if let Went::Cut = went {
            self.context.counters.slow_cut += 1;
            self.forget(place);
            // It has shown what becomes of it, and does not come again.
            self.company[place].due = u64::MAX;
        }
    }

    fn on_resetter(&mut self, place: usize) {
        let went = self.with(place, |stream, _, context| {
            let _ = stream.write(context.pattern.slice(
                0,
                0,
                context.size.min(READ_BUFFER_BYTES / 2),
            ));
            stream.reset_on_close();
            Went::Through
        });
        self.leave(place, &went);
    }

    /// What comes back it reads, without a look: its bytes are too few to tell anything.
    fn on_dribbler(&mut self, place: usize) {
        if self.company[place].sent == 0 {
            self.dribble(place);
            if let Some(key) = self.company.get(place).and_then(|member| member.key) {
                self.want(key, false);
            }
        }
        let went = self.with(place, |stream, _, context| {
            loop {
                match stream.read(&mut context.read_buffer) {
                    Ok(0) => return Went::Cut,
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Went::On,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return Went::Cut,
                }
            }
        });
        self.leave(place, &went);
    }

    fn dribble(&mut self, place: usize) {
        let went = self.with(place, |stream, member, context| {
            match stream.write(context.pattern.slice(0, member.sent, 1)) {
                Ok(count) => {
                    member.sent += count as u64;
                    context.counters.bad_bytes += count as u64;
                }
                // A server that takes nothing more has heard enough of it.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Went::Cut,
            }
            Went::On
        });
        self.leave(place, &went);
    }

    /// It sends once, as much as the kernel takes at once, and says FIN; all of that has to come back before the end.
    fn on_half_closer(&mut self, place: usize) {
        if self.company[place].sent == 0 {
            let went = self.with(place, |stream, member, context| {
                let bytes = context
                    .pattern
                    .slice(0, 0, context.size.min(READ_BUFFER_BYTES / 2));
                match stream.write(bytes) {
                    Ok(count) => member.sent = count as u64,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Went::On,
                    Err(error) if error.kind() == ErrorKind::Interrupted => return Went::On,
                    Err(_) => return Went::Cut,
                }
                stream.shutdown_write().map_or(Went::Cut, |()| Went::On)
            });
            self.leave(place, &went);
            match self.company[place].key {
                Some(key) if self.company[place].sent > 0 => self.want(key, false),
                _ => return,
            }
        }
        let went = self.with(place, |stream, member, context| {
            loop {
                match stream.read(&mut context.read_buffer) {
                    Ok(0) if member.back == member.sent => return Went::Through,
                    Ok(count) if count > 0 => {
                        let expected = context.pattern.slice(0, member.back, count);
                        member.back += count as u64;
                        if member.back > member.sent || context.read_buffer[..count] != *expected {
                            return Went::Cut;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Went::On,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    _ => return Went::Cut,
                }
            }
        });
        self.leave(place, &went);
    }

    /// Does something with a member's stream. One whose server has no streams never gets here: see `fit`.
    fn with(
        &mut self,
        place: usize,
        act: impl FnOnce(&mut StreamSocket, &mut BadClient, &mut WorkerContext) -> Went,
    ) -> Went {
        let member = &mut self.company[place];
        let outgoing = member.key.and_then(|key| self.reactor.get_mut(key));
        match outgoing.map(|outgoing| &mut outgoing.socket) {
            Some(ClientSocket::Stream(stream)) => act(stream, member, &mut self.context),
            _ => Went::On,
        }
    }

    /// Counts what became of a member that has left or was cut off, and lets it come again.
    fn leave(&mut self, place: usize, went: &Went) {
        let counters = &mut self.context.counters;
        let pause = match (went, self.company[place].habit) {
            (Went::On, _) => return,
            (Went::Through, Behavior::HalfCloser) => {
                counters.bad_half_closed += 1;
                TICK
            }
            (Went::Through, _) => {
                counters.bad_resets += 1;
                TICK
            }
            (Went::Cut, _) => {
                counters.bad_cut += 1;
                DRIBBLE
            }
        };
        self.forget(place);
        self.company[place].due = self.context.now + pause;
    }

    fn forget(&mut self, place: usize) {
        if let Some(key) = self.company[place].key.take() {
            drop(self.reactor.close(key));
        }
    }
}

fn abort(socket: &ClientSocket) {
    if let ClientSocket::Stream(stream) = socket {
        stream.reset_on_close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_one_after_another() {
        let company = BadClients {
            dribblers: 4,
            resetters: 1,
            ..BadClients::default()
        };
        let members = company.gather(7);
        let due: Vec<u64> = members.iter().map(|member| member.due - 7).collect();
        assert_eq!(due, [0, 0, TICK, 2 * TICK, 3 * TICK]);
        assert_eq!((company.len(), company.is_empty()), (5, false));
        assert_eq!(company.map(|count| count / 2).dribblers, 2);
    }
}
