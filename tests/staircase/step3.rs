//! Step 3: one thread, non-blocking sockets, busy polling; and why not.
//!
//! With O_NONBLOCK a call never sleeps: where it would have slept it fails with `WouldBlock`. So one thread can ask every
//! socket in turn, and what step 2 kept on its stacks is now a list of connections.
//!
//! Why not: the loop asks ten thousand sockets to find the three that have bytes, and it asks as fast as it can when none
//! has any: an idle server uses a whole processor. `top` shows it at once. Sleeping a millisecond per round would trade
//! that for a delay of a millisecond per message. What is missing is a call that sleeps until *any* of them is ready.
//!
//! Missing too: `write_fully` asks again until the send buffer has taken every byte. If the client does not read, that
//! never ends, and all clients wait for one.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:50007"))?;
    listener.set_nonblocking(true)?;
    println!("listening {}", listener.local_addr()?);
    let mut connections: Vec<TcpStream> = Vec::new();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                connections.push(stream);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        connections.retain_mut(|stream| echo_once(stream).unwrap_or(false));
    }
}

/// Echoes what is there now. Returns whether the connection goes on.
fn echo_once(stream: &mut TcpStream) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    match stream.read(&mut buffer) {
        Ok(0) => Ok(false),
        Ok(count) => write_fully(stream, &buffer[..count]).map(|()| true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

/// `write_all` for a non-blocking socket, by asking again and again. The one of std would fail in the middle, and would
/// not tell how much had been written.
fn write_fully(stream: &mut TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
