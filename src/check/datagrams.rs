//! A datagram client: it asks, waits for an answer, and asks again, since datagrams may be lost.

use super::clients::{is_own_limit, own_limit};
use super::finding::Limit;
use super::process::Server;
use super::rule::Trial;
use super::stall_timeout::StallTimeout;
use crate::net::connect::{ClientSocket, ClientSource, ConnectOptions, Trigger};
use crate::reactor::{Epoll, Interest, Key, Reactor, Registration, TimeoutClass};
use std::io::{self, ErrorKind};
use std::time::Duration;

const TICK: Duration = Duration::from_millis(5);
/// The largest datagram, and a byte more.
const BUFFER: usize = 65_537;

/// One connected datagram socket: it receives answers from the asked address alone.
#[derive(Debug)]
pub(super) struct DatagramClient<'a> {
    reactor: Reactor<ClientSource<()>>,
    key: Key,
    buffer: Vec<u8>,
    stall_timeout: StallTimeout,
    trial: &'a Trial<'a>,
}

impl<'a> DatagramClient<'a> {
    pub(super) fn new(server: &Server, trial: &'a Trial<'a>) -> Result<Self, Limit> {
        let connected = ClientSocket::connect(server.endpoint(), &ConnectOptions::default());
        let socket = connected.map_err(|error| match is_own_limit(&error) {
            true => own_limit(&error),
            false => Limit(format!("no socket can be connected to the server: {error}")),
        })?;
        let mut reactor = Reactor::new(Epoll::new().map_err(|error| own_limit(&error))?);
        let source = ClientSource {
            socket,
            state: (),
            trigger: Trigger::Level,
        };
        let registration = Registration {
            interest: Interest::Read,
            class: TimeoutClass::NEVER,
        };
        let added = reactor.add(source, registration);
        Ok(Self {
            key: added.map_err(|(_, error)| own_limit(&error))?,
            reactor,
            buffer: vec![0; BUFFER],
            stall_timeout: StallTimeout::new(trial.stall_timeout(), server.process_id()),
            trial,
        })
    }

    /// Sends one datagram. An error that is left from an earlier one (ICMP, udp(7)) is not this one's.
    pub(super) fn send(&mut self, datagram: &[u8]) -> Result<(), Limit> {
        for _ in 0..3 {
            let sent = self.with_socket(|socket, _| match socket {
                ClientSocket::Datagrams(socket) => socket.send(datagram).map(|_| ()),
                ClientSocket::Stream(_) => Ok(()),
            });
            match sent {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.turn()?,
                Err(error) => return Err(own_limit(&error)),
                Ok(()) => return Ok(()),
            }
        }
        Ok(())
    }

    /// The next datagram that is there already.
    fn take(&mut self) -> Option<Vec<u8>> {
        self.with_socket(|socket, buffer| match socket {
            ClientSocket::Datagrams(socket) => socket
                .receive(buffer)
                .map(|length| buffer[..length].to_vec()),
            ClientSocket::Stream(_) => Err(ErrorKind::WouldBlock.into()),
        })
        .ok()
    }

    fn with_socket<T>(
        &mut self,
        use_it: impl FnOnce(&ClientSocket, &mut [u8]) -> io::Result<T>,
    ) -> io::Result<T> {
        match self.reactor.get_mut(self.key) {
            Some(source) => use_it(&source.socket, &mut self.buffer),
            None => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// Waits for one datagram for as long as the server's time lasts.
    pub(super) fn receive(&mut self) -> Result<Option<Vec<u8>>, Limit> {
        self.stall_timeout.restart();
        loop {
            if let Some(datagram) = self.take() {
                return Ok(Some(datagram));
            }
            if self.stall_timeout.has_expired() {
                return Ok(None);
            }
            if self.stall_timeout.must_give_up() {
                return Err(Limit(
                    "the machine was so busy that the server hardly ran".to_owned(),
                ));
            }
            self.turn()?;
        }
    }

    /// Sends a datagram up to three times, until something comes back.
    pub(super) fn ask(&mut self, datagram: &[u8]) -> Result<Option<Vec<u8>>, Limit> {
        for _ in 0..3 {
            self.send(datagram)?;
            if let Some(answer) = self.receive()? {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    fn turn(&mut self) -> Result<(), Limit> {
        if self.trial.is_stopped() {
            return Err(Limit("interrupted".to_owned()));
        }
        let waited = self.reactor.wait(Some(TICK));
        waited.map_err(|error| own_limit(&error))?;
        while self.reactor.next_event().is_some() {}
        self.stall_timeout.sample();
        Ok(())
    }
}
