//! The client for all steps: it sends bytes, reads while it writes, and compares what comes back.
//!
//! Reading while writing is not only faster. A server with a bounded write buffer stops reading while the client does not
//! read, so a client that writes everything first waits for ever, once the buffers of both kernels are full.
//!
//! Run it:    cargo run --example client -- 127.0.0.1:50007 20000000

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or("127.0.0.1:50007".to_owned());
    let length = arguments.next().map_or(Ok(1_000_000), |text| text.parse())?;
    // Each byte depends on its position, so that a lost or doubled byte shows.
    let sent: Vec<u8> = (0..length).map(|position: u32| (position ^ position >> 8) as u8).collect();

    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(8));
    let mut stream = TcpStream::connect(address.parse()?)?;
    // Both interests at once: whichever direction can move, moves. The first writable event says that connect is over.
    poll.registry().register(&mut stream, Token(0), Interest::READABLE | Interest::WRITABLE)?;

    let (mut written, mut echoed) = (0, 0);
    loop {
        poll.poll(&mut events, Some(TIMEOUT))?;
        if events.is_empty() {
            return Err(format!("nothing has moved for {TIMEOUT:?}: {written} bytes out, {echoed} bytes back").into());
        }
        if let Some(error) = stream.take_error()? {
            return Err(error.into());
        }
        let was_written = written;
        write(&mut stream, &sent, &mut written)?;
        if written == sent.len() && (was_written < written || sent.is_empty()) {
            stream.shutdown(Shutdown::Write)?; // half-close: everything is sent, and we read on
        }
        if read(&mut stream, &sent, &mut echoed)? {
            println!("{echoed} of {length} bytes came back, then FIN");
            return if echoed == sent.len() { Ok(()) } else { Err("some are missing".into()) };
        }
    }
}

/// Writes until the send buffer is full.
fn write(stream: &mut TcpStream, sent: &[u8], written: &mut usize) -> io::Result<()> {
    while *written < sent.len() {
        match stream.write(&sent[*written..]) {
            Ok(count) => *written += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads and compares until the receive buffer is empty. Returns whether the server has sent FIN.
fn read(stream: &mut TcpStream, sent: &[u8], echoed: &mut usize) -> Result<bool, Box<dyn Error>> {
    let mut buffer = [0; 65_536];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(count) => {
                if sent.get(*echoed..*echoed + count) != Some(&buffer[..count]) {
                    return Err(format!("other bytes than those sent, from byte {echoed} on").into());
                }
                *echoed += count;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}
