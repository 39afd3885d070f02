//! T: the whole of it, under tools that see what no test asks. T1's matrix over the simulated network is
//! `src/testing/torture.rs`, T2 is `src/testing/simulation.rs`; here are those of the program on the real kernel.

use crate::support::fault::figure;
use crate::support::{DEADLINE, Dir, Serve, Talk, connect, has_tool, ip, noise, program, wrapped};
use nix::sys::signal::Signal;
use socket2::Socket;
use std::fs;
use std::net::UdpSocket;
use std::process::Command;

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

/// The real soak takes half an hour and more; this one shows that it works, and that six seconds are good.
#[test]
fn t4_a_short_soak() {
    if !has_tool("python3") {
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/soak");
    let binary = program();
    let output = Command::new("python3")
        .args([script, "--minutes", "0.1", "--binary"])
        .arg(binary.get_program())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("soak: good"), "{out}");
    figure(&format!("t4: {}", out.lines().last().unwrap_or_default()));
}
