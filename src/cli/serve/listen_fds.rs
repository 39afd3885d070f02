//! Inherited sockets: from a service manager, by the convention of sd_listen_fds(3), or from the server that this process is
//! to succeed ([`super::handover`]), which uses the same convention.
//!
//! ```text
//! LISTEN_FDS=2                 two descriptors, 3 and 4
//! LISTEN_PID=4242              for process 4242 and no other; may be missing (tools such as systemfd do not know it)
//! LISTEN_FDNAMES=web:admin     a name for each; may be missing
//! ```
//!
//! Turning a number of the environment into an owned descriptor takes `unsafe`; the crate listenfd has it, with the checks
//! that make it sound. But it reports a wrong process or an invalid count as "no sockets", and the server would listen at
//! another address than intended. So the variables are checked here first, and refused by name.
//!
//! Nothing may be opened before this, or a count that is too high would take that descriptor.

use crate::cli::error::{CliError, CliErrorKind};
use crate::net::{BoundSocket, FromFdError};
use crate::procfs::own::{descriptor_path, is_open};
use listenfd::ListenFd;
use std::env;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;

/// The first descriptor after standard error.
pub(super) const FIRST: usize = 3;

/// The name of the one descriptor that is no listener: the socket to a server that hands over.
pub(super) const OLD_PROCESS: &str = "echo-reactor-predecessor";

/// The inherited descriptors.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    /// Listeners and datagram sockets to serve.
    pub(super) sockets: Vec<BoundSocket>,
    /// The socket to the server that hands over, if there is one.
    pub(super) predecessor: Option<UnixStream>,
}

/// Takes the inherited sockets, and removes the variables, so that no child process takes them for its own.
pub(super) fn take() -> Result<Inherited, CliError> {
    let names = Names::read(&|name| Some(env::var_os(name)?.to_string_lossy().into_owned()))?;
    let mut inherited = Inherited::default();
    if names.0.is_empty() {
        return Ok(inherited);
    }
    for number in FIRST..FIRST + names.0.len() {
        if is_open(number) == Some(false) {
            return Err(refused(&format!(
                "LISTEN_FDS is {}, but descriptor {number} is not open; pass as many sockets as it says, from {FIRST} on",
                names.0.len()
            )));
        }
    }
    let mut descriptors = ListenFd::from_env();
    for (index, name) in names.0.iter().enumerate() {
        let problem = |error: FromFdError| {
            refused(&format!(
                "LISTEN_FDS: descriptor {} cannot be served: {error}",
                FIRST + index
            ))
        };
        let descriptor = own(&mut descriptors, index).map_err(problem)?;
        if name.as_deref() == Some(OLD_PROCESS) {
            inherited.predecessor = Some(descriptor.into());
        } else {
            let socket = BoundSocket::from_fd(descriptor).map_err(problem)?;
            inherited.sockets.push(socket);
        }
    }
    Ok(inherited)
}

fn refused(text: &str) -> CliError {
    CliError::new(CliErrorKind::Usage, text)
}

/// Takes one descriptor. listenfd has a function for each kind of socket, so all are tried.
fn own(descriptors: &mut ListenFd, index: usize) -> Result<OwnedFd, FromFdError> {
    if let Ok(Some(listener)) = descriptors.take_tcp_listener(index) {
        return Ok(listener.into());
    }
    if let Ok(Some(listener)) = descriptors.take_unix_listener(index) {
        return Ok(listener.into());
    }
    if let Ok(Some(socket)) = descriptors.take_udp_socket(index) {
        return Ok(socket.into());
    }
    if let Ok(Some(socket)) = descriptors.take_unix_datagram(index) {
        return Ok(socket.into());
    }
    let is_socket = |file: fs::Metadata| file.file_type().is_socket();
    match fs::metadata(descriptor_path(FIRST + index)).is_ok_and(is_socket) {
        true => Err(FromFdError::Kind),
        false => Err(FromFdError::NotASocket),
    }
}

/// One entry for each descriptor: its name, if it has one.
#[derive(Debug, PartialEq, Eq)]
struct Names(Vec<Option<String>>);

impl Names {
    fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, CliError> {
        let Some(count) = variable("LISTEN_FDS") else {
            return Ok(Self(Vec::new()));
        };
        let me = std::process::id();
        match variable("LISTEN_PID") {
            Some(pid) if pid != me.to_string() => {
                return Err(refused(&format!(
                    "LISTEN_PID is '{pid}', but this is process {me}, so the sockets of LISTEN_FDS are not meant for it; \
                     start it without another process in between ('exec' in a script), or unset LISTEN_FDS and LISTEN_PID"
                )));
            }
            _ => {}
        }
        // No process has more descriptors by default, and a count that is too high fails at a closed descriptor anyway.
        let Some(count) = count.parse().ok().map(|count: u16| usize::from(count)) else {
            return Err(refused(&format!(
                "LISTEN_FDS is '{count}', and should be the number of sockets passed, 0 to 65535; correct it or unset it"
            )));
        };
        if let Some(first) = variable("LISTEN_FDS_FIRST_FD") {
            return Err(refused(&format!(
                "LISTEN_FDS_FIRST_FD is '{first}', but sockets are taken from {FIRST} on; pass them there and unset it"
            )));
        }
        let names: Vec<Option<String>> = match variable("LISTEN_FDNAMES") {
            Some(names) => names.split(':').map(|name| Some(name.to_owned())).collect(),
            None => vec![None; count],
        };
        if names.len() != count && count != 0 {
            return Err(refused(&format!(
                "LISTEN_FDNAMES has {} names, but LISTEN_FDS is {count}; name each socket once, or unset it",
                names.len()
            )));
        }
        Ok(Self(names.into_iter().take(count).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Names, CliError> {
        Names::read(&|name| {
            let (_, value) = variables.iter().find(|(known, _)| *known == name)?;
            Some((*value).to_owned())
        })
    }

    #[track_caller]
    fn refused(variables: &[(&str, &str)], words: &[&str]) {
        let failure = read(variables).unwrap_err();
        assert_eq!(failure.exit().code(), 64);
        for word in words {
            assert!(failure.text.contains(word), "{failure} does not say {word}");
        }
    }

    #[test]
    fn no_variables_are_no_sockets() {
        assert_eq!(read(&[]), Ok(Names(Vec::new())));
        assert_eq!(read(&[("LISTEN_PID", "1")]), Ok(Names(Vec::new())));
        let none = [("LISTEN_FDS", "0"), ("LISTEN_FDNAMES", "")];
        assert_eq!(read(&none), Ok(Names(Vec::new())));
    }

    #[test]
    fn sockets_may_have_names_and_the_process_may_be_left_out() {
        let me = std::process::id().to_string();
        let both = [("LISTEN_FDS", "2"), ("LISTEN_PID", me.as_str())];
        assert_eq!(read(&both), Ok(Names(vec![None, None])));
        let named = [("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "a:b")];
        let names = vec![Some("a".to_owned()), Some("b".to_owned())];
        assert_eq!(read(&named), Ok(Names(names)));
    }

    #[test]
    fn invalid_variables_are_refused_with_value_and_remedy() {
        refused(
            &[("LISTEN_FDS", "1"), ("LISTEN_PID", "1")],
            &["LISTEN_PID is '1'", "unset"],
        );
        refused(
            &[("LISTEN_FDS", "1"), ("LISTEN_PID", "me")],
            &["LISTEN_PID is 'me'"],
        );
        for count in ["", "-1", "many", "70000", "99999999999999999999"] {
            refused(
                &[("LISTEN_FDS", count)],
                &[&format!("LISTEN_FDS is '{count}'"), "unset it"],
            );
        }
        refused(
            &[("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "one")],
            &["LISTEN_FDNAMES has 1 names", "LISTEN_FDS is 2"],
        );
        refused(
            &[("LISTEN_FDS", "1"), ("LISTEN_FDS_FIRST_FD", "7")],
            &["LISTEN_FDS_FIRST_FD is '7'"],
        );
    }
}
