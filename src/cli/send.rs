//! `echo-reactor send`: says something to an echo server, and holds it to its word.
//!
//! Every byte that comes back is compared with the one that was sent, so that a script can use this program to find out
//! whether a server is alive and right. What was typed and what it means is in this file, and the order of the steps;
//! reaching the server is in [`connect`], the client's own address in [`source`], talking to it in [`stream`] and [`datagram`], and bytes as people read and
//! write them in [`text`].

mod connect;
mod datagram;
mod source;
mod stream;
mod text;

use super::DEFAULT_ADDRESS;
use super::error::{CliError, CliErrorKind, Exit};
use super::stdio::Patient;
use super::units::{Count, Time};
use crate::net::Address;
use clap::Args;
use source::Source;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  echo-reactor send                                  'Hello, world!' to tcp://127.0.0.1:50007
  echo-reactor send localhost:7777 one two three     three messages on one connection
  echo-reactor send -q --timeout 1s localhost:7777   a health probe: the exit code is the answer
  echo-reactor send localhost:7777 - < in > out      any number of bytes, streaming
  echo-reactor send --hex udp://127.0.0.1:7 '00 ff'  bytes that no keyboard has
  echo-reactor send --repeat 10 --interval 1s unix:///run/echo.sock

Failures are one line on standard error, with one of these words behind 'echo-reactor: error: ':
refused, timeout, reset, closed, mismatch, resolve, unreachable, permission, usage, io, internal.
'echo-reactor --help' lists the exit codes.
";

/// Send messages to an echo server, and check what comes back
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct SendArgs {
    /// The server; of a name with several addresses the first that answers
    #[arg(value_name = "ADDRESS", default_value = DEFAULT_ADDRESS)]
    address: Address,

    /// What to say, or '-' for everything on standard input
    #[arg(value_name = "MESSAGE", default_value = "Hello, world!")]
    messages: Vec<OsString>,

    /// Messages are hexadecimal digits, and so is what is printed
    #[arg(long)]
    hex: bool,

    /// Say all of it so many times
    #[arg(long, value_name = "COUNT", default_value_t = Count(1))]
    repeat: Count,

    /// Wait so long between one message and the next
    #[arg(long, value_name = "TIME", default_value_t = Time(Duration::ZERO))]
    interval: Time,

    /// Wait at most so long for the resolver and a connection, and for each part of the answer
    #[arg(long, value_name = "TIME", default_value_t = Time(Duration::from_secs(5)))]
    timeout: Time,

    /// Say it from this address of ours: an IP address, with a port or without, or a socket's path
    #[arg(long, value_name = "ADDRESS")]
    source: Option<String>,

    /// Print nothing but failures
    #[arg(short, long)]
    quiet: bool,
}

/// What is to be said, and how.
struct Plan {
    address: Address,
    input: Input,
    form: Form,
    repeat: u64,
    interval: Duration,
    timeout: Duration,
    source: Option<Source>,
}

enum Input {
    Messages(Vec<Vec<u8>>),
    Standard,
}

/// How what came back is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Nothing,
    Escaped,
    Hex,
}

/// Why it ended before its end.
enum Stop {
    CliError(CliError),
    /// Nobody reads our standard output any more. That is how pipes end, and no failure.
    Unheard,
}

impl From<CliError> for Stop {
    fn from(failure: CliError) -> Self {
        Self::CliError(failure)
    }
}

pub(super) fn run(args: &SendArgs) -> Result<Exit, CliError> {
    let plan = args.plan()?;
    let mut out = Out::new(plan.form)?;
    let said = match plan.address {
        Address::Tcp(_) | Address::Unix(_) => stream::talk(&plan, &mut out),
        Address::Udp(_) | Address::UnixDatagram(_) => datagram::talk(&plan, &mut out),
    };
    match said {
        Ok(()) | Err(Stop::Unheard) => Ok(Exit::Ok),
        Err(Stop::CliError(failure)) => Err(failure),
    }
}

impl SendArgs {
    fn plan(&self) -> Result<Plan, CliError> {
        let usage = |text: &str| Err(CliError::new(CliErrorKind::Usage, text));
        if self.timeout.0.is_zero() {
            return usage("--timeout 0 leaves no time for an answer; write for example 5s");
        }
        if self.repeat.0 == 0 {
            return usage("--repeat 0 says nothing at all; write 1 or more");
        }
        let input = match self.messages.iter().any(|message| message == "-") {
            true if self.messages.len() > 1 => {
                return usage("'-' stands for all of standard input and must be the only message");
            }
            true if self.hex => {
                return usage("--hex is for messages; standard input is sent as it is");
            }
            true if self.repeat.0 > 1 => {
                return usage("standard input comes but once; leave out --repeat, or the '-'");
            }
            true => Input::Standard,
            false => Input::Messages(self.bytes()?),
        };
        let form = match (self.quiet, self.hex) {
            (true, _) => Form::Nothing,
            (false, true) => Form::Hex,
            (false, false) => Form::Escaped,
        };
        let source = match &self.source {
            Some(text) => Some(Source::parse(text, &self.address)?),
            None => None,
        };
        Ok(Plan {
            address: self.address.clone(),
            input,
            form,
            repeat: self.repeat.0,
            interval: self.interval.0,
            timeout: self.timeout.0,
            source,
        })
    }

    fn bytes(&self) -> Result<Vec<Vec<u8>>, CliError> {
        let bytes = |message: &OsString| match self.hex {
            true => text::from_hex(message.as_bytes()).map_err(|problem| {
                let text = format!(
                    "'{}' is not hexadecimal: {problem}",
                    message.to_string_lossy()
                );
                CliError::new(CliErrorKind::Usage, text)
            }),
            false => Ok(message.as_bytes().to_vec()),
        };
        self.messages.iter().map(bytes).collect()
    }
}

/// Where the answers go.
struct Out {
    output: Patient,
    form: Form,
}

impl Out {
    fn new(form: Form) -> Result<Self, CliError> {
        match Patient::output() {
            Ok(output) => Ok(Self { output, form }),
            Err(error) => Err(CliError::new(
                CliErrorKind::Io,
                format!("no descriptor for standard output: {error}"),
            )),
        }
    }

    /// Tells of a message that came back. One write for the line: nothing is left to flush.
    fn received(&mut self, message: &[u8]) -> Result<(), Stop> {
        let line = match self.form {
            Form::Nothing => return Ok(()),
            Form::Escaped => format!("Received '{}'\n", message.escape_ascii()),
            Form::Hex => format!("Received '{}'\n", text::to_hex(message)),
        };
        self.write(line.as_bytes())
    }

    /// Copies what came back as it is.
    fn copy(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        match self.form {
            Form::Nothing => Ok(()),
            Form::Escaped | Form::Hex => self.write(bytes),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.output
            .write_all(bytes)
            .map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe => Stop::Unheard,
                _ => Stop::CliError(CliError::new(
                    CliErrorKind::Io,
                    format!("cannot write to standard output: {error}"),
                )),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: SendArgs,
    }

    fn plan(arguments: &[&str]) -> Result<Plan, CliError> {
        let line = [&["send"], arguments].concat();
        Line::try_parse_from(line).unwrap().args.plan()
    }

    #[test]
    fn nothing_typed_means_the_tutorials_greeting() {
        let plan = plan(&[]).ok().unwrap();
        assert_eq!(plan.address.to_string(), DEFAULT_ADDRESS);
        assert!(matches!(plan.input, Input::Messages(messages) if messages == [b"Hello, world!"]));
        assert_eq!((plan.repeat, plan.timeout), (1, Duration::from_secs(5)));
        assert_eq!(plan.form, Form::Escaped);
    }

    #[track_caller]
    fn refuses(arguments: &[&str], expected: &str) {
        let failure = plan(arguments).err().unwrap();
        assert_eq!(failure.class, CliErrorKind::Usage, "{failure}");
        assert!(failure.text.contains(expected), "{failure}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        refuses(&["--timeout", "0"], "--timeout 0");
        refuses(&["--repeat", "0"], "--repeat 0");
        refuses(&["127.0.0.1:7", "-", "-"], "only message");
        refuses(&["127.0.0.1:7", "-", "--hex"], "--hex");
        refuses(&["127.0.0.1:7", "-", "--repeat", "2"], "--repeat");
        refuses(&["127.0.0.1:7", "--hex", "0g"], "'0g'");
        refuses(&["127.0.0.1:7", "--source", "/tmp/s"], "'/tmp/s'");
        refuses(&["unix:///tmp/s", "--source", "127.0.0.1"], "'127.0.0.1'");
    }
}
