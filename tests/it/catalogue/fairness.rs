//! F: no connection takes the whole turn. That each turn serves every ready connection is counted in the simulated
//! network (`src/simulation/catalogue.rs`); how long a ping takes beside busy connections is measured by
//! `scripts/fairness`. Here are the rows that need the real kernel.

use crate::support::fault::figure;
use crate::support::{Noise, Serve, Talk, assert_same, noise, wait_until};
use nix::sys::signal::Signal;
use socket2::Socket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const TCP: &str = "tcp://127.0.0.1:0";

#[test]
fn f1_a_ping_beside_eight_busy_connections() {
    let server = Serve::start(&[TCP], &[]);
    let (pushed, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let clients: Vec<Socket> = (0..8).map(|_| server.connect()).collect();
    thread::scope(|scope| {
        for client in &clients {
            scope.spawn(|| {
                let mut piece = vec![0; 128 << 10];
                Noise::new(1).fill(&mut piece);
                while !done.load(Ordering::Relaxed) {
                    client.say(&piece);
                }
                client.finish();
            });
            scope.spawn(|| {
                let (mut expected, mut place) = (vec![0; 128 << 10], 0);
                Noise::new(1).fill(&mut expected);
                let mut buffer = vec![0; 64 << 10];
                while let Ok(count @ 1..) = std::io::Read::read(&mut &*client, &mut buffer) {
                    for &byte in &buffer[..count] {
                        assert_eq!(byte, expected[place % expected.len()]);
                        place += 1;
                    }
                    pushed.fetch_add(count as u64, Ordering::Relaxed);
                }
            });
        }
        wait_until("they are busy", || {
            pushed.load(Ordering::Relaxed) > 16 << 20
        });
        let pinger = server.connect();
        let mut times = Vec::new();
        for number in 0..200 {
            let began = Instant::now();
            pinger.is_echoed(&noise(number, 64));
            times.push(began.elapsed());
            thread::sleep(Duration::from_millis(1));
        }
        done.store(true, Ordering::Relaxed);
        times.sort_unstable();
        figure(&format!(
            "f1: beside eight busy connections, 200 pings in {:.2?}, 99 % in {:.2?}, the longest {:.2?}",
            times[100], times[198], times[199]
        ));
        // Seventeen threads of this test share the processors with the server, so the bound shows no more than that no
        // connection starves.
        assert!(times[198] < Duration::from_secs(2), "{:?}", times[198]);
    });
    drop(clients);
    wait_until("all are closed", || server.counter("connections_open") == 0);
    assert!(server.counter("budget_yields") > 0);
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

/// The process is stopped for longer than its idle timeout. When it continues, the bytes that arrived meanwhile are
/// read before any timeout is judged.
#[test]
fn f4_a_process_that_was_stopped() {
    const CLIENTS: usize = 50;
    let server = Serve::start(&[TCP], &["--idle-timeout", "1s"]);
    let clients: Vec<Socket> = (0..CLIENTS).map(|_| server.connect()).collect();
    clients.iter().for_each(|client| client.is_echoed(b"in"));
    server.signal(Signal::SIGSTOP);
    for (number, client) in clients.iter().enumerate() {
        client.say(&noise(number as u64, 1_000));
    }
    thread::sleep(Duration::from_secs(2));
    server.signal(Signal::SIGCONT);
    for (number, client) in clients.iter().enumerate() {
        assert_same(&client.hear(1_000), &noise(number as u64, 1_000));
    }
    let counters = server.counters();
    assert_eq!(counters["bytes_out"], (CLIENTS * 1_002) as u64);
    wait_until("they are closed as idle afterwards", || {
        server.counter("closed{idle}") == CLIENTS as u64
    });
}
