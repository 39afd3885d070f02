//! Limits of a server with workers: each worker keeps its part, so that the sum is the limit.
//!
//! | limit | with N workers |
//! |---|---|
//! | `--max-connections`, `--udp-rate`, `--preallocate` | divided by N; the first workers have one more if that leaves a rest |
//! | `--max-per-prefix`, `--udp-rate-per-source` | whole, since the kernel takes all of a source to one worker ([`crate::net`], `reuse_port`) |
//! | every other limit | of one connection, one turn or one socket, and so the same |

use crate::cli::error::CliError;
use crate::limits::Limits;

/// The part that a worker has.
///
/// # Errors
/// There is less than one connection or datagram for each worker.
pub(super) fn of_worker(all: &Limits, worker: usize, workers: usize) -> Result<Limits, CliError> {
    let part = |flag: &str, all: usize| match all < workers {
        true => Err(CliError::usage(format!(
            "{flag} {all} is less than --workers {workers}, and each worker has a part of it; ask for more, or for fewer workers"
        ))),
        false => Ok(share(all, worker, workers)),
    };
    let datagrams_total = match all.datagrams_total {
        Some(all) => Some(part("--udp-rate", all as usize)? as u32),
        None => None,
    };
    Ok(Limits {
        connections_max: part("--max-connections", all.connections_max)?,
        preallocate_connections: share(all.preallocate_connections, worker, workers),
        datagrams_total,
        ..all.clone()
    })
}

fn share(all: usize, worker: usize, workers: usize) -> usize {
    all / workers + usize::from(worker < all % workers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_add_up_to_the_whole() {
        let all = Limits {
            connections_max: 11,
            preallocate_connections: 1,
            datagrams_total: Some(100),
            connections_per_prefix: Some(7),
            ..Limits::default()
        };
        let parts: Vec<Limits> = (0..3)
            .map(|worker| of_worker(&all, worker, 3).unwrap())
            .collect();
        let connections: Vec<usize> = parts.iter().map(|part| part.connections_max).collect();
        assert_eq!(connections, [4, 4, 3]);
        let preallocated: usize = parts.iter().map(|part| part.preallocate_connections).sum();
        let rate: u32 = parts.iter().filter_map(|part| part.datagrams_total).sum();
        assert_eq!((preallocated, rate), (1, 100));
        assert!(
            parts
                .iter()
                .all(|part| part.connections_per_prefix == Some(7))
        );
        let error = of_worker(&all, 0, 12).unwrap_err();
        assert!(error.text.contains("--max-connections 11"), "{error}");
        assert_eq!(error.exit().code(), 64);
    }
}
