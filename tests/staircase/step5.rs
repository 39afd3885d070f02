//! Step 5: edges are read until they would block, unsent bytes have a buffer, and a connection has one interest.
//!
//! Three rules repair the faults of step 4:
//!
//! - After an event, calls are repeated until one would block. Only then does the next arrival raise a new edge.
//! - What a write does not take is kept in the connection's write buffer.
//! - While bytes are unsent nothing is read, and the interest is WRITABLE; otherwise it is READABLE. A client that does not
//!   read is not read from either, and feels that through TCP, as a closed window. This is backpressure.
//!
//! Missing: every event hashes its token, where an index would do. An error of `accept` still ends the server (step 8).

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};

const LISTENER: Token = Token(0);

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:50007".to_owned());
    let address = address.parse().expect("an address such as 127.0.0.1:50007");
    let (poll, mut listener) = (Poll::new()?, TcpListener::bind(address)?);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("listening {}", listener.local_addr()?);

    let (connections, buffer) = (HashMap::new(), vec![0; 65_536]);
    let mut server = Server { poll, listener, connections, last: LISTENER, buffer };
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
    connections: HashMap<Token, Connection>,
    last: Token,
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
        self.last = Token(self.last.0 + 1);
        let (token, interest, unsent) = (self.last, Interest::READABLE, Vec::new());
        self.poll.registry().register(&mut stream, token, interest)?;
        self.connections.insert(token, Connection { stream, token, interest, unsent });
        Ok(())
    }

    /// Serves a connection, and closes it at FIN or an error.
    fn serve(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let registry = self.poll.registry();
        match connection.advance(&mut self.buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && connection.wait(registry).is_ok() => {}
            Ok(()) | Err(_) => drop(self.connections.remove(&token)),
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
    /// Writes and reads until a call would block, which `?` returns as an error. `Ok` is FIN: nothing is unsent then, since
    /// FIN is seen by reading.
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

    /// Registers the interest if it has changed. The kernel then looks at the socket again and reports what is ready
    /// already, so that bytes which came in the meantime raise an event.
    fn wait(&mut self, registry: &Registry) -> io::Result<()> {
        let interest = if self.unsent.is_empty() { Interest::READABLE } else { Interest::WRITABLE };
        if interest != self.interest {
            registry.reregister(&mut self.stream, self.token, interest)?;
            self.interest = interest;
        }
        Ok(())
    }
}
