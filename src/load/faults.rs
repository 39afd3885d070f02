//! What can go wrong with a connection or a datagram, and the first fault of each kind.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::io;

/// What can go wrong with a connection or a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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

/// Its name, as machines read it.
impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
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
        write!(f, "{}: {}", self.kind, self.text)
    }
}

/// How often a kind of fault came, and the text of the first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counted {
    count: u64,
    first: String,
}

/// How often each kind of fault came, and the text of the first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults(BTreeMap<FaultKind, Counted>);

impl Faults {
    pub(super) fn note(&mut self, fault: &Fault, context: impl FnOnce() -> String) {
        let text = || format!("{}: {}", context(), fault.text);
        self.count_up(fault.kind, 1, text);
    }

    /// Adds a number of faults of a kind, with the text of the first.
    pub fn add(&mut self, kind: FaultKind, more: u64, text: &str) {
        self.count_up(kind, more, || text.to_owned());
    }

    fn count_up(&mut self, kind: FaultKind, more: u64, first: impl FnOnce() -> String) {
        let counted = self.0.entry(kind).or_insert_with(|| Counted {
            count: 0,
            first: first(),
        });
        counted.count = counted.count.saturating_add(more);
    }

    /// The faults that came, in the order in which their kinds are declared: kind, number, and the text of the first.
    pub fn iter(&self) -> impl Iterator<Item = (FaultKind, u64, &str)> {
        let all = self.0.iter();
        all.map(|(kind, counted)| (*kind, counted.count, counted.first.as_str()))
    }

    /// How many of one kind.
    #[must_use]
    pub fn count(&self, kind: FaultKind) -> u64 {
        self.0.get(&kind).map_or(0, |counted| counted.count)
    }

    /// How many of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        let counts = self.0.values().map(|counted| counted.count);
        counts.fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_counted_by_kind_and_the_first_is_kept() {
        let mut faults = Faults::default();
        for kind in [FaultKind::NoPort, FaultKind::Mismatch, FaultKind::Io] {
            faults.add(kind, 2, "first");
            faults.add(kind, 1, "second");
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.to_string());
        }
        let told: Vec<_> = faults.iter().collect();
        assert_eq!(told[0], (FaultKind::Mismatch, 3, "first"));
        assert_eq!((told.len(), faults.total()), (3, 9));
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
