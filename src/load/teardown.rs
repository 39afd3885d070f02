//! How very many connections end: no more at once than came at once.
//!
//! A few thousand sockets may simply be dropped. A process that drops a million sends a million FINs in one go: the
//! loopback's queue overflows, what is lost is sent again and again (five million retransmissions were seen), and the
//! server reads FINs for minutes; a queue that is long enough takes the machine's memory instead. So very many connections
//! are closed as they were opened, a number of them at a time: the next FIN is sent when the server has sent its own.

use super::worker::{Client, TICK, Worker, nanoseconds};
use crate::net::Stream;
use crate::net::connect::{ClientSocket, ClientSource};
use crate::reactor::{Event, Key};
use std::io::{self, ErrorKind, Read};
use std::time::Duration;

/// Up to this number of connections are closed at the same time.
const CLOSE_AT_ONCE_MAX: usize = 10_000;
/// The longest wait for the next FIN of the server; then the remaining connections are dropped.
const END_TIMEOUT: Duration = Duration::from_secs(5);

impl Worker<'_> {
    /// Ends all connections, once all that there is to know of them is known.
    ///
    /// # Errors
    /// Those of epoll_wait(2).
    pub(super) fn close_all(&mut self) -> io::Result<()> {
        if self.plan.reset_at_end {
            return self.reset_all();
        }
        let mut members = self.connector.keys().into_iter();
        if members.len() < CLOSE_AT_ONCE_MAX {
            return Ok(()); // dropping the reactor is enough
        }
        let patience = END_TIMEOUT.min(self.plan.timeout);
        let (mut leaving, mut progress) = (0, self.context.read_clock());
        loop {
            for (_, key) in members.by_ref() {
                leaving += usize::from(self.send_fin(key));
                if leaving >= self.plan.connect_concurrency {
                    break;
                }
            }
            self.control = self.channel.control();
            if leaving == 0 || self.control.stop {
                return Ok(());
            }
            self.reactor.wait(Some(Duration::from_nanos(TICK)))?;
            let before = leaving;
            while let Some(event) = self.reactor.next_event() {
                if let Event::Ready(key, readiness) = event {
                    if self.reactor.begin_event(key, readiness).is_some() && self.has_closed(key) {
                        self.reactor.close(key);
                        leaving -= 1;
                    }
                }
            }
            let now = self.context.read_clock();
            if leaving < before {
                progress = now;
            } else if now >= progress + nanoseconds(patience) {
                return Ok(());
            }
        }
    }

    /// Resets all connections, so that none of their ports rests. Not all at once, either: a reset that gets lost is not
    /// sent again.
    fn reset_all(&mut self) -> io::Result<()> {
        for (count, (_, key)) in self.connector.keys().into_iter().enumerate() {
            let socket = self.reactor.close(key).map(|outgoing| outgoing.socket);
            if let Some(ClientSocket::Stream(stream)) = &socket {
                stream.reset_on_close();
            }
            if count % self.plan.connect_concurrency == self.plan.connect_concurrency - 1 {
                self.reactor.wait(Some(Duration::from_millis(1)))?;
                while self.reactor.next_event().is_some() {}
            }
        }
        Ok(())
    }

    /// Sends FIN. Whether the server's FIN is to be awaited.
    fn send_fin(&mut self, key: Key) -> bool {
        match self.reactor.get_mut(key) {
            Some(ClientSource {
                socket: ClientSocket::Stream(stream),
                state: Client::Stream(_),
                ..
            }) if stream.shutdown_write().is_ok() => true,
            _ => {
                self.reactor.close(key);
                false
            }
        }
    }

    /// Whether the server has sent FIN, or the connection is broken. Bytes before that are discarded.
    fn has_closed(&mut self, key: Key) -> bool {
        let Some(ClientSource {
            socket: ClientSocket::Stream(stream),
            ..
        }) = self.reactor.get_mut(key)
        else {
            return false;
        };
        loop {
            match stream.read(&mut self.context.read_buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
    }
}
