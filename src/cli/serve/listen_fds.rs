//! Inherited sockets: from a service manager, by the convention of sd_listen_fds(3), or from this very program, which passes
//! sockets to its workers and to its successor by the same convention ([`super::passing`]).
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

use super::link::Link;
use super::passing::{ROLE, Role};
use crate::cli::error::CliError;
use crate::net::{BoundSocket, FromFdError};
use crate::procfs::own::{descriptor_path, is_open};
use listenfd::ListenFd;
use std::env;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;

/// The first descriptor after standard error.
const FIRST: usize = 3;

/// The inherited descriptors.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    /// What this process is to do, if this very program has started it.
    pub(super) role: Option<Role>,
    /// Listeners and datagram sockets to serve.
    pub(super) sockets: Vec<BoundSocket>,
    /// Links to other processes of this program; without a role there are none.
    pub(super) links: Vec<Link>,
}

/// Takes the inherited sockets, and removes the variables, so that no child process takes them for its own.
pub(super) fn take() -> Result<Inherited, CliError> {
    let variable = |name: &str| Some(env::var_os(name)?.to_string_lossy().into_owned());
    let names = Names::read(&variable)?;
    let mut inherited = Inherited {
        role: names.role,
        ..Inherited::default()
    };
    if names.count == 0 {
        return Ok(inherited);
    }
    for number in names.first..names.first + names.count {
        if is_open(number) == Some(false) {
            return Err(refused(&format!(
                "LISTEN_FDS is {}, but descriptor {number} is not open; pass as many sockets as it says, from {} on",
                names.count, names.first
            )));
        }
    }
    let mut descriptors = ListenFd::from_env();
    for index in 0..names.count {
        let number = names.first + index;
        if names.role.is_some() {
            if let Some(link) = link(&mut descriptors, index) {
                inherited.links.push(link);
                continue;
            }
        }
        let socket = own(&mut descriptors, index, number).and_then(BoundSocket::from_fd);
        inherited.sockets.push(socket.map_err(|error| {
            refused(&format!(
                "LISTEN_FDS: descriptor {number} cannot be served: {error}"
            ))
        })?);
    }
    Ok(inherited)
}

fn refused(text: &str) -> CliError {
    CliError::usage(text)
}

/// Takes one descriptor, if it is a link.
fn link(descriptors: &mut ListenFd, index: usize) -> Option<Link> {
    let (family, kind) = (libc::AF_UNIX, libc::SOCK_SEQPACKET);
    let link = descriptors.take_custom::<OwnedFd>(index, family, kind, "link");
    link.ok().flatten().map(Link::from)
}

/// Takes one descriptor. listenfd has a function for each kind of socket, so all are tried.
fn own(descriptors: &mut ListenFd, index: usize, number: usize) -> Result<OwnedFd, FromFdError> {
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
    match fs::metadata(descriptor_path(number)).is_ok_and(is_socket) {
        true => Err(FromFdError::Kind),
        false => Err(FromFdError::NotASocket),
    }
}

/// What the variables say.
#[derive(Debug, PartialEq, Eq)]
struct Names {
    role: Option<Role>,
    first: usize,
    count: usize,
}

impl Names {
    fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, CliError> {
        let mut read = Self {
            role: None,
            first: FIRST,
            count: 0,
        };
        let Some(count) = variable("LISTEN_FDS") else {
            return Ok(read);
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
        read.count = count;
        read.role = variable(ROLE).as_deref().and_then(Role::named);
        let first = variable("LISTEN_FDS_FIRST_FD");
        match (read.role, &first) {
            // This very program has set it, and checks nothing but that it is a number.
            (Some(_), Some(first)) => read.first = first.parse().unwrap_or(FIRST),
            (None, Some(first)) => {
                return Err(refused(&format!(
                    "LISTEN_FDS_FIRST_FD is '{first}', but sockets are taken from {FIRST} on; pass them there and unset it"
                )));
            }
            (_, None) => {}
        }
        match variable("LISTEN_FDNAMES") {
            Some(names) if names.split(':').count() != count && count != 0 => {
                Err(refused(&format!(
                    "LISTEN_FDNAMES has {} names, but LISTEN_FDS is {count}; name each socket once, or unset it",
                    names.split(':').count()
                )))
            }
            _ => Ok(read),
        }
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

    fn sockets(count: usize) -> Names {
        Names {
            role: None,
            first: FIRST,
            count,
        }
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
        assert_eq!(read(&[]), Ok(sockets(0)));
        assert_eq!(read(&[("LISTEN_PID", "1")]), Ok(sockets(0)));
        let none = [("LISTEN_FDS", "0"), ("LISTEN_FDNAMES", "")];
        assert_eq!(read(&none), Ok(sockets(0)));
    }

    #[test]
    fn sockets_may_have_names_and_the_process_may_be_left_out() {
        let me = std::process::id().to_string();
        let both = [("LISTEN_FDS", "2"), ("LISTEN_PID", me.as_str())];
        assert_eq!(read(&both), Ok(sockets(2)));
        let named = [("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "a:b")];
        assert_eq!(read(&named), Ok(sockets(2)));
    }

    /// A first number is taken from this very program alone, which names a role.
    #[test]
    fn a_role_comes_with_a_first_number() {
        let own = [
            ("LISTEN_FDS", "2"),
            ("LISTEN_FDS_FIRST_FD", "17"),
            ("ECHO_REACTOR_ROLE", "worker"),
        ];
        let expected = Names {
            role: Some(Role::Worker),
            first: 17,
            count: 2,
        };
        assert_eq!(read(&own), Ok(expected));
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
