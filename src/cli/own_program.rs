//! Starting this program as a child process: workers of `bench`, servers to be measured, and resolvers of names.
//!
//! Its path is not safe to start it by. A build or an upgrade replaces the file during a measurement of several steps, and
//! the next step would run another version, or find no file, since current_exe() names the removed one. On Linux
//! /proc/self/exe is the executable itself, even after its path has changed (proc(5)).

#[cfg(target_os = "linux")]
use crate::procfs::own::EXECUTABLE;
use crate::settings;
use std::{env, io, process::Command};

/// The command that starts this program, without the variables that set flags of this process.
pub(super) fn command() -> io::Result<Command> {
    let mut command = command_with_settings()?;
    settings::remove_from(&mut command);
    Ok(command)
}

/// The command that starts this program, for a process that reads the same command line and environment as this one. It
/// passes the first argument of this process, so that ps(1) shows the same name.
pub(super) fn command_with_settings() -> io::Result<Command> {
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

/// Gives the process this name, as top(1) and pkill(1) know it.
#[cfg(target_os = "linux")]
pub(super) fn set_name(name: &str) {
    if let Ok(name) = std::ffi::CString::new(name) {
        // A name is truncated to 15 bytes (PR_SET_NAME of prctl(2)).
        let _ = nix::sys::prctl::set_name(&name);
    }
}

/// Other systems name a process by its file.
#[cfg(not(target_os = "linux"))]
pub(super) fn set_name(_: &str) {}

/// Names the process after its first argument. The kernel names it "exe", the last part of the executed path.
#[cfg(target_os = "linux")]
pub(super) fn restore_name() {
    let path = env::args_os().next().map(std::path::PathBuf::from);
    if let Some(name) = path.as_deref().and_then(std::path::Path::file_name) {
        set_name(&name.to_string_lossy());
    }
}

/// On other systems the executed path has that name already.
#[cfg(not(target_os = "linux"))]
pub(super) fn restore_name() {}
