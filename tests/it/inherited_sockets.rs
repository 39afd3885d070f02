//! Sockets that another program has bound, with options of its own: what arrives set is set right, left, or refused.
//!
//! What may live in this file: one test for each option that would spoil the service (the table in `net/adopt.rs`).

use crate::datagrams::udp;
use crate::support::{DEADLINE, Dir, has_ipv6, turn_until, unique};
use echo_reactor::Limits;
use echo_reactor::echo::Server;
use echo_reactor::net::{BoundSocket, Endpoint, UnixName};
use echo_reactor::stats::DropReason;
use nix::sys::socket::{SetSockOpt, TimestampingFlag, setsockopt, sockopt};
use socket2::SockRef;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};

#[track_caller]
fn adopted(socket: impl Into<OwnedFd>, limits: Limits) -> Server {
    Server::with_sockets(vec![BoundSocket::from_fd(socket).unwrap()], limits).unwrap()
}

#[track_caller]
fn wildcard(address: &str) -> (UdpSocket, u16) {
    let socket = UdpSocket::bind(address).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// Where a client over IPv4 asks a socket on this port.
fn asked(port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, 5), port).into()
}

#[track_caller]
fn set<O: SetSockOpt>(socket: &UdpSocket, option: O, value: &O::Val) {
    setsockopt(socket, option, value).unwrap();
}

/// What another program has done to its socket.
type Prepare<'a> = &'a dyn Fn(&UdpSocket);

/// A socket with these options answers each of three datagrams.
#[track_caller]
fn check_udp(address: &str, prepare: Prepare<'_>) {
    let (socket, port) = wildcard(address);
    prepare(&socket);
    let mut server = adopted(socket, Limits::default());
    let client = udp("127.0.0.1:0", asked(port));
    for number in 1..=3 {
        client.send(b"Hello").unwrap();
        turn_until(&mut server, "it is read", |stats| {
            stats.datagrams_in == number
        });
        assert_eq!(client.recv(&mut [0; 16]).unwrap(), 5, "{}", server.stats());
    }
}

#[test]
fn udp_sockets_with_control_messages_of_their_own_are_served() {
    let stamps = TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE
        | TimestampingFlag::SOF_TIMESTAMPING_TX_SOFTWARE
        | TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE;
    let options: [(&str, Prepare<'_>); 6] = [
        ("SO_TIMESTAMP", &|socket| {
            set(socket, sockopt::ReceiveTimestamp, &true);
        }),
        ("SO_TIMESTAMPNS", &|socket| {
            set(socket, sockopt::ReceiveTimestampns, &true);
        }),
        ("SO_TIMESTAMPING", &|socket| {
            set(socket, sockopt::Timestamping, &stamps);
        }),
        ("IP_RECVTTL", &|socket| {
            set(socket, sockopt::Ipv4RecvTtl, &true);
        }),
        ("IP_RECVTOS", &|socket| {
            set(socket, sockopt::IpRecvTos, &true);
        }),
        ("SO_RXQ_OVFL", &|socket| set(socket, sockopt::RxqOvfl, &1)),
    ];
    for (name, prepare) in options {
        println!("{name}");
        check_udp("0.0.0.0:0", prepare);
        if has_ipv6() {
            check_udp("[::]:0", prepare);
        }
    }
    check_udp("0.0.0.0:0", &|socket| {
        for (_, prepare) in options {
            prepare(socket);
        }
    });
}

/// With IP_RECVERR an error of each answer stays until it is read, in the room that datagrams should have.
#[test]
fn a_udp_socket_whose_error_queue_is_full_is_served() {
    check_udp("0.0.0.0:0", &|socket| {
        set(socket, sockopt::Ipv4RecvErr, &true);
        set(socket, sockopt::RcvBuf, &4096);
        let dead = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = dead.local_addr().unwrap();
        drop(dead);
        for _ in 0..200 {
            // Each error is told by the next call as well.
            let _ = socket.send_to(b"to a closed port", port);
        }
    });
}

/// The kernel notes the local address of a datagram as it arrives, and only if packet info is wanted by then.
#[test]
fn what_was_queued_before_packet_info_is_answered_from_the_asked_address() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        if address.starts_with('[') && !has_ipv6() {
            continue;
        }
        let (socket, port) = wildcard(address);
        let client = udp("127.0.0.1:0", asked(port));
        client.send(b"early").unwrap();
        let mut server = adopted(socket, Limits::default());
        turn_until(&mut server, "it is answered", |stats| {
            stats.datagrams_out == 1
        });
        // Connected as it is, it hears 127.0.0.5 alone.
        assert_eq!(client.recv(&mut [0; 16]).unwrap(), 5);
    }
}

/// 127.255.255.255 is the broadcast address of the loopback network.
#[test]
fn what_is_sent_to_a_broadcast_address_is_not_answered_however_early() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        if address.starts_with('[') && !has_ipv6() {
            continue;
        }
        let (socket, port) = wildcard(address);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_broadcast(true).unwrap();
        let broadcast = (Ipv4Addr::new(127, 255, 255, 255), port);
        client.send_to(b"before", broadcast).unwrap();
        let mut server = adopted(socket, Limits::default());
        client.send_to(b"after", broadcast).unwrap();
        turn_until(&mut server, "both are read", |stats| {
            stats.datagrams_in == 2
        });
        assert_eq!(server.stats().datagrams_out, 0, "{}", server.stats());
        assert_eq!(server.stats().dropped(DropReason::Group), 1);
    }
}

#[test]
fn a_socket_bound_to_a_group_is_refused() {
    for group in ["127.255.255.255:0", "224.0.0.1:0", "255.255.255.255:0"] {
        let bound = BoundSocket::from_fd(UdpSocket::bind(group).unwrap()).unwrap();
        let refused = Server::with_sockets(vec![bound], Limits::default()).unwrap_err();
        let refused = refused.to_string();
        assert!(refused.contains("broadcast or multicast"), "{refused}");
    }
}

#[test]
fn answers_are_never_broadcast() {
    let (socket, _) = wildcard("0.0.0.0:0");
    socket.set_broadcast(true).unwrap();
    let copy = socket.try_clone().unwrap();
    let _server = adopted(socket, Limits::default());
    assert!(!copy.broadcast().unwrap());
}

/// With UDP_GRO the kernel hands several datagrams over as one.
#[test]
fn datagrams_that_came_together_are_answered_one_by_one() {
    let (socket, port) = wildcard("127.0.0.1:0");
    set(&socket, sockopt::UdpGroSegment, &true);
    let mut server = adopted(socket, Limits::default());
    let client = udp("127.0.0.1:0", (Ipv4Addr::LOCALHOST, port).into());
    set(&client, sockopt::UdpGsoSegment, &100);
    client.send(&[7; 300]).unwrap();
    turn_until(&mut server, "all are read", |stats| stats.datagrams_in == 3);
    for _ in 0..3 {
        assert_eq!(client.recv(&mut [0; 400]).unwrap(), 100);
    }
}

/// The buffers of hardened limits are a connection's. A datagram of the greatest length comes back whole.
#[test]
fn hardened_limits_answer_the_longest_datagram() {
    for address in ["udp://127.0.0.1:0", "udp://0.0.0.0:0"] {
        let mut server = crate::support::bind(&[address], Limits::hardened());
        let port = crate::support::ip(&server.addresses()[0]).port();
        let client = udp("127.0.0.1:0", (Ipv4Addr::LOCALHOST, port).into());
        for number in 1..=3 {
            let datagram = crate::support::noise(number, 65_507);
            client.send(&datagram).unwrap();
            turn_until(&mut server, "it is read", |stats| {
                stats.datagrams_in == number
            });
            let mut answer = vec![0; 65_536];
            let length = client.recv(&mut answer).unwrap();
            crate::support::assert_same(&answer[..length], &datagram);
        }
    }
}

/// With a linger time of zero, close(2) is a reset; the client would not see the end in good order.
#[test]
fn connections_of_a_listener_that_lingers_end_in_order() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    SockRef::from(&listener)
        .set_linger(Some(std::time::Duration::ZERO))
        .unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = adopted(listener, Limits::default());
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(b"to the end").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    turn_until(&mut server, "it is closed", |stats| {
        stats.closed_total() == 1
    });
    let mut echoed = Vec::new();
    client.read_to_end(&mut echoed).unwrap();
    assert_eq!(echoed, b"to the end");
}

// --- Unix datagrams ----------------------------------------------------------------------------------------------------

fn abstract_address() -> UnixAddr {
    UnixAddr::from_abstract_name(unique()).unwrap()
}

/// Sends in the name of another user, which root alone may do.
fn send_as_foreign_user(client: &UnixDatagram, to: &UnixAddr) -> nix::Result<usize> {
    use nix::sys::socket::{ControlMessage, MsgFlags, UnixCredentials, sendmsg};
    use std::os::fd::AsRawFd;
    let foreign_user = UnixCredentials::from(libc::ucred {
        pid: std::process::id() as i32,
        uid: 65_534,
        gid: 65_534,
    });
    let name = to.as_abstract_name().unwrap();
    let to = nix::sys::socket::UnixAddr::new_abstract(name)?;
    let control = [ControlMessage::ScmCredentials(&foreign_user)];
    let parts = [io::IoSlice::new(b"forged")];
    sendmsg(
        client.as_raw_fd(),
        &parts,
        &control,
        MsgFlags::empty(),
        Some(&to),
    )
}

/// The name of a sender may lead to a socket that this process may write to, and the sender may not.
#[test]
fn datagrams_of_other_users_are_counted_and_not_answered() {
    let address = abstract_address();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    setsockopt(&socket, sockopt::ReceiveTimestamp, &true).unwrap();
    let mut server = adopted(socket, Limits::default());
    let client = UnixDatagram::bind_addr(&abstract_address()).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    if send_as_foreign_user(&client, &address) == Err(nix::errno::Errno::EPERM) {
        return crate::support::skip("only root can send in the name of another user");
    }
    client.send_to_addr(b"as ourselves", &address).unwrap();
    turn_until(&mut server, "both are read", |stats| {
        stats.datagrams_in == 2
    });
    assert_eq!(server.stats().dropped(DropReason::ForeignSender), 1);
    assert_eq!(client.recv(&mut [0; 16]).unwrap(), 12, "{}", server.stats());
}

#[test]
fn abstract_names_can_be_inherited() {
    let listener = std::os::unix::net::UnixListener::bind_addr(&abstract_address()).unwrap();
    assert!(matches!(
        *BoundSocket::from_fd(listener).unwrap().endpoint(),
        Endpoint::Unix(UnixName::Abstract(_))
    ));
}

/// The kernel has noted no user for it. That the file admits no other user is proof enough.
#[test]
fn what_was_queued_at_a_private_file_is_answered() {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;
    for (mode, answered) in [(0o600, 1), (0o666, 0)] {
        let directory = Dir::new();
        let socket = UnixDatagram::bind(directory.path("s")).unwrap();
        set_permissions(directory.path("s"), Permissions::from_mode(mode)).unwrap();
        let client = UnixDatagram::bind_addr(&abstract_address()).unwrap();
        client.send_to(b"early", directory.path("s")).unwrap();
        let mut server = adopted(socket, Limits::default());
        turn_until(&mut server, "it is read", |stats| stats.datagrams_in == 1);
        assert_eq!(server.stats().datagrams_out, answered, "{mode:o}");
    }
}

/// The sender's name is a link to the server's own socket by the time of the answer.
#[test]
fn a_unix_socket_does_not_talk_to_itself() {
    let directory = Dir::new();
    let inherited = UnixDatagram::bind(directory.path("inherited")).unwrap();
    let own = crate::support::bind(&[&directory.address("unixgram", "own")], Limits::default());
    let servers = [
        ("inherited", adopted(inherited, Limits::default())),
        ("own", own),
    ];
    for (name, mut server) in servers {
        let client = UnixDatagram::bind(directory.path("me")).unwrap();
        std::fs::remove_file(directory.path("me")).unwrap();
        symlink(directory.path(name), directory.path("me")).unwrap();
        client.send_to(b"once", directory.path(name)).unwrap();
        turn_until(&mut server, "its answer is read", |stats| {
            stats.datagrams_in == 2
        });
        assert_eq!(server.stats().dropped(DropReason::OwnPort), 1);
        assert_eq!(server.stats().datagrams_out, 1);
        std::fs::remove_file(directory.path("me")).unwrap();
    }
}
