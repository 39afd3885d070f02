//! Stage 4: more than one client.
//!
//! This server is right, for one client. While it waits for the bytes of that one, every other client stands in the accept
//! queue. TODO: let a silent client wait without keeping the server from the rest.

#[path = "../judge.rs"]
mod judge;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    loop {
        let (stream, _) = listener.accept()?;
        let _ = echo(stream);
    }
}

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

fn main() -> std::process::ExitCode {
    judge::main(4, serve)
}
