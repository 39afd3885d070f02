//! Connections of proxies, which begin with a header of the PROXY protocol: it declares the client.
//!
//! ```text
//!             a proxy                            header whole, client admitted
//!   accept ──────────▶ Wait(Header), no echo ────────────────────────────────▶ Wait(Reading)
//!      │                   │ malformed, late, or the client is not admitted
//!      │ any other peer    └────────────────────────────▶ RST, with a reason
//!      └───▶ a client like any other, or rejected ([`DirectPolicy`])
//! ```
//!
//! Whether there is a header is decided by the peer's address alone, never by its bytes: the specification forbids to guess,
//! since a client that may choose could name any address as its own. A proxy has to send a header, and the header of any
//! other peer is not looked at.
//!
//! A connection counts as open from accept on, so that the limit of connections holds for headers that are not whole, too.
//! Their bytes are kept in a table beside the slots, which has an entry for these connections alone: an idle connection
//! costs its slot and nothing else, and the path of an echo has no step for any of it.

use super::admission::Admission;
use super::answers::{Answers, is_emptied};
use super::backend::{Backend, Socket};
use super::connection::{Connection, Outcome, Wait};
use super::core::Core;
use super::log_limit::LogLimit;
use super::outcome;
use super::phase::Phase;
use super::read_buffer::ReadBuffer;
use crate::net::proxy::{HEADER_BYTES_MAX, Header};
use crate::net::{IpNet, Peer, Stream, trace};
use crate::reactor::{Key, Readiness};
use crate::stats::{CloseReason, RejectReason, Stats};
use std::collections::HashMap;
use std::io;
use std::io::ErrorKind::{Interrupted, WouldBlock};
use std::ops::Range;
use std::time::Duration;

/// The PROXY protocol of a server: which peers are proxies, and what becomes of all other ones.
///
/// The connection of a proxy begins with a header of version 1 or 2, which declares the client. That address counts from then
/// on: for the access lists, for [`Limits::connections_per_prefix`](crate::Limits::connections_per_prefix), and in the log. A
/// header by which the proxy speaks for itself (`LOCAL`, as health checks do, or an unknown client) leaves it at the proxy's
/// own.
///
/// ```
/// use echo_reactor::echo::{Config, DirectPolicy, ProxyProtocol};
///
/// let mut balancers = ProxyProtocol::default();
/// balancers.from = vec!["10.0.0.0/24".parse().unwrap()];
/// balancers.direct = DirectPolicy::Serve;
/// let config = Config::default().with(|config| config.proxy = Some(balancers));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyProtocol {
    /// The networks of the proxies. They are trusted: each of them can declare any address as that of a client.
    pub from: Vec<IpNet>,
    /// Whether peers of Unix sockets are proxies (default: no).
    pub from_unix: bool,
    /// What becomes of the connections of all other peers.
    pub direct: DirectPolicy,
}

/// Treatment of connections that come from no proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DirectPolicy {
    /// They are reset at once ([`RejectReason::NotProxy`]).
    #[default]
    Reject,
    /// They are served as clients. What they send is echoed, a header too.
    Serve,
}

/// What the peer of a new connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client that speaks for itself.
    Client,
    /// A proxy, which declares the client.
    Proxy,
    /// Neither: proxies alone are served.
    Refused,
}

/// The part of the acceptor that knows proxies, and reads their headers.
#[derive(Debug)]
pub(super) struct Proxies {
    pub(super) protocol: Option<ProxyProtocol>,
    /// Connections whose header is not whole, by their slots.
    awaited: HashMap<usize, Awaited>,
    log: LogLimit,
}

impl Default for Proxies {
    fn default() -> Self {
        Self {
            protocol: None,
            awaited: HashMap::new(),
            log: LogLimit::new(Duration::from_secs(5)),
        }
    }
}

impl Proxies {
    pub(super) fn origin(&self, peer: &Peer) -> Origin {
        let Some(protocol) = &self.protocol else {
            return Origin::Client;
        };
        let is_proxy = match peer {
            Peer::Ip(address) => protocol.from.iter().any(|net| net.contains(address.ip())),
            Peer::Unix(_) | Peer::Unnamed => protocol.from_unix,
        };
        match protocol.direct {
            _ if is_proxy => Origin::Proxy,
            DirectPolicy::Serve => Origin::Client,
            DirectPolicy::Reject => Origin::Refused,
        }
    }

    /// Awaits the header of a connection that was accepted from this proxy.
    pub(super) fn add(&mut self, key: Key, peer: Peer) {
        let received = Vec::new();
        self.awaited.insert(key.slot(), Awaited { peer, received });
    }

    /// Forgets a connection, which has closed.
    pub(super) fn remove(&mut self, key: Key) {
        if !self.awaited.is_empty() {
            self.awaited.remove(&key.slot());
        }
    }

    /// Reads on at the header of a connection. Once it is whole, the client is judged and served.
    #[cold]
    pub(super) fn read_header<B: Backend>(
        &mut self,
        core: &mut Core<B>,
        admission: &mut Admission,
        answers: &mut Answers,
        phase: Phase,
        key: Key,
        readiness: Readiness,
    ) -> Outcome {
        let Some(Socket::Connection(connection)) = core.reactor.get_mut(key) else {
            return Outcome::KeepReading;
        };
        let Some(awaited) = self.awaited.get_mut(&key.slot()) else {
            return Outcome::KeepReading;
        };
        let buffer = &mut core.read_buffer;
        let read = awaited.read(&mut connection.stream, readiness, buffer, &mut core.stats);
        let (header, rest) = match read {
            Ok(Some(whole)) => whole,
            Ok(None) => return Outcome::KeepReading,
            Err(end) => {
                if end.reason == CloseReason::ProxyHeader && core.may_log(&mut self.log) {
                    log::warn!(
                        "{} is reset for its PROXY header: {}",
                        awaited.peer,
                        end.text
                    );
                } else {
                    log::debug!("{} ends in its PROXY header: {}", awaited.peer, end.text);
                }
                return Outcome::Done(end.reason);
            }
        };
        core.stats.proxy_headers += 1;
        let client = match self.admit(core, admission, key, header) {
            Ok(client) => client,
            Err(reason) => return Outcome::Done(reason),
        };
        let registration = core.registration(Wait::Reading, phase);
        if core.reactor.set_registration(key, registration).is_err() {
            return Outcome::Done(CloseReason::RegisterFailed);
        }
        let Some(Socket::Connection(connection)) = core.reactor.get_mut(key) else {
            return Outcome::KeepReading;
        };
        if answers.begin(connection) {
            let rest = &core.read_buffer[rest];
            if !rest.is_empty() {
                trace::log_received(&connection.stream, rest);
            }
            answers.add(key, client);
            answers.receive(key, rest, &mut core.stats);
            return answers.serve(core, key, readiness);
        }
        let budget = core.limits.read_budget_bytes;
        let (buffer, stats) = (&mut core.read_buffer, &mut core.stats);
        connection
            .begin(rest, readiness, buffer, budget, stats)
            .unwrap_or_else(|error| {
                log::debug!("{} ends: {error}", connection.stream.peer());
                Outcome::Done(CloseReason::from(&error))
            })
    }

    /// Judges the client of a connection as that of a new connection, counts it, and returns it.
    fn admit<B: Backend>(
        &mut self,
        core: &mut Core<B>,
        admission: &mut Admission,
        key: Key,
        header: Header,
    ) -> Result<Peer, CloseReason> {
        let proxy = match self.awaited.remove(&key.slot()) {
            Some(awaited) => awaited.peer,
            None => Peer::Unnamed,
        };
        let client = match header {
            Header::Local => proxy.clone(),
            Header::Proxied { source, .. } => source,
        };
        if let Err(why) = admission.judge_client(&client) {
            if core.may_log(&mut self.log) {
                log::warn!(
                    "{client}, through the proxy {proxy}, is reset: {}",
                    why.text()
                );
            }
            return Err(match why {
                RejectReason::Prefix => CloseReason::ProxyPrefix,
                _ => CloseReason::ProxyDenied,
            });
        }
        admission.enter(&client, key.slot());
        trace::log_declared(&client, &proxy);
        Ok(client)
    }

    /// Logs that the header of a connection is late.
    pub(super) fn log_timeout<B: Backend>(&mut self, core: &mut Core<B>, key: Key) {
        if let Some(awaited) = self.awaited.get(&key.slot()) {
            if core.may_log(&mut self.log) {
                log::warn!(
                    "{} is reset: of its PROXY header {} bytes came in {:?}",
                    awaited.peer,
                    awaited.received.len(),
                    core.limits.proxy_header_timeout
                );
            }
        }
    }
}

/// A connection whose header is not whole.
#[derive(Debug)]
struct Awaited {
    /// The proxy.
    peer: Peer,
    /// What has come of the header: less than [`HEADER_BYTES_MAX`].
    received: Vec<u8>,
}

/// The end of a connection within its header.
#[derive(Debug)]
struct End {
    reason: CloseReason,
    text: String,
}

impl Awaited {
    /// Reads until the header is whole or the socket would block. Returns the header, and which part of the read buffer has
    /// come behind it.
    fn read(
        &mut self,
        stream: &mut impl Stream,
        readiness: Readiness,
        read_buffer: &mut [u8],
        stats: &mut Stats,
    ) -> Result<Option<(Header, Range<usize>)>, End> {
        let mut nothing_yet = true;
        loop {
            let count = match stream.read(read_buffer) {
                Ok(0) => return Err(self.cut()),
                Ok(count) => count,
                Err(error) if error.kind() == WouldBlock => {
                    stats.spurious_events += u64::from(nothing_yet);
                    return Ok(None);
                }
                Err(error) if error.kind() == Interrupted => continue,
                Err(error) => {
                    let (reason, text) = (CloseReason::from(&error), error.to_string());
                    return Err(End { reason, text });
                }
            };
            nothing_yet = false;
            let before = self.received.len();
            let taken = count.min(HEADER_BYTES_MAX - before);
            self.received.extend_from_slice(&read_buffer[..taken]);
            match Header::parse(&self.received) {
                Ok(Some((header, length))) => return Ok(Some((header, length - before..count))),
                Ok(None) => {}
                Err(error) => {
                    let (reason, text) = (CloseReason::ProxyHeader, error.to_string());
                    return Err(End { reason, text });
                }
            }
            if is_emptied(stream, readiness, count, read_buffer.len()) {
                return Ok(None);
            }
        }
    }

    /// The end by a FIN before the header is whole. A connection without a byte is no mistake: some health checks do no more
    /// than connect.
    fn cut(&self) -> End {
        let reason = match self.received.is_empty() {
            true => CloseReason::PeerClosed,
            false => CloseReason::ProxyHeader,
        };
        let text = format!("it ends after {} bytes", self.received.len());
        End { reason, text }
    }
}

impl<S: Stream> Connection<S> {
    /// Lets the connection begin with a header.
    pub(super) fn await_header(&mut self) {
        self.phase = outcome::Phase::Header;
    }

    /// Begins to echo, with this part of the read buffer: what came behind the header in one read.
    fn begin(
        &mut self,
        rest: Range<usize>,
        readiness: Readiness,
        read_buffer: &mut ReadBuffer,
        budget: usize,
        stats: &mut Stats,
    ) -> io::Result<Outcome> {
        self.phase = outcome::Phase::Open;
        let count = rest.end;
        let budget = budget.saturating_sub(rest.len());
        if !rest.is_empty() && !self.write_back(&read_buffer[rest], stats)? {
            return Ok(Outcome::Wait(Wait::Writing));
        }
        if is_emptied(&self.stream, readiness, count, read_buffer.len()) {
            return Ok(Outcome::KeepReading);
        }
        match budget {
            0 => Ok(Outcome::Yield),
            _ => self.echo_all(false, false, readiness, read_buffer, budget, stats),
        }
    }
}
