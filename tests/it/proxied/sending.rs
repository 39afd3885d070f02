//! Headers that `send` and `bench` write, read by `serve`.

use super::{TCP, counter, start};
use crate::support::{Dir, Ended, Serve, ended, program, unique, wait_until};
use serde_json::Value;

#[track_caller]
fn run(command: &str, server: &Serve, arguments: &[&str]) -> Ended {
    let address = server.endpoints[0].to_string();
    let mut program = program();
    program.arg(command).arg(address).args(arguments);
    ended(&mut program)
}

/// Runs `bench`, which may say that this machine was too busy for its figures.
#[track_caller]
fn bench(server: &Serve, line: &str) -> Ended {
    let arguments: Vec<&str> = line.split(' ').collect();
    let ended = run("bench", server, &arguments);
    assert!([0, 4].contains(&ended.code), "{ended:?}");
    ended
}

#[test]
fn send_declares_any_client() {
    let server = start(&["-v"]);
    for (header, connected) in [
        ("v1", "Connected by 127.0.0.1:"),
        ("v2", "Connected by 127.0.0.1:"),
        ("v2,local", "Connected by 127.0.0.1:"),
        ("v1,local", "Connected by 127.0.0.1:"),
        (
            "v1,203.0.113.7:56324,192.0.2.1:443",
            "Connected by 203.0.113.7:56324, through the proxy 127.0.0.1:",
        ),
        (
            "v2,[2001:db8::7]:1,[2001:db8::1]:2",
            "Connected by [2001:db8::7]:1, through the proxy 127.0.0.1:",
        ),
    ] {
        let before = server.err().matches(connected).count();
        let sent = run("send", &server, &["--proxy", header, "one", "two"]);
        assert_eq!((sent.code, sent.err.as_str()), (0, ""), "{header}");
        assert_eq!(sent.out, "Received 'one'\nReceived 'two'\n");
        wait_until(header, || {
            server.err().matches(connected).count() == before + 1
        });
    }
    let streamed = run("send", &server, &["-q", "--proxy", "v2", "-"]);
    assert_eq!((streamed.code, streamed.err.as_str()), (0, ""));
    let plain = run("send", &server, &[]);
    assert!(plain.code != 0 && plain.err.contains("reset"), "{plain:?}");
    assert_eq!(counter(&server, "proxy_headers"), 7);
}

#[test]
fn send_declares_names_of_unix_sockets() {
    let directory = Dir::new();
    let address = directory.address("unix", "echo");
    let flags = ["--proxy-protocol", "require", "--proxy-from", "unix", "-v"];
    let server = Serve::start(&[&address], &flags);
    let source = format!("@{}", unique());
    for header in ["v1", "v2"] {
        let sent = run("send", &server, &["--proxy", header, "--source", &source]);
        assert_eq!((sent.code, sent.err.as_str()), (0, ""), "{header}");
    }
    let own = format!("Connected by unix:{source}\n");
    assert_eq!(server.err().matches(&own).count(), 2, "{}", server.err());
    assert_eq!(counter(&server, "proxy_headers"), 2);
}

#[test]
fn what_has_no_header_or_no_version_is_refused() {
    for (arguments, words) in [
        ("udp://127.0.0.1:7 --proxy v2", "datagrams have no header"),
        ("127.0.0.1:7 --proxy v3", "v2,203.0.113.7:56324"),
        ("127.0.0.1:7 --proxy v2,1.2.3.4:5,[::1]:6", "one family"),
    ] {
        let mut send = program();
        send.arg("send").args(arguments.split(' '));
        ended(&mut send).failed(64, &[words]);
    }
    let mut bench = program();
    bench.args(["bench", "udp://127.0.0.1:7", "--proxy", "v1"]);
    ended(&mut bench).failed(64, &["datagrams have no header"]);
}

/// The header is no request: what the server reads behind it is payload alone, whole requests of it.
#[test]
fn each_connection_of_bench_begins_with_a_header() {
    let server = start(&[]);
    for (line, connections) in [
        ("-c 10 -n 500 -s 100 --proxy v1", 10),
        ("-c 10 -n 500 -s 100 --pipeline 4 --proxy v2", 10),
        ("-c 5 -n 100 -s 100 --churn reset --proxy v2", 100),
        ("-c 8 -n 400 -s 100 --workers 2 --proxy v2", 8),
    ] {
        let before = server.counters();
        let answer = bench(&server, &format!("{line} --format json"));
        let record: Value = serde_json::from_str(&answer.out).unwrap();
        let version = line.split(' ').next_back().unwrap();
        assert_eq!(record["plan"]["proxy"], version);
        let after = server.counters();
        let grown = |name: &str| after[name] - before[name];
        assert_eq!(grown("proxy_headers"), connections, "{line}");
        assert_eq!(grown("accepted"), connections, "{line}");
        assert_eq!(grown("bytes_in") % 100, 0, "{line}");
        assert!(grown("bytes_in") >= 100 * record["echoes"].as_u64().unwrap());
        assert_eq!(after.get("closed{proxy_header}"), None, "{line}");
    }
}

#[test]
fn badly_behaved_clients_come_through_the_balancer_too() {
    let server = start(&[]);
    let bad = "slow-reader=1,reset=2,slowloris=2,half-close=2";
    bench(
        &server,
        &format!("-c 4 -d 500ms --warm-up 0 -q --proxy v2 --bad-clients {bad}"),
    );
    let counters = server.counters();
    assert!(counters["accepted"] > 11, "{counters:?}");
    assert_eq!(counters.get("closed{proxy_header}"), None, "{counters:?}");
}

/// The server that `bench` starts for itself reads the headers that it is sent.
#[test]
fn a_server_of_bench_requires_headers() {
    let unix = format!("unix://@{}", unique());
    for address in [TCP, &unix] {
        let mut bench = program();
        bench.args(["bench", "--serve", address, "--proxy", "v2"]);
        let answer = ended(bench.args(["-c", "4", "-n", "100", "-q"]));
        assert!([0, 4].contains(&answer.code), "{answer:?}");
        assert!(answer.out.contains(", PROXY headers v2"), "{answer:?}");
    }
}
