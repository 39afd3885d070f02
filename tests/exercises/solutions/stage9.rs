//! Stage 9, solved: a pause of a tenth of a second, in which other clients are served and may leave.

#[path = "../judge.rs"]
mod judge;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => drop(thread::spawn(move || echo(stream))),
            Err(_) => thread::sleep(Duration::from_millis(100)), // a descriptor may be free then
        }
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
