//! Who could reach the server, and whether that is meant.
//!
//! Without an address it serves this machine alone. Whoever names another one has said that others may come, and over TCP
//! that will do: a client has to finish a handshake, so its address is its own, and nobody is harmed whom it does not
//! concern. One line says that it is so. Over UDP it will not do. A source address is a mere claim there, so an echo
//! server that strangers can reach sends bytes of their choice to victims of their choice, from this machine's address,
//! and other echo servers can be set on it (CVE-1999-0103, CVE-2024-2169). What `guard` does against it bounds the harm
//! and does not end it, so that this takes a flag of its own: `--allow-public-udp`.
//!
//! What may live in this file: that decision. What may not: binding; it is made before anything is bound.

use super::args::ServeArgs;
use crate::cli::error::{CliError, CliErrorKind};
use crate::net::{Endpoint, Resolved};
use std::net::IpAddr;

/// Refuses UDP beyond loopback, unless that was asked for. Sockets that we were born with are not asked: whoever bound them
/// has decided it.
pub(super) fn check(args: &ServeArgs, addresses: &[Resolved]) -> Result<(), CliError> {
    if args.is_exposed() {
        return Ok(());
    }
    for endpoint in addresses.iter().flat_map(|address| &address.endpoints) {
        match endpoint {
            Endpoint::Udp(udp) if !is_loopback(udp.ip()) => {
                return Err(CliError::new(
                    CliErrorKind::Usage,
                    refusal(endpoint, udp.port()),
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Tells of TCP beyond loopback, once it is bound.
pub(super) fn tell(endpoints: &[Endpoint]) {
    let is_open =
        |endpoint: &&Endpoint| matches!(endpoint, Endpoint::Tcp(tcp) if !is_loopback(tcp.ip()));
    if let Some(endpoint) = endpoints.iter().find(is_open) {
        log::warn!(
            "{endpoint} can be reached from other machines; --allow narrows who may come, --hardened what they may take, \
             and --allow-public-udp says that this is meant"
        );
    }
}

fn refusal(endpoint: &Endpoint, port: u16) -> String {
    format!(
        "{endpoint}: UDP echo beyond this machine can be turned against others, since a datagram's source may be forged; \
         use udp://127.0.0.1:{port}, or say --allow-public-udp if it is meant (best with --allow and --hardened)"
    )
}

/// Whether only this machine can speak to it. An IPv4 address in IPv6's clothes is what it is underneath.
fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_this_machine_in_any_clothes() {
        for address in ["127.0.0.1", "127.255.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(is_loopback(address.parse().unwrap()), "{address}");
        }
        for address in ["0.0.0.0", "::", "10.0.0.1", "fe80::1", "::ffff:10.0.0.1"] {
            assert!(!is_loopback(address.parse().unwrap()), "{address}");
        }
    }
}
