//! The loop of one connection against a socket that follows a script.

use super::*;
use std::collections::VecDeque;

/// What the scripted socket does at the next call.
#[derive(Clone, Debug)]
enum Step {
    Read(&'static [u8]),
    Write(usize),
    Fail(io::ErrorKind),
}

/// A socket that follows a script, and records what was written to it.
#[derive(Debug)]
struct Scripted {
    steps: VecDeque<Step>,
    written: Vec<u8>,
}

impl Read for &mut Scripted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.steps.pop_front() {
            None => Ok(0),
            Some(Step::Read(bytes)) => (&mut &*bytes).read(buffer),
            Some(Step::Fail(kind)) => Err(kind.into()),
            Some(step) => panic!("a read, and the script says {step:?}"),
        }
    }
}

impl Write for &mut Scripted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.steps.pop_front() {
            Some(Step::Write(most)) => {
                let length = most.min(bytes.len());
                self.written.extend(&bytes[..length]);
                Ok(length)
            }
            Some(Step::Fail(kind)) => Err(kind.into()),
            step => panic!("a write, and the script says {step:?}"),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[track_caller]
fn check(steps: Vec<Step>, reason: CloseReason, written: &[u8], unsent: usize) {
    let mut socket = Scripted {
        steps: steps.into(),
        written: Vec::new(),
    };
    let mut own = Stats::default();
    own.open();
    let ended = connection::echo(&mut socket, &Peer::Unnamed, &mut [0; 8], &mut own);
    assert_eq!((ended, &socket.written[..]), (reason, written));
    assert_eq!(own.unsent_bytes, unsent as u64);
    own.close(ended, unsent);
    assert_eq!(own.check_invariants(), Ok(()));
    assert!(socket.steps.is_empty(), "left over: {socket:?}");
}

#[test]
fn one_connection_handles_every_result_of_its_socket() {
    use Step::{Fail, Read, Write};
    use io::ErrorKind::{BrokenPipe, ConnectionReset, Interrupted, TimedOut, WouldBlock};

    check(vec![], CloseReason::PeerClosed, b"", 0);
    check(
        vec![Read(b"abc"), Write(9)],
        CloseReason::PeerClosed,
        b"abc",
        0,
    );
    // Interrupted calls are repeated; short writes continue where they ended.
    check(
        vec![
            Fail(Interrupted),
            Read(b"abc"),
            Write(1),
            Fail(Interrupted),
            Write(1),
            Write(1),
        ],
        CloseReason::PeerClosed,
        b"abc",
        0,
    );
    check(
        vec![Read(b"a"), Write(1), Fail(WouldBlock)],
        CloseReason::Idle,
        b"a",
        0,
    );
    check(vec![Fail(ConnectionReset)], CloseReason::Reset, b"", 0);
    check(vec![Fail(TimedOut)], CloseReason::PeerTimeout, b"", 0);
    // What was not sent stays unsent.
    let in_vain = || Fail(WouldBlock);
    check(
        vec![Read(b"abc"), Write(1), in_vain(), in_vain(), in_vain()],
        CloseReason::WriteStall,
        b"a",
        2,
    );
    // A call that waits in vain does not say that the peer has taken nothing meanwhile.
    let slowly = [in_vain(), in_vain(), Write(1)];
    let mut steps = vec![Read(b"abc")];
    steps.extend([slowly.clone(), slowly.clone(), slowly].concat());
    check(steps, CloseReason::PeerClosed, b"abc", 0);
    check(
        vec![Read(b"abc"), Fail(BrokenPipe)],
        CloseReason::Reset,
        b"",
        3,
    );
    check(
        vec![Read(b"abc"), Write(2), Write(0)],
        CloseReason::Error,
        b"ab",
        1,
    );
}
