//! Writers that never block the process: for standard output, standard error, and files that are no regular ones.
//!
//! An inherited descriptor can be slow, full or closed: a terminal with its output stopped, a pipe or a FIFO
//! that is not read, a socket, a file at its size limit, a full disk. One rule holds for all of them: a write takes what it
//! can take now, what is lost is counted, and the service goes on.
//!
//! `O_NONBLOCK` on the inherited descriptor would do for reading and writing here, and harm there: the flag belongs to the
//! open file description (open(2)), which the shell and every other process of the terminal share. So pipes and terminals
//! are opened anew through `/proc/self/fd`, with a description of our own. `poll(2)` before a blocking write is no way out
//! for a terminal: it tells of room for one byte, and n_tty_write sleeps until the whole line has found some.
//!
//! Files that are written at the end of a run are in [`super::output_file`].

use super::units::plural;
use crate::procfs::own::descriptor_path;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::MsgFlags;
use nix::unistd::tcgetpgrp;
use socket2::SockRef;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest line, in bytes: up to this length a pipe takes a write whole or not at all (`PIPE_BUF` of pipe(7)).
const LINE_BYTES: usize = 4096;

/// Time between two attempts of [`NonBlockingWriter::write_within`].
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// A descriptor of this process's own for what another one leads to. Where dup(2) fails, a pipe or a terminal is opened
/// by its name in /proc; a regular file is not, since its offset would begin anew.
fn duplicate(descriptor: BorrowedFd<'_>) -> io::Result<File> {
    descriptor
        .try_clone_to_owned()
        .map(File::from)
        .or_else(|error| {
            let name = descriptor_path(descriptor.as_raw_fd());
            let kind = std::fs::metadata(&name)?.file_type();
            if kind.is_fifo() || kind.is_char_device() {
                open_without_waiting(name)
            } else {
                Err(error)
            }
        })
}

/// Opens a file for writing without waiting for a reader (FIFO) or a carrier (terminal line), and without making a
/// terminal the controlling one.
pub(super) fn open_without_waiting(path: impl AsRef<Path>) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    OpenOptions::new()
        .write(true)
        .custom_flags(flags.bits())
        .open(path)
}

/// Escapes a whole document, text or JSON, for a terminal. Line ends stay; control and invisible characters become escapes
/// such as `\u009b`, which in a string of JSON mean the same character.
pub(crate) fn printable(document: &str) -> String {
    let mut text = String::with_capacity(document.len());
    for c in document.chars() {
        match c {
            '\n' | '\t' | ' '..='~' => text.push(c),
            _ if c.escape_debug().len() == 1 => text.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(text, "\\u{unit:04x}");
                }
            }
        }
    }
    text
}

/// Sleeps by poll(2), which is on the list of system calls inside the sandbox.
pub(crate) fn pause(time: Duration) {
    let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
    let _ = poll(&mut [], timeout);
}

/// A writer whose writes do not block.
#[derive(Debug)]
pub(crate) struct NonBlockingWriter {
    file: File,
    method: Method,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// write(2): on a regular file, which has no reader to wait for, or on a non-blocking description of our own.
    Write,
    /// send(2) with `MSG_DONTWAIT`: a socket cannot be opened anew.
    Send,
    /// poll(2) and a write of at most [`LINE_BYTES`]: for what cannot be opened anew, such as the pipe of another user.
    PollFirst,
    /// Not at all: a directory, or a descriptor without a name in the file system, such as an eventfd, which may block.
    Refuse,
}

impl NonBlockingWriter {
    /// A writer to what this descriptor leads to, by a descriptor of its own.
    pub(crate) fn new(descriptor: BorrowedFd<'_>) -> io::Result<Self> {
        let file = duplicate(descriptor)?;
        let kind = file.metadata()?.file_type();
        if kind.is_file() {
            return Ok(Self::with(file, Method::Write));
        }
        if kind.is_socket() {
            return Ok(Self::with(file, Method::Send));
        }
        if !kind.is_fifo() && !kind.is_char_device() {
            return Ok(Self::with(file, Method::Refuse));
        }
        let own = open_without_waiting(descriptor_path(file.as_raw_fd()));
        // The terminal of another user (su) may be opened by its process group as /dev/tty.
        let own = own.or_else(|error| match is_controlling_terminal(&file) {
            true => open_without_waiting("/dev/tty"),
            false => Err(error),
        });
        Ok(match own {
            Ok(own) => Self::with(own, Method::Write),
            Err(_) => Self::with(file, Method::PollFirst),
        })
    }

    fn with(file: File, method: Method) -> Self {
        Self { file, method }
    }

    /// Writes what is taken at once: at least a byte, or an error, `WouldBlock` among them.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let written = match self.method {
                Method::Write => (&self.file).write(bytes),
                Method::Send => {
                    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                    SockRef::from(&self.file).send_with_flags(bytes, flags.bits())
                }
                Method::PollFirst if self.has_room() => {
                    (&self.file).write(&bytes[..bytes.len().min(LINE_BYTES)])
                }
                Method::PollFirst => Err(ErrorKind::WouldBlock.into()),
                Method::Refuse => return Err(ErrorKind::Unsupported.into()),
            };
            match written {
                Ok(0) if !bytes.is_empty() => return Err(ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Writes everything, waiting for a slow reader, but no longer than this.
    pub(crate) fn write_within(&self, mut bytes: &[u8], limit: Duration) -> io::Result<()> {
        let deadline = Instant::now() + limit;
        while !bytes.is_empty() {
            match self.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                Err(_) if Instant::now() < deadline => pause(RETRY_PAUSE),
                Err(_) => {
                    let text = format!("it was not read for {} s", limit.as_secs());
                    return Err(io::Error::new(ErrorKind::TimedOut, text));
                }
            }
        }
        Ok(())
    }

    /// Whether poll(2) tells of room. A reader that is gone counts as room: the write fails, and does not block.
    fn has_room(&self) -> bool {
        let mut asked = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
        poll(&mut asked, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}

/// Whether /dev/tty is another way to this descriptor: tcgetpgrp(3) knows the controlling terminal alone (ENOTTY).
fn is_controlling_terminal(file: &File) -> bool {
    tcgetpgrp(file).is_ok()
}

/// Text that is delivered whole and in order, as its reader makes room for it.
#[derive(Debug)]
pub(crate) struct Backlog {
    /// `None` if the descriptor cannot be written to.
    out: Option<NonBlockingWriter>,
    unsent: Vec<u8>,
}

impl Backlog {
    pub(crate) fn new(descriptor: BorrowedFd<'_>) -> Self {
        Self {
            out: NonBlockingWriter::new(descriptor).ok(),
            unsent: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, text: &str) {
        self.unsent.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Writes what is taken now. On an error the text is given up.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let Some(out) = &self.out else {
            self.unsent.clear();
            return Ok(());
        };
        while !self.unsent.is_empty() {
            match out.try_write(&self.unsent) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.unsent.clear();
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Lines of a log: each is written whole, or lost and counted. Once the reader makes room again, a line says how many were
/// lost.
#[derive(Debug)]
pub(crate) struct LineWriter {
    out: NonBlockingWriter,
    /// The rest of a line that was taken in part, as a terminal and a socket do.
    unsent: Vec<u8>,
    /// Whether the last line ended midway, by an error.
    is_cut: bool,
    /// Lines lost since the reader was last told.
    unreported: u64,
    lost: u64,
    /// The line that says how many were lost.
    notice: fn(u64) -> String,
}

impl LineWriter {
    /// A writer of the log.
    pub(crate) fn new(out: NonBlockingWriter) -> Self {
        Self::with_notice(out, |count| {
            let lines = plural(count, "line");
            format!("echo-reactor: {lines} of the log dropped: standard error was not read\n")
        })
    }

    /// A writer whose readers are told of lost lines in these words, which end in a newline.
    pub(crate) fn with_notice(out: NonBlockingWriter, notice: fn(u64) -> String) -> Self {
        Self {
            out,
            unsent: Vec::new(),
            is_cut: false,
            unreported: 0,
            lost: 0,
            notice,
        }
    }

    /// Lines that were not written, since the start.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// Writes a line, which ends in a newline; one that is too long is cut.
    pub(crate) fn put(&mut self, line: &[u8]) {
        self.catch_up();
        let is_taken = match cut(line) {
            None => self.begin(line),
            Some(head) => self.begin(&[head, b"...\n"].concat()),
        };
        if !is_taken {
            self.lose();
        }
    }

    /// Writes what is unsent, and how many lines were lost, if there is room for it now.
    pub(crate) fn catch_up(&mut self) {
        if !self.unsent.is_empty() {
            let rest = std::mem::take(&mut self.unsent);
            match self.out.try_write(&rest) {
                Ok(written) => self.unsent = rest[written..].to_vec(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.unsent = rest,
                Err(_) => {
                    self.is_cut = true;
                    self.lose();
                }
            }
        }
        if self.unreported > 0 && self.unsent.is_empty() {
            let told = (self.notice)(self.unreported);
            if self.begin(told.as_bytes()) {
                self.unreported = 0;
            }
        }
    }

    /// Counts a line that is not written, since there have been too many.
    pub(crate) fn leave_out(&mut self) {
        self.lose();
    }

    fn lose(&mut self) {
        self.unreported += 1;
        self.lost += 1;
    }

    /// Whether the line has been taken, its rest kept for later.
    fn begin(&mut self, line: &[u8]) -> bool {
        if !self.unsent.is_empty() {
            return false;
        }
        let separated = self.is_cut.then(|| [b"\n", line].concat());
        let line = separated.as_deref().unwrap_or(line);
        match self.out.try_write(line) {
            Ok(written) => {
                self.is_cut = false;
                self.unsent.extend_from_slice(&line[written..]);
                true
            }
            Err(_) => false,
        }
    }
}

/// The head of a line that is longer than a pipe takes at once, up to the end of a character.
fn cut(line: &[u8]) -> Option<&[u8]> {
    let mut end = LINE_BYTES - b"...\n".len();
    if line.len() <= LINE_BYTES {
        return None;
    }
    while line[end] & 0b1100_0000 == 0b1000_0000 {
        end -= 1;
    }
    Some(&line[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    fn lines_into(out: impl AsFd) -> LineWriter {
        LineWriter::new(NonBlockingWriter::new(out.as_fd()).unwrap())
    }

    /// Fills the way to a reader that does not read, reads, and compares.
    fn is_lossy_by_the_line(ours: impl AsFd, mut reader: impl Read + AsFd) {
        let mut log = lines_into(&ours);
        drop(ours);
        let mut lines = 0;
        // A writer that blocks would never leave this loop.
        while log.lost() < 100 {
            log.put(format!("{lines:0100}\n").as_bytes());
            lines += 1;
        }
        let mut text = vec![0; 1 << 20];
        let length = reader.read(&mut text).unwrap();
        text.truncate(length);
        log.put(b"and on\n");
        drop(log);
        reader.read_to_end(&mut text).unwrap();

        let text = String::from_utf8(text).unwrap();
        let kept = text.lines().filter(|line| line.len() == 100).count();
        assert_eq!(kept + 100, lines, "every line is kept or counted");
        assert!(
            text.ends_with("100 lines of the log dropped: standard error was not read\nand on\n"),
            "{text}"
        );
    }

    #[test]
    fn lines_that_are_not_read_are_counted_and_told_later() {
        let (ours, reader) = UnixStream::pair().unwrap();
        is_lossy_by_the_line(ours, reader);
        let (reader, ours) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        is_lossy_by_the_line(ours, File::from(reader));
    }

    #[test]
    fn a_printable_document_is_the_same_json() {
        let value = serde_json::json!({"é\u{9b}2J": "\u{202e}\u{e0041}\u{7f}\x1b\n 名"});
        let raw = format!("{value:#}\n");
        let text = printable(&raw);
        assert!(text.contains(r"\u009b") && text.contains(r"\udb40\udc41") && text.contains("名"));
        assert!(
            text.chars()
                .all(|c| c == '\n' || c.escape_debug().len() == 1 || c == '"' || c == '\\')
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
        assert_eq!(printable(&text), text);
    }

    /// The description opened by the writer is non-blocking; the inherited one, which other processes share, stays as it is.
    #[test]
    fn the_inherited_description_keeps_its_flags() {
        let (_reader, ours) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        let writer = NonBlockingWriter::new(ours.as_fd()).unwrap();
        if cfg!(target_os = "linux") {
            assert_eq!(writer.method, Method::Write);
        }
        let flags = nix::fcntl::fcntl(&ours, nix::fcntl::FcntlArg::F_GETFL).unwrap();
        assert!(!OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK));
    }

    #[test]
    fn a_directory_is_not_written_to() {
        let folder = File::open("/").unwrap();
        let mut log = lines_into(folder);
        log.put(b"lost\n");
        assert_eq!(log.lost(), 1);
    }

    #[test]
    fn a_closed_reader_costs_lines_only() {
        let (ours, reader) = UnixStream::pair().unwrap();
        drop(reader);
        let mut log = lines_into(ours);
        for _ in 0..1_000 {
            log.put(b"lost\n");
        }
        assert_eq!(log.lost(), 1_000);
    }

    #[test]
    fn a_line_is_never_longer_than_what_a_pipe_takes_at_once() {
        for character in ["x", "é", "名"] {
            let (ours, mut reader) = UnixStream::pair().unwrap();
            lines_into(ours).put(character.repeat(2 * LINE_BYTES).as_bytes());
            let mut text = Vec::new();
            reader.read_to_end(&mut text).unwrap();
            assert!((LINE_BYTES - 3..=LINE_BYTES).contains(&text.len()));
            let text = String::from_utf8(text).unwrap();
            assert!(text.ends_with(&format!("{character}...\n")));
        }
    }

    #[test]
    fn a_report_waits_for_its_reader_but_not_for_ever() {
        let (reader, ours) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        let writer = NonBlockingWriter::new(ours.as_fd()).unwrap();
        let text = vec![b'x'; 1 << 20];
        let error = writer.write_within(&text, Duration::from_millis(20));
        assert_eq!(error.unwrap_err().kind(), ErrorKind::TimedOut);
        drop(reader);
        let error = writer.write_within(&text, Duration::from_secs(600));
        assert_eq!(error.unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}
