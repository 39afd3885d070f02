//! How very many connections end: no more at once than came at once.
//!
//! A few thousand sockets may simply be dropped. A process that drops a million sends a million FINs in one go: the
//! loopback's queue overflows, what is lost is sent again and again (five million retransmissions were seen), and the
//! server reads FINs for minutes; a queue that is long enough takes the machine's memory instead. So very many connections
//! are closed as they were opened, a number of them at a time: the next FIN is sent when the server has sent its own.

use super::connections::Connections;
use super::context::WorkerContext;
use super::message::ControlChannel;
use super::plan::Plan;
use super::schedule::{TICK, nanoseconds};
use std::io;
use std::time::Duration;

/// Up to this number of connections are closed at the same time.
const CLOSE_AT_ONCE_MAX: usize = 10_000;
/// The longest wait for the next FIN of the server; then the remaining connections are dropped.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Ends all connections, once all that there is to know of them is known.
///
/// # Errors
/// Those of epoll_wait(2).
pub(super) fn close_all(
    plan: &Plan,
    mut connections: Connections<'_>,
    context: &mut WorkerContext,
    channel: &mut dyn ControlChannel,
) -> io::Result<()> {
    if plan.reset_at_end {
        return reset_all(plan, &mut connections);
    }
    let mut keys = connections.connector().keys().into_iter();
    if keys.len() < CLOSE_AT_ONCE_MAX {
        return Ok(()); // dropping the reactor is enough
    }
    let timeout = nanoseconds(END_TIMEOUT.min(plan.timeout));
    let (mut leaving, mut progress) = (0, context.read_clock());
    loop {
        for key in keys.by_ref() {
            leaving += usize::from(connections.send_fin(key));
            if leaving >= plan.connect_concurrency {
                break;
            }
        }
        if leaving == 0 || channel.control().stop {
            return Ok(());
        }
        connections.wait(TICK)?;
        let before = leaving;
        while let Some((key, readiness)) = connections.next_ready() {
            leaving -= usize::from(connections.close_at_fin(key, readiness, context));
        }
        let now = context.read_clock();
        if leaving < before {
            progress = now;
        } else if now >= progress + timeout {
            return Ok(());
        }
    }
}

/// Resets all connections, so that none of their ports rests. Not all at once, either: a reset that gets lost is not sent
/// again.
fn reset_all(plan: &Plan, connections: &mut Connections<'_>) -> io::Result<()> {
    for (count, key) in connections.connector().keys().into_iter().enumerate() {
        connections.reset(key);
        if count % plan.connect_concurrency == plan.connect_concurrency - 1 {
            connections.wait(nanoseconds(Duration::from_millis(1)))?;
            while connections.next_ready().is_some() {}
        }
    }
    Ok(())
}
