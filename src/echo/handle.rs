//! Control from other threads: a command, and a waker that ends the server's wait.

use crate::reactor::Waker;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Stops a server from another thread. A handle may outlive its server, and does nothing then.
#[derive(Clone, Debug)]
pub struct Handle {
    control: Control,
    waker: Waker,
}

impl Handle {
    pub(super) fn new(control: Control, waker: Waker) -> Self {
        Self { control, waker }
    }

    /// Begins a graceful shutdown, as [`Server::drain`](super::Server::drain).
    pub fn drain(&self) {
        self.command(Command::Drain);
    }

    /// Stops the server at once, as [`Server::stop`](super::Server::stop).
    pub fn stop(&self) {
        self.command(Command::Stop);
    }

    fn command(&self, command: Command) {
        self.control.request(command);
        if let Err(error) = self.waker.wake() {
            log::error!("cannot wake the server: {error}");
        }
    }
}

/// The pending command of other threads. A stop replaces a drain, and a drain does not replace a stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Control(Arc<AtomicU8>);

/// What another thread asks of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    None,
    Drain,
    Stop,
}

impl Control {
    fn request(&self, command: Command) {
        self.0.fetch_max(command as u8, Ordering::Release);
    }

    /// Whether there is a command. The loop asks this in every turn: the waker's event may be reported after those of
    /// thousands of ready sockets.
    #[inline]
    pub(super) fn is_pending(&self) -> bool {
        self.0.load(Ordering::Relaxed) != Command::None as u8
    }

    /// Takes the command, if there is one.
    pub(super) fn take(&self) -> Command {
        match self.0.swap(Command::None as u8, Ordering::Acquire) {
            0 => Command::None,
            1 => Command::Drain,
            _ => Command::Stop,
        }
    }
}

#[cfg(test)]
mod tests {

    use crate::echo::{Server, Turn};
    use crate::limits::Limits;
    use crate::net::Endpoint;
    use std::io::Write;
    use std::net::TcpStream;

    /// More sockets are ready than one epoll_wait reports, and the event of the waker comes after them.
    #[test]
    fn s2_a_command_goes_before_ready_sockets() {
        const CLIENTS: u64 = 300;
        let mut server =
            Server::bind(&["127.0.0.1:0".parse().unwrap()], Limits::default()).unwrap();
        let Endpoint::Tcp(address) = server.addresses()[0] else {
            panic!("TCP was asked for");
        };
        let connect = |_| TcpStream::connect(address).unwrap();
        let mut clients: Vec<TcpStream> = (0..CLIENTS).map(connect).collect();
        while server.stats().connections_open < CLIENTS {
            let _ = server.turn(None).unwrap();
        }
        for client in &mut clients {
            client.write_all(b"ready").unwrap();
        }
        server.handle().drain();
        assert_eq!(server.turn(None).unwrap(), Turn::Woken);
        assert_eq!(server.stats().bytes_out, 0, "they are served after that");
        assert!(
            TcpStream::connect(address).is_err(),
            "nothing more is accepted"
        );
        while server.stats().bytes_out < 5 * CLIENTS {
            let _ = server.turn(None).unwrap();
        }
    }
}
