//! The exchange with a host by ICMP: each message is the payload of one echo request, which the host's kernel answers.
//!
//! A request that is lost is not sent again. How the two kinds of sockets differ is the subject of [`ping_socket`](super::ping_socket).

use super::connect;
use super::datagram;
use super::destination::PingHost;
use super::icmp::Version;
use super::output::{Out, Stop};
use super::ping_socket::{Answer, BoundPingSocket, PingSocket};
use super::plan::{Input, Plan};
use super::source::{self, Source};
use crate::cli::error::{CliError, CliErrorKind};
use crate::cli::names;
use crate::net::Endpoint;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Instant;

pub(super) fn talk(plan: &Plan<PingHost>, out: &mut Out) -> Result<(), Stop> {
    let messages = datagram::messages(&plan.input, datagram::IP_BYTES_MAX)?;
    for message in messages.iter() {
        datagram::check_length(message.len())?;
    }
    datagram::first_to_answer(resolve(plan)?, &plan.address, |address, answered| {
        exchange(Target(address), plan, &messages, out, answered)
    })
}

/// The addresses of the host, in the order of the resolver, that the client's own address can speak to.
fn resolve(plan: &Plan<PingHost>) -> Result<Vec<SocketAddr>, CliError> {
    let found = names::resolve_host(&plan.address, plan.address.as_address(), plan.timeout)?;
    let mut endpoints: Vec<Endpoint> = found.into_iter().flat_map(names::reachable).collect();
    if let Some(source) = &plan.source {
        endpoints.retain(|endpoint| source.fits(endpoint));
    }
    match endpoints.is_empty() {
        true => Err(source::fits_none(&plan.address, plan.source.as_ref())),
        false => Ok(endpoints.iter().filter_map(Endpoint::socket_addr).collect()),
    }
}

/// An address that is pinged.
#[derive(Clone, Copy)]
struct Target(SocketAddr);

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.ip() {
            IpAddr::V4(ip) => write!(f, "icmp://{ip}"),
            IpAddr::V6(ip) => write!(f, "icmp://[{ip}]"),
        }
    }
}

fn exchange(
    target: Target,
    plan: &Plan<PingHost>,
    messages: &[Vec<u8>],
    out: &mut Out,
    answered: &mut u64,
) -> Result<(), Stop> {
    let mut socket = open(target, plan)?;
    for _ in 0..plan.repeat {
        for message in messages {
            if *answered > 0 {
                thread::sleep(plan.interval);
            }
            let number = *answered + 1;
            let failed = |error: io::Error| failure(target, plan, &error, number);
            let sent_at = Instant::now();
            // The sequence has 16 bits, and begins anew after the last.
            let sequence = number as u16;
            socket.send(sequence, message).map_err(failed)?;
            let deadline = sent_at + plan.timeout;
            match socket.receive(sequence, deadline).map_err(failed)? {
                Answer::Reply(payload, received_at) => {
                    datagram::compare(&target, number, message, payload)?;
                    *answered = number;
                    match plan.input {
                        Input::Messages(_) => {
                            let round_trip = received_at.saturating_duration_since(sent_at);
                            out.answered(message, round_trip)?;
                        }
                        Input::Standard => out.copy(message)?,
                    }
                }
                Answer::Error(router, problem) => {
                    let text = format!("{target}: {router} answers message {number}: {problem}");
                    return Err(CliError::new(CliErrorKind::Unreachable, text).into());
                }
            }
        }
    }
    Ok(())
}

fn open(target: Target, plan: &Plan<PingHost>) -> Result<BoundPingSocket, CliError> {
    let opened = PingSocket::open(target.0);
    let socket = opened.map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => no_right(target),
        _ => failure(target, plan, &error, 1),
    })?;
    let own = match plan.source {
        Some(Source::Ip(own)) => Some(own),
        _ => None,
    };
    (socket.bind(own)).map_err(|error| match own {
        Some(_) => source::failure(&target, plan.source.as_ref(), &error),
        None => failure(target, plan, &error, 1),
    })
}

/// The kernel refuses both kinds of sockets to this user.
fn no_right(target: Target) -> CliError {
    let protocol = match Version::from(target.0.ip()) {
        Version::V4 => "ICMP",
        Version::V6 => "ICMPv6",
    };
    let text = format!(
        "{target}: this user may open no socket for {protocol}: a ping socket takes a group in net.ipv4.ping_group_range, \
         and a raw one CAP_NET_RAW; run it as root, give the program the capability (setcap cap_net_raw+ep FILE), or \
         allow ping sockets to every group (sysctl -w net.ipv4.ping_group_range='0 2147483647')"
    );
    CliError::new(CliErrorKind::Permission, text)
}

/// Describes a socket error.
fn failure(target: Target, plan: &Plan<PingHost>, error: &io::Error, number: u64) -> CliError {
    let when = format!("to message {number}");
    let (class, told) = match error.kind() {
        // A ping socket is told so of a host that has no ICMP.
        ErrorKind::ConnectionRefused => {
            (CliErrorKind::Unreachable, "the host answers: unreachable")
        }
        ErrorKind::PermissionDenied => (
            CliErrorKind::Permission,
            "nothing may be sent there: it is a broadcast address, or a firewall forbids it",
        ),
        _ => return connect::failure(&target, plan.timeout, error, &when),
    };
    CliError::new(class, format!("{target}: {told} ({error})"))
}
