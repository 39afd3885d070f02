//! Errors of a start: what is wrong with which value, and what to do about it.

use crate::blocking;
use crate::cli::error::{CliError, CliErrorKind};
use crate::cli::names;
use crate::echo::StartError;
use crate::limits::LimitError;
use crate::net::address::UNIX_PATH_MAX;
use crate::net::{BindError, Endpoint, UnixName};
use nix::errno::Errno;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::Path;

/// Ports below this one belong to root (ip(7), `ip_unprivileged_port_start`).
const PRIVILEGED_PORTS: u16 = 1024;

/// Describes why a server of the event loop did not start.
pub(super) fn start_error(error: &StartError) -> CliError {
    match error {
        StartError::Address(_) => CliError::usage(error.to_string()),
        StartError::Limit(limit) => limit_error(limit),
        StartError::Bind(error) => bind_error(error),
        StartError::Reactor(error) => system("no event queue (epoll)", error),
    }
}

/// Describes why a server of a blocking model did not start.
pub(super) fn blocking_error(error: &blocking::StartError) -> CliError {
    use blocking::StartError as Error;
    match error {
        Error::Bind(error) => bind_error(error),
        Error::Limit(limit) => limit_error(limit),
        Error::Address(_) | Error::Datagrams(_) | Error::OneAddress(_) | Error::Admission(_) => {
            CliError::usage(error.to_string())
        }
    }
}

/// A limit that is out of range, by the name of its flag.
pub(super) fn limit_error(error: &LimitError) -> CliError {
    let text = format!(
        "{} {} is out of range: it can be {}",
        flag(error.limit()),
        error.value(),
        error.range()
    );
    CliError::usage(text)
}

/// The flag that sets this field of [`Limits`](crate::Limits).
fn flag(limit: &str) -> String {
    let name = match limit {
        "connections_max" => "max-connections",
        "connections_per_prefix" => "max-per-prefix",
        "prefix_bits_ipv4" => "prefix-ipv4",
        "prefix_bits_ipv6" => "prefix-ipv6",
        "preallocate_connections" => "preallocate",
        "datagrams_per_source" => "udp-rate-per-source",
        "datagrams_total" => "udp-rate",
        "spin_max" => "spin",
        other => &other.trim_end_matches("_bytes").replace('_', "-"),
    };
    format!("--{name}")
}

fn bind_error(error: &BindError) -> CliError {
    match error {
        BindError::NoAddress => no_address(),
        BindError::Resolve(address, error) => names::no_such_host(address, error),
        BindError::Twice { .. } => CliError::usage(error.to_string()),
        BindError::Bind(endpoint, error) => endpoint_error(endpoint, error),
    }
}

fn no_address() -> CliError {
    let text = "no address to listen at; write one, for example 127.0.0.1:50007";
    CliError::usage(text)
}

/// A failed system call that no flag can help with.
pub(super) fn system(what: &str, error: &io::Error) -> CliError {
    let remedy = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE) => "; raise the limit of descriptors (ulimit -n)",
        Some(Errno::ENFILE) => "; this machine has no descriptors left (fs.file-max)",
        Some(Errno::ENOMEM | Errno::ENOBUFS) => "; this machine has no memory left",
        _ => "",
    };
    CliError::new(CliErrorKind::System, format!("{what}: {error}{remedy}"))
}

fn endpoint_error(endpoint: &Endpoint, error: &io::Error) -> CliError {
    match endpoint {
        Endpoint::Tcp(address) | Endpoint::Udp(address) => ip_error(endpoint, *address, error),
        Endpoint::Unix(name) | Endpoint::UnixDatagram(name) => match name {
            UnixName::Path(path) => path_error(endpoint, path, error),
            UnixName::Abstract(_) => abstract_error(endpoint, error),
        },
    }
}

fn ip_error(endpoint: &Endpoint, address: SocketAddr, error: &io::Error) -> CliError {
    let port = address.port();
    if error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32) {
        let text = format!(
            "{endpoint}: this machine has no IPv6; use an IPv4 address such as 127.0.0.1:{port}"
        );
        return CliError::new(CliErrorKind::Unavailable, text);
    }
    match error.kind() {
        ErrorKind::AddrInUse => {
            let (flag, scheme) = match endpoint {
                Endpoint::Udp(_) => ("u", "udp"),
                _ => ("t", "tcp"),
            };
            let host = SocketAddr::new(address.ip(), 0);
            let text = format!(
                "{endpoint} is in use; find who has it with 'ss -{flag}lnp sport = :{port}', \
                 or let the system pick a port: {scheme}://{host}"
            );
            CliError::new(CliErrorKind::Unavailable, text)
        }
        ErrorKind::PermissionDenied if port < PRIVILEGED_PORTS => {
            let text = format!(
                "{endpoint}: ports below {PRIVILEGED_PORTS} are root's; use a port from {PRIVILEGED_PORTS} on, \
                 or 'setcap cap_net_bind_service=+ep' on the program's file"
            );
            CliError::new(CliErrorKind::Permission, text)
        }
        ErrorKind::PermissionDenied => CliError::new(
            CliErrorKind::Permission,
            format!("{endpoint}: {error}; something (a sandbox, SELinux) forbids it to this user"),
        ),
        ErrorKind::AddrNotAvailable => CliError::new(
            CliErrorKind::Unavailable,
            format!(
                "{endpoint}: {} is not an address of this machine; 'ip address' lists them, ':{port}' means all",
                address.ip()
            ),
        ),
        // Missing in this model or build; the text of the error says what to do instead.
        ErrorKind::Unsupported => CliError::usage(format!("{endpoint}: {error}")),
        _ => system(&endpoint.to_string(), error),
    }
}

fn path_error(endpoint: &Endpoint, path: &Path, error: &io::Error) -> CliError {
    let directory = path.parent().unwrap_or(Path::new("/")).display();
    let (class, text) = match error.kind() {
        // The text of either error says what is at the path, and what to do.
        ErrorKind::AddrInUse => (CliErrorKind::Unavailable, error.to_string()),
        ErrorKind::AlreadyExists => (CliErrorKind::Create, error.to_string()),
        ErrorKind::NotFound if !path.parent().is_some_and(Path::is_dir) => (
            CliErrorKind::Create,
            format!("there is no directory {directory}; make it first"),
        ),
        ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => (
            CliErrorKind::Create,
            format!("{error}; {directory} must be a directory in which this user may make files"),
        ),
        ErrorKind::InvalidInput => (
            CliErrorKind::Usage,
            format!(
                "the path is too long: unix(7) allows {UNIX_PATH_MAX} bytes; use a shorter one"
            ),
        ),
        ErrorKind::Unsupported => (CliErrorKind::Usage, error.to_string()),
        _ => (CliErrorKind::Create, error.to_string()),
    };
    CliError::new(class, format!("{endpoint}: {text}"))
}

fn abstract_error(endpoint: &Endpoint, error: &io::Error) -> CliError {
    match error.kind() {
        ErrorKind::AddrInUse => CliError::new(
            CliErrorKind::Unavailable,
            format!("{endpoint} is in use; find who has it with 'ss -xlp', or use another name"),
        ),
        ErrorKind::Unsupported => CliError::usage(format!("{endpoint}: {error}")),
        _ => system(&endpoint.to_string(), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;
    use crate::net::Address;

    #[track_caller]
    fn told(address: &str, errno: Errno, code: u8, expected: &str) {
        let endpoint = match address.parse::<Address>() {
            Ok(address) => address.resolve().unwrap().remove(0),
            Err(error) => panic!("{error}"),
        };
        let error = io::Error::from_raw_os_error(errno as i32);
        let failure = endpoint_error(&endpoint, &error);
        assert_eq!(failure.exit().code(), code, "{failure}");
        assert!(
            failure.text.contains(&endpoint.to_string()),
            "{failure} does not name {endpoint}"
        );
        assert!(
            failure.text.contains(expected),
            "{failure} does not say {expected:?}"
        );
    }

    #[test]
    fn a_limit_out_of_range_is_told_by_the_name_of_its_flag() {
        let wrong = Limits::default().with(|limits| limits.connections_per_prefix = Some(0));
        assert_eq!(
            limit_error(&wrong.check().unwrap_err()).text,
            "--max-per-prefix 0 is out of range: it can be 1 to 4000000"
        );
        let wrong = Limits::default().with(|limits| limits.read_buffer_bytes = 0);
        assert!(
            limit_error(&wrong.check().unwrap_err())
                .text
                .starts_with("--read-buffer 0 is")
        );
    }

    #[test]
    fn every_error_names_the_address_and_the_remedy() {
        told(
            "127.0.0.1:80",
            Errno::EADDRINUSE,
            69,
            "'ss -tlnp sport = :80'",
        );
        told("127.0.0.1:80", Errno::EADDRINUSE, 69, "tcp://127.0.0.1:0");
        told("udp://127.0.0.1:9", Errno::EADDRINUSE, 69, "'ss -ulnp");
        told("127.0.0.1:80", Errno::EACCES, 77, "use a port from 1024 on");
        told("127.0.0.1:8080", Errno::EACCES, 77, "forbids");
        told(
            "192.0.2.1:80",
            Errno::EADDRNOTAVAIL,
            69,
            "not an address of this machine",
        );
        told("[::1]:80", Errno::EAFNOSUPPORT, 69, "no IPv6");
        told("127.0.0.1:80", Errno::EMFILE, 71, "ulimit -n");
        told(
            "unix:///nowhere/s",
            Errno::ENOENT,
            73,
            "no directory /nowhere",
        );
        told(
            "unix:///proc/s",
            Errno::EACCES,
            73,
            "/proc must be a directory",
        );
        told(
            "unix:///sys/s",
            Errno::EROFS,
            73,
            "/sys must be a directory",
        );
        told("unix:///tmp/s", Errno::EADDRINUSE, 69, "in use");
        told("unix:///tmp/s", Errno::EEXIST, 73, "exists");
        told("unix:///tmp/s", Errno::EINVAL, 64, "too long");
        told("unix://@s", Errno::EADDRINUSE, 69, "ss -xlp");
    }
}
