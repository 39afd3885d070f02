//! Faults to order: `serve --delay`, `--stall`, `--drop`, `--close-after`. Bounds of time are lower ones, which hold on any
//! machine: what is ordered is the least that a client waits.

use super::support::fault::{allow, can, leave};
use super::support::{Dir, Ended, Serve, Talk, assert_same, ended, ip, noise, program, wait_until};
use nix::sys::signal::Signal;
use socket2::Socket;
use std::collections::BTreeSet;
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

const TCP: &str = "tcp://127.0.0.1:0";
const UDP: &str = "udp://127.0.0.1:0";
const MS: Duration = Duration::from_millis(1);

fn start(addresses: &[&str], flags: &str) -> Serve {
    Serve::start(addresses, &flags.split(' ').collect::<Vec<_>>())
}

/// Stops the server, which has said at its start what is ordered.
#[track_caller]
fn stop(server: Serve, warning: &str) -> Ended {
    let ended = server.stop(Signal::SIGTERM);
    let lines: Vec<&str> = ended
        .err
        .lines()
        .filter(|line| line.contains("faults are ordered"))
        .collect();
    assert_eq!(lines.len(), 1, "{}", ended.err);
    assert!(
        lines[0].contains("WARN") && lines[0].contains(warning),
        "{}",
        lines[0]
    );
    ended
}

fn udp(server: SocketAddr) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(server).unwrap();
    client
        .set_read_timeout(Some(super::support::DEADLINE))
        .unwrap();
    client
}

#[test]
fn no_answer_comes_before_the_delay_and_every_byte_does() {
    let delay = 20 * MS;
    for address in [TCP, "unix://@"] {
        let name = super::support::unique();
        let address = if address == TCP {
            TCP.to_owned()
        } else {
            format!("{address}{name}")
        };
        let server = start(&[&address], "--delay 20ms");
        let client = server.connect();
        // Requests that follow each other sooner than the delay: each is late by itself.
        let (mut sent_at, mut answered) = (Vec::new(), Vec::new());
        for number in 0..10u8 {
            sent_at.push(Instant::now());
            client.say(&[number]);
            thread::sleep(MS);
        }
        for number in 0..10u8 {
            assert_eq!(client.hear(1), [number]);
            answered.push(Instant::now());
        }
        for (sent_at, answered) in sent_at.iter().zip(&answered) {
            assert!(*answered - *sent_at >= delay, "{:?}", *answered - *sent_at);
        }
        let finished = Instant::now();
        client.say(b"the last");
        client.finish();
        assert_eq!(client.hear_all(), b"the last");
        assert!(finished.elapsed() >= delay, "a FIN is late, too");
        stop(server, "each answer is 20ms late");
    }
}

#[test]
fn a_late_stream_keeps_every_byte_for_slow_readers_and_quick_writers() {
    let server = start(&[TCP], "--delay 1ms --stall 5ms/50ms --read-buffer 4KiB");
    let sent = noise(7, 2_000_000);
    thread::scope(|scope| {
        for pause in [Duration::ZERO, 30 * MS] {
            let (client, sent) = (server.connect(), &sent);
            scope.spawn(move || {
                let writer: Socket = client.try_clone().unwrap();
                scope.spawn(move || {
                    writer.say(sent);
                    writer.finish();
                });
                thread::sleep(pause); // until all buffers are full
                assert_same(&client.hear_all(), sent);
            });
        }
    });
    let ended = stop(server, "nothing is served for 5ms of each 50ms");
    assert_eq!(ended.code, 0, "{}", ended.err);
}

#[test]
fn late_datagrams_keep_their_order_and_their_content() {
    let server = start(&[UDP], "--delay 20ms");
    let client = udp(ip(&server.endpoints[0]));
    let sent_at = Instant::now();
    for number in 0..100u8 {
        client.send(&vec![number; usize::from(number)]).unwrap();
    }
    let mut buffer = [0; 200];
    for number in 0..100u8 {
        let length = client.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..length], vec![number; usize::from(number)]);
    }
    assert!(sent_at.elapsed() >= 20 * MS);
    assert_eq!(server.counter("datagrams_out"), 100);
    stop(server, "20ms late");
}

#[test]
fn dropped_datagrams_follow_from_the_seed_and_are_counted() {
    let answered = |seed: u32| -> BTreeSet<u8> {
        let server = start(&[UDP], &format!("--drop 20% --fault-seed {seed}"));
        let client = udp(ip(&server.endpoints[0]));
        client.set_read_timeout(Some(200 * MS)).unwrap();
        for number in 0..100u8 {
            client.send(&[number]).unwrap();
        }
        let (mut answered, mut buffer) = (BTreeSet::new(), [0; 2]);
        // One socket answers in order: after the answer to a last datagram there is none to come.
        client.send(&[255]).unwrap();
        loop {
            match client.recv(&mut buffer) {
                Ok(_) if buffer[0] == 255 => break,
                Ok(_) => assert!(answered.insert(buffer[0])),
                Err(_) => client.send(&[255]).map(drop).unwrap(),
            }
        }
        let counters = server.counters();
        let injected = counters["dropped{injected}"];
        assert_eq!(
            counters["datagrams_in"],
            counters["datagrams_out"] + injected
        );
        assert!(injected >= 100 - answered.len() as u64, "{injected}");
        stop(server, "20% of datagrams get no answer");
        answered
    };
    let first = answered(7);
    assert!((50..=95).contains(&first.len()), "{}", first.len());
    assert_eq!(first, answered(7));
    assert_ne!(first, answered(8));
}

#[test]
fn a_stream_is_closed_in_order_after_so_many_bytes() {
    for delay in ["", " --delay 3ms"] {
        let server = start(
            &[TCP],
            &format!("--close-after 300000 --fin-timeout 50ms{delay}"),
        );
        let sent = noise(3, 500_000);
        let client = server.connect();
        client.is_echoed(&sent[..299_000]); // not yet
        let mut writer: Socket = client.try_clone().unwrap();
        let rest = sent[299_000..].to_vec();
        // It may be reset before it has written all, as with any server that ends early.
        let writing = thread::spawn(move || drop(writer.write_all(&rest)));
        assert_same(&client.hear_all(), &sent[299_000..300_000]);
        writing.join().unwrap();
        // A peer that does not close has the time of --fin-timeout, and one that closes none.
        wait_until("it is closed", || {
            server.counter("closed{peer_closed}") == 1
        });
        let second = server.connect();
        second.say(&sent[..300_000]);
        assert_same(&second.hear_all(), &sent[..300_000]);
        drop(second);
        wait_until("it is closed", || {
            server.counter("closed{peer_closed}") == 2
        });
        assert_eq!(server.counter("bytes_out"), 600_000);
        drop(client);
        stop(server, "each stream is closed after 300000 bytes");
    }
}

/// A client that reads late gets every byte before the end: it is a FIN, and no reset destroys what is under way.
#[test]
fn the_last_echoes_before_an_ordered_close_reach_a_slow_reader() {
    // A Unix socket holds little, so the server waits for room.
    let address = format!("unix://@{}", super::support::unique());
    let server = start(&[&address], "--close-after 3000000");
    let (client, sent) = (server.connect(), noise(5, 3_500_000));
    let mut writer: Socket = client.try_clone().unwrap();
    let bytes = sent.clone();
    let writing = thread::spawn(move || drop(writer.write_all(&bytes)));
    wait_until("it waits for room", || server.counter("unsent_bytes") > 0);
    assert_same(&client.hear_all(), &sent[..3_000_000]);
    drop(client);
    writing.join().unwrap();
    stop(server, "3000000 bytes");
}

#[test]
fn without_descriptors_and_under_a_flood_the_late_server_serves_on() {
    if !can(&["prlimit"]) {
        return;
    }
    let server = start(&[TCP, UDP], "--delay 2ms --max-connections 100");
    let client = server.connect();
    client.is_echoed(b"before");
    leave(&server, 0);
    let waiting = server.connect(); // by the kernel
    waiting.say(b"accepted later");
    wait_until("accepting pauses", || {
        server.counter("accept_errors{24}") > 0
    });
    client.is_echoed(b"meanwhile");
    allow(&server, 1_000);
    assert_eq!(waiting.hear(14), b"accepted later");

    let flood = udp(ip(&server.endpoints[1]));
    for _ in 0..50 {
        for _ in 0..200 {
            let _ = flood.send(&[0; 1_000]);
        }
        client.is_echoed(&noise(1, 10_000));
    }
    let counters = server.counters();
    assert!(counters["datagrams_out"] > 0, "{counters:?}");
    stop(server, "2ms late");
}

#[test]
fn orders_and_what_excludes_them() {
    let refused = |flags: &str, words: &[&str]| {
        let flags = flags.split(' ');
        let ended = ended(program().args(["serve", "tcp://127.0.0.1:0"]).args(flags));
        ended.failed(64, words);
    };
    let directory = Dir::new();
    let trace = directory.path("trace");
    let trace = format!("--trace {}", trace.display());
    for other in [
        "--hardened",
        "--model threads",
        "--workers 2",
        &trace,
        "--sandbox=require",
    ] {
        let name = other.split([' ', '=']).next().unwrap();
        refused(
            &format!("--drop 1% {other}"),
            &["--drop and", name, "exclude each other"],
        );
    }
    refused(
        "--close-after 9 --model iterative",
        &["--close-after and --model"],
    );
    refused(
        "--delay 2s --idle-timeout 2s",
        &["--delay 2s and --idle-timeout 2s"],
    );
    // The seed alone orders nothing.
    let server = start(&[TCP], "--fault-seed 3");
    server.connect().is_echoed(b"as ever");
    let ended = server.stop(Signal::SIGTERM);
    assert!(!ended.err.contains("faults"), "{}", ended.err);
}

/// What `bench` reports is at least what was ordered.
#[cfg(feature = "bench")]
mod measured {
    use super::*;
    use crate::bench::bench;

    /// Figures of the report have three significant digits.
    fn least(ns: u64) -> u64 {
        ns - ns / 500
    }

    #[test]
    fn the_delay_is_in_every_response_time() {
        for address in [TCP, UDP] {
            let server = start(&[address], "--delay 5ms");
            let target = server.endpoints[0].to_string();
            let ended = bench(&format!("{target} -c 8 -r 400 -d 500ms --warm-up 0"));
            ended.was_right();
            for figure in ["min", "p50", "p99"] {
                let ns = ended.number(&format!("/response_time_ns/{figure}"));
                assert!(ns >= least(5_000_000), "{figure}: {ns}");
            }
            stop(server, "5ms late");
        }
    }

    /// At an even rate a share of (100 ms - x) / 500 ms of the requests is planned so late in a stall, or so early, that it has
    /// to wait for more than x. Whole periods are measured; a twentieth less is allowed for.
    #[test]
    fn the_stall_has_its_share_of_the_response_times() {
        let server = start(&[TCP], "--stall 100ms/500ms");
        let target = server.endpoints[0].to_string();
        let ended = bench(&format!("{target} -c 4 -r 400 -d 2s --warm-up 0"));
        ended.was_right();
        // 20 % wait at all, 15 % for more than 25 ms, 10 % for more than 50 ms.
        for (figure, ms) in [("p90", 25), ("p99", 75), ("max", 90)] {
            let ns = ended.number(&format!("/response_time_ns/{figure}"));
            assert!(ns >= ms * 1_000_000, "{figure}: {ns}, of {ms} ms");
        }
        stop(server, "100ms of each 500ms");
    }

    #[test]
    fn dropped_datagrams_are_the_ones_that_are_lost() {
        let server = start(&[UDP], "--drop 10%");
        let target = server.endpoints[0].to_string();
        let ended = bench(&format!(
            "{target} -c 4 -r 500 -d 500ms --warm-up 0 --timeout 50ms"
        ));
        ended.is_accounted_for();
        assert!(
            ended.number("/requests/lost") > 0,
            "{}",
            ended.report["requests"]
        );
        assert!(server.counter("dropped{injected}") > 0);
        stop(server, "10% of datagrams");
    }
}
