//! The UDP filter: which sources get a reply to a datagram.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! UDP has no handshake, so a source address is a claim. An echo server that believes every claim can be made to talk to
//! another echo server, or to itself, without end (CVE-1999-0103, and again CVE-2024-2169), or to flood a victim with chosen
//! bytes. So the filter refuses sources that can only be forged or that would reply themselves, and limits the rate of
//! every source.
//!
//! # Loops with another echo server
//!
//! Nothing in its datagrams distinguishes an echo server on a high port from a client. A loop with it goes on because each
//! reply comes back and is answered again, once in a round trip; the rate limit slows only a loop that is faster than that
//! limit. What ends every loop is one datagram that is *not* answered: nothing is left in flight. So each source (address
//! and port) loses one datagram in 5,000 to 10,000, at a random place, as long as it never pauses for a minute. A loop of one
//! datagram therefore ends after at most 10,000 replies (20 s at a round trip of 2 ms, 50 min at 300 ms), a loop of several
//! loses them one by one. A client that never pauses loses 0.01 to 0.02 % of its datagrams; a client that pauses, or sends
//! fewer than 5,000 in a row, loses none. A loop with a round trip of more than a minute is not ended. Where
//! `datagrams_per_source` is off, no loop is.

use super::admission::AccessList;
use crate::limits::Limits;
use crate::net::{Sender, UnixName};
use crate::stats::DropReason;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Ports below this belong to services (RFC 6335's system ports).
const SYSTEM_PORTS_END: u16 = 1024;
/// NFS replies to every datagram, and its port is above the system ports.
const NFS_PORT: u16 = 2049;

/// Decides which datagrams are answered.
#[derive(Debug)]
pub struct UdpFilter {
    pub(super) access: AccessList,
    own_ports: Vec<u16>,
    /// The names to which this server's Unix datagram sockets are bound. The kernel reports them as the source of a datagram
    /// that one of these sockets has sent, whatever path has led it back.
    pub(super) own_names: Vec<UnixName>,
    total: Option<TokenBucket>,
    per_source: Option<SourceBuckets>,
    loops: Option<LoopBreaker>,
}

impl UdpFilter {
    /// A filter for a server that is bound to these UDP ports.
    pub fn new(limits: &Limits, own_ports: Vec<u16>, now: Instant) -> Self {
        Self {
            access: AccessList::default(),
            own_ports,
            own_names: Vec::new(),
            total: limits
                .datagrams_total
                .map(|rate| TokenBucket::new(rate, now)),
            per_source: limits
                .datagrams_per_source
                .map(|rate| SourceBuckets::new(rate, now)),
            loops: limits.datagrams_per_source.map(|_| LoopBreaker::new(now)),
        }
    }

    /// Decides on a datagram from this source.
    ///
    /// # Errors
    /// Why it is not answered.
    pub fn admit(&mut self, source: Sender<'_>, now: Instant) -> Result<(), DropReason> {
        match source {
            Sender::Unnamed => Err(DropReason::Unnamed),
            Sender::Path(name) | Sender::Abstract(name) => {
                if self.own_names.iter().any(|own| source.is_named(own)) {
                    return Err(DropReason::OwnPort);
                }
                self.check_rate(name, name, now)
            }
            Sender::Ip(address) => {
                let (ip, port) = (address.ip().to_canonical(), address.port());
                self.check_address(ip, port)?;
                if !self.access.admits(ip) {
                    return Err(DropReason::Denied);
                }
                // One subscriber has an IPv4 address, or an IPv6 /64. Single numbers are the fastest to hash.
                match ip {
                    IpAddr::V4(ip) => {
                        let bits = u64::from(u32::from(ip));
                        self.check_rate(bits, bits << 16 | u64::from(port), now)
                    }
                    IpAddr::V6(ip) => {
                        let bits = u128::from(ip);
                        self.check_rate((bits >> 64) as u64, (bits, port), now)
                    }
                }
            }
        }
    }

    fn check_address(&self, ip: IpAddr, port: u16) -> Result<(), DropReason> {
        if self.own_ports.contains(&port) {
            return Err(DropReason::OwnPort);
        }
        if port < SYSTEM_PORTS_END || port == NFS_PORT {
            return Err(DropReason::ServicePort);
        }
        let no_host = match ip {
            // 0/8 is "this network"; 240/4 is reserved (RFC 1112), and its last address is the broadcast address.
            IpAddr::V4(ip) => ip.is_multicast() || ip.octets()[0] == 0 || ip.octets()[0] >= 240,
            IpAddr::V6(ip) => ip.is_multicast() || ip.is_unspecified(),
        };
        if no_host {
            Err(DropReason::NoHost)
        } else {
            Ok(())
        }
    }

    /// Checks the rates. `source` has one share of the replies; `socket` is the one socket that would receive this reply.
    fn check_rate(
        &mut self,
        source: impl Hash,
        socket: impl Hash,
        now: Instant,
    ) -> Result<(), DropReason> {
        if self
            .per_source
            .as_mut()
            .is_some_and(|sources| !sources.bucket(source).take(now))
        {
            return Err(DropReason::SourceRate);
        }
        let loops = self.loops.as_mut();
        if loops.is_some_and(|loops| loops.is_due(socket, now)) {
            return Err(DropReason::Loop);
        }
        if self.total.as_mut().is_some_and(|total| !total.take(now)) {
            return Err(DropReason::TotalRate);
        }
        Ok(())
    }
}

/// A token bucket: it fills at `rate` tokens a second, holds those of one second, and each reply takes one.
#[derive(Clone, Debug)]
struct TokenBucket {
    rate: f64,
    tokens: f64,
    filled: Instant,
}

impl TokenBucket {
    fn new(rate: u32, now: Instant) -> Self {
        Self {
            rate: f64::from(rate),
            tokens: f64::from(rate),
            filled: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        if self.filled != now {
            let passed = now.saturating_duration_since(self.filled);
            self.filled = now;
            self.tokens = (self.tokens + passed.as_secs_f64() * self.rate).min(self.rate.max(1.0));
        }
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// A bucket for each source, in a table of fixed size: forged sources cost nothing, so a table that grew with their number
/// could be filled at will. Sources that fall into the same place share its bucket. Which ones do is decided by a hash with a
/// random key, so that a source cannot be forged to share the bucket of a given victim.
#[derive(Debug)]
struct SourceBuckets {
    hash: RandomState,
    buckets: Vec<TokenBucket>,
}

const BUCKETS: usize = 4096;

impl SourceBuckets {
    fn new(rate: u32, now: Instant) -> Self {
        Self {
            hash: RandomState::new(),
            buckets: vec![TokenBucket::new(rate, now); BUCKETS],
        }
    }

    fn bucket(&mut self, source: impl Hash) -> &mut TokenBucket {
        let place = self.hash.hash_one(source) as usize % BUCKETS;
        &mut self.buckets[place]
    }
}

/// Drops one datagram of each source in 5,000 to 10,000, which ends a loop. Sources that fall into the same place of the table
/// share its count, as in [`SourceBuckets`]. The drops come at random places, since otherwise regular traffic of one source
/// could always take the drop of another.
#[derive(Debug)]
struct LoopBreaker {
    hash: RandomState,
    streaks: Vec<Streak>,
    drops: u64,
}

/// Datagrams of one source without a pause of [`PAUSE`] between two of them.
#[derive(Clone, Debug)]
struct Streak {
    /// How many more datagrams are answered before one is dropped.
    left: u16,
    last: Instant,
}

/// At most this many datagrams of one source are answered in a row, and at least half as many.
const STREAK_MAX: u16 = 10_000;
/// A pause that ends a streak. A loop with so long a round trip does no harm.
const PAUSE: Duration = Duration::from_secs(60);

impl LoopBreaker {
    fn new(now: Instant) -> Self {
        let fresh = Streak {
            left: STREAK_MAX,
            last: now,
        };
        Self {
            hash: RandomState::new(),
            streaks: vec![fresh; BUCKETS],
            drops: 0,
        }
    }

    /// Whether this datagram is the one to drop.
    fn is_due(&mut self, socket: impl Hash, now: Instant) -> bool {
        let place = self.hash.hash_one(socket) as usize % BUCKETS;
        let streak = &mut self.streaks[place];
        if streak.last != now {
            if now.saturating_duration_since(streak.last) >= PAUSE {
                streak.left = STREAK_MAX;
            }
            streak.last = now;
        }
        if streak.left > 0 {
            streak.left -= 1;
            return false;
        }
        // The hash has a random key, so the next drop cannot be predicted.
        self.drops += 1;
        let half = STREAK_MAX / 2;
        streak.left = half + (self.hash.hash_one(self.drops) % u64::from(half)) as u16;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::UnixName;
    use std::time::Duration;

    fn filter(limits: &Limits) -> (UdpFilter, Instant) {
        let now = Instant::now();
        (UdpFilter::new(limits, vec![50_007], now), now)
    }

    #[track_caller]
    fn check(source: &str, expected: Result<(), DropReason>) {
        let (mut udp_filter, now) = filter(&Limits::default());
        assert_eq!(
            udp_filter.admit(Sender::Ip(&source.parse().unwrap()), now),
            expected,
            "{source}"
        );
    }

    #[test]
    fn forged_sources_and_services_get_no_reply() {
        check("10.0.0.1:40000", Ok(()));
        check("[2001:db8::1]:40000", Ok(()));
        check("10.0.0.1:0", Err(DropReason::ServicePort));
        check("10.0.0.1:7", Err(DropReason::ServicePort));
        check("10.0.0.1:1023", Err(DropReason::ServicePort));
        check("10.0.0.1:1024", Ok(()));
        check("10.0.0.1:2049", Err(DropReason::ServicePort));
        check("10.0.0.1:50007", Err(DropReason::OwnPort));
        check("224.0.0.1:40000", Err(DropReason::NoHost));
        check("255.255.255.255:40000", Err(DropReason::NoHost));
        check("0.0.0.0:40000", Err(DropReason::NoHost));
        check("[ff02::1]:40000", Err(DropReason::NoHost));
        check("[::]:40000", Err(DropReason::NoHost));
    }

    fn unix(name: &str) -> Sender<'_> {
        Sender::Abstract(name.as_bytes())
    }

    #[test]
    fn unix_sources_need_a_name_that_is_not_the_servers() {
        let (mut udp_filter, now) = filter(&Limits::default());
        udp_filter
            .own_names
            .push(UnixName::Path("/run/echo".into()));
        let own = Sender::Path(b"/run/echo");
        assert_eq!(udp_filter.admit(own, now), Err(DropReason::OwnPort));
        assert_eq!(
            udp_filter.admit(Sender::Unnamed, now),
            Err(DropReason::Unnamed)
        );
        // An abstract name is not the path of the same bytes.
        assert_eq!(udp_filter.admit(unix("/run/echo"), now), Ok(()));
        assert_eq!(udp_filter.admit(unix("a"), now), Ok(()));
    }

    #[test]
    fn unix_sources_have_rates_too() {
        let limits = Limits {
            datagrams_per_source: Some(10),
            datagrams_total: Some(15),
            ..Limits::default()
        };
        let (mut udp_filter, now) = filter(&limits);
        let mut answered = |name| {
            let each = (0..100).map(|_| udp_filter.admit(unix(name), now));
            each.filter(Result::is_ok).count()
        };
        assert_eq!(answered("a"), 10);
        // Another name has a share of its own, but for one in 4,096 keys of the hash.
        assert!(answered("b") <= 5);
    }

    /// How many replies a loop of one datagram gets whose round trip takes this long, in milliseconds.
    fn hops_of_loop(round_trip: u64) -> u64 {
        let (mut udp_filter, start) = filter(&Limits::default());
        let reflector = "192.0.2.1:40007".parse().unwrap();
        let at = |hop| start + Duration::from_millis(round_trip * hop);
        let mut hops = 0..1_000_000;
        hops.find(|&hop| udp_filter.admit(Sender::Ip(&reflector), at(hop)).is_err())
            .expect("the loop ends")
    }

    #[test]
    fn a_loop_of_every_round_trip_ends() {
        for round_trip in [1, 2, 17, 300, 5_000, 59_999] {
            assert!(hops_of_loop(round_trip) <= u64::from(STREAK_MAX));
        }
    }

    /// The datagrams of a loop are lost one by one.
    #[test]
    fn a_loop_of_many_datagrams_ends_too() {
        let (mut udp_filter, start) = filter(&Limits::default());
        let reflector = "192.0.2.1:40007".parse().unwrap();
        let (mut circulating, mut hop) = (20_u64, 0);
        while circulating > 0 {
            hop += 1;
            assert!(hop < 1_000_000, "{circulating} go on");
            let sent =
                (0..circulating).map(|place| start + Duration::from_micros(40_000 * hop + place));
            let lost = sent
                .filter(|&now| udp_filter.admit(Sender::Ip(&reflector), now).is_err())
                .count();
            circulating -= lost as u64;
        }
    }

    #[test]
    fn a_client_loses_next_to_nothing() {
        let (mut udp_filter, start) = filter(&Limits::default());
        let client = "192.0.2.1:40007".parse().unwrap();
        let mut lost = |from: u64, count: u64, every: u64| {
            let at = |number: u64| start + Duration::from_millis(from + every * number);
            (0..count)
                .filter(|&number| udp_filter.admit(Sender::Ip(&client), at(number)).is_err())
                .count()
        };
        let steady = lost(0, 1_000_000, 2);
        assert!((100..=200).contains(&steady), "{steady} of a million");
        let pausing = lost(3_000_000, 10_000, 60_000);
        assert_eq!(pausing, 0, "one a minute");
    }

    #[test]
    fn without_a_rate_per_source_loops_are_not_ended() {
        let limits = Limits {
            datagrams_per_source: None,
            datagrams_total: None,
            ..Limits::default()
        };
        let (mut udp_filter, now) = filter(&limits);
        let client = "192.0.2.1:40007".parse().unwrap();
        assert!((0..100_000).all(|_| udp_filter.admit(Sender::Ip(&client), now).is_ok()));
    }

    #[test]
    fn a_source_gets_its_rate_and_a_64_is_one_source() {
        let limits = Limits {
            datagrams_per_source: Some(10),
            ..Limits::default()
        };
        let (mut udp_filter, start) = filter(&limits);
        let mut answered = |ms: u64, host: u64| {
            let source = format!("[2001:db8::{host:x}]:40000").parse().unwrap();
            udp_filter
                .admit(Sender::Ip(&source), start + Duration::from_millis(ms))
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
    fn the_rate_of_a_source_is_no_other_sources() {
        let limits = Limits {
            datagrams_per_source: Some(1),
            datagrams_total: None,
            ..Limits::default()
        };
        let (mut udp_filter, now) = filter(&limits);
        let mut answered = |source: String| {
            let source = source.parse().unwrap();
            udp_filter.admit(Sender::Ip(&source), now).is_ok()
        };
        // A few may share a place of the table.
        let other_64 = (0..100).filter(|net| answered(format!("[2001:db8:0:{net:x}::1]:40000")));
        assert!(other_64.count() > 90);
        let other_host = (0..100).filter(|host| answered(format!("192.0.2.{host}:40000")));
        assert!(other_host.count() > 90);
    }

    #[test]
    fn all_sources_together_have_a_rate() {
        let limits = Limits {
            datagrams_total: Some(10),
            ..Limits::default()
        };
        let (mut udp_filter, start) = filter(&limits);
        let answered = (0..100)
            .filter(|host| {
                udp_filter
                    .admit(
                        Sender::Ip(&format!("10.0.0.{host}:40000").parse().unwrap()),
                        start,
                    )
                    .is_ok()
            })
            .count();
        assert_eq!(answered, 10);
    }

    #[test]
    fn the_drops_of_a_source_come_at_random_places() {
        let start = Instant::now();
        let mut breaker = LoopBreaker::new(start);
        let mut streaks = std::collections::BTreeSet::new();
        let mut streak = 0;
        for _ in 0..20 * u32::from(STREAK_MAX) {
            streak += 1;
            if breaker.is_due("one", start) {
                streaks.insert(std::mem::take(&mut streak));
            }
        }
        assert!(streaks.len() > 2, "{streaks:?}"); // the first is the longest
    }
}
