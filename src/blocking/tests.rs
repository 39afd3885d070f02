//! Both models over both families, with real sockets.
//!
//! No test sleeps for synchronisation: every wait is for an event, with a deadline that only a failure reaches. Every
//! server is ended by [`Running::end`], which checks the counters.

mod scripted;
mod stop;

use super::*;
use crate::net::UnixName;
use crate::stats::RejectReason;
use socket2::{SockAddr, Socket};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A deadline that only a failing test reaches.
const DEADLINE: Duration = Duration::from_secs(20);

const MODELS: [Model; 2] = [Model::Iterative, Model::ThreadPerConnection];

/// A server that runs in a thread of its own.
struct Running {
    handle: Handle,
    endpoints: Vec<Endpoint>,
    result: mpsc::Receiver<io::Result<Stats>>,
}

impl Running {
    fn start(model: Model, addresses: &[&str], limits: Limits) -> Self {
        Self::run(Server::bind(model, addresses.iter().copied(), limits).unwrap())
    }

    fn run(server: Server) -> Self {
        let (handle, endpoints) = (server.handle(), server.addresses());
        let (sender, result) = mpsc::channel();
        thread::spawn(move || sender.send(server.run()).ok());
        Self {
            handle,
            endpoints,
            result,
        }
    }

    fn client(&self) -> Client {
        Client::connect(&self.endpoints[0])
    }

    /// Waits for a state that only the counters show.
    #[track_caller]
    fn waits_until(&self, condition: impl Fn(&Stats) -> bool) {
        let begin = Instant::now();
        while !condition(&self.handle.stats()) {
            assert!(begin.elapsed() < DEADLINE, "{}", self.handle.stats());
            thread::yield_now();
        }
    }

    /// Waits for the end, and checks that the counters are consistent and no connection is open.
    #[track_caller]
    fn end(self) -> Stats {
        let stats = self.result.recv_timeout(DEADLINE).unwrap().unwrap();
        assert_eq!(stats.check_invariants(), Ok(()));
        assert_eq!(
            (stats.connections_open, stats.unsent_bytes),
            (0, 0),
            "{stats}"
        );
        assert_eq!(self.handle.stats(), stats);
        stats
    }
}

/// A client with a deadline on every read and write.
struct Client(Socket);

impl Client {
    fn connect(endpoint: &Endpoint) -> Self {
        let (domain, address) = match endpoint {
            Endpoint::Tcp(address) => (
                socket2::Domain::for_address(*address),
                SockAddr::from(*address),
            ),
            Endpoint::Unix(name) => (socket2::Domain::UNIX, name.to_sock_addr().unwrap()),
            other => panic!("{other} is no stream"),
        };
        let socket = Socket::new(domain, socket2::Type::STREAM, None).unwrap();
        socket.connect_timeout(&address, DEADLINE).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        Self(socket)
    }

    #[track_caller]
    fn asks(&mut self, message: &[u8]) {
        self.0.write_all(message).unwrap();
        let mut echo = vec![0; message.len()];
        self.0.read_exact(&mut echo).unwrap();
        assert_eq!(echo, message);
    }

    #[track_caller]
    fn sees_the_end(&mut self) {
        assert_eq!(self.0.read(&mut [0; 16]).unwrap(), 0);
    }

    /// Sends and never reads, until the server's thread is blocked in a write: nothing more can be sent, and the echoes that
    /// lie here unread are as many as before. A server that has no processor has not echoed anything yet, or echoes more.
    fn clogs(&mut self) {
        let still = Some(Duration::from_millis(200));
        self.0.set_write_timeout(still).unwrap();
        let mut unread = 0;
        loop {
            match self.0.write(&[b'x'; 64 * 1024]) {
                Ok(sent) => {
                    assert!(sent > 0);
                    unread = 0;
                }
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
                    let before = std::mem::replace(&mut unread, self.unread());
                    if unread > 0 && unread == before {
                        return;
                    }
                }
            }
        }
    }

    /// How many bytes can be read now.
    fn unread(&self) -> usize {
        let mut buffer = vec![std::mem::MaybeUninit::uninit(); 1 << 20];
        self.0.set_nonblocking(true).unwrap();
        let unread = self.0.peek(&mut buffer).unwrap_or(0);
        self.0.set_nonblocking(false).unwrap();
        unread
    }
}

/// An address of each family. An abstract name leaves no file; a socket file has a test of its own.
fn families() -> [String; 2] {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    [
        "127.0.0.1:0".to_owned(),
        format!(
            "unix://@echo-reactor-blocking-{}-{serial}",
            std::process::id()
        ),
    ]
}

/// Runs a test with both models over both families.
fn everywhere(test: impl Fn(Model, &str)) {
    for model in MODELS {
        for address in families() {
            test(model, &address);
        }
    }
}

/// Kernel buffers that fill up quickly.
fn small_buffers(mut limits: Limits) -> Limits {
    limits.send_buffer_bytes = Some(16 * 1024);
    limits.receive_buffer_bytes = Some(16 * 1024);
    limits
}

#[test]
fn clients_are_echoed_one_after_the_other() {
    everywhere(|model, address| {
        let server = Running::start(model, &[address], Limits::default());
        for _ in 0..3 {
            let mut client = server.client();
            client.asks(b"Hello, world!");
            client.asks(b"x");
            client.0.shutdown(Shutdown::Write).unwrap();
            client.sees_the_end();
        }
        server.handle.drain();
        let stats = server.end();
        assert_eq!(
            (stats.accepted, stats.closed(CloseReason::PeerClosed)),
            (3, 3)
        );
        assert_eq!((stats.bytes_in, stats.bytes_out), (42, 42));
        if model == Model::Iterative {
            assert_eq!(
                (stats.connections_open_peak, stats.unsent_bytes_peak),
                (1, 13)
            );
        }
    });
}

#[test]
fn after_a_half_close_the_client_gets_every_byte_and_fin() {
    everywhere(|model, address| {
        let server = Running::start(model, &[address], Limits::default());
        let mut client = server.client();
        let sent: Vec<u8> = (0..1 << 20).map(|i: u32| ((i * 7) >> 3) as u8).collect();
        let mut writer = client.0.try_clone().unwrap();
        let writing = thread::spawn({
            let sent = sent.clone();
            move || {
                writer.write_all(&sent).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            }
        });
        let mut echo = Vec::new();
        client.0.read_to_end(&mut echo).unwrap();
        writing.join().unwrap();
        assert!(echo == sent, "{} of {} bytes", echo.len(), sent.len());
        server.handle.drain();
        let stats = server.end();
        assert_eq!(stats.closed(CloseReason::PeerClosed), 1);
        assert_eq!((stats.bytes_in, stats.bytes_out), (1 << 20, 1 << 20));
    });
}

#[test]
fn a_stalled_write_ends_in_a_reset() {
    everywhere(|model, address| {
        let limits = Limits {
            write_stall_timeout: Some(Duration::from_millis(100)),
            ..Limits::default()
        };
        let server = Running::start(model, &[address], small_buffers(limits));
        let mut client = server.client();
        let error = loop {
            if let Err(error) = client.0.write(&[b'x'; 64 * 1024]) {
                break error;
            }
        };
        assert_eq!(CloseReason::from(&error), CloseReason::Reset, "{error}");
        server.handle.drain();
        let stats = server.end();
        assert_eq!(stats.closed(CloseReason::WriteStall), 1, "{stats}");
        assert!(stats.discarded > 0, "{stats}");
    });
}

#[test]
fn idle_connections_are_closed_and_the_next_is_served() {
    everywhere(|model, address| {
        let limits = Limits {
            idle_timeout: Some(Duration::from_millis(50)),
            ..Limits::default()
        };
        let server = Running::start(model, &[address], limits);
        let (mut silent, mut once) = (server.client(), server.client());
        silent.sees_the_end();
        if model == Model::ThreadPerConnection {
            once.sees_the_end();
            once = server.client();
        }
        once.asks(b"x");
        once.sees_the_end();
        server.handle.drain();
        let stats = server.end();
        assert_eq!(stats.closed(CloseReason::Idle), stats.accepted, "{stats}");
    });
}

#[test]
fn at_a_limit_of_one_the_second_waits_in_the_queue() {
    for address in families() {
        let limits = Limits {
            connections_max: 1,
            ..Limits::default()
        };
        let server = Running::start(Model::ThreadPerConnection, &[&address], limits);
        let (mut first, mut second) = (server.client(), server.client());
        first.asks(b"first");
        second.0.write_all(b"second").unwrap();
        // That nothing comes can only be shown by a timeout.
        second
            .0
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let error = second.0.read(&mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        first.asks(b"still first");

        drop(first);
        second.0.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut echo = [0; 6];
        second.0.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"second");
        server.handle.drain();
        second.sees_the_end();
        let stats = server.end();
        assert_eq!(
            (stats.accepted, stats.connections_open_peak),
            (2, 1),
            "{stats}"
        );
        assert!(stats.accept_pauses > 0);
    }
}

#[test]
fn the_limit_holds_across_listeners() {
    let [tcp, unix] = families();
    let limits = Limits {
        connections_max: 1,
        ..Limits::default()
    };
    let server = Running::start(Model::ThreadPerConnection, &[&tcp, &unix], limits);
    for turn in 0..50 {
        let mut first = Client::connect(&server.endpoints[turn % 2]);
        let mut second = Client::connect(&server.endpoints[1 - turn % 2]);
        // Whichever was accepted first, the other one is served when the first has closed.
        second.0.write_all(b"second").unwrap();
        first.0.write_all(b"first").unwrap();
        second.0.shutdown(Shutdown::Write).unwrap();
        first.0.shutdown(Shutdown::Write).unwrap();
        let (mut one, mut two) = (Vec::new(), Vec::new());
        first.0.read_to_end(&mut one).unwrap();
        second.0.read_to_end(&mut two).unwrap();
        assert_eq!((&one[..], &two[..]), (&b"first"[..], &b"second"[..]));
    }
    server.handle.drain();
    let stats = server.end();
    assert_eq!(
        (stats.accepted, stats.connections_open_peak),
        (100, 1),
        "{stats}"
    );
}

#[test]
fn many_at_once_each_get_their_own_bytes() {
    for address in families() {
        let server = Running::start(Model::ThreadPerConnection, &[&address], Limits::default());
        let mut clients: Vec<Client> = (0..100).map(|_| server.client()).collect();
        for (i, client) in clients.iter_mut().enumerate() {
            client.asks(format!("I am number {i}").as_bytes());
        }
        assert_eq!(server.handle.stats().connections_open, 100);
        assert_eq!(server.handle.stats().check_invariants(), Ok(()));
        server.handle.drain();
        clients.iter_mut().for_each(Client::sees_the_end);
        let stats = server.end();
        assert_eq!(
            (
                stats.connections_open_peak,
                stats.closed(CloseReason::ShutDown)
            ),
            (100, 100)
        );
    }
}

#[test]
fn a_reset_ends_one_connection_and_no_other() {
    everywhere(|model, address| {
        let server = Running::start(model, &[address], Limits::default());
        let mut rude = server.client();
        rude.asks(b"x");
        rude.0.set_linger(Some(Duration::ZERO)).unwrap();
        drop(rude);
        let mut polite = server.client();
        polite.asks(b"y");
        drop(polite);
        server.waits_until(|stats| stats.closed_total() == 2);
        // Unix sockets have no reset: closing with nothing unread is an orderly end.
        let expected = match server.endpoints[0] {
            Endpoint::Tcp(_) => (1, 1),
            _ => (0, 2),
        };
        let mut last = server.client();
        last.asks(b"z");
        server.handle.stop();
        let stats = server.end();
        assert_eq!(
            (
                stats.closed(CloseReason::Reset),
                stats.closed(CloseReason::PeerClosed)
            ),
            expected
        );
        assert_eq!(stats.closed(CloseReason::Aborted), 1);
    });
}

#[test]
fn without_a_thread_the_connection_is_closed_and_the_server_stays() {
    let address = "127.0.0.1:0";
    let mut limits = Limits {
        accept_retry: Duration::from_millis(1),
        ..Limits::default()
    };
    // More than a process can address, which `Limits::check` would refuse.
    limits.thread_stack_bytes = 1 << 48;
    let model = Model::ThreadPerConnection;
    let mut server = Server::bind(model, [address], Limits::default()).unwrap();
    Arc::get_mut(&mut server.shared).unwrap().limits = limits;
    let server = Running::run(server);
    for _ in 0..3 {
        server.client().sees_the_end();
    }
    server.handle.drain();
    let stats = server.end();
    assert_eq!(
        (stats.accepted, stats.closed(CloseReason::OutOfMemory)),
        (3, 3)
    );
}

#[test]
fn a_broken_listener_ends_the_server_only_if_it_was_the_last() {
    for model in MODELS {
        let server = Server::bind(model, ["127.0.0.1:0"], Limits::default()).unwrap();
        server.acceptors[0]
            .bound
            .socket
            .shutdown(Shutdown::Both)
            .unwrap();
        let server = Running::run(server);
        let error = server.result.recv_timeout(DEADLINE).unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(server.handle.stats().accept_errors[&libc::EINVAL], 1);
    }
    let addresses = ["127.0.0.1:0", "127.0.0.1:0"];
    let model = Model::ThreadPerConnection;
    let server = Server::bind(model, addresses, Limits::default()).unwrap();
    server.acceptors[0]
        .bound
        .socket
        .shutdown(Shutdown::Both)
        .unwrap();
    let server = Running::run(server);
    Client::connect(&server.endpoints[1]).asks(b"still here");
    server.handle.drain();
    assert_eq!(server.end().accepted, 1);
}

#[test]
fn a_shortage_pauses_accepting_until_a_connection_closes() {
    let limits = Limits {
        accept_retry: 10 * DEADLINE,
        ..Limits::default()
    };
    let shared = Shared::new(limits);
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let stream = Arc::new(Stream::Unix(ours));
    let number = shared.open(&stream).unwrap();
    drop(stream);
    let begin = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| shared.pause());
        while shared.stats().accept_pauses == 0 {
            thread::yield_now();
        }
        shared.close(number, CloseReason::PeerClosed, Stats::default());
    });
    assert!(begin.elapsed() < DEADLINE);
    assert_eq!(shared.stats().check_invariants(), Ok(()));
}

#[test]
fn a_socket_file_is_removed_with_the_server_and_not_with_its_handles() {
    for model in MODELS {
        let name = format!("echo-reactor-blocking-{}-{model:?}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let address = Address::Unix(UnixName::Path(path.clone()));
        let server = Running::start(model, &[&address.to_string()], Limits::default());
        let handle = server.handle.clone();
        server.client().asks(b"Hello, file!");
        assert!(path.exists());
        handle.drain();
        server.end();
        assert!(!path.exists());
    }
}

#[test]
fn ipv6_is_served_where_the_machine_has_it() {
    let Ok(_) = std::net::TcpListener::bind("[::1]:0") else {
        return;
    };
    for model in MODELS {
        let server = Running::start(model, &["[::1]:0"], Limits::default());
        server.client().asks(b"six");
        server.handle.stop();
        assert_eq!(server.end().accepted, 1);
    }
}

#[test]
fn a_server_that_cannot_start_says_why_and_what_to_do() {
    #[track_caller]
    fn check(model: Model, addresses: &[&str], limits: Limits, expected: &[&str]) {
        let error = Server::bind(model, addresses.iter().copied(), limits).unwrap_err();
        let said = error.to_string();
        for part in expected {
            assert!(said.contains(part), "{said:?} does not say {part:?}");
        }
    }
    let [one, threads] = MODELS;
    let defaults = Limits::default;
    check(threads, &[], defaults(), &["no address"]);
    check(
        threads,
        &["udp://127.0.0.1:0"],
        defaults(),
        &["udp://127.0.0.1:0", "reactor model"],
    );
    check(
        one,
        &["unixgram://@x"],
        defaults(),
        &["unixgram://@x", "reactor model"],
    );
    check(
        one,
        &["127.0.0.1:0", "127.0.0.1:0"],
        defaults(),
        &["there are 2", "a single one"],
    );
    check(
        threads,
        &["tcp://no such host:1"],
        defaults(),
        &["no such host", "IP address"],
    );
    check(
        threads,
        &["192.0.2.1:0"],
        defaults(),
        &["192.0.2.1:0", "that this machine has"],
    );
    check(
        threads,
        &["unix:///nowhere/at/all"],
        defaults(),
        &["/nowhere/at/all", "make the directory"],
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    check(
        threads,
        &[&address],
        defaults(),
        &[&address, "another port"],
    );
    let limits = Limits {
        read_buffer_bytes: 0,
        ..defaults()
    };
    check(
        threads,
        &["127.0.0.1:0"],
        limits,
        &["read_buffer_bytes of 0"],
    );
}
