//! The clients of one rule, on one reactor and in one thread.
//!
//! A rule moves the limits of its clients ([`Client::may_send`], [`Client::may_read`]) and calls [`Clients::run`] until what it
//! waits for has happened, or the server's time is over. The clients read while they write, unless the rule says otherwise.

use super::client::{Client, End};
use super::finding::{Broken, Limit, bytes};
use super::process::Server;
use super::rule::Trial;
use super::stall_timeout::StallTimeout;
use crate::load::Pattern;
use crate::net::connect::{ClientSocket, ClientSource, ConnectOptions, Trigger};
use crate::net::stream::StreamSocket;
use crate::net::{Endpoint, Stream};
use crate::reactor::{Epoll, Event, Interest, Key, Reactor, Readiness, Registration, TimeoutClass};
use socket2::SockRef;
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

/// The longest sleep of a turn: how often a rule looks at its clients.
const TICK: Duration = Duration::from_millis(5);
/// Bytes of one read or write.
const BLOCK: usize = 64 * 1024;
/// Reads and writes of one client in a turn.
const BLOCKS_PER_TURN: usize = 8;
/// Clients that connect at once where the accept queue is not what a rule is about: the smallest backlog in wide use, that of
/// Python's `socketserver` and of socat. A longer queue would lose their handshakes, and they would wait for seconds.
const GROUP: usize = 5;

/// A client's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(usize);

/// How waiting has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ran {
    /// What was waited for has happened.
    Done,
    /// Nothing has moved for this long, although the server had the time.
    Silent(Duration),
}

#[derive(Debug)]
pub(super) struct Clients<'a> {
    reactor: Reactor<ClientSource<usize>>,
    keys: Vec<Option<Key>>,
    pub(super) all: Vec<Client>,
    pattern: Pattern,
    buffer: Vec<u8>,
    endpoint: Endpoint,
    pub(super) stall_timeout: StallTimeout,
    trial: &'a Trial<'a>,
}

impl<'a> Clients<'a> {
    pub(super) fn new(server: &Server, trial: &'a Trial<'a>) -> Result<Self, Limit> {
        let epoll = Epoll::new().map_err(|error| own_limit(&error))?;
        Ok(Self {
            reactor: Reactor::new(epoll),
            keys: Vec::new(),
            all: Vec::new(),
            pattern: Pattern::new(7, BLOCK),
            buffer: vec![0; BLOCK],
            endpoint: server.endpoint().clone(),
            stall_timeout: StallTimeout::new(trial.stall_timeout(), server.process_id()),
            trial,
        })
    }

    // --- Connections ---------------------------------------------------------------------------------------------------

    /// Begins to connect a client.
    pub(super) fn connect(&mut self) -> Result<Id, Limit> {
        self.connect_with(&ConnectOptions::default())
    }

    /// Begins to connect a client whose socket has these options.
    pub(super) fn connect_with(&mut self, options: &ConnectOptions) -> Result<Id, Limit> {
        let id = Id(self.all.len());
        let mut client = Client::new(id.0 as u64);
        let opened = loop {
            match ClientSocket::connect(&self.endpoint, options) {
                // The accept queue of a Unix server is full.
                Err(error)
                    if error.kind() == ErrorKind::WouldBlock
                        && !self.stall_timeout.has_expired() =>
                {
                    self.turn()?;
                }
                other => break other,
            }
        };
        let key = match opened {
            Ok(socket) => {
                let source = ClientSource {
                    socket,
                    state: id.0,
                    trigger: Trigger::Edge,
                };
                let registration = Registration {
                    interest: Interest::Write,
                    class: TimeoutClass::NEVER,
                };
                let added = self.reactor.add(source, registration);
                Some(added.map_err(|(_, error)| own_limit(&error))?)
            }
            Err(error) if is_own_limit(&error) => return Err(own_limit(&error)),
            Err(error) => {
                client.end = Some(ending(&error));
                None
            }
        };
        self.all.push(client);
        self.keys.push(key);
        Ok(id)
    }

    /// Connects so many clients, and each gets a byte back before more connect.
    ///
    /// Ends early when the server answers no more: the rule then finds clients whose byte is missing.
    pub(super) fn crowd(&mut self, count: usize) -> Result<Ran, Limit> {
        let goal = self.all.len() + count;
        while self.all.len() < goal {
            let first = self.all.len();
            for _ in first..goal.min(first + GROUP) {
                let client = self.connect()?;
                self.get(client).may_send = 1;
            }
            let ran = self.run(|all| all[first..].iter().all(Client::is_settled))?;
            if ran != Ran::Done {
                return Ok(ran);
            }
        }
        Ok(Ran::Done)
    }

    /// Connects a client and waits until it is connected. If it is not, the rule will see nothing come back.
    pub(super) fn connected(&mut self) -> Result<Id, Limit> {
        let id = self.connect()?;
        self.wait_for_connect(id)?;
        Ok(id)
    }

    /// Waits until a client is connected, or cannot be.
    pub(super) fn wait_for_connect(&mut self, id: Id) -> Result<(), Limit> {
        self.run(|all| all[id.0].is_connected || all[id.0].is_over())
            .map(|_| ())
    }

    pub(super) fn get(&mut self, id: Id) -> &mut Client {
        &mut self.all[id.0]
    }

    /// The first bytes of a client's text, for a rule that sends them by itself.
    pub(super) fn expected(&self, id: Id, count: usize) -> Vec<u8> {
        self.all[id.0].expected(&self.pattern, 0, count).to_vec()
    }

    /// Closes a client: by FIN, or by RST.
    pub(super) fn close(&mut self, id: Id, by_reset: bool) {
        let Some(source) = self.keys[id.0]
            .take()
            .and_then(|key| self.reactor.close(key))
        else {
            return;
        };
        if let (true, ClientSocket::Stream(stream)) = (by_reset, &source.socket) {
            stream.reset_on_close();
        }
    }

    /// Lends the socket of a client that is connected.
    pub(super) fn with_socket<T>(
        &mut self,
        id: Id,
        use_it: impl FnOnce(SockRef<'_>) -> T,
    ) -> Option<T> {
        let source = self.reactor.get_mut(self.keys[id.0]?)?;
        Some(use_it(SockRef::from(&source.socket)))
    }

    // --- Waiting -------------------------------------------------------------------------------------------------------

    /// Runs the clients until `is_done` or until the server's time is over.
    pub(super) fn run(&mut self, is_done: impl Fn(&[Client]) -> bool) -> Result<Ran, Limit> {
        self.stall_timeout.restart();
        for number in 0..self.all.len() {
            self.wake(number); // its limits may have been moved
        }
        loop {
            if is_done(&self.all) {
                return Ok(Ran::Done);
            }
            if self.stall_timeout.has_expired() {
                return Ok(Ran::Silent(self.stall_timeout.silence()));
            }
            if self.stall_timeout.must_give_up() {
                return Err(Limit(
                    "the machine was so busy that the server hardly ran".to_owned(),
                ));
            }
            self.turn()?;
        }
    }

    /// Runs the clients for this long, whatever happens.
    pub(super) fn run_for(&mut self, time: Duration) -> Result<(), Limit> {
        let end = Instant::now() + time;
        for number in 0..self.all.len() {
            self.wake(number);
        }
        while Instant::now() < end {
            self.turn()?;
        }
        Ok(())
    }

    /// Runs the clients until nothing has moved for a while in which the server had its time: what can be sent is sent.
    pub(super) fn run_until_quiet(&mut self) -> Result<(), Limit> {
        let quiet = self.trial.effort.pick(150, 200, 300);
        self.stall_timeout.set_limit(Duration::from_millis(quiet));
        let ran = self.run(|_| false);
        self.stall_timeout.set_limit(self.trial.stall_timeout());
        ran.map(|_| ())
    }

    /// Lets a client send so many more bytes and get them back, and says what went wrong.
    pub(super) fn echo(&mut self, id: Id, count: u64) -> Result<Option<Broken>, Limit> {
        self.get(id).may_send += count;
        let ran = self.run(|all| all[id.0].is_complete() || all[id.0].is_over())?;
        let client = self.get(id);
        let sent = format!("{} on one connection", bytes(client.may_send));
        Ok((!client.is_complete() || client.is_over())
            .then(|| client.broken(sent, "the same bytes", ran.silent())))
    }

    /// Waits until a client has everything back and then FIN; its FIN has to be planned.
    pub(super) fn echo_and_fin(&mut self, id: Id) -> Result<Option<Broken>, Limit> {
        let ran = self.run(|all| all[id.0].is_over())?;
        let client = self.get(id);
        let is_right =
            client.is_complete() && client.wrong.is_none() && client.end == Some(End::Fin);
        let sent = format!("{}, then FIN", bytes(client.may_send));
        let expected = format!("the same {}, then FIN", bytes(client.may_send));
        Ok((!is_right).then(|| client.broken(sent, expected, ran.silent())))
    }

    // --- One turn ------------------------------------------------------------------------------------------------------

    pub(super) fn turn(&mut self) -> Result<(), Limit> {
        if self.trial.is_stopped() {
            return Err(Limit("interrupted".to_owned()));
        }
        let waited = self.reactor.wait(Some(TICK));
        waited.map_err(|error| own_limit(&error))?;
        while let Some(event) = self.reactor.next_event() {
            if let Event::Ready(key, readiness) = event {
                let number = self
                    .reactor
                    .begin_event(key, readiness)
                    .map(|source| source.state);
                if let Some(number) = number {
                    self.wake(number);
                }
            }
        }
        self.stall_timeout.sample();
        Ok(())
    }

    /// Lets a client do what it can do now.
    fn wake(&mut self, number: usize) {
        let Some(key) = self.keys[number] else { return };
        let Some(source) = self.reactor.get_mut(key) else {
            return;
        };
        let client = &mut self.all[number];
        let before = (client.sent, client.received, client.is_connected);
        let connecting = match client.is_connected {
            true => Ok(false),
            false => check_connecting(&source.socket),
        };
        let ClientSocket::Stream(stream) = &mut source.socket else {
            return;
        };
        let advanced = match connecting {
            Ok(true) => Ok(false),
            Ok(false) => {
                client
                    .connected_after
                    .get_or_insert_with(|| client.began.elapsed());
                client.is_connected = true;
                advance(client, stream, &self.pattern, &mut self.buffer)
            }
            Err(error) => Err(error),
        };
        let has_moved = before != (client.sent, client.received, client.is_connected);
        let mut has_more = false;
        match advanced {
            Ok(more) => has_more = more,
            Err(error) => client.end = Some(ending(&error)),
        }
        if (has_moved || client.is_over()) && !client.is_background {
            self.stall_timeout.restart();
        }
        if client.is_over() {
            self.keys[number] = None;
            self.reactor.close(key);
        } else if has_more {
            self.reactor.requeue(key, Readiness::Normal);
        }
    }
}

impl Ran {
    /// How long nothing has moved; zero if what was waited for has happened.
    pub(super) fn silent(self) -> Duration {
        match self {
            Self::Done => Duration::ZERO,
            Self::Silent(time) => time,
        }
    }
}

/// Whether connect(2) goes on, or its error. A socket that has a peer is connected.
fn check_connecting(socket: &ClientSocket) -> io::Result<bool> {
    let socket = SockRef::from(socket);
    match socket.take_error()? {
        Some(error) => Err(error),
        None => Ok(socket.peer_addr().is_err()),
    }
}

/// Writes and reads within the budget, and returns whether there may be more to do at once.
fn advance(
    client: &mut Client,
    stream: &mut StreamSocket,
    pattern: &Pattern,
    buffer: &mut [u8],
) -> io::Result<bool> {
    let mut has_more = false;
    for _ in 0..BLOCKS_PER_TURN {
        let has_sent = unless_it_blocks(send(client, stream, pattern))?;
        let has_read = unless_it_blocks(receive(client, stream, pattern, buffer))?;
        has_more = has_sent || has_read;
        if !has_more || client.is_over() {
            return Ok(false);
        }
    }
    Ok(has_more)
}

fn unless_it_blocks(result: io::Result<bool>) -> io::Result<bool> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        other => other,
    }
}

fn send(client: &mut Client, stream: &mut StreamSocket, pattern: &Pattern) -> io::Result<bool> {
    if client.sent < client.may_send {
        let left = usize::try_from(client.may_send - client.sent).unwrap_or(usize::MAX);
        let most = left.min(client.segment).min(BLOCK);
        let written = stream.write(client.expected(pattern, client.sent, most));
        client.sent += match written {
            // The server has reset the connection or closed it: what it sent before is still to be read.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
                ) =>
            {
                return Ok(false);
            }
            other => other? as u64,
        };
        return Ok(true);
    }
    if client.fin_at == Some(client.sent) && !client.is_fin_sent {
        client.is_fin_sent = true;
        let _ = stream.shutdown_write(); // NotConnected: the reading side will tell
    }
    Ok(false)
}

fn receive(
    client: &mut Client,
    stream: &mut StreamSocket,
    pattern: &Pattern,
    buffer: &mut [u8],
) -> io::Result<bool> {
    // Once everything is back, one byte more is asked for: FIN, or a byte that was not sent.
    let room = client.may_read.saturating_sub(client.received);
    if room == 0 {
        return Ok(false);
    }
    let most = usize::try_from(room)
        .unwrap_or(usize::MAX)
        .min(buffer.len());
    let count = stream.read(&mut buffer[..most])?;
    if count == 0 {
        client.end = Some(End::Fin);
        return Ok(false);
    }
    client.compare(pattern, &buffer[..count]);
    Ok(true)
}

fn ending(error: &io::Error) -> End {
    match error.kind() {
        ErrorKind::ConnectionReset => End::Reset,
        ErrorKind::ConnectionRefused => End::Failed("connection refused".to_owned()),
        _ => End::Failed(error.to_string()),
    }
}

/// Whether an error of connect(2) or socket(2) is one of this machine: its descriptors, its ports, its memory.
pub(super) fn is_own_limit(error: &io::Error) -> bool {
    let limits = [
        libc::EMFILE,
        libc::ENFILE,
        libc::EADDRNOTAVAIL,
        libc::ENOBUFS,
        libc::ENOMEM,
    ];
    error
        .raw_os_error()
        .is_some_and(|number| limits.contains(&number))
}

pub(super) fn own_limit(error: &io::Error) -> Limit {
    Limit(format!("the checker's own machine was the limit: {error}"))
}
