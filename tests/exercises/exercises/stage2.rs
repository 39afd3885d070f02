//! Stage 2: a stream has no messages.
//!
//! This server reads a message, and sends it back. But TCP is a stream: a message may arrive in many pieces, and be longer
//! than any buffer. TODO: go on until the client has sent FIN, which is a read of no bytes.

#[path = "../judge.rs"]
mod judge;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    loop {
        let (stream, _) = listener.accept()?;
        thread::spawn(move || echo(stream));
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut message = [0; 4096];
    loop {
        let count = stream.read(&mut message)?;
        if count == 0 {
            return Ok(());
        }
        // A message that fills the buffer is too long, and its rest is skipped.
        if count == message.len() {
            while stream.read(&mut [0; 4096])? == 4096 {}
        }
        stream.write_all(&message[..count])?;
    }
}

fn main() -> std::process::ExitCode {
    judge::main(2, serve)
}
