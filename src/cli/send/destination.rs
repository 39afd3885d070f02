//! Where messages are sent to: an echo server, or a host that is pinged.

use crate::net::escape::Escaped;
use crate::net::{Address, HostPort};
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// The destination as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// An echo server, by any address that a server can have.
    Server(Address),
    /// A host, whose kernel answers: `icmp://host`.
    Host(PingHost),
}

/// A host to ping, by name or as an IP address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PingHost {
    /// The host, without the brackets of an IPv6 address.
    host: String,
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            Some((scheme, host)) if scheme.eq_ignore_ascii_case("icmp") => {
                let host = PingHost::parse(host);
                let told = |problem| format!("'{}' is not a host: {problem}", Escaped::new(text));
                host.map(Self::Host).map_err(told)
            }
            _ => {
                let address: Result<Address, _> = text.parse();
                address.map(Self::Server).map_err(|error| error.to_string())
            }
        }
    }
}

impl PingHost {
    fn parse(text: &str) -> Result<Self, &'static str> {
        const NO_PORT: &str = "ICMP has no ports; write icmp://host";
        let in_brackets = text.strip_prefix('[');
        let (host, must_be_ipv6) = match in_brackets.map(|rest| rest.split_once(']')) {
            None => (text, text.contains(':')),
            Some(Some((host, ""))) => (host, true),
            Some(Some((_, port))) if port.starts_with(':') => return Err(NO_PORT),
            Some(_) => return Err("put an IPv6 address in brackets, for example icmp://[::1]"),
        };
        let address = host.split('%').next().unwrap_or(host); // with a zone or without
        if must_be_ipv6 && address.parse::<Ipv6Addr>().is_err() {
            return Err(match in_brackets {
                Some(_) => "what is in brackets is no IPv6 address; write for example icmp://[::1]",
                None => NO_PORT,
            });
        }
        match host {
            "" => Err("it is empty; write for example icmp://127.0.0.1"),
            _ if host.contains(['/', '\0', '[', ']', '@', ' ']) => {
                Err("a name or an IP address is all; write for example icmp://127.0.0.1")
            }
            _ => Ok(Self {
                host: host.to_owned(),
            }),
        }
    }

    /// The host as an address that the resolver is asked for: the port is left out of the answer.
    pub(super) fn as_address(&self) -> Address {
        Address::Udp(HostPort {
            host: self.host.clone(),
            port: 0,
        })
    }
}

impl fmt::Display for PingHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "icmp://[{}]", self.host),
            false => write!(f, "icmp://{}", self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_ip_address() {
        let shown = |text: &str| match text.parse() {
            Ok(Destination::Host(host)) => host.to_string(),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(shown("icmp://localhost"), "icmp://localhost");
        assert_eq!(shown("ICMP://127.0.0.1"), "icmp://127.0.0.1");
        assert_eq!(shown("icmp://[::1]"), "icmp://[::1]");
        assert_eq!(shown("icmp://::1"), "icmp://[::1]");
        assert_eq!(shown("icmp://[fe80::1%eth0]"), "icmp://[fe80::1%eth0]");
        let server = "udp://127.0.0.1:7".parse();
        assert!(matches!(server, Ok(Destination::Server(Address::Udp(_)))));
    }

    #[test]
    fn what_is_no_host_is_told() {
        for (text, words) in [
            ("icmp://", "it is empty"),
            ("icmp://localhost:7", "no ports"),
            ("icmp://127.0.0.1:7", "no ports"),
            ("icmp://[::1]:7", "no ports"),
            ("icmp://[::1", "in brackets"),
            ("icmp://[::1]x", "in brackets"),
            ("icmp://[localhost]", "no IPv6 address"),
            ("icmp:///run/echo", "a name or an IP address"),
            ("icmp://a b", "a name or an IP address"),
            ("sctp://localhost:7", "there is no 'sctp://'"),
        ] {
            let problem = text.parse::<Destination>().unwrap_err();
            assert!(problem.contains(words), "{text}: {problem}");
            assert!(
                problem.starts_with(&format!("'{text}' is not ")),
                "{problem}"
            );
        }
    }
}
