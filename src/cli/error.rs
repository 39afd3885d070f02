//! How the program ends: exit codes, kinds of errors, and the line that reports one.
//!
//! This file has the one table of exit codes, the one-word kinds that scripts match on, and the type that carries an error
//! to the only place that prints it.

use crate::net::escape::Escaped;
use std::fmt;
use std::process::ExitCode;

/// The result of the program. The numbers are those of sysexits.h where that has one that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok,
    Cut,
    Invalid,
    Worse,
    Short,
    Nonconforming,
    Usage,
    Mismatch,
    Resolve,
    Unavailable,
    Internal,
    System,
    Create,
    Io,
    Timeout,
    Permission,
}

/// The table of exit codes: code, name, meaning. The help prints it; the numbers stand nowhere else.
const TABLE: [(Exit, u8, &str, &str); 16] = [
    (
        Exit::Ok,
        0,
        "ok",
        "done; every echo was right, or every connection ended in order",
    ),
    (
        Exit::Cut,
        3,
        "cut",
        "stopped before everything was echoed: connections were aborted, or still queued",
    ),
    (
        Exit::Invalid,
        4,
        "invalid",
        "the measurement is not valid, or a rule of check is unknown; the report says why",
    ),
    (
        Exit::Worse,
        5,
        "worse",
        "the second record of diff is worse than the first",
    ),
    (
        Exit::Short,
        6,
        "short",
        "a limit of doctor, a rate of bench --find-max-rate or a load of compare was not reached; the report says why",
    ),
    (
        Exit::Nonconforming,
        7,
        "nonconforming",
        "a MUST of check does not hold; the report says which",
    ),
    (Exit::Usage, 64, "usage", "invalid command line"),
    (
        Exit::Mismatch,
        65,
        "mismatch",
        "what came back is not what was sent",
    ),
    (
        Exit::Resolve,
        68,
        "resolve",
        "the name of the host has no address",
    ),
    (
        Exit::Unavailable,
        69,
        "unavailable",
        "no server answers there, or the address cannot be bound",
    ),
    (
        Exit::Internal,
        70,
        "internal",
        "a bug in this program; please report it",
    ),
    (
        Exit::System,
        71,
        "system",
        "a system call failed, or a worker of bench",
    ),
    (
        Exit::Create,
        73,
        "create",
        "a file or a socket file cannot be made",
    ),
    (
        Exit::Io,
        74,
        "io",
        "reading or writing failed: reset, closed early, disk full",
    ),
    (Exit::Timeout, 75, "timeout", "no answer in time"),
    (
        Exit::Permission,
        77,
        "permission",
        "this user lacks a permission",
    ),
];

impl Exit {
    fn row(self) -> (u8, &'static str, &'static str) {
        // A test below checks that every variant is at its place in the table.
        let (_, code, name, meaning) = TABLE[self as usize];
        (code, name, meaning)
    }

    /// The number that the calling process sees.
    pub(crate) fn code(self) -> u8 {
        self.row().0
    }

    /// The exit with this code.
    pub(crate) fn with_code(code: i32) -> Option<Self> {
        let row = TABLE.into_iter().find(|row| i32::from(row.1) == code);
        row.map(|(exit, ..)| exit)
    }

    /// The table as the help prints it, in lines of at most 80 columns.
    pub(crate) fn help() -> String {
        let mut text = String::new();
        for (_, code, name, meaning) in TABLE {
            let mut line = format!("  {code:>2}  {name:<13}");
            for word in meaning.split(' ') {
                if line.len() + 1 + word.len() > 80 {
                    text.push_str(&line);
                    line = format!("\n{:19}", "");
                }
                line.push(' ');
                line.push_str(word);
            }
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The kind of an error, in one word that stays the same from version to version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CliErrorKind {
    /// No socket listens at the address.
    Refused,
    /// No answer came in time.
    Timeout,
    /// The peer reset the connection.
    Reset,
    /// The peer closed the connection before everything had come back.
    Closed,
    /// The bytes that came back differ from those that were sent.
    Mismatch,
    /// A name has no address.
    Resolve,
    /// No route leads to the address.
    Unreachable,
    /// An address cannot be bound: it is in use, or it is no address of this machine.
    Unavailable,
    /// The user lacks a permission.
    Permission,
    /// The command line is invalid.
    Usage,
    /// A file cannot be made.
    Create,
    /// A system call failed.
    System,
    /// A bug in this program.
    Internal,
    /// Any other failure of reading or writing.
    Io,
}

impl CliErrorKind {
    /// The word of this kind and its exit code.
    fn row(self) -> (&'static str, Exit) {
        match self {
            Self::Refused => ("refused", Exit::Unavailable),
            Self::Timeout => ("timeout", Exit::Timeout),
            Self::Reset => ("reset", Exit::Io),
            Self::Closed => ("closed", Exit::Io),
            Self::Mismatch => ("mismatch", Exit::Mismatch),
            Self::Resolve => ("resolve", Exit::Resolve),
            Self::Unreachable => ("unreachable", Exit::Unavailable),
            Self::Unavailable => ("unavailable", Exit::Unavailable),
            Self::Permission => ("permission", Exit::Permission),
            Self::Usage => ("usage", Exit::Usage),
            Self::Create => ("create", Exit::Create),
            Self::System => ("system", Exit::System),
            Self::Internal => ("internal", Exit::Internal),
            Self::Io => ("io", Exit::Io),
        }
    }
}

/// An error on its way to the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CliError {
    pub(crate) class: CliErrorKind,
    pub(crate) text: String,
}

impl CliError {
    pub(crate) fn new(class: CliErrorKind, text: impl Into<String>) -> Self {
        Self {
            class,
            text: text.into(),
        }
    }

    /// The command line asks for what cannot be.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(CliErrorKind::Usage, text)
    }

    pub(crate) fn exit(&self) -> Exit {
        self.class.row().1
    }
}

/// One line, whatever the text contains: a name with a newline in it must not forge a second line.
impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "echo-reactor: error: {}: ", self.class.row().0)?;
        Escaped::new(&self.text).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_is_at_its_place_and_no_code_is_used_twice() {
        for (place, (exit, code, name, _)) in TABLE.into_iter().enumerate() {
            assert_eq!(exit as usize, place, "{name}");
            let users = TABLE.iter().filter(|row| row.1 == code || row.2 == name);
            assert_eq!(users.count(), 1, "{name} {code}");
            assert_eq!(Exit::with_code(code.into()), Some(exit));
        }
    }

    #[test]
    fn the_codes_are_those_that_scripts_rely_on() {
        let codes = [
            (CliErrorKind::Refused, 69),
            (CliErrorKind::Timeout, 75),
            (CliErrorKind::Reset, 74),
            (CliErrorKind::Closed, 74),
            (CliErrorKind::Mismatch, 65),
            (CliErrorKind::Resolve, 68),
            (CliErrorKind::Unreachable, 69),
            (CliErrorKind::Unavailable, 69),
            (CliErrorKind::Permission, 77),
            (CliErrorKind::Usage, 64),
            (CliErrorKind::Create, 73),
            (CliErrorKind::System, 71),
            (CliErrorKind::Internal, 70),
            (CliErrorKind::Io, 74),
        ];
        for (class, code) in codes {
            assert_eq!(CliError::new(class, "").exit().code(), code, "{class:?}");
        }
        assert_eq!((Exit::Ok.code(), Exit::Cut.code()), (0, 3));
        assert_eq!((Exit::Invalid.code(), Exit::Short.code()), (4, 6));
        assert_eq!(Exit::Nonconforming.code(), 7);
    }

    #[test]
    fn an_error_is_one_line_whatever_it_contains() {
        let failure = CliError::new(CliErrorKind::Refused, "no 'a\nb\u{1b}[31m' é");
        assert_eq!(
            failure.to_string(),
            r"echo-reactor: error: refused: no 'a\nb\u{1b}[31m' é"
        );
    }
}
