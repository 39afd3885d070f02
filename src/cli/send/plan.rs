//! What `send` was asked to do: the result of its command line.

use super::proxy::ProxyHeader;
use super::source::Source;
use crate::net::Address;
use std::time::Duration;

/// The messages to send, and how: to a server, or to what else has an address of type `A`.
pub(super) struct Plan<A = Address> {
    pub(super) address: A,
    pub(super) input: Input,
    pub(super) form: Form,
    pub(super) repeat: u64,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) source: Option<Source>,
    pub(super) proxy: Option<ProxyHeader>,
}

/// Where the messages come from.
pub(super) enum Input {
    Messages(Vec<Vec<u8>>),
    Standard,
}

/// The form in which received bytes are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Nothing,
    Escaped,
    Hex,
}
