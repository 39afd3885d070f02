//! Why a blocking server could not start, with the value that is wrong and the remedy.
//!
//! [`echo::StartError`](crate::echo::StartError) answers the same questions by the same functions, but is another type: its
//! server needs an epoll instance, and this one refuses what only the event loop has. One type for both would make every
//! caller handle reasons that cannot occur.

use crate::limits::LimitError;
use crate::net::{Address, AddressError, BindError};
use std::fmt;
use std::io;

/// Why a server could not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// A text is not an address.
    Address(AddressError),
    /// A limit is out of range.
    Limit(LimitError),
    /// The address is one of datagrams, which have no connections.
    Datagrams(Address),
    /// The iterative model serves one listener, and the addresses mean this many.
    OneAddress(usize),
    /// This limit decides by the address of a client, and the blocking models admit every client.
    Admission(&'static str),
    /// No address was given, or one could not be bound.
    Bind(BindError),
}

impl StartError {
    /// The limit that is out of range, if that is the reason.
    #[must_use]
    pub fn limit(&self) -> Option<&LimitError> {
        match self {
            Self::Limit(error) => Some(error),
            _ => None,
        }
    }

    /// The address that is not served or could not be bound, if that is the reason.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        match self {
            Self::Datagrams(address) => Some(address.clone()),
            Self::Bind(error) => error.address(),
            Self::Address(_) | Self::Limit(_) | Self::OneAddress(_) | Self::Admission(_) => None,
        }
    }

    /// The error of the resolver or of the system call, if one failed.
    #[must_use]
    pub fn io_error(&self) -> Option<&io::Error> {
        match self {
            Self::Bind(error) => error.io_error(),
            _ => None,
        }
    }

    /// The kind of [`io_error`](Self::io_error); `InvalidInput` for what is refused before any call.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Bind(error) => error.kind(),
            _ => io::ErrorKind::InvalidInput,
        }
    }
}

/// For programs whose own functions return [`io::Result`]: the kind and the text stay.
impl From<StartError> for io::Error {
    fn from(error: StartError) -> Self {
        Self::new(error.kind(), error)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(error) => write!(f, "{error}"),
            Self::Limit(error) => write!(f, "{error}"),
            Self::Datagrams(address) => write!(
                f,
                "{address} is an address of datagrams, and the blocking models serve connections; use the reactor model, \
                 or a tcp:// or unix:// address"
            ),
            Self::OneAddress(several) => write!(
                f,
                "the iterative model serves one address, and there are {several}; name a single one (a name like localhost may \
                 have several: write 127.0.0.1 or [::1])"
            ),
            Self::Admission(limit) => write!(
                f,
                "{limit}: the blocking models admit every client, and leave the rest in the accept queue; use the reactor model"
            ),
            Self::Bind(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // Their texts are part of this one.
            Self::Address(error) => error.source(),
            Self::Limit(error) => error.source(),
            Self::Bind(error) => error.source(),
            Self::Datagrams(_) | Self::OneAddress(_) | Self::Admission(_) => None,
        }
    }
}
