//! A server with default limits, in a process that may have few descriptors, leaves some to its host.
//!
//! What may live in this file: that. The process is this test once more, under a limit that the shell sets.

use echo_reactor::Limits;
use echo_reactor::echo::Server;
use echo_reactor::net::Endpoint;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const IS_HOST: &str = "ECHO_EMBED_HOST";
/// More clients than any of the limits allows.
const CLIENTS: usize = 80;

#[test]
fn a_host_can_open_files_beside_a_server_that_is_full() {
    if std::env::var_os(IS_HOST).is_some() {
        return host();
    }
    for limit in [40, 64] {
        let this = std::env::current_exe().unwrap();
        let script = format!("ulimit -n {limit} && exec \"$0\" --nocapture");
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .arg(this)
            .env(IS_HOST, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address =
            lines.find_map(|line| Some(line.unwrap().strip_prefix("listening ")?.to_owned()));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| TcpStream::connect(address.as_deref().unwrap()).unwrap())
            .collect();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"all are connected").unwrap();
        drop(stdin);
        let said: Vec<String> = lines.map(Result::unwrap).collect();
        assert!(child.wait().unwrap().success(), "limit {limit}: {said:?}");
        drop(clients);
    }
}

fn host() {
    let server = Server::bind(["127.0.0.1:0"], Limits::default());
    let mut server = server.unwrap();
    let Endpoint::Tcp(address) = server.addresses()[0] else {
        panic!("TCP was asked for");
    };
    println!("\nlistening {address}");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    let began = Instant::now();
    // Until it is full, or the descriptors are at an end.
    while server.stats().accept_pauses == 0 {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{}",
            server.stats()
        );
        let _ = server.turn(Some(Duration::from_millis(10))).unwrap();
    }
    let (live, most) = (
        server.stats().connections_open,
        server.limits().connections_max,
    );
    assert_eq!(live, most as u64, "it is full, by its own limit");
    assert!(
        server.stats().accept_errors.is_empty(),
        "{}",
        server.stats()
    );
    let reserved = server.limits().descriptors_reserved;
    // A few may have been opened since the server counted, by the harness of this test.
    let files = (0..reserved - 4).map(|_| File::open("/dev/null"));
    let files: Result<Vec<File>, _> = files.collect();
    assert!(files.is_ok(), "{files:?}");
}
