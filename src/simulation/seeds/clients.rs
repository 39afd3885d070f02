//! The clients of a simulation: what they do, and what they must get.

use super::super::network::{Kernel, Kind, Network, Wire};
use super::Simulation;
use crate::reactor::Interest;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Client {
    pub(super) index: usize,
    pub(super) listener: usize,
    /// Where the server's end of its connection is: unknown until it was accepted.
    pub(super) socket: Option<usize>,
    pub(super) to_send: usize,
    pub(super) sent: usize,
    pub(super) received: usize,
    behavior: Behavior,
    /// It has broken the connection, or the world has.
    pub(super) is_broken: bool,
    pub(super) is_gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behavior {
    Eager,
    Slow,
    NeverReads,
    Breaks,
}
impl Simulation {
    pub(super) fn connect(&mut self) {
        if self.draining || self.left.is_some() || self.clients.len() >= 24 {
            return;
        }
        let listener = self.listeners[self.random.below(self.listeners.len())];
        let client = self.clients.len();
        let wire = Wire {
            client,
            short_read_means_empty: self.random.below(2) == 0,
            address: (self.random.below(4) > 0).then(|| {
                let prefix = self.random.below(3) as u8;
                SocketAddr::from(([10, 0, 0, prefix], 40_000))
            }),
            ..Wire::default()
        };
        self.network.kernel().connect(listener, wire);
        let behavior = match self.random.below(10) {
            0..5 => Behavior::Eager,
            5..7 => Behavior::Slow,
            7..9 => Behavior::NeverReads,
            _ => Behavior::Breaks,
        };
        self.clients.push(Client {
            index: client,
            listener,
            socket: None,
            to_send: self.random.below(2_000),
            sent: 0,
            received: 0,
            behavior,
            is_broken: false,
            is_gone: false,
        });
        self.tell(|| format!("client {client} connects, {behavior:?}"));
    }

    pub(super) fn client_acts(&mut self, client: usize) {
        let decision = self.random.below(10);
        let amount = 1 + self.random.below(300);
        match (self.clients[client].behavior, decision) {
            (Behavior::Breaks, 0) => self.client_breaks(client),
            (Behavior::Eager, 0) if self.clients[client].sent == self.clients[client].to_send => {
                self.client_finishes(client);
            }
            (_, 0..5) => self.client_sends(client, amount),
            (Behavior::Eager | Behavior::Breaks, _) => self.client_reads(client, usize::MAX),
            (Behavior::Slow, 9) => self.client_reads(client, 1 + amount / 30),
            _ => {}
        }
    }

    fn client_sends(&mut self, index: usize, amount: usize) {
        let now = self.network.kernel().now;
        let client = &mut self.clients[index];
        let end = client.to_send.min(client.sent + amount);
        let bytes: Vec<u8> = (client.sent..end)
            .map(|place| pattern(index, place))
            .collect();
        let sent = with_wire(&self.network, client, |wire| {
            let is_sent = !bytes.is_empty() && !wire.client_finished;
            if is_sent && wire.to_server.len() < 1_000 {
                wire.to_server.extend(&bytes);
                let last = wire.sent_at.replace(now);
                if last != Some(now) {
                    wire.silence = last.map_or(Duration::ZERO, |last| now - last);
                }
                return bytes.len();
            }
            0
        });
        if let Some(count) = sent
            && count > 0
        {
            client.sent += count;
            arrived(&self.network, client);
        }
    }

    pub(super) fn client_reads(&mut self, index: usize, amount: usize) {
        let now = self.network.kernel().now;
        let client = &mut self.clients[index];
        let bytes = with_wire(&self.network, client, |wire| {
            let count = amount.min(wire.to_client.len());
            if count > 0 {
                wire.took_at = Some(now);
            }
            wire.to_client.drain(..count).collect::<Vec<u8>>()
        });
        for byte in bytes.unwrap_or_default() {
            client.gets(index, byte);
        }
        if let Some(socket) = client.socket.filter(|_| !client.is_gone) {
            self.network.kernel().made_room(socket);
        }
    }

    pub(super) fn client_finishes(&mut self, index: usize) {
        let client = &mut self.clients[index];
        // Only once: a second FIN would be a second edge, and hide that the first one was lost.
        let is_news = with_wire(&self.network, client, |wire| {
            !std::mem::replace(&mut wire.client_finished, true)
        });
        if is_news == Some(true) {
            arrived(&self.network, client);
        }
        self.tell(|| format!("client {index} says FIN"));
    }

    fn client_breaks(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.is_broken = true;
        with_wire(&self.network, client, |wire| {
            wire.broken = Some(ErrorKind::ConnectionReset);
        });
        if let Some(socket) = client.socket.filter(|_| !client.is_gone) {
            self.network
                .kernel()
                .break_wire(socket, ErrorKind::ConnectionReset);
        }
        self.tell(|| format!("client {index} breaks"));
    }
}

impl Client {
    pub(super) fn gets(&mut self, index: usize, byte: u8) {
        assert!(
            self.received < self.sent,
            "client {index} gets more than it sent"
        );
        assert_eq!(
            byte,
            pattern(index, self.received),
            "client {index}, byte {}",
            self.received
        );
        self.received += 1;
    }
}

/// The byte that a client sends at a place: neighbours differ, and so do clients.
fn pattern(client: usize, place: usize) -> u8 {
    (place * 31 + (place >> 8) * 7 + client * 101) as u8
}

/// The client's connection, wherever it is: in the accept queue, or open. `None` if it is closed.
fn with_wire<T>(network: &Network, client: &Client, act: impl FnOnce(&mut Wire) -> T) -> Option<T> {
    if client.is_gone {
        return None;
    }
    let mut kernel = network.kernel();
    match client.socket {
        Some(socket) => Some(act(kernel.wire(socket))),
        None => queued(&mut kernel, client).map(act),
    }
}

fn queued<'a>(kernel: &'a mut Kernel, client: &Client) -> Option<&'a mut Wire> {
    match &mut kernel.sockets.get_mut(&client.listener)?.kind {
        Kind::Listener { queue } => queue.iter_mut().find(|wire| wire.client == client.index),
        _ => None,
    }
}

fn arrived(network: &Network, client: &Client) {
    if let Some(socket) = client.socket.filter(|_| !client.is_gone) {
        network.kernel().touch(socket, Interest::Read);
    }
}
