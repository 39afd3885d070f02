//! `--proxy-protocol` and `--proxy-from`: which peers declare their clients.

use crate::echo::{DirectPolicy, ProxyProtocol};
use crate::net::{IpNet, IpNetError};
use clap::ValueEnum;
use std::fmt;
use std::str::FromStr;

/// Treatment of the peers that are not in `--proxy-from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ProxyPolicy {
    /// Any other peer is refused
    Require,
    /// Any other peer is a client by itself, and its bytes are echoed as they come
    Accept,
}

impl From<ProxyPolicy> for DirectPolicy {
    fn from(policy: ProxyPolicy) -> Self {
        match policy {
            ProxyPolicy::Require => Self::Reject,
            ProxyPolicy::Accept => Self::Serve,
        }
    }
}

/// A value of `--proxy-from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProxyPeers {
    Network(IpNet),
    /// All peers of Unix sockets: the permissions of the socket's file say which processes these are.
    Unix,
}

impl FromStr for ProxyPeers {
    type Err = IpNetError;

    fn from_str(text: &str) -> Result<Self, IpNetError> {
        match text {
            "unix" => Ok(Self::Unix),
            network => network.parse().map(Self::Network),
        }
    }
}

impl fmt::Display for ProxyPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => write!(f, "{network}"),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// The protocol as the server has it.
pub(super) fn protocol(policy: ProxyPolicy, from: &[ProxyPeers]) -> ProxyProtocol {
    let networks = from.iter().filter_map(|peers| match peers {
        ProxyPeers::Network(network) => Some(*network),
        ProxyPeers::Unix => None,
    });
    ProxyProtocol {
        from: networks.collect(),
        from_unix: from.contains(&ProxyPeers::Unix),
        direct: policy.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balancers_are_networks_and_unix() {
        let from: Vec<ProxyPeers> = ["10.0.0.0/24", "unix", "::1"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        let texts: Vec<_> = from.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.0.0.0/24", "unix", "::1"]);
        let both = protocol(ProxyPolicy::Accept, &from);
        let networks: Vec<_> = both.from.iter().map(ToString::to_string).collect();
        assert_eq!(networks, ["10.0.0.0/24", "::1"]);
        assert_eq!((both.from_unix, both.direct), (true, DirectPolicy::Serve));
        let networks = protocol(ProxyPolicy::Require, &from[..1]);
        assert!(!networks.from_unix && networks.direct == DirectPolicy::Reject);
        let error = "10.0.0.1/24".parse::<ProxyPeers>().unwrap_err();
        assert!(error.to_string().contains("write 10.0.0.0/24"), "{error}");
    }
}
