//! Several workers serve as one server: addresses, limits, signals, logs, balance.

use super::{TCP, children, connect_from, raw, report, serve, workers};
use crate::support::{
    DEADLINE, Dir, Serve, Talk, connect, ended, exists, has_tool, ip, noise, program, sock_addr,
    try_connect, unless_reset, wait_until,
};
use echo_reactor::net::Endpoint;
use nix::sys::signal::{Signal, kill, killpg};
use serde_json::Value;
use socket2::Socket;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Instant;

#[test]
fn w1_three_workers_serve_every_kind_of_socket_and_report_as_one() {
    let directory = Dir::new();
    let json = directory.path("stats.json");
    let addresses = [
        TCP,
        "udp://127.0.0.1:0",
        &directory.address("unix", "s"),
        &directory.address("unixgram", "d"),
    ];
    let server = serve(3, &addresses, &["--stats-json", json.to_str().unwrap()]);
    assert_eq!(children(server.pid()).len(), 3);
    for number in 0..60 {
        for place in [0, 2] {
            let client = connect(&server.endpoints[place]);
            client.is_echoed(&noise(number, 100));
            client.finish();
            assert_eq!(client.hear_all(), b"");
        }
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client
            .send_to(b"datagram", ip(&server.endpoints[1]))
            .unwrap();
        assert_eq!(client.recv(&mut [0; 16]).unwrap(), 8);
    }
    let client = UnixDatagram::bind(directory.path("c")).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.send_to(b"by name", directory.path("d")).unwrap();
    assert_eq!(client.recv(&mut [0; 16]).unwrap(), 7);
    let counters = server.counters();
    assert_eq!((counters["accepted"], counters["datagrams_out"]), (120, 61));
    let inside = server.connect();
    inside.is_echoed(b"inside");
    server.signal(Signal::SIGTERM);
    assert_eq!(inside.hear_all(), b"", "a FIN");
    drop(inside);
    let ended = server.wait();
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(!exists(&directory.path("s")) && !exists(&directory.path("d")));
    let report: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(
        (&report["accepted"], &report["closed"]["shut_down"]),
        (&121.into(), &1.into())
    );
    assert_eq!(report["addresses"].as_array().unwrap().len(), 4);
    let rows = report["workers"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    for name in ["accepted", "bytes_in", "datagrams_in"] {
        let sum: u64 = rows.iter().map(|row| row[name].as_u64().unwrap()).sum();
        assert_eq!(report[name], sum, "{name}");
    }
    assert!(
        rows.iter().all(|row| row["accepted"].as_u64() > Some(0)),
        "each has a part"
    );
}

/// The two limits that are kept in sum by division, and the two that are kept by leading a source to one worker.
#[test]
fn w2_limits_hold_for_all_workers_together() {
    let flags = ["--max-connections", "10", "--overload", "reject"];
    let server = serve(3, &[TCP], &flags);
    let address = sock_addr(&server.endpoints[0]);
    let clients: Vec<Option<Socket>> = (0..60)
        .map(|_| unless_reset(try_connect(&address)))
        .collect();
    wait_until("all are judged", || {
        let counters = server.counters();
        counters["accepted"] + refused(&server, "limit") == 60
    });
    assert_eq!(server.counter("connections_open"), 10);
    drop(clients);

    let server = serve(
        3,
        &["tcp://0.0.0.0:0"],
        &["--max-per-prefix", "4", "--allow-public-udp"],
    );
    let Endpoint::Tcp(address) = server.endpoints[0] else {
        panic!("it is TCP");
    };
    let to = SocketAddr::from(([127, 0, 0, 1], address.port()));
    let clients: Vec<Socket> = (1..=9)
        .flat_map(|host| (0..7).map(move |_| connect_from(host, to)))
        .collect();
    wait_until("all are judged", || {
        server.counter("accepted") + refused(&server, "prefix") == 63
    });
    assert_eq!(
        server.counter("connections_open"),
        9 * 4,
        "four of each address"
    );
    drop(clients);

    let too_few = ["serve", TCP, "--workers", "3", "--max-connections", "2"];
    ended(program().args(too_few)).failed(64, &["--max-connections 2", "--workers 3"]);
    let too_slow = [
        "serve",
        "udp://127.0.0.1:0",
        "--workers",
        "3",
        "--udp-rate",
        "2",
    ];
    ended(program().args(too_slow)).failed(64, &["--udp-rate 2", "--workers 3"]);
}

/// The number of connections that were rejected for this reason.
fn refused(server: &Serve, reason: &str) -> u64 {
    server.counters();
    let err = server.err();
    let mut lines = err.lines();
    let sum = lines.rfind(|line| line.starts_with("accepted="));
    let name = format!("rejected{{{reason}}}=");
    let count = sum.and_then(|line| line.split_once(&name)?.1.split(' ').next());
    count.map_or(0, |count| count.parse().unwrap())
}

/// One address sends from many ports, which a hash of ports would lead to all workers.
#[test]
fn w2_datagrams_of_one_source_share_its_rate() {
    const RATE: u64 = 20;
    let flags = ["--udp-rate-per-source", "20", "--udp-rate", "1M"];
    let server = serve(3, &["udp://127.0.0.1:0"], &flags);
    let to = ip(&server.endpoints[0]);
    let begun = Instant::now();
    let clients: Vec<UdpSocket> = (0..40)
        .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
        .collect();
    for _ in 0..3 {
        for client in &clients {
            client.send_to(b"one", to).unwrap();
        }
    }
    wait_until("all are judged", || server.counter("datagrams_in") == 120);
    // A bucket begins full, and fills at the rate; three of them would let 60 pass at once.
    let refilled = RATE * (begun.elapsed().as_secs() + 1);
    let passed = server.counter("datagrams_out");
    assert!(
        passed >= RATE && passed <= RATE + refilled,
        "{passed} passed"
    );
    let idle = report(&server).matches(" datagrams_in=0 ").count();
    assert_eq!(idle, 2, "one worker has all of the source");
}

#[test]
fn w2_what_cannot_be_is_refused() {
    let refused = |flags: &[&str], words: &[&str]| {
        ended(program().arg("serve").args(flags)).failed(64, words);
    };
    refused(&["--workers", "0"], &["--workers", "at least one"]);
    refused(
        &["--workers", "2", "--model", "threads"],
        &["--workers", "--model reactor"],
    );
    refused(
        &["--workers", "2", "unixgram:///tmp/never"],
        &["--workers 2", "one worker"],
    );
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    ended(program().args(["serve", "--workers", "2", &address])).failed(69, &["in use"]);
}

/// A second server finds the port taken, though the first has a socket for each worker there.
#[test]
fn w2_a_second_server_cannot_join() {
    let server = serve(2, &[TCP], &[]);
    let address = server.endpoints[0].to_string();
    for flags in [&["--workers", "2"][..], &[]] {
        ended(program().args(["serve", &address]).args(flags)).failed(69, &["in use"]);
    }
    server.connect().is_echoed(b"alone");
}

/// A terminal sends SIGINT to the workers too. Twice is "at once", and counted by the master alone.
#[test]
fn w5_a_signal_to_the_whole_group_counts_once() {
    use std::os::unix::process::CommandExt;
    let flags = [
        "--workers",
        "3",
        "--drain-timeout",
        "1h",
        "--drain-idle-timeout",
        "1h",
    ];
    let mut command = program();
    command.args(["serve", TCP]).args(flags).process_group(0);
    let server = Serve::start_command(&mut command, 1);
    let client = server.connect();
    client.is_echoed(b"in");
    killpg(raw(server.pid()), Signal::SIGINT).unwrap();
    server.says("draining 3 workers, at most 1h");
    client.is_echoed(b"may finish");
    killpg(raw(server.pid()), Signal::SIGINT).unwrap();
    let ended = server.wait();
    assert_eq!(ended.code, 3, "{}", ended.err);
    assert!(
        ended.err.contains("echo-reactor: 1 connection cut, "),
        "{}",
        ended.err
    );
    assert!(!ended.err.contains("started again"), "{}", ended.err);
}

#[test]
fn w5_a_worker_that_is_stopped_is_no_reason_to_wait() {
    let server = serve(2, &[TCP], &[]);
    let stopped = children(server.pid())[0];
    kill(raw(stopped), Signal::SIGSTOP).unwrap();
    server.counters();
    server.says("no answer");
    kill(raw(stopped), Signal::SIGCONT).unwrap();
    assert_eq!(workers(&server).len(), 2);
}

/// A worker that does not react to the first two is killed by the third, and the exit code says so.
#[test]
fn w5_a_third_signal_kills() {
    let server = serve(2, &[TCP], &[]);
    let stopped = children(server.pid())[0];
    kill(raw(stopped), Signal::SIGSTOP).unwrap();
    for told in [
        "draining 2 workers",
        "stopping at once",
        "killing the workers",
    ] {
        server.signal(Signal::SIGTERM); // two that are pending at the same time would be one
        server.says(told);
        wait_until("the other one has ended", || {
            children(server.pid()).len() <= 1
        });
    }
    let ended = server.wait();
    assert_eq!(ended.code, 3, "{}", ended.err);
    assert!(ended.err.contains("1 worker killed"), "{}", ended.err);
}

#[test]
fn w5_a_service_manager_is_told_by_the_master_alone() {
    let directory = Dir::new();
    let manager = UnixDatagram::bind(directory.path("notify")).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let told = || {
        let mut bytes = [0; 256];
        let length = manager.recv(&mut bytes).expect("a message");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let mut command = program();
    command.args(["serve", TCP, "--workers", "2"]);
    command.env("NOTIFY_SOCKET", directory.path("notify"));
    let server = Serve::start_command(&mut command, 1);
    assert_eq!(told(), "READY=1");
    server.signal(Signal::SIGUSR2);
    let reloading = told();
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{reloading}"
    );
    assert_eq!(told(), "READY=1", "of the same process");
    server.signal(Signal::SIGTERM);
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(server.wait().code, 0);
}

/// Forty connections of one worker are counted by it, and lines in the log name their worker.
#[test]
fn w5_lines_of_the_log_name_their_worker() {
    let server = serve(3, &[TCP], &["-v"]);
    for _ in 0..40 {
        server.connect().is_echoed(b"logged");
    }
    for worker in 0..3 {
        server.says(&format!(" worker {worker}: "));
    }
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

/// How many connections each worker has accepted.
fn accepted_by_each(server: &Serve) -> Vec<u64> {
    let told = report(server);
    let parts = told.split([' ', '\n']).next().unwrap().split('/');
    parts.map(|part| part.parse().unwrap()).collect()
}

/// The chi-square of the parts that four workers have of 4,000 connections: with three degrees of freedom one run in a
/// thousand is above 16.27, if the kernel's hash is fair.
#[test]
fn w8_connections_are_spread_as_by_throws_of_dice() {
    const CONNECTIONS: u64 = 4_000;
    let server = serve(4, &[TCP], &[]);
    let Endpoint::Tcp(address) = server.endpoints[0] else {
        panic!("it is TCP");
    };
    let mut before = vec![0; 4];
    let mut beyond = 0;
    for run in 0..3 {
        for _ in 0..CONNECTIONS / 4 {
            drop(TcpStream::connect(address).unwrap());
        }
        wait_until("all are accepted", || {
            server.counter("accepted") == (run + 1) * CONNECTIONS / 4
        });
        let parts = accepted_by_each(&server);
        let expected = (CONNECTIONS / 16) as f64;
        let chi: f64 = parts
            .iter()
            .zip(&before)
            .map(|(now, then)| ((now - then) as f64 - expected).powi(2) / expected)
            .sum();
        println!("w8: {parts:?} chi-square {chi:.2}");
        beyond += u32::from(chi > 16.27);
        before = parts;
    }
    assert!(
        beyond < 2,
        "twice in three runs is one in three hundred thousand"
    );
    server.says("by_hashing_about=");
}

/// A short form of every part of the script.
#[test]
fn w9_the_script_shows_the_same_under_load() {
    if !has_tool("python3") {
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/workers");
    let program = env!("CARGO_BIN_EXE_echo-reactor");
    let mut command = Command::new("python3");
    command.args([script, "--quick", "--json", "--program", program]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{err}");
    println!("w9: {said}");
}
