//! Several datagrams by one system call: recvmmsg(2).
//!
//! An error of a later datagram than the first ends the call early, and the kernel reports it by the next one. A call that
//! returns fewer datagrams than asked for therefore does not prove that the queue is empty.

use crate::net::traits::{BATCH_MAX, DATAGRAM_BYTES_MAX};
use nix::sys::socket::{MsgFlags, MultiHeaders, RecvMsg, SockaddrLike, recvmmsg};
use std::array;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};

/// Reads up to `count` datagrams, each into a part of `buffer` of its own, with control messages of up to `control` bytes,
/// and hands them to `take` in the order of the queue.
pub(super) fn receive<S: SockaddrLike + Copy>(
    socket: &impl AsFd,
    buffer: &mut [u8],
    count: usize,
    control: Option<Vec<u8>>,
    take: impl FnMut(RecvMsg<'_, '_, S>),
) -> io::Result<()> {
    let mut parts = buffer.chunks_exact_mut(DATAGRAM_BYTES_MAX);
    let mut parts: [_; BATCH_MAX] =
        array::from_fn(|_| [IoSliceMut::new(parts.next().unwrap_or_default())]);
    // Made for each call: the kernel writes into it how long addresses and control messages are, and nix keeps that as the
    // room that the next call has for them.
    let mut headers = MultiHeaders::preallocate(count, control);
    let descriptor = socket.as_fd().as_raw_fd();
    let received = recvmmsg(
        descriptor,
        &mut headers,
        &mut parts,
        MsgFlags::empty(),
        None,
    )?;
    received.for_each(take);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::datagram::{DatagramSocket, ReplyPath};
    use crate::net::{Datagrams, Endpoint, Peer, UnixName};
    use std::io::Read;
    use std::net::UdpSocket;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixStream};
    use std::time::Duration;

    const DEADLINE: Duration = Duration::from_secs(20);

    /// Asks for several datagrams until none are left, and answers those that may be. Returns the number of each call, and all
    /// datagrams with their senders.
    fn read_all(socket: &mut DatagramSocket) -> (Vec<usize>, Vec<(Vec<u8>, Peer)>) {
        let mut buffer = vec![0; BATCH_MAX * DATAGRAM_BYTES_MAX];
        let (mut numbers, mut datagrams) = (Vec::new(), Vec::new());
        loop {
            let mut received: Vec<(usize, ReplyPath)> = Vec::new();
            if let Err(error) = socket.receive_several(&mut buffer, BATCH_MAX, &mut received) {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                return (numbers, datagrams);
            }
            numbers.push(received.len());
            for ((length, path), part) in received.iter().zip(buffer.chunks(DATAGRAM_BYTES_MAX)) {
                if DatagramSocket::check(path).is_ok() {
                    socket.reply(&part[..*length], path).unwrap();
                }
                let sender = DatagramSocket::sender(path).into();
                datagrams.push((part[..*length].to_vec(), sender));
            }
        }
    }

    /// Loopback delivers at once: what has been sent is queued.
    #[test]
    fn udp_datagrams_come_in_order_and_whole() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(probe) = UdpSocket::bind(any) else {
                continue; // without IPv6
            };
            let address = probe.local_addr().unwrap();
            let mut socket = DatagramSocket::new(probe.into(), &Endpoint::Udp(address)).unwrap();
            let clients = [UdpSocket::bind(any).unwrap(), UdpSocket::bind(any).unwrap()];
            let mut expected = Vec::new();
            for place in 0..11 {
                let client = &clients[place % 2];
                let length = [0, 1, 9_000, 20_000][place % 4]; // in all below rmem_default
                let bytes = vec![place as u8; length];
                client.send_to(&bytes, address).unwrap();
                expected.push((bytes, Peer::Ip(client.local_addr().unwrap())));
            }
            let (numbers, datagrams) = read_all(&mut socket);
            assert_eq!(numbers, [8, 3]);
            assert!(datagrams == expected, "{any}");
            for client in &clients {
                client.set_read_timeout(Some(DEADLINE)).unwrap();
                let own = Peer::Ip(client.local_addr().unwrap());
                for (bytes, _) in expected.iter().filter(|(_, sender)| *sender == own) {
                    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
                    let (length, from) = client.recv_from(&mut buffer).unwrap();
                    assert!((&buffer[..length], from) == (&bytes[..], address));
                }
            }
        }
    }

    /// A long name behind a short one has the whole room. Descriptors have none, and are closed; who has sent them is not told
    /// then, and a socket without permission bits does not answer.
    #[test]
    fn unix_senders_keep_their_names_and_credentials() {
        use nix::sys::socket::{ControlMessage, UnixAddr as NixAddr, sendmsg};
        let name = format!("echo-reactor-batch-{}", std::process::id());
        let address = UnixAddr::from_abstract_name(&name).unwrap();
        let bound = UnixDatagram::bind_addr(&address).unwrap();
        let endpoint = Endpoint::UnixDatagram(UnixName::Abstract(name.clone()));
        let mut socket = DatagramSocket::new(bound.into(), &endpoint).unwrap();
        let to = NixAddr::new_abstract(name.as_bytes()).unwrap();
        let (mut kept, passed) = UnixStream::pair().unwrap();
        let (mut senders, mut expected) = (Vec::new(), Vec::new());
        for (length, passes) in [(1, false), (60, false), (2, true), (40, false)] {
            let own = format!("{name}{}", "x".repeat(length));
            let address = UnixAddr::from_abstract_name(&own).unwrap();
            let sender = UnixDatagram::bind_addr(&address).unwrap();
            sender.set_nonblocking(true).unwrap();
            let descriptors = [passed.as_raw_fd()];
            let rights = [ControlMessage::ScmRights(&descriptors)];
            let rights = if passes { &rights[..] } else { &[] };
            let bytes = [io::IoSlice::new(own.as_bytes())];
            let descriptor = sender.as_raw_fd();
            sendmsg(descriptor, &bytes, rights, MsgFlags::empty(), Some(&to)).unwrap();
            let peer = Peer::Unix(UnixName::Abstract(own.clone()));
            expected.push((own.into_bytes(), peer));
            senders.push((sender, !passes));
        }
        drop(passed);
        assert_eq!(read_all(&mut socket), (vec![4], expected));
        kept.set_read_timeout(Some(DEADLINE)).unwrap();
        assert_eq!(kept.read(&mut [0]).unwrap(), 0, "it is closed");
        for (sender, is_answered) in &senders {
            assert_eq!(sender.recv(&mut [0; 128]).is_ok(), *is_answered);
        }
    }
}
