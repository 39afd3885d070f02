//! Every call of the server fails once, with every errno that its manual page names, at every place.
//!
//! One short scenario runs again and again: four clients connect, send more than the send buffer takes, read, and send FIN;
//! datagrams arrive; the server drains. In each run one call fails: the first `read` with `ECONNRESET`, then the second,
//! and so on until the scenario has no such call left; then with the next errno; then the next kind of call. After each
//! run every socket is closed, every byte is accounted for, and every client that the fault did not concern is served.

use super::network::{Call, Fault, Kind, Knobs, Network, Simulated, Wire};
use crate::echo::backend::Socket;
use crate::echo::{Server, Turn};
use crate::limits::Limits;
use crate::random::Random;
use crate::reactor::Interest;
use std::time::Duration;

/// Errors of epoll_ctl(2).
const EPOLL_CTL: &[i32] = &[
    libc::ENOENT,
    libc::EBADF,
    libc::ENOMEM,
    libc::EPERM,
    libc::EEXIST,
    libc::EINVAL,
    libc::ENOSPC,
    libc::ELOOP,
];

/// The errnos of each call, by its manual page (and EINTR, which any of them may see).
const MATRIX: [(Call, &[i32]); 10] = [
    // accept(2), and EIO, which it does not name
    (
        Call::Accept,
        &[
            libc::EPERM,
            libc::EINTR,
            libc::EBADF,
            libc::EAGAIN,
            libc::ENOMEM,
            libc::EFAULT,
            libc::EINVAL,
            libc::ENFILE,
            libc::EMFILE,
            libc::ENONET,
            libc::EPROTO,
            libc::ENOTSOCK,
            libc::ENOPROTOOPT,
            libc::EOPNOTSUPP,
            libc::ENETDOWN,
            libc::ENETUNREACH,
            libc::ECONNABORTED,
            libc::ENOBUFS,
            libc::ETIMEDOUT,
            libc::EHOSTDOWN,
            libc::EHOSTUNREACH,
            libc::EIO,
        ],
    ),
    // recv(2), tcp(7)
    (
        Call::Read,
        &[
            libc::EINTR,
            libc::EIO,
            libc::EBADF,
            libc::EAGAIN,
            libc::ENOMEM,
            libc::EFAULT,
            libc::EINVAL,
            libc::ENOTSOCK,
            libc::ECONNABORTED,
            libc::ECONNRESET,
            libc::ENOTCONN,
            libc::ETIMEDOUT,
            libc::ECONNREFUSED,
            libc::EHOSTUNREACH,
        ],
    ),
    // send(2)
    (
        Call::Write,
        &[
            libc::EINTR,
            libc::EIO,
            libc::EBADF,
            libc::EAGAIN,
            libc::ENOMEM,
            libc::EACCES,
            libc::EFAULT,
            libc::EINVAL,
            libc::EPIPE,
            libc::ENOTSOCK,
            libc::EMSGSIZE,
            libc::EOPNOTSUPP,
            libc::ECONNABORTED,
            libc::ECONNRESET,
            libc::ENOBUFS,
            libc::ENOTCONN,
            libc::ETIMEDOUT,
            libc::EHOSTUNREACH,
        ],
    ),
    // shutdown(2)
    (
        Call::Shutdown,
        &[libc::EBADF, libc::EINVAL, libc::ENOTSOCK, libc::ENOTCONN],
    ),
    (Call::Register, EPOLL_CTL),
    (Call::Reregister, EPOLL_CTL),
    (Call::Deregister, EPOLL_CTL),
    // epoll_wait(2); its other errors are tested below
    (Call::Wait, &[libc::EINTR]),
    // recvmsg(2), udp(7), and EIO and ENOSYS, which they do not name
    (
        Call::Receive,
        &[
            libc::EINTR,
            libc::EAGAIN,
            libc::ENOMEM,
            libc::ECONNREFUSED,
            libc::EHOSTUNREACH,
            libc::ENETUNREACH,
            libc::ENETDOWN,
            libc::EPERM,
            libc::EBADF,
            libc::ENOTSOCK,
            libc::EINVAL,
            libc::EFAULT,
            libc::EMSGSIZE,
            libc::EPROTO,
            libc::EIO,
            libc::ENOSYS,
        ],
    ),
    // sendmsg(2), udp(7)
    (
        Call::Answer,
        &[
            libc::EPERM,
            libc::EINTR,
            libc::EAGAIN,
            libc::ENOMEM,
            libc::EACCES,
            libc::EINVAL,
            libc::EMSGSIZE,
            libc::ENETDOWN,
            libc::ENETUNREACH,
            libc::ENOBUFS,
            libc::ECONNREFUSED,
            libc::EHOSTUNREACH,
        ],
    ),
];

const CLIENTS: usize = 4;
const MESSAGE_BYTES: usize = 250;

#[test]
fn t1_every_call_fails_in_every_way_at_every_place() {
    let mut runs = 0;
    for (call, errnos) in MATRIX {
        for &errno in errnos {
            let mut after = 0;
            while run(Fault {
                call,
                after,
                times: 1,
                errno,
                was_injected: false,
            }) {
                after += 1;
                runs += 1;
            }
            assert!(after > 0, "the scenario has no {call:?}");
        }
    }
    println!("{runs} faults");
    assert!(runs > 1_300, "only {runs} faults");
}

/// Runs the scenario with one fault. Returns whether the faulty call was made.
fn run(fault: Fault) -> bool {
    let knobs = Knobs {
        events_max: 8,
        window_bytes: 100,
        descriptors: 16,
        ..Knobs::default()
    };
    let network = Network::new(Random::new(7), knobs);
    let limits = Limits {
        read_buffer_bytes: 64,
        read_budget_bytes: 128,
        accept_budget: 2,
        datagram_budget: 2,
        ..Limits::default()
    };
    let mut server = Server::new(network.selector(), limits, Default::default(), Vec::new());
    let (listener, datagrams) = (network.listener(), network.datagrams());
    let (handle, inbox_number) = (listener.number, datagrams.number);
    server
        .add_listener(Socket::Listener(Box::new(listener)))
        .expect("no fault yet");
    server
        .add_listener(Socket::Datagrams(Box::new(datagrams)))
        .expect("no fault yet");
    network.kernel().fault = Some(fault);

    for client in 0..CLIENTS {
        let to_server = (0..MESSAGE_BYTES).map(|place| place as u8).collect();
        let wire = Wire {
            client,
            to_server,
            short_read_means_empty: client % 2 == 0,
            ..Wire::default()
        };
        network.kernel().connect(handle, wire);
    }
    for port in 0..5 {
        let source = format!("10.0.0.1:{}", 40_000 + port)
            .parse()
            .expect("an address");
        if let Kind::Datagrams { inbox, .. } = &mut network
            .kernel()
            .sockets
            .get_mut(&inbox_number)
            .expect("open")
            .kind
        {
            inbox.push_back((vec![port as u8], source));
        }
        network.kernel().touch(inbox_number, Interest::Read);
    }
    let mut echoed = [0; CLIENTS];
    clients_run(&mut server, &network, &mut echoed, fault);
    server.drain();
    let mut turns = 0;
    while server.turn(None).unwrap_or(Turn::Finished) != Turn::Finished {
        turns += 1;
        assert!(turns < 1_000, "it does not end: {fault:?}");
    }
    check(&server, &network, echoed, fault)
}

/// Every client reads its echoes. Three clients send FIN after the last; the fourth stays open until the drain.
fn clients_run(
    server: &mut Server<Simulated>,
    network: &Network,
    echoed: &mut [usize; CLIENTS],
    fault: Fault,
) {
    for _ in 0..200 {
        if let Err(error) = server.turn(Some(Duration::from_millis(10))) {
            assert!(
                is_fatal_to_a_listener(fault),
                "{fault:?} ended the loop: {error}"
            );
            return;
        }
        let mut kernel = network.kernel();
        let streams: Vec<usize> = kernel
            .sockets
            .iter()
            .filter(|(_, socket)| matches!(socket.kind, Kind::Stream(_)))
            .map(|(&number, _)| number)
            .collect();
        for number in streams {
            let wire = kernel.wire(number);
            for byte in wire.to_client.drain(..) {
                assert_eq!(byte, echoed[wire.client] as u8, "{fault:?}");
                echoed[wire.client] += 1;
            }
            let is_complete = echoed[wire.client] == MESSAGE_BYTES
                && wire.client > 0
                && !std::mem::replace(&mut wire.client_sent_fin, true);
            kernel.consumed(number);
            if is_complete {
                kernel.touch(number, Interest::Read);
            }
        }
    }
}

fn check(
    server: &Server<Simulated>,
    network: &Network,
    echoed: [usize; CLIENTS],
    fault: Fault,
) -> bool {
    let stats = server.stats();
    assert_eq!(stats.check_invariants(), Ok(()), "{fault:?}");
    assert_eq!(
        (stats.connections_open, network.kernel().sockets.len()),
        (0, 0),
        "left open after {fault:?}"
    );
    let cut_short = echoed
        .iter()
        .filter(|&&count| count < MESSAGE_BYTES)
        .count();
    // At most the client of the failed call is cut short; a failed listener also loses its accept queue.
    let concerned = if is_fatal_to_a_listener(fault) {
        CLIENTS
    } else {
        1
    };
    assert!(
        cut_short <= concerned,
        "{cut_short} clients were cut short by {fault:?}: {stats}"
    );
    network
        .kernel()
        .fault
        .is_some_and(|fault| fault.was_injected)
}

/// Returns whether the fault means that the listening socket itself is unusable.
fn is_fatal_to_a_listener(fault: Fault) -> bool {
    match fault.call {
        Call::Accept => matches!(fault.errno, libc::EBADF | libc::EINVAL | libc::ENOTSOCK),
        Call::Receive => matches!(fault.errno, libc::EBADF | libc::ENOTSOCK),
        _ => false,
    }
}

#[test]
fn the_loop_ends_with_the_error_of_a_broken_event_queue() {
    for errno in [libc::EBADF, libc::EFAULT, libc::EINVAL] {
        let network = Network::new(
            Random::new(7),
            Knobs {
                events_max: 1,
                ..Knobs::default()
            },
        );
        let mut server: Server<Simulated> = Server::new(
            network.selector(),
            Limits::default(),
            Default::default(),
            Vec::new(),
        );
        network.kernel().fault = Some(Fault {
            call: Call::Wait,
            after: 0,
            times: 1,
            errno,
            was_injected: false,
        });
        assert_eq!(server.run().unwrap_err().raw_os_error(), Some(errno));
    }
}
