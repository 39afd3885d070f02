//! Stage 9: no free descriptor.
//!
//! When `accept` fails with EMFILE this server tries again, at once and for ever: `top` shows a whole processor. TODO: pause.

#[path = "../judge.rs"]
mod judge;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    loop {
        let Ok((stream, _)) = listener.accept() else { continue };
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
        stream.write_all(&buffer[..count])?;
    }
}

fn main() -> std::process::ExitCode {
    judge::main(9, serve)
}
