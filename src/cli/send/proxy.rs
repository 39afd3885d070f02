//! `--proxy`: the PROXY header that `send` begins its connection with.

use crate::net::proxy::{Header, Version};
use crate::net::{Peer, proxy};
use socket2::{SockRef, Socket};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::str::FromStr;

/// What a header declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Declared {
    /// The addresses of the socket itself.
    Own,
    /// Nothing: the sender speaks for itself, as a health check does.
    Local,
    /// This source and this destination.
    Addresses(SocketAddr, SocketAddr),
}

/// The header of `--proxy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProxyHeader {
    version: Version,
    declared: Declared,
}

impl ProxyHeader {
    /// Sends the header, as the first bytes of a connection.
    pub(super) fn send(self, mut socket: &Socket) -> io::Result<()> {
        let header = match self.declared {
            Declared::Own => proxy::of_socket(&SockRef::from(socket))?,
            Declared::Local => Header::Local,
            Declared::Addresses(source, destination) => Header::Proxied {
                source: Peer::from(source),
                destination: Peer::from(destination),
            },
        };
        socket.write_all(&header.to_bytes(self.version))
    }
}

impl FromStr for ProxyHeader {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXAMPLES: &str = "write v1, v2, 'v2,local' as a health check, or for example v2,203.0.113.7:56324,192.0.2.1:443";
        let (version, rest) = match text.split_once(',') {
            Some((version, rest)) => (version, Some(rest)),
            None => (text, None),
        };
        let version = match version {
            "v1" => Version::V1,
            "v2" => Version::V2,
            _ => return Err(format!("there is no such version; {EXAMPLES}")),
        };
        let address = |text: &str| {
            let wrong = |_| format!("its addresses are an IP address and a port each; {EXAMPLES}");
            text.parse::<SocketAddr>().map_err(wrong)
        };
        let declared = match rest.map(|rest| rest.split_once(',').ok_or(rest)) {
            None => Declared::Own,
            Some(Err("local")) => Declared::Local,
            Some(Err(_)) => return Err(format!("the destination is missing; {EXAMPLES}")),
            Some(Ok((source, destination))) => {
                let (source, destination) = (address(source)?, address(destination)?);
                if source.is_ipv4() != destination.is_ipv4() {
                    return Err("both addresses have to be of one family, IPv4 or IPv6".to_owned());
                }
                Declared::Addresses(source, destination)
            }
        };
        Ok(Self { version, declared })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_a_version_and_what_it_declares() {
        let parse = |text: &str| text.parse::<ProxyHeader>();
        let header = |version, declared| Ok(ProxyHeader { version, declared });
        assert_eq!(parse("v1"), header(Version::V1, Declared::Own));
        assert_eq!(parse("v2,local"), header(Version::V2, Declared::Local));
        let pair = |one: &str, other: &str| {
            Declared::Addresses(one.parse().unwrap(), other.parse().unwrap())
        };
        assert_eq!(
            parse("v2,203.0.113.7:1,192.0.2.1:2"),
            header(Version::V2, pair("203.0.113.7:1", "192.0.2.1:2"))
        );
        assert_eq!(
            parse("v1,[2001:db8::1]:1,[::1]:2"),
            header(Version::V1, pair("[2001:db8::1]:1", "[::1]:2"))
        );
        for (wrong, words) in [
            ("", "no such version"),
            ("v3", "no such version"),
            ("V1", "no such version"),
            ("v1,", "destination is missing"),
            ("v1,1.2.3.4:5", "destination is missing"),
            ("v1,1.2.3.4,1.2.3.4:5", "and a port"),
            ("v1,1.2.3.4:5,1.2.3.4:5,", "and a port"),
            ("v1,1.2.3.4:5,[::1]:5", "one family"),
        ] {
            let problem = parse(wrong).unwrap_err();
            assert!(problem.contains(words), "{wrong}: {problem}");
        }
    }
}
