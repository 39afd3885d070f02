//! The link between the master and one worker: a socket pair that keeps messages apart (SOCK_SEQPACKET of unix(7)).
//!
//! ```text
//! master ──▶ worker    an assignment first, in JSON; then "go", "retire", "drain", "stop", "count"
//! worker ──▶ master    {"is": "ready", "counter_file": 17}, {"is": "leaving"}, {"is": "count", ..}, {"is": "end", ..}
//! ```
//!
//! The end of either process is the end of file for the other. That is how a worker notices that its master was killed.

use super::counters::Counters;
use crate::cli::output::pause;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// The version of these messages. A program of another version takes nothing over, and is given up.
pub(super) const VERSION: u64 = 1;

/// Longest message; the default size of a socket's send buffer admits a little less.
const MESSAGE_MAX: usize = 256 * 1024;

/// How long a message waits for a reader that is busy or stopped.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// One end of the link.
#[derive(Debug)]
pub(super) struct Link(OwnedFd);

impl Link {
    /// A new link: the master's end and the worker's.
    pub(super) fn pair() -> io::Result<(Self, Self)> {
        let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
        Ok((Self(ours.into()), Self(theirs.into())))
    }

    /// Sends a message. A full queue is waited for a moment.
    ///
    /// # Errors
    /// `BrokenPipe` if the other process has ended; `WouldBlock` if it does not read.
    pub(super) fn send(&self, message: &str) -> io::Result<()> {
        let deadline = Instant::now() + SEND_TIMEOUT;
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        loop {
            match send(self.0.as_raw_fd(), message.as_bytes(), flags) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if Instant::now() < deadline => pause(Duration::from_millis(2)),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives a message if there is one; `None` if the other process has ended.
    ///
    /// # Errors
    /// `WouldBlock` if there is none.
    pub(super) fn receive(&self) -> io::Result<Option<String>> {
        self.receive_with(MsgFlags::MSG_DONTWAIT)
    }

    /// Waits for a message; `None` if the other process has ended.
    ///
    /// # Errors
    /// Those of recv(2).
    pub(super) fn wait(&self) -> io::Result<Option<String>> {
        self.receive_with(MsgFlags::empty())
    }

    /// The flag of each call decides whether it waits: inside the sandbox the descriptor cannot be changed.
    fn receive_with(&self, flags: MsgFlags) -> io::Result<Option<String>> {
        let mut bytes = vec![0; MESSAGE_MAX];
        let length = loop {
            match recv(self.0.as_raw_fd(), &mut bytes, flags) {
                Err(Errno::EINTR) => {}
                // A process that is killed with an unread message resets the link.
                Err(Errno::ECONNRESET) => return Ok(None),
                result => break result?,
            }
        };
        bytes.truncate(length);
        Ok((length > 0).then(|| String::from_utf8_lossy(&bytes).into_owned()))
    }
}

impl From<OwnedFd> for Link {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What the master tells a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Accept from now on.
    Go,
    /// Accept nothing more, and serve what is open until it ends.
    Retire,
    /// Stop gracefully.
    Drain,
    /// Stop at once.
    Stop,
    /// Report the counters.
    Count,
}

impl Command {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Go, "go"),
        (Self::Retire, "retire"),
        (Self::Drain, "drain"),
        (Self::Stop, "stop"),
        (Self::Count, "count"),
    ];

    pub(super) fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        let found = Self::ALL.into_iter().find(|(_, known)| *known == name);
        found.map(|(command, _)| command)
    }
}

/// What a worker tells the master.
#[derive(Debug)]
pub(super) enum Report {
    /// Everything is open, and the worker waits for [`Command::Go`].
    Ready {
        /// The descriptor of its [`CounterFile`](super::counter_file::CounterFile), if it has one.
        counter_file: Option<i32>,
    },
    /// The worker drains, though the master has not told it to: it got a signal.
    Leaving,
    /// The counters of now.
    Count(Counters),
    /// The last counters.
    End(Counters),
}

impl Report {
    pub(super) fn to_message(&self) -> String {
        let with_counters = |name: &str, counters: &Counters| {
            let mut message = counters.to_message();
            message["is"] = json!(name);
            message.to_string()
        };
        match self {
            Self::Ready { counter_file } => {
                json!({"is": "ready", "counter_file": counter_file}).to_string()
            }
            Self::Leaving => json!({"is": "leaving"}).to_string(),
            Self::Count(counters) => with_counters("count", counters),
            Self::End(counters) => with_counters("end", counters),
        }
    }

    /// `None` if the message is of another version.
    pub(super) fn from_message(message: &str) -> Option<Self> {
        let message: Value = serde_json::from_str(message).ok()?;
        match message["is"].as_str()? {
            "ready" => Some(Self::Ready {
                counter_file: number(&message["counter_file"]),
            }),
            "leaving" => Some(Self::Leaving),
            "count" => Some(Self::Count(Counters::from_message(&message))),
            "end" => Some(Self::End(Counters::from_message(&message))),
            _ => None,
        }
    }
}

/// A descriptor in a message, if there is one.
pub(super) fn number(value: &Value) -> Option<i32> {
    value.as_i64()?.try_into().ok()
}

/// What a worker begins with, beside its sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    /// The number of the worker, from 0 on, and how many there are.
    pub(super) worker: usize,
    pub(super) workers: usize,
    /// The addresses of its sockets, in their order. A Unix socket does not know its own: it was bound before its file was
    /// moved to its path.
    pub(super) endpoints: Vec<String>,
}

impl Assignment {
    pub(super) fn to_message(&self) -> String {
        let Self {
            worker,
            workers,
            endpoints,
        } = self;
        json!({"version": VERSION, "worker": worker, "workers": workers, "endpoints": endpoints})
            .to_string()
    }

    /// # Errors
    /// Why the message cannot be followed.
    pub(super) fn from_message(message: &str) -> Result<Self, String> {
        let message: Value = serde_json::from_str(message).map_err(|error| error.to_string())?;
        if message["version"] != VERSION {
            return Err(format!(
                "the master speaks version {}, and this program {VERSION}",
                message["version"]
            ));
        }
        let count = |name: &str| {
            let number = message[name].as_u64().map(usize::try_from);
            number
                .and_then(Result::ok)
                .ok_or(format!("no number '{name}'"))
        };
        let endpoints = message["endpoints"].as_array().into_iter().flatten();
        Ok(Self {
            worker: count("worker")?,
            workers: count("workers")?,
            endpoints: endpoints
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    #[test]
    fn messages_stay_apart_and_the_end_is_told() {
        let (master, worker) = Link::pair().unwrap();
        assert_eq!(master.receive().unwrap_err().kind(), ErrorKind::WouldBlock);
        for (command, name) in Command::ALL {
            assert_eq!(command.name(), name);
            master.send(command.name()).unwrap();
        }
        for (command, _) in Command::ALL {
            let told = worker.receive().unwrap().unwrap();
            assert_eq!(Command::named(&told), Some(command));
        }
        let long = "x".repeat(100_000);
        master.send(&long).unwrap();
        assert_eq!(worker.receive().unwrap(), Some(long));
        let ready = Report::Ready {
            counter_file: Some(17),
        };
        worker.send(&ready.to_message()).unwrap();
        drop(worker);
        let told = master.receive().unwrap().unwrap();
        let counter_file = Some(17);
        assert!(
            matches!(Report::from_message(&told), Some(Report::Ready { counter_file: told }) if told == counter_file)
        );
        let old = Report::from_message("{\"is\":\"ready\"}");
        assert!(matches!(old, Some(Report::Ready { counter_file: None })));
        assert_eq!(master.receive().unwrap(), None);
        let error = master.send(Command::Go.name()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn an_assignment_of_another_version_is_refused() {
        let assignment = Assignment {
            worker: 1,
            workers: 3,
            endpoints: vec!["unix:///tmp/a name\nof \"two\" lines".to_owned()],
        };
        let message = assignment.to_message();
        assert_eq!(Assignment::from_message(&message), Ok(assignment));
        let other = message.replace("\"version\":1", "\"version\":2");
        let error = Assignment::from_message(&other).unwrap_err();
        assert!(error.contains("version 2"), "{error}");
        assert!(Assignment::from_message("{\"version\":1}").is_err());
    }
}
