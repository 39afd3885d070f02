//! What the design takes for granted about the kernel, shown with mio alone. None of our code is in here.
//!
//! What may live in this file: one fact in each test, with the decision that stands on it. If one of these fails on
//! some machine, the server is wrong there, and the search begins here. A test asserts that no event comes only where
//! everything takes place inside the calls of this thread: over Unix sockets, or when all bytes have arrived already.

use crate::support::{DEADLINE, wait_until};
use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UdpSocket, UnixStream};
use mio::{Events, Interest, Poll, Token};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use socket2::{Domain, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use std::fs::{self, File};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::Duration;

// --- Tools -------------------------------------------------------------------------------------------------------------

/// A poll with one source registered.
struct Watch {
    poll: Poll,
    events: Events,
}

/// What one event reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    readable: bool,
    writable: bool,
    read_closed: bool,
}

impl Watch {
    fn new(source: &mut impl Source, interest: Interest) -> Self {
        let watch = Self {
            poll: Poll::new().unwrap(),
            events: Events::with_capacity(8),
        };
        watch
            .poll
            .registry()
            .register(source, Token(0), interest)
            .unwrap();
        watch
    }

    fn wait(&mut self, timeout: Duration) -> Option<Said> {
        self.poll.poll(&mut self.events, Some(timeout)).unwrap();
        let said = self.events.iter().map(|event| Said {
            readable: event.is_readable(),
            writable: event.is_writable(),
            read_closed: event.is_read_closed(),
        });
        said.last()
    }

    /// The next event, which must come.
    #[track_caller]
    fn event(&mut self) -> Said {
        self.wait(DEADLINE).expect("an event")
    }

    /// No event is pending.
    #[track_caller]
    fn is_quiet(&mut self) {
        assert_eq!(self.wait(Duration::ZERO), None);
    }

    fn change(&self, source: &mut impl Source, interest: Interest) {
        self.poll
            .registry()
            .reregister(source, Token(0), interest)
            .unwrap();
    }
}

/// A connected pair over TCP: ours, which does not block, and the peer's, which does.
fn tcp() -> (TcpStream, Socket) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = Socket::from(std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    (TcpStream::from_std(ours), peer)
}

/// The same over Unix.
fn unix() -> (UnixStream, Socket) {
    let (ours, peer) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let peer = Socket::from(peer);
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    (UnixStream::from_std(ours), peer)
}

/// Runs a test again in a process of its own, since its changes to the process (limits, descriptors) would break other
/// tests.
#[track_caller]
fn alone(test: &str, body: impl FnOnce()) {
    const ALONE: &str = "ECHO_IT_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.contains("1 passed"), "{out}");
}

// --- Edges -------------------------------------------------------------------------------------------------------------

/// Hence decision 4: after an edge, read until it would block. A reader that stops midway gets no further event for
/// those bytes.
#[test]
fn an_edge_is_reported_once() {
    fn check(mut ours: impl Source, peer: &Socket) {
        let mut watch = Watch::new(&mut ours, Interest::READABLE);
        peer.send(b"bytes").unwrap();
        assert!(watch.event().readable);
        watch.is_quiet();
    }
    let ((tcp, tcp_peer), (unix, unix_peer)) = (tcp(), unix());
    check(tcp, &tcp_peer);
    check(unix, &unix_peer);
}

/// Hence decision 6: a listener with more connections than one turn accepts puts itself into the run queue.
#[test]
fn several_connections_may_be_one_edge() {
    let mut listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let clients: Vec<_> = (0..3)
        .map(|_| std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap())
        .collect();
    let mut watch = Watch::new(&mut listener, Interest::READABLE);
    assert!(watch.event().readable);
    for _ in &clients {
        listener.accept().unwrap();
        watch.is_quiet();
    }
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

/// Hence decision 3: one interest at a time loses nothing, since epoll_ctl(2) with EPOLL_CTL_MOD checks the readiness
/// again.
#[test]
fn changing_the_interest_reports_the_current_readiness_again() {
    fn check(mut ours: impl Source, peer: &Socket) {
        let mut watch = Watch::new(&mut ours, Interest::READABLE);
        peer.send(b"unread").unwrap();
        assert!(watch.event().readable);
        watch.is_quiet();
        watch.change(&mut ours, Interest::READABLE);
        assert!(watch.event().readable, "the same interest will do");
        watch.change(&mut ours, Interest::WRITABLE);
        assert!(watch.event().writable);
        watch.change(&mut ours, Interest::READABLE);
        assert!(watch.event().readable);
    }
    let ((tcp, tcp_peer), (unix, unix_peer)) = (tcp(), unix());
    check(tcp, &tcp_peer);
    check(unix, &unix_peer);
}

/// Hence decision 3 again: registering for both at once would wake the loop twice for each echo over transports without
/// acknowledgements, where the peer's read is what frees the send buffer.
#[test]
fn registering_for_both_doubles_the_wakeups_over_unix_and_udp() {
    let both = Interest::READABLE | Interest::WRITABLE;
    for (interest, told_again) in [(Interest::READABLE, false), (both, true)] {
        let (mut ours, peer) = unix();
        let mut watch = Watch::new(&mut ours, interest);
        watch.wait(Duration::ZERO); // writable, to begin with
        for _ in 0..10 {
            peer.send(b"message").unwrap();
            assert!(watch.event().readable);
            ours.read_exact(&mut [0; 7]).unwrap();
            ours.write_all(b"message").unwrap();
            (&peer).read_exact(&mut [0; 7]).unwrap();
            assert_eq!(watch.wait(Duration::ZERO).is_some(), told_again, "unix");
        }

        let mut ours = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(DEADLINE)).unwrap();
        peer.connect(ours.local_addr().unwrap()).unwrap();
        let mut watch = Watch::new(&mut ours, interest);
        watch.wait(Duration::ZERO);
        for _ in 0..10 {
            peer.send(b"message").unwrap();
            assert!(watch.event().readable);
            let (_, source) = ours.recv_from(&mut [0; 7]).unwrap();
            ours.send_to(b"message", source).unwrap();
            peer.recv(&mut [0; 7]).unwrap();
            assert_eq!(watch.wait(Duration::ZERO).is_some(), told_again, "udp");
        }
    }
}

/// A connection with unsent bytes is registered for writability alone. Nothing is lost by that: bytes that arrive
/// meanwhile are reported when the interest changes back.
#[test]
fn while_registered_for_writability_new_bytes_and_a_half_close_are_kept_and_not_reported() {
    let (mut ours, peer) = unix();
    let mut watch = Watch::new(&mut ours, Interest::WRITABLE);
    assert!(watch.event().writable);
    while ours.write(&[0; 4096]).is_ok() {}
    peer.send(b"new bytes").unwrap();
    watch.is_quiet();
    peer.shutdown(Shutdown::Write).unwrap();
    // A half-close may be reported here, but not as writability.
    assert!(watch.wait(Duration::ZERO).is_none_or(|said| !said.writable));
    watch.change(&mut ours, Interest::READABLE);
    let said = watch.event();
    assert!(said.readable && said.read_closed);
    assert_eq!(ours.read(&mut [0; 64]).unwrap(), 9);
    assert_eq!(ours.read(&mut [0; 64]).unwrap(), 0);
}

#[test]
fn while_registered_for_writability_a_reset_is_reported() {
    fn check(mut ours: impl Source + Write, peer: Socket) {
        while ours.write(&[0; 4096]).is_ok() {}
        let mut watch = Watch::new(&mut ours, Interest::WRITABLE);
        drop(peer); // with unread input, so that it is a reset
        watch.event();
        let error = loop {
            match ours.write(&[0; 4096]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => drop(watch.event()),
                Err(error) => break error,
            }
        };
        let broken = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        assert!(broken.contains(&error.kind()), "{error}");
    }
    let ((tcp, tcp_peer), (unix, unix_peer)) = (tcp(), unix());
    check(tcp, tcp_peer);
    check(unix, unix_peer);
}

// --- Reads that end early ----------------------------------------------------------------------------------------------

/// Hence: a short read ends the reading only if the event did not say that there is more to it.
#[test]
fn data_and_fin_may_be_one_edge() {
    fn check(mut ours: impl Source + Read, peer: &Socket) {
        let mut watch = Watch::new(&mut ours, Interest::READABLE);
        let _ = peer.set_tcp_cork(true); // one segment carries both; a Unix socket has none
        peer.send(b"hello").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        let said = watch.event();
        assert!(said.readable && said.read_closed, "{said:?}");
        assert_eq!(ours.read(&mut [0; 64]).unwrap(), 5);
        watch.is_quiet(); // a reader that waits here waits for ever
        assert_eq!(ours.read(&mut [0; 64]).unwrap(), 0);
    }
    let ((tcp, tcp_peer), (unix, unix_peer)) = (tcp(), unix());
    check(tcp, &tcp_peer);
    check(unix, &unix_peer);
}

/// Hence: urgent data makes an event exceptional; mio is asked to watch for it (`PRIORITY`).
#[test]
fn a_read_stops_at_an_urgent_byte_with_more_after_it() {
    let (mut ours, peer) = tcp();
    let mut watch = Watch::new(&mut ours, Interest::READABLE | Interest::PRIORITY);
    peer.send(b"before").unwrap();
    peer.send_out_of_band(b"!").unwrap();
    peer.send(b"after").unwrap();
    let mut urgent = false;
    wait_until("the urgent byte is reported", || {
        watch.poll.poll(&mut watch.events, Some(DEADLINE)).unwrap();
        urgent |= watch.events.iter().any(mio::event::Event::is_priority);
        urgent
    });
    let mut bytes = [0; 64];
    assert_eq!(ours.read(&mut bytes).unwrap(), 6, "short, and yet not all");
    let mut rest = 0;
    wait_until("the rest can be read", || {
        rest += ours.read(&mut bytes).unwrap_or(0);
        rest == 5
    });
    assert_eq!(&bytes[..5], b"after");
}

/// Hence `Limits::user_timeout` is said to end a stalled peer, too. It is off by default, so `write_stall_timeout` does that.
#[test]
fn the_user_timeout_ends_a_connection_whose_window_stays_closed() {
    let (mut ours, _peer) = tcp();
    let timeout = Duration::from_millis(300);
    let told = SockRef::from(&ours).set_tcp_user_timeout(Some(timeout));
    told.unwrap();
    while ours.write(&[0; 65_536]).is_ok() {}
    wait_until("the kernel gives the peer up", || {
        let error = ours.write(b"one more").err();
        error.is_some_and(|error| error.kind() == ErrorKind::TimedOut)
    });
}

/// Hence `Stream::short_read_means_empty` is false for Unix.
#[test]
fn a_read_ends_early_at_descriptors_with_more_after_them() {
    let (mut ours, peer) = unix();
    let mut watch = Watch::new(&mut ours, Interest::READABLE);
    peer.send(b"plain ").unwrap();
    let descriptors = [peer.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&descriptors)];
    let parts = [IoSlice::new(b"with ")];
    sendmsg::<()>(peer.as_raw_fd(), &parts, &control, MsgFlags::empty(), None).unwrap();
    peer.send(b"more").unwrap();
    assert!(watch.event().readable);
    let mut bytes = [0; 64];
    let first = ours.read(&mut bytes).unwrap();
    assert!(
        first < 15,
        "all of it was there, and {first} bytes were read"
    );
    watch.is_quiet();
    let mut all = bytes[..first].to_vec();
    while let Ok(length @ 1..) = ours.read(&mut bytes) {
        all.extend_from_slice(&bytes[..length]);
    }
    assert_eq!(all, b"plain with more");
}

// --- Ends --------------------------------------------------------------------------------------------------------------

/// Hence a connection that the server closes lingers.
#[test]
fn closing_with_unread_input_is_a_reset() {
    let (ours, peer) = tcp();
    peer.send(b"never read").unwrap();
    wait_until("it has arrived", || ours.peek(&mut [0; 16]).is_ok());
    drop(ours);
    let error = (&peer).read(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// Hence an accepted connection is read before its state is judged.
#[test]
fn a_connection_that_was_reset_in_the_queue_is_still_accepted() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    client
        .connect(&SockAddr::from(listener.local_addr().unwrap()))
        .unwrap();
    client.set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let error = stream.read(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// Hence the reactor does not deregister a connection that it closes: close(2) is enough.
#[test]
fn closing_a_descriptor_removes_its_registration_and_its_pending_event() {
    let (mut ours, peer) = unix();
    let mut watch = Watch::new(&mut ours, Interest::READABLE);
    peer.send(b"too late").unwrap();
    drop(ours);
    watch.is_quiet();
}

// --- Descriptors and options -------------------------------------------------------------------------------------------

/// Hence decision 8: after a shortage of descriptors, a timer and every close retry accept(2); no edge would.
#[test]
fn after_emfile_a_descriptor_that_comes_free_raises_no_edge() {
    alone(
        "kernel::after_emfile_a_descriptor_that_comes_free_raises_no_edge",
        || {
            let mut listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let mut watch = Watch::new(&mut listener, Interest::READABLE);
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let spare = File::open("/dev/null").unwrap();
            // With this directory open, its own number is among those in use; so the first that is free is found by trying.
            let first_free =
                (0..).find(|number| fs::metadata(format!("/proc/self/fd/{number}")).is_err());
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, first_free.unwrap(), hard).unwrap();

            client
                .connect(&SockAddr::from(listener.local_addr().unwrap()))
                .unwrap();
            assert!(watch.event().readable);
            let error = listener.accept().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::EMFILE as i32));
            drop(spare);
            watch.is_quiet();
            listener.accept().expect("it was there all the time");
        },
    );
}

/// Hence these options are set once, on the listener, and cost a connection nothing.
#[test]
fn accepted_connections_inherit_their_listeners_options() {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener
        .bind(
            &"127.0.0.1:0"
                .parse::<std::net::SocketAddr>()
                .unwrap()
                .into(),
        )
        .unwrap();
    listener.set_tcp_nodelay(true).unwrap();
    let probes = TcpKeepalive::new().with_time(Duration::from_secs(77));
    listener.set_tcp_keepalive(&probes).unwrap();
    listener.set_send_buffer_size(30_000).unwrap();
    listener.set_recv_buffer_size(40_000).unwrap();
    listener.listen(8).unwrap();
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    client.connect(&listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    assert!(stream.tcp_nodelay().unwrap());
    assert!(stream.keepalive().unwrap());
    assert_eq!(
        stream.tcp_keepalive_time().unwrap(),
        Duration::from_secs(77)
    );
    let sizes = |socket: &Socket| -> io::Result<_> {
        Ok((socket.send_buffer_size()?, socket.recv_buffer_size()?))
    };
    assert_eq!(sizes(&stream).unwrap(), sizes(&listener).unwrap());
    assert!(
        !client.tcp_nodelay().unwrap(),
        "the option differs from the system's default"
    );
}

/// Hence listeners are made with socket2: the backlog is what the configuration says, and not 128.
#[test]
fn a_listener_queues_as_many_connections_as_its_backlog_says() {
    let directory = crate::support::Dir::new();
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let address = SockAddr::unix(directory.path("s")).unwrap();
    listener.bind(&address).unwrap();
    listener.listen(4).unwrap();
    let came: Vec<Socket> = (0..20)
        .map_while(|_| {
            let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            client.connect(&address).is_ok().then_some(client)
        })
        .collect();
    assert_eq!(came.len(), 5, "one more than its backlog, on Linux");
}

/// Hence a server can run inside a foreign event loop: its epoll instance is a descriptor that is readable when a
/// source in it is ready.
#[test]
fn a_poll_in_a_poll_is_readable_when_something_in_it_is_ready() {
    let (mut ours, peer) = unix();
    let inner = Watch::new(&mut ours, Interest::READABLE);
    let descriptor = inner.poll.as_raw_fd();
    let mut outer = Watch::new(&mut mio::unix::SourceFd(&descriptor), Interest::READABLE);
    outer.is_quiet();
    peer.send(b"for the inner one").unwrap();
    assert!(outer.event().readable);
    assert!(SockRef::from(&ours.as_fd()).nonblocking().unwrap());
}
