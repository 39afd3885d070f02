//! Badly behaved clients beside the load, of the four kinds that servers meet.
//!
//! They show what well-behaved connections feel of them. Nothing that they send is counted among the requests, and
//! nothing of theirs among the latencies.
//!
//! All of them are driven by the tick, each at a moment of its own: a thousand that acted at the same time would
//! delay the load here, in the generator, and the delay would be taken for the server's.

use super::connections::Connections;
use super::context::{READ_BUFFER_BYTES, WorkerContext};
use super::plan::BadClients;
use super::schedule::{TICK, nanoseconds};
use crate::net::{Stream, StreamSocket};
use crate::reactor::Key;
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

/// Nanoseconds between two bytes of a slowloris client, and before any client reconnects after the server has closed
/// it.
const BYTE_INTERVAL: u64 = Duration::from_secs(1).as_nanos() as u64;

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
struct BadClient {
    behavior: Behavior,
    key: Option<Key>,
    /// When it acts next: reconnects, sends its byte, or gives its echo up.
    due: u64,
    connected: bool,
    sent: u64,
    back: u64,
}

/// All badly behaved clients of a worker.
#[derive(Debug, Default)]
pub(super) struct BadClientDriver {
    clients: Vec<BadClient>,
    /// The longest that the echo of a half-close client may take.
    timeout: u64,
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

impl BadClientDriver {
    /// The clients, with their first connects spread over time: fifty a second, or all within the second after `now`.
    pub(super) fn new(bad: BadClients, timeout: Duration, now: u64) -> Self {
        let behaviors = [
            (Behavior::SlowReader, bad.slow_reader),
            (Behavior::Reset, bad.reset),
            (Behavior::Slowloris, bad.slowloris),
            (Behavior::HalfClose, bad.half_close),
        ];
        let mut clients = Vec::with_capacity(bad.len());
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
        Self {
            clients,
            timeout: nanoseconds(timeout),
        }
    }

    /// Lets the clients act whose time has come. To be called in the tick.
    pub(super) fn drive(&mut self, connections: &mut Connections<'_>, context: &mut WorkerContext) {
        let now = context.now();
        let reported_until = connections.reported_until(now);
        for place in 0..self.clients.len() {
            let client = &self.clients[place];
            if client.due > now {
                continue;
            }
            let is_connected = client.key.is_some_and(|key| connections.is_alive(key));
            match client.behavior {
                _ if !is_connected => self.connect(place, connections, context),
                Behavior::Slowloris => {
                    self.clients[place].due = now + BYTE_INTERVAL;
                    self.send_one_byte(place, connections, context);
                }
                // The echo has not ended in time.
                Behavior::HalfClose if client.due <= reported_until => {
                    self.end_attempt(place, &Progress::Cut, connections, context);
                }
                Behavior::HalfClose => {}
                Behavior::SlowReader | Behavior::Reset => self.clients[place].due = u64::MAX,
            }
        }
    }

    /// Closes all clients at the end of the window: what they do afterwards is not measured.
    pub(super) fn close_all(&mut self, connections: &mut Connections<'_>) {
        for key in self.clients.drain(..).filter_map(|client| client.key) {
            connections.reset(key);
        }
    }

    fn connect(
        &mut self,
        place: usize,
        connections: &mut Connections<'_>,
        context: &mut WorkerContext,
    ) {
        let client = &mut self.clients[place];
        let again = match client.behavior {
            Behavior::HalfClose => self.timeout,
            _ => BYTE_INTERVAL,
        };
        (client.due, client.connected) = (context.now() + again, false);
        (client.sent, client.back) = (0, 0);
        match connections.connect_bad_client(place as u32) {
            Ok(key) => client.key = Some(key),
            // The accept queue of a Unix listener is full.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => connections.bad_client_failed(place as u32, error, context),
        }
    }

    /// Handles the readiness of a client's socket.
    pub(super) fn on_ready(
        &mut self,
        key: Key,
        place: u32,
        connections: &mut Connections<'_>,
        context: &mut WorkerContext,
    ) {
        let number = place as usize;
        match self.clients.get(number) {
            Some(client) if client.key == Some(key) => {}
            _ => return connections.close(key),
        }
        let now = context.read_clock();
        if !self.clients[number].connected {
            if let Err(error) = connections.confirm_bad_client(key, place) {
                connections.bad_client_failed(place, error, context);
                self.clients[number].due = now + BYTE_INTERVAL;
                return self.close(number, connections);
            }
            self.clients[number].connected = true;
        }
        match self.clients[number].behavior {
            Behavior::SlowReader => self.on_slow_reader(number, connections, context),
            Behavior::Reset => self.on_reset(number, connections, context),
            Behavior::Slowloris => self.on_slowloris(number, connections, context),
            Behavior::HalfClose => self.on_half_close(number, connections, context),
        }
    }

    /// Writes until the socket would block.
    fn on_slow_reader(
        &mut self,
        place: usize,
        connections: &mut Connections<'_>,
        context: &mut WorkerContext,
    ) {
        let progress = self.with_stream(place, connections, context, |stream, _, context| {
            let bytes = context.text(0, 0, READ_BUFFER_BYTES / 2);
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
            context.recorder().counters_mut().slow_cut += 1;
            self.close(place, connections);
            // The server has closed it; it does not reconnect.
            self.clients[place].due = u64::MAX;
        }
    }

    fn on_reset(
        &mut self,
        place: usize,
        connections: &mut Connections<'_>,
        context: &mut WorkerContext,
    ) {
        let progress = self.with_stream(place, connections, context, |stream, _, context| {
            let _ = stream.write(context.text(0, 0, context.size().min(READ_BUFFER_BYTES / 2)));
            stream.reset_on_close();
            Progress::Done
        });
        self.end_attempt(place, &progress, connections, context);
    }

    /// Reads what comes back without verifying it: it is a byte a second.
    fn on_slowloris(
        &mut self,
        place: usize,
        connections: &mut Connections<'_>,
        context: &mut WorkerContext,
    ) {
        if self.clients[place].sent == 0 {
            self.send_one_byte(place, connections, context);
            if let Some(key) = self.clients.get(place).and_then(|client| client.key) {
                connections.want(key, false, context);
            }
        }
        let progress = self.with_stream(place, connections, context, |stream, _, context| {
            loop {
                match stream.read(context.read_buffer_mut()) {
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
        self.end_attempt(place, &progress, connections, context);
    }

    fn send_one_byte(
        &mut self,
        place: usize,
        connections: &mut Connections<'_>,
        context: &mut WorkerContext,
    ) {
        let progress = self.with_stream(place, connections, context, |stream, client, context| {
            match stream.write(context.text(0, client.sent, 1)) {
                Ok(count) => {
                    client.sent += count as u64;
                    context.recorder().counters_mut().bad_bytes += count as u64;
                }
                // The server reads no more; the client keeps the connection.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Progress::Cut,
            }
            Progress::Waiting
        });
        self.end_attempt(place, &progress, connections, context);
    }

    /// Sends once, as much as the kernel takes at once, and FIN; all of it has to come back before the server's FIN.
    fn on_half_close(
        &mut self,
        place: usize,
        connections: &mut Connections<'_>,
        context: &mut WorkerContext,
    ) {
        if self.clients[place].sent == 0 {
            let progress =
                self.with_stream(place, connections, context, |stream, client, context| {
                    let bytes = context.text(0, 0, context.size().min(READ_BUFFER_BYTES / 2));
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
            self.end_attempt(place, &progress, connections, context);
            match self.clients[place].key {
                Some(key) if self.clients[place].sent > 0 => connections.want(key, false, context),
                _ => return,
            }
        }
        let progress = self.with_stream(place, connections, context, |stream, client, context| {
            loop {
                match stream.read(context.read_buffer_mut()) {
                    Ok(0) if client.back == client.sent => return Progress::Done,
                    Ok(count) if count > 0 => {
                        let expected = context.text(0, client.back, count);
                        client.back += count as u64;
                        if client.back > client.sent || context.read_buffer()[..count] != *expected
                        {
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
        self.end_attempt(place, &progress, connections, context);
    }

    /// Calls a function with the stream of a client.
    fn with_stream(
        &mut self,
        place: usize,
        connections: &mut Connections<'_>,
        context: &mut WorkerContext,
        act: impl FnOnce(&mut StreamSocket, &mut BadClient, &mut WorkerContext) -> Progress,
    ) -> Progress {
        let client = &mut self.clients[place];
        match client.key.and_then(|key| connections.stream(key)) {
            Some(stream) => act(stream, client, context),
            None => Progress::Waiting,
        }
    }

    /// Counts how an attempt has ended, and sets the time of the next one.
    fn end_attempt(
        &mut self,
        place: usize,
        progress: &Progress,
        connections: &mut Connections<'_>,
        context: &mut WorkerContext,
    ) {
        let now = context.now();
        let counters = context.recorder().counters_mut();
        let pause = match (progress, self.clients[place].behavior) {
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
        self.close(place, connections);
        self.clients[place].due = now + pause;
    }

    fn close(&mut self, place: usize, connections: &mut Connections<'_>) {
        if let Some(key) = self.clients[place].key.take() {
            connections.close(key);
        }
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
        let driver = BadClientDriver::new(bad, Duration::ZERO, 7);
        let due = driver.clients.iter().map(|client| client.due - 7);
        assert_eq!(due.collect::<Vec<_>>(), [0, 0, TICK, 2 * TICK, 3 * TICK]);
        assert_eq!((bad.len(), bad.is_empty()), (5, false));
        assert_eq!(bad.map(|count| count / 2).slowloris, 2);
    }
}
