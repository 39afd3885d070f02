//! The file of a trace.
//!
//! ```text
//! offset  bytes  all little-endian
//!      0      8  "ECHOTRAC"
//!      8      4  version: 1
//!     12      4  bytes of a record: 32
//!     16      8  number of records
//!     24      8  records that were overwritten before these
//!     32      8  start of the recording (nanoseconds since 1970; 0 for a simulation)
//!     40     24  zero
//!     64     32  for each record: time_ns 8, subject 8, amount 8, asked 4, errno 2, kind 1, detail 1
//! ```
//!
//! A subject of 2^64 - 1 is no source. [`Record`] and [`Kind`](super::Kind) say what the numbers of a record mean. A later version may add kinds.

use super::record::{RECORD_BYTES, Record};
use std::fmt;

const MAGIC: [u8; 8] = *b"ECHOTRAC";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;

/// What was recorded, the oldest record first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// When the recording began (nanoseconds since 1970), or 0 for a simulation.
    pub started_unix_ns: u64,
    /// Records that were overwritten before these.
    pub overwritten: u64,
    /// The records.
    pub records: Vec<Record>,
}

/// Why a file is no trace that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// It does not begin as a trace does.
    NotATrace,
    /// It has this version.
    Version(u32),
    /// It is shorter or longer than its header says: bytes that there are, and bytes that there should be.
    Length(u64, u64),
    /// The record of this number, from 0, has a kind that there is not.
    UnknownKind(u64, u8),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotATrace => write!(
                f,
                "it is no trace; name a file that serve --trace has written"
            ),
            Self::Version(version) => write!(
                f,
                "it has version {version} of the format, and this program reads version {VERSION}; use the program that wrote it"
            ),
            Self::Length(bytes, expected) => write!(
                f,
                "it has {bytes} bytes where its header promises {expected}; it was cut or changed, so record it again"
            ),
            Self::UnknownKind(place, kind) => write!(
                f,
                "record {place} is of kind {kind}, which there is not; it is damaged, so record it again"
            ),
        }
    }
}

impl std::error::Error for ReadError {}

impl Trace {
    /// The content of a file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.records.len() * RECORD_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((RECORD_BYTES as u32).to_le_bytes());
        bytes.extend((self.records.len() as u64).to_le_bytes());
        bytes.extend(self.overwritten.to_le_bytes());
        bytes.extend(self.started_unix_ns.to_le_bytes());
        bytes.resize(HEADER_BYTES, 0);
        for record in &self.records {
            bytes.extend(record.to_bytes());
        }
        bytes
    }

    /// Reads the content of a file.
    ///
    /// # Errors
    /// It is no trace, it was cut or changed, or another version has written it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ReadError> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(match bytes.starts_with(&MAGIC) {
                true => ReadError::Length(bytes.len() as u64, HEADER_BYTES as u64),
                false => ReadError::NotATrace,
            });
        };
        let four = |place: usize| u32::from_le_bytes(std::array::from_fn(|i| header[place + i]));
        let eight = |place: usize| u64::from_le_bytes(std::array::from_fn(|i| header[place + i]));
        if !header.starts_with(&MAGIC) {
            return Err(ReadError::NotATrace);
        }
        if (four(8), four(12)) != (VERSION, RECORD_BYTES as u32) {
            return Err(ReadError::Version(four(8)));
        }
        let promised = eight(16).saturating_mul(RECORD_BYTES as u64);
        if rest.len() as u64 != promised {
            let expected = promised.saturating_add(HEADER_BYTES as u64);
            return Err(ReadError::Length(bytes.len() as u64, expected));
        }
        let read = |(place, chunk): (u64, &[u8])| {
            let bytes = std::array::from_fn(|index| chunk[index]);
            Record::from_bytes(&bytes).map_err(|kind| ReadError::UnknownKind(place, kind))
        };
        let records = (0..).zip(rest.chunks_exact(RECORD_BYTES));
        Ok(Self {
            started_unix_ns: eight(32),
            overwritten: eight(24),
            records: records.map(read).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Kind;
    use super::*;
    use crate::random::Random;

    fn example() -> Trace {
        let records = Kind::ALL.iter().map(|&kind| Record::new(kind));
        Trace {
            started_unix_ns: 7,
            overwritten: 8,
            records: records.collect(),
        }
    }

    #[test]
    fn a_trace_is_read_as_it_was_written() {
        for trace in [example(), Trace::default()] {
            assert_eq!(Trace::from_bytes(&trace.to_bytes()), Ok(trace));
        }
    }

    #[test]
    fn a_file_that_was_cut_or_is_none_is_refused() {
        let bytes = example().to_bytes();
        for length in 0..bytes.len() {
            let error = Trace::from_bytes(&bytes[..length]).unwrap_err();
            let is_right = match length {
                0..8 => error == ReadError::NotATrace,
                _ => matches!(error, ReadError::Length(found, _) if found == length as u64),
            };
            assert!(is_right, "{length} bytes: {error}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(matches!(
            Trace::from_bytes(&longer),
            Err(ReadError::Length(..))
        ));
        for (place, expected) in [
            (0, ReadError::NotATrace),
            (8, ReadError::Version(0xff)),
            (12, ReadError::Version(VERSION)),
            (64 + 30, ReadError::UnknownKind(0, 0xff)),
        ] {
            let mut changed = bytes.clone();
            changed[place] = 0xff;
            assert_eq!(Trace::from_bytes(&changed), Err(expected));
        }
        let mut endless = bytes;
        endless[16..24].fill(0xff);
        assert!(matches!(
            Trace::from_bytes(&endless),
            Err(ReadError::Length(_, u64::MAX))
        ));
    }

    #[test]
    fn any_bytes_are_read_or_refused_and_told_in_words() {
        let mut random = Random::new(1);
        let bytes = example().to_bytes();
        for _ in 0..20_000 {
            let mut changed = bytes.clone();
            for _ in 0..1 + random.below(8) {
                let place = random.below(changed.len());
                changed[place] = random.next() as u8;
            }
            changed.truncate(changed.len() - random.below(3) * random.below(40));
            if let Ok(trace) = Trace::from_bytes(&changed) {
                let lines = super::super::Text::of(&trace).lines().count();
                assert!(lines >= trace.records.len());
            }
        }
    }
}
