//! What each kind of event means, in the words of the guide.

use super::record::Kind;

/// Each kind with its page of the guide and its meaning, in the order of the codes.
const MEANINGS: [(Kind, &str, &str); 27] = [
    (
        Kind::Turn,
        "path",
        "epoll_wait has returned, and a turn begins: it serves the ready list, then the queued sources, and waits again. It does not sleep while a source is queued.",
    ),
    (
        Kind::Ready,
        "edges",
        "An edge: the kernel reports that the source has become ready, and does not repeat it. So the source is read until it would block, or queued.",
    ),
    (
        Kind::Woken,
        "path",
        "A signal, another thread or a watched descriptor has ended the wait. Commands go before the events of sockets.",
    ),
    (
        Kind::Stale,
        "edges",
        "A stale event: its source was closed earlier in this turn. The generation in the key differs, so the event is counted and discarded.",
    ),
    (
        Kind::Merged,
        "edges",
        "The source was served in this turn and is queued. Its event is kept for the next turn, so that no source is served twice in one.",
    ),
    (
        Kind::Requeued,
        "edges",
        "The source is still ready, and its edge is spent: no event would report it again. So it is put into the run queue of the next turn.",
    ),
    (
        Kind::TimeoutRestarted,
        "cost",
        "The source was active, and its timeout counts anew. That happens once in a sixteenth of the timeout at most, so that an echo does not pay for it.",
    ),
    (
        Kind::Expired,
        "operations",
        "The timeout of the source has passed without an event: an idle connection is closed, and a peer that takes no byte is reset.",
    ),
    (
        Kind::Alarm,
        "operations",
        "The one alarm of the loop: accepting is tried again after a shortage, or the next phase of a shutdown begins.",
    ),
    (
        Kind::Registered,
        "primer",
        "EPOLL_CTL_ADD puts the source into the interest list, edge-triggered, with the key as its token.",
    ),
    (
        Kind::Reregistered,
        "edges",
        "EPOLL_CTL_MOD changes the interest between reading and writing. The kernel then reports readiness that is present already.",
    ),
    (
        Kind::Deregistered,
        "mistakes",
        "EPOLL_CTL_DEL takes the source out of the interest list, since another process may hold a duplicate of its descriptor.",
    ),
    (
        Kind::Accepted,
        "edges",
        "accept takes a connection from the accept queue. It is called until it would block, since one edge may stand for several connections.",
    ),
    (
        Kind::Read,
        "path",
        "read fills the one read buffer of the loop. A short read has emptied the socket; 0 bytes are the peer's FIN.",
    ),
    (
        Kind::Write,
        "path",
        "write sends back what was read, at once. What the send buffer does not take goes to the write buffer, and nothing is read until it is sent: backpressure.",
    ),
    (
        Kind::Fin,
        "mistakes",
        "shutdown sends the server's FIN behind the last echo. The connection then lingers: it reads and discards until the peer's FIN.",
    ),
    (
        Kind::ResetOnClose,
        "mistakes",
        "SO_LINGER of 0: the close sends RST, and the kernel does not keep the unsent bytes of a peer that takes none.",
    ),
    (
        Kind::Received,
        "mistakes",
        "recvmsg takes one datagram. A datagram of no bytes is a datagram, not an end.",
    ),
    (
        Kind::Replied,
        "mistakes",
        "sendmsg answers one datagram from the address that it was sent to. What finds no room is dropped and counted.",
    ),
    (
        Kind::BudgetSpent,
        "edges",
        "The source has used its budget of the turn. Without a budget, one busy source would starve the rest.",
    ),
    (
        Kind::Closed,
        "mistakes",
        "Every connection is closed in one place, with one reason that is counted. The close also takes it out of the interest list.",
    ),
    (
        Kind::AcceptPaused,
        "mistakes",
        "Accepting pauses: the limit of connections is reached, or descriptors are short. A close or a timer resumes it, since no new edge will come.",
    ),
    (
        Kind::AcceptResumed,
        "mistakes",
        "The pause is over. The listeners are queued, since their edges were reported before it.",
    ),
    (
        Kind::Rests,
        "mistakes",
        "The calls on this listener or datagram socket fail again and again, so it rests for a while instead of spinning.",
    ),
    (
        Kind::Rejected,
        "operations",
        "The connection was accepted and reset at once: its network is not admitted, or there are too many connections.",
    ),
    (
        Kind::Phase,
        "operations",
        "The server stops in phases: it drains what is queued, then closes every connection by FIN, then aborts what is left.",
    ),
    (
        Kind::Dropped,
        "operations",
        "The datagram is not answered, and counted by its reason: an answer might start a loop, go to a victim, exceed a rate, or find no room.",
    ),
];

/// Returns the page of the guide that explains a kind, and what the kind means.
pub(super) fn meaning(kind: Kind) -> (&'static str, &'static str) {
    let (_, page, meaning) = MEANINGS[kind as usize - 1];
    (page, meaning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_kind_has_a_page_that_there_is_and_a_meaning_of_its_own() {
        let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide");
        let mut meanings: Vec<&str> = Vec::new();
        for (&kind, row) in Kind::ALL.iter().zip(MEANINGS) {
            assert_eq!(kind, row.0);
            let (page, meaning) = meaning(kind);
            assert!(guide.join(page).with_extension("md").exists(), "{page}");
            assert!(
                !meanings.contains(&meaning) && meaning.ends_with('.'),
                "{meaning}"
            );
            meanings.push(meaning);
        }
    }
}
