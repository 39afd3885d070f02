//! A file that a measurement writes beside its report: `--hdr`, `--svg`, `--json`, `--html`.
//!
//! It is opened before anything is measured, so that a wrong path is told at once. What is written goes to a temporary
//! file beside it, which takes the name at the end: a run that fails, or a disk that is full, leaves what was there
//! before, and a file under its name is whole. What is no regular file (a pipe, /dev/stdout) is written to itself.

use super::error::{CliError, CliErrorKind};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file that is being written.
#[derive(Debug)]
pub(super) struct SideFile {
    flag: &'static str,
    path: PathBuf,
    file: File,
    /// The temporary file, and the name that it will take.
    staged: Option<(PathBuf, PathBuf)>,
}

/// Refuses one file for two flags: the one that is finished last would take the place of the other. A pipe or a terminal
/// can take both.
///
/// # Errors
/// Two of the flags name the same file.
pub(super) fn refuse_same(files: &[(&str, Option<&PathBuf>)]) -> Result<(), CliError> {
    let named = files
        .iter()
        .filter_map(|(flag, path)| Some((*flag, *path.as_ref()?)));
    let named: Vec<(&str, &PathBuf)> = named.collect();
    for (place, (flag, path)) in named.iter().enumerate() {
        let is_shared = fs::metadata(path).is_ok_and(|found| !found.is_file());
        let same = |(_, other): &&(&str, &PathBuf)| other == path && !is_shared;
        if let Some((other, _)) = named[..place].iter().find(same) {
            let text = format!(
                "{other} and {flag} both name '{}'; name two files",
                path.display()
            );
            return Err(CliError::new(CliErrorKind::Usage, text));
        }
    }
    Ok(())
}

impl SideFile {
    /// Opens the file that `flag` names.
    ///
    /// # Errors
    /// The file cannot be made there.
    pub(super) fn create(flag: &'static str, path: &Path) -> Result<Self, CliError> {
        let (file, staged) = open(path).map_err(|error| {
            let text = format!(
                "{flag}: cannot write '{}': {error}; name a file in a directory that can be written",
                path.display()
            );
            CliError::new(CliErrorKind::Create, text)
        })?;
        Ok(Self {
            flag,
            path: path.to_owned(),
            file,
            staged,
        })
    }

    /// Appends to the file.
    ///
    /// # Errors
    /// The write failed, as on a full disk.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        let written = self.file.write_all(bytes);
        written.map_err(|error| self.failure(&error))
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// The file cannot be stored, or cannot be renamed.
    pub(super) fn finish(mut self) -> Result<(), CliError> {
        let Some((temporary, target)) = self.staged.take() else {
            return self.file.flush().map_err(|error| self.failure(&error));
        };
        // Some file systems tell of a full disk, or of a quota, only here.
        let stored = self.file.sync_all();
        let named = stored.and_then(|()| fs::rename(&temporary, target));
        named.map_err(|error| {
            let _ = fs::remove_file(&temporary);
            self.failure(&error)
        })
    }

    fn failure(&self, error: &io::Error) -> CliError {
        let (flag, path) = (self.flag, self.path.display());
        let text =
            format!("{flag}: writing '{path}' failed: {error}; make room, or name another file");
        CliError::new(CliErrorKind::Io, text)
    }
}

impl Drop for SideFile {
    fn drop(&mut self) {
        if let Some((temporary, _)) = &self.staged {
            let _ = fs::remove_file(temporary);
        }
    }
}

/// The file to write to, and its two names if one is temporary.
type Opened = (File, Option<(PathBuf, PathBuf)>);

fn open(path: &Path) -> io::Result<Opened> {
    let old = match fs::metadata(path) {
        Ok(old) if !old.is_file() => return Ok((open_special(path)?, None)),
        Ok(old) => Some(old),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    // A symbolic link stays one, and the file that it names is replaced.
    let target = match &old {
        Some(_) => fs::canonicalize(path)?,
        None => path.to_owned(),
    };
    let Some(name) = target.file_name() else {
        return Err(io::ErrorKind::IsADirectory.into());
    };
    let mut temporary = name.to_owned();
    temporary.push(format!(".{}.part", std::process::id()));
    let temporary = target.with_file_name(temporary);
    let Some(old) = old else {
        return Ok((File::create(&temporary)?, Some((temporary, target))));
    };
    // A file that may not be written is not replaced either, though its directory would allow that.
    let itself = OpenOptions::new().write(true).open(&target)?;
    match File::create(&temporary) {
        Ok(file) => {
            let _ = file.set_permissions(old.permissions());
            Ok((file, Some((temporary, target))))
        }
        // No file can be made in this directory, but this one can be written.
        Err(_) => itself.set_len(0).map(|()| (itself, None)),
    }
}

/// Opens what is no regular file. A FIFO that no process reads is an error (ENXIO of fifo(7)), and no wait without end; once it
/// is open, a slow reader is waited for.
fn open_special(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn directory(name: &str) -> PathBuf {
        let name = format!("echo-reactor-side-{}-{name}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        directory
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string();
        let mut names: Vec<String> = entries.map(|entry| name(entry).unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_takes_its_name_when_it_is_whole() {
        let directory = directory("whole");
        let path = directory.join("a.json");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let mut file = SideFile::create("--json", &path).unwrap();
        file.write(b"ne").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        drop(file);
        assert_eq!(
            (names(&directory).len(), fs::read(&path).unwrap()),
            (1, b"old".to_vec())
        );
        let mut file = SideFile::create("--json", &path).unwrap();
        file.write(b"new").unwrap();
        file.finish().unwrap();
        assert_eq!(
            (names(&directory), fs::read(&path).unwrap()),
            (vec!["a.json".into()], b"new".to_vec())
        );
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn two_flags_do_not_share_a_file() {
        let (one, other) = (PathBuf::from("/tmp/x"), PathBuf::from("/dev/null"));
        let refused = |first, second| {
            refuse_same(&[
                ("--hdr", Some(first)),
                ("--json", None),
                ("--svg", Some(second)),
            ])
        };
        let failure = refused(&one, &one).unwrap_err();
        assert_eq!(
            failure.text,
            "--hdr and --svg both name '/tmp/x'; name two files"
        );
        assert_eq!(refused(&one, &other), Ok(()));
        assert_eq!(refused(&other, &other), Ok(()));
    }

    #[test]
    fn a_symbolic_link_stays_one() {
        let directory = directory("link");
        let (path, link) = (directory.join("target"), directory.join("link"));
        fs::write(&path, "old").unwrap();
        symlink("target", &link).unwrap();
        let mut file = SideFile::create("--svg", &link).unwrap();
        file.write(b"new").unwrap();
        file.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_is_no_regular_file_is_written_to_itself() {
        let mut file = SideFile::create("--svg", Path::new("/dev/null")).unwrap();
        file.write(b"x").unwrap();
        file.finish().unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        let mut full = SideFile::create("--svg", Path::new("/dev/full")).unwrap();
        let failure = full.write(b"x").unwrap_err();
        assert_eq!(failure.class, CliErrorKind::Io);
        assert!(failure.text.contains("'/dev/full'") && failure.text.contains("make room"));
        let directory = directory("fifo");
        let fifo = directory.join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let failure = SideFile::create("--svg", &fifo).unwrap_err();
        assert_eq!(
            failure.class,
            CliErrorKind::Create,
            "no process reads it, and nothing waits"
        );
        fs::remove_dir_all(directory).unwrap();
        let failure = SideFile::create("--svg", Path::new("/nonexistent/x")).unwrap_err();
        assert_eq!(failure.class, CliErrorKind::Create);
    }
}
