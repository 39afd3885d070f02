//! This very program as a child process: workers of `bench`, servers that are measured, and resolvers of names.
//!
//! A path is no safe way to start it again. A build or an upgrade replaces the file while a measurement of several steps
//! is on; the next step would then run another version, or find no file at all, since current_exe() names the file that
//! was removed. On Linux /proc/self/exe is the executable itself, whatever has become of its path (proc(5)).

use std::{env, io, process::Command};

/// The executable of the calling process; in a child between fork and exec it is still that of the parent.
#[cfg(target_os = "linux")]
const EXECUTABLE: &str = "/proc/self/exe";

/// The command that starts this program once more. Its first argument is ours, so that a list of processes shows it under
/// the same name.
pub(super) fn command() -> io::Result<Command> {
    use std::os::unix::process::CommandExt;
    #[cfg(target_os = "linux")]
    let program = match std::path::Path::new(EXECUTABLE).exists() {
        true => EXECUTABLE.into(),
        false => env::current_exe()?,
    };
    #[cfg(not(target_os = "linux"))]
    let program = env::current_exe()?;
    let mut command = Command::new(program);
    if let Some(name) = env::args_os().next() {
        command.arg0(name);
    }
    Ok(command)
}

/// Takes the name of our first argument for the process, in place of "exe", the last part of the path that was executed.
#[cfg(target_os = "linux")]
pub(super) fn restore_name() {
    use std::{ffi::CString, os::unix::ffi::OsStrExt, path::PathBuf};
    let path = env::args_os().next().map(PathBuf::from);
    let name = path.as_deref().and_then(std::path::Path::file_name);
    if let Some(Ok(name)) = name.map(|name| CString::new(name.as_bytes())) {
        // What is longer than 15 bytes is cut off (PR_SET_NAME of prctl(2)).
        let _ = nix::sys::prctl::set_name(&name);
    }
}

/// Elsewhere the path that is executed has that name.
#[cfg(not(target_os = "linux"))]
pub(super) fn restore_name() {}
