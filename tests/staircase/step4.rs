//! Step 4: epoll through mio, as most articles have it. It passes every test that sends short messages, and has four faults.
//!
//! `poll` is the call that step 3 lacks: it sleeps until a registered socket is ready, and names it by its token. The thread
//! sleeps when nothing happens, and ten thousand silent connections cost no system call.
//!
//! Look for the faults before you read on to the end of the file. Two facts are enough to find them: mio registers
//! edge-triggered, so that readiness is reported once, when it begins; and a non-blocking `write` may take less than it is given.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::collections::HashMap;
use std::io::{self, Read, Write};

const LISTENER: Token = Token(0);

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1);
    let address = address.as_deref().unwrap_or("127.0.0.1:50007");
    let mut listener = TcpListener::bind(address.parse().expect("an address such as 127.0.0.1:50007"))?;
    println!("listening {}", listener.local_addr()?);

    let mut poll = Poll::new()?;
    let registry = poll.registry();
    registry.register(&mut listener, LISTENER, Interest::READABLE)?;

    let mut events = Events::with_capacity(128);
    let mut connections: HashMap<Token, TcpStream> = HashMap::new();
    let mut last = LISTENER;
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            let token = event.token();
            if token == LISTENER {
                while let Some(mut stream) = accept(&listener)? {
                    last = Token(last.0 + 1);
                    poll.registry().register(&mut stream, last, Interest::READABLE)?;
                    connections.insert(last, stream);
                }
            } else if let Some(stream) = connections.get_mut(&token) {
                if !echo_once(stream).unwrap_or(false) {
                    connections.remove(&token);
                }
            }
        }
    }
}

/// The next connection, or `None` if the accept queue is empty.
fn accept(listener: &TcpListener) -> io::Result<Option<TcpStream>> {
    match listener.accept() {
        Ok((stream, _)) => Ok(Some(stream)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Echoes what is there now. Returns whether the connection goes on.
fn echo_once(stream: &mut TcpStream) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    let count = stream.read(&mut buffer)?;
    stream.write_all(&buffer[..count])?;
    Ok(count > 0)
}

// The faults, by the names that the guide gives them:
//
// 1. Reading once. An event is answered with one `read`. Of a message longer than the buffer, or one that arrives in
//    several segments, the rest stays in the socket; the client waits for it, and no event comes any more. If FIN came with
//    the data, its read of no bytes never happens: the connection stays open for ever. (The listener is treated better:
//    it is asked until it would block, since a hundred clients that connect together are one event.)
// 2. Partial writes. `write_all` on a non-blocking socket fails in the middle when the send buffer is full, and does not
//    tell where. Here the connection ends with the rest unsent.
// 3. A spurious event is taken for an error. If more bytes arrive between the event and the `read`, they are read with the
//    rest, and their own event finds none: `read` fails with `WouldBlock`, and the connection is closed.
// 4. An error of `accept` or `poll` ends the server: EMFILE, a client that was gone before it was accepted (ECONNABORTED),
//    a debugger that stops and continues the process (EINTR).
