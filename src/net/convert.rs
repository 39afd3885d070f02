//! Conversions into addresses and bound sockets, from the types of std and from text; and into bind options, from limits.
//!
//! A [`SocketAddr`] does not contain the transport. It means TCP here, as `host:port` without a scheme does;
//! [`Address::udp`] makes the other.

use super::address::{Address, AddressError, Endpoint, HostPort};
use super::bind::{BindOptions, BoundSocket};
use super::inherited::FromFdError;
use crate::limits::Limits;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};

impl Address {
    /// Makes the address `tcp://` with this IP address and port.
    #[must_use]
    pub fn tcp(address: SocketAddr) -> Self {
        Self::Tcp(address.into())
    }

    /// Makes the address `udp://` with this IP address and port.
    #[must_use]
    pub fn udp(address: SocketAddr) -> Self {
        Self::Udp(address.into())
    }
}

impl Address {
    /// Converts what a server is to be bound to: texts, addresses, endpoints.
    ///
    /// # Errors
    /// The first text that is no address.
    pub(crate) fn convert_all<A>(
        addresses: impl IntoIterator<Item = A>,
    ) -> Result<Vec<Self>, AddressError>
    where
        A: TryInto<Self>,
        A::Error: Into<AddressError>,
    {
        let convert = |address: A| address.try_into().map_err(Into::into);
        addresses.into_iter().map(convert).collect()
    }
}

/// What of the limits concerns the sockets; all else as in the default.
impl From<&Limits> for BindOptions {
    fn from(limits: &Limits) -> Self {
        Self {
            backlog: limits.backlog,
            send_buffer_bytes: limits.send_buffer_bytes,
            receive_buffer_bytes: limits.receive_buffer_bytes,
            keepalive: limits.keepalive,
            user_timeout: limits.user_timeout,
            ..Self::default()
        }
    }
}

/// TCP, as text without a scheme.
impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::tcp(address)
    }
}

/// The address that resolves to this endpoint and to no other.
impl From<Endpoint> for Address {
    fn from(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Tcp(address) => Self::tcp(address),
            Endpoint::Udp(address) => Self::udp(address),
            Endpoint::Unix(name) => Self::Unix(name),
            Endpoint::UnixDatagram(name) => Self::UnixDatagram(name),
        }
    }
}

impl From<&Self> for Address {
    fn from(address: &Self) -> Self {
        address.clone()
    }
}

/// As [`str::parse`].
impl TryFrom<&str> for Address {
    type Error = AddressError;

    fn try_from(text: &str) -> Result<Self, AddressError> {
        text.parse()
    }
}

/// As [`str::parse`].
impl TryFrom<&&str> for Address {
    type Error = AddressError;

    fn try_from(text: &&str) -> Result<Self, AddressError> {
        text.parse()
    }
}

/// As [`str::parse`].
impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

/// As [`str::parse`].
impl TryFrom<&String> for Address {
    type Error = AddressError;

    fn try_from(text: &String) -> Result<Self, AddressError> {
        text.parse()
    }
}

/// Lets one signature take addresses and texts: an address converts into itself without an error.
impl From<Infallible> for AddressError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// TCP, as text without a scheme.
impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// An IPv6 address keeps its zone, as the number of the interface.
impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        let host = match address {
            SocketAddr::V6(ipv6) if ipv6.scope_id() != 0 => {
                format!("{}%{}", ipv6.ip(), ipv6.scope_id())
            }
            _ => address.ip().to_string(),
        };
        Self {
            host,
            port: address.port(),
        }
    }
}

macro_rules! bound_socket_from {
    ($($socket:ty),*) => {$(
        /// As [`BoundSocket::from_fd`].
        impl TryFrom<$socket> for BoundSocket {
            type Error = FromFdError;

            fn try_from(socket: $socket) -> Result<Self, FromFdError> {
                Self::from_fd(socket)
            }
        }
    )*};
}

bound_socket_from!(TcpListener, UdpSocket, UnixListener, UnixDatagram);

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_ip_address_becomes_the_address_that_resolves_to_it_alone() {
        for text in ["127.0.0.1:7", "[::1]:0", "[fe80::1%1]:50007"] {
            let ip: SocketAddr = text.parse().unwrap();
            for (address, endpoint) in [
                (Address::from(ip), Endpoint::Tcp(ip)),
                (Address::udp(ip), Endpoint::Udp(ip)),
                (Endpoint::Udp(ip).into(), Endpoint::Udp(ip)),
            ] {
                assert!(!address.needs_resolver(), "{address}");
                assert_eq!(address.resolve().unwrap(), std::slice::from_ref(&endpoint));
                assert_eq!(address, endpoint.to_string().parse().unwrap());
            }
        }
    }

    #[test]
    fn sockets_of_std_become_bound_sockets() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::Tcp(tcp.local_addr().unwrap());
        assert_eq!(*BoundSocket::try_from(tcp).unwrap().endpoint(), endpoint);

        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::Udp(udp.local_addr().unwrap());
        assert_eq!(*BoundSocket::try_from(udp).unwrap().endpoint(), endpoint);

        let (unbound, _) = UnixDatagram::pair().unwrap();
        assert!(matches!(
            BoundSocket::try_from(unbound),
            Err(FromFdError::NotBound)
        ));
    }

    #[test]
    fn sockets_are_bound_with_the_limits() {
        let limits = Limits::default().with(|limits| {
            limits.backlog = 7;
            limits.send_buffer_bytes = Some(10_000);
            limits.receive_buffer_bytes = Some(20_000);
            limits.keepalive = Some(Duration::from_secs(30));
            limits.user_timeout = Some(Duration::from_secs(40));
        });
        let options = BindOptions::from(&limits);
        assert_eq!(options.backlog, 7);
        assert_eq!(options.send_buffer_bytes, Some(10_000));
        assert_eq!(options.receive_buffer_bytes, Some(20_000));
        assert_eq!(options.keepalive, Some(Duration::from_secs(30)));
        assert_eq!(options.user_timeout, Some(Duration::from_secs(40)));
    }

    #[test]
    fn addresses_of_every_form_are_converted_in_order() {
        let converted = Address::convert_all(["127.0.0.1:7", "udp://[::1]:9"]).unwrap();
        let texts: Vec<String> = converted.iter().map(Address::to_string).collect();
        assert_eq!(texts, ["tcp://127.0.0.1:7", "udp://[::1]:9"]);
        assert!(Address::convert_all(["127.0.0.1:7", "127.0.0.1"]).is_err());
    }
}
