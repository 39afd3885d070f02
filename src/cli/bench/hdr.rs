//! The histograms as an HdrHistogram log, which the tools of that family read: a line for each second of the window,
//! with the tag `planned` or `actual`.

use crate::cli::exit::{Class, Failure};
use crate::load::{Part, Slice};
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// See the page above.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Made at the start: a wrong path is told before anything is measured.
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        let mut log = Self {
            path: path.to_owned(),
            file: File::create(path).map_err(|error| {
                let text = format!("--hdr: cannot write '{}': {error}", path.display());
                Failure::new(Class::Create, text)
            })?,
        };
        let mut text = Vec::new();
        let mut serializer = V2DeflateSerializer::new();
        // Writing to memory cannot fail.
        let _ = IntervalLogWriterBuilder::new()
            .add_comment("latencies in nanoseconds, by echo-reactor bench")
            .with_start_time(SystemTime::now())
            .begin_log_with(&mut text, &mut serializer);
        log.put(&text)?;
        Ok(log)
    }

    /// Adds a second of the window. What came after its end belongs to it, in an open loop.
    pub(super) fn write(&mut self, slice: &Slice) -> Result<(), Failure> {
        if !matches!(slice.part, Part::Window | Part::Drain) {
            return Ok(());
        }
        let (mut text, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
        let start = Duration::from_nanos(slice.start);
        let lasted = Duration::from_nanos(slice.end.saturating_sub(slice.start));
        if let Ok(mut writer) =
            IntervalLogWriterBuilder::new().begin_log_with(&mut text, &mut serializer)
        {
            for (tag, latencies) in [("planned", &slice.planned), ("actual", &slice.actual)] {
                if !latencies.is_empty() {
                    let _ =
                        writer.write_histogram(latencies.histogram(), start, lasted, Tag::new(tag));
                }
            }
        }
        self.put(&text)
    }

    fn put(&mut self, text: &[u8]) -> Result<(), Failure> {
        self.file.write_all(text).map_err(|error| {
            let text = format!("--hdr: writing '{}' failed: {error}", self.path.display());
            Failure::new(Class::Io, text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn the_log_reads_back() {
        let path = std::env::temp_dir().join(format!("echo-reactor-{}.hlog", std::process::id()));
        let mut log = Log::create(&path).unwrap();
        for second in 0..2 {
            let mut slice = Slice::new(Part::Window, second * 1_000_000_000);
            slice.end = slice.start + 1_000_000_000;
            slice.actual.saturating_record(5_000);
            log.write(&slice).unwrap();
        }
        let text = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let entries: Vec<_> = IntervalLogIterator::new(&text).collect();
        let intervals = entries
            .iter()
            .filter(|entry| matches!(entry, Ok(LogEntry::Interval(_))));
        assert_eq!(intervals.count(), 2);
        assert!(entries.iter().all(Result::is_ok));
    }
}
