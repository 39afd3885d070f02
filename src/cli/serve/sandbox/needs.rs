//! What a server needs inside the sandbox, and what became of the restrictions.

use crate::net::{Endpoint, UnixName};
use std::path::{Path, PathBuf};

/// What this server needs inside the sandbox beyond what every server needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Directories of the files that it removes at the end: socket files, and that of `--pid-file`.
    pub(super) directories: Vec<PathBuf>,
    /// Whether it sends datagrams to abstract names: to clients of a Unix datagram socket, or to a service manager.
    pub(super) sends_to_names: bool,
}

/// The result of restricting the process, in words for the log.
#[derive(Debug, Default)]
pub(super) struct Restrictions {
    pub(super) applied: Vec<String>,
    pub(super) missing: Vec<String>,
}

impl Needs {
    pub(super) fn of(endpoints: &[Endpoint], pid_file: Option<&Path>) -> Self {
        let mut needs = Self::default();
        needs.directories.extend(pid_file.map(directory_of));
        for endpoint in endpoints {
            if let Endpoint::Unix(UnixName::Path(path))
            | Endpoint::UnixDatagram(UnixName::Path(path)) = endpoint
            {
                needs.directories.push(directory_of(path));
            }
            needs.sends_to_names |= matches!(endpoint, Endpoint::UnixDatagram(_));
        }
        needs
    }
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(directory) if directory.as_os_str().is_empty() => PathBuf::from("."),
        Some(directory) => directory.to_owned(),
        None => PathBuf::from("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_needs_only_the_directories_of_its_files() {
        let endpoint = |text: &str| {
            let address: crate::net::Address = text.parse().unwrap();
            address.resolve().unwrap().remove(0)
        };
        let plain = ["127.0.0.1:0", "udp://127.0.0.1:0", "unix://@name"].map(endpoint);
        assert_eq!(Needs::of(&plain, None), Needs::default());
        let files = ["unix:///run/a", "unixgram:///tmp/b"].map(endpoint);
        let needs = Needs {
            directories: [".", "/run", "/tmp"].map(PathBuf::from).to_vec(),
            sends_to_names: true,
        };
        assert_eq!(Needs::of(&files, Some(Path::new("pid"))), needs);
    }
}
