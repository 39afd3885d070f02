//! What connections cost, as the program reports it: rows at powers of ten, and preallocation.
//!
//! That the figures are small is measured by `scripts/measure.py memory` and `scripts/million`, on the release build;
//! these tests check that the figures are reported, that they are consistent, and that preallocated memory is there.

use crate::support::{Dir, Serve, Talk, ended, program, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;
use socket2::Socket;

const TCP: &str = "tcp://127.0.0.1:0";

fn connect_many(server: &Serve, count: usize) -> Vec<Socket> {
    let clients: Vec<Socket> = (0..count).map(|_| server.connect()).collect();
    clients.iter().for_each(|client| client.is_echoed(b"one"));
    clients
}

#[test]
fn a_row_is_reported_at_every_power_of_ten() {
    let directory = Dir::new();
    let json = directory.path("stats.json");
    let flags = [
        "--stats-json",
        json.to_str().unwrap(),
        "--preallocate",
        "5k",
    ];
    let server = Serve::start(&[TCP], &flags);
    let clients = connect_many(&server, 120);
    server.signal(Signal::SIGUSR1);
    server.says("memory{120} ");
    let said = server.err();
    let row = |line: &&str| line.starts_with("memory{");
    let rows: Vec<&str> = said.lines().filter(row).collect();
    // Many connections may arrive in one turn, so a row may count a few more than its power of ten.
    assert_eq!(rows.len(), 3, "{said}");
    for name in [
        "rss_bytes",
        "slot_bytes",
        "write_buffer_bytes",
        "kernel_bytes",
        "tcp_buffer_bytes",
        "turn_us_max",
    ] {
        let figure = format!(" {name}=");
        assert!(
            rows.iter().all(|row| row.contains(&figure)),
            "{name}: {said}"
        );
    }
    drop(clients);
    wait_until("they are closed", || {
        server.counter("connections_open") == 0
    });
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);

    let report: Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let rows = report["memory"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "no row when the number falls: {report}");
    for (row, least) in rows.iter().zip([10, 100]) {
        let number = |name: &str| row[name].as_u64().unwrap();
        let connections = number("connections");
        assert!((least..=120).contains(&connections), "{row}");
        // One slot more is the listener's.
        let each = number("slot_bytes") / (connections + 1);
        assert_eq!(number("slot_bytes"), each * (connections + 1));
        assert!(
            number("slot_bytes_room") >= each * 5_000,
            "the preallocated slots are there: {row}"
        );
        assert_eq!(number("write_buffer_bytes"), 0);
    }
    assert!(
        report["turn_us_max"].as_u64().unwrap() > 0,
        "a turn that accepts takes a microsecond"
    );
}

#[test]
fn preallocation_grows_the_kernels_descriptor_table_too() {
    let table = |flags: &[&str]| {
        let server = Serve::start(&[TCP], flags);
        let descriptors = server.descriptors().len();
        let size = server.status("FDSize");
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
        (descriptors, size)
    };
    // A child's descriptor table begins as large as its parent's must be at the fork, and other tests of this process may
    // hold thousands of connections: so the servers are started by a process in which this test is alone.
    if std::env::var_os("ECHO_ALONE").is_none() {
        let alone = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "memory::preallocation_grows_the_kernels_descriptor_table_too",
            ])
            .env("ECHO_ALONE", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&alone.stdout);
        assert!(
            alone.status.success() && said.contains("1 passed"),
            "{said}"
        );
        return;
    }
    let (open, size) = table(&[]);
    assert!(size < 700, "{size}");
    let reserved = table(&["--preallocate", "700", "--max-connections", "700"]);
    let (open_reserved, size) = reserved;
    assert!(size >= 700, "{size}");
    assert_eq!(
        open, open_reserved,
        "the descriptor that grew the table is closed again"
    );
}

#[test]
fn preallocating_more_than_the_connection_limit_is_no_mistake() {
    let server = Serve::start(&[TCP], &["--max-connections", "20", "--preallocate", "4M"]);
    connect_many(&server, 10);
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    let refused = ended(program().args(["serve", TCP, "--preallocate", "5M"]));
    refused.failed(64, &["--preallocate 5000000", "0 to 4000000"]);
}
