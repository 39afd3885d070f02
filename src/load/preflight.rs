//! Whether a run fits this machine: descriptors, and the arithmetic of tuples, done before anything is opened.
//!
//! A TCP connection is named by four numbers, of which the client may vary two: its address and its port. From one
//! address to one server there are no more connections than the kernel has ports to choose from, 28,232 by
//! default; the next connect fails with EADDRNOTAVAIL, which looks like a fault of the server and is none.

use super::datagram::HEADER_BYTES;
use super::plan::{Mode, Plan};
use super::sources::Sources;
use crate::net::Endpoint;
use crate::procfs::port_range;

/// Descriptors that a worker needs beside its connections, with some room.
const DESCRIPTORS_RESERVED: u64 = 32;
/// The largest datagram that UDP can carry over IPv4 (RFC 768: 65,535 less the headers).
const DATAGRAM_MAX: usize = 65_507;

/// Checks that a plan fits, where each of `workers` processes may have `descriptors` open.
///
/// # Errors
/// The reason and the remedy, in a sentence.
pub fn check(plan: &Plan, workers: usize, descriptors: u64) -> Result<(), String> {
    check_requests(plan)?;
    let all = (plan.connections + plan.bad_clients.len()) as u64;
    let each = all.div_ceil(workers as u64) + DESCRIPTORS_RESERVED;
    if each > descriptors {
        let enough = all.div_ceil(descriptors.saturating_sub(DESCRIPTORS_RESERVED).max(1));
        return Err(format!(
            "{all} connections take {each} descriptors in each of {workers} processes, and a process may have \
             {descriptors}; use --workers {enough}, or raise the hard limit (ulimit -Hn)"
        ));
    }
    let (first, last) = port_range();
    check_tuples(plan, all, u64::from(last.saturating_sub(first)) + 1)
}

/// Checks what holds on every machine: that the requests fit the servers, and the source addresses too.
///
/// # Errors
/// The reason and the remedy, in a sentence.
pub fn check_requests(plan: &Plan) -> Result<(), String> {
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
    check_sources(plan)
}

fn check_sources(plan: &Plan) -> Result<(), String> {
    let Some(sources) = plan.sources else {
        return Ok(());
    };
    if let Some(target) = plan.targets.iter().find(|target| !sources.fits(target)) {
        return Err(format!(
            "--source is of another family than {target}; name addresses of the same family"
        ));
    }
    let over_ip = |target: &Endpoint| matches!(target, Endpoint::Tcp(_) | Endpoint::Udp(_));
    match plan.targets.iter().any(over_ip) {
        true => Ok(()),
        false => Err("--source has no effect on Unix sockets; leave it out".into()),
    }
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
    use std::time::Duration;

    pub(in crate::load) fn plan(target: Endpoint) -> Plan {
        Plan {
            warm_up: Duration::ZERO,
            duration: Duration::from_millis(200),
            ..Plan::closed_loop(vec![target], 10)
        }
    }

    fn tcp() -> Plan {
        plan(Endpoint::Tcp("127.0.0.1:7".parse().unwrap()))
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
