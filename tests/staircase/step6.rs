//! Step 6: connections in a slab, and a token that carries a generation.
//!
//! A slab is a vector whose free slots are used again: finding a connection is one index, without a hash. But the number
//! of a slot is soon that of another connection. `poll` returns a batch of events. If the first of them makes the server
//! close the connection of the seventh, and a new connection gets its slot, then the seventh, a stale event, would reach
//! the wrong one. So the token holds the slot and a generation, and is compared as a whole.
//!
//! Missing: `advance` ends when a call would block. A client that sends as fast as the server reads decides when that is,
//! and all other clients wait for it: starvation.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;
use std::io::{self, ErrorKind, Read, Write};

const LISTENER: Token = Token(usize::MAX);
/// The part of a token that is the slot; the rest is the generation.
const SLOT: usize = 0xffff_ffff;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:50007".to_owned());
    let address = address.parse().expect("an address such as 127.0.0.1:50007");
    let (poll, mut listener) = (Poll::new()?, TcpListener::bind(address)?);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("listening {}", listener.local_addr()?);

    let (connections, buffer) = (Slab::new(), vec![0; 65_536]);
    let mut server = Server { poll, listener, connections, generation: 0, buffer };
    let mut events = Events::with_capacity(128);
    loop {
        let polled = server.poll.poll(&mut events, None);
        polled.or_else(|error| if error.kind() == ErrorKind::Interrupted { Ok(()) } else { Err(error) })?;
        for event in &events {
            match event.token() {
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
    buffer: Vec<u8>,
}

impl Server {
    /// Accepts until the accept queue is empty.
    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.add(stream)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn add(&mut self, mut stream: TcpStream) -> io::Result<()> {
        let entry = self.connections.vacant_entry();
        self.generation = self.generation.wrapping_add(1);
        let token = Token((self.generation as usize) << 32 | entry.key());
        let (interest, unsent) = (Interest::READABLE, Vec::new());
        self.poll.registry().register(&mut stream, token, interest)?;
        entry.insert(Connection { stream, token, interest, unsent });
        Ok(())
    }

    /// Serves a connection, and closes it at FIN or an error. The event may be stale.
    fn serve(&mut self, token: Token) {
        let connection = self.connections.get_mut(token.0 & SLOT);
        let Some(connection) = connection.filter(|connection| connection.token == token) else { return };
        let registry = self.poll.registry();
        match connection.advance(&mut self.buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && connection.wait(registry).is_ok() => {}
            Ok(()) | Err(_) => drop(self.connections.remove(token.0 & SLOT)),
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
    /// Writes and reads until a call would block, which `?` returns as an error. `Ok` is FIN.
    fn advance(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            while !self.unsent.is_empty() {
                let count = self.stream.write(&self.unsent)?;
                self.unsent.drain(..count);
            }
            let count = self.stream.read(buffer)?;
            if count == 0 {
                return Ok(());
            }
            self.unsent.extend_from_slice(&buffer[..count]);
        }
    }

    /// Registers the interest if it has changed.
    fn wait(&mut self, registry: &Registry) -> io::Result<()> {
        let interest = if self.unsent.is_empty() { Interest::READABLE } else { Interest::WRITABLE };
        if interest != self.interest {
            registry.reregister(&mut self.stream, self.token, interest)?;
            self.interest = interest;
        }
        Ok(())
    }
}
