//! The connection of steps 5 to 7 in a file of its own, for step 8. What is new is that it counts its steps.

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io::{self, Read, Write};

const READS_PER_TURN: usize = 4;

pub(crate) struct Connection {
    stream: TcpStream,
    pub(crate) token: Token,
    interest: Interest,
    unsent: Vec<u8>,
    /// Reads and writes so far: whether it did anything lately is whether this has changed.
    pub(crate) steps: u64,
}

impl Connection {
    pub(crate) fn register(mut stream: TcpStream, token: Token, registry: &Registry) -> io::Result<Self> {
        registry.register(&mut stream, token, Interest::READABLE)?;
        Ok(Self { stream, token, interest: Interest::READABLE, unsent: Vec::new(), steps: 0 })
    }

    /// Writes and reads until a call would block, or the budget is spent. Returns whether the connection goes on.
    pub(crate) fn advance(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        for _ in 0..READS_PER_TURN {
            while !self.unsent.is_empty() {
                let count = self.stream.write(&self.unsent)?;
                self.unsent.drain(..count);
                self.steps += 1;
            }
            let count = self.stream.read(buffer)?;
            if count == 0 {
                return Ok(false);
            }
            self.unsent.extend_from_slice(&buffer[..count]);
            self.steps += 1;
        }
        Ok(true)
    }

    /// Registers the interest if it has changed.
    pub(crate) fn wait(&mut self, registry: &Registry) -> io::Result<()> {
        let interest = if self.unsent.is_empty() { Interest::READABLE } else { Interest::WRITABLE };
        if interest != self.interest {
            registry.reregister(&mut self.stream, self.token, interest)?;
            self.interest = interest;
        }
        Ok(())
    }
}
