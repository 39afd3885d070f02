//! A worker process: this program again, with `--worker`, which has one thread and does nothing but the load.
//!
//! Its plan comes as a line on standard input, and control after it; its messages go as lines to standard output, all in
//! the messages of [`super::ipc`]. What may live in this file: those two pipes. What may not: figures.
//!
//! Neither pipe is ever waited for while the load is on. Control are looked for, and are nearly never there. A message
//! that the pipe has no room for, since the parent process was stopped or is slow, is kept, and sent later.

use super::ipc;
use crate::cli::descriptors;
use crate::cli::error::{CliError, CliErrorKind, Exit};
use crate::cli::own_program;
use crate::load::{self, Control, ControlChannel, Message, Plan, monotonic_ns, preflight};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::fd::AsFd;

/// All workers are ready: begin, at the time of the monotonic clock that follows, in nanoseconds; without one, at once.
pub(super) const GO: &str = "go";
/// End now, with a report.
pub(super) const STOP: &str = "stop";

/// Runs a worker process from its plan to its last message.
pub(super) fn work() -> Result<Exit, CliError> {
    own_program::restore_name();
    let descriptors = descriptors::raise();
    let mut pipes = Pipes::new(io::stdin(), io::stdout()).map_err(|error| broken(&error))?;
    pipes.tell(&Message::Hello(env!("CARGO_PKG_VERSION").into()));
    let mut line = String::new();
    let _ = pipes.control.read_line(&mut line);
    let plan: Plan = ipc::read(&line)
        .ok_or_else(|| CliError::usage("--worker is for this program's own use"))?;
    pipes.never_wait().map_err(|error| broken(&error))?;
    match preflight::check(&plan, 1, descriptors) {
        Ok(()) => load::run(&plan, &mut pipes),
        Err(why) => pipes.tell(&Message::Failed(why)),
    }
    pipes.account_connections();
    Ok(Exit::Ok)
}

fn broken(error: &io::Error) -> CliError {
    CliError::new(
        CliErrorKind::System,
        format!("a worker has no pipes: {error}"),
    )
}

fn set_flags(pipe: &File, flags: OFlag) -> io::Result<()> {
    fcntl(pipe, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

/// Standard input and standard output, as files that can say that they would have to wait.
#[derive(Debug)]
struct Pipes {
    control: BufReader<File>,
    messages: File,
    /// A command that has not come whole.
    begun: Vec<u8>,
    so_far: Control,
    /// What the pipe had no room for yet.
    unsent: Vec<u8>,
}

impl Pipes {
    fn new(control: impl AsFd, messages: impl AsFd) -> io::Result<Self> {
        Ok(Self {
            control: BufReader::new(control.as_fd().try_clone_to_owned()?.into()),
            messages: messages.as_fd().try_clone_to_owned()?.into(),
            begun: Vec::new(),
            so_far: Control::default(),
            unsent: Vec::new(),
        })
    }

    fn never_wait(&self) -> io::Result<()> {
        set_flags(self.control.get_ref(), OFlag::O_NONBLOCK)?;
        set_flags(&self.messages, OFlag::O_NONBLOCK)
    }

    /// Sends what there is room for.
    fn send(&mut self) {
        while !self.unsent.is_empty() {
            match self.messages.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The read end is closed; the end of the commands follows soon.
                Err(_) => self.unsent.clear(),
            }
        }
    }

    /// Sends the rest, for as long as that takes: the load is over.
    fn account_connections(&mut self) {
        let waits = set_flags(&self.messages, OFlag::empty());
        // With the read end closed there is nothing left to send to.
        let _ = waits.and_then(|()| self.messages.write_all(&self.unsent));
    }
}

/// When the load begins: a worker of another machine has another clock, and begins when the order comes.
fn go_at(order: &[u8]) -> Option<u64> {
    let order = std::str::from_utf8(order).ok()?;
    match order.trim_end().strip_prefix(GO)?.trim_start() {
        "" => Some(monotonic_ns()),
        at => at.parse().ok(),
    }
}

impl ControlChannel for Pipes {
    fn control(&mut self) -> Control {
        self.send();
        loop {
            match self.control.read_until(b'\n', &mut self.begun) {
                Ok(_) if self.begun.ends_with(b"\n") => {
                    match go_at(&self.begun) {
                        Some(at) => self.so_far.go = Some(at),
                        None => self.so_far.stop = true,
                    }
                    self.begun.clear();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.so_far,
                // The parent process has ended. (An interruption is not among the errors: the call is repeated.)
                Ok(_) | Err(_) => {
                    self.so_far.stop = true;
                    return self.so_far;
                }
            }
        }
    }

    fn tell(&mut self, message: &Message) {
        ipc::write(message, &mut self.unsent);
        self.send();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::Shutdown;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::thread;

    /// A worker's pipes, and the other ends.
    fn pipes() -> (Pipes, UnixStream, UnixStream) {
        let (control, master) = UnixStream::pair().unwrap();
        let (messages, reader) = UnixStream::pair().unwrap();
        let pipes = Pipes::new(control, messages).unwrap();
        pipes.never_wait().unwrap();
        (pipes, master, reader)
    }

    #[test]
    fn commands_are_taken_as_they_come_and_their_end_is_a_stop() {
        let (mut pipes, mut master, _reader) = pipes();
        let none = Control::default();
        assert_eq!(pipes.control(), none);
        master.write_all(b"g").unwrap();
        assert_eq!(pipes.control(), none, "half of a command is none");
        master.write_all(b"o 5\n").unwrap();
        let go = Control {
            go: Some(5),
            stop: false,
        };
        assert_eq!((pipes.control(), pipes.control()), (go, go));
        drop(master);
        assert!(pipes.control().stop, "the end of the commands is a stop");
    }

    /// The clock of another machine means nothing here.
    #[test]
    fn an_order_to_begin_without_a_time_is_for_now() {
        let (mut pipes, mut master, _reader) = pipes();
        let before = monotonic_ns();
        writeln!(master, "{GO}").unwrap();
        let go = pipes.control().go.unwrap();
        assert!((before..=monotonic_ns()).contains(&go));
    }

    #[test]
    fn a_stop_may_come_together_with_a_go() {
        let (mut pipes, mut master, _reader) = pipes();
        writeln!(master, "{GO} 7\n{STOP}").unwrap();
        let both = Control {
            go: Some(7),
            stop: true,
        };
        assert_eq!(pipes.control(), both);
    }

    #[test]
    fn messages_wait_for_room_while_the_worker_does_not() {
        let (mut pipes, _master, mut reader) = pipes();
        let count = 50_000;
        for open in 0..count {
            pipes.tell(&Message::Opening(open));
        }
        assert!(!pipes.unsent.is_empty(), "more than the pipe has room for");
        let reading = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        pipes.account_connections();
        UnixStream::from(OwnedFd::from(pipes.messages))
            .shutdown(Shutdown::Write)
            .unwrap();
        let text = reading.join().unwrap();
        let told = text.lines().map(|line| match ipc::read(line) {
            Some(Message::Opening(open)) => open,
            other => panic!("{other:?}"),
        });
        assert!(told.eq(0..count), "every one, once, and in order");
    }

    #[test]
    fn messages_are_dropped_when_the_read_end_is_closed() {
        let (mut pipes, _master, reader) = pipes();
        drop(reader);
        pipes.tell(&Message::Opening(1));
        assert!(pipes.unsent.is_empty());
    }
}
