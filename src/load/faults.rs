//! What can go wrong with a connection or a datagram, and the first fault of each kind.

use std::fmt;
use std::io;

/// What can go wrong with a connection or a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Something else came back than what was sent.
    Mismatch,
    /// More came back than was sent.
    Extra,
    /// No socket listens at the address.
    Refused,
    /// Reset by the server.
    Reset,
    /// Closed by the server before everything had come back.
    Closed,
    /// No answer in time.
    Timeout,
    /// No local address or port was free.
    NoPort,
    /// No descriptor was left.
    NoDescriptor,
    /// Any other failure.
    Io,
}

impl FaultKind {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 9] = [
        Self::Mismatch,
        Self::Extra,
        Self::Refused,
        Self::Reset,
        Self::Closed,
        Self::Timeout,
        Self::NoPort,
        Self::NoDescriptor,
        Self::Io,
    ];

    /// Its name, as machines read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mismatch => "mismatch",
            Self::Extra => "extra",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::NoPort => "no-port",
            Self::NoDescriptor => "no-descriptor",
            Self::Io => "io",
        }
    }
}

/// Something that went wrong, with its context in words.
#[derive(Debug)]
pub(super) struct Fault {
    kind: FaultKind,
    text: String,
}

impl Fault {
    pub(super) fn new(kind: FaultKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }

    pub(super) fn kind(&self) -> FaultKind {
        self.kind
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        use libc::{EADDRNOTAVAIL, EMFILE, ENFILE};
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => FaultKind::Refused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => FaultKind::Reset,
            io::ErrorKind::TimedOut => FaultKind::Timeout,
            _ => match error.raw_os_error() {
                Some(EADDRNOTAVAIL) => FaultKind::NoPort,
                Some(EMFILE | ENFILE) => FaultKind::NoDescriptor,
                _ => FaultKind::Io,
            },
        };
        Self::new(kind, error.to_string())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.text)
    }
}

/// How often each kind of fault came, and the text of the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults([(u64, Option<String>); FaultKind::ALL.len()]);

impl Faults {
    pub(super) fn note(&mut self, fault: &Fault, context: impl FnOnce() -> String) {
        let (count, first) = &mut self.0[fault.kind as usize];
        *count += 1;
        first.get_or_insert_with(|| format!("{}: {}", context(), fault.text));
    }

    /// Adds a number of faults of a kind, with the text of the first.
    pub fn add(&mut self, kind: FaultKind, more: u64, text: &str) {
        let (count, first) = &mut self.0[kind as usize];
        *count += more;
        first.get_or_insert_with(|| text.to_owned());
    }

    /// The faults that came: kind, number, and the text of the first.
    pub fn iter(&self) -> impl Iterator<Item = (FaultKind, u64, &str)> {
        let all = FaultKind::ALL.into_iter().zip(&self.0);
        all.filter(|(_, (count, _))| *count > 0)
            .map(|(kind, (count, first))| (kind, *count, first.as_deref().unwrap_or("")))
    }

    /// How many of one kind.
    #[must_use]
    pub fn count(&self, kind: FaultKind) -> u64 {
        self.0[kind as usize].0
    }

    /// How many of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(count, _)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_stand_in_their_order() {
        for (place, kind) in FaultKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
        }
    }

    #[test]
    fn limits_of_our_own_are_not_taken_for_faults_of_the_servers() {
        use libc::{EADDRNOTAVAIL, ECONNREFUSED, ECONNRESET, EMFILE, ETIMEDOUT};
        let kind = |errno| Fault::from(io::Error::from_raw_os_error(errno)).kind;
        assert_eq!(kind(EADDRNOTAVAIL), FaultKind::NoPort);
        assert_eq!(kind(EMFILE), FaultKind::NoDescriptor);
        assert_eq!(kind(ECONNREFUSED), FaultKind::Refused);
        assert_eq!(kind(ETIMEDOUT), FaultKind::Timeout);
        assert_eq!(kind(ECONNRESET), FaultKind::Reset);
    }
}
