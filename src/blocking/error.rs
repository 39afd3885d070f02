//! Why a blocking server could not start, in words that name the value and the remedy. Nothing else may live here.

use crate::limits::LimitError;
use crate::net::{Address, Endpoint};
use std::fmt;
use std::io;

/// Why a server could not start.
#[derive(Debug)]
pub enum StartError {
    /// A limit is out of range.
    Limit(LimitError),
    /// No address was given.
    NoAddress,
    /// The address is one of datagrams, which have no connections to give a thread to.
    Datagrams(Address),
    /// One at a time means one listener as well, and there would be so many.
    OneAddress(usize),
    /// A name could not be resolved.
    Resolve(Address, io::Error),
    /// An address could not be bound.
    Bind(Endpoint, io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit(error) => write!(f, "{error}"),
            Self::NoAddress => write!(
                f,
                "no address to listen at; give one, for example 127.0.0.1:50007"
            ),
            Self::Datagrams(address) => write!(
                f,
                "{address} is an address of datagrams, and the blocking models serve connections; use the reactor model, \
                 or a tcp:// or unix:// address"
            ),
            Self::OneAddress(several) => write!(
                f,
                "one at a time serves one address, and there are {several}; name a single one (a name like localhost may \
                 have several: write 127.0.0.1 or [::1])"
            ),
            Self::Resolve(address, error) => write!(
                f,
                "cannot resolve {address}: {error}; check the name, or give an IP address"
            ),
            Self::Bind(endpoint, error) => {
                write!(f, "cannot listen at {endpoint}: {error}")?;
                match error.kind() {
                    // A Unix socket's error says what to do by itself.
                    io::ErrorKind::AddrInUse if matches!(endpoint, Endpoint::Tcp(_)) => write!(
                        f,
                        "; stop the server that has it, or use another port (0 picks a free one)"
                    ),
                    io::ErrorKind::PermissionDenied => write!(
                        f,
                        "; use a port from 1024 up, or a directory that you may write to"
                    ),
                    io::ErrorKind::AddrNotAvailable => write!(
                        f,
                        "; use an address that this machine has, or leave out the host for all of them"
                    ),
                    io::ErrorKind::NotFound => {
                        write!(f, "; make the directory first, or use another path")
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Limit(error) => Some(error),
            Self::Resolve(_, error) | Self::Bind(_, error) => Some(error),
            Self::NoAddress | Self::Datagrams(_) | Self::OneAddress(_) => None,
        }
    }
}
