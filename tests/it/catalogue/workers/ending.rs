//! Workers that are killed, stopped or told to end, and a master that is killed, or PID 1.

use super::{
    TCP, children, churn, raw, replace, report, serve, state, workers, write_program, zombies,
};
use crate::support::{
    Dir, Noise, Serve, Talk, connect, ended, exists, program, skip, sock_addr, try_connect,
    wait_until, wrapped,
};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use socket2::Socket;
use std::fs;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

/// A worker that is killed loses what it has accepted and nothing else, and is started again.
#[test]
fn w3_killed_workers_are_replaced_and_no_connection_is_refused() {
    const KILLS: u64 = 12;
    let server = serve(3, &[TCP], &[]);
    let stop = AtomicBool::new(false);
    let (served, cut) = thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| churn(&server.endpoints[0], &stop)))
            .collect();
        let mut random = Noise::new(7);
        for _ in 0..KILLS {
            let alive = children(server.pid());
            let victim = alive[usize::try_from(random.next() % alive.len() as u64).unwrap()];
            let before = server.err().matches("was killed by SIGKILL").count();
            kill(raw(victim), Signal::SIGKILL).unwrap();
            wait_until("it is noticed and replaced", || {
                let told = server.err().matches("was killed by SIGKILL").count();
                told > before && children(server.pid()).len() == 3
            });
        }
        stop.store(true, Ordering::Relaxed);
        let counts = clients.into_iter().map(|client| client.join().unwrap());
        counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1))
    });
    println!("w3: {served} connections served, {cut} cut, by {KILLS} kills");
    // Each of the four clients has one connection at a time, so a kill cuts at most four.
    assert!(served > 0 && cut <= 4 * KILLS, "{served} {cut}");
    wait_until("no zombie is left", || zombies(server.pid()) == 0);
    let ended = server.stop(Signal::SIGTERM);
    assert_eq!(ended.code, 0, "{}", ended.err);
}

/// A killed worker cannot report what it had open. The master knows it all the same, also the one that has taken over.
#[test]
fn w3_what_a_killed_worker_had_open_is_counted() {
    let directory = Dir::new();
    let json = directory.path("report.json");
    let server = serve(3, &[TCP], &["--stats-json", json.to_str().unwrap()]);
    let mut open: Vec<Socket> = Vec::new();
    let mut cut = 0;
    for replaced in [false, true] {
        if replaced {
            replace(&server); // the old workers serve on what they have
        }
        open.extend((0..60).map(|_| server.connect()));
        for client in &open {
            client.is_echoed(b"inside");
        }
        let states: &[&str] = match replaced {
            false => &["serving", "serving"],
            true => &["retired", "serving"],
        };
        for state in states {
            // A worker that has answered the question for its counters has ended the turn of the last echo.
            let victim = in_state(&server, state);
            let noticed = format!("process {victim}, was killed by SIGKILL; its ");
            kill(raw(victim), Signal::SIGKILL).unwrap();
            wait_until("it is noticed", || server.err().contains(&noticed));
            let text = server.err();
            let line = text.lines().find(|line| line.contains(&noticed)).unwrap();
            let (_, lost) = line.split_once(&noticed).unwrap();
            let lost: usize = match lost.split(' ').next().unwrap() {
                "one" => 1,
                count => count.parse().unwrap(),
            };
            let before = open.len();
            open.retain(|client| !has_ended(client));
            assert_eq!(before - open.len(), lost, "{line}");
            cut += lost;
        }
    }
    assert!(cut > 0);
    assert_eq!(server.counter("closed{killed}"), cut as u64);
    drop(open);
    let ended = server.stop(Signal::SIGTERM);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let report: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(report["accepted"], 120);
    assert_eq!(report["closed"]["killed"], cut);
    assert_eq!(report["closed"]["peer_closed"], 120 - cut);
    let rows = report["workers"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["unreported"] == 0), "{report}");
}

/// The first process of a worker that is in this state. A worker that is too busy to answer is in none for a moment.
fn in_state(server: &Serve, state: &str) -> u32 {
    let state = format!("{state}:");
    let mut found = None;
    wait_until("one is in this state", || {
        let lines = report(server);
        let words = lines
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>());
        let mut in_it = words.filter(|words| words[0] == "worker" && words[4] == state);
        found = in_it.next().and_then(|words| words[3].parse().ok());
        found.is_some()
    });
    found.unwrap()
}

/// Whether the server's side of a connection is gone.
fn has_ended(client: &Socket) -> bool {
    client.set_nonblocking(true).unwrap();
    let result = client.peek(&mut [MaybeUninit::uninit()]);
    client.set_nonblocking(false).unwrap();
    match result {
        Ok(count) => count == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

/// What is queued at a worker that does not accept waits for its successor.
#[test]
fn w3_the_queue_of_a_killed_worker_is_served_by_its_successor() {
    let server = serve(2, &[TCP], &[]);
    let stopped = *workers(&server).values().next().unwrap();
    kill(raw(stopped), Signal::SIGSTOP).unwrap();
    wait_until("it is stopped", || state(stopped) == Some('T'));
    let clients: Vec<Socket> = (0..500).map(|_| server.connect()).collect();
    for client in &clients {
        client.say(b"queued");
    }
    kill(raw(stopped), Signal::SIGKILL).unwrap();
    let begun = Instant::now();
    for client in &clients {
        assert_eq!(client.hear(6), b"queued");
    }
    println!(
        "w3: 500 connections served {:?} after the kill",
        begun.elapsed()
    );
    let successors = workers(&server);
    assert!(successors.len() == 2 && !successors.values().any(|&pid| pid == stopped));
}

/// SIGTERM to one worker restarts that worker: it drains, and another one takes its place meanwhile.
#[test]
fn w3_a_worker_that_is_told_to_end_is_replaced() {
    let server = serve(
        2,
        &[TCP],
        &["--drain-idle-timeout", "1h", "--drain-timeout", "1h"],
    );
    let inside: Vec<Socket> = (0..20).map(|_| server.connect()).collect();
    inside.iter().for_each(|client| client.is_echoed(b"in"));
    let before = workers(&server);
    kill(raw(before[&0]), Signal::SIGTERM).unwrap();
    wait_until("another one serves", || {
        workers(&server)
            .get(&0)
            .is_some_and(|&now| now != before[&0])
    });
    inside
        .iter()
        .for_each(|client| client.is_echoed(b"still in"));
    for _ in 0..20 {
        server.connect().is_echoed(b"new");
    }
    drop(inside);
    wait_until("the first has ended", || state(before[&0]).is_none());
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

/// Workers whose master is killed serve their connections to the end, and end.
#[test]
fn w4_without_their_master_workers_drain_and_end() {
    let directory = Dir::new();
    let flags = ["--drain-idle-timeout", "1h", "--drain-timeout", "1h"];
    let server = serve(3, &[&directory.address("unix", "s"), TCP], &flags);
    let inside: Vec<Socket> = (0..6).map(|_| connect(&server.endpoints[1])).collect();
    inside.iter().for_each(|client| client.is_echoed(b"in"));
    let workers = children(server.pid());
    server.signal(Signal::SIGKILL);
    let address = sock_addr(&server.endpoints[1]);
    wait_until("no connection is accepted any more", || {
        try_connect(&address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    inside
        .iter()
        .for_each(|client| client.is_echoed(b"still in"));
    drop(inside);
    wait_until("all workers have ended", || {
        workers
            .iter()
            .all(|&worker| state(worker).is_none_or(|state| state == 'Z'))
    });
}

/// A worker that cannot start ends the server at the start, with the worker's own line and code.
#[test]
fn w4_a_worker_that_cannot_start_is_told_once() {
    let directory = Dir::new();
    let file = directory.path("first");
    let script = directory.path("echo-reactor");
    // The server itself runs; its first worker is too short of descriptors.
    let line = format!(
        "#!/bin/sh\n[ -n \"$ECHO_REACTOR_ROLE\" ] && touch {} && exit 71\nexec {} \"$@\"\n",
        file.display(),
        env!("CARGO_BIN_EXE_echo-reactor")
    );
    write_program(&script, &line);
    // Workers are started as the running executable, so the script is not asked, and this server starts.
    let mut command = Command::new(&script);
    command
        .args(["serve", TCP, "--workers", "2"])
        .stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let server = Serve::start_command(&mut command, 1);
    server.connect().is_echoed(b"served");
    assert!(!exists(&file), "a worker runs what its master runs");
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    let by_hand = |role: &str| {
        ended(
            program()
                .args(["serve", TCP])
                .env("ECHO_REACTOR_ROLE", role)
                .env("LISTEN_FDS", "0"),
        )
        .failed(71, &["ECHO_REACTOR_ROLE"]);
    };
    by_hand("worker");
    by_hand("successor");
}

/// The workers are inside the sandbox, and their master is not.
#[test]
fn w4_workers_are_sandboxed() {
    let server = serve(2, &[TCP, "udp://127.0.0.1:0"], &["--sandbox"]);
    let seccomp = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("Seccomp:"))
            .unwrap();
        line.ends_with('2')
    };
    let server_pid = server.pid();
    let workers = children(server_pid);
    if !workers.iter().all(|&worker| seccomp(worker)) {
        return skip("this machine has no seccomp");
    }
    for _ in 0..10 {
        server.connect().is_echoed(b"from inside");
    }
    assert_eq!(server.counter("bytes_out"), 110);
    // A killed one is started again, and a new program gets in, since the master may start processes.
    kill(raw(workers[0]), Signal::SIGKILL).unwrap();
    wait_until("it is replaced", || {
        let now = children(server_pid);
        now.len() == 2 && now != workers && now.iter().all(|&worker| seccomp(worker))
    });
    replace(&server);
    server.connect().is_echoed(b"and again");
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

/// Processes that the master has not started become its children if it is PID 1, and are reaped.
#[test]
fn w4_as_pid_1_it_reaps_orphans_and_ends_only_when_it_should() {
    let unshare = ["--pid", "--fork", "--mount-proc", "--kill-child", "true"];
    let can = Command::new("unshare").args(unshare).output();
    if !can.is_ok_and(|output| output.status.success()) {
        return skip("this user may not make a PID namespace");
    }
    let options = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    let mut command = wrapped("unshare", &options);
    command.args(["serve", TCP, "--workers", "2"]);
    let server = Serve::start_command(&mut command, 1);
    let init = children(server.pid())[0];
    assert_eq!(children(init).len(), 2);
    let inside = server.connect();
    inside.is_echoed(b"in");
    // Two generations of orphans: a shell in the namespace leaves a child behind.
    let mut shell = Command::new("nsenter");
    shell.args(["--pid", "--mount", "--target", &init.to_string()]);
    shell.args(["sh", "-c", "(true &) ; (sleep 0.01 &)"]);
    let _ = shell.output();
    kill(raw(init), Signal::SIGUSR2).unwrap();
    server.says("replaced by version");
    inside.is_echoed(b"still in");
    for _ in 0..10 {
        server.connect().is_echoed(b"new");
    }
    drop(inside);
    wait_until(
        "the old workers are gone, and nothing is left of them",
        || children(init).len() == 2 && zombies(init) == 0,
    );
    server.connect().is_echoed(b"and on");
    kill(raw(init), Signal::SIGTERM).unwrap();
    assert_eq!(server.wait().code, 0);
}
