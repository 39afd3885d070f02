//! Step 1: one client at a time, by blocking calls. It is the server of most tutorials.
//!
//! Each call sleeps until it has a result: `accept` until a client has connected, `read` until bytes have arrived,
//! `write_all` until the send buffer has taken every byte. The state of a connection is the line at which the thread sleeps.
//! Nothing else in this staircase is as short, and with one client nothing is faster.
//!
//! Run it:    cargo run --example step1
//! Try it:    cargo run --example client
//!
//! Missing: while `read` waits for one client, every other client stands in the accept queue. One silent client is enough.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:50007"))?;
    println!("listening {}", listener.local_addr()?);
    loop {
        let (stream, peer) = listener.accept()?;
        if let Err(error) = echo(stream) {
            eprintln!("{peer}: {error}");
        }
    }
}

/// Echoes until the client has sent FIN, which is a read of no bytes. Dropping the stream then sends ours.
fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..count])?;
    }
}
