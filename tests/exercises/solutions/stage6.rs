//! Stage 6, solved: an error of a connection is the end of that connection, like FIN.

#[path = "../judge.rs"]
mod judge;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let mut connections: Vec<(TcpStream, Vec<u8>)> = Vec::new();
    loop {
        let mut is_idle = true;
        while let Some((stream, _)) = unless_it_blocks(listener.accept())? {
            if stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).is_ok() {
                connections.push((stream, Vec::new()));
            }
        }
        let mut open = Vec::new();
        for (mut stream, mut unsent) in connections {
            let steps = advance(&mut stream, &mut unsent).unwrap_or(None);
            is_idle &= steps == Some(0);
            if steps.is_some() {
                open.push((stream, unsent));
            }
        }
        connections = open;
        if is_idle {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Writes and reads a little, and returns in how many steps; `None` at FIN.
fn advance(stream: &mut TcpStream, unsent: &mut Vec<u8>) -> io::Result<Option<u32>> {
    let mut buffer = [0; 16_384];
    for step in 0..4 {
        if unsent.is_empty() {
            match unless_it_blocks(stream.read(&mut buffer))? {
                Some(0) => return Ok(None),
                Some(count) => unsent.extend_from_slice(&buffer[..count]),
                None => return Ok(Some(step)),
            }
        }
        match unless_it_blocks(stream.write(unsent))? {
            Some(count) => drop(unsent.drain(..count)),
            None => return Ok(Some(step)),
        }
    }
    Ok(Some(4))
}

fn unless_it_blocks<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        result => result.map(Some),
    }
}

fn main() -> std::process::ExitCode {
    judge::main(6, serve)
}
