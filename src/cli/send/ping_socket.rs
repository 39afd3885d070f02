//! A socket for ICMP echo, of one of two kinds (icmp(7), raw(7)).
//!
//! | | ping socket: `SOCK_DGRAM`, `IPPROTO_ICMP` | raw socket: `SOCK_RAW`, `IPPROTO_ICMP` |
//! |---|---|---|
//! | may be opened by | groups in `net.ipv4.ping_group_range` | processes with CAP_NET_RAW |
//! | identifier | chosen by the kernel, as a port is | ours, at random |
//! | checksum of ICMP | written and verified by the kernel | ours |
//! | receives | replies to its own requests | every ICMP message; with IPv4, behind the IP header |
//! | errors of routers | the fatal ones, as errors of the socket | all, as messages |
//!
//! The ping socket is tried first, since it can do least. `UdpSocket` has the calls for both kinds: it is a descriptor with
//! sendto(2) and recvfrom(2), which need no `unsafe` there.

use super::icmp::{self, Message, Numbers, Version};
use super::source;
use crate::random::unpredictable;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// No packet is longer.
const PACKET_BYTES_MAX: usize = 65_536;

/// An answer to a request.
pub(super) enum Answer<'a> {
    /// The payload that came back, and when.
    Reply(&'a [u8], Instant),
    /// What a router, or the host, says about the request.
    Error(IpAddr, String),
}

/// A socket that pings one address.
pub(super) struct PingSocket {
    socket: Socket,
    is_raw: bool,
    target: SocketAddr,
}

/// A socket that has its own address and identifier.
pub(super) struct BoundPingSocket {
    socket: UdpSocket,
    is_raw: bool,
    target: SocketAddr,
    version: Version,
    identifier: u16,
    buffer: Box<[u8]>,
}

impl PingSocket {
    /// Opens a ping socket, or else a raw one.
    ///
    /// # Errors
    /// Those of socket(2): `PermissionDenied` if this process has the right to neither.
    pub(super) fn open(target: SocketAddr) -> io::Result<Self> {
        let protocol = match Version::from(target.ip()) {
            Version::V4 => Protocol::ICMPV4,
            Version::V6 => Protocol::ICMPV6,
        };
        let open = |kind| Socket::new(Domain::for_address(target), kind, Some(protocol));
        let (socket, is_raw) = match open(Type::DGRAM) {
            Ok(socket) => (socket, false),
            // EACCES, or EPROTONOSUPPORT in a kernel without ping sockets.
            Err(_) => (open(Type::RAW)?, true),
        };
        Ok(Self {
            socket,
            is_raw,
            target,
        })
    }

    /// Gives the socket its own address, `own` or any, and its identifier.
    ///
    /// # Errors
    /// Those of bind(2) and connect(2).
    pub(super) fn bind(self, own: Option<SocketAddr>) -> io::Result<BoundPingSocket> {
        let unspecified = match self.target {
            SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
            SocketAddr::V6(_) => SocketAddr::from(([0u16; 8], 0)),
        };
        source::bind_ip(&self.socket, Type::DGRAM, own.unwrap_or(unspecified))?;
        let socket = UdpSocket::from(self.socket);
        let identifier = match self.is_raw {
            true => unpredictable() as u16,
            false => {
                // Only a connected ping socket is told of errors.
                socket.connect(self.target)?;
                socket.local_addr()?.port()
            }
        };
        Ok(BoundPingSocket {
            version: Version::from(self.target.ip()),
            target: self.target,
            is_raw: self.is_raw,
            socket,
            identifier,
            buffer: vec![0; PACKET_BYTES_MAX].into_boxed_slice(),
        })
    }
}

impl BoundPingSocket {
    /// Sends an echo request.
    ///
    /// # Errors
    /// Those of sendto(2).
    pub(super) fn send(&self, sequence: u16, payload: &[u8]) -> io::Result<()> {
        let numbers = self.numbers(sequence);
        let request = icmp::request(self.version, numbers, payload);
        loop {
            let sent = match self.is_raw {
                true => self.socket.send_to(&request, self.target),
                false => self.socket.send(&request),
            };
            match sent {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result.map(drop),
            }
        }
    }

    /// Waits until `deadline` for the answer to the request with this number. Messages that answer something else are
    /// ignored, and give no more time.
    ///
    /// # Errors
    /// Those of recvfrom(2); `TimedOut` at the deadline.
    pub(super) fn receive(&mut self, sequence: u16, deadline: Instant) -> io::Result<Answer<'_>> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            // The kernel counts in microseconds, and zero means no timeout (SO_RCVTIMEO of socket(7)).
            let timeout = left.max(Duration::from_micros(1));
            self.socket.set_read_timeout(Some(timeout))?;
            let (length, source) = match self.socket.recv_from(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            match self.answer(sequence, length, source.ip()) {
                None => {}
                Some(Found::Error(problem)) => return Ok(Answer::Error(source.ip(), problem)),
                // The borrow checker wants the payload to be found again on the way out.
                Some(Found::Reply(start)) => {
                    return Ok(Answer::Reply(&self.buffer[start..length], now));
                }
            }
        }
    }

    /// Whether the packet in the buffer answers the request with this number.
    fn answer(&self, sequence: u16, length: usize, source: IpAddr) -> Option<Found> {
        let packet = &self.buffer[..length];
        let message = match self.version {
            Version::V4 if self.is_raw => icmp::payload_of_ipv4(packet)?,
            _ => packet,
        };
        let ours = self.numbers(sequence);
        match icmp::parse(self.version, message)? {
            Message::Reply(numbers, payload) if numbers == ours && source == self.target.ip() => {
                Some(Found::Reply(length - payload.len()))
            }
            Message::Error(numbers, to, problem) if numbers == ours && to == self.target.ip() => {
                Some(Found::Error(problem))
            }
            _ => None,
        }
    }

    fn numbers(&self, sequence: u16) -> Numbers {
        Numbers {
            identifier: self.identifier,
            sequence,
        }
    }
}

/// What a packet is to the request that waits.
enum Found {
    /// Its reply, whose payload begins here.
    Reply(usize),
    /// An error about it.
    Error(String),
}
