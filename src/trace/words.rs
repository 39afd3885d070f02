//! Words for a record, and for the numbers in it.

use super::record::{ERRNO_UNKNOWN, Kind, Record, SourceType};
use super::state::State;
use crate::echo::decision::{PauseReason, PhaseName};
use crate::reactor::{Interest, Readiness};
use crate::stats::{CloseReason, DropReason};

/// Tells what happened in a few words. `before` is the state before the record.
pub(super) fn phrase(record: &Record, before: &State) -> String {
    let failed = |what: &str| match record.errno {
        0 => None,
        errno => Some(format!("{what} failed: {}", errno_name(errno))),
    };
    match record.kind {
        Kind::Turn => failed("epoll_wait").unwrap_or_else(|| slept(record)),
        Kind::Ready => ready(record, before),
        Kind::Woken => "woken by a command or a signal".to_owned(),
        Kind::Stale => "stale event: closed earlier, nothing done".to_owned(),
        Kind::Merged => "queued already: the next turn includes this event".to_owned(),
        Kind::Requeued => "queued for the next turn".to_owned(),
        Kind::TimeoutRestarted => "timeout restarted".to_owned(),
        Kind::Expired => "timeout expired".to_owned(),
        Kind::Alarm => "alarm".to_owned(),
        Kind::Registered | Kind::Reregistered => {
            failed("epoll_ctl").unwrap_or_else(|| format!("wants {}", wanted(record.interest())))
        }
        Kind::Deregistered => {
            failed("epoll_ctl").unwrap_or_else(|| "out of the interest list".to_owned())
        }
        Kind::Accepted if record.would_block() => "accept would block: queue empty".to_owned(),
        Kind::Accepted => failed("accept").unwrap_or_else(|| "accepted a connection".to_owned()),
        Kind::Read if record.would_block() => "read would block".to_owned(),
        Kind::Read => failed("read").unwrap_or_else(|| match record.amount {
            0 => "read FIN".to_owned(),
            count => format!("read {}", grouped(count)),
        }),
        Kind::Write => written(record),
        Kind::Fin => failed("shutdown").unwrap_or_else(|| "sent FIN".to_owned()),
        Kind::ResetOnClose => "the close will send RST".to_owned(),
        Kind::Received if record.would_block() => "receive would block".to_owned(),
        Kind::Received => failed("receive")
            .unwrap_or_else(|| format!("received a datagram of {}", grouped(record.amount))),
        Kind::Replied => failed("reply")
            .unwrap_or_else(|| format!("replied with {}", grouped(record.asked.into()))),
        Kind::BudgetSpent => "budget of the turn spent".to_owned(),
        Kind::Closed => {
            let reason = record.close_reason();
            format!("closed: {}", reason.map_or("unknown", CloseReason::name))
        }
        Kind::AcceptPaused => format!("accepting paused: {}", pause_name(record.pause_reason())),
        Kind::AcceptResumed => "accepting resumed".to_owned(),
        Kind::Rests => "its calls fail: it rests".to_owned(),
        Kind::Rejected => {
            let reason = record.reject_reason().map_or("unknown", |why| why.name());
            format!("rejected by RST: {reason}")
        }
        Kind::Phase => format!("phase: {}", phase_name(record.phase())),
        Kind::Dropped => {
            let reason = record.drop_reason();
            format!("dropped: {}", reason.map_or("unknown", DropReason::name))
        }
    }
}

/// The function that did it. Some kinds have another one for another source, or in another state.
pub(super) fn function(record: &Record, before: &State) -> &'static str {
    let source = record.source().and_then(|id| before.sources.get(&id));
    match record.kind {
        Kind::Write if source.is_some_and(|source| source.unsent_bytes > 0) => "Connection::flush",
        Kind::Read if source.is_some_and(|source| source.has_fin) => "discard_until_fin",
        Kind::BudgetSpent => match source.and_then(|source| source.source_type) {
            Some(SourceType::Listener) => "Acceptor::accept",
            Some(SourceType::Datagrams) => "DatagramEcho::answer",
            _ => Kind::BudgetSpent.function(),
        },
        Kind::AcceptPaused if record.pause_reason() == Some(PauseReason::Limit) => {
            "Acceptor::pause_at_limit"
        }
        Kind::Dropped if record.drop_reason() == Some(DropReason::Stopping) => {
            "DatagramEcho::answer"
        }
        kind => kind.function(),
    }
}

fn slept(record: &Record) -> String {
    let wait_ns = record.amount;
    match wait_ns {
        _ if record.detail == 1 => format!("polled for {}", duration(wait_ns)),
        0..10_000 => "did not sleep".to_owned(),
        _ => format!("slept {}", duration(wait_ns)),
    }
}

fn ready(record: &Record, before: &State) -> String {
    let source = record.source().and_then(|id| before.sources.get(&id));
    let what = match source.and_then(|source| source.interest) {
        Some(Interest::Read) => "readable",
        Some(Interest::Write) => "writable",
        None => "ready",
    };
    match record.readiness() {
        Some(Readiness::Exceptional) => format!("{what} (FIN, error or urgent data)"),
        _ => what.to_owned(),
    }
}

fn written(record: &Record) -> String {
    let (count, asked) = (grouped(record.amount), grouped(record.asked.into()));
    match record.unsent_bytes() {
        None => format!("write failed: {}", errno_name(record.errno)),
        Some(0) => format!("wrote {count}"),
        Some(unsent) if record.would_block() => {
            format!("write would block, {} unsent", grouped(unsent))
        }
        Some(unsent) => format!("wrote {count} of {asked}, {} unsent", grouped(unsent)),
    }
}

fn wanted(interest: Option<Interest>) -> &'static str {
    match interest {
        Some(Interest::Read) => "READABLE",
        Some(Interest::Write) => "WRITABLE",
        None => "nothing that is known",
    }
}

fn pause_name(reason: Option<PauseReason>) -> &'static str {
    match reason {
        Some(PauseReason::Limit) => "limit of connections",
        Some(PauseReason::Shortage) => "no descriptors or memory",
        None => "unknown",
    }
}

pub(super) fn phase_name(phase: Option<PhaseName>) -> &'static str {
    phase.map_or("unknown", PhaseName::name)
}

/// The errors that calls on sockets return.
const ERRNOS: [(i32, &str); 24] = [
    (libc::EAGAIN, "EAGAIN"),
    (libc::EBADF, "EBADF"),
    (libc::ECONNABORTED, "ECONNABORTED"),
    (libc::ECONNREFUSED, "ECONNREFUSED"),
    (libc::ECONNRESET, "ECONNRESET"),
    (libc::EEXIST, "EEXIST"),
    (libc::EHOSTUNREACH, "EHOSTUNREACH"),
    (libc::EINTR, "EINTR"),
    (libc::EINVAL, "EINVAL"),
    (libc::EIO, "EIO"),
    (libc::EMFILE, "EMFILE"),
    (libc::EMSGSIZE, "EMSGSIZE"),
    (libc::ENETDOWN, "ENETDOWN"),
    (libc::ENETUNREACH, "ENETUNREACH"),
    (libc::ENFILE, "ENFILE"),
    (libc::ENOBUFS, "ENOBUFS"),
    (libc::ENOENT, "ENOENT"),
    (libc::ENOMEM, "ENOMEM"),
    (libc::ENOSPC, "ENOSPC"),
    (libc::ENOTCONN, "ENOTCONN"),
    (libc::EPERM, "EPERM"),
    (libc::EPIPE, "EPIPE"),
    (libc::EPROTO, "EPROTO"),
    (libc::ETIMEDOUT, "ETIMEDOUT"),
];

fn errno_name(errno: u16) -> String {
    let known = ERRNOS.iter().find(|(known, _)| *known == i32::from(errno));
    match known {
        Some((_, name)) => (*name).to_owned(),
        None if errno == ERRNO_UNKNOWN => "an error without errno".to_owned(),
        None => format!("errno {errno}"),
    }
}

/// A number with a comma at each thousand.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let (head, rest) = digits.split_at(first);
    let groups = rest.as_bytes().chunks(3);
    let groups = groups.map(|group| String::from_utf8_lossy(group).into_owned());
    let head = (!head.is_empty()).then(|| head.to_owned());
    head.into_iter().chain(groups).collect::<Vec<_>>().join(",")
}

/// A time in the unit in which it has one to three digits before the point: `1.2 s`, `350 ms`, `12 µs`.
pub(super) fn duration(ns: u64) -> String {
    let (unit, name) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (1e3, "µs"),
        1_000_000..1_000_000_000 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    let value = ns as f64 / unit;
    match value {
        ..10.0 => format!("{value:.1} {name}"),
        _ => format!("{} {name}", grouped(value as u64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_times_have_a_unit() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (65_536, "65,536"),
            (1_000_000, "1,000,000"),
        ] {
            assert_eq!(grouped(number), text);
        }
        for (ns, text) in [
            (0, "0 ns"),
            (1_250, "1.2 µs"),
            (350_000_000, "350 ms"),
            (1_200_000_000, "1.2 s"),
            (86_400_000_000_000, "86,400 s"),
        ] {
            assert_eq!(duration(ns), text);
        }
    }

    #[test]
    fn the_function_is_that_of_the_source_and_of_its_state() {
        let record = |kind, detail, asked| Record {
            subject: 3,
            detail,
            asked,
            ..Record::new(kind)
        };
        let mut state = State::default();
        for (before, kind, detail, name) in [
            (
                record(Kind::Registered, 0, 1),
                Kind::BudgetSpent,
                0,
                "Acceptor::accept",
            ),
            (
                record(Kind::Registered, 0, 2),
                Kind::BudgetSpent,
                0,
                "DatagramEcho::answer",
            ),
            (
                record(Kind::Registered, 0, 0),
                Kind::BudgetSpent,
                0,
                "apply",
            ),
            (
                record(Kind::Alarm, 0, 0),
                Kind::Write,
                0,
                "Connection::write_back",
            ),
            (
                record(Kind::Write, 0, 9),
                Kind::Write,
                0,
                "Connection::flush",
            ),
            (
                record(Kind::Alarm, 0, 0),
                Kind::Read,
                0,
                "Connection::echo_all",
            ),
            (record(Kind::Fin, 0, 0), Kind::Read, 0, "discard_until_fin"),
            (
                record(Kind::Alarm, 0, 0),
                Kind::AcceptPaused,
                0,
                "Acceptor::pause_at_limit",
            ),
            (
                record(Kind::Alarm, 0, 0),
                Kind::AcceptPaused,
                1,
                "Acceptor::pause_on_error",
            ),
            (
                record(Kind::Alarm, 0, 0),
                Kind::Dropped,
                DropReason::Stopping as u8,
                "DatagramEcho::answer",
            ),
        ] {
            state.apply(&before);
            assert_eq!(function(&record(kind, detail, 0), &state), name);
        }
    }

    #[test]
    fn errors_have_their_names() {
        assert_eq!(errno_name(libc::EMFILE as u16), "EMFILE");
        assert_eq!(errno_name(4_095), "errno 4095");
        assert_eq!(errno_name(ERRNO_UNKNOWN), "an error without errno");
    }
}
