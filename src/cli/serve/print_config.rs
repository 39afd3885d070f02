//! `serve --print-config`: what each flag is set to, and where that is from.
//!
//! ```text
//! max-connections = 10k (environment: ECHO_REACTOR_SERVE_MAX_CONNECTIONS)
//! idle-timeout = 30s (default of --hardened)
//! pid-file = none (default)
//! ```

use super::args::ServeArgs;
use crate::cli::error::{CliError, Exit};
use crate::cli::stdio;
use crate::cli::units::Count;
use crate::cli::variables::{name, variable};
use crate::net::escape::Escaped;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::os::unix::ffi::OsStrExt;

/// Prints a line for each flag.
pub(super) fn print(
    args: &ServeArgs,
    command: &Command,
    given: &ArgMatches,
) -> Result<Exit, CliError> {
    let mut lines = String::new();
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let Some(name) = name(arg).filter(|&name| name != "print-config") else {
            continue;
        };
        let value = value(arg, given).unwrap_or_else(|| match name {
            "ADDRESS" => {
                let addresses = args.addresses(false);
                let addresses = addresses.iter().map(ToString::to_string);
                addresses.collect::<Vec<_>>().join(",")
            }
            "max-connections" => Count(args.limits().connections_max as u64).to_string(),
            _ => "none".to_owned(),
        });
        let value = Escaped::new(&value);
        lines += &format!("{name} = {value} ({})\n", source(args, command, arg, given));
    }
    stdio::print(&lines)?;
    Ok(Exit::Ok)
}

/// The value as it was given, or the default; `None` if there is neither.
fn value(arg: &Arg, given: &ArgMatches) -> Option<String> {
    let id = arg.get_id().as_str();
    match arg.get_action() {
        ArgAction::SetTrue => Some(given.get_flag(id).to_string()),
        ArgAction::Count => Some(given.get_count(id).to_string()),
        _ => {
            let values = given.get_raw(id)?;
            let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            Some(values.collect::<Vec<_>>().join(","))
        }
    }
}

fn source(args: &ServeArgs, command: &Command, arg: &Arg, given: &ArgMatches) -> String {
    match given.value_source(arg.get_id().as_str()) {
        Some(ValueSource::CommandLine) => "flag".to_owned(),
        Some(ValueSource::EnvVariable) => {
            let variable = variable(command.get_name(), arg).unwrap_or_default();
            format!("environment: {variable}")
        }
        _ if args.hardened && is_of_profile(arg, given) => "default of --hardened".to_owned(),
        _ => "default".to_owned(),
    }
}

/// Whether `--hardened` has changed the default of this flag.
fn is_of_profile(arg: &Arg, given: &ArgMatches) -> bool {
    let usual = arg.get_default_values();
    if usual.is_empty() {
        return arg.get_long() == Some("max-connections");
    }
    let values = given.get_raw(arg.get_id().as_str());
    values.is_some_and(|values| !values.eq(usual.iter().map(clap::builder::OsStr::as_os_str)))
}
