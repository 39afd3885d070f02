//! Admission: the lists of networks, and how many connections each network may have.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! The accept gate decides whether there is room for a connection; this file decides for which peer. A new connection is
//! known by its address alone, which over TCP is more than a claim: after a handshake, what is sent to that address arrives
//! at the peer. Only the connection of a proxy (`proxied`) is judged later, by the address that its header declares. The unit is a prefix, a single IPv4 address or an IPv6 /64 (a host with one IPv6 address usually has all of
//! its /64), and the number of connections of one prefix can be limited without an effect on the rest.
//!
//! It costs something when a connection is accepted and when it is closed, and nothing between. The prefix of a connection is
//! kept in a table beside the slots rather than in them: without a limit the slots stay as small as they are. The kernel
//! cannot be asked later: after a RST getpeername(2) fails with ENOTCONN. Counts at zero are removed, so that the table is
//! never longer than the number of connections.

use crate::limits::Limits;
use crate::net::{IpNet, Peer};
use crate::stats::RejectReason;
use std::collections::HashMap;
use std::net::IpAddr;

/// The networks that are allowed to connect, and those that are not. The lists are searched from first to last, which suits
/// a dozen entries; ten thousand are better placed in a firewall.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccessList {
    /// If there is an entry, an address in none of them is rejected.
    pub allow: Vec<IpNet>,
    /// An address in one of these is rejected, even if it is in `allow` too.
    pub deny: Vec<IpNet>,
}

impl AccessList {
    /// Whether this address is allowed to connect.
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        let has = |list: &[IpNet]| list.iter().any(|prefix| prefix.contains(address));
        !has(&self.deny) && (self.allow.is_empty() || has(&self.allow))
    }
}

/// Decides which new connections are accepted.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) access: AccessList,
    connections_max: u64,
    per_prefix: Option<PerPrefix>,
}

impl Admission {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            access: AccessList::default(),
            connections_max: limits.connections_max as u64,
            per_prefix: limits.connections_per_prefix.map(|most| PerPrefix {
                most,
                ipv4_bits: limits.prefix_bits_ipv4,
                ipv6_bits: limits.prefix_bits_ipv6,
                open: HashMap::new(),
                of_slot: Vec::new(),
            }),
        }
    }

    /// Decides on a new connection while `open` connections exist.
    ///
    /// # Errors
    /// Why it is rejected.
    pub(super) fn judge(&self, peer: &Peer, open: u64) -> Result<(), RejectReason> {
        self.judge_client(peer)?;
        self.judge_room(open)
    }

    /// Decides by the address of a client.
    ///
    /// # Errors
    /// It is not on the lists as it should be, or its prefix has its connections.
    pub(super) fn judge_client(&self, peer: &Peer) -> Result<(), RejectReason> {
        // For a Unix socket the permissions of its file have decided.
        if let Peer::Ip(address) = peer {
            if !self.access.admits(address.ip()) {
                return Err(RejectReason::Denied);
            }
            if (self.per_prefix.as_ref()).is_some_and(|counts| counts.is_full(address.ip())) {
                return Err(RejectReason::Prefix);
            }
        }
        Ok(())
    }

    /// Decides by the number of connections that are open.
    ///
    /// # Errors
    /// It is at its limit.
    pub(super) fn judge_room(&self, open: u64) -> Result<(), RejectReason> {
        match open >= self.connections_max {
            true => Err(RejectReason::Limit),
            false => Ok(()),
        }
    }

    /// Counts a connection that was accepted, and has this slot.
    pub(super) fn enter(&mut self, peer: &Peer, slot: usize) {
        if let (Some(counts), Peer::Ip(address)) = (&mut self.per_prefix, peer) {
            counts.enter(address.ip(), slot);
        }
    }

    /// Uncounts the connection in this slot, which has closed.
    pub(super) fn leave(&mut self, slot: usize) {
        if let Some(counts) = &mut self.per_prefix {
            counts.leave(slot);
        }
    }
}

#[derive(Debug)]
struct PerPrefix {
    most: usize,
    ipv4_bits: u8,
    ipv6_bits: u8,
    /// How many connections each prefix has. The hash of std has a random key, so that collisions cannot be provoked.
    open: HashMap<IpNet, usize>,
    of_slot: Vec<Option<IpNet>>,
}

impl PerPrefix {
    fn prefix(&self, address: IpAddr) -> IpNet {
        let bits = if address.is_ipv4() {
            self.ipv4_bits
        } else {
            self.ipv6_bits
        };
        IpNet::of(address, bits)
    }

    fn is_full(&self, address: IpAddr) -> bool {
        (self.open.get(&self.prefix(address))).is_some_and(|&open| open >= self.most)
    }

    fn enter(&mut self, address: IpAddr, slot: usize) {
        let prefix = self.prefix(address);
        if slot >= self.of_slot.len() {
            self.of_slot.resize(slot + 1, None);
        }
        debug_assert_eq!(self.of_slot[slot], None, "a closed connection is uncounted");
        self.of_slot[slot] = Some(prefix);
        *self.open.entry(prefix).or_default() += 1;
    }

    fn leave(&mut self, slot: usize) {
        let Some(prefix) = self.of_slot.get_mut(slot).and_then(Option::take) else {
            return; // a connection over a Unix socket
        };
        if let Some(open) = self.open.get_mut(&prefix) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&prefix);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        Peer::Ip(format!("{address}:40000").parse().unwrap())
    }

    fn list(prefixes: &[&str]) -> Vec<IpNet> {
        prefixes.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_denied_network_is_rejected_and_an_allow_list_rejects_the_rest() {
        let mut access = AccessList::default();
        let admits = |access: &AccessList, address: &str| access.admits(address.parse().unwrap());
        assert!(admits(&access, "10.0.0.1"));
        access.deny = list(&["10.0.0.0/24"]);
        assert!(!admits(&access, "10.0.0.1") && admits(&access, "10.0.1.1"));
        access.allow = list(&["10.0.0.0/8", "2001:db8::/32"]);
        assert!(!admits(&access, "10.0.0.1"), "denied comes first");
        assert!(admits(&access, "10.0.1.1") && admits(&access, "2001:db8::1"));
        assert!(!admits(&access, "192.0.2.1") && !admits(&access, "::1"));
    }

    #[test]
    fn a_prefix_has_a_limit_and_is_forgotten_with_its_last_connection() {
        let limits = Limits {
            connections_per_prefix: Some(2),
            prefix_bits_ipv4: 24,
            ..Limits::default()
        };
        let mut admission = Admission::new(&limits);
        let (first, second) = (peer("10.0.0.1"), peer("10.0.0.2"));
        admission.enter(&first, 3);
        assert_eq!(admission.judge(&second, 1), Ok(()));
        admission.enter(&second, 0);
        assert_eq!(admission.judge(&first, 2), Err(RejectReason::Prefix));
        assert_eq!(admission.judge(&peer("10.0.1.1"), 2), Ok(()));
        assert_eq!(admission.judge(&Peer::Unnamed, 2), Ok(()));
        admission.enter(&Peer::Unnamed, 1);
        admission.leave(1);
        admission.leave(3);
        assert_eq!(admission.judge(&first, 1), Ok(()));
        admission.leave(0);
        assert!(admission.per_prefix.unwrap().open.is_empty());
    }

    #[test]
    fn addresses_of_one_64_share_a_limit() {
        let limits = Limits {
            connections_per_prefix: Some(1),
            ..Limits::default()
        };
        let mut admission = Admission::new(&limits);
        admission.enter(&peer("[2001:db8::1]"), 0);
        assert_eq!(
            admission.judge(&peer("[2001:db8::2]"), 1),
            Err(RejectReason::Prefix)
        );
        assert_eq!(admission.judge(&peer("[2001:db8:0:1::2]"), 1), Ok(()));
    }

    #[test]
    fn beyond_the_limit_every_connection_is_rejected() {
        let limits = Limits {
            connections_max: 5,
            ..Limits::default()
        };
        let admission = Admission::new(&limits);
        assert_eq!(admission.judge(&Peer::Unnamed, 4), Ok(()));
        assert_eq!(admission.judge(&Peer::Unnamed, 5), Err(RejectReason::Limit));
    }
}
