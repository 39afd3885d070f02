//! A small blocking echo server over TCP that is wrong in one way: what `bench` must not be silent about.

use super::unique;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// The one way in which it is wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mutation {
    /// None.
    Right,
    /// Every connection has so many answers, and no more.
    FreezeAll { after: u64 },
    /// One connection has so many answers, and no more: the number is that of its accept, from 0 on.
    FreezeOne { number: u64, after: u64 },
    /// Nothing is read at all, from the first byte on.
    Silent,
    /// After so many answers, all connections wait for so long, once.
    Stall { after: u64, lasts: Duration },
    /// Each answer comes so late.
    Late(Duration),
    /// With the connection of this number the whole server ends.
    DieAt(u64),
    /// Every so manieth connection is closed without an answer.
    DropOneIn(u64),
    /// After so many answers, half of the next one comes, and nothing more.
    HalfAnswer { after: u64 },
    /// After so many answers, half of the next one comes, and then the end.
    HalfAnswerAndEnd { after: u64 },
}

/// What happened at a server's side, by now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) resets: Arc<AtomicU64>,
    pub(crate) ends: Arc<AtomicU64>,
}

/// Starts a server, which lives as long as the test process, and says where it listens.
pub(crate) fn mutant(mutation: Mutation) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let seen = Seen::default();
    let server = Arc::new(Server {
        mutation,
        answers: AtomicU64::new(0),
        streams: Mutex::new(Vec::new()),
        stalled: Mutex::new(false),
    });
    let told = seen.clone();
    let accept = move || {
        for (number, stream) in (0..).zip(listener.incoming().map_while(Result::ok)) {
            if mutation == Mutation::DieAt(number) {
                return server.die();
            }
            server.keep(&stream);
            let (server, seen) = (Arc::clone(&server), told.clone());
            thread::spawn(move || match server.serve(stream, number) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    seen.resets.fetch_add(1, Ordering::Relaxed)
                }
                _ => seen.ends.fetch_add(1, Ordering::Relaxed),
            });
        }
    };
    thread::Builder::new().name(unique()).spawn(accept).unwrap();
    (address, seen)
}

struct Server {
    mutation: Mutation,
    answers: AtomicU64,
    /// The connections of a server that is going to die.
    streams: Mutex<Vec<TcpStream>>,
    stalled: Mutex<bool>,
}

impl Server {
    fn keep(&self, stream: &TcpStream) {
        if let (Mutation::DieAt(_), Ok(stream)) = (self.mutation, stream.try_clone()) {
            let streams = self.streams.lock();
            streams.unwrap_or_else(PoisonError::into_inner).push(stream);
        }
    }

    fn die(&self) {
        let streams = self.streams.lock();
        for stream in streams.unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn serve(&self, mut stream: TcpStream, number: u64) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut buffer = vec![0; 64 * 1024];
        for turn in 0.. {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            let bytes = &buffer[..count];
            let half = &bytes[..count / 2];
            match self.mutation {
                Mutation::Silent => return freeze(&stream),
                Mutation::DropOneIn(n) if number % n == n - 1 => return Ok(()),
                Mutation::FreezeAll { after } if turn >= after => return freeze(&stream),
                Mutation::FreezeOne { number: one, after } if number == one && turn >= after => {
                    return freeze(&stream);
                }
                Mutation::HalfAnswer { after } if turn >= after => {
                    stream.write_all(half)?;
                    return freeze(&stream);
                }
                Mutation::HalfAnswerAndEnd { after } if turn >= after => {
                    return stream.write_all(half);
                }
                Mutation::Late(time) => thread::sleep(time),
                Mutation::Stall { after, lasts } => self.stall(after, lasts),
                _ => {}
            }
            stream.write_all(bytes)?;
        }
        Ok(())
    }

    /// A connection that comes here while the lock is held waits for the end of the stall, too.
    fn stall(&self, after: u64, lasts: Duration) {
        let answers = self.answers.fetch_add(1, Ordering::Relaxed);
        let mut stalled = self.stalled.lock().unwrap_or_else(PoisonError::into_inner);
        if answers >= after && !*stalled {
            *stalled = true;
            thread::sleep(lasts);
        }
    }
}

/// Reads without an answer, until the client goes.
fn freeze(mut stream: &TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer)? > 0 {}
    Ok(())
}
