//! Where this program lies on disk, and with what it was started: for SIGUSR2, which starts it once more.

use crate::procfs::own::EXECUTABLE;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program as it was started.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// The file by which it is found on disk, also after another version has replaced it.
    pub(super) file: PathBuf,
    /// The arguments, with the name of the program first.
    pub(super) arguments: Vec<OsString>,
}

impl Program {
    /// The program of this process. To be called at the start: once the file has been replaced, the system tells only that
    /// it is deleted.
    pub(super) fn of_this_process() -> Self {
        let arguments: Vec<OsString> = env::args_os().collect();
        let name = arguments.first().map(PathBuf::from).unwrap_or_default();
        let running = Path::new(EXECUTABLE);
        let same = |path: &Path| {
            let identity = |path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
            identity(path).is_some_and(|file| Some(file) == identity(running))
        };
        // The first argument may be a link that will lead to another version by then, while the system tells where it
        // leads now. A name without a slash was looked up in PATH, so a file of that name here is another one.
        let file = match name.components().count() > 1 && same(&name) {
            true => name,
            false => env::current_exe().unwrap_or(name),
        };
        Self { file, arguments }
    }

    /// The command that starts the program on disk, without its arguments.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.file);
        if let Some(name) = self.arguments.first() {
            command.arg0(name);
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_the_file_that_runs() {
        let program = Program::of_this_process();
        let running = fs::metadata(EXECUTABLE).unwrap().ino();
        assert_eq!(fs::metadata(program.file).unwrap().ino(), running);
    }
}
