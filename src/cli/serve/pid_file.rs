//! `--pid-file`: the process id of the server, or of its master, in a file. It stays the same when the program is replaced.

use crate::cli::error::{CliError, CliErrorKind};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A file that holds the process id, for as long as this value lives. It stays open, since nothing can be opened inside a
/// sandbox.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
    file: File,
}

impl PidFile {
    /// Writes the file, in place of an older one, by a rename: a reader finds one process id or the other, never half of one.
    pub(super) fn write(path: &Path) -> Result<Self, CliError> {
        let temporary = temporary_path(path);
        let write = || {
            let mut file = (OpenOptions::new().read(true).write(true))
                .create(true)
                .truncate(true)
                .open(&temporary)?;
            file.write_all(content().as_bytes())?;
            fs::rename(&temporary, path).map(|()| file)
        };
        let file = write().map_err(|error| failure(path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    /// Whether the path still leads to this file, and this process id is still in it.
    fn is_still_ours(&self) -> io::Result<bool> {
        let (there, ours) = (fs::symlink_metadata(&self.path)?, self.file.metadata()?);
        let mut now = [0; 16];
        let length = self.file.read_at(&mut now, 0)?;
        let same = (there.dev(), there.ino()) == (ours.dev(), ours.ino());
        Ok(same && now[..length] == *content().as_bytes())
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if self.is_still_ours().unwrap_or(false) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn content() -> String {
    format!("{}\n", std::process::id())
}

fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    path.with_file_name(name)
}

fn failure(path: &Path, error: &io::Error) -> CliError {
    let _ = fs::remove_file(temporary_path(path));
    CliError::new(
        CliErrorKind::Create,
        format!(
            "--pid-file: cannot write '{}': {error}; name a file in a directory that this user may write to",
            path.display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_process_that_the_file_names_removes_it() {
        let path = std::env::temp_dir().join(format!("echo-reactor-pid-{}", std::process::id()));
        fs::write(&path, "1\n").unwrap();
        let file = PidFile::write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), content());
        drop(file);
        assert!(!path.exists());
        let file = PidFile::write(&path).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
        fs::remove_file(&path).unwrap();

        let failure = PidFile::write(Path::new("/nowhere/at/all")).unwrap_err();
        assert_eq!(failure.exit().code(), 73);
        assert!(failure.text.contains("'/nowhere/at/all'"), "{failure}");
    }
}
