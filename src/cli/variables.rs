//! Flags by environment variables: `ECHO_REACTOR_<COMMAND>_<FLAG>` for every flag, and for ADDRESS.
//!
//! The rule is applied to the whole command line at once ([`with_variables`]), so that a new flag has its variable by itself.
//! The name of the command is part of it, since `--connections` is one thing to `bench` and another one to `doctor`. A flag
//! on the command line goes before its variable. The flags of this program's own use, which are hidden, have none.
//!
//! Of the programs that this one starts, the workers of `serve` alone inherit the variables, since they read the same
//! command line; see [`crate::settings`].

use crate::settings::PREFIX;
use clap::builder::{BoolishValueParser, TypedValueParser};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::env;
use std::ffi::{OsStr, OsString};

/// The words that switch on a flag without a value. clap's own rule for its defaults compares texts, and needs them all.
pub(super) const TRUE: [&str; 14] = [
    "true", "True", "TRUE", "t", "T", "yes", "Yes", "YES", "y", "Y", "on", "On", "ON", "1",
];

/// The command line, with the variable of every flag.
pub(super) fn with_variables(command: Command) -> Command {
    attach(command, |_, _| true)
}

/// Parses the command line.
///
/// # Errors
/// Those of clap, about a variable too.
pub(super) fn parse(command: &Command, line: &[OsString]) -> Result<ArgMatches, clap::Error> {
    let matches = with_variables(command.clone()).try_get_matches_from(line);
    match matches {
        // A variable that switches a flag off contradicts no other flag. To clap it is a flag that was given.
        Err(error) if error.kind() == clap::error::ErrorKind::ArgumentConflict => {
            let is_on = |arg: &Arg, variable: &str| {
                let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
                let value = env::var(variable).unwrap_or_default();
                !(is_switch && switch(&value) == Ok(false))
            };
            attach(command.clone(), is_on).try_get_matches_from(line)
        }
        matches => matches,
    }
}

fn attach(command: Command, is_wanted: impl Fn(&Arg, &str) -> bool) -> Command {
    command.mut_subcommands(|command| {
        let name = command.get_name().to_owned();
        let is_hidden = command.is_hide_set();
        command.mut_args(|arg| match variable(&name, &arg) {
            Some(variable) if !is_hidden && is_wanted(&arg, &variable) => {
                let arg = match arg.get_action() {
                    ArgAction::SetTrue => arg.value_parser(switch),
                    ArgAction::Count => arg.value_parser(times),
                    _ => arg,
                };
                arg.env(variable).hide_env_values(true)
            }
            _ => arg,
        })
    })
}

/// The variable of a flag of this command, or of its ADDRESS.
pub(super) fn variable(command: &str, arg: &Arg) -> Option<String> {
    let name = name(arg).filter(|_| !arg.is_hide_set())?;
    let words = format!("{command}_{name}").replace('-', "_");
    Some(PREFIX.to_owned() + &words.to_uppercase())
}

/// The name of a flag without its dashes, or "ADDRESS".
pub(super) fn name(arg: &Arg) -> Option<&str> {
    let address = || match arg.get_value_names()?.first()?.as_str() {
        "ADDRESS" => Some("ADDRESS"),
        _ => None,
    };
    arg.get_long().or_else(address)
}

/// Parses the value of a flag that takes none on the command line.
fn switch(text: &str) -> Result<bool, String> {
    let parsed = BoolishValueParser::new().parse_ref(&Command::new(""), None, OsStr::new(text));
    match parsed {
        Ok(is_on) if is_on == TRUE.contains(&text) => Ok(is_on),
        _ => Err("it is neither true nor false; write 'true' or 'false'".to_owned()),
    }
}

/// Parses how often a flag is meant to be given.
fn times(text: &str) -> Result<u8, String> {
    text.parse()
        .map_err(|_| "it is not a number; write for example 1 or 2".to_owned())
}

/// Which flags of a text have their values from the environment: "; --rate comes from ECHO_REACTOR_BENCH_RATE", or nothing.
pub(super) fn origins(text: &str, command: &Command, line: &[OsString]) -> String {
    let lenient = command.clone().ignore_errors(true);
    let Some((name, given)) = lenient.try_get_matches_from(line).ok().and_then(|matches| {
        matches
            .subcommand()
            .map(|(name, given)| (name.to_owned(), given.clone()))
    }) else {
        return String::new();
    };
    let Some(command) = command
        .find_subcommand(&name)
        .filter(|one| !one.is_hide_set())
    else {
        return String::new();
    };
    let mut origins = String::new();
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        let is_given = given.value_source(id) == Some(ValueSource::CommandLine);
        let (Some(variable), false) = (variable(&name, arg), is_given) else {
            continue;
        };
        let is_unreadable = text.contains("UTF-8")
            && matches!(env::var(&variable), Err(env::VarError::NotUnicode(_)));
        if env::var_os(&variable).is_some() && (names(text, arg) || is_unreadable) {
            let flag = arg
                .get_long()
                .map_or("ADDRESS".to_owned(), |long| format!("--{long}"));
            origins += &format!("; {flag} comes from {variable}");
        }
    }
    origins
}

/// Whether the text names this flag, and not only one whose name begins like it.
fn names(text: &str, arg: &Arg) -> bool {
    let word = match arg.get_long() {
        Some(long) => format!("--{long}"),
        None => "[ADDRESS]".to_owned(),
    };
    let goes_on = |rest: &str| rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
    text.match_indices(&word)
        .any(|(place, _)| !goes_on(&text[place + word.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_flag_of_every_command_has_a_variable_of_its_own() {
        let mut all = with_variables(crate::cli::tests::command());
        all.build();
        let mut variables = BTreeSet::new();
        for command in all.get_subcommands().filter(|one| !one.is_hide_set()) {
            let help = command.clone().term_width(0).render_long_help().to_string();
            for arg in command.get_arguments() {
                let Some(long) = arg.get_long().filter(|_| !arg.is_hide_set()) else {
                    continue;
                };
                if matches!(long, "help" | "version") {
                    continue;
                }
                let flag = long.to_uppercase().replace('-', "_");
                let expected = format!("ECHO_REACTOR_{}_{flag}", command.get_name().to_uppercase());
                assert_eq!(arg.get_env(), Some(OsStr::new(&expected)), "--{long}");
                assert!(help.contains(&format!("[env: {expected}]")), "{expected}");
                assert!(
                    variables.insert(expected.clone()),
                    "{expected} is another flag, too"
                );
            }
        }
        assert!(variables.len() > 90, "{variables:?}");
        assert!(variables.contains("ECHO_REACTOR_SERVE_MAX_CONNECTIONS"));
    }

    #[test]
    fn what_is_hidden_has_no_variable() {
        let all = with_variables(crate::cli::tests::command());
        for (command, id) in [
            ("serve", "end_with"),
            ("bench", "worker"),
            ("resolve-names", "timeout"),
        ] {
            let command = all.find_subcommand(command).unwrap();
            let mut args = command.get_arguments();
            let hidden = args.find(|arg| arg.get_id() == id).unwrap();
            assert_eq!(hidden.get_env(), None, "{id}");
        }
    }

    #[test]
    fn a_switch_is_true_or_false_in_the_words_of_many_programs() {
        for word in TRUE {
            assert_eq!(switch(word), Ok(true), "{word}");
        }
        for word in ["false", "False", "FALSE", "no", "off", "n", "f", "0"] {
            assert_eq!(switch(word), Ok(false), "{word}");
        }
        for wrong in ["", "2", "maybe", "tRUE", " true"] {
            assert!(switch(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_flag_is_named_by_its_whole_name() {
        let arg = Arg::new("allow").long("allow");
        assert!(names("invalid value 'x' for '--allow <CIDR>'", &arg));
        assert!(!names("--allow-public-udp is missing", &arg));
    }
}
