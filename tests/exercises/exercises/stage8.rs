//! Stage 8: Unix sockets.
//!
//! The same stream, other addresses. This server opens a connection for each message, as some protocols do. TODO: go on
//! until FIN.

#[path = "../judge.rs"]
mod judge;

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

fn serve(path: &str) -> io::Result<()> {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    loop {
        let (stream, _) = listener.accept()?;
        thread::spawn(move || echo(stream));
    }
}

fn echo(mut stream: UnixStream) -> io::Result<()> {
    let mut buffer = [0; 65_536];
    let count = stream.read(&mut buffer)?;
    stream.write_all(&buffer[..count])
}

fn main() -> std::process::ExitCode {
    judge::main(8, serve)
}
