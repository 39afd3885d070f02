//! Stage 2, solved: what a read returns is a part of the stream, and no part is skipped.

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
        stream.write_all(&message[..count])?;
    }
}

fn main() -> std::process::ExitCode {
    judge::main(2, serve)
}
