//! Step 8: accepting pauses when a resource is used up, and a silent connection has a timeout. Next: `src/reactor`.
//!
//! With EMFILE the client stays in the accept queue, and the edge is spent: a loop that waits for the next edge would never
//! accept again. So accepting pauses, and is tried again after a tenth of a second.
//!
//! Each connection has one entry in a list of checks, in the order of their times. A check closes a connection that moved
//! no byte since the last one, and else puts it at the back. A message costs nothing but a count, and a silent client is
//! found after one timeout at the earliest, two at the latest. `Connection` is that of step 7, in a file of its own.

mod connection;

use connection::Connection;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, event::Event};
use slab::Slab;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

const LISTENER: Token = Token(usize::MAX);
const SLOT: usize = 0xffff_ffff;
const ACCEPTS_PER_TURN: usize = 64;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:50007".to_owned());
    let address = address.parse().expect("an address such as 127.0.0.1:50007");
    let (poll, mut listener) = (Poll::new()?, TcpListener::bind(address)?);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("listening {}", listener.local_addr()?);
    let (connections, queue, checks, buffer) = (Slab::new(), Vec::new(), VecDeque::new(), vec![0; 65_536]);
    let mut server = Server { poll, listener, connections, generation: 0, queue, accept_at: None, checks, buffer };
    let mut events = Events::with_capacity(128);
    loop {
        let polled = server.poll.poll(&mut events, server.timeout());
        polled.or_else(|error| if error.kind() == ErrorKind::Interrupted { Ok(()) } else { Err(error) })?;
        let ready: Vec<Token> = events.iter().map(Event::token).collect();
        let left = std::mem::take(&mut server.queue);
        for &token in ready.iter().chain(left.iter().filter(|token| !ready.contains(token))) {
            match token {
                LISTENER => server.accept(),
                token => server.serve(token),
            }
        }
        server.check(Instant::now());
    }
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    connections: Slab<Connection>,
    generation: u32,
    queue: Vec<Token>,
    accept_at: Option<Instant>,
    checks: VecDeque<(Instant, Token, u64)>,
    buffer: Vec<u8>,
}

impl Server {
    /// Sleeping is over when work is queued, or the time of a check or of the next accept has come.
    fn timeout(&self) -> Option<Duration> {
        let due = self.checks.front().map(|check| check.0).into_iter().chain(self.accept_at).min();
        let sleep = due.map(|due| due.saturating_duration_since(Instant::now()));
        if self.queue.is_empty() { sleep } else { Some(Duration::ZERO) }
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN {
            match self.listener.accept() {
                Ok((stream, _)) => drop(self.add(stream)), // if it cannot be registered, it is closed
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {} // that client is gone
                Err(_) => return self.accept_at = Some(Instant::now() + ACCEPT_PAUSE),
            }
        }
        self.queue.push(LISTENER);
    }

    fn add(&mut self, stream: TcpStream) -> io::Result<()> {
        let entry = self.connections.vacant_entry();
        self.generation = self.generation.wrapping_add(1);
        let token = Token((self.generation as usize) << 32 | entry.key());
        entry.insert(Connection::register(stream, token, self.poll.registry())?);
        self.checks.push_back((Instant::now() + IDLE_TIMEOUT, token, 0));
        Ok(())
    }

    /// Serves a connection, and closes it at FIN or an error.
    fn serve(&mut self, token: Token) {
        let connection = self.connections.get_mut(token.0 & SLOT);
        let Some(connection) = connection.filter(|connection| connection.token == token) else { return };
        let registry = self.poll.registry();
        match connection.advance(&mut self.buffer) {
            Ok(true) => self.queue.push(token),
            Err(error) if error.kind() == ErrorKind::WouldBlock && connection.wait(registry).is_ok() => {}
            Ok(false) | Err(_) => drop(self.connections.remove(token.0 & SLOT)),
        }
    }

    /// Ends the pause of accepting, and closes silent connections. Input was served first, in this turn.
    fn check(&mut self, now: Instant) {
        if self.accept_at.take_if(|due| *due <= now).is_some() {
            self.queue.push(LISTENER);
        }
        while self.checks.front().is_some_and(|check| check.0 <= now) {
            let Some((_, token, steps)) = self.checks.pop_front() else { return };
            let connection = self.connections.get_mut(token.0 & SLOT);
            match connection.filter(|connection| connection.token == token) {
                Some(connection) if connection.steps != steps => {
                    self.checks.push_back((now + IDLE_TIMEOUT, token, connection.steps));
                }
                Some(_) => drop(self.connections.remove(token.0 & SLOT)),
                None => {}
            }
        }
    }
}
