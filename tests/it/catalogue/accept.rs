//! A: accepting, with too few descriptors, too many clients, or errors of every kind.

mod errors;

use crate::support::fault::{
    allow, can, exhaust, figure, in_own_network, leave, seconds_now, traced,
};
use crate::support::{
    DEADLINE, Dir, Serve, Talk, has_tool, ip, sock_addr, try_connect, unless_reset, wait_until,
};
use nix::sys::signal::Signal;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

const TCP: &str = "tcp://127.0.0.1:0";

/// The median and the 99th percentile of some times, in milliseconds.
fn middle_and_99th(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3;
    (at(50), at(99))
}

/// Descriptors for eight connections, and a hundred arrive. The open ones are served as before; the rest wait, which
/// costs ten calls a second and one line; and each connection that closes lets the next one be accepted, though no
/// arrival raises an edge.
#[test]
fn a1_real_emfile() {
    if !can(&["strace", "prlimit"]) {
        return;
    }
    let directory = Dir::new();
    let traced = traced(
        &directory.path("calls"),
        "accept4",
        &["--seccomp-bpf"],
        &[TCP],
        &[],
    );
    let server = &traced.serve;
    let began = Instant::now();
    let pinger = server.connect();
    pinger.is_echoed(b"in");
    let before = server.descriptors();
    leave(server, 8);
    let mut inside: Vec<Socket> = (0..100).map(|_| server.connect()).collect();
    inside.iter().for_each(|client| client.say(b"let me in"));
    inside[..8]
        .iter()
        .for_each(|client| assert_eq!(client.hear(9), b"let me in"));
    let queued = inside.split_off(8);
    server.says("ulimit -n");

    let (watched, since) = (Instant::now(), seconds_now());
    let mut pings = Vec::new();
    while watched.elapsed() < Duration::from_secs(2) {
        let sent = Instant::now();
        pinger.is_echoed(b"ping");
        pings.push(sent.elapsed());
        thread::sleep(Duration::from_millis(1));
    }
    let passed = watched.elapsed().as_secs_f64();
    let calls = traced.calls();
    let futile = calls
        .iter()
        .filter(|call| call.at >= since && call.at < since + passed);
    let (rate, (ping, worst)) = (futile.count() as f64 / passed, middle_and_99th(pings));
    figure(&format!(
        "a1: {rate:.1} calls of accept4 a second; pings in {ping:.2} ms, 99 % in {worst:.2} ms"
    ));
    assert!(rate > 1.0 && rate <= 20.0, "{rate} calls a second");
    assert!(worst < 1_000.0, "{worst} ms");
    assert!(queued.iter().all(Talk::hears_nothing), "they wait");

    let mut resumed = Vec::new();
    for client in queued {
        drop(inside.swap_remove(0));
        let left = Instant::now();
        assert_eq!(client.hear(9), b"let me in");
        resumed.push(left.elapsed());
        inside.push(client);
    }
    let (middle, worst) = middle_and_99th(resumed);
    let paused = server.counter("accept_paused_ms");
    let lines = server.err().matches("cannot accept").count();
    figure(&format!(
        "a1: the next is echoed {middle:.2} ms after one closes, 99 % within {worst:.2} ms; paused for {paused} ms in all, \
         logged in {lines} line(s)"
    ));
    assert!(
        middle < 50.0,
        "by the timer it would be half of 100 ms: {middle}"
    );
    assert!(paused as f64 >= passed * 900.0, "{paused} ms in {passed} s");
    assert!(
        lines as u64 <= 1 + began.elapsed().as_secs() / 5,
        "{lines} lines"
    );
    drop((inside, pinger));
    wait_until("all are closed", || server.counter("connections_open") == 0);
    assert_eq!(server.counters()["accepted"], 101);
    assert_eq!(
        server.descriptors().len(),
        before.len() - 1,
        "all but the pinger's"
    );
    assert_eq!(traced.serve.stop(Signal::SIGTERM).code, 0);
}

/// With an empty accept queue a shortage of descriptors costs nothing and is not logged.
#[test]
fn a2_emfile_with_an_empty_queue() {
    if !has_tool("prlimit") {
        return;
    }
    let server = Serve::start(&[TCP], &[]);
    server.connect().is_echoed(b"warm");
    wait_until("it is closed", || server.counter("connections_open") == 0);
    exhaust(&server);
    let ticks = server.cpu_ticks();
    thread::sleep(Duration::from_secs(1));
    let used = server.cpu_ticks() - ticks;
    figure(&format!("a2: {used} ticks of 10 ms in a second"));
    assert!(used <= 1, "{used}");
    let counters = server.counters();
    assert_eq!(
        (counters["accept_pauses"], counters["accept_paused_ms"]),
        (0, 0)
    );
    assert!(
        !server.err().contains("cannot accept"),
        "no connection was refused"
    );

    let late = server.connect();
    late.say(b"and I?");
    server.says("ulimit -n");
    allow(&server, 1_000);
    assert_eq!(late.hear(6), b"and I?");
    drop(late);
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

/// The edge for the queue was consumed long ago, no connection closes, and none arrives: only the timer of the pause
/// retries accept(2).
#[test]
fn a3_descriptors_come_free_and_nothing_new_arrives() {
    if !can(&["strace"]) {
        return;
    }
    let directory = Dir::new();
    let inject = ["-e", "inject=accept4:error=EMFILE:when=1..3"];
    let traced = traced(&directory.path("calls"), "accept4", &inject, &[TCP], &[]);
    let queued: Vec<Socket> = (0..5).map(|_| traced.serve.connect()).collect();
    queued.iter().for_each(|client| client.say(b"let me in"));
    for client in &queued {
        assert_eq!(client.hear(9), b"let me in");
    }
    wait_until("strace has written", || traced.calls().len() >= 8);
    let calls = traced.calls();
    let failed: Vec<_> = calls
        .iter()
        .filter(|call| call.text.contains("INJECTED"))
        .collect();
    let first_good = calls.iter().find(|call| call.at > failed[2].at).unwrap();
    let gaps = [
        failed[1].at - failed[0].at,
        failed[2].at - failed[1].at,
        first_good.at - failed[2].at,
    ];
    figure(&format!(
        "a3: tried again after {:.1?} ms",
        gaps.map(|gap| gap * 1e3)
    ));
    assert!(
        gaps.iter().all(|&gap| (0.09..1.5).contains(&gap)),
        "{gaps:?}"
    );
    assert_eq!(traced.serve.counter("accept_errors{24}"), 3);
    drop(queued);
    assert_eq!(traced.serve.stop(Signal::SIGTERM).code, 0);
}

/// Whether the server has reset this connection; otherwise it echoes.
#[track_caller]
fn is_rejected(client: &Socket) -> bool {
    use std::io::Write;
    let mut socket = client;
    match socket
        .write_all(b"hi")
        .and_then(|()| socket.read_exact(&mut [0; 2]))
    {
        Ok(()) => false,
        Err(error) => {
            let told = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(told.contains(&error.kind()), "{error}");
            true
        }
    }
}

#[test]
fn a8_at_the_limit_they_wait_or_are_rejected() {
    let server = Serve::start(&[TCP], &["--max-connections", "100"]);
    let mut clients: Vec<Socket> = (0..150).map(|_| server.connect()).collect();
    clients.iter().for_each(|client| client.say(b"hi"));
    let queued = clients.split_off(100);
    clients
        .iter()
        .for_each(|client| assert_eq!(client.hear(2), b"hi"));
    wait_until("the limit is reached", || {
        server.counter("accept_pauses") > 0
    });
    assert_eq!(server.counter("connections_open"), 100);
    assert!(queued.iter().all(Talk::hears_nothing));
    for (inside, waiting) in clients.into_iter().zip(&queued) {
        drop(inside);
        assert_eq!(waiting.hear(2), b"hi");
    }
    wait_until("the first hundred are closed", || {
        server.counter("connections_open") == 50
    });
    let counters = server.counters();
    assert_eq!(
        (counters["accepted"], counters["connections_open_peak"]),
        (150, 100)
    );
    drop(queued);
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);

    let server = Serve::start(
        &[TCP],
        &["--max-connections", "100", "--overload", "reject"],
    );
    let before = server.descriptors();
    let address = sock_addr(&server.endpoints[0]);
    let clients = (0..150).map(|_| unless_reset(try_connect(&address)));
    let clients: Vec<Option<Socket>> = clients.collect();
    let is_outside = |client: &&Option<Socket>| client.as_ref().is_none_or(is_rejected);
    assert_eq!(clients.iter().filter(is_outside).count(), 50);
    let counters = server.counters();
    assert_eq!(
        (counters["accepted"], counters["rejected{limit}"]),
        (100, 50)
    );
    assert_eq!(counters["accept_pauses"], 0);
    assert_eq!(
        server.err().matches("is rejected").count(),
        1,
        "one line is enough"
    );
    drop(clients);
    wait_until("all are closed", || server.counter("connections_open") == 0);
    assert_eq!(server.descriptors(), before);
    server.connect().is_echoed(b"accepted again");
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

/// A client with a source address of its own choice, unless the server resets the connection at once.
#[track_caller]
fn connect_from(source: &str, server: SocketAddr) -> Option<Socket> {
    let source: IpAddr = source.parse().unwrap();
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
        .bind(&SockAddr::from(SocketAddr::new(source, 0)))
        .unwrap();
    unless_reset(socket.connect(&SockAddr::from(server)).map(|()| socket))
}

/// Counts how many of these sources' connections are rejected; the accepted ones stay open until the end.
#[track_caller]
fn rejected_from(sources: &[&str], server: SocketAddr, open: &mut Vec<Socket>) -> usize {
    let clients = sources.iter().map(|source| connect_from(source, server));
    let inside: Vec<Socket> = clients
        .flatten()
        .filter(|client| !is_rejected(client))
        .collect();
    let rejected = sources.len() - inside.len();
    open.extend(inside);
    rejected
}

#[test]
fn a14_prefix_cap_and_lists() {
    if !can(&["ip"]) {
        return;
    }
    let addresses = [
        "10.0.0.1/24", // on the loopback interface every address of 10.0.0.0/24 is local
        "2001:db8:0:1::1/64",
        "2001:db8:0:1::2/64",
        "2001:db8:0:2::1/64",
    ];
    in_own_network(&addresses, || {
        let flags = [
            "--max-per-prefix",
            "3",
            "--deny",
            "10.0.0.64/26",
            "--allow-public-udp",
        ];
        let server = Serve::start(
            &["tcp://10.0.0.1:0", "tcp://[::]:0", "udp://10.0.0.1:0"],
            &flags,
        );
        let ports: Vec<u16> = server.endpoints.iter().map(|end| ip(end).port()).collect();
        let v4 = SocketAddr::new("10.0.0.1".parse().unwrap(), ports[0]);
        let v6 = SocketAddr::new("2001:db8:0:1::1".parse().unwrap(), ports[1]);
        let mut open = Vec::new();
        assert_eq!(rejected_from(&["10.0.0.2"; 5], v4, &mut open), 2);
        assert_eq!(
            rejected_from(&["10.0.0.3"; 3], v4, &mut open),
            0,
            "another source is not limited"
        );
        let neighbours = ["2001:db8:0:1::1", "2001:db8:0:1::2"].repeat(2);
        assert_eq!(rejected_from(&neighbours, v6, &mut open), 1, "a /64 is one");
        assert_eq!(rejected_from(&["2001:db8:0:2::1"], v6, &mut open), 0);
        assert_eq!(rejected_from(&["10.0.0.66"], v4, &mut open), 1, "denied");
        let datagrams = UdpSocket::bind("10.0.0.66:0").unwrap();
        datagrams
            .send_to(b"and over UDP?", ("10.0.0.1", ports[2]))
            .unwrap();
        wait_until("it is dropped", || server.counter("dropped{denied}") == 1);

        let counters = server.counters();
        let counts = [
            "rejected{prefix}",
            "rejected{denied}",
            "accepted",
            "connections_open",
        ]
        .map(|name| counters[name]);
        assert_eq!(counts, [3, 1, 10, 10]);
        drop(open.remove(0));
        wait_until("it is closed", || server.counter("connections_open") == 9);
        assert_eq!(
            rejected_from(&["10.0.0.2"; 2], v4, &mut open),
            1,
            "one has closed, one is accepted"
        );
        drop(open);
        wait_until("all are closed", || server.counter("connections_open") == 0);
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    });
}

/// A turn accepts at most a budget of connections, so that open connections are served in between.
#[test]
fn a9_thousands_connect_beside_a_connection_that_is_served() {
    let server = Serve::start(&[TCP], &[]);
    let pinger = server.connect();
    pinger.is_echoed(b"in");
    let address = sock_addr(&server.endpoints[0]);
    let (pings, clients) = thread::scope(|scope| {
        let burst = scope.spawn(|| {
            let connect = |_| try_connect(&address).unwrap();
            (0..5_000).map(connect).collect::<Vec<_>>()
        });
        let mut pings = Vec::new();
        while !burst.is_finished() {
            let sent = Instant::now();
            pinger.is_echoed(b"ping");
            pings.push(sent.elapsed());
        }
        (pings, burst.join().unwrap())
    });
    for client in &clients {
        client.is_echoed(b"and all of us");
    }
    let (count, (middle, worst)) = (pings.len(), middle_and_99th(pings));
    figure(&format!(
        "a9: {count} pings beside 5,000 new connections: {middle:.3} ms, 99 % within {worst:.3} ms"
    ));
    assert!(worst < 1_000.0, "{worst} ms");
    assert_eq!(server.counter("connections_open"), 5_001);
    drop(clients);
    wait_until("they are closed", || {
        server.counter("connections_open") == 1
    });
    drop(pinger);
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

/// The kernel's count of accept queue overflows (`ListenOverflows`) in the network namespace of this thread.
fn listen_overflows() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let place = names.split(' ').position(|name| name == "ListenOverflows");
    values
        .split(' ')
        .nth(place.unwrap())
        .unwrap()
        .parse()
        .unwrap()
}

/// Whether the server echoes to a new client, which is reset where the kernel had forgotten it: a client whose last ACK
/// found the queue full believes that it is connected, while the server's kernel gives it up after as few as two repeated
/// SYN-ACKs (three seconds), or finds its SYN cookie invalid. The server never saw such a client.
fn is_served(address: &SockAddr) -> bool {
    let mut client = &try_connect(address).unwrap();
    let mut echo = [0; 7];
    let exchange = client.write_all(b"at last");
    match exchange.and_then(|()| client.read_exact(&mut echo)) {
        Ok(()) => assert_eq!(&echo, b"at last"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    echo[0] != 0
}

/// Seventeen connections fit into the accept queue. The other clients either believe that they are connected or send
/// their SYN again, at intervals that their kernel decides. The server is stopped for two seconds, and in the end it
/// has served every client. There are no more of them than a kernel can retry in time: if all retry at the same moment,
/// seventeen get in after 1, 3, 7, 15 and 31 seconds.
#[test]
fn a10_clients_that_found_the_queue_full_are_served_in_the_end() {
    if !can(&["ip"]) {
        return;
    }
    in_own_network(&[], || {
        // The value of the thread's network namespace, as it is the thread that opens the file.
        std::fs::write("/proc/sys/net/core/somaxconn", "16").unwrap();
        let server = Serve::start(&[TCP], &[]);
        let address = sock_addr(&server.endpoints[0]);
        server.signal(Signal::SIGSTOP);
        let before = listen_overflows();
        thread::scope(|scope| {
            let connect_and_echo = |number| {
                let address = &address;
                scope.spawn(move || {
                    thread::sleep(number * Duration::from_millis(20));
                    (0..).position(|_| is_served(address)).unwrap()
                })
            };
            let clients: Vec<_> = (0..100).map(connect_and_echo).collect();
            wait_until("the queue overflows", || listen_overflows() > before);
            thread::sleep(Duration::from_secs(2));
            server.signal(Signal::SIGCONT);
            let forgotten: usize = clients.into_iter().map(|c| c.join().unwrap()).sum();
            let overflows = listen_overflows() - before;
            figure(&format!(
                "a10: 100 served, after {overflows} overflows of a queue of 17; {forgotten} were forgotten by the kernel"
            ));
        });
        assert!(server.counter("accepted") >= 100);
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    });
}

#[test]
fn a11_a_reset_before_the_accept_is_a_connection_like_any_other() {
    let server = Serve::start(&[TCP], &[]);
    server.connect().is_echoed(b"warm");
    wait_until("it is closed", || server.counter("connections_open") == 0);
    let before = server.descriptors();
    server.signal(Signal::SIGSTOP);
    for _ in 0..50 {
        let client = server.connect();
        client.say(b"never mind");
        client.reset();
    }
    server.signal(Signal::SIGCONT);
    wait_until("all are accepted", || server.counter("accepted") == 51);
    wait_until("all are closed", || server.counter("connections_open") == 0);
    let counters = server.counters();
    assert_eq!(counters["closed{reset}"], 50, "{counters:?}");
    let said = server.err();
    assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");
    assert_eq!(server.descriptors(), before);
    server.connect().is_echoed(b"served on");
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}
