//! How a server ends, gracefully and at once: what clients see of it, what it counts, and that nothing is left over.
//!
//! What may live in this file: drain, stop, signals, and turns run by the caller. The server's timeouts are either so
//! long that a test would fail if it waited for one, or so short that they are what is tested.

use crate::support::{
    Dir, Model, Running, Talk, bind, connect, exists, ip, noise, sock_addr, stick, try_connect,
    turn_until, wait_until,
};
use echo_reactor::Limits;
use echo_reactor::echo::{Server, Turn};
use echo_reactor::net::Endpoint;
use echo_reactor::stats::CloseReason;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::Socket;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::time::Duration;

const TCP: &str = "tcp://127.0.0.1:0";
const ALL: [Model; 3] = [Model::Reactor, Model::Threads, Model::Iterative];

/// No timeout of the drain expires within the time of a test.
fn long_timeouts() -> Limits {
    Limits::default().with(|limits| {
        limits.drain_idle_timeout = Duration::from_secs(600);
        limits.fin_timeout = Duration::from_secs(600);
        limits.drain_timeout = Duration::from_secs(1200);
    })
}

/// The drain does not wait for a client that does not read its echo.
fn short_timeouts() -> Limits {
    Limits::default().with(|limits| {
        limits.drain_idle_timeout = Duration::from_millis(20);
        limits.fin_timeout = Duration::from_millis(50);
        limits.drain_timeout = Duration::from_millis(200);
    })
}

#[test]
fn an_idle_server_drains_at_once() {
    for model in ALL {
        let stats = Running::start(model, &[TCP], long_timeouts()).drain();
        assert_eq!((stats.accepted, stats.closed_total()), (0, 0));
    }
}

#[test]
fn an_idle_client_gets_a_fin() {
    // Only the server's own FIN can end the client's wait: the timeout after which the server would close without one
    // is long.
    let limits =
        long_timeouts().with(|limits| limits.drain_idle_timeout = Duration::from_millis(20));
    for model in ALL {
        let server = Running::start(model, &[TCP], limits.clone());
        let client = server.connect();
        client.is_echoed(b"and then quiet");
        server.request_drain();
        assert_eq!(client.hear_all(), b"", "a FIN, not a reset, {model:?}");
        drop(client);
        let stats = server.end();
        assert_eq!(stats.closed(CloseReason::ShutDown), 1, "{model:?}: {stats}");
        assert_eq!(stats.discarded, 0);
    }
}

#[test]
fn a_client_may_finish_its_conversation_during_a_drain() {
    let server = Running::reactor(&["tcp://127.7.7.6:0"], long_timeouts());
    let client = server.connect();
    let (first, second) = (noise(1, 100_000), noise(2, 100_000));
    std::thread::scope(|scope| {
        scope.spawn(|| client.say(&first));
        crate::support::assert_same(&client.hear(first.len()), &first);
    });
    let endpoint = server.endpoints[0].clone();
    server.request_drain();
    wait_until("no connection is accepted any more", || {
        try_connect(&sock_addr(&endpoint)).is_err()
    });
    std::thread::scope(|scope| {
        scope.spawn(|| {
            client.say(&second);
            client.finish();
        });
        crate::support::assert_same(&client.hear_all(), &second);
    });
    let stats = server.end();
    // The connections made by the wait above have ended with their own FIN too.
    assert_eq!(
        stats.closed(CloseReason::PeerClosed),
        stats.accepted,
        "{stats}"
    );
    assert_eq!((stats.bytes_out, stats.discarded), (200_000, 0));
}

#[test]
fn whatever_was_sent_before_the_drain_is_echoed() {
    for model in [Model::Reactor, Model::Threads] {
        let server = Running::start(model, &[TCP], Limits::default());
        let clients: Vec<Socket> = (0..50).map(|_| server.connect()).collect();
        for client in &clients {
            client.is_echoed(b"in");
            client.say(&noise(3, 10_000));
        }
        server.request_drain();
        for client in &clients {
            crate::support::assert_same(&client.hear_all(), &noise(3, 10_000));
        }
        drop(clients);
        let stats = server.end();
        assert_eq!(
            stats.closed(CloseReason::ShutDown),
            50,
            "{model:?}: {stats}"
        );
    }
}

#[test]
fn a_connection_in_the_accept_queue_when_the_drain_begins_is_served() {
    let mut server = bind(&[TCP], long_timeouts());
    let client = connect(&server.addresses()[0]);
    client.say(b"just in time");
    client.finish();
    server.drain();
    turn_until(&mut server, "it is echoed", |stats| {
        stats.connections_open == 0
    });
    assert_eq!(server.stats().closed(CloseReason::PeerClosed), 1);
    assert_eq!(client.hear_all(), b"just in time");
}

#[test]
fn a_stalled_reader_is_reset_when_the_drain_timeout_expires() {
    for model in ALL {
        let directory = Dir::new();
        let server = Running::start(model, &[&directory.address("unix", "s")], short_timeouts());
        let stuck = server.connect();
        stick(&stuck);
        let stats = server.drain();
        assert_eq!(stats.closed(CloseReason::Aborted), 1, "{model:?}: {stats}");
        assert!(
            stats.discarded > 0,
            "{model:?}: its unsent bytes are counted as discarded"
        );
    }
}

#[test]
fn a_stop_ends_every_connection_at_once() {
    for model in ALL {
        let server = Running::start(model, &[TCP], long_timeouts());
        let mut client = server.connect();
        client.is_echoed(b"in");
        let stats = server.stop();
        assert_eq!(stats.closed(CloseReason::Aborted), 1, "{model:?}: {stats}");
        let end = client.read(&mut [0; 8]);
        assert!(
            matches!(end, Ok(0) | Err(_)),
            "{model:?}: the connection has ended"
        );
    }
}

#[test]
fn a_stop_ends_a_drain_that_would_last() {
    for model in ALL {
        let directory = Dir::new();
        let server = Running::start(model, &[&directory.address("unix", "s")], long_timeouts());
        let stuck = server.connect();
        stick(&stuck);
        server.request_drain();
        server.request_drain();
        let stats = server.stop();
        assert_eq!(stats.closed(CloseReason::Aborted), 1, "{model:?}: {stats}");
    }
}

#[test]
fn a_handle_outlives_its_server_and_does_nothing_then() {
    let server = bind(&[TCP], Limits::default());
    let handle = server.handle();
    drop(server);
    handle.drain();
    handle.stop();
}

// --- Turns run by the caller -------------------------------------------------------------------------------------------

#[test]
fn a_server_can_be_run_turn_by_turn() {
    let mut server = bind(&[TCP], Limits::default());
    assert_eq!(server.turn(Some(Duration::ZERO)).unwrap(), Turn::Serving);
    assert_eq!(server.timeout(), None, "no timer is armed");
    let client = connect(&server.addresses()[0]);
    client.say(b"turn by turn");
    turn_until(&mut server, "it is echoed", |stats| stats.bytes_out == 12);
    assert_eq!(client.hear(12), b"turn by turn");
    drop(client);
    turn_until(&mut server, "the connection is closed", |stats| {
        stats.connections_open == 0
    });
    server.drain();
    assert_eq!(server.turn(None).unwrap(), Turn::Finished);
    assert_eq!(server.turn(None).unwrap(), Turn::Finished, "and stays so");
}

#[test]
fn a_server_can_run_inside_a_foreign_event_loop() {
    const SERVER: Token = Token(7);
    let mut server = bind(&[TCP], Limits::default());
    let descriptor = server.as_raw_fd();
    let mut poll = Poll::new().unwrap();
    let mut events = Events::with_capacity(8);
    let mut source = SourceFd(&descriptor);
    poll.registry()
        .register(&mut source, SERVER, Interest::READABLE)
        .unwrap();

    let client = connect(&server.addresses()[0]);
    let sent = noise(4, 1 << 20);
    std::thread::scope(|scope| {
        let talker = scope.spawn(|| {
            std::thread::scope(|inner| {
                inner.spawn(|| {
                    client.say(&sent);
                    client.finish();
                });
                crate::support::assert_same(&client.hear_all(), &sent);
            });
        });
        let mut woken = 0;
        wait_until("it has all come back", || {
            // Only the foreign loop blocks; a turn of the server serves what is ready and returns at once.
            let wait = server.timeout().unwrap_or(Duration::from_millis(50));
            poll.poll(&mut events, Some(wait)).unwrap();
            woken += events
                .iter()
                .filter(|event| event.token() == SERVER)
                .count();
            assert_eq!(server.turn(Some(Duration::ZERO)).unwrap(), Turn::Serving);
            talker.is_finished()
        });
        assert!(woken > 0, "the foreign loop was woken");
        talker.join().unwrap();
    });
    assert_eq!(server.stats().bytes_out, 1 << 20);
}

/// An outer loop may do other things for long, and asks when it is about to wait.
#[test]
fn the_timeout_counts_from_now_and_not_from_the_last_turn() {
    let limits =
        Limits::default().with(|limits| limits.idle_timeout = Some(Duration::from_secs(600)));
    let mut server = bind(&[TCP], limits);
    let _client = connect(&server.addresses()[0]);
    turn_until(&mut server, "it is in", |stats| stats.connections_open == 1);
    let first = server.timeout().unwrap();
    assert!(first > Duration::from_secs(500));
    wait_until("time passes", || server.timeout().unwrap() < first);
}

#[test]
fn a_server_that_is_told_to_end_between_two_turns_wants_one() {
    let tell: [fn(&mut Server); 5] = [
        Server::drain,
        Server::stop,
        Server::detach_listeners,
        |server| server.handle().drain(),
        |server| server.handle().stop(),
    ];
    for (number, tell) in tell.into_iter().enumerate() {
        let mut server = bind(&[TCP], Limits::default());
        let descriptor = server.as_raw_fd();
        assert_eq!(server.turn(Some(Duration::ZERO)).unwrap(), Turn::Serving);
        assert_eq!(server.timeout(), None, "{number}");
        let mut poll = Poll::new().unwrap();
        let mut events = Events::with_capacity(8);
        let mut source = SourceFd(&descriptor);
        let registry = poll.registry();
        registry
            .register(&mut source, Token(0), Interest::READABLE)
            .unwrap();
        tell(&mut server);
        assert_eq!(server.timeout(), Some(Duration::ZERO), "{number}");
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        assert!(!events.is_empty(), "{number}: its descriptor tells, too");
        assert_eq!(server.turn(Some(Duration::ZERO)).unwrap(), Turn::Finished);
    }
}

// --- What stays behind -------------------------------------------------------------------------------------------------

#[test]
fn the_port_is_free_at_the_end_and_the_next_server_has_it_at_once() {
    for model in ALL {
        // An address of its own, so that no other test can bind the same port there.
        let server = Running::start(model, &["tcp://127.7.7.7:0"], Limits::default());
        let endpoint = server.endpoints[0].clone();
        // The server sends its FIN first here, so it is the server's side that stays in TIME_WAIT.
        let client = server.connect();
        client.is_echoed(b"one");
        server.request_drain();
        assert_eq!(client.hear_all(), b"");
        drop(client);
        server.end();
        // At once, unless another test starts a child process at this moment: until its exec, it has a copy of the
        // listener.
        wait_until("the port is free", || {
            try_connect(&sock_addr(&endpoint))
                .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        });

        let next = Running::start(model, &[&endpoint.to_string()], Limits::default());
        assert_eq!(next.endpoints, [endpoint]);
        next.connect().is_echoed(b"two");
        next.drain();
    }
}

#[test]
fn a_server_that_could_not_bind_everything_has_bound_nothing() {
    let directory = Dir::new();
    let taken = std::net::TcpListener::bind("127.7.7.8:0").unwrap();
    let file = directory.address("unix", "echo");
    let addresses = [file, format!("tcp://{}", taken.local_addr().unwrap())];
    let addresses = crate::support::parse(&[&addresses[0], &addresses[1]]);
    let error = Server::bind(&addresses, Limits::default()).unwrap_err();
    assert!(error.to_string().contains("tcp://127.7.7.8:"), "{error}");
    assert_eq!(fs::read_dir(directory.path("")).unwrap().count(), 0);
}

#[test]
fn the_socket_file_is_gone_at_the_end() {
    for model in ALL {
        let directory = Dir::new();
        let server = Running::start(model, &[&directory.address("unix", "s")], Limits::default());
        server.connect().is_echoed(b"in");
        server.drain();
        assert_eq!(
            fs::read_dir(directory.path("")).unwrap().count(),
            0,
            "{model:?}"
        );
    }
}

#[test]
fn datagram_sockets_are_closed_with_the_rest() {
    let directory = Dir::new();
    let file = directory.address("unixgram", "s");
    let server = Running::reactor(&["udp://127.7.7.9:0", &file], long_timeouts());
    let Endpoint::Udp(address) = server.endpoints[0] else {
        panic!("it is UDP");
    };
    assert_ne!(ip(&server.endpoints[0]).port(), 0);
    server.drain();
    assert!(!exists(&directory.path("s")));
    std::net::UdpSocket::bind(address).expect("the port is free");
}

// --- Signals -----------------------------------------------------------------------------------------------------------

#[cfg(feature = "cli")]
mod signals {
    use super::TCP;
    use crate::support::{Dir, Serve, Talk, noise, wait_until};
    use nix::sys::signal::Signal;
    use serde_json::Value;
    use socket2::Socket;

    const MODELS: [&str; 3] = ["reactor", "threads", "iterative"];

    #[test]
    fn after_sigterm_a_client_gets_its_echo_and_a_fin() {
        for model in MODELS {
            let server = Serve::start(&[TCP], &["--model", model]);
            let client = server.connect();
            client.is_echoed(b"in");
            client.say(&noise(1, 1_000));
            server.signal(Signal::SIGTERM);
            assert_eq!(client.hear_all(), noise(1, 1_000), "{model}");
            drop(client);
            let ended = server.wait();
            assert_eq!(ended.code, 0, "{model}: {}", ended.err);
        }
    }

    #[test]
    fn sigusr1_prints_the_counters_and_the_server_goes_on() {
        for model in MODELS {
            let server = Serve::start(&[TCP], &["--model", model]);
            let client = server.connect();
            client.is_echoed(b"counted");
            let counters = server.counters();
            assert_eq!(
                (counters["accepted"], counters["connections_open"]),
                (1, 1),
                "{model}"
            );
            client.is_echoed(b"and on it goes");
            drop(client);
            wait_until("the connection is closed", || {
                server.counter("connections_open") == 0
            });
            assert_eq!(server.counter("bytes_out"), 21);
        }
    }

    /// The sum over a family of counters, such as `closed`.
    fn sum(report: &Value, family: &str) -> u64 {
        let counts = report[family].as_object().unwrap().values();
        counts.map(|count| count.as_u64().unwrap()).sum()
    }

    #[test]
    fn the_report_is_json_with_consistent_counters() {
        for model in MODELS {
            let directory = Dir::new();
            let json = directory.path("stats.json");
            let flags = ["--model", model, "--stats-json", json.to_str().unwrap()];
            let server = Serve::start(&[TCP], &flags);
            let address = server.endpoints[0].to_string();
            for number in 0..10 {
                let client: Socket = server.connect();
                client.is_echoed(&noise(number, 1_000));
                client.finish();
                client.hear_all();
            }
            assert_eq!(server.stop(Signal::SIGTERM).code, 0);

            let report: Value =
                serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
            let count = |name: &str| report[name].as_u64().unwrap();
            assert_eq!(report["program"], "echo-reactor");
            assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
            assert_eq!(report["model"], model);
            assert_eq!(report["addresses"], serde_json::json!([address]));
            assert!(report["seconds"].as_f64().unwrap() > 0.0);
            assert_eq!((count("accepted"), count("connections_open")), (10, 0));
            assert_eq!(
                count("accepted"),
                count("connections_open") + sum(&report, "closed")
            );
            assert_eq!(report["closed"]["peer_closed"], 10);
            assert_eq!((count("bytes_in"), count("bytes_out")), (10_000, 10_000));
            assert_eq!((count("unsent_bytes"), count("discarded")), (0, 0));
            assert_eq!(
                count("datagrams_in"),
                count("datagrams_out") + sum(&report, "dropped")
            );
            assert_eq!(report["accept_errors"], serde_json::json!({}));
        }
    }
}
