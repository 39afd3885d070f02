//! Badly behaved clients beside the load, of the four kinds that servers meet.
//!
//! They show what well-behaved connections feel of them. Nothing that they send is counted among the requests, and
//! nothing of theirs among the latencies.
//!
//! All of them are driven by the tick, each at a moment of its own: a thousand that acted at the same time would
//! delay the load here, in the generator, and the delay would be taken for the server's.

use super::in_flight::WorkerContext;
use super::metrics::Fault;
use super::worker::{Client, READ_BUFFER_BYTES, TICK, Worker, nanoseconds};
use crate::net::connect::{ClientSocket, ClientSource, Trigger};
use crate::net::{Stream, StreamSocket};
use crate::reactor::{Interest, Key};
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

/// Nanoseconds between two bytes of a slowloris client, and before any client reconnects after the server has closed
/// it.
const BYTE_INTERVAL: u64 = Duration::from_secs(1).as_nanos() as u64;

/// Number of badly behaved clients of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BadClients {
    /// Send without end and never read.
    pub slow_reader: usize,
    /// Connect, send a request, and reset at once; repeated up to fifty times a second each.
    pub reset: usize,
    /// Send a byte a second and never end; they read what comes back.
    pub slowloris: usize,
    /// Connect, send a request, send FIN, and read to the end; repeated up to fifty times a second each.
    pub half_close: usize,
}

/// The kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behavior {
    SlowReader,
    Reset,
    Slowloris,
    HalfClose,
}

/// One client, whether it is connected or not.
#[derive(Debug)]
pub(super) struct BadClient {
    behavior: Behavior,
    key: Option<Key>,
    /// When it acts next: reconnects, sends its byte, or gives its echo up.
    due: u64,
    connected: bool,
    sent: u64,
    back: u64,
}

impl BadClients {
    /// The number of all clients.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slow_reader + self.reset + self.slowloris + self.half_close
    }

    /// Whether there is no client.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of each kind, by its name on the command line.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, usize); 4] {
        [
            ("slow-reader", self.slow_reader),
            ("reset", self.reset),
            ("slowloris", self.slowloris),
            ("half-close", self.half_close),
        ]
    }

    /// Applies a function to the number of each kind.
    #[must_use]
    pub fn map(&self, mut number: impl FnMut(usize) -> usize) -> Self {
        Self {
            slow_reader: number(self.slow_reader),
            reset: number(self.reset),
            slowloris: number(self.slowloris),
            half_close: number(self.half_close),
        }
    }

    /// The clients, with their first connects spread over time: fifty a second, or all within the second after `now`.
    pub(super) fn spread_over_time(&self, now: u64) -> Vec<BadClient> {
        let behaviors = [
            (Behavior::SlowReader, self.slow_reader),
            (Behavior::Reset, self.reset),
            (Behavior::Slowloris, self.slowloris),
            (Behavior::HalfClose, self.half_close),
        ];
        let mut clients = Vec::with_capacity(self.len());
        for (behavior, count) in behaviors {
            let within = BYTE_INTERVAL.min(TICK * count as u64);
            clients.extend((0..count).map(|place| BadClient {
                behavior,
                key: None,
                due: now + within * place as u64 / count as u64,
                connected: false,
                sent: 0,
                back: 0,
            }));
        }
        clients
    }
}

/// How an attempt has gone on.
enum Progress {
    /// It waits for the socket or for its time.
    Waiting,
    /// It has ended as the client meant it to.
    Done,
    /// The server has closed it, or has cut its echo short.
    Cut,
}

impl Worker<'_> {
    /// Lets the clients act whose time has come. To be called in the tick.
    pub(super) fn drive_bad_clients(&mut self, now: u64) {
        let reported_until = self.reported_until();
        for place in 0..self.bad_clients.len() {
            if self.bad_clients[place].due > now {
                continue;
            }
            let key = self.bad_clients[place].key;
            let is_connected = key.is_some_and(|key| self.reactor.get_mut(key).is_some());
            match self.bad_clients[place].behavior {
                _ if !is_connected => self.connect_bad_client(place, now),
                Behavior::Slowloris => {
                    self.bad_clients[place].due = now + BYTE_INTERVAL;
                    self.send_one_byte(place);
                }
                // The echo has not ended in time.
                Behavior::HalfClose if self.bad_clients[place].due <= reported_until => {
                    self.end_attempt(place, &Progress::Cut);
                }
                Behavior::HalfClose => {}
                Behavior::SlowReader | Behavior::Reset => self.bad_clients[place].due = u64::MAX,
            }
        }
    }

    /// Closes all clients at the end of the window: what they do afterwards is not measured.
    pub(super) fn close_bad_clients(&mut self) {
        for client in self.bad_clients.drain(..) {
            if let Some(outgoing) = client.key.and_then(|key| self.reactor.close(key)) {
                abort(&outgoing.socket);
            }
        }
    }

    fn connect_bad_client(&mut self, place: usize, now: u64) {
        let number = (self.plan.connections + place) as u32;
        let target = self.plan.target(number);
        let options = self.plan.options(number);
        let client = &mut self.bad_clients[place];
        let again = match client.behavior {
            Behavior::HalfClose => nanoseconds(self.plan.timeout),
            _ => BYTE_INTERVAL,
        };
        (client.due, client.connected) = (now + again, false);
        (client.sent, client.back) = (0, 0);
        let state = Client::Bad(place as u32);
        let registered = ClientSocket::connect(target, &options)
            // The first event, when the socket is writable, starts the client.
            .and_then(|socket| {
                let outgoing = ClientSource {
                    socket,
                    state,
                    trigger: Trigger::Edge, // most of them do not read what they are told of
                };
                self.register(outgoing, Interest::Write)
            });
        match registered {
            Ok(key) => self.bad_clients[place].key = Some(key),
            // The accept queue of a Unix listener is full.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => self.connect_failed(place, error),
        }
    }

    /// Notes that a client could not connect. Only that is a fault: a server may close such a client, but it has to
    /// accept it.
    fn connect_failed(&mut self, place: usize, error: io::Error) {
        let target = self.plan.target((self.plan.connections + place) as u32);
        let faults = &mut self.context.faults;
        faults.note(&Fault::from(error), || {
            format!("bad client {place} to {target}")
        });
    }

    /// Handles the readiness of a client's socket.
    pub(super) fn on_bad_ready(&mut self, key: Key, place: u32) {
        self.context.read_clock();
        let place = place as usize;
        let known = self
            .bad_clients
            .get(place)
            .is_some_and(|m| m.key == Some(key));
        if !known {
            return drop(self.reactor.close(key));
        }
        if !self.bad_clients[place].connected {
            let target = self.plan.target((self.plan.connections + place) as u32);
            let confirmed = self
                .reactor
                .get_mut(key)
                .map(|out| out.socket.confirm(target));
            if let Some(Err(error)) = confirmed {
                self.connect_failed(place, error);
                self.bad_clients[place].due = self.context.now + BYTE_INTERVAL;
                return self.close_bad_client(place);
            }
            self.bad_clients[place].connected = true;
        }
        match self.bad_clients[place].behavior {
            Behavior::SlowReader => self.on_slow_reader(place),
            Behavior::Reset => self.on_reset(place),
            Behavior::Slowloris => self.on_slowloris(place),
            Behavior::HalfClose => self.on_half_close(place),
        }
    }

    /// Writes until the socket would block.
    fn on_slow_reader(&mut self, place: usize) {
        let progress = self.with_stream(place, |stream, _, context| {
            let bytes = context.pattern.slice(0, 0, READ_BUFFER_BYTES / 2);
            loop {
                match stream.write(bytes) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        return Progress::Waiting;
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return Progress::Cut,
                }
            }
        });
        if let Progress::Cut = progress {
            self.context.counters.slow_cut += 1;
            self.close_bad_client(place);
            // The server has closed it; it does not reconnect.
            self.bad_clients[place].due = u64::MAX;
        }
    }

    fn on_reset(&mut self, place: usize) {
        let progress = self.with_stream(place, |stream, _, context| {
            let _ = stream.write(context.pattern.slice(
                0,
                0,
                context.size.min(READ_BUFFER_BYTES / 2),
            ));
            stream.reset_on_close();
            Progress::Done
        });
        self.end_attempt(place, &progress);
    }

    /// Reads what comes back without verifying it: it is a byte a second.
    fn on_slowloris(&mut self, place: usize) {
        if self.bad_clients[place].sent == 0 {
            self.send_one_byte(place);
            if let Some(key) = self.bad_clients.get(place).and_then(|client| client.key) {
                self.want(key, false);
            }
        }
        let progress = self.with_stream(place, |stream, _, context| {
            loop {
                match stream.read(&mut context.read_buffer) {
                    Ok(0) => return Progress::Cut,
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        return Progress::Waiting;
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return Progress::Cut,
                }
            }
        });
        self.end_attempt(place, &progress);
    }

    fn send_one_byte(&mut self, place: usize) {
        let progress = self.with_stream(place, |stream, client, context| {
            match stream.write(context.pattern.slice(0, client.sent, 1)) {
                Ok(count) => {
                    client.sent += count as u64;
                    context.counters.bad_bytes += count as u64;
                }
                // The server reads no more; the client keeps the connection.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Progress::Cut,
            }
            Progress::Waiting
        });
        self.end_attempt(place, &progress);
    }

    /// Sends once, as much as the kernel takes at once, and FIN; all of it has to come back before the server's FIN.
    fn on_half_close(&mut self, place: usize) {
        if self.bad_clients[place].sent == 0 {
            let progress = self.with_stream(place, |stream, client, context| {
                let bytes = context
                    .pattern
                    .slice(0, 0, context.size.min(READ_BUFFER_BYTES / 2));
                match stream.write(bytes) {
                    Ok(count) => client.sent = count as u64,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        return Progress::Waiting;
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {
                        return Progress::Waiting;
                    }
                    Err(_) => return Progress::Cut,
                }
                stream
                    .shutdown_write()
                    .map_or(Progress::Cut, |()| Progress::Waiting)
            });
            self.end_attempt(place, &progress);
            match self.bad_clients[place].key {
                Some(key) if self.bad_clients[place].sent > 0 => self.want(key, false),
                _ => return,
            }
        }
        let progress = self.with_stream(place, |stream, client, context| {
            loop {
                match stream.read(&mut context.read_buffer) {
                    Ok(0) if client.back == client.sent => return Progress::Done,
                    Ok(count) if count > 0 => {
                        let expected = context.pattern.slice(0, client.back, count);
                        client.back += count as u64;
                        if client.back > client.sent || context.read_buffer[..count] != *expected {
                            return Progress::Cut;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        return Progress::Waiting;
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    _ => return Progress::Cut,
                }
            }
        });
        self.end_attempt(place, &progress);
    }

    /// Calls a function with the stream of a client. Targets without streams were refused in `preflight`.
    fn with_stream(
        &mut self,
        place: usize,
        act: impl FnOnce(&mut StreamSocket, &mut BadClient, &mut WorkerContext) -> Progress,
    ) -> Progress {
        let client = &mut self.bad_clients[place];
        let outgoing = client.key.and_then(|key| self.reactor.get_mut(key));
        match outgoing.map(|outgoing| &mut outgoing.socket) {
            Some(ClientSocket::Stream(stream)) => act(stream, client, &mut self.context),
            _ => Progress::Waiting,
        }
    }

    /// Counts how an attempt has ended, and sets the time of the next one.
    fn end_attempt(&mut self, place: usize, progress: &Progress) {
        let counters = &mut self.context.counters;
        let pause = match (progress, self.bad_clients[place].behavior) {
            (Progress::Waiting, _) => return,
            (Progress::Done, Behavior::HalfClose) => {
                counters.bad_half_closed += 1;
                TICK
            }
            (Progress::Done, _) => {
                counters.bad_resets += 1;
                TICK
            }
            (Progress::Cut, _) => {
                counters.bad_cut += 1;
                BYTE_INTERVAL
            }
        };
        self.close_bad_client(place);
        self.bad_clients[place].due = self.context.now + pause;
    }

    fn close_bad_client(&mut self, place: usize) {
        if let Some(key) = self.bad_clients[place].key.take() {
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
        let bad = BadClients {
            slowloris: 4,
            reset: 1,
            ..BadClients::default()
        };
        let clients = bad.spread_over_time(7);
        let due: Vec<u64> = clients.iter().map(|client| client.due - 7).collect();
        assert_eq!(due, [0, 0, TICK, 2 * TICK, 3 * TICK]);
        assert_eq!((bad.len(), bad.is_empty()), (5, false));
        assert_eq!(bad.map(|count| count / 2).slowloris, 2);
    }
}
