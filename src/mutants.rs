//! Planted bugs: the classic mistakes of servers like this one, each behind a switch, to test the tests.
//!
//! A test that cannot fail proves nothing, so `scripts/mutants` makes every mistake on purpose, one at a time, and shows
//! which tests notice. It builds them once with `RUSTFLAGS="--cfg mutants"`, and runs them with `ECHO_MUTANT=name` for
//! each name in the list. The lines that go wrong say so where they stand:
//!
//! ```text
//! if budget == 0 && !planted!("no-budget") {
//! ```
//!
//! In every other build `planted!` is the word `false`, and the compiler leaves nothing of it: whoever reads the sources
//! may take it for that. Tools that mutate sources by themselves (cargo-mutants) find holes of another kind, `+` for `-`;
//! these here are mistakes that people make, and each has a name to learn.
//!
//! What may live in this file: the macro and the list. A test holds that each name has a place in the sources.

/// Whether this mistake is alive: `false`, but in builds for `scripts/mutants`.
#[cfg(not(mutants))]
macro_rules! planted {
    ($bug:literal) => {
        false
    };
}

#[cfg(mutants)]
macro_rules! planted {
    ($bug:literal) => {
        $crate::mutants::is_alive($bug)
    };
}

/// Whether `ECHO_MUTANT` names this one.
#[cfg(mutants)]
pub(crate) fn is_alive(bug: &str) -> bool {
    use std::sync::LazyLock;
    static ALIVE: LazyLock<Option<String>> = LazyLock::new(|| {
        let name = std::env::var("ECHO_MUTANT").ok()?;
        let is_listed = BUGS.iter().any(|(listed, _)| *listed == name);
        assert!(is_listed, "there is no mistake '{name}'");
        Some(name)
    });
    ALIVE.as_deref() == Some(bug)
}

/// Every mistake, and what it does. One line each: `scripts/mutants` reads them here.
#[cfg(mutants)]
#[rustfmt::skip]
const BUGS: &[(&str, &str)] = &[
    // Edges
    ("read-once", "an edge is read once, not drained"),
    ("short-read-hides-fin", "a short read ends an edge that told of FIN too"),
    ("short-read-on-unix", "a short read is believed on Unix sockets as on TCP"),
    ("spent-budget-forgotten", "who has spent the budget does not queue up again"),
    ("queued-readiness-forgotten", "who queues up again forgets that the event told of FIN"),
    ("interest-not-changed", "epoll is not told that room is wanted now, and not bytes"),
    ("interest-not-changed-back", "with the tail paid, epoll is not told that bytes are wanted again"),
    ("sleeps-over-the-queue", "the loop waits for the kernel while somebody is queued"),
    ("eintr-ends-the-loop", "a signal during epoll_wait ends the loop"),
    ("no-generation-check", "a key finds whoever lives in the slot now"),
    ("one-generation", "every value of a slot gets the same serial"),
    ("close-without-deregister", "a listener that lives on elsewhere stays in the event queue"),
    // Bytes
    ("unbounded-tail", "reading goes on while bytes are unsent"),
    ("write-offset", "after a partial write the wrong bytes are sent"),
    ("short-write-ignored", "what a write did not take is forgotten, and counted as sent"),
    ("would-block-is-an-error", "a full socket ends its connection"),
    ("eintr-is-an-error", "a signal during a read ends the connection"),
    ("close-with-a-tail-owed", "FIN closes a connection that is unsent bytes"),
    ("reset-is-eof", "a reset counts as an end in good order"),
    ("discarded-uncounted", "bytes thrown away after our FIN are not counted"),
    ("lost-tail-uncounted", "bytes unsent to a connection that ends are not counted"),
    // Fairness
    ("no-budget", "who never stops sending is read for ever"),
    ("served-twice", "who queues up and is reported as well has two turns in one"),
    ("newcomers-without-budget", "accept goes on while anybody stands in the queue"),
    // Coming
    ("accept-once", "one connection is accepted for each edge"),
    ("no-retry-after-emfile", "without descriptors, no timer looks into the queue"),
    ("close-wakes-nobody", "without descriptors, a connection that closes lets nobody in"),
    ("hope-for-an-edge", "when descriptors are free again, the listener waits to be told"),
    ("emfile-spins", "without descriptors, accept is tried again at once"),
    ("aborted-client-closes-door", "ECONNABORTED of one client closes the listener"),
    ("no-connection-limit", "nobody counts how many are inside"),
    ("unregistered-uncounted", "a connection that epoll refuses counts as live for ever"),
    ("backlog-128", "the accept queue is as short as std's"),
    ("nagle", "small echoes wait for the peer's acknowledgement"),
    // Time
    ("deadline-not-moved", "activity does not give a connection its full time again"),
    ("idle-before-heard", "the idle are judged before those are heard who spoke meanwhile"),
    ("turn-without-end", "however many have queued up, all of them take part in the next turn"),
    ("rounds-forgotten", "nobody is judged while more are ready than one wait tells of"),
    ("deadline-of-the-old-kind", "who waits to write keeps the deadline of a reader"),
    ("stalled-ends-in-order", "who takes nothing is closed by FIN, and its bytes stay in the kernel"),
    // Going
    ("orders-stand-in-line", "an order is seen when the event of its waker has come to the front"),
    ("drain-cuts", "SIGTERM cuts those who are unsent bytes"),
    ("drain-forgets-the-queue", "who stands in the accept queue when the drain begins is reset"),
    ("drain-without-end", "what is left at the end of the drain is not cut"),
    ("goodbye-without-lingering", "we close right behind our FIN, and unread input makes it a reset"),
    // Datagrams
    ("udp-zero-is-eof", "a datagram of no bytes ends the reading"),
    ("udp-once", "one datagram is answered for each edge"),
    ("udp-without-budget", "who floods us with datagrams is answered for ever"),
    ("udp-error-closes-door", "a receiver that is gone closes the datagram socket"),
    ("udp-answers-itself", "a datagram from our own port is answered"),
    ("udp-rate-uncapped", "one source draws as many answers as it likes"),
];
