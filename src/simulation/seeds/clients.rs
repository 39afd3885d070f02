//! What the clients of a simulation do.

use super::super::network::{Kernel, Kind, Network, OnNetwork, Wire};
use super::Simulation;
use super::client::{Behavior, Client, pattern};
use crate::reactor::Interest;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

impl<B: OnNetwork> Simulation<B> {
    pub(super) fn connect(&mut self) {
        if self.draining || self.detached.is_some() || self.clients.len() >= 24 {
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
            _ => Behavior::Resets,
        };
        self.clients.push(Client {
            index: client,
            listener,
            socket: None,
            to_send: self.random.below(2_000),
            sent: 0,
            received: 0,
            behavior,
            is_reset: false,
            is_closed: false,
        });
        self.log(|| format!("client {client} connects, {behavior:?}"));
    }

    pub(super) fn client_acts(&mut self, client: usize) {
        let decision = self.random.below(10);
        let amount = 1 + self.random.below(300);
        match (self.clients[client].behavior, decision) {
            (Behavior::Resets, 0) => self.client_resets(client),
            (Behavior::Eager, 0) if self.clients[client].sent == self.clients[client].to_send => {
                self.client_sends_fin(client);
            }
            (_, 0..5) => self.client_sends(client, amount),
            (Behavior::Eager | Behavior::Resets, _) => self.client_reads(client, usize::MAX),
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
            let is_sent = !bytes.is_empty() && !wire.client_sent_fin;
            if is_sent && wire.to_server.len() < 1_000 {
                wire.to_server.extend(&bytes);
                let last = wire.last_sent_at.replace(now);
                if last != Some(now) {
                    wire.silence = last.map_or(Duration::ZERO, |last| now - last);
                }
                return bytes.len();
            }
            0
        });
        if let Some(count) = sent.filter(|&count| count > 0) {
            client.sent += count;
            raise_edge(&self.network, client);
            self.log(|| format!("client {index} sends {count} bytes"));
        }
    }

    pub(super) fn client_reads(&mut self, index: usize, amount: usize) {
        let now = self.network.kernel().now;
        let client = &mut self.clients[index];
        let bytes = with_wire(&self.network, client, |wire| {
            let count = amount.min(wire.to_client.len());
            if count > 0 {
                wire.last_read_at = Some(now);
            }
            wire.to_client.drain(..count).collect::<Vec<u8>>()
        });
        let bytes = bytes.unwrap_or_default();
        for &byte in &bytes {
            client.receives(index, byte);
        }
        if let Some(socket) = client.socket.filter(|_| !client.is_closed) {
            self.network.kernel().consumed(socket);
        }
        if !bytes.is_empty() {
            self.log(|| format!("client {index} reads {} bytes", bytes.len()));
        }
    }

    pub(super) fn client_sends_fin(&mut self, index: usize) {
        let client = &mut self.clients[index];
        // Once only: a second FIN would raise a second edge, and hide that the first one was lost.
        let is_first = with_wire(&self.network, client, |wire| {
            !std::mem::replace(&mut wire.client_sent_fin, true)
        });
        if is_first == Some(true) {
            raise_edge(&self.network, client);
        }
        self.log(|| format!("client {index} sends FIN"));
    }

    fn client_resets(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.is_reset = true;
        with_wire(&self.network, client, |wire| {
            wire.broken = Some(ErrorKind::ConnectionReset);
        });
        if let Some(socket) = client.socket.filter(|_| !client.is_closed) {
            self.network
                .kernel()
                .break_connection(socket, ErrorKind::ConnectionReset);
        }
        self.log(|| format!("client {index} resets the connection"));
    }
}

/// Runs `act` on the client's connection, accepted or still in the accept queue. Returns `None` if it is closed.
fn with_wire<T>(network: &Network, client: &Client, act: impl FnOnce(&mut Wire) -> T) -> Option<T> {
    if client.is_closed {
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

fn raise_edge(network: &Network, client: &Client) {
    if let Some(socket) = client.socket.filter(|_| !client.is_closed) {
        network.kernel().touch(socket, Interest::Read);
    }
}
