//! The tutorial's two lines: who connected, and what was received.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! They have a log target of their own, at trace level, so that they can be switched on alone (`serve -v` does) and cost
//! one comparison while they are off. What a peer sends is never logged as it is: control characters could forge lines
//! or take over a terminal, so it is escaped, and cut.

use super::{Peer, Stream};
use log::Level::Trace;

/// The log target of these lines.
pub const TARGET: &str = "echo_reactor::trace";

/// How much of what was received is shown, in bytes.
const PREVIEW_BYTES: usize = 64;

pub(crate) fn log_connected(peer: &Peer) {
    log::trace!(target: TARGET, "Connected by {peer}");
}

#[inline]
pub(crate) fn log_received(stream: &impl Stream, bytes: &[u8]) {
    if log::log_enabled!(target: TARGET, Trace) {
        log_received_from(&stream.peer(), bytes);
    }
}

#[cold]
pub(crate) fn log_received_from(peer: &Peer, bytes: &[u8]) {
    log::trace!(target: TARGET, "Received {} bytes from {peer}: {}", bytes.len(), preview(bytes));
}

/// The first bytes, escaped and in quotes; dots say that there is more.
#[must_use]
pub fn preview(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(PREVIEW_BYTES)];
    let dots = if shown.len() < bytes.len() { "..." } else { "" };
    format!("'{}'{dots}", shown.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_peer_sends_reaches_the_log_as_it_is() {
        let every_byte: Vec<u8> = (0..=255).collect();
        for chunk in every_byte.chunks(PREVIEW_BYTES) {
            assert!(
                preview(chunk)
                    .bytes()
                    .all(|byte| (0x20..0x7f).contains(&byte))
            );
        }
        assert_eq!(preview(b"a\x1b[2J\nb"), r"'a\x1b[2J\nb'");
        assert_eq!(preview(&[b'x'; 65]).len(), 64 + 2 + 3);
    }
}
