//! Networks in CIDR notation, such as `10.0.0.0/8`, and the network that an address belongs to.
//!
//! ```
//! use echo_reactor::net::IpNet;
//!
//! let network: IpNet = "10.0.0.0/8".parse().unwrap();
//! assert!(network.contains("10.1.2.3".parse().unwrap()));
//! assert_eq!(IpNet::of("2001:db8::1".parse().unwrap(), 64).to_string(), "2001:db8::/64");
//! ```
//!
//! The crate ipnet does this and much more. One mask and one comparison are needed here, and the library is to depend on
//! five crates only.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network: all addresses that begin with the same bits. A single address is a network of full prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpNet {
    /// The bits after the prefix are zero.
    address: IpAddr,
    bits: u8,
}

impl IpNet {
    /// Returns the network of this prefix length that the address belongs to. A length beyond the width of the address
    /// means all of it; an IPv4-mapped IPv6 address is treated as IPv4.
    #[must_use]
    pub fn of(address: IpAddr, bits: u8) -> Self {
        match address.to_canonical() {
            IpAddr::V4(ip) => {
                let bits = bits.min(32);
                // Rust does not shift by the whole width, and the mask of no bits is zero.
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                Self {
                    address: Ipv4Addr::from_bits(ip.to_bits() & mask).into(),
                    bits,
                }
            }
            IpAddr::V6(ip) => {
                let bits = bits.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                Self {
                    address: Ipv6Addr::from_bits(ip.to_bits() & mask).into(),
                    bits,
                }
            }
        }
    }

    /// Whether the address belongs to the network. An address of the other family never does.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        Self::of(address, self.bits) == *self
    }
}

/// Prints `10.0.0.0/8`, or the address without a length if the network is a single address.
impl fmt::Display for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.address.is_ipv4() { 32 } else { 128 };
        if self.bits == whole {
            write!(f, "{}", self.address)
        } else {
            write!(f, "{}/{}", self.address, self.bits)
        }
    }
}

/// Why a text is not a network.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IpNetError {
    /// The part before the slash is not an IP address.
    Address,
    /// The part after the slash is not a prefix length for such an address, which is at most this.
    Bits(u8),
    /// The address has bits beyond the prefix length, so that it is not clear what was meant; this would be the network.
    Rest(IpNet),
}

impl fmt::Display for IpNetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => write!(
                f,
                "it does not begin with an IP address; write for example 10.0.0.0/8, 192.0.2.1 or 2001:db8::/32"
            ),
            Self::Bits(most) => write!(
                f,
                "the prefix length after the slash is not a number from 0 to {most}; write for example /{most}"
            ),
            Self::Rest(prefix) => write!(
                f,
                "its address has bits beyond the prefix length; write {prefix}"
            ),
        }
    }
}

impl std::error::Error for IpNetError {}

impl FromStr for IpNet {
    type Err = IpNetError;

    fn from_str(text: &str) -> Result<Self, IpNetError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| IpNetError::Address)?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let bits = match length {
            None => whole,
            // `parse` by itself would accept "+8".
            Some(length) if length.bytes().all(|digit| digit.is_ascii_digit()) => length
                .parse()
                .ok()
                .filter(|&bits| bits <= whole)
                .ok_or(IpNetError::Bits(whole))?,
            Some(_) => return Err(IpNetError::Bits(whole)),
        };
        // IPv4-mapped addresses of peers are treated as IPv4, so IPv4-mapped networks have to be, too.
        let inner = address.to_canonical();
        let bits = match (address, inner) {
            (IpAddr::V6(_), IpAddr::V4(_)) => bits.checked_sub(96).ok_or(IpNetError::Rest(
                Self::of(Ipv6Addr::UNSPECIFIED.into(), bits),
            ))?,
            _ => bits,
        };
        let prefix = Self::of(inner, bits);
        if prefix.address == inner {
            Ok(prefix)
        } else {
            Err(IpNetError::Rest(prefix))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_print_as_they_parse() {
        for text in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "192.0.2.1",
            "2001:db8::/32",
            "::/0",
            "::1",
        ] {
            assert_eq!(text.parse::<IpNet>().unwrap().to_string(), text);
        }
        assert_eq!("::ffff:10.0.0.0/104".parse::<IpNet>(), "10.0.0.0/8".parse());
        assert_eq!("10.0.0.1/32".parse::<IpNet>(), "10.0.0.1".parse());
    }

    #[test]
    fn the_error_says_what_is_wrong_with_a_network() {
        let error = |text: &str| text.parse::<IpNet>().unwrap_err();
        assert_eq!(error("localhost/8"), IpNetError::Address);
        assert_eq!(error(""), IpNetError::Address);
        for text in ["10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/8/8"] {
            assert_eq!(error(text), IpNetError::Bits(32), "{text}");
        }
        assert_eq!(error("::/129"), IpNetError::Bits(128));
        assert!(error("10.0.0.1/8").to_string().contains("10.0.0.0/8"));
        assert!(matches!(error("::ffff:10.0.0.0/8"), IpNetError::Rest(_)));
    }

    #[test]
    fn an_address_belongs_to_its_networks_only() {
        let network: IpNet = "10.1.0.0/16".parse().unwrap();
        assert!(network.contains(ip("10.1.255.255")) && network.contains(ip("::ffff:10.1.2.3")));
        assert!(!network.contains(ip("10.2.0.0")) && !network.contains(ip("::a01:0")));
        let all: IpNet = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains(ip("255.255.255.255")) && !all.contains(ip("::1")));
        assert_eq!(
            IpNet::of(ip("10.9.8.7"), 24),
            "10.9.8.0/24".parse().unwrap()
        );
        assert_eq!(
            IpNet::of(ip("2001:db8::1"), 64),
            IpNet::of(ip("2001:db8::ffff"), 64)
        );
        assert_ne!(
            IpNet::of(ip("2001:db8::1"), 64),
            IpNet::of(ip("2001:db8:0:1::1"), 64)
        );
    }
}
