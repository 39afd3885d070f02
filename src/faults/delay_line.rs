//! The delay line of a stream: what has arrived, and when it is handed over. The time is an argument.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::time::{Duration, Instant};

/// Most bytes in one line; more stay in the kernel, where they hold the peer back. A stream therefore carries at most this
/// many bytes in each delay.
const BYTES_MAX: usize = 256 * 1024;
/// Most parts in one line, which bounds the memory of single bytes.
const PARTS_MAX: usize = 1024;
/// Most bytes of a part.
const PART_BYTES_MAX: usize = 16 * 1024;

/// Input that waits.
#[derive(Debug)]
pub(super) struct DelayLine {
    delay: Duration,
    parts: VecDeque<Part>,
    bytes: usize,
    /// When the FIN of the peer is due, which ends the line.
    fin_at: Option<Instant>,
}

#[derive(Debug)]
struct Part {
    due_at: Instant,
    bytes: Vec<u8>,
    /// Bytes of it that were handed over.
    taken: usize,
}

impl DelayLine {
    pub(super) fn new(delay: Duration) -> Self {
        Self {
            delay,
            parts: VecDeque::new(),
            bytes: 0,
            fin_at: None,
        }
    }

    /// Reads from `stream` until it would block or ends, or the line is full.
    ///
    /// # Errors
    /// Those of the stream. They are not delayed: after a reset there is nothing to be answered.
    pub(super) fn fill(
        &mut self,
        stream: &mut impl Read,
        clock: impl Fn() -> Instant,
    ) -> io::Result<()> {
        let mut chunk = [0; PART_BYTES_MAX];
        while self.fin_at.is_none() && self.parts.len() < PARTS_MAX && self.bytes < BYTES_MAX {
            let room = PART_BYTES_MAX.min(BYTES_MAX - self.bytes);
            match stream.read(&mut chunk[..room]) {
                // The clock is read afterwards: what was read has arrived by then.
                Ok(0) => self.fin_at = Some(clock() + self.delay),
                Ok(count) => {
                    self.bytes += count;
                    self.parts.push_back(Part {
                        due_at: clock() + self.delay,
                        bytes: chunk[..count].to_vec(),
                        taken: 0,
                    });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Hands over bytes that are due by `now`, as read(2) does: 0 is the FIN of the peer.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is due.
    pub(super) fn take(&mut self, buffer: &mut [u8], now: Instant) -> io::Result<usize> {
        let Some(part) = self.parts.front_mut() else {
            let is_over = self.fin_at.is_some_and(|at| at <= now);
            return if is_over {
                Ok(0)
            } else {
                Err(ErrorKind::WouldBlock.into())
            };
        };
        if part.due_at > now {
            return Err(ErrorKind::WouldBlock.into());
        }
        let rest = &part.bytes[part.taken..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        part.taken += count;
        self.bytes -= count;
        if part.taken == part.bytes.len() {
            self.parts.pop_front();
        }
        Ok(count)
    }

    /// When the next input is due.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.parts.front().map(|part| part.due_at).or(self.fin_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const MS: Duration = Duration::from_millis(1);

    /// A socket that has received this much, and perhaps a FIN.
    struct Socket {
        received: usize,
        has_ended: bool,
    }

    impl Read for Socket {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.received.min(buffer.len());
            if count == 0 && !self.has_ended {
                return Err(ErrorKind::WouldBlock.into());
            }
            buffer[..count].fill(7);
            self.received -= count;
            Ok(count)
        }
    }

    fn socket(received: usize, has_ended: bool) -> Socket {
        Socket {
            received,
            has_ended,
        }
    }

    /// What is due by then: the bytes, and whether the end.
    fn taken(line: &mut DelayLine, now: Instant) -> (usize, bool) {
        let (mut buffer, mut bytes) = ([0; 1000], 0);
        loop {
            match line.take(&mut buffer, now) {
                Ok(0) => return (bytes, true),
                Ok(count) => bytes += count,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    return (bytes, false);
                }
            }
        }
    }

    #[test]
    fn bytes_and_fin_are_due_a_delay_after_they_arrived() {
        let start = Instant::now();
        let mut line = DelayLine::new(5 * MS);
        line.fill(&mut socket(3, false), || start).unwrap();
        line.fill(&mut socket(2_500, true), || start + 4 * MS)
            .unwrap();
        line.fill(&mut socket(1, false), || start + 4 * MS).unwrap();
        assert_eq!(line.due_at(), Some(start + 5 * MS));
        assert_eq!(taken(&mut line, start + 4 * MS), (0, false));
        assert_eq!(taken(&mut line, start + 5 * MS), (3, false));
        assert_eq!(line.due_at(), Some(start + 9 * MS));
        assert_eq!(
            taken(&mut line, start + 9 * MS),
            (2_500, true),
            "nothing follows a FIN"
        );
    }

    /// The clock is read after the stream, or a byte could be answered early.
    #[test]
    fn the_arrival_is_not_before_the_read() {
        let start = Instant::now();
        let now = Cell::new(start);
        struct Slow<'a>(&'a Cell<Instant>, usize);
        impl Read for Slow<'_> {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                self.0.set(self.0.get() + MS);
                self.1 = self.1.checked_sub(1).ok_or(ErrorKind::WouldBlock)?;
                Ok(1)
            }
        }
        let mut line = DelayLine::new(5 * MS);
        line.fill(&mut Slow(&now, 1), || now.get()).unwrap();
        assert_eq!(line.due_at(), Some(start + 6 * MS));
    }

    #[test]
    fn a_line_is_bounded_and_goes_on_when_it_has_room() {
        let start = Instant::now();
        let mut line = DelayLine::new(5 * MS);
        let mut flood = socket(BYTES_MAX + 1_000, false);
        for _ in 0..2 {
            line.fill(&mut flood, || start).unwrap();
            assert_eq!(flood.received, 1_000, "the rest stays in the kernel");
        }
        assert_eq!(taken(&mut line, start + 5 * MS).0, BYTES_MAX);
        line.fill(&mut flood, || start + 5 * MS).unwrap();
        assert_eq!(line.due_at(), Some(start + 10 * MS));
        assert_eq!(taken(&mut line, start + 10 * MS).0, 1_000);
        for _ in 0..2 * PARTS_MAX {
            line.fill(&mut socket(1, false), || start).unwrap();
        }
        assert_eq!(line.parts.len(), PARTS_MAX);
    }

    #[test]
    fn a_reset_is_told_at_once() {
        struct Reset;
        impl Read for Reset {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(ErrorKind::ConnectionReset.into())
            }
        }
        let error = DelayLine::new(MS)
            .fill(&mut Reset, Instant::now)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}
