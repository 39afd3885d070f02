//! K: the load generator on a machine that reaches its own limits, and against a server that is wrong.
//!
//! The servers are std sockets that break the echo in one way each; see `tests/it/bench.rs`, where the program is run.

use crate::bench::{SHORT, bench, tcp, udp};
use crate::support::fault::{can, figure, in_own_network};
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

#[test]
fn k1_a_refused_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let ended = bench(&format!("{address} {SHORT}"));
    assert_eq!(ended.code, 69, "{}", ended.err);
    assert!(ended.err.contains("refused"), "{}", ended.err);
    assert_eq!(ended.report["valid"], false);
}

/// A hundred local ports, each of which stays in TIME_WAIT after its connection: that limit is the generator's own, and
/// is reported as such. No answer is delayed by it, so no latency is recorded for it.
#[test]
fn k1_too_few_ports() {
    if !can(&["ip"]) {
        return;
    }
    in_own_network(&[], || {
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40099").unwrap();
        std::fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "0").unwrap();
        let server = tcp(|_, _| {});
        let refused = bench(&format!("{server} -c 200 -d 300ms"));
        assert_ne!(refused.code, 0);
        assert!(refused.err.contains("with 100 ports"), "{}", refused.err);

        let ended = bench(&format!("{server} -c 10 --churn fin -d 500ms --warm-up 0"));
        assert_ne!(ended.code, 0);
        let (met, cycles) = (
            ended.number("/faults/no-port/count"),
            ended.number("/requests/cycles"),
        );
        let timed = ended.number("/service_time_ns/count");
        figure(&format!(
            "k1: {cycles} connections from 100 ports, then {met} times none; {timed} latencies"
        ));
        assert!(met > 0 && cycles <= 100, "{met} {cycles}");
        assert!(timed <= cycles, "{timed} latencies of {cycles} answers");
        assert!(ended.err.contains("no-port"), "{}", ended.err);
        assert_eq!(
            ended.report["valid"], false,
            "that is the generator's limit"
        );
        ended.is_accounted_for();
    });
}

/// A server with a full accept queue that never calls accept(2) does not even answer a SYN.
#[test]
fn k1_a_syn_without_an_answer() {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let in_the_queue = TcpStream::connect(address).unwrap(); // its only place
    let ended = bench(&format!("{address} -c 3 -d 300ms --timeout 300ms"));
    drop(in_the_queue);
    assert_eq!(ended.code, 75, "{} {}", ended.err, ended.report);
    assert!(
        ended.report["service_time_ns"].is_null(),
        "{}",
        ended.report
    );
    assert_eq!(ended.number("/faults/timeout/count"), 3);
    assert_eq!(ended.report["valid"], false);
    ended.is_accounted_for();
}

#[test]
fn k2_a_changed_byte() {
    let server = tcp(|turn, bytes| {
        if turn == 20 {
            bytes[7] ^= 1;
        }
    });
    bench(&format!("{server} {SHORT}")).was_caught(65, "mismatch");
    let server = udp(|turn, bytes| {
        let mut bytes = bytes.to_vec();
        bytes[9] ^= u8::from(turn == 30);
        vec![bytes]
    });
    bench(&format!("{server} {SHORT} --timeout 200ms")).was_caught(65, "mismatch");
}

#[test]
fn k2_a_lost_byte() {
    let server = tcp(|turn, bytes| {
        if turn == 20 {
            bytes.remove(3);
        }
    });
    let ended = bench(&format!("{server} {SHORT}"));
    ended.was_caught(65, "mismatch");
    // No later byte shows that the very last one is missing; only the timeout does.
    let server = tcp(|turn, bytes| {
        if turn == 20 {
            bytes.pop();
        }
    });
    bench(&format!("{server} {SHORT} --timeout 200ms")).was_caught(75, "timeout");
}

#[test]
fn k2_a_doubled_byte() {
    let server = tcp(|turn, bytes| {
        if turn == 20 {
            bytes.push(bytes[0]);
        }
    });
    bench(&format!("{server} {SHORT}")).was_caught(65, "extra");
}

#[test]
fn k2_a_changed_order() {
    let server = tcp(|turn, bytes| {
        if turn == 20 {
            bytes.swap(0, 5);
        }
    });
    bench(&format!("{server} {SHORT} --pipeline 4")).was_caught(65, "mismatch");
}

#[test]
fn k2_an_early_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut buffer = [0; 64];
            for _ in 0..20 {
                stream.read_exact(&mut buffer).unwrap();
                stream.write_all(&buffer).unwrap();
            }
            close_by_fin(stream);
        }
    });
    let ended = bench(&format!("tcp://{address} -c 1 -d 300ms --warm-up 0"));
    assert_eq!(ended.code, 74, "{}", ended.err);
    ended.is_accounted_for();
}

fn close_by_fin(stream: TcpStream) {
    let _ = stream.shutdown(std::net::Shutdown::Write);
    drop(stream);
}

#[test]
fn k2_lost_datagrams() {
    let server = udp(|turn, bytes| match turn % 10 {
        9 => Vec::new(),
        _ => vec![bytes.to_vec()],
    });
    let ended = bench(&format!(
        "{server} -c 2 --pipeline 4 -d 600ms --warm-up 0 --timeout 100ms"
    ));
    assert_eq!(ended.code, 75, "{}", ended.err);
    assert!(ended.number("/requests/lost") > 2);
    ended.is_accounted_for();
    let ended = bench(&format!(
        "{server} -c 2 --pipeline 4 -d 300ms --warm-up 0 --timeout 100ms --allow-loss"
    ));
    ended.was_right();
}

#[test]
fn k2_doubled_datagrams() {
    let server = udp(|_, bytes| vec![bytes.to_vec(); 2]);
    let ended = bench(&format!("{server} {SHORT}"));
    assert_eq!(ended.code, 65, "{}", ended.err);
    let (echoed, doubles) = (
        ended.number("/requests/echoed"),
        ended.number("/requests/duplicates"),
    );
    assert!(
        doubles + 10 >= echoed && doubles <= echoed,
        "{echoed} {doubles}"
    );
    ended.is_accounted_for();
}

#[test]
fn k2_a_changed_order_of_datagrams() {
    let mut kept: Option<Vec<u8>> = None;
    let server = udp(move |turn, bytes| match (turn < 10, kept.take()) {
        (true, _) => vec![bytes.to_vec()],
        (false, Some(before)) => vec![bytes.to_vec(), before],
        (false, None) => {
            kept = Some(bytes.to_vec());
            Vec::new()
        }
    });
    let ended = bench(&format!(
        "{server} -c 1 --pipeline 4 -d 300ms --warm-up 0 --timeout 200ms"
    ));
    assert_eq!(ended.code, 65, "{}", ended.err);
    assert!(ended.number("/requests/reordered") > 10);
    ended.is_accounted_for();
}
