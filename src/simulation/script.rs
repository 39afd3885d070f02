//! A scripted socket, and one connection driven by every script of up to six calls.

use super::choices::Choices;
use crate::echo::connection::{Connection, Outcome, Wait};
use crate::echo::read_buffer::ReadBuffer;
use crate::limits::Limits;
use crate::net::{Peer, Stream};
use crate::reactor::Readiness;
use crate::stats::{CloseReason, Stats};
use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;

/// The result of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// As many bytes as fit.
    All,
    /// One byte.
    One,
    Fail(ErrorKind),
    /// FIN. Only reads see it.
    End,
}

const READS: [Act; 6] = [
    Act::End, // the first choice: it follows when the script is over
    Act::All,
    Act::One,
    Act::Fail(ErrorKind::WouldBlock),
    Act::Fail(ErrorKind::Interrupted),
    Act::Fail(ErrorKind::ConnectionReset),
];
const WRITES: [Act; 5] = [
    Act::All,
    Act::One,
    Act::Fail(ErrorKind::WouldBlock),
    Act::Fail(ErrorKind::Interrupted),
    Act::Fail(ErrorKind::BrokenPipe),
];

/// The scripted socket: it asks the choices for the result of each call, and records what passed through it.
#[derive(Debug)]
struct Script {
    choices: Choices,
    /// How many bytes were read from it. The i-th byte is `i % 251`.
    received: usize,
    /// The bytes that were written to it.
    echoed: Vec<u8>,
    last_read: Option<Act>,
    finished: bool,
    short_read_means_empty: bool,
    send_room: usize,
}

#[derive(Clone, Debug)]
struct Socket(Rc<RefCell<Script>>);

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut script = self.0.borrow_mut();
        let act = READS[script.choices.choose(READS.len())];
        script.last_read = Some(act);
        let count = match act {
            Act::All => buffer.len(),
            Act::One => 1,
            Act::End => 0,
            Act::Fail(kind) => return Err(kind.into()),
        };
        for byte in &mut buffer[..count] {
            *byte = (script.received % 251) as u8;
            script.received += 1;
        }
        Ok(count)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut script = self.0.borrow_mut();
        assert!(!script.finished, "written after FIN");
        assert!(!bytes.is_empty(), "a write of nothing is a wasted call");
        let count = match WRITES[script.choices.choose(WRITES.len())] {
            Act::All => bytes.len(),
            Act::One => 1,
            Act::End => unreachable!("no write sees FIN"),
            Act::Fail(kind) => return Err(kind.into()),
        };
        script.echoed.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Socket {
    fn short_read_means_empty(&self) -> bool {
        self.0.borrow().short_read_means_empty
    }

    fn send_room(&self) -> usize {
        self.0.borrow().send_room
    }

    fn shutdown_write(&self) -> io::Result<()> {
        self.0.borrow_mut().finished = true;
        Ok(())
    }

    fn reset_on_close(&self) {}

    fn peer(&self) -> Peer {
        Peer::Unnamed
    }
}

const READ_BUFFER_BYTES: usize = 3;

/// The read buffer of a script, the budget of a turn, and the most that may be unsent.
fn reads(send_room: usize) -> (ReadBuffer, usize, usize) {
    let (budget, unsent_max) = match send_room {
        0 => (2 * READ_BUFFER_BYTES, READ_BUFFER_BYTES),
        // A long read takes all of the budget, and the write that follows may take less, whatever was said before.
        _ => (4 * READ_BUFFER_BYTES, 4 * READ_BUFFER_BYTES),
    };
    let limits = Limits {
        read_buffer_bytes: READ_BUFFER_BYTES,
        read_budget_bytes: budget,
        ..Limits::default()
    };
    (ReadBuffer::new(&limits), budget, unsent_max)
}

/// Drives one connection along one script, from its first event to its end, and checks the invariants after every step.
pub(crate) fn run(
    choices: Choices,
    readiness: Readiness,
    short_read_means_empty: bool,
    server_closes: bool,
    send_room: usize,
) -> Choices {
    let socket = Socket(Rc::new(RefCell::new(Script {
        choices,
        received: 0,
        echoed: Vec::new(),
        last_read: None,
        finished: false,
        short_read_means_empty,
        send_room,
    })));
    let mut connection = Connection::new(socket.clone());
    let mut stats = Stats::default();
    let (mut buffer, budget, unsent_max) = reads(send_room);
    stats.open();
    let reason = loop {
        let outcome = connection.advance(readiness, &mut buffer, budget, &mut stats);
        let script = socket.0.borrow();
        let prefix = script
            .echoed
            .iter()
            .enumerate()
            .all(|(i, &byte)| byte == (i % 251) as u8);
        assert!(prefix, "echoed is a prefix of received: {script:?}");
        assert!(
            connection.unsent_bytes() <= unsent_max,
            "no more than a read is unsent"
        );
        assert_eq!(stats.bytes_in, script.received as u64);
        assert_eq!(stats.bytes_out, script.echoed.len() as u64);
        assert_eq!(stats.unsent_bytes, connection.unsent_bytes() as u64);
        match outcome {
            Outcome::Done(reason) => break reason,
            Outcome::Yield => assert_eq!(
                connection.unsent_bytes(),
                0,
                "no read follows while bytes are unsent"
            ),
            Outcome::Wait(wait) => assert_eq!(wait, connection.waits_for()),
            Outcome::ReadHeader | Outcome::Answer => panic!("bytes are echoed"),
            Outcome::KeepReading => {
                assert_eq!(connection.waits_for(), Wait::Reading);
                // A connection may stop reading only when the socket is known to be empty: no further event would
                // report left bytes.
                let empty = script.last_read == Some(Act::Fail(ErrorKind::WouldBlock))
                    || readiness == Readiness::Normal
                        && short_read_means_empty
                        && script.last_read == Some(Act::One);
                assert!(empty, "stopped before the socket was empty: {script:?}");
            }
        }
        if server_closes && script.choices.is_exhausted() {
            drop(script);
            connection.begin_close();
        }
    };
    stats.close(reason, connection.unsent_bytes());
    assert_eq!(stats.check_invariants(), Ok(()));
    drop(connection);
    let script = Rc::into_inner(socket.0)
        .expect("the connection is dropped")
        .into_inner();
    check_end(reason, &script, &stats);
    script.choices
}

fn check_end(reason: CloseReason, script: &Script, stats: &Stats) {
    match reason {
        CloseReason::PeerClosed | CloseReason::ShutDown => {
            assert_eq!(script.last_read, Some(Act::End), "a clean end follows FIN");
            assert_eq!(stats.bytes_out + stats.discarded, stats.bytes_in);
            assert!(
                reason == CloseReason::ShutDown || stats.discarded == 0,
                "a clean end has echoed everything"
            );
        }
        CloseReason::Reset => {}
        other => panic!("no script leads to {other:?}"),
    }
}

#[cfg(test)]
#[track_caller]
fn run_all(
    readiness: Readiness,
    short_read_means_empty: bool,
    server_closes: bool,
    send_room: usize,
) {
    let mut choices = Choices::new(6);
    let mut scripts = 1;
    loop {
        choices = run(
            choices,
            readiness,
            short_read_means_empty,
            server_closes,
            send_room,
        );
        if !choices.next_path() {
            break;
        }
        scripts += 1;
    }
    assert!(scripts > 5_000, "only {scripts} scripts");
}

#[test]
fn all_scripts_of_a_socket_where_a_short_read_means_empty() {
    run_all(Readiness::Normal, true, false, 0);
}

#[test]
fn all_scripts_of_a_socket_with_more_bytes_after_a_short_read() {
    run_all(Readiness::Normal, false, false, 0);
}

#[test]
fn all_scripts_of_a_socket_that_is_ending() {
    run_all(Readiness::Exceptional, true, false, 0);
}

#[test]
fn all_scripts_of_a_socket_that_the_server_closes() {
    run_all(Readiness::Normal, true, true, 0);
}

#[test]
fn all_scripts_of_a_socket_that_has_room_for_a_long_read() {
    for (readiness, short_read_means_empty) in [
        (Readiness::Normal, true),
        (Readiness::Normal, false),
        (Readiness::Exceptional, true),
    ] {
        run_all(readiness, short_read_means_empty, false, usize::MAX);
    }
}
