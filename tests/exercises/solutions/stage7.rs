//! Stage 7, solved: an empty datagram is a datagram, the buffer holds the longest one, and services get no answer.

#[path = "../judge.rs"]
mod judge;

use std::io;
use std::net::UdpSocket;

fn serve(address: &str) -> io::Result<()> {
    let socket = UdpSocket::bind(address)?;
    let own = socket.local_addr()?;
    let mut buffer = [0; 65_536];
    loop {
        let (count, source) = socket.recv_from(&mut buffer)?;
        if source.port() < 1024 || source == own {
            continue; // echo, chargen and other services would answer the answer, and so would this server
        }
        let _ = socket.send_to(&buffer[..count], source);
    }
}

fn main() -> std::process::ExitCode {
    judge::main(7, serve)
}
