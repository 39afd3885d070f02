//! `bench` comes to its end, in every phase and whatever the server does, and the load is the one that was asked for.

use crate::bench::{bench, in_the_window, kill, tcp};
use crate::support::mutant::{Mutation, mutant};
use crate::support::{program, wait_until};
use serde_json::Value;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

// --- Ends ------------------------------------------------------------------------------------------------------------

/// A worker whose connections are all idle has none of the requests to send, and ends with the others.
#[test]
fn so_many_requests_end_where_connections_are_idle() {
    let ended = bench(&format!(
        "{} -n 100 -c 20 --active 1 --workers 2",
        tcp(|_, _| {})
    ));
    ended.was_right();
    assert_eq!(ended.number("/echoes"), 100);
    // Both of those that send are lost, and three that do not send are still there.
    let (server, _) = mutant(Mutation::HalfAnswerAndEnd { after: 20 });
    let ended = bench(&format!("{server} -n 1000 -c 5 --active 2"));
    ended.was_caught(74, "closed");
}

#[test]
fn a_rate_beyond_everything_ends_in_time_and_tells_the_bound_of_its_queue() {
    let ended = bench(&format!(
        "{} -r 100M -c 2 -d 2s --warm-up 0",
        tcp(|_, _| {})
    ));
    assert_eq!(ended.code, 4, "{}", ended.err);
    assert!(ended.number("/requests/left_out") > 0);
    assert!(
        ended.err.contains("(1048576 in each worker)"),
        "{}",
        ended.err
    );
    ended.is_accounted_for();
}

/// Opening them all would take a timeout for every eight of them.
#[test]
fn a_silent_server_is_given_up() {
    let (server, _) = mutant(Mutation::Silent);
    let began = Instant::now();
    let ended = bench(&format!(
        "{server} -c 400 --connect-concurrency 8 -d 100ms --timeout 1s"
    ));
    assert!(began.elapsed() < Duration::from_secs(25), "50 timeouts");
    assert_eq!(ended.code, 75);
    assert_eq!(ended.number("/requests/untried"), 392);
}

#[test]
fn an_end_before_the_window_has_no_length_and_says_so() {
    let server = tcp(|_, _| {});
    let mut child = program()
        .args(["bench", "--format", "json", "-r", "100", "-c", "2"])
        .args(["--warm-up", "1m", "--interval", "100ms", &server])
        .spawn()
        .unwrap();
    let stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut lines = std::io::BufRead::lines(stderr).map_while(Result::ok);
    assert!(lines.any(|line| line.contains("warm-up")));
    kill("-INT", &child.id().to_string());
    drop(thread::spawn(move || lines.count()));
    let output = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(report["seconds"], 0.0);
    let said = report["not_valid_because"].to_string();
    assert!(said.contains("ended before the window began"), "{said}");

    let ended = bench(&format!("{server} -r 1000 -n 7 -c 2 --warm-up 20s"));
    assert_eq!((ended.code, &ended.report["seconds"]), (4, &0.0.into()));
    assert!(ended.err.contains("all 7 requests had come back before"));
    let (server, _) = mutant(Mutation::HalfAnswerAndEnd { after: 1 });
    let ended = bench(&format!("{server} -r 100 -c 2"));
    assert_eq!((ended.code, &ended.report["seconds"]), (74, &0.0.into()));
}

/// When the last of them is planned, five wait for the two connections.
#[test]
fn a_planned_number_of_requests_is_sent_though_the_server_is_late() {
    let (server, _) = mutant(Mutation::Late(Duration::from_millis(30)));
    let ended = bench(&format!("{server} -r 1000 -n 7 -c 2"));
    let proved = 2; // by an echo each
    assert_eq!(ended.number("/requests/sent"), proved + 7);
    assert_eq!(ended.number("/requests/echoed"), proved + 7);
}

/// Ctrl-Z: a worker has a process group of its own, and would go on.
#[test]
fn a_suspended_bench_suspends_its_workers() {
    let (child, said, worker) = in_the_window(&tcp(|_, _| {}), "");
    let is_stopped = || {
        let stat = fs::read_to_string(format!("/proc/{worker}/stat"));
        stat.is_ok_and(|stat| stat.contains(") T "))
    };
    kill("-TSTP", &child.id().to_string());
    wait_until("the worker is stopped", is_stopped);
    kill("-CONT", &child.id().to_string());
    wait_until("the worker goes on", || !is_stopped());
    kill("-INT", &child.id().to_string());
    let output = child.wait_with_output().unwrap();
    said.join().unwrap();
    assert!(!output.stdout.is_empty(), "a report");
}

// --- The load that was asked for ---------------------------------------------------------------------------------------

#[test]
fn the_whole_rate_is_planned_where_few_connections_send() {
    let ended = bench(&format!(
        "{} -r 200 -c 20 --active 1 --workers 2 -d 1s --warm-up 0",
        tcp(|_, _| {})
    ));
    ended.was_right();
    let count = |name: &str| ended.number(&format!("/requests/{name}"));
    // On a busy machine the first one may be sent before the window begins.
    let planned = count("sent") - 20 + count("unsent") + count("warm_up_dropped");
    assert_eq!(planned, 200, "{}", ended.report["requests"]);
}

#[test]
fn what_is_left_of_the_warm_up_is_no_throughput_of_the_window() {
    let (began, answered) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&answered);
    let server = tcp(move |turn, _| {
        // The first echo proves the connection, and the second waits until well behind the warm-up.
        let until = began + Duration::from_secs(2);
        if turn == 1 {
            thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        count.fetch_add(1, Ordering::Relaxed);
    });
    let ended = bench(&format!("{server} -c 5 -r 1000 -d 3s --warm-up 300ms"));
    assert!(ended.number("/requests/warm_up_dropped") > 0);
    let planned = ended.number("/response_time_ns/count");
    assert!(ended.number("/echoes") <= planned && planned <= 3_000);
    ended.is_accounted_for();
}

/// A connection that was closed by FIN keeps its port for a minute, and the next step would lack it.
#[test]
fn steps_leave_no_ports_behind() {
    let (server, seen) = mutant(Mutation::Right);
    bench(&format!("{server} -c 7 -r 100,200 -d 100ms --warm-up 0"));
    wait_until("all are reset", || {
        seen.resets.load(Ordering::Relaxed) == 14
    });
    bench(&format!("{server} -c 7 -r 100 -d 100ms --warm-up 0"));
    wait_until("all have ended", || seen.ends.load(Ordering::Relaxed) == 7);
}

/// Started request by request, the last of them would have waited for the start of all the others.
#[test]
fn a_deep_pipeline_is_filled_at_once() {
    let most = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&most);
    let server = tcp(move |turn, bytes| {
        if turn == 1 {
            seen.fetch_max(bytes.len() as u64, Ordering::Relaxed);
        }
    });
    let ended = bench(&format!(
        "{server} -c 1 --pipeline 500 -d 100ms --warm-up 10ms"
    ));
    ended.was_right();
    assert_eq!(most.load(Ordering::Relaxed), 500 * 64, "in the first write");
}
