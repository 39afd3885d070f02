//! One client of a simulation: how far it is, and what it must receive.

#[derive(Debug)]
pub(super) struct Client {
    pub(super) index: usize,
    pub(super) listener: usize,
    /// Socket of the server's end; unknown until the connection is accepted.
    pub(super) socket: Option<usize>,
    pub(super) to_send: usize,
    pub(super) sent: usize,
    pub(super) received: usize,
    pub(super) behavior: Behavior,
    /// The client has reset the connection.
    pub(super) is_reset: bool,
    pub(super) is_closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behavior {
    Eager,
    Slow,
    NeverReads,
    Resets,
}

impl Client {
    pub(super) fn receives(&mut self, index: usize, byte: u8) {
        assert!(
            self.received < self.sent,
            "client {index} receives more than it sent"
        );
        assert_eq!(
            byte,
            pattern(index, self.received),
            "client {index}, byte {}",
            self.received
        );
        self.received += 1;
    }
}

/// Returns the byte that a client sends at a place: it differs between neighbours and between clients.
pub(super) fn pattern(client: usize, place: usize) -> u8 {
    (place * 31 + (place >> 8) * 7 + client * 101) as u8
}
