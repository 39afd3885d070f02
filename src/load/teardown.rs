//! How very many connections end: no more at once than came at once.
//!
//! A few thousand sockets may simply be dropped. A process that drops a million sends a million FINs in one go: the
//! loopback's queue overflows, what is lost is sent again and again (five million retransmissions were seen), and the
//! server learns for minutes that somebody has left; a queue that is long enough takes the machine's memory instead. So a
//! crowd leaves as it came: each says FIN, and the next one goes when the server has said its own.

use super::worker::{Client, TICK, Worker, nanoseconds};
use crate::net::Stream;
use crate::net::connect::{ClientSocket, ClientSource};
use crate::reactor::{Event, Key};
use std::io::{self, ErrorKind, Read};
use std::time::Duration;

/// Fewer than this may leave in one go.
const CROWD: usize = 10_000;
/// The longest wait for anybody of those who are leaving; then the rest is dropped as it is.
const PATIENCE: Duration = Duration::from_secs(5);

impl Worker<'_> {
    /// Ends all connections, once all that there is to know of them is known.
    ///
    /// # Errors
    /// Those of epoll_wait(2).
    pub(super) fn disperse(&mut self) -> io::Result<()> {
        if self.plan.reset_at_end {
            return self.reset_all();
        }
        let mut members = self.opening.members().into_iter();
        if members.len() < CROWD {
            return Ok(()); // dropping the reactor is enough
        }
        let patience = PATIENCE.min(self.plan.timeout);
        let (mut leaving, mut progress) = (0, self.context.read_clock());
        loop {
            for (_, key) in members.by_ref() {
                leaving += usize::from(self.says_goodbye(key));
                if leaving >= self.plan.opening {
                    break;
                }
            }
            self.control = self.line.control();
            if leaving == 0 || self.control.stop {
                return Ok(());
            }
            self.reactor.wait(Some(Duration::from_nanos(TICK)))?;
            let before = leaving;
            while let Some(event) = self.reactor.next_event() {
                if let Event::Ready(key, readiness) = event {
                    if self.reactor.begin_event(key, readiness).is_some() && self.has_left(key) {
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
        for (count, (_, key)) in self.opening.members().into_iter().enumerate() {
            let socket = self.reactor.close(key).map(|outgoing| outgoing.socket);
            if let Some(ClientSocket::Stream(stream)) = &socket {
                stream.reset_on_close();
            }
            if count % self.plan.opening == self.plan.opening - 1 {
                self.reactor.wait(Some(Duration::from_millis(1)))?;
                while self.reactor.next_event().is_some() {}
            }
        }
        Ok(())
    }

    /// Says FIN. Whether there is somebody who will hear of the end.
    fn says_goodbye(&mut self, key: Key) -> bool {
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

    /// Whether the server has said FIN too, or the connection is broken. What it says before that is thrown away.
    fn has_left(&mut self, key: Key) -> bool {
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
