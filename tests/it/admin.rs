//! `serve --admin`: health and metrics over HTTP, and that nothing which comes in there harms the echo.

use crate::support::{DEADLINE, Dir, Serve, Talk, by_shell, ended, noise, program, wait_until};
use echo_reactor::stats::{CloseReason, DropReason, RejectReason};
use nix::sys::signal::Signal;
use socket2::Socket;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

const TCP: &str = "tcp://127.0.0.1:0";
const HTTP: &str = "http://127.0.0.1:0";

/// A server, and where it answers by HTTP.
struct Admin {
    server: Serve,
    address: String,
}

impl Admin {
    #[track_caller]
    fn start(flags: &[&str]) -> Self {
        Self::of(Serve::start(&[TCP], &[&["--admin", HTTP], flags].concat()))
    }

    #[track_caller]
    fn of(server: Serve) -> Self {
        const WORDS: &str = "health and metrics at http://";
        server.says(WORDS);
        let err = server.err();
        let (_, address) = err.split_once(WORDS).unwrap();
        let address = address.lines().next().unwrap().to_owned();
        Self { server, address }
    }

    #[track_caller]
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// The response to these bytes, to its end.
    #[track_caller]
    fn ask(&self, request: &str) -> String {
        answer(self.connect(), request)
    }

    #[track_caller]
    fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    /// The status of a path.
    #[track_caller]
    fn status(&self, path: &str) -> u16 {
        status(&self.get(path))
    }
}

#[track_caller]
fn answer(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

#[track_caller]
fn status(response: &str) -> u16 {
    let line = response.lines().next().expect("there is a response");
    line.strip_prefix("HTTP/1.1 ").unwrap()[..3]
        .parse()
        .unwrap()
}

// --- Requests and responses --------------------------------------------------------------------------------------------

#[test]
fn health_is_told_by_the_status() {
    let admin = Admin::start(&[]);
    for path in ["/livez", "/readyz", "/readyz?verbose=1", "/metrics"] {
        assert_eq!(admin.status(path), 200, "{path}");
    }
    let response = admin.get("/livez");
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "ok\n");
    for line in [
        "Content-Length: 3",
        "Connection: close",
        "Cache-Control: no-store",
    ] {
        assert!(head.lines().any(|found| found == line), "{line}: {head}");
    }
    let head = admin.ask("HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(
        head.contains("Content-Length: 3") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    assert_eq!(admin.status("/"), 404);
    assert_eq!(admin.status("/livez/"), 404);
    let refused = admin.ask("POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(status(&refused), 405);
    assert!(refused.contains("\r\nAllow: GET, HEAD\r\n"), "{refused}");
    assert_eq!(status(&admin.ask("GET /livez HTTP/1.0\r\n\r\n")), 200);
    for wrong in [
        "GET /livez HTTP/1.1\r\n\r\n",
        "hello\n",
        "\u{16}\u{3}\u{1}\0",
        "PRI * HTTP/2.0\r\n\r\n",
    ] {
        assert_eq!(status(&admin.ask(wrong)), 400, "{wrong:?}");
    }
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(8 << 10));
    assert_eq!(status(&admin.ask(&long)), 431);
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(100));
    assert_eq!(status(&admin.ask(&many)), 431);
    admin.server.connect().is_echoed(b"and it echoes");
    assert_eq!(
        admin.server.counter("accepted"),
        1,
        "health checks are no clients"
    );
}

#[test]
fn a_unix_socket_answers_too_and_its_file_is_removed() {
    let directory = Dir::new();
    let address = directory.address("unix", "admin");
    let server = Serve::start(&[TCP], &["--admin", &address, "--sandbox"]);
    server.says("health and metrics at unix://");
    let stream = UnixStream::connect(directory.path("admin")).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(status(&answer(stream, "GET /livez HTTP/1.0\r\n\r\n")), 200);
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
    assert!(!directory.path("admin").exists());
}

/// The request may come in any pieces.
#[test]
fn a_request_byte_by_byte_is_answered() {
    let admin = Admin::start(&[]);
    let mut stream = admin.connect();
    stream.set_nodelay(true).unwrap();
    for byte in b"GET /livez HTTP/1.1\r\nHost: x\r\n\r" {
        stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(status(&answer(stream, "\n")), 200);
}

#[test]
fn it_is_not_ready_from_the_signal_to_stop_on() {
    let admin = Admin::start(&["--drain-delay", "1h"]);
    assert_eq!(admin.status("/readyz"), 200);
    admin.server.signal(Signal::SIGTERM);
    admin.server.says("serving on for 1h");
    assert_eq!(admin.status("/readyz"), 503);
    assert_eq!(admin.status("/livez"), 200);
    assert!(admin.get("/metrics").contains("\necho_reactor_ready 0\n"));
    admin.server.connect().is_echoed(b"it still serves");
    assert_eq!(admin.server.stop(Signal::SIGTERM).code, 0);
}

/// While it drains, it says so.
#[test]
fn a_draining_server_is_alive_and_not_ready() {
    let patient = ["--drain-timeout", "1h", "--drain-idle-timeout", "1h"];
    let admin = Admin::start(&patient);
    let client = admin.server.connect();
    client.is_echoed(b"it stays");
    admin.server.signal(Signal::SIGTERM);
    admin.server.says("draining 1 connection");
    assert_eq!(
        (admin.status("/readyz"), admin.status("/livez")),
        (503, 200)
    );
    drop(client);
    assert_eq!(admin.server.wait().code, 0);
}

#[test]
fn what_cannot_be_is_refused() {
    let serve = |flags: &[&str]| ended(program().args(["serve", TCP]).args(flags));
    for wrong in [
        "127.0.0.1:9090",
        "https://127.0.0.1:9090",
        "http://127.0.0.1",
        "",
    ] {
        serve(&["--admin", wrong]).failed(64, &["--admin", "http://127.0.0.1:9090"]);
    }
    serve(&["--admin", HTTP, "--workers", "2"]).failed(64, &["--admin", "--workers"]);
    for model in ["threads", "iterative"] {
        serve(&["--admin", HTTP, "--model", model]).failed(64, &["--admin", model]);
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    serve(&["--admin", &format!("http://{taken}")]).failed(69, &[&taken, "in use"]);
}

// --- Metrics -----------------------------------------------------------------------------------------------------------

/// Reads the text format of Prometheus, version 0.0.4, strictly: each metric has HELP and TYPE before its samples, which
/// stand together, and no sample comes twice. Returns the samples by name and labels.
#[track_caller]
fn parse(body: &str) -> BTreeMap<String, f64> {
    let is_name = |name: &str| {
        let mut letters = name.chars();
        letters
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
            && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    };
    assert!(body.ends_with('\n') && !body.contains('\r'));
    let mut samples = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let (mut helped, mut current) = (String::new(), (String::new(), String::new()));
    for line in body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').expect("a text");
            assert!(
                is_name(name) && !text.is_empty() && !text.contains('\\'),
                "{line}"
            );
            assert!(seen.insert(name.to_owned()), "{name} comes twice");
            helped = name.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert_eq!(name, helped, "TYPE follows HELP");
            assert!(matches!(kind, "counter" | "gauge"), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            current = (name.to_owned(), kind.to_owned());
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = series
                .split_once('{')
                .map_or((series, None), |(name, labels)| {
                    (name, Some(labels.strip_suffix('}').expect("an end")))
                });
            assert_eq!(name, current.0, "samples follow their TYPE");
            if let Some((label, text)) = labels.map(|labels| labels.split_once('=').unwrap()) {
                let text = text
                    .strip_prefix('"')
                    .and_then(|text| text.strip_suffix('"'));
                let is_plain = |text: &str| !text.contains(['"', '\\', '\n', ',']);
                assert!(is_name(label) && text.is_some_and(is_plain), "{line}");
            }
            let value: f64 = value.parse().unwrap();
            assert!(value.is_finite() && value >= 0.0, "{line}");
            assert!(samples.insert(series.to_owned(), value).is_none(), "{line}");
        }
    }
    samples
}

#[test]
fn metrics_are_the_counters_in_the_format_of_prometheus() {
    let admin = Admin::start(&[]);
    let open = admin.server.connect();
    open.is_echoed(b"0123456789");
    let closed = admin.server.connect();
    closed.finish();
    assert_eq!(closed.hear_all(), b"");
    let mut samples = BTreeMap::new();
    wait_until("the close is counted", || {
        let response = admin.get("/metrics");
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"),
            "{head}"
        );
        samples = parse(body);
        samples["echo_reactor_closed_total{reason=\"peer_closed\"}"] == 1.0
    });
    let value = |name: &str| samples[&format!("echo_reactor_{name}")];
    assert_eq!(
        (value("accepted_total"), value("connections_open")),
        (2.0, 1.0)
    );
    assert_eq!(
        (value("received_bytes_total"), value("sent_bytes_total")),
        (10.0, 10.0)
    );
    assert_eq!(value("ready"), 1.0);
    assert_eq!(
        value(&format!(
            "info{{version=\"{}\"}}",
            env!("CARGO_PKG_VERSION")
        )),
        1.0
    );
    let reasons = samples.keys().filter(|name| name.contains("{reason="));
    let all = CloseReason::ALL.len() + RejectReason::ALL.len() + DropReason::ALL.len();
    assert_eq!(reasons.count(), all);
}

// --- Harm --------------------------------------------------------------------------------------------------------------

/// Half-sent requests, and connections that send nothing: the newest has the place of the oldest.
#[test]
fn slow_clients_keep_neither_the_echo_nor_a_health_check_out() {
    let admin = Admin::start(&[]);
    let client = admin.server.connect();
    client.is_echoed(b"before");
    let before = admin.server.descriptors().len();
    let mut slow: Vec<TcpStream> = Vec::new();
    for place in 0..60 {
        let mut stream = admin.connect();
        if place % 2 == 0 {
            stream.write_all(b"GET /livez HTTP/1.1\r\nHo").unwrap();
        }
        slow.push(stream);
        assert_eq!(admin.status("/readyz"), 200, "beside {place} slow ones");
        client.is_echoed(&noise(place, 4 << 10));
    }
    let held = admin.server.descriptors().len() - before;
    assert!(held <= 8, "{held} descriptors are held");
    let mut oldest = slow.remove(0);
    let end = oldest.read(&mut [0; 64]);
    assert!(
        matches!(&end, Ok(0))
            || matches!(&end, Err(error) if error.kind() == ErrorKind::ConnectionReset),
        "{end:?}"
    );
}

/// The newest has to go, too: after its time is over.
#[test]
fn a_half_sent_request_ends_by_time() {
    let admin = Admin::start(&[]);
    let before = admin.server.descriptors().len();
    let mut stream = admin.connect();
    stream.write_all(b"GET").unwrap();
    assert!(matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_)));
    wait_until("its descriptor is closed", || {
        admin.server.descriptors().len() == before
    });
    admin.server.connect().is_echoed(b"and it echoes");
}

/// What follows a request is discarded, so that the response arrives; without end it is cut.
#[test]
fn bytes_behind_a_request_destroy_no_response() {
    let admin = Admin::start(&[]);
    let mut request = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".to_owned();
    request += &"garbage ".repeat(4 << 10);
    let response = admin.ask(&request);
    assert!(response.ends_with("\r\n\r\nok\n"), "{response}");
    let mut endless = admin.connect();
    endless
        .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut sent = 0;
    while let Ok(length) = endless.write(&[b'x'; 16 << 10]) {
        sent += length;
        assert!(sent < 64 << 20, "it is cut");
    }
    admin.server.connect().is_echoed(b"and it echoes");
}

/// Threads that ask, send garbage and disappear, as fast as they can.
#[test]
fn a_flood_of_requests_leaves_the_echo_whole() {
    let admin = Admin::start(&["--sandbox"]);
    let clients: Vec<Socket> = (0..20).map(|_| admin.server.connect()).collect();
    for client in &clients {
        client.is_echoed(b"it is accepted");
    }
    let before = admin.server.descriptors().len();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let address = &admin.address;
            scope.spawn(move || {
                for place in 0..100 {
                    let mut stream = TcpStream::connect(address).unwrap();
                    let garbage = noise(thread * 1_000 + place, 512);
                    let request: &[u8] = match place % 3 {
                        0 => b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
                        1 => &garbage,
                        _ => b"HEAD",
                    };
                    let _ = stream.write_all(request); // it may have been evicted
                }
            });
        }
        for round in 0..50 {
            for client in &clients {
                client.is_echoed(&noise(round, 1 << 10));
            }
        }
    });
    assert_eq!(admin.status("/livez"), 200);
    wait_until("the descriptors are closed", || {
        admin.server.descriptors().len() <= before
    });
    let ended = admin.server.stop(Signal::SIGTERM);
    assert_eq!(ended.code, 0, "{}", ended.err);
}

/// Clients that take every descriptor they may have leave those that health checks need.
#[test]
fn health_is_told_without_a_free_descriptor_for_clients() {
    let line = "ulimit -n 100; exec \"$0\" serve tcp://127.0.0.1:0 --admin http://127.0.0.1:0";
    let admin = Admin::of(Serve::start_command(&mut by_shell(line), 1));
    let clients: Vec<Socket> = (0..120).map(|_| admin.server.connect()).collect();
    wait_until("accepting pauses", || {
        admin.server.counter("accept_pauses") > 0
    });
    let slow: Vec<TcpStream> = (0..8).map(|_| admin.connect()).collect();
    for _ in 0..10 {
        assert_eq!(
            (admin.status("/livez"), admin.status("/metrics")),
            (200, 200)
        );
    }
    clients[0].is_echoed(b"and it echoes");
    assert!(
        !admin.server.err().contains("no descriptors left"),
        "{}",
        admin.server.err()
    );
    drop(slow);
}
