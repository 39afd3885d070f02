//! Reachability from other machines, and whether it was asked for.
//!
//! Without an address the server listens on loopback. An address of this machine that other machines can reach is a request by
//! itself for TCP: a client completes a handshake, so its source address is its own, and only a warning is logged. For UDP
//! it is not. A source address can be forged, so a public UDP echo sends bytes of an attacker's choice to a victim of the
//! attacker's choice, and can be set in a loop with another echo server (CVE-1999-0103, CVE-2024-2169). The filter of
//! [`crate::echo`] bounds the harm and does not end it, so this takes a flag of its own: `--allow-public-udp`. The decision
//! is made before anything is bound.

use super::args::ServeArgs;
use crate::cli::error::CliError;
use crate::net::{Endpoint, Resolved};
use std::net::IpAddr;

/// Refuses UDP beyond loopback without `--allow-public-udp`. Inherited sockets are not checked: the parent process that bound
/// them has decided.
pub(super) fn check(args: &ServeArgs, addresses: &[Resolved]) -> Result<(), CliError> {
    if args.is_exposed() {
        return Ok(());
    }
    for endpoint in addresses.iter().flat_map(|address| &address.endpoints) {
        match endpoint {
            Endpoint::Udp(udp) if !is_loopback(udp.ip()) => {
                return Err(CliError::usage(refusal(endpoint, udp.port())));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Warns of TCP beyond loopback, once it is bound.
pub(super) fn warn(endpoints: &[Endpoint]) {
    let is_open =
        |endpoint: &&Endpoint| matches!(endpoint, Endpoint::Tcp(tcp) if !is_loopback(tcp.ip()));
    if let Some(endpoint) = endpoints.iter().find(is_open) {
        log::warn!(
            "{endpoint} can be reached from other machines; --allow restricts it to networks, --hardened bounds each client, and \
             --allow-public-udp switches this warning off"
        );
    }
}

fn refusal(endpoint: &Endpoint, port: u16) -> String {
    format!(
        "{endpoint}: a public UDP echo can be used to attack other machines, since the source of a datagram can be forged; \
         use udp://127.0.0.1:{port}, or --allow-public-udp if this is intended (best with --allow and --hardened)"
    )
}

/// Whether only this machine can reach the address. An IPv4-mapped IPv6 address is treated as IPv4.
fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_mapped_loopback_address_is_loopback() {
        for address in ["127.0.0.1", "127.255.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(is_loopback(address.parse().unwrap()), "{address}");
        }
        for address in ["0.0.0.0", "::", "10.0.0.1", "fe80::1", "::ffff:10.0.0.1"] {
            assert!(!is_loopback(address.parse().unwrap()), "{address}");
        }
    }
}
