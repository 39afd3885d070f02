//! The exchange with a server by datagrams, UDP or Unix: each message is one datagram, and so is its answer.
//!
//! A lost datagram is not sent again: loss is one of the things that this command is to find.

use super::connect::{self, Connected, Targets};
use super::output::{Out, Stop};
use super::plan::{Input, Plan};
use super::text;
use crate::cli::error::{CliError, CliErrorKind};
use crate::cli::stdio::BlockingStdio;
use crate::cli::units::grouped;
use crate::net::Address;
use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, ErrorKind, Read, Write};
use std::thread;

/// The most that one packet carries over IPv4: 65,535 less the headers of IP and of UDP or ICMP, which are equally long.
pub(super) const IP_BYTES_MAX: usize = 65_507;
/// The most that is read from standard input for one datagram of a Unix socket, which the kernel's buffers bound.
const UNIX_BYTES_MAX: usize = 16 * 1024 * 1024;

pub(super) fn talk(plan: &Plan, out: &mut Out) -> Result<(), Stop> {
    let messages = messages(&plan.input, bytes_max(plan))?;
    if let Address::Udp(_) = plan.address {
        for message in messages.iter() {
            check_length(message.len())?;
        }
    }
    first_to_answer(
        Targets::resolve(plan)?,
        &plan.address,
        |target, answered| {
            let peer = connect::connect(&target, plan)?;
            exchange(&peer, plan, &messages, out, answered)
        },
    )
}

/// The messages, each of which is one datagram; standard input is one as a whole.
pub(super) fn messages(input: &Input, bytes_max: usize) -> Result<Cow<'_, [Vec<u8>]>, CliError> {
    Ok(match input {
        Input::Messages(messages) => Cow::Borrowed(messages),
        Input::Standard => Cow::Owned(vec![read_input(bytes_max)?]),
    })
}

/// Talks to one address after the other, until one has answered a message, whose number is counted, or has failed in another
/// way than that no server is there. No packet finds that out before the first message. A name may also have addresses of
/// both families, of which this machine reaches one.
pub(super) fn first_to_answer<T>(
    targets: impl IntoIterator<Item = T>,
    name: &impl Display,
    mut talk: impl FnMut(T, &mut u64) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let mut last = None;
    for target in targets {
        let mut answered = 0;
        match talk(target, &mut answered) {
            Err(Stop::Failed(failure)) if answered == 0 && is_absence(failure.class) => {
                last = Some(failure);
            }
            said => return said,
        }
    }
    let text = || format!("{name}: the name has no address");
    let failure = last.unwrap_or_else(|| CliError::new(CliErrorKind::Resolve, text()));
    Err(failure.into())
}

fn is_absence(class: CliErrorKind) -> bool {
    matches!(class, CliErrorKind::Refused | CliErrorKind::Unreachable)
}

fn exchange(
    peer: &Connected,
    plan: &Plan,
    messages: &[Vec<u8>],
    out: &mut Out,
    answered: &mut u64,
) -> Result<(), Stop> {
    // One byte more than was sent, so that a longer answer is seen to be longer.
    let longest = messages.iter().map(Vec::len).max().unwrap_or(0);
    let mut buffer = vec![0; longest + 1];
    for _ in 0..plan.repeat {
        for message in messages {
            if *answered > 0 {
                thread::sleep(plan.interval);
            }
            let number = *answered + 1;
            let sent = retry(|| (&peer.socket).write(message));
            let failed = |error: io::Error| {
                let when = format!("to message {number}");
                connect::failure(&peer.endpoint, plan.timeout, &error, &when)
            };
            sent.map_err(failed)?;
            let length = retry(|| (&peer.socket).read(&mut buffer)).map_err(failed)?;
            compare(&peer.endpoint, number, message, &buffer[..length])?;
            *answered = number;
            match plan.input {
                Input::Messages(_) => out.received(message)?,
                Input::Standard => out.copy(message)?,
            }
        }
    }
    Ok(())
}

/// Repeats a call that a signal has interrupted (EINTR).
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Compares an answer with its message.
pub(super) fn compare(
    endpoint: &impl Display,
    number: u64,
    sent: &[u8],
    received: &[u8],
) -> Result<(), CliError> {
    let text = match text::first_difference(sent, received) {
        Some((place, bytes)) => {
            format!(
                "{endpoint}: message {number} came back changed: at byte {place}, counted from 0, {bytes}"
            )
        }
        None if sent.len() > received.len() => format!(
            "{endpoint}: message {number} came back shorter: sent {} bytes, received {}",
            sent.len(),
            received.len()
        ),
        None if sent.len() < received.len() => {
            format!(
                "{endpoint}: message {number} came back longer than its {} bytes",
                sent.len()
            )
        }
        None => return Ok(()),
    };
    Err(CliError::new(CliErrorKind::Mismatch, text))
}

fn bytes_max(plan: &Plan) -> usize {
    match plan.address {
        Address::Udp(_) => IP_BYTES_MAX,
        _ => UNIX_BYTES_MAX,
    }
}

/// All of standard input, which has to fit into one datagram of at most this many bytes.
fn read_input(most: usize) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    BlockingStdio::input()
        .and_then(|input| input.take(most as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| {
            CliError::new(
                CliErrorKind::Io,
                format!("cannot read standard input: {error}"),
            )
        })?;
    match bytes.len() > most {
        true => Err(too_long("standard input", most)),
        false => Ok(bytes),
    }
}

/// Refuses a message that fits into no packet.
pub(super) fn check_length(length: usize) -> Result<(), CliError> {
    if length > IP_BYTES_MAX {
        let what = format!("a message of {} bytes", grouped(length as u64));
        return Err(too_long(&what, IP_BYTES_MAX));
    }
    Ok(())
}

fn too_long(what: &str, most: usize) -> CliError {
    let text = format!(
        "{what} is too long for a datagram, which carries at most {} bytes; send less, or use tcp:// or unix://",
        grouped(most as u64)
    );
    CliError::usage(text)
}
