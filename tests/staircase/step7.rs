//! Step 7: a budget for each source, and a run queue for what it leaves.
//!
//! A source (a connection, or the listener) may do so much in a turn, which is one iteration of the loop. What it leaves
//! in its socket is not reported again, since the edge is spent. So it joins the run queue, `poll` does not sleep while the
//! queue has entries, and the next turn serves them, after the sources that have just become ready and each once.
//!
//! Missing: one client too many (EMFILE) ends the server. A client that is gone without FIN keeps its slot for ever.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token, event::Event};
use slab::Slab;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

const LISTENER: Token = Token(usize::MAX);
const SLOT: usize = 0xffff_ffff;
const READS_PER_TURN: usize = 4;
const ACCEPTS_PER_TURN: usize = 64;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:50007".to_owned());
    let address = address.parse().expect("an address such as 127.0.0.1:50007");
    let (poll, mut listener) = (Poll::new()?, TcpListener::bind(address)?);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("listening {}", listener.local_addr()?);
    let (connections, queue, buffer) = (Slab::new(), Vec::new(), vec![0; 65_536]);
    let mut server = Server { poll, listener, connections, generation: 0, queue, buffer };
    let mut events = Events::with_capacity(128);
    loop {
        let timeout = (!server.queue.is_empty()).then_some(Duration::ZERO);
        let polled = server.poll.poll(&mut events, timeout);
        polled.or_else(|error| if error.kind() == ErrorKind::Interrupted { Ok(()) } else { Err(error) })?;
        let ready: Vec<Token> = events.iter().map(Event::token).collect();
        let left = std::mem::take(&mut server.queue);
        for &token in ready.iter().chain(left.iter().filter(|token| !ready.contains(token))) {
            match token {
                LISTENER => server.accept()?,
                token => server.serve(token),
            }
        }
    }
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    connections: Slab<Connection>,
    generation: u32,
    queue: Vec<Token>,
    buffer: Vec<u8>,
}

impl Server {
    fn accept(&mut self) -> io::Result<()> {
        for _ in 0..ACCEPTS_PER_TURN {
            match self.listener.accept() {
                Ok((stream, _)) => self.add(stream)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.queue.push(LISTENER);
        Ok(())
    }

    fn add(&mut self, mut stream: TcpStream) -> io::Result<()> {
        let entry = self.connections.vacant_entry();
        self.generation = self.generation.wrapping_add(1);
        let token = Token((self.generation as usize) << 32 | entry.key());
        self.poll.registry().register(&mut stream, token, Interest::READABLE)?;
        entry.insert(Connection { stream, token, interest: Interest::READABLE, unsent: Vec::new() });
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
}

struct Connection {
    stream: TcpStream,
    token: Token,
    interest: Interest,
    unsent: Vec<u8>,
}

impl Connection {
    /// Writes and reads until a call would block, or the budget is spent. Returns whether the connection goes on.
    fn advance(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        for _ in 0..READS_PER_TURN {
            while !self.unsent.is_empty() {
                let count = self.stream.write(&self.unsent)?;
                self.unsent.drain(..count);
            }
            let count = self.stream.read(buffer)?;
            if count == 0 {
                return Ok(false);
            }
            self.unsent.extend_from_slice(&buffer[..count]);
        }
        Ok(true)
    }

    fn wait(&mut self, registry: &Registry) -> io::Result<()> {
        let interest = if self.unsent.is_empty() { Interest::READABLE } else { Interest::WRITABLE };
        if interest != self.interest {
            registry.reregister(&mut self.stream, self.token, interest)?;
            self.interest = interest;
        }
        Ok(())
    }
}
