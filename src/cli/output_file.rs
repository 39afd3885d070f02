//! The files that commands write beside their standard output: `--stats-json`, `--json`, `--html`, `--svg`, `--hdr`.
//!
//! The path is checked at the start, so a wrong one is reported before and not after a day of serving. A regular file is
//! written under a temporary name and replaced by rename(2): a reader finds the old content or the new one, and a failed
//! run or a full disk costs the new one alone. Where that is impossible (the directory is not writable, the file is a mount
//! point, a link or another user's, or the sandbox forbids it), space is reserved first and the file is written in place.
//! Everything else that a path can lead to is opened without waiting: open(2) of a FIFO without a reader blocks.

mod rewrite;
mod temporary;

use super::error::{CliError, CliErrorKind};
use super::output::{NonBlockingWriter, open_without_waiting};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use temporary::Temporary;

/// What a file is written for, which says how long its reader and its disk are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The report of a server, written in one piece when it stops. Some supervisors kill ten seconds after SIGTERM, so
    /// writing has 5 s, and there is no fsync(2): a disk that hangs must not hold up the end. Inside the sandbox no file can
    /// be opened at the end.
    Serving { is_sandboxed: bool },
    /// A result of a measurement, or a page of a trace. A slow reader is waited for, and a full disk has to be noticed.
    Measuring,
}

impl Purpose {
    fn write_timeout(self) -> Duration {
        match self {
            Self::Serving { .. } => Duration::from_secs(5),
            Self::Measuring => Duration::from_secs(24 * 3_600),
        }
    }

    fn is_sandboxed(self) -> bool {
        self == Self::Serving { is_sandboxed: true }
    }

    /// Whether a FIFO may get its reader later. A measurement opens it at once, to find a missing reader before it begins.
    fn may_open_late(self) -> bool {
        self == Self::Serving {
            is_sandboxed: false,
        }
    }
}

/// A file of a command: `--FLAG PATH`, or `-` for standard output.
#[derive(Debug)]
pub(crate) struct OutputFile {
    flag: &'static str,
    path: PathBuf,
    purpose: Purpose,
    state: State,
}

#[derive(Debug)]
enum State {
    Checked(Target),
    Open(Sink),
    Failed,
}

/// What the path leads to, as found at the start.
#[derive(Debug)]
enum Target {
    /// Standard output or standard error, by `-` or by any path that leads there; a device; a FIFO with a reader.
    Stream(NonBlockingWriter),
    /// A FIFO that has no reader yet.
    Fifo,
    /// A regular file to be replaced; `None` if there is no file yet.
    Replaced(Option<File>),
    WrittenInPlace(File),
}

/// What is written to, from the first byte on.
#[derive(Debug)]
enum Sink {
    Stream(NonBlockingWriter),
    /// A temporary file, and the file that it will replace.
    Staged(Temporary, Option<File>),
    InPlace(InPlace),
}

/// Refuses one file for two flags, since the file that is finished last would replace the other. A pipe or a terminal can
/// take both.
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
            return Err(CliError::usage(text));
        }
    }
    Ok(())
}

impl OutputFile {
    /// Checks the path. The content of an existing file stays until there is something to put in its place.
    ///
    /// # Errors
    /// The file cannot be made or written there.
    pub(crate) fn open(
        flag: &'static str,
        path: &Path,
        purpose: Purpose,
    ) -> Result<Self, CliError> {
        let target = Target::open(path, purpose).map_err(|error| {
            let text = format!(
                "{flag}: cannot write '{}': {error}; name a file in a directory that this user may write to",
                path.display()
            );
            CliError::new(CliErrorKind::Create, text)
        })?;
        Ok(Self {
            flag,
            path: path.to_owned(),
            purpose,
            state: State::Checked(target),
        })
    }

    /// Appends to the new content.
    ///
    /// # Errors
    /// The write failed, as on a full disk; later writes fail as well.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        let sink = match std::mem::replace(&mut self.state, State::Failed) {
            State::Checked(target) => target.start(&self.path),
            State::Open(sink) => Ok(sink),
            State::Failed => Err(io::Error::other("an earlier write failed")),
        };
        let written = sink.and_then(|mut sink| {
            match &mut sink {
                Sink::Stream(out) => out.write_within(bytes, self.purpose.write_timeout())?,
                Sink::Staged(temporary, _) => temporary.file.write_all(bytes)?,
                Sink::InPlace(file) => file.write(bytes)?,
            }
            self.state = State::Open(sink);
            Ok(())
        });
        match written {
            // A closed standard output means that the content is not wanted.
            Err(error) if error.kind() == ErrorKind::BrokenPipe && self.path == Path::new("-") => {
                Ok(())
            }
            written => written.map_err(|error| self.failure(&error)),
        }
    }

    /// Gives the file its name. A file that nothing was written to stays as it was.
    ///
    /// # Errors
    /// The file cannot be stored, or cannot be renamed.
    pub(crate) fn finish(mut self) -> Result<(), CliError> {
        let finished = match std::mem::replace(&mut self.state, State::Failed) {
            State::Open(Sink::Staged(temporary, old)) => self.replace(temporary, old),
            State::Open(Sink::InPlace(file)) => file.finish(),
            _ => Ok(()),
        };
        finished.map_err(|error| self.failure(&error))
    }

    fn replace(&self, mut temporary: Temporary, old: Option<File>) -> io::Result<()> {
        if let Some(old) = &old {
            temporary
                .file
                .set_permissions(old.metadata()?.permissions())?;
        }
        if self.purpose == Purpose::Measuring {
            temporary.file.sync_all()?; // some file systems report a full disk, or a quota, only here
        }
        match (temporary.rename(&self.path), old) {
            // The file is a mount point, for example.
            (Err(error), Some(old))
                if is_reason_to_write_in_place(&error) && leads_to(&self.path, &old) =>
            {
                let mut file = InPlace::new(old)?;
                file.write(&temporary.content()?)?;
                file.finish()
            }
            (renamed, _) => renamed,
        }
    }

    fn failure(&self, error: &io::Error) -> CliError {
        let name = match self.path.to_string_lossy() {
            name if name == "-" => "standard output".to_owned(),
            name => format!("'{name}'"),
        };
        let flag = self.flag;
        let text =
            format!("{flag}: writing {name} failed: {error}; make room, or name another file");
        CliError::new(CliErrorKind::Io, text)
    }
}

impl Target {
    fn open(path: &Path, purpose: Purpose) -> io::Result<Self> {
        if path == Path::new("-") {
            return NonBlockingWriter::new(io::stdout().as_fd()).map(Self::Stream);
        }
        let found = match fs::metadata(path) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Self::missing(path, purpose);
            }
            Err(error) => return Err(error),
        };
        if let Some(stream) = standard_stream(&found) {
            return stream.map(Self::Stream);
        }
        let kind = found.file_type();
        let refused = |what: &str| Err(io::Error::new(ErrorKind::InvalidInput, what));
        if kind.is_socket() {
            return refused("it is a socket");
        }
        if kind.is_block_device() {
            return refused("it is a disk");
        }
        if kind.is_fifo() {
            return match open_fifo(path) {
                Err(error)
                    if error.kind() == ErrorKind::NotConnected && purpose.may_open_late() =>
                {
                    Ok(Self::Fifo)
                }
                opened => opened.map(Self::Stream),
            };
        }
        let file = open_without_waiting(path)?;
        if kind.is_char_device() {
            return NonBlockingWriter::new(file.as_fd()).map(Self::Stream);
        }
        // A link such as /proc/self/fd/3 leads to a file that other processes have open, and will go on with.
        let is_replaced = !purpose.is_sandboxed()
            && !fs::symlink_metadata(path)?.is_symlink()
            && found.nlink() == 1
            && found.uid() == geteuid().as_raw();
        Ok(match is_replaced {
            true => Self::Replaced(Some(file)),
            false => Self::WrittenInPlace(file),
        })
    }

    /// There is no file yet. Outside the sandbox none is made before it has content; the directory is tried instead.
    fn missing(path: &Path, purpose: Purpose) -> io::Result<Self> {
        if !purpose.is_sandboxed() && !path.is_symlink() {
            drop(Temporary::create(path, None)?);
            return Ok(Self::Replaced(None));
        }
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(path)?;
        Ok(Self::WrittenInPlace(file))
    }

    /// Opens what the first byte will be written to.
    fn start(self, path: &Path) -> io::Result<Sink> {
        Ok(match self {
            Self::Stream(out) => Sink::Stream(out),
            Self::Fifo => Sink::Stream(open_fifo(path)?),
            Self::WrittenInPlace(file) => Sink::InPlace(InPlace::new(file)?),
            Self::Replaced(old) => match (Temporary::create(path, old.as_ref()), old) {
                (Ok(temporary), old) => Sink::Staged(temporary, old),
                (Err(error), Some(old))
                    if is_reason_to_write_in_place(&error) && leads_to(path, &old) =>
                {
                    Sink::InPlace(InPlace::new(old)?)
                }
                (Err(error), _) => return Err(error),
            },
        })
    }
}

/// A file that is written from its beginning, over its old content.
#[derive(Debug)]
struct InPlace {
    file: File,
    length_before: u64,
    written: u64,
}

impl InPlace {
    fn new(mut file: File) -> io::Result<Self> {
        // By lseek(2) and not by statx(2): inside the sandbox there is no other way to ask.
        let length_before = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        Ok(Self {
            file,
            length_before,
            written: 0,
        })
    }

    /// Space is reserved before it is written: if there is none, the old content stays.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = reserve(&self.file, self.written, bytes.len()) {
            let _ = self.file.set_len(self.length_before.max(self.written));
            return Err(error);
        }
        self.file.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn finish(&self) -> io::Result<()> {
        self.file.set_len(self.written)
    }
}

#[cfg(target_os = "linux")]
fn reserve(file: &File, offset: u64, bytes: usize) -> io::Result<()> {
    use nix::fcntl::{FallocateFlags, fallocate};
    // 32 bits on 32-bit processors with glibc.
    let offset = libc::off_t::try_from(offset).unwrap_or(libc::off_t::MAX);
    let bytes = libc::off_t::try_from(bytes).unwrap_or(libc::off_t::MAX);
    match fallocate(file, FallocateFlags::empty(), offset, bytes) {
        Err(error @ (Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG | Errno::EIO)) => {
            Err(error.into())
        }
        _ => Ok(()), // not every file system can reserve
    }
}

#[cfg(not(target_os = "linux"))]
fn reserve(_: &File, _: u64, _: usize) -> io::Result<()> {
    Ok(())
}

/// Opens a FIFO that has a reader; `NotConnected` if it has none.
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

/// The standard stream that a path leads to. Opened anew, a file would be written from its beginning, over what the stream
/// has written, and a socket could not be opened at all.
fn standard_stream(found: &Metadata) -> Option<io::Result<NonBlockingWriter>> {
    let (out, err) = (io::stdout(), io::stderr());
    [out.as_fd(), err.as_fd()].into_iter().find_map(|stream| {
        let file = File::from(stream.try_clone_to_owned().ok()?);
        is_same(&file.metadata().ok()?, found).then(|| NonBlockingWriter::new(stream))
    })
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn leads_to(path: &Path, file: &File) -> bool {
    match (fs::metadata(path), file.metadata()) {
        (Ok(found), Ok(open)) => is_same(&found, &open),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("echo-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string();
            let mut names: Vec<String> = entries.map(|entry| name(entry).unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const SERVING: Purpose = Purpose::Serving {
        is_sandboxed: false,
    };

    fn open(path: &Path) -> Result<OutputFile, CliError> {
        OutputFile::open("--stats-json", path, SERVING)
    }

    fn write(mut file: OutputFile, text: &str) -> Result<(), CliError> {
        file.write(text.as_bytes())?;
        file.finish()
    }

    #[test]
    fn a_path_that_cannot_be_written_is_reported_at_the_start() {
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
        write(open(&path).unwrap(), "new\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        let after = fs::metadata(&path).unwrap();
        assert_eq!(after.mode() & 0o7777, 0o640);
        assert!(
            !is_same(&before.metadata().unwrap(), &after),
            "it was renamed"
        );
        assert_eq!(folder.names(), ["report"]);
        // A file that has been removed meanwhile is made again; in a directory that is gone nothing can be made.
        let file = open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        write(file, "again\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "again\n");
        let file = open(&path).unwrap();
        fs::remove_dir_all(&folder.0).unwrap();
        assert_eq!(write(file, "lost\n").unwrap_err().exit().code(), 74);
    }

    #[test]
    fn a_file_that_is_not_finished_leaves_the_old_content_or_none() {
        let folder = Folder::new("unfinished");
        let (old, new) = (folder.0.join("a.json"), folder.0.join("b.json"));
        fs::write(&old, "old").unwrap();
        for path in [&old, &new] {
            drop(open(path).unwrap());
            let mut file = open(path).unwrap();
            file.write(b"ne").unwrap();
            drop(file);
        }
        assert_eq!(folder.names(), ["a.json"]);
        assert_eq!(fs::read(&old).unwrap(), b"old");
        let mut file = open(&new).unwrap();
        file.write(b"ne").unwrap();
        file.write(b"w").unwrap();
        assert_eq!(fs::read(&old).unwrap(), b"old");
        file.finish().unwrap();
        assert_eq!(fs::read(&new).unwrap(), b"new");
        assert_eq!(folder.names(), ["a.json", "b.json"]);
    }

    #[test]
    fn a_link_stays_one_and_its_file_is_written_in_place() {
        let folder = Folder::new("report-linked");
        let (path, link) = (folder.0.join("report"), folder.0.join("link"));
        fs::write(&path, "a report that is longer").unwrap();
        symlink("report", &link).unwrap();
        let before = fs::metadata(&path).unwrap();
        let mut file = open(&link).unwrap();
        file.write(b"ne").unwrap();
        file.write(b"w\n").unwrap();
        file.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        assert!(is_same(&before, &fs::metadata(&path).unwrap()));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn a_fifo_is_waited_for_neither_at_the_start_nor_at_the_end() {
        let folder = Folder::new("report-fifo");
        let path = folder.0.join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let failure = write(open(&path).unwrap(), "unread\n").unwrap_err();
        assert!(failure.text.contains("no process reads"), "{failure}");
        assert_eq!(failure.exit().code(), 74);
        let sandboxed = Purpose::Serving { is_sandboxed: true };
        let failure = OutputFile::open("--stats-json", &path, sandboxed).unwrap_err();
        assert_eq!(failure.exit().code(), 73);

        let unread = open(&path).unwrap();
        let reader = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let read_from_the_start = open(&path).unwrap();
        write(unread, "one\n").unwrap();
        write(read_from_the_start, "two\n").unwrap();
        let mut text = [0; 8];
        io::Read::read_exact(&mut &reader, &mut text).unwrap();
        assert_eq!(&text, b"one\ntwo\n");
    }

    #[test]
    fn a_measurement_finds_a_full_device_and_a_missing_reader() {
        let open = |path: &Path| OutputFile::open("--svg", path, Purpose::Measuring);
        write(open(Path::new("/dev/null")).unwrap(), "x").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        let failure = write(open(Path::new("/dev/full")).unwrap(), "x").unwrap_err();
        assert_eq!(failure.class, CliErrorKind::Io);
        assert!(failure.text.contains("'/dev/full'") && failure.text.contains("make room"));
        let folder = Folder::new("measured-fifo");
        let fifo = folder.0.join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [&fifo, Path::new("/nonexistent/x")] {
            assert_eq!(open(path).unwrap_err().class, CliErrorKind::Create);
        }
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
}
