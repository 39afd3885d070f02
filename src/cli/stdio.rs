//! Standard input and output, which may be non-blocking.
//!
//! O_NONBLOCK belongs to the open file description (fcntl(2)), which this process shares with other programs: node, ssh and
//! container runtimes set it on a pipe or a terminal that they also hold. Clearing it would change it under them. So
//! after EAGAIN poll(2) waits until the descriptor is ready.

use super::error::{CliError, CliErrorKind};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;

/// A descriptor whose reads and writes block, whether O_NONBLOCK is set or not.
#[derive(Debug)]
pub(super) struct BlockingStdio(File);

impl BlockingStdio {
    /// Standard input by a descriptor of its own, without the buffer of std.
    pub(super) fn input() -> io::Result<Self> {
        Self::copy(&io::stdin())
    }

    /// Standard output by a descriptor of its own: the handle of std would look for line ends in every megabyte.
    pub(super) fn output() -> io::Result<Self> {
        Self::copy(&io::stdout())
    }

    fn copy(of: &impl AsFd) -> io::Result<Self> {
        Ok(Self(of.as_fd().try_clone_to_owned()?.into()))
    }

    fn retry<T>(
        &mut self,
        flag: PollFlags,
        mut call: impl FnMut(&mut File) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match call(&mut self.0) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
            match poll(&mut [PollFd::new(self.0.as_fd(), flag)], PollTimeout::NONE) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl Read for BlockingStdio {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.retry(PollFlags::POLLIN, |file| file.read(buffer))
    }
}

impl Write for BlockingStdio {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.retry(PollFlags::POLLOUT, |file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // there is no buffer
    }
}

/// Writes a text to standard output. A closed pipe (EPIPE) is no failure: its reader does not want the rest.
///
/// # Errors
/// Any other error of write(2).
pub(super) fn print(text: &str) -> Result<(), CliError> {
    let written = BlockingStdio::output().and_then(|mut out| out.write_all(text.as_bytes()));
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let text = format!(
                "writing to standard output failed: {error}; redirect it to where there is room"
            );
            Err(CliError::new(CliErrorKind::Io, text))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::thread;

    fn non_blocking(stream: UnixStream) -> BlockingStdio {
        stream.set_nonblocking(true).unwrap();
        BlockingStdio(std::os::fd::OwnedFd::from(stream).into())
    }

    #[test]
    fn a_write_waits_for_a_full_pipe() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let reader = thread::spawn(move || {
            let mut bytes = Vec::new();
            theirs.read_to_end(&mut bytes).map(|_| bytes.len())
        });
        let mut out = non_blocking(ours);
        out.write_all(&vec![7; 4 << 20]).unwrap();
        drop(out);
        assert_eq!(reader.join().unwrap().unwrap(), 4 << 20);
    }

    #[test]
    fn a_read_waits_for_an_empty_pipe() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let reader = thread::spawn(move || {
            let mut bytes = Vec::new();
            non_blocking(ours).read_to_end(&mut bytes).map(|_| bytes)
        });
        for _ in 0..100 {
            theirs.write_all(b"x").unwrap();
            thread::yield_now();
        }
        drop(theirs);
        assert_eq!(reader.join().unwrap().unwrap().len(), 100);
    }
}
