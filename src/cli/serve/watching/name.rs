//! Where a server is watched: the value of `serve --watch`, and the argument of `watch`.

use crate::net::{Address, AddressError, UnixName};
use std::fmt;
use std::str::FromStr;

/// The beginning of the abstract name of a server's socket; its process number follows.
const PREFIX: &str = "echo-reactor.";
/// The word for that name.
const AUTO: &str = "auto";

/// The name of the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum WatchName {
    /// `@echo-reactor.PID`.
    OfProcess,
    /// A path, or another abstract name.
    Named(UnixName),
}

impl WatchName {
    /// The name of the socket of this process.
    pub(in crate::cli) fn unix_name(&self, process: u32) -> UnixName {
        match self {
            Self::OfProcess => UnixName::Abstract(format!("{PREFIX}{process}")),
            Self::Named(name) => name.clone(),
        }
    }

    pub(super) fn address(&self, process: u32) -> Address {
        Address::UnixDatagram(self.unix_name(process))
    }

    /// The process of an abstract name of this form.
    pub(in crate::cli) fn process_of(name: &str) -> Option<u32> {
        name.strip_prefix(PREFIX)?.parse().ok()
    }
}

impl FromStr for WatchName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == AUTO {
            return Ok(Self::OfProcess);
        }
        let name = text.strip_prefix("unixgram://").unwrap_or(text);
        match format!("unixgram://{name}").parse() {
            Ok(Address::UnixDatagram(name)) => Ok(Self::Named(name)),
            Ok(_) => Err("it is no name of a Unix socket".to_owned()),
            Err::<_, AddressError>(error) => Err(format!(
                "{error}; write for example /run/echo.watch or @echo"
            )),
        }
    }
}

impl fmt::Display for WatchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OfProcess => f.write_str(AUTO),
            Self::Named(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_path_an_abstract_name_or_that_of_the_process() {
        let name = |text: &str| text.parse::<WatchName>();
        let path = || WatchName::Named(UnixName::Path("/run/a".into()));
        assert_eq!(name("auto"), Ok(WatchName::OfProcess));
        assert_eq!(name("/run/a"), Ok(path()));
        assert_eq!(name("unixgram:///run/a"), Ok(path()));
        let of_process = name("auto").unwrap().unix_name(42);
        assert_eq!(of_process, UnixName::Abstract("echo-reactor.42".into()));
        assert_eq!(WatchName::process_of("echo-reactor.42"), Some(42));
        assert_eq!(WatchName::process_of("echo-reactor.x"), None);
        for text in ["auto", "/run/a", "@a"] {
            assert_eq!(name(text).unwrap().to_string(), text);
        }
        for wrong in ["", "a", "@", "tcp://127.0.0.1:7"] {
            let error = name(wrong).unwrap_err();
            assert!(error.contains("/run/echo.watch"), "{wrong}: {error}");
        }
    }
}
