//! T: the server as a whole, under tools that see what no test asks.

use crate::support::{DEADLINE, Dir, Serve, Talk, connect, has_tool, ip, noise, wrapped};
use nix::sys::signal::Signal;
use socket2::Socket;
use std::fs;
use std::net::UdpSocket;

const TCP: &str = "tcp://127.0.0.1:0";

/// valgrind sees every allocation of the server and who still points to it at the end: nothing may be lost, and no byte
/// be read that was never written.
#[test]
fn t3_valgrind_finds_no_leak_and_no_error() {
    if !has_tool("valgrind") {
        return;
    }
    let directory = Dir::new();
    let report = directory.path("valgrind");
    let log = format!("--log-file={}", report.display());
    let mut command = wrapped("valgrind", &["--leak-check=full", &log]);
    let addresses = [
        TCP.to_owned(),
        "udp://127.0.0.1:0".to_owned(),
        directory.address("unix", "s"),
    ];
    command.args(["serve", "-v"]).args(&addresses);
    let server = Serve::start_command(&mut command, addresses.len());
    for place in [0, 2] {
        let clients: Vec<Socket> = (0..100)
            .map(|_| connect(&server.endpoints[place]))
            .collect();
        for (number, client) in (0..).zip(&clients) {
            client.is_echoed(&noise(number, 1_000));
        }
        // One is owed bytes, one resets, and the others leave as they like.
        clients[0].push();
        clients.into_iter().skip(1).step_by(2).for_each(Talk::reset);
    }
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    datagrams.set_read_timeout(Some(DEADLINE)).unwrap();
    datagrams.connect(ip(&server.endpoints[1])).unwrap();
    datagrams.send(b"by datagram").unwrap();
    assert_eq!(datagrams.recv(&mut [0; 16]).unwrap(), 11);
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    let report = fs::read_to_string(report).unwrap();
    for lost in ["definitely lost:", "indirectly lost:", "possibly lost:"] {
        let clean = report.contains("All heap blocks were freed")
            || report.contains(&format!("{lost} 0 bytes"));
        assert!(clean, "{lost}\n{report}");
    }
    assert!(report.contains("ERROR SUMMARY: 0 errors"), "{report}");
    let told = report
        .lines()
        .filter(|line| line.contains("total heap usage") || line.contains("still reachable"));
    told.for_each(|line| println!("{line}"));
}
