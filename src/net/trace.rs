//! Two lines of the log for a learner: which peer connected, and what was received.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! They have a log target of their own, at trace level, so that they can be switched on separately (`serve -v` does) and
//! cost one comparison while they are off. Received bytes are never logged unchanged: control characters could forge
//! lines of the log or command a terminal. They are escaped, and cut to a preview.

use super::peer::Peer;
use super::traits::Stream;
use log::Level::Trace;

/// The log target of these lines.
pub const TARGET: &str = "echo_reactor::trace";

/// How many of the received bytes are shown.
const PREVIEW_BYTES: usize = 64;

pub(crate) fn log_connected(peer: &Peer) {
    log::trace!(target: TARGET, "Connected by {peer}");
}

/// The connection of a proxy: later lines name it by the address of the proxy, which is the socket's.
pub(crate) fn log_declared(client: &Peer, proxy: &Peer) {
    match client == proxy {
        true => log_connected(proxy),
        false => log::trace!(target: TARGET, "Connected by {client}, through the proxy {proxy}"),
    }
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

/// Returns the first bytes, escaped and in quotes; dots mean that there are more.
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
    fn received_bytes_reach_the_log_escaped() {
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
