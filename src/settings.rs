//! Environment variables of this program's own, and child processes that are not to inherit them.

use std::env;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

/// The beginning of the name of every such variable.
pub(crate) const PREFIX: &str = "ECHO_REACTOR_";

/// Has the program start without these variables, which set the flags of this process. A server that is measured or judged
/// is what its command line says: settings that only this process was meant to have would change the result.
pub(crate) fn remove_from(command: &mut Command) -> &mut Command {
    for (name, _) in env::vars_os() {
        if name.as_bytes().starts_with(PREFIX.as_bytes()) {
            command.env_remove(name);
        }
    }
    command
}
