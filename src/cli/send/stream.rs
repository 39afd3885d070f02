//! The exchange with a server over a stream, TCP or Unix.
//!
//! Writing and reading go on at once, each in a thread of its own: a bounded server stops reading while it cannot
//! write, so a client that wrote everything before it read anything would wait for ever. What has been sent and not yet
//! come back is kept in a queue of bounded length. At the end the client sends FIN, and expects FIN and no byte before it.

use super::connect::{self, Connected, Targets};
use super::output::{Out, Stop};
use super::plan::{Input, Plan};
use super::text;
use crate::cli::error::{CliError, CliErrorKind};
use crate::cli::stdio::BlockingStdio;
use crate::cli::units::plural;
use socket2::Socket;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};

/// Bytes that are read or written at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks in flight: 4 MiB, which is more than the kernel's buffers between two machines usually hold.
const CHUNKS_IN_FLIGHT: usize = 64;

/// What has been sent: shared by the thread that writes it and the one that compares it.
type Chunk = Arc<[u8]>;

pub(super) fn talk(plan: &Plan, out: &mut Out) -> Result<(), Stop> {
    let mut echo = Echo {
        peer: reach(plan)?,
        plan,
        buffer: vec![0; CHUNK_BYTES],
    };
    if let Some(header) = plan.proxy {
        let sent = header.send(&echo.peer.socket);
        sent.map_err(|error| echo.failure(&error, "during sending of the PROXY header"))?;
    }
    match &plan.input {
        Input::Messages(messages) => echo.exchange(messages, out)?,
        Input::Standard => echo.pass_through(out)?,
    }
    echo.end().map_err(Stop::from)
}

/// Connects to the first endpoint that accepts.
fn reach(plan: &Plan) -> Result<Connected, CliError> {
    let mut last = None;
    for target in Targets::resolve(plan)? {
        match connect::connect(&target, plan) {
            Ok(connected) => return Ok(connected),
            Err(failure) => last = Some(failure),
        }
    }
    Err(last.unwrap_or_else(|| {
        let text = format!("{}: the name has no address", plan.address);
        CliError::new(CliErrorKind::Resolve, text)
    }))
}

/// The reading side of the exchange, which compares.
struct Echo<'a> {
    peer: Connected,
    plan: &'a Plan,
    buffer: Vec<u8>,
}

impl Echo<'_> {
    /// Message by message: each is sent, and the same number of bytes awaited.
    fn exchange(&mut self, messages: &[Vec<u8>], out: &mut Out) -> Result<(), Stop> {
        let chunks: Vec<Chunk> = messages.iter().map(|message| message[..].into()).collect();
        let (sender, writer) = self.start("send", |socket, chunks| {
            chunks
                .iter()
                .try_for_each(|chunk: Chunk| (&socket).write_all(&chunk))?;
            finish(&socket)
        })?;
        let mut number = 0u64;
        for _ in 0..self.plan.repeat {
            for chunk in &chunks {
                if number > 0 {
                    thread::sleep(self.plan.interval);
                }
                number += 1;
                // If the writing thread has ended, the error of the next read describes the cause better.
                let _ = sender.send(Arc::clone(chunk));
                self.compare(chunk, 0, &format!("message {number}"), |_| Ok(()))?;
                out.received(chunk)?;
            }
        }
        drop(sender);
        self.join(writer).map_err(Stop::from)
    }

    /// All of standard input, as it comes.
    fn pass_through(&mut self, out: &mut Out) -> Result<(), Stop> {
        let mut input = BlockingStdio::input().map_err(|error| cannot_read(&error))?;
        let (sent, awaited) = mpsc::sync_channel(CHUNKS_IN_FLIGHT);
        let (_, writer) = self.start("send", move |socket, _| {
            let read = copy(&mut input, &socket, &sent)?;
            finish(&socket)?;
            Ok(read)
        })?;
        let mut offset = 0;
        for chunk in awaited {
            let chunk: Chunk = chunk;
            self.compare(&chunk, offset, "standard input", |part| out.copy(part))?;
            offset += chunk.len() as u64;
        }
        match self.join(writer)? {
            None => Ok(()),
            Some(error) => Err(cannot_read(&error).into()),
        }
    }

    /// Starts the thread that writes, on a second handle of the socket. It is not waited for if anything goes wrong: it
    /// may be blocked in reading a terminal, and the end of the program ends it too.
    fn start<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce(Socket, Receiver<Chunk>) -> io::Result<T> + Send + 'static,
    ) -> Result<(SyncSender<Chunk>, JoinHandle<io::Result<T>>), CliError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let socket = self.peer.socket.try_clone();
        socket
            .and_then(|socket| {
                let thread = thread::Builder::new().name(name.to_owned());
                thread.spawn(move || work(socket, receiver))
            })
            .map(|handle| (sender, handle))
            .map_err(|error| {
                CliError::new(
                    CliErrorKind::Io,
                    format!("no thread for writing could be started: {error}; raise the limit of processes (ulimit -u)"),
                )
            })
    }

    fn join<T>(&self, writer: JoinHandle<io::Result<T>>) -> Result<T, CliError> {
        match writer.join() {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(self.failure(&error, "during sending")),
            Err(_) => Err(CliError::new(
                CliErrorKind::Internal,
                "the thread that writes has panicked",
            )),
        }
    }

    /// Reads as many bytes as were sent, and compares them as they come. `offset` is where `sent` begins in `what`.
    fn compare(
        &mut self,
        sent: &[u8],
        offset: u64,
        what: &str,
        mut each: impl FnMut(&[u8]) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let mut came = 0;
        while came < sent.len() {
            let wanted = (sent.len() - came).min(self.buffer.len());
            let progress = || {
                format!(
                    "after {} of {what} had come back",
                    plural(offset + came as u64, "byte")
                )
            };
            let length = match (&self.peer.socket).read(&mut self.buffer[..wanted]) {
                Ok(0) => {
                    let end = io::Error::from(ErrorKind::UnexpectedEof);
                    return Err(self.failure(&end, &progress()).into());
                }
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failure(&error, &progress()).into()),
            };
            let received = &self.buffer[..length];
            if let Some((place, bytes)) = text::first_difference(&sent[came..], received) {
                let place = offset + (came + place) as u64;
                let text = format!(
                    "{}: {what} came back changed: at byte {place}, counted from 0, {bytes}",
                    self.peer.endpoint
                );
                return Err(CliError::new(CliErrorKind::Mismatch, text).into());
            }
            each(received)?;
            came += length;
        }
        Ok(())
    }

    /// Expects FIN from the server: everything has come back, and the client has sent its own FIN.
    fn end(&mut self) -> Result<(), CliError> {
        loop {
            return match (&self.peer.socket).read(&mut self.buffer) {
                Ok(0) => Ok(()),
                Ok(extra) => {
                    let text = format!(
                        "{}: everything came back, and then {} too many: '{}'",
                        self.peer.endpoint,
                        plural(extra as u64, "byte"),
                        self.buffer[..extra.min(16)].escape_ascii()
                    );
                    Err(CliError::new(CliErrorKind::Mismatch, text))
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => Err(self.failure(
                    &error,
                    "to the FIN of the client, after everything had come back",
                )),
            };
        }
    }

    fn failure(&self, error: &io::Error, when: &str) -> CliError {
        connect::failure(&self.peer.endpoint, self.plan.timeout, error, when)
    }
}

/// Sends FIN. If the server has reset the connection (ENOTCONN), the next read reports that.
fn finish(socket: &Socket) -> io::Result<()> {
    match socket.shutdown(Shutdown::Write) {
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
        result => result,
    }
}

/// Copies the input to the socket, and tells of each chunk before it is written, so that the reader never sees a byte
/// that it does not expect. Errors of the socket are its own; one of the input is returned as a value.
fn copy(
    input: &mut BlockingStdio,
    mut socket: &Socket,
    sent: &SyncSender<Chunk>,
) -> io::Result<Option<io::Error>> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let length = match input.read(&mut buffer) {
            Ok(0) => return Ok(None),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Ok(Some(error)),
        };
        if sent.send(buffer[..length].into()).is_err() {
            return Ok(None); // the comparing thread has ended with a failure of its own
        }
        socket.write_all(&buffer[..length])?;
    }
}

fn cannot_read(error: &io::Error) -> CliError {
    CliError::new(
        CliErrorKind::Io,
        format!("cannot read standard input: {error}"),
    )
}
