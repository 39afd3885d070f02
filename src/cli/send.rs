//! `echo-reactor send`: sends messages to an echo server, and compares what comes back.
//!
//! Every received byte is compared with the byte that was sent, so a script can use the exit code to test a server.
//! This file has the arguments and the order of the steps; [`destination`] and [`plan`] what they amount to, [`connect`] the
//! connection, [`source`] the client's own address, [`proxy`] the one that it declares, [`stream`] and [`datagram`] the
//! exchange, [`output`] and [`text`] the printing. [`ping`] is the exchange with a host, by a [`ping_socket`] and messages of
//! [`icmp`].

mod connect;
mod datagram;
mod destination;
mod icmp;
mod output;
mod ping;
mod ping_socket;
mod plan;
mod proxy;
mod source;
mod stream;
mod text;

use super::error::{CliError, Exit};
use super::names::DEFAULT_ADDRESS;
use super::units::{Count, Time};
use clap::Args;
use destination::Destination;
use output::{Out, Stop};
use plan::{Form, Input, Plan};
use proxy::ProxyHeader;
use source::Source;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  echo-reactor send
      'Hello, world!' to tcp://127.0.0.1:50007
  echo-reactor send localhost:7777 one two three
      three messages on one connection
  echo-reactor send -q --timeout 1s localhost:7777
      a health probe: the exit code is the answer
  echo-reactor send localhost:7777 - < in > out
      any number of bytes, streaming
  echo-reactor send --hex udp://127.0.0.1:7 '00 ff'
      bytes that no keyboard has
  echo-reactor send --repeat 10 --interval 1s unix:///run/echo.sock
  echo-reactor send --repeat 3 --interval 1s icmp://localhost
      pings a host: its kernel answers
  echo-reactor send -q --proxy v2,local localhost:7777
      a health probe of a server behind a load balancer

A failure is one line on standard error, 'echo-reactor: error: WORD: ...'. The
words: refused, timeout, reset, closed, mismatch, resolve, unreachable,
permission, usage, io, internal. 'echo-reactor --help' lists the exit codes.
";

/// Send messages to an echo server, and check what comes back
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct SendArgs {
    /// The server, or icmp://HOST to ping; if a name has several addresses, the first that answers
    #[arg(value_name = "ADDRESS", default_value = DEFAULT_ADDRESS)]
    address: Destination,

    /// The message, or '-' for all of standard input
    #[arg(value_name = "MESSAGE", default_value = "Hello, world!")]
    messages: Vec<OsString>,

    /// Read messages as hexadecimal digits, and print them so
    #[arg(long)]
    hex: bool,

    /// Send all messages this many times
    #[arg(long, value_name = "COUNT", default_value_t = Count(1))]
    repeat: Count,

    /// Pause between one message and the next
    #[arg(long, value_name = "TIME", default_value_t = Time(Duration::ZERO))]
    interval: Time,

    /// Longest wait for the resolver and a connection, and for each part of the answer
    #[arg(long, value_name = "TIME", default_value_t = Time(Duration::from_secs(5)))]
    timeout: Time,

    /// Address of the client: an IP address, with or without a port, or a socket path
    #[arg(long, value_name = "ADDRESS")]
    source: Option<String>,

    /// Send a PROXY header first, v1 or v2: of this connection, of SRC,DST (an IP address and a port each), or 'local'
    #[arg(long, value_name = "VERSION[,SRC,DST]")]
    proxy: Option<ProxyHeader>,

    /// Print nothing but failures
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(args: &SendArgs) -> Result<Exit, CliError> {
    let exchanged = match &args.address {
        Destination::Server(address) => {
            let plan = args.plan(address, Source::parse)?;
            let mut out = Out::new(plan.form)?;
            match address.is_datagram() {
                true => datagram::talk(&plan, &mut out),
                false => stream::talk(&plan, &mut out),
            }
        }
        Destination::Host(host) => {
            let plan = args.plan(host, Source::parse_host)?;
            let mut out = Out::new(plan.form)?;
            ping::talk(&plan, &mut out)
        }
    };
    match exchanged {
        Ok(()) | Err(Stop::OutputClosed) => Ok(Exit::Ok),
        Err(Stop::Failed(failure)) => Err(failure),
    }
}

impl SendArgs {
    /// What is to be sent to this address. `source` reads the client's own address.
    fn plan<A: Clone>(
        &self,
        address: &A,
        source: impl Fn(&str, &A) -> Result<Source, CliError>,
    ) -> Result<Plan<A>, CliError> {
        let usage = |text: &str| Err(CliError::usage(text));
        if self.timeout.0.is_zero() {
            return usage("--timeout 0: an answer takes longer; write for example 5s");
        }
        if self.repeat.0 == 0 {
            return usage("--repeat 0: nothing would be sent; write 1 or more");
        }
        let input = match self.messages.iter().any(|message| message == "-") {
            true if self.messages.len() > 1 => {
                return usage(
                    "'-' is all of standard input, and has to be the only message; leave out the rest",
                );
            }
            true if self.hex => {
                return usage("--hex with '-': standard input is sent as it is; leave out --hex");
            }
            true if self.repeat.0 > 1 => {
                return usage(
                    "--repeat with '-': standard input can be read only once; leave out --repeat",
                );
            }
            true => Input::Standard,
            false => Input::Messages(self.bytes()?),
        };
        let form = match (self.quiet, self.hex) {
            (true, _) => Form::Nothing,
            (false, true) => Form::Hex,
            (false, false) => Form::Escaped,
        };
        let source = self.source.as_ref().map(|text| source(text, address));
        let is_stream = matches!(&self.address, Destination::Server(to) if !to.is_datagram());
        if self.proxy.is_some() && !is_stream {
            return usage("--proxy is for connections, and datagrams have no header; leave it out");
        }
        Ok(Plan {
            address: address.clone(),
            input,
            form,
            repeat: self.repeat.0,
            interval: self.interval.0,
            timeout: self.timeout.0,
            source: source.transpose()?,
            proxy: self.proxy,
        })
    }

    fn bytes(&self) -> Result<Vec<Vec<u8>>, CliError> {
        let bytes = |message: &OsString| match self.hex {
            true => text::from_hex(message.as_bytes()).map_err(|problem| {
                let text = format!(
                    "'{}' is not hexadecimal: {problem}",
                    message.to_string_lossy()
                );
                CliError::usage(text)
            }),
            false => Ok(message.as_bytes().to_vec()),
        };
        self.messages.iter().map(bytes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::error::CliErrorKind;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: SendArgs,
    }

    fn plan(arguments: &[&str]) -> Result<Plan, CliError> {
        let line = [&["send"], arguments].concat();
        let args = Line::try_parse_from(line).unwrap().args;
        match &args.address {
            Destination::Server(address) => args.plan(address, Source::parse),
            Destination::Host(host) => Err(args.plan(host, Source::parse_host).err().unwrap()),
        }
    }

    #[test]
    fn the_defaults_send_hello_world() {
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
    fn contradicting_arguments_are_refused() {
        refuses(&["--timeout", "0"], "--timeout 0");
        refuses(&["--repeat", "0"], "--repeat 0");
        refuses(&["127.0.0.1:7", "-", "-"], "only message");
        refuses(&["127.0.0.1:7", "-", "--hex"], "--hex");
        refuses(&["127.0.0.1:7", "-", "--repeat", "2"], "--repeat");
        refuses(&["127.0.0.1:7", "--hex", "0g"], "'0g'");
        refuses(&["udp://127.0.0.1:7", "--proxy", "v2"], "--proxy");
        refuses(&["127.0.0.1:7", "--source", "/tmp/s"], "'/tmp/s'");
        refuses(&["unix:///tmp/s", "--source", "127.0.0.1"], "'127.0.0.1'");
        let host = "icmp://127.0.0.1";
        refuses(&[host, "--proxy", "v2"], "--proxy");
        refuses(&[host, "--source", "127.0.0.1:7"], "without a port");
    }
}
