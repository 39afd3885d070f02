//! Names and addresses: what the resolver says, what this machine has of it, and the client's own address.

use super::support::fault::{can, in_own_network, sh};
use super::support::{DEADLINE, Dir, Serve, ended, program, wrapped};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

/// The program in a mount namespace in which this text is the content of `path`.
fn with_file(directory: &Dir, path: &str, text: &str) -> Command {
    let file = directory.path("file");
    fs::write(&file, text).unwrap();
    let script = format!("mount --bind \"$0\" {path} && exec \"$@\"");
    wrapped(
        "unshare",
        &["-m", "sh", "-c", &script, file.to_str().unwrap()],
    )
}

const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n";

/// tornadoweb/tornado#2274, docker/for-linux#250: containers name ::1 in /etc/hosts and have no IPv6.
#[test]
fn a_name_is_served_on_the_families_that_there_are() {
    if !can(&["ip"]) {
        return;
    }
    in_own_network(&[], || {
        sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.lo.disable_ipv6=1");
        let directory = Dir::new();
        let mut command = with_file(&directory, "/etc/hosts", HOSTS);
        let server = Serve::start_command(
            command.args(["serve", "localhost:0", "udp://localhost:0"]),
            2,
        );
        for endpoint in &server.endpoints {
            assert!(endpoint.to_string().contains("://127.0.0.1:"), "{endpoint}");
        }
        let ended = server.stop(Signal::SIGTERM);
        assert_eq!(ended.code, 0, "{}", ended.err);
        assert_eq!(ended.err.matches("is left out").count(), 2, "{}", ended.err);

        let mut literal = program();
        let refused = super::support::ended(literal.args(["serve", "127.0.0.1:0", "[::1]:0"]));
        refused.failed(69, &["tcp://[::1]:0"]);
    });
}

/// A network in which the name server never answers, and a resolver that waits for it for minutes.
fn with_silent_resolver(test: impl FnOnce(Command) + Send) {
    in_own_network(&[], || {
        let _silent = UdpSocket::bind("127.0.0.53:53").unwrap();
        let directory = Dir::new();
        let text = "nameserver 127.0.0.53\noptions timeout:30 attempts:5\n";
        test(with_file(&directory, "/etc/resolv.conf", text));
    });
}

/// urllib3/urllib3#1334, hyperium/hyper#1994: the timeout did not cover the name.
#[test]
fn a_client_gives_a_silent_resolver_up_in_its_timeout() {
    if !can(&["ip"]) {
        return;
    }
    with_silent_resolver(|mut command| {
        let probe = ["send", "-q", "--timeout", "200ms", "nosuch.example:7"];
        let ended = ended(command.args(probe));
        ended.failed(68, &["nosuch.example:7", "within 200ms"]);
    });
}

#[test]
fn a_server_gives_a_silent_resolver_up_too() {
    if !can(&["ip"]) {
        return;
    }
    with_silent_resolver(|mut command| {
        let ended = ended(command.args(["serve", "nosuch.example:7"]));
        ended.failed(68, &["nosuch.example:7", "within 10s"]);
    });
}

/// A second thread costs instructions for every system call of a server, even after its end.
#[test]
fn a_server_resolves_names_in_another_process() {
    let directory = Dir::new();
    let trace = directory.path("trace");
    if !super::support::has_tool("strace") {
        return;
    }
    let options = [
        "-qq",
        "-e",
        "trace=clone,clone3",
        "-o",
        trace.to_str().unwrap(),
    ];
    let mut command = wrapped("strace", &options);
    let mut traced = Serve::spawn(command.args(["serve", "-q", "localhost:0"]));
    assert!(traced.comes_to_listen(1));
    // The tracer passes on no signal; the traced program is its child.
    let children = format!("/proc/{0}/task/{0}/children", traced.pid());
    let server = fs::read_to_string(children).unwrap();
    kill(
        Pid::from_raw(server.trim().parse().unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    assert_eq!(traced.wait().code, 0);
    let calls = fs::read_to_string(trace).unwrap();
    assert!(!calls.contains("CLONE_THREAD"), "{calls}");
}

#[test]
fn addresses_that_mean_one_socket_are_named() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let directory = Dir::new();
    let path = directory.address("unix", "s");
    let again = directory.address("unix", "./s");
    let datagrams = directory.address("unixgram", "s");
    let pairs = [
        (format!("127.0.0.1:{port}"), format!("127.0.0.1:{port}")),
        (format!("127.0.0.1:{port}"), format!("localhost:{port}")),
        (format!("0.0.0.0:{port}"), format!("127.0.0.1:{port}")),
        (format!("0.0.0.0:{port}"), format!(":{port}")),
        (path.clone(), path.clone()),
        (path.clone(), again),
        (path, datagrams),
        (
            "unix://@echo-it-twice".to_owned(),
            "unix://@echo-it-twice".to_owned(),
        ),
    ];
    for (first, second) in pairs {
        let ended = ended(program().args(["serve", &first, &second]));
        ended.failed(64, &[&second, "leave one of them out"]);
    }
    assert_eq!(fs::read_dir(directory.path(".")).unwrap().count(), 0);
}

/// UDP on all interfaces: the three ways of writing it differ in nothing but IPv6.
#[test]
fn all_interfaces_are_alike_over_udp() {
    for address in ["udp://:0", "udp://[::]:0", "udp://0.0.0.0:0"] {
        let refused = ended(program().args(["serve", address]));
        refused.failed(64, &["--allow-public-udp"]);
        let server = Serve::start(&[address], &["--allow-public-udp"]);
        let port = super::support::ip(&server.endpoints[0]).port();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client.send_to(b"x", ("127.0.0.5", port)).unwrap();
        let (_, source) = client.recv_from(&mut [0; 8]).unwrap();
        assert_eq!(source.to_string(), format!("127.0.0.5:{port}"), "{address}");
    }
}

// --- The client's own address ------------------------------------------------------------------------------------------

/// The port of a connection that this end closed first is in TIME_WAIT for a minute.
#[test]
fn a_source_port_can_be_used_twice_in_a_row() {
    let server = Serve::start(&["127.0.0.1:0"], &[]);
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let source = free.local_addr().unwrap().to_string();
    drop(free);
    for _ in 0..2 {
        let said = send(&server, &["--source", &source, "x"]);
        assert_eq!(
            (said.code, said.out.as_str()),
            (0, "Received 'x'\n"),
            "{}",
            said.err
        );
    }
}

#[test]
fn a_source_picks_the_family_of_a_name() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    server.set_read_timeout(Some(DEADLINE)).unwrap();
    let echo = thread::spawn(move || {
        let mut buffer = [0; 16];
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        server.send_to(&buffer[..length], from).unwrap();
    });
    // "All interfaces" has addresses of both families, on every machine.
    let address = format!("udp://:{port}");
    let said = ended(program().args(["send", &address, "--source", "127.0.0.1", "x"]));
    assert_eq!(said.code, 0, "{}", said.err);
    echo.join().unwrap();
    let refused = ended(program().args(["send", "127.0.0.1:7", "--source", "::1"]));
    refused.failed(64, &["--source", "an IPv4 address"]);
}

fn send(server: &Serve, arguments: &[&str]) -> super::support::Ended {
    let address = server.endpoints[0].to_string();
    ended(program().args(["send", &address]).args(arguments))
}

#[test]
fn a_source_file_that_was_left_behind_is_replaced_and_removed() {
    let directory = Dir::new();
    let address = directory.address("unixgram", "server");
    let server = Serve::start(&[&address], &[]);
    let own = directory.path("client");
    let source = own.to_str().unwrap();
    drop(UnixDatagram::bind(&own).unwrap());
    for _ in 0..2 {
        let said = send(&server, &["--source", source, "x"]);
        assert_eq!(
            (said.code, said.out.as_str()),
            (0, "Received 'x'\n"),
            "{}",
            said.err
        );
        assert!(!own.exists());
    }
    // One that is in use stays, and so does what is no socket.
    let used = UnixDatagram::bind(&own).unwrap();
    send(&server, &["--source", source, "x"]).failed(64, &["it is taken"]);
    drop(used);
    fs::remove_file(&own).unwrap();
    fs::write(&own, "text").unwrap();
    send(&server, &["--source", source, "x"]).failed(64, &["it is taken"]);
    assert_eq!(fs::read_to_string(&own).unwrap(), "text");
}

#[test]
fn a_signal_leaves_no_file_of_the_client_behind() {
    let directory = Dir::new();
    let silent = UnixDatagram::bind(directory.path("server")).unwrap();
    silent.set_read_timeout(Some(DEADLINE)).unwrap();
    let own = directory.path("client");
    let mut client = program()
        .args([
            "send",
            &directory.address("unixgram", "server"),
            "x",
            "--timeout",
            "60s",
        ])
        .args(["--source", own.to_str().unwrap()])
        .spawn()
        .unwrap();
    silent.recv(&mut [0; 8]).unwrap();
    assert!(own.exists());
    kill(Pid::from_raw(client.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(
        client.wait().unwrap().signal(),
        Some(Signal::SIGTERM as i32)
    );
    assert!(!own.exists());
}

/// Abstract names do not cross network namespaces, paths do.
#[test]
fn datagrams_over_a_path_are_answered_in_another_network_namespace() {
    if !can(&["ip"]) {
        return;
    }
    let (directory, temporary) = (Dir::new(), Dir::new());
    let address = directory.address("unixgram", "server");
    let server = UnixDatagram::bind(directory.path("server")).unwrap();
    server.set_read_timeout(Some(DEADLINE)).unwrap();
    let echo = thread::spawn(move || {
        let mut buffer = [0; 16];
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        server.send_to_addr(&buffer[..length], &from).unwrap();
    });
    in_own_network(&[], || {
        let mut command = program();
        command.env("TMPDIR", temporary.path("."));
        let said = ended(command.args(["send", &address, "x"]));
        assert_eq!(
            (said.code, said.out.as_str()),
            (0, "Received 'x'\n"),
            "{}",
            said.err
        );
    });
    echo.join().unwrap();
    assert_eq!(fs::read_dir(temporary.path(".")).unwrap().count(), 0);
}

// --- Values on the command line ----------------------------------------------------------------------------------------

/// Of a name with two addresses, `bench` loads the one that answers, as `send` does.
#[cfg(feature = "bench")]
#[test]
fn bench_takes_the_address_of_a_name_that_answers() {
    let listener = TcpListener::bind("[::1]:0");
    let Ok(listener) = listener else {
        return super::support::skip("this machine has no IPv6");
    };
    let port = listener.local_addr().unwrap().port();
    if TcpStream::connect_timeout(
        &format!("127.0.0.1:{port}").parse().unwrap(),
        Duration::from_secs(1),
    )
    .is_ok()
    {
        return super::support::skip("another program has this port");
    }
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut copy = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut stream, &mut copy);
            });
        }
    });
    let address = format!(":{port}");
    let run = ["bench", &address, "-q", "-c", "1", "-n", "10"];
    let said = ended(program().args(run));
    // A machine that is busy with other things makes the figures invalid, and no more.
    assert!([0, 4].contains(&said.code), "{} {}", said.out, said.err);
    assert!(said.err.contains("is taken"), "{}", said.err);
    assert!(
        said.out.contains(&format!("tcp://[::1]:{port}")),
        "{}",
        said.out
    );
}

#[cfg(feature = "bench")]
#[test]
fn numbers_mean_what_they_say_or_are_refused() {
    let cases: [(&[&str], &str); 6] = [
        (&["-r", "100,000"], "write 100000 for the number"),
        (&["-r", "1,500"], "'1, 500' with blanks for a list"),
        (&["-r", "1.500"], "its point could group digits"),
        (&["--active", "0.5"], "0.5% or 50%"),
        (&["--timeout", "0"], "--timeout 0 leaves no time"),
        (&["--server-pid", "4194399"], "no such process"),
    ];
    for (arguments, words) in cases {
        let refused = ended(program().args(["bench", "-q"]).args(arguments));
        refused.failed(64, &[words]);
    }
    let held = [
        "bench",
        "-q",
        "--hold",
        "2s",
        "-c",
        "1",
        "-d",
        "100ms",
        "--warm-up",
        "0",
    ];
    let said = ended(program().args(held));
    assert!(
        said.out.contains("open loop at 0.5 a second"),
        "{}",
        said.out
    );
}
