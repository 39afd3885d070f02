//! `serve --reply identity`: who has answered, over streams and datagrams, and that clients of any kind leave the others alone.

use super::datagrams::udp;
use super::support::fault::{Forger, can, in_own_network, leave};
use super::support::{
    DEADLINE, Dir, Serve, Talk, connect, ended, ip, noise, program, unique, wait_until,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use socket2::Socket;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::Duration;

const TCP: &str = "tcp://127.0.0.1:0";
const UDP: &str = "udp://127.0.0.1:0";

/// A server with the variables that echo-basic has in a pod.
#[track_caller]
fn start(addresses: &[&str], flags: &str) -> Serve {
    let mut command = program();
    command.args(["serve", "--reply", "identity"]);
    command.args(addresses).args(flags.split_whitespace());
    command
        .env("NAMESPACE", "default")
        .env("POD_NAME", "echo-0");
    command
        .env("SERVICE_NAME", "echo")
        .env_remove("INGRESS_NAME");
    Serve::start_command(&mut command, addresses.len())
}

fn parsed(answer: &[u8]) -> Value {
    serde_json::from_slice(answer).expect("an answer is JSON")
}

/// The answer to this request of this peer.
fn expected(request: &str, peer: &str) -> Value {
    json!({
        "request": request, "namespace": "default", "ingress": "", "service": "echo", "pod": "echo-0", "peer": peer
    })
}

fn peer(client: &Socket) -> String {
    let address = client.local_addr().unwrap();
    let ip = address.as_socket().map(|address| address.to_string());
    ip.unwrap_or_else(|| "unix:".to_owned())
}

/// The next answer.
#[track_caller]
fn hear(client: &Socket) -> Value {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.extend(client.hear(1));
    }
    parsed(&line)
}

#[track_caller]
fn is_answered(client: &Socket, request: &str) {
    client.say(format!("{request}\n").as_bytes());
    assert_eq!(hear(client), expected(request, &peer(client)));
}

// --- Answers ---------------------------------------------------------------------------------------------------------------

#[test]
fn each_line_of_a_stream_is_answered_in_order() {
    let server = start(&[TCP, &format!("unix://@{}", unique())], "-v");
    let mut sent = 0;
    for endpoint in &server.endpoints {
        let client = connect(endpoint);
        is_answered(&client, "who?");
        is_answered(&client, "");
        let pipelined = b"one\r\ntwo\n\xff\n\"\\\t\nthe last";
        client.say(pipelined);
        client.finish();
        let answers = client.hear_all();
        let answers: Vec<Value> = answers
            .split_inclusive(|&byte| byte == b'\n')
            .map(parsed)
            .collect();
        let requests = ["one", "two", "\u{fffd}", "\"\\\t", "the last"];
        assert_eq!(
            answers,
            requests.map(|request| expected(request, &peer(&client)))
        );
        sent += 6 + pipelined.len() as u64;
    }
    let counters = server.counters();
    assert_eq!((counters["bytes_in"], counters["unsent_bytes"]), (sent, 0));
    assert_eq!(counters["bytes_out"], sent + counters["bytes_added"]);
    assert_eq!(counters["closed{peer_closed}"], 2);
    server.says(r"Received 5 bytes from 127.0.0.1:");
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

#[test]
fn a_line_may_be_cut_at_any_byte() {
    let server = start(&[TCP], "--sandbox");
    let line = "a line of several segments";
    for place in 1..line.len() {
        let client = server.connect();
        client.set_tcp_nodelay(true).unwrap();
        client.say(&line.as_bytes()[..place]);
        thread::yield_now();
        client.say(&line.as_bytes()[place..]);
        client.say(b"\n");
        assert_eq!(hear(&client), expected(line, &peer(&client)), "{place}");
    }
}

#[test]
fn a_line_that_is_too_long_is_told_so_and_the_next_one_is_answered() {
    let server = start(&[TCP], "");
    let client = server.connect();
    for length in [4_096, 4_097, 100_000] {
        let line = "x".repeat(length);
        client.say(format!("{line}\n").as_bytes());
        let answer = hear(&client);
        match length {
            4_096 => assert_eq!(answer, expected(&line, &peer(&client))),
            _ => {
                assert_eq!(answer["error"], "the request is longer than 4096 bytes");
                assert_eq!(
                    (&answer["request"], &answer["pod"]),
                    (&json!(""), &json!("echo-0"))
                );
            }
        }
        is_answered(&client, "next");
    }
    assert_eq!(server.counter("discarded"), 4_098 + 100_001);
}

#[test]
fn each_datagram_is_answered_by_one() {
    let directory = Dir::new();
    let server = start(&[UDP, &directory.address("unixgram", "s")], "--sandbox");
    let client = udp("127.0.0.1:0", ip(&server.endpoints[0]));
    let request = format!("who?{}", " ".repeat(100));
    client.send(request.as_bytes()).unwrap();
    let mut answer = [0; 1_000];
    let length = client.recv(&mut answer).unwrap();
    let peer = client.local_addr().unwrap().to_string();
    assert_eq!(parsed(&answer[..length]), expected(&request, &peer));

    // The source of a Unix datagram cannot be forged, so that a short one has an answer too.
    let client = UnixDatagram::bind(directory.path("c")).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.send_to(b"who?\n", directory.path("s")).unwrap();
    let length = client.recv(&mut answer).unwrap();
    let peer = format!("unix:{}", directory.path("c").display());
    assert_eq!(parsed(&answer[..length]), expected("who?\n", &peer));
    assert_eq!(server.counter("datagrams_out"), 2);
}

// --- Amplification ---------------------------------------------------------------------------------------------------------

/// RFC 9000, section 8.1: three times the bytes that came, and no more.
#[test]
fn an_answer_over_udp_is_three_times_the_request_at_most() {
    let server = start(&[UDP], "");
    let client = udp("127.0.0.1:0", ip(&server.endpoints[0]));
    let mut shortest = None;
    for length in 0..120 {
        client.send(&vec![b'x'; length]).unwrap();
        // A long one is answered for certain, and tells that the short one has had its turn.
        client.send(&[b'y'; 400]).unwrap();
        let mut answer = [0; 1_000];
        let mut received = client.recv(&mut answer).unwrap();
        if answer[12] == b'x' || length == 0 && received < 300 {
            assert!(received <= 3 * length, "{received} for {length}");
            shortest = shortest.or(Some(length));
            received = client.recv(&mut answer).unwrap();
        } else {
            assert_eq!(shortest, None, "{length} has no answer");
        }
        assert!(received > 400);
    }
    let shortest = shortest.expect("there is a length that is answered");
    assert!((50..70).contains(&shortest), "{shortest}");
    let counters = server.counters();
    assert_eq!(counters["dropped{amplification}"], shortest as u64);
    assert_eq!(
        counters["datagrams_in"],
        counters["datagrams_out"] + shortest as u64
    );
}

#[test]
fn forged_sources_are_filtered_as_before() {
    if !can(&["ip"]) {
        return;
    }
    in_own_network(&["10.0.0.1/8"], || {
        let server = start(
            &["udp://10.0.0.1:0"],
            "--allow-public-udp --udp-rate-per-source 5 --deny 10.9.0.0/16",
        );
        let SocketAddr::V4(own) = ip(&server.endpoints[0]) else {
            panic!("IPv4 was asked for")
        };
        let (forger, request) = (Forger::new(), [b'x'; 300]);
        let source = |last, port| SocketAddrV4::new(Ipv4Addr::new(10, last, 7, 7), port);
        for (source, bytes) in [
            (source(7, 53), &request[..]),
            (own, &request),
            (source(9, 40_000), &request),
            (source(7, 40_000), &request[..10]),
        ] {
            assert!(forger.send(source, own, bytes));
        }
        for _ in 0..100 {
            assert!(forger.send(source(8, 40_000), own, &request));
        }
        wait_until("all are received", || server.counter("datagrams_in") == 104);
        let counters = server.counters();
        for reason in ["service_port", "own_port", "denied", "amplification"] {
            assert_eq!(counters[&format!("dropped{{{reason}}}")], 1, "{reason}");
        }
        assert!(counters["dropped{source_rate}"] >= 80, "{counters:?}");
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    });
}

/// An echo server behind a forged source: each answer would be answered by a longer one.
#[test]
fn a_loop_of_two_servers_ends() {
    if !can(&["ip"]) {
        return;
    }
    in_own_network(&["10.0.0.1/8"], || {
        let servers = ["10.0.0.1", "10.0.0.2"]
            .map(|ip| start(&[&format!("udp://{ip}:0")], "--allow-public-udp"));
        let [one, other] =
            [&servers[0], &servers[1]].map(|server| match ip(&server.endpoints[0]) {
                SocketAddr::V4(address) => address,
                SocketAddr::V6(_) => panic!("IPv4 was asked for"),
            });
        assert!(Forger::new().send(other, one, &[b'x'; 300]));
        let count = || {
            servers
                .iter()
                .map(|server| server.counter("datagrams_in"))
                .sum::<u64>()
        };
        let mut last = 0;
        wait_until("no datagram is under way", || {
            let before = std::mem::replace(&mut last, count());
            thread::sleep(Duration::from_millis(200));
            before > 0 && before == last
        });
        let dropped = ["error", "amplification", "loop", "source_rate"];
        let is_dropped = |server: &Serve| {
            let counters = server.counters();
            dropped
                .iter()
                .any(|reason| counters.contains_key(&format!("dropped{{{reason}}}")))
        };
        assert!(servers.iter().any(is_dropped), "it ends with a reason");
    });
}

// --- Clients that are slow, many, or gone ----------------------------------------------------------------------------------

/// Sends empty lines until the socket would block. Returns how many.
fn push_lines(mut client: &Socket) -> usize {
    client.set_nonblocking(true).unwrap();
    let lines = b"\n".repeat(16 * 1024);
    let pushed = std::iter::from_fn(|| client.write(&lines).ok()).sum();
    client.set_nonblocking(false).unwrap();
    pushed
}

/// Clients that ask for far more than they read hold a bounded amount, and the others do not wait for them.
#[test]
fn slow_readers_hold_little_and_do_not_hold_up_other_clients() {
    let server = start(&[TCP], "--send-buffer 16KiB --receive-buffer 16KiB");
    let good = server.connect();
    is_answered(&good, "before");
    let slow: Vec<Socket> = (0..50).map(|_| server.connect()).collect();
    let mut quiet = 0;
    wait_until("no client can send any more", || {
        let pushed: usize = slow.iter().map(push_lines).sum();
        quiet = if pushed == 0 { quiet + 1 } else { 0 };
        quiet == 20
    });
    is_answered(&good, "meanwhile");
    let unsent = server.counter("unsent_bytes");
    let each = 4_097 + 4_096 + 25_000; // requests of one read, and one batch of answers
    assert!(unsent > 0 && unsent <= 50 * each, "{unsent}");
    // One of them reads after all.
    for _ in 0..1_000 {
        assert_eq!(hear(&slow[0]), expected("", &peer(&slow[0])));
    }
    slow.into_iter().for_each(Talk::reset);
    wait_until("they are gone", || server.counter("connections_open") == 1);
    assert_eq!(server.counter("unsent_bytes"), 0);
    is_answered(&good, "afterwards");
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

#[test]
fn without_descriptors_what_is_open_is_answered() {
    if !can(&["prlimit"]) {
        return;
    }
    let server = start(&[TCP], "--idle-timeout 500ms");
    let good = server.connect();
    is_answered(&good, "before");
    leave(&server, 8);
    let flood: Vec<Socket> = (0..40).map(|_| server.connect()).collect();
    flood.iter().for_each(|client| client.say(b"half a line"));
    let late = server.connect();
    late.say(b"late\n");
    is_answered(&good, "meanwhile");
    // Its answer comes when those before it have had their time.
    assert_eq!(hear(&late), expected("late", &peer(&late)));
    wait_until("each has had its time", || {
        server.counter("closed{idle}") >= 40
    });
    let counters = server.counters();
    assert!(counters["accept_errors{24}"] > 0);
    assert_eq!(counters["discarded"], 40 * 11);
}

#[test]
fn a_flood_of_requests_leaves_other_connections_their_turn() {
    let server = start(&[TCP, UDP], "--max-connections 20");
    let good = server.connect();
    thread::scope(|scope| {
        let (server, sent) = (&server, b"\n".repeat(2_000_000));
        let flood = server.connect();
        let writer = flood.try_clone().unwrap();
        scope.spawn(move || {
            writer.say(&sent);
            writer.finish();
        });
        let answers = scope.spawn(move || {
            let bytes = flood.hear_all();
            bytes.iter().filter(|&&byte| byte == b'\n').count()
        });
        let datagrams = udp("127.0.0.1:0", ip(&server.endpoints[1]));
        for number in 0..200 {
            datagrams.send(&[b'x'; 1_000]).unwrap();
            is_answered(&good, &format!("request {number}"));
        }
        assert_eq!(answers.join().unwrap(), 2_000_000);
    });
    let crowd: Vec<Socket> = (0..40).map(|_| server.connect()).collect();
    is_answered(&good, "beside a crowd");
    drop(crowd);
    assert!(server.counter("budget_yields") > 100);
    assert!(server.counter("connections_open_peak") <= 20);
}

/// SIGTERM while requests are under way: what was read is answered, and then comes the FIN.
#[test]
fn a_drain_answers_and_ends() {
    let server = start(&[TCP], "--drain-timeout 20s --drain-idle-timeout 100ms");
    let clients: Vec<Socket> = (0..20).map(|_| server.connect()).collect();
    for client in &clients {
        client.say(&[&b"who?\n".repeat(100)[..], b"half"].concat());
    }
    wait_until("all is read", || server.counter("bytes_in") == 20 * 504);
    server.signal(Signal::SIGTERM);
    for client in &clients {
        let answers = client.hear_all();
        let answers: Vec<Value> = answers
            .split_inclusive(|&byte| byte == b'\n')
            .map(parsed)
            .collect();
        assert_eq!(answers, vec![expected("who?", &peer(client)); 100]);
        client.finish();
    }
    assert_eq!(server.wait().code, 0);
}

#[test]
fn bytes_that_are_no_text_are_answered_line_by_line() {
    let server = start(&[TCP], "");
    let client = server.connect();
    let sent = noise(3, 300_000);
    let writer = client.try_clone().unwrap();
    thread::scope(|scope| {
        let sent = &sent;
        scope.spawn(move || {
            writer.say(sent);
            writer.finish();
        });
        let answers = client.hear_all();
        let lines = sent.split_inclusive(|&byte| byte == b'\n');
        let answers = answers.split_inclusive(|&byte| byte == b'\n');
        let mut count = 0;
        for (line, answer) in lines.clone().zip(answers) {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            assert_eq!(parsed(answer)["request"], *String::from_utf8_lossy(line));
            count += 1;
        }
        assert_eq!(count, lines.count());
    });
}

// --- Beside other flags ----------------------------------------------------------------------------------------------------

#[test]
fn workers_answer_too_and_metrics_have_what_answers_add() {
    let server = start(&[TCP], "--workers 2");
    for _ in 0..4 {
        is_answered(&server.connect(), "who?");
    }
    wait_until("all is counted", || server.counter("bytes_in") == 4 * 5);
    assert!(server.counter("bytes_added") > 4 * 80);
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

#[test]
fn the_peer_is_the_client_that_a_proxy_declares() {
    let server = start(
        &[TCP],
        "-v --proxy-protocol require --proxy-from 127.0.0.0/8",
    );
    let client = server.connect();
    client.say(b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nwho?\nand");
    assert_eq!(hear(&client), expected("who?", "192.0.2.1:56324"));
    client.say(b" now?\n");
    assert_eq!(hear(&client), expected("and now?", "192.0.2.1:56324"));
    server.says("Received 8 bytes from 127.0.0.1:");
}

#[test]
fn what_is_for_echoes_alone_is_refused_with_a_remedy() {
    for (flags, words) in [
        (
            "--trace -",
            "--reply identity and --trace exclude each other",
        ),
        (
            "--delay 5ms",
            "--reply identity and --delay exclude each other",
        ),
        (
            "--close-after 9",
            "--reply identity and --close-after exclude each other",
        ),
        ("--model threads", "--reply identity needs --model reactor"),
    ] {
        for print in ["", "--print-config"] {
            let mut command = program();
            command.args(["serve", "--reply", "identity", TCP]);
            command
                .args(flags.split(' '))
                .args(print.split_whitespace());
            ended(&mut command).failed(64, &[words]);
        }
    }
    let mut command = program();
    command
        .args(["serve", "--print-config"])
        .env("ECHO_REACTOR_SERVE_REPLY", "identity");
    let printed = ended(&mut command);
    let line = printed.out.lines().find(|line| line.starts_with("reply "));
    let line = line.expect("it is a flag like any other");
    assert!(
        line.contains("identity") && line.contains("ECHO_REACTOR_SERVE_REPLY"),
        "{line}"
    );
}
