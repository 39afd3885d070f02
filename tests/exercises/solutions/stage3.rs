//! Stage 3, solved: the writing thread ends when everything is written, and the connection after it.

#[path = "../judge.rs"]
mod judge;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    loop {
        let (stream, _) = listener.accept()?;
        thread::spawn(move || echo(stream));
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut writer = stream.try_clone()?;
    // At most 64 parts are under way: a client that does not read fills no memory.
    let (sender, parts) = mpsc::sync_channel::<Vec<u8>>(64);
    let writing = thread::spawn(move || parts.iter().try_for_each(|part| writer.write_all(&part)));
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 || sender.send(buffer[..count].to_vec()).is_err() {
            break;
        }
    }
    drop(sender);
    let _ = writing.join();
    stream.shutdown(Shutdown::Both)
}

fn main() -> std::process::ExitCode {
    judge::main(3, serve)
}
