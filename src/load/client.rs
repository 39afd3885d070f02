//! The state of one socket of a worker: what a stream and a datagram socket of the load have in common.

use super::context::WorkerContext;
use super::datagram::DatagramClient;
use super::faults::Fault;
use super::in_flight::{Request, Tally};
use super::stream::StreamClient;
use crate::net::StreamSocket;
use crate::net::connect::ClientSocket;
use crate::net::tcp_info::segments_resent;
use crate::reactor::Interest;

/// The state of one socket of a worker.
#[derive(Debug)]
pub(super) enum Client {
    Stream(StreamClient),
    Datagram(DatagramClient),
    /// A badly behaved client, by its index.
    Bad(u32),
}

impl Client {
    /// The state of a connection whose connecting began at `since`, and what its socket waits for.
    pub(super) fn new(
        socket: &ClientSocket,
        number: u32,
        origin: u64,
        since: u64,
    ) -> (Self, Interest) {
        match socket {
            ClientSocket::Stream(StreamSocket::Tcp(_)) => {
                let client = StreamClient::new(number, origin, since, true);
                (Self::Stream(client), Interest::Write)
            }
            ClientSocket::Stream(StreamSocket::Unix(_)) => {
                let client = StreamClient::new(number, origin, since, false);
                (Self::Stream(client), Interest::Read)
            }
            ClientSocket::Datagrams(_) => {
                let client = DatagramClient::new(number, origin, since);
                (Self::Datagram(client), Interest::Read)
            }
        }
    }

    pub(super) fn tally(&self) -> Option<&Tally> {
        match self {
            Self::Stream(client) => Some(client.tally()),
            Self::Datagram(client) => Some(client.tally()),
            Self::Bad(_) => None,
        }
    }

    pub(super) fn tally_mut(&mut self) -> Option<&mut Tally> {
        match self {
            Self::Stream(client) => Some(client.tally_mut()),
            Self::Datagram(client) => Some(client.tally_mut()),
            Self::Bad(_) => None,
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        match self {
            Self::Stream(client) => client.in_flight(),
            Self::Datagram(client) => client.in_flight(),
            Self::Bad(_) => 0,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        match self {
            Self::Stream(client) => client.is_ready(),
            Self::Datagram(client) => client.is_ready(),
            Self::Bad(_) => false,
        }
    }

    pub(super) fn is_blocked(&self) -> bool {
        match self {
            Self::Stream(client) => client.is_blocked(),
            Self::Datagram(client) => client.is_blocked(),
            Self::Bad(_) => false,
        }
    }

    /// Sends the first request, which is to prove the server, on a socket that is connected.
    pub(super) fn prove(
        &mut self,
        socket: &mut ClientSocket,
        context: &mut WorkerContext,
    ) -> Result<(), Fault> {
        match (socket, self) {
            (ClientSocket::Stream(stream), Self::Stream(client)) if !client.is_connecting() => {
                client.prove(stream, context)
            }
            (ClientSocket::Datagrams(socket), Self::Datagram(client)) => {
                client.prove(socket, context)
            }
            _ => Ok(()),
        }
    }

    /// Sends as many requests as may be under way, in one write.
    pub(super) fn start(
        &mut self,
        socket: &mut ClientSocket,
        depth: usize,
        context: &mut WorkerContext,
    ) -> Result<(), Fault> {
        let request = Request::unplanned(context.read_clock());
        let issued = (0..depth).take_while(|_| context.may_send()).count();
        match (socket, self) {
            (ClientSocket::Stream(stream), Self::Stream(client)) => {
                (0..issued).for_each(|_| client.issue(request, context));
                client.flush(stream, context)
            }
            (ClientSocket::Datagrams(socket), Self::Datagram(client)) => {
                (0..issued).for_each(|_| client.issue(request));
                client.flush(socket, context)
            }
            _ => Ok(()),
        }
    }

    /// Sends one request.
    pub(super) fn send(
        &mut self,
        socket: &mut ClientSocket,
        request: Request,
        context: &mut WorkerContext,
    ) -> Result<(), Fault> {
        match (socket, self) {
            (ClientSocket::Stream(stream), Self::Stream(client)) => {
                client.issue(request, context);
                client.flush(stream, context)
            }
            (ClientSocket::Datagrams(socket), Self::Datagram(client)) => {
                client.issue(request);
                client.flush(socket, context)
            }
            _ => Ok(()),
        }
    }

    /// Counts what the connection still waits for at the end of the run.
    pub(super) fn count_awaited(&self, is_churn: bool, context: &mut WorkerContext) {
        let (in_flight, now) = (self.in_flight() as u64, context.now());
        context.recorder().awaited_at_end(in_flight);
        match self {
            _ if in_flight > 0 => self.count_unanswered(context),
            // In a churn the connect is measured, too.
            Self::Stream(client) if is_churn && client.is_connecting() => {
                let waited = now.saturating_sub(client.waiting_since().unwrap_or(now));
                let number = client.tally().number();
                context.recorder().unanswered_on(number, 0, false, waited);
            }
            _ => {}
        }
    }

    /// Records that the requests of the connection have had no answer. Datagrams may be lost, and have counters of
    /// their own.
    pub(super) fn count_unanswered(&self, context: &mut WorkerContext) {
        let (now, size) = (context.now(), context.size());
        match self {
            Self::Stream(client) => {
                let mut longest = 0;
                for request in client.requests().iter() {
                    longest = longest.max(request.waited(now));
                    context.recorder().not_answered(*request, now);
                }
                let half = client.half_answered(size) > 0;
                let requests = client.in_flight() as u64;
                let number = client.tally().number();
                context
                    .recorder()
                    .unanswered_on(number, requests, half, longest);
            }
            Self::Datagram(client) => {
                for request in client.requests() {
                    context.recorder().not_answered(*request, now);
                }
            }
            Self::Bad(_) => {}
        }
    }
}

/// Segments that TCP has sent again on this socket.
pub(super) fn resent(socket: &ClientSocket) -> u64 {
    match socket {
        ClientSocket::Stream(StreamSocket::Tcp(stream)) => {
            segments_resent(stream).map_or(0, u64::from)
        }
        _ => 0,
    }
}
