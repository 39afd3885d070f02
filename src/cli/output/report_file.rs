//! The file of a report: checked at the start, written at the end, and the last good report kept until then.
//!
//! A regular file is replaced by rename(2), so that a reader finds the old report or the new one, and a full disk costs the
//! new one alone. Where that cannot be (the directory is not ours to write to, the file is mounted, linked, another user's,
//! or the sandbox forbids it), space is reserved first and the file is written in place. Whatever else a path can lead to
//! is opened without waiting and written within a bounded time: a FIFO without a reader would hold up open(2) itself.
//!
//! What may live in this file: where a report goes, and what can be wrong with that. What may not: its content.

use super::{NonBlockingWriter, open_without_waiting};
use crate::cli::error::{CliError, CliErrorKind};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A pipe or a terminal may be so slow. Supervisors kill ten seconds after SIGTERM, some of them.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Attempts at a name for the temporary file.
const NAMES: u32 = 16;

/// Where a report goes: `--FLAG PATH`, or `-` for standard output.
#[derive(Debug)]
pub(crate) struct ReportFile {
    flag: &'static str,
    path: PathBuf,
    target: Target,
}

#[derive(Debug)]
enum Target {
    /// Standard output or standard error, by `-` or by any path that leads there; a device; a FIFO with a reader.
    Stream(NonBlockingWriter),
    /// A FIFO that has no reader as yet: opened at the end.
    Fifo,
    Replaced(File),
    /// With its length at the start.
    WrittenInPlace(File, u64),
}

impl ReportFile {
    /// Checks the path at the start, so that a wrong one is told before and not after a day of serving. What is in the
    /// file stays until there is something to put in its place. In a sandbox nothing can be opened at the end.
    pub(crate) fn open(
        flag: &'static str,
        path: &Path,
        is_sandboxed: bool,
    ) -> Result<Self, CliError> {
        let target = Target::open(path, is_sandboxed).map_err(|error| {
            let text = format!(
                "{flag}: cannot write '{}': {error}; name a file in a directory that this user may write to",
                path.display()
            );
            CliError::new(CliErrorKind::Create, text)
        })?;
        Ok(Self {
            flag,
            path: path.to_owned(),
            target,
        })
    }

    pub(crate) fn write(self, text: &str) -> Result<(), CliError> {
        let written = match self.target {
            Target::Stream(out) => match out.write_within(text.as_bytes(), WRITE_TIMEOUT) {
                // A closed standard output means that the report is not wanted.
                Err(error)
                    if error.kind() == ErrorKind::BrokenPipe && self.path == Path::new("-") =>
                {
                    Ok(())
                }
                result => result,
            },
            Target::Fifo => open_fifo(&self.path)
                .and_then(|out| out.write_within(text.as_bytes(), WRITE_TIMEOUT)),
            Target::Replaced(file) => replace(&self.path, &file, text).or_else(|error| {
                if is_reason_to_write_in_place(&error) && leads_to(&self.path, &file) {
                    let length = file.metadata()?.len();
                    return write_in_place(file, length, text);
                }
                Err(error)
            }),
            Target::WrittenInPlace(file, length) => write_in_place(file, length, text),
        };
        written.map_err(|error| {
            let name = match self.path.to_string_lossy() {
                name if name == "-" => "standard output".to_owned(),
                name => format!("'{name}'"),
            };
            let text = format!("{}: writing {name} failed: {error}", self.flag);
            CliError::new(CliErrorKind::Io, text)
        })
    }
}

impl Target {
    fn open(path: &Path, is_sandboxed: bool) -> io::Result<Self> {
        if path == Path::new("-") {
            return NonBlockingWriter::new(io::stdout().as_fd()).map(Self::Stream);
        }
        let there = match fs::metadata(path) {
            Ok(there) => there,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let file = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .custom_flags(OFlag::O_NONBLOCK.bits())
                    .open(path)?;
                return Self::regular(path, file, is_sandboxed);
            }
            Err(error) => return Err(error),
        };
        if let Some(stream) = standard_stream(&there) {
            return stream.map(Self::Stream);
        }
        let kind = there.file_type();
        let refused = |what: &str| Err(io::Error::new(ErrorKind::InvalidInput, what));
        if kind.is_socket() {
            return refused("it is a socket");
        }
        if kind.is_block_device() {
            return refused("it is a disk");
        }
        if kind.is_fifo() {
            return match open_fifo(path) {
                Ok(out) => Ok(Self::Stream(out)),
                Err(error) if is_sandboxed => Err(error),
                Err(error) if error.kind() == ErrorKind::NotConnected => Ok(Self::Fifo),
                Err(error) => Err(error),
            };
        }
        let file = open_without_waiting(path)?;
        match kind.is_char_device() {
            true => NonBlockingWriter::new(file.as_fd()).map(Self::Stream),
            false => Self::regular(path, file, is_sandboxed),
        }
    }

    fn regular(path: &Path, file: File, is_sandboxed: bool) -> io::Result<Self> {
        let metadata = file.metadata()?;
        // A link such as /proc/self/fd/3 leads to a file that other processes have open, and go on with.
        let is_link = fs::symlink_metadata(path)?.is_symlink();
        let is_replaced = !is_sandboxed
            && !is_link
            && metadata.nlink() == 1
            && metadata.uid() == geteuid().as_raw();
        Ok(match is_replaced {
            true => Self::Replaced(file),
            false => Self::WrittenInPlace(file, metadata.len()),
        })
    }
}

/// A FIFO that has a reader; `NotConnected` if it has none.
fn open_fifo(path: &Path) -> io::Result<NonBlockingWriter> {
    match open_without_waiting(path) {
        Ok(file) => NonBlockingWriter::new(file.as_fd()),
        // fifo(7): ENXIO for O_WRONLY and O_NONBLOCK without a reader.
        Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => Err(io::Error::new(
            ErrorKind::NotConnected,
            "no process reads this FIFO",
        )),
        Err(error) => Err(error),
    }
}

/// The standard stream that this is: opened anew, a file would be written from its beginning, over what the stream has
/// written, and a socket could not be opened at all.
fn standard_stream(there: &Metadata) -> Option<io::Result<NonBlockingWriter>> {
    let (out, err) = (io::stdout(), io::stderr());
    [out.as_fd(), err.as_fd()].into_iter().find_map(|stream| {
        let file = File::from(stream.try_clone_to_owned().ok()?);
        is_same(&file.metadata().ok()?, there).then(|| NonBlockingWriter::new(stream))
    })
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn leads_to(path: &Path, file: &File) -> bool {
    match (fs::metadata(path), file.metadata()) {
        (Ok(there), Ok(ours)) => is_same(&there, &ours),
        _ => false,
    }
}

/// A directory that takes no new files, or a file that is a mount point.
fn is_reason_to_write_in_place(error: &io::Error) -> bool {
    let reasons = [
        Errno::EACCES,
        Errno::EPERM,
        Errno::EROFS,
        Errno::EBUSY,
        Errno::EXDEV,
    ];
    error
        .raw_os_error()
        .is_some_and(|errno| reasons.contains(&Errno::from_raw(errno)))
}

/// Writes a temporary file in the same directory, and renames it. No fsync(2): after a crash of the machine the old report
/// may be there, and a disk that hangs must not hold up the end.
fn replace(path: &Path, old: &File, text: &str) -> io::Result<()> {
    let permissions = Permissions::from_mode(old.metadata()?.mode() & 0o7777);
    let (temporary, mut file) = create_temporary(path)?;
    let replaced = file
        .write_all(text.as_bytes())
        .and_then(|()| file.set_permissions(permissions))
        .and_then(|()| fs::rename(&temporary, path));
    if replaced.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    replaced
}

fn create_temporary(path: &Path) -> io::Result<(PathBuf, File)> {
    let mut attempt = 0;
    loop {
        let name = format!(".echo-reactor-{}-{attempt}", std::process::id());
        let temporary = path.with_file_name(name);
        let created = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary);
        match created {
            // Left by a process that was killed, or of another process with this number (containers).
            Err(error) if error.kind() == ErrorKind::AlreadyExists && attempt < NAMES => {
                attempt += 1;
            }
            result => return result.map(|file| (temporary, file)),
        }
    }
}

/// Writes from the beginning of a file that was just opened. Space is reserved first: if there is none, the old report stays.
fn write_in_place(mut file: File, length: u64, text: &str) -> io::Result<()> {
    if let Err(error) = reserve(&file, text.len()) {
        let _ = file.set_len(length);
        return Err(error);
    }
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

#[cfg(target_os = "linux")]
fn reserve(file: &File, bytes: usize) -> io::Result<()> {
    use nix::fcntl::{FallocateFlags, fallocate};
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(error @ (Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG | Errno::EIO)) => {
            Err(error.into())
        }
        // Not every file system can.
        _ => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn reserve(_: &File, _: usize) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("echo-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn open(path: &Path) -> Result<ReportFile, CliError> {
        ReportFile::open("--stats-json", path, false)
    }

    #[test]
    fn a_path_that_cannot_be_written_is_told_at_the_start() {
        let folder = Folder::new("report-refused");
        let socket = folder.0.join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for path in [Path::new("/nowhere/at/all.json"), &folder.0, &socket] {
            let failure = open(path).unwrap_err();
            assert_eq!(failure.exit().code(), 73);
            let name = format!("'{}'", path.display());
            assert!(failure.text.contains(&name), "{failure}");
        }
    }

    #[test]
    fn a_report_replaces_the_last_one_and_leaves_nothing_beside_it() {
        let folder = Folder::new("report-replaced");
        let path = folder.0.join("report");
        fs::write(&path, "a report that is longer").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let before = File::open(&path).unwrap();
        open(&path).unwrap().write("new\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        let after = fs::metadata(&path).unwrap();
        assert_eq!(after.mode() & 0o7777, 0o640);
        assert!(
            !is_same(&before.metadata().unwrap(), &after),
            "it was renamed"
        );
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
        // A file that has been removed meanwhile is made again; in a directory that is gone nothing can be made.
        let file = open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        file.write("again\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "again\n");
        let file = open(&path).unwrap();
        fs::remove_dir_all(&folder.0).unwrap();
        assert_eq!(file.write("lost\n").unwrap_err().exit().code(), 74);
    }

    #[test]
    fn a_link_stays_one_and_its_file_is_written_in_place() {
        let folder = Folder::new("report-linked");
        let (path, link) = (folder.0.join("report"), folder.0.join("link"));
        fs::write(&path, "a report that is longer").unwrap();
        symlink(&path, &link).unwrap();
        let before = fs::metadata(&path).unwrap();
        open(&link).unwrap().write("new\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        assert!(is_same(&before, &fs::metadata(&path).unwrap()));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn a_fifo_is_waited_for_neither_at_the_start_nor_at_the_end() {
        let folder = Folder::new("report-fifo");
        let path = folder.0.join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let failure = open(&path).unwrap().write("unread\n").unwrap_err();
        assert!(failure.text.contains("no process reads"), "{failure}");
        assert_eq!(failure.exit().code(), 74);
        let failure = ReportFile::open("--stats-json", &path, true).unwrap_err();
        assert_eq!(failure.exit().code(), 73);

        let unread = open(&path).unwrap();
        let reader = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let read_from_the_start = open(&path).unwrap();
        unread.write("one\n").unwrap();
        read_from_the_start.write("two\n").unwrap();
        let mut text = [0; 8];
        io::Read::read_exact(&mut &reader, &mut text).unwrap();
        assert_eq!(&text, b"one\ntwo\n");
    }
}
