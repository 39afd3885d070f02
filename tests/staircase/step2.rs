//! Step 2: a thread for each client, still by blocking calls.
//!
//! `echo` is that of step 1, to the letter. What is new is one line: it runs in a thread of its own, so a client that is
//! silent makes one thread sleep, and `accept` goes on. For ten clients this is the right program.
//!
//! Missing: a thread is a stack, of which the first pages are used, and an entry of the scheduler. Ten thousand clients are
//! ten thousand of them, some 20 KiB each, and every message wakes one. And an error of `accept` ends the server: when
//! the process has no descriptor left (EMFILE), all clients lose their connections.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:50007"))?;
    println!("listening {}", listener.local_addr()?);
    loop {
        let (stream, peer) = listener.accept()?;
        thread::Builder::new().spawn(move || {
            if let Err(error) = echo(stream) {
                eprintln!("{peer}: {error}");
            }
        })?;
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
