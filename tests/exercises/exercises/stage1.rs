//! Stage 1: bytes, and not text.
//!
//! This server echoes what people type. It does not echo what programs send: a byte that is no UTF-8 comes back as three
//! others. TODO: send back the bytes that were read, whatever they are.

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
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&buffer[..count]);
        stream.write_all(text.as_bytes())?;
    }
}

fn main() -> std::process::ExitCode {
    judge::main(1, serve)
}
