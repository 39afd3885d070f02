//! The limits of file descriptors of this process, RLIMIT_NOFILE of getrlimit(2).
//!
//! rlim_t is as wide as a register or signed on some systems, and u64 everywhere else in this program.

use super::units::grouped;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The soft limit and the hard one.
pub(super) fn limits() -> nix::Result<(u64, u64)> {
    getrlimit(Resource::RLIMIT_NOFILE).map(|(soft, hard)| (widen(soft), widen(hard)))
}

/// Raises the soft limit of descriptors to the hard one, and returns the new limit. The soft limit is low by default
/// for programs that use select(2), which this one does not.
pub(super) fn raise() -> u64 {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft < hard => match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => widen(hard),
            Err(error) => {
                log::warn!(
                    "the soft limit of descriptors stays at {}: raising it to {} failed: {error}",
                    grouped(widen(soft)),
                    grouped(widen(hard))
                );
                widen(soft)
            }
        },
        Ok((soft, _)) => widen(soft),
        Err(error) => {
            log::warn!("the limit of descriptors is unknown: {error}");
            u64::MAX
        }
    }
}

/// RLIM_INFINITY is negative where the type is signed.
fn widen(limit: impl TryInto<u64>) -> u64 {
    limit.try_into().unwrap_or(u64::MAX)
}
