//! Why an address could not be bound, and what to do about it.

use super::address::{Address, Endpoint};
use super::escape::Escaped;
use std::fmt;
use std::io;

/// Why an address could not be bound. Nothing stays bound then.
#[derive(Debug)]
#[non_exhaustive]
pub enum BindError {
    /// No address was given.
    NoAddress,
    /// A name could not be resolved.
    Resolve(Address, io::Error),
    /// An address could not be bound.
    Bind(Endpoint, io::Error),
    /// Two of the addresses mean the same socket.
    Twice {
        /// The address that could not be bound.
        address: Address,
        /// The address that was bound before it.
        earlier: Address,
        /// The endpoint of the earlier address.
        endpoint: Endpoint,
    },
}

impl BindError {
    /// The address that could not be resolved or bound, if there was one. A name that resolves to several endpoints is
    /// told by the endpoint that failed.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        match self {
            Self::NoAddress => None,
            Self::Resolve(address, _) | Self::Twice { address, .. } => Some(address.clone()),
            Self::Bind(endpoint, _) => Some(endpoint.clone().into()),
        }
    }

    /// The error of the resolver or of the system call, if one failed.
    #[must_use]
    pub fn io_error(&self) -> Option<&io::Error> {
        match self {
            Self::NoAddress | Self::Twice { .. } => None,
            Self::Resolve(_, error) | Self::Bind(_, error) => Some(error),
        }
    }

    /// The kind of [`io_error`](Self::io_error); `InvalidInput` without an address, `AddrInUse` for an address that was
    /// given twice.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::NoAddress => io::ErrorKind::InvalidInput,
            Self::Twice { .. } => io::ErrorKind::AddrInUse,
            Self::Resolve(_, error) | Self::Bind(_, error) => error.kind(),
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress => write!(
                f,
                "no address to listen at; name one, for example 127.0.0.1:50007"
            ),
            Self::Resolve(address, error) => write!(
                f,
                "cannot resolve {address}: {}; check the name, or give an IP address",
                Escaped::new(&error.to_string())
            ),
            Self::Twice {
                address, earlier, ..
            } if address == earlier => {
                write!(f, "{address} is named twice; leave one of them out")
            }
            Self::Twice {
                address,
                earlier,
                endpoint,
            } => write!(
                f,
                "{address} cannot be bound beside {earlier}, which has {endpoint} already; leave one of them out"
            ),
            Self::Bind(endpoint, error) => {
                write!(f, "cannot listen at {endpoint}: {error}")?;
                match error.kind() {
                    // The error of a Unix socket contains the remedy.
                    io::ErrorKind::AddrInUse
                        if matches!(endpoint, Endpoint::Tcp(_) | Endpoint::Udp(_)) =>
                    {
                        write!(
                            f,
                            "; stop the server that has it, or use another port (0 picks a free one)"
                        )
                    }
                    io::ErrorKind::PermissionDenied => {
                        write!(
                            f,
                            "; use a port from 1024 up, or a directory that you may write to"
                        )
                    }
                    io::ErrorKind::AddrNotAvailable => {
                        write!(f, "; use an address that this machine has")
                    }
                    io::ErrorKind::NotFound => write!(f, "; make the directory first"),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoAddress | Self::Twice { .. } => None,
            // Its text is part of this one.
            Self::Resolve(_, error) | Self::Bind(_, error) => error.source(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::address::UnixName;
    use super::*;
    use io::ErrorKind;

    /// One error of each kind, with what each method returns.
    #[test]
    fn an_error_tells_its_address_its_kind_and_the_remedy() {
        let address: Address = "tcp://127.0.0.1:7".parse().unwrap();
        let endpoint = Endpoint::Tcp("127.0.0.1:7".parse().unwrap());
        let twice = |earlier: &str| BindError::Twice {
            address: address.clone(),
            earlier: earlier.parse().unwrap(),
            endpoint: endpoint.clone(),
        };
        let resolve = BindError::Resolve(address.clone(), ErrorKind::TimedOut.into());
        let failed = |kind: ErrorKind| BindError::Bind(endpoint.clone(), kind.into());
        let in_use = failed(ErrorKind::AddrInUse);
        for (error, kind, has_io_error, texts) in [
            (
                BindError::NoAddress,
                ErrorKind::InvalidInput,
                false,
                ["no address", "name one"],
            ),
            (
                resolve,
                ErrorKind::TimedOut,
                true,
                ["cannot resolve tcp://127.0.0.1:7", "check the name"],
            ),
            (
                twice("tcp://127.0.0.1:7"),
                ErrorKind::AddrInUse,
                false,
                ["is named twice", "leave one"],
            ),
            (
                twice("tcp://0.0.0.0:7"),
                ErrorKind::AddrInUse,
                false,
                ["beside tcp://0.0.0.0:7", "leave one"],
            ),
            (
                in_use,
                ErrorKind::AddrInUse,
                true,
                ["tcp://127.0.0.1:7", "stop the server"],
            ),
        ] {
            let text = error.to_string();
            assert!(texts.iter().all(|part| text.contains(part)), "{text}");
            assert_eq!(
                (error.kind(), error.io_error().is_some()),
                (kind, has_io_error),
                "{text}"
            );
            let expected = (!matches!(error, BindError::NoAddress)).then(|| address.clone());
            assert_eq!(error.address(), expected, "{text}");
        }
    }

    #[test]
    fn the_remedy_follows_from_the_error_of_the_system() {
        let endpoint = Endpoint::Tcp("127.0.0.1:7".parse().unwrap());
        for (kind, remedy) in [
            (ErrorKind::PermissionDenied, "from 1024 up"),
            (ErrorKind::AddrNotAvailable, "this machine has"),
            (ErrorKind::NotFound, "make the directory"),
        ] {
            let error = BindError::Bind(endpoint.clone(), kind.into());
            let text = error.to_string();
            assert!(
                text.contains("cannot listen") && text.contains(remedy),
                "{text}"
            );
            assert_eq!((error.kind(), error.io_error().is_some()), (kind, true));
            assert_eq!(error.address(), Some("tcp://127.0.0.1:7".parse().unwrap()));
        }
        let unix = Endpoint::Unix(UnixName::Path("/tmp/s".into()));
        let in_use = BindError::Bind(unix, io::Error::new(ErrorKind::AddrInUse, "stop it"));
        assert_eq!(
            in_use.to_string(),
            "cannot listen at unix:///tmp/s: stop it"
        );
    }

    /// The text of the system's error is part of this one, so the source is what lies below that.
    #[test]
    fn the_source_is_the_cause_of_the_systems_error() {
        let not_utf8 = std::ffi::CString::new([0xff]).unwrap().into_string();
        let caused = io::Error::other(not_utf8.unwrap_err());
        let endpoint = Endpoint::Tcp("127.0.0.1:7".parse().unwrap());
        let error = BindError::Bind(endpoint, caused);
        let source = std::error::Error::source(&error).expect("there is a cause");
        assert!(source.is::<std::str::Utf8Error>(), "{source}");
        assert!(std::error::Error::source(&BindError::NoAddress).is_none());
    }
}
