//! The local addresses of the connections: one, a range, or a network.

use crate::net::Endpoint;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of local addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
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
    pub(super) fn fits(self, target: &Endpoint) -> bool {
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

impl From<Sources> for String {
    fn from(sources: Sources) -> Self {
        sources.to_string()
    }
}

impl TryFrom<String> for Sources {
    type Error = SourcesError;

    fn try_from(text: String) -> Result<Self, SourcesError> {
        text.parse()
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
