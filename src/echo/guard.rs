//! Who gets an answer to a datagram.
//!
//! UDP has no handshake, so a source address is a claim. An echo server that believes every claim can be made to talk
//! to another echo server, or to itself, for ever (CVE-1999-0103, and again CVE-2024-2169), or to pour chosen bytes over
//! somebody who never asked. So the guard refuses the sources that can only be forged or that would answer back, and
//! caps what any one source can draw: the cap is what ends a loop with a stranger's echo server on a high port, which
//! nothing in the datagram gives away.
//!
//! What may live in this file: a yes or no for a source and a moment. No sockets, no clock.

use super::admission::Access;
use crate::limits::Limits;
use crate::net::Peer;
use crate::stats::Dropped;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// Ports below this belong to services (RFC 6335's system ports).
const SYSTEM_PORTS_END: u16 = 1024;
/// NFS answers whatever reaches it, and lives above the system ports.
const NFS_PORT: u16 = 2049;

/// See the page above.
#[derive(Debug)]
pub struct Guard {
    pub(super) access: Access,
    own_ports: Vec<u16>,
    total: Option<Bucket>,
    per_source: Option<Sources>,
}

impl Guard {
    /// A guard for a server that has these UDP ports itself.
    pub fn new(limits: &Limits, own_ports: Vec<u16>, now: Instant) -> Self {
        Self {
            access: Access::default(),
            own_ports,
            total: limits.datagrams_total.map(|rate| Bucket::new(rate, now)),
            per_source: limits
                .datagrams_per_source
                .map(|rate| Sources::new(rate, now)),
        }
    }

    /// Whether this source gets an answer now.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&mut self, source: &Peer, now: Instant) -> Result<(), Dropped> {
        match source {
            Peer::Unnamed => Err(Dropped::Unnamed),
            // The file system says who may send here, and no Unix socket answers by itself.
            Peer::Unix(_) => Ok(()),
            Peer::Ip(address) => {
                self.check_address(*address)?;
                if !self.access.admits(address.ip()) {
                    return Err(Dropped::Denied);
                }
                self.check_rate(address.ip(), now)
            }
        }
    }

    fn check_address(&self, source: SocketAddr) -> Result<(), Dropped> {
        if self.own_ports.contains(&source.port()) && !planted!("udp-answers-itself") {
            return Err(Dropped::OwnPort);
        }
        if source.port() < SYSTEM_PORTS_END || source.port() == NFS_PORT {
            return Err(Dropped::ServicePort);
        }
        let no_host = match source.ip() {
            // 0/8 is "this network", 240/4 and above was never given out and ends in the broadcast address.
            IpAddr::V4(ip) => ip.is_multicast() || ip.octets()[0] == 0 || ip.octets()[0] >= 240,
            IpAddr::V6(ip) => ip.is_multicast() || ip.is_unspecified(),
        };
        if no_host {
            Err(Dropped::NoHost)
        } else {
            Ok(())
        }
    }

    fn check_rate(&mut self, source: IpAddr, now: Instant) -> Result<(), Dropped> {
        if self
            .per_source
            .as_mut()
            .is_some_and(|sources| !sources.bucket(source).take(now))
            && !planted!("udp-rate-uncapped")
        {
            return Err(Dropped::SourceRate);
        }
        if self.total.as_mut().is_some_and(|total| !total.take(now)) {
            return Err(Dropped::TotalRate);
        }
        Ok(())
    }
}

/// A token bucket: it fills at `rate` a second, holds a second's worth, and each answer takes one.
#[derive(Clone, Debug)]
struct Bucket {
    rate: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn new(rate: u32, now: Instant) -> Self {
        Self {
            rate: f64::from(rate),
            tokens: f64::from(rate),
            filled: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled);
        self.filled = now;
        self.tokens = (self.tokens + passed.as_secs_f64() * self.rate).min(self.rate.max(1.0));
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// A bucket for each source, in a table that cannot grow: forged sources are free, so whatever grew with their number
/// would be theirs to fill. Sources that fall into the same place share its bucket; which ones do is decided by a random
/// hash, so nobody can aim at somebody else's.
#[derive(Debug)]
struct Sources {
    hash: RandomState,
    buckets: Vec<Bucket>,
}

const BUCKETS: usize = 4096;

impl Sources {
    fn new(rate: u32, now: Instant) -> Self {
        Self {
            hash: RandomState::new(),
            buckets: vec![Bucket::new(rate, now); BUCKETS],
        }
    }

    fn bucket(&mut self, source: IpAddr) -> &mut Bucket {
        // Whoever has one IPv6 address usually has a /64 of them.
        let subscriber = match source {
            IpAddr::V4(ip) => u64::from(u32::from(ip)),
            IpAddr::V6(ip) => (u128::from(ip) >> 64) as u64,
        };
        let place = self.hash.hash_one((source.is_ipv6(), subscriber)) as usize % BUCKETS;
        &mut self.buckets[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::UnixName;
    use std::time::Duration;

    fn guard(limits: &Limits) -> (Guard, Instant) {
        let now = Instant::now();
        (Guard::new(limits, vec![50_007], now), now)
    }

    #[track_caller]
    fn check(source: &str, expected: Result<(), Dropped>) {
        let (mut guard, now) = guard(&Limits::default());
        assert_eq!(
            guard.admit(&Peer::Ip(source.parse().unwrap()), now),
            expected,
            "{source}"
        );
    }

    #[test]
    fn sources_that_can_only_be_forged_or_would_answer_get_nothing() {
        check("10.0.0.1:40000", Ok(()));
        check("[2001:db8::1]:40000", Ok(()));
        check("10.0.0.1:0", Err(Dropped::ServicePort));
        check("10.0.0.1:7", Err(Dropped::ServicePort));
        check("10.0.0.1:1023", Err(Dropped::ServicePort));
        check("10.0.0.1:1024", Ok(()));
        check("10.0.0.1:2049", Err(Dropped::ServicePort));
        check("10.0.0.1:50007", Err(Dropped::OwnPort));
        check("224.0.0.1:40000", Err(Dropped::NoHost));
        check("255.255.255.255:40000", Err(Dropped::NoHost));
        check("0.0.0.0:40000", Err(Dropped::NoHost));
        check("[ff02::1]:40000", Err(Dropped::NoHost));
        check("[::]:40000", Err(Dropped::NoHost));
    }

    #[test]
    fn unix_sources_need_a_name_and_nothing_else() {
        let (mut guard, now) = guard(&Limits::default());
        assert_eq!(guard.admit(&Peer::Unnamed, now), Err(Dropped::Unnamed));
        assert_eq!(
            guard.admit(&Peer::Unix(UnixName::Abstract("a".into())), now),
            Ok(())
        );
    }

    #[test]
    fn a_source_draws_its_rate_and_a_64_is_one_source() {
        let limits = Limits {
            datagrams_per_source: Some(10),
            ..Limits::default()
        };
        let (mut guard, start) = guard(&limits);
        let mut answered = |ms: u64, host: u64| {
            let source = Peer::Ip(format!("[2001:db8::{host:x}]:40000").parse().unwrap());
            guard
                .admit(&source, start + Duration::from_millis(ms))
                .is_ok()
        };
        assert_eq!((0..100).filter(|&host| answered(0, host)).count(), 10);
        assert_eq!((0..100).filter(|&host| answered(500, host)).count(), 5);
        assert_eq!(
            (0..100).filter(|&host| answered(60_000, host)).count(),
            10,
            "it holds no more than a second's worth"
        );
    }

    #[test]
    fn all_sources_together_have_a_cap() {
        let limits = Limits {
            datagrams_total: Some(10),
            ..Limits::default()
        };
        let (mut guard, start) = guard(&limits);
        let answered = (0..100)
            .filter(|host| {
                guard
                    .admit(
                        &Peer::Ip(format!("10.0.0.{host}:40000").parse().unwrap()),
                        start,
                    )
                    .is_ok()
            })
            .count();
        assert_eq!(answered, 10);
    }
}
