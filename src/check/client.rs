//! One connection as the checker sees it: what it sends, how far it reads, and whether the same bytes come back.

use super::finding::{Broken, bytes};
use crate::load::Pattern;
use std::time::{Duration, Instant};

/// What a client sends.
#[derive(Clone, Debug)]
pub(super) enum Text {
    /// A random text in which each byte depends on its position and on the client.
    Pattern(u64),
    /// These bytes, and no more.
    Own(Vec<u8>),
}

/// How a connection has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Fin,
    Reset,
    /// Any other error, in words; a refused connect among them.
    Failed(String),
}

/// A byte that differs from the one that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// At this position there is this byte, and not that.
    Byte(u64, u8, u8),
    /// From this position on there are bytes that were not sent, this one first.
    Added(u64, u8),
}

/// The state of a client. The limits can be moved at any time, and [`Clients::run`](super::clients::Clients::run) follows.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) text: Text,
    /// Bytes that may be sent by now, from the beginning on.
    pub(super) may_send: u64,
    pub(super) sent: u64,
    /// Bytes of one write at most.
    pub(super) segment: usize,
    /// FIN is sent after this byte.
    pub(super) fin_at: Option<u64>,
    pub(super) is_fin_sent: bool,
    /// Bytes that may be read by now.
    pub(super) may_read: u64,
    pub(super) received: u64,
    pub(super) is_connected: bool,
    /// When connect(2) was called, and how long it took.
    pub(super) began: Instant,
    pub(super) connected_after: Option<Duration>,
    pub(super) end: Option<End>,
    pub(super) wrong: Option<Wrong>,
    /// Its bytes are no progress of the rule: see `stall_timeout`.
    pub(super) is_background: bool,
}

impl Client {
    pub(super) fn new(number: u64) -> Self {
        Self {
            text: Text::Pattern(number),
            may_send: 0,
            sent: 0,
            segment: usize::MAX,
            fin_at: None,
            is_fin_sent: false,
            may_read: u64::MAX,
            received: 0,
            is_connected: false,
            began: Instant::now(),
            connected_after: None,
            end: None,
            wrong: None,
            is_background: false,
        }
    }

    /// Everything that may be sent has come back, or nothing more will.
    pub(super) fn is_settled(&self) -> bool {
        self.is_complete() || self.is_over()
    }

    /// Everything that may be sent has come back.
    pub(super) fn is_complete(&self) -> bool {
        self.received >= self.may_send
    }

    /// Nothing more can come.
    pub(super) fn is_over(&self) -> bool {
        self.wrong.is_some() || self.end.is_some()
    }

    /// What there is to compare with at a position; at most `most` bytes of it.
    pub(super) fn expected<'a>(
        &'a self,
        pattern: &'a Pattern,
        position: u64,
        most: usize,
    ) -> &'a [u8] {
        match &self.text {
            Text::Pattern(number) => pattern.slice(pattern.origin(*number), position, most),
            Text::Own(text) => {
                let from =
                    usize::try_from(position).map_or(text.len(), |from| from.min(text.len()));
                &text[from..text.len().min(from + most)]
            }
        }
    }

    /// Compares what has come with what was sent.
    pub(super) fn compare(&mut self, pattern: &Pattern, came: &[u8]) {
        let known = usize::try_from(self.sent - self.received)
            .map_or(came.len(), |left| left.min(came.len()));
        let expected = self.expected(pattern, self.received, known);
        let differs = came[..known]
            .iter()
            .zip(expected)
            .position(|(one, other)| one != other);
        self.wrong = match differs {
            Some(at) => Some(Wrong::Byte(
                self.received + at as u64,
                came[at],
                expected[at],
            )),
            None => came.get(known).map(|&first| Wrong::Added(self.sent, first)),
        };
        self.received += known as u64;
    }

    /// What came instead of what was expected, in words. `silent` is how long nothing has come.
    pub(super) fn told(&self, silent: Duration) -> String {
        let of = format!("{} of {}", self.received, bytes(self.may_send));
        match (&self.wrong, &self.end) {
            (Some(Wrong::Byte(at, came, sent)), _) => {
                format!("at offset {at} the byte 0x{came:02x} where 0x{sent:02x} was sent")
            }
            (Some(Wrong::Added(at, first)), _) => {
                format!(
                    "after {} more than was sent, beginning with 0x{first:02x}",
                    bytes(*at)
                )
            }
            (None, Some(End::Reset)) => format!("a reset (RST) after {of}"),
            (None, Some(End::Fin)) => format!("FIN after {of}"),
            (None, Some(End::Failed(error))) => format!("{error}, after {of}"),
            (None, None) if !self.is_connected => {
                format!("no connection within {:.1} s", silent.as_secs_f64())
            }
            (None, None) => format!("{of}, then nothing for {:.1} s", silent.as_secs_f64()),
        }
    }

    /// A finding about this client.
    pub(super) fn broken(
        &self,
        sent: impl Into<String>,
        expected: impl Into<String>,
        silent: Duration,
    ) -> Broken {
        Broken {
            sent: sent.into(),
            expected: expected.into(),
            got: self.told(silent),
            is_silence: !self.is_over(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &[u8], sent: u64) -> Client {
        let mut client = Client::new(0);
        client.text = Text::Own(text.to_vec());
        (client.may_send, client.sent, client.is_connected) = (text.len() as u64, sent, true);
        client
    }

    #[test]
    fn a_changed_byte_is_told_with_its_offset() {
        let pattern = Pattern::new(1, 16);
        let mut one = client(b"abcdef", 6);
        one.compare(&pattern, b"abc");
        assert_eq!((one.received, one.wrong), (3, None));
        one.compare(&pattern, b"dXf");
        assert_eq!(one.wrong, Some(Wrong::Byte(4, b'X', b'e')));
        assert_eq!(
            one.told(Duration::ZERO),
            "at offset 4 the byte 0x58 where 0x65 was sent"
        );
    }

    #[test]
    fn bytes_that_were_not_sent_yet_are_added_even_if_they_would_be_right() {
        let pattern = Pattern::new(1, 16);
        let mut one = client(b"abcdef", 3);
        one.compare(&pattern, b"abcd");
        assert_eq!((one.received, one.wrong), (3, Some(Wrong::Added(3, b'd'))));
    }

    #[test]
    fn a_pattern_differs_from_client_to_client() {
        let pattern = Pattern::new(1, 64);
        let (one, other) = (Client::new(1), Client::new(2));
        assert_ne!(
            one.expected(&pattern, 0, 32),
            other.expected(&pattern, 0, 32)
        );
    }
}
