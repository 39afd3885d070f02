//! Whether a run fits this machine: descriptors, and the arithmetic of tuples, done before anything is opened.
//!
//! A TCP connection is named by four numbers, of which the client may vary two: its address and its port. From one
//! address to one server there are no more connections than the kernel has ports to choose from, 28,232 by
//! default; the next connect fails with EADDRNOTAVAIL, which looks like a fault of the server and is none.

use super::datagram::HEADER_BYTES;
use super::{Mode, Plan};
use crate::net::Endpoint;
use crate::procfs::port_range;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Descriptors that a worker needs beside its connections, with some room.
const DESCRIPTORS_RESERVED: u64 = 32;
/// The largest datagram that UDP can carry over IPv4 (RFC 768: 65,535 less the headers).
const DATAGRAM_MAX: usize = 65_507;

/// A range of local addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sources {
    first: IpAddr,
    count: u64,
}

impl Sources {
    /// How many there are.
    #[must_use]
    pub fn count(self) -> u64 {
        self.count
    }

    /// One of them; after the last comes the first again.
    #[must_use]
    pub fn nth(self, turn: u64) -> IpAddr {
        let step = turn % self.count;
        match self.first {
            IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits() + step as u32).into(),
            IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() + u128::from(step)).into(),
        }
    }

    /// Whether they are of the family of a target.
    fn fits(self, target: &Endpoint) -> bool {
        match target {
            Endpoint::Tcp(address) | Endpoint::Udp(address) => {
                address.is_ipv4() == self.first.is_ipv4()
            }
            _ => true,
        }
    }
}

/// As a range, which reads back as the same.
impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => self.first.fmt(f),
            count => write!(f, "{}-{}", self.first, self.nth(count - 1)),
        }
    }
}

/// Why a text is no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcesError;

impl fmt::Display for SourcesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "it is no range of addresses; write for example 127.0.0.2, 127.0.0.0/16 or 10.0.0.5-10.0.0.9"
        )
    }
}

impl std::error::Error for SourcesError {}

impl FromStr for Sources {
    type Err = SourcesError;

    fn from_str(text: &str) -> Result<Self, SourcesError> {
        let ip = |text: &str| text.parse::<IpAddr>().map_err(|_| SourcesError);
        if let Some((first, last)) = text.split_once('-') {
            let (first, last) = (ip(first)?, ip(last)?);
            let (from, to) = match (first, last) {
                (IpAddr::V4(a), IpAddr::V4(b)) => {
                    (u128::from(a.to_bits()), u128::from(b.to_bits()))
                }
                (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits()),
                _ => return Err(SourcesError),
            };
            let count = to.checked_sub(from).ok_or(SourcesError)?;
            let count = u64::try_from(count + 1).map_err(|_| SourcesError)?;
            return Ok(Self { first, count });
        }
        let Some((base, bits)) = text.split_once('/') else {
            let first = ip(text)?;
            return Ok(Self { first, count: 1 });
        };
        let bits: u32 = bits.parse().map_err(|_| SourcesError)?;
        match ip(base)? {
            // The first address of a network names the network, and the last is for all of it.
            IpAddr::V4(base) if bits <= 30 => {
                let hosts = 32 - bits;
                let network = u64::from(base.to_bits()) >> hosts << hosts;
                Ok(Self {
                    first: Ipv4Addr::from_bits(network as u32 + 1).into(),
                    count: (1u64 << hosts) - 2,
                })
            }
            base @ IpAddr::V4(_) if bits <= 32 => Ok(Self {
                first: base,
                count: 1 << (32 - bits),
            }),
            base @ IpAddr::V6(_) if (66..=128).contains(&bits) => Ok(Self {
                first: base,
                count: 1 << (128 - bits),
            }),
            _ => Err(SourcesError),
        }
    }
}

/// Checks that a plan fits, where each of `workers` processes may have `descriptors` open.
///
/// # Errors
/// The reason and the remedy, in a sentence.
pub fn check(plan: &Plan, workers: usize, descriptors: u64) -> Result<(), String> {
    check_size(plan)?;
    let all = (plan.connections + plan.bad_clients.len()) as u64;
    let each = all.div_ceil(workers as u64) + DESCRIPTORS_RESERVED;
    if each > descriptors {
        let enough = all.div_ceil(descriptors.saturating_sub(DESCRIPTORS_RESERVED).max(1));
        return Err(format!(
            "{all} connections take {each} descriptors in each of {workers} processes, and a process may have \
             {descriptors}; use --workers {enough}, or raise the hard limit (ulimit -Hn)"
        ));
    }
    if let Some(sources) = plan.sources {
        if let Some(target) = plan.targets.iter().find(|target| !sources.fits(target)) {
            return Err(format!(
                "--source is of another family than {target}; name addresses of the same family"
            ));
        }
    }
    let over_ip = |target: &Endpoint| matches!(target, Endpoint::Tcp(_) | Endpoint::Udp(_));
    if plan.sources.is_some() && !plan.targets.iter().any(over_ip) {
        return Err("--source has no effect on Unix sockets; leave it out".into());
    }
    let (first, last) = port_range();
    check_tuples(plan, all, u64::from(last.saturating_sub(first)) + 1)
}

fn check_size(plan: &Plan) -> Result<(), String> {
    let datagrams =
        |target: &&Endpoint| matches!(target, Endpoint::Udp(_) | Endpoint::UnixDatagram(_));
    if let Some(target) = plan.targets.iter().find(datagrams) {
        if plan.size < HEADER_BYTES || plan.size > DATAGRAM_MAX {
            return Err(format!(
                "--size {} does not fit {target}: a datagram has {HEADER_BYTES} to {DATAGRAM_MAX} bytes here, the \
                 first {HEADER_BYTES} of which number it",
                plan.size
            ));
        }
        if matches!(plan.mode, Mode::Churn { .. }) {
            return Err(format!(
                "--churn needs connections, and {target} has none; leave it out"
            ));
        }
        if !plan.bad_clients.is_empty() {
            return Err(format!(
                "--bad-clients needs connections, and {target} has none; leave it out"
            ));
        }
    }
    Ok(())
}

/// Connections to each target that go over IP, against the addresses and ports that they may come from.
fn check_tuples(plan: &Plan, all: u64, ports: u64) -> Result<(), String> {
    let over_ip = |target: &Endpoint| matches!(target, Endpoint::Tcp(_) | Endpoint::Udp(_));
    if !plan.targets.iter().any(over_ip) {
        return Ok(());
    }
    let targets = plan.targets.len() as u64;
    let sources = plan.sources.map_or(1, Sources::count);
    let each = all.div_ceil(targets);
    if each <= sources.saturating_mul(ports) {
        return Ok(());
    }
    let enough = each.div_ceil(ports);
    Err(format!(
        "{each} connections to one server need as many pairs of a source address and a port, and {sources} address(es) \
         with {ports} ports have {}; name {enough} source addresses or more (--source 127.0.0.0/16 on this machine), \
         several servers, or widen net.ipv4.ip_local_port_range",
        sources.saturating_mul(ports)
    ))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::load::BadClients;
    use crate::net::connect::Trigger;
    use std::time::Duration;

    pub(in crate::load) fn plan(target: Endpoint) -> Plan {
        Plan {
            targets: vec![target],
            sources: None,
            worker: 0,
            first_number: 0,
            connections: 10,
            active: 10,
            active_by_worker: Vec::new(),
            bad_clients: BadClients::default(),
            size: 64,
            depth: 1,
            mode: Mode::Closed,
            trigger: Trigger::default(),
            warm_up: Duration::ZERO,
            duration: Duration::from_millis(200),
            requests: None,
            ramp_up: Duration::ZERO,
            connect_concurrency: 64,
            timeout: Duration::from_secs(5),
            interval: Duration::from_secs(1),
            seed: 1,
            servers: Vec::new(),
            reset_at_end: false,
        }
    }

    fn tcp() -> Plan {
        plan(Endpoint::Tcp("127.0.0.1:7".parse().unwrap()))
    }

    #[test]
    fn ranges_of_addresses() {
        let one: Sources = "127.0.0.2".parse().unwrap();
        assert_eq!(
            (one.count(), one.nth(5).to_string()),
            (1, "127.0.0.2".into())
        );
        let net: Sources = "127.0.0.9/16".parse().unwrap();
        assert_eq!(net.count(), 65_534);
        assert_eq!(net.nth(0).to_string(), "127.0.0.1");
        assert_eq!(net.nth(65_533).to_string(), "127.0.255.254");
        assert_eq!(net.nth(65_534).to_string(), "127.0.0.1");
        let some: Sources = "10.0.0.5-10.0.0.9".parse().unwrap();
        assert_eq!(
            (some.count(), some.nth(4).to_string()),
            (5, "10.0.0.9".into())
        );
        let six: Sources = "fd00::/112".parse().unwrap();
        assert_eq!(
            (six.count(), six.nth(1).to_string()),
            (65_536, "fd00::1".into())
        );
        for wrong in [
            "",
            "x",
            "127.0.0.1/33",
            "10.0.0.9-10.0.0.5",
            "::/8",
            "1.2.3.4-::1",
        ] {
            assert_eq!(wrong.parse::<Sources>(), Err(SourcesError), "{wrong}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_a_remedy() {
        let mut plan = tcp();
        assert_eq!(check(&plan, 1, 1024), Ok(()));
        plan.connections = 50_000;
        let said = check(&plan, 1, 20_000).unwrap_err();
        assert!(said.contains("--workers 3"), "{said}");
        let said = check_tuples(&plan, 50_000, 28_232).unwrap_err();
        assert!(said.contains("name 2 source addresses"), "{said}");
        plan.sources = "127.0.0.1-127.0.0.2".parse().ok();
        assert_eq!(check_tuples(&plan, 50_000, 28_232), Ok(()));
        plan.sources = "::1".parse().ok();
        let said = check(&plan, 3, 20_000).unwrap_err();
        assert!(said.contains("family"), "{said}");
    }

    #[test]
    fn datagrams_have_room_for_their_number() {
        let mut plan = plan(Endpoint::Udp("127.0.0.1:7".parse().unwrap()));
        plan.size = 4;
        assert!(check(&plan, 1, 1024).unwrap_err().contains("--size 4"));
        plan.size = 8;
        assert_eq!(check(&plan, 1, 1024), Ok(()));
        plan.mode = Mode::Churn { reset: true };
        assert!(check(&plan, 1, 1024).unwrap_err().contains("--churn"));
    }
}
