//! A temporary file in the directory of the file that it will replace.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Attempts at a name that is free.
const NAMES_MAX: u32 = 16;

/// Removed on drop, unless it was renamed.
#[derive(Debug)]
pub(super) struct Temporary {
    pub(super) file: File,
    path: PathBuf,
}

impl Temporary {
    /// Creates a temporary file beside `path`. While it is to replace an `old` file, whose permissions it will get, only
    /// this user can read it.
    pub(super) fn create(path: &Path, old: Option<&File>) -> io::Result<Self> {
        let mode = if old.is_some() { 0o600 } else { 0o666 };
        if path.file_name().is_none() {
            return Err(ErrorKind::IsADirectory.into());
        }
        let mut attempt = 0;
        loop {
            let name = format!(".echo-reactor-{}-{attempt}", std::process::id());
            let path = path.with_file_name(name);
            let created = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&path);
            match created {
                // Left by a killed process, or of another process with this number (containers), or of another flag.
                Err(error) if error.kind() == ErrorKind::AlreadyExists && attempt < NAMES_MAX => {
                    attempt += 1;
                }
                created => return created.map(|file| Self { file, path }),
            }
        }
    }

    /// Gives the file its final name.
    pub(super) fn rename(&mut self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        self.path.clear();
        Ok(())
    }

    /// Reads the content back.
    pub(super) fn content(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file.rewind()?;
        self.file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.path);
        }
    }
}
