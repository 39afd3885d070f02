//! Printing received messages to standard output.

use super::plan::Form;
use super::text;
use crate::cli::error::{CliError, CliErrorKind};
use crate::cli::stdio::BlockingStdio;
use std::io::{self, Write};
use std::time::Duration;

/// Why an exchange ended early.
pub(super) enum Stop {
    Failed(CliError),
    /// The reader of standard output has closed it. That is how pipes end, and no failure.
    OutputClosed,
}

impl From<CliError> for Stop {
    fn from(failure: CliError) -> Self {
        Self::Failed(failure)
    }
}

/// Standard output, in the form that was asked for.
pub(super) struct Out {
    output: BlockingStdio,
    form: Form,
}

impl Out {
    pub(super) fn new(form: Form) -> Result<Self, CliError> {
        match BlockingStdio::output() {
            Ok(output) => Ok(Self { output, form }),
            Err(error) => Err(CliError::new(
                CliErrorKind::Io,
                format!(
                    "standard output cannot be used: {error}; open it, or redirect it to a file"
                ),
            )),
        }
    }

    /// Prints a message that came back. The line is one write, so there is nothing to flush.
    pub(super) fn received(&mut self, message: &[u8]) -> Result<(), Stop> {
        let line = match self.form {
            Form::Nothing => return Ok(()),
            Form::Escaped => format!("Received '{}'\n", message.escape_ascii()),
            Form::Hex => format!("Received '{}'\n", text::to_hex(message)),
        };
        self.write(line.as_bytes())
    }

    /// Prints a message that came back from a host, and the time of its round trip.
    pub(super) fn answered(&mut self, message: &[u8], round_trip: Duration) -> Result<(), Stop> {
        let bytes = match self.form {
            Form::Nothing => return Ok(()),
            Form::Escaped => message.escape_ascii().to_string(),
            Form::Hex => text::to_hex(message),
        };
        let ms = round_trip.as_secs_f64() * 1e3;
        self.write(format!("Received '{bytes}' in {ms:.3} ms\n").as_bytes())
    }

    /// Copies received bytes unchanged.
    pub(super) fn copy(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        match self.form {
            Form::Nothing => Ok(()),
            Form::Escaped | Form::Hex => self.write(bytes),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.output
            .write_all(bytes)
            .map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe => Stop::OutputClosed,
                _ => Stop::Failed(CliError::new(
                    CliErrorKind::Io,
                    format!("cannot write to standard output: {error}"),
                )),
            })
    }
}
