//! Sockets of the server in the simulated operating system: the result of each call.

use super::{Call, Kernel, Kind, Network, Queue, Socket, one_of};
use crate::echo::Backend;
use crate::net::{Accepted, DATAGRAM_BYTES_MAX, Datagrams, Listener, Peer, Sender, Stream};
use crate::reactor::{Interest, Source, Token};
#[cfg(feature = "trace")]
use crate::trace::Traced;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

/// Descriptor of a socket of the server; dropping it closes it.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(super) network: Network,
    pub(crate) number: usize,
}

/// Sockets that a server begins with.
impl Network {
    fn socket(&self, kind: Kind) -> Handle {
        Handle {
            number: self.kernel().add(kind),
            network: self.clone(),
        }
    }

    pub(crate) fn listener(&self) -> Handle {
        self.socket(Kind::Listener {
            queue: VecDeque::new(),
        })
    }

    pub(crate) fn datagrams(&self) -> Handle {
        self.socket(Kind::Datagrams {
            inbox: VecDeque::new(),
            answers: Vec::new(),
            error: None,
        })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut kernel = self.network.kernel();
        if kernel.sockets[&self.number].is_shared {
            return;
        }
        let socket = kernel.sockets.remove(&self.number).expect("closed once");
        if let Some((token, _)) = socket.registered {
            kernel.stale_tokens.push(token);
        }
        if let Kind::Listener { queue } = &socket.kind {
            kernel.resets_in_queue += queue.len();
        }
        drop(kernel);
        let mut closed_wires = self.network.closed_wires.borrow_mut();
        match socket.kind {
            Kind::Stream(wire) => closed_wires.push(*wire),
            Kind::Listener { queue } => {
                for mut wire in queue {
                    wire.broken = Some(ErrorKind::ConnectionReset);
                    closed_wires.push(wire);
                }
            }
            Kind::Datagrams { .. } => {}
        }
    }
}

impl Source<Network> for Handle {
    fn register(&mut self, network: &Network, token: Token, interest: Interest) -> io::Result<()> {
        let mut kernel = network.kernel();
        kernel.inject_fault(Call::Register, self.number)?;
        kernel.maybe_fail_to_register(self.number)?;
        kernel.watch(self.number, token, interest);
        Ok(())
    }

    fn reregister(
        &mut self,
        network: &Network,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        let mut kernel = network.kernel();
        kernel.inject_fault(Call::Reregister, self.number)?;
        kernel.maybe_fail_to_register(self.number)?;
        kernel.watch(self.number, token, interest);
        Ok(())
    }

    fn deregister(&mut self, network: &Network) -> io::Result<()> {
        let mut kernel = network.kernel();
        kernel.inject_fault(Call::Deregister, self.number)?;
        let socket = kernel
            .sockets
            .get_mut(&self.number)
            .expect("an open socket");
        if let Some((token, _)) = socket.registered.take() {
            kernel.stale_tokens.push(token);
        }
        let knob = kernel.knobs.deregister_error;
        if kernel.random.happens(knob) {
            return Err(io::Error::from_raw_os_error(libc::ENOENT)); // not in the interest list
        }
        Ok(())
    }
}

impl Read for Handle {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut kernel = self.network.kernel();
        kernel.reads += 1;
        kernel.inject_fault(Call::Read, self.number)?;
        kernel.maybe_interrupt()?;
        let Kernel {
            random,
            knobs,
            sockets,
            ..
        } = &mut *kernel;
        let Some(Socket {
            kind: Kind::Stream(wire),
            edge,
            ..
        }) = sockets.get_mut(&self.number)
        else {
            panic!("read from no stream");
        };
        if let Some(kind) = wire.broken.take() {
            return Err(kind.into());
        }
        if random.happens(knobs.broken) {
            return Err(one_of(random, &READ_ERRNOS));
        }
        if wire.to_server.is_empty() {
            return if wire.client_sent_fin {
                Ok(0)
            } else {
                Err(ErrorKind::WouldBlock.into())
            };
        }
        if random.happens(knobs.would_block_for_nothing) {
            *edge = true; // EAGAIN promises another edge
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut count = buffer.len().min(wire.to_server.len());
        if !wire.short_read_means_empty && random.happens(knobs.short_read) {
            count = 1 + random.below(count);
        }
        for (place, byte) in buffer.iter_mut().zip(wire.to_server.drain(..count)) {
            *place = byte;
        }
        Ok(count)
    }
}

impl Write for Handle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kernel = self.network.kernel();
        kernel.inject_fault(Call::Write, self.number)?;
        kernel.maybe_interrupt()?;
        let Kernel {
            random,
            knobs,
            sockets,
            ..
        } = &mut *kernel;
        let Some(Socket {
            kind: Kind::Stream(wire),
            ..
        }) = sockets.get_mut(&self.number)
        else {
            panic!("written to no stream");
        };
        assert!(!wire.server_sent_fin, "written after FIN");
        if let Some(kind) = wire.broken.take() {
            return Err(kind.into());
        }
        if random.happens(knobs.broken) {
            return Err(one_of(random, &WRITE_ERRNOS));
        }
        let room = knobs
            .window_bytes
            .saturating_sub(wire.to_client.len())
            .min(bytes.len());
        if room == 0 {
            wire.waits_for_room = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut count = room;
        if random.happens(knobs.short_write) {
            count = 1 + random.below(room);
        }
        wire.waits_for_room |= count < bytes.len();
        wire.to_client.extend(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Handle {
    fn short_read_means_empty(&self) -> bool {
        self.network
            .kernel()
            .wire(self.number)
            .short_read_means_empty
    }

    /// What the window takes, unless the kernel is short of memory then.
    fn send_room(&self) -> usize {
        let mut kernel = self.network.kernel();
        let window = kernel.knobs.window_bytes;
        window.saturating_sub(kernel.wire(self.number).to_client.len())
    }

    fn shutdown_write(&self) -> io::Result<()> {
        let mut kernel = self.network.kernel();
        kernel.inject_fault(Call::Shutdown, self.number)?;
        let knob = kernel.knobs.shutdown_error;
        if kernel.random.happens(knob) {
            return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
        }
        drop(kernel);
        self.network.kernel().wire(self.number).server_sent_fin = true;
        Ok(())
    }

    fn reset_on_close(&self) {
        self.network.kernel().wire(self.number).aborted = true;
    }

    fn peer(&self) -> Peer {
        let address = self.network.kernel().wire(self.number).address;
        address.map_or(Peer::Unnamed, Peer::Ip)
    }
}

/// Errors of recv(2) that end a connection.
const READ_ERRNOS: [i32; 6] = [
    libc::EIO,
    libc::ENOMEM,
    libc::ECONNABORTED,
    libc::ECONNRESET,
    libc::ETIMEDOUT,
    libc::EHOSTUNREACH,
];
/// Errors of send(2) that end a connection.
const WRITE_ERRNOS: [i32; 6] = [
    libc::EIO,
    libc::ENOMEM,
    libc::EPIPE,
    libc::ECONNRESET,
    libc::ENOBUFS,
    libc::ETIMEDOUT,
];
/// Errors of accept(2) other than EMFILE.
const ACCEPT_ERRNOS: [i32; 8] = [
    libc::EINTR,
    libc::EPROTO,
    libc::ENETDOWN,
    libc::ECONNABORTED,
    libc::EHOSTUNREACH,
    libc::ENOBUFS,
    libc::ENOMEM,
    libc::ENFILE,
];

impl Listener for Handle {
    type Stream = Self;

    fn accept(&mut self) -> io::Result<Accepted<Self>> {
        let mut kernel = self.network.kernel();
        kernel.inject_fault(Call::Accept, self.number)?;
        if kernel.streams() >= kernel.knobs.descriptors {
            return Err(io::Error::from_raw_os_error(libc::EMFILE)); // even if the accept queue is empty
        }
        let knob = kernel.knobs.accept_error;
        if kernel.random.happens(knob) {
            return Err(one_of(&mut kernel.random, &ACCEPT_ERRNOS));
        }
        let Kind::Listener { queue } =
            &mut kernel.sockets.get_mut(&self.number).expect("open").kind
        else {
            panic!("accept on no listener");
        };
        let wire = queue.pop_front().ok_or(ErrorKind::WouldBlock)?;
        let peer = wire.address.map_or(Peer::Unnamed, Peer::Ip);
        let number = kernel.add(Kind::Stream(Box::new(wire)));
        Ok(Accepted {
            stream: Self {
                network: self.network.clone(),
                number,
            },
            peer,
            option_errors: kernel.knobs.option_errors,
        })
    }
}

impl Datagrams for Handle {
    type ReplyPath = SocketAddr;

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let mut kernel = self.network.kernel();
        if let Some(error) = kernel.late_error(self.number).take() {
            return Err(error);
        }
        kernel.inject_fault(Call::Receive, self.number)?;
        kernel.maybe_interrupt()?;
        let Some(Socket {
            kind: Kind::Datagrams { inbox, .. },
            ..
        }) = kernel.sockets.get_mut(&self.number)
        else {
            panic!("no datagram socket");
        };
        let (datagram, source) = inbox.pop_front().ok_or(ErrorKind::WouldBlock)?;
        buffer[..datagram.len()].copy_from_slice(&datagram);
        Ok((datagram.len(), source))
    }

    /// As recvmmsg(2): an error behind the first datagram ends the call, and is that of the next one.
    fn receive_several(
        &mut self,
        buffer: &mut [u8],
        count: usize,
        received: &mut Vec<(usize, SocketAddr)>,
    ) -> io::Result<()> {
        let before = received.len();
        for part in buffer.chunks_exact_mut(DATAGRAM_BYTES_MAX).take(count) {
            match self.receive(part) {
                Ok(datagram) => received.push(datagram),
                Err(error) if received.len() == before => return Err(error),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    *self.network.kernel().late_error(self.number) = Some(error);
                    break;
                }
            }
        }
        Ok(())
    }

    fn reply(&mut self, datagram: &[u8], path: &SocketAddr) -> io::Result<()> {
        let mut kernel = self.network.kernel();
        kernel.inject_fault(Call::Answer, self.number)?;
        kernel.maybe_interrupt()?;
        let Kernel {
            random,
            knobs,
            sockets,
            ..
        } = &mut *kernel;
        if random.happens(knobs.would_block_for_nothing) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let Some(Socket {
            kind: Kind::Datagrams { answers, .. },
            ..
        }) = sockets.get_mut(&self.number)
        else {
            panic!("no datagram socket");
        };
        answers.push((datagram.to_vec(), *path));
        Ok(())
    }

    fn sender(path: &SocketAddr) -> Sender<'_> {
        Sender::Ip(path)
    }
}

/// The simulated network as a backend of the server.
#[derive(Debug)]
pub(crate) enum Simulated {}

impl Backend for Simulated {
    type Selector = Queue;
    type Stream = Handle;
    type Listener = Handle;
    type Datagrams = Handle;
}

/// A backend whose sockets are those of the network, perhaps inside other types.
pub(crate) trait OnNetwork: Backend {
    /// Makes a listener.
    fn listener(selector: &Self::Selector, socket: Handle) -> Self::Listener;

    /// Makes a datagram socket.
    fn datagrams(selector: &Self::Selector, socket: Handle) -> Self::Datagrams;
}

impl OnNetwork for Simulated {
    fn listener(_: &Queue, socket: Handle) -> Handle {
        socket
    }

    fn datagrams(_: &Queue, socket: Handle) -> Handle {
        socket
    }
}

#[cfg(feature = "trace")]
impl OnNetwork for Traced<Simulated> {
    fn listener(selector: &Self::Selector, socket: Handle) -> Self::Listener {
        selector.listener(socket)
    }

    fn datagrams(selector: &Self::Selector, socket: Handle) -> Self::Datagrams {
        selector.datagrams(socket)
    }
}
