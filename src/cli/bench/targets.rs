//! The endpoint of each address that is put under load: one for each, since two would be two servers.
//!
//! A name is resolved, and the endpoint is used that answers.

use crate::cli::error::CliError;
use crate::cli::logging;
use crate::cli::names;
use crate::net::{Address, Endpoint};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

/// The time for the answer to a datagram, which may have been lost.
const DATAGRAM_TIMEOUT: Duration = Duration::from_millis(250);

/// Resolves each address, and picks the first of its endpoints that answers: `localhost` has two on most machines, and
/// many a server listens on one of them. Without an answer the first is left, and the load will tell why.
pub(in crate::cli) fn resolve(
    addresses: &[Address],
    timeout: Duration,
) -> Result<Vec<Endpoint>, CliError> {
    let deadline = Instant::now() + timeout;
    let resolved = names::resolve_within(addresses.to_vec(), timeout)?;
    let endpoints = resolved.into_iter().map(|one| {
        let endpoints: Vec<Endpoint> = one
            .endpoints
            .into_iter()
            .flat_map(names::reachable)
            .collect();
        pick(&endpoints, deadline)
    });
    Ok(endpoints.flatten().collect())
}

fn pick(endpoints: &[Endpoint], deadline: Instant) -> Option<Endpoint> {
    let first = endpoints.first()?;
    if endpoints.len() == 1 {
        return Some(first.clone());
    }
    let mut failed: Option<(&Endpoint, io::Error)> = None;
    for (number, endpoint) in endpoints.iter().enumerate() {
        let untried = u32::try_from(endpoints.len() - number).unwrap_or(u32::MAX);
        let left = deadline.saturating_duration_since(Instant::now()) / untried;
        match probe(endpoint, left.max(Duration::from_millis(1))) {
            Ok(()) => {
                if let Some((failed, error)) = failed {
                    logging::print_line(&format!(
                        "echo-reactor: {failed} does not answer ({error}), {endpoint} does and is taken"
                    ));
                }
                return Some(endpoint.clone());
            }
            Err(error) => failed = failed.or(Some((endpoint, error))),
        }
    }
    Some(first.clone())
}

/// Whether a server is there: it takes a connection, or it answers a datagram.
fn probe(endpoint: &Endpoint, timeout: Duration) -> io::Result<()> {
    match endpoint {
        Endpoint::Tcp(address) => {
            let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
            socket.connect_timeout(&SockAddr::from(*address), timeout)
        }
        Endpoint::Udp(address) => {
            let socket = Socket::new(Domain::for_address(*address), Type::DGRAM, None)?;
            socket.set_read_timeout(Some(timeout.min(DATAGRAM_TIMEOUT)))?;
            socket.connect(&SockAddr::from(*address))?;
            socket.send(b"?")?;
            let mut answer = [std::mem::MaybeUninit::uninit()];
            match socket.recv(&mut answer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    Err(ErrorKind::TimedOut.into())
                }
                result => result.map(drop),
            }
        }
        Endpoint::Unix(_) | Endpoint::UnixDatagram(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};
    use std::thread;

    const TIMEOUT: Duration = Duration::from_secs(60);

    #[test]
    fn several_addresses_are_resolved_in_their_order() {
        let addresses = ["127.0.0.1:7", "unix://@x", "0.0.0.0:9"].map(|text| text.parse().unwrap());
        let targets = resolve(&addresses, TIMEOUT).unwrap();
        let texts: Vec<String> = targets.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["tcp://127.0.0.1:7", "unix://@x", "tcp://127.0.0.1:9"]
        );
    }

    #[test]
    fn the_first_endpoint_that_answers_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let good = Endpoint::Tcp(listener.local_addr().unwrap());
        // A port that was just given back refuses.
        let refused = TcpListener::bind("127.0.0.2:0").unwrap().local_addr();
        let bad = Endpoint::Tcp(refused.unwrap());
        let deadline = Instant::now() + TIMEOUT;
        assert_eq!(
            pick(&[bad.clone(), good.clone()], deadline),
            Some(good.clone())
        );
        assert_eq!(pick(&[good.clone(), bad.clone()], deadline), Some(good));
        assert_eq!(pick(&[bad.clone(), bad.clone()], deadline), Some(bad));
        assert_eq!(pick(&[], deadline), None);
    }

    #[test]
    fn a_datagram_server_is_one_that_answers() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(TIMEOUT)).unwrap();
        let good = Endpoint::Udp(server.local_addr().unwrap());
        let refused = UdpSocket::bind("127.0.0.2:0").unwrap().local_addr();
        let bad = Endpoint::Udp(refused.unwrap());
        let echo = thread::spawn(move || {
            let mut buffer = [0; 16];
            let (length, from) = server.recv_from(&mut buffer).unwrap();
            server.send_to(&buffer[..length], from).unwrap();
        });
        let deadline = Instant::now() + TIMEOUT;
        assert_eq!(pick(&[bad, good.clone()], deadline), Some(good));
        echo.join().unwrap();
    }
}
