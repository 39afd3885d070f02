//! S: how the program ends, and what it inherits when it begins.

use crate::support::{
    DEADLINE, Dir, Ended, Serve, Talk, bind, connect, ended, exists, ip, noise, program, sock_addr,
    stick, try_connect, turn_until, wait_until,
};
use command_fds::{CommandFdExt, FdMapping};
use echo_reactor::Limits;
use echo_reactor::echo::Turn;
use echo_reactor::net::Endpoint;
use nix::sys::signal::Signal;
use serde_json::Value;
use socket2::Socket;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const TCP: &str = "tcp://127.0.0.1:0";
const MODELS: [&str; 3] = ["reactor", "threads", "iterative"];

/// Prints how long something took; no test fails by it.
fn print_time(what: &str, took: Duration) {
    println!("{what}: {:.1} ms", took.as_secs_f64() * 1e3);
}

// --- Signals that end the server ---------------------------------------------------------------------------------------

#[test]
fn s1_sigterm_and_sigint_end_an_idle_server_with_0() {
    for model in MODELS {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let directory = Dir::new();
            let address = directory.address("unix", "s");
            let server = Serve::start(&[&address], &["--model", model]);
            assert!(exists(&directory.path("s")));
            let begun = Instant::now();
            let ended = server.stop(signal);
            print_time(
                &format!("s1: {model}, {signal} to the end"),
                begun.elapsed(),
            );
            assert_eq!(ended.code, 0, "{model}, {signal}: {}", ended.err);
            assert_eq!(ended.out, "", "nothing after the addresses");
            assert!(!exists(&directory.path("s")));
        }
    }
}

/// Clients that write and read without a pause, until `finish` is set. Returns how many bytes came back.
fn stream(clients: &[Socket], seed: u64, finish: &AtomicBool) -> u64 {
    let bytes = noise(seed, 4 << 10);
    let mut echoed = 0;
    while !finish.load(Ordering::Relaxed) {
        for client in clients {
            client.say(&bytes);
        }
        for client in clients {
            crate::support::assert_same(&client.hear(bytes.len()), &bytes);
            echoed += bytes.len() as u64;
        }
    }
    for client in clients {
        client.say(&bytes);
        client.finish();
    }
    for client in clients {
        crate::support::assert_same(&client.hear_all(), &bytes);
        echoed += bytes.len() as u64;
    }
    echoed
}

#[test]
fn s2_a_thousand_streams_get_every_byte_and_no_connection_is_accepted() {
    const THREADS: usize = 4;
    let directory = Dir::new();
    let json = directory.path("stats.json");
    let flags = [
        "--drain-timeout",
        "1h",
        "--drain-idle-timeout",
        "1h",
        "--stats-json",
    ];
    let flags = [&flags[..], &[json.to_str().unwrap()]].concat();
    let server = Serve::start(&[TCP], &flags);
    let address = sock_addr(&server.endpoints[0]);
    let clients: Vec<Socket> = (0..1_000).map(|_| server.connect()).collect();
    wait_until("all are accepted", || {
        server.counter("connections_open") == 1_000
    });
    let finish = AtomicBool::new(false);
    let echoed: u64 = thread::scope(|scope| {
        let groups = clients.chunks(clients.len() / THREADS).zip(1..);
        let stream = |(group, seed)| {
            scope.spawn({
                let finish = &finish;
                move || stream(group, seed, finish)
            })
        };
        let streams: Vec<_> = groups.map(stream).collect();
        wait_until("bytes flow", || server.counter("bytes_out") > 8 << 20);
        server.signal(Signal::SIGTERM);
        let begun = Instant::now();
        while begun.elapsed() < DEADLINE && try_connect(&address).is_ok() {}
        print_time(
            "s2: SIGTERM to the first connect refused, beside 1,000 streams",
            begun.elapsed(),
        );
        assert!(
            begun.elapsed() < DEADLINE,
            "no connection is accepted any more"
        );
        finish.store(true, Ordering::Relaxed);
        streams
            .into_iter()
            .map(|stream| stream.join().unwrap())
            .sum()
    });
    drop(clients);
    let ended = server.wait();
    assert_eq!(ended.code, 0, "{}", ended.err);
    let report: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    let count = |name: &str| report[name].as_u64().unwrap();
    println!(
        "s2: {echoed} bytes echoed and verified, {} discarded",
        count("discarded")
    );
    assert_eq!((count("bytes_in"), count("bytes_out")), (echoed, echoed));
    assert_eq!(
        (count("discarded"), &report["closed"]["aborted"]),
        (0, &0.into())
    );
}

/// However many connections are ready, and however long they would take: the listeners are closed first, then the
/// connections are served.
#[test]
fn s2_a_command_comes_before_ready_connections() {
    const CLIENTS: usize = 300; // more than one wait reports, so that the waker comes after them in the ready list
    let mut server = bind(&["tcp://127.7.7.4:0"], Limits::default());
    let address = sock_addr(&server.addresses()[0]);
    let clients: Vec<Socket> = (0..CLIENTS)
        .map(|_| try_connect(&address).unwrap())
        .collect();
    turn_until(&mut server, "all are accepted", |stats| {
        stats.connections_open == CLIENTS as u64
    });
    clients.iter().for_each(|client| client.say(b"ready"));
    server.handle().drain();
    assert_eq!(server.turn(None).unwrap(), Turn::Woken);
    assert_eq!(
        server.stats().bytes_out,
        0,
        "connections are served after that"
    );
    // At once, unless another test starts a child process just now, which has a copy of the listener until its exec.
    wait_until("no connection is accepted, without a turn", || {
        try_connect(&address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    assert_eq!(
        server.timeout(),
        Some(Duration::ZERO),
        "there is more to do"
    );
    turn_until(&mut server, "all are served", |stats| {
        stats.bytes_out == 5 * CLIENTS as u64
    });
    for client in &clients {
        assert_eq!(client.hear(5), b"ready");
    }
}

#[test]
fn s3_at_the_deadline_stalled_connections_are_reset_and_reported() {
    const STUCK: usize = 20;
    let flags = [
        "--stats-json",
        "-",
        "--drain-timeout",
        "500ms",
        "--fin-timeout",
        "100ms",
    ];
    let directory = Dir::new();
    let server = Serve::start(&[&directory.address("unix", "s")], &flags);
    let stuck: Vec<Socket> = (0..STUCK).map(|_| server.connect()).collect();
    for client in &stuck {
        stick(client);
    }
    let begun = Instant::now();
    let ended = server.stop(Signal::SIGTERM);
    let took = begun.elapsed();
    print_time("s3: SIGTERM to the end, with a deadline of 500 ms", took);
    assert!(
        took >= Duration::from_millis(490),
        "the deadline was kept: {took:?}"
    );
    assert!(took < Duration::from_secs(10), "and no more: {took:?}");
    assert_eq!(ended.code, 3, "{}", ended.err);
    assert!(
        ended.err.contains("echo-reactor: 20 connections cut, "),
        "{}",
        ended.err
    );
    let report: Value = serde_json::from_str(&ended.out).unwrap();
    let count = |name: &str| report[name].as_u64().unwrap();
    assert_eq!(report["closed"]["aborted"], 20);
    assert!(count("discarded") > 0);
    assert_eq!(count("bytes_in"), count("bytes_out") + count("discarded"));
}

/// The server ended after aborting one connection, and its exit code and message say so.
#[track_caller]
fn was_cut(ended: &Ended) {
    assert_eq!(ended.code, 3, "{}", ended.err);
    let said = "echo-reactor: 1 connection cut, ";
    assert!(ended.err.contains(said), "{}", ended.err);
}

#[test]
fn s3_every_model_resets_a_stalled_connection_and_the_exit_code_says_so() {
    for model in MODELS {
        let flags = [
            "--model",
            model,
            "--drain-timeout",
            "100ms",
            "--fin-timeout",
            "20ms",
        ];
        let directory = Dir::new();
        let server = Serve::start(&[&directory.address("unix", "s")], &flags);
        let stuck = server.connect();
        stick(&stuck);
        was_cut(&server.stop(Signal::SIGTERM));
    }
}

#[test]
fn s4_a_second_signal_stops_at_once() {
    for model in MODELS {
        let flags = [
            "--model",
            model,
            "--drain-timeout",
            "1h",
            "--drain-idle-timeout",
            "1h",
        ];
        let directory = Dir::new();
        let server = Serve::start(&[&directory.address("unix", "s")], &flags);
        let stuck = server.connect();
        stick(&stuck);
        server.signal(Signal::SIGTERM);
        server.says("draining 1 connection, at most 1h");
        let begun = Instant::now();
        server.signal(Signal::SIGINT);
        was_cut(&server.wait());
        print_time(
            &format!("s4: {model}, the second signal to the end"),
            begun.elapsed(),
        );
    }
}

#[test]
fn s4_two_signals_right_after_each_other_count_as_two() {
    let flags = ["--drain-timeout", "1h", "--drain-idle-timeout", "1h"];
    let directory = Dir::new();
    let server = Serve::start(&[&directory.address("unix", "s")], &flags);
    let stuck = server.connect();
    stick(&stuck);
    server.signal(Signal::SIGTERM);
    server.signal(Signal::SIGINT);
    was_cut(&server.wait());
}

#[test]
fn s5_sighup_sigpipe_and_sigusr1_end_no_connection() {
    for model in MODELS {
        let server = Serve::start(&[TCP], &["--model", model]);
        let client = server.connect();
        for _ in 0..20 {
            server.signal(Signal::SIGHUP);
            server.signal(Signal::SIGPIPE);
            server.signal(Signal::SIGUSR1);
            client.is_echoed(b"still here");
        }
        drop(client);
        assert_eq!(server.stop(Signal::SIGTERM).code, 0, "{model}");
    }
}

// --- Inherited sockets -------------------------------------------------------------------------------------------------

/// Passes these descriptors by the convention of sd_listen_fds(3), but without LISTEN_PID, which only the child could
/// set.
fn with_inherited(descriptors: Vec<OwnedFd>, arguments: &[&str]) -> Command {
    let mut command = program();
    let count = descriptors.len().to_string();
    let numbers = descriptors.into_iter().zip(3..);
    let mappings = numbers.map(|(parent_fd, child_fd)| FdMapping {
        parent_fd,
        child_fd,
    });
    command
        .arg("serve")
        .args(arguments)
        .env("LISTEN_FDS", count)
        .fd_mappings(mappings.collect())
        .unwrap();
    command
}

#[test]
fn s8_inherited_sockets_are_served_and_their_files_stay() {
    let directory = Dir::new();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let unix = UnixListener::bind(directory.path("s")).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let expected = [
        format!("tcp://{}", tcp.local_addr().unwrap()),
        directory.address("unix", "s"),
        format!("udp://{}", udp.local_addr().unwrap()),
    ];
    // One of the addresses belongs to an inherited socket, and one is new.
    let mut command = with_inherited(
        vec![tcp.into(), unix.into(), udp.into()],
        &[&expected[0], "127.0.0.1:0"],
    );
    let server = Serve::start_command(&mut command, 4);
    drop(command); // and with it this process's copies
    let told: Vec<String> = server.endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(told[..3], expected);
    for endpoint in [
        &server.endpoints[0],
        &server.endpoints[1],
        &server.endpoints[3],
    ] {
        connect(endpoint).is_echoed(b"served");
    }
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client
        .send_to(b"datagram", ip(&server.endpoints[2]))
        .unwrap();
    assert_eq!(client.recv(&mut [0; 16]).unwrap(), 8);
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    assert!(
        exists(&directory.path("s")),
        "the file belongs to the parent process"
    );
}

#[test]
fn s8_without_an_address_the_inherited_socket_is_the_only_one() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", tcp.local_addr().unwrap());
    let server = Serve::start_command(&mut with_inherited(vec![tcp.into()], &[]), 1);
    assert_eq!(server.endpoints[0].to_string(), address);
    server.connect().is_echoed(b"served");
    let ended = server.stop(Signal::SIGTERM);
    assert_eq!((ended.code, ended.out.as_str()), (0, ""));
}

#[test]
fn s8_a_descriptor_that_is_no_listener_is_refused_with_the_reason() {
    let directory = Dir::new();
    let refused = |descriptor: OwnedFd, words: &[&str]| {
        let mut command = with_inherited(vec![descriptor], &[]);
        ended(&mut command).failed(64, &[&["LISTEN_FDS: descriptor 3"], words].concat());
    };
    refused(
        File::open("/dev/null").unwrap().into(),
        &["is not a socket"],
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    refused(client.into(), &["does not listen", "Accept=no"]);
    refused(UnixDatagram::unbound().unwrap().into(), &["has no address"]);
    drop(directory);

    let variables = |variables: &[(&str, &str)], words: &[&str]| {
        let mut command = program();
        command.arg("serve").envs(variables.iter().copied());
        ended(&mut command).failed(64, words);
    };
    variables(
        &[("LISTEN_FDS", "1"), ("LISTEN_PID", "1")],
        &["LISTEN_PID is '1'", "unset"],
    );
    variables(&[("LISTEN_FDS", "many")], &["LISTEN_FDS is 'many'"]);
    // More descriptors than this process has open from that number on.
    let mut command = with_inherited(vec![listener.into()], &[]);
    ended(command.env("LISTEN_FDS", "1000"))
        .failed(64, &["LISTEN_FDS is 1000, but descriptor", "is not open"]);
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = with_inherited(vec![tcp.into()], &["--model", "threads"]);
    ended(&mut command).failed(64, &["LISTEN_FDS", "--model reactor"]);
}

#[test]
fn s8_a_service_manager_is_notified() {
    let directory = Dir::new();
    let manager = UnixDatagram::bind(directory.path("notify")).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let told = || {
        let mut bytes = [0; 256];
        let length = manager.recv(&mut bytes).expect("a message");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let mut command = program();
    command
        .args(["serve", TCP])
        .env("NOTIFY_SOCKET", directory.path("notify"));
    let server = Serve::start_command(&mut command, 1);
    assert_eq!(told(), "READY=1");
    server.signal(Signal::SIGTERM);
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(server.wait().code, 0);
}

#[test]
fn s9_killed_and_started_again_it_has_its_port_at_once() {
    let mut server = Serve::start(&["tcp://127.7.7.5:0"], &[]);
    let address = server.endpoints[0].to_string();
    let mut longest = Duration::ZERO;
    for round in 0..10 {
        let client = server.connect();
        client.is_echoed(b"in");
        drop(server); // by SIGKILL: its side sends FIN first, and stays in TIME_WAIT
        let gone = try_connect(&sock_addr(
            &address
                .parse::<echo_reactor::net::Address>()
                .unwrap()
                .resolve()
                .unwrap()[0],
        ));
        assert_eq!(gone.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(client.hear_all(), b"");
        drop(client);
        let begun = Instant::now();
        server = Serve::start(&[&address], &[]);
        longest = longest.max(begun.elapsed());
        let Endpoint::Tcp(again) = server.endpoints[0] else {
            panic!("round {round}: it is TCP");
        };
        assert_eq!(format!("tcp://{again}"), address);
        server.connect().is_echoed(b"in again");
    }
    print_time("s9: the longest start of ten", longest);
}
