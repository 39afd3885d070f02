//! The default address, and names of hosts, which are resolved within a deadline.
//!
//! getaddrinfo(3) has no deadline, and cannot be interrupted: a name server that is silent holds it for as long as
//! resolv.conf(5) allows, half a minute with its defaults. So the call is made in a thread or process of its own, and abandoned at the deadline.
//!
//! [`resolve_within`] makes it in a thread. That suits a client, which exits soon. It does not suit a server: once a
//! process has had a second thread, even one that was joined, glibc's cancellation points cost about 45 instructions more
//! for each system call, for ever, since `__libc_single_threaded` is never set again. So [`resolve_apart`] starts a short-lived
//! child process, which is this program with a hidden command, [`answer`].

use super::error::{CliError, CliErrorKind, Exit};
use super::own_program;
use super::stdio;
use super::units::Time;
use crate::net::{Address, Endpoint, Resolved};
use clap::Args;
use std::fmt::Display;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Stdio;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// The address where `serve` listens and to which `send` connects by default: loopback only, at the port of the echo
/// example in the documentation of Python's `socket`.
pub(super) const DEFAULT_ADDRESS: &str = "tcp://127.0.0.1:50007";

/// The hidden command of the child process.
pub(super) const COMMAND: &str = "resolve-names";

/// Resolve names, one line of endpoints for each
#[derive(Args, Debug)]
pub(super) struct ResolveArgs {
    #[arg(long, value_name = "TIME")]
    timeout: Time,

    #[arg(value_name = "ADDRESS", required = true)]
    addresses: Vec<Address>,
}

/// Resolves these addresses, in their order, within `timeout` for all of them.
///
/// # Errors
/// The first name that has no address, or whose address was not found in time.
pub(super) fn resolve_within(
    addresses: Vec<Address>,
    timeout: Duration,
) -> Result<Vec<Resolved>, CliError> {
    if !addresses.iter().any(Address::needs_resolver) {
        return addresses.into_iter().map(resolve_number).collect();
    }
    let found = resolve_by(addresses.clone(), timeout, Address::resolve)?;
    let resolved = addresses.into_iter().zip(found);
    let resolved = resolved.map(|(address, endpoints)| Resolved { address, endpoints });
    Ok(resolved.collect())
}

/// Resolves one host, which errors name by `host`, as `address` within `timeout`.
///
/// # Errors
/// Those of [`resolve_within`].
pub(super) fn resolve_host<A: Clone + Display + Send + 'static>(
    host: &A,
    address: Address,
    timeout: Duration,
) -> Result<Vec<Endpoint>, CliError> {
    if !address.needs_resolver() {
        return address
            .resolve()
            .map_err(|error| no_such_host(host, &error));
    }
    let found = resolve_by(vec![host.clone()], timeout, move |_| address.resolve())?;
    Ok(found.into_iter().flatten().collect())
}

/// Resolves as [`resolve_within`] does, without a second thread in this process.
///
/// # Errors
/// Those of [`resolve_within`].
pub(super) fn resolve_apart(
    addresses: Vec<Address>,
    timeout: Duration,
) -> Result<Vec<Resolved>, CliError> {
    if !addresses.iter().any(Address::needs_resolver) {
        return resolve_within(addresses, timeout);
    }
    let names = addresses.iter().filter(|address| address.needs_resolver());
    match ask_child(names, timeout) {
        Ok(told) => parse(addresses, &told),
        // Without /proc, for example. A thread costs some speed, which is better than no service.
        Err(error) => {
            log::debug!("the resolver has no process of its own: {error}; a thread calls it");
            resolve_within(addresses, timeout)
        }
    }
}

/// The endpoints at which a client of this machine finds a server. "All interfaces" is where a server listens; a client
/// reaches it by a loopback address, of IPv6 too if it may be a dual-stack one.
pub(super) fn reachable(endpoint: Endpoint) -> Vec<Endpoint> {
    let hosts = |address: SocketAddr| -> Vec<SocketAddr> {
        let hosts: &[IpAddr] = match address.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => &[IpAddr::V4(Ipv4Addr::LOCALHOST)],
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => &[
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ],
            _ => return vec![address],
        };
        let with_port = |host: &IpAddr| SocketAddr::new(*host, address.port());
        hosts.iter().map(with_port).collect()
    };
    match endpoint {
        Endpoint::Tcp(address) => hosts(address).into_iter().map(Endpoint::Tcp).collect(),
        Endpoint::Udp(address) => hosts(address).into_iter().map(Endpoint::Udp).collect(),
        unix => vec![unix],
    }
}

pub(super) fn no_such_host(address: &impl Display, error: &io::Error) -> CliError {
    let text =
        format!("{address}: {error}; check the host's name, or write its address in numbers");
    CliError::new(CliErrorKind::Resolve, text)
}

fn resolve_number(address: Address) -> Result<Resolved, CliError> {
    let endpoints = address
        .resolve()
        .map_err(|error| no_such_host(&address, &error))?;
    Ok(Resolved { address, endpoints })
}

/// The resolver is an argument so that a test can have a silent one.
fn resolve_by<A: Clone + Display + Send + 'static>(
    addresses: Vec<A>,
    timeout: Duration,
    resolve: impl Fn(&A) -> io::Result<Vec<Endpoint>> + Send + 'static,
) -> Result<Vec<Vec<Endpoint>>, CliError> {
    let (sender, receiver) = mpsc::channel();
    let (began, asked) = (Instant::now(), addresses.clone());
    let thread = thread::Builder::new().name("resolver".to_owned());
    thread
        .spawn(move || {
            for address in asked {
                if sender.send(resolve(&address)).is_err() {
                    return; // the time is over
                }
            }
        })
        .map_err(|error| {
            CliError::new(
                CliErrorKind::System,
                format!("no thread for resolving names could be started: {error}; raise the limit of processes (ulimit -u), or write addresses in numbers"),
            )
        })?;
    let mut resolved = Vec::new();
    for address in addresses {
        let endpoints = match receiver.recv_timeout(timeout.saturating_sub(began.elapsed())) {
            Ok(result) => result.map_err(|error| no_such_host(&address, &error))?,
            Err(RecvTimeoutError::Timeout) => {
                let text = format!(
                    "{address}: the resolver has not answered within {}; check the name servers in /etc/resolv.conf, \
                     or write the host's address in numbers",
                    Time(timeout)
                );
                return Err(CliError::new(CliErrorKind::Resolve, text));
            }
            Err(RecvTimeoutError::Disconnected) => {
                let text = format!("{address}: the thread that resolves names has ended");
                return Err(CliError::new(CliErrorKind::Internal, text));
            }
        };
        resolved.push(endpoints);
    }
    Ok(resolved)
}

/// Runs the child process, and returns its output. It keeps the deadline itself, so it ends even if this process has ended.
fn ask_child<'a>(
    names: impl Iterator<Item = &'a Address>,
    timeout: Duration,
) -> io::Result<String> {
    let mut child = own_program::command()?
        .args([COMMAND, "--timeout", &Time(timeout).to_string(), "--"])
        .args(names.map(Address::to_string))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut told = String::new();
    let read = match &mut child.stdout {
        Some(output) => output.read_to_string(&mut told).map(drop),
        None => Ok(()),
    };
    let _ = child.wait(); // its output says more than its exit code
    read.map(|()| told)
}

/// The command of the child process. It prints the endpoints, one line for each address, or '!' and the error.
pub(super) fn answer(args: &ResolveArgs) -> Result<Exit, CliError> {
    let lines = match resolve_within(args.addresses.clone(), args.timeout.0) {
        Ok(resolved) => resolved.iter().map(line).collect(),
        Err(failure) => format!("!{}\n", failure.text),
    };
    stdio::print(&lines)?;
    Ok(Exit::Ok)
}

fn line(resolved: &Resolved) -> String {
    let endpoints: Vec<String> = resolved.endpoints.iter().map(Endpoint::to_string).collect();
    format!("{}\n", endpoints.join(" "))
}

fn parse(addresses: Vec<Address>, told: &str) -> Result<Vec<Resolved>, CliError> {
    if let Some(text) = told.strip_prefix('!') {
        return Err(CliError::new(CliErrorKind::Resolve, text.trim_end()));
    }
    let mut lines = told.lines();
    let endpoints = |line: &str| -> Option<Vec<Endpoint>> {
        let parts = line.split(' ').map(|text| {
            let address: Address = text.parse().ok()?;
            address.resolve().ok()?.pop() // a number, which has one
        });
        parts.collect()
    };
    let mut resolved = Vec::new();
    for address in addresses {
        if !address.needs_resolver() {
            resolved.push(resolve_number(address)?);
            continue;
        }
        match lines.next().and_then(endpoints) {
            Some(endpoints) => resolved.push(Resolved { address, endpoints }),
            None => {
                let text = format!(
                    "{address}: the process that resolves names has ended without an answer; \
                     write the host's address in numbers"
                );
                return Err(CliError::new(CliErrorKind::Resolve, text));
            }
        }
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<Address> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_silent_resolver_is_abandoned_at_the_deadline() {
        let names = addresses(&["example.com:7"]);
        let silent = |_: &Address| loop {
            thread::park();
        };
        let failure = resolve_by(names, Duration::from_millis(20), silent).unwrap_err();
        assert_eq!(failure.class, CliErrorKind::Resolve);
        assert!(
            failure.text.contains("tcp://example.com:7: ") && failure.text.contains("within 20ms"),
            "{failure}"
        );
    }

    #[test]
    fn several_addresses_are_resolved_in_their_order() {
        let names = addresses(&["a.example:7", "unix://@x", "b.example:7"]);
        let number = |address: &Address| match address.to_string().contains("a.example") {
            true => "127.0.0.1:7".parse::<Address>().unwrap().resolve(),
            false => "127.0.0.2:7".parse::<Address>().unwrap().resolve(),
        };
        let resolved = resolve_by(names, Duration::from_secs(60), number).unwrap();
        let texts: Vec<String> = resolved.iter().flatten().map(Endpoint::to_string).collect();
        let second = "tcp://127.0.0.2:7";
        assert_eq!(texts, ["tcp://127.0.0.1:7", second, second]);
    }

    /// Numeric addresses need no resolver, so no timeout is too short for them.
    #[test]
    fn numbers_need_no_time() {
        let numbers = addresses(&["127.0.0.1:7", "[::1]:7", ":7", "unix:///a b"]);
        let resolved = resolve_within(numbers.clone(), Duration::ZERO).unwrap();
        assert_eq!(resolved.len(), 4);
        assert_eq!(resolve_apart(numbers, Duration::ZERO).unwrap(), resolved);
    }

    #[test]
    fn the_output_of_the_child_is_parsed() {
        let names = addresses(&["unix:///a b", "udp://localhost:7"]);
        let told = "udp://[::1]:7 udp://127.0.0.1:7\n";
        let resolved = parse(names.clone(), told).unwrap();
        let expected = format!("unix:///a b\n{told}");
        assert_eq!(resolved.iter().map(line).collect::<String>(), expected);
        let failure = parse(names.clone(), "!udp://localhost:7: no\n").unwrap_err();
        assert_eq!(
            (failure.class, failure.text.as_str()),
            (CliErrorKind::Resolve, "udp://localhost:7: no")
        );
        assert!(parse(names, "").is_err());
    }
}
