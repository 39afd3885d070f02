//! `echo-reactor send` against servers that keep the protocol and servers that do not.
//!
//! The servers are plain std sockets, so that these tests do not depend on our own server: `send` has to be right about
//! any echo server. Each wait has a deadline; what takes longer than [`DEADLINE`] has failed.

use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

/// Far more than any step of a test takes, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

// --- The program under test ------------------------------------------------------------------------------------------

/// How a run of the program ended.
struct Ended {
    code: i32,
    out: Vec<u8>,
    err: String,
}

impl Ended {
    #[track_caller]
    fn said(&self, out: &str) {
        assert_eq!(String::from_utf8_lossy(&self.out), out);
        assert_eq!((self.code, self.err.as_str()), (0, ""));
    }

    /// The exit code is `code`, and standard error is one line with this class and these words.
    #[track_caller]
    fn failed(&self, class: &str, code: i32, words: &[&str]) {
        let err = &self.err;
        let start = format!("echo-reactor: error: {class}: ");
        assert!(err.starts_with(&start), "{err:?} is not of {class}");
        assert_eq!(err.matches('\n').count(), 1, "{err:?} is not one line");
        for word in words {
            assert!(err.contains(word), "{err:?} does not say {word:?}");
        }
        assert_eq!(self.code, code, "{err}");
    }
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_echo-reactor"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs `echo-reactor send` with an empty standard input.
fn send(arguments: &[&str]) -> Ended {
    finish(program().arg("send").args(arguments).spawn().unwrap())
}

/// Runs it with this on standard input, which is written while the output is read.
fn send_input(arguments: &[&str], input: Vec<u8>) -> Ended {
    let mut command = program();
    command.arg("send").args(arguments).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    thread::spawn(move || pipe.write_all(&input)); // fails if the program ends early, as it may
    finish(child)
}

/// Waits for the end of both streams, and so of the program.
fn finish(mut child: Child) -> Ended {
    let out = child.stdout.take().map(drain);
    let err = child.stderr.take().map(drain);
    let mut read = |stream: Option<Receiver<Vec<u8>>>| {
        stream.map_or_else(Vec::new, |stream| {
            stream.recv_timeout(DEADLINE).unwrap_or_else(|_| {
                let _ = child.kill();
                panic!("the program did not end in time");
            })
        })
    };
    let (out, err) = (read(out), read(err));
    Ended {
        code: child.wait().unwrap().code().expect("no signal ended it"),
        out,
        err: String::from_utf8(err).unwrap(),
    }
}

fn drain(mut stream: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}

// --- Servers to test it with -----------------------------------------------------------------------------------------

/// A TCP server that treats each of its clients in this way.
fn tcp(treat: impl Fn(TcpStream) -> io::Result<()> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream.set_write_timeout(Some(DEADLINE)).unwrap();
            // An error in here is seen by the client, which is what the test checks.
            let _ = treat(stream);
        }
    });
    format!("tcp://{address}")
}

/// The echo of RFC 862, with `change` applied to all bytes: read, write all of it, read again.
fn echo(mut stream: impl Read + Write, mut change: impl FnMut(&mut [u8])) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        change(&mut buffer[..length]);
        stream.write_all(&buffer[..length])?;
    }
}

fn tcp_echo() -> String {
    tcp(|stream| echo(stream, |_| {}))
}

/// A UDP server: `treat` gets each datagram, with the server's socket and the sender's address.
fn udp(treat: impl Fn(&UdpSocket, &[u8], SocketAddr) + Send + 'static) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((length, source)) = socket.recv_from(&mut buffer) {
            treat(&socket, &buffer[..length], source);
        }
    });
    format!("udp://{address}")
}

fn udp_echo() -> String {
    udp(|socket, datagram, source| {
        socket.send_to(datagram, source).unwrap();
    })
}

/// A path that no other test uses; its file is removed at the end.
struct TestPath(PathBuf);

impl TestPath {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("echo-send-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TestPath {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

// --- A correct server ------------------------------------------------------------------------------------------------

#[test]
fn the_greeting_comes_back() {
    send(&[&tcp_echo()]).said("Received 'Hello, world!'\n");
}

#[test]
fn each_message_is_printed_on_its_own_and_escaped() {
    let said = "Received 'one'\nReceived ''\nReceived 'a\\nb\\\\'\nReceived '\\xc3\\xa9'\n";
    send(&[&tcp_echo(), "one", "", "a\nb\\", "é"]).said(said);
}

#[test]
fn hexadecimal_goes_in_and_comes_out() {
    send(&[&tcp_echo(), "--hex", "00 FF", "7a"]).said("Received '00ff'\nReceived '7a'\n");
}

#[test]
fn everything_is_repeated_on_one_connection() {
    let (sender, connections) = mpsc::channel();
    let address = tcp(move |stream| {
        sender.send(()).unwrap();
        echo(stream, |_| {})
    });
    let line = "Received 'a'\nReceived 'b'\n";
    send(&[&address, "a", "b", "--repeat", "3", "--interval", "1ms"]).said(&line.repeat(3));
    assert_eq!(connections.try_iter().count(), 1);
}

#[test]
fn a_probe_prints_nothing() {
    send(&["-q", &tcp_echo()]).said("");
    send_input(&["--quiet", &tcp_echo(), "-"], b"abc".to_vec()).said("");
}

#[test]
fn a_server_on_one_of_several_addresses_is_found() {
    // "All interfaces" are ::1 first and then 127.0.0.1, and this server is bound to the second one alone.
    let port = tcp_echo().rsplit(':').next().unwrap().to_owned();
    send(&[&format!(":{port}")]).said("Received 'Hello, world!'\n");
}

#[test]
fn standard_input_streams_through_a_server_with_a_small_buffer() {
    let input: Vec<u8> = (0..8_000_000u32)
        .map(|i| (i.wrapping_mul(i) >> 7) as u8)
        .collect();
    let ended = send_input(&[&tcp_echo(), "-"], input.clone());
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    assert!(ended.out == input, "the copy differs");
}

#[test]
fn empty_standard_input_is_an_empty_conversation() {
    send(&[&tcp_echo(), "-"]).said("");
}

#[test]
fn a_broken_pipe_ends_the_program_quietly() {
    let mut command = program();
    command
        .args(["send", &tcp_echo(), "-"])
        .stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let mut pipe = child.stdin.take().unwrap();
    thread::spawn(move || pipe.write_all(&vec![b'x'; 8_000_000]));
    let ended = finish(child);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
}

#[test]
fn a_full_disk_is_reported() {
    let mut command = program();
    command.args(["send", &tcp_echo()]);
    command.stdout(File::create("/dev/full").unwrap());
    finish(command.spawn().unwrap()).failed("io", 74, &["standard output"]);
}

#[test]
fn the_connection_comes_from_the_source_that_was_asked_for() {
    let (sender, peers) = mpsc::channel();
    let address = tcp(move |stream| {
        sender.send(stream.peer_addr().unwrap().ip()).unwrap();
        echo(stream, |_| {})
    });
    send(&[&address, "--source", "127.0.0.3", "x"]).said("Received 'x'\n");
    let peer = peers.recv_timeout(DEADLINE).unwrap();
    assert_eq!(peer.to_string(), "127.0.0.3");
}

// --- Incorrect servers -----------------------------------------------------------------------------------------------

#[test]
fn a_changed_byte_is_found_and_shown() {
    let change = |bytes: &mut [u8]| {
        for byte in bytes.iter_mut().filter(|byte| **byte == b'w') {
            *byte = b'W';
        }
    };
    let address = tcp(move |stream| echo(stream, change));
    let words = ["message 1", "at byte 7,", "0x77 ('w')", "0x57 ('W')"];
    send(&[&address]).failed("mismatch", 65, &words);
    send(&[&address, "fine", "saw"]).failed("mismatch", 65, &["message 2", "at byte 2,"]);
}

#[test]
fn a_changed_byte_is_found_far_into_standard_input() {
    let place = 300_000;
    let address = tcp(move |stream| {
        let mut seen = 0;
        echo(stream, |bytes| {
            if (seen..seen + bytes.len()).contains(&place) {
                bytes[place - seen] ^= 1;
            }
            seen += bytes.len();
        })
    });
    let ended = send_input(&[&address, "-"], vec![b'x'; 1_000_000]);
    ended.failed("mismatch", 65, &["standard input", "at byte 300000,"]);
}

#[test]
fn bytes_that_were_not_sent_are_detected() {
    let address = tcp(|mut stream| {
        echo(&stream, |_| {})?;
        stream.write_all(b"and more")
    });
    send(&[&address]).failed("mismatch", 65, &["8 bytes too many", "'and more'"]);
}

#[test]
fn a_server_that_closes_early_is_distinguished_from_one_that_resets() {
    let address = tcp(|mut stream| {
        let mut buffer = [0; 64];
        let length = stream.read(&mut buffer)?;
        stream.write_all(&buffer[..length / 2])
    });
    send(&[&address, "12345678"]).failed("closed", 74, &["after 4 bytes of message 1"]);

    let address = tcp(|mut stream| {
        stream.read_exact(&mut [0; 8])?;
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))
    });
    send(&[&address, "12345678"]).failed("reset", 74, &[&address]);
}

#[test]
fn a_server_that_says_nothing_is_waited_for_no_longer_than_asked() {
    let silent = tcp(|mut stream| stream.read_to_end(&mut Vec::new()).map(drop));
    let words = ["within 100ms", "after 0 bytes of message 1"];
    send(&[&silent, "--timeout", "100ms"]).failed("timeout", 75, &words);

    // The server answers, and then never sends its FIN.
    let endless = tcp(|stream| {
        echo(&stream, |_| {})?;
        thread::park_timeout(DEADLINE);
        Ok(())
    });
    let words = ["within 1s", "everything had come back"];
    send(&[&endless, "--timeout", "1s"]).failed("timeout", 75, &words);
}

#[test]
fn a_refusal_says_how_to_start_a_server() {
    // Bound and never listening: the port refuses, and no other process can bind it meanwhile.
    let deaf = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    deaf.bind(&SockAddr::from(any)).unwrap();
    let address = deaf.local_addr().unwrap().as_socket().unwrap();
    let hint = format!("'echo-reactor serve tcp://{address}'");
    send(&[&address.to_string()]).failed("refused", 69, &[&hint]);

    let path = TestPath::new();
    let unix = format!("unix://{}", path.text());
    let hint = format!("'echo-reactor serve {unix}'");
    send(&[&unix]).failed("refused", 69, &[&hint]);
    send(&[&format!("unixgram://{}", path.text())]).failed("refused", 69, &[]);
}

#[test]
fn a_name_without_an_address_is_reported() {
    send(&["name.invalid:7"]).failed("resolve", 68, &["tcp://name.invalid:7"]);
}

// --- Datagrams -------------------------------------------------------------------------------------------------------

#[test]
fn each_message_is_a_datagram_even_an_empty_one() {
    send(&[&udp_echo(), "one", "", "two"]).said("Received 'one'\nReceived ''\nReceived 'two'\n");
}

#[test]
fn the_longest_datagram_goes_and_a_longer_one_is_refused() {
    let address = udp_echo();
    let mut input = vec![b'x'; 65_507];
    let ended = send_input(&[&address, "-"], input.clone());
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    assert!(ended.out == input, "the copy differs");
    input.push(b'x');
    let ended = send_input(&[&address, "-"], input.clone());
    ended.failed("usage", 64, &["65,507"]);
    let message = String::from_utf8(input).unwrap();
    send(&[&address, &message]).failed("usage", 64, &["65,508", "65,507"]);
}

#[test]
fn a_lost_datagram_is_a_timeout() {
    let address = udp(|_, _, _| {});
    send(&[&address, "--timeout", "50ms"]).failed("timeout", 75, &["within 50ms"]);
}

#[test]
fn datagrams_that_come_back_changed_are_detected() {
    let shorter = udp(|socket, datagram, source| {
        let half = &datagram[..datagram.len() / 2];
        socket.send_to(half, source).unwrap();
    });
    send(&[&shorter, "1234"]).failed("mismatch", 65, &["shorter", "sent 4 bytes, received 2"]);
    let longer = udp(|socket, datagram, source| {
        socket.send_to(&datagram.repeat(2), source).unwrap();
    });
    send(&[&longer, "1234"]).failed("mismatch", 65, &["longer than its 4 bytes"]);
    let changed = udp(|socket, datagram, source| {
        let other = datagram.to_ascii_uppercase();
        socket.send_to(&other, source).unwrap();
    });
    send(&[&changed, "ABcD"]).failed("mismatch", 65, &["at byte 2,", "('c')", "('C')"]);
}

#[test]
fn answers_from_other_sources_do_not_count() {
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = udp(move |socket, datagram, source| {
        other.send_to(b"something else", source).unwrap();
        socket.send_to(datagram, source).unwrap();
    });
    send(&[&address]).said("Received 'Hello, world!'\n");
}

#[test]
fn a_closed_udp_port_is_a_refusal() {
    // An address of its own, where no other test binds: the port stays free once the socket is closed.
    let address = UdpSocket::bind("127.0.0.4:0").and_then(|socket| socket.local_addr());
    let address = format!("udp://{}", address.unwrap());
    let hint = format!("'echo-reactor serve {address}'");
    send(&[&address]).failed("refused", 69, &[&hint]);
}

// --- Unix sockets ----------------------------------------------------------------------------------------------------

#[test]
fn unix_streams_are_supported() {
    let path = TestPath::new();
    let listener = UnixListener::bind(&path.0).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = echo(stream.unwrap(), |_| {});
        }
    });
    let address = format!("unix://{}", path.text());
    send(&[&address, "one", "two"]).said("Received 'one'\nReceived 'two'\n");
    let input = vec![b'x'; 1_000_000];
    assert!(send_input(&[&address, "-"], input.clone()).out == input);
    let swapped = format!("unixgram://{}", path.text());
    send(&[&swapped]).failed("io", 74, &["of the other kind"]);
}

#[test]
fn unix_datagrams_are_sent_from_a_bound_name() {
    let path = TestPath::new();
    let socket = UnixDatagram::bind(&path.0).unwrap();
    let (sender, sources) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, source)) = socket.recv_from(&mut buffer) {
            sender
                .send(source.as_pathname().map(PathBuf::from))
                .unwrap();
            let _ = socket.send_to_addr(&buffer[..length], &source);
        }
    });
    let address = format!("unixgram://{}", path.text());
    send(&[&address, "one", "two"]).said("Received 'one'\nReceived 'two'\n");
    assert_eq!(sources.try_iter().count(), 2);

    let source = TestPath::new();
    send(&[&address, "--source", source.text(), "x"]).said("Received 'x'\n");
    let seen = sources.recv_timeout(DEADLINE).unwrap();
    assert_eq!(seen.as_ref(), Some(&source.0));
    assert!(!source.0.exists(), "its file is gone with it");
}

// --- The command line ------------------------------------------------------------------------------------------------

#[test]
fn help_and_version_are_no_failures_and_a_call_without_arguments_is() {
    let run = |arguments: &[&str]| finish(program().args(arguments).spawn().unwrap());
    for arguments in [
        &["--help"][..],
        &["help"],
        &["send", "--help"],
        &["help", "serve"],
    ] {
        let ended = run(arguments);
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{arguments:?}");
        let out = String::from_utf8(ended.out).unwrap();
        assert!(out.contains("Examples:"), "{arguments:?}: {out}");
    }
    let version = format!("echo-reactor {}\n", env!("CARGO_PKG_VERSION"));
    run(&["--version"]).said(&version);

    let bare = run(&[]);
    assert_eq!((bare.code, bare.out.len()), (64, 0));
    assert!(
        bare.err.contains("Usage:") && bare.err.contains("Exit codes:"),
        "{}",
        bare.err
    );
}

#[test]
fn mistakes_are_reported_on_one_line() {
    send(&["localhost"]).failed("usage", 64, &["'localhost'", "no port"]);
    send(&["--timeout", "5"]).failed("usage", 64, &["'5'", "250ms"]);
    send(&["--nonsense"]).failed("usage", 64, &["--nonsense", "send --help"]);
    send(&["127.0.0.1:7", "--hex", "xyz"]).failed("usage", 64, &["'xyz'"]);
    send(&["127.0.0.1:0"]).failed("usage", 64, &["port 0"]);
    let forged = "127.0.0.1:7\nechoreactor: all is well";
    send(&[forged]).failed("usage", 64, &[]);
}
