//! The counters of a worker in memory that outlives it, so that what it had open when it was killed is known.
//!
//! A worker that ends by itself reports its counters over its link. One that is killed (SIGKILL, the kernel for want of
//! memory) cannot. So a worker writes them into a file in memory (memfd_create(2)) after every turn that has accepted or
//! closed a connection: one pwrite(2), and none for a turn that only echoed. Its master opens the same file by way of
//! `/proc/PID/fd` and reads it when the process has ended without a report.
//!
//! What it cannot show: connections that were accepted or closed in the very turn that the kill has interrupted, bytes and
//! datagrams since the last such turn, and the two families that are counted by errno.

use crate::procfs::own::descriptor_of;
use crate::stats::{CloseReason, DropReason, RejectReason, Stats};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

/// The worker's end: the file that it writes.
#[derive(Debug)]
pub(super) struct CounterFile {
    file: File,
    /// Connections accepted and open, as the file has them.
    written: (u64, u64),
    layout: u64,
}

impl CounterFile {
    /// A file of counters that are all zero.
    ///
    /// # Errors
    /// Those of memfd_create(2) and pwrite(2).
    pub(super) fn create() -> io::Result<Self> {
        let file = memfd_create("echo-reactor-counters", MFdFlags::MFD_CLOEXEC)?;
        let mut created = Self {
            file: file.into(),
            written: (0, 0),
            layout: layout(),
        };
        created.write(&Stats::default())?;
        Ok(created)
    }

    /// The number of its descriptor, by which the master finds it.
    pub(super) fn number(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Writes the counters down if a connection was accepted or closed since the last time.
    pub(super) fn update(&mut self, stats: &Stats) {
        if self.written != (stats.accepted, stats.connections_open) {
            if let Err(error) = self.write(stats) {
                log::debug!("the counters cannot be kept: {error}");
            }
        }
    }

    /// One call for all of it: the kernel copies so little without a break, whatever signal comes.
    fn write(&mut self, stats: &Stats) -> io::Result<()> {
        let counts = [self.layout]
            .into_iter()
            .chain(fields(stats).map(|field| field.count));
        let bytes: Vec<u8> = counts.flat_map(u64::to_ne_bytes).collect();
        self.file.write_all_at(&bytes, 0)?;
        self.written = (stats.accepted, stats.connections_open);
        Ok(())
    }
}

/// The master's end: the file of one of its workers.
#[derive(Debug)]
pub(super) struct CounterFileOf {
    pub(super) number: i32,
    file: File,
}

impl CounterFileOf {
    /// Opens the file that a process has open under this number. `None` if that is impossible: what it counts is then known
    /// from its reports alone.
    pub(super) fn open(process: Pid, number: i32) -> Option<Self> {
        match File::open(descriptor_of(process, number)) {
            Ok(file) => Some(Self { number, file }),
            Err(error) => {
                log::debug!("the counters of process {process} cannot be opened: {error}");
                None
            }
        }
    }

    /// The last counters that were written. `None` if they are of another version of this program.
    pub(super) fn read(&self) -> Option<Stats> {
        let mut stats = Stats::default();
        let names: Vec<Field> = fields(&stats).collect();
        let mut bytes = vec![0; (names.len() + 1) * size_of::<u64>()];
        self.file.read_exact_at(&mut bytes, 0).ok()?;
        let mut counts = bytes
            .chunks_exact(size_of::<u64>())
            .map(|bytes| u64::from_ne_bytes(bytes.try_into().unwrap_or_default()));
        if counts.next()? != layout() {
            return None;
        }
        for (field, count) in names.iter().zip(counts) {
            match field.family {
                "" => stats.set(field.name, count),
                family => stats.set_reason(family, field.name, count),
            }
        }
        Some(stats)
    }
}

/// One number of the file.
#[derive(Hash)]
struct Field {
    /// The family of a reason; nothing for the rest.
    family: &'static str,
    name: &'static str,
    count: u64,
}

/// All of them, in the order of the file.
fn fields(stats: &Stats) -> impl Iterator<Item = Field> {
    let field = |family, name, count| Field {
        family,
        name,
        count,
    };
    let scalars = stats
        .counters()
        .map(move |(name, count)| field("", name, count));
    let closed = CloseReason::ALL.iter();
    let closed = closed.map(move |&why| field("closed", why.name(), stats.closed(why)));
    let rejected = RejectReason::ALL.iter();
    let rejected = rejected.map(move |&why| field("rejected", why.name(), stats.rejected(why)));
    let dropped = DropReason::ALL.iter();
    let dropped = dropped.map(move |&why| field("dropped", why.name(), stats.dropped(why)));
    scalars.chain(closed).chain(rejected).chain(dropped)
}

/// A number that differs between two programs whose files have different fields.
fn layout() -> u64 {
    let mut hasher = DefaultHasher::new();
    for field in fields(&Stats::default()) {
        field.hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_by_the_number_of_the_descriptor() {
        let mut file = CounterFile::create().unwrap();
        let read = CounterFileOf::open(Pid::this(), file.number()).unwrap();
        assert_eq!(read.read(), Some(Stats::default()));
        let mut stats = Stats::default();
        stats.open();
        stats.open();
        stats.bytes_in += 7;
        stats.store_unsent(7);
        stats.close(CloseReason::Idle, 0);
        stats.reject(RejectReason::Prefix);
        stats.datagrams_in += 1;
        stats.drop_datagram(DropReason::Loop);
        file.update(&stats);
        assert_eq!(read.read().as_ref(), Some(&stats));
        // The bytes of an echo alone are not worth a system call.
        let written = stats.clone();
        stats.bytes_in += 5;
        stats.bytes_out += 5;
        file.update(&stats);
        assert_eq!(read.read(), Some(written));
        stats.close(CloseReason::PeerClosed, 7);
        file.update(&stats);
        drop(file);
        assert_eq!(read.read(), Some(stats), "it outlives its writer");
    }

    #[test]
    fn a_file_of_another_version_is_not_read() {
        let mut file = CounterFile::create().unwrap();
        let read = CounterFileOf::open(Pid::this(), file.number()).unwrap();
        file.layout ^= 1;
        file.write(&Stats::default()).unwrap();
        assert_eq!(read.read(), None);
        let nothing = CounterFileOf::open(Pid::this(), i32::MAX);
        assert!(nothing.is_none());
    }
}
