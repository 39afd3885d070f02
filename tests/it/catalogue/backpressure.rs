//! B: clients that send and do not read, shortage of memory, messages of every size.

use crate::support::fault::{LittleMemory, can, figure, kept, sh, traced};
use crate::support::{
    Dir, Model, Noise, Running, Serve, Talk, assert_same, connect, noise, stick, stuff, wait_until,
};
use echo_reactor::Limits;
use echo_reactor::stats::CloseReason;
use nix::sys::signal::Signal;
use socket2::Socket;
use std::thread;
use std::time::{Duration, Instant};

const TCP: &str = "tcp://127.0.0.1:0";

/// Memory that one client that sends and never reads makes the server's side hold, in bytes: the kernel's, and the
/// server's.
#[track_caller]
fn pinned_by_a_client_that_never_reads(flags: &[&str]) -> (u64, u64) {
    let server = Serve::start(&[TCP], flags);
    let other = server.connect();
    let never_reads = [server.connect()];
    // Such a client would send a gigabyte if it could; the buffers are full long before.
    stuff(&never_reads);
    let sockets = kept(&server.endpoints[0]);
    let kernel = sockets.iter().map(|kept| kept.memory).max().unwrap();
    let ours = server.counter("unsent_bytes_peak");
    other.is_echoed(b"served on");
    drop((never_reads, other));
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    (kernel, ours)
}

#[test]
fn b1_client_that_never_reads() {
    if !can(&["ss"]) {
        return;
    }
    let (kernel, ours) = pinned_by_a_client_that_never_reads(&[]);
    figure(&format!(
        "b1: plain: {kernel} bytes in the kernel and {ours} in the server"
    ));
    assert!(ours <= 64 << 10, "{ours}");
    let (kernel, ours) = pinned_by_a_client_that_never_reads(&["--hardened"]);
    figure(&format!(
        "b1: hardened: {kernel} bytes in the kernel and {ours} in the server"
    ));
    assert!(ours <= 16 << 10, "{ours}");
    assert!(kernel <= 80_000, "{kernel}");
}

/// A hundred clients that never read, under a limit of 4 MB for TCP; five thousand under 64 MB with `ECHO_FULL=1`. A
/// client that reads is served meanwhile, and the stalled ones are reset when they have taken nothing for a second.
#[test]
fn b2_many_stalled_clients_under_a_limit_of_memory() {
    if !can(&[]) {
        return;
    }
    let (count, limit) = match std::env::var_os("ECHO_FULL") {
        Some(_) => (5_000, 64 << 20),
        None => (100, 4 << 20),
    };
    let Some(group) = LittleMemory::new(limit) else {
        return;
    };
    let server = group.serve(&[TCP], &["--write-stall-timeout", "1s"]);
    let pinger = server.connect();
    pinger.is_echoed(b"plenty");
    let never_reads: Vec<Socket> = (0..count).map(|_| server.connect()).collect();
    for client in &never_reads {
        client.set_nonblocking(true).unwrap();
    }
    let mut pings = Vec::new();
    wait_until("all of them are reset", || {
        for client in &never_reads {
            while client.send(&[b'x'; 16 << 10]).is_ok() {}
        }
        let sent = Instant::now();
        pinger.is_echoed(b"ping");
        pings.push(sent.elapsed());
        server.counter("closed{write_stall}") == count
    });
    pings.sort_unstable();
    figure(&format!(
        "b2: {count} that never read are reset; {} pings meanwhile, the slowest {:.1} ms; {} bytes in use at most",
        pings.len(),
        pings.last().unwrap().as_secs_f64() * 1e3,
        group.most_used()
    ));
    assert_eq!(server.counter("connections_open"), 1);
    drop(pinger);
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

/// A hundred thousand writes of one byte (a million with `ECHO_FULL=1`), without Nagle's delay. While they are echoed
/// the server makes no system call for memory: not once.
#[test]
fn b3_very_many_writes_of_one_byte() {
    if !can(&["strace"]) {
        return;
    }
    let count = match std::env::var_os("ECHO_FULL") {
        Some(_) => 1_000_000,
        None => 100_000,
    };
    let directory = Dir::new();
    let (log, calls) = (directory.path("calls"), "brk,mmap,munmap,mremap");
    let traced = traced(&log, calls, &["--seccomp-bpf"], &[TCP], &[]);
    let client = traced.serve.connect();
    client.set_tcp_nodelay(true).unwrap();
    client.is_echoed(b"warm");
    traced.serve.counters(); // the counters are printed once before, too
    let before = traced.calls().len();
    assert!(before > 0, "strace has recorded nothing");
    let sent = noise(3, count);
    thread::scope(|scope| {
        scope.spawn(|| sent.chunks(1).for_each(|byte| client.say(byte)));
        assert_same(&client.hear(count), &sent);
    });
    assert_eq!(traced.calls().len(), before, "it has asked for memory");
    let counters = traced.serve.counters();
    assert_eq!(
        (counters["bytes_in"], counters["bytes_out"]),
        (count as u64 + 4, count as u64 + 4)
    );
    drop(client);
    assert_eq!(traced.serve.stop(Signal::SIGTERM).code, 0);
}

// --- Sizes -------------------------------------------------------------------------------------------------------------

/// Messages of no byte, one, and one less, exactly and one more than every power of two up to a mebibyte, each cut into
/// pieces of random size. The seed is fixed, so that a failure can be repeated.
#[test]
fn b4_every_size_in_slices_of_every_size() {
    let server = Running::reactor(&[TCP], Limits::default());
    let mut sizes = vec![0_usize];
    sizes.extend((0..=20).flat_map(|k| [(1 << k) - 1, 1 << k, (1 << k) + 1]));
    let mut dice = Noise::new(4);
    for (seed, size) in sizes.iter().enumerate() {
        let sent = noise(seed as u64, *size);
        let mut ends: Vec<usize> = (0..8).map(|_| dice.next() as usize % (size + 1)).collect();
        ends.extend([0, *size]);
        ends.sort_unstable();
        let client = server.connect();
        thread::scope(|scope| {
            scope.spawn(|| {
                ends.windows(2)
                    .for_each(|ends| client.say(&sent[ends[0]..ends[1]]));
                client.finish();
            });
            assert_same(&client.hear_all(), &sent);
        });
    }
    let stats = server.drain();
    assert_eq!(stats.closed(CloseReason::PeerClosed), sizes.len() as u64);
    assert_eq!(stats.bytes_out, sizes.iter().sum::<usize>() as u64);
}

#[track_caller]
fn check_much(model: Model) {
    const TOTAL: usize = 64 << 20;
    const PIECE: usize = 256 << 10;
    let server = Running::start(model, &[TCP], Limits::default());
    let client = server.connect();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut said = Noise::new(3);
            let mut piece = vec![0; PIECE];
            for _ in 0..TOTAL / PIECE {
                said.fill(&mut piece);
                client.say(&piece);
            }
            client.finish();
        });
        let mut expected = Noise::new(3);
        let mut piece = vec![0; PIECE];
        for _ in 0..TOTAL / PIECE {
            expected.fill(&mut piece);
            assert_same(&client.hear(PIECE), &piece);
        }
        assert_eq!(client.hear_all(), b"");
    });
    let stats = server.drain();
    assert_eq!(
        (stats.bytes_in, stats.bytes_out),
        (TOTAL as u64, TOTAL as u64)
    );
    assert_eq!(stats.closed(CloseReason::PeerClosed), 1);
}

#[test]
fn b4_sixty_four_mib_come_back_byte_for_byte() {
    check_much(Model::Reactor);
    check_much(Model::Threads);
}

// --- The server's memory -----------------------------------------------------------------------------------------------

/// The server may allocate no more memory. Some connections with unsent bytes are closed for that; the process lives,
/// and so do the connections that need no memory.
#[test]
fn b5_no_memory_for_what_is_unsent() {
    if !can(&["prlimit"]) {
        return;
    }
    let server = Serve::start(&[TCP], &[]);
    let other = server.connect();
    other.is_echoed(&noise(5, 50_000));
    let never_read: Vec<Socket> = (0..30).map(|_| server.connect()).collect();
    for client in &never_read {
        client.is_echoed(b"in");
        client.set_nonblocking(true).unwrap();
    }
    server.counters();
    let all_it_has = server.status("VmSize") * 1024;
    sh(&format!(
        "prlimit --pid {} --as={all_it_has}:",
        server.pid()
    ));
    wait_until("some are closed for want of memory", || {
        for client in &never_read {
            while client.send(&[b'x'; 16 << 10]).is_ok() {}
        }
        server.counter("closed{out_of_memory}") >= 10
    });
    other.is_echoed(b"served on");
    let counters = server.counters();
    figure(&format!(
        "b5: of 30 that never read {} were closed for want of memory",
        counters["closed{out_of_memory}"]
    ));
    drop((never_read, other));
    wait_until("all are closed", || server.counter("connections_open") == 0);
    server.connect().is_echoed(b"and anew");
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

/// A thousand connections have up to 64 KiB of unsent bytes each; then every client reads, and the memory is given back
/// to the system, though the server has allocated other things meanwhile.
#[test]
fn b6_memory_after_a_burst() {
    let many = 1_000;
    let directory = Dir::new();
    let server = Serve::start(&[&directory.address("unix", "echo")], &[]);
    let clients: Vec<Socket> = (0..many).map(|_| server.connect()).collect();
    clients.iter().for_each(|client| client.is_echoed(b"here"));
    server.counters();
    let base = server.status("VmRSS");
    let pushed: Vec<usize> = clients.iter().map(stick).collect();
    wait_until("much is unsent", || {
        server.counter("unsent_bytes") > many * (16 << 10)
    });
    let (peak, unsent) = (server.status("VmRSS"), server.counter("unsent_bytes"));
    for (client, pushed) in clients.iter().zip(pushed) {
        client.hear(pushed);
    }
    wait_until("nothing is unsent", || server.counter("unsent_bytes") == 0);
    wait_until("the memory is given back", || {
        server.status("VmRSS") <= base + base / 10
    });
    figure(&format!(
        "b6: {base} KiB before, {peak} KiB with {unsent} bytes unsent, {} KiB after",
        server.status("VmRSS")
    ));
    assert!(peak > base + 10_000, "{base} {peak} KiB");
    drop(clients);
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

/// The budget of unsent bytes of all connections is their maximum number times the read buffer: here 16 times 16 KiB,
/// and 48 clients connect that read slowly. Each connection has a share of its own, so that clients that do not read
/// never use up what the rest needs; with one shared pool they could.
#[test]
fn b7_as_much_is_unsent_as_may_be() {
    const LENGTH: usize = 1 << 20;
    let limits = Limits::default().with(|limits| {
        limits.connections_max = 16;
        limits.read_buffer_bytes = 16 << 10;
    });
    let budget = (limits.connections_max * limits.read_buffer_bytes) as u64;
    let directory = Dir::new();
    let server = Running::reactor(&[&directory.address("unix", "echo")], limits);
    thread::scope(|scope| {
        for number in 0..48 {
            let endpoint = &server.endpoints[0];
            scope.spawn(move || {
                let (client, sent) = (connect(endpoint), noise(number, LENGTH));
                thread::scope(|scope| {
                    scope.spawn(|| client.say(&sent));
                    for piece in sent.chunks(16 << 10) {
                        thread::sleep(Duration::from_millis(1));
                        assert_same(&client.hear(piece.len()), piece);
                    }
                });
            });
        }
    });
    let stats = server.drain();
    figure(&format!(
        "b7: {} bytes unsent at most, at most {budget} allowed; all 48 have everything",
        stats.unsent_bytes_peak
    ));
    assert_eq!(stats.bytes_out, 48 * LENGTH as u64);
    assert!(stats.unsent_bytes_peak > budget / 2, "{stats}");
    assert!(stats.unsent_bytes_peak <= budget, "{stats}");
}
