//! Who is let in: the lists of networks, and how many connections each may hold.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! The accept_gate asks whether there is room for anybody; here it is asked who. A new connection is known by its address alone,
//! which over TCP is more than a claim: whoever has finished a handshake receives what is sent there. So one abuser is
//! one prefix, a single IPv4 address or an IPv6 /64 (of which whoever has one address usually has all), and what one
//! prefix may hold can be capped without troubling the others.
//!
//! It costs something when a connection comes and when it goes, and nothing between. What is remembered of a connection
//! is its prefix, in a table beside the slots rather than in them: the slots of those who set no cap stay as they are.
//! And the kernel cannot be asked later: a socket whose peer has reset it does not know any more who that was. Counts at
//! zero are removed, so that the table is never longer than there are connections.
//!
//! What may live in this file: a yes or no for a new connection, and the counting behind it. No sockets, no clock.

use crate::limits::Limits;
use crate::net::{IpNet, Peer};
use crate::stats::RejectReason;
use std::collections::HashMap;
use std::net::IpAddr;

/// The networks that may come, and those that may not. They are searched from first to last, which suits the dozen that
/// people write; ten thousand are a firewall's business.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccessList {
    /// If there is any, all others stay outside.
    pub allow: Vec<IpNet>,
    /// Who is in here stays outside, even if the list above has them too.
    pub deny: Vec<IpNet>,
}

impl AccessList {
    /// Whether this address may come.
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        let has = |list: &[IpNet]| list.iter().any(|prefix| prefix.contains(address));
        !has(&self.deny) && (self.allow.is_empty() || has(&self.allow))
    }
}

/// See the page above.
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
                live: HashMap::new(),
                of_slot: Vec::new(),
            }),
        }
    }

    /// Whether this new connection is let in, beside so many who are.
    pub(super) fn judge(&self, peer: &Peer, live: u64) -> Result<(), RejectReason> {
        // Whoever may open a Unix socket's file has been let in by the file system.
        if let Peer::Ip(address) = peer {
            if !self.access.admits(address.ip()) {
                return Err(RejectReason::Denied);
            }
            if (self.per_prefix.as_ref()).is_some_and(|counts| counts.is_full(address.ip())) {
                return Err(RejectReason::Prefix);
            }
        }
        if live >= self.connections_max {
            return Err(RejectReason::Limit);
        }
        Ok(())
    }

    /// It was let in, and has this slot.
    pub(super) fn enter(&mut self, peer: &Peer, slot: usize) {
        if let (Some(counts), Peer::Ip(address)) = (&mut self.per_prefix, peer) {
            counts.enter(address.ip(), slot);
        }
    }

    /// Whoever had this slot is gone.
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
    /// How many connections each prefix holds; std's hash has a random key, so nobody can aim at its buckets.
    live: HashMap<IpNet, usize>,
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
        (self.live.get(&self.prefix(address))).is_some_and(|&live| live >= self.most)
    }

    fn enter(&mut self, address: IpAddr, slot: usize) {
        let prefix = self.prefix(address);
        if slot >= self.of_slot.len() {
            self.of_slot.resize(slot + 1, None);
        }
        debug_assert_eq!(self.of_slot[slot], None, "who left has been counted out");
        self.of_slot[slot] = Some(prefix);
        *self.live.entry(prefix).or_default() += 1;
    }

    fn leave(&mut self, slot: usize) {
        let Some(prefix) = self.of_slot.get_mut(slot).and_then(Option::take) else {
            return; // over a Unix socket
        };
        if let Some(live) = self.live.get_mut(&prefix) {
            *live -= 1;
            if *live == 0 {
                self.live.remove(&prefix);
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
    fn a_denied_network_stays_outside_and_an_allowed_one_keeps_the_others_out() {
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
    fn a_prefix_holds_as_many_as_it_may_and_is_forgotten_when_the_last_leaves() {
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
        assert!(admission.per_prefix.unwrap().live.is_empty());
    }

    #[test]
    fn neighbours_in_a_64_are_one() {
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
    fn beyond_the_limit_nobody_is_let_in() {
        let limits = Limits {
            connections_max: 5,
            ..Limits::default()
        };
        let admission = Admission::new(&limits);
        assert_eq!(admission.judge(&Peer::Unnamed, 4), Ok(()));
        assert_eq!(admission.judge(&Peer::Unnamed, 5), Err(RejectReason::Limit));
    }
}
