//! The histograms as an HdrHistogram log, which the tools of that family read: a line for each second of the window,
//! with the tag `response-time` or `service-time`.
//!
//! Times in it are seconds since the log was begun, and its head says when that was. They go on from step to step: a
//! reader skips, or adds up, intervals that lie upon each other.

use crate::cli::error::CliError;
use crate::cli::output_file::{OutputFile, Purpose};
use crate::load::{Interval, Stage};
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// A log that is being written.
#[derive(Debug)]
pub(super) struct Log {
    file: OutputFile,
    began: Instant,
    /// When the step that is being measured began, since the log did.
    step_at: Duration,
    /// Why nothing is written any more. The measurement goes on, and its report comes first.
    failure: Option<CliError>,
}

impl Log {
    /// Made at the start: a wrong path is told before anything is measured.
    pub(super) fn create(path: &Path) -> Result<Self, CliError> {
        let mut log = Self {
            file: OutputFile::open("--hdr", path, Purpose::Measuring)?,
            began: Instant::now(),
            step_at: Duration::ZERO,
            failure: None,
        };
        let mut text = Vec::new();
        let mut serializer = V2DeflateSerializer::new();
        let now = SystemTime::now();
        // Writing to memory cannot fail. Without a base time a reader has to guess what the times count from.
        let _ = IntervalLogWriterBuilder::new()
            .add_comment("latencies in nanoseconds, by echo-reactor bench")
            .with_start_time(now)
            .with_base_time(now)
            .begin_log_with(&mut text, &mut serializer);
        text.extend_from_slice(
            b"\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
        );
        log.put(&text);
        Ok(log)
    }

    /// Begins a step, whose intervals count their time from now on. It ends before the next one begins, so the
    /// intervals of
    /// two steps never overlap.
    pub(super) fn begin_step(&mut self) {
        self.step_at = self.began.elapsed();
    }

    /// Adds a second of the window. What came after its end belongs to it, in an open loop.
    pub(super) fn write(&mut self, interval: &Interval) {
        if !matches!(interval.stage, Stage::Window | Stage::Drain) {
            return;
        }
        let (mut text, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
        let start = self.step_at + Duration::from_nanos(interval.start);
        let lasted = Duration::from_nanos(interval.end.saturating_sub(interval.start));
        if let Ok(mut writer) =
            IntervalLogWriterBuilder::new().begin_log_with(&mut text, &mut serializer)
        {
            for (tag, latencies) in [
                ("response-time", &interval.response_time),
                ("service-time", &interval.service_time),
            ] {
                if !latencies.is_empty() {
                    let histogram = latencies.histogram();
                    let _ = writer.write_histogram(histogram, start, lasted, Tag::new(tag));
                }
            }
        }
        self.put(&text);
    }

    fn put(&mut self, text: &[u8]) {
        if self.failure.is_none() {
            self.failure = self.file.write(text).err();
        }
    }

    /// Renames the log to its final name, or reports why it is incomplete.
    pub(super) fn finish(self) -> Result<(), CliError> {
        match self.failure {
            Some(failure) => Err(failure),
            None => self.file.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn the_log_reads_back_and_its_times_go_on_from_step_to_step() {
        let path = std::env::temp_dir().join(format!("echo-reactor-{}.hlog", std::process::id()));
        let mut log = Log::create(&path).unwrap();
        for step in 1..=2 {
            log.begin_step();
            // As if the log had been begun so much earlier.
            log.step_at += step * Duration::from_secs(10);
            for second in 0..2 {
                let mut interval = Interval::new(Stage::Window, second * 1_000_000_000);
                interval.end = interval.start + 1_000_000_000;
                interval.service_time.saturating_record(5_000);
                log.write(&interval);
            }
        }
        log.finish().unwrap();
        let text = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let entries: Vec<_> = IntervalLogIterator::new(&text)
            .filter(|entry| !matches!(entry, Ok(LogEntry::StartTime(_) | LogEntry::BaseTime(_))))
            .collect();
        let starts: Vec<u64> = (entries.iter())
            .map(|entry| match entry {
                Ok(LogEntry::Interval(interval)) => interval.start_timestamp().as_secs(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(starts, [10, 11, 20, 21]);
    }

    #[test]
    fn a_disk_that_is_full_is_told_at_the_end() {
        let mut log = Log::create(Path::new("/dev/full")).unwrap();
        log.write(&Interval::new(Stage::Window, 0));
        let failure = log.finish().unwrap_err();
        assert!(failure.text.contains("--hdr: writing '/dev/full'"));
    }
}
