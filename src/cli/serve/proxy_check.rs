//! What `--proxy-protocol` cannot be combined with.

use super::args::ServeArgs;
use super::proxies::{ProxyPeers, ProxyPolicy};
use crate::cli::error::CliError;
use crate::net::BoundSocket;

/// Refuses what would serve no client, or count clients wrongly.
pub(super) fn check(args: &ServeArgs, inherited: &[BoundSocket]) -> Result<(), CliError> {
    let from = args.proxy_from();
    let refused = match args.proxy_policy() {
        None if from.is_empty() => return Ok(()),
        None => "--proxy-from needs --proxy-protocol require, or accept: without it no header is read".to_owned(),
        Some(_) if from.is_empty() => {
            "--proxy-protocol needs --proxy-from, the networks of the load balancers: any other peer could declare any \
             address as its own; write for example --proxy-from 10.0.0.0/24"
                .to_owned()
        }
        Some(_) if args.workers.is_some() && args.limits().connections_per_prefix.is_some() => {
            "--proxy-protocol with --workers and --max-per-prefix (which --hardened sets; 'off' takes it away): the \
             connections of a client go to any worker, and each would count its own; leave out one of the three"
                .to_owned()
        }
        Some(policy) => match unserved(args, inherited, policy) {
            Some(text) => text,
            None => return Ok(()),
        },
    };
    Err(CliError::usage(refused))
}

/// What is wrong with one of the addresses, if anything is.
fn unserved(args: &ServeArgs, inherited: &[BoundSocket], policy: ProxyPolicy) -> Option<String> {
    let asked = args.addresses(!inherited.is_empty()).into_iter();
    let asked = asked.map(|address| address.to_string());
    let inherited = inherited.iter().map(|socket| socket.endpoint.to_string());
    let is_unix_refused =
        policy == ProxyPolicy::Require && !args.proxy_from().contains(&ProxyPeers::Unix);
    let problem = |address: String| match address.split("://").next() {
        Some("udp" | "unixgram") => Some(format!(
            "{address}: --proxy-protocol is for connections, and datagrams have no header; serve them by another process"
        )),
        Some("unix") if is_unix_refused => Some(format!(
            "{address}: --proxy-protocol require refuses every peer here, since none is in --proxy-from; add 'unix' to it"
        )),
        _ => None,
    };
    asked.chain(inherited).find_map(problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::error::CliErrorKind;
    use crate::cli::serve::args::tests::args as serve_args;

    fn args(line: &str) -> ServeArgs {
        serve_args(&line.split_whitespace().collect::<Vec<_>>())
    }

    #[test]
    fn what_would_serve_no_client_is_refused() {
        for (line, words) in [
            ("--proxy-protocol require", "10.0.0.0/24"),
            ("--proxy-from 10.0.0.0/24", "--proxy-protocol require"),
            (
                "udp://127.0.0.1:0 --proxy-protocol accept --proxy-from 10.0.0.1",
                "by another process",
            ),
            (
                "unixgram://@x --proxy-protocol accept --proxy-from 10.0.0.1",
                "unixgram://@x",
            ),
            (
                "unix://@x --proxy-protocol require --proxy-from 10.0.0.1",
                "add 'unix'",
            ),
            (
                "--proxy-protocol require --proxy-from ::1 --workers 2 --hardened",
                "'off' takes it away",
            ),
        ] {
            let failure = check(&args(line), &[]).unwrap_err();
            assert_eq!(failure.class, CliErrorKind::Usage);
            assert!(failure.text.contains(words), "{failure}");
        }
        for line in [
            "",
            "unix://@x --proxy-protocol require --proxy-from unix",
            "unix://@x --proxy-protocol accept --proxy-from 10.0.0.1",
            "--proxy-protocol require --proxy-from ::1 --workers 2",
            "--proxy-protocol require --proxy-from ::1 --hardened",
        ] {
            assert!(check(&args(line), &[]).is_ok(), "{line}");
        }
    }
}
