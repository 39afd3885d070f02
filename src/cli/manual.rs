//! `echo-reactor man DIR` and `echo-reactor completions SHELL`: files for the installation, made from the same command line
//! that is parsed, so that they cannot differ from it.

use super::error::{CliError, CliErrorKind, Exit};
use super::stdio;
use clap::{Args, Command};
use clap_complete::Shell;
use std::fs;
use std::path::PathBuf;

/// Write man pages, one for the program and one for each command
#[derive(Args, Debug)]
pub(super) struct ManArgs {
    /// The folder for them, such as /usr/local/share/man/man1; it is made if it does not exist
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Print a script that completes this command line in a shell
#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// The shell that reads it
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(super) fn write_pages(args: &ManArgs, command: &Command) -> Result<Exit, CliError> {
    fs::create_dir_all(&args.dir)
        .and_then(|()| clap_mangen::generate_to(command.clone(), &args.dir))
        .map_err(|error| {
            let text = format!(
                "man pages cannot be written to '{}': {error}",
                args.dir.display()
            );
            CliError::new(CliErrorKind::Create, text)
        })?;
    Ok(Exit::Ok)
}

pub(super) fn print_completions(
    args: &CompletionsArgs,
    command: &Command,
) -> Result<Exit, CliError> {
    let (name, mut script) = (command.get_name().to_owned(), Vec::new());
    clap_complete::generate(args.shell, &mut visible(command), name, &mut script);
    stdio::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}

/// The same command without what is hidden, which is for this program's own use.
fn visible(command: &Command) -> Command {
    let arguments = command.get_arguments().filter(|one| !one.is_hide_set());
    let commands = command.get_subcommands().filter(|one| !one.is_hide_set());
    let visible = Command::new(command.get_name().to_owned())
        .about(command.get_about().cloned().unwrap_or_default())
        .args(arguments.cloned())
        .subcommands(commands.map(visible));
    match command.get_version() {
        Some(version) => visible.version(version.to_owned()),
        None => visible,
    }
}
